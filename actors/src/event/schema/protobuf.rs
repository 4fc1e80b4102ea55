//! Protobuf: what a message and everything that it uses look like on the wire.
//!
//! Descriptors are read by a small reader of its own rather than a generated one, so that the
//! features of editions are seen: they say which fields are required, delimited, or of a closed
//! enum.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::Serialize;

use super::{SchemaError, SchemaKind};

pub(super) mod compare;
mod descriptor;
pub(super) mod payload;
mod wire;

/// A message, with the messages and enums that it uses.
#[derive(Debug, Serialize)]
pub(super) struct ProtobufSchema {
    /// Full name of the message.
    root: String,
    messages: BTreeMap<String, Message>,
    enums: BTreeMap<String, Enum>,
}

#[derive(Debug, Default, Serialize)]
struct Message {
    /// By number.
    fields: BTreeMap<u32, Field>,
    /// The numbers of the required ones among them.
    #[serde(skip)]
    required: Vec<u32>,
    reserved: Reserved<u32>,
    /// It is what the compiler makes of `map<…>`.
    is_map_entry: bool,
}

/// What may not be used again.
#[derive(Debug, Default, Serialize)]
struct Reserved<N> {
    /// First and last.
    ranges: Vec<(N, N)>,
    names: BTreeSet<String>,
}

