//! Schemas of events, version by version, and the proof that a new one breaks nobody.
//!
//! A subject (an event type's name, for example) has versions; a version is a [`Schema`] in JSON
//! Schema, Avro or Protobuf. [`SchemaRegistry::register`] takes a new version only if it is
//! compatible with the earlier ones in the subject's [`CompatibilityMode`], and otherwise says
//! which field breaks which rule, for which version, and what to do about it.
//!
//! | you want | look at |
//! |---|---|
//! | to keep schemas | [`SchemaRegistry`] |
//! | to compare two schemas without a registry | [`compatibility::check`] |
//! | to check a payload | [`Schema::validate`], [`Schema::read`] |
//! | a test that fails before an old event becomes unreadable | [`contract::Contract`] |
//!
//! The rules are pure functions of two schemas. Nothing is fetched: a reference that leads out of
//! a schema is never followed.
//!
//! ```
//! use mister_smith_actors::event::schema::{CompatibilityMode, Schema, compatibility};
//!
//! let old = Schema::avro(r#"{"type": "record", "name": "Placed", "fields": [
//!     {"name": "cents", "type": "int"}]}"#)?;
//! let new = Schema::avro(r#"{"type": "record", "name": "Placed", "fields": [
//!     {"name": "cents", "type": "long"}, {"name": "currency", "type": "string"}]}"#)?;
//!
//! let found = compatibility::check(CompatibilityMode::Backward, &new, [(1, &old)]);
//! assert_eq!(found.len(), 1, "an int can be read as a long");
//! assert_eq!(found[0].problem.path, "currency");
//! # Ok::<(), mister_smith_actors::event::schema::SchemaError>(())
//! ```

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::error::ErrorClass;

mod avro;
pub mod compatibility;
pub mod contract;
mod json;
mod protobuf;
pub mod registry;
pub mod storage;

pub use compatibility::{CompatibilityMode, IncompatibleSchema};
pub use registry::{RegistryError, SchemaRegistry};
pub use storage::{MemorySchemaStorage, SchemaStorage};

#[cfg(test)]
mod tests;

/// The number of a schema in its subject: gapless, first is 1. As wide as an event's
/// [`schema_version`](super::NewEvent::schema_version), so that an event's version can be looked
/// up as it is.
pub type SchemaVersion = u16;

/// The largest schema, in bytes (1 MiB): a comparison reads all of it.
pub const MAX_SCHEMA_BYTES: usize = 1 << 20;

/// How many things that are wrong with one payload are told; each of its values could be wrong.
const MAX_REASONS: usize = 32;

/// The language that a schema is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum SchemaKind {
    /// JSON Schema, drafts 4 to 2020-12.
    JsonSchema,
    /// Apache Avro.
    Avro,
    /// Protocol Buffers: proto2, proto3 and editions.
    Protobuf,
}

impl SchemaKind {
    /// Its name, as JSON has it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::JsonSchema => "json_schema",
            Self::Avro => "avro",
            Self::Protobuf => "protobuf",
        }
    }
}

impl fmt::Display for SchemaKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A schema that was read and found well-formed. Cheap to clone.
///
/// Two schemas are equal if their [fingerprints](Self::fingerprint) are.
#[derive(Clone, Serialize, Deserialize)]
#[serde(try_from = "Source", into = "Source")]
pub struct Schema(Arc<Inner>);

struct Inner {
    source: Source,
    parsed: Parsed,
    fingerprint: Fingerprint,
}

/// A schema as it was given, and as it is stored.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Source {
    JsonSchema(Arc<str>),
    Avro(Arc<str>),
    Protobuf { descriptors: Bytes, message: Arc<str> },
}

enum Parsed {
    Json(json::JsonSchema),
    Avro(avro::AvroSchema),
    Protobuf(protobuf::ProtobufSchema),
}

impl Schema {
    /// A JSON Schema. Its `$schema` says which draft; 2020-12 if it has none.
    ///
    /// # Errors
    /// The text is no JSON, or no schema of its draft, or refers to a place in itself that is not
    /// there. A reference to elsewhere is taken, and never followed.
    pub fn json(text: impl Into<Arc<str>>) -> Result<Self, SchemaError> {
        Self::parse(Source::JsonSchema(text.into()))
    }

    /// An Avro schema.
    ///
    /// # Errors
    /// The text is no JSON, or no schema: a name is unknown or taken, or a default is not of its
    /// field's type.
    pub fn avro(text: impl Into<Arc<str>>) -> Result<Self, SchemaError> {
        Self::parse(Source::Avro(text.into()))
    }

