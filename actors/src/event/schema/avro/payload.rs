//! Avro payloads: the codec's walk over the bytes, which makes nothing of them. What another schema
//! wrote is walked through as the reader has it.

use crate::event::schema::{Fingerprint, PayloadError};
#[cfg(feature = "codec-avro")]
use {
    crate::event::codec::avro::names,
    crate::event::codec::avro::shape::Shapes,
    crate::event::schema::SchemaKind,
    std::sync::{Arc, Mutex, PoisonError},
};

/// A schema as payloads are checked with it.
#[cfg(feature = "codec-avro")]
pub(in crate::event::schema) struct Payloads {
    shapes: Shapes,
    resolved: Mutex<Vec<(Fingerprint, Arc<Shapes>)>>,
}

/// Of how many writers' schemas it is kept how they are read.
#[cfg(feature = "codec-avro")]
const KEPT: usize = 16;

#[cfg(feature = "codec-avro")]
impl Payloads {
    /// Reads the schema's text, or says why it is of no use.
    pub(super) fn of(text: &str) -> Result<Self, String> {
        names::check(text)?;
        let schema = apache_avro::Schema::parse_str(text).map_err(|error| error.to_string())?;
        let shapes = Shapes::of(&schema).map_err(|error| error.to_string())?;
        Ok(Self { shapes, resolved: Mutex::default() })
    }

    /// How a writer's payloads are read.
    fn resolved(&self, writer: &Self, is: Fingerprint) -> Result<Arc<Shapes>, String> {
        let kept = || self.resolved.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, known)) = kept().iter().find(|(known, _)| *known == is) {
            return Ok(Arc::clone(known));
        }
        let made = Arc::new(Shapes::resolved(&writer.shapes, &self.shapes)?);
        let mut kept = kept();
        if kept.len() >= KEPT {
            kept.remove(0);
        }
        kept.push((is, Arc::clone(&made)));
        Ok(made)
    }
}

/// Reads a datum without a header. `is` is the writer's schema.
#[cfg(feature = "codec-avro")]
pub(in crate::event::schema) fn read(
    (writer, is): (&Payloads, Fingerprint),
    reader: &Payloads,
    payload: &[u8],
) -> Result<(), PayloadError> {
    let invalid = |reason| PayloadError::Invalid { kind: SchemaKind::Avro, reasons: vec![reason] };
    if std::ptr::eq(writer, reader) {
        return writer.shapes.check(payload).map_err(invalid);
    }
    let unusable = |reason| PayloadError::Unusable { kind: SchemaKind::Avro, reason };
    reader.resolved(writer, is).map_err(unusable)?.check(payload).map_err(invalid)
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
    (writer, _): (&Payloads, Fingerprint),
    _: &Payloads,
    _: &[u8],
) -> Result<(), PayloadError> {
    match *writer {}
}
