//! serde reads from the bytes as the schema has them, without a value between.

use serde::de::value::StrDeserializer;
use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, Error as _, IntoDeserializer, MapAccess, SeqAccess,
    VariantAccess, Visitor,
};
use serde::forward_to_deserialize_any;

use super::fault::Fault;
use super::shape::{Record, Shape, Shapes};
use super::walk::{Blocks, Walk};

impl Shapes {
    /// The value of the bytes.
    pub(super) fn read<T: serde::de::DeserializeOwned>(&self, data: &[u8]) -> Result<T, Fault> {
        let mut walk = Walk::new(self, data);
        let value = T::deserialize(Value { walk: &mut walk, shape: self.root(), depth: 0 })?;
        walk.end()?;
        Ok(value)
    }
}

/// A value that comes next.
struct Value<'w, 's, 'de> {
    walk: &'w mut Walk<'s, 'de>,
    shape: &'s Shape,
    depth: usize,
}

impl<'s, 'de> Value<'_, 's, 'de> {
    /// The value itself, where a union holds it.
    fn inner(mut self) -> Result<Self, Fault> {
        while let Shape::Union(branches) = self.shape {
            self = self.branch(branches)?.1;
        }
        Ok(self)
    }

    fn branch(self, branches: &'s [usize]) -> Result<(usize, Self), Fault> {
        self.walk.enter(self.depth)?;
        let (index, shape) = self.walk.branch(branches)?;
        Ok((index, Self { shape, depth: self.depth + 1, ..self }))
    }

    fn items<V: Visitor<'de>>(self, of: usize, visitor: V) -> Result<V::Value, Fault> {
        let Self { walk, depth, .. } = self;
        walk.enter(depth)?;
        let shape = walk.shapes.at(of);
        let mut items = Items { walk, shape, depth: depth + 1, blocks: Blocks::default() };
        let value = visitor.visit_seq(&mut items)?;
        // What the visitor did not ask for is there all the same.
        while items.blocks.next(items.walk)? {
            items.walk.skip(items.shape, items.depth)?;
        }
        Ok(value)
    }

    fn entries<V: Visitor<'de>>(self, of: usize, visitor: V) -> Result<V::Value, Fault> {
        let Self { walk, depth, .. } = self;
        walk.enter(depth)?;
        let shape = walk.shapes.at(of);
        let mut items = Items { walk, shape, depth: depth + 1, blocks: Blocks::default() };
        let value = visitor.visit_map(&mut items)?;
        while items.blocks.next(items.walk)? {
            items.walk.text()?;
            items.walk.skip(items.shape, items.depth)?;
        }
        Ok(value)
    }

    fn fields<V: Visitor<'de>>(self, record: &'s Record, visitor: V) -> Result<V::Value, Fault> {
        let Self { walk, depth, .. } = self;
        walk.enter(depth)?;
        let mut fields = Fields { walk, record, at: 0, depth: depth + 1 };
        let value = visitor.visit_map(&mut fields)?;
        fields.pass()?;
        Ok(value)
    }

    /// Bytes, whatever is in them.
    fn bytes(&mut self) -> Result<&'de [u8], Fault> {
        self.walk.enter(self.depth)?;
        Ok(match self.shape {
            Shape::Fixed(size) => self.walk.take(*size)?,
            Shape::BigDecimal => self.walk.big_decimal()?,
            Shape::String => self.walk.text()?.as_bytes(),
            Shape::Bytes => self.walk.counted()?,
            shape => return Err(Fault::expected("bytes", shape)),
        })
    }
}

