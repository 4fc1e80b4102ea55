//! The pool: an actor that owns the connections to the store.
//!
//! Started first, under `resources`, so that everything that lives on it starts after it and is
//! restarted with it. Whoever needs the store asks for a [`Lease`] when it starts (or for each
//! read), and never keeps one over a failure: when the pool ends, in order or not, its connections
//! are marked closed, every older lease answers `Closed`, and a fresh one comes from the next
//! life.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use mister_smith_supervisors::{
    Actor, Address, AskError, Context, ErrorClass, ExitReason, Failure, Health, ReplyPort,
    StartError, SupervisedComponent, SupervisionMetadata, TaskGuard,
};

use crate::component;
use crate::event::Timestamp;
use crate::store::archive::{ArchiveError, ArchiveReport, ArchiveRules, Cold};
use crate::store::claims::Claims;
use crate::store::messages::MessageTables;
use crate::store::notes::Notes;
use crate::store::read_model::documents::Documents;
use crate::store::snapshot::SnapshotStore;
use crate::store::tail::{DEFAULT_BYTES, Tail};
use crate::store::timers::TimerTable;
use crate::store::{EventStore, StoreError};

mod mounted;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "sqlite")]
mod sqlite;

#[cfg(feature = "postgres")]
pub use postgres::PgConnect;

/// What can be done with the store, until the pool that gave it ends.
#[derive(Clone, Debug)]
pub struct Lease {
    /// The log; its last events are in memory ([`Tail`]).
    pub store: Arc<dyn EventStore>,
    /// States of streams, kept to read less.
    pub snapshots: Arc<dyn SnapshotStore>,
    /// The documents of projections.
    pub documents: Arc<dyn Documents>,
    /// Who follows the log under which name, and how far.
    pub claims: Arc<dyn Claims>,
    /// Messages of applications' own transactions.
    pub messages: Arc<dyn MessageTables>,
    /// What is to happen at a time.
    pub timers: Arc<dyn TimerTable>,
    /// What is noted beside the log.
    pub notes: Arc<dyn Notes>,
    /// Keeps the store's files small.
    pub upkeep: Arc<dyn Upkeep>,
    /// Other nodes may work on the same store.
    pub shared: bool,
}

/// Work that a store wants done between two batches.
pub trait Upkeep: Send + Sync + fmt::Debug {
    /// Does some of it. Never holds up a commit.
    ///
    /// # Errors
    /// The store failed.
    fn tidy(&self) -> BoxFuture<'_, Result<(), StoreError>>;

    /// Takes old parts of the log out of the store, into files.
    ///
    /// # Errors
    /// The store has no parts; else what the archiver met.
    fn archive<'a>(
        &'a self,
        _: &'a dyn Cold,
        _: &'a ArchiveRules,
    ) -> BoxFuture<'a, Result<ArchiveReport, ArchiveError>> {
        Box::pin(std::future::ready(Err(ArchiveError::NoPartitions)))
    }
}

pub use mounted::mounted;

/// Opens connections to one store.
pub trait Connect: Send + Sync + fmt::Debug {
    /// Opens them.
    ///
    /// # Errors
    /// The store cannot be reached, or is not one.
    fn connect(&self) -> BoxFuture<'_, Result<Arc<dyn Connections>, StoreError>>;
}

/// Open connections to one store.
pub trait Connections: Send + Sync + fmt::Debug {
    /// What others work with.
    fn lease(&self) -> Lease;
    /// Connections in use, and how many there may be.
    fn usage(&self) -> (u32, u32);
    /// Whether the store answers. Best asked on a connection that is kept for this question: that
    /// all others are in use says nothing about the store.
    ///
    /// # Errors
    /// It does not.
    fn ping(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        let store = self.lease().store;
        Box::pin(async move { store.head().await.map(drop) })
    }
    /// From now on every lease answers `Closed`. Does not wait.
    fn mark_closed(&self);
    /// Closes them and waits until they are closed.
    fn close(&self) -> BoxFuture<'_, ()>;
}

/// Why an address of a store cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AddressError {
    /// An adapter that this program was built without.
    #[error("built without feature `{feature}`; rebuild with `--features {feature}`")]
    NotBuilt {
        /// The feature that brings it.
        feature: &'static str,
    },
    /// A scheme that nobody knows.
    #[error(
        "{url} is not the address of a store; give sqlite://PATH or postgres://USER@HOST/DATABASE"
    )]
    Unknown {
        /// What was given.
        url: String,
    },
}

