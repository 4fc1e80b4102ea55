//! The keywords that can be compared one by one.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::compare::Compare;
use super::merge::is_open;
use super::numbers::{End, compare, multiple_within};
use super::same::same;
use super::types::{Types, finite};
use super::values::{Listed, Taker};
use crate::event::schema::compatibility::{Rule, any_member, member};

type Keywords = Map<String, Value>;

const EVERYTHING: &Value = &Value::Bool(true);

/// How many values a message lists.
const MAX_LISTED: usize = 8;

/// How many integers between two bounds are looked at one by one.
const MAX_RANGE: i64 = 16;

/// The values that a schema without `enum` takes, if its types and bounds leave only a few.
fn few(schema: &Keywords, types: Types) -> Option<Vec<Value>> {
    if !types.within(Types::INTEGER.or(Types::FINITE)) {
        return None;
    }
    let mut values = types.and(Types::FINITE).values();
    if types.has(Types::INTEGER) {
        let end = |end: End| end.of(schema, true)?.value.as_i64();
        let (low, high) = (end(End::Lower)?, end(End::Upper)?);
        if high.checked_sub(low)? >= MAX_RANGE {
            return None;
        }
        let step = schema.get("multipleOf").and_then(Value::as_i64).filter(|step| *step > 0);
        let taken = |value: &i64| step.is_none_or(|step| value % step == 0);
        values.extend((low..=high).filter(taken).map(Value::from));
    }
    Some(values)
}