    /// A Protobuf message by its full name (`shop.v1.OrderPlaced`), in an encoded
    /// `FileDescriptorSet` as `protoc --include_imports --descriptor_set_out` writes it.
    ///
    /// # Errors
    /// The bytes are no descriptor set, or it lacks the message or a type that the message uses.
    pub fn protobuf(
        descriptors: impl Into<Bytes>,
        message: impl Into<Arc<str>>,
    ) -> Result<Self, SchemaError> {
        Self::parse(Source::Protobuf { descriptors: descriptors.into(), message: message.into() })
    }

    fn parse(source: Source) -> Result<Self, SchemaError> {
        let (kind, bytes) = (source.kind(), source.bytes().len());
        if bytes > MAX_SCHEMA_BYTES {
            return Err(SchemaError::TooLarge { kind, bytes });
        }
        let (parsed, canonical) = match &source {
            Source::JsonSchema(text) => {
                let schema = json::JsonSchema::parse(text)?;
                let canonical = json::canonical(schema.root());
                (Parsed::Json(schema), canonical)
            }
            Source::Avro(text) => {
                let (schema, value) = avro::AvroSchema::parse(text)?;
                (Parsed::Avro(schema), json::canonical(&value))
            }
            Source::Protobuf { descriptors, message } => {
                let schema = protobuf::ProtobufSchema::parse(descriptors, message)?;
                let canonical = schema.canonical();
                (Parsed::Protobuf(schema), canonical)
            }
        };
        let fingerprint = Fingerprint::of(kind, &canonical);
        Ok(Self(Arc::new(Inner { source, parsed, fingerprint })))
    }

    /// The language it is written in.
    #[must_use]
    pub fn kind(&self) -> SchemaKind {
        self.0.source.kind()
    }

    /// What it is, whatever it looks like; see [`Fingerprint`].
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        self.0.fingerprint
    }

    /// Its bytes as they were given: the text, or the descriptor set.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.0.source.bytes()
    }

    /// Its text as it was given; `None` for Protobuf.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        match &self.0.source {
            Source::JsonSchema(text) | Source::Avro(text) => Some(text),
            Source::Protobuf { .. } => None,
        }
    }

    /// The full name of the message; `None` unless it is Protobuf.
    #[must_use]
    pub fn message(&self) -> Option<&str> {
        match &self.0.source {
            Source::Protobuf { message, .. } => Some(message),
            Source::JsonSchema(_) | Source::Avro(_) => None,
        }
    }

    /// Checks a payload that was written under this schema: a JSON text, an Avro datum without a
    /// header, a Protobuf message. The same as [`read`](Self::read) by itself.
    ///
    /// # Errors
    /// The payload is not of this schema.
    pub fn validate(&self, payload: &[u8]) -> Result<(), PayloadError> {
        self.read(self, payload)
    }

    /// Checks that this schema, as a reader's, can read a payload that was written under
    /// `writer`. Only Avro needs to know the writer's schema; the others do not look at it.
    ///
    /// # Errors
    /// The payload cannot be read. Avro needs the feature `codec-avro`.
    pub fn read(&self, writer: &Self, payload: &[u8]) -> Result<(), PayloadError> {
        match (&self.0.parsed, &writer.0.parsed) {
            (Parsed::Json(schema), _) => schema.validate(payload),
            (Parsed::Protobuf(schema), _) => protobuf::payload::check(schema, payload),
            (Parsed::Avro(reader), Parsed::Avro(from)) => {
                let text = |schema: &'_ Self| schema.text().map(str::to_owned).unwrap_or_default();
                let reader = reader.payloads(|| text(self))?;
                let is = writer.fingerprint();
                let writer = from.payloads(|| text(writer))?;
                avro::payload::read((writer, is), reader, payload)
            }
            (Parsed::Avro(_), _) => {
                Err(PayloadError::Kind { reader: self.kind(), writer: writer.kind() })
            }
        }
    }

    /// What stops this schema, as a reader's, from reading everything that `writer` may have
    /// written; nothing if it can.
    #[must_use]
    pub fn problems_with(&self, writer: &Self) -> Vec<compatibility::Problem> {
        if self == writer {
            return Vec::new();
        }
        match (&self.0.parsed, &writer.0.parsed) {
            (Parsed::Json(reader), Parsed::Json(writer)) => json::compare::problems(reader, writer),
            (Parsed::Avro(reader), Parsed::Avro(writer)) => avro::resolve::problems(reader, writer),
            (Parsed::Protobuf(reader), Parsed::Protobuf(writer)) => {
                protobuf::compare::problems(reader, writer)
            }
            _ => vec![compatibility::Problem {
                path: String::new(),
                rule: compatibility::Rule::Kind,
                detail: format!("it is written as {} and read as {}", writer.kind(), self.kind()),
            }],
        }
    }
}

