//! Archives on a real server: whatever is killed, and whoever comes second, every event is in the
//! database or in a file that is good, and everybody reads it.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mister_smith::SystemCore;
use mister_smith::actors::bus::queue::{QueueOptions, Receiver, connect};
use mister_smith::actors::bus::{Delivery, Outcome};
use mister_smith::actors::consumer::Consumer;
use mister_smith::actors::event::{Position, RecordedEvent, StreamId, Version};
use mister_smith::actors::projection::streams::StreamSummary;
use mister_smith::actors::store::archive::policy::ArchivePolicy;
use mister_smith::actors::store::archive::{
    ArchiveError, ArchiveReport, ArchiveRules, ArchivedStore, Cold as _, manifests,
};
use mister_smith::actors::store::postgres::PgStore;
use mister_smith::actors::store::subscription::Subscription;
use mister_smith::actors::store::{
    EventFilter, EventStore, ExpectedVersion, StoreError, conformance,
};
use mister_smith::archive::Directory;
use mister_smith_testkit::{Postgres, eventually};
use sqlx::Connection as _;
use tempfile::TempDir;

use crate::node::{Counter, count, value};
use crate::partitions::small_partitions;
use crate::server::{DEADLINE, name_of, numbered, open};
use crate::wire::{Cut, Wire};

/// As if every node read the directory.
pub(crate) fn mounted(keep: usize) -> ArchiveRules {
    ArchiveRules::default().keep(keep).mounted(true)
}

/// 550 events in partitions of a hundred, and the log as it was.
pub(crate) async fn log(url: &str) -> (PgStore, Vec<RecordedEvent>) {
    let store = open(url).await;
    for batch in 0..11_u128 {
        let appends = (0..50).map(|n| numbered(&format!("s-{}", n % 7), batch * 50 + n + 1));
        store.append_batch(appends.collect()).await.unwrap();
    }
    let log = conformance::whole_log(&store, 100).await;
    assert_eq!(log.len(), 550);
    (store, log)
}

/// Tables with events: those of the log, and what an archiver has left behind.
pub(crate) async fn tables(server: &Postgres, url: &str) -> usize {
    let sql = "select count(*) from pg_tables where tablename like 'events\\_p%'";
    server.sql(name_of(url), sql).await.trim().parse().unwrap()
}

/// Archives, once the server has seen that an archiver before is gone.
pub(crate) async fn archive(
    store: &PgStore,
    directory: &Path,
    rules: &ArchiveRules,
) -> ArchiveReport {
    let cold = Directory::new(directory);
    eventually(DEADLINE, async || match store.archive(&cold, rules).await {
        Err(error @ ArchiveError::Busy { .. }) => Err(error.to_string()),
        result => Ok(result.unwrap()),
    })
    .await
}

pub(crate) async fn reads_all(store: PgStore, directory: &Path, log: &[RecordedEvent]) {
    let whole = ArchivedStore::open(Arc::new(store), Directory::shared(directory)).await.unwrap();
    assert_eq!(conformance::whole_log(&whole, 64).await, log);
}

/// Guards against a run that is killed while it waits for readers: the partition is half detached
/// then, and the next run truncated the good file and could never finish.
#[tokio::test(flavor = "multi_thread")]
async fn a_partition_that_is_half_detached_is_let_go() {
    let server = Postgres::start().await;
    let url = small_partitions(&server).await;
    let (store, log) = log(&url).await;
    let directory = TempDir::new().unwrap();
    let mut reader = sqlx::PgConnection::connect(&url).await.unwrap();
    let mut reading = reader.begin().await.unwrap();
    sqlx::query("select count(*) from ms_framework.events").execute(&mut *reading).await.unwrap();

    let (killed, path) = (open(&url).await, directory.path().to_owned());
    let work =
        tokio::spawn(
            async move { killed.archive(&Directory::new(path), &mounted(4)).await.map(drop) },
        );
    let pending = "select count(*) from pg_inherits where inhdetachpending";
    eventually(DEADLINE, async || match server.sql(name_of(&url), pending).await.trim() {
        "1" => Ok(()),
        other => Err(other.to_owned()),
    })
    .await;
    let kill = "select pg_terminate_backend(pid) from pg_stat_activity \
                where query like '%detach partition%' and pid <> pg_backend_pid()";
    server.sql(name_of(&url), kill).await;
    work.await.unwrap().unwrap_err();
    reading.rollback().await.unwrap();

    let file = manifests(&Directory::new(directory.path())).await.unwrap().remove(0);
    let written = std::fs::metadata(directory.path().join(&file.file)).unwrap().modified().unwrap();
    let report = archive(&store, directory.path(), &mounted(4)).await;
    assert_eq!(report.archived, std::slice::from_ref(&file));
    let now = std::fs::metadata(directory.path().join(&file.file)).unwrap().modified().unwrap();
    assert_eq!(now, written, "a file that is good is left as it is");
    assert_eq!(server.sql(name_of(&url), pending).await.trim(), "0");
    assert_eq!(tables(&server, &url).await, 5);
    reads_all(store, directory.path(), &log).await;
}

