//! Which versions of a schema have to be able to read each other, and what stops them.
//!
//! Every rule is about a reader and a writer: can the reader's schema read everything that was
//! written under the writer's? Backward compatibility asks it with the new schema as the reader's,
//! forward compatibility with the new schema as the writer's. So what is backward from `a` to `b`
//! is forward from `b` to `a`, in each of the three languages.
//!
//! Where the languages leave a choice, the stricter reading is taken: what is read must be what
//! was written, and not only something. An Avro `timestamp-millis` read as `timestamp-micros`, or
//! a Protobuf `int64` read as `int32`, can be decoded and is wrong. There is one exception, made
//! because nobody could ever add a property otherwise: a JSON Schema that declares properties and
//! does not mention `additionalProperties` is taken to write those and no others. One that says
//! `additionalProperties: true`, or declares no properties at all, is taken at its word: an object
//! of any content cannot be given types later. A type without content says `"properties": {}`.
//!
//! A comparison takes bounded time and memory, whatever the schemas are: where two are made so that
//! it would take too long, the answer is [`Rule::Comparable`].

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{Schema, SchemaVersion};
use crate::error::ErrorClass;

/// Which earlier versions a new one is checked against, and in which direction. The names and
/// meanings are those of Confluent's schema registry.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[non_exhaustive]
pub enum CompatibilityMode {
    /// Nothing is checked.
    None,
    /// The new version reads what was written under the last one. Upgrade readers first.
    Backward,
    /// The new version reads what was written under any earlier one: what a log needs, from which
    /// nothing ever goes away.
    #[default]
    BackwardTransitive,
    /// The last version reads what is written under the new one. Upgrade writers first.
    Forward,
    /// Every earlier version reads what is written under the new one.
    ForwardTransitive,
    /// Backward and forward.
    Full,
    /// Backward and forward with every earlier version.
    FullTransitive,
}

impl CompatibilityMode {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::None,
        Self::Backward,
        Self::BackwardTransitive,
        Self::Forward,
        Self::ForwardTransitive,
        Self::Full,
        Self::FullTransitive,
    ];

    /// Its name, as Confluent's schema registry writes it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "NONE",
            Self::Backward => "BACKWARD",
            Self::BackwardTransitive => "BACKWARD_TRANSITIVE",
            Self::Forward => "FORWARD",
            Self::ForwardTransitive => "FORWARD_TRANSITIVE",
            Self::Full => "FULL",
            Self::FullTransitive => "FULL_TRANSITIVE",
        }
    }

    /// Whether every earlier version counts, and not only the last.
    #[must_use]
    pub const fn is_transitive(self) -> bool {
        matches!(self, Self::BackwardTransitive | Self::ForwardTransitive | Self::FullTransitive)
    }

    /// The directions that are checked.
    #[must_use]
    pub const fn directions(self) -> &'static [Direction] {
        match self {
            Self::None => &[],
            Self::Backward | Self::BackwardTransitive => &[Direction::Backward],
            Self::Forward | Self::ForwardTransitive => &[Direction::Forward],
            Self::Full | Self::FullTransitive => &[Direction::Backward, Direction::Forward],
        }
    }
}

impl fmt::Display for CompatibilityMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for CompatibilityMode {
    type Err = UnknownMode;

    /// Reads a name, in capitals or not.
    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|mode| mode.as_str().eq_ignore_ascii_case(name));
        found.ok_or_else(|| UnknownMode { name: name.to_owned() })
    }
}

/// A text that names no mode.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{name:?} is no compatibility mode; use NONE, BACKWARD, FORWARD or FULL, the last three also \
     with _TRANSITIVE"
)]
pub struct UnknownMode {
    name: String,
}

impl UnknownMode {
    /// How to react.
    pub const fn class(&self) -> ErrorClass {
        ErrorClass::User
    }
}

/// Who reads whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// The new schema reads what was written under the older one.
    Backward,
    /// The older schema reads what is written under the new one.
    Forward,
}

