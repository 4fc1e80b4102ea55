//! The vocabulary of events: what is written, where it stands, and when.
//!
//! Nothing here reads a clock or draws a random number. Ids and times come in as arguments, so
//! that a seeded run writes the same log twice.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

pub mod codec;
pub mod compression;
pub mod flow;
pub mod metadata;
mod number;
#[cfg(feature = "schema")]
pub mod schema;
mod stream_id;
mod timestamp;
pub mod typed;
pub mod upcast;

pub use metadata::Metadata;
pub use number::{Position, Version};
pub use stream_id::{InvalidStreamId, StreamId};
pub use timestamp::{InvalidTimestamp, Timestamp};
pub use typed::{Decoder, EncodedEvent, Event, EventCodecError};

#[cfg(test)]
mod tests;

/// The identity of one event; a UUID of version 7 made by the caller.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default,
)]
#[serde(transparent)]
pub struct EventId(Uuid);

impl EventId {
    /// Wraps an id that the caller made, usually by `Uuid::new_v7` from the node's clock.
    pub const fn new(id: Uuid) -> Self {
        Self(id)
    }

    /// A version 7 UUID (RFC 9562) of a time and 74 random bits.
    pub fn at(time: Timestamp, high: u64, low: u64) -> Self {
        let millis = u64::try_from(time.as_micros() / 1_000).unwrap_or(0);
        let mut random = [0; 10];
        random[..8].copy_from_slice(&high.to_be_bytes());
        random[8..].copy_from_slice(&low.to_be_bytes()[..2]);
        Self(uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid())
    }

    /// The id as a UUID.
    pub const fn as_uuid(&self) -> &Uuid {
        &self.0
    }
}

impl From<Uuid> for EventId {
    fn from(id: Uuid) -> Self {
        Self(id)
    }
}

impl std::fmt::Display for EventId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// How the bytes of an event's data are to be read.
///
/// The store keeps it next to the bytes and never looks inside them.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default,
)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum ContentType {
    /// Bytes that only the application understands.
    Raw,
    /// UTF-8 JSON.
    Json,
    /// MessagePack with field names.
    #[default]
    MessagePack,
    /// A Protobuf message; which one, the event's type says.
    Protobuf,
    /// An Avro datum without a header; which schema wrote it, the event's type and the version of
    /// its schema say.
    Avro,
}

impl ContentType {
    /// The number that stands for it in a database. Numbers are never reused.
    pub const fn code(self) -> u8 {
        match self {
            Self::Raw => 0,
            Self::Json => 1,
            Self::MessagePack => 2,
            Self::Protobuf => 3,
            Self::Avro => 4,
        }
    }

    /// The content type of a number read from a database; `None` if a newer version wrote it.
    pub const fn from_code(code: u8) -> Option<Self> {
        match code {
            0 => Some(Self::Raw),
            1 => Some(Self::Json),
            2 => Some(Self::MessagePack),
            3 => Some(Self::Protobuf),
            4 => Some(Self::Avro),
            _ => None,
        }
    }

    /// Whether serde reads it, with no schema but the Rust type.
    const fn is_serde(self) -> bool {
        matches!(self, Self::Json | Self::MessagePack)
    }

    /// The media type, as HTTP names it.
    pub const fn media_type(self) -> &'static str {
        match self {
            Self::Raw => "application/octet-stream",
            Self::Json => "application/json",
            Self::MessagePack => "application/msgpack",
            Self::Protobuf => "application/protobuf",
            Self::Avro => "application/avro",
        }
    }

    /// The content type of a media type, by any of the names that are in use for it. Parameters
    /// and case do not matter. `None` if it is another one.
    ///
    /// ```
    /// use mister_smith_actors::event::ContentType;
    ///
    /// let sent = "Application/X-Protobuf; messageType=\"shop.Order\"";
    /// assert_eq!(ContentType::from_media_type(sent), Some(ContentType::Protobuf));
    /// assert_eq!(ContentType::from_media_type("text/html"), None);
    /// ```
    #[must_use]
    pub fn from_media_type(media_type: &str) -> Option<Self> {
        let name = media_type.split(';').next().unwrap_or_default().trim();
        let known = |(names, content_type): &(&[&str], Self)| {
            names.iter().any(|known| name.eq_ignore_ascii_case(known)).then_some(*content_type)
        };
        MEDIA_TYPES.iter().find_map(known)
    }
}

