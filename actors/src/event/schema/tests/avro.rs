use super::*;

fn avro(text: &str) -> Schema {
    Schema::avro(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// A schema that is only a name.
fn named(text: &str) -> Schema {
    avro(&format!("\"{text}\""))
}

#[test]
fn primitives_are_promoted_as_the_specification_says() {
    let names = ["null", "boolean", "int", "long", "float", "double", "bytes", "string"];
    let promoted = [
        ("int", "long"),
        ("int", "float"),
        ("int", "double"),
        ("long", "float"),
        ("long", "double"),
        ("float", "double"),
        ("string", "bytes"),
        ("bytes", "string"),
    ];
    for from in names {
        for to in names {
            let fits = from == to || promoted.contains(&(from, to));
            let found = found(&named(to), &named(from));
            assert_eq!(found.is_empty(), fits, "{from} read as {to}: {found:?}");
        }
    }
}

#[test]
fn fields_are_found_by_name_alias_or_default() {
    let record =
        |fields: &str| format!(r#"{{"type": "record", "name": "R", "fields": [{fields}]}}"#);
    let a = record(r#"{"name": "a", "type": "int"}"#);
    run(
        &[
            ("removed", &record(""), &a, &[]),
            ("added", &a, &record(""), &[("a", Rule::FieldWithoutDefault)]),
            (
                "added with default",
                &record(r#"{"name": "a", "type": "int", "default": 0}"#),
                &record(""),
                &[],
            ),
            (
                "added with null as default",
                &record(r#"{"name": "a", "type": ["null", "int"], "default": null}"#),
                &record(""),
                &[],
            ),
            (
                "renamed",
                &record(r#"{"name": "b", "type": "int"}"#),
                &a,
                &[("b", Rule::FieldWithoutDefault)],
            ),
            (
                "renamed with alias",
                &record(r#"{"name": "b", "type": "long", "aliases": ["a"]}"#),
                &a,
                &[],
            ),
            (
                "all problems",
                &record(r#"{"name": "a", "type": "string"}, {"name": "b", "type": "int"}"#),
                &a,
                &[("a", Rule::Type), ("b", Rule::FieldWithoutDefault)],
            ),
            (
                "in an array of maps",
                &record(
                    r#"{"name": "a", "type": {"type": "array", "items": {"type": "map", "values": "int"}}}"#,
                ),
                &record(
                    r#"{"name": "a", "type": {"type": "array", "items": {"type": "map", "values": "long"}}}"#,
                ),
                &[("a[].*", Rule::Type)],
            ),
            (
                "an array is no map",
                &record(r#"{"name": "a", "type": {"type": "array", "items": "int"}}"#),
                &record(r#"{"name": "a", "type": {"type": "map", "values": "int"}}"#),
                &[("a", Rule::Type)],
            ),
        ],
        avro,
    );
}

#[test]
fn named_types_keep_their_names() {
    let of = |name: &str, more: &str| {
        format!(r#"{{"type": "fixed", "size": 4, "name": "{name}"{more}}}"#)
    };
    run(
        &[
            ("namespaces do not count", &of("b.F", ""), &of("a.F", ""), &[]),
            ("renamed", &of("G", ""), &of("F", ""), &[("", Rule::Name)]),
            ("renamed with alias", &of("G", r#", "aliases": ["F"]"#), &of("F", ""), &[]),
            ("an alias in a namespace", &of("n.G", r#", "aliases": ["m.F"]"#), &of("m.F", ""), &[]),
            (
                "another size",
                &of("F", "").replace('4', "5"),
                &of("F", ""),
                &[("", Rule::FixedSize)],
            ),
            (
                "another kind",
                r#"{"type": "enum", "name": "F", "symbols": []}"#,
                &of("F", ""),
                &[("", Rule::Type)],
            ),
            ("bytes are not fixed", "\"bytes\"", &of("F", ""), &[("", Rule::Type)]),
        ],
        avro,
    );
}

#[test]
fn symbols_are_known_or_there_is_a_default() {
    let of = |symbols: &str| format!(r#"{{"type": "enum", "name": "E", "symbols": {symbols}}}"#);
    let with_default = r#"{"type": "enum", "name": "E", "symbols": ["A"], "default": "A"}"#;
    run(
        &[
            ("added", &of(r#"["A", "B"]"#), &of(r#"["A"]"#), &[]),
            ("removed", &of(r#"["A"]"#), &of(r#"["A", "B"]"#), &[("", Rule::Enum)]),
            ("reordered", &of(r#"["B", "A"]"#), &of(r#"["A", "B"]"#), &[]),
            ("removed with default", with_default, &of(r#"["A", "B"]"#), &[]),
        ],
        avro,
    );
}

#[test]
fn unions_take_each_branch() {
    let line = |of: &str| {
        format!(
            r#"["null", {{"type": "record", "name": "L", "fields": [{{"name": "a", "type": "{of}"}}]}}]"#
        )
    };
    run(
        &[
            ("branch added", r#"["null", "int"]"#, r#"["int"]"#, &[]),
            ("branch removed", r#"["int"]"#, r#"["null", "int"]"#, &[("", Rule::Union)]),
            ("into a union", r#"["null", "long"]"#, r#""int""#, &[]),
            ("out of a union", r#""long""#, r#"["int", "long"]"#, &[]),
            ("out of a nullable", r#""long""#, r#"["null", "long"]"#, &[("", Rule::Type)]),
            ("reordered", r#"["int", "null"]"#, r#"["null", "int"]"#, &[]),
            (
                "inside the branch of the same name",
                &line("int"),
                &line("long"),
                &[("a", Rule::Type)],
            ),
        ],
        avro,
    );
}

#[test]
fn recursive_types_are_compared_once() {
    let node = |of: &str| {
        format!(
            r#"{{"type": "record", "name": "n.Node", "fields": [{{"name": "value", "type": "{of}"}},
                {{"name": "next", "type": ["null", "Node"], "default": null}}]}}"#
        )
    };
    let (int, long) = (node("int"), node("long"));
    run(&[("wider", &long, &int, &[]), ("narrower", &int, &long, &[("value", Rule::Type)])], avro);
}

#[test]
fn logical_types_keep_their_units() {
    let of = |logical: &str| format!(r#"{{"type": "long", "logicalType": "{logical}"}}"#);
    let decimal = |scale: u8| {
        format!(
            r#"{{"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": {scale}}}"#
        )
    };
    run(
        &[
            (
                "another unit",
                &of("timestamp-micros"),
                &of("timestamp-millis"),
                &[("", Rule::LogicalType)],
            ),
            ("one that nobody knows", &of("x"), &of("timestamp-millis"), &[]),
            ("only the reader has one", &of("timestamp-millis"), r#""long""#, &[]),
            ("another scale", &decimal(3), &decimal(2), &[("", Rule::LogicalType)]),
        ],
        avro,
    );
}

#[test]
fn no_schema_is_refused_with_the_place_and_the_cure() {
    let field = |of: &str| {
        format!(r#"{{"type": "record", "name": "R", "fields": [{{"name": "f", {of}}}]}}"#)
    };
    for (text, part) in [
        ("{".to_owned(), "no avro schema, at its root: EOF"),
        ("1".to_owned(), "a type is a name"),
        (r#""strin""#.to_owned(), "the type strin is not declared before its use"),
        (field(r#""type": "array", "items": "int""#), "at f: the type array is not declared"),
        (field(r#""type": ["null", ["int"]]"#), "a union has no unions in it"),
        (field(r#""type": ["int", "int"]"#), "the union has int twice"),
        (field(r#""type": "int", "default": "x""#), "at R.f: the default \"x\" is no int"),
        (field(r#""type": "int", "default": 3000000000"#), "is no int"),
        (field(r#""type": ["null", "int"], "default": 1"#), "a union's default is of its first"),
        (field(r#""type": {"type": "fixed", "name": "F"}"#), "at f: the fixed has no size"),
        (field(r#""type": {"type": "record", "name": "R", "fields": []}"#), "the name R is taken"),
        (r#"{"type": "enum", "name": "E", "symbols": ["a-b"]}"#.to_owned(), "symbols are"),
        (
            r#"{"type": "enum", "name": "E", "symbols": ["A"], "default": "B"}"#.to_owned(),
            "none of its symbols",
        ),
        (r#"{"type": "record", "name": "a-b", "fields": []}"#.to_owned(), "\"a-b\" is no name"),
    ] {
        let error = Schema::avro(text.as_str()).unwrap_err();
        assert!(error.to_string().contains(part), "{text}: {error}");
    }
}

#[cfg(feature = "codec-avro")]
#[test]
fn a_payload_is_read_with_the_schema_that_it_was_written_with() {
    let old = record(r#"{"name": "a", "type": "int"}"#);
    let new =
        record(r#"{"name": "a", "type": "long"}, {"name": "b", "type": "string", "default": ""}"#);
    // Zigzag: 4 is 2.
    old.validate(&[4]).unwrap();
    new.read(&old, &[4]).unwrap();
    assert!(new.validate(&[4]).is_err(), "without the writer's schema there is no b");
    assert!(old.validate(&[4, 0]).unwrap_err().to_string().contains("1 bytes are left"));
    let json = Schema::json("{}").unwrap();
    assert!(matches!(new.read(&json, &[4]), Err(PayloadError::Kind { .. })));
}

#[cfg(not(feature = "codec-avro"))]
#[test]
fn without_the_feature_payloads_are_refused_with_the_cure() {
    let error = record(A).validate(&[4]).unwrap_err();
    assert!(error.to_string().contains("feature codec-avro"), "{error}");
}

#[test]
fn types_that_are_nested_too_deep_are_refused() {
    // Each record is declared before the one that has a field of it.
    let chain: Vec<_> = (0..2_000)
        .map(|at| {
            let below =
                if at == 0 { "\"null\"".to_owned() } else { format!(r#"["null", "R{}"]"#, at - 1) };
            format!(
                r#"{{"name": "f{at}", "type": {{"type": "record", "name": "R{at}", "fields": [
                    {{"name": "next", "type": {below}}}]}}}}"#
            )
        })
        .collect();
    let writer =
        avro(&format!(r#"{{"type": "record", "name": "Top", "fields": [{}]}}"#, chain.join(",")));
    let reader = avro(
        r#"{"type": "record", "name": "Top", "fields": [{"name": "f1999", "type":
            {"type": "record", "name": "R1999", "fields": [{"name": "next", "type":
                {"type": "record", "name": "N", "fields": [{"name": "next", "type": "N"}]}}]}}]}"#,
    );
    let found = found(&reader, &writer);
    assert!(found.iter().any(|(_, rule)| *rule == Rule::Comparable), "{}", found.len());
}
