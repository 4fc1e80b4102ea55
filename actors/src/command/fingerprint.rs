//! What tells two commands with one key apart: a hash of what serde writes of them.

use serde_json::Value;
use sha2::{Digest, Sha256};

/// The hash of a value: the same for the same members in another order.
pub(super) fn of(value: &Value) -> u64 {
    let mut hash = Sha256::new();
    feed(&mut hash, value);
    let digest = hash.finalize();
    digest[..8].iter().fold(0, |number, byte| (number << 8) | u64::from(*byte))
}

fn feed(hash: &mut Sha256, value: &Value) {
    let mut text = |kind: &[u8], text: &str| {
        hash.update(kind);
        hash.update((text.len() as u64).to_le_bytes());
        hash.update(text);
    };
    match value {
        Value::Null => hash.update(b"n"),
        Value::Bool(true) => hash.update(b"t"),
        Value::Bool(false) => hash.update(b"f"),
        Value::Number(number) => text(b"d", &number.to_string()),
        Value::String(string) => text(b"s", string),
        Value::Array(items) => {
            hash.update(b"a");
            hash.update((items.len() as u64).to_le_bytes());
            items.iter().for_each(|item| feed(hash, item));
        }
        Value::Object(members) => {
            let mut members: Vec<_> = members.iter().collect();
            members.sort_unstable_by_key(|(name, _)| *name);
            hash.update(b"o");
            hash.update((members.len() as u64).to_le_bytes());
            for (name, member) in members {
                hash.update((name.len() as u64).to_le_bytes());
                hash.update(name);
                feed(hash, member);
            }
        }
    }
}
