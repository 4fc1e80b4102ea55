//! serde writes the bytes of a schema, without a value between. The same value gives the same
//! bytes: maps by key, arrays and maps in one block.

use bytes::Bytes;
use serde::ser::{Error as _, Serialize, Serializer};

use super::MAX_DEPTH;
use super::fault::{Fault, What};
use super::shape::{Shape, Shapes};
use parts::{Entries, Fields, Items, said};

mod only;
mod parts;

impl Shapes {
    pub(super) fn write<T: Serialize>(&self, value: &T) -> Result<Bytes, Fault> {
        let mut out = Vec::with_capacity(128);
        Put { shapes: self, shape: self.root(), depth: 0, out: &mut out }.value(value)?;
        Ok(out.into())
    }
}

/// A place where a value goes.
struct Put<'s, 'o> {
    shapes: &'s Shapes,
    shape: &'s Shape,
    depth: usize,
    out: &'o mut Vec<u8>,
}

impl<'s> Put<'s, '_> {
    fn value<T: Serialize + ?Sized>(mut self, value: &T) -> Result<(), Fault> {
        if self.depth > MAX_DEPTH {
            return Err(Fault::Other(format!("values are nested deeper than {MAX_DEPTH}")));
        }
        let Shape::Union(branches) = self.shape else { return value.serialize(self) };
        let begin = self.out.len();
        let mut last = Fault::Other("there is none".to_owned());
        for (index, branch) in branches.iter().enumerate() {
            long(index as i64, self.out);
            match self.inside(*branch).value(value) {
                Ok(()) => return Ok(()),
                Err(fault) => last = fault,
            }
            self.out.truncate(begin);
        }
        Err(Fault::Other(format!("no alternative fits, nor the last: {last}")))
    }

    /// The place of something inside this one.
    fn inside(&mut self, of: usize) -> Put<'s, '_> {
        let shape = self.shapes.at(of);
        Put { shapes: self.shapes, shape, depth: self.depth + 1, out: &mut *self.out }
    }

    fn misfit<T>(&self, what: What) -> Result<T, Fault> {
        Err(Fault::misfit(what, self.shape))
    }

    fn kind<T>(&self, kind: &'static str) -> Result<T, Fault> {
        self.misfit(What::Kind(kind))
    }

    fn symbol(self, name: &str) -> Result<(), Fault> {
        let Shape::Enum(symbols) = self.shape else { return self.kind("a name") };
        let index = symbols.iter().position(|symbol| symbol == name);
        let index = index.ok_or_else(|| Fault::Other(format!("there is no symbol {name}")))?;
        long(index as i64, self.out);
        Ok(())
    }

    /// Bytes, however serde has seen them.
    fn bytes(self, bytes: &[u8]) -> Result<(), Fault> {
        match self.shape {
            Shape::Bytes | Shape::BigDecimal => counted(bytes, self.out),
            Shape::Fixed(size) if *size == bytes.len() => self.out.extend_from_slice(bytes),
            Shape::Fixed(size) => {
                let reason = format!("{} bytes are not the {size} it has", bytes.len());
                return Err(Fault::Other(reason));
            }
            Shape::Uuid => match uuid::Uuid::from_slice(bytes) {
                Ok(id) => {
                    let mut text = uuid::Uuid::encode_buffer();
                    counted(id.hyphenated().encode_lower(&mut text).as_bytes(), self.out);
                }
                Err(error) => return Err(Fault::custom(error)),
            },
            _ => return self.kind("a run of bytes"),
        }
        Ok(())
    }
}

impl<'s, 'o> Serializer for Put<'s, 'o> {
    type Ok = ();
    type Error = Fault;
    type SerializeSeq = Items<'s, 'o>;
    type SerializeTuple = Items<'s, 'o>;
    type SerializeTupleStruct = Items<'s, 'o>;
    type SerializeTupleVariant = Items<'s, 'o>;
    type SerializeMap = Entries<'s, 'o>;
    type SerializeStruct = Fields<'s, 'o>;
    type SerializeStructVariant = Fields<'s, 'o>;

    fn serialize_bool(self, value: bool) -> Result<(), Fault> {
        match self.shape {
            Shape::Boolean => self.out.push(u8::from(value)),
            _ => return self.kind("a boolean"),
        }
        Ok(())
    }

    fn serialize_i8(self, number: i8) -> Result<(), Fault> {
        self.serialize_i64(number.into())
    }

    fn serialize_i16(self, number: i16) -> Result<(), Fault> {
        self.serialize_i64(number.into())
    }

    fn serialize_i32(self, number: i32) -> Result<(), Fault> {
        self.serialize_i64(number.into())
    }

    fn serialize_i64(self, number: i64) -> Result<(), Fault> {
        match self.shape {
            Shape::Long => long(number, self.out),
            Shape::Int if i32::try_from(number).is_ok() => long(number, self.out),
            _ => return self.misfit(What::Number(number)),
        }
        Ok(())
    }

    fn serialize_u8(self, number: u8) -> Result<(), Fault> {
        self.serialize_i64(number.into())
    }

    fn serialize_u16(self, number: u16) -> Result<(), Fault> {
        self.serialize_i64(number.into())
    }

    fn serialize_u32(self, number: u32) -> Result<(), Fault> {
        self.serialize_i64(number.into())
    }

    fn serialize_u64(self, number: u64) -> Result<(), Fault> {
        match i64::try_from(number) {
            Ok(number) => self.serialize_i64(number),
            Err(_) => self.misfit(What::Unsigned(number)),
        }
    }

