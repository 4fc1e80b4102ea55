//! Whether values are taken by a part of a schema, for many values at once.

use std::collections::BTreeMap;

use jsonschema::Validator;
use serde_json::{Map, Value};

use super::numbers::equal;
use super::positions::subschemas;
use super::{JsonSchema, build, canonical};

/// Values, found again without a look at each.
pub(super) struct Listed<'a>(BTreeMap<String, Vec<&'a Value>>);

impl<'a> Listed<'a> {
    pub(super) fn of(values: impl IntoIterator<Item = &'a Value>) -> Self {
        let mut listed: BTreeMap<String, Vec<&Value>> = BTreeMap::new();
        for value in values {
            listed.entry(key(value)).or_default().push(value);
        }
        Self(listed)
    }

    /// Whether one of them equals a value, as JSON Schema has it.
    pub(super) fn has(&self, value: &Value) -> bool {
        self.0.get(&key(value)).is_some_and(|near| near.iter().any(|one| equal(one, value)))
    }
}

/// The same for values that are equal: numbers as floats, because 1 and 1.0 are. Two large integers
/// may have the same.
fn key(value: &Value) -> String {
    match value {
        Value::Number(number) => format!("{:?}", number.as_f64().unwrap_or_default() + 0.0),
        Value::Array(list) => format!("[{}]", list.iter().map(key).collect::<Vec<_>>().join(",")),
        Value::Object(map) => {
            let entry = |(name, value): (&String, &Value)| {
                format!("{}:{}", Value::from(name.as_str()), key(value))
            };
            let mut entries: Vec<_> = map.iter().map(entry).collect();
            entries.sort();
            format!("{{{}}}", entries.join(","))
        }
        scalar => canonical(scalar),
    }
}

/// What a part of a schema takes.
pub(super) struct Taker {
    around: JsonSchema,
    validator: Validator,
}

impl Taker {
    /// Of a schema that stands somewhere in `schema`; `None` if it cannot be known.
    pub(super) fn of(schema: &JsonSchema, part: &Map<String, Value>) -> Option<Self> {
        let part = Value::Object(part.clone());
        let mut around = Map::new();
        for key in ["$schema", "$defs", "definitions"] {
            if let Some(kept) = schema.root.get(key) {
                around.insert(key.to_owned(), kept.clone());
            }
        }
        around.insert("allOf".to_owned(), Value::Array(vec![part]));
        let around = Value::Object(around);
        // A reference to another place would lead nowhere in this smaller schema.
        if schema.rebased || !refers_to_definitions_only(&around) {
            return None;
        }
        let validator = build(&around).ok()?;
        Some(Self { around: JsonSchema::of(around), validator })
    }

    /// `None` if it would take too long to know.
    pub(super) fn takes(&self, value: &Value) -> Option<bool> {
        let known = !self.around.is_too_much(value);
        known.then(|| self.validator.is_valid(value))
    }
}

fn refers_to_definitions_only(schema: &Value) -> bool {
    let reference = schema.get("$ref").and_then(Value::as_str);
    reference.is_none_or(|to| to.starts_with("#/$defs/") || to.starts_with("#/definitions/"))
        && subschemas(schema).all(refers_to_definitions_only)
}
