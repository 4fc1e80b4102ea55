use super::compatibility::{Direction, Problem, Rule, check};
use super::*;

mod avro;
mod contract;
mod json;
mod laws;
mod protobuf;
mod registry;
mod sound;
mod verdicts;

/// The paths and rules of what stops `reader` from reading `writer`.
fn found(reader: &Schema, writer: &Schema) -> Vec<(String, Rule)> {
    let problems = reader.problems_with(writer).into_iter();
    problems.map(|Problem { path, rule, .. }| (path, rule)).collect()
}

/// One line of a table: a name, what is read with, what was written with, and what is found.
type Case<'a> = (&'a str, &'a str, &'a str, &'a [(&'a str, Rule)]);

fn run(cases: &[Case<'_>], schema: impl Fn(&str) -> Schema) {
    for (name, reader, writer, expected) in cases {
        let (reader, writer) = (schema(reader), schema(writer));
        let found = found(&reader, &writer);
        let found: Vec<_> = found.iter().map(|(path, rule)| (path.as_str(), *rule)).collect();
        assert_eq!(found, *expected, "{name}: {:?}", reader.problems_with(&writer));
    }
}

fn record(fields: &str) -> Schema {
    Schema::avro(format!(r#"{{"type": "record", "name": "R", "fields": [{fields}]}}"#)).unwrap()
}

const A: &str = r#"{"name": "a", "type": "int"}"#;
const B: &str = r#"{"name": "b", "type": "string"}"#;
const B_DEFAULT: &str = r#"{"name": "b", "type": "string", "default": ""}"#;

#[test]
fn each_mode_asks_in_its_directions_and_of_its_versions() {
    let alone = record(A);
    let with_b = record(&format!("{A}, {B}"));
    let with_default = record(&format!("{A}, {B_DEFAULT}"));
    // (new, versions before it, modes that refuse it, by version and direction)
    let refused = |new: &Schema, older: &[&Schema], mode| -> Vec<_> {
        let older = (1..).zip(older.iter().copied());
        check(mode, new, older).iter().map(|one| (one.version, one.direction)).collect()
    };
    use CompatibilityMode as Mode;
    use Direction::{Backward, Forward};
    for (mode, added, removed) in [
        (Mode::None, vec![], vec![]),
        (Mode::Backward, vec![(1, Backward)], vec![]),
        (Mode::BackwardTransitive, vec![(1, Backward)], vec![]),
        (Mode::Forward, vec![], vec![(1, Forward)]),
        (Mode::ForwardTransitive, vec![], vec![(1, Forward)]),
        (Mode::Full, vec![(1, Backward)], vec![(1, Forward)]),
        (Mode::FullTransitive, vec![(1, Backward)], vec![(1, Forward)]),
    ] {
        assert_eq!(refused(&with_b, &[&alone], mode), added, "{mode}: a field without default");
        assert_eq!(refused(&alone, &[&with_b], mode), removed, "{mode}: a field goes");
        assert_eq!(refused(&with_default, &[&alone], mode), [], "{mode}: a field with default");
        assert_eq!(refused(&alone, &[&with_default], mode), [], "{mode}: it goes again");
        assert_eq!(mode.as_str().to_lowercase().parse(), Ok(mode));
    }
    // Version 2 gave b a default, and version 3 takes it away: only version 1 has no b.
    let history = [&alone, &with_default];
    assert_eq!(refused(&with_b, &history, Mode::Backward), []);
    assert_eq!(refused(&with_b, &history, Mode::BackwardTransitive), [(1, Backward)]);
    assert_eq!(refused(&with_b, &history, Mode::Full), []);
    assert_eq!(refused(&with_b, &history, Mode::FullTransitive), [(1, Backward)]);
    let history = [&with_b, &with_default];
    assert_eq!(refused(&alone, &history, Mode::Forward), []);
    assert_eq!(refused(&alone, &history, Mode::ForwardTransitive), [(1, Forward)]);
    assert!("backwards".parse::<Mode>().unwrap_err().to_string().contains("use NONE, BACKWARD"));
}

#[test]
fn a_refusal_says_what_breaks_for_whom_and_what_to_do() {
    let line = |price: &str| {
        record(&format!(
            r#"{{"name": "lines", "type": {{"type": "array", "items":
                {{"type": "record", "name": "Line", "fields": [
                    {{"name": "price", "type": "{price}"}}]}}}}}}"#
        ))
    };
    let found = check(CompatibilityMode::Full, &line("long"), [(7, &line("string"))]);
    let refusal = IncompatibleSchema {
        subject: "order.placed".to_owned(),
        mode: CompatibilityMode::Full,
        incompatibilities: found,
    };
    assert_eq!(
        refusal.to_string(),
        "the new schema of order.placed is not FULL compatible:\n\
         - lines[].price: it is written as string and read as long (rule type), so the new schema \
         cannot read what version 7 wrote; keep the old type or widen it, or add a field with the \
         new type beside it\n\
         - lines[].price: it is written as long and read as string (rule type), so version 7 \
         cannot read what the new schema writes; keep the type, or add a field with the new type \
         beside it"
    );
    assert_eq!(refusal.class(), ErrorClass::User);
}

#[test]
fn all_versions_are_in_one_language() {
    let (json, avro) = (Schema::json("{}").unwrap(), record(A));
    assert_eq!(found(&json, &avro), [(String::new(), Rule::Kind)]);
}

#[test]
fn a_schema_is_what_it_means_and_not_how_it_is_written() {
    let one = Schema::json(r#"{"type":"object","title":"x"}"#).unwrap();
    let other = Schema::json("{ \"title\": \"x\",\n \"type\": \"object\" }").unwrap();
    assert_eq!(one, other);
    assert_ne!(one.text(), other.text());
    assert_ne!(one, Schema::json(r#"{"type":"object","title":"y"}"#).unwrap());
    // The same text in two languages is two schemas.
    assert_ne!(
        Schema::json(r#"{"type":"string"}"#).unwrap(),
        Schema::avro(r#"{"type":"string"}"#).unwrap()
    );
}

#[test]
fn a_schema_survives_being_stored() {
    let schemas = [
        Schema::json(r#"{"type": "integer"}"#).unwrap(),
        record(A),
        protobuf::message("M", [protobuf::field("a", 1, protobuf::Type::Int32)]),
    ];
    for schema in schemas {
        let packed = rmp_serde::to_vec_named(&schema).unwrap();
        let back: Schema = rmp_serde::from_slice(&packed).unwrap();
        assert_eq!((&back, back.as_bytes()), (&schema, schema.as_bytes()));
        let json = serde_json::to_string(&schema).unwrap();
        assert_eq!(serde_json::from_str::<Schema>(&json).unwrap(), schema);
    }
    assert!(serde_json::from_str::<Schema>(r#"{"avro": "{}"}"#).is_err(), "it is read again");
}

#[test]
fn a_schema_that_is_too_large_is_refused() {
    let text = format!(r#"{{"title": "{}"}}"#, "x".repeat(MAX_SCHEMA_BYTES));
    let error = Schema::json(text).unwrap_err();
    assert!(error.to_string().contains("at most 1048576 are taken"), "{error}");
}
