//! Events from outside, on their way into the log.
//!
//! They are no decisions of an aggregate: nobody is asked whether they may happen, and a key keeps
//! repeats out. So no actor stands for their streams. A call gives each event its id and time, and
//! hands them to the committer in their order; what is under way is bounded, apart from commands.
//!
//! The streams keep the names that the sender gives. Those that belong to somebody
//! ([`Owners`]: an aggregate, the sagas, …) are refused, and so are types that are the store's: an
//! event from outside never gets past somebody's decisions, or ends a stream. What this node does
//! not know of owners, the store does, and looks at it in the transaction that writes: no list is
//! read beside, and no event of a call that is on its way gets in behind a new owner.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, join_all};
use mister_smith_supervisors::{Clock, ErrorClass};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::event::{ContentType, EventId, MAX_EVENT_TYPE_BYTES, NewEvent, StreamId, Timestamp};
use crate::store::committer::{
    CommitError, Committed, CommitterHandle, MAX_BATCH_BYTES, MAX_BATCH_EVENTS,
};
use crate::store::notes::{Owned, Owners};
use crate::store::{Append, AppendError, AppendOutcome, Appended, ExpectedVersion, IdempotencyKey};

#[cfg(test)]
mod tests;

/// Events that are under way at most. The committer takes more than twice as many, so that there is
/// always room for commands.
pub const MAX_EVENTS: usize = 20_000;

/// Their payload, in KiB: 64 MiB.
pub const MAX_KIB: usize = 64 << 10;

/// How long a call waits for its commit.
const DEADLINE: Duration = Duration::from_secs(10);

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

/// What became of one event.
pub type Ingested = Result<Appended, Refused>;

/// Why one event was not taken. The others of its call were not held up.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// Its stream belongs to somebody.
    #[error("stream {stream}: {owned}")]
    Owned {
        /// The stream.
        stream: StreamId,
        /// Whose it is.
        owned: Owned,
    },
    /// Its type is not a name, or is the store's.
    #[error(
        "the type {event_type:?} is not taken; a type is 1 to {MAX_EVENT_TYPE_BYTES} bytes without \
         control characters, and those that begin with $ are the store's"
    )]
    Type {
        /// The type, cut.
        event_type: String,
    },
    /// The log does not take it.
    #[error(transparent)]
    Append(#[from] AppendError),
}

/// Why a call came to nothing, or not as far as one knows.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum IngestError {
    /// Too much is under way already. Nothing was written.
    #[error("{events} events are under way, {MAX_EVENTS} at most; slow down and retry")]
    Overloaded {
        /// How many are under way.
        events: usize,
    },
    /// They were not committed, or not as far as one knows.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// It takes too long. What was begun goes on, and a repeat with the same keys finds out.
    #[error("it takes longer than {after:?}; retry with the same keys")]
    Timeout {
        /// How long was waited for it.
        after: Duration,
    },
}

impl IngestError {
    /// How to react. Everything but a fault of the machine is worth a retry with the same keys.
    #[must_use]
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Commit(error) => error.class(),
            Self::Overloaded { .. } | Self::Timeout { .. } => ErrorClass::Transient,
        }
    }
}

/// Takes events in. Cheap to clone.
#[derive(Clone)]
pub struct Ingest(Arc<Inner>);

struct Inner {
    committer: CommitterHandle,
    owners: Owners,
    clock: Clock,
    random: Box<dyn Fn() -> u64 + Send + Sync>,
    events: Arc<Semaphore>,
    kib: Arc<Semaphore>,
    /// Commits that nobody waits for any more; they still take their room.
    left: Mutex<Vec<Left>>,
}

/// Room for events that are under way.
struct Room {
    _events: OwnedSemaphorePermit,
    _kib: OwnedSemaphorePermit,
}

struct Left {
    commits: Commits,
    _room: Room,
}

type Commits = BoxFuture<'static, Vec<Committed>>;

