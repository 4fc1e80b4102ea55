//! serde writes the bytes of a schema, without a value between. The same value gives the same
//! bytes: maps by key, arrays and maps in one block.

use bytes::Bytes;
use serde::ser::{
    Error as _, Impossible, Serialize, SerializeMap, SerializeSeq, SerializeStruct,
    SerializeStructVariant, SerializeTuple, SerializeTupleStruct, SerializeTupleVariant,
    Serializer,
};

use super::MAX_DEPTH;
use super::fault::{Fault, What};
use super::shape::{Record, Shape, Shapes};

impl Shapes {
    pub(super) fn write<T: Serialize>(&self, value: &T) -> Result<Bytes, Fault> {
        let mut out = Vec::with_capacity(128);
        Put { shapes: self, shape: self.root(), depth: 0, out: &mut out }.value(value)?;
        Ok(out.into())
    }
}

/// A place where a value goes.
pub(super) struct Put<'s, 'o> {
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

/// Writes how many elements there will be, if that is known.
fn said(len: Option<usize>, out: &mut Vec<u8>) -> Option<usize> {
    let len = len.filter(|len| *len > 0)?;
    long(len as i64, out);
    Some(len)
}

/// Puts the number of elements in front of them, if it was not what was said, and their end behind.
fn close(begin: usize, said: Option<usize>, count: usize, out: &mut Vec<u8>) {
    if said.unwrap_or(0) != count {
        let mut head = Vec::new();
        let mut written = Vec::new();
        said.into_iter().for_each(|said| long(said as i64, &mut written));
        if count > 0 {
            long(count as i64, &mut head);
        }
        out.splice(begin..begin + written.len(), head);
    }
    out.push(0);
}

/// Elements of an array, or bytes one by one.
pub(super) struct Items<'s, 'o> {
    to: Put<'s, 'o>,
    begin: usize,
    said: Option<usize>,
    count: usize,
    bytes: Vec<u8>,
}

impl Items<'_, '_> {
    fn put<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Fault> {
        self.count += 1;
        match self.to.shape {
            Shape::Array(of) => self.to.inside(*of).value(value),
            _ => {
                let byte = value.serialize(Byte)?;
                self.bytes.push(byte);
                Ok(())
            }
        }
    }

    fn close(self) -> Result<(), Fault> {
        match self.to.shape {
            Shape::Array(_) => {
                close(self.begin, self.said, self.count, self.to.out);
                Ok(())
            }
            _ => self.to.bytes(&self.bytes),
        }
    }
}

macro_rules! items {
    ($($name:ident $put:ident)*) => {$(
        impl $name for Items<'_, '_> {
            type Ok = ();
            type Error = Fault;

            fn $put<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Fault> {
                self.put(value)
            }

            fn end(self) -> Result<(), Fault> {
                self.close()
            }
        }
    )*};
}

items! {
    SerializeSeq serialize_element
    SerializeTuple serialize_element
    SerializeTupleStruct serialize_field
    SerializeTupleVariant serialize_field
}

/// Entries of a map, which is a record or a map to the schema.
pub(super) enum Entries<'s, 'o> {
    Fields(Fields<'s, 'o>, String),
    Map {
        to: Put<'s, 'o>,
        of: usize,
        begin: usize,
        said: Option<usize>,
        /// Each key, and where its entry begins.
        entries: Vec<(String, usize)>,
    },
}

impl SerializeMap for Entries<'_, '_> {
    type Ok = ();
    type Error = Fault;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Fault> {
        let key = key.serialize(Key)?;
        match self {
            Self::Fields(_, name) => *name = key,
            Self::Map { to, entries, .. } => {
                let at = to.out.len();
                counted(key.as_bytes(), to.out);
                entries.push((key, at));
            }
        }
        Ok(())
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Fault> {
        match self {
            Self::Fields(fields, name) => fields.put(name, value),
            Self::Map { to, of, .. } => to.inside(*of).value(value),
        }
    }

    fn end(self) -> Result<(), Fault> {
        let (to, begin, said, mut entries) = match self {
            Self::Fields(fields, _) => return fields.close(),
            Self::Map { to, begin, said, entries, .. } => (to, begin, said, entries),
        };
        let out = to.out;
        let mut count = entries.len();
        if !entries.is_sorted_by(|(one, _), (other, _)| one < other) {
            let first = entries.first().map_or(out.len(), |(_, at)| *at);
            let ends: Vec<usize> =
                entries.iter().skip(1).map(|(_, at)| *at).chain([out.len()]).collect();
            let mut places: Vec<_> =
                entries.drain(..).zip(ends).map(|((key, at), end)| (key, at..end)).collect();
            // The last of two with one key is the one that counts.
            places.reverse();
            places.sort_by(|(one, _), (other, _)| one.cmp(other));
            places.dedup_by(|(one, _), (kept, _)| one == kept);
            count = places.len();
            let sorted: Vec<u8> =
                places.into_iter().flat_map(|(_, place)| out[place].to_vec()).collect();
            out.truncate(first);
            out.extend_from_slice(&sorted);
        }
        close(begin, said, count, out);
        Ok(())
    }
}

/// Fields of a record, in any order.
pub(super) struct Fields<'s, 'o> {
    to: Put<'s, 'o>,
    record: &'s Record,
    /// The first that is not written.
    next: usize,
    /// Those that came before their turn.
    later: Vec<(usize, Vec<u8>)>,
}

impl<'s> Fields<'s, '_> {
    fn put<T: Serialize + ?Sized>(&mut self, name: &str, value: &T) -> Result<(), Fault> {
        let record: &'s Record = self.record;
        let fields = &record.fields;
        let expected = fields.get(self.next).is_some_and(|(next, _)| next == name);
        let at = if expected { self.next } else { self.find(name)? };
        let mut place = self.to.inside(fields[at].1);
        if expected {
            place.value(value).map_err(|fault| fault.at(name))?;
            self.next += 1;
            self.catch_up();
        } else {
            let mut apart = Vec::new();
            place.out = &mut apart;
            place.value(value).map_err(|fault| fault.at(name))?;
            self.later.push((at, apart));
        }
        Ok(())
    }