impl Compare<'_> {
    /// Compares two schemas without references and unions.
    pub(super) fn check_plain(&mut self, writer: &Keywords, reader: &Keywords, path: &str) {
        let written = Types::of(writer);
        if let Some(values) = finite(writer) {
            return self.check_values(&values, reader, path);
        }
        if finite(reader).is_some()
            && let Some(values) = few(writer, written)
        {
            return self.check_values(&values, reader, path);
        }
        let taken = Types::of(reader);
        let refused = written.without(taken);
        if !refused.is_empty() {
            let detail = format!("it is written as {written} and read as {taken}");
            self.report(path, Rule::Type, detail);
        }
        let both = written.and(taken);
        if both.is_empty() {
            return;
        }
        if let Some(listed) = finite(reader) {
            let detail = format!("the reader takes {} only, the writer any {both}", list(&listed));
            return self.report(path, Rule::Enum, detail);
        }
        if both.has(Types::NUMBER) {
            self.check_numbers(
                writer,
                reader,
                !both.has(Types::NUMBER.without(Types::INTEGER)),
                path,
            );
        }
        if both.has(Types::STRING) {
            self.check_count(writer, reader, ("minLength", "maxLength"), 0, path);
            for key in ["pattern", "format"] {
                self.check_constraint(writer, reader, key, path);
            }
        }
        if both.has(Types::ARRAY) {
            self.check_array(writer, reader, path);
        }
        if both.has(Types::OBJECT) {
            self.check_object(writer, reader, path);
        }
    }

    fn check_values(&mut self, values: &[Value], reader: &Keywords, path: &str) {
        let listed = finite(reader);
        let listed = listed.as_deref().map(Listed::of);
        // Lists and types are looked up; a validator is made only if there is more to know, and
        // once.
        let more = reader.keys().any(|key| !["const", "enum", "type"].contains(&key.as_str()));
        let taker = match more {
            true => match Taker::of(self.reader.schema, reader) {
                Some(taker) => Some(taker),
                None => {
                    let detail = "cannot be compared: the reader's references lead to places \
                                  other than its definitions";
                    return self.report(path, Rule::Comparable, detail.to_owned());
                }
            },
            false => None,
        };
        let types = Types::of(reader);
        let mut refused = Vec::new();
        for value in values {
            if self.is_too_far(path) {
                return;
            }
            let listed = listed.as_ref().is_none_or(|listed| listed.has(value));
            let taken = match &taker {
                Some(taker) if listed && types.admit(value) => taker.takes(value),
                _ => Some(listed && types.admit(value)),
            };
            let Some(taken) = taken else { return self.found.too_large(path) };
            if !taken {
                refused.push(value.clone());
            }
        }
        if refused.is_empty() {
            return;
        }
        let typed = refused.iter().all(|value| types.admit(value));
        let rule = match (finite(reader), typed) {
            (Some(_), _) => Rule::Enum,
            (None, true) => Rule::Constraint,
            (None, false) => Rule::Type,
        };
        self.report(path, rule, format!("the reader does not take {}", list(&refused)));
    }

    fn check_numbers(&mut self, writer: &Keywords, reader: &Keywords, integers: bool, path: &str) {
        for end in [End::Lower, End::Upper] {
            let (written, taken) = (end.of(writer, integers), end.of(reader, integers));
            let Some(outer) = &taken else { continue };
            if written.as_ref().is_none_or(|inner| !end.within(inner, outer)) {
                let (written, taken) = (end.words(written.as_ref()), end.words(taken.as_ref()));
                let detail =
                    format!("the reader takes numbers {taken}, the writer writes {written}");
                self.report(path, Rule::Bound, detail);
            }
        }
        if let Some(outer) = reader.get("multipleOf").and_then(Value::as_number) {
            let inner = writer.get("multipleOf").and_then(Value::as_number);
            let whole = integers && outer.as_f64() == Some(1.0);
            if !whole && inner.is_none_or(|inner| !multiple_within(inner, outer)) {
                let detail = format!("the reader takes multiples of {outer} only");
                self.report(path, Rule::Constraint, detail);
            }
        }
    }

    /// Compares counts: of characters, elements, properties. The writer writes `at_least` of them
    /// for another reason.
    fn check_count(
        &mut self,
        writer: &Keywords,
        reader: &Keywords,
        (min, max): (&str, &str),
        at_least: u64,
        path: &str,
    ) {
        let number = |map: &Keywords, key: &str| map.get(key).and_then(Value::as_number).cloned();
        if let Some(taken) = number(reader, min) {
            let written = number(writer, min);
            let enough = compare(&at_least.into(), &taken).is_ge()
                || written.as_ref().is_some_and(|written| compare(written, &taken).is_ge());
            if !enough {
                let written = written.unwrap_or_else(|| at_least.into());
                let detail = format!("the reader has {min} {taken}, the writer {written}");
                self.report(path, Rule::Bound, detail);
            }
        }
        if let Some(taken) = number(reader, max) {
            let written = number(writer, max);
            if written.as_ref().is_none_or(|written| compare(written, &taken).is_gt()) {
                let written = written.map_or_else(|| "none".to_owned(), |it| it.to_string());
                let detail = format!("the reader has {max} {taken}, the writer {written}");
                self.report(path, Rule::Bound, detail);
            }
        }
    }

    /// A constraint that is either the same, or unknown.
    fn check_constraint(&mut self, writer: &Keywords, reader: &Keywords, key: &str, path: &str) {
        let Some(taken) = reader.get(key) else { return };
        let detail = match writer.get(key) {
            Some(written) if written == taken => return,
            Some(written) => format!("the reader has {key} {taken}, the writer {written}"),
            None => format!("the reader has {key} {taken}, the writer has none"),
        };
        self.report(path, Rule::Constraint, detail);
    }

    fn check_array(&mut self, writer: &Keywords, reader: &Keywords, path: &str) {
        self.check_count(writer, reader, ("minItems", "maxItems"), 0, path);
        let unique = |map: &Keywords| map.get("uniqueItems") == Some(&Value::Bool(true));
        if unique(reader) && !unique(writer) {
            let detail = "the reader takes unique items only, the writer may repeat them";
            self.report(path, Rule::Constraint, detail.to_owned());
        }
        let (written, rest_written) = items(writer);
        let (taken, rest_taken) = items(reader);
        let most = writer.get("maxItems").and_then(Value::as_u64);
        let most = most.map_or(usize::MAX, |most| usize::try_from(most).unwrap_or(usize::MAX));
        let prefix = written.len().max(taken.len());
        for index in 0..prefix.min(most) {
            let written = written.get(index).unwrap_or(rest_written);
            let taken = taken.get(index).unwrap_or(rest_taken);
            self.check(written, taken, &format!("{path}[{index}]"));
        }
        if most > prefix {
            self.check(rest_written, rest_taken, &format!("{path}[]"));
        }
    }

    fn check_object(&mut self, writer: &Keywords, reader: &Keywords, path: &str) {
        let written = Object::of(writer);
        let taken = Object::of(reader);
        for name in taken.required.difference(&written.required) {
            let detail = "the reader requires it, and the writer may leave it out".to_owned();
            self.report(&member(path, name), Rule::Required, detail);
        }
        let at_least = written.required.len() as u64;
        self.check_count(writer, reader, ("minProperties", "maxProperties"), at_least, path);
        let patterns = |keywords: &'_ Keywords| keywords.get("patternProperties").cloned();
        let same_patterns = match (patterns(writer), patterns(reader)) {
            (Some(one), Some(other)) => same((self.writer, &one), (self.reader, &other)),
            (one, other) => one.is_none() && other.is_none(),
        };
        let names: BTreeSet<&str> = written.names().chain(taken.names()).collect();
        for name in names {
            let path = member(path, name);
            let reads = taken.property(name).or(taken.additional).unwrap_or(EVERYTHING);
            match written.may_write(name) {
                // A pattern may say more about it than `additionalProperties` does.
                _ if written.property(name).is_none()
                    && written.patterns.is_some()
                    && !is_open(reads) =>
                {
                    let detail = "cannot be compared: the writer's patternProperties may apply";
                    self.report(&path, Rule::Comparable, detail.to_owned());
                }
                None => {}
                Some(_) if *reads == Value::Bool(false) => {
                    let detail = "the writer writes it, and the reader does not take it".to_owned();
                    self.report(&path, Rule::ClosedContent, detail);
                }
                Some(writes) => self.check(writes, reads, &path),
            }
        }
        self.check_additional(&written, &taken, same_patterns, path);
    }

    fn check_additional(
        &mut self,
        written: &Object<'_>,
        taken: &Object<'_>,
        same_patterns: bool,
        path: &str,
    ) {
        let Some(reads) = taken.additional.filter(|reads| !is_open(reads)) else { return };
        let closed = *reads == Value::Bool(false);
        if !same_patterns {
            for (pattern, writes) in written.patterns.into_iter().flatten() {
                if closed && *writes != Value::Bool(false) {
                    let detail = format!("the reader takes no property like {pattern:?}");
                    self.report(&any_member(path), Rule::ClosedContent, detail);
                } else {
                    self.check(writes, reads, &any_member(path));
                }
            }
        }
        let writes = written.additional.unwrap_or(EVERYTHING);
        if closed && *writes != Value::Bool(false) {
            let detail = "the reader takes no properties but its own, the writer may write others";
            self.report(path, Rule::ClosedContent, detail.to_owned());
        } else {
            self.check(writes, reads, &any_member(path));
        }
    }
}