impl PartialEq for Schema {
    fn eq(&self, other: &Self) -> bool {
        self.fingerprint() == other.fingerprint()
    }
}

impl Eq for Schema {}

impl fmt::Debug for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Schema")
            .field("kind", &self.kind())
            .field("fingerprint", &self.fingerprint())
            .finish_non_exhaustive()
    }
}

impl Source {
    const fn kind(&self) -> SchemaKind {
        match self {
            Self::JsonSchema(_) => SchemaKind::JsonSchema,
            Self::Avro(_) => SchemaKind::Avro,
            Self::Protobuf { .. } => SchemaKind::Protobuf,
        }
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Self::JsonSchema(text) | Self::Avro(text) => text.as_bytes(),
            Self::Protobuf { descriptors, .. } => descriptors,
        }
    }
}

impl TryFrom<Source> for Schema {
    type Error = SchemaError;

    fn try_from(source: Source) -> Result<Self, Self::Error> {
        Self::parse(source)
    }
}

impl From<Schema> for Source {
    fn from(schema: Schema) -> Self {
        schema.0.source.clone()
    }
}

/// SHA-256 of a schema's kind and canonical form.
///
/// White space and the order of keys do not count in JSON Schema and Avro; nor do comments, file
/// names and messages that are not used in Protobuf. Everything else does, documentation in JSON
/// Schema and Avro too.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    fn of(kind: SchemaKind, canonical: &str) -> Self {
        let mut hash = Sha256::new();
        hash.update(kind.as_str());
        hash.update([0]);
        hash.update(canonical);
        Self(hash.finalize().into())
    }

    /// The bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({self})")
    }
}

/// Why something is no schema.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SchemaError {
    /// It is too large.
    #[error("the {kind} schema has {bytes} bytes, at most {MAX_SCHEMA_BYTES} are taken; split it")]
    TooLarge {
        /// Its language.
        kind: SchemaKind,
        /// How many it has.
        bytes: usize,
    },
    /// It is not well-formed.
    #[error("no {kind} schema, {place}: {reason}")]
    Invalid {
        /// The language it should be in.
        kind: SchemaKind,
        /// Where in the schema.
        place: String,
        /// What is wrong, and what to do.
        reason: String,
    },
}

impl SchemaError {
    /// How to react.
    pub const fn class(&self) -> ErrorClass {
        match self {
            Self::TooLarge { .. } | Self::Invalid { .. } => ErrorClass::User,
        }
    }

    fn invalid(kind: SchemaKind, place: impl Into<String>, reason: impl Into<String>) -> Self {
        let place = place.into();
        let place = if place.is_empty() { "at its root".to_owned() } else { format!("at {place}") };
        Self::Invalid { kind, place, reason: reason.into() }
    }
}

/// Why a payload is not of a schema.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PayloadError {
    /// It cannot be read with the schema.
    #[error("the payload is not of the {kind} schema: {}", reasons.join("; "))]
    Invalid {
        /// The language of the schema.
        kind: SchemaKind,
        /// What is wrong with it, each with its place; the first 32, if there is more.
        reasons: Vec<String>,
    },
    /// The schema itself cannot be used to check payloads.
    #[error("payloads cannot be checked with the {kind} schema: {reason}")]
    Unusable {
        /// The language of the schema.
        kind: SchemaKind,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// Reader and writer have schemas in different languages.
    #[error("a payload written as {writer} cannot be read as {reader}; give the writer's schema")]
    Kind {
        /// The language of the reader's schema.
        reader: SchemaKind,
        /// The language of the writer's schema.
        writer: SchemaKind,
    },
}

impl PayloadError {
    /// How to react.
    pub const fn class(&self) -> ErrorClass {
        match self {
            Self::Invalid { .. } | Self::Kind { .. } => ErrorClass::User,
            Self::Unusable { .. } => ErrorClass::Permanent,
        }
    }
}
