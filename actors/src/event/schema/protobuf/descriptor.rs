//! Reads `google.protobuf.FileDescriptorSet`; field numbers are those of `descriptor.proto`.

use std::collections::{BTreeMap, BTreeSet};

use super::wire::{Fields, Wire};
use super::{Enum, Field, Label, Message, Of, Scalar, invalid};
use crate::event::schema::SchemaError;

/// How deep messages are declared in messages, at most.
const MAX_DEPTH: usize = 64;

/// How long the full name of a type is, at most, in bytes: each type declared inside another has
/// the names around it in its own.
const MAX_NAME: usize = 1_024;

type Known = (BTreeMap<String, Message>, BTreeMap<String, Enum>);

/// The messages and enums of a descriptor set, by full name.
pub(super) fn read(bytes: &[u8]) -> Result<Known, SchemaError> {
    let mut known = Known::default();
    for file in submessages(bytes, 1)? {
        let edition = text(file, 12)?;
        let features = match edition.as_deref() {
            Some("proto3") => Features { closed: false, ..Features::PROTO2 },
            Some("editions") => Features { closed: false, ..Features::PROTO2 }.of(file, 8, 50)?,
            _ => Features::PROTO2,
        };
        let package = text(file, 2)?.unwrap_or_default();
        for message in submessages(file, 4)? {
            read_message(message, &package, features, &mut known, 0)?;
        }
        for of in submessages(file, 5)? {
            read_enum(of, &package, features, &mut known)?;
        }
    }
    if known.0.is_empty() {
        return Err(invalid("", "the descriptor set has no messages; is it one?"));
    }
    undelimit_maps(&mut known.0);
    Ok(known)
}

/// Maps and their values are never delimited, whatever the file's features say.
fn undelimit_maps(messages: &mut BTreeMap<String, Message>) {
    let entries: BTreeSet<String> = messages
        .iter()
        .filter(|(_, message)| message.is_map_entry)
        .map(|(name, _)| name.clone())
        .collect();
    for message in messages.values_mut() {
        let in_entry = message.is_map_entry;
        for field in message.fields.values_mut() {
            if let Of::Group(name) = &field.of
                && (in_entry || entries.contains(name))
            {
                field.of = Of::Message(name.clone());
            }
        }
    }
}

/// What editions say about fields, inherited from file to message to field.
#[derive(Debug, Clone, Copy)]
struct Features {
    required: bool,
    closed: bool,
    delimited: bool,
}

impl Features {
    const PROTO2: Self = Self { required: false, closed: true, delimited: false };

    /// With what the options of a declaration say.
    fn of(self, bytes: &[u8], options: u32, features: u32) -> Result<Self, SchemaError> {
        let mut changed = self;
        for options in submessages(bytes, options)? {
            for features in submessages(options, features)? {
                for (number, value) in varints(features)? {
                    match number {
                        1 => changed.required = value == 3,
                        2 => changed.closed = value == 2,
                        5 => changed.delimited = value == 2,
                        _ => {}
                    }
                }
            }
        }
        Ok(changed)
    }
}

fn read_message(
    bytes: &[u8],
    scope: &str,
    features: Features,
    known: &mut Known,
    depth: usize,
) -> Result<(), SchemaError> {
    let name = declared(scope, bytes)?;
    if depth > MAX_DEPTH {
        return Err(invalid(&name, "messages are declared too deep in each other"));
    }
    let features = features.of(bytes, 7, 12)?;
    let mut message = Message::default();
    for options in submessages(bytes, 7)? {
        message.is_map_entry |= number(options, 7)? == Some(1);
    }
    let mut oneofs = Vec::new();
    for oneof in submessages(bytes, 8)? {
        oneofs.push(text(oneof, 1)?.unwrap_or_default());
    }
    for field in submessages(bytes, 2)? {
        let (number, field) = read_field(field, &name, features, &oneofs)?;
        message.fields.insert(number, field);
    }
    let required = message.fields.iter().filter(|(_, field)| field.label == Label::Required);
    message.required = required.map(|(number, _)| *number).collect();
    for range in submessages(bytes, 9)? {
        let first = number(range, 1)?.unwrap_or_default();
        // The end is behind the last one, here and not in enums.
        let last = number(range, 2)?.unwrap_or_default().saturating_sub(1);
        let bound = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
        message.reserved.ranges.push((bound(first), bound(last)));
    }
    message.reserved.sort();
    message.reserved.names.extend(texts(bytes, 10)?);
    for nested in submessages(bytes, 3)? {
        read_message(nested, &name, features, known, depth + 1)?;
    }
    for of in submessages(bytes, 4)? {
        read_enum(of, &name, features, known)?;
    }
    known.0.insert(name, message);
    Ok(())
}