    fn serialize_f32(self, number: f32) -> Result<(), Fault> {
        match self.shape {
            Shape::Float => self.out.extend_from_slice(&number.to_le_bytes()),
            Shape::Double => self.out.extend_from_slice(&f64::from(number).to_le_bytes()),
            _ => return self.kind("a float"),
        }
        Ok(())
    }

    fn serialize_f64(self, number: f64) -> Result<(), Fault> {
        match self.shape {
            Shape::Double => self.out.extend_from_slice(&number.to_le_bytes()),
            _ => return self.kind("a double"),
        }
        Ok(())
    }

    fn serialize_char(self, value: char) -> Result<(), Fault> {
        self.serialize_str(value.encode_utf8(&mut [0; 4]))
    }

    fn serialize_str(self, text: &str) -> Result<(), Fault> {
        match self.shape {
            Shape::String | Shape::Uuid => counted(text.as_bytes(), self.out),
            Shape::Enum(_) => return self.symbol(text),
            _ => return self.kind("a text"),
        }
        Ok(())
    }

    fn serialize_bytes(self, bytes: &[u8]) -> Result<(), Fault> {
        self.bytes(bytes)
    }

    fn serialize_none(self) -> Result<(), Fault> {
        self.serialize_unit()
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), Fault> {
        match self.shape {
            // It is tried beside others, and holds nothing that is something.
            Shape::Null => self.kind("something"),
            _ => self.value(value),
        }
    }

    fn serialize_unit(self) -> Result<(), Fault> {
        match self.shape {
            Shape::Null => Ok(()),
            _ => self.kind("nothing"),
        }
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<(), Fault> {
        self.serialize_unit()
    }

    fn serialize_unit_variant(self, _: &str, _: u32, name: &'static str) -> Result<(), Fault> {
        self.symbol(name)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<(), Fault> {
        self.value(value)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        name: &'static str,
        value: &T,
    ) -> Result<(), Fault> {
        let mut fields = self.record("a variant with content")?;
        fields.put("type", &Tag(name))?;
        fields.put("value", value)?;
        fields.close()
    }

    fn serialize_seq(self, len: Option<usize>) -> Result<Items<'s, 'o>, Fault> {
        let begin = self.out.len();
        let said = match self.shape {
            Shape::Array(_) => said(len, self.out),
            Shape::Bytes | Shape::BigDecimal | Shape::Fixed(_) => None,
            _ => return self.kind("a sequence"),
        };
        Ok(Items { to: self, begin, said, count: 0, bytes: Vec::new() })
    }

    fn serialize_tuple(self, len: usize) -> Result<Items<'s, 'o>, Fault> {
        self.serialize_seq(Some(len))
    }

    fn serialize_tuple_struct(self, _: &str, len: usize) -> Result<Items<'s, 'o>, Fault> {
        self.serialize_seq(Some(len))
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        name: &'static str,
        len: usize,
    ) -> Result<Items<'s, 'o>, Fault> {
        self.content(name)?.serialize_seq(Some(len))
    }

    fn serialize_map(self, len: Option<usize>) -> Result<Entries<'s, 'o>, Fault> {
        match self.shape {
            Shape::Record(_) => Ok(Entries::Fields(self.record("a map")?, String::new())),
            Shape::Map(of) => {
                let begin = self.out.len();
                let said = said(len, self.out);
                let of = *of;
                let entries = Vec::with_capacity(len.unwrap_or(0).min(64));
                Ok(Entries::Map { to: self, of, begin, said, entries })
            }
            _ => self.kind("a map"),
        }
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Fields<'s, 'o>, Fault> {
        self.record("a record")
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        name: &'static str,
        _: usize,
    ) -> Result<Fields<'s, 'o>, Fault> {
        self.content(name)?.record("a record")
    }

    fn is_human_readable(&self) -> bool {
        false
    }
}

impl<'s, 'o> Put<'s, 'o> {
    fn record(self, what: &'static str) -> Result<Fields<'s, 'o>, Fault> {
        match self.shape {
            Shape::Record(record) => Ok(Fields { to: self, record, next: 0, later: Vec::new() }),
            _ => self.kind(what),
        }
    }

    /// The place of a variant's content: behind its name, in a record of the two.
    fn content(mut self, name: &'static str) -> Result<Self, Fault> {
        let Shape::Record(record) = self.shape else { return self.kind("a variant with content") };
        let [(tag, of), (value, content)] = &record.fields[..] else {
            return self.kind("a variant with content");
        };
        if tag != "type" || value != "value" {
            return self.kind("a variant with content");
        }
        self.inside(*of).value(&Tag(name))?;
        let Self { shapes, depth, out, .. } = self;
        Ok(Put { shapes, shape: shapes.at(*content), depth: depth + 1, out })
    }
}

/// The name of a variant.
struct Tag(&'static str);

impl Serialize for Tag {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_unit_variant("", 0, self.0)
    }
}

pub(super) fn counted(bytes: &[u8], out: &mut Vec<u8>) {
    long(bytes.len() as i64, out);
    out.extend_from_slice(bytes);
}

pub(super) fn long(number: i64, out: &mut Vec<u8>) {
    let mut left = ((number << 1) ^ (number >> 63)) as u64;
    while left >= 0x80 {
        out.push(left as u8 | 0x80);
        left >>= 7;
    }
    out.push(left as u8);
}
