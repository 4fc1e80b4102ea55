//! Projections in a tree of pool and committer, on SQLite, that are killed while they work.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mister_smith_supervisors::{
    ActorSystem, ChildSpec, HealthSpec, Policies, Strategy as Restart, SupervisorSpec,
};
use proptest::prelude::*;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::handle::{Node, PlanArgs, ProjectionRef, Retried, register};
use super::{
    Compare, ListQuery, Parked, ParkedQuery, Progress, Projection, ProjectionFault, Wanted,
};
use crate::event::{Position, RecordedEvent};
use crate::pool::{Lease, Pool, PoolArgs, PoolHandle, PoolMessage, connector};
use crate::store::claims::Request;
use crate::store::committer::{Committer, CommitterArgs, CommitterHandle, CommitterMessage};
use crate::store::read_model::documents::Part;
use crate::store::sqlite::tests::Home;
use crate::store::{ExpectedVersion, conformance};

mod poison;
mod versions;

const DEADLINE: Duration = Duration::from_secs(20);

/// What every document of these tests is: the positions that changed it, in order.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Seen {
    positions: Vec<u64>,
    version: u32,
}

/// Each event changes the document of its stream and that of its type; `closed` removes the
/// stream's.
struct Mixed<const VERSION: u32, const PARTITIONS: u16> {
    /// While it is set, events of stream `s-1` cannot be applied.
    broken: Arc<AtomicBool>,
}

fn ids(event: &RecordedEvent) -> Vec<Arc<str>> {
    vec![event.stream.to_shared(), event.event_type.clone()]
}

fn apply(event: &RecordedEvent, id: &str, seen: Option<Seen>, version: u32) -> Option<Seen> {
    if &*event.event_type == "closed" && id == event.stream.as_str() {
        return None;
    }
    let mut seen = seen.unwrap_or_default();
    seen.positions.push(event.position.get());
    seen.version = version;
    Some(seen)
}

impl<const VERSION: u32, const PARTITIONS: u16> Projection for Mixed<VERSION, PARTITIONS> {
    type Document = Seen;
    const NAME: &'static str = "mixed";
    const VERSION: u32 = VERSION;
    const PARTITIONS: u16 = PARTITIONS;

    fn ids(&self, event: &RecordedEvent) -> Vec<Arc<str>> {
        ids(event)
    }

    fn apply(
        &self,
        event: &RecordedEvent,
        id: &str,
        seen: Option<Seen>,
    ) -> Result<Option<Seen>, ProjectionFault> {
        if self.broken.load(Ordering::Relaxed) && id == "s-1" {
            if event.position.get().is_multiple_of(2) {
                panic!("poison");
            }
            return Err("poison".into());
        }
        Ok(apply(event, id, seen, VERSION))
    }
}

struct World {
    system: ActorSystem,
    projection: ProjectionRef,
    home: Arc<Home>,
    path: std::path::PathBuf,
    seed: u64,
}

impl World {
    async fn new<P: Projection>(projection: P) -> Self {
        let home = Arc::new(Home::new());
        let path = home.file().await;
        Self::on(home, path, projection).await
    }

    /// The same store with another program.
    async fn again<P: Projection>(self, projection: P) -> Self {
        self.system.shutdown(DEADLINE).await;
        let seed = self.seed;
        Self { seed, ..Self::on(self.home, self.path, projection).await }
    }

    async fn on<P: Projection>(home: Arc<Home>, path: std::path::PathBuf, projection: P) -> Self {
        let connect = connector(path.to_str().unwrap()).unwrap();
        let head = Arc::new(watch::Sender::new(Position::ZERO));
        let patient = Duration::from_secs(1);
        let committer = CommitterArgs::new("/resources/pool", Arc::clone(&head));
        let resources = SupervisorSpec::new("resources")
            .strategy(Restart::RestForOne)
            .intensity(10_000, patient)
            .child(ChildSpec::component::<Pool>("pool", PoolArgs::new(connect)))
            .child(ChildSpec::component::<Committer>("committer", committer));
        let registered = register(projection);
        let given = PlanArgs {
            pool: "/resources/pool".into(),
            owner: "test".into(),
            head: head.subscribe(),
            health: HealthSpec::every(Duration::from_secs(60)),
        };
        let projections = SupervisorSpec::new("projections").intensity(10_000, patient);
        let projections = match (registered.plan)(given) {
            Node::Actor(actor) => projections.child(actor),
            Node::Supervisor(parts) => projections.child(parts.intensity(10_000, patient)),
        };
        let root = SupervisorSpec::new("world")
            .strategy(Restart::RestForOne)
            .intensity(10_000, patient)
            .child(resources)
            .child(projections);
        let system = ActorSystem::builder(root).policies(Policies::new()).start().await.unwrap();
        let pool = system.find::<PoolMessage>("/resources/pool").unwrap();
        let projection = registered.handle.bind(PoolHandle::new(pool), "/projections");
        Self { system, projection, home, path, seed: 0 }
    }

