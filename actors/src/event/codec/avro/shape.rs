//! What bytes of a schema look like, and whether given bytes do.

use std::collections::BTreeMap;

use apache_avro::Schema;
use apache_avro::schema::Namespace;

use super::{AVRO, MAX_DEPTH};
use crate::event::codec::CodecError;

/// Values of one datum, at most. Each may cost the reader 150 bytes.
const MAX_VALUES: usize = 1 << 20;

/// Values of a datum of no bytes, at most, and how many more each byte allows: an element of an
/// array may take no bytes at all, while a record around one may hold many fields of nothing.
const VALUES: (usize, usize) = (4_096, 64);

/// A schema, flat: shapes point at each other by number, so that a record may hold itself.
pub(in crate::event) struct Shapes {
    all: Vec<Shape>,
    root: usize,
}

pub(super) enum Shape {
    Null,
    Boolean,
    Int,
    Long,
    Float,
    Double,
    Bytes,
    String,
    Uuid,
    /// Bytes that hold a length, so many bytes, and a scale.
    BigDecimal,
    Fixed(usize),
    Array(usize),
    Map(usize),
    Union(Vec<usize>),
    Record(Vec<(String, usize)>),
    Enum(Vec<String>),
}

type Names = BTreeMap<String, usize>;

impl Shapes {
    pub(in crate::event) fn of(schema: &Schema) -> Result<Self, CodecError> {
        let mut shapes = Self { all: Vec::new(), root: 0 };
        shapes.root = shapes.add(schema, &None, &mut Names::new())?;
        Ok(shapes)
    }

    pub(super) fn root(&self) -> &Shape {
        &self.all[self.root]
    }

    pub(super) fn at(&self, index: usize) -> &Shape {
        &self.all[index]
    }

    fn add(
        &mut self,
        schema: &Schema,
        space: &Namespace,
        names: &mut Names,
    ) -> Result<usize, CodecError> {
        let name = schema.name().map(|name| name.fully_qualified_name(space));
        let full = name.as_ref().map(|name| name.fullname(None));
        if let (Schema::Ref { .. }, Some(full)) = (schema, &full) {
            return names.get(full).copied().ok_or_else(|| CodecError::Schema {
                codec: AVRO,
                reason: format!("nothing is called {full}"),
            });
        }
        let index = self.all.len();
        // Its place, before what is inside it asks for it.
        self.all.push(Shape::Null);
        names.extend(full.map(|full| (full, index)));
        let space = name.map_or_else(|| space.clone(), |name| name.namespace);
        self.all[index] = match schema {
            Schema::Null | Schema::Ref { .. } => Shape::Null,
            Schema::Boolean => Shape::Boolean,
            Schema::Int | Schema::Date | Schema::TimeMillis => Shape::Int,
            Schema::Long
            | Schema::TimeMicros
            | Schema::TimestampMillis
            | Schema::TimestampMicros
            | Schema::TimestampNanos
            | Schema::LocalTimestampMillis
            | Schema::LocalTimestampMicros
            | Schema::LocalTimestampNanos => Shape::Long,
            Schema::Float => Shape::Float,
            Schema::Double => Shape::Double,
            Schema::Bytes => Shape::Bytes,
            Schema::String => Shape::String,
            Schema::Uuid => Shape::Uuid,
            Schema::BigDecimal => Shape::BigDecimal,
            Schema::Fixed(fixed) => Shape::Fixed(fixed.size),
            Schema::Duration => Shape::Fixed(12),
            Schema::Decimal(decimal) => match &*decimal.inner {
                Schema::Fixed(fixed) => Shape::Fixed(fixed.size),
                _ => Shape::Bytes,
            },
            Schema::Enum(of) => Shape::Enum(of.symbols.clone()),
            Schema::Array(of) => Shape::Array(self.add(&of.items, &space, names)?),
            Schema::Map(of) => Shape::Map(self.add(&of.types, &space, names)?),
            Schema::Union(of) => {
                let branches = of.variants().iter().map(|one| self.add(one, &space, names));
                Shape::Union(branches.collect::<Result<_, _>>()?)
            }
            Schema::Record(of) => {
                let fields = of
                    .fields
                    .iter()
                    .map(|field| Ok((field.name.clone(), self.add(&field.schema, &space, names)?)));
                Shape::Record(fields.collect::<Result<_, _>>()?)
            }
        };
        Ok(index)
    }

