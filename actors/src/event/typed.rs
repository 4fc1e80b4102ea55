//! Events as Rust enums: how a variant becomes a type's name and a payload, and back.
//!
//! The enum is an ordinary serde enum. The name of the variant, as serde sees it, is the name of
//! the event type; what is inside the variant is the payload. So the names are chosen with
//! `#[serde(rename = "…")]` or `rename_all`, and renaming a variant in Rust changes nothing in the
//! log.

use std::marker::PhantomData;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};

use super::upcast::{UpcastError, Upcasters};
use super::{ContentType, RecordedEvent};

mod variant;

/// The events of one kind of stream: an enum, one variant for each type of event.
///
/// ```
/// use mister_smith_actors::event::{ContentType, Event};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
/// enum AccountEvent {
///     #[serde(rename = "account.opened")]
///     Opened { owner: String },
///     #[serde(rename = "account.deposited")]
///     Deposited { cents: u64 },
/// }
///
/// impl Event for AccountEvent {}
///
/// let deposited = AccountEvent::Deposited { cents: 250 };
/// let encoded = deposited.encode()?;
/// assert_eq!(&*encoded.event_type, "account.deposited");
/// let back = AccountEvent::decode(&encoded.event_type, 1, encoded.codec, &encoded.data)?;
/// assert_eq!(back, deposited);
/// # Ok::<(), mister_smith_actors::event::EventCodecError>(())
/// ```
pub trait Event: Serialize + DeserializeOwned + Send + Sync + 'static {
    /// The version of a type's schema that this program writes; 1 unless said otherwise. A type
    /// with a higher one needs [`upcasters`](Self::upcasters) from every version below.
    fn schema_version(_event_type: &str) -> u16 {
        1
    }

    /// How a type's payload is written; MessagePack with field names unless said otherwise.
    /// Either is read, whatever this says.
    fn codec(_event_type: &str) -> ContentType {
        ContentType::MessagePack
    }

    /// The steps from older schema versions to the current ones.
    fn upcasters() -> Upcasters {
        Upcasters::none()
    }

    /// The names of all types of this enum, in the order of its variants.
    ///
    /// # Errors
    /// It is no enum, or serde tags it in another way than by default.
    fn event_types() -> Result<&'static [&'static str], EventCodecError> {
        variant::names::<Self>().ok_or_else(EventCodecError::shape::<Self>)
    }

    /// Its type and payload.
    ///
    /// # Errors
    /// It cannot be written in its codec.
    fn encode(&self) -> Result<EncodedEvent, EventCodecError> {
        let (event_type, packed) = variant::to_message_pack(self)?;
        let codec = Self::codec(&event_type);
        let data = match codec {
            ContentType::Json => variant::to_json(self)?,
            ContentType::MessagePack => packed,
            ContentType::Raw => return Err(EventCodecError::Raw { event_type }),
        };
        let schema_version = Self::schema_version(&event_type);
        Ok(EncodedEvent { event_type, schema_version, codec, data })
    }

    /// The event of a type, a schema version and a payload. Older versions are brought up to the
    /// current one first.
    ///
    /// # Errors
    /// The type is not of this enum, there is no way from the schema version to the current one,
    /// or the payload is not of the type.
    fn decode(
        event_type: &str,
        schema_version: u16,
        codec: ContentType,
        data: &[u8],
    ) -> Result<Self, EventCodecError> {
        if schema_version == Self::schema_version(event_type) {
            let decoded = variant::from_bytes(event_type, codec, data);
            let renamed = || Self::upcasters().current_name(event_type) != event_type;
            if decoded.is_ok() || !renamed() {
                return decoded;
            }
        }
        Decoder::new().upcast(event_type, schema_version, codec, data)
    }
}

/// Reads many events of one kind, with the upcasters made once.
#[derive(Debug)]
pub struct Decoder<E> {
    upcasters: Upcasters,
    events: PhantomData<fn() -> E>,
}

