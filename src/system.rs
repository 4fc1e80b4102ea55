//! [`SystemCore`]: one value that owns a whole node.
//!
//! Everything in it is an actor in one supervision tree. Reading the tree from top to bottom is
//! the start order, from bottom to top the stop order. Nothing is global: several live side by
//! side in one process.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use mister_smith_actors::bus::EventBus;
use mister_smith_actors::bus::remote::Remote;
use mister_smith_actors::command::CommandBus;
use mister_smith_actors::command::remote::{RemoteCommands, RemoteOptions};
use mister_smith_actors::consumer::Consumers;
use mister_smith_actors::dead_letter::DeadLetters;
use mister_smith_actors::event::{EventId, Position, Timestamp};
use mister_smith_actors::ingest::Ingest;
use mister_smith_actors::outbox::table::Nudge;
use mister_smith_actors::pool::PoolHandle;
use mister_smith_actors::process::Processes;
use mister_smith_actors::projection::ProjectionError;
use mister_smith_actors::projection::handle::{ProjectionRef, RequestError};
use mister_smith_actors::query::QueryBus;
use mister_smith_actors::saga::Sagas;
use mister_smith_actors::store::follow::Followers;
use mister_smith_actors::timer::Timers;
use mister_smith_actors::timer::schedule::Schedules;
use mister_smith_supervisors::{
    Actor, ActorSystem, Address, Depth, ExitReason, SupervisionTree, SupervisorError,
};
use tokio::sync::watch;

use crate::http::Edge;

mod access;
mod archive;
mod builder;
mod checks;
mod error;
mod events;
mod lock;
mod plan;

pub use access::AccessOptions;
pub use builder::SystemBuilder;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub(crate) use builder::store_lock;
pub use error::SystemError;
pub use lock::LockError;

/// Where the embedded store lies when nobody says otherwise.
pub const DEFAULT_STORE: &str = "sqlite://data/smith.db";

/// Where the node listens when nobody says otherwise.
pub const DEFAULT_LISTEN: &str = "127.0.0.1:7373";

/// How long a graceful stop may take before what is left is killed.
pub const DEFAULT_STOP_DEADLINE: Duration = Duration::from_secs(20);

/// A running node. Cheap to clone.
#[derive(Clone)]
pub struct SystemCore(Arc<Inner>);

struct Inner {
    actors: ActorSystem,
    addr: Option<SocketAddr>,
    store: String,
    created: bool,
    edge: Option<Edge>,
    head: Arc<watch::Sender<Position>>,
    pool: PoolHandle,
    projections: Vec<ProjectionRef>,
    commands: CommandBus,
    ingest: Ingest,
    queries: QueryBus,
    bus: EventBus,
    letters: DeadLetters,
    sagas: Sagas,
    consumers: Consumers,
    processes: Processes,
    timers: Timers,
    schedule: Schedules,
    nudge: Nudge,
    _lock: Option<lock::StoreLock>,
}

impl SystemCore {
    /// A node on embedded defaults: SQLite in `data/smith.db`, everything in process, no HTTP
    /// unless [`listen`](SystemBuilder::listen) is called.
    #[must_use]
    pub fn embedded() -> SystemBuilder {
        SystemBuilder::new()
    }

    /// Starts an agent: an actor under `/agents`, restarted when it crashes, at an address that
    /// stays the same.
    ///
    /// # Errors
    /// An agent of that name is there, or it did not start.
    pub async fn spawn<A: Actor>(
        &self,
        name: &str,
        args: A::Args,
    ) -> Result<Address<A::Message>, SupervisorError> {
        self.0.actors.spawn::<A>(plan::AGENTS, name, args).await
    }

    /// The actors of this node: find, look, kill, restart, suspend by path.
    #[must_use]
    pub fn actors(&self) -> &ActorSystem {
        &self.0.actors
    }

    /// The supervision tree as it is now, with large groups folded. `Display` is the picture.
    #[must_use]
    pub fn tree(&self) -> SupervisionTree {
        self.0.actors.look("/", Depth::FOLDED).expect("the root is always there")
    }

    /// Where HTTP is served, if it is.
    #[must_use]
    pub fn addr(&self) -> Option<SocketAddr> {
        self.0.addr
    }

    /// The store: its file or its address without a password, and whether this start made it.
    #[must_use]
    pub fn store(&self) -> (&str, bool) {
        (&self.0.store, self.0.created)
    }

    /// Takes in events that nobody decides on, as the HTTP edge does.
    #[must_use]
    pub fn ingest(&self) -> &Ingest {
        &self.0.ingest
    }

