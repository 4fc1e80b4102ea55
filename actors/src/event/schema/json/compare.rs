//! Whether one JSON Schema takes everything that another does.
//!
//! It is answered keyword by keyword, and each step is safe: what passes is compatible. What does
//! not pass may be compatible for a reason that keywords do not show; where that is likely, the
//! answer is [`Rule::Comparable`], which says that nobody knows.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::merge::{flatten, intersect, is_open};
use super::same::same;
use super::side::{Side, Work};
use super::types::{Types, finite};
use super::values::Listed;
use super::{JsonSchema, canonical};
use crate::event::schema::compatibility::{Findings, Problem, Rule};

type Keywords = Map<String, Value>;

/// How many pairs of parts are looked at, at most: unions of unions multiply.
const MAX_STEPS: usize = 200_000;

/// How deep parts are nested, at most.
const MAX_DEPTH: usize = 100;

/// Keywords (with those that only mean something beside them) that hold for a reader if they are
/// the same for the writer, and about which nothing else is known.
const OPAQUE: [&[&str]; 9] = [
    &["not"],
    &["if", "then", "else"],
    &["contains", "minContains", "maxContains"],
    &["dependentSchemas"],
    &["dependentRequired"],
    &["dependencies"],
    &["propertyNames"],
    &["unevaluatedItems"],
    &["unevaluatedProperties"],
];

/// What stops `reader` from taking everything that `writer` takes.
pub(in crate::event::schema) fn problems(reader: &JsonSchema, writer: &JsonSchema) -> Vec<Problem> {
    let work = Work::default();
    let mut compare = Compare {
        reader: Side { schema: reader, work: &work },
        writer: Side { schema: writer, work: &work },
        under_way: BTreeSet::new(),
        disjoint: BTreeMap::new(),
        depth: 0,
        found: Findings::new(MAX_STEPS),
    };
    compare.check(&writer.root, &reader.root, "");
    compare.found.finish()
}

pub(super) struct Compare<'a> {
    pub(super) reader: Side<'a>,
    pub(super) writer: Side<'a>,
    /// Pairs that are being compared, further out: a pair that comes again inside itself holds if
    /// the rest of it does.
    under_way: BTreeSet<(String, String)>,
    /// Unions of the reader, as text, and whether their branches are disjoint.
    disjoint: BTreeMap<String, bool>,
    depth: usize,
    pub(super) found: Findings,
}

