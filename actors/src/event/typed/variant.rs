//! One variant of an enum, apart from its name.
//!
//! serde writes a variant as `{name: payload}`. Writing takes the payload out of that by its
//! place, reading hands serde the name and the payload from two sides; neither copies the payload.
//! A variant in a format that serde does not have is bytes to it.

use std::sync::Arc;

use bytes::Bytes;
use serde::de::value::{BytesDeserializer, StrDeserializer};
use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, Error as _, IntoDeserializer,
    VariantAccess, Visitor,
};
use serde::{Deserialize, Serialize, forward_to_deserialize_any};
use serde_json::Value;

use super::{ContentType, EventCodecError};
use crate::event::codec::MAX_DEPTH;

/// The first byte of a MessagePack map of one entry (spec/formats: fixmap).
const MAP_OF_ONE: u8 = 0x81;

/// An empty MessagePack map, the payload of a variant that holds nothing.
const EMPTY_MAP: u8 = 0x80;

/// Name and MessagePack payload of a variant.
pub(super) fn to_message_pack<T: Serialize>(
    event: &T,
) -> Result<(Arc<str>, Bytes), EventCodecError> {
    let mut bytes = Vec::with_capacity(128);
    let mut writer = rmp_serde::Serializer::new(&mut bytes).with_struct_map();
    event.serialize(&mut writer).map_err(EventCodecError::encode::<T>)?;
    match bytes.first() {
        Some(&MAP_OF_ONE) => {
            let (name, at) = text(&bytes[1..]).ok_or_else(EventCodecError::shape::<T>)?;
            let name = Arc::from(name);
            Ok((name, Bytes::from(bytes).slice(1 + at..)))
        }
        // A variant that holds nothing is its name alone.
        _ => match text(&bytes) {
            Some((name, end)) if end == bytes.len() => {
                Ok((Arc::from(name), Bytes::from_static(&[EMPTY_MAP])))
            }
            _ => Err(EventCodecError::shape::<T>()),
        },
    }
}

/// The text at the beginning of MessagePack bytes, and where it ends.
fn text(bytes: &[u8]) -> Option<(&str, usize)> {
    let (begin, length) = match *bytes.first()? {
        short @ 0xa0..=0xbf => (1, usize::from(short & 0x1f)),
        0xd9 => (2, usize::from(*bytes.get(1)?)),
        0xda => (3, usize::from(u16::from_be_bytes([*bytes.get(1)?, *bytes.get(2)?]))),
        _ => return None,
    };
    let text = bytes.get(begin..begin + length)?;
    Some((std::str::from_utf8(text).ok()?, begin + length))
}

/// The JSON payload of a variant.
pub(super) fn to_json<T: Serialize>(event: &T) -> Result<Bytes, EventCodecError> {
    let text = serde_json::to_string(event).map_err(EventCodecError::encode::<T>)?;
    match text.strip_prefix('{') {
        None => Ok(Bytes::from_static(b"{}")),
        Some(rest) => {
            // The name is a JSON string: find its end by reading it.
            let mut name = serde_json::Deserializer::from_str(rest).into_iter::<Value>();
            let shape = EventCodecError::shape::<T>;
            name.next().ok_or_else(shape)?.map_err(EventCodecError::encode::<T>)?;
            let begin = 1 + name.byte_offset() + 1;
            let end = text.len() - 1;
            Ok(Bytes::from(text).slice(begin..end))
        }
    }
}

type MessagePack<'a> = rmp_serde::Deserializer<rmp_serde::decode::ReadRefReader<'a, [u8]>>;

/// The reader of a payload. Its own limit of depth is more than a stack of 2 MiB holds.
fn message_pack(data: &[u8]) -> MessagePack<'_> {
    let mut reader = rmp_serde::Deserializer::from_read_ref(data);
    reader.set_max_depth(MAX_DEPTH);
    reader
}

