//! Avro payloads: found to be whole and of bounded size by the codec's walk over the bytes. What
//! another schema reads is then resolved by the reference implementation, which by itself believes
//! any length and any depth.

use crate::event::schema::PayloadError;
#[cfg(feature = "codec-avro")]
use crate::event::{codec::avro::names, codec::avro::shape::Shapes, schema::SchemaKind};

/// A schema as payloads are checked with it.
#[cfg(feature = "codec-avro")]
pub(in crate::event::schema) struct Payloads {
    schema: apache_avro::Schema,
    shapes: Shapes,
}

#[cfg(feature = "codec-avro")]
impl Payloads {
    /// Reads the schema's text, or says why it is of no use.
    pub(super) fn of(text: &str) -> Result<Self, String> {
        names::check(text)?;
        let schema = apache_avro::Schema::parse_str(text).map_err(|error| error.to_string())?;
        let shapes = Shapes::of(&schema).map_err(|error| error.to_string())?;
        Ok(Self { schema, shapes })
    }
}

/// Reads a datum without a header.
#[cfg(feature = "codec-avro")]
pub(in crate::event::schema) fn read(
    writer: &Payloads,
    reader: &Payloads,
    payload: &[u8],
) -> Result<(), PayloadError> {
    let invalid = |reason| PayloadError::Invalid { kind: SchemaKind::Avro, reasons: vec![reason] };
    writer.shapes.check(payload).map_err(invalid)?;
    if std::ptr::eq(writer, reader) {
        return Ok(());
    }
    apache_avro::from_avro_datum(&writer.schema, &mut &*payload, Some(&reader.schema))
        .map(drop)
        .map_err(|error| invalid(error.to_string()))
}

/// Nothing to check payloads with.
#[cfg(not(feature = "codec-avro"))]
pub(in crate::event::schema) enum Payloads {}

#[cfg(not(feature = "codec-avro"))]
impl Payloads {
    pub(super) fn of(_: &str) -> Result<Self, String> {
        Err("this program was built without the feature codec-avro".to_owned())
    }
}

/// Cannot be called, because there is nothing to read with.
#[cfg(not(feature = "codec-avro"))]
pub(in crate::event::schema) fn read(
    writer: &Payloads,
    _: &Payloads,
    _: &[u8],
) -> Result<(), PayloadError> {
    match *writer {}
}