    /// The projections of this node.
    #[must_use]
    pub fn projections(&self) -> &[ProjectionRef] {
        &self.0.projections
    }

    /// A projection by its name.
    ///
    /// # Errors
    /// This node has none of that name.
    pub fn projection(&self, name: &str) -> Result<&ProjectionRef, ProjectionError> {
        let found = self.0.projections.iter().find(|projection| projection.name() == name);
        found.ok_or_else(|| ProjectionError::Unknown { projection: name.to_owned() })
    }

    /// Sends commands to aggregates.
    #[must_use]
    pub fn commands(&self) -> &CommandBus {
        &self.0.commands
    }

    /// Sends commands to aggregates of other nodes.
    #[must_use]
    pub fn remote_commands(
        &self,
        remote: Arc<dyn Remote>,
        options: RemoteOptions,
    ) -> RemoteCommands {
        let actors = self.0.actors.clone();
        RemoteCommands::new(remote, options, move || {
            let now = Timestamp::from_micros(actors.clock().wall_us());
            let id = EventId::at(now, actors.random_u64(), actors.random_u64());
            // Two nodes can have one seed.
            format!("{}-{id}", std::process::id())
        })
    }

    /// The event bus: publish, subscribe.
    #[must_use]
    pub fn bus(&self) -> &EventBus {
        &self.0.bus
    }

    /// Messages that a subscriber could not handle.
    #[must_use]
    pub fn dead_letters(&self) -> &DeadLetters {
        &self.0.letters
    }

    /// Processes of several steps: begin, see, retry, abort.
    #[must_use]
    pub fn sagas(&self) -> &Sagas {
        &self.0.sagas
    }

    /// Handlers that follow the log under names of their own: start, stop, go back.
    #[must_use]
    pub fn consumers(&self) -> &Consumers {
        &self.0.consumers
    }

    /// Those who follow the log, on whichever node of the store: how far they are, what they have
    /// put aside, and pause, go back, skip.
    #[must_use]
    pub fn followers(&self) -> Followers {
        Followers::of(self.0.pool.clone())
    }

    /// Processes that react to events and to time.
    #[must_use]
    pub fn processes(&self) -> &Processes {
        &self.0.processes
    }

    /// What is to happen at a time: set, cancel, see, and handle kinds of one's own.
    #[must_use]
    pub fn timers(&self) -> &Timers {
        &self.0.timers
    }

    /// Messages that are published later: at a time, after a while, or whenever a pattern of cron
    /// comes true.
    #[must_use]
    pub fn schedule(&self) -> &Schedules {
        &self.0.schedule
    }

    /// Says that a transaction with messages in the outbox table was committed: they are sent at
    /// once, and not with the next look at the table.
    pub fn nudge_outbox(&self) {
        self.0.nudge.nudge();
    }

    /// Typed questions, and who answers them.
    #[must_use]
    pub fn queries(&self) -> &QueryBus {
        &self.0.queries
    }

    /// The store, to read from.
    #[must_use]
    pub fn pool(&self) -> &PoolHandle {
        &self.0.pool
    }

    /// How far the log is, as far as this node has announced it.
    #[must_use]
    pub fn head(&self) -> Position {
        *self.0.head.borrow()
    }

    /// Waits until all projections have applied everything up to `position`, on whichever nodes.
    ///
    /// # Errors
    /// One of them is not as far after
    /// [`WAIT_FOR`](mister_smith_actors::projection::handle::WAIT_FOR); the error says why, if that
    /// is known.
    ///
    /// # Cancel safety
    /// Nothing is lost by dropping it.
    pub async fn wait_for(&self, position: Position) -> Result<(), RequestError> {
        let waiting = self.0.projections.iter().map(|projection| projection.wait_for(position));
        futures_util::future::try_join_all(waiting).await.map(|_| ())
    }

    /// Stops everything in reverse start order; what is left after `deadline` is killed. Returns
    /// whether all stopped in order.
    pub async fn stop(&self, deadline: Duration) -> bool {
        if let Some(edge) = &self.0.edge {
            edge.close();
        }
        let stopped = self.0.actors.shutdown(deadline).await;
        // Handlers may hold the bus, which holds their mailboxes.
        self.0.bus.close();
        stopped
    }

    /// Waits until the node has ended by itself, and says why. A node that is not told to stop
    /// ends only when its root has given up.
    pub async fn ended(&self) -> ExitReason {
        self.0.actors.ended().await
    }
}

impl fmt::Debug for SystemCore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SystemCore")
            .field("actors", &self.0.actors)
            .field("addr", &self.0.addr)
            .finish_non_exhaustive()
    }
}