    async fn lease(&self) -> Lease {
        loop {
            let pool = self.system.find::<PoolMessage>("/resources/pool").unwrap();
            if let Ok(lease) = PoolHandle::new(pool).lease().await
                && lease.store.head().await.is_ok()
            {
                return lease;
            }
        }
    }

    /// Appends events to streams, one for each number, and answers the head after them.
    async fn append(&mut self, streams: &[u8]) -> Position {
        let appends: Vec<_> = streams
            .iter()
            .map(|stream| {
                self.seed += 1;
                let name = format!("s-{stream}");
                let append = conformance::append(&name, ExpectedVersion::Any, self.seed * 7, 1);
                let key = crate::store::IdempotencyKey::of([self.seed.to_le_bytes()]);
                crate::store::Append { key: Some(key), ..append }
            })
            .collect();
        loop {
            let committer = self.system.find::<CommitterMessage>("/resources/committer").unwrap();
            let pending = CommitterHandle::new(committer).submit(appends.clone()).await;
            let Ok(pending) = pending else { continue };
            let Ok(outcomes) = pending.durable().await else { continue };
            let last = outcomes.into_iter().map(|one| one.unwrap().last_position).max();
            return last.unwrap_or_default();
        }
    }

    async fn log(&self) -> Vec<RecordedEvent> {
        conformance::whole_log(&*self.lease().await.store, 1_000).await
    }

    async fn documents(&self) -> BTreeMap<String, Seen> {
        let found = self.projection.list::<Seen>(&ListQuery::first(1_000)).await.unwrap();
        found.into_iter().map(|(id, seen)| (id.to_string(), seen)).collect()
    }

    async fn caught_up(&self) {
        let head = self.lease().await.store.head().await.unwrap();
        let done = self.projection.wait_for(head);
        tokio::time::timeout(DEADLINE, done).await.expect("the projection follows").unwrap();
    }

    async fn parked(&self) -> Vec<Parked> {
        let query = ParkedQuery { limit: 1_000, ..ParkedQuery::default() };
        self.projection.parked(&query).await.unwrap()
    }

    async fn until(&self, mut check: impl AsyncFnMut() -> bool) {
        let tries = async {
            while !check().await {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(DEADLINE, tries).await.expect("it becomes true");
    }

    async fn rebuilt(&self) {
        self.until(async || {
            let status = self.projection.status().await.unwrap();
            status.progress.iter().all(|part| part.active)
        })
        .await;
    }
}

/// The documents of a log: what every projection has to agree with.
fn folded(log: &[RecordedEvent], version: u32) -> BTreeMap<String, Seen> {
    let mut documents: BTreeMap<String, Seen> = BTreeMap::new();
    for event in log {
        for id in ids(event) {
            match apply(event, &id, documents.remove(&*id), version) {
                Some(seen) => drop(documents.insert(id.to_string(), seen)),
                None => drop(documents.remove(&*id)),
            }
        }
    }
    documents
}

fn whole<const V: u32, const P: u16>() -> Mixed<V, P> {
    Mixed { broken: Arc::default() }
}

#[derive(Debug, Clone)]
enum Step {
    Append(Vec<u8>),
    KillProjection(u8),
    KillPool,
    Rebuild,
    Reset,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => prop::collection::vec(0..6_u8, 1..40).prop_map(Step::Append),
        2 => (0..3_u8).prop_map(Step::KillProjection),
        1 => Just(Step::KillPool),
        2 => Just(Step::Rebuild),
        1 => Just(Step::Reset),
    ];
    prop::collection::vec(step, 1..16)
}

async fn follow<const P: u16>(steps: Vec<Step>) {
    let mut world = World::new(whole::<1, P>()).await;
    for step in steps {
        match step {
            Step::Append(streams) => drop(world.append(&streams).await),
            Step::KillProjection(part) => {
                let paths = world.projection.paths();
                let path = &paths[usize::from(part) % paths.len()];
                let _ = world.system.kill(path.as_str());
            }
            Step::KillPool => drop(world.system.kill("/resources/pool")),
            Step::Rebuild => drop(world.projection.rebuild().await),
            Step::Reset => drop(world.projection.reset().await),
        }
    }
    world.caught_up().await;
    let expected = folded(&world.log().await, 1);
    world.until(async || world.documents().await == expected).await;
    // Through the cache too, and it stays so when a rebuild is done.
    world.rebuilt().await;
    for (id, seen) in &expected {
        assert_eq!(world.projection.get::<Seen>(id).await.unwrap().as_ref(), Some(seen));
    }
    assert_eq!(world.documents().await, expected);
    world.system.shutdown(DEADLINE).await;
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    /// Whatever is killed, rebuilt or reset: the documents become those of the log.
    #[test]
    fn documents_become_those_of_the_log(steps in steps(), three in any::<bool>()) {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            match three {
                true => Box::pin(follow::<3>(steps)).await,
                false => Box::pin(follow::<1>(steps)).await,
            }
        });
    }
}