    fn find(&self, name: &str) -> Result<usize, Fault> {
        let at = self.record.find(name);
        let at = at.ok_or_else(|| Fault::Other(format!("the schema has no field {name}")))?;
        match at < self.next || self.later.iter().any(|(later, _)| *later == at) {
            true => Err(Fault::Other(format!("the field {name} comes twice"))),
            false => Ok(at),
        }
    }

    /// Writes those whose turn it is now.
    fn catch_up(&mut self) {
        while let Some(at) = self.later.iter().position(|(at, _)| *at == self.next) {
            self.to.out.extend_from_slice(&self.later.swap_remove(at).1);
            self.next += 1;
        }
    }

    /// One that was left out may be null.
    fn close(mut self) -> Result<(), Fault> {
        self.catch_up();
        let record: &'s Record = self.record;
        while let Some((name, of)) = record.fields.get(self.next) {
            self.to.inside(*of).value(&()).map_err(|_| {
                Fault::Other(format!("{name}: the value has no such field, and it may not be null"))
            })?;
            self.next += 1;
            self.catch_up();
        }
        Ok(())
    }
}

impl SerializeStruct for Fields<'_, '_> {
    type Ok = ();
    type Error = Fault;

    fn serialize_field<T: Serialize + ?Sized>(
        &mut self,
        name: &'static str,
        value: &T,
    ) -> Result<(), Fault> {
        self.put(name, value)
    }

    fn end(self) -> Result<(), Fault> {
        self.close()
    }
}

impl SerializeStructVariant for Fields<'_, '_> {
    type Ok = ();
    type Error = Fault;

    fn serialize_field<T: Serialize + ?Sized>(
        &mut self,
        name: &'static str,
        value: &T,
    ) -> Result<(), Fault> {
        self.put(name, value)
    }

