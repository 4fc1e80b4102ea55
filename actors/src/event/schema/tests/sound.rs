//! What is called compatible is compatible, for schemas as strange as they come: unions, `allOf`,
//! `not`, references, lists of values, in each other.

use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use serde_json::{Map, Value, json};

use super::*;

fn keywords() -> impl Strategy<Value = Value> {
    let values =
        || vec![json!(null), json!(true), json!(0), json!(1), json!(1.5), json!("a"), json!("ab")];
    let names = ["null", "boolean", "integer", "number", "string", "array", "object"];
    prop_oneof![
        4 => subsequence(names.to_vec(), 1..=3).prop_map(|types| json!({"type": types, "additionalProperties": true})),
        2 => select(names.to_vec()).prop_map(|name| json!({"type": name, "additionalProperties": true})),
        2 => subsequence(values(), 1..=4).prop_map(|values| json!({"enum": values})),
        1 => select(values()).prop_map(|value| json!({"const": value})),
        1 => (select(vec!["minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum"]), -1..3).prop_map(|(key, n)| json!({key: n})),
        1 => (select(vec!["minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties"]), 0..3).prop_map(|(key, n)| json!({key: n})),
        1 => select(vec![json!({"multipleOf": 2}), json!({"uniqueItems": true}), json!({"pattern": "^a"}), json!(true), json!(false)]),
        1 => Just(json!({"$ref": "#/$defs/x"})),
    ]
}

fn part() -> impl Strategy<Value = Value> {
    keywords().prop_recursive(3, 16, 3, |part| {
        let several = || proptest::collection::vec(part.clone(), 1..4);
        let properties = proptest::collection::btree_map(select(vec!["a", "b", "c"]), part.clone(), 0..3);
        let required = subsequence(vec!["a", "b", "c"], 0..=2);
        let additional = prop_oneof![Just(json!(true)), Just(json!(false)), part.clone()];
        prop_oneof![
            3 => (properties, required, additional).prop_map(|(properties, required, additional)| {
                json!({"type": "object", "properties": properties, "required": required, "additionalProperties": additional})
            }),
            1 => part.clone().prop_map(|items| json!({"type": "array", "items": items})),
            1 => (several(), part.clone()).prop_map(|(first, rest)| json!({"prefixItems": first, "items": rest})),
            2 => several().prop_map(|parts| json!({"anyOf": parts})),
            2 => several().prop_map(|parts| json!({"oneOf": parts})),
            1 => several().prop_map(|parts| json!({"allOf": parts})),
            1 => part.clone().prop_map(|part| json!({"not": part})),
            1 => (part.clone(), part.clone()).prop_map(|(pattern, other)| json!({"type": "object",
                "patternProperties": {"^a": pattern}, "additionalProperties": other})),
            // Two sets of keywords beside each other.
            2 => (part.clone(), part.clone()).prop_map(|(one, other)| match (one, other) {
                (Value::Object(mut one), Value::Object(other)) => {
                    one.extend(other);
                    Value::Object(one)
                }
                (one, _) => one,
            }),
        ]
    })
}

fn schema(part: &Value, shared: &Value) -> Schema {
    let mut root = match part {
        Value::Object(map) => map.clone(),
        other => Map::from_iter([("allOf".to_owned(), json!([other]))]),
    };
    root.insert("$defs".to_owned(), json!({"x": shared}));
    Schema::json(Value::Object(root).to_string()).unwrap()
}

fn documents() -> Vec<Value> {
    let scalars = [
        json!(null),
        json!(true),
        json!(-1),
        json!(0),
        json!(1),
        json!(2),
        json!(1.5),
        json!(""),
        json!("a"),
        json!("ab"),
        json!("bbb"),
    ];
    let mut documents = scalars.to_vec();
    documents.push(json!([]));
    documents.push(json!({}));
    for one in scalars.iter().chain([json!([]), json!({}), json!({"a": 1}), json!(["a"])].iter()) {
        documents.push(json!([one]));
        documents.push(json!({"a": one}));
        documents.push(json!({"z": one}));
        documents.push(json!({"c": {"b": one}}));
        for other in &scalars {
            documents.push(json!([one, other]));
            documents.push(json!({"a": one, "b": other}));
            documents.push(json!({"a": one, "b": "a", "c": other}));
        }
        documents.push(json!([one, one, one]));
    }
    documents
}

#[test]
fn a_reader_that_is_called_compatible_takes_what_the_writer_takes() {
    let documents: Vec<_> = documents().iter().map(Value::to_string).collect();
    let compatible = std::cell::Cell::new(0);
    proptest!(|(one in part(), other in part(), shared in keywords(), beside in any::<u8>())| {
        let shared = if shared.get("$ref").is_some() { json!({}) } else { shared };
        // Most schemas that are drawn for themselves break each other; some of one piece do not.
        let wider = match beside % 4 {
            0 => other.clone(),
            1 => json!({"anyOf": [one, other]}),
            2 => json!({"oneOf": [one, other]}),
            _ => match (one.clone(), &other) {
                (Value::Object(mut one), Value::Object(other)) => {
                    one.extend(other.clone());
                    Value::Object(one)
                }
                (one, _) => one,
            },
        };
        let (writer, reader) = (schema(&one, &shared), schema(&wider, &shared));
        for (writer, reader) in [(&writer, &reader), (&reader, &writer)] {
            let problems = reader.problems_with(writer);
            if !problems.is_empty() {
                continue;
            }
            compatible.set(compatible.get() + 1);
            for document in &documents {
                if writer.validate(document.as_bytes()).is_ok() {
                    let read = reader.validate(document.as_bytes());
                    prop_assert!(read.is_ok(), "{document}: {read:?}\nwriter {}\nreader {}", writer.text().unwrap(), reader.text().unwrap());
                }
            }
        }
    });
    let compatible = compatible.get();
    assert!(compatible > 100, "only {compatible} pairs were compatible: this proves little");
}
