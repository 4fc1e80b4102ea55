//! Commands that read a PostgreSQL store: as somebody who may only read, above what was archived,
//! and while the log grows.

use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mister_smith::SystemCore;
use mister_smith::actors::event::{RecordedEvent, StreamId};
use mister_smith::actors::projection::{Projection, ProjectionFault};
use mister_smith::actors::store::archive::ArchiveRules;
use mister_smith::actors::store::{Append, EventFilter, EventStore, ExpectedVersion, conformance};
use mister_smith::archive::Directory;
use mister_smith_testkit::{Postgres, eventually};
use serde_json::Value;
use tempfile::TempDir;
use tokio::process::Command;

use crate::partitions::small_partitions;
use crate::server::{DEADLINE, database, name_of, numbered, open};

const SMITH: &str = env!("CARGO_BIN_EXE_smith");

async fn smith(args: &[&str]) -> Result<String, String> {
    let output = Command::new(SMITH)
        .args(args)
        .env_remove("SMITH_STORE")
        .env_remove("SMITH_ARCHIVE_DIR")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(DEADLINE, output).await.expect("it ends").unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
}

fn positions(lines: &str) -> Vec<u64> {
    let position = |line| serde_json::from_str::<Value>(line).unwrap()["position"].as_u64();
    lines.lines().map(|line| position(line).unwrap()).collect()
}

/// Guards against reading commands that make partitions, which a reader and a replica may not.
#[tokio::test(flavor = "multi_thread")]
async fn rights_to_read_are_enough_to_read() {
    let server = Postgres::start().await;
    let url = database(&server).await;
    let store = open(&url).await;
    store.append_batch((1..=20).map(|n| numbered("s-1", n)).collect()).await.unwrap();
    let rights = "create role reader login; grant usage on schema ms_framework to reader; \
                  grant select on all tables in schema ms_framework to reader";
    server.sql(name_of(&url), rights).await;
    // The next append would make partitions: there is one ahead only.
    server.sql(name_of(&url), "update ms_framework.store_head set partition_size = 10").await;
    let reader = url.replace("user=postgres", "user=reader");
    let before = server.sql(name_of(&url), "select count(*) from pg_inherits").await;
    let tail = ["events", "tail", "--json", "-n", "3", "--store", &reader];
    assert_eq!(positions(&smith(&tail).await.unwrap()), [18, 19, 20]);
    let stats = smith(&["events", "stats", "--store", &reader]).await.unwrap();
    assert!(stats.starts_with("20 events"), "{stats}");
    assert!(smith(&["events", "show", "s-1/7", "--store", &reader]).await.unwrap().contains("s-1"));
    assert_eq!(smith(&["replay", "--store", &reader]).await.unwrap().lines().count(), 20);
    assert_eq!(server.sql(name_of(&url), "select count(*) from pg_inherits").await, before);
}

/// Guards against a look back by 100 positions a query, which also failed where the log was archived.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_rare_is_found_above_what_was_archived_and_below_with_the_files() {
    let server = Postgres::start().await;
    let url = small_partitions(&server).await;
    let store = open(&url).await;
    let rare = |stream: &str, seed| {
        let mut event = conformance::event(seed);
        event.event_type = Arc::from("rare");
        Append::new(StreamId::new(stream).unwrap(), ExpectedVersion::Any, vec![event])
    };
    for batch in 0..11_u128 {
        let mut appends: Vec<_> = (0..49).map(|n| numbered("s-1", batch * 50 + n + 1)).collect();
        appends.push(rare("r-1", 1_000_000 + batch as u64));
        store.append_batch(appends.into()).await.unwrap();
    }
    let directory = TempDir::new().unwrap();
    let place = directory.path().display().to_string();
    let rules = ArchiveRules::default().keep(2).mounted(true);
    store.archive(&Directory::new(directory.path()), &rules).await.unwrap();

    let tail = ["events", "tail", "--json", "--type", "rare", "-n", "8", "--store", &url];
    assert_eq!(positions(&smith(&tail).await.unwrap()), [350, 400, 450, 500, 550]);
    let with = |more: &[&str]| [&tail[..], more].concat().iter().map(ToString::to_string).collect();
    let all: Vec<String> = with(&["--archive-dir", &place]);
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    assert_eq!(positions(&smith(&all).await.unwrap()), [200, 250, 300, 350, 400, 450, 500, 550]);
    let none = ["events", "tail", "--type", "nobody", "--store", &url];
    assert_eq!(smith(&none).await.unwrap(), "");
    let stats = smith(&["events", "stats", "--json", "--store", &url]).await.unwrap();
    let stats: Value = serde_json::from_str(&stats).unwrap();
    assert_eq!((&stats["head"], &stats["looked_at"]), (&550.into(), &250.into()));

    // An event that was archived is named where the files are, and elsewhere the cure is.
    for event in [&["s-1", "3"][..], &["3"]] {
        let skip = [&["events", "skip"], event, &["--reason", "forged", "--store", &url]].concat();
        let error = smith(&skip).await.unwrap_err();
        assert!(error.contains("was archived") && error.contains("--archive-dir"), "{error}");
    }
    let skip = ["events", "skip", "s-1", "3", "--reason", "forged", "--store", &url];
    let skip = [&skip[..], &["--archive-dir", &place]].concat();
    let told = smith(&skip).await.unwrap();
    assert!(told.starts_with("s-1/3 (position 3) is passed over"), "{told}");

    // The files, as the command line sees them.
    let list = smith(&["archive", "list", "--directory", &place]).await.unwrap();
    assert_eq!(list.lines().count(), 3, "{list}");
    assert_eq!(smith(&["archive", "verify", "--directory", &place]).await.unwrap(), list);
    let restore = ["archive", "restore", "--directory", &place, "--after", "200", "--store", &url];
    assert!(smith(&restore).await.unwrap().starts_with("201 to 300"));
    let run = ["archive", "run", "--directory", &place, "--keep", "2", "--store", &url];
    let held = smith(&run).await.unwrap();
    assert!(held.contains("0 archived") && held.contains("held back by stream"), "{held}");
    let run = [&run[..], &["--mounted"]].concat();
    assert!(smith(&run).await.unwrap().contains("1 archived"));
}

