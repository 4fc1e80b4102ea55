//! Out of the stream.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use async_nats::Subject;
use async_nats::client::RequestErrorKind;
use async_nats::jetstream::AckKind;
use async_nats::jetstream::consumer::PullConsumer;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt};
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::Opened;
use crate::bus::broker::nats::wire;
use crate::bus::queue::expiry::BrokerTime;
use crate::bus::queue::upkeep::Upkeep;
use crate::bus::queue::{QueueError, Receipt, Received, Receiver, Reject};
use crate::event::Timestamp;

/// How much longer than it was asked to the server may take.
const SLACK: Duration = Duration::from_secs(1);

/// The pause before a consumer is made again.
const PAUSE: Duration = Duration::from_millis(50);

pub(super) struct NatsReceiver {
    queue: Arc<Opened>,
    group: String,
    consumer: Mutex<Option<PullConsumer>>,
    /// When that was made, in microseconds: what tells it from one of the same name that the server
    /// has lost, whose numbers were those of other messages.
    made: AtomicI64,
    /// The server did not know the consumer: it is made again.
    stale: AtomicBool,
    upkeep: Upkeep,
}

/// Names one delivery: where it is acknowledged.
struct Ticket {
    queue: String,
    reply: Subject,
    /// When the consumer was made that delivered it.
    made: i64,
}

impl NatsReceiver {
    pub(super) fn new(queue: Arc<Opened>, group: &str) -> Self {
        Self {
            queue,
            group: group.to_owned(),
            consumer: Mutex::new(None),
            made: AtomicI64::new(0),
            stale: AtomicBool::new(false),
            upkeep: Upkeep::new(),
        }
    }

    async fn consumer(&self) -> Result<PullConsumer, QueueError> {
        let stale = self.stale.load(Ordering::Relaxed) || self.queue.stale.load(Ordering::Relaxed);
        let mut consumer = self.consumer.lock().await;
        if let Some(consumer) = &*consumer
            && !stale
        {
            self.queue.connected()?;
            return Ok(consumer.clone());
        }
        let fresh = self.queue.consumer(&self.group).await?;
        self.stale.store(false, Ordering::Relaxed);
        let made = fresh.cached_info().created.unix_timestamp_nanos() / 1_000;
        self.made.store(i64::try_from(made).unwrap_or(i64::MAX), Ordering::Release);
        *consumer = Some(fresh.clone());
        Ok(fresh)
    }

    /// What is there; if nothing is, what comes within a time.
    async fn fetch(&self, max: usize, wait: Duration) -> Result<Vec<Received>, QueueError> {
        let consumer = self.consumer().await?;
        let made = self.made.load(Ordering::Acquire);
        let mut found = Vec::new();
        let fetching = async {
            let fetch = consumer.fetch().max_messages(max);
            let fetch = if wait.is_zero() { fetch } else { fetch.expires(wait) };
            let batch = fetch.messages().await;
            let mut batch = batch.map_err(|error| self.queue.judge(error))?;
            while let Some(message) = batch.next().await {
                match message {
                    Ok(message) => found.extend(self.received(message, made)),
                    // What came is good; the rest comes again.
                    Err(error) if found.is_empty() => return Err(self.queue.judge(error)),
                    Err(_) => break,
                }
            }
            Ok(())
        };
        // A server that came back without the stream does not answer at all.
        match tokio::time::timeout(wait + SLACK, fetching).await {
            Ok(Err(error)) => Err(error),
            Err(_) if found.is_empty() => {
                Err(self.queue.failed(self.queue.unreachable("the server did not answer")))
            }
            _ => Ok(found),
        }
    }

    fn received(&self, message: async_nats::jetstream::Message, made: i64) -> Option<Received> {
        let info = message.info().ok()?;
        let delivered = u64::try_from(info.delivered).unwrap_or(1);
        let (number, nanos) = (info.stream_sequence, info.published.unix_timestamp_nanos());
        let micros = i64::try_from(nanos / 1_000).unwrap_or(i64::MAX);
        let reply = message.message.reply.clone()?;
        let mut wire = wire(message.message);
        let name = &self.queue.options.name;
        if wire.id.is_empty() {
            // With the time: a stream that was lost begins again with its numbers.
            wire.id = format!("{name}:{number}:{micros}");
        }
        let receipt = Receipt(Arc::new(Ticket { queue: name.clone(), reply, made }));
        let at = Some(Timestamp::from_micros(micros));
        Some(self.queue.options.unpacked(wire, delivered, at, receipt))
    }

