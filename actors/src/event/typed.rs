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

use super::codec::CodecError;
use super::upcast::{UpcastError, Upcasters};
use super::{ContentType, RecordedEvent};

mod variant;

/// The events of one kind of stream: an enum, one variant for each type of event. Its values are
/// nested less than [128 deep](super::codec::MAX_DEPTH): that much is read.
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

    /// How a type's payload is written; MessagePack with field names unless said otherwise. Any
    /// that this program can read is read, whatever this says.
    ///
    /// A type in [`Protobuf`](ContentType::Protobuf) or [`Avro`](ContentType::Avro) has a variant
    /// that serde sees as the bytes (for messages of `prost` by `codec::protobuf::as_bytes`), or is
    /// written and read by [`encode_payload`](Self::encode_payload) and
    /// [`decode_payload`](Self::decode_payload).
    fn codec(_event_type: &str) -> ContentType {
        ContentType::MessagePack
    }

    /// The payload of a type whose [`codec`](Self::codec) is neither JSON nor MessagePack; `None`
    /// for the bytes that serde sees.
    ///
    /// # Errors
    /// It cannot be written in that codec.
    fn encode_payload(
        &self,
        _event_type: &str,
        _codec: ContentType,
    ) -> Result<Option<Bytes>, CodecError> {
        Ok(None)
    }

    /// The event of such a payload, of whatever schema version it is; `None` to hand serde the
    /// bytes. The type's name is today's.
    ///
    /// An enum with one of its types in Avro, and two versions of its schema:
    ///
    #[cfg_attr(feature = "codec-avro", doc = "```")]
    #[cfg_attr(not(feature = "codec-avro"), doc = "```ignore")]
    /// use std::sync::LazyLock;
    ///
    /// use bytes::Bytes;
    /// use mister_smith_actors::event::codec::{Avro, Codec, CodecError};
    /// use mister_smith_actors::event::upcast::Upcasters;
    /// use mister_smith_actors::event::{ContentType, Event};
    /// use serde::{Deserialize, Serialize};
    ///
    /// #[derive(Debug, PartialEq, Serialize, Deserialize)]
    /// struct Placed {
    ///     order: i64,
    ///     note: Option<String>,
    /// }
    ///
    /// #[derive(Debug, PartialEq, Serialize, Deserialize)]
    /// enum OrderEvent {
    ///     Placed(Placed),
    ///     Cancelled { reason: String },
    /// }
    ///
    /// // Usually `include_str!("placed.2.avsc")`.
    /// const FIRST: &str = r#"{"type": "record", "name": "Placed", "fields": [
    ///     {"name": "order", "type": "long"}]}"#;
    /// const SECOND: &str = r#"{"type": "record", "name": "Placed", "fields": [
    ///     {"name": "order", "type": "long"},
    ///     {"name": "note", "type": ["null", "string"], "default": null}]}"#;
    /// static PLACED: LazyLock<[Avro; 2]> = LazyLock::new(|| {
    ///     let first = Avro::new(FIRST).and_then(|first| first.read_as(SECOND));
    ///     [first.unwrap(), Avro::new(SECOND).unwrap()]
    /// });
    ///
    /// impl Event for OrderEvent {
    ///     fn schema_version(event_type: &str) -> u16 {
    ///         if event_type == "Placed" { 2 } else { 1 }
    ///     }
    ///
    ///     fn codec(event_type: &str) -> ContentType {
    ///         if event_type == "Placed" { ContentType::Avro } else { ContentType::MessagePack }
    ///     }
    ///
    ///     fn upcasters() -> Upcasters {
    ///         Upcasters::none().by_codec("Placed", 1)
    ///     }
    ///
    ///     fn encode_payload(&self, _: &str, _: ContentType) -> Result<Option<Bytes>, CodecError> {
    ///         match self {
    ///             Self::Placed(placed) => PLACED[1].encode(placed).map(Some),
    ///             Self::Cancelled { .. } => Ok(None),
    ///         }
    ///     }
    ///
    ///     fn decode_payload(
    ///         event_type: &str,
    ///         schema_version: u16,
    ///         codec: ContentType,
    ///         data: &[u8],
    ///     ) -> Result<Option<Self>, CodecError> {
    ///         match (event_type, codec, schema_version) {
    ///             ("Placed", ContentType::Avro, version @ 1..=2) => {
    ///                 let placed = PLACED[usize::from(version) - 1].decode(data)?;
    ///                 Ok(Some(Self::Placed(placed)))
    ///             }
    ///             _ => Ok(None),
    ///         }
    ///     }
    /// }
    ///
    /// let placed = OrderEvent::Placed(Placed { order: 7, note: None });
    /// let encoded = placed.encode()?;
    /// assert_eq!((encoded.codec, &encoded.data[..]), (ContentType::Avro, &[14, 0][..]));
    /// assert_eq!(OrderEvent::decode("Placed", 2, ContentType::Avro, &[14, 0])?, placed);
    /// assert_eq!(OrderEvent::decode("Placed", 1, ContentType::Avro, &[14])?, placed);
    /// # Ok::<(), mister_smith_actors::event::EventCodecError>(())
    /// ```
    ///
    /// # Errors
    /// The bytes are no such payload.
    fn decode_payload(
        _event_type: &str,
        _schema_version: u16,
        _codec: ContentType,
        _data: &[u8],
    ) -> Result<Option<Self>, CodecError> {
        Ok(None)
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
            ContentType::Raw | ContentType::Protobuf | ContentType::Avro => {
                let payload = self.encode_payload(&event_type, codec);
                match payload.map_err(EventCodecError::encode::<Self>)? {
                    Some(payload) => payload,
                    None if codec == ContentType::Raw => {
                        return Err(EventCodecError::Raw { event_type });
                    }
                    None => match variant::bytes(&packed) {
                        Some(payload) => payload,
                        None => return Err(EventCodecError::NoBytes { event_type, codec }),
                    },
                }
            }
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
        if !codec.is_serde() {
            let upcasters = Self::upcasters();
            return by_codec(&upcasters, event_type, schema_version, codec, data);
        }
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
        let decoded = match (codec.is_serde(), current) {
            (true, true) => variant::from_bytes(event_type, *codec, data),
            (true, false) => self.upcast(event_type, *schema_version, *codec, data),
            (false, _) => by_codec(&self.upcasters, event_type, *schema_version, *codec, data),
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

/// The event of a payload that serde alone cannot read.
fn by_codec<E: Event>(
    upcasters: &Upcasters,
    event_type: &str,
    schema_version: u16,
    codec: ContentType,
    data: &[u8],
) -> Result<E, EventCodecError> {
    let name = upcasters.current_name(event_type);
    let own = E::decode_payload(name, schema_version, codec, data);
    match own.map_err(|error| EventCodecError::decode(event_type, error))? {
        Some(event) => Ok(event),
        None => {
            let current = E::schema_version(name);
            let name = upcasters.by_codec_alone(event_type, schema_version, current)?;
            variant::from_bytes(name, codec, data)
        }
    }
}

/// The payload of any event as a value, for whoever shows events without knowing their types.
///
/// # Errors
/// The bytes are not what the content type says, or of one that cannot be read without a schema or
/// the application: [`ContentType::Raw`], [`ContentType::Protobuf`], [`ContentType::Avro`].
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
    #[error(
        "event type {event_type} cannot be written as raw bytes; choose JSON or MessagePack, or \
         write them in `encode_payload`"
    )]
    Raw {
        /// The event type.
        event_type: Arc<str>,
    },
    /// A codec that serde does not have, for a variant that is no bytes to it.
    #[error(
        "event type {event_type} is to be written in {codec}, but is no bytes to serde; give its \
         variant `#[serde(with = …)]`, or write it in `encode_payload`"
    )]
    NoBytes {
        /// The event type.
        event_type: Arc<str>,
        /// The codec.
        codec: ContentType,
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
