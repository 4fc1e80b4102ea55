//! One function per decoder and per check that takes bytes from outside. Each takes any bytes and
//! may only return: a panic, an overflow of the stack, an allocation that the input does not
//! justify, or a law that does not hold is a finding.
//!
//! `scripts/fuzz` runs them with libFuzzer. The main workspace takes this file in by its path
//! (`tests/hostile`) and runs the seeds and all findings through the same functions.

pub mod any;
pub mod archive;
pub mod formats;
pub mod messages;
pub mod node;
pub mod schemas;

/// A target: its name, which is also that of its seeds, and its function.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
pub const TARGETS: &[Target] = &[
    ("archive", archive::archive),
    ("avro", formats::avro),
    ("avro_schema", schemas::avro),
    ("cloudevents", messages::cloudevents),
    ("commands", node::commands),
    ("compression", formats::compression),
    ("events", messages::events),
    ("http", node::http),
    ("json", formats::json),
    ("json_schema", schemas::json),
    ("message_pack", formats::message_pack),
    ("metadata", messages::metadata),
    ("names", messages::names),
    ("protobuf", formats::protobuf),
    ("protobuf_schema", schemas::protobuf),
    ("wire", messages::wire),
];

/// The parts of an input between its NUL bytes, at most `N` of them: what is behind the last is
/// whole. Parts that are missing are empty.
fn parts<const N: usize>(data: &[u8]) -> [&[u8]; N] {
    let mut parts = [&[][..]; N];
    for (part, bytes) in parts.iter_mut().zip(data.splitn(N, |byte| *byte == 0)) {
        *part = bytes;
    }
    parts
}

/// A part with its length in two bytes in front, cut off the input.
fn counted<'a>(data: &mut &'a [u8]) -> &'a [u8] {
    let Some((length, rest)) = data.split_first_chunk() else { return &[] };
    let length = usize::from(u16::from_be_bytes(*length)).min(rest.len());
    let (part, rest) = rest.split_at(length);
    *data = rest;
    part
}