/// Guards against statistics that read on and on while the log grows.
#[tokio::test(flavor = "multi_thread")]
async fn statistics_end_on_a_busy_log() {
    let server = Postgres::start().await;
    let url = database(&server).await;
    let store = Arc::new(open(&url).await);
    store
        .append_batch([conformance::append("s", ExpectedVersion::Any, 0, 5_000)].into())
        .await
        .unwrap();
    let (busy, writer) = (Arc::new(AtomicBool::new(true)), Arc::clone(&store));
    let goes_on = Arc::clone(&busy);
    let load = tokio::spawn(async move {
        let mut seed = 10_000;
        while goes_on.load(Ordering::Relaxed) {
            let batch = [conformance::append("s", ExpectedVersion::Any, seed, 2_000)].into();
            writer.append_batch(batch).await.unwrap();
            seed += 2_000;
        }
    });
    let stats = smith(&["events", "stats", "--store", &url]).await.unwrap();
    assert!(stats.contains("all of them"), "{stats}");
    busy.store(false, Ordering::Relaxed);
    load.await.unwrap();
}

static MENDED: AtomicBool = AtomicBool::new(false);

/// How many events a stream has, but for one that it cannot read yet.
struct Counts;

impl Projection for Counts {
    type Document = u64;
    const NAME: &'static str = "counts";

    fn filter(&self) -> EventFilter {
        EventFilter::ALL.categories(["s"])
    }

    fn ids(&self, event: &RecordedEvent) -> Vec<Arc<str>> {
        vec![event.stream.as_str().into()]
    }

    fn apply(
        &self,
        _: &RecordedEvent,
        id: &str,
        count: Option<u64>,
    ) -> Result<Option<u64>, ProjectionFault> {
        match id == "s-1" && !MENDED.load(Ordering::Relaxed) {
            true => Err("not mended yet".into()),
            false => Ok(Some(count.unwrap_or_default() + 1)),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn parked_events_are_seen_and_settled_while_no_node_runs() {
    let server = Postgres::start().await;
    let url = database(&server).await;
    let store = open(&url).await;
    let events = ["s-1", "s-2", "s-1", "s-1"].iter().zip(1..);
    store.append_batch(events.map(|(stream, n)| numbered(stream, n)).collect()).await.unwrap();
    let start = async || {
        let core = SystemCore::embedded().store(&url).projection(Counts);
        core.start().await.unwrap()
    };
    let parked = async || {
        let list = ["projections", "parked", "counts", "--json", "--store", &url];
        let list = smith(&list).await.unwrap();
        serde_json::from_str::<Value>(&list).unwrap()["parked"].as_array().unwrap().len()
    };
    let core = start().await;
    eventually(DEADLINE, async || match parked().await {
        3 => Ok(()),
        other => Err(other),
    })
    .await;
    assert!(core.stop(Duration::from_secs(20)).await);

    assert_eq!(parked().await, 3);
    let skip = ["projections", "skip", "counts", "s-1", "--store", &url];
    assert!(smith(&skip).await.unwrap().contains("true"));
    let retry = ["projections", "retry", "counts", "s-1", "--store", &url];
    assert!(smith(&retry).await.unwrap().contains("true"));
    let unknown = ["projections", "retry", "nobody", "s-1", "--store", &url];
    assert!(smith(&unknown).await.unwrap_err().contains("nobody"));
    MENDED.store(true, Ordering::Relaxed);
    let core = start().await;
    eventually(DEADLINE, async || {
        match core.projection("counts").unwrap().get::<u64>("s-1").await.unwrap() {
            Some(2) => Ok(()),
            other => Err(other),
        }
    })
    .await;
    assert!(core.stop(Duration::from_secs(20)).await);
    assert_eq!(parked().await, 0);
}
