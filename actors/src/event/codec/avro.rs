//! Avro data without a header, for whatever serde knows.
//!
//! Schemas are parsed by the reference implementation. The bytes are [written](write), [read](read)
//! and [checked](walk) here, between serde and the [shape](shape::Shapes) of the schema, and so is
//! what one schema wrote and another [has otherwise](resolve): the reference implementation makes
//! a value of its own of everything, writes the fields of a struct in the order of Rust instead of
//! the schema's, and reads lengths that the bytes cannot hold, missing ends and endless nesting as
//! if they were right.

use std::fmt;

use apache_avro::Schema;
use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};

use super::{Codec, CodecError, MAX_PAYLOAD_BYTES, within};
use crate::event::ContentType;
use shape::Shapes;

mod fault;
pub(in crate::event) mod names;
mod read;
mod resolve;
pub(in crate::event) mod shape;
mod walk;
mod write;

/// How deep values are nested, at most; a branch of a union is one step, and so is what it holds.
/// Unoptimized, a level takes some kilobytes of the stack, and the type's own code is in each.
const MAX_DEPTH: usize = 32;

const AVRO: ContentType = ContentType::Avro;

/// Avro data of one schema, read as they are or as another schema has it.
///
/// ```
/// use mister_smith_actors::event::codec::{Avro, Codec};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Debug, PartialEq, Serialize, Deserialize)]
/// struct Placed {
///     order: i64,
///     note: Option<String>,
/// }
///
/// // Version 1 knew no notes; today's schema gives them a default.
/// let first = r#"{"type": "record", "name": "Placed", "fields": [
///     {"name": "order", "type": "long"}]}"#;
/// let today = r#"{"type": "record", "name": "Placed", "fields": [
///     {"name": "order", "type": "long"},
///     {"name": "note", "type": ["null", "string"], "default": null}]}"#;
///
/// let codec = Avro::new(today)?;
/// let placed = Placed { order: 7, note: Some("gift".to_owned()) };
/// let bytes = codec.encode(&placed)?;
/// assert_eq!(&bytes[..], b"\x0e\x02\x08gift");
/// let back: Placed = codec.decode(&bytes)?;
/// assert_eq!(back, placed);
///
/// let earlier = Avro::new(first)?.read_as(today)?;
/// let back: Placed = earlier.decode(b"\x0e")?;
/// assert_eq!(back, Placed { order: 7, note: None });
/// # Ok::<(), mister_smith_actors::event::codec::CodecError>(())
/// ```
///
/// Fields are found by name, in any order; one that the schema does not have, or that the value
/// lacks and that may not be null, is an error. Of a union the first branch that can hold the
/// value is written. Values are nested 32 deep at most. Enums without content are Avro enums; enums with content have no Avro form.
pub struct Avro {
    name: Option<String>,
    /// How it is written.
    shapes: Shapes,
    /// How that is read, if it is by another schema.
    resolved: Option<Shapes>,
    limit: usize,
}

impl Avro {
    /// Data that are written, and read, with one schema: the JSON text of a `.avsc` file.
    ///
    /// # Errors
    /// The text is no Avro schema.
    pub fn new(schema: &str) -> Result<Self, CodecError> {
        let writer = parse(schema)?;
        let name = writer.name().map(ToString::to_string);
        let shapes = Shapes::of(&writer)?;
        Ok(Self { name, shapes, resolved: None, limit: MAX_PAYLOAD_BYTES })
    }

    /// Reads what the writer's schema wrote as a reader's schema has it, by Avro's rules of schema
    /// resolution.
    ///
    /// # Errors
    /// The text is no Avro schema, or too large to be read as.
    pub fn read_as(mut self, schema: &str) -> Result<Self, CodecError> {
        let reader = Shapes::of(&parse(schema)?)?;
        let resolved = Shapes::resolved(&self.shapes, &reader);
        self.resolved =
            Some(resolved.map_err(|reason| CodecError::Schema { codec: AVRO, reason })?);
        Ok(self)
    }

    /// Sets how many bytes are decoded at most.
    #[must_use]
    pub fn limit(mut self, bytes: usize) -> Self {
        self.limit = bytes;
        self
    }
}

fn parse(schema: &str) -> Result<Schema, CodecError> {
    let none =
        |error: apache_avro::Error| CodecError::Schema { codec: AVRO, reason: error.to_string() };
    names::check(schema).map_err(|reason| CodecError::Schema { codec: AVRO, reason })?;
    Schema::parse_str(schema).map_err(none)
}

impl<T: Serialize + DeserializeOwned> Codec<T> for Avro {
    fn content_type(&self) -> ContentType {
        AVRO
    }

    fn encode(&self, value: &T) -> Result<Bytes, CodecError> {
        self.shapes.write(value).map_err(|fault| CodecError::encode(AVRO, fault))
    }

    fn decode(&self, data: &[u8]) -> Result<T, CodecError> {
        within(AVRO, data, self.limit)?;
        let shapes = self.resolved.as_ref().unwrap_or(&self.shapes);
        shapes.read(data).map_err(|fault| CodecError::decode(AVRO, fault))
    }
}

impl fmt::Debug for Avro {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Avro")
            .field("writer", &self.name)
            .field("limit", &self.limit)
            .finish_non_exhaustive()
    }
}
