use prost::Message as _;
use prost_types::descriptor_proto::ReservedRange;
use prost_types::field_descriptor_proto::Label;
pub(super) use prost_types::field_descriptor_proto::Type;
use prost_types::{
    DescriptorProto, EnumDescriptorProto, EnumValueDescriptorProto, FieldDescriptorProto,
    FileDescriptorProto, FileDescriptorSet, MessageOptions, OneofDescriptorProto,
};

use super::*;

pub(super) fn field(name: &str, number: i32, of: Type) -> FieldDescriptorProto {
    FieldDescriptorProto {
        name: Some(name.to_owned()),
        number: Some(number),
        label: Some(Label::Optional.into()),
        r#type: Some(of.into()),
        ..FieldDescriptorProto::default()
    }
}

fn typed(name: &str, number: i32, of: Type, type_name: &str) -> FieldDescriptorProto {
    FieldDescriptorProto { type_name: Some(type_name.to_owned()), ..field(name, number, of) }
}

fn labelled(label: Label, field: FieldDescriptorProto) -> FieldDescriptorProto {
    FieldDescriptorProto { label: Some(label.into()), ..field }
}

fn in_oneof(index: i32, field: FieldDescriptorProto) -> FieldDescriptorProto {
    FieldDescriptorProto { oneof_index: Some(index), ..field }
}

fn declared(name: &str, fields: impl IntoIterator<Item = FieldDescriptorProto>) -> DescriptorProto {
    DescriptorProto {
        name: Some(name.to_owned()),
        field: fields.into_iter().collect(),
        oneof_decl: ["one", "two"]
            .map(|name| OneofDescriptorProto { name: Some(name.to_owned()), options: None })
            .to_vec(),
        ..DescriptorProto::default()
    }
}

/// A file of the package `p`.
fn file(
    messages: impl IntoIterator<Item = DescriptorProto>,
    enums: impl IntoIterator<Item = EnumDescriptorProto>,
    syntax: &str,
) -> FileDescriptorProto {
    FileDescriptorProto {
        name: Some("p.proto".to_owned()),
        package: Some("p".to_owned()),
        message_type: messages.into_iter().collect(),
        enum_type: enums.into_iter().collect(),
        syntax: Some(syntax.to_owned()),
        ..FileDescriptorProto::default()
    }
}

fn schema(file: FileDescriptorProto, message: &str) -> Schema {
    let set = FileDescriptorSet { file: vec![file] };
    Schema::protobuf(set.encode_to_vec(), message).unwrap()
}

pub(super) fn message(
    name: &str,
    fields: impl IntoIterator<Item = FieldDescriptorProto>,
) -> Schema {
    schema(file([declared(name, fields)], [], "proto3"), &format!("p.{name}"))
}

fn one(field: FieldDescriptorProto) -> Schema {
    message("M", [field])
}

fn assert_found(name: &str, reader: &Schema, writer: &Schema, expected: &[(&str, Rule)]) {
    let found = found(reader, writer);
    let found: Vec<_> = found.iter().map(|(path, rule)| (path.as_str(), *rule)).collect();
    assert_eq!(found, expected, "{name}: {:?}", reader.problems_with(writer));
}

#[test]
fn a_number_keeps_its_type_or_one_that_keeps_its_values() {
    let types = [
        Type::Double,
        Type::Float,
        Type::Int64,
        Type::Uint64,
        Type::Int32,
        Type::Fixed64,
        Type::Fixed32,
        Type::Bool,
        Type::String,
        Type::Bytes,
        Type::Uint32,
        Type::Sfixed32,
        Type::Sfixed64,
        Type::Sint32,
        Type::Sint64,
    ];
    let kept = [
        (Type::Int32, Type::Int64),
        (Type::Uint32, Type::Uint64),
        (Type::Uint32, Type::Int64),
        (Type::Sint32, Type::Sint64),
        (Type::Bool, Type::Int32),
        (Type::Bool, Type::Int64),
        (Type::Bool, Type::Uint32),
        (Type::Bool, Type::Uint64),
        (Type::String, Type::Bytes),
    ];
    for from in types {
        for to in types {
            let found = found(&one(field("a", 1, to)), &one(field("a", 1, from)));
            let fits = from == to || kept.contains(&(from, to));
            assert_eq!(found.is_empty(), fits, "{from:?} read as {to:?}: {found:?}");
        }
    }
    assert_found(
        "another wire type",
        &one(field("a", 1, Type::String)),
        &one(field("a", 1, Type::Int32)),
        &[("a", Rule::WireType)],
    );
    assert_found(
        "the same wire type",
        &one(field("a", 1, Type::Int32)),
        &one(field("a", 1, Type::Int64)),
        &[("a", Rule::Type)],
    );
}

