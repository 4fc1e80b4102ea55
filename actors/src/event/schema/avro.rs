//! Avro: reading a schema.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::OnceLock;

use serde_json::{Map, Value};

use super::{PayloadError, SchemaError, SchemaKind};

mod defaults;
mod parse;
pub(super) mod payload;
pub(super) mod resolve;

/// A schema whose names are all known.
pub(super) struct AvroSchema {
    root: Type,
    named: BTreeMap<String, Named>,
    /// What payloads are checked with, made for the first of them.
    payloads: OnceLock<Result<payload::Payloads, String>>,
}

/// What a field, an element or a branch is of.
#[derive(Debug, Clone, PartialEq)]
enum Type {
    /// With the name of its logical type, if it has one that is known.
    Primitive(Primitive, Option<String>),
    Array(Box<Type>),
    Map(Box<Type>),
    Union(Vec<Type>),
    /// By its full name.
    Named(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Primitive {
    Null,
    Boolean,
    Int,
    Long,
    Float,
    Double,
    Bytes,
    String,
}

/// A type that has a name.
#[derive(Debug)]
struct Named {
    /// Full names that it is known by, too.
    aliases: Vec<String>,
    shape: Shape,
}

#[derive(Debug)]
enum Shape {
    Record(Vec<Field>),
    Enum { symbols: Vec<String>, default: Option<String> },
    Fixed { size: u64, logical: Option<String> },
}

#[derive(Debug)]
struct Field {
    name: String,
    aliases: Vec<String>,
    of: Type,
    default: Option<Value>,
}

impl Primitive {
    const ALL: [Self; 8] = [
        Self::Null,
        Self::Boolean,
        Self::Int,
        Self::Long,
        Self::Float,
        Self::Double,
        Self::Bytes,
        Self::String,
    ];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Boolean => "boolean",
            Self::Int => "int",
            Self::Long => "long",
            Self::Float => "float",
            Self::Double => "double",
            Self::Bytes => "bytes",
            Self::String => "string",
        }
    }

    fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|primitive| primitive.as_str() == name)
    }
}

impl Shape {
    const fn as_str(&self) -> &'static str {
        match self {
            Self::Record(_) => "record",
            Self::Enum { .. } => "enum",
            Self::Fixed { .. } => "fixed",
        }
    }
}

impl AvroSchema {
    /// Reads a schema; the JSON beside it is what the text says.
    pub(super) fn parse(text: &str) -> Result<(Self, Value), SchemaError> {
        let value: Value =
            serde_json::from_str(text).map_err(|error| invalid("", error.to_string()))?;
        let mut named = BTreeMap::new();
        let root = parse::parse(&value, &mut named)?;
        let schema = Self { root, named, payloads: OnceLock::new() };
        schema.check_defaults()?;
        Ok((schema, value))
    }

    /// What payloads are checked with. `text` is the schema's.
    pub(super) fn payloads(
        &self,
        text: impl FnOnce() -> String,
    ) -> Result<&payload::Payloads, PayloadError> {
        let made = self.payloads.get_or_init(|| payload::Payloads::of(&text()));
        let unusable = |reason: &String| PayloadError::Unusable {
            kind: SchemaKind::Avro,
            reason: reason.clone(),
        };
        made.as_ref().map_err(unusable)
    }

    fn named(&self, name: &str) -> Option<&Named> {
        self.named.get(name)
    }

    /// A type in words.
    fn describe(&self, of: &Type) -> String {
        match of {
            Type::Primitive(primitive, None) => primitive.as_str().to_owned(),
            Type::Primitive(primitive, Some(logical)) => {
                format!("{} ({logical})", primitive.as_str())
            }
            Type::Array(items) => format!("array of {}", self.describe(items)),
            Type::Map(values) => format!("map of {}", self.describe(values)),
            Type::Union(branches) => {
                let branches: Vec<_> = branches.iter().map(|one| self.describe(one)).collect();
                format!("union of {}", branches.join(", "))
            }
            Type::Named(name) => {
                let shape = self.named(name).map_or("type", |named| named.shape.as_str());
                format!("{shape} {name}")
            }
        }
    }
}

impl fmt::Debug for AvroSchema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.describe(&self.root))
    }
}

/// A name without its namespace.
fn unqualified(name: &str) -> &str {
    name.rsplit_once('.').map_or(name, |(_, last)| last)
}

fn text<'a>(map: &'a Map<String, Value>, key: &str) -> Option<&'a str> {
    map.get(key).and_then(Value::as_str)
}

fn invalid(place: &str, reason: impl Into<String>) -> SchemaError {
    SchemaError::invalid(SchemaKind::Avro, place, reason)
}
