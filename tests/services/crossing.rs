//! What a node does by itself, and what it is asked from outside, over a range of the log that is
//! only in files: sagas, processes and their deadlines, consumers, filtered read models and parked
//! events, dead letters, HTTP, the command line. Without the files each of them says so.

use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use mister_smith::SystemCore;
use mister_smith::actors::event::{EventCodecError, RecordedEvent};
use mister_smith::actors::projection::{Projection, ProjectionFault};
use mister_smith::actors::saga::SagaStatus;
use mister_smith::actors::store::EventFilter;
use mister_smith::prelude::*;
use mister_smith_testkit::{Client, Postgres, eventually};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tempfile::TempDir;
use tokio::process::Command;

use crate::archives::{archive, mounted};
use crate::node::{Counter, count, value};
use crate::partitions::small_partitions;
use crate::server::{DEADLINE, name_of, open};

/// The program after the archive: what it could not do before, it can now.
static MENDED: AtomicBool = AtomicBool::new(false);

/// How often the saga's first step ran.
static HOTELS: AtomicU64 = AtomicU64::new(0);

fn mended() -> bool {
    MENDED.load(Ordering::SeqCst)
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Trip {
    sold_out: bool,
}

/// One that is sold out has to be undone, which works only later.
fn trip() -> Saga<Trip> {
    let hotel = |cx: StepContext<Trip>| async move {
        HOTELS.fetch_add(1, Ordering::SeqCst);
        Ok(cx.data)
    };
    let undo = |_| async {
        if mended() { Ok(()) } else { Err(StepError::retry("the hotel does not answer")) }
    };
    let flight = |cx: StepContext<Trip>| async move {
        if cx.data.sold_out { Err(StepError::refused("no seats")) } else { Ok(cx.data) }
    };
    Saga::new("trip")
        .step(Step::new("hotel", hotel).undo(undo).undo_retry(RetryPolicy::attempts(1)))
        .step(Step::new("flight", flight))
}

/// Follows each counter, and makes a tally of what it has seen. Later it has a deadline, too.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Shadow {
    late: bool,
}

enum Hears {
    Counted,
    Late,
}

#[derive(Debug, Serialize, Deserialize)]
enum Noted {
    #[serde(rename = "shadow.noted")]
    Noted {},
    #[serde(rename = "shadow.late")]
    Late {},
}

impl Event for Noted {}

impl Aggregate for Shadow {
    type Command = Hears;
    type Event = Noted;
    type Rejection = std::convert::Infallible;
    const CATEGORY: &'static str = "shadow";

    fn decide(&self, heard: &Hears) -> Result<Vec<Noted>, Self::Rejection> {
        Ok(match heard {
            Hears::Counted => vec![Noted::Noted {}],
            Hears::Late if !self.late => vec![Noted::Late {}],
            Hears::Late => vec![],
        })
    }

    fn evolve(&mut self, event: Noted) {
        self.late |= matches!(event, Noted::Late {});
    }
}

impl Process for Shadow {
    fn reacts_to() -> EventFilter {
        EventFilter::ALL.categories(["counter"])
    }

    fn on(event: &RecordedEvent) -> Result<Option<(String, Hears)>, EventCodecError> {
        let id = event.stream.as_str().trim_start_matches("counter-");
        Ok(Some((id.to_owned(), Hears::Counted)))
    }

    fn then(_: &str, event: &Noted) -> Vec<Effect<Self>> {
        let mut effects = Vec::new();
        if matches!(event, Noted::Noted {}) {
            effects.push(Effect::send::<Tally>("tally", "all", ()));
            if mended() {
                effects.push(Effect::after("late", Duration::ZERO, || Hears::Late));
            }
        }
        effects
    }
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Tally {
    count: u64,
}

#[derive(Debug, Serialize, Deserialize)]
enum Tallied {
    #[serde(rename = "tally.tallied")]
    Tallied {},
}

impl Event for Tallied {}

impl Aggregate for Tally {
    type Command = ();
    type Event = Tallied;
    type Rejection = std::convert::Infallible;
    const CATEGORY: &'static str = "tally";