/// The variant of a name with the payload in `data`.
pub(super) fn from_bytes<T: DeserializeOwned>(
    name: &str,
    codec: ContentType,
    data: &[u8],
) -> Result<T, EventCodecError> {
    let decoded = match codec {
        ContentType::MessagePack => {
            let mut payload = message_pack(data);
            T::deserialize(Variant { name, payload: &mut payload }).map_err(|e| e.to_string())
        }
        ContentType::Json => {
            let mut payload = serde_json::Deserializer::from_slice(data);
            T::deserialize(Variant { name, payload: &mut payload }).map_err(|e| e.to_string())
        }
        ContentType::Raw => Err("it is raw bytes".to_owned()),
        ContentType::Protobuf | ContentType::Avro => {
            let payload: BytesDeserializer<'_, serde::de::value::Error> = data.into_deserializer();
            T::deserialize(Variant { name, payload }).map_err(|e| format!("in {codec}: {e}"))
        }
    };
    decoded.map_err(|reason| EventCodecError::decode(name, reason))
}

/// The bytes that a variant is to serde, out of its MessagePack payload; `None` if it is not bytes.
pub(super) fn bytes(packed: &Bytes) -> Option<Bytes> {
    // Marks of bytes with a length of one, two or four bytes (spec/formats: bin).
    let width = match *packed.first()? {
        0xc4 => 1,
        0xc5 => 2,
        0xc6 => 4,
        _ => return None,
    };
    let length = packed.get(1..=width)?;
    let length = length.iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
    (packed.len() == 1 + width + length).then(|| packed.slice(1 + width..))
}

/// The payload as a value that upcasters can change.
pub(super) fn value(name: &str, codec: ContentType, data: &[u8]) -> Result<Value, EventCodecError> {
    let value = match codec {
        ContentType::MessagePack => {
            Value::deserialize(&mut message_pack(data)).map_err(|e| e.to_string())
        }
        ContentType::Json => serde_json::from_slice(data).map_err(|e| e.to_string()),
        ContentType::Raw => Err("it is raw bytes".to_owned()),
        ContentType::Protobuf | ContentType::Avro => {
            Err(format!("{codec} cannot be read without its schema"))
        }
    };
    value.map_err(|reason| EventCodecError::decode(name, reason))
}

/// The variant of a name with a value as its payload.
pub(super) fn from_value<T: DeserializeOwned>(
    name: &str,
    value: Value,
) -> Result<T, EventCodecError> {
    T::deserialize(Variant { name, payload: value })
        .map_err(|error| EventCodecError::decode(name, error))
}

/// The names of an enum's variants, asked of serde; `None` if it is not a plain enum.
pub(super) fn names<T: DeserializeOwned>() -> Option<&'static [&'static str]> {
    let mut names = None;
    // It ends with an error by design: there is nothing to make a value from.
    let _ = T::deserialize(Ask { names: &mut names });
    names
}

struct Ask<'a> {
    names: &'a mut Option<&'static [&'static str]>,
}

impl<'de> Deserializer<'de> for Ask<'_> {
    type Error = serde::de::value::Error;

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Self::Error> {
        *self.names = Some(variants);
        Err(Self::Error::custom("only the names were asked for"))
    }

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Self::Error> {
        Err(Self::Error::custom("not an enum"))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option
        unit unit_struct newtype_struct seq tuple tuple_struct map struct identifier ignored_any
    }
}

/// A name on one side, a payload on the other, read as the variant of an enum.
struct Variant<'a, D> {
    name: &'a str,
    payload: D,
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Variant<'_, D> {
    type Error = D::Error;

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        visitor.visit_enum(self)
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        visitor.visit_enum(self)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option
        unit unit_struct newtype_struct seq tuple tuple_struct map struct identifier ignored_any
    }
}

impl<'de, D: Deserializer<'de>> EnumAccess<'de> for Variant<'_, D> {
    type Error = D::Error;
    type Variant = Payload<D>;

    fn variant_seed<S: DeserializeSeed<'de>>(
        self,
        seed: S,
    ) -> Result<(S::Value, Payload<D>), D::Error> {
        let name: StrDeserializer<'_, D::Error> = self.name.into_deserializer();
        Ok((seed.deserialize(name)?, Payload(self.payload)))
    }
}

struct Payload<D>(D);

impl<'de, D: Deserializer<'de>> VariantAccess<'de> for Payload<D> {
    type Error = D::Error;

    /// Whatever is in the payload: a variant that lost its last field still reads old events.
    fn unit_variant(self) -> Result<(), D::Error> {
        self.0.deserialize_ignored_any(serde::de::IgnoredAny).map(drop)
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, D::Error> {
        seed.deserialize(self.0)
    }

    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, D::Error> {
        self.0.deserialize_tuple(len, visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.0.deserialize_struct("", fields, visitor)
    }
}
