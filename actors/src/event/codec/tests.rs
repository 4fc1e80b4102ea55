use std::collections::BTreeMap;
use std::fmt::Debug;

use bytes::Bytes;
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use serde::{Deserialize, Serialize};

use super::*;

#[cfg(feature = "codec-avro")]
mod avro;
mod events;
#[cfg(feature = "codec-protobuf")]
mod protobuf;

/// The value of `golden/`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Sample {
    name: String,
    count: i64,
    small: u32,
    ratio: f64,
    open: bool,
    note: Option<String>,
    data: Bytes,
    items: Vec<Item>,
    tags: BTreeMap<String, i64>,
    state: State,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Item {
    sku: String,
    pieces: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
enum State {
    Open,
    Closed,
}

fn sample() -> Sample {
    Sample {
        name: "größer ☃".to_owned(),
        count: -1_234_567_890_123,
        small: 300,
        ratio: 0.1,
        open: true,
        note: Some("a \"quoted\"\nline".to_owned()),
        data: Bytes::from_static(&[0, 1, 254, 255]),
        items: vec![
            Item { sku: "tea".to_owned(), pieces: 2 },
            Item { sku: String::new(), pieces: 70_000 },
        ],
        tags: [("a".to_owned(), 1), ("z".to_owned(), -129)].into(),
        state: State::Closed,
    }
}

fn any_sample() -> impl Strategy<Value = Sample> {
    let item = (".*", 0..=i32::MAX as u32).prop_map(|(sku, pieces)| Item { sku, pieces });
    let texts = (".*", prop::option::of(".*"), vec(any::<u8>(), 0..300));
    let numbers = (any::<i64>(), any::<u32>(), -1e300..1e300_f64, any::<bool>());
    let state = prop_oneof![Just(State::Open), Just(State::Closed)];
    (texts, numbers, vec(item, 0..5), btree_map(".*", any::<i64>(), 0..5), state).prop_map(
        |((name, note, data), (count, small, ratio, open), items, tags, state)| Sample {
            name,
            count,
            small,
            ratio,
            open,
            note,
            data: data.into(),
            items,
            tags,
            state,
        },
    )
}

/// Both ways, byte for byte.
#[track_caller]
fn golden<T: Debug + PartialEq>(codec: &impl Codec<T>, value: &T, file: &[u8]) {
    assert_eq!(codec.encode(value).unwrap(), file);
    assert_eq!(&codec.decode(file).unwrap(), value);
}

/// Every way to cut or change the bytes is an answer: an error or another value, no panic. A part
/// of it is never the whole.
#[track_caller]
fn survives<T: Debug + PartialEq>(codec: &impl Codec<T>, value: &T, parts_are_refused: bool) {
    let bytes = codec.encode(value).unwrap();
    for end in 0..bytes.len() {
        let part = codec.decode(&bytes[..end]);
        assert!(part.is_err() || !parts_are_refused, "the first {end} bytes: {part:?}");
    }
    for at in 0..bytes.len() {
        for change in [0x01, 0x80, 0xff] {
            let mut changed = bytes.to_vec();
            changed[at] ^= change;
            let _ = codec.decode(&changed);
        }
    }
    let longer = codec.decode(&[&bytes[..], &[0]].concat());
    assert!(longer.is_err(), "a byte behind the value: {longer:?}");
}

#[test]
fn golden_json_and_message_pack() {
    golden(&Json::new(), &sample(), include_bytes!("golden/sample.json"));
    golden(&MessagePack::new(), &sample(), include_bytes!("golden/sample.msgpack"));
}

#[test]
fn parts_of_a_payload_and_changed_ones_are_answered() {
    survives(&Json::new(), &sample(), true);
    survives(&MessagePack::new(), &sample(), true);
}

proptest! {
    #[test]
    fn what_was_encoded_is_decoded(sample in any_sample()) {
        let json = Json::new().encode(&sample).unwrap();
        prop_assert_eq!(&Codec::<Sample>::decode(&Json::new(), &json).unwrap(), &sample);
        let packed = MessagePack::new().encode(&sample).unwrap();
        prop_assert_eq!(Codec::<Sample>::decode(&MessagePack::new(), &packed).unwrap(), sample);
    }

    #[test]
    fn any_bytes_are_answered(data in vec(any::<u8>(), 0..200)) {
        let _ = Codec::<Sample>::decode(&Json::new(), &data);
        let _ = Codec::<Sample>::decode(&MessagePack::new(), &data);
    }
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Listed(Vec<Listed>);

#[test]
fn what_is_nested_too_deep_is_refused_before_the_stack_ends() {
    let json = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let error = Codec::<Listed>::decode(&Json::new(), json.as_bytes()).unwrap_err();
    assert!(error.to_string().contains("recursion limit"), "{error}");
    let error = Codec::<Listed>::decode(&MessagePack::new(), &[0x91; 100_000]).unwrap_err();
    assert!(error.to_string().contains("depth limit"), "{error}");
    // As deep as it may be.
    let deep = [&[0x91; MAX_DEPTH - 2][..], &[0x90]].concat();
    let deep = Codec::<Listed>::decode(&MessagePack::new(), &deep).unwrap();
    assert_eq!(MessagePack::new().encode(&deep).unwrap().len(), MAX_DEPTH - 1);
}

#[test]
fn a_length_that_the_bytes_do_not_hold_costs_nothing() {
    // 4 GiB of text, bytes, list and map, in five bytes.
    for mark in [0xdb, 0xc6, 0xdd, 0xdf] {
        let data = [mark, 0xff, 0xff, 0xff, 0xff];
        assert!(Codec::<String>::decode(&MessagePack::new(), &data).is_err());
        assert!(Codec::<Vec<String>>::decode(&MessagePack::new(), &data).is_err());
        assert!(Codec::<Bytes>::decode(&MessagePack::new(), &data).is_err());
        assert!(Codec::<BTreeMap<String, u8>>::decode(&MessagePack::new(), &data).is_err());
    }
}

#[test]
fn a_payload_above_the_limit_is_refused_with_both_numbers() {
    let text = "x".repeat(100);
    let json = Json::new().encode(&text).unwrap();
    let error = Codec::<String>::decode(&Json::new().limit(101), &json).unwrap_err();
    assert_eq!(
        error.to_string(),
        "102 bytes of JSON are more than the limit of 101; raise it, or send less"
    );
    assert_eq!(Codec::<String>::decode(&Json::new().limit(102), &json).unwrap(), text);
    assert!(Codec::<String>::decode(&MessagePack::new().limit(10), &json).is_err());
}
