//! From the log, and from an application's own transactions, to wherever messages go.
//!
//! The log in the order of its commits is an outbox already: an event that is in it will be sent,
//! and one that is not will not. The [`relay`] follows it, sends each event as a message, and
//! keeps how far it is; what it had sent without knowing is sent again, under the same id. So a
//! message arrives at least once, in the order of the log, and whoever receives it tells a repeat
//! by its id: the queue itself within its window, an inbox
//! ([`store::messages`](crate::store::messages)) or a command's key for ever.
//!
//! ```text
//! commit ─▶ log ──────▶ relay ─▶ outlet: a queue (JetStream, Redis, in process), or the bus
//! commit ─▶ outbox table ─▶ table relay ─▶ a queue
//! ```

use std::fmt;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use mister_smith_supervisors::ErrorClass;
use uuid::Uuid;

use crate::bus::queue::{Sender, SentAll};
use crate::bus::wire::WireMessage;
use crate::bus::{EventBus, NewMessage, Subject};
use crate::event::RecordedEvent;

mod refused;
pub mod relay;
pub mod table;

pub use refused::Letters;

#[cfg(test)]
mod tests;

/// Where a relay sends events.
pub trait Outlet: Send + Sync + fmt::Debug {
    /// Sends events of a log, in this order.
    ///
    /// # Errors
    /// Those before [`OutletError::sent`] have arrived.
    fn send<'a>(
        &'a self,
        store: Uuid,
        events: &'a [(Subject, RecordedEvent)],
    ) -> BoxFuture<'a, Result<SentAll, OutletError>>;

    /// The number of the last message that is there; `None` if it does not count.
    ///
    /// # Errors
    /// It cannot be reached.
    fn tail(&self) -> BoxFuture<'_, Result<Option<u64>, OutletError>>;
}

/// Events did not all arrive.
#[derive(Debug, thiserror::Error)]
#[error("{reason}")]
pub struct OutletError {
    /// How many have, from the first.
    pub sent: usize,
    /// What is known of those.
    pub done: SentAll,
    /// The next one will never be taken, and others may: it becomes a dead letter.
    pub refused: bool,
    /// What happened to the next one.
    pub reason: String,
    /// How to react. What is not transient is said in the relay's health.
    pub class: ErrorClass,
}

/// The subject of an event, or that it is not sent.
pub type SubjectOf = Arc<dyn Fn(&RecordedEvent) -> Option<Subject> + Send + Sync>;

/// `PREFIX.CATEGORY.TYPE`: with the prefix `events`, `account.opened` of stream `account-17` is
/// published to `events.account.account.opened`.
pub fn subject_under(prefix: &str) -> SubjectOf {
    let prefix = prefix.to_owned();
    Arc::new(move |event| Some(Subject::of([&*prefix, event.stream.category(), &event.event_type])))
}

/// A queue.
#[derive(Debug)]
pub struct QueueOutlet {
    queue: Arc<dyn Sender>,
}

impl QueueOutlet {
    /// Sends the events of a log to a queue.
    #[must_use]
    pub fn new(queue: Arc<dyn Sender>) -> Self {
        Self { queue }
    }
}

impl Outlet for QueueOutlet {
    fn send<'a>(
        &'a self,
        store: Uuid,
        events: &'a [(Subject, RecordedEvent)],
    ) -> BoxFuture<'a, Result<SentAll, OutletError>> {
        async move {
            let messages: Vec<_> = events
                .iter()
                .map(|(subject, event)| WireMessage::recorded(store, subject, event))
                .collect();
            self.queue.send(&messages).await.map_err(|error| OutletError {
                sent: error.sent,
                done: error.done(),
                refused: error.source.is_of_the_message(),
                class: error.source.class(),
                reason: error.source.to_string(),
            })
        }
        .boxed()
    }

    fn tail(&self) -> BoxFuture<'_, Result<Option<u64>, OutletError>> {
        async {
            let tail = self.queue.tail().await;
            tail.map(Some).map_err(|error| OutletError {
                sent: 0,
                done: SentAll::default(),
                refused: false,
                class: error.class(),
                reason: error.to_string(),
            })
        }
        .boxed()
    }
}

/// The bus of this node. What is in a mailbox is as good as sent: who must not lose an event when
/// the node ends follows the log, or a queue.
#[derive(Debug)]
pub struct BusOutlet {
    bus: EventBus,
}

impl BusOutlet {
    /// Publishes events on a bus.
    #[must_use]
    pub fn new(bus: EventBus) -> Self {
        Self { bus }
    }
}

impl Outlet for BusOutlet {
    fn send<'a>(
        &'a self,
        _: Uuid,
        events: &'a [(Subject, RecordedEvent)],
    ) -> BoxFuture<'a, Result<SentAll, OutletError>> {
        async move {
            for (subject, event) in events {
                // Who has no room is cut off, and shown so: it does not hold up the others.
                let _ = self.bus.publish(NewMessage::recorded(subject.clone(), event)).await;
            }
            Ok(SentAll::default())
        }
        .boxed()
    }

    fn tail(&self) -> BoxFuture<'_, Result<Option<u64>, OutletError>> {
        async { Ok(None) }.boxed()
    }
}
