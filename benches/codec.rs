//! Codecs and compression beside the bare libraries, paired in one run.
//!
//! `cargo bench --bench codec --all-features`. An event of 13 fields with two nested items; 4 KiB of
//! such events as JSON. Each row is measured round by round, ours, theirs, ours, …; a ratio is the
//! median of the rounds' ratios. One thread, nothing but the calls. `-- --short` takes a second.

#![allow(clippy::unwrap_used, missing_docs, reason = "a benchmark may panic")]

use std::hint::black_box;
use std::io::{Read, Write};
use std::time::{Duration, Instant};

use bytes::Bytes;
use mister_smith::actors::event::codec::{Avro, Codec, Json, MessagePack, Protobuf};
use mister_smith::actors::event::compression::{Compression, decompress};
use mister_smith::actors::event::{ContentType, Event};
use prost::Message as _;
use serde::{Deserialize, Serialize};

#[derive(Clone, PartialEq, prost::Message, Serialize, Deserialize)]
struct Placed {
    #[prost(string, tag = "1")]
    order: String,
    #[prost(string, tag = "2")]
    customer: String,
    #[prost(string, tag = "3")]
    currency: String,
    #[prost(int64, tag = "4")]
    cents: i64,
    #[prost(int64, tag = "5")]
    shipping_cents: i64,
    #[prost(double, tag = "6")]
    discount: f64,
    #[prost(bool, tag = "7")]
    express: bool,
    #[prost(string, tag = "8")]
    channel: String,
    #[prost(string, optional, tag = "9")]
    coupon: Option<String>,
    #[prost(string, tag = "10")]
    street: String,
    #[prost(string, tag = "11")]
    city: String,
    #[prost(int64, tag = "12")]
    placed_at: i64,
    #[prost(message, repeated, tag = "13")]
    items: Vec<Item>,
}

#[derive(Clone, PartialEq, prost::Message, Serialize, Deserialize)]
struct Item {
    #[prost(string, tag = "1")]
    sku: String,
    #[prost(int32, tag = "2")]
    pieces: i32,
    #[prost(int64, tag = "3")]
    cents: i64,
}

const SCHEMA: &str = r#"{"type": "record", "name": "Placed", "fields": [
    {"name": "order", "type": "string"}, {"name": "customer", "type": "string"},
    {"name": "currency", "type": "string"}, {"name": "cents", "type": "long"},
    {"name": "shipping_cents", "type": "long"}, {"name": "discount", "type": "double"},
    {"name": "express", "type": "boolean"}, {"name": "channel", "type": "string"},
    {"name": "coupon", "type": ["null", "string"]}, {"name": "street", "type": "string"},
    {"name": "city", "type": "string"}, {"name": "placed_at", "type": "long"},
    {"name": "items", "type": {"type": "array", "items": {"type": "record", "name": "Item",
        "fields": [{"name": "sku", "type": "string"}, {"name": "pieces", "type": "int"},
                   {"name": "cents", "type": "long"}]}}}]}"#;

#[derive(Serialize, Deserialize)]
enum Packed {
    Placed(Placed),
}

impl Event for Packed {}

#[derive(Serialize, Deserialize)]
enum Proto {
    #[serde(with = "mister_smith::actors::event::codec::protobuf::as_bytes")]
    Placed(Placed),
}

impl Event for Proto {
    fn codec(_: &str) -> ContentType {
        ContentType::Protobuf
    }
}

fn placed(n: i64) -> Placed {
    let item = |at: i64| Item {
        sku: format!("SKU-{:05}", n * 7 + at),
        pieces: 1 + at as i32,
        cents: 1_999 + n,
    };
    Placed {
        order: format!("order-{n:08}"),
        customer: format!("customer-{:06}", n * 7_919 % 100_003),
        currency: "EUR".to_owned(),
        cents: 4_711 + n * 13,
        shipping_cents: 490,
        discount: 0.05,
        express: n % 3 == 0,
        channel: "web".to_owned(),
        coupon: (n % 4 == 0).then(|| "SUMMER".to_owned()),
        street: format!("Lange Straße {n}"),
        city: "Görlitz".to_owned(),
        placed_at: 1_700_000_000_000_000 + n * 1_234_567,
        items: vec![item(0), item(1)],
    }
}

