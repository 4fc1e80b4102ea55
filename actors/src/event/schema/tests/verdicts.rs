//! Verdicts that were wrong: a change that breaks readers passed, or one that breaks nobody did
//! not.

use prost::Message as _;
use prost_types::{FileDescriptorProto, FileDescriptorSet};
use serde_json::json;

use super::protobuf::{Type, field, message};
use super::*;

fn schema(value: &serde_json::Value) -> Schema {
    Schema::json(value.to_string()).unwrap()
}

fn problems(reader: &serde_json::Value, writer: &serde_json::Value) -> Vec<(String, Rule)> {
    found(&schema(reader), &schema(writer))
}

#[test]
fn an_id_in_an_example_is_data() {
    // With it each reference "led out of the schema", and nothing could be registered any more.
    for place in ["examples", "default", "const", "enum"] {
        let data = json!({"id": "order-1", "$id": "http://x/y", "$ref": "#/nowhere"});
        let data = match place {
            "examples" | "enum" => json!([data]),
            _ => data,
        };
        let of = |more: serde_json::Value| {
            json!({
                "$defs": {"x": {"type": "string"}, "unused": {place: data}},
                "type": "object",
                "properties": {"a": {"$ref": "#/$defs/x"}, "b": more},
            })
        };
        let (old, new) = (of(json!(true)), of(json!({"description": "new"})));
        assert_eq!(problems(&new, &old), [], "{place}");
        // A property of this name is a property.
        let named = json!({"properties": {"id": {"type": "string"}, "a": {"$ref": "#/$defs/x"}},
            "$defs": {"x": {"type": "string"}}});
        let narrowed = json!({"properties": {"id": {"type": "string"}, "a": {"$ref": "#/$defs/x"}},
            "$defs": {"x": {"type": "integer"}}});
        assert_eq!(problems(&narrowed, &named), [("a".to_owned(), Rule::Type)]);
    }
    // A base of its own is one, also where only a reference leads.
    let based = |of: &str| {
        json!({"properties": {"a": {"$ref": "#/odd/place"}},
            "odd": {"place": {"$id": "http://x/y", "properties": {"b": {"$ref": "#/$defs/z"}},
                "$defs": {"z": {"type": of}}}}, "$defs": {"z": {}}})
    };
    let odd = problems(&based("string"), &based("integer"));
    assert!(odd.iter().any(|(_, rule)| *rule == Rule::Comparable), "{odd:?}");
}

#[test]
fn what_a_draft_does_not_know_says_nothing() {
    let four = "http://json-schema.org/draft-04/schema#";
    let seven = "http://json-schema.org/draft-07/schema#";
    let of =
        |draft: &str, key: &str, value: &serde_json::Value| json!({"$schema": draft, key: value});
    // To a validator of draft 4 `const` is a name like any other.
    let one = json!(1);
    let writer = of(four, "const", &one);
    schema(&writer).validate(b"\"anything\"").unwrap();
    assert_ne!(problems(&json!({"type": "integer"}), &writer), []);
    assert_ne!(problems(&of(seven, "const", &one), &writer), []);
    assert_eq!(problems(&of(seven, "const", &one), &of(seven, "const", &one)), []);
    assert_eq!(problems(&of(four, "const", &json!(2)), &of(four, "const", &one)), []);
    // Nor does draft 7 know items of their own at the beginning.
    let first = json!([{"type": "string"}]);
    assert_ne!(
        problems(
            &json!({"items": {"type": "string"}, "maxItems": 1}),
            &json!({
            "$schema": seven, "type": "array", "prefixItems": first, "maxItems": 1})
        ),
        []
    );
}

#[test]
fn an_object_of_any_content_cannot_be_typed_later() {
    let free = json!({"type": "object", "properties": {"meta": {"type": "object"}}});
    let typed = json!({"type": "object", "properties": {"meta": {"type": "object",
        "properties": {"at": {"type": "integer"}}}}});
    assert_eq!(problems(&typed, &free), [("meta.at".to_owned(), Rule::Type)]);
    assert_eq!(problems(&free, &typed), []);
    // One that says that it has no properties has none.
    let empty = json!({"type": "object", "properties": {"meta": {"type": "object",
        "properties": {}}}});
    assert_eq!(problems(&typed, &empty), []);
}

fn with_default(of: Type, default: Option<&str>, syntax: &str) -> Schema {
    let mut declared = prost_types::DescriptorProto {
        name: Some("M".to_owned()),
        field: vec![field("a", 1, of)],
        ..Default::default()
    };
    declared.field[0].default_value = default.map(str::to_owned);
    let file = FileDescriptorProto {
        package: Some("p".to_owned()),
        message_type: vec![declared],
        syntax: Some(syntax.to_owned()),
        ..Default::default()
    };
    Schema::protobuf(FileDescriptorSet { file: vec![file] }.encode_to_vec(), "p.M").unwrap()
}

#[test]
fn a_default_is_what_was_written_where_nothing_was() {
    // It was not read at all: another default passed, and had the same fingerprint, so that
    // registering it answered the old version.
    let of = |default| with_default(Type::Int32, default, "proto2");
    assert_ne!(of(Some("5")).fingerprint(), of(Some("7")).fingerprint());
    assert_ne!(of(Some("5")), of(None));
    let changed = [("a".to_owned(), Rule::DefaultValue)];
    assert_eq!(found(&of(Some("7")), &of(Some("5"))), changed);
    assert_eq!(found(&of(Some("7")), &of(None)), changed);
    assert_eq!(found(&of(Some("0")), &of(None)), [], "that is the default of numbers");
    let wider = with_default(Type::Int64, Some("5"), "proto2");
    assert_eq!(found(&wider, &of(Some("5"))), []);
    let flag = |default| with_default(Type::Bool, default, "proto2");
    assert_eq!(found(&of(Some("1")), &flag(Some("true"))), []);
    assert_eq!(found(&of(None), &flag(Some("true"))), changed);
    let text = |default| with_default(Type::String, default, "proto2");
    assert_eq!(found(&text(Some("")), &text(None)), []);
    assert_eq!(found(&text(Some("x")), &text(None)), changed);
    let float = |default| with_default(Type::Double, default, "proto2");
    assert_eq!(found(&float(Some("0.50")), &float(Some("5e-1"))), []);
    // Schemas without one keep their fingerprints.
    assert_eq!(
        with_default(Type::Int32, None, "proto3"),
        message("M", [field("a", 1, Type::Int32)])
    );
}
