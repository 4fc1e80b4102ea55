//! The node's tree: who supervises whom, and how patiently.

use std::sync::Arc;
use std::time::Duration;

use mister_smith_actors::event::Position;
use mister_smith_actors::pool::{Connect, Pool, PoolArgs};
use mister_smith_actors::projection::handle::{Node, Plan, PlanArgs};
use mister_smith_actors::store::committer::{Committer, CommitterArgs};
use mister_smith_actors::store::feed::{Feed, FeedArgs};
use mister_smith_supervisors::{
    Backoff, ChildPolicy, ChildSpec, ComponentType, HealthSpec, Policies, Strategy, SupervisorSpec,
};
use tokio::sync::watch;

use crate::http::{Edge, HttpServer};

pub(super) const COMMITTER: &str = "/resources/store.committer";
pub(super) const AGGREGATES: &str = "/domain/aggregates";
pub(super) const PROJECTIONS: &str = "/domain/projections";
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
    pub(super) edge: Option<&'a Edge>,
}

/// A node must not stop for a burst of failures that it can outlive: a database that is down for
/// minutes, an operator or a test that kills one actor after the other. Backoffs keep the tries
/// rare; these limits are for what no restart mends.
const PATIENCE: (u32, Duration) = (1_000, Duration::from_secs(60));

/// The root is less patient: a whole part of the tree that gives up again and again is broken.
const ROOT_PATIENCE: (u32, Duration) = (100, Duration::from_secs(60));

/// How restarts are spaced, by component type.
pub(super) fn policies() -> Policies {
    let spaced = |base_ms, cap_ms| ChildPolicy {
        backoff: Backoff::exponential(
            Duration::from_millis(base_ms),
            Duration::from_millis(cap_ms),
        )
        .reset_after(Duration::from_secs(10)),
        give_up_after: Some(1_000),
        ..ChildPolicy::OTP
    };
    Policies::recommended()
        .set(ComponentType::Resource, spaced(10, 5_000))
        .set(ComponentType::Store, spaced(5, 1_000))
        .set(ComponentType::Projection, spaced(10, 5_000))
        .set(ComponentType::Aggregate, spaced(5, 1_000))
        .set(ComponentType::Edge, spaced(5, 1_000))
}

/// The whole tree; children start from top to bottom.
pub(super) fn root(parts: Parts<'_>) -> SupervisorSpec {
    let Parts { name, kind, connect, head, owner, projections, edge } = parts;
    let health = HealthSpec::every(Duration::from_secs(5));
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
    let domain = patient("domain").child(aggregates).child(projections);
    let agents = SupervisorSpec::dynamic("agents").intensity(restarts, period).keep_children();

    let (restarts, period) = ROOT_PATIENCE;
    let root = SupervisorSpec::new(name)
        .strategy(Strategy::RestForOne)
        .intensity(restarts, period)
        .child(resources)
        .child(domain)
        .child(agents);
    match edge {
        None => root,
        Some(edge) => root.child(
            patient("edge").child(
                ChildSpec::actor::<HttpServer>("http", edge.clone())
                    .component_type(ComponentType::Edge),
            ),
        ),
    }
}

fn patient(id: &str) -> SupervisorSpec {
    let (restarts, period) = PATIENCE;
    SupervisorSpec::new(id).intensity(restarts, period)
}