#[test]
fn fields_come_and_go_and_keep_their_numbers() {
    let a = one(field("a", 1, Type::Int32));
    let both = message("M", [field("a", 1, Type::Int32), field("b", 2, Type::Int32)]);
    assert_found("added", &both, &a, &[]);
    assert_found("removed", &a, &both, &[]);
    assert_found("renamed", &one(field("b", 1, Type::Int32)), &a, &[]);
    let moved = one(field("a", 7, Type::Int32));
    assert_found("another number", &moved, &a, &[("a", Rule::FieldNumber)]);
    let other =
        schema(file([declared("Other", [field("a", 1, Type::Int32)])], [], "proto3"), "p.Other");
    assert_found("the message's name does not count", &other, &a, &[]);
}

#[test]
fn required_fields_are_always_written() {
    let required = |field| {
        let file = file([declared("M", [labelled(Label::Required, field)])], [], "proto2");
        schema(file, "p.M")
    };
    let a = field("a", 1, Type::Int32);
    let (with, without) = (required(a.clone()), one(a));
    assert_found("made required", &with, &without, &[("a", Rule::Required)]);
    assert_found("made optional", &without, &with, &[]);
    assert_found("added", &with, &message("M", []), &[("a", Rule::Required)]);
    assert_found("removed", &message("M", []), &with, &[]);
}

#[test]
fn reserved_numbers_and_names_are_not_used_again() {
    let mut reserving = declared("M", []);
    reserving.reserved_range = vec![ReservedRange { start: Some(2), end: Some(5) }];
    reserving.reserved_name = vec!["old".to_owned()];
    let reserving = schema(file([reserving], [], "proto3"), "p.M");
    let with = |name, number| one(field(name, number, Type::Int32));
    assert_found("number", &with("a", 4), &reserving, &[("a", Rule::Reserved)]);
    assert_found("behind the range", &with("a", 5), &reserving, &[]);
    assert_found("name", &with("old", 9), &reserving, &[("old", Rule::Reserved)]);
    assert_found("removed and reserved", &reserving, &with("old", 4), &[]);
}

#[test]
fn labels_are_kept_where_values_would_be_lost() {
    let text = field("a", 1, Type::String);
    let number = field("a", 1, Type::Int32);
    let list = |field: &FieldDescriptorProto| one(labelled(Label::Repeated, field.clone()));
    assert_found("one text is a list of one", &list(&text), &one(text.clone()), &[]);
    assert_found("the others are lost", &one(text.clone()), &list(&text), &[("a", Rule::Label)]);
    assert_found("0 is not written", &list(&number), &one(number.clone()), &[("a[]", Rule::Label)]);
    assert_found("packed", &one(number.clone()), &list(&number), &[("a", Rule::Label)]);
}

#[test]
fn oneofs_keep_what_is_written() {
    let (a, b) = (field("a", 1, Type::Int32), field("b", 2, Type::Int32));
    let apart = message("M", [a.clone(), b.clone()]);
    let together = message("M", [in_oneof(0, a.clone()), in_oneof(0, b.clone())]);
    let alone = message("M", [in_oneof(0, a.clone())]);
    let two = message("M", [in_oneof(0, a.clone()), in_oneof(1, b.clone())]);
    assert_found("moved into one", &together, &apart, &[("one", Rule::Oneof)]);
    assert_found("moved out", &apart, &together, &[]);
    assert_found("two became one", &together, &two, &[("one", Rule::Oneof)]);
    assert_found("one field into a new one", &alone, &message("M", [a.clone()]), &[]);
    assert_found("member added", &together, &alone, &[]);
    assert_found("member removed", &alone, &together, &[("one", Rule::Oneof)]);
    // `optional` of proto3 is a oneof of one, and no oneof.
    let optional = |field| FieldDescriptorProto { proto3_optional: Some(true), ..field };
    let optional = message("M", [in_oneof(0, optional(a)), in_oneof(1, optional(b))]);
    assert_found("made optional", &optional, &apart, &[]);
    assert_found("optional fields moved into one", &together, &optional, &[("one", Rule::Oneof)]);
}