#[tokio::test]
async fn a_reader_finds_what_it_waited_for() {
    let mut world = World::new(whole::<1, 3>()).await;
    for round in 1..=20 {
        let position = world.append(&[1, 2, 3]).await;
        world.projection.wait_for(position).await.unwrap();
        assert!(world.projection.position() >= position);
        let seen: Seen = world.projection.get("s-2").await.unwrap().unwrap_or_default();
        assert!(seen.positions.len() <= round);
        assert_eq!(world.documents().await, folded(&world.log().await, 1));
    }
    let (hits, misses) = world.projection.cache_hits_and_misses();
    assert!(hits > 0, "{hits} hits, {misses} misses");
}

/// Readers during a rebuild see documents of one build or of the other, each whole, and never go
/// back in time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_version_is_switched_in_without_downtime() {
    let mut world = World::new(whole::<1, 1>()).await;
    for _ in 0..30 {
        world.append(&[1; 50]).await;
    }
    world.caught_up().await;
    let mut world = world.again(whole::<2, 2>()).await;
    let (mut last, mut versions) = (0, Vec::new());
    while versions.last() != Some(&2) {
        let seen: Seen = world.projection.get("opened").await.unwrap().unwrap();
        let now = *seen.positions.last().unwrap();
        assert!(now >= last, "a reader went back from {last} to {now}");
        last = now;
        if versions.last() != Some(&seen.version) {
            versions.push(seen.version);
        }
        world.append(&[1, 2]).await;
    }
    assert_eq!(versions, [1, 2]);
    world.caught_up().await;
    assert_eq!(world.documents().await, folded(&world.log().await, 2));
    let status = world.projection.status().await.unwrap();
    assert_eq!(status.progress.len(), 2, "two partitions of one build: {status:?}");
}

#[tokio::test]
async fn a_poison_event_parks_its_document_and_no_other() {
    let broken = Arc::new(AtomicBool::new(true));
    let mut world = World::new(Mixed::<1, 2> { broken: Arc::clone(&broken) }).await;
    world.append(&[0, 1, 2, 1, 1, 3]).await;
    world.caught_up().await;
    let parked = world.parked().await;
    let places: Vec<_> = parked.iter().map(|one| (&*one.id, one.position.get())).collect();
    assert_eq!(places, [("s-1", 2), ("s-1", 4), ("s-1", 5)]);
    assert_eq!((parked[0].attempts, &*parked[0].error), (3, "panic: poison"));
    assert_eq!((parked[1].attempts, &*parked[1].error), (0, ""));
    let mut expected = folded(&world.log().await, 1);
    expected.remove("s-1");
    assert_eq!(world.documents().await, expected);

    // Still broken: it stays parked, and says why.
    let refused = world.projection.retry("s-1").await.unwrap_err();
    assert_eq!(refused.to_string(), "s-1 stays parked: event 2: panic: poison");
    // Mended, and a new life knows what is parked: what comes is put behind it.
    broken.store(false, Ordering::Relaxed);
    for path in world.projection.paths() {
        world.system.kill(path.as_str()).unwrap();
    }
    world.append(&[1]).await;
    world.caught_up().await;
    assert_eq!(world.parked().await.len(), 4);
    let status = world.projection.status().await.unwrap();
    assert_eq!((status.parked, status.parked_events), (1, 4));
    assert_eq!(world.projection.retry("s-1").await.unwrap(), Retried { applied: 4, left: 0 });
    assert_eq!(world.parked().await, []);
    world.append(&[1]).await;
    world.caught_up().await;
    assert_eq!(world.documents().await, folded(&world.log().await, 1));
}

