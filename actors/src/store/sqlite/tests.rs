use std::{
    path::PathBuf,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use futures_util::poll;
use proptest::prelude::*;
use sqlx::{ConnectOptions, Connection, sqlite::SqliteConnectOptions};
use tempfile::TempDir;

use super::*;
use crate::{
    error::ErrorClass,
    store::{ExpectedVersion, IdempotencyKey, conformance, memory::MemoryStore},
};

const SCHEMA: [&str; 9] = [
    include_str!("../../../../migrations/sqlite/0001_event_store.up.sql"),
    include_str!("../../../../migrations/sqlite/0002_stream_summaries.up.sql"),
    include_str!("../../../../migrations/sqlite/0003_streams_and_snapshots.up.sql"),
    include_str!("../../../../migrations/sqlite/0004_projections.up.sql"),
    include_str!("../../../../migrations/sqlite/0006_messages.up.sql"),
    include_str!("../../../../migrations/sqlite/0007_followers.up.sql"),
    include_str!("../../../../migrations/sqlite/0008_request_keys.up.sql"),
    include_str!("../../../../migrations/sqlite/0011_notes.up.sql"),
    include_str!("../../../../migrations/sqlite/0012_timers.up.sql"),
];

const READ_MODELS: [&str; 2] = [
    include_str!("../../../../migrations/sqlite_read/0001_documents.up.sql"),
    include_str!("../../../../migrations/sqlite_read/0002_projection_claims.up.sql"),
];

/// A directory with migrated databases in it.
pub(crate) struct Home {
    directory: TempDir,
    made: AtomicUsize,
}

impl Home {
    pub(crate) fn new() -> Self {
        // MISTER_SMITH_TEST_DIR puts the databases elsewhere, on a RAM disk for example.
        let directory = match std::env::var_os("MISTER_SMITH_TEST_DIR") {
            Some(parent) => TempDir::new_in(parent),
            None => TempDir::new(),
        };
        Self { directory: directory.unwrap(), made: AtomicUsize::new(0) }
    }

    pub(crate) async fn file(&self) -> PathBuf {
        let name = format!("{}.db", self.made.fetch_add(1, Ordering::Relaxed));
        let path = self.directory.path().join(name);
        for (file, schema) in [(path.clone(), &SCHEMA[..]), (read_models_of(&path), &READ_MODELS)] {
            let options = SqliteConnectOptions::new().filename(&file).create_if_missing(true);
            let options = options.journal_mode(sqlx::sqlite::SqliteJournalMode::Wal);
            let mut connection = options.connect().await.unwrap();
            for text in schema {
                sqlx::raw_sql(*text).execute(&mut connection).await.unwrap();
            }
            connection.close().await.unwrap();
        }
        path
    }

    pub(crate) async fn store(&self) -> SqliteStore {
        SqliteStore::open(self.file().await, SqliteOptions::default()).await.unwrap()
    }

    /// The file of read models beside a log of its own.
    pub(crate) async fn read_models(&self) -> Arc<Database> {
        let log = self.file().await;
        Arc::new(Database::read_models(log, SqliteOptions::default()).unwrap())
    }
}

fn append(stream: &str, seed: u64, count: u64) -> Append {
    conformance::append(stream, ExpectedVersion::Any, seed, count)
}

#[tokio::test]
async fn the_sqlite_store_keeps_every_law() {
    let home = Home::new();
    Box::pin(conformance::run(async || home.store().await)).await;
    conformance::snapshots::run(async || home.store().await).await;
}

#[tokio::test]
async fn claims_in_sqlite_keep_every_law() {
    use crate::store::claims::{conformance, sqlite::SqliteClaims};
    let home = Home::new();
    conformance::run(false, async || {
        SqliteClaims::new(std::sync::Arc::clone(home.store().await.database()))
    })
    .await;
}

#[tokio::test]
async fn timers_in_sqlite_keep_every_law() {
    use crate::store::{claims::sqlite::SqliteClaims, timers::conformance};
    let home = Home::new();
    conformance::run(async || {
        let store = home.store().await;
        let claims = SqliteClaims::new(std::sync::Arc::clone(store.database()));
        (store, std::sync::Arc::new(claims))
    })
    .await;
}

#[tokio::test]
async fn documents_in_sqlite_keep_every_law() {
    use crate::store::read_model::documents::{conformance, sqlite::SqliteDocuments};
    let home = Home::new();
    conformance::run(async || SqliteDocuments::new(home.read_models().await)).await;
}

#[tokio::test]
async fn a_reopened_store_goes_on_where_it_ended() {
    let home = Home::new();
    let path = home.file().await;
    let store = SqliteStore::open(&path, SqliteOptions::default()).await.unwrap();
    let id = store.store_id();
    store.append_batch([append("s", 0, 3)].into()).await.unwrap();
    store.close().await;
    assert!(matches!(store.head().await, Err(StoreError::Closed { .. })));
    assert!(matches!(
        store.append_batch([append("s", 3, 1)].into()).await,
        Err(StoreError::Closed { .. })
    ));

    let address = format!("sqlite://{}", path.display());
    let store = SqliteStore::open(address, SqliteOptions::default()).await.unwrap();
    assert_eq!(store.store_id(), id);
    let outcomes = store.append_batch([append("s", 3, 1)].into()).await.unwrap();
    assert_eq!(outcomes[0].as_ref().unwrap().last_version, Version::new(4));
    assert_eq!(conformance::whole_log(&store, 2).await.len(), 4);
}

#[tokio::test]
async fn what_cannot_be_opened_says_where_and_what_to_do() {
    let home = Home::new();
    let missing = home.directory.path().join("no/such.db");
    let error = SqliteStore::open(&missing, SqliteOptions::default()).await.unwrap_err();
    assert!(error.to_string().contains("no/such.db"), "{error}");
    assert!(error.to_string().contains("smith migrate up"), "{error}");
    assert_eq!(error.class(), ErrorClass::System);

    let other = home.directory.path().join("notes.txt");
    std::fs::write(&other, "dear diary, ".repeat(1000)).unwrap();
    let error = SqliteStore::open(&other, SqliteOptions::default()).await.unwrap_err();
    assert!(error.to_string().contains("notes.txt is not a database"), "{error}");
    assert_eq!(error.class(), ErrorClass::Permanent);

    let empty = home.directory.path().join("empty.db");
    std::fs::write(&empty, "").unwrap();
    let error = SqliteStore::open(&empty, SqliteOptions::default()).await.unwrap_err();
    assert!(error.to_string().contains("smith migrate up"), "{error}");
    assert_eq!(error.class(), ErrorClass::System);
}

/// Guards against a writer that stays inside a transaction after a fault: the next batch would
/// then be lost with it, or refused.
#[tokio::test]
async fn a_full_disk_loses_the_batch_and_nothing_else() {
    let home = Home::new();
    let store = home.store().await;
    store.append_batch([append("s", 0, 1)].into()).await.unwrap();
    let limit = |writer: &mut writer::Writer| {
        writer.limit_pages(40);
        Ok(())
    };
    store.database.on_writer(limit).await.unwrap();
    let mut large = append("s", 10, 100);
    for event in &mut large.events {
        event.data = vec![7; 10_000].into();
    }
    let error = store.append_batch([append("t", 5, 1), large].into()).await.unwrap_err();
    assert!(matches!(error, StoreError::Full { .. }), "{error}");
    assert!(error.to_string().contains("free some space"), "{error}");
    assert_eq!(error.class(), ErrorClass::System);

    assert_eq!(conformance::whole_log(&store, 10).await.len(), 1);
    let outcomes = store.append_batch([append("t", 5, 1)].into()).await.unwrap();
    assert_eq!(outcomes[0].as_ref().unwrap().last_position, Position::new(2));
}

#[tokio::test]
async fn a_lock_held_elsewhere_is_named_and_gone_when_released() {
    let home = Home::new();
    let path = home.file().await;
    let options = SqliteOptions::default().busy_timeout(Duration::from_millis(20));
    let store = SqliteStore::open(&path, options).await.unwrap();
    let mut other = SqliteConnectOptions::new().filename(&path).connect().await.unwrap();
    let lock = other.begin_with("begin immediate").await.unwrap();
    let error = store.append_batch([append("s", 0, 1)].into()).await.unwrap_err();
    assert!(matches!(error, StoreError::Busy { .. }), "{error}");
    assert_eq!(error.class(), ErrorClass::Transient);
    lock.rollback().await.unwrap();
    store.append_batch([append("s", 0, 1)].into()).await.unwrap()[0].as_ref().unwrap();
}

/// Another process may append too (an operator's command beside the node).
#[tokio::test]
async fn two_stores_on_one_file_agree() {
    let home = Home::new();
    let path = home.file().await;
    let one = SqliteStore::open(&path, SqliteOptions::default()).await.unwrap();
    let two = SqliteStore::open(&path, SqliteOptions::default()).await.unwrap();
    for n in 0..10 {
        let mut odd = append("s", n * 10, 1);
        odd.events[0].event_type = format!("type-{n}").into();
        let store = if n % 2 == 0 { &one } else { &two };
        store.append_batch([odd, append(&format!("own-{n}"), n * 10 + 1, 1)].into()).await.unwrap();
    }
    let log = conformance::whole_log(&one, 7).await;
    assert_eq!(log, conformance::whole_log(&two, 100).await);
    assert_eq!(log.len(), 20);
}

/// Guards against a dropped call that leaves half a batch, or an open transaction, behind: it is
/// dropped after each number of polls in turn.
#[tokio::test]
async fn a_dropped_append_is_all_or_nothing() {
    let home = Home::new();
    let store = home.store().await;
    let mut done = 0;
    for polls in 0..60_u64 {
        let key = IdempotencyKey::of([polls.to_le_bytes()]);
        let batch = vec![
            Append { key: Some(key), ..append("a", polls * 1000, 130) },
            append("b", polls * 1000 + 500, 1),
        ];
        {
            let mut call = std::pin::pin!(store.append_batch(batch.into()));
            for _ in 0..polls {
                if poll!(call.as_mut()).is_ready() {
                    break;
                }
                // Gives the connection's thread a moment, so that the drop meets every stage.
                tokio::time::sleep(Duration::from_micros(100)).await;
            }
        }
        // Waits for the thrown away connection: this write needs the lock.
        let probe = Append { key: Some(key), ..append("a", polls * 1000, 130) };
        let outcome = store.append_batch([probe].into()).await.unwrap().remove(0).unwrap();
        done += 130 + u64::from(outcome.duplicate);
        assert_eq!(store.head().await.unwrap(), Position::new(done), "after {polls} polls");
    }
    conformance::whole_log(&store, 1000).await;
}

#[tokio::test]
async fn a_checkpoint_copies_the_write_ahead_log() {
    let home = Home::new();
    let store = home.store().await;
    store.append_batch([append("s", 0, 500)].into()).await.unwrap();
    let checkpoint = store.checkpoint_passive().await.unwrap();
    assert!(checkpoint.wal_pages > 0, "{checkpoint:?}");
    assert_eq!(checkpoint.wal_pages, checkpoint.copied_pages);
}

/// A random batch: few streams, few keys, all modes, so that conflicts and repeats are common.
fn batches() -> impl Strategy<Value = Vec<Vec<Append>>> {
    let expected = prop_oneof![
        4 => Just(ExpectedVersion::Any),
        1 => Just(ExpectedVersion::NoStream),
        1 => Just(ExpectedVersion::StreamExists),
        4 => (0..6_u64).prop_map(|version| ExpectedVersion::Exact(Version::new(version))),
    ];
    // One event alone takes a path of its own in SQLite.
    let count = prop_oneof![Just(1), 0..24_u64];
    let key = prop::option::of(0..12_u8);
    let one = (0..4_u8, expected, 0..1000_u64, count, key, prop::bool::weighted(0.2), 0..40_u8)
        .prop_map(|(stream, expected, seed, count, key, linked, end)| {
            let name = format!("s-{stream}");
            let append = match end {
                0 => conformance::tombstone(&name, expected, seed),
                _ => conformance::append(&name, expected, seed, count),
            };
            Append { key: key.map(|key| IdempotencyKey::of([[key]])), linked, ..append }
        });
    let batch =
        prop_oneof![prop::collection::vec(one.clone(), 1), prop::collection::vec(one, 0..24),];
    prop::collection::vec(batch, 1..10)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// The two stores give the same answers and the same log for the same history.
    #[test]
    fn memory_and_sqlite_cannot_be_told_apart(history in batches()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let home = Home::new();
            let (memory, sqlite) = (MemoryStore::new(), home.store().await);
            for batch in history {
                let expected = memory.append_batch(batch.clone().into()).await.unwrap();
                assert_eq!(sqlite.append_batch(batch.into()).await.unwrap(), expected);
            }
            assert_eq!(
                conformance::whole_log(&sqlite, 13).await,
                conformance::whole_log(&memory, MAX).await
            );
            for n in 0..4 {
                let stream = StreamId::new(format!("s-{n}")).unwrap();
                assert_eq!(
                    conformance::whole_stream(&sqlite, &stream, 5).await,
                    conformance::whole_stream(&memory, &stream, MAX).await
                );
                let end = Version::new(u64::MAX);
                assert_eq!(
                    sqlite.read_stream_backward(&stream, end, MAX).await.unwrap(),
                    memory.read_stream_backward(&stream, end, MAX).await.unwrap(),
                );
            }
            for key in 0..12_u8 {
                let key = IdempotencyKey::of([[key]]);
                assert_eq!(
                    sqlite.answer(key).await.unwrap(),
                    memory.answer(key).await.unwrap()
                );
            }
            assert_eq!(sqlite.event_types().await.unwrap(), memory.event_types().await.unwrap());
            for second in 0..4 {
                let time = Timestamp::from_micros(1_700_000_000_000_000 + second * 300_000_000);
                assert_eq!(
                    sqlite.position_at(time).await.unwrap(),
                    memory.position_at(time).await.unwrap()
                );
            }
        });
    }
}

const MAX: usize = crate::store::MAX_PAGE;

mod keys;
mod measure;
mod readers;
mod wal;