impl Ingest {
    /// What takes events in for a node.
    #[must_use]
    pub fn new(
        committer: CommitterHandle,
        owners: Owners,
        clock: Clock,
        random: impl Fn() -> u64 + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(Inner {
            committer,
            owners,
            clock,
            random: Box::new(random),
            events: Arc::new(Semaphore::new(MAX_EVENTS)),
            kib: Arc::new(Semaphore::new(MAX_KIB)),
            left: Mutex::default(),
        }))
    }

    /// Hands events to a stream, in order, and waits until they are durable.
    ///
    /// # Errors
    /// See [`IngestError`]. After an error the events may be in the log; a repeat with the same
    /// keys finds out and doubles nothing.
    ///
    /// # Cancel safety
    /// A dropped call may have written them.
    pub async fn ingest(
        &self,
        stream: &StreamId,
        events: impl IntoIterator<Item = Incoming>,
    ) -> Result<Vec<Ingested>, IngestError> {
        self.ingest_all(events.into_iter().map(|event| (stream.clone(), event))).await
    }

    /// Hands events to their streams, and waits until they are durable. Those of one stream are in
    /// the log in their order. The answers are in the order of the events.
    ///
    /// # Errors
    /// As for [`ingest`](Self::ingest).
    ///
    /// # Cancel safety
    /// A dropped call may have written them.
    pub async fn ingest_all(
        &self,
        events: impl IntoIterator<Item = (StreamId, Incoming)>,
    ) -> Result<Vec<Ingested>, IngestError> {
        let mut answers = Vec::new();
        let mut appends: Vec<Vec<Append>> = Vec::new();
        let (mut count, mut bytes, mut in_last) = (0, 0, 0);
        let recorded_at = Timestamp::from_micros(self.0.clock.wall_us());
        for (stream, event) in events {
            if let Err(refused) = self.admit(&stream, &event.event_type) {
                answers.push(Some(Err(refused)));
                continue;
            }
            let append = self.append(stream, event, recorded_at);
            let size: usize = append.events.iter().map(NewEvent::size).sum();
            let full = count % MAX_BATCH_EVENTS == 0 || in_last + size > MAX_BATCH_BYTES;
            if full || appends.is_empty() {
                appends.push(Vec::new());
                in_last = 0;
            }
            appends.last_mut().expect("one was pushed").push(append);
            (count, bytes, in_last) = (count + 1, bytes + size, in_last + size);
            answers.push(None);
        }
        let outcomes =
            if count == 0 { Vec::new() } else { self.commit(appends, count, bytes).await? };
        let mut outcomes = outcomes.into_iter();
        let answers = answers.into_iter().map(|answer| match answer {
            Some(refused) => Ok(refused),
            None => outcomes
                .next()
                .map(|one| one.map_err(|error| self.refused(error)))
                .ok_or(CommitError::Interrupted),
        });
        Ok(answers.collect::<Result<_, _>>()?)
    }

    /// Whether an event may be written to a stream from outside.
    fn admit(&self, stream: &StreamId, event_type: &str) -> Result<(), Refused> {
        let name = event_type;
        if name.is_empty()
            || name.starts_with('$')
            || name.len() > MAX_EVENT_TYPE_BYTES
            || name.contains(char::is_control)
        {
            return Err(Refused::Type { event_type: name.chars().take(64).collect() });
        }
        let admitted = self.0.owners.admit(stream.category());
        admitted.map_err(|owned| Refused::Owned { stream: stream.clone(), owned })
    }

    /// What the log refused. Whose a stream is it knows better than this node, which learns it so.
    fn refused(&self, error: AppendError) -> Refused {
        match error {
            AppendError::Owned { stream, owner } => {
                let owned = self.0.owners.hear(stream.category(), &owner);
                Refused::Owned { stream, owned }
            }
            other => Refused::Append(other),
        }
    }

    fn append(&self, stream: StreamId, event: Incoming, recorded_at: Timestamp) -> Append {
        let Incoming { event_type, codec, data, meta, key } = event;
        let id = EventId::at(recorded_at, (self.0.random)(), (self.0.random)());
        let mut new = NewEvent::new(id, event_type, codec, data, recorded_at);
        new.meta = meta;
        Append {
            stream,
            // The log of what came in takes whatever comes in; the key keeps repeats out.
            expected: ExpectedVersion::Any,
            events: vec![new],
            key: Some(key),
            linked: false,
            outside: true,
        }
    }

    async fn commit(
        &self,
        appends: Vec<Vec<Append>>,
        events: usize,
        bytes: usize,
    ) -> Result<Vec<AppendOutcome>, IngestError> {
        let room = self.room(events, bytes)?;
        let mut pending = Vec::with_capacity(appends.len());
        let mut refused = None;
        // One after the other, so that the order of each stream is kept.
        for appends in appends {
            match self.0.committer.submit(appends).await {
                Ok(one) => pending.push(one.durable()),
                Err(error) => {
                    refused = Some(error);
                    break;
                }
            }
        }
        let mut waiting = Waiting {
            home: &self.0,
            left: Some(Left { commits: join_all(pending).boxed(), _room: room }),
        };
        let Some(left) = &mut waiting.left else { return Ok(Vec::new()) };
        let committed = tokio::time::timeout(DEADLINE, &mut left.commits).await;
        let committed = committed.map_err(|_| IngestError::Timeout { after: DEADLINE })?;
        waiting.left = None;
        if let Some(error) = refused {
            return Err(error.into());
        }
        let mut outcomes = Vec::with_capacity(events);
        for one in committed {
            outcomes.extend(one?);
        }
        Ok(outcomes)
    }

    fn room(&self, events: usize, bytes: usize) -> Result<Room, IngestError> {
        self.sweep();
        let overloaded =
            |_| IngestError::Overloaded { events: MAX_EVENTS - self.0.events.available_permits() };
        let take = |room: &Arc<Semaphore>, wanted: usize, most: usize| {
            let wanted = u32::try_from(wanted.clamp(1, most)).unwrap_or(u32::MAX);
            Arc::clone(room).try_acquire_many_owned(wanted)
        };
        let events = take(&self.0.events, events, MAX_EVENTS).map_err(overloaded)?;
        let kib = take(&self.0.kib, bytes.div_ceil(1024), MAX_KIB).map_err(overloaded)?;
        Ok(Room { _events: events, _kib: kib })
    }

    /// Gives back the room of commits that have ended without anybody waiting.
    fn sweep(&self) {
        let mut left = self.0.left.lock().unwrap_or_else(PoisonError::into_inner);
        left.retain_mut(|one| (&mut one.commits).now_or_never().is_none());
    }
}

/// A call that waits. If it is dropped, its commits go on, and keep their room.
struct Waiting<'a> {
    home: &'a Inner,
    left: Option<Left>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some(left) = self.left.take() {
            self.home.left.lock().unwrap_or_else(PoisonError::into_inner).push(left);
        }
    }
}

impl fmt::Debug for Ingest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ingest")
            .field("events", &(MAX_EVENTS - self.0.events.available_permits()))
            .finish_non_exhaustive()
    }
}
