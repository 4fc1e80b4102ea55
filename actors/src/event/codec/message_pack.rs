//! MessagePack with field names, for whatever serde knows.

use std::convert::Infallible;
use std::fmt;

use bytes::Bytes;
use rmp_serde::decode::Error;
use serde::Serialize;
use serde::de::{DeserializeOwned, Deserializer, Visitor};

use super::{Codec, CodecError, MAX_DEPTH, MAX_PAYLOAD_BYTES, within};
use crate::event::ContentType;

const PACK: ContentType = ContentType::MessagePack;

/// MessagePack with structs as maps from field names, so that fields may come, go and change
/// places. Fields that a type does not know are passed over. How deep a value is nested is known only
/// when it is read: one that is too deep is written, and refused then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MessagePack {
    limit: usize,
}

impl MessagePack {
    /// MessagePack up to [`MAX_PAYLOAD_BYTES`].
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

impl Default for MessagePack {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Serialize + DeserializeOwned> Codec<T> for MessagePack {
    fn content_type(&self) -> ContentType {
        PACK
    }

    fn encode(&self, value: &T) -> Result<Bytes, CodecError> {
        let packed = rmp_serde::to_vec_named(value);
        packed.map(Bytes::from).map_err(|error| CodecError::encode(PACK, error))
    }

    fn decode(&self, data: &[u8]) -> Result<T, CodecError> {
        within(PACK, data, self.limit)?;
        let mut reader = rmp_serde::Deserializer::from_read_ref(data);
        reader.set_max_depth(MAX_DEPTH);
        let value = T::deserialize(&mut reader).map_err(|error| CodecError::decode(PACK, error))?;
        match reader.deserialize_any(Nothing) {
            // There is not even the first byte of something.
            Err(Error::InvalidMarkerRead(_)) => Ok(value),
            _ => Err(CodecError::decode(PACK, "there are bytes behind the value")),
        }
    }
}

/// Takes no value at all: the reader does not say how far it is.
struct Nothing;

impl Visitor<'_> for Nothing {
    type Value = Infallible;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("nothing")
    }
}
