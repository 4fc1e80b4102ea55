//! What is published: an event with a subject, shared by all who receive it.

use std::any::Any;
use std::fmt;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use uuid::Uuid;

use super::subject::{InvalidSubject, Subject};
use crate::event::{
    ContentType, EncodedEvent, Event, EventCodecError, EventId, Metadata, Position, RecordedEvent,
    StreamId, Timestamp,
};

/// A published message. There is one of each, behind an `Arc`, however many receive it.
#[derive(Debug)]
pub struct Message {
    pub(super) id: EventId,
    pub(super) subject: Subject,
    pub(super) at: Timestamp,
    /// Most have none: what is rare is not carried along.
    pub(super) metadata: Option<Box<Metadata>>,
    pub(super) origin: Option<Box<Origin>>,
    pub(super) body: Body,
}

/// Where a message was before it came to the bus.
#[derive(Debug, Clone, Default)]
pub(super) struct Origin {
    pub(super) position: Option<Position>,
    pub(super) stream: Option<StreamId>,
    pub(super) store: Option<Uuid>,
    pub(super) dead_letter: Option<Uuid>,
}

static NO_METADATA: Metadata = Metadata {
    correlation_id: None,
    causation_id: None,
    actor: None,
    fingerprint: None,
    headers: std::collections::BTreeMap::new(),
};

/// A message's content: as it was given, and as bytes once somebody needs them.
pub(super) enum Body {
    Encoded(Box<EncodedEvent>),
    Typed {
        value: Arc<dyn Any + Send + Sync>,
        encode: EncodeFn,
        encoded: OnceLock<Box<EncodedEvent>>,
    },
}

type EncodeFn = fn(&(dyn Any + Send + Sync)) -> Result<EncodedEvent, EventCodecError>;

fn encode_as<E: Event>(value: &(dyn Any + Send + Sync)) -> Result<EncodedEvent, EventCodecError> {
    match value.downcast_ref::<E>() {
        Some(event) => event.encode(),
        None => unreachable!("the function was made together with the value"),
    }
}

impl Message {
    /// Its identity: what receivers tell repeats by.
    #[must_use]
    pub fn id(&self) -> EventId {
        self.id
    }

    /// Where it was published.
    #[must_use]
    pub fn subject(&self) -> &Subject {
        &self.subject
    }

    /// When it was published, or recorded if it comes from the log.
    #[must_use]
    pub fn at(&self) -> Timestamp {
        self.at
    }

    /// Conversation, cause, actor, headers.
    #[must_use]
    pub fn metadata(&self) -> &Metadata {
        self.metadata.as_deref().unwrap_or(&NO_METADATA)
    }

    /// Its place in the log that it comes from.
    #[must_use]
    pub fn position(&self) -> Option<Position> {
        self.origin.as_ref()?.position
    }

    /// Its stream in the log that it comes from.
    #[must_use]
    pub fn stream(&self) -> Option<&StreamId> {
        self.origin.as_ref()?.stream.as_ref()
    }

    /// The log that it comes from, if that is another one than this node's.
    #[must_use]
    pub fn store(&self) -> Option<Uuid> {
        self.origin.as_ref()?.store
    }

    /// The dead letter that it is sent again for.
    #[must_use]
    pub fn dead_letter(&self) -> Option<Uuid> {
        self.origin.as_ref()?.dead_letter
    }

    /// The event, of whatever enum the receiver has for it. Within a process an event that was
    /// published as an `E` is shared and not copied; any other way it is decoded.
    ///
    /// # Errors
    /// It is no `E`.
    pub fn event<E: Event>(&self) -> Result<Arc<E>, EventCodecError> {
        if let Body::Typed { value, .. } = &self.body
            && let Ok(event) = Arc::clone(value).downcast::<E>()
        {
            return Ok(event);
        }
        let EncodedEvent { event_type, schema_version, codec, data } = self.encoded()?;
        E::decode(event_type, *schema_version, *codec, data).map(Arc::new)
    }

    /// Type and payload.
    ///
    /// # Errors
    /// It was published as a value that cannot be written in its codec.
    pub fn encoded(&self) -> Result<&EncodedEvent, EventCodecError> {
        match &self.body {
            Body::Encoded(encoded) => Ok(encoded),
            Body::Typed { value, encode, encoded } => match encoded.get() {
                Some(encoded) => Ok(encoded),
                None => {
                    let fresh = encode(&**value)?;
                    Ok(encoded.get_or_init(|| Box::new(fresh)))
                }
            },
        }
    }

    /// This message, with another payload.
    pub(super) fn with_payload(&self, event: EncodedEvent, metadata: Metadata) -> NewMessage {
        let mut message = NewMessage::encoded(self.subject.clone(), event)
            .id(self.id)
            .at(self.at)
            .metadata(metadata);
        message.origin = self.origin.clone();
        message
    }

