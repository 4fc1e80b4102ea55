//! What is written under one schema and read as another has it, beside the reference
//! implementation.

use apache_avro::Schema;
use apache_avro::types::Value;

use super::any::Any;
use super::avro;
use crate::event::codec::Codec;

fn both(writer: &str, reader: &str, value: Value) -> (Result<Any, String>, Result<Any, String>) {
    let (from, to) = (Schema::parse_str(writer).unwrap(), Schema::parse_str(reader).unwrap());
    let bytes = apache_avro::to_avro_datum(&from, value).unwrap();
    let theirs = apache_avro::from_avro_datum(&from, &mut &bytes[..], Some(&to))
        .and_then(|value| apache_avro::from_value(&value))
        .map_err(|error| error.to_string());
    let ours = avro(writer).read_as(reader).unwrap().decode(&bytes);
    (ours.map_err(|error| error.to_string()), theirs)
}

fn record(fields: &str) -> String {
    format!(r#"{{"type": "record", "name": "R", "fields": [{fields}]}}"#)
}

#[test]
fn what_can_be_read_is_read_as_the_reference_implementation_reads_it() {
    let text = || Value::String("ab".to_owned());
    let field = |value| Value::Record(vec![("a".to_owned(), value)]);
    let union = |at, value: Value| Value::Union(at, value.into());
    let e = |symbols: &str, default: &str| {
        format!(r#"{{"type": "enum", "name": "E", "symbols": [{symbols}]{default}}}"#)
    };
    let of = |name: &str| format!(r#"{{"name": "a", "type": {name}}}"#);
    let cases = [
        (r#""int""#.to_owned(), r#""long""#.to_owned(), Value::Int(-5)),
        (r#""int""#.to_owned(), r#""float""#.to_owned(), Value::Int(-5)),
        (r#""int""#.to_owned(), r#""double""#.to_owned(), Value::Int(7)),
        (r#""long""#.to_owned(), r#""double""#.to_owned(), Value::Long(1 << 40)),
        (r#""float""#.to_owned(), r#""double""#.to_owned(), Value::Float(0.1)),
        (r#""string""#.to_owned(), r#""bytes""#.to_owned(), text()),
        (r#""bytes""#.to_owned(), r#""string""#.to_owned(), Value::Bytes(b"ab".to_vec())),
        (r#""int""#.to_owned(), r#"["null", "int"]"#.to_owned(), Value::Int(3)),
        (r#"["null", "int"]"#.to_owned(), r#""int""#.to_owned(), union(1, Value::Int(3))),
        (
            r#"["int", "string"]"#.to_owned(),
            r#"["string", "int", "null"]"#.to_owned(),
            union(1, text()),
        ),
        (
            record(&of(r#""int""#)),
            record(
                r#"{"name": "b", "type": "string", "default": "x"}, {"name": "a", "type": "long"}"#,
            ),
            field(Value::Int(1)),
        ),
        (
            record(&of(r#""int""#)),
            record(r#"{"name": "n", "type": ["null", "int"], "default": null}"#),
            field(Value::Int(1)),
        ),
        (
            record(&of(r#""int""#)),
            record(
                r#"{"name": "l", "type": {"type": "array", "items": "double"}, "default": [1, 2.5]}, {"name": "m", "type": {"type": "map", "values": "bytes"}, "default": {"k": "x"}}"#,
            ),
            field(Value::Int(9)),
        ),
        (e(r#""A", "B""#, ""), e(r#""B", "A""#, ""), Value::Enum(1, "B".to_owned())),
        (
            e(r#""A", "B""#, ""),
            e(r#""C", "A""#, r#", "default": "C""#),
            Value::Enum(1, "B".to_owned()),
        ),
        (
            r#"{"type": "array", "items": "int"}"#.to_owned(),
            r#"{"type": "array", "items": "long"}"#.to_owned(),
            Value::Array(vec![Value::Int(1), Value::Int(2)]),
        ),
    ];
    for (writer, reader, value) in cases {
        let (ours, theirs) = both(&writer, &reader, value);
        assert!(ours.is_ok(), "{writer} as {reader}: {ours:?}");
        assert_eq!(ours, theirs, "{writer} as {reader}");
    }
    // The reference implementation does not look for other names of a field.
    let aliased = record(r#"{"name": "z", "aliases": ["a"], "type": "int"}"#);
    let (ours, _) = both(&record(&of(r#""int""#)), &aliased, field(Value::Int(9)));
    assert_eq!(ours, Ok(Any::Map([("z".to_owned(), Any::Int(9))].into())));
    // Nor are characters of a default bytes to it, which the specification says.
    let bytes = record(r#"{"name": "b", "type": "bytes", "default": "\u00ff"}"#);
    let (ours, _) = both(&record(&of(r#""int""#)), &bytes, field(Value::Int(9)));
    assert_eq!(ours, Ok(Any::Map([("b".to_owned(), Any::Bytes(vec![0xff]))].into())));
    for (writer, reader, value) in [
        (r#""string""#.to_owned(), r#""int""#.to_owned(), text()),
        (record(&of(r#""int""#)), record(r#"{"name": "b", "type": "int"}"#), field(Value::Int(1))),
        (e(r#""A", "B""#, ""), e(r#""A""#, ""), Value::Enum(1, "B".to_owned())),
        (r#"["int", "string"]"#.to_owned(), r#""int""#.to_owned(), union(1, text())),
        (r#""bytes""#.to_owned(), r#""string""#.to_owned(), Value::Bytes(vec![0xff])),
    ] {
        let (ours, theirs) = both(&writer, &reader, value);
        assert!(ours.is_err() && theirs.is_err(), "{writer} as {reader}: {ours:?} {theirs:?}");
    }
}

#[test]
fn a_record_inside_itself_is_resolved_once() {
    let of = |number: &str, more: &str| {
        format!(
            r#"{{"type": "record", "name": "Node", "fields": [
            {{"name": "v", "type": "{number}"}}{more}, {{"name": "next", "type": ["null", "Node"]}}]}}"#
        )
    };
    let reader = of("double", r#", {"name": "note", "type": "string", "default": "none"}"#);
    let codec = avro(&of("long", "")).read_as(&reader).unwrap();
    let read: Any = codec.decode(&[2, 2, 4, 0]).unwrap();
    let text = format!("{read:?}");
    assert_eq!(text.matches("none").count(), 2, "{text}");
    assert!(Codec::<Any>::decode(&codec, &[2; 1_000]).is_err());
}
