//! The node's tree: who supervises whom, and how patiently.

use std::sync::Arc;
use std::time::Duration;

use mister_smith_actors::event::Position;
use mister_smith_actors::pool::{Connect, Pool, PoolArgs};
use mister_smith_actors::projection::actor::{ProjectionArgs, StreamProjection};
use mister_smith_actors::store::committer::{Committer, CommitterArgs};
use mister_smith_supervisors::{
    Backoff, ChildPolicy, ChildSpec, ComponentType, HealthSpec, Policies, Strategy, SupervisorSpec,
};
use tokio::sync::watch;

use crate::http::{Edge, HttpServer};

pub(super) const POOL: &str = "/resources/pool.sqlite";
pub(super) const COMMITTER: &str = "/resources/store.committer";
pub(super) const AGGREGATES: &str = "/domain/aggregates";
pub(super) const AGENTS: &str = "/agents";

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
pub(super) fn root(
    name: &str,
    connect: Arc<dyn Connect>,
    head: &Arc<watch::Sender<Position>>,
    projected: &Arc<watch::Sender<Position>>,
    edge: Option<&Edge>,
) -> SupervisorSpec {
    let health = HealthSpec::every(Duration::from_secs(5));
    let pool = ChildSpec::component::<Pool>("pool.sqlite", PoolArgs::new(connect)).health(health);
    let committer = ChildSpec::component::<Committer>(
        "store.committer",
        CommitterArgs::new(POOL, Arc::clone(head)),
    )
    .mailbox(8_192, mister_smith_supervisors::Overflow::default())
    .health(health);
    let projection = ChildSpec::component::<StreamProjection>(
        "streams",
        ProjectionArgs::new(POOL, name, head.subscribe(), Arc::clone(projected)),
    )
    .health(health);

    let resources =
        patient("resources").strategy(Strategy::RestForOne).child(pool).child(committer);
    let (restarts, period) = PATIENCE;
    let aggregates =
        SupervisorSpec::dynamic("aggregates").intensity(restarts, period).max_children(100_000);
    let domain =
        patient("domain").child(aggregates).child(patient("projections").child(projection));
    let agents = SupervisorSpec::dynamic("agents").intensity(restarts, period);

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