fn read_field(
    bytes: &[u8],
    scope: &str,
    features: Features,
    oneofs: &[String],
) -> Result<(u32, Field), SchemaError> {
    let name = text(bytes, 1)?.unwrap_or_default();
    let place = within(scope, &name);
    let features = features.of(bytes, 8, 21)?;
    let field_number = number(bytes, 3)?.and_then(|number| u32::try_from(number).ok());
    let field_number = field_number.ok_or_else(|| invalid(&place, "the field has no number"))?;
    let type_name = || -> Result<String, SchemaError> {
        let name = text(bytes, 6)?.unwrap_or_default();
        let absolute = name.strip_prefix('.').map(str::to_owned);
        absolute.ok_or_else(|| invalid(&place, format!("the type name {name:?} is not absolute")))
    };
    let of = match number(bytes, 5)?.unwrap_or_default() {
        10 => Of::Group(type_name()?),
        11 if features.delimited => Of::Group(type_name()?),
        11 => Of::Message(type_name()?),
        14 => Of::Enum(type_name()?),
        other => match Scalar::of_number(other) {
            Some(scalar) => Of::Scalar(scalar),
            None => return Err(invalid(&place, format!("there is no type with number {other}"))),
        },
    };
    let label = match number(bytes, 4)? {
        Some(3) => Label::Repeated,
        Some(2) => Label::Required,
        _ if features.required => Label::Required,
        _ => Label::Single,
    };
    let oneof = match (number(bytes, 9)?, number(bytes, 17)?) {
        (Some(index), None | Some(0)) => {
            let index = usize::try_from(index).unwrap_or(usize::MAX);
            let oneof = oneofs.get(index).cloned();
            Some(oneof.ok_or_else(|| invalid(&place, "its oneof is not declared"))?)
        }
        _ => None,
    };
    let default = text(bytes, 7)?;
    Ok((field_number, Field { name, label, of, oneof, default }))
}

fn read_enum(
    bytes: &[u8],
    scope: &str,
    features: Features,
    known: &mut Known,
) -> Result<(), SchemaError> {
    let name = declared(scope, bytes)?;
    let features = features.of(bytes, 3, 7)?;
    let mut read = Enum { is_closed: features.closed, ..Enum::default() };
    // Negative numbers are written as the 64 bits of their value.
    #[expect(clippy::cast_possible_truncation, reason = "an int32 is read as its lower half")]
    let int32 = |number: Option<u64>| number.unwrap_or_default() as i32;
    for (at, value) in submessages(bytes, 2)?.into_iter().enumerate() {
        let number = int32(number(value, 2)?);
        // Of an open enum it is zero, or no compiler takes it.
        if at == 0 && read.is_closed {
            read.first = number;
        }
        read.values.entry(number).or_default().insert(text(value, 1)?.unwrap_or_default());
    }
    for range in submessages(bytes, 4)? {
        read.reserved.ranges.push((int32(number(range, 1)?), int32(number(range, 2)?)));
    }
    read.reserved.sort();
    read.reserved.names.extend(texts(bytes, 5)?);
    known.1.insert(name, read);
    Ok(())
}

/// The full name of a type.
fn declared(scope: &str, bytes: &[u8]) -> Result<String, SchemaError> {
    let name = within(scope, &text(bytes, 1)?.unwrap_or_default());
    match name.len() > MAX_NAME {
        true => {
            let begin: String = name.chars().take(64).collect();
            Err(invalid(&begin, format!("the name of a type is longer than {MAX_NAME} bytes")))
        }
        false => Ok(name),
    }
}

fn within(scope: &str, name: &str) -> String {
    if scope.is_empty() { name.to_owned() } else { format!("{scope}.{name}") }
}

fn fields(bytes: &[u8]) -> Result<Vec<(u32, Wire<'_>)>, SchemaError> {
    Fields::of(bytes)
        .collect::<Result<_, _>>()
        .map_err(|_| invalid("", "the bytes are no encoded FileDescriptorSet"))
}

fn submessages(bytes: &[u8], wanted: u32) -> Result<Vec<&[u8]>, SchemaError> {
    let found = fields(bytes)?.into_iter().filter_map(|(number, value)| match value {
        Wire::Length(bytes) if number == wanted => Some(bytes),
        _ => None,
    });
    Ok(found.collect())
}

fn texts(bytes: &[u8], wanted: u32) -> Result<Vec<String>, SchemaError> {
    let texts = submessages(bytes, wanted)?.into_iter().map(|bytes| {
        String::from_utf8(bytes.to_vec()).map_err(|_| invalid("", "a name is no UTF-8"))
    });
    texts.collect()
}

fn text(bytes: &[u8], wanted: u32) -> Result<Option<String>, SchemaError> {
    Ok(texts(bytes, wanted)?.pop())
}

fn varints(bytes: &[u8]) -> Result<Vec<(u32, u64)>, SchemaError> {
    let found = fields(bytes)?.into_iter().filter_map(|(number, value)| match value {
        Wire::Varint(value) => Some((number, value)),
        _ => None,
    });
    Ok(found.collect())
}

fn number(bytes: &[u8], wanted: u32) -> Result<Option<u64>, SchemaError> {
    let mut found = varints(bytes)?.into_iter().rev();
    Ok(found.find(|(number, _)| *number == wanted).map(|(_, value)| value))
}