    fn end(self) -> Result<(), Fault> {
        self.close()
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

/// Takes one kind of scalar, and nothing else.
macro_rules! only {
    ($name:ident -> $ok:ty, $wanted:literal { $($method:ident($of:ty) $take:expr;)* } not { $($other:ident($other_of:ty))* }) => {
        impl Serializer for $name {
            type Ok = $ok;
            type Error = Fault;
            type SerializeSeq = Impossible<$ok, Fault>;
            type SerializeTuple = Impossible<$ok, Fault>;
            type SerializeTupleStruct = Impossible<$ok, Fault>;
            type SerializeTupleVariant = Impossible<$ok, Fault>;
            type SerializeMap = Impossible<$ok, Fault>;
            type SerializeStruct = Impossible<$ok, Fault>;
            type SerializeStructVariant = Impossible<$ok, Fault>;

            $(fn $method(self, value: $of) -> Result<$ok, Fault> {
                #[allow(clippy::redundant_closure_call)]
                ($take)(value).ok_or($name::FAULT)
            })*
            $(fn $other(self, _: $other_of) -> Result<$ok, Fault> {
                Err($name::FAULT)
            })*
            fn serialize_unit_variant(self, _: &'static str, _: u32, name: &'static str) -> Result<$ok, Fault> {
                self.variant(name)
            }
            fn serialize_none(self) -> Result<$ok, Fault> {
                Err($name::FAULT)
            }
            fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<$ok, Fault> {
                value.serialize(self)
            }
            fn serialize_unit(self) -> Result<$ok, Fault> {
                Err($name::FAULT)
            }
            fn serialize_unit_struct(self, _: &'static str) -> Result<$ok, Fault> {
                Err($name::FAULT)
            }
            fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, value: &T) -> Result<$ok, Fault> {
                value.serialize(self)
            }
            fn serialize_newtype_variant<T: Serialize + ?Sized>(self, _: &'static str, _: u32, _: &'static str, _: &T) -> Result<$ok, Fault> {
                Err($name::FAULT)
            }
            fn serialize_seq(self, _: Option<usize>) -> Result<Self::SerializeSeq, Fault> {
                Err($name::FAULT)
            }
            fn serialize_tuple(self, _: usize) -> Result<Self::SerializeTuple, Fault> {
                Err($name::FAULT)
            }
            fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Self::SerializeTupleStruct, Fault> {
                Err($name::FAULT)
            }
            fn serialize_tuple_variant(self, _: &'static str, _: u32, _: &'static str, _: usize) -> Result<Self::SerializeTupleVariant, Fault> {
                Err($name::FAULT)
            }
            fn serialize_map(self, _: Option<usize>) -> Result<Self::SerializeMap, Fault> {
                Err($name::FAULT)
            }
            fn serialize_struct(self, _: &'static str, _: usize) -> Result<Self::SerializeStruct, Fault> {
                Err($name::FAULT)
            }
            fn serialize_struct_variant(self, _: &'static str, _: u32, _: &'static str, _: usize) -> Result<Self::SerializeStructVariant, Fault> {
                Err($name::FAULT)
            }
        }

        impl $name {
            const FAULT: Fault =
                Fault::Mismatch { what: What::Kind("what is there"), wanted: $wanted };
        }
    };
}

/// One byte of many, as a number of at most 32 bits.
struct Byte;

impl Byte {
    fn variant(self, _: &'static str) -> Result<u8, Fault> {
        Err(Self::FAULT)
    }
}

only! {
    Byte -> u8, "a byte" {
        serialize_i8(i8) |number: i8| u8::try_from(number).ok();
        serialize_i16(i16) |number: i16| u8::try_from(number).ok();
        serialize_i32(i32) |number: i32| u8::try_from(number).ok();
        serialize_u8(u8) Some;
        serialize_u16(u16) |number: u16| u8::try_from(number).ok();
        serialize_u32(u32) |number: u32| u8::try_from(number).ok();
    } not {
        serialize_bool(bool) serialize_i64(i64) serialize_u64(u64) serialize_f32(f32)
        serialize_f64(f64) serialize_char(char) serialize_str(&str) serialize_bytes(&[u8])
    }
}

/// The key of a map.
struct Key;

impl Key {
    fn variant(self, name: &'static str) -> Result<String, Fault> {
        Ok(name.to_owned())
    }
}

only! {
    Key -> String, "a text, as keys of Avro are" {
        serialize_char(char) |value: char| Some(value.to_string());
        serialize_str(&str) |text: &str| Some(text.to_owned());
    } not {
        serialize_bool(bool) serialize_i8(i8) serialize_i16(i16) serialize_i32(i32)
        serialize_i64(i64) serialize_u8(u8) serialize_u16(u16) serialize_u32(u32)
        serialize_u64(u64) serialize_f32(f32) serialize_f64(f64) serialize_bytes(&[u8])
    }
}