/// The rule that is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Rule {
    /// All versions of a subject are in one language.
    Kind,
    /// The reader's type takes every value of the writer's.
    Type,
    /// Named types of Avro have the same name, or the reader's has the writer's as an alias.
    Name,
    /// A field that the writer does not have has a default in the reader's schema (Avro).
    FieldWithoutDefault,
    /// Each branch of the writer's union is taken by one of the reader's.
    Union,
    /// The reader knows every value of the writer's enumeration.
    Enum,
    /// A `fixed` keeps its size (Avro).
    FixedSize,
    /// A logical type keeps its unit, precision and scale (Avro).
    LogicalType,
    /// What the reader requires is always written.
    Required,
    /// The reader takes every property that the writer may write (JSON Schema).
    ClosedContent,
    /// A bound (of a number, a length, a count) is not narrower for the reader (JSON Schema).
    Bound,
    /// Any other constraint of the reader holds for the writer, too (JSON Schema).
    Constraint,
    /// A field number keeps its wire type (Protobuf).
    WireType,
    /// A field keeps its number (Protobuf).
    FieldNumber,
    /// A number or name that was reserved is not used again (Protobuf).
    Reserved,
    /// A field stays single or repeated (Protobuf).
    Label,
    /// A field that was left out is read as the same value (Protobuf).
    DefaultValue,
    /// Fields that could be written together are not put into one `oneof`, and the reader knows
    /// every member of its `oneof` (Protobuf).
    Oneof,
    /// The two can be compared at all.
    Comparable,
}

impl Rule {
    /// What to do about a breach.
    const fn cure(self, direction: Direction) -> &'static str {
        let backward = matches!(direction, Direction::Backward);
        match self {
            Self::Kind => "register it under another subject",
            Self::Type if backward => {
                "keep the old type or widen it, or add a field with the new type beside it"
            }
            Self::Type => "keep the type, or add a field with the new type beside it",
            Self::Name if backward => "keep the name, or add the old name to the type's aliases",
            Self::Name => "keep the name; an older reader cannot know a new one",
            Self::FieldWithoutDefault if backward => "give the field a default",
            Self::FieldWithoutDefault => {
                "keep the field: the older version has no default for it, and cannot read without"
            }
            Self::Union if backward => "keep the branch in the new schema",
            Self::Union => "leave the branch out until the older version is no longer read with",
            Self::Enum if backward => {
                "keep the value in the new schema (in Avro, or give a default)"
            }
            Self::Enum => "leave the value out until the older version is no longer read with",
            Self::FixedSize => "keep the size, or add a field with the new size beside it",
            Self::LogicalType => "keep it, or add a field with the new one beside it",
            Self::Required if backward => "make it optional in the new schema",
            Self::Required => "keep it required in the new schema: the older version needs it",
            Self::ClosedContent if backward => "keep it, or leave the new schema open",
            Self::ClosedContent => {
                "leave it out: the older version takes nothing that it does not know"
            }
            Self::Bound | Self::Constraint if backward => {
                "take at least what the older version allowed, and check the rest in code"
            }
            Self::Bound | Self::Constraint => {
                "allow no more than the older version, or use another field"
            }
            Self::WireType => "keep the type, or use a number that was never used",
            Self::FieldNumber => "keep the number",
            Self::Reserved => "use a number and a name that were never used",
            Self::Label => "keep the label, or use a number that was never used",
            Self::DefaultValue => {
                "keep the default, or use a field with a number that was never used"
            }
            Self::Oneof => "keep the oneof as it is, or use new fields with numbers never used",
            Self::Comparable => {
                "leave this part exactly as it is, write it in other words, or (if you know that it \
                 is compatible) register it with mode NONE"
            }
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kind => "kind",
            Self::Type => "type",
            Self::Name => "name",
            Self::FieldWithoutDefault => "field_without_default",
            Self::Union => "union",
            Self::Enum => "enum",
            Self::FixedSize => "fixed_size",
            Self::LogicalType => "logical_type",
            Self::Required => "required",
            Self::ClosedContent => "closed_content",
            Self::Bound => "bound",
            Self::Constraint => "constraint",
            Self::WireType => "wire_type",
            Self::FieldNumber => "field_number",
            Self::Reserved => "reserved",
            Self::Label => "label",
            Self::DefaultValue => "default_value",
            Self::Oneof => "oneof",
            Self::Comparable => "comparable",
        })
    }
}

/// Something that one schema cannot read of another.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Problem {
    /// The field, `lines[].price` for example; `[]` stands for any element of an array and `*` for
    /// any key of a map. Empty for the root.
    pub path: String,
    /// The rule.
    pub rule: Rule,
    /// How it is broken.
    pub detail: String,
}

/// A problem with an earlier version.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Incompatibility {
    /// The earlier version.
    pub version: SchemaVersion,
    /// Who cannot read whom.
    pub direction: Direction,
    /// What stops it.
    pub problem: Problem,
}

impl Incompatibility {
    /// What to do about it.
    #[must_use]
    pub const fn cure(&self) -> &'static str {
        self.problem.rule.cure(self.direction)
    }
}

impl fmt::Display for Incompatibility {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { version, direction, problem: Problem { path, rule, detail } } = self;
        let path = if path.is_empty() { "(root)" } else { path };
        write!(f, "{path}: {detail} (rule {rule}), so ")?;
        match direction {
            Direction::Backward => {
                write!(f, "the new schema cannot read what version {version} wrote")?;
            }
            Direction::Forward => {
                write!(f, "version {version} cannot read what the new schema writes")?;
            }
        }
        write!(f, "; {}", self.cure())
    }
}

