//! Codecs and compression.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::OnceLock;

use bytes::Bytes;
use mister_smith::actors::event::codec::{Avro, Codec, Json, MessagePack, Protobuf};
use mister_smith::actors::event::compression::{Compression, Encoding, decompress};
use mister_smith::actors::event::schema::Schema;

use super::any::Any;

/// A type with a place for each kind of value, which holds itself.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
struct Sample {
    name: String,
    count: i64,
    small: u32,
    open: bool,
    note: Option<String>,
    data: Bytes,
    items: Vec<Sample>,
    tags: BTreeMap<String, i64>,
    state: State,
    next: Option<Box<Sample>>,
}

#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
enum State {
    Open,
    Closed,
}

/// What can be read, and then written, is read again as the same.
fn comes_back<T: Debug + PartialEq>(codec: &impl Codec<T>, data: &[u8]) {
    let Ok(value) = codec.decode(data) else { return };
    let Ok(bytes) = codec.encode(&value) else { return };
    assert_eq!(codec.decode(&bytes).as_ref(), Ok(&value));
}

/// JSON payloads.
pub fn json(data: &[u8]) {
    comes_back::<Any>(&Json::new(), data);
    comes_back::<Sample>(&Json::new(), data);
}

/// MessagePack payloads.
pub fn message_pack(data: &[u8]) {
    comes_back::<Any>(&MessagePack::new(), data);
    comes_back::<Sample>(&MessagePack::new(), data);
}

/// Schemas whose payloads are read: the first byte of the input chooses.
const AVRO: [&str; 6] = [
    r#"{"type": "record", "name": "Sample", "fields": [
        {"name": "name", "type": "string"}, {"name": "count", "type": "long"},
        {"name": "small", "type": "int"}, {"name": "open", "type": "boolean"},
        {"name": "note", "type": ["null", "string"]}, {"name": "data", "type": "bytes"},
        {"name": "items", "type": {"type": "array", "items": "Sample"}},
        {"name": "tags", "type": {"type": "map", "values": "long"}},
        {"name": "state", "type": {"type": "enum", "name": "State", "symbols": ["Open", "Closed"]}},
        {"name": "next", "type": ["null", "Sample"]}]}"#,
    r#"{"type": "array", "items": "long"}"#,
    r#"{"type": "array", "items": {"type": "record", "name": "Empty", "fields": [
        {"name": "a", "type": "null"}, {"name": "b", "type": "null"}]}}"#,
    r#"{"type": "map", "values": ["null", "int", "double", "float", "boolean", "bytes",
        {"type": "array", "items": ["null", "string"]}]}"#,
    r#"{"type": "record", "name": "Logical", "fields": [
        {"name": "id", "type": {"type": "string", "logicalType": "uuid"}},
        {"name": "day", "type": {"type": "int", "logicalType": "date"}},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-micros"}},
        {"name": "price", "type": {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}},
        {"name": "hash", "type": {"type": "fixed", "name": "Hash", "size": 4}},
        {"name": "span", "type": {"type": "fixed", "name": "Span", "size": 12, "logicalType": "duration"}},
        {"name": "big", "type": {"type": "bytes", "logicalType": "big-decimal"}}]}"#,
    r#"{"type": "record", "name": "List", "fields": [
        {"name": "value", "type": ["long", "string", {"type": "array", "items": "List"}]},
        {"name": "more", "type": {"type": "map", "values": "List"}}]}"#,
];

/// Avro payloads, by the codec and by the schema's check: both take the same.
pub fn avro(data: &[u8]) {
    static BUILT: OnceLock<Vec<(Avro, Schema)>> = OnceLock::new();
    let build = |text: &&str| {
        let codec = Avro::new(text).expect("it is a schema");
        (codec, Schema::avro(*text).expect("it is a schema"))
    };
    let built = BUILT.get_or_init(|| AVRO.iter().map(build).collect());
    let Some((first, data)) = data.split_first() else { return };
    let chosen = usize::from(*first) % built.len();
    let (codec, schema) = &built[chosen];
    let checked = schema.validate(data);
    comes_back::<Any>(codec, data);
    if chosen == 0 {
        let read: Result<Sample, _> = codec.decode(data);
        assert!(read.is_err() || checked.is_ok(), "read, and refused: {checked:?}");
        comes_back::<Sample>(codec, data);
    }
}

#[derive(Clone, PartialEq, prost::Message)]
struct Message {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, repeated, tag = "2")]
    inner: Vec<Message>,
    #[prost(map = "string, sint64", tag = "3")]
    counts: std::collections::HashMap<String, i64>,
    #[prost(fixed32, repeated, tag = "4")]
    fixed: Vec<u32>,
    #[prost(bytes = "bytes", tag = "5")]
    data: Bytes,
    #[prost(oneof = "Choice", tags = "6, 7")]
    choice: Option<Choice>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Choice {
    #[prost(bool, tag = "6")]
    Flag(bool),
    #[prost(message, tag = "7")]
    Inner(Box<Message>),
}

/// Protobuf payloads.
pub fn protobuf(data: &[u8]) {
    comes_back::<Message>(&Protobuf::new(), data);
}

/// Compressed bytes: the first byte of the input says how.
pub fn compression(data: &[u8]) {
    const LIMIT: usize = 1 << 20;
    let Some((first, data)) = data.split_first() else { return };
    let encodings = [Encoding::Gzip, Encoding::Zstd, Encoding::Lz4];
    let encoding = encodings[usize::from(*first) % encodings.len()];
    let data = Bytes::copy_from_slice(data);
    if let Ok(plain) = decompress(encoding, &data, LIMIT) {
        assert!(plain.len() <= LIMIT);
    }
    let how = Compression::of(encoding).expect("it is built").threshold(0);
    let (how, small) = how.compress(&data);
    assert_eq!(decompress(how, &small, data.len()).as_ref(), Ok(&data));
}
