use std::path::Path;
use std::sync::atomic::AtomicBool;

use super::*;

fn wal_bytes(database: &Path) -> u64 {
    let mut name = database.as_os_str().to_owned();
    name.push("-wal");
    std::fs::metadata(name).map_or(0, |file| file.len())
}

/// A hundred mebibytes of events, in batches of one; the largest that the log's file was.
async fn fill(store: &SqliteStore, path: &Path) -> u64 {
    let mut largest = 0;
    for n in 0..200 {
        let mut batch = append(&format!("s-{}", n % 10), n * 1_000, 250);
        batch.events.iter_mut().for_each(|event| event.data = vec![7; 2_000].into());
        store.append_batch([batch].into()).await.unwrap();
        largest = largest.max(wal_bytes(path));
    }
    largest
}

/// The copying of the log was interrupted by its own next turn, and the file grew without end.
#[tokio::test]
async fn the_write_ahead_log_stays_short_while_there_are_commits() {
    let home = Home::new();
    let path = home.file().await;
    let store = SqliteStore::open(&path, SqliteOptions::default()).await.unwrap();
    let largest = fill(&store, &path).await;
    assert!(largest < 48 << 20, "{} MiB", largest >> 20);
}

/// A commit begins the log anew only if it meets no reader in it, and with readers that overlap it
/// always does.
#[tokio::test]
async fn the_write_ahead_log_is_bounded_also_under_readers_that_overlap() {
    let home = Home::new();
    let path = home.file().await;
    let store = SqliteStore::open(&path, SqliteOptions::default()).await.unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let overlapping = {
        let (stop, path) = (Arc::clone(&stop), path.clone());
        std::thread::spawn(move || {
            let open = || rusqlite::Connection::open(&path).unwrap();
            let readers = [open(), open()];
            let begin = |reader: &rusqlite::Connection| {
                reader.execute_batch("begin; select position from store_head").unwrap();
            };
            begin(&readers[0]);
            let mut turn = 0;
            while !stop.load(Ordering::Relaxed) {
                begin(&readers[(turn + 1) % 2]);
                readers[turn % 2].execute_batch("commit").unwrap();
                turn += 1;
                std::thread::yield_now();
            }
            turn
        })
    };
    let largest = fill(&store, &path).await;
    let largest = largest.max(fill(&store, &path).await);
    stop.store(true, Ordering::Relaxed);
    assert!(overlapping.join().unwrap() > 100);
    // Restarted above 64 MiB.
    assert!(largest < 100 << 20, "{} MiB", largest >> 20);
    store.append_batch([append("s", 0, 1)].into()).await.unwrap();
    assert!(wal_bytes(&path) <= 65 << 20, "cut down: {} MiB", wal_bytes(&path) >> 20);
}

/// A rebuild on an idle node put all of it into the log, since only appends led to upkeep.
#[tokio::test]
async fn read_models_keep_their_own_log_short() {
    let home = Home::new();
    let log = home.file().await;
    let models = Database::read_models(&log, SqliteOptions::default()).unwrap();
    let mut connection = models.open_read_model_writer().await.unwrap();
    let mut largest = 0;
    for n in 0..200 {
        let _turn = models.turn().await;
        let mut transaction = connection.begin_with("begin immediate").await.unwrap();
        for id in 0..100 {
            sqlx::query("insert or replace into documents values (1, ?, 1, ?)")
                .bind(format!("{}", n * 100 + id))
                .bind("x".repeat(4_000))
                .execute(&mut *transaction)
                .await
                .unwrap();
        }
        transaction.commit().await.unwrap();
        largest = largest.max(wal_bytes(models.path()));
    }
    assert!(largest < 24 << 20, "{} MiB", largest >> 20);
}

/// Notes and snapshots count as commits: a log that is never appended to has its upkeep, too.
#[tokio::test]
async fn other_writers_of_the_log_file_lead_to_upkeep() {
    let home = Home::new();
    let path = home.file().await;
    let store = SqliteStore::open(&path, SqliteOptions::default()).await.unwrap();
    let mut largest = 0;
    for n in 0..400_i64 {
        let put = move |connection: &rusqlite::Connection| {
            let mut put = connection.prepare_cached(
                "insert or replace into snapshots values (?, 1, 1, 0, zeroblob(200000), 0)",
            )?;
            put.execute([n])
        };
        store.database().write(put).await.unwrap();
        largest = largest.max(wal_bytes(&path));
    }
    assert!(largest < 48 << 20, "{} MiB", largest >> 20);
}