/// The schemas of an array's first elements, and of those behind them.
fn items(keywords: &Keywords) -> (&[Value], &Value) {
    let list = |key: &str| keywords.get(key).and_then(Value::as_array).map(Vec::as_slice);
    let one = |key: &str| keywords.get(key).filter(|value| !value.is_array());
    match list("items") {
        // Before 2020-12.
        Some(first) => (first, one("additionalItems").unwrap_or(EVERYTHING)),
        None => (list("prefixItems").unwrap_or_default(), one("items").unwrap_or(EVERYTHING)),
    }
}

/// What a schema says of an object's properties.
struct Object<'a> {
    properties: Option<&'a Keywords>,
    patterns: Option<&'a Keywords>,
    required: BTreeSet<&'a str>,
    additional: Option<&'a Value>,
}

impl<'a> Object<'a> {
    fn of(keywords: &'a Keywords) -> Self {
        let required = keywords.get("required").and_then(Value::as_array).into_iter().flatten();
        Self {
            properties: keywords.get("properties").and_then(Value::as_object),
            patterns: keywords.get("patternProperties").and_then(Value::as_object),
            required: required.filter_map(Value::as_str).collect(),
            additional: keywords.get("additionalProperties"),
        }
    }

    fn names(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        self.properties.into_iter().flatten().map(|(name, _)| name.as_str())
    }

    fn property(&self, name: &str) -> Option<&'a Value> {
        self.properties?.get(name)
    }

    /// What is written as this property; `None` if it is not. A schema that declares properties and
    /// says nothing about others writes none, but for those that it requires. One that declares
    /// none at all is of objects of any content.
    fn may_write(&self, name: &str) -> Option<&'a Value> {
        let anything = self.properties.is_none() || self.required.contains(name);
        let undeclared = anything.then_some(EVERYTHING);
        let writes = self.property(name).or(self.additional).or(undeclared)?;
        (*writes != Value::Bool(false)).then_some(writes)
    }
}

fn list(values: &[Value]) -> String {
    let mut text: Vec<_> = values.iter().take(MAX_LISTED).map(Value::to_string).collect();
    if values.len() > MAX_LISTED {
        text.push(format!("{} more", values.len() - MAX_LISTED));
    }
    text.join(", ")
}