impl Compare<'_> {
    pub(super) fn report(&mut self, path: &str, rule: Rule, detail: String) {
        self.found.report(path, rule, detail);
    }

    fn incomparable(&mut self, path: &str, reason: &str) {
        self.found.incomparable(path, reason);
    }

    /// Counts one step, and says if it was one too many.
    pub(super) fn is_too_far(&mut self, path: &str) -> bool {
        if self.depth > MAX_DEPTH || !self.reader.work.go_on(0) {
            self.found.too_large(path);
            return true;
        }
        !self.found.step(1, path)
    }

    /// Compares two parts that stand at the same place.
    pub(super) fn check(&mut self, writer: &Value, reader: &Value, path: &str) {
        if is_open(reader) || *writer == Value::Bool(false) {
            return;
        }
        let _ = self.writer.counts(writer) && self.reader.counts(reader);
        if self.is_too_far(path) {
            return;
        }
        let pair = (refers(writer) || refers(reader)).then(|| (pair_key(writer), pair_key(reader)));
        if pair.as_ref().is_some_and(|pair| !self.under_way.insert(pair.clone())) {
            return;
        }
        self.depth += 1;
        if !same((self.writer, writer), (self.reader, reader)) {
            self.check_different(writer, reader, path);
        }
        self.depth -= 1;
        if let Some(pair) = pair {
            self.under_way.remove(&pair);
        }
    }

    /// Whether two parts pass, without a word about it.
    fn passes(&mut self, check: impl FnOnce(&mut Self)) -> bool {
        let before = self.found.swap(Vec::new());
        check(self);
        self.found.swap(before).is_empty()
    }

    fn check_different(&mut self, writer: &Value, reader: &Value, path: &str) {
        let Value::Object(keywords) = reader else {
            self.report(path, Rule::ClosedContent, "the reader takes nothing here".to_owned());
            return;
        };
        let mut keywords = self.reader.keywords(keywords);
        if let Some(reference) = keywords.remove("$ref").as_ref().and_then(Value::as_str) {
            match self.reader.resolve(reference) {
                Some(target) => self.check(writer, target, path),
                None => self.incomparable(path, &format!("{reference} leads out of the schema")),
            }
            if self.reader.is_legacy() {
                return;
            }
        }
        if let Some(Value::Array(all)) = keywords.remove("allOf") {
            for part in all {
                self.check(writer, &part, path);
            }
        }
        match flatten(self.writer, writer) {
            Ok(Some(writer)) => self.check_keywords(writer, keywords, path),
            Ok(None) => {}
            Err(reason) => self.incomparable(path, &reason),
        }
    }

    fn check_keywords(&mut self, mut writer: Keywords, mut reader: Keywords, path: &str) {
        self.check_opaque(&writer, &mut reader, path);
        if reader.keys().all(|key| super::merge::is_annotation(key)) {
            return;
        }
        for key in ["oneOf", "anyOf"] {
            if let Some(Value::Array(branches)) = writer.remove(key) {
                return self.check_writer_union(&writer, &branches, &reader, path);
            }
        }
        for key in ["oneOf", "anyOf"] {
            if let Some(Value::Array(branches)) = reader.remove(key) {
                if key == "oneOf" && !self.all_disjoint(&branches) {
                    self.incomparable(path, "the branches of its oneOf may overlap");
                } else {
                    self.check_reader_union(&writer, &branches, path);
                }
            }
        }
        self.check_plain(&writer, &reader, path);
    }

    /// Takes what is the same on both sides out of the reader's keywords.
    fn check_opaque(&mut self, writer: &Keywords, reader: &mut Keywords, path: &str) {
        let (ours, theirs) = (self.reader, self.writer);
        let same_key = |reader: &Keywords, key: &str| match (writer.get(key), reader.get(key)) {
            (Some(one), Some(other)) => same((theirs, one), (ours, other)),
            (one, other) => one.is_none() && other.is_none(),
        };
        for key in ["anyOf", "oneOf"] {
            if same_key(reader, key) {
                reader.remove(key);
            }
        }
        for group in OPAQUE {
            let Some(first) = group.iter().find(|key| reader.contains_key(**key)) else { continue };
            // What is evaluated depends on everything beside it.
            let local = !first.starts_with("unevaluated");
            if !(local && group.iter().all(|key| same_key(reader, key))) {
                self.incomparable(path, &format!("the reader has {first}"));
            }
            group.iter().for_each(|key| drop(reader.remove(*key)));
        }
        if reader.contains_key("patternProperties") && !same_key(reader, "patternProperties") {
            self.incomparable(path, "the reader has other patternProperties");
        }
    }

    /// Each branch of the writer's union has to pass for itself.
    fn check_writer_union(
        &mut self,
        beside: &Keywords,
        branches: &[Value],
        reader: &Keywords,
        path: &str,
    ) {
        for branch in branches {
            if self.is_too_far(path) {
                return;
            }
            let alone = match flatten(self.writer, branch) {
                Ok(Some(alone)) => alone,
                Ok(None) => continue,
                Err(reason) => {
                    self.incomparable(path, &reason);
                    continue;
                }
            };
            self.depth += 1;
            match intersect(beside.clone(), alone.clone()) {
                Ok(Some(both)) => self.check_keywords(both, reader.clone(), path),
                Ok(None) => {}
                // Either alone allows more than both together, so either is enough.
                Err(_) => {
                    let by_beside = |compare: &mut Self| {
                        compare.check_keywords(beside.clone(), reader.clone(), path);
                    };
                    if !self.passes(by_beside) {
                        self.check_keywords(alone, reader.clone(), path);
                    }
                }
            }
            self.depth -= 1;
        }
    }

    /// Everything that the writer writes has to pass one branch of the reader's union.
    fn check_reader_union(&mut self, writer: &Keywords, branches: &[Value], path: &str) {
        for piece in pieces(writer) {
            if !self.found.step(branches.len(), path) || self.is_too_far(path) {
                return;
            }
            let (ours, theirs) = (self.reader, self.writer);
            // The same branch is the common case, and cheaper to find than to compare with all.
            if branches.iter().any(|branch| same((theirs, &piece), (ours, branch))) {
                continue;
            }
            let near = |branch: &&Value| !disjoint((theirs, &piece), (ours, branch), 0);
            let near: Vec<&Value> = branches.iter().filter(near).collect();
            if near.iter().any(|branch| self.passes(|this| this.check(&piece, branch, path))) {
                continue;
            }
            match near.as_slice() {
                [branch] => self.check(&piece, branch, path),
                _ => {
                    let keywords = piece.as_object().cloned().unwrap_or_default();
                    let what = describe(&keywords);
                    let detail = format!(
                        "no branch of the reader takes all that the writer may write as {what}"
                    );
                    self.report(path, Rule::Union, detail);
                }
            }
        }
    }

    /// Whether no two branches of the reader's union take the same. Asked for each branch of the
    /// writer's union, and found out once.
    fn all_disjoint(&mut self, branches: &[Value]) -> bool {
        let reader = self.reader;
        let find_out = || {
            branches.iter().enumerate().all(|(at, one)| {
                branches[at + 1..].iter().all(|other| disjoint((reader, one), (reader, other), 0))
            })
        };
        let key = canonical(&Value::Array(branches.to_vec()));
        *self.disjoint.entry(key).or_insert_with(find_out)
    }
}

