//! Schema resolution, as the Avro specification has it: whether a reader's schema reads what was
//! written under a writer's.
//!
//! Stricter than the specification in one place: it ignores most logical types, and here a reader
//! and a writer that both have one must have the same.

use std::collections::{BTreeMap, BTreeSet};

use super::{AvroSchema, Field, Primitive, Shape, Type, unqualified};
use crate::event::schema::compatibility::{Findings, Problem, Rule, any_member, member};

/// How deep types are nested in each other, at most.
const MAX_DEPTH: usize = 128;

/// How many fields, symbols and branches are looked at, at most: branches of two unions are looked
/// at in pairs, and types of two schemas can meet in more pairs than there are types.
const MAX_STEPS: usize = 500_000;

/// What stops `reader` from reading everything that was written under `writer`.
pub(in crate::event::schema) fn problems(reader: &AvroSchema, writer: &AvroSchema) -> Vec<Problem> {
    let found = Findings::new(MAX_STEPS);
    let mut resolve = Resolve { reader, writer, done: BTreeSet::new(), depth: 0, found };
    resolve.check(&writer.root, &reader.root, "");
    resolve.found.finish()
}

struct Resolve<'a> {
    reader: &'a AvroSchema,
    writer: &'a AvroSchema,
    /// Pairs of named types that were compared: once is enough, wherever they are used.
    done: BTreeSet<(&'a str, &'a str)>,
    depth: usize,
    found: Findings,
}

impl<'a> Resolve<'a> {
    fn report(&mut self, path: &str, rule: Rule, detail: String) {
        self.found.report(path, rule, detail);
    }

    fn check(&mut self, written: &'a Type, read: &'a Type, path: &str) {
        if !self.found.step(1, path) {
            return;
        }
        match (written, read) {
            (Type::Union(branches), _) => {
                for branch in branches {
                    self.check(branch, read, path);
                }
            }
            (_, Type::Union(branches)) => {
                if !self.found.step(branches.len(), path) {
                    return;
                }
                // The first that matches is the one that a reader resolves against.
                match branches.iter().find(|branch| self.matches(written, branch)) {
                    Some(branch) => self.check(written, branch, path),
                    None => {
                        let detail = format!(
                            "it is written as {}, and no branch of the reader's {} takes that",
                            self.writer.describe(written),
                            self.reader.describe(read)
                        );
                        self.report(path, Rule::Union, detail);
                    }
                }
            }
            (Type::Array(written), Type::Array(read)) => {
                self.check(written, read, &format!("{path}[]"));
            }
            (Type::Map(written), Type::Map(read)) => self.check(written, read, &any_member(path)),
            (Type::Primitive(from, one), Type::Primitive(to, other)) if promotes(*from, *to) => {
                self.check_logical(one.as_ref(), other.as_ref(), path);
            }
            (Type::Named(written), Type::Named(read)) => self.check_named(written, read, path),
            _ => self.report_type(written, read, path),
        }
    }

    fn report_type(&mut self, written: &Type, read: &Type, path: &str) {
        let (written, read) = (self.writer.describe(written), self.reader.describe(read));
        let detail = format!("it is written as {written} and read as {read}");
        self.report(path, Rule::Type, detail);
    }

    fn check_logical(&mut self, written: Option<&String>, read: Option<&String>, path: &str) {
        if let (Some(written), Some(read)) = (written, read)
            && written != read
        {
            let detail = format!("it is written as {written} and read as {read}");
            self.report(path, Rule::LogicalType, detail);
        }
    }

    fn check_named(&mut self, written: &'a str, read: &'a str, path: &str) {
        if !self.done.insert((written, read)) {
            return;
        }
        if self.depth > MAX_DEPTH {
            return self.found.incomparable(path, "the types are nested too deep");
        }
        self.depth += 1;
        self.check_new(written, read, path);
        self.depth -= 1;
    }

