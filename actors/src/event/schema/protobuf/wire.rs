//! The wire format: a message as a sequence of numbered values.

pub(super) const VARINT: u8 = 0;
pub(super) const FIXED64: u8 = 1;
pub(super) const LENGTH: u8 = 2;
pub(super) const START_GROUP: u8 = 3;
const END_GROUP: u8 = 4;
pub(super) const FIXED32: u8 = 5;

/// How deep groups are nested, at most: one of them costs two bytes.
const MAX_DEPTH: usize = 64;

/// A value on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wire<'a> {
    Varint(u64),
    Fixed64,
    Length(&'a [u8]),
    /// What is between its marks.
    Group(&'a [u8]),
    Fixed32,
}

impl Wire<'_> {
    pub(super) const fn wire_type(&self) -> u8 {
        match self {
            Self::Varint(_) => VARINT,
            Self::Fixed64 => FIXED64,
            Self::Length(_) => LENGTH,
            Self::Group(_) => START_GROUP,
            Self::Fixed32 => FIXED32,
        }
    }
}

/// The values of a message in the order of the wire; ends after the first that cannot be read.
#[derive(Debug, Clone)]
pub(super) struct Fields<'a> {
    rest: &'a [u8],
    failed: bool,
}

impl<'a> Fields<'a> {
    pub(super) const fn of(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, failed: false }
    }

    fn read(&mut self) -> Option<(u32, Wire<'a>)> {
        match tagged(&mut self.rest, 0)? {
            (number, Some(value)) => Some((number, value)),
            // An end without a start.
            (_, None) => None,
        }
    }
}

/// A value with its field number, or why there is none.
pub(super) type Next<'a> = Result<(u32, Wire<'a>), &'static str>;

impl<'a> Iterator for Fields<'a> {
    type Item = Next<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() || self.failed {
            return None;
        }
        let read = self.read();
        self.failed = read.is_none();
        Some(read.ok_or("the bytes are no Protobuf message"))
    }
}

/// The next value; without one if a group ends here.
fn tagged<'a>(rest: &mut &'a [u8], depth: usize) -> Option<(u32, Option<Wire<'a>>)> {
    let tag = varint(rest)?;
    let number = u32::try_from(tag >> 3).ok().filter(|number| (1..1 << 29).contains(number))?;
    let value = match (tag & 7) as u8 {
        VARINT => Wire::Varint(varint(rest)?),
        FIXED64 => take(rest, 8).map(|_| Wire::Fixed64)?,
        LENGTH => {
            let length = usize::try_from(varint(rest)?).ok()?;
            Wire::Length(take(rest, length)?)
        }
        START_GROUP => Wire::Group(group(rest, number, depth)?),
        END_GROUP => return Some((number, None)),
        FIXED32 => take(rest, 4).map(|_| Wire::Fixed32)?,
        _ => return None,
    };
    Some((number, Some(value)))
}

fn group<'a>(rest: &mut &'a [u8], number: u32, depth: usize) -> Option<&'a [u8]> {
    if depth > MAX_DEPTH {
        return None;
    }
    let start = *rest;
    loop {
        let before = rest.len();
        match tagged(rest, depth + 1)? {
            (_, Some(_)) => {}
            (end, None) if end == number => return start.get(..start.len() - before),
            _ => return None,
        }
    }
}

fn take<'a>(rest: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (taken, left) = rest.split_at_checked(count)?;
    *rest = left;
    Some(taken)
}

fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for index in 0..10 {
        let (&byte, left) = rest.split_first()?;
        *rest = left;
        // The tenth byte holds one bit; what is above it is dropped, as every reader does.
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

/// Numbers that are packed behind each other: whether the bytes are of that wire type throughout.
pub(super) fn is_packed(mut bytes: &[u8], wire_type: u8) -> bool {
    match wire_type {
        FIXED64 => bytes.len().is_multiple_of(8),
        FIXED32 => bytes.len().is_multiple_of(4),
        VARINT => {
            while !bytes.is_empty() {
                if varint(&mut bytes).is_none() {
                    return false;
                }
            }
            true
        }
        _ => false,
    }
}