    /// Whether the bytes are one datum and nothing else.
    pub(in crate::event) fn check(&self, data: &[u8]) -> Result<(), String> {
        let most = data.len().saturating_mul(VALUES.1).saturating_add(VALUES.0).min(MAX_VALUES);
        let mut walk = Walk { shapes: self, rest: data, values: 0, most };
        walk.value(self.root(), 0)?;
        match walk.rest.len() {
            0 => Ok(()),
            left => Err(format!("{left} bytes are left; is it of another version's schema?")),
        }
    }
}

struct Walk<'a> {
    shapes: &'a Shapes,
    rest: &'a [u8],
    values: usize,
    most: usize,
}

impl Walk<'_> {
    fn value(&mut self, shape: &Shape, depth: usize) -> Result<(), String> {
        self.values += 1;
        if depth > MAX_DEPTH {
            return Err(format!("values are nested deeper than {MAX_DEPTH}"));
        }
        if self.values > self.most {
            return Err(format!("there are more than {} values in it", self.most));
        }
        let shapes = self.shapes;
        match shape {
            Shape::Null => Ok(()),
            Shape::Boolean => match self.take(1)? {
                [0 | 1] => Ok(()),
                other => Err(format!("{} is no boolean", other[0])),
            },
            Shape::Int => {
                let number = self.long()?;
                i32::try_from(number).map(drop).map_err(|_| format!("{number} is no int"))
            }
            Shape::Long => self.long().map(drop),
            Shape::Float => self.take(4).map(drop),
            Shape::Double => self.take(8).map(drop),
            Shape::Bytes | Shape::String | Shape::Uuid => self.counted().map(drop),
            Shape::BigDecimal => {
                let inside = self.counted()?;
                let mut inside = Walk { shapes, rest: inside, values: 0, most: 1 };
                inside.counted()?;
                inside.long().map(drop)
            }
            Shape::Fixed(size) => self.take(*size).map(drop),
            Shape::Array(of) => self.blocks(shapes.at(*of), false, depth),
            Shape::Map(of) => self.blocks(shapes.at(*of), true, depth),
            Shape::Union(branches) => {
                let index = self.index(branches.len())?;
                self.value(shapes.at(branches[index]), depth + 1)
            }
            Shape::Record(fields) => {
                fields.iter().try_for_each(|(_, of)| self.value(shapes.at(*of), depth + 1))
            }
            Shape::Enum(symbols) => self.index(symbols.len()).map(drop),
        }
    }

    /// Blocks of so many items each, until one of none.
    fn blocks(&mut self, item: &Shape, keys: bool, depth: usize) -> Result<(), String> {
        loop {
            let count = self.long()?;
            if count == 0 {
                return Ok(());
            }
            if count < 0 {
                // Then the size of the block in bytes follows.
                self.long()?;
            }
            for _ in 0..count.unsigned_abs() {
                if keys {
                    self.counted()?;
                }
                self.value(item, depth + 1)?;
            }
        }
    }

    fn index(&mut self, count: usize) -> Result<usize, String> {
        let number = self.long()?;
        let index = usize::try_from(number).ok().filter(|index| *index < count);
        index.ok_or_else(|| format!("there is no alternative {number} of {count}"))
    }

    fn counted(&mut self) -> Result<&[u8], String> {
        let length = self.long()?;
        let length = usize::try_from(length).map_err(|_| format!("{length} is no length"))?;
        self.take(length)
    }

    fn take(&mut self, count: usize) -> Result<&[u8], String> {
        match self.rest.split_at_checked(count) {
            Some((taken, rest)) => {
                self.rest = rest;
                Ok(taken)
            }
            None => Err(format!("it ends {} bytes too early", count - self.rest.len())),
        }
    }

    /// A number of variable length, zigzag.
    fn long(&mut self) -> Result<i64, String> {
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
}
