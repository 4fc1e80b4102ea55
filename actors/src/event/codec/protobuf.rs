//! Protobuf, for messages of `prost`.

use bytes::Bytes;
use prost::Message;

use super::{Codec, CodecError, MAX_PAYLOAD_BYTES, within};
use crate::event::ContentType;

const PROTO: ContentType = ContentType::Protobuf;

/// One Protobuf message. Fields that it does not know are passed over, and so is their order; a
/// message that is nested deeper than 100 is refused by `prost`. A field without presence that holds
/// the negative zero is left out by `prost`, and read as zero.
///
/// ```
/// use mister_smith_actors::event::codec::{Codec, Protobuf};
///
/// /// What `prost-build` makes of `message Placed { uint64 order = 1; sint64 cents = 2; }`.
/// #[derive(Clone, PartialEq, prost::Message)]
/// struct Placed {
///     #[prost(uint64, tag = "1")]
///     order: u64,
///     #[prost(sint64, tag = "2")]
///     cents: i64,
/// }
///
/// let placed = Placed { order: 7, cents: 250 };
/// let bytes = Protobuf::new().encode(&placed)?;
/// assert_eq!(&bytes[..], [0x08, 7, 0x10, 0xf4, 0x03]);
/// assert_eq!(Protobuf::new().decode(&bytes), Ok(placed));
/// # Ok::<(), mister_smith_actors::event::codec::CodecError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Protobuf {
    limit: usize,
}

impl Protobuf {
    /// Protobuf up to [`MAX_PAYLOAD_BYTES`].
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

impl Default for Protobuf {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Message + Default> Codec<T> for Protobuf {
    fn content_type(&self) -> ContentType {
        PROTO
    }

    fn encode(&self, value: &T) -> Result<Bytes, CodecError> {
        Ok(value.encode_to_vec().into())
    }

    fn decode(&self, data: &[u8]) -> Result<T, CodecError> {
        within(PROTO, data, self.limit)?;
        T::decode(data).map_err(|error| CodecError::decode(PROTO, error))
    }
}

/// A message as serde sees bytes, for `#[serde(with = "…")]`: with it a variant of an
/// [event enum](crate::event::Event) holds a Protobuf message.
///
/// ```
/// use mister_smith_actors::event::{ContentType, Event};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Clone, PartialEq, prost::Message)]
/// struct Placed {
///     #[prost(uint64, tag = "1")]
///     order: u64,
/// }
///
/// #[derive(Debug, PartialEq, Serialize, Deserialize)]
/// enum OrderEvent {
///     #[serde(rename = "order.placed", with = "mister_smith_actors::event::codec::protobuf::as_bytes")]
///     Placed(Placed),
///     #[serde(rename = "order.cancelled")]
///     Cancelled { reason: String },
/// }
///
/// impl Event for OrderEvent {
///     fn codec(event_type: &str) -> ContentType {
///         match event_type {
///             "order.placed" => ContentType::Protobuf,
///             _ => ContentType::MessagePack,
///         }
///     }
/// }
///
/// let placed = OrderEvent::Placed(Placed { order: 7 });
/// let encoded = placed.encode()?;
/// assert_eq!((encoded.codec, &encoded.data[..]), (ContentType::Protobuf, &[0x08, 7][..]));
/// assert_eq!(OrderEvent::decode("order.placed", 1, encoded.codec, &encoded.data)?, placed);
/// # Ok::<(), mister_smith_actors::event::EventCodecError>(())
/// ```
pub mod as_bytes {
    use std::fmt;
    use std::marker::PhantomData;

    use prost::Message;
    use serde::de::Visitor;
    use serde::{Deserializer, Serializer};

    use super::{Codec as _, Protobuf};

    /// Writes a message.
    ///
    /// # Errors
    /// Those of the serializer.
    pub fn serialize<M: Message, S: Serializer>(message: &M, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_bytes(&message.encode_to_vec())
    }

    /// Reads a message.
    ///
    /// # Errors
    /// There are no bytes, or they are no such message.
    pub fn deserialize<'de, M: Message + Default, D: Deserializer<'de>>(
        from: D,
    ) -> Result<M, D::Error> {
        from.deserialize_bytes(Encoded(PhantomData))
    }

    struct Encoded<M>(PhantomData<M>);

    impl<M: Message + Default> Visitor<'_> for Encoded<M> {
        type Value = M;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a Protobuf message")
        }

        fn visit_bytes<E: serde::de::Error>(self, data: &[u8]) -> Result<M, E> {
            Protobuf::new().decode(data).map_err(E::custom)
        }
    }
}
