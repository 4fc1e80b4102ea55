//! What bytes of a schema look like.

use std::collections::BTreeMap;

use apache_avro::Schema;
use apache_avro::schema::Namespace;
use serde_json::Value;

use super::resolve::Cast;

use super::AVRO;
use crate::event::codec::CodecError;

/// A schema, flat: shapes point at each other by number, so that a record may hold itself.
pub(in crate::event) struct Shapes {
    pub(super) all: Vec<Shape>,
    pub(super) root: usize,
    /// What only a resolution asks for, of those that have it.
    pub(super) notes: BTreeMap<usize, Note>,
}

/// What a schema says for those who read with another.
#[derive(Clone, Default)]
pub(super) struct Note {
    /// Its name and its aliases, without namespaces.
    pub(super) names: Vec<String>,
    /// Of each field, other names.
    pub(super) aliases: Vec<Vec<String>>,
    /// Of each field, the default.
    pub(super) defaults: Vec<Option<Value>>,
    /// What an enum takes a symbol for that it does not know.
    pub(super) symbol: Option<String>,
}

#[derive(Clone)]
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
    Record(Record),
    Enum(Vec<String>),

    // Only in what was written under one schema and is read as another has it:
    /// A number, read as another kind.
    Cast(Cast),
    /// A union to both: of each branch the reader's, and what is there.
    Either(Vec<(usize, usize)>),
    /// A union to the writer alone.
    Choice(Vec<usize>),
    /// A branch of the reader's union, which the writer does not have.
    As(usize, usize),
    /// Symbols as the reader knows them.
    Symbols(Vec<Option<String>>),
    Resolved(Resolved),
    /// What the reader cannot read.
    Never(String),
}

/// A record that is read as another.
#[derive(Clone)]
pub(super) struct Resolved {
    /// In the order of the writer; those without a name are passed over.
    pub(super) fields: Vec<(Option<String>, usize)>,
    /// What the writer did not write, with the bytes of its default.
    pub(super) defaults: Vec<(String, usize, Vec<u8>)>,
}

/// The fields of a record.
#[derive(Clone)]
pub(super) struct Record {
    /// In the order of the schema.
    pub(super) fields: Vec<(String, usize)>,
    /// Their places in the order of their names.
    sorted: Vec<usize>,
}

impl Record {
    fn of(fields: Vec<(String, usize)>) -> Self {
        let mut sorted: Vec<usize> = (0..fields.len()).collect();
        sorted.sort_by(|one, other| fields[*one].0.cmp(&fields[*other].0));
        Self { fields, sorted }
    }

    /// The place of the field with a name.
    pub(super) fn find(&self, name: &str) -> Option<usize> {
        let found = self.sorted.binary_search_by(|at| self.fields[*at].0.as_str().cmp(name));
        found.ok().map(|at| self.sorted[at])
    }
}

impl Shape {
    /// Whether it is one of several, or stands for one.
    pub(super) const fn is_union(&self) -> bool {
        matches!(self, Self::Union(_) | Self::Either(_) | Self::Choice(_) | Self::As(..))
    }

    /// What it is, in words.
    pub(super) const fn name(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Boolean => "a boolean",
            Self::Int => "an int",
            Self::Long => "a long",
            Self::Float => "a float",
            Self::Double => "a double",
            Self::Bytes => "bytes",
            Self::String => "a string",
            Self::Uuid => "a UUID",
            Self::BigDecimal => "a big decimal",
            Self::Fixed(_) => "fixed bytes",
            Self::Array(_) => "an array",
            Self::Map(_) => "a map",
            Self::Union(_) => "a union",
            Self::Record(_) => "a record",
            Self::Enum(_) | Self::Symbols(_) => "an enum",
            Self::Cast(_) => "a number",
            Self::Either(_) | Self::Choice(_) | Self::As(..) => "a union",
            Self::Resolved(_) => "a record",
            Self::Never(_) => "nothing that can be read",
        }
    }
}

type Names = BTreeMap<String, usize>;

impl Shapes {
    pub(in crate::event) fn of(schema: &Schema) -> Result<Self, CodecError> {
        let mut shapes = Self { all: Vec::new(), root: 0, notes: BTreeMap::new() };
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
        if let Some(note) = note(schema) {
            self.notes.insert(index, note);
        }
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
                Shape::Record(Record::of(fields.collect::<Result<_, _>>()?))
            }
        };
        Ok(index)
    }
}

fn note(schema: &Schema) -> Option<Note> {
    let names = schema.name().into_iter().map(|name| name.name.clone());
    let aliases = schema.aliases().into_iter().flatten().map(|alias| alias.name());
    let names = names.chain(aliases).collect();
    match schema {
        Schema::Record(of) => Some(Note {
            names,
            aliases: of.fields.iter().map(|f| f.aliases.clone().unwrap_or_default()).collect(),
            defaults: of.fields.iter().map(|field| field.default.clone()).collect(),
            symbol: None,
        }),
        Schema::Enum(of) => Some(Note { names, symbol: of.default.clone(), ..Note::default() }),
        Schema::Fixed(_) => Some(Note { names, ..Note::default() }),
        _ => None,
    }
}
