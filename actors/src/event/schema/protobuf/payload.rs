//! Protobuf payloads: whether a reader with the schema takes the bytes.

use std::collections::BTreeSet;

use super::wire::{Fields, LENGTH, Wire, is_packed};
use super::{Field, Label, Of, ProtobufSchema, Scalar};
use crate::event::schema::compatibility::member;
use crate::event::schema::{MAX_REASONS, PayloadError, SchemaKind};

/// How deep messages are nested, at most; the limit of most readers.
const MAX_DEPTH: usize = 100;

/// Checks an encoded message. Fields that the schema does not know are skipped, as readers do.
pub(in crate::event::schema) fn check(
    schema: &ProtobufSchema,
    payload: &[u8],
) -> Result<(), PayloadError> {
    let mut check = Check { schema, reasons: Vec::new() };
    check.message(&schema.root, payload, &Place::Root, 0);
    match check.reasons.is_empty() {
        true => Ok(()),
        false => {
            let reasons = check.reasons;
            Err(PayloadError::Invalid { kind: SchemaKind::Protobuf, reasons })
        }
    }
}

/// Where a value stands. It is a text only when there is something to say: a payload may have
/// millions of values.
enum Place<'a> {
    Root,
    In(&'a Place<'a>, &'a str),
}

impl Place<'_> {
    fn text(&self) -> String {
        match self {
            Self::Root => String::new(),
            Self::In(around, name) => member(&around.text(), name),
        }
    }
}

struct Check<'a> {
    schema: &'a ProtobufSchema,
    reasons: Vec<String>,
}

impl<'a> Check<'a> {
    fn is_full(&self) -> bool {
        self.reasons.len() >= MAX_REASONS
    }

    fn say(&mut self, place: &Place<'_>, what: &str) {
        if !self.is_full() {
            let place = match place {
                Place::Root => "(root)".to_owned(),
                place => place.text(),
            };
            self.reasons.push(format!("{place}: {what}"));
        }
    }

    fn message(&mut self, name: &str, bytes: &[u8], place: &Place<'_>, depth: usize) {
        if depth > MAX_DEPTH {
            return self.say(place, "messages are nested too deep");
        }
        let schema: &'a ProtobufSchema = self.schema;
        let message = schema.message(name);
        let mut seen = BTreeSet::new();
        for next in Fields::of(bytes) {
            if self.is_full() {
                return;
            }
            let (number, value) = match next {
                Ok(next) => next,
                Err(reason) => return self.say(place, reason),
            };
            let Some(field) = message.fields.get(&number) else { continue };
            if field.label == Label::Required {
                seen.insert(number);
            }
            self.value(field, value, &Place::In(place, &field.name), depth);
        }
        for number in message.required.iter().filter(|number| !seen.contains(*number)) {
            if let Some(field) = message.fields.get(number) {
                self.say(&Place::In(place, &field.name), "it is required and missing");
            }
        }
    }

    fn value(&mut self, field: &Field, value: Wire<'_>, place: &Place<'_>, depth: usize) {
        match (&field.of, value) {
            (of, value) if !fits(field, &value) => {
                self.say(place, &format!("wire type {} is no {of}", value.wire_type()));
            }
            (Of::Message(name), Wire::Length(inner)) | (Of::Group(name), Wire::Group(inner)) => {
                self.message(name, inner, place, depth + 1);
            }
            (Of::Scalar(Scalar::String), Wire::Length(text)) if str::from_utf8(text).is_err() => {
                self.say(place, "the text is no UTF-8");
            }
            _ => {}
        }
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
