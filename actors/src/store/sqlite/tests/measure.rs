//! Numbers, not laws: `cargo test --release -p mister-smith-actors measure -- --ignored --nocapture`.
//!
//! The store alone against the same rows by the driver alone, in turns in one process, so that the
//! ratio holds on a busy machine. Both write ahead, sync each commit and copy their logs.

use std::time::{Duration, Instant};

use futures_util::TryStreamExt;
use sqlx::sqlite::{SqliteJournalMode, SqliteSynchronous};
use sqlx::{AssertSqlSafe, Row as _};

use super::*;

const CELL: Duration = Duration::from_millis(400);
const ROUNDS: usize = 5;

/// Small events, one an append, over as many streams.
fn batch(first: u64, size: u64, keyed: bool) -> Arc<[Append]> {
    let one = |seed: u64| {
        let mut append = append(&format!("stream-{}", seed % size), seed, 1);
        append.events[0].data = vec![7; 180].into();
        append.events[0].meta = Default::default();
        append.key = keyed.then(|| IdempotencyKey::of([seed.to_le_bytes()]));
        append
    };
    (first..first + size).map(one).collect()
}

/// Events a second in batches of `size`, one after the other.
async fn ours(store: &SqliteStore, size: u64, keyed: bool, from: &mut u64) -> f64 {
    let begun = Instant::now();
    let mut count = 0;
    while begun.elapsed() < CELL {
        for outcome in store.append_batch(batch(*from, size, keyed)).await.unwrap() {
            outcome.unwrap();
        }
        *from += size;
        count += size;
    }
    count as f64 / begun.elapsed().as_secs_f64()
}

/// Rows a second, `rows` in one statement and transaction.
async fn raw(home: &Home, rows: usize) -> f64 {
    let mut connection = SqliteConnectOptions::new()
        .filename(home.directory.path().join("raw.db"))
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .connect()
        .await
        .unwrap();
    sqlx::raw_sql(
        "create table if not exists raw (position integer primary key, stream_id integer, \
         version integer, type_id integer, event_id blob, codec integer, recorded_at integer, \
         data blob, meta blob) strict; \
         create unique index if not exists raw_stream on raw (stream_id, version)",
    )
    .execute(&mut connection)
    .await
    .unwrap();
    let text = format!(
        "insert into raw (stream_id, version, type_id, event_id, codec, recorded_at, data, meta) \
         values {}",
        vec!["(?, ?, 1, ?, 2, 0, ?, x'')"; rows].join(", ")
    );
    let mut version: i64 = sqlx::query_scalar("select coalesce(max(version), 0) from raw")
        .fetch_one(&mut connection)
        .await
        .unwrap();
    let begun = Instant::now();
    let mut count = 0;
    while begun.elapsed() < CELL {
        version += 1;
        let mut query = sqlx::query(AssertSqlSafe(text.as_str()));
        for n in 0..rows {
            query = query.bind(n as i64).bind(version).bind(vec![1; 16]).bind(vec![7; 180]);
        }
        query.execute(&mut connection).await.unwrap();
        count += rows;
    }
    let rate = count as f64 / begun.elapsed().as_secs_f64();
    connection.close().await.unwrap();
    rate
}