impl<'de> Deserializer<'de> for Value<'_, '_, 'de> {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, Fault> {
        match self.shape {
            Shape::Union(_) => return self.inner()?.deserialize_any(visitor),
            Shape::Array(of) => return self.items(*of, visitor),
            Shape::Map(of) => return self.entries(*of, visitor),
            Shape::Record(record) => return self.fields(record, visitor),
            Shape::Bytes | Shape::Fixed(_) | Shape::BigDecimal => {
                return visitor.visit_borrowed_bytes(self.bytes()?);
            }
            _ => self.walk.enter(self.depth)?,
        }
        let walk = self.walk;
        match self.shape {
            Shape::Boolean => visitor.visit_bool(walk.boolean()?),
            Shape::Int => visitor.visit_i32(walk.int()?),
            Shape::Long => visitor.visit_i64(walk.long()?),
            Shape::Float => visitor.visit_f32(walk.float()?),
            Shape::Double => visitor.visit_f64(walk.double()?),
            Shape::String => visitor.visit_borrowed_str(walk.text()?),
            Shape::Uuid => visitor.visit_str(&walk.uuid()?.to_string()),
            Shape::Enum(symbols) => visitor.visit_str(walk.symbol(symbols)?),
            _ => visitor.visit_unit(),
        }
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64
    }

    fn deserialize_char<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_str(visitor)
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        let mut value = self.inner()?;
        match value.shape {
            Shape::String | Shape::Uuid | Shape::Enum(_) => value.deserialize_any(visitor),
            _ => {
                let text = str::from_utf8(value.bytes()?).map_err(Fault::custom)?;
                visitor.visit_borrowed_str(text)
            }
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_str(visitor)
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        let mut value = self.inner()?;
        match value.shape {
            Shape::Uuid => {
                value.walk.enter(value.depth)?;
                visitor.visit_bytes(value.walk.uuid()?.as_bytes())
            }
            // A type that takes bytes and sequences.
            Shape::Array(of) => value.items(*of, visitor),
            _ => visitor.visit_borrowed_bytes(value.bytes()?),
        }
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_bytes(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        let value = match self.shape {
            Shape::Union(branches) => self.branch(branches)?.1,
            _ => self,
        };
        match value.shape {
            Shape::Null => {
                value.walk.enter(value.depth)?;
                visitor.visit_none()
            }
            _ => visitor.visit_some(value),
        }
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        let value = self.inner()?;
        match value.shape {
            Shape::Null => value.deserialize_any(visitor),
            shape => Err(Fault::expected("nothing", shape)),
        }
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        self.deserialize_unit(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        let mut value = self.inner()?;
        match value.shape {
            Shape::Array(of) => value.items(*of, visitor),
            Shape::Null => {
                value.walk.enter(value.depth)?;
                visitor.visit_seq(Vec::<u8>::new().into_deserializer())
            }
            // A `Vec<u8>` is a sequence of numbers to serde.
            Shape::Bytes | Shape::Fixed(_) => {
                let bytes = value.bytes()?;
                visitor.visit_seq(serde::de::value::SeqDeserializer::new(bytes.iter().copied()))
            }
            shape => Err(Fault::expected("a sequence", shape)),
        }
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: usize,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        let value = self.inner()?;
        match value.shape {
            Shape::Map(of) => value.entries(*of, visitor),
            Shape::Record(record) => value.fields(record, visitor),
            Shape::Null => {
                value.walk.enter(value.depth)?;
                let nothing: std::collections::BTreeMap<&str, u8> = Default::default();
                visitor.visit_map(serde::de::value::MapDeserializer::new(nothing.into_iter()))
            }
            shape => Err(Fault::expected("a map or a record", shape)),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        self.deserialize_map(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        match self.shape {
            Shape::Union(branches) => {
                let (index, content) = self.branch(branches)?;
                let name = variants.get(index).ok_or_else(|| {
                    Fault::custom(format!("there are {} variants, and no {index}", variants.len()))
                })?;
                visitor.visit_enum(Variant { name, content })
            }
            // Its first field is the name, and its second the content.
            Shape::Record(record) => {
                self.walk.enter(self.depth)?;
                let mut fields = Fields { walk: self.walk, record, at: 0, depth: self.depth + 1 };
                let name = match fields.next() {
                    Some(("type", value)) => value.name()?,
                    _ => return Err(Fault::custom("the first field of a variant is its \"type\"")),
                };
                visitor.visit_enum(Tagged { name, fields })
            }
            _ => {
                let name = self.name()?;
                visitor.visit_enum(StrDeserializer::new(&name))
            }
        }
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_str(visitor)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.walk.skip(self.shape, self.depth)?;
        visitor.visit_unit()
    }

    fn is_human_readable(&self) -> bool {
        false
    }
}

impl Value<'_, '_, '_> {
    /// The name of a variant.
    fn name(self) -> Result<String, Fault> {
        self.walk.enter(self.depth)?;
        Ok(match self.shape {
            Shape::Enum(symbols) => self.walk.symbol(symbols)?.to_owned(),
            Shape::String => self.walk.text()?.to_owned(),
            shape => return Err(Fault::expected("the name of a variant", shape)),
        })
    }
}

/// Elements of an array, or entries of a map.
struct Items<'w, 's, 'de> {
    walk: &'w mut Walk<'s, 'de>,
    shape: &'s Shape,
    depth: usize,
    blocks: Blocks,
}

impl<'de> SeqAccess<'de> for &mut Items<'_, '_, 'de> {
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

impl<'de> MapAccess<'de> for &mut Items<'_, '_, 'de> {
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

/// Fields of a record, in the order of the schema.
struct Fields<'w, 's, 'de> {
    walk: &'w mut Walk<'s, 'de>,
    record: &'s Record,
    at: usize,
    depth: usize,
}

