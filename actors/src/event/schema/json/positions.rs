//! Where schemas stand in a schema, and which keywords a draft has.
//!
//! What looks like a schema in an example, a default or a listed value is none: an `id` there is
//! data, and so is a `$ref`.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::percent_decode;

/// Keywords that hold one schema.
const ONE: [&str; 12] = [
    "additionalItems",
    "additionalProperties",
    "contains",
    "contentSchema",
    "else",
    "if",
    "items",
    "not",
    "propertyNames",
    "then",
    "unevaluatedItems",
    "unevaluatedProperties",
];

/// Keywords that hold a list of schemas.
const LISTS: [&str; 5] = ["allOf", "anyOf", "items", "oneOf", "prefixItems"];

/// Keywords that hold schemas by name.
const MAPS: [&str; 6] =
    ["$defs", "definitions", "dependencies", "dependentSchemas", "patternProperties", "properties"];

/// A version of JSON Schema, in the order of their years.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Draft {
    Four,
    Six,
    Seven,
    Of2019,
    Of2020,
}

impl Draft {
    /// The draft of a schema by what it says of itself; the last one if it says nothing.
    pub(super) fn of(root: &Value) -> Self {
        let named = root.get("$schema").and_then(Value::as_str).unwrap_or_default();
        let drafts = [
            ("draft-04", Self::Four),
            ("draft-06", Self::Six),
            ("draft-07", Self::Seven),
            ("2019-09", Self::Of2019),
        ];
        let found = drafts.iter().find(|(name, _)| named.contains(name));
        found.map_or(Self::Of2020, |(_, draft)| *draft)
    }

    /// What stands beside a `$ref` does not count.
    pub(super) fn is_legacy(self) -> bool {
        self <= Self::Seven
    }

    /// Whether a keyword means anything: to a validator of an older draft it is a name like any
    /// other.
    pub(super) fn knows(self, key: &str) -> bool {
        match key {
            "const" | "contains" | "propertyNames" => self >= Self::Six,
            "if" | "then" | "else" => self >= Self::Seven,
            "dependentRequired"
            | "dependentSchemas"
            | "maxContains"
            | "minContains"
            | "unevaluatedItems"
            | "unevaluatedProperties" => self >= Self::Of2019,
            "$recursiveRef" => self == Self::Of2019,
            "prefixItems" | "$dynamicRef" => self >= Self::Of2020,
            "additionalItems" => self <= Self::Of2019,
            _ => true,
        }
    }

    /// Whether a keyword means the same in both.
    pub(super) fn agrees(self, other: Self, key: &str) -> bool {
        self == other || (self.knows(key) && other.knows(key) && key != "dependencies")
    }

    /// The base that a schema gives to what is inside it.
    fn base(self, schema: &Value) -> Option<&str> {
        let key = if self == Self::Four { "id" } else { "$id" };
        schema.get(key).and_then(Value::as_str)
    }
}

/// Whether a schema inside has a base of its own, so that references inside it mean something
/// else.
pub(super) fn is_rebased(root: &Value, draft: Draft) -> bool {
    let mut seen = BTreeSet::from([std::ptr::from_ref(root)]);
    let mut open = vec![root];
    while let Some(schema) = open.pop() {
        let inside = subschemas(schema).chain(local(root, schema, draft));
        for schema in inside.filter(|inside| seen.insert(std::ptr::from_ref(*inside))) {
            if draft.base(schema).is_some() {
                return true;
            }
            open.push(schema);
        }
    }
    false
}

/// What a schema's reference leads to, if that is in the same text: it may be at a place where
/// no keyword has a schema.
fn local<'a>(root: &'a Value, schema: &'a Value, draft: Draft) -> Option<&'a Value> {
    target(root, draft, schema.get("$ref")?.as_str()?)
}

/// The value that a reference leads to; `None` if it leads out of the schema, or to an anchor.
pub(super) fn target<'a>(root: &'a Value, draft: Draft, reference: &str) -> Option<&'a Value> {
    let own = draft.base(root).map_or("", |id| id.trim_end_matches('#'));
    let (base, fragment) = reference.split_once('#')?;
    match base.is_empty() || base == own {
        true => root.pointer(&percent_decode(fragment)?),
        false => None,
    }
}

/// The schemas directly inside a schema.
pub(super) fn subschemas(schema: &Value) -> impl Iterator<Item = &Value> {
    let get = |key: &&str| schema.get(*key);
    let is_schema = |value: &&Value| value.is_object() || value.is_boolean();
    let lists = LISTS.iter().filter_map(get).filter_map(Value::as_array).flatten();
    let maps = MAPS.iter().filter_map(get).filter_map(Value::as_object).flat_map(Map::values);
    ONE.iter().filter_map(get).chain(lists).chain(maps).filter(is_schema)
}

/// How much a value is: how many values, and a bit for the length of its texts.
pub(super) fn weight(value: &Value) -> usize {
    match value {
        Value::Object(map) => {
            map.iter().map(|(key, value)| of_text(key) + weight(value)).sum::<usize>() + 1
        }
        Value::Array(list) => list.iter().map(weight).sum::<usize>() + 1,
        Value::String(text) => of_text(text) + 1,
        _ => 1,
    }
}

const fn of_text(text: &str) -> usize {
    text.len() / 32
}
