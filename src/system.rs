//! [`SystemCore`]: one value that owns a whole node.
//!
//! Everything in it is an actor in one supervision tree. Reading the tree from top to bottom is
//! the start order, from bottom to top the stop order. Nothing is global: several live side by
//! side in one process.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mister_smith_actors::aggregate::registry::Aggregates;
use mister_smith_actors::aggregate::{self, Aggregate, InvalidAggregate};
use mister_smith_actors::command::{CommandBus, CommandOptions, Middleware};
use mister_smith_actors::event::Position;
use mister_smith_actors::pool::{AddressError, PoolHandle, PoolMessage, connector};
use mister_smith_actors::projection::handle::{ProjectionRef, Registered, register};
use mister_smith_actors::projection::streams::Streams;
use mister_smith_actors::projection::{Projection, ProjectionError};
use mister_smith_actors::query::QueryBus;
use mister_smith_actors::store::{RecordedType, StoreError};
use mister_smith_supervisors::{
    Actor, ActorSystem, Address, AskError, DeadLetters, Depth, ExitReason, LookupError, Observer,
    SupervisionTree, SupervisorError,
};
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::http::{self, Edge, Limits};

mod lock;
mod plan;

pub use lock::LockError;

/// Where the embedded store lies when nobody says otherwise.
pub const DEFAULT_STORE: &str = "sqlite://data/smith.db";

/// Where the node listens when nobody says otherwise.
pub const DEFAULT_LISTEN: &str = "127.0.0.1:7373";

/// How long a graceful stop may take before what is left is killed.
pub const DEFAULT_STOP_DEADLINE: Duration = Duration::from_secs(20);

