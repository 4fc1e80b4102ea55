//! Values with others in them: arrays, maps, records.

use serde::ser::{
    Serialize, SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant, SerializeTuple,
    SerializeTupleStruct, SerializeTupleVariant,
};

use super::only::{Byte, Key};
use super::{Put, counted, long};
use crate::event::codec::avro::fault::Fault;
use crate::event::codec::avro::shape::{Record, Shape};

/// Writes how many elements there will be, if that is known.
pub(super) fn said(len: Option<usize>, out: &mut Vec<u8>) -> Option<usize> {
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
    pub(super) to: Put<'s, 'o>,
    pub(super) begin: usize,
    pub(super) said: Option<usize>,
    pub(super) count: usize,
    pub(super) bytes: Vec<u8>,
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
    pub(super) to: Put<'s, 'o>,
    pub(super) record: &'s Record,
    /// The first that is not written.
    pub(super) next: usize,
    /// Those that came before their turn.
    pub(super) later: Vec<(usize, Vec<u8>)>,
}

impl<'s> Fields<'s, '_> {
    pub(super) fn put<T: Serialize + ?Sized>(
        &mut self,
        name: &str,
        value: &T,
    ) -> Result<(), Fault> {
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
    pub(super) fn close(mut self) -> Result<(), Fault> {
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
