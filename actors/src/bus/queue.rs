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
//! - What `send` has answered `Ok` to is in the queue, and stays there until each group that is
//!   known has acknowledged or refused it ([`Retention::Work`]), or until the queue is full and it
//!   is the oldest ([`Retention::Log`]), or it is too old.
//! - A message with an id that was sent within the dedupe window is not put in again. One that
//!   came without an id gets one that is the same with every delivery.
//! - Each group gets each message; within a group one member at a time has it. Messages come in
//!   the order in which they were sent, those that are delivered again later.
//! - A group is made by its first [`receive`](Receiver::receive), and a sender is not one. One that
//!   comes late begins with the oldest message that is there; one that is idle loses nothing and,
//!   in a queue of `Work`, keeps what it has not seen, until it is [removed](Queue::remove_group).
//! - A member that has a message and neither acknowledges nor extends it in time loses it to the
//!   next that asks; the count of deliveries goes up. It takes nothing back by being late.
//! - A message that cannot be sent is named by its error, those before it are in the queue, and
//!   none of its headers is lost or obeyed by the server on the way.
//! - A message [with a time to live](WireMessage::expires_after) is not delivered after it.
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

use super::wire::WireMessage;
use crate::event::Timestamp;
use crate::event::compression::CompressionError;

pub mod conformance;
mod error;
mod expiry;
pub mod in_process;
#[cfg(feature = "nats")]
pub mod nats;
mod options;
mod payload;
pub mod processor;
#[cfg(feature = "redis")]
pub mod redis;
pub mod replay;
#[cfg(any(feature = "nats", feature = "redis"))]
mod upkeep;

pub use error::{QueueError, SendError};
pub use expiry::TTL;
pub(super) use options::check_name;
pub use options::{QueueOptions, Retention};

/// A message in a receiver's hands.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Received {
    /// The message. Its id is never empty: where the sender gave none, it is made of the queue's
    /// own number for it, and the same with every delivery.
    pub message: WireMessage,
    /// How often it was delivered to this group, this time included.
    pub delivered: u64,
    /// When the broker took it, by the broker's clock; `None` if it does not say.
    pub at: Option<Timestamp>,
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

/// The result of sending.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct SentAll {
    /// The number of the last message in the queue. Numbers go up; a queue that lost messages has
    /// lower ones.
    pub last: u64,
    /// How many were there already.
    pub duplicates: u64,
}

/// How a group of receivers stands.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct GroupStatus {
    /// Its name.
    pub name: String,
    /// Messages that it has not acknowledged, those in flight included.
    pub waiting: u64,
    /// Messages that its members have now.
    pub in_flight: u64,
    /// When it was last given a message or acknowledged one; `None` if it never was, or the
    /// broker does not say.
    pub seen: Option<Timestamp>,
}

/// A queue: what is put into it, and the groups that receive from it. Cheap to open; the server is
/// asked with the first call.
pub trait Queue: Send + Sync + fmt::Debug {
    /// Puts messages into it. A sender belongs to no group.
    fn sender(&self) -> Arc<dyn Sender>;

    /// Takes messages out of it, as a member of a group. The group is made with the first
    /// [`receive`](Receiver::receive), begins with the oldest message that is there, and is known
    /// from then on until it is [removed](Self::remove_group), whether it has members or not.
    ///
    /// # Errors
    /// The name cannot be used.
    fn receiver(&self, group: &str) -> Result<Arc<dyn Receiver>, QueueError>;

    /// All groups that are known, by name.
    ///
    /// # Errors
    /// The queue cannot be reached.
    fn groups(&self) -> BoxFuture<'_, Result<Vec<GroupStatus>, QueueError>>;

    /// Forgets a group: what it has not handled is not kept for it any more. Answers whether it
    /// was known. A member that still receives makes it again, as a new one.
    ///
    /// # Errors
    /// The queue cannot be reached.
    fn remove_group<'a>(&'a self, group: &'a str) -> BoxFuture<'a, Result<bool, QueueError>>;
}

/// Puts messages into a queue.
///
/// All calls are safe to drop: a message that was being sent may be in the queue.
pub trait Sender: Send + Sync + fmt::Debug {
    /// Puts messages into it, in this order, and returns when the queue has all of them.
    ///
    /// # Errors
    /// Those before [`SendError::sent`] are in it; of the others it is unknown. To send them
    /// again is right.
    fn send<'a>(&'a self, messages: &'a [WireMessage])
    -> BoxFuture<'a, Result<SentAll, SendError>>;

    /// The number of the last message that was put in; 0 in the beginning. A sender that
    /// remembers a higher one knows that the queue has lost messages.
    ///
    /// # Errors
    /// The queue cannot be reached.
    fn tail(&self) -> BoxFuture<'_, Result<u64, QueueError>>;
}

/// Takes messages out of a queue, as a member of a group.
///
/// All calls are safe to drop: a message that was being received comes again when its time is
/// over.
pub trait Receiver: Send + Sync + fmt::Debug {
    /// Takes at most `max` messages, and waits up to `wait` for the first. None at all is not an
    /// error.
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

    /// More time for a message, as much as from the beginning. One that has been delivered to
    /// another member since stays with that one.
    ///
    /// # Errors
    /// The queue cannot be reached.
    fn extend<'a>(&'a self, receipt: &'a Receipt) -> BoxFuture<'a, Result<(), QueueError>>;

    /// Messages that this group has not acknowledged, those in flight included. A group that was
    /// not made yet has all that it would begin with before it.
    ///
    /// # Errors
    /// The queue cannot be reached.
    fn waiting(&self) -> BoxFuture<'_, Result<u64, QueueError>>;

    /// How long a message may take before it is delivered again.
    fn ack_within(&self) -> Duration;

    /// How large a payload may become when it is decompressed.
    fn read_limit(&self) -> usize;
}

/// Opens the queue at an address, and makes it if it is not there.
///
/// # Errors
/// The address or a name is none, the adapter is not in this program, or the server has something
/// else there. A server that is down is no error here: the first call waits for it.
pub async fn connect(url: &str, options: QueueOptions) -> Result<Arc<dyn Queue>, QueueError> {
    options.check()?;
    match url.split_once(':').map(|(scheme, _)| scheme) {
        Some("memory") => Ok(Arc::new(in_process::Broker::default().queue(options))),
        Some("nats") => nats_queue(url, options).await,
        Some("redis") => redis_queue(url, options).await,
        _ => Err(QueueError::Unknown { url: url.to_owned() }),
    }
}

#[cfg(feature = "nats")]
async fn nats_queue(url: &str, options: QueueOptions) -> Result<Arc<dyn Queue>, QueueError> {
    let unreachable = |error: crate::bus::broker::BrokerError| QueueError::Unreachable {
        queue: options.name.clone(),
        reason: error.to_string(),
    };
    let connection = nats::Connection::open(url).await.map_err(unreachable)?;
    Ok(Arc::new(connection.queue(options)))
}

#[cfg(not(feature = "nats"))]
async fn nats_queue(_: &str, _: QueueOptions) -> Result<Arc<dyn Queue>, QueueError> {
    Err(QueueError::NotBuilt { feature: "nats" })
}

#[cfg(feature = "redis")]
async fn redis_queue(url: &str, options: QueueOptions) -> Result<Arc<dyn Queue>, QueueError> {
    Ok(Arc::new(redis::RedisQueue::open(url, options).await?))
}

#[cfg(not(feature = "redis"))]
async fn redis_queue(_: &str, _: QueueOptions) -> Result<Arc<dyn Queue>, QueueError> {
    Err(QueueError::NotBuilt { feature: "redis" })
}
