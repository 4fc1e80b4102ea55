//! Whether two parts of two schemas say the same, word for word.

use std::collections::BTreeSet;

use serde_json::Value;

use super::positions::weight;
use super::side::Side;

/// How deep parts are looked into; what is deeper is taken to be different.
const MAX_DEPTH: usize = 256;

/// Pairs of references that were followed, and how deep this is.
#[derive(Default)]
struct Seen {
    pairs: BTreeSet<(String, String)>,
    depth: usize,
}

/// Whether a part of one schema says the same as a part of another, references followed.
pub(super) fn same(one: (Side<'_>, &Value), other: (Side<'_>, &Value)) -> bool {
    same_after(one, other, &mut Seen::default())
}

fn same_after(one: (Side<'_>, &Value), other: (Side<'_>, &Value), seen: &mut Seen) -> bool {
    let (left, right) = (one.0, other.0);
    if seen.depth > MAX_DEPTH || !left.work.go_on(1) {
        return false;
    }
    seen.depth += 1;
    let drafts = (left.schema.draft, right.schema.draft);
    let same = match (one.1, other.1) {
        (Value::Object(a), Value::Object(b)) => {
            let len = a.len();
            len == b.len()
                && a.iter().all(|(key, a)| {
                    let Some(b) = b.get(key) else { return false };
                    // What an older draft does not know says nothing in it, and nor does what
                    // stands beside a reference.
                    if !drafts.0.agrees(drafts.1, key)
                        || (key == "$ref"
                            && len > 1
                            && drafts.0.is_legacy() != drafts.1.is_legacy())
                    {
                        return false;
                    }
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
        (a, b) => left.work.go_on(weight(a)) && a == b,
    };
    seen.depth -= 1;
    same
}

fn same_target(one: (Side<'_>, &str), other: (Side<'_>, &str), seen: &mut Seen) -> bool {
    if !seen.pairs.insert((one.1.to_owned(), other.1.to_owned())) {
        return true;
    }
    let left = one.0;
    match (left.resolve(one.1), other.0.resolve(other.1)) {
        (Some(a), Some(b)) => same_after((left, a), (other.0, b), seen),
        // The same place elsewhere, whatever is there. A place within is only the same if it was
        // found, because what is there is of the schema itself.
        (None, None) => one.1 == other.1 && !one.1.starts_with('#') && !left.schema.rebased,
        _ => false,
    }
}
