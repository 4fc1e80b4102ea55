//! From settings to a running node.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use mister_smith_actors::aggregate::{self, Aggregate};
use mister_smith_actors::bus::EventBus;
use mister_smith_actors::bus::broker::Broker;
use mister_smith_actors::bus::lifecycle_feed::LifecycleQueue;
use mister_smith_actors::bus::queue::Sender;
use mister_smith_actors::bus::remote::Remote;
use mister_smith_actors::command::remote::server::{CommandServerArgs, ServeOptions, Served};
use mister_smith_actors::command::{CommandBus, CommandOptions, Middleware};
use mister_smith_actors::component;
use mister_smith_actors::consumer::Consumers;
use mister_smith_actors::dead_letter::{DeadLetters, Letters};
use mister_smith_actors::event::Position;
use mister_smith_actors::ingest::Ingest;
use mister_smith_actors::outbox::table::Nudge;
use mister_smith_actors::outbox::{BusOutlet, QueueOutlet, subject_under};
#[cfg(feature = "postgres")]
use mister_smith_actors::pool::PgConnect;
use mister_smith_actors::pool::{Connect, PoolHandle, PoolMessage, connector};
use mister_smith_actors::process::Processes;
use mister_smith_actors::projection::Projection;
use mister_smith_actors::projection::handle::{ProjectionRef, Registered, register};
use mister_smith_actors::projection::streams::Streams;
use mister_smith_actors::query::QueryBus;
use mister_smith_actors::saga::{Definition, Definitions, OpenSagas, Sagas};
use mister_smith_actors::store::EventFilter;
use mister_smith_actors::store::committer::{CommitterHandle, CommitterMessage};
use mister_smith_actors::store::notes::{Owner, Owners};
#[cfg(feature = "postgres")]
use mister_smith_actors::store::postgres::PgOptions;
use mister_smith_actors::timer::Timers;
use mister_smith_actors::timer::schedule::Schedules;
use mister_smith_supervisors::{
    ActorSystem, Clock, DeadLetters as Undeliverable, HealthSpec, LookupError, Observer,
    ThreadPoolSpec, Work,
};
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::checks::{TypeCheck, check, claim, prepare_store};
use super::events::log_event;
use super::{
    AccessOptions, DEFAULT_STOP_DEADLINE, DEFAULT_STORE, Inner, SystemCore, SystemError,
    archive::Archives, lock, plan,
};
use crate::http::{self, Edge, Limits};

/// Builds a [`SystemCore`].
pub struct SystemBuilder {
    name: String,
    store: String,
    #[cfg(feature = "postgres")]
    postgres: PgOptions,
    listen: Option<SocketAddr>,
    limits: Limits,
    access: AccessOptions,
    seed: Option<u64>,
    observers: Vec<Arc<dyn Observer>>,
    dead_letters: Option<Arc<dyn Undeliverable>>,
    commands: CommandOptions,
    middleware: Vec<Arc<dyn Middleware>>,
    checks: Vec<TypeCheck>,
    /// Whose the streams of these categories are.
    owned: Vec<(&'static str, Owner)>,
    projections: Vec<Registered>,
    sagas: Vec<Arc<dyn Definition>>,
    outboxes: Vec<plan::Sending>,
    to_bus: Option<EventFilter>,
    table: Option<Arc<dyn Sender>>,
    servers: Vec<CommandServerArgs>,
    brokers: Vec<Broker>,
    production: bool,
    pub(super) archives: Archives,
    threads: Vec<(Work, ThreadPoolSpec)>,
}

impl SystemBuilder {
    pub(super) fn new() -> Self {
        Self {
            name: "node".to_owned(),
            store: DEFAULT_STORE.to_owned(),
            #[cfg(feature = "postgres")]
            postgres: PgOptions::default(),
            listen: None,
            limits: Limits::default(),
            access: AccessOptions::default(),
            seed: None,
            observers: Vec::new(),
            dead_letters: None,
            commands: CommandOptions::default(),
            middleware: Vec::new(),
            checks: Vec::new(),
            owned: Vec::new(),
            projections: vec![register(Streams)],
            sagas: Vec::new(),
            outboxes: Vec::new(),
            to_bus: None,
            table: None,
            servers: Vec::new(),
            brokers: Vec::new(),
            production: false,
            archives: Archives::default(),
            threads: Vec::new(),
        }
    }