/// How long a call takes, in nanoseconds, round by round in turn.
fn pair(time: Duration, ours: &mut dyn FnMut(), theirs: &mut dyn FnMut()) -> (f64, f64, f64) {
    const ROUNDS: usize = 7;
    let mut measured: [Vec<f64>; 3] = Default::default();
    let one = |call: &mut dyn FnMut()| {
        let (begin, mut calls) = (Instant::now(), 0);
        while begin.elapsed() < time {
            for _ in 0..16 {
                call();
            }
            calls += 16;
        }
        begin.elapsed().as_nanos() as f64 / f64::from(calls)
    };
    one(ours);
    one(theirs);
    for _ in 0..ROUNDS {
        let (ours, theirs) = (one(ours), one(theirs));
        measured[0].push(ours);
        measured[1].push(theirs);
        measured[2].push(ours / theirs);
    }
    let [ours, theirs, ratio] = measured.map(|mut values| {
        values.sort_by(f64::total_cmp);
        values[ROUNDS / 2]
    });
    (ours, theirs, ratio)
}

struct Table(Duration);

impl Table {
    fn row(&self, what: &str, bytes: usize, mut ours: impl FnMut(), mut theirs: impl FnMut()) {
        let (ours, theirs, ratio) = pair(self.0, &mut ours, &mut theirs);
        println!("{what:<44} {bytes:>6} {ours:>9.0} {theirs:>9.0} {ratio:>6.2}");
    }
}

fn main() {
    let short = std::env::args().any(|arg| arg == "--short" || arg == "--test");
    let table = Table(Duration::from_millis(if short { 2 } else { 120 }));
    println!("{:<44} {:>6} {:>9} {:>9} {:>6}", "codec", "bytes", "ours ns", "bare ns", "x");
    codecs(&table);
    println!();
    println!("{:<44} {:>6} {:>9} {:>9} {:>6}", "compression", "bytes", "ours ns", "bare ns", "x");
    compressions(&table);
}

fn codecs(table: &Table) {
    let value = placed(42);
    let (json, pack, proto) = (Json::new(), MessagePack::new(), Protobuf::new());
    let bytes = json.encode(&value).unwrap();
    table.row(
        "JSON encode / serde_json",
        bytes.len(),
        || drop(black_box(json.encode(black_box(&value)))),
        || drop(black_box(serde_json::to_vec(black_box(&value)))),
    );
    table.row(
        "JSON decode",
        bytes.len(),
        || drop(black_box(Codec::<Placed>::decode(&json, black_box(&bytes)))),
        || drop(black_box(serde_json::from_slice::<Placed>(black_box(&bytes)))),
    );
    let bytes = pack.encode(&value).unwrap();
    table.row(
        "MessagePack encode / rmp-serde named",
        bytes.len(),
        || drop(black_box(pack.encode(black_box(&value)))),
        || drop(black_box(rmp_serde::to_vec_named(black_box(&value)))),
    );
    table.row(
        "MessagePack decode",
        bytes.len(),
        || drop(black_box(Codec::<Placed>::decode(&pack, black_box(&bytes)))),
        || drop(black_box(rmp_serde::from_slice::<Placed>(black_box(&bytes)))),
    );
    let event = Packed::Placed(value.clone());
    table.row(
        "an event, MessagePack, encode / rmp-serde",
        bytes.len(),
        || drop(black_box(black_box(&event).encode())),
        || drop(black_box(rmp_serde::to_vec_named(black_box(&value)))),
    );
    table.row(
        "an event, MessagePack, decode",
        bytes.len(),
        || drop(black_box(Packed::decode("Placed", 1, ContentType::MessagePack, &bytes))),
        || drop(black_box(rmp_serde::from_slice::<Placed>(black_box(&bytes)))),
    );
    let bytes = proto.encode(&value).unwrap();
    table.row(
        "Protobuf encode / prost",
        bytes.len(),
        || drop(black_box(proto.encode(black_box(&value)))),
        || drop(black_box(black_box(&value).encode_to_vec())),
    );
    table.row(
        "Protobuf decode",
        bytes.len(),
        || drop(black_box(Codec::<Placed>::decode(&proto, black_box(&bytes)))),
        || drop(black_box(Placed::decode(black_box(&bytes[..])))),
    );
    let event = Proto::Placed(value.clone());
    table.row(
        "an event, Protobuf, encode / prost",
        bytes.len(),
        || drop(black_box(black_box(&event).encode())),
        || drop(black_box(black_box(&value).encode_to_vec())),
    );
    table.row(
        "an event, Protobuf, decode",
        bytes.len(),
        || drop(black_box(Proto::decode("Placed", 1, ContentType::Protobuf, &bytes))),
        || drop(black_box(Placed::decode(black_box(&bytes[..])))),
    );
    let avro = Avro::new(SCHEMA).unwrap();
    let schema = apache_avro::Schema::parse_str(SCHEMA).unwrap();
    let bytes = avro.encode(&value).unwrap();
    table.row(
        "Avro encode / apache-avro by its values",
        bytes.len(),
        || drop(black_box(avro.encode(black_box(&value)))),
        || {
            let value = apache_avro::to_value(black_box(&value)).unwrap();
            let value = value.resolve(&schema).unwrap();
            drop(black_box(apache_avro::to_avro_datum(&schema, value)));
        },
    );
    table.row(
        "Avro encode / apache-avro by serde",
        bytes.len(),
        || drop(black_box(avro.encode(black_box(&value)))),
        || {
            let mut out = Vec::new();
            apache_avro::write_avro_datum_ref(&schema, black_box(&value), &mut out).unwrap();
            drop(black_box(out));
        },
    );
    table.row(
        "Avro decode",
        bytes.len(),
        || drop(black_box(Codec::<Placed>::decode(&avro, black_box(&bytes)))),
        || {
            let value = apache_avro::from_avro_datum(&schema, &mut &bytes[..], None).unwrap();
            drop(black_box(apache_avro::from_value::<Placed>(&value)));
        },
    );
}

