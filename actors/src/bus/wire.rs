//! A message as it travels between processes: a subject, an id, headers, and bytes.
//!
//! The headers say what the bytes are, so that a receiver that is not this program can read them
//! too. Their names are those of HTTP where it has one, and begin with `Smith-` elsewhere.

use std::collections::BTreeMap;

use bytes::Bytes;
use uuid::Uuid;

use super::message::{Message, NewMessage};
use super::subject::{InvalidSubject, Subject};
use crate::error::ErrorClass;
use crate::event::compression::{self, Compression, CompressionError, Encoding};
use crate::event::{
    ContentType, EncodedEvent, EventCodecError, EventId, Metadata, Position, RecordedEvent,
    StreamId, Timestamp,
};
use crate::store::IdempotencyKey;

mod check;

pub use check::Unsendable;

/// The payload's media type.
pub const CONTENT_TYPE: &str = "Content-Type";
/// How the payload was compressed, if it was.
pub const CONTENT_ENCODING: &str = "Content-Encoding";
/// The event's type.
pub const TYPE: &str = "Smith-Type";
/// The version of the type's schema.
pub const SCHEMA: &str = "Smith-Schema";
/// The event's id, a UUID.
pub const EVENT_ID: &str = "Smith-Event-Id";
/// When it was recorded, in microseconds since 1970.
pub const AT: &str = "Smith-At";
/// The log that it comes from.
pub const STORE: &str = "Smith-Store";
/// Its stream in that log.
pub const STREAM: &str = "Smith-Stream";
/// Its place in that log.
pub const POSITION: &str = "Smith-Position";
/// The conversation that it belongs to.
pub const CORRELATION: &str = "Smith-Correlation-Id";
/// What caused it.
pub const CAUSATION: &str = "Smith-Causation-Id";
/// Who asked for it.
pub const ACTOR: &str = "Smith-Actor";

/// What this module says of a message itself.
const OURS: [&str; 11] = [
    CONTENT_TYPE,
    TYPE,
    SCHEMA,
    EVENT_ID,
    AT,
    STORE,
    STREAM,
    POSITION,
    CORRELATION,
    CAUSATION,
    ACTOR,
];

/// A message on the wire.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct WireMessage {
    /// Where it is published.
    pub subject: String,
    /// What a repeat is told by: the same for the same message, whoever sends it how often.
    pub id: String,
    /// What is known of it.
    pub headers: BTreeMap<String, String>,
    /// The bytes.
    pub payload: Bytes,
}

impl WireMessage {
    /// Bytes for a subject, under an id.
    pub fn new(subject: &Subject, id: impl Into<String>, payload: impl Into<Bytes>) -> Self {
        Self {
            subject: subject.to_string(),
            id: id.into(),
            headers: BTreeMap::new(),
            payload: payload.into(),
        }
    }

    /// Bytes that answer a request: where they go, the request knows.
    pub fn answer(payload: impl Into<Bytes>) -> Self {
        Self { payload: payload.into(), ..Self::default() }
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl ToString) -> Self {
        // A line end would begin another header.
        let value = value.to_string().replace(['\r', '\n'], " ");
        self.headers.insert(name.to_owned(), value);
        self
    }

    fn optional(self, name: &str, value: Option<impl ToString>) -> Self {
        match value {
            Some(value) => self.header(name, value),
            None => self,
        }
    }

    fn event(self, id: EventId, at: Timestamp, event: &EncodedEvent, meta: &Metadata) -> Self {
        self.header(CONTENT_TYPE, event.codec.media_type())
            .header(TYPE, &event.event_type)
            .header(SCHEMA, event.schema_version)
            .header(EVENT_ID, id)
            .header(AT, at.as_micros())
            .optional(CORRELATION, meta.correlation_id)
            .optional(CAUSATION, meta.causation_id)
            .optional(ACTOR, meta.actor.as_ref())
    }

