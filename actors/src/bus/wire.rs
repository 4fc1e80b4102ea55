//! A message as it travels between processes: a subject, an id, headers, and bytes.
//!
//! The headers say what the bytes are, so that a receiver that is not this program can read them
//! too. Their names are those of HTTP where it has one, and begin with `Smith-` elsewhere.

use std::collections::BTreeMap;

use bytes::Bytes;
use uuid::Uuid;

use super::message::{Message, NewMessage};
use super::subject::Subject;
use crate::event::{
    ContentType, EncodedEvent, EventCodecError, EventId, Metadata, Position, RecordedEvent,
    Timestamp,
};

/// The payload's media type.
pub const CONTENT_TYPE: &str = "Content-Type";
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
            .event(message.id(), message.at(), encoded, message.metadata())
            .optional(POSITION, message.position()))
    }

    /// The message as it is published on a bus. What the headers do not say is made up: the type
    /// is the subject, the time and the id are new, the payload is raw bytes.
    ///
    /// # Errors
    /// The subject is none.
    pub fn to_message(&self) -> Result<NewMessage, super::InvalidSubject> {
        let subject = Subject::new(self.subject.as_str())?;
        let text = |name: &str| self.headers.get(name).map(String::as_str);
        let codec = match text(CONTENT_TYPE).map(|one| one.split(';').next().unwrap_or(one).trim())
        {
            Some("application/json") => ContentType::Json,
            Some("application/msgpack") => ContentType::MessagePack,
            _ => ContentType::Raw,
        };
        let encoded = EncodedEvent {
            event_type: text(TYPE).unwrap_or(&self.subject).into(),
            schema_version: text(SCHEMA).and_then(|text| text.parse().ok()).unwrap_or(1),
            codec,
            data: self.payload.clone(),
        };
        let metadata = Metadata {
            correlation_id: text(CORRELATION).and_then(|text| text.parse().ok()),
            causation_id: text(CAUSATION).and_then(|text| text.parse().ok()),
            actor: text(ACTOR).map(str::to_owned),
            ..Metadata::default()
        };
        let mut message = NewMessage::encoded(subject, encoded).metadata(metadata);
        if let Some(id) = text(EVENT_ID).and_then(|text| text.parse::<Uuid>().ok()) {
            message = message.id(EventId::new(id));
        }
        if let Some(at) = text(AT).and_then(|text| text.parse().ok()) {
            message = message.at(Timestamp::from_micros(at));
        }
        if let Some(position) = text(POSITION).and_then(|text| text.parse().ok()) {
            message = message.position(Position::new(position));
        }
        Ok(message)
    }

    /// Bytes of all that it is made of.
    #[must_use]
    pub fn size(&self) -> usize {
        let headers = self.headers.iter().map(|(name, value)| name.len() + value.len());
        self.subject.len() + self.id.len() + self.payload.len() + headers.sum::<usize>()
    }
}
