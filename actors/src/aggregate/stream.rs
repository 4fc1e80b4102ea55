//! The actor of one stream of ingested events.
//!
//! It lives under the dynamic `aggregates` supervisor, is started by the first event for its
//! stream and ends by itself when it has been idle for a while. It gives events their ids and
//! hands them to the committer without waiting for the commit before: a busy stream has many
//! commits in flight, in order, because both mailboxes are first in, first out. It keeps nothing
//! that is not in the log, so a kill costs only the requests in its hands, which the sender
//! repeats with the same keys.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use mister_smith_supervisors::{
    Actor, Address, AskError, Context, ErrorClass, Failure, ReplyPort, StartError, TaskGuard,
};

use crate::event::{ContentType, EventId, NewEvent, StreamId, Timestamp, Version};
use crate::pool::{PoolMessage, store_failure};
use crate::store::committer::{CommitError, Committed, CommitterHandle, CommitterMessage};
use crate::store::{Append, ExpectedVersion, IdempotencyKey};

/// An event on its way in.
#[derive(Clone, Debug)]
pub struct Incoming {
    /// Its type.
    pub event_type: Arc<str>,
    /// How its payload is to be read.
    pub codec: ContentType,
    /// Its payload.
    pub data: Bytes,
    /// What came with it.
    pub meta: Bytes,
    /// Names it, so that a repeat writes nothing.
    pub key: IdempotencyKey,
}

/// What a stream can be told.
#[derive(Debug)]
pub enum StreamMessage {
    /// Append these, in this order, and answer when they are durable.
    Ingest(Vec<Incoming>, ReplyPort<Committed>),
    /// A commit is done. Sent by the actor to itself.
    Done(Done),
    /// Time to see whether anybody still needs it.
    IdleCheck,
}

/// A commit that is done, and who waits for it.
#[derive(Debug)]
pub struct Done {
    number: u64,
    committed: Committed,
    reply: ReplyPort<Committed>,
}

/// What a fresh start needs.
#[derive(Clone, Debug)]
pub struct StreamArgs {
    /// The stream.
    pub stream: StreamId,
    /// Path of the pool.
    pub pool: Arc<str>,
    /// Path of the committer.
    pub committer: Arc<str>,
    /// It ends after this long without an event.
    pub idle_after: Duration,
}

/// The actor.
pub struct StreamActor {
    stream: StreamId,
    committer: CommitterHandle,
    version: Arc<AtomicU64>,
    in_flight: BTreeMap<u64, TaskGuard>,
    next: u64,
    used: bool,
    idle_after: Duration,
    idle_check: Option<TaskGuard>,
}

impl Actor for StreamActor {
    type Message = StreamMessage;
    type Args = StreamArgs;

    async fn start(args: &StreamArgs, cx: &mut Context<Self>) -> Result<Self, StartError> {
        let pool: Address<PoolMessage> = cx.find(&args.pool)?;
        let committer: Address<CommitterMessage> = cx.find(&args.committer)?;
        let lease = pool.ask(PoolMessage::Lease).await?;
        let version = lease.store.stream_version(&args.stream).await.map_err(store_failure)?;
        let version = Arc::new(AtomicU64::new(version.get()));
        let shown = Arc::clone(&version);
        cx.describe(move || format!("version {}", shown.load(Ordering::Relaxed)));
        Ok(Self {
            stream: args.stream.clone(),
            committer: CommitterHandle::new(committer),
            version,
            in_flight: BTreeMap::new(),
            next: 0,
            used: true,
            idle_after: args.idle_after,
            idle_check: Some(cx.tell_after(args.idle_after, StreamMessage::IdleCheck)),
        })
    }

    async fn handle(
        &mut self,
        message: StreamMessage,
        cx: &mut Context<Self>,
    ) -> Result<(), Failure> {
        match message {
            StreamMessage::Ingest(events, reply) => self.ingest(events, reply, cx).await,
            StreamMessage::Done(done) => self.done(done),
            StreamMessage::IdleCheck => self.idle_check(cx),
        }
        Ok(())
    }

    fn message_name(message: &StreamMessage) -> &'static str {
        match message {
            StreamMessage::Ingest(..) => "Ingest",
            StreamMessage::Done(_) => "Done",
            StreamMessage::IdleCheck => "IdleCheck",
        }
    }
}

impl StreamActor {
    async fn ingest(
        &mut self,
        events: Vec<Incoming>,
        reply: ReplyPort<Committed>,
        cx: &Context<Self>,
    ) {
        self.used = true;
        let recorded_at = Timestamp::from_micros(cx.clock().wall_us());
        let appends = events
            .into_iter()
            .map(|event| {
                let id = EventId::at(recorded_at, cx.random_u64(), cx.random_u64());
                let Incoming { event_type, codec, data, meta, key } = event;
                let mut new = NewEvent::new(id, event_type, codec, data, recorded_at);
                new.meta = meta;
                Append {
                    stream: self.stream.clone(),
                    // The log of what came in takes whatever comes in; the key keeps repeats out.
                    expected: ExpectedVersion::Any,
                    events: vec![new],
                    key: Some(key),
                    linked: false,
                }
            })
            .collect();
        match self.committer.submit(appends).await {
            Err(error) => reply.send(Err(error)),
            Ok(pending) => {
                self.next += 1;
                let number = self.next;
                let waits = cx.spawn_tell(async move {
                    let committed = pending.durable().await;
                    StreamMessage::Done(Done { number, committed, reply })
                });
                self.in_flight.insert(number, waits);
            }
        }
    }

    fn done(&mut self, done: Done) {
        self.in_flight.remove(&done.number);
        if let Ok(outcomes) = &done.committed {
            let written = outcomes.iter().flatten().filter(|written| !written.duplicate);
            if let Some(last) = written.map(|written| written.last_version.get()).max() {
                self.version.fetch_max(last, Ordering::Relaxed);
            }
        }
        done.reply.send(done.committed);
    }

    fn idle_check(&mut self, cx: &mut Context<Self>) {
        if std::mem::take(&mut self.used) || !self.in_flight.is_empty() {
            self.idle_check = Some(cx.tell_after(self.idle_after, StreamMessage::IdleCheck));
        } else {
            cx.stop();
        }
    }

    /// The version of the last event that this life knows of.
    #[must_use]
    pub fn version(&self) -> Version {
        Version::new(self.version.load(Ordering::Relaxed))
    }
}

impl fmt::Debug for StreamActor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamActor")
            .field("stream", &self.stream)
            .field("in_flight", &self.in_flight.len())
            .finish_non_exhaustive()
    }
}

/// Why a stream did not take events.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum IngestError {
    /// They were not committed, or not as far as one knows.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// The stream's actor did not answer.
    #[error(transparent)]
    Actor(#[from] AskError),
    /// The stream's actor could not be started.
    #[error(transparent)]
    Supervisor(#[from] mister_smith_supervisors::SupervisorError),
}

impl IngestError {
    /// How to react. Everything but a fault of the machine is worth a retry with the same keys.
    #[must_use]
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Commit(error) => error.class(),
            // The actor ended, is being restarted, or is busy: another life answers.
            Self::Actor(_) | Self::Supervisor(_) => ErrorClass::Transient,
        }
    }
}