/// The adapter for an address, by its scheme: `sqlite://path/to/file.db`, or a plain path.
///
/// # Errors
/// No adapter for that scheme, or not in this program.
pub fn connector(url: &str) -> Result<Arc<dyn Connect>, AddressError> {
    match url.split_once("://").map(|(scheme, _)| scheme) {
        None | Some("sqlite") => sqlite_connector(url),
        Some("postgres" | "postgresql") => postgres_connector(url),
        Some(_) => Err(AddressError::Unknown { url: url.to_owned() }),
    }
}

/// The same for who only reads, beside a node or on a replica: nothing is made in the store, and
/// reading rights are enough.
///
/// # Errors
/// No adapter for that scheme, or not in this program.
pub fn reader(url: &str) -> Result<Arc<dyn Connect>, AddressError> {
    match url.split_once("://").map(|(scheme, _)| scheme) {
        #[cfg(feature = "postgres")]
        Some("postgres" | "postgresql") => Ok(Arc::new(postgres::PgConnect::reader(url))),
        _ => connector(url),
    }
}

#[cfg(feature = "sqlite")]
fn sqlite_connector(url: &str) -> Result<Arc<dyn Connect>, AddressError> {
    Ok(Arc::new(sqlite::SqliteConnect::new(url)))
}

#[cfg(not(feature = "sqlite"))]
fn sqlite_connector(_: &str) -> Result<Arc<dyn Connect>, AddressError> {
    Err(AddressError::NotBuilt { feature: "sqlite" })
}

#[cfg(feature = "postgres")]
fn postgres_connector(url: &str) -> Result<Arc<dyn Connect>, AddressError> {
    Ok(Arc::new(PgConnect::new(url)))
}

#[cfg(not(feature = "postgres"))]
fn postgres_connector(_: &str) -> Result<Arc<dyn Connect>, AddressError> {
    Err(AddressError::NotBuilt { feature: "postgres" })
}

/// What the pool can be asked.
#[derive(Debug)]
pub enum PoolMessage {
    /// A lease on the store.
    Lease(ReplyPort<Lease>),
    /// Forget what is older than anybody may ask for. Sent by the actor to itself.
    Prune,
}

/// How long the inbox table knows a message that was handled.
pub const INBOX_REMEMBERS: Duration = Duration::from_secs(7 * 86_400);

/// The pause between two prunings.
const PRUNE_EVERY: Duration = Duration::from_secs(3_600);

/// The pause before the first one: not while everything starts.
const PRUNE_FIRST: Duration = Duration::from_secs(60);

/// What a fresh start needs.
#[derive(Clone, Debug)]
pub struct PoolArgs {
    connect: Arc<dyn Connect>,
    recent_bytes: usize,
}

impl PoolArgs {
    /// A pool of connections made by `connect`.
    #[must_use]
    pub fn new(connect: Arc<dyn Connect>) -> Self {
        Self { connect, recent_bytes: DEFAULT_BYTES }
    }

    /// How much of the end of the log is kept in memory for those who follow it; 32 MiB unless
    /// this is called, nothing with 0.
    #[must_use]
    pub const fn recent_bytes(mut self, bytes: usize) -> Self {
        self.recent_bytes = bytes;
        self
    }
}

/// The actor.
#[derive(Debug)]
pub struct Pool {
    connections: Arc<dyn Connections>,
    tail: Arc<Tail>,
    /// The next pruning.
    timer: TaskGuard,
    /// The one that is under way.
    pruning: Option<TaskGuard>,
}

impl Actor for Pool {
    type Message = PoolMessage;
    type Args = PoolArgs;

    async fn start(args: &PoolArgs, cx: &mut Context<Self>) -> Result<Self, StartError> {
        let connections = args.connect.connect().await.map_err(store_failure)?;
        let shown = Arc::clone(&connections);
        cx.describe(move || {
            let (used, most) = shown.usage();
            format!("{used}/{most} in use")
        });
        let Lease { store, shared, .. } = connections.lease();
        let tail = Tail::over(store, !shared, args.recent_bytes).await.map_err(store_failure)?;
        let timer = cx.tell_after(PRUNE_FIRST, PoolMessage::Prune);
        Ok(Self { connections, tail: Arc::new(tail), timer, pruning: None })
    }

