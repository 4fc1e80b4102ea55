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

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use mister_smith_supervisors::{
    Actor, Address, Context, ErrorClass, Failure, Health, StartError, SupervisedComponent,
    SupervisionMetadata, TaskGuard, TellError,
};
use tokio::sync::{oneshot, watch};

use crate::component;
use crate::event::Position;
use crate::pool::{lease_at_start, store_failure};
use crate::store::{Append, AppendOutcome, StoreError};
use driver::{Driver, Running};
use line::Line;

mod driver;
mod line;
#[cfg(test)]
mod tests;

/// The most events of one commit.
pub const MAX_BATCH_EVENTS: usize = 2_000;

/// A commit takes no more requests once it has this many bytes of payload.
pub const MAX_BATCH_BYTES: usize = 1 << 20;

/// Events that may wait for their commit. More are refused, so that memory stays bounded.
pub const MAX_WAITING_EVENTS: usize = 50_000;

/// Payload that may wait for its commit, in bytes.
pub const MAX_WAITING_BYTES: usize = 128 << 20;

/// A commit that takes longer is shown, and one that takes [`STUCK`] ends the committer's life: its
/// connection may lead to a machine that is gone.
const SLOW: Duration = Duration::from_secs(5);

/// See [`SLOW`].
const STUCK: Duration = Duration::from_secs(60);

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
    /// The store failed, and the lease is no longer good. Sent by the committer to itself.
    Failed(Arc<StoreError>),
}

/// Appends, and who waits for them.
#[derive(Debug)]
pub struct Request {
    appends: Vec<Append>,
    answer: oneshot::Sender<Committed>,
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
    line: Arc<Line>,
    running: Arc<Running>,
    /// Commits what is in line. Dropping it gives up the commit that runs.
    _driver: TaskGuard,
}

impl Actor for Committer {
    type Message = CommitterMessage;
    type Args = CommitterArgs;

    async fn start(args: &CommitterArgs, cx: &mut Context<Self>) -> Result<Self, StartError> {
        let lease = lease_at_start(cx, &args.pool).await?;
        // A commit of the life before may have reached the log without being announced.
        let head = lease.store.head().await.map_err(store_failure)?;
        announce(&args.head, head);
        let (line, running) = (Arc::<Line>::default(), Arc::<Running>::default());
        let (position, shown) = (Arc::clone(&args.head), Arc::clone(&line));
        cx.describe(move || match shown.events() {
            0 => format!("position {}", position.borrow().get()),
            waiting => format!("position {}   {waiting} waiting", position.borrow().get()),
        });
        let driver = Driver {
            store: lease.store,
            upkeep: lease.upkeep,
            head: Arc::clone(&args.head),
            line: Arc::clone(&line),
            running: Arc::clone(&running),
            clock: cx.clock(),
        };
        let driver = cx.spawn_tell(async move { CommitterMessage::Failed(driver.run().await) });
        Ok(Self { line, running, _driver: driver })
    }

    async fn handle(
        &mut self,
        message: CommitterMessage,
        _: &mut Context<Self>,
    ) -> Result<(), Failure> {
        match message {
            CommitterMessage::Append(request) => self.line.put(request),
            // The next life gets a fresh lease.
            CommitterMessage::Failed(error) => {
                return Err(Failure::new(ErrorClass::Transient, error.to_string()));
            }
        }
        Ok(())
    }

    fn message_name(message: &CommitterMessage) -> &'static str {
        match message {
            CommitterMessage::Append(_) => "Append",
            CommitterMessage::Failed(_) => "Failed",
        }
    }
}

impl SupervisedComponent for Committer {
    type Handover = ();

    async fn health_check(&mut self, cx: &mut Context<Self>) -> Health {
        match self.running.age(cx.clock().elapsed()) {
            Some(age) if age >= STUCK => {
                return Health::unhealthy(format!("a commit has been running for {age:.0?}"));
            }
            Some(age) if age >= SLOW => {
                return Health::degraded(format!("a commit has been running for {age:.0?}"));
            }
            _ => {}
        }
        let waiting = self.line.events();
        if waiting > MAX_WAITING_EVENTS / 2 {
            return Health::degraded(format!("{waiting} events wait"));
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
            .field("waiting_events", &self.line.events())
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