/// Whether a part can be inside itself.
fn refers(part: &Value) -> bool {
    part.get("$ref").is_some() || part.get("allOf").is_some()
}

/// A part as a text. What is only a reference is the same with and without a title.
fn pair_key(part: &Value) -> String {
    match part.get("$ref") {
        Some(Value::String(reference))
            if part.as_object().is_some_and(|map| {
                map.keys().all(|key| key == "$ref" || super::merge::is_annotation(key))
            }) =>
        {
            reference.clone()
        }
        _ => part.to_string(),
    }
}

/// What is written, in a few words: the value, or the type with what tells it from others.
fn describe(piece: &Keywords) -> String {
    if let Some([value]) = finite(piece).as_deref() {
        return value.to_string();
    }
    let types = Types::of(piece);
    let properties = piece.get("properties").and_then(Value::as_object).into_iter().flatten();
    let mut tags =
        properties.filter_map(|(name, schema)| match finite(schema.as_object()?).as_deref() {
            Some([value]) => Some(format!("{types} with {name} = {value}")),
            _ => None,
        });
    tags.next().unwrap_or_else(|| types.to_string())
}

/// A schema in parts that together take the same: by value or by type.
fn pieces(schema: &Keywords) -> Vec<Value> {
    let rest: Keywords = schema
        .iter()
        .filter(|(key, _)| *key != "enum")
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    let with = |key: &str, value: Value| {
        let mut piece = rest.clone();
        piece.insert(key.to_owned(), value);
        Value::Object(piece)
    };
    match finite(schema) {
        Some(values) => values.into_iter().map(|value| with("const", value)).collect(),
        None => {
            let types = Types::of(schema).each();
            types.into_iter().map(|name| with("type", Value::from(name))).collect()
        }
    }
}

/// Whether nothing is taken by both, as far as types, listed values and properties show it.
fn disjoint(one: (Side<'_>, &Value), other: (Side<'_>, &Value), depth: usize) -> bool {
    let flat = |(schema, part)| flatten(schema, part);
    let (left, right) = match (flat(one), flat(other)) {
        (Ok(Some(left)), Ok(Some(right))) => (left, right),
        (Ok(None), _) | (_, Ok(None)) => return true,
        _ => return false,
    };
    let types = Types::of(&left).and(Types::of(&right));
    if types.is_empty() {
        return true;
    }
    if let (Some(left), Some(right)) = (finite(&left), finite(&right)) {
        let known = Listed::of(&right);
        return !left.iter().any(|one| known.has(one));
    }
    // Only objects have properties that could tell them apart.
    if !types.within(Types::OBJECT) || depth > 4 {
        return false;
    }
    let required = |map: &Keywords| -> Vec<String> {
        let names = map.get("required").and_then(Value::as_array).into_iter().flatten();
        names.filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let property = |map: &Keywords, name: &str| match map.get("properties") {
        Some(Value::Object(properties)) if properties.contains_key(name) => {
            properties[name].clone()
        }
        _ if map.contains_key("patternProperties") => Value::Bool(true),
        _ => map.get("additionalProperties").cloned().unwrap_or(Value::Bool(true)),
    };
    required(&left).iter().chain(&required(&right)).any(|name| {
        let (left, right) = (property(&left, name), property(&right, name));
        disjoint((one.0, &left), (other.0, &right), depth + 1)
    })
}
