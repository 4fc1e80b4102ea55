//! The bytes of a datum, read as their schema has it and never beyond what they hold.

use super::MAX_DEPTH;
use super::resolve::Cast;
use super::shape::{Shape, Shapes};

/// Values of one datum, at most. Each may cost the reader 150 bytes.
const MAX_VALUES: usize = 1 << 20;

/// Values of a datum of no bytes, at most, and how many more each byte allows: an element of an
/// array may take no bytes at all, while a record around one may hold many fields of nothing.
const VALUES: (usize, usize) = (4_096, 64);

#[cfg(feature = "schema")]
impl Shapes {
    /// Whether the bytes are one datum and nothing else.
    pub(in crate::event) fn check(&self, data: &[u8]) -> Result<(), String> {
        let mut walk = Walk::new(self, data);
        walk.skip(self.root(), 0)?;
        walk.end()
    }
}

/// A place in the bytes of a datum.
pub(super) struct Walk<'de> {
    pub(super) shapes: &'de Shapes,
    rest: &'de [u8],
    values: usize,
    most: usize,
}

impl<'de> Walk<'de> {
    pub(super) fn new(shapes: &'de Shapes, data: &'de [u8]) -> Self {
        let most = data.len().saturating_mul(VALUES.1).saturating_add(VALUES.0).min(MAX_VALUES);
        Self { shapes, rest: data, values: 0, most }
    }

    /// Whether nothing is left.
    pub(super) fn end(&self) -> Result<(), String> {
        match self.rest.len() {
            0 => Ok(()),
            left => Err(format!("{left} bytes are left; is it of another version's schema?")),
        }
    }

    /// Counts a value at a depth.
    pub(super) fn enter(&mut self, depth: usize) -> Result<(), String> {
        self.values += 1;
        if depth > MAX_DEPTH {
            return Err(format!("values are nested deeper than {MAX_DEPTH}"));
        }
        if self.values > self.most {
            return Err(format!("there are more than {} values in it", self.most));
        }
        Ok(())
    }

    /// Passes over a value, and looks at all of it.
    pub(super) fn skip(&mut self, shape: &'de Shape, depth: usize) -> Result<(), String> {
        self.enter(depth)?;
        let shapes = self.shapes;
        match shape {
            Shape::Null => Ok(()),
            Shape::Boolean => self.boolean().map(drop),
            Shape::Int => self.int().map(drop),
            Shape::Long => self.long().map(drop),
            Shape::Float => self.float().map(drop),
            Shape::Double => self.double().map(drop),
            Shape::Bytes => self.counted().map(drop),
            Shape::String => self.text().map(drop),
            Shape::Uuid => self.uuid().map(drop),
            Shape::BigDecimal => self.big_decimal().map(drop),
            Shape::Fixed(size) => self.take(*size).map(drop),
            Shape::Array(of) => {
                let (of, mut blocks) = (shapes.at(*of), Blocks::default());
                while blocks.next(self)? {
                    self.skip(of, depth + 1)?;
                }
                Ok(())
            }
            Shape::Map(of) => {
                let (of, mut blocks) = (shapes.at(*of), Blocks::default());
                while blocks.next(self)? {
                    self.text()?;
                    self.skip(of, depth + 1)?;
                }
                Ok(())
            }
            Shape::Record(record) => {
                record.fields.iter().try_for_each(|(_, of)| self.skip(shapes.at(*of), depth + 1))
            }
            Shape::Enum(symbols) => self.symbol(symbols).map(drop),
            Shape::Symbols(symbols) => self.known(symbols).map(drop),
            Shape::Cast(cast) => match cast {
                Cast::IntToFloat | Cast::IntToDouble => self.int().map(drop),
                Cast::LongToFloat | Cast::LongToDouble => self.long().map(drop),
                Cast::FloatToDouble => self.float().map(drop),
            },
            Shape::Union(_) | Shape::Either(_) | Shape::Choice(_) | Shape::As(..) => {
                match self.inner(shape)? {
                    Some((_, inner)) => self.skip(inner, depth + 1),
                    None => Ok(()),
                }
            }
            Shape::Resolved(record) => {
                record.fields.iter().try_for_each(|(_, of)| self.skip(shapes.at(*of), depth + 1))
            }
            Shape::Never(reason) => Err(reason.clone()),
        }
    }

    pub(super) fn boolean(&mut self) -> Result<bool, String> {
        match self.take(1)? {
            [0] => Ok(false),
            [1] => Ok(true),
            other => Err(format!("{} is no boolean", other[0])),
        }
    }

    pub(super) fn int(&mut self) -> Result<i32, String> {
        let number = self.long()?;
        i32::try_from(number).map_err(|_| format!("{number} is no int"))
    }