/// Why a node did not start. Nothing of it is left running.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SystemError {
    /// The address of the store cannot be used.
    #[error("--store {url}: {source}")]
    Store {
        /// What was given.
        url: String,
        /// What is wrong with it.
        source: AddressError,
    },
    /// The store was left as it was.
    #[cfg(any(feature = "sqlite", feature = "postgres"))]
    #[error(transparent)]
    Migrate(#[from] crate::migrate::MigrateError),
    /// Another node works on the same store.
    #[error(transparent)]
    Locked(#[from] LockError),
    /// The address to listen on is taken.
    #[error(
        "{addr} is in use by another program; stop it, or give --listen another port (port 0 picks a free one)"
    )]
    InUse {
        /// The address.
        addr: SocketAddr,
    },
    /// The address to listen on cannot be used.
    #[error("cannot listen on {addr}: {source}; give --listen an address of this machine")]
    Listen {
        /// The address.
        addr: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// The address can be reached from other machines, and nobody would be asked who they are.
    #[error(
        "{addr} can be reached from other machines, and this node does not ask who calls; listen on 127.0.0.1 or [::1] and put a proxy that authenticates in front of it"
    )]
    NotLoopback {
        /// The address.
        addr: SocketAddr,
    },
    /// An actor of the node did not start.
    #[error("the node did not start: {0}")]
    Start(#[from] SupervisorError),
    /// An aggregate type cannot work, or not with the events that the store holds.
    #[error(transparent)]
    Aggregate(#[from] InvalidAggregate),
    /// The store could not be read.
    #[error("the node did not start: {0}")]
    Read(#[from] StoreError),
    /// The pool did not answer.
    #[error("the node did not start: {0}")]
    Pool(#[from] AskError),
    /// The tree is not as this program built it.
    #[error("the node did not start: {0}")]
    Lookup(#[from] LookupError),
}

/// Whether an aggregate type can work with the event types that a store holds.
type TypeCheck = fn(&[RecordedType]) -> Result<(), InvalidAggregate>;

/// Builds a [`SystemCore`].
pub struct SystemBuilder {
    name: String,
    store: String,
    listen: Option<SocketAddr>,
    limits: Limits,
    seed: Option<u64>,
    observers: Vec<Arc<dyn Observer>>,
    dead_letters: Option<Arc<dyn DeadLetters>>,
    commands: CommandOptions,
    middleware: Vec<Arc<dyn Middleware>>,
    checks: Vec<TypeCheck>,
    projections: Vec<Registered>,
    production: bool,
}

impl SystemBuilder {
    /// The node's name, shown at the top of its tree.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// The store, by URL: `sqlite://PATH` or a plain path, made if missing; or `postgres://…`.
    #[must_use]
    pub fn store(mut self, url: impl Into<String>) -> Self {
        self.store = url.into();
        self
    }

    /// Serves HTTP on a loopback address; port 0 picks a free one.
    #[must_use]
    pub fn listen(mut self, addr: SocketAddr) -> Self {
        self.listen = Some(addr);
        self
    }

    /// What the HTTP edge takes at most.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// The seed of the node's randomness. From the clock unless set.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Hears every lifecycle event of the node.
    #[must_use]
    pub fn observer(mut self, observer: impl Observer) -> Self {
        self.observers.push(Arc::new(observer));
        self
    }

    /// Takes the node's dead letters. Without it they are logged.
    #[must_use]
    pub fn dead_letters(mut self, hook: impl DeadLetters) -> Self {
        self.dead_letters = Some(Arc::new(hook));
        self
    }

    /// Checks an aggregate type before the node is up: its category, the shape of its events, and
    /// that every version of them that the store holds can be read.
    ///
    /// A type that is not named here works too, and finds out with its first command.
    #[must_use]
    pub fn aggregate<A: Aggregate>(mut self) -> Self {
        self.checks.push(aggregate::check::<A>);
        self
    }

    /// Keeps a read model. It is made of the whole log, in the background.
    #[must_use]
    pub fn projection<P: Projection>(mut self, projection: P) -> Self {
        self.projections.push(register(projection));
        self
    }

    /// Nothing is migrated by itself: a store that is not at this program's version is an error
    /// that says what to run.
    #[must_use]
    pub fn production(mut self, production: bool) -> Self {
        self.production = production;
        self
    }

    /// How aggregates live: idle time, deadline, retries, how many.
    #[must_use]
    pub fn commands(mut self, options: CommandOptions) -> Self {
        self.commands = options;
        self
    }

    /// Lets a middleware see every command, after those added before it.
    #[must_use]
    pub fn middleware(mut self, middleware: impl Middleware + 'static) -> Self {
        self.middleware.push(Arc::new(middleware));
        self
    }

    /// Migrates the store, starts every actor in order, and returns when the node is up.
    ///
    /// # Errors
    /// See [`SystemError`]; each names what was wrong and what to do.
    pub async fn start(self) -> Result<SystemCore, SystemError> {
        let connect = connector(&self.store)
            .map_err(|source| SystemError::Store { url: self.store.clone(), source })?;
        let listener = match self.listen {
            Some(addr) => Some(bind(addr).await?),
            None => None,
        };
        let kind = kind(&self.store);
        let prepared = prepare_store(&self.store, self.production).await?;
        let head = Arc::new(watch::Sender::new(Position::ZERO));
        let edge =
            listener.map(|(listener, addr)| Edge::new(Arc::new(listener), addr, self.limits));
        let epoch_us = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| i64::try_from(since.as_micros()).unwrap_or(i64::MAX));
        let (handles, plans) = self
            .projections
            .into_iter()
            .map(|one| (one.handle, one.plan))
            .unzip::<_, _, Vec<_>, _>();
        let root = plan::root(plan::Parts {
            name: &self.name,
            kind,
            connect,
            head: &head,
            // Two nodes of one name on one store are two; a process that was killed and started
            // again is another one, too.
            owner: format!("{} {}/{epoch_us}", self.name, std::process::id()).into(),
            projections: plans,
            edge: edge.as_ref(),
        });
        let mut builder = ActorSystem::builder(root)
            .policies(plan::policies())
            .seed(self.seed.unwrap_or(epoch_us.cast_unsigned()))
            .epoch_us(epoch_us)
            .observer(log_event);
        for observer in self.observers {
            builder = builder.observer(move |event: &_| observer.on_event(event));
        }
        if let Some(hook) = self.dead_letters {
            builder = builder.dead_letters(move |letter| hook.on_dead_letter(letter));
        }
        let actors = builder.start().await?;
        let pool = pool(&actors, kind)?;
        if let Err(error) = check(&pool, &self.checks).await {
            actors.shutdown(DEFAULT_STOP_DEADLINE).await;
            return Err(error);
        }
        let commands = CommandBus::new(
            actors.supervisor(plan::AGGREGATES)?,
            plan::pool(kind),
            plan::COMMITTER,
            self.commands,
            self.middleware,
        );
        let find = actors.clone();
        let find = Arc::new(move |path: &str| find.find(path));
        let projections: Vec<_> = handles
            .into_iter()
            .map(|handle| handle.bind(pool.clone(), plan::PROJECTIONS, Arc::clone(&find) as _))
            .collect();
        let addr = edge.as_ref().map(Edge::addr);
        if let Some(edge) = &edge {
            edge.open(http::Node {
                actors: actors.clone(),
                pool: pool.clone(),
                aggregates: aggregates(&actors, kind)?,
                projections: projections.clone(),
            });
        }
        let inner = Inner {
            actors,
            addr,
            kind,
            store: prepared.name,
            created: prepared.created,
            edge,
            head,
            pool,
            projections,
            commands,
            queries: QueryBus::new(),
            _lock: prepared.lock,
        };
        Ok(SystemCore(Arc::new(inner)))
    }
}

impl fmt::Debug for SystemBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SystemBuilder")
            .field("name", &self.name)
            .field("store", &self.store)
            .field("listen", &self.listen)
            .finish_non_exhaustive()
    }
}

/// A running node. Cheap to clone.
#[derive(Clone)]
pub struct SystemCore(Arc<Inner>);

struct Inner {
    actors: ActorSystem,
    addr: Option<SocketAddr>,
    kind: &'static str,
    store: String,
    created: bool,
    edge: Option<Edge>,
    head: Arc<watch::Sender<Position>>,
    pool: PoolHandle,
    projections: Vec<ProjectionRef>,
    commands: CommandBus,
    queries: QueryBus,
    _lock: Option<lock::StoreLock>,
}

impl SystemCore {
    /// A node on embedded defaults: SQLite in `data/smith.db`, everything in process, no HTTP
    /// unless [`listen`](SystemBuilder::listen) is called.
    #[must_use]
    pub fn embedded() -> SystemBuilder {
        SystemBuilder {
            name: "node".to_owned(),
            store: DEFAULT_STORE.to_owned(),
            listen: None,
            limits: Limits::default(),
            seed: None,
            observers: Vec::new(),
            dead_letters: None,
            commands: CommandOptions::default(),
            middleware: Vec::new(),
            checks: Vec::new(),
            projections: vec![register(Streams)],
            production: false,
        }
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

    /// Streams by name: hand events to them in process, as the HTTP edge does.
    ///
    /// # Errors
    /// The node is stopping.
    pub fn aggregates(&self) -> Result<Aggregates, LookupError> {
        aggregates(&self.0.actors, self.0.kind)
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

    /// Waits until all projections have applied everything up to `position`.
    ///
    /// # Cancel safety
    /// Nothing is lost by dropping it.
    pub async fn wait_for(&self, position: Position) {
        for projection in &self.0.projections {
            projection.wait_for(position).await;
        }
    }

    /// Stops everything in reverse start order; what is left after `deadline` is killed. Returns
    /// whether all stopped in order.
    pub async fn stop(&self, deadline: Duration) -> bool {
        if let Some(edge) = &self.0.edge {
            edge.close();
        }
        self.0.actors.shutdown(deadline).await
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

fn pool(actors: &ActorSystem, kind: &str) -> Result<PoolHandle, LookupError> {
    actors.find::<PoolMessage>(&plan::pool(kind)).map(PoolHandle::new)
}

fn aggregates(actors: &ActorSystem, kind: &str) -> Result<Aggregates, LookupError> {
    let supervisor = actors.supervisor(plan::AGGREGATES)?;
    Ok(Aggregates::new(supervisor, plan::pool(kind), plan::COMMITTER))
}

/// The kind of store that an address names. [`connector`] has refused what is neither.
fn kind(url: &str) -> &'static str {
    match url.split_once("://").map(|(scheme, _)| scheme) {
        Some("postgres" | "postgresql") => "postgres",
        _ => "sqlite",
    }
}

async fn check(pool: &PoolHandle, checks: &[TypeCheck]) -> Result<(), SystemError> {
    if checks.is_empty() {
        return Ok(());
    }
    let recorded = pool.lease().await?.store.event_types().await?;
    checks.iter().try_for_each(|check| check(&recorded)).map_err(SystemError::from)
}

/// Binds before anything starts, so that a port in use leaves nothing behind, and keeps the socket
/// for the node's whole life: a restart of the HTTP actor refuses no connection.
async fn bind(addr: SocketAddr) -> Result<(TcpListener, SocketAddr), SystemError> {
    if !is_loopback(addr.ip()) {
        return Err(SystemError::NotLoopback { addr });
    }
    let listener = TcpListener::bind(addr).await.map_err(|source| match source.kind() {
        std::io::ErrorKind::AddrInUse => SystemError::InUse { addr },
        _ => SystemError::Listen { addr, source },
    })?;
    let bound = listener.local_addr().map_err(|source| SystemError::Listen { addr, source })?;
    Ok((listener, bound))
}

fn is_loopback(ip: IpAddr) -> bool {
    ip.to_canonical().is_loopback()
}

/// A store that a node may work on.
struct Prepared {
    name: String,
    created: bool,
    /// A file is one node's; a server is shared.
    lock: Option<lock::StoreLock>,
}

#[cfg(any(feature = "sqlite", feature = "postgres"))]
async fn prepare_store(url: &str, production: bool) -> Result<Prepared, SystemError> {
    use crate::migrate::{self, MigrateError};
    #[cfg(feature = "sqlite")]
    let lock = match kind(url) {
        "sqlite" => {
            let path = std::path::Path::new(url);
            Some(lock::StoreLock::take(&mister_smith_actors::store::sqlite::file_of(path))?)
        }
        _ => None,
    };
    #[cfg(not(feature = "sqlite"))]
    let lock = None;
    if production {
        let status = migrate::status(url).await?;
        let pending = status.pending();
        if !pending.is_empty() && status.problems.is_empty() {
            return Err(SystemError::Migrate(MigrateError::Pending {
                store: status.store.clone(),
                count: pending.len(),
                names: pending.join(", "),
            }));
        }
    }
    // With nothing pending this applies nothing, and refuses what is wrong.
    let report = migrate::up(url).await?;
    Ok(Prepared { name: report.store, created: report.created, lock })
}

#[cfg(not(any(feature = "sqlite", feature = "postgres")))]
async fn prepare_store(url: &str, _: bool) -> Result<Prepared, SystemError> {
    let source = AddressError::NotBuilt { feature: "sqlite" };
    Err(SystemError::Store { url: url.to_owned(), source })
}

/// Every failure and restart, in the log once.
fn log_event(event: &mister_smith_supervisors::LifecycleEvent) {
    use mister_smith_supervisors::LifecycleKind as Kind;
    let (path, life) = (&event.path, event.life);
    match &event.kind {
        Kind::Failed { reason } | Kind::StartFailed { reason } => {
            tracing::warn!(actor.path = %path, life, %reason, "{}", event.kind.name());
        }
        Kind::Escalated { reason } => {
            tracing::error!(actor.path = %path, life, %reason, "escalated");
        }
        Kind::Stuck => tracing::error!(actor.path = %path, life, "stuck"),
        Kind::Restarted { restarts } => {
            tracing::info!(actor.path = %path, life, restarts, "restarted");
        }
        kind => tracing::debug!(actor.path = %path, life, "{}", kind.name()),
    }
}
