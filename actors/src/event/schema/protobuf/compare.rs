//! What changes of a message stop a reader, or make it read something else.
//!
//! By the rules of "Updating A Message Type" of the language guide, with two differences. Changes
//! that it calls compatible although values can be lost (`int64` to `int32`, `int32` to `uint32`,
//! repeated to single) are refused in the direction in which they lose. And a field or an enum
//! value that changes its number under the same name is refused: the wire does not know names, and
//! so nobody else would notice.

use std::collections::{BTreeMap, BTreeSet};

use super::{Enum, Field, Label, Message, Of, ProtobufSchema, Scalar};
use crate::event::schema::compatibility::{Findings, Problem, Rule, any_member, member};

/// How deep messages are nested in each other, at most: as deep as readers go.
const MAX_DEPTH: usize = 100;

/// How many fields and values are looked at, at most: messages of two schemas can meet in more
/// pairs than there are messages.
const MAX_STEPS: usize = 500_000;

/// What stops `reader` from reading everything that was written under `writer`.
pub(in crate::event::schema) fn problems(
    reader: &ProtobufSchema,
    writer: &ProtobufSchema,
) -> Vec<Problem> {
    let found = Findings::new(MAX_STEPS);
    let mut compare = Compare { reader, writer, done: BTreeSet::new(), depth: 0, found };
    compare.check_message(&writer.root, &reader.root, "");
    compare.found.finish()
}

struct Compare<'a> {
    reader: &'a ProtobufSchema,
    writer: &'a ProtobufSchema,
    /// Pairs of messages and enums that were compared: once is enough, wherever they are used.
    done: BTreeSet<(&'a str, &'a str)>,
    depth: usize,
    found: Findings,
}

impl<'a> Compare<'a> {
    fn report(&mut self, path: &str, rule: Rule, detail: String) {
        self.found.report(path, rule, detail);
    }

    fn check_message(&mut self, written: &'a str, read: &'a str, path: &str) {
        if !self.done.insert((written, read)) {
            return;
        }
        if self.depth > MAX_DEPTH {
            return self.found.incomparable(path, "the messages are nested too deep");
        }
        self.depth += 1;
        self.check_new(written, read, path);
        self.depth -= 1;
    }

    fn check_new(&mut self, written: &'a str, read: &'a str, path: &str) {
        let (from, to) = (self.writer.message(written), self.reader.message(read));
        if !self.found.step(from.fields.len() + to.fields.len(), path) {
            return;
        }
        let numbers: BTreeMap<&str, u32> =
            from.fields.iter().rev().map(|(number, field)| (&*field.name, *number)).collect();
        for (number, field) in &to.fields {
            let path = member(path, &field.name);
            self.check_reserved(*number, field, from, &path);
            match from.fields.get(number) {
                Some(written) => self.check_field(written, field, &path),
                None => {
                    if field.label == Label::Required {
                        let detail = "the reader requires it, and the writer does not write it";
                        self.report(&path, Rule::Required, detail.to_owned());
                    }
                    if let Some(was) = numbers.get(&*field.name) {
                        let detail =
                            format!("it is written with number {was} and read with {number}");
                        self.report(&path, Rule::FieldNumber, detail);
                    }
                }
            }
            if !self.found.step(0, &path) {
                return;
            }
        }
        self.check_oneofs(from, to, path);
    }

    fn check_reserved(&mut self, number: u32, field: &Field, from: &Message, path: &str) {
        let Message { reserved, .. } = from;
        if reserved.has(number) {
            let detail = format!("the reader uses number {number}, which the writer reserves");
            self.report(path, Rule::Reserved, detail);
        }
        if reserved.names.contains(&field.name) {
            let detail = "the reader uses a name that the writer reserves".to_owned();
            self.report(path, Rule::Reserved, detail);
        }
    }

    fn check_field(&mut self, written: &'a Field, read: &'a Field, path: &str) {
        if read.label == Label::Required && written.label == Label::Single {
            let detail = "the reader requires it, and the writer may leave it out".to_owned();
            self.report(path, Rule::Required, detail);
        }
        let entries = (self.writer.map_entry(written), self.reader.map_entry(read));
        let path = match (entries, read.label) {
            ((_, Some(_)), _) => any_member(path),
            (_, Label::Repeated) => format!("{path}[]"),
            _ => path.to_owned(),
        };
        self.check_label(written, read, entries.0.is_some(), entries.1.is_some(), &path);
        self.check_type(&written.of, &read.of, &path);
        let enums = matches!((&written.of, &read.of), (Of::Enum(_), Of::Enum(_)));
        if enums || keeps_values(&written.of, &read.of) {
            self.check_default(written, read, &path);
        }
    }

    fn check_label(
        &mut self,
        written: &Field,
        read: &Field,
        from_map: bool,
        to_map: bool,
        path: &str,
    ) {
        let repeated = |field: &Field| field.label == Label::Repeated;
        let detail = match (repeated(written), repeated(read)) {
            (true, true) if to_map && !from_map => {
                "it is written as a list and read as a map, which keeps one value for each key"
            }
            (true, false) => "it is written as a list and read as one value: the others are lost",
            // A number that is 0 is not written, and so would be an empty list.
            (false, true) if !has_length(&written.of) => {
                "it is written as one number and read as a list"
            }
            _ => return,
        };
        self.report(path, Rule::Label, detail.to_owned());
    }

    /// What was left out is the default to a reader, and each may have its own.
    fn check_default(&mut self, written: &Field, read: &Field, path: &str) {
        if written.label != Label::Single || read.label != Label::Single {
            return;
        }
        let (was, is) = (self.writer.left_out(written), self.reader.left_out(read));
        if let (Some(was), Some(is)) = (was, is)
            && was != is
        {
            let detail = format!(
                "where it was left out, its value is {was:?} to the writer and {is:?} to the reader"
            );
            self.report(path, Rule::DefaultValue, detail);
        }
    }

