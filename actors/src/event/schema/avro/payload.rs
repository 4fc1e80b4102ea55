//! Avro payloads, read by the reference implementation.

use crate::event::schema::{PayloadError, SchemaKind};

const KIND: SchemaKind = SchemaKind::Avro;

/// Reads a datum without a header.
#[cfg(feature = "codec-avro")]
pub(in crate::event::schema) fn read(
    writer: &str,
    reader: &str,
    payload: &[u8],
) -> Result<(), PayloadError> {
    let schema = |text: &str| {
        apache_avro::Schema::parse_str(text)
            .map_err(|error| PayloadError::Unusable { kind: KIND, reason: error.to_string() })
    };
    let (writer, reader) = (schema(writer)?, schema(reader)?);
    let invalid = |reason| PayloadError::Invalid { kind: KIND, reasons: vec![reason] };
    let mut rest = payload;
    apache_avro::from_avro_datum(&writer, &mut rest, Some(&reader))
        .map_err(|error| invalid(error.to_string()))?;
    match rest.len() {
        0 => Ok(()),
        left => Err(invalid(format!("{left} bytes are left; is it of another version's schema?"))),
    }
}

/// Refuses, because there is nothing to read it with.
#[cfg(not(feature = "codec-avro"))]
pub(in crate::event::schema) fn read(_: &str, _: &str, _: &[u8]) -> Result<(), PayloadError> {
    let reason = "this program was built without the feature codec-avro".to_owned();
    Err(PayloadError::Unusable { kind: KIND, reason })
}
