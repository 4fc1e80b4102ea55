use super::*;

#[path = "../../../../../fuzz/src/any.rs"]
#[allow(dead_code, unreachable_pub, reason = "the fuzzers have it in a crate of its own")]
mod any;
mod reference;
mod resolved;

const SAMPLE: &str = include_str!("../golden/sample.avsc");
const EARLIER: &str = include_str!("../golden/sample.earlier.avsc");

fn avro(schema: &str) -> Avro {
    Avro::new(schema).unwrap()
}

fn decode<T: Serialize + serde::de::DeserializeOwned>(
    schema: &str,
    data: &[u8],
) -> Result<T, CodecError> {
    avro(schema).decode(data)
}

#[test]
fn golden_avro() {
    golden(&avro(SAMPLE), &sample(), include_bytes!("../golden/sample.avro"));
}

#[test]
fn an_earlier_schema_is_resolved() {
    let codec = avro(EARLIER).read_as(SAMPLE).unwrap();
    let was: Sample = codec.decode(include_bytes!("../golden/sample.earlier.avro")).unwrap();
    let wanted = Sample {
        name: "old".to_owned(),
        count: -5,
        small: 300,
        ratio: 0.5,
        open: true,
        note: None,
        data: Bytes::from_static(&[7]),
        items: vec![Item { sku: "tea".to_owned(), pieces: 2 }],
        tags: [("a".to_owned(), 1)].into(),
        state: State::Closed,
    };
    assert_eq!(was, wanted);
    let error = avro(EARLIER).read_as("{").unwrap_err();
    assert!(error.to_string().starts_with("the text is no Avro schema: "), "{error}");
}

#[test]
fn parts_of_a_datum_and_changed_ones_are_answered() {
    survives(&avro(SAMPLE), &sample(), true);
}

#[test]
fn a_cut_text_is_no_missing_text() {
    // The reference implementation reads a text that is cut off as null.
    let schema = r#"{"type": "record", "name": "R", "fields": [
        {"name": "note", "type": ["null", "string"]}]}"#;
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct R {
        note: Option<String>,
    }
    for part in [&b""[..], b"\x02", b"\x02\x08", b"\x02\x08gif"] {
        let error = decode::<R>(schema, part).unwrap_err();
        assert!(error.to_string().contains("too early"), "{error}");
    }
    assert_eq!(decode::<R>(schema, b"\x02\x08gift").unwrap().note.as_deref(), Some("gift"));
}

#[test]
fn fields_are_written_in_the_order_of_the_schema() {
    // The reference implementation writes them as they come.
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Turned {
        second: String,
        first: i64,
    }
    let schema = r#"{"type": "record", "name": "T", "fields": [
        {"name": "first", "type": "long"}, {"name": "second", "type": "string"}]}"#;
    let value = Turned { second: "b".to_owned(), first: 1 };
    golden(&avro(schema), &value, b"\x02\x02b");
}

