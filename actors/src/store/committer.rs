//! The committer: the one actor that appends to the log, in groups.
//!
//! It lives under `resources`, after the pool, and is restarted with it. Appends that arrive while
//! a commit runs pile up and go into the next one: no timer, so a lone append waits for nobody and
//! a busy store pays one sync for many. It answers when the events are durable and their positions
//! are announced, never before.
//!
//! What it promises when it is killed: appends in its hands are answered with
//! [`CommitError::Interrupted`]. Whether they are in the log is then unknown; sending them again
//! with the same idempotency keys is always right.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use mister_smith_supervisors::{
    Actor, Address, Context, ErrorClass, Failure, Health, StartError, SupervisedComponent,
    SupervisionMetadata, TaskGuard, TellError,
};
use tokio::sync::{oneshot, watch};

use crate::component;
use crate::event::Position;
use crate::pool::{Lease, lease_at_start, store_failure};
use crate::store::{Append, AppendOutcome, StoreError};

/// The most events of one commit.
pub const MAX_BATCH_EVENTS: usize = 2_000;

/// A commit takes no more requests once it has this many bytes of payload.
pub const MAX_BATCH_BYTES: usize = 1 << 20;

/// Events that may wait for their commit. More are refused, so that memory stays bounded.
pub const MAX_WAITING_EVENTS: usize = 50_000;

/// Payload that may wait for its commit, in bytes.
pub const MAX_WAITING_BYTES: usize = 128 << 20;

/// The store is tidied after this many bytes.
const TIDY_EVERY_BYTES: usize = 4 << 20;

/// What a commit counts for besides its payload: it writes whole pages, and so do the read models
/// that follow it. 22 KiB were measured for events of 60 bytes, one a commit.
const COMMIT_BYTES: usize = 16 << 10;

/// Why appends were not committed, or not as far as one knows.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum CommitError {
    /// Too much waits already. Nothing was written.
    #[error("{waiting} events wait for their commit; slow down and retry")]
    Overloaded {
        /// How many wait.
        waiting: usize,
    },
    /// The store failed. Whether the events are in the log is unknown; retry with the same keys.
    #[error("the store failed: {0}")]
    Store(Arc<StoreError>),
    /// The committer ended with the appends in its hands. Whether they are in the log is unknown;
    /// retry with the same keys.
    #[error("the committer was interrupted; retry with the same idempotency keys")]
    Interrupted,
    /// The committer has stopped for good, or its mailbox stays full. Nothing was written.
    #[error("the committer takes no appends now: {reason}")]
    Unavailable {
        /// What its mailbox said.
        reason: String,
    },
}

impl CommitError {
    /// How to react.
    #[must_use]
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Overloaded { .. } | Self::Interrupted | Self::Unavailable { .. } => {
                ErrorClass::Transient
            }
            Self::Store(error) => match **error {
                StoreError::Closed { .. } => ErrorClass::Transient,
                ref other => other.class(),
            },
        }
    }
}

/// The answer to one request: an outcome for each append, in order.
pub type Committed = Result<Vec<AppendOutcome>, CommitError>;

/// What the committer can be told.
#[derive(Debug)]
pub enum CommitterMessage {
    /// Append these, in this order, and answer when they are durable.
    Append(Request),
    /// A commit is done. Sent by the committer to itself.
    Done(Done),
}

/// Appends, and who waits for them.
#[derive(Debug)]
pub struct Request {
    appends: Vec<Append>,
    answer: oneshot::Sender<Committed>,
}

/// What came of a commit.
#[derive(Debug)]
pub struct Done {
    result: Result<(Vec<AppendOutcome>, Position), Arc<StoreError>>,
    requests: Vec<(usize, oneshot::Sender<Committed>)>,
}

/// What a fresh start needs.
#[derive(Clone, Debug)]
pub struct CommitterArgs {
    pool: String,
    head: Arc<watch::Sender<Position>>,
}

impl CommitterArgs {
    /// A committer that leases its store from the pool at path `pool` and announces on `head` how
    /// far the log is.
    #[must_use]
    pub fn new(pool: impl Into<String>, head: Arc<watch::Sender<Position>>) -> Self {
        Self { pool: pool.into(), head }
    }
}

