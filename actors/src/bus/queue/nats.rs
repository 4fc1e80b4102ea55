//! Queues on NATS JetStream: a stream a queue, a durable pull consumer a group.
//!
//! JetStream acknowledges before it has synced (about every two minutes, nats-server #7564), so a
//! power cut can take what was acknowledged; the death of the process does not. What must survive
//! that is in a store first, and [the relay](crate::outbox) sends it again when the stream's last
//! number has gone back ([`tail`](MessageQueue::tail)).
//!
//! The client says `Ok` to a publish while it is not connected, and drops what a slow subscriber
//! does not take. Neither concerns these queues: a message counts as sent when the stream has
//! acknowledged it, and pull consumers are asked for as much as there is room for.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use async_nats::jetstream::AckKind;
use async_nats::jetstream::consumer::{AckPolicy, PullConsumer, pull};
use async_nats::jetstream::context::PublishErrorKind;
use async_nats::jetstream::message::{Acker, PublishMessage};
use async_nats::jetstream::stream::{Config, DiscardPolicy, RetentionPolicy, StorageType, Stream};
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt};
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::{
    Keep, MessageQueue, QueueError, QueueOptions, Receipt, Received, Reject, SendError, SentAll,
};
pub use crate::bus::broker::nats::Connection;
use crate::bus::broker::nats::{headers, wire};
use crate::bus::wire::WireMessage;

/// Messages that are on their way to the stream at once.
const WINDOW: usize = 256;

/// Handled messages are removed after this many acknowledgements.
const PURGE_EVERY: u64 = 256;

/// How much longer than it was asked to the server may take.
const SLACK: Duration = Duration::from_secs(1);

/// The pause before a consumer is made again.
const PAUSE: Duration = Duration::from_millis(50);

impl Connection {
    /// A queue, as one group sees it. Stream and consumer are made, or brought to these options,
    /// with the first call.
    #[must_use]
    pub fn queue(&self, options: QueueOptions) -> NatsQueue {
        NatsQueue {
            connection: self.clone(),
            options,
            open: Mutex::new(None),
            stale: AtomicBool::new(false),
            done: AtomicU64::new(0),
        }
    }
}

/// See the [module](self).
pub struct NatsQueue {
    connection: Connection,
    options: QueueOptions,
    open: Mutex<Option<Open>>,
    /// The server did not know the stream or the consumer: they are made again.
    stale: AtomicBool,
    done: AtomicU64,
}

#[derive(Clone)]
struct Open {
    stream: Stream,
    consumer: PullConsumer,
}

impl NatsQueue {
    fn unreachable(&self, reason: impl ToString) -> QueueError {
        QueueError::Unreachable { queue: self.options.name.clone(), reason: reason.to_string() }
    }

    fn refused(&self, reason: impl ToString) -> QueueError {
        QueueError::Refused { queue: self.options.name.clone(), reason: reason.to_string() }
    }

    fn connected(&self) -> Result<(), QueueError> {
        match self.connection.is_connected() {
            true => Ok(()),
            false => Err(self.unreachable(format!("no connection to {}", self.connection.url))),
        }
    }

    /// Something is not as it was: look again before the next call.
    fn failed(&self, error: QueueError) -> QueueError {
        self.stale.store(true, Ordering::Relaxed);
        error
    }

    fn config(&self) -> Config {
        let QueueOptions { name, subjects, .. } = &self.options;
        let bound = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        Config {
            name: name.clone(),
            subjects: subjects.clone(),
            // Not by interest: a server that was killed can come back without a consumer, and
            // then throws away what it acknowledges. What was handled is purged by us.
            retention: RetentionPolicy::Limits,
            // What does not fit is refused, so that its sender knows; nothing is thrown away.
            discard: DiscardPolicy::New,
            storage: StorageType::File,
            max_messages: bound(self.options.max_messages),
            max_bytes: bound(self.options.max_bytes),
            max_age: self.options.max_age,
            num_replicas: self.options.replicas,
            duplicate_window: self.options.dedupe_within.min(self.options.max_age),
            ..Config::default()
        }
    }

    async fn open(&self) -> Result<Open, QueueError> {
        self.connected()?;
        let mut open = self.open.lock().await;
        if let Some(open) = &*open
            && !self.stale.load(Ordering::Relaxed)
        {
            return Ok(open.clone());
        }
        let (context, wanted) = (&self.connection.context, self.config());
        let stream = context
            .get_or_create_stream(wanted.clone())
            .await
            .map_err(|error| self.judge(error.to_string()))?;
        if differs(&stream.cached_info().config, &wanted) {
            // Retention cannot be changed on a stream that is there; the server says so.
            context.update_stream(&wanted).await.map_err(|error| self.judge(error.to_string()))?;
        }
        let consumer = pull::Config {
            durable_name: Some(self.options.group.clone()),
            ack_policy: AckPolicy::Explicit,
            ack_wait: self.options.ack_within,
            // The receiver counts deliveries and gives up by itself, so that nothing is dropped
            // by the server without a dead letter.
            max_deliver: -1,
            max_ack_pending: 20_000,
            ..pull::Config::default()
        };
        let consumer = stream
            .create_consumer(consumer)
            .await
            .map_err(|error| self.judge(error.to_string()))?;
        self.stale.store(false, Ordering::Relaxed);
        let fresh = Open { stream, consumer };
        *open = Some(fresh.clone());
        Ok(fresh)
    }