#[derive(Debug, Serialize)]
struct Field {
    name: String,
    label: Label,
    of: Of,
    /// The name of its `oneof`; one that only makes a field optional does not count.
    oneof: Option<String>,
    /// What a reader takes for a field that was left out, if the schema says it (proto2).
    #[serde(skip_serializing_if = "Option::is_none")]
    default: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
enum Label {
    Single,
    Required,
    Repeated,
}

/// What a field is of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
enum Of {
    Scalar(Scalar),
    /// By its full name.
    Enum(String),
    /// By its full name; written with its length in front.
    Message(String),
    /// By its full name; written with marks around it.
    Group(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
enum Scalar {
    Double,
    Float,
    Int64,
    Uint64,
    Int32,
    Fixed64,
    Fixed32,
    Bool,
    String,
    Bytes,
    Uint32,
    Sfixed32,
    Sfixed64,
    Sint32,
    Sint64,
}

#[derive(Debug, Default, Serialize)]
struct Enum {
    /// Names by number; there are several with `allow_alias`.
    values: BTreeMap<i32, BTreeSet<String>>,
    reserved: Reserved<i32>,
    /// A number that is not listed is not a value (proto2), and readers drop it.
    is_closed: bool,
    /// The number that is listed first: what a reader takes for a field that was left out. It is
    /// zero but in proto2.
    #[serde(skip_serializing_if = "is_zero")]
    first: i32,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
const fn is_zero(number: &i32) -> bool {
    *number == 0
}

impl<N: Copy + Ord> Reserved<N> {
    /// Puts the ranges in order; those that overlap become one.
    fn sort(&mut self) {
        self.ranges.sort_unstable();
        self.ranges.dedup_by(|next, kept| {
            let overlap = next.0 <= kept.1;
            if overlap {
                kept.1 = kept.1.max(next.1);
            }
            overlap
        });
    }

    /// Whether a number is in one of the ranges, which are in order.
    fn has(&self, number: N) -> bool {
        let at = self.ranges.partition_point(|(first, _)| *first <= number);
        at.checked_sub(1).is_some_and(|at| number <= self.ranges[at].1)
    }
}

impl ProtobufSchema {
    /// Reads a message out of an encoded `FileDescriptorSet`.
    pub(super) fn parse(descriptors: &[u8], message: &str) -> Result<Self, SchemaError> {
        let (mut messages, mut enums) = descriptor::read(descriptors)?;
        let root = message.trim_start_matches('.').to_owned();
        if !messages.contains_key(&root) {
            let known: Vec<_> = messages.keys().take(8).map(String::as_str).collect();
            let known = known.join(", ");
            return Err(invalid("", format!("there is no message {root}; it has: {known}")));
        }
        // What the message does not use does not count.
        let mut used = BTreeSet::new();
        let mut open = vec![root.clone()];
        while let Some(name) = open.pop() {
            let Some(message) = messages.get(&name) else { continue };
            if !used.insert(name.clone()) {
                continue;
            }
            for field in message.fields.values() {
                let (of, known) = match &field.of {
                    Of::Scalar(_) => continue,
                    Of::Enum(of) => (of, enums.contains_key(of)),
                    Of::Message(of) | Of::Group(of) => (of, messages.contains_key(of)),
                };
                if !known {
                    let place = format!("{name}.{}", field.name);
                    let reason = format!(
                        "the type {of} is not in the descriptor set; make it with --include_imports"
                    );
                    return Err(invalid(&place, reason));
                }
                match &field.of {
                    Of::Enum(of) => drop(used.insert(of.clone())),
                    _ => open.push(of.clone()),
                }
            }
        }
        messages.retain(|name, _| used.contains(name));
        enums.retain(|name, _| used.contains(name));
        Ok(Self { root, messages, enums })
    }

    /// What it is, as text: equal for schemas that mean the same.
    pub(super) fn canonical(&self) -> String {
        serde_json::to_string(self).expect("names, numbers and lists can be written as JSON")
    }

    /// Only what was found to be there is asked for.
    fn message(&self, name: &str) -> &Message {
        static EMPTY: Message = Message {
            fields: BTreeMap::new(),
            required: Vec::new(),
            reserved: Reserved { ranges: Vec::new(), names: BTreeSet::new() },
            is_map_entry: false,
        };
        self.messages.get(name).unwrap_or(&EMPTY)
    }

    /// The value that a reader takes for a field that was left out, as a text; `None` for those
    /// that have none.
    fn left_out(&self, field: &Field) -> Option<String> {
        let default = field.default.as_deref();
        Some(match &field.of {
            Of::Message(_) | Of::Group(_) => return None,
            Of::Enum(name) => {
                let of = self.enums.get(name)?;
                let by_name = |name: &str| {
                    of.values
                        .iter()
                        .find(|(_, names)| names.contains(name))
                        .map(|(number, _)| *number)
                };
                default.and_then(by_name).unwrap_or(of.first).to_string()
            }
            Of::Scalar(Scalar::String | Scalar::Bytes) => default.unwrap_or_default().to_owned(),
            Of::Scalar(Scalar::Bool) => u8::from(default == Some("true")).to_string(),
            Of::Scalar(Scalar::Double | Scalar::Float) => {
                let text = default.unwrap_or("0");
                text.parse::<f64>().map_or_else(|_| text.to_owned(), |number| number.to_string())
            }
            Of::Scalar(_) => default.unwrap_or("0").to_owned(),
        })
    }

    /// The message that a field has, if it is a map's entry.
    fn map_entry(&self, field: &Field) -> Option<&Message> {
        match &field.of {
            Of::Message(name) => Some(self.message(name)).filter(|message| message.is_map_entry),
            _ => None,
        }
    }
}

impl Of {
    /// How a value of it is marked on the wire.
    const fn wire_type(&self) -> u8 {
        match self {
            Self::Scalar(scalar) => scalar.wire_type(),
            Self::Enum(_) => wire::VARINT,
            Self::Message(_) => wire::LENGTH,
            Self::Group(_) => wire::START_GROUP,
        }
    }
}

impl fmt::Display for Of {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Scalar(scalar) => f.write_str(scalar.as_str()),
            Self::Enum(name) => write!(f, "enum {name}"),
            Self::Message(name) => write!(f, "message {name}"),
            Self::Group(name) => write!(f, "group {name}"),
        }
    }
}

impl Scalar {
    /// The type that has this number in a descriptor.
    const fn of_number(number: u64) -> Option<Self> {
        Some(match number {
            1 => Self::Double,
            2 => Self::Float,
            3 => Self::Int64,
            4 => Self::Uint64,
            5 => Self::Int32,
            6 => Self::Fixed64,
            7 => Self::Fixed32,
            8 => Self::Bool,
            9 => Self::String,
            12 => Self::Bytes,
            13 => Self::Uint32,
            15 => Self::Sfixed32,
            16 => Self::Sfixed64,
            17 => Self::Sint32,
            18 => Self::Sint64,
            _ => return None,
        })
    }

    const fn as_str(self) -> &'static str {
        match self {
            Self::Double => "double",
            Self::Float => "float",
            Self::Int64 => "int64",
            Self::Uint64 => "uint64",
            Self::Int32 => "int32",
            Self::Fixed64 => "fixed64",
            Self::Fixed32 => "fixed32",
            Self::Bool => "bool",
            Self::String => "string",
            Self::Bytes => "bytes",
            Self::Uint32 => "uint32",
            Self::Sfixed32 => "sfixed32",
            Self::Sfixed64 => "sfixed64",
            Self::Sint32 => "sint32",
            Self::Sint64 => "sint64",
        }
    }

    const fn wire_type(self) -> u8 {
        match self {
            Self::Double | Self::Fixed64 | Self::Sfixed64 => wire::FIXED64,
            Self::Float | Self::Fixed32 | Self::Sfixed32 => wire::FIXED32,
            Self::String | Self::Bytes => wire::LENGTH,
            _ => wire::VARINT,
        }
    }
}

fn invalid(place: &str, reason: impl Into<String>) -> SchemaError {
    SchemaError::invalid(SchemaKind::Protobuf, place, reason)
}