#[test]
fn what_the_schema_cannot_hold_is_not_written() {
    #[derive(Serialize, Deserialize)]
    struct Wide {
        a: i64,
        b: Option<String>,
    }
    let record =
        |fields: &str| format!(r#"{{"type": "record", "name": "W", "fields": [{fields}]}}"#);
    let refused = |fields: &str, reason: &str| {
        let wide = Wide { a: 1 << 40, b: Some("text".to_owned()) };
        let error = avro(&record(fields)).encode(&wide).unwrap_err();
        assert!(error.to_string().contains(reason), "{error}");
    };
    let b = r#"{"name": "b", "type": ["null", "string"]}"#;
    refused(&format!(r#"{{"name": "a", "type": "int"}}, {b}"#), "is not an int");
    refused(&format!(r#"{{"name": "a", "type": "string"}}, {b}"#), "is not a string");
    refused(r#"{"name": "a", "type": "long"}"#, "the schema has no field b");
    refused(
        &format!(r#"{{"name": "a", "type": "long"}}, {b}, {{"name": "c", "type": "long"}}"#),
        "c: the value has no such field",
    );
    refused(
        r#"{"name": "a", "type": "long"}, {"name": "b", "type": ["null", "long"]}"#,
        "no alternative fits",
    );
    assert!(avro(r#""long""#).encode(&u64::MAX).is_err());
}

#[test]
fn logical_types_named_types_and_unions_come_back() {
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Many {
        id: uuid::Uuid,
        at: i64,
        day: i32,
        hash: Bytes,
        either: Either,
        left: Option<Box<Many>>,
    }
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(untagged)]
    enum Either {
        Number(i64),
        Text(String),
    }
    let schema = r#"{"type": "record", "name": "Many", "namespace": "a.b", "fields": [
        {"name": "id", "type": {"type": "string", "logicalType": "uuid"}},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-micros"}},
        {"name": "day", "type": {"type": "int", "logicalType": "date"}},
        {"name": "hash", "type": {"type": "fixed", "name": "Hash", "size": 4}},
        {"name": "either", "type": ["null", "long", "string"]},
        {"name": "left", "type": ["null", "Many"]}]}"#;
    let many = |either, left| Many {
        id: uuid::Uuid::from_u128(7),
        at: i64::MAX,
        day: i32::MIN,
        hash: Bytes::from_static(b"abcd"),
        either,
        left,
    };
    let inner = many(Either::Text("x".to_owned()), None);
    let value = many(Either::Number(-3), Some(Box::new(inner)));
    let bytes = avro(schema).encode(&value).unwrap();
    assert_eq!(decode::<Many>(schema, &bytes).unwrap(), value);
}

#[test]
fn bombs_are_refused_before_anything_is_made_of_them() {
    let long = |number: i64| {
        let mut left = ((number << 1) ^ (number >> 63)) as u64;
        let mut bytes = Vec::new();
        while left >= 0x80 {
            bytes.push(left as u8 | 0x80);
            left >>= 7;
        }
        bytes.push(left as u8);
        bytes
    };
    // A text of 500 MB, one of a negative length, and as many as there are.
    for length in [500_000_000, -1, i64::MAX, i64::MIN] {
        assert!(decode::<String>(r#""string""#, &long(length)).is_err());
        assert!(decode::<Bytes>(r#""bytes""#, &long(length)).is_err());
    }
    // Lists of nothing: no bytes for each element.
    let nothing = r#"{"type": "array", "items": "null"}"#;
    for count in [100_000_000, i64::MAX, i64::MIN, -5_000_000_000] {
        let data = [long(count), vec![0], vec![0]].concat();
        let error = decode::<Vec<()>>(nothing, &data).unwrap_err();
        assert!(error.to_string().contains("values in it"), "{error}");
    }
    assert_eq!(decode::<Vec<()>>(nothing, &[0x06, 0]).unwrap().len(), 3);
    // A list of many values in few bytes.
    let flags = r#"{"type": "array", "items": "boolean"}"#;
    let data = [long(2_000_000), vec![0; 2_000_001]].concat();
    assert!(decode::<Vec<bool>>(flags, &data).unwrap_err().to_string().contains("more than"));
    // A record inside itself.
    #[derive(Debug, Serialize, Deserialize)]
    struct Chain {
        next: Option<Box<Chain>>,
    }
    let chain = r#"{"type": "record", "name": "Chain", "fields": [
        {"name": "next", "type": ["null", "Chain"]}]}"#;
    let data = [vec![2; 100_000], vec![0]].concat();
    let error = decode::<Chain>(chain, &data).unwrap_err();
    assert!(error.to_string().contains("nested deeper than 32"), "{error}");
    let none = [vec![2; 16], vec![0]].concat();
    assert!(decode::<Chain>(chain, &none).is_err());
    // As deep as it may be, on the smallest usual stack, and in bearable time.
    let deepest = [vec![2; 15], vec![0]].concat();
    let reader = chain.replace(
        r#""fields": ["#,
        r#""fields": [
        {"name": "new", "type": ["null", "int"], "default": null},"#,
    );
    std::thread::Builder::new()
        .stack_size(2 << 20)
        .spawn(move || {
            let value = decode::<Chain>(chain, &deepest).unwrap();
            assert_eq!(avro(chain).encode(&value).unwrap(), deepest);
            let resolved = avro(chain).read_as(&reader).unwrap();
            assert!(Codec::<Chain>::decode(&resolved, &deepest).is_ok());
        })
        .unwrap()
        .join()
        .unwrap();
    // A number without an end.
    assert!(decode::<i64>(r#""long""#, &[0xff; 11]).is_err());
}

#[test]
fn a_map_is_written_in_one_way() {
    let schema = r#"{"type": "map", "values": "long"}"#;
    let value: BTreeMap<String, i64> = (0..50).map(|n| (format!("key {n}"), n)).collect();
    let first = avro(schema).encode(&value).unwrap();
    for _ in 0..10 {
        assert_eq!(avro(schema).encode(&value).unwrap(), first);
    }
}

proptest! {
    #[test]
    fn a_datum_comes_back(sample in any_sample()) {
        let codec = avro(SAMPLE);
        let bytes = codec.encode(&sample).unwrap();
        prop_assert_eq!(Codec::<Sample>::decode(&codec, &bytes).unwrap(), sample);
    }

    #[test]
    fn any_bytes_are_answered(data in vec(any::<u8>(), 0..200)) {
        let _ = decode::<Sample>(SAMPLE, &data);
    }
}
