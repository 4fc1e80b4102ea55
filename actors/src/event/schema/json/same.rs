//! Whether two parts of two schemas say the same, word for word.

use std::collections::BTreeSet;

use serde_json::Value;

use super::JsonSchema;

/// How deep parts are looked into; what is deeper is taken to be different.
const MAX_DEPTH: usize = 256;

/// Pairs of references that were followed, and how deep this is.
#[derive(Default)]
struct Seen {
    pairs: BTreeSet<(String, String)>,
    depth: usize,
}

/// Whether a part of one schema says the same as a part of another, references followed.
pub(super) fn same(one: (&JsonSchema, &Value), other: (&JsonSchema, &Value)) -> bool {
    same_after(one, other, &mut Seen::default())
}

fn same_after(one: (&JsonSchema, &Value), other: (&JsonSchema, &Value), seen: &mut Seen) -> bool {
    if seen.depth > MAX_DEPTH {
        return false;
    }
    seen.depth += 1;
    let (left, right) = (one.0, other.0);
    let same = match (one.1, other.1) {
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len()
                && a.iter().all(|(key, a)| {
                    let Some(b) = b.get(key) else { return false };
                    match (a.as_str(), b.as_str()) {
                        (Some(a), Some(b)) if key == "$ref" => {
                            same_target((left, a), (right, b), seen)
                        }
                        // What they mean depends on where they were come from.
                        (Some(_), Some(_)) if key == "$dynamicRef" || key == "$recursiveRef" => {
                            false
                        }
                        _ => same_after((left, a), (right, b), seen),
                    }
                })
        }
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len()
                && a.iter().zip(b).all(|(a, b)| same_after((left, a), (right, b), seen))
        }
        (a, b) => a == b,
    };
    seen.depth -= 1;
    same
}

fn same_target(one: (&JsonSchema, &str), other: (&JsonSchema, &str), seen: &mut Seen) -> bool {
    if !seen.pairs.insert((one.1.to_owned(), other.1.to_owned())) {
        return true;
    }
    match (one.0.resolve(one.1), other.0.resolve(other.1)) {
        (Some(a), Some(b)) => same_after((one.0, a), (other.0, b), seen),
        // The same place elsewhere, whatever is there. A place within is only the same if it was
        // found, because what is there is of the schema itself.
        (None, None) => one.1 == other.1 && !one.1.starts_with('#') && !one.0.rebased,
        _ => false,
    }
}
