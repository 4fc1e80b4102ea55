//! What was written under one schema, read as another has it: Avro's rules of schema resolution, as
//! a shape of the writer's bytes that says what the reader sees.
//!
//! It is made once for two schemas, so that reading costs no more than it does with one, and no
//! value is made of what is only looked at.

use std::collections::BTreeMap;

use serde_json::Value;

use super::shape::{Resolved, Shape, Shapes};
use super::write::{counted, long};

/// Pairs of types that are made one, at most.
const MAX_PAIRS: usize = 50_000;

/// How deep values are in a default, at most.
const MAX_DEPTH: usize = 32;

/// A number that is read as another kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cast {
    IntToFloat,
    IntToDouble,
    LongToFloat,
    LongToDouble,
    FloatToDouble,
}

impl Shapes {
    /// The writer's bytes as the reader has them. What it cannot read is known when it comes.
    ///
    /// # Errors
    /// The schemas are too large to be made one, or a default is none.
    pub(in crate::event) fn resolved(writer: &Self, reader: &Self) -> Result<Self, String> {
        // What both have keeps its place: the reader's first, then the writer's.
        let behind = reader.all.len();
        let mut all = reader.all.clone();
        all.extend(writer.all.iter().map(|shape| moved(shape, behind)));
        let whole = Self { all, root: 0, notes: BTreeMap::new() };
        let mut resolve = Resolve { writer, reader, behind, whole, pairs: BTreeMap::new() };
        let root = resolve.pair(writer.root, reader.root)?;
        Ok(Self { root, ..resolve.whole })
    }
}

/// A shape whose parts are so many places further back.
fn moved(shape: &Shape, by: usize) -> Shape {
    match shape {
        Shape::Array(of) => Shape::Array(of + by),
        Shape::Map(of) => Shape::Map(of + by),
        Shape::Union(branches) => Shape::Union(branches.iter().map(|of| of + by).collect()),
        Shape::Record(record) => {
            let mut record = record.clone();
            record.fields.iter_mut().for_each(|(_, of)| *of += by);
            Shape::Record(record)
        }
        plain => plain.clone(),
    }
}

struct Resolve<'a> {
    writer: &'a Shapes,
    reader: &'a Shapes,
    /// Where the writer's shapes begin.
    behind: usize,
    whole: Shapes,
    /// What each pair of a writer's and a reader's type is, also of those that are being made.
    pairs: BTreeMap<(usize, usize), usize>,
}