    /// What the server said no to, and what did not reach it.
    fn judge(&self, reason: String) -> QueueError {
        let lost = ["timed out", "no responders", "broken pipe", "disconnected", "unavailable"];
        match lost.iter().any(|word| reason.contains(word)) {
            true => self.failed(self.unreachable(reason)),
            false => self.failed(self.refused(reason)),
        }
    }

    fn publish_error(
        &self,
        message: &WireMessage,
        error: async_nats::jetstream::context::PublishError,
    ) -> QueueError {
        let queue = self.options.name.clone();
        let text = format!("{error}");
        match error.kind() {
            PublishErrorKind::MaxPayloadExceeded => {
                QueueError::TooLarge { queue, bytes: message.size() }
            }
            PublishErrorKind::StreamNotFound
            | PublishErrorKind::TimedOut
            | PublishErrorKind::BrokenPipe
            | PublishErrorKind::MaxAckPending
            | PublishErrorKind::WrongLastMessageId
            | PublishErrorKind::WrongLastSequence => self.failed(self.unreachable(text)),
            PublishErrorKind::Other => {
                let source = std::error::Error::source(&error).map(ToString::to_string);
                let text = source.map_or(text.clone(), |source| format!("{text}: {source}"));
                match text.contains("exceeded") {
                    true => QueueError::Full { queue, detail: text },
                    false => self.failed(self.unreachable(text)),
                }
            }
        }
    }

    fn outgoing(&self, message: &WireMessage, before: Option<&WireMessage>) -> PublishMessage {
        let publish = PublishMessage::build()
            .payload(message.payload.clone())
            .headers(headers(message))
            .message_id(&message.id);
        match before {
            // A message whose predecessor got lost on the way is refused: it does not overtake.
            Some(before) if self.options.sole_sender => {
                publish.expected_last_message_id(&before.id)
            }
            _ => publish,
        }
    }

    async fn publish(&self, messages: &[WireMessage]) -> Result<SentAll, SendError> {
        let mut done = SentAll::default();
        let failed = |sent, done: SentAll, source| SendError { sent, last: done.last, source };
        self.open().await.map_err(|source| failed(0, done, source))?;
        let mut sent = 0;
        for window in messages.chunks(WINDOW) {
            let mut acks = Vec::with_capacity(window.len());
            let mut trouble = None;
            for (n, message) in window.iter().enumerate() {
                let before = (sent + n).checked_sub(1).map(|before| &messages[before]);
                let publish = self.outgoing(message, before);
                let sending =
                    self.connection.context.send_publish(message.subject.clone(), publish);
                match sending.await {
                    Ok(ack) => acks.push(ack),
                    Err(error) => {
                        trouble = Some(self.publish_error(message, error));
                        break;
                    }
                }
            }
            for (ack, message) in acks.into_iter().zip(window) {
                match ack.await {
                    Ok(ack) => {
                        sent += 1;
                        done.last = done.last.max(ack.sequence);
                        done.duplicates += u64::from(ack.duplicate);
                    }
                    Err(error) => {
                        return Err(failed(sent, done, self.publish_error(message, error)));
                    }
                }
            }
            if let Some(source) = trouble {
                return Err(failed(sent, done, source));
            }
        }
        Ok(done)
    }

    async fn fetch(
        &self,
        consumer: &PullConsumer,
        max: usize,
        wait: Option<Duration>,
    ) -> Result<Vec<Received>, QueueError> {
        let mut found = Vec::new();
        let fetching = async {
            let batch = match wait {
                None => consumer.fetch().max_messages(max).messages().await,
                Some(wait) => consumer.batch().max_messages(1).expires(wait).messages().await,
            };
            let mut batch = batch.map_err(|error| self.judge(error.to_string()))?;
            while let Some(message) = batch.next().await {
                match message {
                    Ok(message) => found.push(self.received(message)),
                    // What came is good; the rest comes again.
                    Err(error) if found.is_empty() => return Err(self.judge(error.to_string())),
                    Err(_) => break,
                }
            }
            Ok(())
        };
        // A server that came back without the stream does not answer at all.
        let fetched = tokio::time::timeout(wait.unwrap_or_default() + SLACK, fetching).await;
        match fetched {
            Ok(Err(error)) => Err(error),
            Err(_) if found.is_empty() => {
                Err(self.failed(self.unreachable("the server did not answer")))
            }
            _ => Ok(found),
        }
    }

