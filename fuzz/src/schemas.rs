//! Schemas: read, compared, and used to check payloads.

use mister_smith::actors::event::codec::{Avro, Codec};
use mister_smith::actors::event::schema::{CompatibilityMode, PayloadError, Schema, compatibility};

use super::any::Any;
use super::{counted, parts};

/// Compares both ways, and checks a payload with each and across.
fn check(one: &Schema, other: &Schema, payload: &[u8]) {
    assert_eq!(one == other, one.fingerprint() == other.fingerprint());
    let _ = compatibility::check(CompatibilityMode::Full, one, [(1, other)]);
    let _ = one.validate(payload);
    let _ = other.read(one, payload);
    let _ = one.read(other, payload);
}

/// What a reader is said to read it reads, if it is not the payload itself that stops it: its depth,
/// its size, or a text that is none.
fn keeps_its_word(reader: &Schema, writer: &Schema, payload: &[u8]) {
    if writer.validate(payload).is_err() || !reader.problems_with(writer).is_empty() {
        return;
    }
    let Err(PayloadError::Invalid { reasons, .. }) = reader.read(writer, payload) else { return };
    let of_the_payload = ["UTF-8", "UUID", "nested", "more than", "too early"];
    let excused = |reason: &String| of_the_payload.iter().any(|part| reason.contains(part));
    assert!(reasons.iter().all(excused), "{reasons:?}");
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Two JSON Schemas and a payload, with a NUL between them.
pub fn json(data: &[u8]) {
    let [one, other, payload] = parts(data);
    if let (Ok(one), Ok(other)) = (Schema::json(text(one)), Schema::json(text(other))) {
        check(&one, &other, payload);
    }
}

/// Two Avro schemas and a payload, with a NUL between them.
pub fn avro(data: &[u8]) {
    let [one, other, payload] = parts(data);
    let (one, other) = (text(one), text(other));
    if let (Ok(one), Ok(other)) = (Schema::avro(one.as_str()), Schema::avro(other.as_str())) {
        check(&one, &other, payload);
        keeps_its_word(&other, &one, payload);
        keeps_its_word(&one, &other, payload);
    }
    if let Ok(codec) = Avro::new(&one) {
        let _: Result<Any, _> = codec.decode(payload);
        if let Ok(codec) = codec.read_as(&other) {
            let _: Result<Any, _> = codec.decode(payload);
        }
    }
}

/// Two descriptor sets and a payload, each with its length in front. The message is `p.M`.
pub fn protobuf(mut data: &[u8]) {
    let (one, other) = (counted(&mut data), counted(&mut data));
    let schema = |bytes: &[u8]| Schema::protobuf(bytes.to_vec(), "p.M");
    if let (Ok(one), Ok(other)) = (schema(one), schema(other)) {
        check(&one, &other, data);
        keeps_its_word(&other, &one, data);
        keeps_its_word(&one, &other, data);
    }
}