    async fn settle(&self, receipt: &Receipt, kind: AckKind) -> Result<(), QueueError> {
        let wrong = || QueueError::Receipt { queue: self.queue.options.name.clone() };
        let ticket = receipt.0.downcast_ref::<Ticket>().ok_or_else(wrong)?;
        if ticket.queue != self.queue.options.name {
            return Err(wrong());
        }
        if ticket.made != self.made.load(Ordering::Acquire) {
            // Its number may be that of another message by now.
            return Err(self.queue.unreachable("the server had lost the group; it comes again"));
        }
        self.queue.connected()?;
        let done = matches!(kind, AckKind::Ack | AckKind::Term);
        // The answer comes to the inbox that all requests share: a subscription for each would
        // cost as much again.
        let client = &self.queue.connection.client;
        let settled = client.request(ticket.reply.clone(), Bytes::from(kind)).await;
        if let Err(error) = settled {
            if error.kind() == RequestErrorKind::NoResponders {
                // The server has lost the group. Who has his hands full does not ask for more, and
                // what comes meanwhile would be removed when the other groups have handled it.
                self.stale.store(true, Ordering::Relaxed);
                let _ = self.consumer().await;
            }
            return Err(self.queue.unreachable(error));
        }
        if done {
            self.upkeep.settled();
        }
        Ok(())
    }
}

impl BrokerTime for NatsReceiver {
    fn time(&self) -> BoxFuture<'_, Result<Timestamp, QueueError>> {
        self.queue.server_time().boxed()
    }
}

impl Receiver for NatsReceiver {
    fn receive(
        &self,
        max: usize,
        wait: Duration,
    ) -> BoxFuture<'_, Result<Vec<Received>, QueueError>> {
        async move {
            if self.upkeep.is_due() {
                self.queue.tidy(false).await;
            }
            let began = Instant::now();
            let found = self.fetch(max, wait).await?;
            if found.is_empty() && began.elapsed() < wait / 2 {
                // The server ends a wait at once, and without an error, when it does not know the
                // consumer (any more).
                self.stale.store(true, Ordering::Relaxed);
                tokio::time::sleep(PAUSE.min(wait)).await;
            }
            Ok(found)
        }
        .boxed()
    }

    fn ack<'a>(&'a self, receipt: &'a Receipt) -> BoxFuture<'a, Result<(), QueueError>> {
        self.settle(receipt, AckKind::Ack).boxed()
    }

    fn reject<'a>(
        &'a self,
        receipt: &'a Receipt,
        reject: Reject,
    ) -> BoxFuture<'a, Result<(), QueueError>> {
        let kind = match reject {
            Reject::Later(after) => AckKind::Nak(Some(after)),
            Reject::Never => AckKind::Term,
        };
        self.settle(receipt, kind).boxed()
    }

    fn extend<'a>(&'a self, receipt: &'a Receipt) -> BoxFuture<'a, Result<(), QueueError>> {
        self.settle(receipt, AckKind::Progress).boxed()
    }

    fn waiting(&self) -> BoxFuture<'_, Result<u64, QueueError>> {
        async {
            let groups = self.queue.groups().await?;
            if let Some(group) = groups.iter().find(|group| group.name == self.group) {
                return Ok(group.waiting);
            }
            let stream = self.queue.stream().await?;
            let info = stream.get_info().await.map_err(|error| self.queue.judge(error))?;
            Ok(info.state.messages)
        }
        .boxed()
    }

    fn ack_within(&self) -> Duration {
        self.queue.options.ack_within
    }

    fn read_limit(&self) -> usize {
        self.queue.options.read_limit
    }
}

impl fmt::Debug for NatsReceiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NatsReceiver")
            .field("queue", &self.queue)
            .field("group", &self.group)
            .finish_non_exhaustive()
    }
}