impl Resolve<'_> {
    fn add(&mut self, shape: Shape) -> usize {
        self.whole.all.push(shape);
        self.whole.all.len() - 1
    }

    fn pair(&mut self, from: usize, to: usize) -> Result<usize, String> {
        if let Some(known) = self.pairs.get(&(from, to)) {
            return Ok(*known);
        }
        if self.pairs.len() >= MAX_PAIRS {
            return Err(format!("the two schemas meet in more than {MAX_PAIRS} pairs of types"));
        }
        // Its place, before what is inside it asks for it.
        let index = self.add(Shape::Null);
        self.pairs.insert((from, to), index);
        self.whole.all[index] = self.made(from, to)?;
        Ok(index)
    }

    fn made(&mut self, from: usize, to: usize) -> Result<Shape, String> {
        let (writer, reader) = (self.writer, self.reader);
        let (written, read) = (writer.at(from), reader.at(to));
        Ok(match (written, read) {
            (Shape::Union(written), Shape::Union(read)) => {
                let mut branches = Vec::with_capacity(written.len());
                for branch in written {
                    branches.push(match self.pick(*branch, read) {
                        Some(at) => (at, self.pair(*branch, read[at])?),
                        None => (0, self.never(*branch, to)),
                    });
                }
                Shape::Either(branches)
            }
            (Shape::Union(written), _) => {
                let branches: Result<_, _> =
                    written.iter().map(|branch| self.pair(*branch, to)).collect();
                Shape::Choice(branches?)
            }
            (_, Shape::Union(read)) => match self.pick(from, read) {
                Some(at) => Shape::As(at, self.pair(from, read[at])?),
                None => Shape::Never(self.reason(from, to)),
            },
            (Shape::Array(from), Shape::Array(to)) => Shape::Array(self.pair(*from, *to)?),
            (Shape::Map(from), Shape::Map(to)) => Shape::Map(self.pair(*from, *to)?),
            (Shape::Record(_), Shape::Record(_)) => self.record(from, to)?,
            (Shape::Enum(symbols), Shape::Enum(known)) => {
                let known: std::collections::BTreeSet<&String> = known.iter().collect();
                let default = reader.notes.get(&to).and_then(|note| note.symbol.clone());
                let symbol = |symbol: &String| {
                    known.contains(symbol).then(|| symbol.clone()).or_else(|| default.clone())
                };
                Shape::Symbols(symbols.iter().map(symbol).collect())
            }
            (written, read) => match plain(written, read) {
                Some(shape) => shape,
                None => Shape::Never(self.reason(from, to)),
            },
        })
    }

    fn record(&mut self, from: usize, to: usize) -> Result<Shape, String> {
        let (writer, reader) = (self.writer, self.reader);
        let (Shape::Record(written), Shape::Record(read)) = (writer.at(from), reader.at(to)) else {
            return Ok(Shape::Never(self.reason(from, to)));
        };
        let mut fields: Vec<_> =
            written.fields.iter().map(|(_, of)| (None, of + self.behind)).collect();
        let mut defaults = Vec::new();
        let note = reader.notes.get(&to);
        for (at, (name, of)) in read.fields.iter().enumerate() {
            let aliases = note.and_then(|note| note.aliases.get(at)).map_or(&[][..], Vec::as_slice);
            let found = [name].into_iter().chain(aliases).find_map(|name| written.find(name));
            let default = note.and_then(|note| note.defaults.get(at)).and_then(Option::as_ref);
            match (found, default) {
                (Some(place), _) => {
                    fields[place] = (Some(name.clone()), self.pair(written.fields[place].1, *of)?);
                }
                (None, Some(default)) => {
                    let mut bytes = Vec::new();
                    put_default(reader, *of, default, 0, &mut bytes)
                        .map_err(|reason| format!("the default of {name}: {reason}"))?;
                    defaults.push((name.clone(), *of, bytes));
                }
                (None, None) => {
                    let reason = format!("the writer writes no {name}, and it has no default");
                    return Ok(Shape::Never(reason));
                }
            }
        }
        Ok(Shape::Resolved(Resolved { fields, defaults }))
    }

    /// The reader's branch for what is written as one type: one of the same type and name, or the
    /// first that its values can be read as.
    fn pick(&self, from: usize, branches: &[usize]) -> Option<usize> {
        let written = self.writer.at(from);
        let named = |shapes: &Shapes, at: usize| {
            shapes.notes.get(&at).map(|note| note.names.clone()).unwrap_or_default()
        };
        let names = named(self.writer, from);
        let kind = |shape: &Shape| std::mem::discriminant(shape);
        let same = |at: &usize| {
            let read = self.reader.at(*at);
            let called = named(self.reader, *at);
            kind(written) == kind(read)
                && (names.is_empty() && called.is_empty()
                    || names.first().is_some_and(|name| called.contains(name)))
        };
        let near = |at: &usize| {
            let read = self.reader.at(*at);
            plain(written, read).is_some()
                || (kind(written) == kind(read)
                    && matches!(read, Shape::Record(_) | Shape::Enum(_)))
        };
        branches.iter().position(same).or_else(|| branches.iter().position(near))
    }

    fn never(&mut self, from: usize, to: usize) -> usize {
        let reason = self.reason(from, to);
        self.add(Shape::Never(reason))
    }

    fn reason(&self, from: usize, to: usize) -> String {
        let (written, read) = (self.writer.at(from).name(), self.reader.at(to).name());
        format!("it is written as {written} and cannot be read as {read}")
    }
}