#[tokio::test]
async fn a_parked_event_can_be_left_out() {
    let broken = Arc::new(AtomicBool::new(true));
    let mut world = World::new(Mixed::<1, 1> { broken: Arc::clone(&broken) }).await;
    // The second of the three removes the document.
    world.append(&[1, 1, 1]).await;
    world.caught_up().await;
    broken.store(false, Ordering::Relaxed);
    assert!(world.projection.skip("s-1").await.unwrap());
    assert!(!world.projection.skip("s-2").await.unwrap());
    // Those behind it are applied without another word.
    world.until(async || world.parked().await.is_empty()).await;
    let seen: Option<Seen> = world.projection.get("s-1").await.unwrap();
    assert_eq!(seen.unwrap().positions, [3]);
    world.append(&[1]).await;
    world.caught_up().await;
    let seen: Option<Seen> = world.projection.get("s-1").await.unwrap();
    assert_eq!(seen.unwrap().positions, [3, 4]);
}

#[tokio::test]
async fn what_is_paused_stands_still_over_restarts() {
    let mut world = World::new(whole::<1, 2>()).await;
    world.append(&[1]).await;
    world.caught_up().await;
    assert!(world.projection.pause().await.unwrap());
    let position = world.append(&[1, 2]).await;
    for path in world.projection.paths() {
        world.system.kill(path.as_str()).unwrap();
    }
    // What is made in its place stands still, too.
    world.projection.rebuild().await.unwrap();
    world.until(async || world.system.tree().to_string().matches("   paused").count() == 2).await;
    let status = world.projection.status().await.unwrap();
    assert_eq!((status.paused, status.lag), (true, 2));
    assert!(world.projection.pause().await.unwrap(), "once more does no harm");
    assert!(world.projection.resume().await.unwrap());
    world.projection.wait_for(position).await.unwrap();
    world.rebuilt().await;
    assert_eq!(world.documents().await, folded(&world.log().await, 1));
    assert!(!world.projection.status().await.unwrap().paused);
}

/// A request that was made together with a new build was heard with the next one only: what had been
/// resumed stood still.
#[tokio::test]
async fn what_is_asked_together_with_a_rebuild_is_heard() {
    let mut world = World::new(whole::<1, 1>()).await;
    world.append(&[1]).await;
    world.caught_up().await;
    assert!(world.projection.pause().await.unwrap());
    let position = world.append(&[2]).await;
    let documents = world.lease().await.documents;
    documents.begin_build("mixed", Wanted { version: 1, partitions: 1 }).await.unwrap();
    for Progress { build, partition, .. } in documents.progress("mixed").await.unwrap() {
        let part = Part { build, partition }.to_string();
        documents.claims().ask(&part, Request::Resume).await.unwrap();
    }
    // One look for both.
    assert!(!world.projection.skip("none").await.unwrap());
    world.until(async || world.projection.position() >= position).await;
    world.rebuilt().await;
    assert_eq!(world.documents().await, folded(&world.log().await, 1));
}

#[tokio::test]
async fn what_is_suspended_stands_still_and_goes_on_where_it_was() {
    let mut world = World::new(whole::<1, 1>()).await;
    world.append(&[1]).await;
    world.caught_up().await;
    world.system.suspend("/projections/mixed").await.unwrap();
    let position = world.append(&[1, 2]).await;
    assert_eq!(world.projection.status().await.unwrap().lag, 2);
    world.system.resume("/projections/mixed").await.unwrap();
    world.projection.wait_for(position).await.unwrap();
    assert_eq!(world.documents().await, folded(&world.log().await, 1));
}

#[tokio::test]
async fn documents_are_listed_by_their_fields() {
    let mut world = World::new(whole::<1, 1>()).await;
    world.append(&[1, 2, 3]).await;
    world.caught_up().await;
    let query = ListQuery::first(10).filter("version", Compare::Eq, 1);
    let all = world.projection.list::<Seen>(&query).await.unwrap();
    assert_eq!(all.len(), world.documents().await.len());
    let none = ListQuery::first(10).filter("version", Compare::Gt, 1);
    assert_eq!(world.projection.list::<Seen>(&none).await.unwrap(), []);
    let error = world.projection.get::<Vec<u8>>("opened").await.unwrap_err();
    assert!(error.to_string().ends_with("rebuild the projection"), "{error}");
}