/// Guards against two cron jobs that overlap: the second truncated what the first had dropped.
#[tokio::test(flavor = "multi_thread")]
async fn of_two_archivers_one_works() {
    let server = Postgres::start().await;
    for _ in 0..4 {
        let url = small_partitions(&server).await;
        let (store, log) = log(&url).await;
        let directory = TempDir::new().unwrap();
        let (one, two) = (open(&url).await, open(&url).await);
        let cold = Directory::new(directory.path());
        let rules = mounted(2);
        let (a, b) = tokio::join!(one.archive(&cold, &rules), two.archive(&cold, &rules));
        for result in [&a, &b] {
            assert!(matches!(result, Ok(_) | Err(ArchiveError::Busy { .. })), "{result:?}");
        }
        assert!(a.is_ok() || b.is_ok());
        archive(&store, directory.path(), &mounted(2)).await;
        reads_all(store, directory.path(), &log).await;
    }
}

/// Guards against archives above the place of a follower, which then stands still for good, and of
/// streams that cannot be loaded any more.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_loses_what_is_still_to_be_read() {
    let server = Postgres::start().await;
    let url = small_partitions(&server).await;
    let (store, log) = log(&url).await;
    let directory = TempDir::new().unwrap();

    // No aggregate has a snapshot, and nobody has said that the nodes read the files.
    let report = archive(&store, directory.path(), &ArchiveRules::default().keep(0)).await;
    let held = report.held_back.unwrap();
    assert!(held.by.starts_with("stream s-") && held.cure.contains("--mounted"), "{held}");
    assert_eq!((report.archived, report.up_to), (vec![], Position::ZERO));

    // All streams have one of everything in the first two partitions.
    let at = |place: u64| log.iter().filter(move |event| event.position.get() <= place);
    for n in 0..7 {
        let name = format!("s-{n}");
        let last = at(250).filter(|event| event.stream.as_str() == name).last().unwrap().version;
        let snapshot = format!(
            "insert into ms_framework.snapshots select id, {last}, 1, 1, '', 0 \
             from ms_framework.streams where name = '{name}'"
        );
        server.sql(name_of(&url), &snapshot).await;
    }
    // A node projects all of it and stops. Its places are kept now and then.
    let archived = async |core: &SystemCore, rules: &ArchiveRules, up_to: u64| {
        let head = store.head().await.unwrap();
        tokio::time::timeout(DEADLINE, core.wait_for(head)).await.unwrap().unwrap();
        eventually(DEADLINE, async || {
            let report = archive(&store, directory.path(), rules).await;
            if report.up_to.get() == up_to { Ok(report) } else { Err(report) }
        })
        .await
    };
    let core = SystemCore::embedded().store(&url).start().await.unwrap();
    let report = archived(&core, &ArchiveRules::default().keep(0), 200).await;
    assert!(core.stop(Duration::from_secs(20)).await);
    assert!(report.held_back.unwrap().by.starts_with("stream s-"));
    let stream = StreamId::new("s-3").unwrap();
    let last = at(200).filter(|event| event.stream == stream).last().unwrap().version;
    assert!(!store.read_stream(&stream, last, 500).await.unwrap().is_empty(), "from its snapshot");

    // The log goes on, and nobody projects it.
    let more = (0..100).map(|n| numbered("s-1", 10_000 + n));
    store.append_batch(more.collect()).await.unwrap();
    let report = archive(&store, directory.path(), &mounted(0)).await;
    assert_eq!(report.up_to.get(), 500, "600 is full, and has to be projected");
    let held = report.held_back.unwrap();
    assert!((500..=550).contains(&held.at.get()), "{held}");
    let core = SystemCore::embedded().store(&url).start().await.unwrap();
    archived(&core, &mounted(0), 600).await;
    assert!(core.stop(Duration::from_secs(20)).await);
}

