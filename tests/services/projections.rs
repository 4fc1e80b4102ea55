//! Projections of several nodes, and of several versions of the program, on one database.

use std::sync::Arc;
use std::time::Duration;

use mister_smith::SystemCore;
use mister_smith::actors::event::RecordedEvent;
use mister_smith::actors::projection::{EventFilter, ListQuery, Projection, ProjectionFault};
use mister_smith::actors::store::read_model::documents::builds::Found;
use mister_smith_testkit::{Postgres, eventually};
use serde::{Deserialize, Serialize};

use crate::node::{Counter, count, node};
use crate::server::{DEADLINE, database, name_of};

async fn stop(node: &SystemCore) {
    assert!(node.stop(Duration::from_secs(20)).await);
}

fn stands_by(core: &SystemCore) -> bool {
    core.tree().to_string().contains("standby: another node has it")
}

/// On a node that stands by, `wait_for` never returned, the position was 0, and what was asked of
/// it was never done.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_stands_by_knows_and_does_what_the_other_one_does() {
    let server = Postgres::start().await;
    let url = database(&server).await;
    let owner = node("owner", &url).await;
    let other = node("other", &url).await;
    eventually(DEADLINE, async || stands_by(&other).then_some(()).ok_or("not yet")).await;
    assert!(!stands_by(&owner));
    let position = count(&other, "1", 1).await.position.unwrap();
    other.wait_for(position).await.unwrap();
    let (streams, ours) =
        (other.projection("streams").unwrap(), owner.projection("streams").unwrap());
    assert!(streams.position() >= position);

    let build = async || {
        let status = streams.status().await.unwrap();
        status.progress.iter().find(|part| part.active).map(|part| part.build)
    };
    let before = build().await;
    streams.rebuild().await.unwrap();
    eventually(DEADLINE, async || match build().await {
        now if now > before => Ok(()),
        now => Err(format!("{now:?}")),
    })
    .await;
    let before = build().await;
    streams.reset().await.unwrap();
    let position = count(&other, "1", 2).await.position.unwrap();
    other.wait_for(position).await.unwrap();
    assert!(build().await > before);

    assert!(streams.pause().await.unwrap(), "the owner hears it");
    let position = count(&other, "1", 3).await.position.unwrap();
    assert!(ours.status().await.unwrap().paused);
    assert!(ours.position() < position);
    let waits = streams.wait_for_within(position, Duration::from_millis(1)).await;
    assert!(waits.is_err());
    assert!(ours.resume().await.unwrap());
    other.wait_for(position).await.unwrap();

    // A stop in order gives everything back: the other one need not wait for the lease.
    stop(&owner).await;
    let held = "select count(*) from ms_framework.checkpoints \
                where name like 'build%' and owner like 'owner %'";
    assert_eq!(server.sql(name_of(&url), held).await, "0");
    let position = count(&other, "1", 4).await.position.unwrap();
    other.wait_for(position).await.unwrap();
    stop(&other).await;
}