#[test]
fn enums_keep_their_numbers_and_closed_ones_their_values() {
    let of = |syntax: &str, values: &[(&str, i32)]| {
        let value = |(name, number): &(&str, i32)| EnumValueDescriptorProto {
            name: Some((*name).to_owned()),
            number: Some(*number),
            options: None,
        };
        let declaration = EnumDescriptorProto {
            name: Some("E".to_owned()),
            value: values.iter().map(value).collect(),
            ..EnumDescriptorProto::default()
        };
        let field = typed("e", 1, Type::Enum, ".p.E");
        schema(file([declared("M", [field])], [declaration], syntax), "p.M")
    };
    let (a, both) = ([("A", 0)], [("A", 0), ("B", -1)]);
    assert_found("open, added", &of("proto3", &both), &of("proto3", &a), &[]);
    assert_found("open, removed", &of("proto3", &a), &of("proto3", &both), &[]);
    assert_found("closed, removed", &of("proto2", &a), &of("proto2", &both), &[("e", Rule::Enum)]);
    assert_found("renamed", &of("proto3", &[("Z", 0)]), &of("proto3", &a), &[]);
    assert_found(
        "exchanged",
        &of("proto3", &[("A", 1), ("B", 0)]),
        &of("proto3", &[("A", 0), ("B", 1)]),
        &[("e", Rule::FieldNumber), ("e", Rule::FieldNumber)],
    );
    assert_found("to a number", &one(field("e", 1, Type::Int32)), &of("proto3", &a), &[]);
    assert_found(
        "from a number",
        &of("proto3", &a),
        &one(field("e", 1, Type::Int32)),
        &[("e", Rule::Type)],
    );
}

fn nested(price: Type, label: Label) -> Schema {
    let lines = labelled(label, typed("lines", 1, Type::Message, ".p.Line"));
    let messages = [declared("M", [lines]), declared("Line", [field("price", 2, price)])];
    schema(file(messages, [], "proto3"), "p.M")
}

#[test]
fn messages_in_messages_are_compared_with_their_paths() {
    let (int, text) = (nested(Type::Int32, Label::Repeated), nested(Type::String, Label::Repeated));
    assert_found("inside", &text, &int, &[("lines[].price", Rule::WireType)]);
    let of_itself = |of| {
        let next = typed("next", 1, Type::Message, ".p.M");
        message("M", [next, field("value", 2, of)])
    };
    let (int, long) = (of_itself(Type::Int32), of_itself(Type::Int64));
    assert_found("recursive, wider", &long, &int, &[]);
    assert_found("recursive, narrower", &int, &long, &[("value", Rule::Type)]);
}

fn map(of: Type) -> Schema {
    let mut outer = declared(
        "M",
        [labelled(Label::Repeated, typed("labels", 1, Type::Message, ".p.M.LabelsEntry"))],
    );
    let mut entry = declared("LabelsEntry", [field("key", 1, Type::String), field("value", 2, of)]);
    entry.options = Some(MessageOptions { map_entry: Some(true), ..MessageOptions::default() });
    outer.nested_type = vec![entry];
    schema(file([outer], [], "proto3"), "p.M")
}

#[test]
fn maps_are_compared_by_value() {
    let (int, text) = (map(Type::Int32), map(Type::String));
    assert_found("another value", &text, &int, &[("labels.*.value", Rule::WireType)]);
    let entries = {
        let entry =
            declared("Entry", [field("key", 1, Type::String), field("value", 2, Type::Int32)]);
        let list = labelled(Label::Repeated, typed("labels", 1, Type::Message, ".p.Entry"));
        schema(file([declared("M", [list]), entry], [], "proto3"), "p.M")
    };
    assert_found("a list became a map", &int, &entries, &[("labels.*", Rule::Label)]);
    assert_found("a map became a list", &entries, &int, &[]);
}

#[test]
fn only_what_the_message_uses_counts() {
    let alone = one(field("a", 1, Type::Int32));
    let beside = [declared("M", [field("a", 1, Type::Int32)]), declared("Unused", [])];
    let mut beside = file(beside, [], "proto3");
    beside.name = Some("other.proto".to_owned());
    assert_eq!(schema(beside, "p.M"), alone);
    assert_ne!(one(field("b", 1, Type::Int32)), alone);
}

