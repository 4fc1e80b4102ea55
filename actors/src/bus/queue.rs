//! Message queues: send, receive, acknowledge, reject; in process, on NATS JetStream, on Redis
//! streams.
//!
//! | adapter | address | when |
//! |---|---|---|
//! | [`in_process`] | `memory:` | one process; nothing survives it |
//! | `nats` (feature) | `nats://HOST:PORT` | between services |
//! | `redis` (feature) | `redis://HOST:PORT` | where Redis is there already |
//!
//! The promises, each a law of [`conformance`]:
//!
//! - What `send` has answered `Ok` to is in the queue, and stays there until each group has
//!   acknowledged or refused it, or it is too old.
//! - A message with an id that was sent within the dedupe window is not put in again.
//! - Each group gets each message; within a group one member at a time has it. Messages come in
//!   the order in which they were sent, those that are delivered again later.
//! - Who has a message and neither acknowledges nor extends it in time loses it to the next who
//!   asks; the count of deliveries goes up.
//!
//! - A payload arrives as it was sent, also when [`QueueOptions::compression`] made it smaller on
//!   the way. One that would become larger than [`QueueOptions::read_limit`], or that is damaged,
//!   arrives as it is, and says why.
//!
//! Delivery is at least once. For "once in effect" the receiver keeps an
//! inbox, or sends a command with the message's id as its key.

use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use mister_smith_supervisors::ErrorClass;

use super::wire::WireMessage;
use crate::event::compression::{Compression, CompressionError, DEFAULT_READ_LIMIT};

pub mod conformance;
pub mod in_process;
#[cfg(feature = "nats")]
pub mod nats;
mod payload;
pub mod processor;
#[cfg(feature = "redis")]
pub mod redis;
pub mod replay;

/// Which queue, for whom, and what it may hold.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct QueueOptions {
    /// The queue's name: a JetStream stream, a Redis key. Letters, digits, `-` and `_`.
    pub name: String,
    /// Which subjects it holds; `NAME.>` unless said otherwise. Only JetStream looks at it.
    pub subjects: Vec<String>,
    /// Who receives together: each group gets each message.
    pub group: String,
    /// What is removed from it.
    pub keep: Keep,
    /// Nobody else sends to it: then messages never change places, even if a connection breaks
    /// between two of one call.
    pub sole_sender: bool,
    /// How long a receiver may take before the message is delivered again; 30 s.
    pub ack_within: Duration,
    /// Within which time a repeat is known by its id; 2 minutes.
    pub dedupe_within: Duration,
    /// Messages that it holds at most; one more is refused. A million.
    pub max_messages: u64,
    /// Bytes that it holds at most; 1 GiB. Only JetStream counts them.
    pub max_bytes: u64,
    /// Messages that are older are removed, acknowledged or not; 7 days. Redis does not do it.
    pub max_age: Duration,
    /// On how many servers of a JetStream cluster it is; 1.
    pub replicas: usize,
    /// How payloads that are sent are compressed; not at all. Whatever it says, compressed
    /// payloads are recognised when they are received.
    pub compression: Compression,
    /// How large a payload may become when it is decompressed; 16 MiB. One that would be larger
    /// is received as it came, with the reason in [`Received::unreadable`].
    pub read_limit: usize,
}