    fn check_type(&mut self, written: &'a Of, read: &'a Of, path: &str) {
        match (written, read) {
            (Of::Message(written), Of::Message(read)) | (Of::Group(written), Of::Group(read)) => {
                self.check_message(written, read, path);
            }
            (Of::Enum(written), Of::Enum(read)) => self.check_enum(written, read, path),
            (written, read) if keeps_values(written, read) => {}
            (written, read) => {
                let same_wire = written.wire_type() == read.wire_type();
                let (rule, why) = match same_wire {
                    true => (Rule::Type, "not every value is the same there"),
                    false => (Rule::WireType, "which is another wire type"),
                };
                let detail = format!("it is written as {written} and read as {read}, {why}");
                self.report(path, rule, detail);
            }
        }
    }

    fn check_enum(&mut self, written: &'a str, read: &'a str, path: &str) {
        if !self.done.insert((written, read)) {
            return;
        }
        let (Some(from), Some(to)) = (self.writer.enums.get(written), self.reader.enums.get(read))
        else {
            return;
        };
        if !self.found.step(from.values.len() + to.values.len(), path) {
            return;
        }
        let known_names: BTreeSet<&str> =
            to.values.values().flatten().map(String::as_str).collect();
        for (number, names) in &from.values {
            let known = to.values.get(number);
            if known.is_none() && to.is_closed {
                let detail = format!("the reader's enum has no {} = {number}", list(names));
                self.report(path, Rule::Enum, detail);
            }
            let kept = known.is_some_and(|known| !known.is_disjoint(names));
            let elsewhere = |name: &&String| known_names.contains(name.as_str());
            if let Some(name) = names.iter().find(elsewhere).filter(|_| !kept) {
                let read = known.map_or_else(|| "unknown".to_owned(), list);
                let detail =
                    format!("{name} is written as {number}, which is {read} to the reader");
                self.report(path, Rule::FieldNumber, detail);
            }
            if !self.found.step(0, path) {
                return;
            }
        }
        for (number, names) in &to.values {
            self.check_reserved_value(*number, names, from, path);
        }
    }

    fn check_reserved_value(
        &mut self,
        number: i32,
        names: &BTreeSet<String>,
        from: &Enum,
        path: &str,
    ) {
        let reserved = &from.reserved;
        if reserved.has(number) || !reserved.names.is_disjoint(names) {
            let detail =
                format!("the reader uses {} = {number}, which the writer reserves", list(names));
            self.report(path, Rule::Reserved, detail);
        }
    }

    fn check_oneofs(&mut self, from: &Message, to: &Message, path: &str) {
        let (ours, theirs) = (oneofs(to), oneofs(from));
        for (oneof, members) in ours {
            // What the writer has of the reader's members, and in which oneofs.
            let written: Vec<&Field> =
                members.iter().filter_map(|number| from.fields.get(number)).collect();
            let homes: BTreeSet<Option<&String>> =
                written.iter().map(|field| field.oneof.as_ref()).collect();
            let path = member(path, oneof);
            if written.len() > 1 && (homes.len() > 1 || homes.contains(&None)) {
                let names: Vec<_> = written.iter().map(|field| field.name.as_str()).collect();
                let detail = format!(
                    "the writer may write {} together, and the reader keeps one of them",
                    names.join(" and ")
                );
                self.report(&path, Rule::Oneof, detail);
                continue;
            }
            let home = homes.first().copied().flatten().and_then(|home| theirs.get(home.as_str()));
            if !self.found.step(members.len() + home.map_or(0, Vec::len), &path) {
                return;
            }
            let unknown =
                home.into_iter().flatten().filter(|number| !to.fields.contains_key(*number));
            for field in unknown.filter_map(|number| from.fields.get(number)) {
                let detail = format!(
                    "the writer may write {} into this oneof, and the reader finds it empty then",
                    field.name
                );
                self.report(&path, Rule::Oneof, detail);
            }
        }
    }
}

/// The numbers of each oneof's members.
fn oneofs(message: &Message) -> BTreeMap<&str, Vec<u32>> {
    let mut found: BTreeMap<&str, Vec<u32>> = BTreeMap::new();
    for (number, field) in &message.fields {
        if let Some(oneof) = &field.oneof {
            found.entry(oneof).or_default().push(*number);
        }
    }
    found
}

/// Whether a value of it has its length in front, so that one is the same as a list of one.
const fn has_length(of: &Of) -> bool {
    matches!(of, Of::Message(_) | Of::Group(_) | Of::Scalar(Scalar::String | Scalar::Bytes))
}

/// Whether each value that is written as one type is the same value when read as another.
fn keeps_values(written: &Of, read: &Of) -> bool {
    use Scalar::{Bool, Bytes, Int32, Int64, Sint32, Sint64, String, Uint32, Uint64};
    match (written, read) {
        (Of::Scalar(written), Of::Scalar(read)) => {
            written == read
                || matches!(
                    (written, read),
                    (Int32, Int64)
                        | (Uint32, Uint64 | Int64)
                        | (Sint32, Sint64)
                        | (Bool, Int32 | Int64 | Uint32 | Uint64)
                        | (String, Bytes)
                )
        }
        (Of::Enum(_), Of::Scalar(Int32 | Int64)) => true,
        _ => false,
    }
}

fn list(names: &BTreeSet<String>) -> String {
    names.iter().map(String::as_str).collect::<Vec<_>>().join("/")
}