    /// A number of variable length, zigzag.
    pub(super) fn long(&mut self) -> Result<i64, String> {
        // Most have one byte.
        if let [byte @ 0..0x80, rest @ ..] = self.rest {
            self.rest = rest;
            return Ok(i64::from(byte >> 1) ^ -i64::from(byte & 1));
        }
        let mut number = 0_u64;
        for index in 0..10 {
            let byte = self.take(1)?[0];
            if index == 9 && byte > 1 {
                break;
            }
            number |= u64::from(byte & 0x7f) << (7 * index);
            if byte < 0x80 {
                return Ok((number >> 1) as i64 ^ -((number & 1) as i64));
            }
        }
        Err("a number has more than 64 bits".to_owned())
    }

    pub(super) fn float(&mut self) -> Result<f32, String> {
        self.array().map(f32::from_le_bytes)
    }

    pub(super) fn double(&mut self) -> Result<f64, String> {
        self.array().map(f64::from_le_bytes)
    }

    pub(super) fn text(&mut self) -> Result<&'de str, String> {
        str::from_utf8(self.counted()?).map_err(|error| format!("a text is no UTF-8: {error}"))
    }

    pub(super) fn uuid(&mut self) -> Result<uuid::Uuid, String> {
        let bytes = self.counted()?;
        // The specification writes text; the reference implementation reads the bytes also.
        match bytes.len() {
            16 => uuid::Uuid::from_slice(bytes),
            _ => uuid::Uuid::try_parse_ascii(bytes),
        }
        .map_err(|error| format!("a UUID cannot be read: {error}"))
    }

    /// The bytes around a number of any length and its scale.
    pub(super) fn big_decimal(&mut self) -> Result<&'de [u8], String> {
        let all = self.counted()?;
        let mut inside = Walk { shapes: self.shapes, rest: all, values: 0, most: 0 };
        inside.counted()?;
        inside.long()?;
        Ok(all)
    }

    /// What a union holds, and which branch of the reader's union that is; `None` for a shape that
    /// is no union. A union to the writer alone has no branch.
    pub(super) fn inner(
        &mut self,
        shape: &'de Shape,
    ) -> Result<Option<(Option<usize>, &'de Shape)>, String> {
        let (branch, of) = match shape {
            Shape::Union(branches) => {
                let index = self.index(branches.len())?;
                (Some(index), branches[index])
            }
            Shape::Either(branches) => {
                let (index, of) = branches[self.index(branches.len())?];
                (Some(index), of)
            }
            Shape::Choice(branches) => (None, branches[self.index(branches.len())?]),
            Shape::As(index, of) => (Some(*index), *of),
            _ => return Ok(None),
        };
        Ok(Some((branch, self.shapes.at(of))))
    }

    /// A symbol that the reader knows.
    pub(super) fn known(&mut self, symbols: &'de [Option<String>]) -> Result<&'de str, String> {
        let symbol = symbols[self.index(symbols.len())?].as_deref();
        symbol.ok_or_else(|| "a symbol that the reader does not know, without a default".to_owned())
    }

    pub(super) fn symbol(&mut self, symbols: &'de [String]) -> Result<&'de str, String> {
        Ok(&symbols[self.index(symbols.len())?])
    }

    fn index(&mut self, count: usize) -> Result<usize, String> {
        let number = self.long()?;
        let index = usize::try_from(number).ok().filter(|index| *index < count);
        index.ok_or_else(|| format!("there is no alternative {number} of {count}"))
    }

    pub(super) fn counted(&mut self) -> Result<&'de [u8], String> {
        let length = self.long()?;
        let length = usize::try_from(length).map_err(|_| format!("{length} is no length"))?;
        self.take(length)
    }

    pub(super) fn take(&mut self, count: usize) -> Result<&'de [u8], String> {
        match self.rest.split_at_checked(count) {
            Some((taken, rest)) => {
                self.rest = rest;
                Ok(taken)
            }
            None => Err(format!("it ends {} bytes too early", count - self.rest.len())),
        }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        match self.rest.split_first_chunk() {
            Some((taken, rest)) => {
                self.rest = rest;
                Ok(*taken)
            }
            None => Err(format!("it ends {} bytes too early", N - self.rest.len())),
        }
    }
}

/// The elements of an array or a map: blocks of so many each, until one of none.
#[derive(Default)]
pub(super) struct Blocks {
    left: u64,
    ended: bool,
}

impl Blocks {
    /// Whether there is another element, which is then read next.
    pub(super) fn next(&mut self, walk: &mut Walk<'_>) -> Result<bool, String> {
        if self.ended {
            return Ok(false);
        }
        if self.left == 0 {
            let count = walk.long()?;
            if count < 0 {
                // Then the size of the block in bytes follows.
                walk.long()?;
            }
            self.left = count.unsigned_abs();
            self.ended = count == 0;
        }
        self.left = self.left.saturating_sub(1);
        Ok(!self.ended)
    }

    /// How many are left of a block that was begun, and no more than the bytes could hold.
    pub(super) fn left(&self, walk: &Walk<'_>) -> usize {
        usize::try_from(self.left).unwrap_or(usize::MAX).min(walk.rest.len())
    }
}