/// What is read of two types without parts; `None` if one cannot be read as the other.
fn plain(written: &Shape, read: &Shape) -> Option<Shape> {
    use Shape::{BigDecimal, Boolean, Bytes, Double, Fixed, Float, Int, Long, Null, String, Uuid};
    Some(match (written, read) {
        (Null, Null) => Null,
        (Boolean, Boolean) => Boolean,
        (Int, Int | Long) => Int,
        (Long, Long) => Long,
        (Float, Float) => Float,
        (Double, Double) => Double,
        (Int, Float) => Shape::Cast(Cast::IntToFloat),
        (Int, Double) => Shape::Cast(Cast::IntToDouble),
        (Long, Float) => Shape::Cast(Cast::LongToFloat),
        (Long, Double) => Shape::Cast(Cast::LongToDouble),
        (Float, Double) => Shape::Cast(Cast::FloatToDouble),
        (Bytes | String | Uuid | BigDecimal, Bytes) => Bytes,
        (Bytes | String | Uuid, String) => String,
        (Bytes | String | Uuid, Uuid) => Uuid,
        (Bytes | BigDecimal, BigDecimal) => BigDecimal,
        (Fixed(one), Fixed(other)) if one == other => Fixed(*one),
        _ => return None,
    })
}

/// The bytes of a default.
fn put_default(
    shapes: &Shapes,
    of: usize,
    value: &Value,
    depth: usize,
    out: &mut Vec<u8>,
) -> Result<(), String> {
    if depth > MAX_DEPTH {
        return Err(format!("values are nested deeper than {MAX_DEPTH}"));
    }
    let none = || format!("{value} is not {}", shapes.at(of).name());
    // Bytes are written as a text, each character one byte.
    let bytes = || {
        let text = value.as_str().ok_or_else(none)?;
        let bytes: Result<Vec<u8>, _> = text.chars().map(u8::try_from).collect();
        bytes.map_err(|_| none())
    };
    match shapes.at(of) {
        Shape::Null if value.is_null() => {}
        Shape::Boolean => out.push(u8::from(value.as_bool().ok_or_else(none)?)),
        Shape::Int => {
            let number = value.as_i64().filter(|number| i32::try_from(*number).is_ok());
            long(number.ok_or_else(none)?, out);
        }
        Shape::Long => long(value.as_i64().ok_or_else(none)?, out),
        #[expect(clippy::cast_possible_truncation, reason = "a float has the digits it has")]
        Shape::Float => {
            out.extend_from_slice(&(value.as_f64().ok_or_else(none)? as f32).to_le_bytes());
        }
        Shape::Double => out.extend_from_slice(&value.as_f64().ok_or_else(none)?.to_le_bytes()),
        Shape::Bytes | Shape::BigDecimal => counted(&bytes()?, out),
        Shape::Fixed(size) => {
            let bytes = bytes()?;
            if bytes.len() != *size {
                return Err(none());
            }
            out.extend_from_slice(&bytes);
        }
        Shape::String | Shape::Uuid => {
            counted(value.as_str().ok_or_else(none)?.as_bytes(), out);
        }
        Shape::Enum(symbols) => {
            let index = symbols.iter().position(|symbol| value == symbol.as_str());
            long(index.ok_or_else(none)? as i64, out);
        }
        Shape::Array(of) => {
            let items = value.as_array().ok_or_else(none)?;
            if !items.is_empty() {
                long(items.len() as i64, out);
            }
            for item in items {
                put_default(shapes, *of, item, depth + 1, out)?;
            }
            out.push(0);
        }
        Shape::Map(of) => {
            let entries = value.as_object().ok_or_else(none)?;
            if !entries.is_empty() {
                long(entries.len() as i64, out);
            }
            for (key, value) in entries {
                counted(key.as_bytes(), out);
                put_default(shapes, *of, value, depth + 1, out)?;
            }
            out.push(0);
        }
        // Of the first branch, as the specification has it; of another, as many write it.
        Shape::Union(branches) => {
            let begin = out.len();
            for (index, branch) in branches.iter().enumerate() {
                long(index as i64, out);
                if put_default(shapes, *branch, value, depth + 1, out).is_ok() {
                    return Ok(());
                }
                out.truncate(begin);
            }
            return Err(none());
        }
        Shape::Record(record) => {
            let given = value.as_object().ok_or_else(none)?;
            let own = shapes.notes.get(&of);
            for (at, (name, of)) in record.fields.iter().enumerate() {
                let default = || own.and_then(|note| note.defaults.get(at)?.as_ref());
                let value = given.get(name).or_else(default).ok_or_else(none)?;
                put_default(shapes, *of, value, depth + 1, out)?;
            }
        }
        _ => return Err(none()),
    }
    Ok(())
}
