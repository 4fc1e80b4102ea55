//! Values of one kind only: the bytes of a sequence, the keys of a map.

use serde::ser::{Impossible, Serialize, Serializer};

use crate::event::codec::avro::fault::{Fault, What};

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
pub(super) struct Byte;

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
pub(super) struct Key;

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