    fn check_new(&mut self, written: &'a str, read: &'a str, path: &str) {
        let (Some(from), Some(to)) = (self.writer.named(written), self.reader.named(read)) else {
            return;
        };
        let same_shape = from.shape.as_str() == to.shape.as_str();
        if same_shape && !self.same_name(written, read) {
            let detail = format!("the writer calls it {written}, the reader {read}");
            self.report(path, Rule::Name, detail);
        }
        match (&from.shape, &to.shape) {
            (Shape::Record(written), Shape::Record(read)) => {
                self.check_fields(written, read, path);
            }
            (Shape::Enum { symbols, .. }, Shape::Enum { symbols: known, default }) => {
                let known: BTreeSet<&String> = known.iter().collect();
                let unknown: Vec<_> =
                    symbols.iter().filter(|symbol| !known.contains(symbol)).cloned().collect();
                if !unknown.is_empty() && default.is_none() {
                    let detail = format!(
                        "the reader's enum does not know {} and has no default",
                        unknown.join(", ")
                    );
                    self.report(path, Rule::Enum, detail);
                }
            }
            (Shape::Fixed { size, logical }, Shape::Fixed { size: read_size, logical: read }) => {
                if size != read_size {
                    let detail = format!("it is written in {size} bytes and read in {read_size}");
                    self.report(path, Rule::FixedSize, detail);
                }
                self.check_logical(logical.as_ref(), read.as_ref(), path);
            }
            _ => {
                let (one, other) = (Type::Named(written.into()), Type::Named(read.into()));
                self.report_type(&one, &other, path);
            }
        }
    }

    fn check_fields(&mut self, written: &'a [Field], read: &'a [Field], path: &str) {
        if !self.found.step(written.len() + read.len(), path) {
            return;
        }
        let names: BTreeMap<&String, &Field> =
            written.iter().map(|field| (&field.name, field)).collect();
        for field in read {
            let path = member(path, &field.name);
            let called = |name: &String| names.get(name).copied();
            let found = called(&field.name).or_else(|| field.aliases.iter().find_map(called));
            match found {
                Some(found) => self.check(&found.of, &field.of, &path),
                None if field.default.is_none() => {
                    let detail = "the reader has this field without a default, and the writer does \
                                  not write it";
                    self.report(&path, Rule::FieldWithoutDefault, detail.to_owned());
                }
                None => {}
            }
        }
    }

    /// Whether a branch of the reader's union is the one for what is written: by kind and name, not
    /// by what is in a record.
    fn matches(&self, written: &Type, branch: &Type) -> bool {
        match (written, branch) {
            (Type::Union(branches), branch) => {
                branches.iter().all(|written| self.matches(written, branch))
            }
            (written, Type::Union(branches)) => {
                branches.iter().any(|branch| self.matches(written, branch))
            }
            (Type::Array(written), Type::Array(branch))
            | (Type::Map(written), Type::Map(branch)) => self.matches(written, branch),
            (Type::Primitive(from, _), Type::Primitive(to, _)) => promotes(*from, *to),
            (Type::Named(written), Type::Named(branch)) => {
                let shape = |schema: &AvroSchema, name: &str| {
                    schema.named(name).map(|named| match &named.shape {
                        Shape::Fixed { size, .. } => ("fixed", *size),
                        shape => (shape.as_str(), 0),
                    })
                };
                shape(self.writer, written) == shape(self.reader, branch)
                    && self.same_name(written, branch)
            }
            _ => false,
        }
    }

    /// The same unqualified name, or one of the reader's aliases.
    fn same_name(&self, written: &str, read: &str) -> bool {
        let aliases = self.reader.named(read).map_or(&[][..], |named| &named.aliases);
        unqualified(written) == unqualified(read)
            || aliases
                .iter()
                .any(|alias| alias == written || unqualified(alias) == unqualified(written))
    }
}

/// Whether everything written as one is read as the other.
const fn promotes(from: Primitive, to: Primitive) -> bool {
    use Primitive::{Boolean, Bytes, Double, Float, Int, Long, Null, String};
    matches!(
        (from, to),
        (Null, Null)
            | (Boolean, Boolean)
            | (Int, Int | Long | Float | Double)
            | (Long, Long | Float | Double)
            | (Float, Float | Double)
            | (Double, Double)
            | (String | Bytes, String | Bytes)
    )
}
