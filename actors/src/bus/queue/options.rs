//! What a queue is, for all who open it.

use std::time::Duration;

use super::QueueError;
use crate::event::compression::{Compression, DEFAULT_READ_LIMIT};

/// Which queue, and what it may hold.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct QueueOptions {
    /// The queue's name: a JetStream stream, a Redis key. Letters, digits, `-` and `_`.
    pub name: String,
    /// Which subjects it holds; default: `NAME.>`. Only JetStream looks at it.
    pub subjects: Vec<String>,
    /// What is removed from it, and when.
    pub retention: Retention,
    /// Nobody else sends to it: then messages never change places, even if a connection breaks
    /// between two of one call.
    pub sole_sender: bool,
    /// How long a receiver may take before the message is delivered again; 30 s.
    pub ack_within: Duration,
    /// Within which time a repeat is known by its id; 2 minutes.
    pub dedupe_within: Duration,
    /// Messages that it holds at most; a million. What happens to one more, the retention says.
    pub max_messages: u64,
    /// Bytes that it holds at most; 1 GiB. Redis does not count them.
    pub max_bytes: u64,
    /// Messages that are older are removed, acknowledged or not; 7 days. Redis does not do it.
    pub max_age: Duration,
    /// On how many servers of a JetStream cluster it is; 1.
    pub replicas: usize,
    /// How payloads that are sent are compressed; not at all. Whatever it says, compressed
    /// payloads are recognised when they are received.
    pub compression: Compression,
    /// How large a payload may become when it is decompressed; 16 MiB. One that would be larger
    /// is received as it came, with the reason in
    /// [`Received::unreadable`](super::Received::unreadable).
    pub read_limit: usize,
}

/// What is removed from a queue, besides what is older than its
/// [`max_age`](QueueOptions::max_age).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Retention {
    /// What every group that is known has handled. A queue that is full of what some group has
    /// still to handle refuses more, so nothing is lost; a group that nobody is in any more has
    /// to be [removed](super::Queue::remove_group). Before the first group everything stays.
    #[default]
    Work,
    /// The oldest, once it is full: it never refuses. A group that comes late begins with the
    /// oldest that is there, and one that is too slow misses what was removed.
    Log,
}

impl QueueOptions {
    /// A queue, and the defaults.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        let name = name.into();
        Self {
            subjects: vec![format!("{name}.>")],
            name,
            retention: Retention::default(),
            sole_sender: false,
            ack_within: Duration::from_secs(30),
            dedupe_within: Duration::from_secs(120),
            max_messages: 1_000_000,
            max_bytes: 1 << 30,
            max_age: Duration::from_secs(7 * 86_400),
            replicas: 1,
            compression: Compression::none(),
            read_limit: DEFAULT_READ_LIMIT,
        }
    }

    /// Sets what is removed.
    #[must_use]
    pub fn retention(mut self, retention: Retention) -> Self {
        self.retention = retention;
        self
    }

    /// Says that nobody else sends to it.
    #[must_use]
    pub fn sole_sender(mut self) -> Self {
        self.sole_sender = true;
        self
    }

    /// Sets which subjects it holds.
    #[must_use]
    pub fn subjects<S: Into<String>>(mut self, subjects: impl IntoIterator<Item = S>) -> Self {
        self.subjects = subjects.into_iter().map(Into::into).collect();
        self
    }

    /// Sets how long a receiver may take.
    #[must_use]
    pub fn ack_within(mut self, time: Duration) -> Self {
        self.ack_within = time;
        self
    }

    /// Sets within which time a repeat is known.
    #[must_use]
    pub fn dedupe_within(mut self, time: Duration) -> Self {
        self.dedupe_within = time;
        self
    }

    /// Sets how many messages it holds at most.
    #[must_use]
    pub fn max_messages(mut self, messages: u64) -> Self {
        self.max_messages = messages;
        self
    }

    /// Sets how many bytes it holds at most.
    #[must_use]
    pub fn max_bytes(mut self, bytes: u64) -> Self {
        self.max_bytes = bytes;
        self
    }

    /// Sets how old a message may become.
    #[must_use]
    pub fn max_age(mut self, age: Duration) -> Self {
        self.max_age = age;
        self
    }

    /// Sets on how many servers of a cluster it is.
    #[must_use]
    pub fn replicas(mut self, servers: usize) -> Self {
        self.replicas = servers;
        self
    }

    /// Sets how payloads are compressed.
    #[must_use]
    pub fn compression(mut self, how: Compression) -> Self {
        self.compression = how;
        self
    }

    /// Sets how large a payload may become when it is decompressed.
    #[must_use]
    pub fn read_limit(mut self, bytes: usize) -> Self {
        self.read_limit = bytes;
        self
    }

    pub(in crate::bus) fn check(&self) -> Result<(), QueueError> {
        if !self.compression.encoding.is_built() {
            return Err(QueueError::NotBuilt { feature: "compression" });
        }
        check_name(&self.name)
    }
}

/// A name that every adapter takes, for a queue or a group.
pub(in crate::bus) fn check_name(name: &str) -> Result<(), QueueError> {
    let usual = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
    match !name.is_empty() && name.bytes().all(usual) {
        true => Ok(()),
        false => Err(QueueError::Name { name: name.to_owned() }),
    }
}
