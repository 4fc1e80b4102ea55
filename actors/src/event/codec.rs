//! Codecs: values as bytes and back, in four formats behind one port.
//!
//! | codec | of what | size¹ | when |
//! |---|---|---|---|
//! | [`Json`] | any serde type | 340 B | people and other programs read it |
//! | [`MessagePack`] | any serde type | 262 B | what events are written in unless said otherwise |
//! | `Protobuf` (feature `codec-protobuf`) | `prost` messages | 133 B | other programs have the `.proto` |
//! | `Avro` (feature `codec-avro`) | serde types and a schema | 115 B | schemas are resolved when read |
//!
//! ¹ An event of 13 fields with two nested items (`cargo bench --bench codec`).
//!
//! Bytes come from outside, so each codec refuses what would cost more than it is worth: payloads
//! above a [limit](MAX_PAYLOAD_BYTES), values that are [nested too deep](MAX_DEPTH), lengths and counts
//! that the bytes cannot hold, and bytes behind the value.
//!
//! ```
//! use mister_smith_actors::event::ContentType;
//! use mister_smith_actors::event::codec::{Codec, Json, MessagePack};
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Debug, PartialEq, Serialize, Deserialize)]
//! struct Placed {
//!     order: u64,
//!     cents: i64,
//! }
//!
//! let codecs: [Box<dyn Codec<Placed>>; 2] = [Box::new(Json::new()), Box::new(MessagePack::new())];
//! for codec in codecs {
//!     let placed = Placed { order: 7, cents: 250 };
//!     let bytes = codec.encode(&placed)?;
//!     assert_eq!(codec.decode(&bytes)?, placed, "{}", codec.content_type());
//! }
//! # Ok::<(), mister_smith_actors::event::codec::CodecError>(())
//! ```

use bytes::Bytes;

use super::ContentType;
use crate::error::ErrorClass;

#[cfg(feature = "codec-avro")]
pub(in crate::event) mod avro;
mod json;
mod message_pack;
#[cfg(feature = "codec-protobuf")]
pub mod protobuf;

#[cfg(feature = "codec-avro")]
pub use avro::Avro;
pub use json::Json;
pub use message_pack::MessagePack;
#[cfg(feature = "codec-protobuf")]
pub use protobuf::Protobuf;

#[cfg(test)]
mod tests;

/// The largest payload that is decoded, in bytes, unless said otherwise: 16 MiB, as much as the
/// HTTP edge takes.
pub const MAX_PAYLOAD_BYTES: usize = 16 << 20;

/// Values in MessagePack and JSON are nested less deep than this. Protobuf has 100, Avro 32.
pub const MAX_DEPTH: usize = 128;

/// Values as bytes and back.
///
/// What `encode` has written `decode` reads as the same value, as far as the format can hold it and
/// its limits go.
/// `decode` takes any bytes: what is no value is an error and never a panic, and costs no more
/// memory than the value would.
pub trait Codec<T>: Send + Sync {
    /// What the bytes are.
    fn content_type(&self) -> ContentType;

    /// The bytes of a value.
    ///
    /// # Errors
    /// The format or the schema cannot hold it.
    fn encode(&self, value: &T) -> Result<Bytes, CodecError>;

    /// The value of bytes.
    ///
    /// # Errors
    /// They are no such value, or are larger or deeper than is read.
    fn decode(&self, data: &[u8]) -> Result<T, CodecError>;
}

/// Why a value could not be written or read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CodecError {
    /// The format or the schema cannot hold the value.
    #[error("the value cannot be written as {codec}: {reason}")]
    Encode {
        /// The format.
        codec: ContentType,
        /// What is wrong.
        reason: String,
    },
    /// The bytes are no such value.
    #[error("the bytes are not this value in {codec}: {reason}")]
    Decode {
        /// The format.
        codec: ContentType,
        /// What is wrong.
        reason: String,
    },
    /// The payload is larger than is read.
    #[error("{bytes} bytes of {codec} are more than the limit of {limit}; raise it, or send less")]
    TooLarge {
        /// The format.
        codec: ContentType,
        /// How large it is.
        bytes: usize,
        /// What is read at most.
        limit: usize,
    },
    /// What was given as a schema is none.
    #[error("the text is no {codec} schema: {reason}")]
    Schema {
        /// The format.
        codec: ContentType,
        /// What is wrong.
        reason: String,
    },
}

impl CodecError {
    /// How to react.
    #[must_use]
    pub const fn class(&self) -> ErrorClass {
        match self {
            Self::Encode { .. } | Self::Schema { .. } => ErrorClass::User,
            Self::Decode { .. } | Self::TooLarge { .. } => ErrorClass::Permanent,
        }
    }

    fn encode(codec: ContentType, reason: impl ToString) -> Self {
        Self::Encode { codec, reason: reason.to_string() }
    }

    fn decode(codec: ContentType, reason: impl ToString) -> Self {
        Self::Decode { codec, reason: reason.to_string() }
    }
}

fn within(codec: ContentType, data: &[u8], limit: usize) -> Result<(), CodecError> {
    match data.len() > limit {
        true => Err(CodecError::TooLarge { codec, bytes: data.len(), limit }),
        false => Ok(()),
    }
}
