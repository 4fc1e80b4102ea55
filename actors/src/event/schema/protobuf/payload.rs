//! Protobuf payloads: whether a reader with the schema takes the bytes.

use std::collections::BTreeSet;

use super::wire::{Fields, LENGTH, Wire, is_packed};
use super::{Field, Label, Of, ProtobufSchema, Scalar};
use crate::event::schema::compatibility::member;
use crate::event::schema::{PayloadError, SchemaKind};

/// How deep messages are nested, at most; the limit of most readers.
const MAX_DEPTH: usize = 100;

/// Checks an encoded message. Fields that the schema does not know are skipped, as readers do.
pub(in crate::event::schema) fn check(
    schema: &ProtobufSchema,
    payload: &[u8],
) -> Result<(), PayloadError> {
    let mut reasons = Vec::new();
    check_message(schema, &schema.root, payload, "", 0, &mut reasons);
    match reasons.is_empty() {
        true => Ok(()),
        false => Err(PayloadError::Invalid { kind: SchemaKind::Protobuf, reasons }),
    }
}

fn check_message(
    schema: &ProtobufSchema,
    name: &str,
    bytes: &[u8],
    path: &str,
    depth: usize,
    reasons: &mut Vec<String>,
) {
    if depth > MAX_DEPTH {
        reasons.push(format!("{path}: messages are nested too deep"));
        return;
    }
    let message = schema.message(name);
    let mut seen = BTreeSet::new();
    for next in Fields::of(bytes) {
        let (number, value) = match next {
            Ok(next) => next,
            Err(reason) => {
                let place = if path.is_empty() { "(root)" } else { path };
                reasons.push(format!("{place}: {reason}"));
                return;
            }
        };
        let Some(field) = message.fields.get(&number) else { continue };
        seen.insert(number);
        let path = member(path, &field.name);
        match (&field.of, value) {
            (of, value) if !fits(field, &value) => {
                let wire = value.wire_type();
                reasons.push(format!("{path}: wire type {wire} is no {of}"));
            }
            (Of::Message(name), Wire::Length(inner)) | (Of::Group(name), Wire::Group(inner)) => {
                check_message(schema, name, inner, &path, depth + 1, reasons);
            }
            (Of::Scalar(Scalar::String), Wire::Length(text)) if str::from_utf8(text).is_err() => {
                reasons.push(format!("{path}: the text is no UTF-8"));
            }
            _ => {}
        }
    }
    let required = message.fields.iter().filter(|(_, field)| field.label == Label::Required);
    for (_, field) in required.filter(|(number, _)| !seen.contains(*number)) {
        reasons.push(format!("{}: it is required and missing", member(path, &field.name)));
    }
}

/// Whether a value can be one of the field; lists of numbers come packed and one by one.
fn fits(field: &Field, value: &Wire<'_>) -> bool {
    let wire_type = field.of.wire_type();
    let packed = |bytes: &[u8]| {
        field.label == Label::Repeated && wire_type != LENGTH && is_packed(bytes, wire_type)
    };
    match value {
        Wire::Length(bytes) => wire_type == LENGTH || packed(bytes),
        value => value.wire_type() == wire_type,
    }
}
