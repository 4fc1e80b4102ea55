//! Those who follow the log, on nodes that share a store: standing by, pausing, handing over, a
//! node that sleeps past its lease, and an event that kills.

use std::path::Path;
use std::time::Duration;

use mister_smith::SystemCore;
use mister_smith::actors::bus::queue::in_process::Broker;
use mister_smith::actors::bus::queue::{Queue, QueueOptions, Retention};
use mister_smith::actors::event::Position;
use mister_smith::actors::store::EventFilter;
use mister_smith::actors::store::claims::Request;
use mister_smith::prelude::*;
use mister_smith_testkit::{Postgres, eventually};
use tempfile::TempDir;
use tokio::sync::mpsc;

use crate::diarist::{Other, write};
use crate::node::{Counter, count};
use crate::server::{DEADLINE, database};

const STOP: Duration = Duration::from_secs(20);

/// A node with a relay to a queue of its own, and a consumer that tells what it heard.
async fn node(name: &str, url: &str) -> (SystemCore, mpsc::UnboundedReceiver<u64>) {
    let options = QueueOptions::new("events").retention(Retention::Log);
    let queue = Broker::default().queue(options);
    let core = SystemCore::embedded()
        .name(name)
        .store(url)
        .aggregate::<Counter>()
        .outbox("post", queue.sender(), EventFilter::ALL)
        .publish_events(EventFilter::ALL)
        .start()
        .await
        .unwrap();
    let (tell, heard) = mpsc::unbounded_channel();
    let listener = Consumer::new("listener", move |delivery: Delivery| {
        let _ = tell.send(delivery.recorded().unwrap().position.get());
        async { Outcome::Ack }
    });
    core.consumers().start(listener).await.unwrap();
    (core, heard)
}

fn stands_by(core: &SystemCore) -> bool {
    core.consumers().get("listener").unwrap().status().standby
}

async fn within<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, what).await.expect("it comes")
}

/// What is asked of a node that stands by is done, and what it shows is so.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_stands_by_knows_the_place_and_can_pause() {
    let server = Postgres::start().await;
    let url = database(&server).await;
    let (one, mut heard_by_one) = node("one", &url).await;
    let first = count(&one, "a", 1).await.position.unwrap();
    within(one.consumers().get("listener").unwrap().wait_for(first)).await;
    let (two, mut heard_by_two) = node("two", &url).await;
    eventually(DEADLINE, async || stands_by(&two).then_some(()).ok_or("not yet")).await;

    let at = count(&two, "a", 2).await.position.unwrap();
    let listener = two.consumers().get("listener").unwrap();
    within(listener.wait_for(at)).await;
    within(two.followers().wait_for("relay.post", at)).await.unwrap();
    assert_eq!(listener.status().position, at);
    assert_eq!((heard_by_one.recv().await, heard_by_one.recv().await), (Some(1), Some(2)));

    // Paused over there, and by name.
    within(listener.pause()).await.unwrap();
    assert!(within(two.followers().ask("relay.post", Request::Pause)).await.unwrap());
    assert!(one.consumers().get("listener").unwrap().status().paused);
    let last = count(&one, "a", 3).await.position.unwrap();
    assert!(heard_by_one.try_recv().is_err());
    let place = two.followers().get("relay.post").await.unwrap();
    assert!(place.paused && place.position < last, "{place:?}");
    within(listener.resume()).await.unwrap();
    assert!(within(two.followers().ask("relay.post", Request::Resume)).await.unwrap());
    within(listener.wait_for(last)).await;
    within(two.followers().wait_for("relay.post", last)).await.unwrap();

    // Gone back, from over there.
    assert_eq!(heard_by_one.recv().await, Some(3));
    within(listener.replay(Begin::After(Position::new(1)))).await.unwrap();
    assert_eq!((within(heard_by_one.recv()).await, heard_by_one.recv().await), (Some(2), Some(3)));

    // A stop hands over: nobody waits for the end of a lease, and nobody counts as dead.
    assert!(one.stop(STOP).await);
    for place in two.followers().list().await.unwrap() {
        assert!(!place.held || place.owner.starts_with("two "), "{place:?}");
    }
    let next = count(&two, "a", 4).await.position.unwrap();
    within(listener.wait_for(next)).await;
    assert_eq!(within(heard_by_two.recv()).await, Some(4), "what was settled does not come again");
    let places = two.followers().list().await.unwrap();
    assert!(places.iter().all(|place| place.deaths == 0), "{places:?}");
    two.stop(STOP).await;
}

/// What is published of the log is heard on every node.
#[tokio::test(flavor = "multi_thread")]
async fn every_bus_hears_what_any_node_commits() {
    let server = Postgres::start().await;
    let url = database(&server).await;
    let (one, _) = node("one", &url).await;
    let (two, _) = node("two", &url).await;
    let (tell, mut heard) = mpsc::unbounded_channel();
    for (name, core) in [("one", &one), ("two", &two)] {
        let tell = tell.clone();
        let events = Subscription::new("all", "events.counter.>").unwrap();
        core.bus()
            .subscribe(events, move || {
                let tell = tell.clone();
                move |delivery: Delivery| {
                    let _ = tell.send((name, delivery.message.position().unwrap().get()));
                    async { Outcome::Ack }
                }
            })
            .await
            .unwrap();
    }
    count(&one, "a", 1).await;
    count(&two, "a", 2).await;
    let mut got = Vec::new();
    for _ in 0..4 {
        got.push(within(heard.recv()).await.unwrap());
    }
    got.sort_unstable();
    assert_eq!(got, [("one", 1), ("one", 2), ("two", 1), ("two", 2)]);
    one.stop(STOP).await;
    two.stop(STOP).await;
}