impl<'s, 'de> Fields<'_, 's, 'de> {
    fn next(&mut self) -> Option<(&'s str, Value<'_, 's, 'de>)> {
        let (name, of) = self.record.fields.get(self.at)?;
        self.at += 1;
        let shape = self.walk.shapes.at(*of);
        Some((name, Value { walk: self.walk, shape, depth: self.depth }))
    }

    /// Passes over what is left.
    fn pass(&mut self) -> Result<(), Fault> {
        while let Some((_, value)) = self.next() {
            value.walk.skip(value.shape, value.depth)?;
        }
        Ok(())
    }
}

impl<'de> MapAccess<'de> for &mut Fields<'_, '_, 'de> {
    type Error = Fault;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Fault> {
        let Some((name, _)) = self.record.fields.get(self.at) else { return Ok(None) };
        let key: StrDeserializer<'_, Fault> = name.as_str().into_deserializer();
        seed.deserialize(key).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Fault> {
        match self.next() {
            Some((name, value)) => seed.deserialize(value).map_err(|fault| fault.at(name)),
            None => Err(Fault::custom("there are no more fields")),
        }
    }
}

/// A variant that is told by a branch of a union.
struct Variant<'w, 's, 'de> {
    name: &'static str,
    content: Value<'w, 's, 'de>,
}

impl<'w, 's, 'de> EnumAccess<'de> for Variant<'w, 's, 'de> {
    type Error = Fault;
    type Variant = Value<'w, 's, 'de>;

    fn variant_seed<V: DeserializeSeed<'de>>(
        self,
        seed: V,
    ) -> Result<(V::Value, Self::Variant), Fault> {
        let name: StrDeserializer<'_, Fault> = self.name.into_deserializer();
        Ok((seed.deserialize(name)?, self.content))
    }
}

impl<'de> VariantAccess<'de> for Value<'_, '_, 'de> {
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
struct Tagged<'w, 's, 'de> {
    name: String,
    fields: Fields<'w, 's, 'de>,
}

impl<'w, 's, 'de> EnumAccess<'de> for Tagged<'w, 's, 'de> {
    type Error = Fault;
    type Variant = Content<'w, 's, 'de>;

    fn variant_seed<V: DeserializeSeed<'de>>(
        self,
        seed: V,
    ) -> Result<(V::Value, Self::Variant), Fault> {
        let name: StrDeserializer<'_, Fault> = self.name.as_str().into_deserializer();
        Ok((seed.deserialize(name)?, Content(self.fields)))
    }
}

/// The fields behind a variant's name.
struct Content<'w, 's, 'de>(Fields<'w, 's, 'de>);

impl<'de> Content<'_, '_, 'de> {
    fn with<T>(
        mut self,
        read: impl FnOnce(Value<'_, '_, 'de>) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        let (_, value) =
            self.0.next().ok_or_else(|| Fault::custom("the variant has no content"))?;
        let value = read(value)?;
        self.0.pass()?;
        Ok(value)
    }
}

impl<'de> VariantAccess<'de> for Content<'_, '_, 'de> {
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
