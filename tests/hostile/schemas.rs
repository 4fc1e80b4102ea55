//! Schemas and payloads that are small to send and would be dear to look at.

use mister_smith::actors::event::codec::Avro;
use mister_smith::actors::event::schema::{PayloadError, Schema};
use serde_json::{Value, json};

use super::alone;

fn reasons(result: Result<(), PayloadError>) -> Vec<String> {
    match result {
        Err(PayloadError::Invalid { reasons, .. }) => reasons,
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_avro_payload_cannot_overflow_the_stack() {
    // Two bytes were one level, and nothing counted levels.
    alone(|| {
        let node = r#"{"type": "record", "name": "Node", "fields": [
            {"name": "next", "type": ["null", "Node"]}]}"#;
        let node = Schema::avro(node).unwrap();
        let reasons = reasons(node.validate(&[2; 1_000_000]));
        assert!(reasons[0].contains("nested deeper"), "{reasons:?}");
    });
}

#[test]
fn an_avro_payload_gets_no_memory_for_what_it_only_announces() {
    // Five bytes announced 2^29 numbers, and the memory for them was asked for: 30 GB.
    alone(|| {
        let longs = Schema::avro(r#"{"type": "array", "items": "long"}"#).unwrap();
        let reasons_of_longs = reasons(longs.validate(&[0x80, 0x80, 0x80, 0x80, 0x04]));
        assert!(reasons_of_longs[0].contains("too early"), "{reasons_of_longs:?}");
        // What takes no bytes is bounded by those around it.
        let nothings = Schema::avro(r#"{"type": "array", "items": "null"}"#).unwrap();
        let reasons = reasons(nothings.validate(&[0x80, 0x80, 0x40, 0x00]));
        assert!(reasons[0].contains("more than"), "{reasons:?}");
        nothings.validate(&[0x06, 0x00]).unwrap();
    });
}

#[test]
fn a_protobuf_payload_has_a_bounded_list_of_faults() {
    // 16 MiB of a field in the wrong wire type were eight million texts.
    alone(|| {
        let mut seed = &include_bytes!("../../fuzz/seeds/protobuf_schema/proto3")[..];
        let length = usize::from(u16::from_be_bytes([seed[0], seed[1]]));
        seed = &seed[2..2 + length];
        let schema = Schema::protobuf(seed.to_vec(), "p.M").unwrap();
        assert_eq!(reasons(schema.validate(&[0x10, 0].repeat(8 << 20))).len(), 32);
        // Fields that are not known are passed over, however many there are.
        schema.validate(&[0x98, 0x06, 0].repeat(5 << 20)).unwrap();
    });
}

#[test]
fn long_lists_of_values_are_compared_by_looking_them_up() {
    // A validator was built for each value, with all definitions in it.
    alone(|| {
        let listed = |from: u32| (from..from + 20_000).map(|n| format!("v{n}")).collect::<Vec<_>>();
        let of = |values: &[String]| {
            let definitions: serde_json::Map<String, Value> =
                (0..200).map(|n| (format!("d{n}"), json!({"type": "string"}))).collect();
            let schema = json!({"$defs": definitions, "enum": values});
            Schema::json(schema.to_string()).unwrap()
        };
        let (one, wider, other) = (of(&listed(0)), of(&listed(0)), of(&listed(10_000)));
        assert_eq!(wider.problems_with(&one), []);
        let problems = other.problems_with(&one);
        assert!(problems[0].detail.contains("9992 more"), "{problems:?}");
        // One by one against a union.
        let union = json!({"anyOf": [{"type": "string"}, {"type": "null"}]}).to_string();
        let _ = Schema::json(union).unwrap().problems_with(&one);
    });
}

#[test]
fn references_that_double_are_refused_and_not_followed_to_their_end() {
    alone(|| {
        let chain = |leaf: &str| {
            let mut definitions = serde_json::Map::new();
            for n in 0..25 {
                let next = json!({"$ref": format!("#/$defs/d{}", n + 1)});
                definitions.insert(format!("d{n}"), json!({"anyOf": [next, next]}));
            }
            definitions.insert("d25".to_owned(), json!({"type": leaf}));
            json!({"$defs": definitions, "$ref": "#/$defs/d0"}).to_string()
        };
        let (one, other) = (Schema::json(chain("string")), Schema::json(chain("number")));
        let (one, other) = (one.unwrap(), other.unwrap());
        assert!(!one.problems_with(&other).is_empty());
        // A validator would look 2^25 times at the one value.
        let error = one.validate(b"1").unwrap_err();
        assert!(error.to_string().contains("references multiply"), "{error}");
        // And here twice as often with each level of the payload.
        let twice = json!({"properties": {"x": {"$ref": "#"}}});
        let doubling = Schema::json(json!({"allOf": [twice, twice]}).to_string()).unwrap();
        let nested = |depth: usize| format!("{}1{}", "{\"x\":".repeat(depth), "}".repeat(depth));
        doubling.validate(nested(10).as_bytes()).unwrap();
        let error = doubling.validate(nested(100).as_bytes()).unwrap_err();
        assert!(error.to_string().contains("references multiply"), "{error}");
    });
}

#[test]
fn comparisons_of_large_avro_schemas_end() {
    alone(|| {
        // Symbols were looked for in a list, one by one.
        let symbols = |from: u32| {
            let all: Vec<_> = (from..from + 80_000).map(|n| format!("\"s{n}\"")).collect();
            all.join(",")
        };
        let of = |from: u32| {
            let symbols = symbols(from);
            Schema::avro(format!(r#"{{"type": "enum", "name": "E", "symbols": [{symbols}]}}"#))
        };
        let (one, other) = (of(0).unwrap(), of(40_000).unwrap());
        assert_eq!(other.problems_with(&one).len(), 1);
        // Types of two schemas that meet in all pairs: one ring of 97 records, one of 89.
        let ring = |length: u32| {
            let records: Vec<_> = (0..length)
                .rev()
                .map(|n| {
                    let below = if n + 1 == length {
                        "\"null\"".to_owned()
                    } else {
                        format!("\"R{}\"", n + 1)
                    };
                    format!(
                        r#"{{"name": "f{n}", "type": {{"type": "record", "name": "R{n}",
                        "fields": [{{"name": "next", "type": {below}}}]}}}}"#
                    )
                })
                .collect();
            let fields = records.join(",");
            Schema::avro(format!(r#"{{"type": "record", "name": "T", "fields": [{fields}]}}"#))
        };
        let problems = ring(2_000).unwrap().problems_with(&ring(1_999).unwrap());
        assert!(problems.len() <= 256, "{}", problems.len());
    });
}

#[test]
fn a_long_name_is_not_in_the_name_of_everything_inside() {
    // A namespace of 300 kB, and ten thousand types in it: three gigabytes of names.
    alone(|| {
        let types: Vec<_> = (0..10_000)
            .map(|n| {
                let of = format!(r#"{{"type": "fixed", "name": "F{n}", "size": 1}}"#);
                format!(r#"{{"name": "f{n}", "type": {of}}}"#)
            })
            .collect();
        let long = "n".repeat(300_000);
        let text = format!(
            r#"{{"type": "record", "name": "R", "namespace": "{long}", "fields": [{}]}}"#,
            types.join(",")
        );
        let error = Schema::avro(text.as_str()).unwrap_err();
        assert!(error.to_string().contains("longer than 1024 bytes"), "{error}");
        assert!(Avro::new(&text).unwrap_err().to_string().contains("longer than 1024 bytes"));
        // The same in Protobuf: a message with a long name, and small ones declared in it.
        let field = |number: u8, bytes: &[u8]| {
            let mut field = vec![number << 3 | 2];
            let mut left = bytes.len();
            while left >= 0x80 {
                field.push(left as u8 | 0x80);
                left >>= 7;
            }
            field.push(left as u8);
            field.extend_from_slice(bytes);
            field
        };
        let mut message = field(1, long.as_bytes());
        for _ in 0..50_000 {
            message.extend(field(3, &field(1, b"N")));
        }
        let set = field(1, &field(4, &message));
        let error = Schema::protobuf(set, "M").unwrap_err();
        assert!(error.to_string().contains("longer than 1024 bytes"), "{error}");
    });
}