#[test]
fn editions_say_what_is_required_and_closed() {
    // prost-types knows no features; these are `features.field_presence = LEGACY_REQUIRED` of the
    // field's options and `features.enum_type = CLOSED` of the file's.
    let set = |required: bool| {
        let mut name = vec![0x0a, 1, b'a', 0x18, 1, 0x20, 1, 0x28, 5];
        if required {
            name.extend([0x42, 5, 0xaa, 0x01, 2, 0x08, 3]);
        }
        let mut message = vec![0x0a, 1, b'M', 0x12, name.len() as u8];
        message.extend(name);
        let mut file = vec![0x22, message.len() as u8];
        file.extend(message);
        file.extend([0x62, 8]);
        file.extend(b"editions");
        let mut set = vec![0x0a, file.len() as u8];
        set.extend(file);
        Schema::protobuf(set, "M").unwrap()
    };
    assert_found("required", &set(true), &set(false), &[("a", Rule::Required)]);
    assert_found("optional", &set(false), &set(true), &[]);
    set(true).validate(&[0x08, 1]).unwrap();
    assert!(set(true).validate(&[]).unwrap_err().to_string().contains("a: it is required"));
}

#[test]
fn no_schema_is_refused_with_the_place_and_the_cure() {
    let with = |file: FileDescriptorProto| FileDescriptorSet { file: vec![file] }.encode_to_vec();
    let lonely = || declared("M", [typed("x", 1, Type::Message, ".q.Missing")]);
    let relative = || declared("M", [typed("x", 1, Type::Message, "Missing")]);
    for (bytes, part) in [
        (b"no descriptor".to_vec(), "no protobuf schema, at its root: the bytes are no encoded"),
        (Vec::new(), "has no messages"),
        (with(file([declared("N", [])], [], "proto3")), "there is no message p.M; it has: p.N"),
        (with(file([lonely()], [], "proto3")), "at p.M.x: the type q.Missing is not in"),
        (with(file([relative()], [], "proto3")), "is not absolute"),
    ] {
        let error = Schema::protobuf(bytes, "p.M").unwrap_err();
        assert!(error.to_string().contains(part), "{error}");
    }
}

#[test]
fn a_payload_is_checked_on_the_wire() {
    let nested = nested(Type::String, Label::Repeated);
    // lines[0].price = "ok", and a field that nobody knows.
    nested.validate(&[0x0a, 4, 0x12, 2, b'o', b'k', 0x38, 1]).unwrap();
    for (bytes, part) in [
        (&[0x0a, 4, 0x12, 2, 0xff, 0xff][..], "lines.price: the text is no UTF-8"),
        (&[0x0a, 2, 0x10, 1], "lines.price: wire type 0 is no string"),
        (&[0x0a, 9], "(root): the bytes are no Protobuf message"),
        (&[0x08], "the bytes are no Protobuf message"),
    ] {
        let error = nested.validate(bytes).unwrap_err();
        assert!(error.to_string().contains(part), "{error}");
    }
    let packed = one(labelled(Label::Repeated, field("a", 1, Type::Sint32)));
    packed.validate(&[0x0a, 2, 4, 6]).unwrap();
    packed.validate(&[0x08, 4, 0x08, 6]).unwrap();
    assert!(packed.validate(&[0x0a, 1, 0x80]).is_err(), "a number has an end");
}

#[test]
fn bytes_from_anywhere_do_no_harm() {
    use proptest::prelude::*;
    let schemas = [nested(Type::String, Label::Repeated), map(Type::Int32)];
    proptest!(|(bytes in proptest::collection::vec(any::<u8>(), 0..200))| {
        let _ = Schema::protobuf(bytes.clone(), "p.M");
        for schema in &schemas {
            let _ = schema.validate(&bytes);
        }
    });
    let groups = vec![0x0b; 1 << 16];
    assert!(schemas[0].validate(&groups).is_err(), "groups in groups in groups");
}

#[test]
fn messages_that_are_nested_too_deep_are_refused() {
    let chain = |of| {
        let link = |at: i32| {
            declared(&format!("M{at}"), [typed("x", 1, Type::Message, &format!(".p.M{}", at + 1))])
        };
        let mut messages: Vec<_> = (0..3_000).map(link).collect();
        messages.push(declared("M3000", [field("x", 1, of)]));
        schema(file(messages, [], "proto3"), "p.M0")
    };
    let found = found(&chain(Type::Int32), &chain(Type::String));
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].1, Rule::Comparable);
}
