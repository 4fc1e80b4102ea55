//! Partitions of the log: made in time, made late, and left out by reads.

use mister_smith::actors::event::{Position, StreamId, Version};
use mister_smith::actors::store::postgres::PgStore;
use mister_smith::actors::store::{Append, EventStore, ExpectedVersion, conformance};
use mister_smith_testkit::Postgres;
use sqlx::Connection as _;

use crate::server::{DEADLINE, database, name_of, open};

/// A database whose partitions hold this many events.
async fn partitioned(server: &Postgres, size: u64) -> String {
    let url = database(server).await;
    // As a fresh migration makes them, only smaller.
    let sql = format!(
        "set search_path to ms_framework;
         drop table {};
         update store_head set partition_size = {size};
         select make_partition(1), make_partition(1 + {size});",
        names(server, &url).await.join(", ")
    );
    server.sql(name_of(&url), &sql).await;
    url
}

async fn names(server: &Postgres, url: &str) -> Vec<String> {
    let sql = "select inhrelid::regclass from pg_inherits \
               where inhparent = 'ms_framework.events'::regclass order by 1::text";
    server.sql(name_of(url), sql).await.lines().map(str::to_owned).collect()
}

fn append(stream: &str, seed: u64, count: u64) -> Vec<Append> {
    vec![conformance::append(stream, ExpectedVersion::Any, seed, count)]
}

async fn is_whole(store: &PgStore, length: usize) {
    let log = conformance::whole_log(store, 7).await;
    assert_eq!(log.len(), length);
}

/// One at a time, by batches over a boundary, by one batch that is longer than several partitions,
/// and by the way under the lock: a partition that nobody made in time is made then.
#[tokio::test(flavor = "multi_thread")]
async fn a_partition_that_is_missing_is_made() {
    let server = Postgres::start().await;
    let url = partitioned(&server, 10).await;
    let store = open(&url).await;
    for seed in 0..25 {
        store.append_batch(append("s", seed, 1).into()).await.unwrap();
    }
    is_whole(&store, 25).await;
    store.append_batch(append("s", 25, 8).into()).await.unwrap();
    is_whole(&store, 33).await;
    let mut batch = append("s", 33, 96);
    batch.extend(append("t", 200, 1));
    store.append_batch(batch.into()).await.unwrap();
    is_whole(&store, 130).await;
    // 130 is the end of a partition, and the refused one makes it look under the lock.
    let mut batch = append("t", 300, 1);
    batch.push(conformance::append("t", ExpectedVersion::NoStream, 400, 1));
    let outcomes = store.append_batch(batch.into()).await.unwrap();
    assert_eq!(outcomes[0].as_ref().unwrap().last_position, Position::new(131));
    outcomes[1].as_ref().unwrap_err();
    is_whole(&store, 131).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_are_made_ahead_by_any_number_of_nodes() {
    let server = Postgres::start().await;
    let url = partitioned(&server, 10).await;
    let (one, two) = (open(&url).await, open(&url).await);
    for round in 0..6 {
        one.append_batch(append("s", round * 7, 7).into()).await.unwrap();
        // Counted from the place up to which rows are right, which follows by itself.
        one.settle().await.unwrap();
        let (a, b) = tokio::join!(one.make_partitions_ahead(), two.make_partitions_ahead());
        a.and(b).unwrap();
        let head = 7 * (round + 1);
        let made = names(&server, &url).await.len() as u64;
        assert_eq!(made, head.div_ceil(10).max(1) + 2 - u64::from(head % 10 == 0), "at {head}");
    }
    is_whole(&two, 42).await;
}

/// Guards against partitions that are made in their place: that waits for everybody who reads, and
/// everybody who appends then waits behind it.
#[tokio::test(flavor = "multi_thread")]
async fn a_new_partition_waits_for_no_reader() {
    let server = Postgres::start().await;
    let url = partitioned(&server, 10).await;
    let store = open(&url).await;
    store.append_batch(append("s", 0, 5).into()).await.unwrap();
    let mut reader = sqlx::PgConnection::connect(&url).await.unwrap();
    let mut reading = reader.begin().await.unwrap();
    sqlx::query("select count(*) from ms_framework.events").execute(&mut *reading).await.unwrap();
    let made = async {
        store.make_partitions_ahead().await.unwrap();
        store.append_batch(append("s", 5, 50).into()).await.unwrap();
    };
    tokio::time::timeout(DEADLINE, made).await.unwrap();
    reading.rollback().await.unwrap();
    is_whole(&store, 55).await;
}

// --- what reads leave out --------------------------------------------------------------------------

/// The partitions that the last statement with this text in it has read, from the plan that the
/// server logged.
fn read_partitions(server: &Postgres, text: &str) -> Vec<u64> {
    let log = server.log();
    let at = log.rfind(&format!("Query Text: {text}")).expect("the statement is in the log");
    let plan = log[at..].lines().skip(1).take_while(|line| line.starts_with('\t'));
    let mut found: Vec<u64> = plan
        .filter(|line| line.contains("_p00") && !line.contains("never executed"))
        .filter_map(|line| line.split("_p").nth(1)?.get(..16)?.parse().ok())
        .collect();
    found.sort_unstable();
    found.dedup();
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_leave_out_partitions_that_cannot_hold_what_they_want() {
    let server = Postgres::start().await;
    let url = partitioned(&server, 10).await;
    let name = name_of(&url);
    for setting in [
        "session_preload_libraries = 'auto_explain'",
        "auto_explain.log_min_duration = 0",
        "auto_explain.log_analyze = on",
    ] {
        server.sql("postgres", &format!("alter database {name} set {setting}")).await;
    }
    let store = open(&url).await;
    for (stream, count) in [("old", 5), ("long", 3), ("filler", 82), ("long", 4), ("new", 26)] {
        store.append_batch(append(stream, 0, count).into()).await.unwrap();
    }
    // What lies behind the rows of streams is looked at for each; they follow by themselves.
    store.settle().await.unwrap();
    let (start, end) = (Version::ZERO, Version::new(u64::MAX));
    let stream = |name| StreamId::new(name).unwrap();

    // More often than the server plans anew for each value.
    for _ in 0..8 {
        let of_stream = "select e.position";
        assert_eq!(store.read_stream(&stream("old"), start, 100).await.unwrap().len(), 5);
        assert_eq!(read_partitions(&server, of_stream), [1]);
        assert_eq!(store.read_stream(&stream("new"), start, 100).await.unwrap().len(), 26);
        assert_eq!(read_partitions(&server, of_stream), [91, 101, 111]);
        assert_eq!(store.read_stream_backward(&stream("new"), end, 100).await.unwrap().len(), 26);
        assert_eq!(read_partitions(&server, of_stream), [91, 101, 111]);

        assert_eq!(store.read_all(Position::new(97), 5).await.unwrap().len(), 5);
        assert_eq!(read_partitions(&server, "select e.position"), [91, 101]);
    }
}
