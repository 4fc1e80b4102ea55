//! JSON, for whatever serde knows.

use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};

use super::{Codec, CodecError, MAX_PAYLOAD_BYTES, within};
use crate::event::ContentType;

const JSON: ContentType = ContentType::Json;

/// UTF-8 JSON (RFC 8259), without blanks. Fields that a type does not know are passed over. How deep a
/// value is nested is known only when it is read: one that is too deep is written, and refused then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Json {
    limit: usize,
}

impl Json {
    /// JSON up to [`MAX_PAYLOAD_BYTES`].
    #[must_use]
    pub const fn new() -> Self {
        Self { limit: MAX_PAYLOAD_BYTES }
    }

    /// Sets how many bytes are decoded at most.
    #[must_use]
    pub const fn limit(mut self, bytes: usize) -> Self {
        self.limit = bytes;
        self
    }
}

impl Default for Json {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Serialize + DeserializeOwned> Codec<T> for Json {
    fn content_type(&self) -> ContentType {
        JSON
    }

    fn encode(&self, value: &T) -> Result<Bytes, CodecError> {
        serde_json::to_vec(value).map(Bytes::from).map_err(|error| CodecError::encode(JSON, error))
    }

    fn decode(&self, data: &[u8]) -> Result<T, CodecError> {
        within(JSON, data, self.limit)?;
        serde_json::from_slice(data).map_err(|error| CodecError::decode(JSON, error))
    }
}