    /// A message that this one causes: the same conversation, and this message as the cause.
    #[must_use]
    pub fn causes(&self, message: NewMessage) -> NewMessage {
        message.metadata(self.metadata().caused_by(*self.id.as_uuid()))
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Encoded(encoded) => {
                write!(f, "{} ({} bytes)", encoded.event_type, encoded.data.len())
            }
            Self::Typed { .. } => f.write_str("a value"),
        }
    }
}

/// A message to be published.
#[derive(Debug)]
pub struct NewMessage {
    pub(super) subject: Subject,
    pub(super) id: Option<EventId>,
    pub(super) at: Option<Timestamp>,
    pub(super) metadata: Option<Box<Metadata>>,
    pub(super) origin: Option<Box<Origin>>,
    pub(super) body: Body,
}

impl NewMessage {
    /// An event. It is written as bytes only when somebody needs them.
    ///
    /// # Errors
    /// The subject is none.
    pub fn event<E: Event>(
        subject: impl TryInto<Subject, Error = impl Into<InvalidSubject>>,
        event: E,
    ) -> Result<Self, InvalidSubject> {
        Ok(Self::of(subject.try_into().map_err(Into::into)?, event))
    }

    /// An event for a subject.
    pub(super) fn of<E: Event>(subject: Subject, event: E) -> Self {
        let value: Arc<dyn Any + Send + Sync> = Arc::new(event);
        let body = Body::Typed { value, encode: encode_as::<E>, encoded: OnceLock::new() };
        Self::with(subject, body)
    }

    /// Bytes with the name of their type.
    ///
    /// # Errors
    /// The subject is none.
    pub fn bytes(
        subject: impl TryInto<Subject, Error = impl Into<InvalidSubject>>,
        event_type: impl Into<Arc<str>>,
        codec: ContentType,
        data: impl Into<Bytes>,
    ) -> Result<Self, InvalidSubject> {
        let subject = subject.try_into().map_err(Into::into)?;
        let encoded = EncodedEvent {
            event_type: event_type.into(),
            schema_version: 1,
            codec,
            data: data.into(),
        };
        Ok(Self::with(subject, Body::Encoded(Box::new(encoded))))
    }

    /// An encoded event.
    #[must_use]
    pub fn encoded(subject: Subject, event: EncodedEvent) -> Self {
        Self::with(subject, Body::Encoded(Box::new(event)))
    }

    /// An event of the log, with its id, time, metadata and place.
    #[must_use]
    pub fn recorded(subject: Subject, event: &RecordedEvent) -> Self {
        let encoded = EncodedEvent {
            event_type: Arc::clone(&event.event_type),
            schema_version: event.schema_version,
            codec: event.codec,
            data: event.data.clone(),
        };
        Self::with(subject, Body::Encoded(Box::new(encoded)))
            .id(event.id)
            .at(event.recorded_at)
            .metadata(Metadata::from_bytes(&event.meta))
            .position(event.position)
            .stream(event.stream.clone())
    }

    fn with(subject: Subject, body: Body) -> Self {
        Self { subject, id: None, at: None, metadata: None, origin: None, body }
    }

    /// Its identity; a new one unless said otherwise.
    #[must_use]
    pub fn id(mut self, id: EventId) -> Self {
        self.id = Some(id);
        self
    }

    /// Its time; when it is published unless said otherwise.
    #[must_use]
    pub fn at(mut self, at: Timestamp) -> Self {
        self.at = Some(at);
        self
    }

    /// Its time, unless its sender said one.
    #[must_use]
    pub(super) fn at_unless_said(mut self, at: Timestamp) -> Self {
        self.at = self.at.or(Some(at));
        self
    }

    /// Conversation, cause, actor, headers.
    #[must_use]
    pub fn metadata(mut self, metadata: Metadata) -> Self {
        self.metadata = (!metadata.is_empty()).then(|| Box::new(metadata));
        self
    }

    /// Its place in a log.
    #[must_use]
    pub fn position(mut self, position: Position) -> Self {
        self.origin.get_or_insert_default().position = Some(position);
        self
    }

    /// Its stream in a log.
    #[must_use]
    pub fn stream(mut self, stream: StreamId) -> Self {
        self.origin.get_or_insert_default().stream = Some(stream);
        self
    }

    /// The log that its stream and its place are in.
    #[must_use]
    pub fn store(mut self, store: Uuid) -> Self {
        self.origin.get_or_insert_default().store = Some(store);
        self
    }

    /// It is sent again for this dead letter, which is settled when it is handled.
    #[must_use]
    pub fn for_dead_letter(mut self, letter: Uuid) -> Self {
        self.origin.get_or_insert_default().dead_letter = Some(letter);
        self
    }

    /// Where it goes.
    #[must_use]
    pub fn subject(&self) -> &Subject {
        &self.subject
    }
}

impl From<std::convert::Infallible> for InvalidSubject {
    fn from(never: std::convert::Infallible) -> Self {
        match never {}
    }
}
