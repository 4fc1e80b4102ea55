//! Events as bytes: frames, and blocks of them that are read one by one.

use std::io::{Read, Write};
use std::sync::Arc;

use bytes::Bytes;
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::index::{Entry, Names};
use crate::event::{ContentType, EventId, Position, RecordedEvent, StreamId, Timestamp, Version};
use crate::store::MAX_EVENT_BYTES;

/// A block ends with this many events,
pub(super) const BLOCK_EVENTS: usize = 1_000;

/// or with the event that takes it to this many bytes.
pub(super) const BLOCK_BYTES: usize = 1 << 20;

/// What stands around the payload of an event at most.
const AROUND: usize = 4_096;

/// An event as it is written.
#[derive(Serialize, Deserialize)]
struct Frame {
    position: Position,
    stream: StreamId,
    version: Version,
    id: Uuid,
    event_type: Arc<str>,
    schema_version: u16,
    codec: ContentType,
    #[serde(with = "bytes_only")]
    data: Bytes,
    #[serde(with = "bytes_only")]
    meta: Bytes,
    recorded_at: Timestamp,
}

/// Bytes as MessagePack's own type for them, and not as a list of numbers.
mod bytes_only {
    pub(super) fn serialize<S: serde::Serializer>(
        bytes: &bytes::Bytes,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        to.serialize_bytes(bytes)
    }

    pub(super) fn deserialize<'de, D: serde::Deserializer<'de>>(
        from: D,
    ) -> Result<bytes::Bytes, D::Error> {
        serde::Deserialize::deserialize(from)
    }
}

impl From<RecordedEvent> for Frame {
    fn from(event: RecordedEvent) -> Self {
        Self {
            position: event.position,
            stream: event.stream,
            version: event.version,
            id: *event.id.as_uuid(),
            event_type: event.event_type,
            schema_version: event.schema_version,
            codec: event.codec,
            data: event.data,
            meta: event.meta,
            recorded_at: event.recorded_at,
        }
    }
}

impl From<Frame> for RecordedEvent {
    fn from(frame: Frame) -> Self {
        Self {
            position: frame.position,
            stream: frame.stream,
            version: frame.version,
            id: EventId::new(frame.id),
            event_type: frame.event_type,
            schema_version: frame.schema_version,
            codec: frame.codec,
            data: frame.data,
            meta: frame.meta,
            recorded_at: frame.recorded_at,
        }
    }
}

/// Events that will be a block.
#[derive(Debug, Default)]
pub(super) struct Block {
    events: Vec<RecordedEvent>,
    bytes: usize,
}

impl Block {
    pub(super) fn push(&mut self, event: RecordedEvent) {
        self.bytes += event.size();
        self.events.push(event);
    }

    pub(super) fn is_full(&self) -> bool {
        self.events.len() >= BLOCK_EVENTS || self.bytes >= BLOCK_BYTES
    }

    pub(super) fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// The bytes of the block, what the index says of it, and which streams are in it. Takes the
    /// time of a compression.
    pub(super) fn encode(self, offset: u64) -> std::io::Result<(Bytes, Entry, Names)> {
        let from = self.events.first().map_or(Position::ZERO, |event| event.position);
        let count = u32::try_from(self.events.len()).unwrap_or(u32::MAX);
        let mut names = Names::default();
        let mut gzip = GzEncoder::new(Vec::new(), Default::default());
        for event in self.events {
            names.insert(&event.stream);
            let frame =
                rmp_serde::to_vec_named(&Frame::from(event)).map_err(std::io::Error::other)?;
            let length = u32::try_from(frame.len()).map_err(std::io::Error::other)?;
            gzip.write_all(&length.to_be_bytes())?;
            gzip.write_all(&frame)?;
        }
        let bytes = Bytes::from(gzip.finish()?);
        let entry = Entry {
            from,
            count,
            offset,
            length: u32::try_from(bytes.len()).map_err(std::io::Error::other)?.into(),
            sha256: Some(Sha256::digest(&bytes).into()),
        };
        Ok((bytes, entry, names))
    }
}

/// The events of a block, in the order of positions and without a hole; else what is wrong.
/// Takes the time of a decompression.
pub(super) fn decode(bytes: &[u8], entry: &Entry) -> Result<Vec<RecordedEvent>, String> {
    if let Some(expected) = entry.sha256
        && <[u8; 32]>::from(Sha256::digest(bytes)) != expected
    {
        return Err(format!("the SHA-256 of the block at {} is not that of the index", entry.from));
    }
    let mut file = MultiGzDecoder::new(bytes);
    let mut events = Vec::with_capacity((entry.count as usize).min(BLOCK_EVENTS));
    let mut frame = Vec::new();
    for n in 0..u64::from(entry.count) {
        let position = entry.from.plus(n);
        let cut = |error: std::io::Error| format!("event {position}: {error}");
        let mut length = [0; 4];
        file.read_exact(&mut length).map_err(cut)?;
        let length = u32::from_be_bytes(length) as usize;
        if length > MAX_EVENT_BYTES + AROUND {
            return Err(format!("event {position} has {length} bytes"));
        }
        frame.resize(length, 0);
        file.read_exact(&mut frame).map_err(cut)?;
        let event: Frame = rmp_serde::from_slice(&frame).map_err(|error| error.to_string())?;
        if event.position != position {
            return Err(format!("event {} where {position} should be", event.position));
        }
        events.push(event.into());
    }
    Ok(events)
}
