use super::*;

fn json(text: &str) -> Schema {
    Schema::json(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// An object with properties.
macro_rules! object {
    ($properties:literal) => {
        concat!(r#"{"type": "object", "properties": {"#, $properties, "}}")
    };
    ($properties:literal, $more:literal) => {
        concat!(r#"{"type": "object", "properties": {"#, $properties, "}, ", $more, "}")
    };
}

#[test]
fn types_are_widened_and_not_narrowed() {
    run(
        &[
            ("same", r#"{"type": "string"}"#, r#"{"type": "string"}"#, &[]),
            ("widened", r#"{"type": "number"}"#, r#"{"type": "integer"}"#, &[]),
            ("narrowed", r#"{"type": "integer"}"#, r#"{"type": "number"}"#, &[("", Rule::Type)]),
            ("changed", r#"{"type": "integer"}"#, r#"{"type": "string"}"#, &[("", Rule::Type)]),
            ("made nullable", r#"{"type": ["string", "null"]}"#, r#"{"type": "string"}"#, &[]),
            (
                "no longer nullable",
                r#"{"type": "string"}"#,
                r#"{"type": ["string", "null"]}"#,
                &[("", Rule::Type)],
            ),
            ("anything", "{}", r#"{"type": "string"}"#, &[]),
            ("from anything", r#"{"type": "string"}"#, "true", &[("", Rule::Type)]),
            ("nothing is written", r#"{"type": "string"}"#, "false", &[]),
            ("nothing is read", "false", r#"{"type": "string"}"#, &[("", Rule::ClosedContent)]),
            ("annotations", r#"{"title": "b", "default": 1}"#, r#"{"title": "a"}"#, &[]),
        ],
        json,
    );
}

#[test]
fn what_is_required_was_always_written() {
    run(
        &[
            (
                "required added",
                object!(r#""a": {}"#, r#""required": ["a"]"#),
                object!(r#""a": {}"#),
                &[("a", Rule::Required)],
            ),
            (
                "required removed",
                object!(r#""a": {}"#),
                object!(r#""a": {}"#, r#""required": ["a"]"#),
                &[],
            ),
            (
                "nested, and all of them",
                object!(
                    r#""lines": {"type": "array", "items": {"type": "object",
                        "properties": {"price": {"type": "integer"}, "sku": {}},
                        "required": ["price", "sku"]}}"#
                ),
                object!(
                    r#""lines": {"type": "array", "items": {"type": "object",
                        "properties": {"price": {"type": "string"}}}}"#
                ),
                &[
                    ("lines[].price", Rule::Required),
                    ("lines[].sku", Rule::Required),
                    ("lines[].price", Rule::Type),
                ],
            ),
            (
                "a name with a dot",
                r#"{"required": ["a.b"]}"#,
                r#"{"type": "object"}"#,
                &[("[\"a.b\"]", Rule::Required)],
            ),
        ],
        json,
    );
}

#[test]
fn a_closed_reader_takes_what_it_knows() {
    const CLOSED: &str = object!(r#""a": {}"#, r#""additionalProperties": false"#);
    run(
        &[
            ("opened", object!(r#""a": {}"#), CLOSED, &[]),
            ("closed", CLOSED, object!(r#""a": {}"#), &[("", Rule::ClosedContent)]),
            (
                "property added",
                object!(r#""a": {}, "b": {"type": "string"}"#, r#""additionalProperties": false"#),
                CLOSED,
                &[],
            ),
            (
                "property removed",
                CLOSED,
                object!(r#""a": {}, "b": {"type": "string"}"#, r#""additionalProperties": false"#),
                &[("b", Rule::ClosedContent)],
            ),
            (
                "an open writer that does not say so writes what it declares",
                object!(r#""a": {}, "b": {"type": "string"}"#),
                object!(r#""a": {}"#),
                &[],
            ),
            (
                "an open writer that says so writes anything",
                object!(r#""a": {}, "b": {"type": "string"}"#),
                object!(r#""a": {}"#, r#""additionalProperties": true"#),
                &[("b", Rule::Type)],
            ),
            (
                "a writer that says nothing writes anything",
                r#"{"properties": {"a": {"properties": {"b": {"type": "string"}}}}}"#,
                r#"{"type": "object", "properties": {"a": {}}}"#,
                &[("a.b", Rule::Type)],
            ),
            (
                "a map's values",
                r#"{"type": "object", "additionalProperties": {"type": "integer"}}"#,
                r#"{"type": "object", "additionalProperties": {"type": "string"}}"#,
                &[("*", Rule::Type)],
            ),
            (
                "a map becomes a property of another type",
                object!(r#""a": {"type": "string"}"#),
                r#"{"type": "object", "additionalProperties": {"type": "integer"}}"#,
                &[("a", Rule::Type)],
            ),
            (
                "the writer requires what it does not declare",
                object!(r#""a": {"type": "string"}"#),
                r#"{"type": "object", "required": ["a"]}"#,
                &[("a", Rule::Type)],
            ),
            (
                "patterns that are refused",
                r#"{"type": "object", "additionalProperties": false}"#,
                r#"{"type": "object", "patternProperties": {"^x": {}}, "additionalProperties": false}"#,
                &[("*", Rule::ClosedContent)],
            ),
            (
                "other patterns",
                r#"{"type": "object", "patternProperties": {"^x": {"type": "string"}}}"#,
                r#"{"type": "object"}"#,
                &[("", Rule::Comparable)],
            ),
        ],
        json,
    );
}

#[test]
fn bounds_are_not_narrowed() {
    run(
        &[
            (
                "wider",
                r#"{"type": "integer", "minimum": 0}"#,
                r#"{"type": "integer", "minimum": 1}"#,
                &[],
            ),
            (
                "narrower",
                r#"{"type": "integer", "minimum": 1, "maximum": 9}"#,
                r#"{"type": "integer", "minimum": 0, "maximum": 10}"#,
                &[("", Rule::Bound), ("", Rule::Bound)],
            ),
            (
                "above 0 is 1 or more",
                r#"{"type": "integer", "minimum": 1}"#,
                r#"{"type": "integer", "exclusiveMinimum": 0}"#,
                &[],
            ),
            (
                "not for fractions",
                r#"{"type": "number", "minimum": 1}"#,
                r#"{"type": "number", "exclusiveMinimum": 0}"#,
                &[("", Rule::Bound)],
            ),
            (
                "draft 4",
                r#"{"$schema": "http://json-schema.org/draft-04/schema#", "type": "number", "minimum": 0, "exclusiveMinimum": true}"#,
                r#"{"$schema": "http://json-schema.org/draft-04/schema#", "type": "number", "minimum": 0}"#,
                &[("", Rule::Bound)],
            ),
            (
                "large numbers are exact",
                r#"{"type": "integer", "maximum": 9007199254740992}"#,
                r#"{"type": "integer", "maximum": 9007199254740993}"#,
                &[("", Rule::Bound)],
            ),
            (
                "bounds of another type",
                r#"{"type": "string", "minimum": 5}"#,
                r#"{"type": "string"}"#,
                &[],
            ),
            (
                "lengths",
                r#"{"type": "string", "minLength": 2, "maxLength": 3}"#,
                r#"{"type": "string", "maxLength": 4}"#,
                &[("", Rule::Bound), ("", Rule::Bound)],
            ),
            (
                "items",
                r#"{"type": "array", "minItems": 1, "uniqueItems": true}"#,
                r#"{"type": "array"}"#,
                &[("", Rule::Bound), ("", Rule::Constraint)],
            ),
            (
                "properties that are required count",
                r#"{"type": "object", "minProperties": 2}"#,
                r#"{"type": "object", "required": ["a", "b"]}"#,
                &[],
            ),
            (
                "multiples",
                r#"{"type": "integer", "multipleOf": 5}"#,
                r#"{"type": "integer", "multipleOf": 10}"#,
                &[],
            ),
            (
                "other multiples",
                r#"{"type": "integer", "multipleOf": 10}"#,
                r#"{"type": "integer", "multipleOf": 5}"#,
                &[("", Rule::Constraint)],
            ),
            (
                "pattern removed",
                r#"{"type": "string"}"#,
                r#"{"type": "string", "pattern": "^a"}"#,
                &[],
            ),
            (
                "pattern added",
                r#"{"type": "string", "pattern": "^a"}"#,
                r#"{"type": "string"}"#,
                &[("", Rule::Constraint)],
            ),
            (
                "format changed",
                r#"{"type": "string", "format": "date"}"#,
                r#"{"type": "string", "format": "date-time"}"#,
                &[("", Rule::Constraint)],
            ),
        ],
        json,
    );
}

#[test]
fn arrays_are_compared_by_element() {
    run(
        &[
            (
                "items narrowed",
                r#"{"type": "array", "items": {"type": "integer"}}"#,
                r#"{"type": "array", "items": {"type": "number"}}"#,
                &[("[]", Rule::Type)],
            ),
            (
                "a tuple got longer",
                r#"{"type": "array", "prefixItems": [{"type": "integer"}, {"type": "string"}]}"#,
                r#"{"type": "array", "prefixItems": [{"type": "integer"}], "items": {"type": "null"}}"#,
                &[("[1]", Rule::Type)],
            ),
            (
                "there is no second one",
                r#"{"type": "array", "prefixItems": [{"type": "integer"}, {"type": "string"}]}"#,
                r#"{"type": "array", "prefixItems": [{"type": "integer"}], "maxItems": 1}"#,
                &[],
            ),
            (
                "a tuple of draft 7 and one of 2020-12",
                r#"{"type": "array", "prefixItems": [{"type": "string"}], "items": false}"#,
                r#"{"$schema": "http://json-schema.org/draft-07/schema#", "type": "array", "items": [{"type": "string"}], "additionalItems": false}"#,
                &[],
            ),
        ],
        json,
    );
}

#[test]
fn listed_values_are_kept() {
    run(
        &[
            ("value added", r#"{"enum": ["a", "b"]}"#, r#"{"enum": ["a"]}"#, &[]),
            ("value removed", r#"{"enum": ["a"]}"#, r#"{"enum": ["a", "b"]}"#, &[("", Rule::Enum)]),
            ("a list became a type", r#"{"type": "string"}"#, r#"{"enum": ["a", "b"]}"#, &[]),
            ("another type", r#"{"type": "string"}"#, r#"{"enum": ["a", 1]}"#, &[("", Rule::Type)]),
            ("too long", r#"{"maxLength": 1}"#, r#"{"const": "ab"}"#, &[("", Rule::Constraint)]),
            (
                "a type became a list",
                r#"{"enum": ["a"]}"#,
                r#"{"type": "string"}"#,
                &[("", Rule::Enum)],
            ),
            ("booleans can be listed", r#"{"enum": [true, false]}"#, r#"{"type": "boolean"}"#, &[]),
            (
                "few integers can be listed",
                r#"{"enum": [1, 2, 4, null]}"#,
                r#"{"type": ["integer", "null"], "exclusiveMinimum": 0, "maximum": 2}"#,
                &[],
            ),
            (
                "one of them is not in the list",
                r#"{"enum": [1, 2, 4]}"#,
                r#"{"type": "integer", "minimum": 1, "maximum": 4}"#,
                &[("", Rule::Enum)],
            ),
            (
                "multiples between bounds",
                r#"{"enum": [2, 4]}"#,
                r#"{"type": "integer", "minimum": 1, "maximum": 5, "multipleOf": 2}"#,
                &[],
            ),
            (
                "multiples of a fraction are all looked at",
                r#"{"enum": [2, 4]}"#,
                r#"{"type": "integer", "minimum": 1, "maximum": 5, "multipleOf": 0.5}"#,
                &[("", Rule::Enum)],
            ),
            ("one is 1.0", r#"{"const": 1.0}"#, r#"{"const": 1}"#, &[]),
            (
                "by reference",
                r##"{"$defs": {"s": {"maxLength": 1}}, "properties": {"a": {"$ref": "#/$defs/s"}}}"##,
                r#"{"properties": {"a": {"enum": ["x", "yy"]}}}"#,
                &[("a", Rule::Constraint)],
            ),
        ],
        json,
    );
}

#[test]
fn unions_are_compared_by_branch() {
    const CARD: &str = r#"{"type": "object", "properties": {"kind": {"const": "card"}, "number": {"type": "string"}}, "required": ["kind"]}"#;
    const CASH: &str =
        r#"{"type": "object", "properties": {"kind": {"const": "cash"}}, "required": ["kind"]}"#;
    let one_of = |branches: &[&str]| format!(r#"{{"oneOf": [{}]}}"#, branches.join(", "));
    let (card, both) = (one_of(&[CARD]), one_of(&[CARD, CASH]));
    let narrowed = CASH.replace("\"cash\"}", "\"cash\"}, \"till\": {\"type\": \"integer\"}");
    let narrowed = one_of(&[CARD, &narrowed.replace("[\"kind\"]", "[\"kind\", \"till\"]")]);
    let told = json(&card).problems_with(&json(&both)).remove(0).detail;
    assert!(told.ends_with(r#"as object with kind = "cash""#), "{told}");
    run(
        &[
            ("branch added", &both, &card, &[]),
            ("branch removed", &card, &both, &[("", Rule::Union)]),
            ("the nearest branch says why", &narrowed, &both, &[("till", Rule::Required)]),
            ("a oneOf became an anyOf", &both.replace("oneOf", "anyOf"), &both, &[]),
            (
                "nullable in two ways",
                r#"{"anyOf": [{"type": "string"}, {"type": "null"}]}"#,
                r#"{"type": ["string", "null"]}"#,
                &[],
            ),
            (
                "and back",
                r#"{"type": ["string", "null"]}"#,
                r#"{"anyOf": [{"type": "string"}, {"type": "null"}]}"#,
                &[],
            ),
            (
                "a type too many",
                r#"{"anyOf": [{"type": "string"}, {"type": "boolean"}]}"#,
                r#"{"type": ["string", "null"]}"#,
                &[("", Rule::Union)],
            ),
            (
                "what stands beside holds for each branch",
                r#"{"properties": {"id": {"type": "string"}}, "required": ["id"]}"#,
                r#"{"type": "object", "properties": {"id": {"type": "string"}}, "required": ["id"],
                    "anyOf": [{"required": ["a"]}, {"required": ["b"]}]}"#,
                &[],
            ),
            (
                "branches that overlap",
                r#"{"oneOf": [{"type": "integer"}, {"type": "number"}]}"#,
                r#"{"type": "integer"}"#,
                &[("", Rule::Comparable)],
            ),
        ],
        json,
    );
}

#[test]
fn references_are_followed_within_the_schema() {
    const TREE: &str = r##"{"$ref": "#/$defs/node", "$defs": {"node": {"type": "object",
        "properties": {"value": {"type": "integer"}, "next": {"$ref": "#/$defs/node"}}}}}"##;
    let wider = TREE.replace("integer", "number");
    let renamed = TREE.replace("node", "n o%de").replace("/n o%de", "/n%20o%25de");
    run(
        &[
            ("a recursive type is widened", &wider, TREE, &[]),
            ("and narrowed", TREE, &wider, &[("value", Rule::Type)]),
            ("another name", &renamed, TREE, &[]),
            (
                "allOf is all of them",
                r#"{"allOf": [{"required": ["a"]}, {"required": ["b"]}]}"#,
                r#"{"type": "object", "required": ["a"]}"#,
                &[("b", Rule::Required)],
            ),
            (
                "the writer's allOf holds together",
                r#"{"type": "object", "required": ["a", "b"]}"#,
                r#"{"type": "object", "allOf": [{"required": ["a"]}, {"required": ["b"]}]}"#,
                &[],
            ),
            (
                "beside a reference",
                r##"{"$ref": "#/$defs/s", "maxLength": 5, "$defs": {"s": {"type": "string"}}}"##,
                r#"{"type": "string"}"#,
                &[("", Rule::Bound)],
            ),
            (
                "beside a reference, in draft 7",
                r##"{"$schema": "http://json-schema.org/draft-07/schema#", "$ref": "#/definitions/s",
                    "maxLength": 5, "definitions": {"s": {"type": "string"}}}"##,
                r#"{"type": "string"}"#,
                &[],
            ),
            (
                "a union of itself has no end",
                r#"{"type": "string"}"#,
                r##"{"anyOf": [{"$ref": "#"}, {"type": "string"}]}"##,
                &[("", Rule::Comparable)],
            ),
        ],
        json,
    );
}

#[test]
fn what_cannot_be_compared_is_refused_unless_it_is_the_same() {
    for (name, keyword) in [
        ("not", r#""not": {"type": "string"}"#),
        ("if", r#""if": {"required": ["a"]}, "then": {"required": ["b"]}"#),
        ("contains", r#""contains": {"type": "string"}, "minContains": 2"#),
        ("propertyNames", r#""propertyNames": {"maxLength": 3}"#),
        ("dependentRequired", r#""dependentRequired": {"a": ["b"]}"#),
        ("elsewhere", r#""$ref": "https://example.com/elsewhere.json""#),
    ] {
        let plain = r#"{"properties": {"x": {"maxLength": 9}, "y": {"maxLength": 9}}}"#;
        let with = format!(r#"{{"properties": {{"x": {{"maxLength": 9, {keyword}}}}}}}"#);
        let more = with.replace(r#""x": "#, r#""z": true, "x": "#);
        run(
            &[
                (name, &with, plain, &[("x", Rule::Comparable)]),
                (name, &with, &with, &[]),
                (name, &more, &with, &[]),
            ],
            json,
        );
    }
    // What is evaluated depends on what stands beside it.
    let unevaluated = |more: &str| {
        format!(r#"{{"properties": {{"a": {{}}{more}}}, "unevaluatedProperties": false}}"#)
    };
    run(
        &[
            ("same", &unevaluated(""), &unevaluated(""), &[]),
            (
                "not the same",
                &unevaluated(r#", "b": {}"#),
                &unevaluated(""),
                &[("", Rule::Comparable)],
            ),
        ],
        json,
    );
}

#[test]
fn no_schema_is_refused_with_the_place() {
    for (text, part) in [
        ("{", "no json_schema schema, at its root: EOF"),
        ("[]", "at its root"),
        (r#"{"properties": {"a": {"type": "text"}}}"#, "at /properties/a/type"),
        (r##"{"$ref": "#/$defs/missing"}"##, "missing"),
        (r#"{"pattern": "("}"#, "/pattern"),
    ] {
        let error = Schema::json(text).unwrap_err();
        assert!(error.to_string().contains(part), "{text}: {error}");
    }
}

#[test]
fn a_payload_is_checked_without_telling_its_values() {
    let schema =
        json(object!(r#""pin": {"type": "string", "maxLength": 4}"#, r#""required": ["id"]"#));
    schema.validate(br#"{"id": 1, "pin": "1234"}"#).unwrap();
    let error = schema.validate(br#"{"pin": "123456"}"#).unwrap_err().to_string();
    assert!(error.contains("/pin") && error.contains("\"id\""), "all of it is told: {error}");
    assert!(!error.contains("123456"), "{error}");
    assert!(schema.validate(b"{").unwrap_err().to_string().contains("it is no JSON"));
}

#[test]
fn nothing_is_fetched() {
    let schema = json(r#"{"properties": {"a": {"$ref": "http://127.0.0.1:9/schema.json"}}}"#);
    let error = schema.validate(b"{}").unwrap_err();
    assert!(error.to_string().contains("nothing is fetched"), "{error}");
    assert_eq!(error.class(), ErrorClass::Permanent);
    let error = Schema::json(r#"{"$ref": "file:///etc/passwd"}"#).unwrap().validate(b"1");
    assert!(error.unwrap_err().to_string().contains("nothing is fetched"));
}

#[test]
fn schemas_without_end_are_refused_and_not_followed() {
    let chain = |last: &str| {
        let link = |at: usize| {
            format!(r##""d{at}": {{"properties": {{"x": {{"$ref": "#/$defs/d{}"}}}}}}"##, at + 1)
        };
        let links: Vec<_> = (0..5_000).map(link).collect();
        format!(
            r##"{{"$ref": "#/$defs/d0", "$defs": {{{}, "d5000": {{"type": "{last}"}}}}}}"##,
            links.join(",")
        )
    };
    let (reader, writer) = (json(&chain("string")), json(&chain("integer")));
    let found = found(&reader, &writer);
    assert!(
        found.iter().all(|(_, rule)| *rule == Rule::Comparable) && found.len() == 1,
        "{found:?}"
    );

    // Each level holds more schemas together than the one above.
    let growing = |of: &str| {
        format!(
            r##"{{"allOf": [{{"$ref": "#/$defs/a"}}, {{"$ref": "#/$defs/b"}}], "$defs": {{
                "a": {{"properties": {{"n": {{"$ref": "#/$defs/a"}}, "v": {{"type": "{of}"}}}}}},
                "b": {{"properties": {{"n": {{"allOf": [{{"$ref": "#/$defs/a"}}, {{"$ref": "#/$defs/b"}},
                    {{"$ref": "#/$defs/b"}}]}}}}}}}}}}"##
        )
    };
    let found = found_in(&growing("string"), &growing("integer"));
    assert!(found.contains(&("v".to_owned(), Rule::Type)), "{found:?}");
}

fn found_in(reader: &str, writer: &str) -> Vec<(String, Rule)> {
    found(&json(reader), &json(writer))
}

#[test]
fn large_unions_are_compared() {
    let branch = |at: usize, of: &str| {
        format!(
            r#"{{"type": "object", "properties": {{"kind": {{"const": "k{at}"}}, "v": {{"type": "{of}"}}}}, "required": ["kind"]}}"#
        )
    };
    let union = |count: usize, of: &str| {
        let branches: Vec<_> = (0..count).map(|at| branch(at, of)).collect();
        format!(r#"{{"oneOf": [{}]}}"#, branches.join(","))
    };
    assert_eq!(found_in(&union(121, "integer"), &union(120, "integer")), []);
    assert_eq!(found_in(&union(120, "number"), &union(120, "integer")), []);
    let narrowed = found_in(&union(120, "integer"), &union(120, "number"));
    assert_eq!(narrowed, [("v".to_owned(), Rule::Type)]);
}
