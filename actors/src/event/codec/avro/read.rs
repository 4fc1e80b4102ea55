//! serde reads from the bytes as the schema has them, without a value between.

use serde::de::value::StrDeserializer;
use serde::de::{Deserialize, Deserializer, Error as _, IntoDeserializer, Visitor};
use serde::forward_to_deserialize_any;

use super::fault::Fault;
use super::resolve::Cast;
use super::shape::{Shape, Shapes};
use super::walk::{Blocks, Walk};
use parts::{Fields, Items, Parts, Tagged, Variant};

mod parts;

impl Shapes {
    /// The value of the bytes.
    pub(super) fn read<'de, T: Deserialize<'de>>(&'de self, data: &'de [u8]) -> Result<T, Fault> {
        let mut walk = Walk::new(self, data);
        let value = T::deserialize(Value { walk: &mut walk, shape: self.root(), depth: 0 })?;
        walk.end()?;
        Ok(value)
    }
}

/// A value that comes next.
struct Value<'w, 'de> {
    walk: &'w mut Walk<'de>,
    shape: &'de Shape,
    depth: usize,
}

impl<'de> Value<'_, 'de> {
    /// The value itself, where a union holds it.
    fn inner(mut self) -> Result<Self, Fault> {
        loop {
            let (inner, value) = self.step()?;
            self = value;
            if inner.is_none() {
                return Ok(self);
            }
        }
    }

    /// What a union holds: which branch it is of the reader's union, if it has one.
    fn step(self) -> Result<(Option<Option<usize>>, Self), Fault> {
        if !self.shape.is_union() {
            return Ok((None, self));
        }
        self.walk.enter(self.depth)?;
        Ok(match self.walk.inner(self.shape)? {
            Some((branch, shape)) => (Some(branch), Self { shape, depth: self.depth + 1, ..self }),
            None => (None, self),
        })
    }

    /// What a union holds that only the writer has, and then a branch of the reader's, if it has
    /// one.
    fn branch(mut self) -> Result<(Option<usize>, Self), Fault> {
        loop {
            let (inner, value) = self.step()?;
            self = value;
            match inner {
                Some(None) => {}
                Some(branch) => return Ok((branch, self)),
                None => return Ok((None, self)),
            }
        }
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

    fn fields<V: Visitor<'de>>(self, record: Parts<'de>, visitor: V) -> Result<V::Value, Fault> {
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

impl<'de> Deserializer<'de> for Value<'_, 'de> {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, Fault> {
        match self.shape {
            shape if shape.is_union() => return self.inner()?.deserialize_any(visitor),
            Shape::Array(of) => return self.items(*of, visitor),
            Shape::Map(of) => return self.entries(*of, visitor),
            Shape::Record(record) => return self.fields(Parts::All(record), visitor),
            Shape::Resolved(record) => return self.fields(Parts::Some(record), visitor),
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
            Shape::Enum(symbols) => visitor.visit_borrowed_str(walk.symbol(symbols)?),
            Shape::Symbols(symbols) => visitor.visit_borrowed_str(walk.known(symbols)?),
            Shape::Cast(cast) => match cast {
                Cast::IntToFloat => visitor.visit_f32(walk.int()? as f32),
                Cast::IntToDouble => visitor.visit_f64(walk.int()?.into()),
                Cast::LongToFloat => visitor.visit_f32(walk.long()? as f32),
                Cast::LongToDouble => visitor.visit_f64(walk.long()? as f64),
                Cast::FloatToDouble => visitor.visit_f64(walk.float()?.into()),
            },
            Shape::Never(reason) => Err(Fault::Other(reason.clone())),
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
            Shape::String | Shape::Uuid | Shape::Enum(_) | Shape::Symbols(_) => {
                value.deserialize_any(visitor)
            }
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
        let (_, value) = self.branch()?;
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
            Shape::Record(record) => value.fields(Parts::All(record), visitor),
            Shape::Resolved(record) => value.fields(Parts::Some(record), visitor),
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
        let (branch, value) = self.branch()?;
        if let Some(index) = branch {
            let name = variants.get(index).ok_or_else(|| {
                Fault::custom(format!("there are {} variants, and no {index}", variants.len()))
            })?;
            return visitor.visit_enum(Variant { name, content: value });
        }
        let Self { walk, shape, depth } = value;
        let record = match shape {
            Shape::Record(record) => Parts::All(record),
            Shape::Resolved(record) => Parts::Some(record),
            _ => {
                let name = Value { walk, shape, depth }.name()?;
                return visitor.visit_enum(StrDeserializer::new(name));
            }
        };
        // Its first field is the name, and its second the content.
        walk.enter(depth)?;
        let mut fields = Fields { walk, record, at: 0, depth: depth + 1 };
        let name = match fields.next()? {
            Some("type") => fields.with(|value| value.name())?,
            _ => return Err(Fault::custom("the first field of a variant is its \"type\"")),
        };
        visitor.visit_enum(Tagged { name, fields })
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

impl<'de> Value<'_, 'de> {
    /// The name of a variant.
    fn name(self) -> Result<&'de str, Fault> {
        self.walk.enter(self.depth)?;
        Ok(match self.shape {
            Shape::Enum(symbols) => self.walk.symbol(symbols)?,
            Shape::Symbols(symbols) => self.walk.known(symbols)?,
            Shape::String => self.walk.text()?,
            Shape::Never(reason) => return Err(Fault::Other(reason.clone())),
            shape => return Err(Fault::expected("the name of a variant", shape)),
        })
    }
}
