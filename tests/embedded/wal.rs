//! The write-ahead logs of a node on SQLite, under a load of everything that reads and writes.
//!
//! By default for some thousand commits. `MISTER_SMITH_CHAOS_MINUTES=60 cargo test --release --test
//! embedded wal:: -- --nocapture` is the long form, and prints once a minute.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use mister_smith::SystemCore;
use mister_smith::actors::event::{Position, RecordedEvent};
use mister_smith::actors::projection::{ListQuery, Projection, ProjectionFault};
use mister_smith::actors::store::EventFilter;
use mister_smith::http::Limits;
use mister_smith::prelude::*;
use serde::{Deserialize, Serialize};
use sqlx::{Connection as _, SqliteConnection};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::node::{Node, ONE, event};

/// A log that is longer is restarted as soon as nobody reads in it (`docs/guarantees.md`).
const LONG: u64 = 64 << 20;

/// As much more, before a restart that a reader prevented is tried again.
const RETRY: u64 = 16 << 20;

/// Commits that write as much to a log, of two pages each.
const GRACE: u64 = RETRY / 8_192;

/// Requests of the short form.
const SHORT: u64 = 800;

/// A note of some text.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Notes {
    count: u64,
}

#[derive(Debug, Serialize, Deserialize)]
enum Noted {
    #[serde(rename = "note.taken")]
    Taken { text: String },
}

impl Event for Noted {}

impl Aggregate for Notes {
    type Command = String;
    type Event = Noted;
    type Rejection = std::convert::Infallible;
    const CATEGORY: &'static str = "note";

    fn decide(&self, text: &String) -> Result<Vec<Noted>, Self::Rejection> {
        Ok(vec![Noted::Taken { text: text.clone() }])
    }

    fn evolve(&mut self, _: Noted) {
        self.count += 1;
    }
}

/// The last note of each, as it was taken.
struct Latest;

#[derive(Debug, Serialize, Deserialize)]
struct Note {
    data: String,
}

impl Projection for Latest {
    type Document = Note;
    const NAME: &'static str = "latest";

    fn filter(&self) -> EventFilter {
        EventFilter::ALL.categories(["note"])
    }

    fn ids(&self, event: &RecordedEvent) -> Vec<Arc<str>> {
        vec![event.stream.as_str().into()]
    }

    fn apply(
        &self,
        event: &RecordedEvent,
        _: &str,
        _: Option<Note>,
    ) -> Result<Option<Note>, ProjectionFault> {
        Ok(Some(Note { data: String::from_utf8_lossy(&event.data).into_owned() }))
    }
}

/// What goes on, and for how long.
struct Load {
    core: SystemCore,
    directory: PathBuf,
    commits: watch::Sender<u64>,
    over: AtomicBool,
    /// Somebody holds a snapshot of both files.
    held: AtomicBool,
    /// After so many commits it was let go.
    free_since: AtomicU64,
    /// Looks at documents, and pages of the log.
    reads: AtomicU64,
}

impl Load {
    fn goes_on(&self) -> bool {
        !self.over.load(Ordering::Relaxed)
    }

    fn counts(&self) -> u64 {
        self.commits.send_modify(|commits| *commits += 1);
        *self.commits.borrow()
    }

    /// Waits for so many commits more.
    async fn after(&self, commits: u64) {
        let until = *self.commits.borrow() + commits;
        let mut seen = self.commits.subscribe();
        let _ = seen.wait_for(|now| *now >= until || !self.goes_on()).await;
    }

    /// The bytes of each write-ahead log.
    fn logs(&self) -> BTreeMap<String, u64> {
        let mut found = BTreeMap::new();
        for entry in std::fs::read_dir(&self.directory).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            if name.ends_with("-wal") {
                found.insert(name, entry.metadata().map_or(0, |file| file.len()));
            }
        }
        found
    }

    /// One sender of commands, to notes of its own.
    async fn commands(&self, sender: u64) {
        let mut n = 0;
        while self.goes_on() {
            let text = format!("{n} {}", "x".repeat(1_500));
            let id = format!("{sender}.{}", n % 50);
            match self.core.commands().send::<Notes>(&id, text).await {
                Ok(_) => self.counts(),
                Err(error) => panic!("{error}"),
            };
            n += 1;
        }
    }

    /// Documents, one after the other, so that several such readers overlap all the time.
    async fn documents(&self) {
        let (latest, streams) =
            (self.core.projection("latest").unwrap(), self.core.projection("streams").unwrap());
        while self.goes_on() {
            let page = ListQuery::first(50);
            latest.list::<Note>(&page).await.unwrap();
            streams.list::<serde_json::Value>(&page).await.unwrap();
            latest.get::<Note>("note-0.7").await.unwrap();
            self.reads.fetch_add(3, Ordering::Relaxed);
        }
    }

    /// The log, from its beginning, again and again.
    async fn replays(&self) {
        let mut at = Position::ZERO;
        while self.goes_on() {
            let store = self.core.pool().lease().await.unwrap().store;
            let page = store.read_all(at, 500).await.unwrap();
            at = page.last().map_or(Position::ZERO, |event| event.position);
            self.reads.fetch_add(1, Ordering::Relaxed);
            if page.is_empty() {
                self.after(1).await;
            }
        }
    }

    /// Somebody from outside who holds a snapshot of both files for many commits, as a backup does.
    async fn holds(&self, commits: u64) {
        while self.goes_on() {
            self.after(commits).await;
            let mut readers = Vec::new();
            for name in ["smith.db", "smith.read.db"] {
                let url = format!("sqlite://{}", self.directory.join(name).display());
                let mut reader = SqliteConnection::connect(&url).await.unwrap();
                let begin = "begin; select count(*) from sqlite_master";
                sqlx::raw_sql(begin).execute(&mut reader).await.unwrap();
                readers.push(reader);
            }
            self.held.store(true, Ordering::SeqCst);
            self.after(commits).await;
            for reader in readers {
                reader.close().await.unwrap();
            }
            self.free_since.store(*self.commits.borrow(), Ordering::SeqCst);
            self.held.store(false, Ordering::SeqCst);
        }
    }
}