    /// An event of a log. Its id is the log's and the position, so that two logs on one broker
    /// are told apart and a repeat is known.
    #[must_use]
    pub fn recorded(store: Uuid, subject: &Subject, event: &RecordedEvent) -> Self {
        let encoded = EncodedEvent {
            event_type: event.event_type.clone(),
            schema_version: event.schema_version,
            codec: event.codec,
            data: event.data.clone(),
        };
        let meta = Metadata::from_bytes(&event.meta);
        Self::new(subject, format!("{store}:{}", event.position), event.data.clone())
            .others(&meta)
            .event(event.id, event.recorded_at, &encoded, &meta)
            .header(STORE, store)
            .header(STREAM, &event.stream)
            .header(POSITION, event.position)
    }

    /// A message of the bus.
    ///
    /// # Errors
    /// It was published as a value that cannot be written.
    pub fn of(message: &Message) -> Result<Self, EventCodecError> {
        let encoded = message.encoded()?;
        let wire = Self::new(message.subject(), message.id().to_string(), encoded.data.clone());
        Ok(wire
            .others(message.metadata())
            .event(message.id(), message.at(), encoded, message.metadata())
            .optional(STORE, message.store())
            .optional(STREAM, message.stream())
            .optional(POSITION, message.position()))
    }

    /// The headers that the sender gave, whatever they are; what they may not say is said after.
    fn others(self, meta: &Metadata) -> Self {
        let ours = |name: &str| OURS.iter().any(|one| one.eq_ignore_ascii_case(name));
        let others = meta.headers.iter().filter(|(name, _)| !ours(name));
        others.fold(self, |wire, (name, value)| wire.header(name, value))
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    /// What the payload is; raw bytes if the headers do not say, or name something else.
    #[must_use]
    pub fn content_type(&self) -> ContentType {
        let named = self.text(CONTENT_TYPE).and_then(ContentType::from_media_type);
        named.unwrap_or(ContentType::Raw)
    }

    /// How the payload is compressed.
    ///
    /// JSON and MessagePack are recognised without a header too, because no payload of theirs
    /// begins as compressed ones do; any other payload may, and is taken for what it is.
    ///
    /// # Errors
    /// The header names something that is not known.
    pub fn encoding(&self) -> Result<Encoding, CompressionError> {
        match self.text(CONTENT_ENCODING) {
            Some(name) => Encoding::from_name(name)
                .ok_or_else(|| CompressionError::Unknown { name: name.to_owned() }),
            None => Ok(match self.content_type() {
                ContentType::Json | ContentType::MessagePack => Encoding::sniff(&self.payload),
                _ => Encoding::Identity,
            }),
        }
    }

    /// Compresses the payload, if that is worth it and was not done, and says so in a header.
    #[must_use]
    pub fn compress(self, how: &Compression) -> Self {
        if self.headers.contains_key(CONTENT_ENCODING) {
            return self;
        }
        match how.compress(&self.payload) {
            (Encoding::Identity, _) => self,
            (encoding, payload) => Self { payload, ..self }.header(CONTENT_ENCODING, encoding),
        }
    }

    /// Decompresses the payload, if it is compressed, and takes the header away.
    ///
    /// # Errors
    /// It would be larger than `limit`, is damaged, or is in an encoding that this program does
    /// not have.
    pub fn decompress(mut self, limit: usize) -> Result<Self, CompressionError> {
        let encoding = self.encoding()?;
        if encoding != Encoding::Identity {
            self.payload = compression::decompress(encoding, &self.payload, limit)?;
        }
        self.headers.remove(CONTENT_ENCODING);
        Ok(self)
    }

    /// The message as it is published on a bus, decompressed up to
    /// [`DEFAULT_READ_LIMIT`](compression::DEFAULT_READ_LIMIT). What the headers do not say is made
    /// up: the type is the subject, the id is made of the wire's, the time is when it is published,
    /// the payload is raw bytes. Headers that are none of this module's are the message's own.
    ///
    /// # Errors
    /// The subject is none, or the payload cannot be decompressed.
    pub fn to_message(&self) -> Result<NewMessage, WireError> {
        let encoding = self.encoding()?;
        if encoding == Encoding::Identity {
            return Ok(self.to_message_as_it_is()?);
        }
        let plain = self.clone().decompress(compression::DEFAULT_READ_LIMIT)?;
        Ok(plain.to_message_as_it_is()?)
    }

    /// The message with its payload as it came. If that is compressed, the message's metadata say
    /// so under [`CONTENT_ENCODING`].
    ///
    /// # Errors
    /// The subject is none.
    pub fn to_message_as_it_is(&self) -> Result<NewMessage, InvalidSubject> {
        let subject = Subject::new(self.subject.as_str())?;
        let text = |name: &str| self.text(name);
        let encoded = EncodedEvent {
            event_type: text(TYPE).unwrap_or(&self.subject).into(),
            schema_version: text(SCHEMA).and_then(|text| text.parse().ok()).unwrap_or(1),
            codec: self.content_type(),
            data: self.payload.clone(),
        };
        let mut metadata = Metadata {
            correlation_id: text(CORRELATION).and_then(|text| text.parse().ok()),
            causation_id: text(CAUSATION).and_then(|text| text.parse().ok()),
            actor: text(ACTOR).map(str::to_owned),
            ..Metadata::default()
        };
        let ours = |name: &str| {
            name == CONTENT_ENCODING || OURS.iter().any(|one| one.eq_ignore_ascii_case(name))
        };
        let others = self.headers.iter().filter(|(name, _)| !ours(name));
        metadata.headers = others.map(|(name, value)| (name.clone(), value.clone())).collect();
        let encoding = match self.encoding() {
            Ok(Encoding::Identity) => None,
            Ok(encoding) => Some(encoding.name()),
            Err(_) => text(CONTENT_ENCODING),
        };
        if let Some(encoding) = encoding {
            metadata.headers.insert(CONTENT_ENCODING.to_owned(), encoding.to_owned());
        }
        let mut message = NewMessage::encoded(subject, encoded).metadata(metadata);
        // A foreign sender's own id, or the queue's name for it, makes one that is the same at
        // each delivery. Without either there is nothing to tell a repeat by.
        let own = text(EVENT_ID).and_then(|text| text.parse::<Uuid>().ok());
        if let Some(id) = own.or_else(|| (!self.id.is_empty()).then(|| self.stable_id())) {
            message = message.id(EventId::new(id));
        }
        if let Some(at) = text(AT).and_then(|text| text.parse().ok()) {
            message = message.at(Timestamp::from_micros(at));
        }
        if let Some(position) = text(POSITION).and_then(|text| text.parse().ok()) {
            message = message.position(Position::new(position));
        }
        if let Some(stream) = text(STREAM).and_then(|text| StreamId::new(text).ok()) {
            message = message.stream(stream);
        }
        if let Some(store) = text(STORE).and_then(|text| text.parse().ok()) {
            message = message.store(store);
        }
        Ok(message)
    }

    /// A UUID made of the subject and the id.
    fn stable_id(&self) -> Uuid {
        IdempotencyKey::of(["wire", &self.subject, &self.id]).to_uuid()
    }

    /// Bytes of all that it is made of.
    #[must_use]
    pub fn size(&self) -> usize {
        let headers = self.headers.iter().map(|(name, value)| name.len() + value.len());
        self.subject.len() + self.id.len() + self.payload.len() + headers.sum::<usize>()
    }
}

/// Why something from the wire is no message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WireError {
    /// Its subject is none.
    #[error(transparent)]
    Subject(#[from] InvalidSubject),
    /// Its payload cannot be decompressed.
    #[error("the payload cannot be decompressed: {0}")]
    Compression(#[from] CompressionError),
}

impl WireError {
    /// How to react.
    #[must_use]
    pub const fn class(&self) -> ErrorClass {
        match self {
            Self::Subject(_) => ErrorClass::Permanent,
            Self::Compression(error) => error.class(),
        }
    }
}
