//! How often a validator would look at a payload.
//!
//! A validator follows each reference each time. A chain of definitions that each refer to the next
//! one twice makes it look 2^n times at one value, and a definition that holds itself twice does so
//! with each level of the payload. Both are counted here, each pair of a schema and a value once,
//! before the validator begins.

use std::collections::BTreeMap;

use serde_json::Value;

use super::JsonSchema;
use super::positions::subschemas;

/// How often values are looked at, at most: a second or so.
const MAX_VISITS: u64 = 10_000_000;

/// Keywords with one schema for the same value.
const SAME: [&str; 4] = ["else", "if", "not", "then"];

/// Keywords with a list of schemas for the same value.
const SAME_LISTS: [&str; 3] = ["allOf", "anyOf", "oneOf"];

/// Keywords with one schema for any property.
const PROPERTIES: [&str; 2] = ["additionalProperties", "unevaluatedProperties"];

/// Keywords with one schema for any element.
const ITEMS: [&str; 4] = ["additionalItems", "contains", "items", "unevaluatedItems"];

/// Whether something may be looked at more than once: a place is referred to from two. Others are
/// not worth the count.
pub(super) fn may_multiply(root: &Value) -> bool {
    fn refers<'a>(schema: &'a Value, seen: &mut BTreeMap<&'a str, ()>) -> bool {
        let reference = schema.get("$ref").and_then(Value::as_str);
        reference.is_some_and(|to| seen.insert(to, ()).is_some() || to == "#")
            || schema.get("$dynamicRef").is_some()
            || schema.get("$recursiveRef").is_some()
            || subschemas(schema).any(|inside| refers(inside, seen))
    }
    refers(root, &mut BTreeMap::new())
}

/// Whether a validator would look at a value, and what is in it, more often than is bearable.
pub(super) fn is_too_much(schema: &JsonSchema, value: &Value) -> bool {
    let mut count = Count { schema, known: BTreeMap::new() };
    count.visits(&schema.root, value) > MAX_VISITS
}

struct Count<'a> {
    schema: &'a JsonSchema,
    /// Of pairs of a schema and a value, by where they are; zero while they are being counted.
    known: BTreeMap<(*const Value, *const Value), u64>,
}

impl<'a> Count<'a> {
    fn visits(&mut self, schema: &'a Value, value: &Value) -> u64 {
        let pair = (std::ptr::from_ref(schema), std::ptr::from_ref(value));
        if let Some(known) = self.known.get(&pair) {
            return *known;
        }
        if self.known.len() as u64 > MAX_VISITS / 8 {
            return MAX_VISITS + 1;
        }
        self.known.insert(pair, 0);
        let mut visits = 1_u64;
        let mut add = |this: &mut Self, schema: &'a Value, value: &Value| {
            if visits <= MAX_VISITS {
                visits = visits.saturating_add(this.visits(schema, value));
            }
        };
        let target = schema.get("$ref").and_then(Value::as_str);
        if let Some(target) = target.and_then(|reference| self.schema.resolve(reference)) {
            add(self, target, value);
        }
        // They lead to somewhere that only a validator finds; the root is where most lead.
        if schema.get("$dynamicRef").or_else(|| schema.get("$recursiveRef")).is_some() {
            add(self, &self.schema.root, value);
        }
        let one = |key: &&str| schema.get(*key);
        for schema in SAME.iter().filter_map(one) {
            add(self, schema, value);
        }
        for schema in SAME_LISTS.iter().filter_map(one).filter_map(Value::as_array).flatten() {
            add(self, schema, value);
        }
        for key in ["dependentSchemas", "dependencies"] {
            for schema in schema.get(key).and_then(Value::as_object).into_iter().flatten() {
                add(self, schema.1, value);
            }
        }
        match value {
            Value::Object(map) => {
                let properties = schema.get("properties");
                let patterns = schema.get("patternProperties").and_then(Value::as_object);
                for (name, value) in map {
                    if let Some(schema) = properties.and_then(|all| all.get(name)) {
                        add(self, schema, value);
                    }
                    for (_, schema) in patterns.into_iter().flatten() {
                        add(self, schema, value);
                    }
                    for schema in PROPERTIES.iter().filter_map(one) {
                        add(self, schema, value);
                    }
                }
            }
            Value::Array(list) => {
                let first = |key: &str| {
                    schema.get(key).and_then(Value::as_array).map_or(&[][..], Vec::as_slice)
                };
                for (schema, value) in first("prefixItems").iter().zip(list) {
                    add(self, schema, value);
                }
                for (schema, value) in first("items").iter().zip(list) {
                    add(self, schema, value);
                }
                for schema in ITEMS.iter().filter_map(one).filter(|schema| !schema.is_array()) {
                    for value in list {
                        add(self, schema, value);
                    }
                }
            }
            _ => {}
        }
        self.known.insert(pair, visits);
        visits
    }
}