/// The media types that are understood; what is written is [`ContentType::media_type`].
const MEDIA_TYPES: [(&[&str], ContentType); 5] = [
    (&["application/octet-stream"], ContentType::Raw),
    (&["application/json", "text/json"], ContentType::Json),
    (
        &["application/msgpack", "application/x-msgpack", "application/vnd.msgpack"],
        ContentType::MessagePack,
    ),
    (
        &["application/protobuf", "application/x-protobuf", "application/vnd.google.protobuf"],
        ContentType::Protobuf,
    ),
    (&["application/avro", "avro/binary", "application/vnd.apache.avro"], ContentType::Avro),
];

impl std::fmt::Display for ContentType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Raw => "raw bytes",
            Self::Json => "JSON",
            Self::MessagePack => "MessagePack",
            Self::Protobuf => "Protobuf",
            Self::Avro => "Avro",
        })
    }
}

/// An event that is not in the log yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewEvent {
    /// Identity, made by the caller.
    pub id: EventId,
    /// Name of the type, 1 to [`MAX_EVENT_TYPE_BYTES`] bytes, without control characters.
    pub event_type: Arc<str>,
    /// Version of the type's schema, starting at 1.
    pub schema_version: u16,
    /// How `data` is to be read.
    pub codec: ContentType,
    /// The payload.
    pub data: Bytes,
    /// Metadata (correlation, causation, headers), MessagePack with field names; may be empty.
    pub meta: Bytes,
    /// When it happened, by the caller's clock.
    pub recorded_at: Timestamp,
}

/// The longest name of an event type, in bytes.
pub const MAX_EVENT_TYPE_BYTES: usize = 256;

impl NewEvent {
    /// An event of schema version 1 without metadata; set the other fields directly.
    pub fn new(
        id: EventId,
        event_type: impl Into<Arc<str>>,
        codec: ContentType,
        data: impl Into<Bytes>,
        recorded_at: Timestamp,
    ) -> Self {
        Self {
            id,
            event_type: event_type.into(),
            schema_version: 1,
            codec,
            data: data.into(),
            meta: Bytes::new(),
            recorded_at,
        }
    }

    /// Bytes of payload and metadata.
    pub fn size(&self) -> usize {
        self.data.len() + self.meta.len()
    }
}

/// An event in the log. Cheap to clone: everything large in it is shared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordedEvent {
    /// Place in the whole log: gapless, in the order of commits, first is 1.
    pub position: Position,
    /// The stream it belongs to.
    pub stream: StreamId,
    /// Place in its stream: gapless, first is 1.
    pub version: Version,
    /// Identity, as the caller gave it.
    pub id: EventId,
    /// Name of the type.
    pub event_type: Arc<str>,
    /// Version of the type's schema.
    pub schema_version: u16,
    /// How `data` is to be read.
    pub codec: ContentType,
    /// The payload, as the caller gave it.
    pub data: Bytes,
    /// Metadata, as the caller gave it.
    pub meta: Bytes,
    /// When it happened, as the caller gave it.
    pub recorded_at: Timestamp,
}

impl RecordedEvent {
    /// What `event` becomes when it is written at this place.
    pub fn at(position: Position, stream: StreamId, version: Version, event: NewEvent) -> Self {
        let NewEvent { id, event_type, schema_version, codec, data, meta, recorded_at } = event;
        Self {
            position,
            stream,
            version,
            id,
            event_type,
            schema_version,
            codec,
            data,
            meta,
            recorded_at,
        }
    }

    /// Bytes of payload and metadata.
    pub fn size(&self) -> usize {
        self.data.len() + self.meta.len()
    }
}