// --- nodes as processes of their own -----------------------------------------------------------

const STORE: &str = "FOLLOWERS_STORE";
/// The position of an event that kills.
const POISON: &str = "FOLLOWERS_POISON";

/// This test, as another process: a node with a consumer that writes what it does into a file.
fn other(url: &str, diary: &Path, poison: u64) -> Other {
    let env = [(STORE, url), (POISON, &poison.to_string())];
    Other::start("followers::another_process", &env, diary)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a process of other tests"]
async fn another_process() {
    let Ok(url) = std::env::var(STORE) else { return };
    let poison: u64 = std::env::var(POISON).unwrap().parse().unwrap();
    let core = SystemCore::embedded().name("other").store(&url).start().await.unwrap();
    write("started");
    let diarist = Consumer::new("diarist", move |delivery: Delivery| {
        let position = delivery.recorded().unwrap().position.get();
        if position == poison {
            write(&format!("{position} kills"));
            std::process::abort();
        }
        write(&position.to_string());
        async { Outcome::Ack }
    });
    let filter = EventFilter::ALL.categories(["counter"]);
    let diarist = core.consumers().start(diarist.filter(filter).lanes_by_stream(4)).await.unwrap();
    let mut standby = false;
    loop {
        let now = diarist.status().standby;
        if now != standby {
            write(if now { "standby" } else { "owner" });
            standby = now;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A process that was stopped past its lease, and goes on, does nothing on its old claim.
#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_slept_past_its_lease_does_not_act() {
    let server = Postgres::start().await;
    let url = database(&server).await;
    let home = TempDir::new().unwrap();
    let diary = home.path().join("diary");
    let sleeper = other(&url, &diary, 0);
    sleeper.writes("started").await;
    let core = crate::node::node("awake", &url).await;
    count(&core, "a", 1).await;
    sleeper.writes("1").await;
    within(core.followers().wait_for("consumer.diarist", Position::new(1))).await.unwrap();

    sleeper.signal("-STOP").await;
    let (tell, mut heard) = mpsc::unbounded_channel();
    let diarist = Consumer::new("diarist", move |delivery: Delivery| {
        let _ = tell.send(delivery.recorded().unwrap().position.get());
        async { Outcome::Ack }
    });
    core.consumers().start(diarist.filter(EventFilter::ALL.categories(["counter"]))).await.unwrap();
    for n in 2..=20 {
        count(&core, &n.to_string(), n).await;
    }
    for wanted in 2..=20 {
        assert_eq!(within(heard.recv()).await, Some(wanted));
    }
    sleeper.signal("-CONT").await;
    // It learns that it stands by; until then it could have done something.
    sleeper.writes("standby").await;
    count(&core, "a", 21).await;
    assert_eq!(within(heard.recv()).await, Some(21));
    let diary = std::fs::read_to_string(&diary).unwrap();
    assert_eq!(diary.lines().collect::<Vec<_>>(), ["started", "1", "standby"]);
    core.stop(STOP).await;
}

/// An event that aborts the process is found, put aside and shown, and the rest goes on.
#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_kills_the_process_is_put_aside_after_some_starts() {
    let home = TempDir::new().unwrap();
    let url = format!("sqlite://{}", home.path().join("smith.db").display());
    let core = crate::node::node("first", &url).await;
    let mut keys = 0;
    for id in ["a", "b", "c", "d", "e", "f", "g", "h"] {
        keys += 1;
        count(&core, id, keys).await;
    }
    assert!(core.stop(STOP).await);
    // The file is one process's at a time.
    drop(core);
    let diary = home.path().join("diary");
    let mut deaths = 0;
    let other = loop {
        let mut other = other(&url, &diary, 5);
        tokio::select! {
            biased;
            status = other.child.wait() => {
                assert!(!status.unwrap().success());
                deaths += 1;
                assert!(deaths < 8, "{}", std::fs::read_to_string(&diary).unwrap());
            }
            () = settled(&url, 8) => break other,
        }
    };
    other.signal("-KILL").await;
    let diary = std::fs::read_to_string(&diary).unwrap();
    assert!((3..=5).contains(&deaths), "{deaths}\n{diary}");
    for wanted in [1, 2, 3, 4, 6, 7, 8] {
        assert!(diary.lines().any(|line| line == wanted.to_string()), "{wanted}\n{diary}");
    }
    drop(other);
    let core = eventually(DEADLINE, async || {
        let core = SystemCore::embedded().name("last").store(&url);
        core.start().await.map_err(|error| error.to_string())
    })
    .await;
    let place = core.followers().get("consumer.diarist").await.unwrap();
    assert!(place.position.get() >= 8, "{place:?}");
    within(core.wait_for(core.head())).await.unwrap();
    let letters = core.dead_letters().list(Some("diarist"), None, 10).await.unwrap();
    assert_eq!(letters.len(), 1, "it is a dead letter, to be looked at and tried again");
    core.stop(STOP).await;
}

/// Waits until the consumer's place in a file is this far.
async fn settled(url: &str, position: u64) {
    use mister_smith::actors::pool::connector;
    let connections = connector(url).unwrap().connect().await.unwrap();
    let claims = connections.lease().claims;
    let followers = mister_smith::actors::store::follow::Followers::over(claims);
    followers.wait_for("consumer.diarist", Position::new(position)).await.unwrap();
}