impl QueueOptions {
    /// A queue and a group, and the defaults.
    #[must_use]
    pub fn new(name: impl Into<String>, group: impl Into<String>) -> Self {
        let name = name.into();
        Self {
            subjects: vec![format!("{name}.>")],
            name,
            group: group.into(),
            keep: Keep::default(),
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

    /// Keeps what was handled too, until it is too old.
    #[must_use]
    pub fn keep_everything(mut self) -> Self {
        self.keep = Keep::Everything;
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

    pub(super) fn check(&self) -> Result<(), QueueError> {
        if !self.compression.encoding.is_built() {
            return Err(QueueError::NotBuilt { feature: "compression" });
        }
        let odd = |text: &str| {
            text.is_empty()
                || !text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
        };
        match [&self.name, &self.group].into_iter().find(|text| odd(text)) {
            Some(text) => Err(QueueError::Name { name: text.clone() }),
            None => Ok(()),
        }
    }
}

/// What is removed from a queue, besides what is too old.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Keep {
    /// What all groups have handled. A group that comes later does not see it.
    #[default]
    UntilHandled,
    /// Nothing: a group that comes later begins with the oldest.
    Everything,
}

/// A message in a receiver's hands.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Received {
    /// The message.
    pub message: WireMessage,
    /// How often it was delivered to this group, this time included.
    pub delivered: u64,
    /// What to acknowledge it with.
    pub receipt: Receipt,
    /// Why the payload is still compressed: it cannot be decompressed within the limit.
    pub unreadable: Option<CompressionError>,
}

/// Names one delivery of one message to its queue.
#[derive(Clone)]
pub struct Receipt(pub(super) Arc<dyn Any + Send + Sync>);

impl fmt::Debug for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Receipt")
    }
}

/// What becomes of a message that a receiver does not want.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reject {
    /// It is delivered again after this long.
    Later(Duration),
    /// It is never delivered to this group again.
    Never,
}

/// What came of sending.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct SentAll {
    /// The number of the last message in the queue. Numbers go up; a queue that lost messages has
    /// lower ones.
    pub last: u64,
    /// How many were there already.
    pub duplicates: u64,
}

/// A queue, as one group sees it.
///
/// All calls are safe to drop: a message that was being sent may be in the queue, one that was
/// being received comes again when its time is over.
pub trait MessageQueue: Send + Sync + fmt::Debug {
    /// Puts messages into it, in this order, and returns when the queue has all of them.
    ///
    /// # Errors
    /// Those before [`SendError::sent`] are in it; of the others one does not know. To send them
    /// again is right.
    fn send<'a>(&'a self, messages: &'a [WireMessage])
    -> BoxFuture<'a, Result<SentAll, SendError>>;

    /// Takes at most `max` messages, and waits up to `wait` for the first. None is no error.
    ///
    /// # Errors
    /// The queue cannot be reached.
    fn receive(
        &self,
        max: usize,
        wait: Duration,
    ) -> BoxFuture<'_, Result<Vec<Received>, QueueError>>;

    /// A message was handled.
    ///
    /// # Errors
    /// The queue cannot be reached: it may be delivered again.
    fn ack<'a>(&'a self, receipt: &'a Receipt) -> BoxFuture<'a, Result<(), QueueError>>;

    /// A message was not handled.
    ///
    /// # Errors
    /// The queue cannot be reached: it is delivered again when its time is over.
    fn reject<'a>(
        &'a self,
        receipt: &'a Receipt,
        reject: Reject,
    ) -> BoxFuture<'a, Result<(), QueueError>>;

    /// More time for a message, as much as from the beginning.
    ///
    /// # Errors
    /// The queue cannot be reached.
    fn extend<'a>(&'a self, receipt: &'a Receipt) -> BoxFuture<'a, Result<(), QueueError>>;

    /// The number of the last message that was put in; 0 in the beginning. A sender that
    /// remembers a higher one knows that the queue has lost messages.
    ///
    /// # Errors
    /// The queue cannot be reached.
    fn tail(&self) -> BoxFuture<'_, Result<u64, QueueError>>;

    /// Messages that this group has not acknowledged, those in somebody's hands included.
    ///
    /// # Errors
    /// The queue cannot be reached.
    fn waiting(&self) -> BoxFuture<'_, Result<u64, QueueError>>;

    /// How large a payload may become when it is decompressed.
    fn read_limit(&self) -> usize {
        DEFAULT_READ_LIMIT
    }
}

/// Messages were not all sent.
#[derive(Debug, thiserror::Error)]
#[error("{sent} messages are in the queue, then: {source}")]
pub struct SendError {
    /// How many are in it for sure, from the first.
    pub sent: usize,
    /// The highest number of those, 0 if there is none.
    pub last: u64,
    /// What happened to the next one.
    pub source: QueueError,
}

impl SendError {
    /// The error of what was left after another one.
    #[cfg(any(feature = "nats", feature = "redis"))]
    fn after(mut self, before: &Self) -> Self {
        self.sent += before.sent;
        self.last = self.last.max(before.last);
        self
    }
}