/// The actor.
pub struct Committer {
    lease: Lease,
    head: Arc<watch::Sender<Position>>,
    waiting: VecDeque<Request>,
    waiting_events: usize,
    waiting_bytes: usize,
    /// The commit that runs. Dropping it rolls its transaction back.
    commit: Option<TaskGuard>,
    untidy_bytes: usize,
    tidying: Option<TaskGuard>,
    shown: Arc<AtomicU64>,
}

impl Actor for Committer {
    type Message = CommitterMessage;
    type Args = CommitterArgs;

    async fn start(args: &CommitterArgs, cx: &mut Context<Self>) -> Result<Self, StartError> {
        let lease = lease_at_start(cx, &args.pool).await?;
        // A commit of the life before may have reached the log without being announced.
        let head = lease.store.head().await.map_err(store_failure)?;
        announce(&args.head, head);
        let shown = Arc::new(AtomicU64::new(0));
        let (position, waiting) = (Arc::clone(&args.head), Arc::clone(&shown));
        cx.describe(move || match waiting.load(Ordering::Relaxed) {
            0 => format!("position {}", position.borrow().get()),
            waiting => format!("position {}   {waiting} waiting", position.borrow().get()),
        });
        Ok(Self {
            lease,
            head: Arc::clone(&args.head),
            waiting: VecDeque::new(),
            waiting_events: 0,
            waiting_bytes: 0,
            commit: None,
            // Nobody knows what the life before has left.
            untidy_bytes: TIDY_EVERY_BYTES,
            tidying: None,
            shown,
        })
    }

    async fn handle(
        &mut self,
        message: CommitterMessage,
        cx: &mut Context<Self>,
    ) -> Result<(), Failure> {
        match message {
            CommitterMessage::Append(request) => self.take(request),
            CommitterMessage::Done(done) => self.done(done)?,
        }
        if self.commit.is_none() && !self.waiting.is_empty() {
            self.commit = Some(self.begin(cx));
        }
        self.shown.store(self.waiting_events as u64, Ordering::Relaxed);
        Ok(())
    }

    fn message_name(message: &CommitterMessage) -> &'static str {
        match message {
            CommitterMessage::Append(_) => "Append",
            CommitterMessage::Done(_) => "Done",
        }
    }
}

impl Committer {
    fn take(&mut self, request: Request) {
        let (events, bytes) = size(&request.appends);
        if self.waiting_events + events > MAX_WAITING_EVENTS.max(events)
            || self.waiting_bytes + bytes > MAX_WAITING_BYTES.max(bytes)
        {
            let error = CommitError::Overloaded { waiting: self.waiting_events };
            let _ = request.answer.send(Err(error));
            return;
        }
        self.waiting_events += events;
        self.waiting_bytes += bytes;
        self.waiting.push_back(request);
    }

    /// Takes what waits, up to a batch, and commits it in a task: the actor goes on listening.
    fn begin(&mut self, cx: &Context<Self>) -> TaskGuard {
        let mut batch = Vec::new();
        let mut requests = Vec::new();
        let (mut events, mut bytes) = (0, 0);
        while let Some(next) = self.waiting.front() {
            let (more, more_bytes) = size(&next.appends);
            let full = events + more > MAX_BATCH_EVENTS || bytes + more_bytes > MAX_BATCH_BYTES;
            if full && !batch.is_empty() {
                break;
            }
            let Some(request) = self.waiting.pop_front() else { break };
            events += more;
            bytes += more_bytes;
            requests.push((request.appends.len(), request.answer));
            batch.extend(request.appends);
        }
        self.waiting_events -= events;
        self.waiting_bytes -= bytes;
        self.untidy_bytes += bytes + COMMIT_BYTES;
        let store = Arc::clone(&self.lease.store);
        cx.spawn_tell(async move {
            let result = store.append_batch(batch.into()).await.map_err(Arc::new).map(|outcomes| {
                // A repeat's events too: its first may have come into the log after nobody waited
                // for it any more, and so without being announced.
                let last = outcomes.iter().flatten().map(|one| one.last_position).max();
                (outcomes, last.unwrap_or(Position::ZERO))
            });
            CommitterMessage::Done(Done { result, requests })
        })
    }

