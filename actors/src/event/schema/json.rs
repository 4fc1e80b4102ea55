//! JSON Schema: reading one, and checking payloads with it.

use std::sync::{Arc, OnceLock};

use jsonschema::Validator;
use jsonschema::error::ValidationErrorKind;
use serde_json::Value;

use super::{MAX_REASONS, PayloadError, SchemaError, SchemaKind};

pub(super) mod compare;
mod expansion;
mod keywords;
mod merge;
mod numbers;
mod positions;
mod same;
mod side;
mod types;
mod values;

use positions::Draft;

const KIND: SchemaKind = SchemaKind::JsonSchema;

/// A JSON Schema that a validator was made of, or would be if its references were there.
pub(super) struct JsonSchema {
    root: Arc<Value>,
    draft: Draft,
    /// A schema inside has a base of its own, and references inside it mean something else.
    rebased: bool,
    /// Its references may make a validator look at the same value many times.
    multiplies: bool,
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
        Ok(Self { validator: OnceLock::from(validator), ..Self::of(root) })
    }

    /// Without a validator.
    fn of(root: Value) -> Self {
        let draft = Draft::of(&root);
        let rebased = positions::is_rebased(&root, draft);
        let multiplies = expansion::may_multiply(&root);
        Self { root: Arc::new(root), draft, rebased, multiplies, validator: OnceLock::new() }
    }

    /// Whether a validator would look at a value too often.
    fn is_too_much(&self, value: &Value) -> bool {
        self.multiplies && expansion::is_too_much(self, value)
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
        if self.is_too_much(&value) {
            let reason = "its references multiply: this payload would be looked at many million \
                          times; refer to each definition once for each value";
            return Err(PayloadError::Unusable { kind: KIND, reason: reason.to_owned() });
        }
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
        positions::target(&self.root, self.draft, reference)
    }
}

fn pointer(path: &str) -> &str {
    if path.is_empty() { "(root):" } else { path }
}

/// A validator that fetches nothing, whatever features another crate turned on.
fn build(root: &Value) -> Result<Validator, jsonschema::ValidationError<'static>> {
    jsonschema::options().offline().build(root)
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