/// Only payload was counted: small events, one a commit, made a write-ahead log of 22 KiB each,
/// that was not copied into the file before 4 MiB of payload; 300 MB within four minutes. And what
/// is too long has to be cut, once the readers in it have let it go.
#[tokio::test(flavor = "multi_thread")]
async fn write_ahead_logs_stay_short_under_load() {
    let minutes = std::env::var("MISTER_SMITH_CHAOS_MINUTES").ok();
    let minutes: Option<u64> = minutes.map(|text| text.parse().unwrap());
    let node =
        Node::made(Limits::default(), |builder| builder.aggregate::<Notes>().projection(Latest))
            .await;
    let consumer = Consumer::new("reader", |_: Delivery| async { Outcome::Ack });
    node.core.consumers().start(consumer.lanes_by_stream(4)).await.unwrap();
    let (store, _) = node.core.store();
    let file = Path::new(store.trim_start_matches("sqlite://"));
    let load = Arc::new(Load {
        core: node.core.clone(),
        directory: file.parent().unwrap().to_owned(),
        commits: watch::Sender::new(0),
        over: AtomicBool::new(false),
        held: AtomicBool::new(false),
        free_since: AtomicU64::new(0),
        reads: AtomicU64::new(0),
    });
    let mut tasks = JoinSet::new();
    for sender in 0..2 {
        let load = Arc::clone(&load);
        tasks.spawn(async move { load.commands(sender).await });
    }
    for _ in 0..3 {
        let load = Arc::clone(&load);
        tasks.spawn(async move { load.documents().await });
    }
    for _ in 0..2 {
        let load = Arc::clone(&load);
        tasks.spawn(async move { load.replays().await });
    }
    let hold = if minutes.is_some() { 10_000 } else { 400 };
    tasks.spawn({
        let load = Arc::clone(&load);
        async move { load.holds(hold).await }
    });

    let begun = Instant::now();
    let (mut requests, mut minute, mut largest) = (0, 0, [0, 0]);
    loop {
        let (status, answer) = node
            .ingest(ONE, event(&requests.to_string(), &format!("order-{}", requests % 9)))
            .await;
        assert_eq!(status, 200, "{answer}");
        requests += 1;
        let commits = load.counts();
        let held = load.held.load(Ordering::SeqCst);
        let free = !held && commits > load.free_since.load(Ordering::SeqCst) + GRACE;
        let logs = load.logs();
        assert_eq!(logs.len(), 2, "{logs:?}");
        let longest = *logs.values().max().unwrap();
        largest[usize::from(held)] = longest.max(largest[usize::from(held)]);
        assert!(!free || longest < LONG + RETRY, "nobody reads in them: {logs:?}");
        let Some(minutes) = minutes else {
            let bound = (20 << 20).max(commits * 10_000);
            assert!(longest < bound, "{logs:?}: {commits} commits");
            if requests == SHORT {
                break;
            }
            continue;
        };
        let passed = begun.elapsed().as_secs() / 60;
        if passed > minute {
            minute = passed;
            eprintln!(
                "minute {minute}: {commits} commits, held {held}, {logs:?}, at most {largest:?}"
            );
        }
        if begun.elapsed() >= Duration::from_secs(60 * minutes) {
            break;
        }
    }
    load.over.store(true, Ordering::Relaxed);
    let commits = load.counts();
    while let Some(task) = tasks.join_next().await {
        task.unwrap();
    }
    // Whatever it was: the next commits cut it down.
    for n in 0..20 {
        load.core.commands().send::<Notes>("last", n.to_string()).await.unwrap();
        node.projected().await;
    }
    let logs = load.logs();
    let reads = load.reads.load(Ordering::Relaxed);
    eprintln!("{commits} commits, {reads} reads, {logs:?}, at most {largest:?} free and held");
    assert!(logs.values().all(|bytes| *bytes <= LONG + (1 << 20)), "{logs:?}");
    assert!(reads > 100, "{reads}");
}