    fn received(&self, message: async_nats::jetstream::Message) -> Received {
        let delivered = message.info().map_or(1, |info| u64::try_from(info.delivered).unwrap_or(1));
        let (message, acker) = message.split();
        self.options.unpacked(wire(message), delivered, Receipt(Arc::new(acker)))
    }

    async fn settle(&self, receipt: &Receipt, kind: AckKind) -> Result<(), QueueError> {
        let wrong = || QueueError::Receipt { queue: self.options.name.clone() };
        let acker = receipt.0.downcast_ref::<Acker>().ok_or_else(wrong)?;
        self.connected()?;
        let done = matches!(kind, AckKind::Ack | AckKind::Term);
        acker.double_ack_with(kind).await.map_err(|error| self.unreachable(error))?;
        if done && self.done.fetch_add(1, Ordering::Relaxed) % PURGE_EVERY == PURGE_EVERY - 1 {
            self.purge().await;
        }
        Ok(())
    }

    /// Removes what all groups have handled.
    async fn purge(&self) {
        if self.options.keep == Keep::Everything {
            return;
        }
        let Ok(open) = self.open().await else { return };
        let mut least = u64::MAX;
        let mut consumers = open.stream.consumers();
        while let Some(consumer) = consumers.next().await {
            match consumer {
                Ok(info) => least = least.min(info.ack_floor.stream_sequence),
                // Without all of them one does not know.
                Err(_) => return,
            }
        }
        if least == u64::MAX || least == 0 {
            return;
        }
        if let Err(error) = open.stream.purge().sequence(least + 1).await {
            tracing::debug!(queue = self.options.name, %error, "not purged");
        }
    }
}

/// Whether a stream has to be changed to be as it is wanted.
fn differs(is: &Config, wanted: &Config) -> bool {
    is.subjects != wanted.subjects
        || is.retention != wanted.retention
        || is.discard != wanted.discard
        || is.max_messages != wanted.max_messages
        || is.max_bytes != wanted.max_bytes
        || is.max_age != wanted.max_age
        || is.num_replicas != wanted.num_replicas
        || is.duplicate_window != wanted.duplicate_window
}

impl MessageQueue for NatsQueue {
    fn send<'a>(
        &'a self,
        messages: &'a [WireMessage],
    ) -> BoxFuture<'a, Result<SentAll, SendError>> {
        async move {
            let messages = self.options.packed(messages);
            match self.publish(&messages).await {
                // It may be full of what is handled already.
                Err(error) if matches!(error.source, QueueError::Full { .. }) => {
                    self.purge().await;
                    let rest = self.publish(&messages[error.sent..]).await;
                    rest.map_err(|again| again.after(&error))
                }
                done => done,
            }
        }
        .boxed()
    }

    fn receive(
        &self,
        max: usize,
        wait: Duration,
    ) -> BoxFuture<'_, Result<Vec<Received>, QueueError>> {
        async move {
            let open = self.open().await?;
            let now = self.fetch(&open.consumer, max, None).await?;
            if !now.is_empty() || wait.is_zero() {
                return Ok(now);
            }
            let began = Instant::now();
            let mut first = self.fetch(&open.consumer, 1, Some(wait)).await?;
            if first.is_empty() && began.elapsed() < wait / 2 {
                // The server ends a wait at once, and without an error, when it does not know the
                // consumer (any more).
                self.stale.store(true, Ordering::Relaxed);
                tokio::time::sleep(PAUSE.min(wait)).await;
            }
            if !first.is_empty() && max > 1 {
                first.extend(self.fetch(&open.consumer, max - 1, None).await?);
            }
            Ok(first)
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

    fn tail(&self) -> BoxFuture<'_, Result<u64, QueueError>> {
        async {
            let open = self.open().await?;
            let info = open.stream.get_info().await;
            Ok(info.map_err(|error| self.judge(error.to_string()))?.state.last_sequence)
        }
        .boxed()
    }

    fn waiting(&self) -> BoxFuture<'_, Result<u64, QueueError>> {
        async {
            let open = self.open().await?;
            let info = open.consumer.get_info().await;
            let info = info.map_err(|error| self.judge(error.to_string()))?;
            Ok(info.num_pending + u64::try_from(info.num_ack_pending).unwrap_or(0))
        }
        .boxed()
    }

    fn read_limit(&self) -> usize {
        self.options.read_limit
    }
}

impl fmt::Debug for NatsQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NatsQueue")
            .field("name", &self.options.name)
            .field("connection", &self.connection)
            .finish_non_exhaustive()
    }
}