/// What a projection did not want kept it from renewing its claim: under steady traffic it changed
/// hands, and both nodes said that they had it.
#[tokio::test(flavor = "multi_thread")]
async fn a_filtered_projection_keeps_its_claim_under_traffic_that_it_does_not_want() {
    let server = Postgres::start().await;
    let url = database(&server).await;
    let owner = node("owner", &url).await;
    count(&owner, "1", 0).await;
    owner.wait_for(owner.head()).await.unwrap();
    let other = node("other", &url).await;
    let place = "select c.owner || ' ' || c.epoch || ' ' || c.position \
                 from ms_framework.checkpoints c join ms_projections.projection_builds b \
                 on c.name = 'build ' || b.id || '/0' where b.projection = 'dead_letters'";
    let place = async || {
        let place = server.sql(name_of(&url), place).await;
        let (whose, position) = place.rsplit_once(' ').unwrap();
        (whose.to_owned(), position.to_owned())
    };
    let (first, mut last) = place().await;
    assert!(first.starts_with("owner "), "{first}");
    // The place is kept about once a second: long enough for a lease to run out.
    let (mut key, mut moved) = (1, 0);
    while moved < 7 {
        count(&owner, "1", key).await;
        key += 1;
        let (whose, position) = place().await;
        assert_eq!(whose, first, "after {moved} times");
        moved += u32::from(position != last);
        last = position;
    }
    stop(&owner).await;
    stop(&other).await;
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Sum {
    version: u32,
    events: u64,
}

/// One document of all events of counters.
struct Total<const VERSION: u32, const BROKEN: bool>;

impl<const VERSION: u32, const BROKEN: bool> Projection for Total<VERSION, BROKEN> {
    type Document = Sum;
    const NAME: &'static str = "total";
    const VERSION: u32 = VERSION;

    fn filter(&self) -> EventFilter {
        EventFilter::ALL.categories(["counter"])
    }

    fn ids(&self, _: &RecordedEvent) -> Vec<Arc<str>> {
        vec!["all".into()]
    }

    fn apply(
        &self,
        _: &RecordedEvent,
        _: &str,
        sum: Option<Sum>,
    ) -> Result<Option<Sum>, ProjectionFault> {
        if BROKEN {
            return Err("this version can do nothing".into());
        }
        let events = sum.unwrap_or_default().events + 1;
        Ok(Some(Sum { version: VERSION, events }))
    }
}

async fn of<const VERSION: u32, const BROKEN: bool>(name: &str, url: &str) -> SystemCore {
    let core = SystemCore::embedded().name(name).store(url).aggregate::<Counter>();
    core.projection(Total::<VERSION, BROKEN>).start().await.unwrap()
}

async fn found(core: &SystemCore) -> Found {
    loop {
        if let Ok(lease) = core.pool().lease().await
            && let Ok(found) = lease.documents.look("total").await
        {
            return found;
        }
    }
}

async fn active(core: &SystemCore) -> Option<u32> {
    found(core).await.active.map(|build| build.version)
}

/// Events, and the projection's actor of each node killed meanwhile.
async fn traffic(nodes: &[&SystemCore], key: &mut u64) -> u64 {
    for _ in 0..20 {
        *key += 1;
        count(nodes[0], &format!("{}", *key % 5), *key).await;
        if key.is_multiple_of(7) {
            for node in nodes {
                let _ = node.actors().kill("/domain/projections/total");
            }
        }
    }
    *key
}

async fn until_all_are_in(core: &SystemCore, events: u64) -> Sum {
    eventually(DEADLINE, async || {
        let total = core.projection("total").unwrap();
        match total.list::<Sum>(&ListQuery::first(1)).await {
            Ok(all) if all.first().is_some_and(|(_, sum)| sum.events == events) => {
                Ok(all[0].1.clone())
            }
            other => Err(format!("{other:?} of {events}\n{}", core.tree())),
        }
    })
    .await
}

/// Two versions retired each other's documents for as long as both ran.
#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_deploy_goes_to_the_new_version_once_and_never_back() {
    let server = Postgres::start().await;
    let url = database(&server).await;
    let mut key = 0;
    let old = [of::<1, false>("old-1", &url).await, of::<1, false>("old-2", &url).await];
    let events = traffic(&[&old[0], &old[1]], &mut key).await;
    assert_eq!(until_all_are_in(&old[1], events).await.version, 1);
    let watched = old[0].clone();
    let (seen, done) = (Arc::new(std::sync::Mutex::new(Vec::new())), Done::default());
    let watch = {
        let (seen, mut done) = (Arc::clone(&seen), done.0.subscribe());
        tokio::spawn(async move {
            while !*done.borrow_and_update() {
                if let Some(version) = active(&watched).await {
                    let mut seen = seen.lock().unwrap();
                    if seen.last() != Some(&version) {
                        seen.push(version);
                    }
                }
                tokio::task::yield_now().await;
            }
        })
    };
    // One of the two is replaced, and both versions run.
    stop(&old[1]).await;
    let new = of::<2, false>("new-1", &url).await;
    traffic(&[&old[0], &new], &mut key).await;
    eventually(DEADLINE, async || match active(&new).await {
        Some(2) => Ok(()),
        other => Err(format!("{other:?}\n{}", new.tree())),
    })
    .await;
    // The old program is started again in the middle of it, and stands by.
    let again = of::<1, false>("old-3", &url).await;
    let events = traffic(&[&old[0], &new, &again], &mut key).await;
    for node in [&old[0], &again] {
        eventually(DEADLINE, async || {
            let tree = node.tree().to_string();
            let shown = "standby: a newer version has it (version 2)";
            tree.contains(shown).then_some(()).ok_or(tree)
        })
        .await;
        assert_eq!(until_all_are_in(node, events).await.version, 2, "it reads the newer ones");
        node.wait_for(node.head()).await.unwrap();
    }
    done.0.send_replace(true);
    watch.await.unwrap();
    assert_eq!(*seen.lock().unwrap(), [1, 2]);
    for node in [&old[0], &again, &new] {
        stop(node).await;
    }
}

#[derive(Default)]
struct Done(tokio::sync::watch::Sender<bool>);

/// A version that fails on everything took the place of the one that did not.
#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_can_do_nothing_never_goes_live() {
    let server = Postgres::start().await;
    let url = database(&server).await;
    let mut key = 0;
    let old = of::<1, false>("old", &url).await;
    traffic(&[&old], &mut key).await;
    let new = of::<2, true>("new", &url).await;
    let refused = "version 2 is not switched in: 1 of its documents stand still, 0 of those in use";
    eventually(DEADLINE, async || {
        let tree = new.tree().to_string();
        tree.contains(refused).then_some(()).ok_or(tree)
    })
    .await;
    let events = traffic(&[&old, &new], &mut key).await;
    assert_eq!(until_all_are_in(&new, events).await.version, 1, "the good ones are read");
    assert_eq!(active(&new).await, Some(1));
    let status = new.projection("total").unwrap().status().await.unwrap();
    assert_eq!((status.parked, status.parked_building), (0, 1));
    stop(&new).await;
    let events = traffic(&[&old], &mut key).await;
    assert_eq!(until_all_are_in(&old, events).await.version, 1);
    stop(&old).await;
}