impl<E: Event> Default for Decoder<E> {
    fn default() -> Self {
        Self::new()
    }
}

impl<E: Event> Decoder<E> {
    /// A decoder with the upcasters of `E`.
    #[must_use]
    pub fn new() -> Self {
        Self { upcasters: E::upcasters(), events: PhantomData }
    }

    /// The event that the log holds.
    ///
    /// # Errors
    /// As for [`Event::decode`]; the error names the place in the log.
    pub fn decode(&self, recorded: &RecordedEvent) -> Result<E, EventCodecError> {
        let RecordedEvent { event_type, schema_version, codec, data, .. } = recorded;
        let current = *schema_version == E::schema_version(event_type)
            && self.upcasters.current_name(event_type) == &**event_type;
        let decoded = match current {
            true => variant::from_bytes(event_type, *codec, data),
            false => self.upcast(event_type, *schema_version, *codec, data),
        };
        decoded.map_err(|source| EventCodecError::Recorded {
            place: format!("{}/{}", recorded.stream, recorded.version),
            source: Box::new(source),
        })
    }

    fn upcast(
        &self,
        event_type: &str,
        schema_version: u16,
        codec: ContentType,
        data: &[u8],
    ) -> Result<E, EventCodecError> {
        let current = E::schema_version(self.upcasters.current_name(event_type));
        let value = variant::value(event_type, codec, data)?;
        let (event_type, value) =
            self.upcasters.upcast(event_type, schema_version, current, value)?;
        variant::from_value(&event_type, value)
    }
}

/// The payload of any event as a value, for whoever shows events without knowing their types.
///
/// # Errors
/// The bytes are not what the content type says, or are [`ContentType::Raw`].
pub fn payload_value(
    event_type: &str,
    codec: ContentType,
    data: &[u8],
) -> Result<serde_json::Value, EventCodecError> {
    variant::value(event_type, codec, data)
}

/// An event on its way into the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodedEvent {
    /// Name of the type.
    pub event_type: Arc<str>,
    /// Version of the type's schema.
    pub schema_version: u16,
    /// How `data` is to be read.
    pub codec: ContentType,
    /// The payload.
    pub data: Bytes,
}

/// Why an event could not be written or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EventCodecError {
    /// The Rust type is not what events are.
    #[error(
        "{rust_type} is not an enum that serde tags from outside; derive Serialize and Deserialize \
         for an enum, without tag, content, untagged, from or into"
    )]
    Shape {
        /// The Rust type.
        rust_type: &'static str,
    },
    /// A codec that events cannot have.
    #[error("event type {event_type} cannot be written as raw bytes; choose JSON or MessagePack")]
    Raw {
        /// The event type.
        event_type: Arc<str>,
    },
    /// The event cannot be written.
    #[error("an event of {rust_type} cannot be written: {reason}")]
    Encode {
        /// The Rust type.
        rust_type: &'static str,
        /// What the codec said.
        reason: String,
    },
    /// The payload is not of the type.
    #[error("the payload is no {event_type}: {reason}")]
    Decode {
        /// The event type.
        event_type: String,
        /// What the codec said.
        reason: String,
    },
    /// There is no way to the current version.
    #[error(transparent)]
    Upcast(#[from] UpcastError),
    /// An event of the log cannot be read.
    #[error("event {place} cannot be read: {source}")]
    Recorded {
        /// Stream and version.
        place: String,
        /// Why.
        source: Box<EventCodecError>,
    },
}

impl EventCodecError {
    fn shape<T: ?Sized>() -> Self {
        Self::Shape { rust_type: std::any::type_name::<T>() }
    }

    fn encode<T: ?Sized>(reason: impl ToString) -> Self {
        Self::Encode { rust_type: std::any::type_name::<T>(), reason: reason.to_string() }
    }

    fn decode(event_type: &str, reason: impl ToString) -> Self {
        Self::Decode { event_type: event_type.to_owned(), reason: reason.to_string() }
    }
}