/// A new version was refused, for everything that is listed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the new schema of {subject} is not {mode} compatible:{}",
    incompatibilities.iter().map(|one| format!("\n- {one}")).collect::<String>()
)]
pub struct IncompatibleSchema {
    /// The subject.
    pub subject: String,
    /// The subject's mode.
    pub mode: CompatibilityMode,
    /// All that is wrong, the last version's first.
    pub incompatibilities: Vec<Incompatibility>,
}

impl IncompatibleSchema {
    /// How to react.
    pub const fn class(&self) -> ErrorClass {
        ErrorClass::User
    }
}

/// Everything that makes `new` incompatible with earlier versions (in ascending order) in a mode;
/// nothing if it is compatible.
#[must_use]
pub fn check<'a>(
    mode: CompatibilityMode,
    new: &Schema,
    older: impl IntoIterator<Item = (SchemaVersion, &'a Schema)>,
) -> Vec<Incompatibility> {
    let mut older: Vec<_> = older.into_iter().collect();
    older.reverse();
    let count = if mode.is_transitive() { older.len() } else { 1 };
    let mut found = Vec::new();
    for (version, old) in older.into_iter().take(count) {
        for &direction in mode.directions() {
            let problems = match direction {
                Direction::Backward => new.problems_with(old),
                Direction::Forward => old.problems_with(new),
            };
            let with_version = |problem| Incompatibility { version, direction, problem };
            found.extend(problems.into_iter().map(with_version));
        }
    }
    found
}

/// How many problems between two schemas are told, at most: each may be as long as a schema.
const MAX_PROBLEMS: usize = 256;

/// What a comparison has found and what it has cost. Schemas may come from outside, and two of a
/// megabyte can be made so that a plain comparison takes days: every loop over parts of both
/// [counts](Self::step) what it does.
pub(super) struct Findings {
    problems: Vec<Problem>,
    steps: usize,
    most: usize,
}

impl Findings {
    /// Nothing yet, and at most so many steps.
    pub(super) const fn new(most: usize) -> Self {
        Self { problems: Vec::new(), steps: 0, most }
    }

    pub(super) fn report(&mut self, path: &str, rule: Rule, detail: String) {
        if self.problems.len() < MAX_PROBLEMS {
            self.problems.push(Problem { path: path.to_owned(), rule, detail });
        }
    }

    /// Reports that two parts cannot be compared.
    pub(super) fn incomparable(&mut self, path: &str, reason: &str) {
        self.report(path, Rule::Comparable, format!("cannot be compared: {reason}"));
    }

    /// Counts steps, and says whether there may be more. If not, that is a problem of its own,
    /// unless there are too many already.
    #[must_use]
    pub(super) fn step(&mut self, steps: usize, path: &str) -> bool {
        self.steps = self.steps.saturating_add(steps);
        if self.steps > self.most {
            self.too_large(path);
            return false;
        }
        self.problems.len() < MAX_PROBLEMS
    }

    /// Reports, once, that the schemas are too much.
    pub(super) fn too_large(&mut self, path: &str) {
        if self.problems.iter().all(|problem| problem.rule != Rule::Comparable) {
            self.incomparable(path, "the schemas are too large or too deep");
        }
    }

    /// Puts other problems in place of those that were found.
    pub(super) fn swap(&mut self, problems: Vec<Problem>) -> Vec<Problem> {
        std::mem::replace(&mut self.problems, problems)
    }

    /// Each problem once, in the order in which they were found.
    pub(super) fn finish(mut self) -> Vec<Problem> {
        let mut seen = std::collections::BTreeSet::new();
        self.problems.retain(|problem| seen.insert(problem.clone()));
        self.problems
    }
}

/// How much of a name a path shows, in characters.
const SHOWN: usize = 80;

/// The path of a member, quoted if it has characters that a path uses itself. Of a name that nobody
/// would read to its end it has the beginning: a path is made at each step, and grows with each.
pub(super) fn member(path: &str, name: &str) -> String {
    let plain = !name.is_empty()
        && name.len() <= SHOWN
        && name.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '-' | '$'));
    let shown = || match name.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{:?}…", &name[..end]),
        None => format!("{name:?}"),
    };
    match (plain, path.is_empty()) {
        (true, true) => name.to_owned(),
        (true, false) => format!("{path}.{name}"),
        (false, _) => format!("{path}[{}]", shown()),
    }
}

/// The path of any value of a map.
pub(super) fn any_member(path: &str) -> String {
    if path.is_empty() { "*".to_owned() } else { format!("{path}.*") }
}
