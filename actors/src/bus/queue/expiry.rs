//! Messages that are worth nothing after a while.
//!
//! The time runs from when the queue takes the message, by the broker's own clock, so that the
//! clocks of senders and receivers do not matter. A message whose time is over when a receiver
//! would get it is acknowledged instead, for its group, and nobody is told: what must not be lost
//! has no such time. One that is in somebody's hands stays there.

use std::time::Duration;

#[cfg(any(feature = "nats", feature = "redis"))]
use futures_util::FutureExt;
#[cfg(any(feature = "nats", feature = "redis"))]
use futures_util::future::BoxFuture;

#[cfg(any(feature = "nats", feature = "redis"))]
use super::{QueueError, Receipt, Received, Receiver, Reject};
use crate::bus::wire::WireMessage;
#[cfg(any(feature = "nats", feature = "redis"))]
use crate::event::Timestamp;

/// For how many milliseconds after a queue has taken it a message is worth something.
pub const TTL: &str = "Smith-Ttl";

impl WireMessage {
    /// Lets it expire this long after a queue has taken it: then it is not delivered any more.
    #[must_use]
    pub fn expires_after(self, ttl: Duration) -> Self {
        self.header(TTL, ttl.as_millis())
    }

    /// How long after a queue has taken it it expires.
    pub(super) fn ttl(&self) -> Option<Duration> {
        self.headers.get(TTL)?.parse().ok().map(Duration::from_millis)
    }
}

/// The broker's clock.
#[cfg(any(feature = "nats", feature = "redis"))]
pub(super) trait BrokerTime: Receiver {
    /// What it shows now.
    fn time(&self) -> BoxFuture<'_, Result<Timestamp, QueueError>>;
}

/// A receiver that is not given what has expired.
#[cfg(any(feature = "nats", feature = "redis"))]
#[derive(Debug)]
pub(super) struct Unexpired<R>(pub(super) R);

#[cfg(any(feature = "nats", feature = "redis"))]
impl<R: BrokerTime> Unexpired<R> {
    /// Leaves out what has expired.
    async fn sift(&self, found: Vec<Received>) -> Result<Vec<Received>, QueueError> {
        if !found.iter().any(|one| one.message.ttl().is_some()) {
            return Ok(found);
        }
        let now = self.0.time().await?.as_micros();
        let expired = |one: &Received| match (one.at, one.message.ttl()) {
            (Some(at), Some(ttl)) => {
                let ttl = i64::try_from(ttl.as_micros()).unwrap_or(i64::MAX);
                at.as_micros().saturating_add(ttl) <= now
            }
            _ => false,
        };
        let (gone, left): (Vec<_>, Vec<_>) = found.into_iter().partition(expired);
        for one in gone {
            tracing::debug!(id = one.message.id, subject = one.message.subject, "expired");
            self.0.ack(&one.receipt).await?;
        }
        Ok(left)
    }
}

#[cfg(any(feature = "nats", feature = "redis"))]
impl<R: BrokerTime> Receiver for Unexpired<R> {
    fn receive(
        &self,
        max: usize,
        wait: Duration,
    ) -> BoxFuture<'_, Result<Vec<Received>, QueueError>> {
        async move {
            let until = tokio::time::Instant::now() + wait;
            loop {
                let left = until.saturating_duration_since(tokio::time::Instant::now());
                let found = self.0.receive(max, left).await?;
                if found.is_empty() {
                    return Ok(found);
                }
                let found = self.sift(found).await?;
                if !found.is_empty() {
                    return Ok(found);
                }
            }
        }
        .boxed()
    }

    fn ack<'a>(&'a self, receipt: &'a Receipt) -> BoxFuture<'a, Result<(), QueueError>> {
        self.0.ack(receipt)
    }

    fn reject<'a>(
        &'a self,
        receipt: &'a Receipt,
        reject: Reject,
    ) -> BoxFuture<'a, Result<(), QueueError>> {
        self.0.reject(receipt, reject)
    }

    fn extend<'a>(&'a self, receipt: &'a Receipt) -> BoxFuture<'a, Result<(), QueueError>> {
        self.0.extend(receipt)
    }

    fn waiting(&self) -> BoxFuture<'_, Result<u64, QueueError>> {
        self.0.waiting()
    }

    fn ack_within(&self) -> Duration {
        self.0.ack_within()
    }

    fn read_limit(&self) -> usize {
        self.0.read_limit()
    }
}
