//! The node's tree: who supervises whom, and how patiently.

use std::sync::Arc;
use std::time::Duration;

use mister_smith_actors::bus::broker::{Broker, BrokerActor};
use mister_smith_actors::bus::lifecycle_feed::{LifecycleFeed, LifecycleFeedArgs, LifecycleQueue};
use mister_smith_actors::bus::queue::Sender;
use mister_smith_actors::bus::{BusActor, BusArgs, EventBus};
use mister_smith_actors::command::remote::server::{CommandServer, CommandServerArgs};
use mister_smith_actors::component;
use mister_smith_actors::dead_letter::DeadLetters;
use mister_smith_actors::event::Position;
use mister_smith_actors::outbox::relay::{DEFAULT_LOOK_EVERY, Relay, RelayArgs};
use mister_smith_actors::outbox::table::{Nudge, TableArgs, TableRelay};
use mister_smith_actors::outbox::{Letters, Outlet, SubjectOf};
use mister_smith_actors::pool::{Connect, Pool, PoolArgs};
use mister_smith_actors::projection::handle::{Node, Plan, PlanArgs};
use mister_smith_actors::saga::Definitions;
use mister_smith_actors::saga::manager::{ManagerArgs, SagaManager};
use mister_smith_actors::store::EventFilter;
use mister_smith_actors::store::archive::policy::{Archivist, ArchivistArgs};
use mister_smith_actors::store::committer::{Committer, CommitterArgs};
use mister_smith_actors::store::feed::{Feed, FeedArgs};
use mister_smith_supervisors::{ChildSpec, HealthSpec, Strategy, SupervisorSpec};
use tokio::sync::watch;

use crate::http::{Edge, HttpServer};

pub(super) const COMMITTER: &str = "/resources/store.committer";
pub(super) const AGGREGATES: &str = "/domain/aggregates";
pub(super) const PROJECTIONS: &str = "/domain/projections";
const SUBSCRIPTIONS: &str = "/messaging/subscriptions";
pub(super) const CONSUMERS: &str = "/domain/consumers";
pub(super) const TIMERS: &str = "/domain/timers";
const RUNNING_SAGAS: &str = "/domain/sagas/running";
pub(super) const AGENTS: &str = "/agents";

/// Where the pool of a kind of store is.
pub(super) fn pool(kind: &str) -> String {
    format!("/resources/pool.{kind}")
}

/// What the tree is made of.
pub(super) struct Parts<'a> {
    pub(super) name: &'a str,
    /// The kind of store, by its scheme.
    pub(super) kind: &'static str,
    pub(super) connect: Arc<dyn Connect>,
    pub(super) head: &'a Arc<watch::Sender<Position>>,
    /// Who this node is to the others on its store.
    pub(super) owner: Arc<str>,
    pub(super) projections: Vec<Plan>,
    pub(super) bus: &'a EventBus,
    pub(super) letters: &'a DeadLetters,
    pub(super) lifecycle: &'a LifecycleQueue,
    pub(super) definitions: &'a Definitions,
    /// What is sent, and where to.
    pub(super) relays: Vec<Sending>,
    pub(super) table: Option<(Arc<dyn Sender>, Nudge)>,
    /// Who serves commands of other nodes.
    pub(super) servers: &'a [CommandServerArgs],
    /// Brokers whose connections the node keeps.
    pub(super) brokers: &'a [Broker],
    /// Who archives old ranges of the log, if the node does.
    pub(super) archivist: Option<ArchivistArgs>,
    pub(super) edge: Option<&'a Edge>,
}

/// Events of the log that are sent somewhere.
pub(super) struct Sending {
    pub(super) name: String,
    pub(super) outlet: Arc<dyn Outlet>,
    pub(super) filter: EventFilter,
    pub(super) subject: SubjectOf,
    /// Of several nodes on one store each sends, and not one for all.
    pub(super) on_every_node: bool,
}

/// A node must not stop for a burst of failures that it can outlive: a database that is down for
/// minutes, an operator or a test that kills one actor after the other. Backoffs keep the tries
/// rare; these limits are for what no restart mends.
const PATIENCE: (u32, Duration) = (1_000, Duration::from_secs(60));

/// The root is less patient: a whole part of the tree that gives up again and again is broken.
const ROOT_PATIENCE: (u32, Duration) = (100, Duration::from_secs(60));

/// How often components are asked how they are.
pub(super) const HEALTH_PERIOD: Duration = Duration::from_secs(5);

