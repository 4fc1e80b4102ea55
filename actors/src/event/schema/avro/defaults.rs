//! Defaults of fields: a reader may need any of them one day, so each has to be right.

use serde_json::Value;

use super::{AvroSchema, Primitive, Shape, Type, invalid};
use crate::event::schema::SchemaError;
use crate::event::schema::compatibility::member;

impl AvroSchema {
    /// Whether each default is a value of its field's type (of the first branch, for a union).
    pub(super) fn check_defaults(&self) -> Result<(), SchemaError> {
        for (name, named) in &self.named {
            let Shape::Record(fields) = &named.shape else { continue };
            for field in fields {
                let Some(default) = &field.default else { continue };
                if !self.is_default(&field.of, default) {
                    let of = match &field.of {
                        Type::Union(branches) if !branches.is_empty() => &branches[0],
                        of => of,
                    };
                    let reason = format!(
                        "the default {default} is no {}; a union's default is of its first branch",
                        self.describe(of)
                    );
                    return Err(invalid(&member(name, &field.name), reason));
                }
            }
        }
        Ok(())
    }

    fn is_default(&self, of: &Type, value: &Value) -> bool {
        match of {
            Type::Primitive(primitive, _) => is_primitive(*primitive, value),
            Type::Array(items) => value
                .as_array()
                .is_some_and(|values| values.iter().all(|value| self.is_default(items, value))),
            Type::Map(values) => value
                .as_object()
                .is_some_and(|map| map.values().all(|value| self.is_default(values, value))),
            Type::Union(branches) => {
                branches.first().is_some_and(|first| self.is_default(first, value))
            }
            Type::Named(name) => match self.named(name).map(|named| &named.shape) {
                Some(Shape::Enum { symbols, .. }) => {
                    value.as_str().is_some_and(|value| symbols.iter().any(|one| one == value))
                }
                Some(Shape::Fixed { size, .. }) => {
                    is_bytes(value)
                        && value.as_str().map(|text| text.chars().count() as u64) == Some(*size)
                }
                Some(Shape::Record(fields)) => value.as_object().is_some_and(|map| {
                    fields.iter().all(|field| match map.get(&field.name) {
                        Some(value) => self.is_default(&field.of, value),
                        None => field.default.is_some(),
                    })
                }),
                None => false,
            },
        }
    }
}

fn is_primitive(primitive: Primitive, value: &Value) -> bool {
    match primitive {
        Primitive::Null => value.is_null(),
        Primitive::Boolean => value.is_boolean(),
        Primitive::Int => value.as_i64().is_some_and(|number| i32::try_from(number).is_ok()),
        Primitive::Long => value.is_i64(),
        Primitive::Float | Primitive::Double => value.is_number(),
        Primitive::Bytes => is_bytes(value),
        Primitive::String => value.is_string(),
    }
}

/// Bytes are written as a text, each character one byte.
fn is_bytes(value: &Value) -> bool {
    value.as_str().is_some_and(|text| text.chars().all(|character| u32::from(character) < 256))
}
