//! What is sent: good messages of every kind, and poison.

use std::fmt;

use mister_smith::actors::bus::Subject;
use mister_smith::actors::bus::wire::{CONTENT_ENCODING, CONTENT_TYPE, WireMessage};
use mister_smith::actors::event::compression::Compression;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use serde::{Deserialize, Serialize};

/// The header that names an item, from its sender to its effect or its dead letter.
pub(super) const NAME: &str = "Soak";

/// A header that no broker takes.
pub(super) const BAD_HEADER: &str = "a b";

/// More than NATS takes.
pub(super) const LARGE: usize = 1_200_000;

/// How a message gets in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Way {
    /// A command, whose event the outbox sends to JetStream, and consumers and a process follow.
    Order,
    /// An event of a type that nobody knows, taken in.
    Foreign,
    /// A saga.
    Saga,
    /// A message that is scheduled for a Redis queue.
    Later,
    /// Published on the bus.
    Bus,
    /// Sent to a Redis queue.
    Redis,
    /// Sent to a JetStream queue.
    Jet,
    /// Put into the outbox table, in a transaction.
    Table,
}

/// What is the matter with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Kind {
    /// Nothing.
    Plain,
    /// It arrives compressed.
    Packed,
    /// Larger than NATS takes.
    Large,
    /// It has a header that brokers refuse.
    Header,
    /// Its handler panics.
    Panic,
    /// Its handler will not have it; a saga is refused at its last step.
    Fail,
    /// Its handler ends the process, the first time.
    Exit,
    /// It cannot be decompressed.
    Damaged,
    /// It would be too large, decompressed.
    Bomb,
    /// Small Avro that says it is billions of values.
    Avro,
    /// Protobuf of nothing but fields that nobody knows, and a cut end.
    Protobuf,
}

/// One message, and its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Item {
    pub(super) way: Way,
    pub(super) kind: Kind,
    pub(super) n: u64,
}

/// Its name: `order-plain-17`.
impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = |text: String| text.to_lowercase();
        let (way, kind) = (word(format!("{:?}", self.way)), word(format!("{:?}", self.kind)));
        write!(f, "{way}-{kind}-{}", self.n)
    }
}

/// What a handler does with an item of this name.
pub(super) fn kind_of(name: &str) -> &str {
    name.split('-').nth(1).unwrap_or_default()
}

/// The number of an item of this name.
pub(super) fn number_of(name: &str) -> u64 {
    name.rsplit('-').next().and_then(|n| n.parse().ok()).unwrap_or_default()
}

/// How many of what are in a round.
const ROUND: [(Way, Kind, u64); 37] = [
    (Way::Order, Kind::Plain, 90),
    (Way::Order, Kind::Large, 1),
    (Way::Order, Kind::Header, 2),
    (Way::Order, Kind::Panic, 2),
    (Way::Order, Kind::Fail, 2),
    (Way::Order, Kind::Exit, 1),
    (Way::Foreign, Kind::Fail, 3),
    (Way::Saga, Kind::Plain, 20),
    (Way::Saga, Kind::Fail, 8),
    (Way::Later, Kind::Plain, 20),
    (Way::Later, Kind::Fail, 1),
    (Way::Bus, Kind::Plain, 20),
    (Way::Bus, Kind::Panic, 1),
    (Way::Redis, Kind::Plain, 40),
    (Way::Redis, Kind::Packed, 6),
    (Way::Redis, Kind::Large, 1),
    (Way::Redis, Kind::Header, 1),
    (Way::Redis, Kind::Panic, 1),
    (Way::Redis, Kind::Fail, 1),
    (Way::Redis, Kind::Exit, 1),
    (Way::Redis, Kind::Damaged, 2),
    (Way::Redis, Kind::Bomb, 1),
    (Way::Redis, Kind::Avro, 1),
    (Way::Redis, Kind::Protobuf, 1),
    (Way::Jet, Kind::Plain, 40),
    (Way::Jet, Kind::Packed, 6),
    (Way::Jet, Kind::Large, 1),
    (Way::Jet, Kind::Header, 1),
    (Way::Jet, Kind::Panic, 1),
    (Way::Jet, Kind::Fail, 1),
    (Way::Jet, Kind::Damaged, 2),
    (Way::Jet, Kind::Bomb, 1),
    (Way::Jet, Kind::Avro, 1),
    (Way::Jet, Kind::Protobuf, 1),
    (Way::Table, Kind::Plain, 20),
    (Way::Table, Kind::Large, 1),
    (Way::Table, Kind::Header, 1),
];

/// Items of a round, in the order that the seed says, from a number on.
pub(super) fn round(rng: &mut StdRng, first: u64) -> Vec<Item> {
    let all = ROUND.iter().flat_map(|(way, kind, count)| (0..*count).map(|_| (*way, *kind)));
    let mut all: Vec<_> = all.collect();
    all.shuffle(rng);
    let numbered = (first..).zip(all);
    numbered.map(|(n, (way, kind))| Item { way, kind, n }).collect()
}

impl Item {
    /// Its message, to a queue of this name.
    pub(super) fn wire(&self, queue: &str) -> WireMessage {
        let name = self.to_string();
        let json = format!(r#"{{"order.placed":{{"what":"{name}","blob":""}}}}"#);
        let payload: Vec<u8> = match self.kind {
            Kind::Large => vec![b'x'; LARGE],
            Kind::Damaged => b"this was never compressed".to_vec(),
            Kind::Bomb => bomb(),
            Kind::Avro => avro_bomb(),
            Kind::Protobuf => protobuf_bomb(),
            Kind::Packed => json.repeat(50).into_bytes(),
            _ => json.into_bytes(),
        };
        let message = WireMessage::new(&Subject::of([queue, "n"]), name.clone(), payload)
            .header(NAME, name)
            .header(CONTENT_TYPE, "application/octet-stream");
        match self.kind {
            Kind::Damaged | Kind::Bomb => message.header(CONTENT_ENCODING, "gzip"),
            Kind::Header => message.header(BAD_HEADER, "c"),
            Kind::Packed => message.compress(&Compression::zstd()),
            _ => message,
        }
    }
}

/// 64 MiB of nothing, in 64 KiB.
fn bomb() -> Vec<u8> {
    let how = Compression::gzip();
    how.compress(&vec![0; 64 << 20].into()).1.to_vec()
}

/// An array of two billion values that take no bytes.
fn avro_bomb() -> Vec<u8> {
    let mut count = (2_000_000_000_u64) << 1;
    let mut bytes = Vec::new();
    while count >= 0x80 {
        bytes.push((count & 0x7f) as u8 | 0x80);
        count >>= 7;
    }
    bytes.extend([count as u8, 0]);
    bytes
}

/// A hundred thousand unknown fields, and one that is longer than what is left.
fn protobuf_bomb() -> Vec<u8> {
    let mut bytes = [0x78, 0x01].repeat(100_000);
    bytes.extend([0x0a, 0xff, 0xff, 0xff, 0x7f]);
    bytes
}
