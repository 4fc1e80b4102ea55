//! JSON Schema: reading one, and checking payloads with it.

use std::sync::{Arc, OnceLock};

use jsonschema::Validator;
use jsonschema::error::ValidationErrorKind;
use serde_json::{Map, Value};

use super::{MAX_REASONS, PayloadError, SchemaError, SchemaKind};

pub(super) mod compare;
mod keywords;
mod merge;
mod numbers;
mod same;
mod types;

const KIND: SchemaKind = SchemaKind::JsonSchema;

/// A JSON Schema that a validator was made of, or would be if its references were there.
pub(super) struct JsonSchema {
    root: Arc<Value>,
    /// Drafts 4 to 7, in which what stands beside a `$ref` does not count.
    legacy: bool,
    /// A schema inside has a base of its own, and references inside it mean something else.
    rebased: bool,
    validator: OnceLock<Result<Validator, String>>,
}

impl JsonSchema {
    /// Reads a schema.
    pub(super) fn parse(text: &str) -> Result<Self, SchemaError> {
        let invalid = |place: &str, reason: String| SchemaError::invalid(KIND, place, reason);
        let root: Value =
            serde_json::from_str(text).map_err(|error| invalid("", error.to_string()))?;
        let validator = match build(&root) {
            Ok(validator) => Ok(validator),
            Err(error) => match error.kind() {
                // Only what leads out of the schema may be missing.
                ValidationErrorKind::Referencing(jsonschema::ReferencingError::Unretrievable {
                    uri,
                    ..
                }) => Err(format!(
                    "it refers to {uri}, and nothing is fetched; put that schema into its $defs"
                )),
                _ => return Err(invalid(error.instance_path().as_str(), error.to_string())),
            },
        };
        let draft = root.get("$schema").and_then(Value::as_str).unwrap_or_default();
        let legacy = ["draft-04", "draft-06", "draft-07"].iter().any(|old| draft.contains(old));
        let rebased = children(&root).any(has_base);
        Ok(Self { root: Arc::new(root), legacy, rebased, validator: OnceLock::from(validator) })
    }

    pub(super) fn root(&self) -> &Value {
        &self.root
    }

    /// Checks a JSON text.
    pub(super) fn validate(&self, payload: &[u8]) -> Result<(), PayloadError> {
        let invalid = |reasons| PayloadError::Invalid { kind: KIND, reasons };
        let value: Value = serde_json::from_slice(payload)
            .map_err(|error| invalid(vec![format!("it is no JSON: {error}")]))?;
        let validator = self.validator.get_or_init(|| build(&self.root).map_err(|e| e.to_string()));
        let validator = validator
            .as_ref()
            .map_err(|reason| PayloadError::Unusable { kind: KIND, reason: reason.clone() })?;
        // Values stay out of it: a payload may be secret, and an error is logged.
        let reasons: Vec<String> = validator
            .iter_errors(&value)
            .take(MAX_REASONS)
            .map(|error| format!("{} {}", pointer(error.instance_path().as_str()), error.masked()))
            .collect();
        if reasons.is_empty() { Ok(()) } else { Err(invalid(reasons)) }
    }

    /// The value that a reference leads to; `None` if it leads out of the schema, or is of a kind
    /// that only a validator can follow.
    fn resolve(&self, reference: &str) -> Option<&Value> {
        if self.rebased {
            return None;
        }
        let own = self.root.get("$id").or_else(|| self.root.get("id")).and_then(Value::as_str);
        let own = own.map_or("", |id| id.trim_end_matches('#'));
        let fragment = match reference.split_once('#') {
            Some((base, fragment)) if base.is_empty() || base == own => fragment,
            _ => return None,
        };
        // A fragment that is no pointer is an anchor.
        self.root.pointer(&percent_decode(fragment)?)
    }
}

fn pointer(path: &str) -> &str {
    if path.is_empty() { "(root):" } else { path }
}

/// A validator that fetches nothing, whatever features another crate turned on.
fn build(root: &Value) -> Result<Validator, jsonschema::ValidationError<'static>> {
    jsonschema::options().offline().build(root)
}

/// Whether a value is taken by a schema that stands somewhere in `root`; `None` if that cannot be
/// known.
fn accepts(schema: &JsonSchema, part: &Value, value: &Value) -> Option<bool> {
    let mut around = Map::new();
    for key in ["$schema", "$defs", "definitions"] {
        if let Some(kept) = schema.root.get(key) {
            around.insert(key.to_owned(), kept.clone());
        }
    }
    around.insert("allOf".to_owned(), Value::Array(vec![part.clone()]));
    let around = Value::Object(around);
    // A reference to another place would lead nowhere in this smaller schema.
    if schema.rebased || !refers_to_definitions_only(&around) {
        return None;
    }
    build(&around).ok().map(|validator| validator.is_valid(value))
}

fn refers_to_definitions_only(value: &Value) -> bool {
    let reference = value.get("$ref").and_then(Value::as_str);
    reference.is_none_or(|to| to.starts_with("#/$defs/") || to.starts_with("#/definitions/"))
        && children(value).all(refers_to_definitions_only)
}

fn has_base(value: &Value) -> bool {
    let own = ["$id", "id"].iter().any(|key| value.get(key).is_some_and(Value::is_string));
    own || children(value).any(has_base)
}

fn children(value: &Value) -> Box<dyn Iterator<Item = &Value> + '_> {
    match value {
        Value::Object(map) => Box::new(map.values()),
        Value::Array(list) => Box::new(list.iter()),
        _ => Box::new(std::iter::empty()),
    }
}

fn percent_decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        let mut byte = *first;
        if byte == b'%' {
            let hex = std::str::from_utf8(tail.get(..2)?).ok()?;
            byte = u8::from_str_radix(hex, 16).ok()?;
            rest = &tail[2..];
        }
        bytes.push(byte);
    }
    String::from_utf8(bytes).ok()
}

/// A JSON value as text, with the keys of every object in order.
pub(super) fn canonical(value: &Value) -> String {
    let mut text = String::new();
    write_canonical(value, &mut text);
    text
}

fn write_canonical(value: &Value, text: &mut String) {
    match value {
        Value::Object(map) => {
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_by_key(|(key, _)| key.as_str());
            text.push('{');
            for (index, (key, value)) in entries.into_iter().enumerate() {
                if index > 0 {
                    text.push(',');
                }
                text.push_str(&Value::from(key.as_str()).to_string());
                text.push(':');
                write_canonical(value, text);
            }
            text.push('}');
        }
        Value::Array(list) => {
            text.push('[');
            for (index, value) in list.iter().enumerate() {
                if index > 0 {
                    text.push(',');
                }
                write_canonical(value, text);
            }
            text.push(']');
        }
        scalar => text.push_str(&scalar.to_string()),
    }
}
