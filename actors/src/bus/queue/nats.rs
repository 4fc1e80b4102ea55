//! Queues on NATS JetStream: a stream per queue, a durable pull consumer per group.
//!
//! JetStream acknowledges before it has synced (about every two minutes, nats-server #7564), so a
//! power cut can take what was acknowledged; the death of the process does not. What must survive
//! that is in a store first, and [the relay](crate::outbox) sends it again when the stream's
//! numbers have gone back ([`tail`](super::Sender::tail)).
//!
//! The client says `Ok` to a publish while it is not connected, and drops what a slow subscriber
//! does not take. Neither concerns these queues: a message counts as sent when the stream has
//! acknowledged it, and pull consumers are asked for as much as there is room for.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_nats::jetstream::stream::{Config, DiscardPolicy, RetentionPolicy, StorageType, Stream};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::expiry::Unexpired;
use super::{
    GroupStatus, Queue, QueueError, QueueOptions, Receiver, Retention, Sender, check_name,
};
pub use crate::bus::broker::nats::Connection;
use crate::event::Timestamp;

mod groups;
mod receive;
mod send;

use receive::NatsReceiver;
use send::NatsSender;

impl Connection {
    /// A queue. The stream is made, or brought to these options, with the first call.
    #[must_use]
    pub fn queue(&self, options: QueueOptions) -> NatsQueue {
        NatsQueue(Arc::new(Opened {
            connection: self.clone(),
            options,
            stream: Mutex::new(None),
            stale: AtomicBool::new(false),
            time: Mutex::new(None),
        }))
    }
}

/// See the [module](self).
#[derive(Clone)]
pub struct NatsQueue(Arc<Opened>);

/// What a queue's sender and receivers share.
struct Opened {
    connection: Connection,
    options: QueueOptions,
    stream: Mutex<Option<Stream>>,
    /// The server did not know the stream: it is made again.
    stale: AtomicBool,
    /// What the server's clock showed, and when.
    time: Mutex<Option<(Instant, Timestamp)>>,
}

impl Opened {
    fn unreachable(&self, reason: impl ToString) -> QueueError {
        QueueError::Unreachable { queue: self.options.name.clone(), reason: reason.to_string() }
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

    /// What the server said no to, and what did not reach it.
    fn judge(&self, reason: impl ToString) -> QueueError {
        let (queue, reason) = (self.options.name.clone(), reason.to_string());
        let lost = ["timed out", "no responders", "broken pipe", "disconnected", "unavailable"];
        self.failed(match lost.iter().any(|word| reason.contains(word)) {
            true => QueueError::Unreachable { queue, reason },
            false => QueueError::Refused { queue, reason },
        })
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
            discard: match self.options.retention {
                // What does not fit is refused, so that its sender knows.
                Retention::Work => DiscardPolicy::New,
                Retention::Log => DiscardPolicy::Old,
            },
            storage: StorageType::File,
            max_messages: bound(self.options.max_messages),
            max_bytes: bound(self.options.max_bytes),
            max_age: self.options.max_age,
            num_replicas: self.options.replicas,
            duplicate_window: self.options.dedupe_within.min(self.options.max_age),
            ..Config::default()
        }
    }

    /// The stream, made or brought to the options if it was not looked at since it was lost.
    async fn stream(&self) -> Result<Stream, QueueError> {
        self.connected()?;
        let mut stream = self.stream.lock().await;
        if let Some(stream) = &*stream
            && !self.stale.load(Ordering::Relaxed)
        {
            return Ok(stream.clone());
        }
        let (context, wanted) = (&self.connection.context, self.config());
        let made = context.get_or_create_stream(wanted.clone()).await;
        let fresh = made.map_err(|error| self.judge(error))?;
        if differs(&fresh.cached_info().config, &wanted) {
            // Retention cannot be changed on a stream that is there; the server says so.
            context.update_stream(&wanted).await.map_err(|error| self.judge(error))?;
        }
        self.stale.store(false, Ordering::Relaxed);
        *stream = Some(fresh.clone());
        Ok(fresh)
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

impl Queue for NatsQueue {
    fn sender(&self) -> Arc<dyn Sender> {
        Arc::new(NatsSender::new(Arc::clone(&self.0)))
    }

    fn receiver(&self, group: &str) -> Result<Arc<dyn Receiver>, QueueError> {
        check_name(group)?;
        Ok(Arc::new(Unexpired(NatsReceiver::new(Arc::clone(&self.0), group))))
    }

    fn groups(&self) -> BoxFuture<'_, Result<Vec<GroupStatus>, QueueError>> {
        self.0.groups().boxed()
    }

    fn remove_group<'a>(&'a self, group: &'a str) -> BoxFuture<'a, Result<bool, QueueError>> {
        self.0.remove_group(group).boxed()
    }
}

impl fmt::Debug for NatsQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NatsQueue").field("queue", &self.0).finish()
    }
}

impl fmt::Debug for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opened")
            .field("name", &self.options.name)
            .field("connection", &self.connection)
            .finish_non_exhaustive()
    }
}