/// Guards against a node that slept: it remembers streams as they were, and what was appended since
/// is archived, so that it can neither read that nor append where it believes the log to end.
#[tokio::test(flavor = "multi_thread")]
async fn a_writer_that_slept_through_an_archive_looks_again() {
    let server = Postgres::start().await;
    for new_stream in [false, true] {
        let url = small_partitions(&server).await;
        let (store, slept) = (Arc::new(open(&url).await), open(&url).await);
        let append = |n: u128| [numbered(&format!("s-{}", n % 3), n)].into();
        for n in 1..=50 {
            slept.append_batch(append(n)).await.unwrap();
        }
        for n in 51..=350 {
            store.append_batch(append(n)).await.unwrap();
        }
        let directory = TempDir::new().unwrap();
        assert_eq!(archive(&store, directory.path(), &mounted(0)).await.up_to.get(), 300);
        let next = match new_stream {
            true => conformance::append("new", ExpectedVersion::NoStream, 9_000, 1),
            false => conformance::append("s-1", ExpectedVersion::Any, 9_000, 1),
        };
        let outcomes = slept.append_batch([next].into()).await.unwrap();
        assert_eq!(outcomes[0].as_ref().unwrap().first_position.get(), 351);
        slept.append_batch(append(352)).await.unwrap();
        let cold = Directory::shared(directory.path());
        let whole = ArchivedStore::open(store.clone(), cold).await.unwrap();
        let mut versions = std::collections::BTreeMap::new();
        for event in conformance::whole_log(&whole, 64).await {
            let last = versions.entry(event.stream.clone()).or_insert(Version::ZERO);
            assert_eq!(event.version, last.next(), "{event:?}");
            *last = event.version;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_archived_is_put_back() {
    let server = Postgres::start().await;
    let url = small_partitions(&server).await;
    let (store, log) = log(&url).await;
    let directory = TempDir::new().unwrap();
    let cold = Directory::new(directory.path());
    let first = archive(&store, directory.path(), &mounted(1)).await;
    assert_eq!(first.up_to.get(), 400);

    // Down to a place, and cut while it works: a range is back or not.
    let wire = Wire::to(&url);
    let killed = open(&wire.url(&url)).await;
    wire.cut(Cut::Request(b"attach partition"));
    killed.restore(&cold, Position::new(150)).await.unwrap_err();
    assert_eq!(store.archived_up_to().await.unwrap().get(), 400);
    let restored =
        eventually(DEADLINE, async || match store.restore(&cold, Position::new(150)).await {
            Err(error @ ArchiveError::Busy { .. }) => Err(error),
            result => Ok(result.unwrap()),
        })
        .await;
    let ranges: Vec<_> = restored.iter().map(|one| (one.from.get(), one.to.get())).collect();
    assert_eq!(ranges, [(301, 400), (201, 300), (101, 200)]);
    assert_eq!(store.read_all(Position::new(100), 500).await.unwrap(), log[100..]);
    let error = store.read_all(Position::ZERO, 10).await.unwrap_err();
    assert!(matches!(error, StoreError::Archived { up_to, .. } if up_to.get() == 100), "{error}");

    store.restore(&cold, Position::ZERO).await.unwrap();
    assert_eq!(conformance::whole_log(&store, 100).await, log);
    let stream = StreamId::new("s-3").unwrap();
    let own = log.iter().filter(|event| event.stream == stream).count();
    assert_eq!(store.read_stream(&stream, Version::ZERO, 500).await.unwrap().len(), own);
    store.append_batch([numbered("s-3", 10_000)].into()).await.unwrap();

    // The files are still good, and taken as they are.
    assert_eq!(archive(&store, directory.path(), &mounted(1)).await, first);
    std::fs::remove_file(directory.path().join(&first.archived[0].file)).unwrap();
    let error = eventually(DEADLINE, async || match store.restore(&cold, Position::ZERO).await {
        Err(error @ ArchiveError::Busy { .. }) => Err(error),
        result => Ok(result.unwrap_err()),
    })
    .await;
    assert!(error.to_string().contains(&first.archived[0].file), "{error}");
    let up_to = store.archived_up_to().await.unwrap().get();
    assert_eq!(up_to, 400, "what is wrong with one shows before the first is put back");
}

/// Guards against files that fit together and are not those that were archived: `restore` took them
/// for the events that had gone.
#[tokio::test(flavor = "multi_thread")]
async fn files_that_are_not_those_that_were_archived_are_not_put_back() {
    let server = Postgres::start().await;
    let url = small_partitions(&server).await;
    let (store, _) = log(&url).await;
    let (old, new) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    archive(&store, old.path(), &mounted(1)).await;
    let old = Directory::new(old.path());
    store.restore(&old, Position::ZERO).await.unwrap();
    // As if the log had gone on from 150 in another way.
    let sql = "update ms_framework.events set event_id = gen_random_uuid() where position > 150";
    server.sql(name_of(&url), sql).await;
    let log = conformance::whole_log(&store, 100).await;
    archive(&store, new.path(), &mounted(1)).await;

    let error = store.restore(&old, Position::ZERO).await.unwrap_err();
    let ArchiveError::OtherFile { file, found, noted } = &error else { panic!("{error}") };
    assert!(file.contains(&*old.place()) && found != noted, "{error}");
    assert_eq!(store.archived_up_to().await.unwrap().get(), 400, "nothing was written");
    eventually(DEADLINE, async || {
        match store.restore(&Directory::new(new.path()), Position::ZERO).await {
            Err(error @ ArchiveError::Busy { .. }) => Err(error),
            result => Ok(result.unwrap()),
        }
    })
    .await;
    assert_eq!(conformance::whole_log(&store, 100).await, log);
}

/// Guards against files that were written before a backup was put back: the log has other events at
/// their places since, which are in no file.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_a_log_that_was_put_back_is_not_taken_for_its_events() {
    let server = Postgres::start().await;
    let url = small_partitions(&server).await;
    let (store, log) = log(&url).await;
    let directory = TempDir::new().unwrap();
    archive(&store, directory.path(), &mounted(1)).await;
    store.restore(&Directory::new(directory.path()), Position::ZERO).await.unwrap();
    // As if the log had gone on from 150 in another way.
    let sql = "update ms_framework.events set event_id = gen_random_uuid() where position > 150";
    server.sql(name_of(&url), sql).await;
    let other = conformance::whole_log(&store, 100).await;
    assert_ne!(other, log);
    archive(&store, directory.path(), &mounted(1)).await;
    reads_all(store, directory.path(), &other).await;
}

/// A node with the archive's directory: an aggregate without a snapshot, a rebuild, a new consumer,
/// a new relay, a subscription and a stream's end all cross from files into the database.
#[tokio::test(flavor = "multi_thread")]
async fn every_reader_crosses_an_archived_range() {
    let server = Postgres::start().await;
    let url = small_partitions(&server).await;
    let build = |url: &str| SystemCore::embedded().store(url).aggregate::<Counter>();
    let core = build(&url).start().await.unwrap();
    let mut last = None;
    for n in 0..350 {
        last = last.max(count(&core, &format!("{}", n % 3), n).await.position);
    }
    let last = last.unwrap();
    tokio::time::timeout(DEADLINE, core.wait_for(last)).await.unwrap().unwrap();
    let directory = TempDir::new().unwrap();
    let store = open(&url).await;
    // Its places are kept now and then.
    eventually(DEADLINE, async || {
        let report = archive(&store, directory.path(), &mounted(0)).await;
        if report.up_to.get() == 300 { Ok(()) } else { Err(report) }
    })
    .await;
    assert!(core.stop(Duration::from_secs(20)).await);
    let left = "delete from ms_framework.snapshots";
    server.sql(name_of(&url), left).await;

    // Without the files nobody goes on as if nothing were missing.
    let blind = build(&url).start().await.unwrap();
    let error = blind.commands().look("1", |_: &Counter, _| ()).await.unwrap_err();
    assert!(error.to_string().contains("archived"), "{error}");
    let streams = blind.projection("streams").unwrap();
    streams.rebuild().await.unwrap();
    eventually(DEADLINE, async || {
        let tree = blind.tree().to_string();
        let says = |line: &str| line.contains("streams") && line.contains("archived");
        if tree.lines().any(says) { Ok(()) } else { Err(tree) }
    })
    .await;
    // What is read goes on.
    let done = store.append_batch([numbered("other-1", 9_999)].into()).await.unwrap();
    let position = done[0].as_ref().unwrap().last_position;
    tokio::time::timeout(DEADLINE, streams.wait_for(position)).await.unwrap().unwrap();
    assert!(streams.get::<StreamSummary>("other-1").await.unwrap().is_some());
    assert!(blind.stop(Duration::from_secs(20)).await);

    let queue = connect("memory:", QueueOptions::new("shop")).await.unwrap();
    let core = build(&format!("{url}&archive_dir={}", directory.path().display()))
        .outbox("shop", queue.sender(), EventFilter::ALL)
        .start()
        .await
        .unwrap();
    assert_eq!(value(&core, "1").await, 117);
    count(&core, "1", 1_000).await;
    assert_eq!(value(&core, "1").await, 118);
    let head = core.pool().lease().await.unwrap().store.head().await.unwrap();

    let seen = Arc::new(Mutex::new(BTreeSet::new()));
    let noted = Arc::clone(&seen);
    let consumer = Consumer::new("mailer", move |delivery: Delivery| {
        let noted = Arc::clone(&noted);
        async move {
            noted.lock().unwrap().insert(delivery.recorded().unwrap().position.get());
            Outcome::Ack
        }
    });
    let consumer = consumer.filter(EventFilter::ALL.categories(["counter"]));
    let consumer = core.consumers().start(consumer).await.unwrap();
    tokio::time::timeout(DEADLINE, consumer.wait_for(head)).await.unwrap();
    assert_eq!(seen.lock().unwrap().len() as u64, 351);

    let streams = core.projection("streams").unwrap();
    streams.rebuild().await.unwrap();
    eventually(DEADLINE, async || {
        let status = streams.status().await.unwrap();
        match status.progress.iter().all(|part| part.active && part.position >= head) {
            true => Ok(()),
            false => Err(format!("{status:?}")),
        }
    })
    .await;
    let summary: StreamSummary = streams.get("counter-2").await.unwrap().unwrap();
    assert_eq!(summary.events, 116);

    let sent = relayed(&*queue.receiver("readers").unwrap(), 352).await;
    assert_eq!(sent, 352);

    let lease = core.pool().lease().await.unwrap();
    let mut follows = Subscription::new(Arc::clone(&lease.store), Position::ZERO, 70)
        .filter(EventFilter::ALL.types(["counter.counted"]));
    let mut count = 0;
    while let Some(page) = follows.ready().await.unwrap() {
        count += page.len();
    }
    assert_eq!(count, 351);
    let stream = StreamId::new("counter-0").unwrap();
    let (mut before, mut back) = (Version::new(u64::MAX), 0);
    loop {
        let page = lease.store.read_stream_backward(&stream, before, 50).await.unwrap();
        let Some(first) = page.last() else { break };
        before = first.version;
        back += page.len();
    }
    assert_eq!(back, 117);
    assert!(core.stop(Duration::from_secs(20)).await);
}

/// Takes messages until there are so many, and acknowledges them.
async fn relayed(queue: &dyn Receiver, count: usize) -> usize {
    let mut sent = 0;
    tokio::time::timeout(DEADLINE, async {
        while sent < count {
            for delivery in queue.receive(100, Duration::from_secs(1)).await.unwrap() {
                queue.ack(&delivery.receipt).await.unwrap();
                sent += 1;
            }
        }
    })
    .await
    .unwrap();
    sent
}

/// Two nodes archive by policy: the tree says how far, one works at a time, and what is taken out
/// is read by both.
#[tokio::test(flavor = "multi_thread")]
async fn nodes_archive_by_a_policy() {
    let server = Postgres::start().await;
    let url = small_partitions(&server).await;
    let directory = TempDir::new().unwrap();
    let policy = ArchivePolicy::default().every(Duration::from_millis(50)).keep(1);
    let start = async |name: &str| {
        let core = SystemCore::embedded().name(name).store(&url).aggregate::<Counter>();
        core.archive_into(directory.path(), policy.clone()).start().await.unwrap()
    };
    let cores = [start("one").await, start("two").await];
    static KEY: AtomicU64 = AtomicU64::new(0);
    for _ in 0..450 {
        let key = KEY.fetch_add(1, Ordering::Relaxed);
        count(&cores[0], &format!("{}", key % 5), key).await;
    }
    for core in &cores {
        eventually(DEADLINE, async || {
            let tree = core.tree().to_string();
            let archived = tree.lines().find(|line| line.contains("store.archive"));
            let archived = archived.unwrap_or_default().to_owned();
            if archived.contains("archived up to 300") { Ok(()) } else { Err(archived) }
        })
        .await;
    }
    let total = async |core: &SystemCore| {
        let mut total = 0;
        for id in 0..5 {
            total += value(core, &id.to_string()).await;
        }
        total
    };
    assert_eq!((total(&cores[0]).await, total(&cores[1]).await), (450, 450));
    for core in &cores {
        assert!(core.stop(Duration::from_secs(20)).await);
    }
}
