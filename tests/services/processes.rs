//! Processes and durable consumers on nodes that share a database.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mister_smith::SystemCore;
use mister_smith::actors::event::{EventCodecError, RecordedEvent};
use mister_smith::actors::store::EventFilter;
use mister_smith::prelude::*;
use mister_smith_testkit::{Postgres, eventually};
use serde::{Deserialize, Serialize};

use crate::node::{Counter, count, node, value};
use crate::server::{DEADLINE, database};

/// Counts what others count: each event of a counter makes it count, too, in a counter of its own.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Mirror {
    seen: u64,
}

#[derive(Debug, Serialize, Deserialize)]
enum Seen {
    #[serde(rename = "mirror.seen")]
    Seen {},
}

impl Event for Seen {}

impl Aggregate for Mirror {
    type Command = ();
    type Event = Seen;
    type Rejection = std::convert::Infallible;
    const CATEGORY: &'static str = "mirror";

    fn decide(&self, (): &()) -> Result<Vec<Seen>, Self::Rejection> {
        Ok(vec![Seen::Seen {}])
    }

    fn evolve(&mut self, _: Seen) {
        self.seen += 1;
    }
}

impl Process for Mirror {
    fn reacts_to() -> EventFilter {
        EventFilter::ALL.categories(["counter"])
    }

    fn on(event: &RecordedEvent) -> Result<Option<(String, ())>, EventCodecError> {
        let id = event.stream.as_str().trim_start_matches("counter-");
        // Its own counters are not looked at again.
        Ok((!id.starts_with("mirrored")).then(|| (id.to_owned(), ())))
    }

    fn then(id: &str, _: &Seen) -> Vec<Effect<Self>> {
        vec![Effect::send::<Counter>("count", format!("mirrored-{id}"), 1)]
    }
}

/// How often a consumer handled which position, over all nodes.
type Heard = Arc<Mutex<BTreeMap<u64, u32>>>;

async fn start(core: &SystemCore, heard: &Heard) {
    core.processes().start::<Mirror>(ProcessOptions::default()).await.unwrap();
    let heard = Arc::clone(heard);
    let listener = Consumer::new("listener", move |delivery: Delivery| {
        *heard.lock().unwrap().entry(delivery.recorded().unwrap().position.get()).or_default() += 1;
        async { Outcome::Ack }
    });
    core.consumers().start(listener.lanes_by_stream(4)).await.unwrap();
}

/// Two nodes have a process and a consumer: one of them works, and when it goes the other takes
/// over; every event has its effect once.
#[tokio::test(flavor = "multi_thread")]
async fn another_node_takes_a_process_over_and_doubles_nothing() {
    let server = Postgres::start().await;
    let url = database(&server).await;
    let heard = Heard::default();
    let nodes = [node("one", &url).await, node("two", &url).await];
    for core in &nodes {
        start(core, &heard).await;
    }
    for n in 0..30 {
        count(&nodes[n % 2], &format!("{}", n % 3), n as u64).await;
    }
    let works = |core: &SystemCore| {
        let all = core.consumers().list();
        all.iter().any(|one| &*one.name == "listener" && !one.standby)
    };
    let worker = async || {
        let working: Vec<_> = nodes.iter().filter(|core| works(core)).collect();
        if working.len() == 1 { Ok(working[0].clone()) } else { Err(working.len()) }
    };
    let worker = eventually(DEADLINE, worker).await;
    let other = nodes.iter().find(|core| core.actors().name() != worker.actors().name()).unwrap();
    // It does not even say goodbye.
    for path in ["/domain", "/resources", "/messaging"] {
        worker.actors().kill(path).unwrap();
    }
    let sending = (30..60).map(|n| {
        let core = other.clone();
        tokio::spawn(async move { count(&core, &format!("{}", n % 3), n).await })
    });
    let sending: Vec<_> = sending.collect();
    worker.stop(Duration::from_secs(20)).await;
    for sending in sending {
        sending.await.unwrap();
    }
    for id in ["0", "1", "2"] {
        eventually(DEADLINE, async || match value(other, &format!("mirrored-{id}")).await {
            20 => Ok(()),
            more => Err(more),
        })
        .await;
        assert_eq!(value(other, id).await, 20);
    }
    let head = other.head();
    assert_eq!(head.get(), 180, "an event, what the mirror saw, and its own count");
    let listener = other.consumers().get("listener").unwrap();
    tokio::time::timeout(DEADLINE, listener.wait_for(head)).await.expect("it takes over");
    assert!(heard.lock().unwrap().keys().copied().eq(1..=180), "every event is heard");
    other.stop(Duration::from_secs(20)).await;
}
