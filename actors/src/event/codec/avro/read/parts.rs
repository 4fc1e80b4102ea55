//! Values with others in them: arrays, maps, records, variants.

use serde::de::value::{BorrowedStrDeserializer, StrDeserializer};
use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, Error as _, IntoDeserializer, MapAccess, SeqAccess,
    VariantAccess, Visitor,
};

use super::Value;
use crate::event::codec::avro::fault::Fault;
use crate::event::codec::avro::shape::{Record, Resolved, Shape};
use crate::event::codec::avro::walk::{Blocks, Walk};

/// Elements of an array, or entries of a map.
pub(super) struct Items<'w, 'de> {
    pub(super) walk: &'w mut Walk<'de>,
    pub(super) shape: &'de Shape,
    pub(super) depth: usize,
    pub(super) blocks: Blocks,
}

impl<'de> SeqAccess<'de> for &mut Items<'_, 'de> {
    type Error = Fault;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Fault> {
        if !self.blocks.next(self.walk)? {
            return Ok(None);
        }
        let (shape, depth) = (self.shape, self.depth);
        seed.deserialize(Value { walk: self.walk, shape, depth }).map(Some)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.blocks.left(self.walk))
    }
}

impl<'de> MapAccess<'de> for &mut Items<'_, 'de> {
    type Error = Fault;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Fault> {
        if !self.blocks.next(self.walk)? {
            return Ok(None);
        }
        let key: StrDeserializer<'_, Fault> = self.walk.text()?.into_deserializer();
        seed.deserialize(key).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Fault> {
        let (shape, depth) = (self.shape, self.depth);
        seed.deserialize(Value { walk: self.walk, shape, depth })
    }
}

/// What a record is made of.
#[derive(Clone, Copy)]
pub(super) enum Parts<'de> {
    All(&'de Record),
    /// Some of what was written, and defaults.
    Some(&'de Resolved),
}

/// Fields of a record: in the order of the writer's schema, and then those that it does not have.
pub(super) struct Fields<'w, 'de> {
    pub(super) walk: &'w mut Walk<'de>,
    pub(super) record: Parts<'de>,
    pub(super) at: usize,
    pub(super) depth: usize,
}

impl<'de> Fields<'_, 'de> {
    /// The name of the field that comes next. What the reader does not have is passed over.
    pub(super) fn next(&mut self) -> Result<Option<&'de str>, Fault> {
        match self.record {
            Parts::All(record) => Ok(record.fields.get(self.at).map(|(name, _)| name.as_str())),
            Parts::Some(record) => {
                while let Some((name, of)) = record.fields.get(self.at) {
                    if name.is_some() {
                        return Ok(name.as_deref());
                    }
                    self.walk.skip(self.walk.shapes.at(*of), self.depth)?;
                    self.at += 1;
                }
                let default = record.defaults.get(self.at - record.fields.len());
                Ok(default.map(|(name, ..)| name.as_str()))
            }
        }
    }

    /// Reads the field that comes next.
    pub(super) fn with<T>(
        &mut self,
        read: impl FnOnce(Value<'_, 'de>) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        let (at, depth) = (self.at, self.depth);
        self.at += 1;
        let of = match self.record {
            Parts::All(record) => record.fields.get(at).map(|(_, of)| *of),
            Parts::Some(record) => match record.fields.get(at) {
                Some((_, of)) => Some(*of),
                None => {
                    let default = record.defaults.get(at - record.fields.len());
                    let Some((_, of, bytes)) = default else { return Err(Self::over()) };
                    let shape = self.walk.shapes.at(*of);
                    let mut walk = Walk::new(self.walk.shapes, bytes);
                    return read(Value { walk: &mut walk, shape, depth });
                }
            },
        };
        let shape = self.walk.shapes.at(of.ok_or_else(Self::over)?);
        read(Value { walk: self.walk, shape, depth })
    }

    fn over() -> Fault {
        Fault::custom("there are no more fields")
    }

    /// Passes over what is left.
    pub(super) fn pass(&mut self) -> Result<(), Fault> {
        while self.next()?.is_some() {
            self.with(|value| Ok(value.walk.skip(value.shape, value.depth)?))?;
        }
        Ok(())
    }
}

impl<'de> MapAccess<'de> for &mut Fields<'_, 'de> {
    type Error = Fault;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Fault> {
        let Some(name) = self.next()? else { return Ok(None) };
        seed.deserialize(BorrowedStrDeserializer::new(name)).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Fault> {
        let name = self.next()?.unwrap_or_default();
        self.with(|value| seed.deserialize(value)).map_err(|fault| fault.at(name))
    }
}

/// A variant that is told by a branch of a union.
pub(super) struct Variant<'w, 'de> {
    pub(super) name: &'static str,
    pub(super) content: Value<'w, 'de>,
}

impl<'w, 'de> EnumAccess<'de> for Variant<'w, 'de> {
    type Error = Fault;
    type Variant = Value<'w, 'de>;

    fn variant_seed<V: DeserializeSeed<'de>>(
        self,
        seed: V,
    ) -> Result<(V::Value, Self::Variant), Fault> {
        let name: StrDeserializer<'_, Fault> = self.name.into_deserializer();
        Ok((seed.deserialize(name)?, self.content))
    }
}

impl<'de> VariantAccess<'de> for Value<'_, 'de> {
    type Error = Fault;

    fn unit_variant(self) -> Result<(), Fault> {
        match self.shape {
            Shape::Null => Ok(self.walk.enter(self.depth)?),
            shape => Err(Fault::expected("nothing", shape)),
        }
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Fault> {
        seed.deserialize(self)
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_seq(visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        self.deserialize_map(visitor)
    }
}

/// A variant that is told by the first field of a record.
pub(super) struct Tagged<'w, 'de> {
    pub(super) name: &'de str,
    pub(super) fields: Fields<'w, 'de>,
}

impl<'w, 'de> EnumAccess<'de> for Tagged<'w, 'de> {
    type Error = Fault;
    type Variant = Content<'w, 'de>;

    fn variant_seed<V: DeserializeSeed<'de>>(
        self,
        seed: V,
    ) -> Result<(V::Value, Self::Variant), Fault> {
        let name: StrDeserializer<'_, Fault> = self.name.into_deserializer();
        Ok((seed.deserialize(name)?, Content(self.fields)))
    }
}

/// The fields behind a variant's name.
pub(super) struct Content<'w, 'de>(Fields<'w, 'de>);

impl<'de> Content<'_, 'de> {
    fn with<T>(
        mut self,
        read: impl FnOnce(Value<'_, 'de>) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        if self.0.next()?.is_none() {
            return Err(Fault::custom("the variant has no content"));
        }
        let value = self.0.with(read)?;
        self.0.pass()?;
        Ok(value)
    }
}

impl<'de> VariantAccess<'de> for Content<'_, 'de> {
    type Error = Fault;

    fn unit_variant(mut self) -> Result<(), Fault> {
        self.0.pass()
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Fault> {
        self.with(|value| seed.deserialize(value))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Fault> {
        self.with(|value| value.deserialize_seq(visitor))
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        self.with(|value| value.deserialize_map(visitor))
    }
}