    async fn handle(
        &mut self,
        message: PoolMessage,
        cx: &mut Context<Self>,
    ) -> Result<(), Failure> {
        match message {
            PoolMessage::Lease(reply) => {
                let store = Arc::clone(&self.tail) as _;
                reply.send(Lease { store, ..self.connections.lease() });
            }
            PoolMessage::Prune => {
                self.timer = cx.tell_after(PRUNE_EVERY, PoolMessage::Prune);
                if self.pruning.as_ref().is_none_or(TaskGuard::is_finished) {
                    self.pruning = Some(self.prune(cx));
                }
            }
        }
        Ok(())
    }

    async fn stop(&mut self, _: &ExitReason, _: &mut Context<Self>) {
        self.connections.close().await;
    }

    fn message_name(message: &PoolMessage) -> &'static str {
        match message {
            PoolMessage::Lease(_) => "Lease",
            PoolMessage::Prune => "Prune",
        }
    }
}

impl Pool {
    /// Forgets beside the mailbox, for which leases wait.
    fn prune(&self, cx: &Context<Self>) -> TaskGuard {
        let remembers = i64::try_from(INBOX_REMEMBERS.as_micros()).unwrap_or(i64::MAX);
        let before = Timestamp::from_micros(cx.clock().wall_us().saturating_sub(remembers));
        let messages = self.connections.lease().messages;
        cx.spawn_guard(async move {
            match messages.forget(before).await {
                Ok(0) => {}
                Ok(count) => tracing::debug!(count, "forgot old messages of the inbox"),
                Err(error) => tracing::warn!(%error, "old messages are forgotten the next time"),
            }
        })
    }
}

impl SupervisedComponent for Pool {
    type Handover = ();

    async fn health_check(&mut self, _: &mut Context<Self>) -> Health {
        if let Err(error) = self.connections.ping().await {
            return Health::unhealthy(error.to_string());
        }
        // Slow readers are no reason to begin anew: that would end them and all that is well.
        match self.connections.usage() {
            (used, most) if most > 1 && used >= most => {
                Health::degraded(format!("all {most} connections are in use"))
            }
            _ => Health::Healthy,
        }
    }

    fn supervision_metadata(_: &PoolArgs) -> SupervisionMetadata {
        SupervisionMetadata::of(component::RESOURCE)
    }
}

impl Drop for Pool {
    /// However it ends: nobody goes on working with what it owned.
    fn drop(&mut self) {
        self.connections.mark_closed();
        self.tail.close();
    }
}

/// The handle.
#[derive(Clone, Debug)]
pub struct PoolHandle(Address<PoolMessage>);

impl PoolHandle {
    /// A handle to the pool at an address.
    #[must_use]
    pub fn new(address: Address<PoolMessage>) -> Self {
        Self(address)
    }

    /// A lease from the life that runs now.
    ///
    /// # Errors
    /// The pool did not answer in time, or has stopped.
    pub async fn lease(&self) -> Result<Lease, AskError> {
        self.0.ask(PoolMessage::Lease).await
    }
}

/// How long a start waits for the pool.
const AT_START: Duration = Duration::from_millis(500);

/// A lease for an actor that starts.
///
/// The pool may have been killed while a supervisor above both starts this one, and nobody starts
/// it again before that is done: an answer that does not come soon comes after the next try only.
pub(crate) async fn lease_at_start<A: Actor>(
    cx: &Context<A>,
    path: &str,
) -> Result<Lease, StartError> {
    let pool: Address<PoolMessage> = cx.find(path)?;
    Ok(pool.ask_within(AT_START, PoolMessage::Lease).await?)
}

/// A store's error as the reason to end a life.
pub(crate) fn store_failure(error: StoreError) -> Failure {
    let class = match error {
        // Closed for this lease; the next life gets another.
        StoreError::Closed { .. } => ErrorClass::Transient,
        ref other => other.class(),
    };
    Failure::wrap(class, error)
}

#[cfg(all(test, feature = "sqlite"))]
mod tests;