    /// The node's name, shown at the top of its tree.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// The store, by URL: `sqlite://PATH` or a plain path, made if missing; or `postgres://…`.
    #[must_use]
    pub fn store(mut self, url: impl Into<String>) -> Self {
        let (store, directory) = crate::archive::of_url(&url.into());
        self.store = store;
        self.archives.directory = directory.or(self.archives.directory);
        self
    }

    /// How a PostgreSQL store is opened, where its address does not say so.
    #[cfg(feature = "postgres")]
    #[must_use]
    pub fn postgres(mut self, options: PgOptions) -> Self {
        self.postgres = options;
        self
    }

    /// The size of one of the pools of threads for work that computes or blocks; see
    /// [`ActorSystemBuilder::thread_pool`](mister_smith_supervisors::ActorSystemBuilder::thread_pool).
    #[must_use]
    pub fn thread_pool(mut self, work: Work, spec: ThreadPoolSpec) -> Self {
        self.threads.push((work, spec));
        self
    }

    /// Serves HTTP on an address; port 0 picks a free one. One that other machines can reach needs
    /// [`access`](Self::access).
    #[must_use]
    pub fn listen(mut self, addr: SocketAddr) -> Self {
        self.listen = Some(addr);
        self
    }

    /// Who is let in over HTTP.
    #[must_use]
    pub fn access(mut self, access: AccessOptions) -> Self {
        self.access = access;
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

    /// Takes messages to actors that nobody will handle. Without it they are logged. What
    /// subscribers of the bus give up is kept in the store instead, see
    /// [`SystemCore::dead_letters`].
    #[must_use]
    pub fn dead_letters(mut self, hook: impl Undeliverable) -> Self {
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
        self.owned.push((A::CATEGORY, A::OWNER));
        self
    }

    /// Keeps a read model. It is made of the whole log, in the background.
    #[must_use]
    pub fn projection<P: Projection>(mut self, projection: P) -> Self {
        self.projections.push(register(projection));
        self
    }

    /// Adds a kind of saga.
    #[must_use]
    pub fn saga(mut self, saga: impl Definition + 'static) -> Self {
        self.sagas.push(Arc::new(saga));
        self
    }

    /// Sends the events of the log that the filter lets through to a queue, in the order of the
    /// log and at least once, under `NAME.CATEGORY.TYPE`. The name is the relay's, too: its place
    /// in the log is kept under it.
    #[must_use]
    pub fn outbox(mut self, name: &str, queue: Arc<dyn Sender>, filter: EventFilter) -> Self {
        self.outboxes.push(plan::Sending {
            name: name.to_owned(),
            outlet: Arc::new(QueueOutlet::new(queue)),
            filter,
            subject: subject_under(name),
            on_every_node: false,
        });
        self
    }

    /// Publishes the events of the log that the filter lets through on the node's bus, under
    /// `events.CATEGORY.TYPE`: those that are committed from its start on, by whichever node.
    #[must_use]
    pub fn publish_events(mut self, filter: EventFilter) -> Self {
        self.to_bus = Some(filter);
        self
    }

    /// Sends what applications put into the outbox table, with transactions of their own, to a
    /// queue.
    #[must_use]
    pub fn outbox_table(mut self, queue: Arc<dyn Sender>) -> Self {
        self.table = Some(queue);
        self
    }

    /// Keeps the connection to a broker: an actor under `/resources` owns it. What the broker gives
    /// (queues, requests, buckets) works when the node is up, and over restarts of that actor.
    #[must_use]
    pub fn broker(mut self, broker: &Broker) -> Self {
        self.brokers.push(broker.clone());
        self
    }

    /// Serves commands of other nodes: whoever sends one over the same broker to a category that is
    /// served here may get its answer from this node. All nodes that serve share the work; they
    /// have to work on one store.
    #[must_use]
    pub fn serve_commands(
        mut self,
        remote: Arc<dyn Remote>,
        options: ServeOptions,
        served: impl IntoIterator<Item = Served>,
    ) -> Self {
        let served: Vec<_> = served.into_iter().collect();
        self.owned.extend(served.iter().map(Served::owned));
        self.servers.push(CommandServerArgs::new(remote, options, served));
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

    fn connector(&self) -> Result<Arc<dyn Connect>, SystemError> {
        #[cfg(feature = "postgres")]
        if kind(&self.store) == "postgres" {
            let connect = PgConnect::new(&*self.store).options(self.postgres.clone());
            return Ok(Arc::new(connect));
        }
        connector(&self.store)
            .map_err(|source| SystemError::Store { url: self.store.clone(), source })
    }

    /// Migrates the store, starts every actor in order, and returns when the node is up.
    ///
    /// # Errors
    /// See [`SystemError`]; each names what was wrong and what to do.
    pub async fn start(self) -> Result<SystemCore, SystemError> {
        let settings = self.settings();
        let connect = self.archives.mount(self.connector()?);
        let listener = match self.listen {
            Some(addr) => {
                self.access.check(addr)?;
                Some(bind(addr).await?)
            }
            None => None,
        };
        let kind = kind(&self.store);
        let prepared = prepare_store(&self.store, self.production).await?;
        let head = Arc::new(watch::Sender::new(Position::ZERO));
        let edge = listener.map(|(listener, addr)| {
            let door = self.access.door(addr, self.production);
            Edge::new(Arc::new(listener), addr, self.limits, door)
        });
        let epoch_us = crate::runtime::wall_us();
        let seed = self.seed.unwrap_or(epoch_us.cast_unsigned());
        let definitions = Definitions::new(self.sagas)?;
        let clock = Clock::following(crate::runtime::wall_us);
        let bus = EventBus::new(clock, seed);
        let letters = DeadLetters::new(bus.clone());
        let lifecycle = LifecycleQueue::default();
        let mut relays = self.outboxes;
        relays.extend(self.to_bus.map(|filter| plan::Sending {
            name: "bus".to_owned(),
            outlet: Arc::new(BusOutlet::new(bus.clone())),
            filter,
            subject: subject_under("events"),
            on_every_node: true,
        }));
        let nudge = Nudge::default();
        let own = [register(Letters), register(OpenSagas)];
        let (handles, plans) = self
            .projections
            .into_iter()
            .chain(own)
            .map(|one| (one.handle, one.plan))
            .unzip::<_, _, Vec<_>, _>();
        // Two nodes of one name on one store are two; a process that was killed and started again
        // is another one, too.
        let owner: Arc<str> = format!("{} {}/{epoch_us}", self.name, std::process::id()).into();
        let root = plan::root(plan::Parts {
            name: &self.name,
            kind,
            connect,
            head: &head,
            owner: Arc::clone(&owner),
            projections: plans,
            bus: &bus,
            letters: &letters,
            lifecycle: &lifecycle,
            definitions: &definitions,
            relays,
            table: self.table.map(|queue| (queue, nudge.clone())),
            servers: &self.servers,
            brokers: &self.brokers,
            archivist: self.archives.archivist(kind),
            edge: edge.as_ref(),
        });
        let mut builder = ActorSystem::builder(root)
            .policies(component::recommended())
            .seed(seed)
            .clock(clock)
            .observer(log_event)
            .observer(lifecycle);
        for (work, spec) in self.threads {
            builder = builder.thread_pool(work, spec);
        }
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
        let owners = Owners::default();
        if let Err(error) = claim(&pool, &owners, self.owned, clock).await {
            actors.shutdown(DEFAULT_STOP_DEADLINE).await;
            return Err(error);
        }
        let commands = CommandBus::new(
            actors.supervisor(plan::AGGREGATES)?,
            plan::pool(kind),
            plan::COMMITTER,
            self.commands,
            self.middleware,
        )
        .owners(owners.clone());
        let projections: Vec<ProjectionRef> = handles
            .into_iter()
            .map(|handle| handle.bind(pool.clone(), plan::PROJECTIONS))
            .collect();
        let named = |name: &str| {
            let found = projections.iter().find(|projection| projection.name() == name);
            found.cloned().expect("the node has put it there")
        };
        letters.open(commands.clone(), named(Letters::NAME));
        let committer = CommitterHandle::new(actors.find::<CommitterMessage>(plan::COMMITTER)?);
        let consumers = Consumers::new(
            actors.supervisor(plan::CONSUMERS)?,
            plan::pool(kind),
            Arc::clone(&owner),
            head.subscribe(),
            bus.clone(),
            Arc::new(letters.clone()),
            HealthSpec::every(plan::HEALTH_PERIOD),
        );
        let timers = Timers::new(
            actors.supervisor(plan::TIMERS)?,
            (plan::pool(kind), pool.clone()),
            Arc::clone(&owner),
            bus.clone(),
            Arc::new(letters.clone()),
            clock,
            HealthSpec::every(plan::HEALTH_PERIOD),
        );
        let schedule = Schedules::new(timers.clone(), bus.clone());
        if let Err(error) = schedule.start().await {
            actors.shutdown(DEFAULT_STOP_DEADLINE).await;
            return Err(error.into());
        }
        let processes = Processes::new(
            actors.supervisor(plan::CONSUMERS)?,
            consumers.clone(),
            commands.clone(),
            timers.clone(),
            (plan::pool(kind), pool.clone()),
            owner,
            head.subscribe(),
        );
        for server in &self.servers {
            server.open(commands.clone());
        }
        let random = actors.clone();
        let ingest =
            Ingest::new(committer.clone(), owners, actors.clock(), move || random.random_u64());
        let random = actors.clone();
        let sagas = Sagas::new(
            definitions,
            committer,
            pool.clone(),
            named(OpenSagas::NAME),
            actors.clock(),
            move || random.random_u64(),
        );
        let addr = edge.as_ref().map(Edge::addr);
        if let Some(edge) = &edge {
            edge.open(http::Node {
                actors: actors.clone(),
                pool: pool.clone(),
                ingest: ingest.clone(),
                projections: projections.clone(),
                bus: bus.clone(),
                letters: letters.clone(),
                sagas: sagas.clone(),
                consumers: consumers.clone(),
                timers: timers.clone(),
                facts: Arc::new(http::Facts {
                    production: self.production,
                    kind,
                    store: prepared.name.clone(),
                    head: head.subscribe(),
                    settings,
                }),
                brokers: self.brokers,
            });
        }
        let inner = Inner {
            actors,
            addr,
            store: prepared.name,
            created: prepared.created,
            edge,
            head,
            pool,
            projections,
            commands,
            ingest,
            queries: QueryBus::new(),
            bus,
            letters,
            sagas,
            consumers,
            processes,
            timers,
            schedule,
            nudge,
            _lock: prepared.lock,
        };
        Ok(SystemCore(Arc::new(inner)))
    }
}

impl SystemBuilder {
    /// What it was set to, for those who look; addresses stand without passwords elsewhere.
    fn settings(&self) -> Vec<(&'static str, String)> {
        let Limits { body_bytes, requests, in_flight_mib, connections, .. } = self.limits;
        let CommandOptions { idle_after, deadline, retries, live, .. } = &self.commands;
        let listen = self.listen.map_or_else(|| "nowhere".to_owned(), |addr| addr.to_string());
        vec![
            ("name", self.name.clone()),
            ("env", if self.production { "production" } else { "development" }.to_owned()),
            ("listen", listen),
            ("access", format!("{:?}", self.access)),
            ("http.body_bytes", body_bytes.to_string()),
            ("http.requests", requests.to_string()),
            ("http.in_flight_mib", in_flight_mib.to_string()),
            ("http.connections", connections.to_string()),
            ("aggregates.idle_after", format!("{idle_after:?}")),
            ("aggregates.deadline", format!("{deadline:?}")),
            ("aggregates.retries", retries.to_string()),
            ("aggregates.live", live.to_string()),
            (
                "seed",
                self.seed.map_or_else(|| "from the clock".to_owned(), |seed| seed.to_string()),
            ),
        ]
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

fn pool(actors: &ActorSystem, kind: &str) -> Result<PoolHandle, LookupError> {
    actors.find::<PoolMessage>(&plan::pool(kind)).map(PoolHandle::new)
}

/// The kind of store that an address names. [`connector`] has refused what is neither.
fn kind(url: &str) -> &'static str {
    match url.split_once("://").map(|(scheme, _)| scheme) {
        Some("postgres" | "postgresql") => "postgres",
        _ => "sqlite",
    }
}

/// Binds before anything starts, so that a port in use leaves nothing behind, and keeps the socket
/// for the node's whole life: a restart of the HTTP actor refuses no connection.
async fn bind(addr: SocketAddr) -> Result<(TcpListener, SocketAddr), SystemError> {
    let listener = TcpListener::bind(addr).await.map_err(|source| match source.kind() {
        std::io::ErrorKind::AddrInUse => SystemError::InUse { addr },
        _ => SystemError::Listen { addr, source },
    })?;
    let bound = listener.local_addr().map_err(|source| SystemError::Listen { addr, source })?;
    Ok((listener, bound))
}

/// The lock of a store that one node has for itself; `None` where it is shared.
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub(crate) fn store_lock(url: &str) -> Result<Option<lock::StoreLock>, lock::LockError> {
    #[cfg(feature = "sqlite")]
    if kind(url) == "sqlite" {
        let path = mister_smith_actors::store::sqlite::file_of(std::path::Path::new(url));
        return lock::StoreLock::take(&path).map(Some);
    }
    let _ = url;
    Ok(None)
}