/// A fault of a queue.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QueueError {
    /// The name is none.
    #[error("{name:?} is no name of a queue or a group; use letters, digits, - and _")]
    Name {
        /// The name.
        name: String,
    },
    /// The address names no queue that this program knows.
    #[error(
        "{url} is not the address of a queue; give memory:, nats://HOST:PORT or redis://HOST:PORT"
    )]
    Unknown {
        /// The address.
        url: String,
    },
    /// The adapter was left out of this program.
    #[error("built without feature `{feature}`; rebuild with `--features {feature}`")]
    NotBuilt {
        /// What brings it.
        feature: &'static str,
    },
    /// It holds as much as it may.
    #[error("queue {queue} is full ({detail}); receive faster, or let it hold more")]
    Full {
        /// The queue.
        queue: String,
        /// Of what.
        detail: String,
    },
    /// A message is larger than the server takes.
    #[error("a message of {bytes} bytes is too large for queue {queue}")]
    TooLarge {
        /// The queue.
        queue: String,
        /// How large it is.
        bytes: usize,
    },
    /// The server cannot be reached.
    #[error("queue {queue} cannot be reached: {reason}; it is tried again")]
    Unreachable {
        /// The queue.
        queue: String,
        /// What happened.
        reason: String,
    },
    /// The server has something else under that name, or refuses.
    #[error("queue {queue}: {reason}")]
    Refused {
        /// The queue.
        queue: String,
        /// What the server said.
        reason: String,
    },
    /// A receipt of another queue.
    #[error("the receipt is not of queue {queue}")]
    Receipt {
        /// The queue.
        queue: String,
    },
}

impl QueueError {
    /// How to react.
    #[must_use]
    pub const fn class(&self) -> ErrorClass {
        match self {
            Self::Full { .. } | Self::Unreachable { .. } => ErrorClass::Transient,
            Self::Name { .. }
            | Self::Unknown { .. }
            | Self::NotBuilt { .. }
            | Self::TooLarge { .. }
            | Self::Receipt { .. } => ErrorClass::User,
            Self::Refused { .. } => ErrorClass::Permanent,
        }
    }
}

/// Opens the queue at an address, and makes it if it is not there.
///
/// # Errors
/// The address or a name is none, the adapter is not in this program, or the server has something
/// else there. A server that is down is no error here: the first call waits for it.
pub async fn connect(
    url: &str,
    options: QueueOptions,
) -> Result<Arc<dyn MessageQueue>, QueueError> {
    options.check()?;
    match url.split_once(':').map(|(scheme, _)| scheme) {
        Some("memory") => Ok(Arc::new(in_process::Broker::default().queue(options))),
        Some("nats") => nats_queue(url, options).await,
        Some("redis") => redis_queue(url, options).await,
        _ => Err(QueueError::Unknown { url: url.to_owned() }),
    }
}

#[cfg(feature = "nats")]
async fn nats_queue(url: &str, options: QueueOptions) -> Result<Arc<dyn MessageQueue>, QueueError> {
    let unreachable = |error: crate::bus::broker::BrokerError| QueueError::Unreachable {
        queue: options.name.clone(),
        reason: error.to_string(),
    };
    let connection = nats::Connection::open(url).await.map_err(unreachable)?;
    Ok(Arc::new(connection.queue(options)))
}

#[cfg(not(feature = "nats"))]
async fn nats_queue(_: &str, _: QueueOptions) -> Result<Arc<dyn MessageQueue>, QueueError> {
    Err(QueueError::NotBuilt { feature: "nats" })
}

#[cfg(feature = "redis")]
async fn redis_queue(
    url: &str,
    options: QueueOptions,
) -> Result<Arc<dyn MessageQueue>, QueueError> {
    Ok(Arc::new(redis::RedisQueue::open(url, options).await?))
}

#[cfg(not(feature = "redis"))]
async fn redis_queue(_: &str, _: QueueOptions) -> Result<Arc<dyn MessageQueue>, QueueError> {
    Err(QueueError::NotBuilt { feature: "redis" })
}