fn middle(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn measure_append() {
    let home = Home::new();
    println!("k events/s; medians of {ROUNDS} rounds");
    for keyed in [false, true] {
        for (size, rows) in [(1, 1), (64, 20), (512, 100)] {
            let store = home.store().await;
            let mut from = 0;
            let (mut rates, mut limits, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
            for _ in 0..ROUNDS {
                let limit = raw(&home, rows).await;
                let rate = ours(&store, size, keyed, &mut from).await;
                ratios.push(rate / limit);
                rates.push(rate / 1e3);
                limits.push(limit / 1e3);
            }
            println!(
                "batches of {size:>3}, keys {keyed:<5}: {:>6.1}   raw by {rows:>3}: {:>6.1}   ratio {:.2}",
                middle(rates),
                middle(limits),
                middle(ratios)
            );
        }
    }
}

/// What the save of a claim takes from appends: both are done in turns.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn measure_claims_beside_appends() {
    use crate::store::claims::{Claimed, Claims as _, Save, sqlite::SqliteClaims};
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
    const LEASE: Duration = Duration::from_secs(5);
    let home = Home::new();
    let store = home.store().await;
    let claims = SqliteClaims::new(Arc::clone(store.database()));
    let Claimed::Yes(claim) = claims.claim("a", "me", LEASE).await.unwrap() else { panic!() };
    let (saving, saved) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let saver = {
        let (saving, saved) = (Arc::clone(&saving), Arc::clone(&saved));
        tokio::spawn(async move {
            for position in 1.. {
                while !saving.load(Ordering::Relaxed) {
                    tokio::task::yield_now().await;
                }
                let save = Save::renewal(LEASE).to(Position::new(position));
                claims.save(&claim.fence, save).await.unwrap();
                saved.fetch_add(1, Ordering::Relaxed);
            }
        })
    };
    let mut from = 0;
    let (mut alone, mut beside, mut taken) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let rate = ours(&store, 64, false, &mut from).await;
        let (before, begun) = (saved.load(Ordering::Relaxed), Instant::now());
        saving.store(true, Ordering::Relaxed);
        let with = ours(&store, 64, false, &mut from).await;
        saving.store(false, Ordering::Relaxed);
        let saves = saved.load(Ordering::Relaxed) - before;
        let rest = begun.elapsed().as_secs_f64() * (1.0 - with / rate);
        taken.push(rest / saves as f64 * 1e6);
        alone.push(rate / 1e3);
        beside.push(with / 1e3);
    }
    saver.abort();
    println!(
        "appends alone {:.1} k/s, beside saves {:.1} k/s: a save takes {:.0} us of them",
        middle(alone),
        middle(beside),
        middle(taken)
    );
}

/// Pages of the whole log against one row stream of the driver.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn measure_read() {
    const EVENTS: u64 = 300_000;
    let home = Home::new();
    let path = home.file().await;
    let store = SqliteStore::open(&path, SqliteOptions::default()).await.unwrap();
    for n in 0..EVENTS / 1_000 {
        let batch = (n * 1_000..n * 1_000 + 1_000).map(|seed| {
            let mut append = append(&format!("stream-{}", seed % 15_000), seed, 1);
            append.events[0].data = vec![7; 180].into();
            append
        });
        store.append_batch(batch.collect()).await.unwrap();
    }
    let (mut rates, mut limits, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let options = SqliteConnectOptions::new().filename(&path).read_only(true);
        let mut connection = options.connect().await.unwrap();
        let begun = Instant::now();
        let text = "select e.position, e.version, e.type_id, e.event_id, e.codec, e.recorded_at, \
                    e.data, e.meta, s.name from events e cross join streams s \
                    on s.id = e.stream_id order by e.position";
        let mut rows = sqlx::query(text).fetch(&mut connection);
        let mut bytes = 0;
        while let Some(row) = rows.try_next().await.unwrap() {
            bytes += row.get::<&[u8], _>(6).len();
        }
        assert!(bytes as u64 >= EVENTS * 180);
        let limit = EVENTS as f64 / begun.elapsed().as_secs_f64();
        let begun = Instant::now();
        let mut after = Position::ZERO;
        while let Some(last) = store.read_all(after, 5_000).await.unwrap().last() {
            after = last.position;
        }
        assert_eq!(after.get(), EVENTS);
        let rate = EVENTS as f64 / begun.elapsed().as_secs_f64();
        ratios.push(rate / limit);
        rates.push(rate / 1e3);
        limits.push(limit / 1e3);
    }
    println!(
        "pages of 5,000: {:.0} k events/s, one row stream {:.0}, ratio {:.2}",
        middle(rates),
        middle(limits),
        middle(ratios)
    );
}