/// The whole tree; children start from top to bottom.
pub(super) fn root(mut parts: Parts<'_>) -> SupervisorSpec {
    let messaging = messaging(&mut parts);
    let Parts {
        name,
        kind,
        connect,
        head,
        owner,
        projections,
        definitions,
        servers,
        brokers,
        archivist,
        edge,
        ..
    } = parts;
    let health = HealthSpec::every(HEALTH_PERIOD);
    let path = pool(kind);
    let pool = ChildSpec::component::<Pool>(format!("pool.{kind}"), PoolArgs::new(connect));
    let committer = ChildSpec::component::<Committer>(
        "store.committer",
        CommitterArgs::new(&path, Arc::clone(head)),
    )
    .mailbox(8_192, mister_smith_supervisors::Overflow::default());
    let mut resources = patient("resources")
        .strategy(Strategy::RestForOne)
        .child(pool.health(health))
        .child(committer.health(health));
    if kind != "sqlite" {
        let feed = FeedArgs::new(&path, Arc::clone(head));
        resources = resources.child(ChildSpec::component::<Feed>("store.feed", feed));
    }
    for (n, broker) in brokers.iter().enumerate() {
        let scheme = broker.url().split(':').next().unwrap_or_default();
        let name = numbered(&format!("broker.{scheme}"), n);
        let broker = ChildSpec::component::<BrokerActor>(name, broker.clone());
        resources = resources.child(broker.health(health));
    }
    if let Some(archivist) = archivist {
        let archivist = ChildSpec::component::<Archivist>("store.archive", archivist);
        resources = resources.child(archivist.health(health));
    }
    let sagas = sagas(&path, &owner, head.subscribe(), definitions);
    let given = PlanArgs { pool: path.into(), owner, head: head.subscribe(), health };
    let projections = projections.into_iter().map(|plan| plan(given.clone()));
    let projections = projections.fold(patient("projections"), |all, node| match node {
        Node::Actor(actor) => all.child(actor),
        Node::Supervisor(supervisor) => {
            let (restarts, period) = PATIENCE;
            all.child(supervisor.intensity(restarts, period))
        }
    });
    let (restarts, period) = PATIENCE;
    let aggregates =
        SupervisorSpec::dynamic("aggregates").intensity(restarts, period).max_children(100_000);
    let consumers =
        SupervisorSpec::dynamic("consumers").intensity(restarts, period).keep_children();
    let timers = SupervisorSpec::dynamic("timers").intensity(restarts, period).keep_children();
    let domain = patient("domain")
        .child(aggregates)
        .child(projections)
        .child(sagas)
        .child(consumers)
        .child(timers);
    let agents = SupervisorSpec::dynamic("agents").intensity(restarts, period).keep_children();

    let (restarts, period) = ROOT_PATIENCE;
    let root = SupervisorSpec::new(name)
        .strategy(Strategy::RestForOne)
        .intensity(restarts, period)
        .child(resources)
        .child(messaging)
        .child(domain)
        .child(agents);
    if edge.is_none() && servers.is_empty() {
        return root;
    }
    let mut outside = patient("edge");
    if let Some(edge) = edge {
        let http = ChildSpec::actor::<HttpServer>("http", edge.clone());
        outside = outside.child(http.component_type(component::EDGE));
    }
    for (n, server) in servers.iter().enumerate() {
        let server = ChildSpec::component::<CommandServer>(numbered("commands", n), server.clone());
        outside = outside.child(server);
    }
    root.child(outside)
}

/// The first of a kind has the name alone.
fn numbered(name: &str, n: usize) -> String {
    match n {
        0 => name.to_owned(),
        n => format!("{name}.{}", n + 1),
    }
}

/// The bus, its subscriptions, and what is published about the node itself.
fn messaging(parts: &mut Parts<'_>) -> SupervisorSpec {
    let (restarts, period) = PATIENCE;
    let subscriptions =
        SupervisorSpec::dynamic("subscriptions").intensity(restarts, period).keep_children();
    let bus = BusArgs::new(parts.bus.clone(), SUBSCRIPTIONS, Arc::new(parts.letters.clone()));
    let lifecycle = LifecycleFeedArgs::new(parts.lifecycle.clone(), parts.bus.clone());
    let health = HealthSpec::every(HEALTH_PERIOD);
    let mut messaging = patient("messaging")
        .child(subscriptions)
        .child(ChildSpec::component::<BusActor>("bus", bus).health(health))
        .child(ChildSpec::component::<LifecycleFeed>("lifecycle", lifecycle));
    let path: Arc<str> = pool(parts.kind).into();
    let letters = Letters { bus: parts.bus.clone(), office: Arc::new(parts.letters.clone()) };
    for Sending { name, outlet, filter, subject, on_every_node } in
        std::mem::take(&mut parts.relays)
    {
        let args = RelayArgs {
            name: name.as_str().into(),
            pool: Arc::clone(&path),
            owner: (!on_every_node).then(|| Arc::clone(&parts.owner)),
            head: parts.head.subscribe(),
            outlet,
            filter,
            subject,
            shown: Arc::default(),
            letters: letters.clone(),
            look_every: DEFAULT_LOOK_EVERY,
        };
        let relay = ChildSpec::component::<Relay>(format!("outbox.{name}"), args);
        messaging = messaging.child(relay.health(health));
    }
    if let Some((queue, nudge)) = parts.table.take() {
        let owner = Arc::clone(&parts.owner);
        let args = TableArgs { pool: path, owner, queue, nudge, shown: Arc::default(), letters };
        let table = ChildSpec::component::<TableRelay>("outbox.table", args);
        messaging = messaging.child(table.health(health));
    }
    messaging
}

/// The manager, and the sagas that run: each ends with the other, and the manager starts the sagas
/// again.
fn sagas(
    pool: &str,
    owner: &Arc<str>,
    head: watch::Receiver<Position>,
    definitions: &Definitions,
) -> SupervisorSpec {
    let (restarts, period) = PATIENCE;
    let manager = ManagerArgs {
        pool: pool.into(),
        committer: COMMITTER.into(),
        running: RUNNING_SAGAS.into(),
        owner: Arc::clone(owner),
        head,
        shown: Arc::default(),
        definitions: definitions.clone(),
    };
    patient("sagas")
        .strategy(Strategy::OneForAll)
        .child(ChildSpec::component::<SagaManager>("manager", manager))
        .child(SupervisorSpec::dynamic("running").intensity(restarts, period).max_children(100_000))
}

fn patient(id: &str) -> SupervisorSpec {
    let (restarts, period) = PATIENCE;
    SupervisorSpec::new(id).intensity(restarts, period)
}