fn compressions(table: &Table) {
    let mut text = Vec::new();
    for n in 0.. {
        let event = serde_json::to_vec(&placed(n)).unwrap();
        if text.len() + event.len() > 4_096 {
            break;
        }
        text.extend(event);
    }
    let text = Bytes::from(text);
    let limit = 16 << 20;

    let how = Compression::zstd();
    let (encoding, small) = how.compress(&text);
    let mut kept = zstd::bulk::Compressor::new(1).unwrap();
    let mut opener = zstd::bulk::Decompressor::new().unwrap();
    table.row(
        "zstd 1 / a context that is kept",
        small.len(),
        || drop(black_box(how.compress(black_box(&text)))),
        || drop(black_box(kept.compress(black_box(&text)))),
    );
    table.row(
        "zstd 1 / a new context each time",
        small.len(),
        || drop(black_box(how.compress(black_box(&text)))),
        || drop(black_box(zstd::bulk::compress(black_box(&text), 1))),
    );
    table.row(
        "zstd back / a context that is kept",
        text.len(),
        || drop(black_box(decompress(encoding, black_box(&small), limit))),
        || drop(black_box(opener.decompress(black_box(&small), text.len()))),
    );

    let how = Compression::lz4();
    let (encoding, small) = how.compress(&text);
    let block = lz4_flex::block::compress(&text);
    table.row(
        "lz4 / its block without a frame",
        small.len(),
        || drop(black_box(how.compress(black_box(&text)))),
        || drop(black_box(lz4_flex::block::compress(black_box(&text)))),
    );
    table.row(
        "lz4 back",
        text.len(),
        || drop(black_box(decompress(encoding, black_box(&small), limit))),
        || drop(black_box(lz4_flex::block::decompress(black_box(&block), text.len()))),
    );

    let how = Compression::gzip();
    let (encoding, small) = how.compress(&text);
    table.row(
        "gzip 1 / flate2",
        small.len(),
        || drop(black_box(how.compress(black_box(&text)))),
        || {
            let level = flate2::Compression::new(1);
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), level);
            encoder.write_all(black_box(&text)).unwrap();
            drop(black_box(encoder.finish()));
        },
    );
    table.row(
        "gzip back",
        text.len(),
        || drop(black_box(decompress(encoding, black_box(&small), limit))),
        || {
            let mut out = Vec::new();
            flate2::bufread::GzDecoder::new(black_box(&small[..])).read_to_end(&mut out).unwrap();
            drop(black_box(out));
        },
    );
}