    fn decide(&self, (): &()) -> Result<Vec<Tallied>, Self::Rejection> {
        Ok(vec![Tallied::Tallied {}])
    }

    fn evolve(&mut self, _: Tallied) {
        self.count += 1;
    }
}

/// How many events a counter has; of one of them it can tell only later.
struct Sums;

#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
struct Sum {
    events: u64,
}

impl Projection for Sums {
    type Document = Sum;
    const NAME: &'static str = "sums";

    fn filter(&self) -> EventFilter {
        EventFilter::ALL.types(["counter.counted"])
    }

    fn ids(&self, event: &RecordedEvent) -> Vec<Arc<str>> {
        vec![event.stream.as_str().into()]
    }

    fn apply(
        &self,
        event: &RecordedEvent,
        id: &str,
        sum: Option<Sum>,
    ) -> Result<Option<Sum>, ProjectionFault> {
        if id == "counter-2" && event.version.get() == 5 && !mended() {
            return Err("not yet".into());
        }
        Ok(Some(Sum { events: sum.unwrap_or_default().events + 1 }))
    }
}

async fn node(url: &str) -> SystemCore {
    let core = SystemCore::embedded()
        .store(url)
        .listen("127.0.0.1:0".parse().unwrap())
        .aggregate::<Counter>()
        .aggregate::<Tally>()
        .projection(Sums)
        .saga(trip())
        .start()
        .await
        .unwrap();
    core.processes().start::<Shadow>(ProcessOptions::default()).await.unwrap();
    let picky = Consumer::new("picky", |delivery: Delivery| async move {
        match delivery.recorded().unwrap().version.get() == 3 && !mended() {
            true => Outcome::fail("not yet"),
            false => Outcome::Ack,
        }
    });
    let picky = picky.filter(EventFilter::ALL.categories(["counter"]));
    core.consumers().start(picky).await.unwrap();
    core
}

/// Waits until nobody has anything left to do.
async fn is_settled(core: &SystemCore) {
    let picky = core.consumers().get("picky").unwrap();
    eventually(DEADLINE, async || {
        let head = core.pool().lease().await.unwrap().store.head().await.unwrap();
        core.wait_for(head).await.unwrap();
        picky.wait_for(head).await;
        let followers = core.followers().list().await.unwrap();
        let behind = followers.iter().find(|place| place.position < head);
        let now = core.pool().lease().await.unwrap().store.head().await.unwrap();
        match behind {
            None if now == head => Ok(()),
            other => Err(format!("{other:?} {head} {now}")),
        }
    })
    .await;
}

/// What `smith ARGS` prints.
async fn smith(args: &[&str]) -> Result<String, String> {
    let output = Command::new(env!("CARGO_BIN_EXE_smith"))
        .args(args)
        .env_remove("SMITH_STORE")
        .env_remove("SMITH_ARCHIVE_DIR")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(DEADLINE, output).await.unwrap().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
}

/// All events that a path pages through, by the field that the next page begins after.
async fn pages(client: &Client, path: &str, field: &str) -> Vec<u64> {
    let mut all = Vec::new();
    loop {
        let after = all.last().unwrap_or(&0);
        let (status, page) = client.get(&format!("{path}?limit=90&after={after}")).await.unwrap();
        assert_eq!(status, 200, "{page}");
        let rows = page["events"].as_array().unwrap();
        if rows.is_empty() {
            return all;
        }
        all.extend(rows.iter().map(|row| row[field].as_u64().unwrap()));
    }
}

fn positions(lines: &str) -> Vec<u64> {
    let position = |line| serde_json::from_str::<Value>(line).unwrap()["position"].as_u64();
    lines.lines().map(|line| position(line).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_that_a_node_does_crosses_an_archived_range() {
    let server = Postgres::start().await;
    let url = small_partitions(&server).await;
    let core = node(&url).await;
    for (id, sold_out) in [("done", false), ("stuck", true)] {
        core.sagas().start("trip", id, &Trip { sold_out }, Metadata::default()).await.unwrap();
        core.sagas().wait("trip", id).await.unwrap();
    }
    for n in 0..120 {
        count(&core, &format!("{}", n % 3), n).await;
    }
    is_settled(&core).await;
    assert_eq!(core.projection("sums").unwrap().parked_documents().await.unwrap().len(), 1);
    let letters = core.dead_letters().list(Some("picky"), None, 10).await.unwrap();
    assert_eq!(letters.len(), 3, "one of each counter");

    let directory = TempDir::new().unwrap();
    let store = open(&url).await;
    eventually(DEADLINE, async || {
        let report = archive(&store, directory.path(), &mounted(0)).await;
        if report.up_to.get() >= 300 { Ok(()) } else { Err(report) }
    })
    .await;
    assert!(core.stop(Duration::from_secs(20)).await);
    // Nobody knows where he was, and nothing stands for what was archived.
    let lost = "delete from ms_framework.snapshots; delete from ms_framework.followers; \
                delete from ms_framework.follower_notes";
    server.sql(name_of(&url), lost).await;

    is_told_without_the_files(&url).await;
    server.sql(name_of(&url), lost).await;
    MENDED.store(true, Ordering::SeqCst);
    let core = node(&format!("{url}&archive_dir={}", directory.path().display())).await;
    is_settled(&core).await;

    // Processes and their effects: all of it came again, and had no second effect.
    let tally = async || {
        let tally = core.commands().look("all", |tally: &Tally, _| tally.count).await;
        tally.map_err(|error| error.to_string())
    };
    assert_eq!(tally().await, Ok(120));
    for id in ["0", "1", "2"] {
        assert_eq!(value(&core, id).await, 40);
        // Deadlines that follow from events in the files.
        eventually(DEADLINE, async || {
            match core.commands().look(id, |shadow: &Shadow, version| (shadow.late, version)).await
            {
                Ok((true, version)) if version.get() == 41 => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
    }

    // Sagas.
    assert_eq!(HOTELS.load(Ordering::SeqCst), 2, "no step ran again");
    let status = async |id| core.sagas().state("trip", id).await.unwrap().status;
    assert_eq!(status("done").await, SagaStatus::Completed);
    assert_eq!(status("stuck").await, SagaStatus::Parked);
    core.sagas().retry("trip", "stuck", "ann").await.unwrap();
    eventually(DEADLINE, async || match status("stuck").await {
        SagaStatus::Compensated => Ok(()),
        other => Err(other),
    })
    .await;

    // A read model: its parked event, and all of it made anew.
    let sums = core.projection("sums").unwrap();
    sums.retry("counter-2").await.unwrap();
    let is_whole = async || {
        let mut found = Vec::new();
        for id in ["counter-0", "counter-1", "counter-2"] {
            found.push(sums.get::<Sum>(id).await.unwrap().unwrap_or_default().events);
        }
        if found == [40, 40, 40] { Ok(()) } else { Err(format!("{found:?}\n{}", core.tree())) }
    };
    eventually(DEADLINE, is_whole).await;
    sums.reset().await.unwrap();
    is_settled(&core).await;
    is_whole().await.unwrap();

    // Dead letters.
    let (id, _) = core.dead_letters().list(Some("picky"), None, 1).await.unwrap().remove(0);
    let letter = core.dead_letters().show(&id).await.unwrap();
    assert_eq!(letter.letter.unwrap().reason, "not yet");
    core.dead_letters().purge(&id, "ann").await.unwrap();

    is_read_from_outside(&core, &url, &directory.path().display().to_string()).await;
    assert_eq!(tally().await, Ok(120));
    assert!(core.stop(Duration::from_secs(20)).await);
}

async fn is_read_from_outside(core: &SystemCore, url: &str, directory: &str) {
    is_settled(core).await;
    let head = core.head().get();
    let everything: Vec<u64> = (1..=head).collect();
    let client = Client::new(core.addr().unwrap());
    assert_eq!(pages(&client, "/api/v1/events", "position").await, everything);
    let of_stream = pages(&client, "/api/v1/streams/counter-1/events", "version").await;
    assert_eq!(of_stream, (1..=40).collect::<Vec<_>>());
    let (status, row) = client.get("/api/v1/streams/counter-1").await.unwrap();
    assert_eq!((status, &row["events"]), (200, &40.into()), "{row}");
    let (status, row) = client.get("/debug/v1/streams/counter-1").await.unwrap();
    assert_eq!(status, 200, "{row}");

    let from = ["--store", url, "--archive-dir", directory];
    let all = [&["events", "tail", "--from", "0", "--json"], &from[..]].concat();
    assert_eq!(positions(&smith(&all).await.unwrap()), everything);
    let ends = ["events", "tail", "--stream", "counter-1", "-n", "40", "--json"];
    let of_stream = smith(&[&ends[..], &from].concat()).await.unwrap();
    assert_eq!(of_stream.lines().count(), 40);
    let of_type = ["events", "tail", "--type", "shadow.noted", "-n", "500", "--json"];
    assert_eq!(smith(&[&of_type[..], &from].concat()).await.unwrap().lines().count(), 120);
    let shown = smith(&[&["events", "show", "counter-1/1"], &from[..]].concat()).await.unwrap();
    assert!(shown.contains("counter.counted"), "{shown}");
    let shown = smith(&[&["events", "show", "1"], &from[..]].concat()).await.unwrap();
    assert!(shown.contains("saga.started"), "{shown}");
    for (args, count) in [
        (&["replay"][..], head as usize),
        (&["replay", "--stream", "counter-0"], 40),
        (&["replay", "--since", "2000-01-01T00:00:00Z", "--type", "tally.tallied"], 120),
    ] {
        let lines = smith(&[args, &from].concat()).await.unwrap();
        assert_eq!(lines.lines().count(), count, "{args:?}");
    }
}

/// Nobody passes over what is missing: each says that it was archived.
async fn is_told_without_the_files(url: &str) {
    let core = node(url).await;
    for name in ["picky", "shadow.reactions", "shadow.effects"] {
        let consumer = core.consumers().get(name).unwrap();
        eventually(DEADLINE, async || match consumer.status().trouble {
            Some(trouble) if trouble.contains("archived") => Ok(()),
            other => Err(format!("{name}: {other:?}")),
        })
        .await;
        assert_eq!((consumer.status().handled, consumer.status().dead), (0, 0), "{name}");
    }
    for place in core.followers().list().await.unwrap() {
        assert_eq!(place.position.get(), 0, "{place:?}");
    }
    let error = core.sagas().state("trip", "done").await.unwrap_err().to_string();
    assert!(error.contains("archived"), "{error}");
    let error = core.dead_letters().list(Some("picky"), None, 1).await.unwrap();
    let error = core.dead_letters().show(&error[0].0).await.unwrap_err().to_string();
    assert!(error.contains("archived"), "{error}");
    let client = Client::new(core.addr().unwrap());
    for path in
        ["/api/v1/events", "/api/v1/streams/counter-1/events", "/api/v1/streams/saga-trip-done"]
    {
        let (status, problem) = client.get(path).await.unwrap();
        assert!(status >= 500 && problem.to_string().contains("archived"), "{path}: {problem}");
    }
    for args in [
        &["events", "tail", "--from", "0"][..],
        &["events", "show", "1"],
        &["events", "show", "counter-1/1"],
        &["replay"],
        &["replay", "--stream", "counter-0"],
    ] {
        let told = smith(&[args, &["--store", url]].concat()).await.unwrap_err();
        assert!(told.contains("archived"), "{args:?}: {told}");
    }
    assert!(core.stop(Duration::from_secs(20)).await);
}
