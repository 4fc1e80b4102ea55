//! Partitions: made when they are needed, left out when they are not, archived and replayed.

use std::sync::Arc;

use mister_smith::actors::event::{Position, StreamId, Version};
use mister_smith::actors::store::archive::{ArchiveRules, ArchivedStore, manifests};
use mister_smith::actors::store::replay::{Replay, ReplayFrom};
use mister_smith::actors::store::{EventFilter, EventStore, StoreError, conformance};
use mister_smith::archive::Directory;
use mister_smith_testkit::Postgres;
use tempfile::TempDir;

use crate::server::{database, name_of, numbered, open};

/// A database whose partitions hold a hundred events.
pub(crate) async fn small_partitions(server: &Postgres) -> String {
    let url = database(server).await;
    let text = "do $$ declare t record; begin \
                for t in select tablename from pg_tables where tablename like 'events\\_p%' loop \
                execute format('drop table ms_framework.%I', t.tablename); end loop; end $$; \
                update ms_framework.store_head set partition_size = 100; \
                select ms_framework.make_partition(1)";
    server.sql(name_of(&url), text).await;
    url
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_partition_is_made_by_whoever_needs_it() {
    let server = Postgres::start().await;
    let url = small_partitions(&server).await;
    let stores = [open(&url).await, open(&url).await];
    for batch in 0..20 {
        let appends = (0..37).map(|n| numbered(&format!("s-{}", n % 3), batch * 37 + n + 1));
        let outcomes = stores[(batch % 2) as usize].append_batch(appends.collect()).await.unwrap();
        assert!(outcomes.iter().all(Result::is_ok));
    }
    assert_eq!(conformance::whole_log(&stores[0], 33).await.len(), 740);
    let partitions = stores[0].partitions().await.unwrap();
    let ranges: Vec<_> = partitions.iter().map(|one| (one.from.get(), one.to.get())).collect();
    assert_eq!(ranges[..3], [(1, 100), (101, 200), (201, 300)]);
    stores[0].settle().await.unwrap();
    stores[0].make_partitions_ahead().await.unwrap();
    let ahead = stores[0].partitions().await.unwrap();
    assert!(ahead.last().unwrap().from.get() > 900, "two are ahead of 740: {ahead:?}");
}

/// EXPLAIN of the two reads: partitions that cannot hold what is asked for are not touched.
#[tokio::test(flavor = "multi_thread")]
async fn reads_leave_out_the_partitions_that_they_do_not_need() {
    let server = Postgres::start().await;
    let url = small_partitions(&server).await;
    let store = open(&url).await;
    for n in 1..=10_u128 {
        let early = (0..100).map(|i| numbered(&format!("s-{n}"), n * 1_000 + i));
        store.append_batch(early.collect()).await.unwrap();
    }
    let touched = async |sql: &str| {
        let text = format!(
            "set search_path to ms_framework; \
             explain (analyze, costs off, timing off, summary off) {sql}"
        );
        let plan = server.sql(name_of(&url), &text).await;
        let used = |line: &&str| line.contains("events_p") && !line.contains("never executed");
        let names = plan.lines().filter(used).filter_map(|line| line.split("events_p").nth(1));
        let mut names: Vec<u64> = names.map(|name| name[..16].parse().unwrap()).collect();
        names.sort_unstable();
        names.dedup();
        names
    };
    // The texts of `read_all` and `read_stream`, with values for their parameters.
    let by_position = "select e.position from events e \
         where e.position > 250 and e.position <= 350 order by e.position";
    assert_eq!(touched(by_position).await, [201, 301]);
    let by_stream = "select e.position, e.data from store_head h cross join streams s \
         left join lateral ( \
         select * from events where stream_id = s.id \
         and (position between s.first_position and s.last_position \
              or position >= h.position + 1) and version > 0 order by version limit 500) e on true \
         where h.id = 1 and s.name = 's-4' and s.status = 0 order by e.version";
    // What lies behind the rows is looked at, too; there is nothing once they are right.
    store.settle().await.unwrap();
    assert_eq!(touched(by_stream).await, [301]);
    let stream = StreamId::new("s-4").unwrap();
    assert_eq!(store.read_stream(&stream, Version::ZERO, 500).await.unwrap().len(), 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_archived_is_replayed_from_its_files() {
    let server = Postgres::start().await;
    let url = small_partitions(&server).await;
    let store = Arc::new(open(&url).await);
    for batch in 0..11_u128 {
        let appends = (0..50).map(|n| numbered(&format!("s-{}", n % 7), batch * 50 + n + 1));
        store.append_batch(appends.collect()).await.unwrap();
    }
    let before = conformance::whole_log(&*store, 100).await;
    assert_eq!(before.len(), 550);
    let directory = TempDir::new().unwrap();
    let cold = Directory::shared(directory.path());
    let rules = ArchiveRules::default().keep(2).mounted(true);
    let written = store.archive(&*cold, &rules).await.unwrap().archived;
    let ranges: Vec<_> = written.iter().map(|one| (one.from.get(), one.to.get())).collect();
    assert_eq!(ranges, [(1, 100), (101, 200), (201, 300)], "five are full, two stay");
    assert_eq!(store.archived_up_to().await.unwrap(), Position::new(300));
    assert_eq!(manifests(&*cold).await.unwrap(), written);
    let again = store.archive(&*cold, &rules).await.unwrap();
    assert_eq!((again.archived, again.up_to.get()), (vec![], 300), "nothing more to do");

    // The database says where the rest is, and reads what it has.
    let error = store.read_all(Position::new(100), 10).await.unwrap_err();
    assert!(matches!(error, StoreError::Archived { up_to, .. } if up_to.get() == 300), "{error}");
    assert_eq!(store.read_all(Position::new(300), 500).await.unwrap(), before[300..]);
    assert_eq!(store.read_all(Position::new(550), 500).await.unwrap(), []);

    let whole = Arc::new(ArchivedStore::open(store.clone(), cold.clone()).await.unwrap());
    assert_eq!(conformance::whole_log(&*whole, 64).await, before);
    let from = ReplayFrom::Position(Position::new(250));
    let mut replay = Replay::begin(whole, from).await.unwrap().page(30);
    let mut replayed = Vec::new();
    while let Some(events) = replay.next().await.unwrap() {
        replayed.extend(events);
    }
    assert_eq!(replayed, before[250..]);

    // Every other reader too says that something is missing, and passes over nothing.
    let filter = EventFilter::ALL.categories(["s"]);
    let stream = StreamId::new("s-3").unwrap();
    let version = store.stream_version(&stream).await.unwrap();
    let left = store.read_stream_backward(&stream, version.next(), 20).await.unwrap();
    let archived = |error: StoreError| match error {
        StoreError::Archived { up_to, .. } => up_to.get(),
        other => panic!("{other}"),
    };
    for error in [
        store.read_matching(&filter, Position::ZERO, 10).await.map(drop),
        store.read_matching(&EventFilter::ALL, Position::new(299), 10).await.map(drop),
        store.read_stream(&stream, Version::ZERO, 500).await.map(drop),
        store.read_stream_backward(&stream, Version::new(20), 500).await.map(drop),
    ] {
        assert_eq!(archived(error.unwrap_err()), 300);
    }
    let after = left.last().unwrap().version.minus(1);
    assert_eq!(store.read_stream(&stream, after, 500).await.unwrap().len(), left.len());
    let page = store.read_matching(&filter, Position::new(300), 500).await.unwrap();
    assert_eq!(page.events, before[300..]);

    // Appends go on, and a file that was changed is refused.
    store.append_batch([numbered("s-1", 10_000)].into()).await.unwrap();
    let file = directory.path().join(&written[1].file);
    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    let whole = ArchivedStore::open(store.clone(), cold.clone()).await.unwrap();
    let error = whole.read_all(Position::new(150), 10).await.unwrap_err();
    assert!(error.to_string().contains("the SHA-256 of the block"), "{error}");
}
