//! Defaults of fields: a reader may need any of them one day, so each has to be right.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{AvroSchema, Primitive, Shape, Type, invalid};
use crate::event::schema::SchemaError;
use crate::event::schema::compatibility::member;

/// How many values and fields are looked at, at most: each element of a list may be a record whose
/// fields are all looked for.
const MAX_STEPS: usize = 2_000_000;

impl AvroSchema {
    /// Whether each default is a value of its field's type (of the first branch, for a union).
    pub(super) fn check_defaults(&self) -> Result<(), SchemaError> {
        let symbols = |named: &super::Named| match &named.shape {
            Shape::Enum { symbols, .. } => symbols.iter().cloned().collect(),
            _ => BTreeSet::new(),
        };
        let symbols = self.named.iter().map(|(name, named)| (name.as_str(), symbols(named)));
        let mut check = Check { schema: self, symbols: symbols.collect(), steps: 0 };
        for (name, named) in &self.named {
            let Shape::Record(fields) = &named.shape else { continue };
            for field in fields {
                let Some(default) = &field.default else { continue };
                let fits = check.is_default(&field.of, default);
                if check.steps > MAX_STEPS {
                    let reason = "its default is too large to be checked; give a smaller one";
                    return Err(invalid(&member(name, &field.name), reason));
                }
                if !fits {
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
}

struct Check<'a> {
    schema: &'a AvroSchema,
    /// Of each enum.
    symbols: BTreeMap<&'a str, BTreeSet<String>>,
    steps: usize,
}

impl Check<'_> {
    /// Also `false` when it takes too long.
    fn is_default(&mut self, of: &Type, value: &Value) -> bool {
        self.steps += 1;
        if self.steps > MAX_STEPS {
            return false;
        }
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
            Type::Named(name) => match self.schema.named(name).map(|named| &named.shape) {
                Some(Shape::Enum { .. }) => value.as_str().is_some_and(|value| {
                    self.symbols.get(name.as_str()).is_some_and(|known| known.contains(value))
                }),
                Some(Shape::Fixed { size, .. }) => {
                    is_bytes(value)
                        && value.as_str().map(|text| text.chars().count() as u64) == Some(*size)
                }
                Some(Shape::Record(fields)) => value.as_object().is_some_and(|map| {
                    self.steps += fields.len();
                    self.steps <= MAX_STEPS
                        && fields.iter().all(|field| match map.get(&field.name) {
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