    /// Announces the new head, then answers: whoever has an answer finds its events in the log.
    fn done(&mut self, done: Done) -> Result<(), Failure> {
        self.commit = None;
        match done.result {
            Ok((outcomes, last)) => {
                announce(&self.head, last);
                let mut outcomes = outcomes.into_iter();
                for (count, answer) in done.requests {
                    // An asker that is gone does not mind.
                    let _ = answer.send(Ok(outcomes.by_ref().take(count).collect()));
                }
                self.tidy();
                Ok(())
            }
            Err(error) => {
                for (_, answer) in done.requests {
                    let _ = answer.send(Err(CommitError::Store(Arc::clone(&error))));
                }
                match *error {
                    // The next commit may find room, or the lock free; a restart would not help.
                    StoreError::Busy { .. }
                    | StoreError::Full { .. }
                    | StoreError::Exhausted { .. } => Ok(()),
                    // The lease is no longer good, or nobody knows what it is: start afresh.
                    _ => Err(Failure::new(ErrorClass::Transient, error.to_string())),
                }
            }
        }
    }

    fn tidy(&mut self) {
        if self.untidy_bytes < TIDY_EVERY_BYTES {
            return;
        }
        self.untidy_bytes = 0;
        let upkeep = Arc::clone(&self.lease.upkeep);
        self.tidying = Some(TaskGuard::spawn(async move {
            if let Err(error) = upkeep.tidy().await {
                tracing::warn!(%error, "the store could not be tidied; its files grow");
            }
        }));
    }
}

impl SupervisedComponent for Committer {
    type Handover = ();

    async fn health_check(&mut self, _: &mut Context<Self>) -> Health {
        if self.waiting_events > MAX_WAITING_EVENTS / 2 {
            return Health::degraded(format!("{} events wait", self.waiting_events));
        }
        Health::Healthy
    }

    fn supervision_metadata(_: &CommitterArgs) -> SupervisionMetadata {
        SupervisionMetadata::of(component::STORE)
    }
}

impl fmt::Debug for Committer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Committer")
            .field("waiting_events", &self.waiting_events)
            .field("committing", &self.commit.is_some())
            .finish_non_exhaustive()
    }
}

/// Moves the announced head forward, never back.
pub(super) fn announce(head: &watch::Sender<Position>, to: Position) {
    head.send_if_modified(|at| {
        let forward = to > *at;
        if forward {
            *at = to;
        }
        forward
    });
}

fn size(appends: &[Append]) -> (usize, usize) {
    let events = appends.iter().map(|append| append.events.len()).sum();
    let bytes = appends
        .iter()
        .flat_map(|append| &append.events)
        .map(|event| event.data.len() + event.meta.len())
        .sum();
    (events, bytes)
}

/// The handle.
#[derive(Clone, Debug)]
pub struct CommitterHandle(Address<CommitterMessage>);

impl CommitterHandle {
    /// A handle to the committer at an address.
    #[must_use]
    pub fn new(address: Address<CommitterMessage>) -> Self {
        Self(address)
    }

    /// Hands appends over, and returns once they are in line; the answer comes through what is
    /// returned. Two calls one after the other are committed in that order.
    ///
    /// # Errors
    /// They are not in line, and nothing will be written.
    ///
    /// # Cancel safety
    /// A dropped call may or may not have handed them over.
    pub async fn submit(&self, appends: Vec<Append>) -> Result<Pending, CommitError> {
        let (answer, answered) = oneshot::channel();
        let request = Request { appends, answer };
        match self.0.tell(CommitterMessage::Append(request)).await {
            Ok(()) => Ok(Pending(answered)),
            Err(error) => Err(unavailable(&error)),
        }
    }
}

fn unavailable(error: &TellError<CommitterMessage>) -> CommitError {
    CommitError::Unavailable { reason: error.to_string() }
}

/// Appends in line for their commit.
#[derive(Debug)]
pub struct Pending(oneshot::Receiver<Committed>);

impl Pending {
    /// Waits until they are durable, or known not to be.
    ///
    /// # Errors
    /// See [`CommitError`].
    ///
    /// # Cancel safety
    /// Dropping it takes nothing back.
    pub async fn durable(self) -> Committed {
        self.0.await.unwrap_or(Err(CommitError::Interrupted))
    }
}
