//! Numbers, not laws: `cargo test --release -p mister-smith-actors measure -- --ignored --nocapture`.
//!
//! Each pair runs in turns in one process, so that the ratio holds on a busy machine.

use std::time::{Duration, Instant};

use super::*;

const EVENTS: u64 = 20_000;
const ROUNDS: u64 = 5;

/// Small events; `streams` says over how many streams they go.
fn batch(first: u64, size: u64, streams: u64, keyed: bool) -> Vec<Append> {
    let one = |seed: u64| {
        let mut append = append(&format!("stream-{}", seed % streams), seed, 1);
        append.events[0].data = vec![7; 180].into();
        append.key = keyed.then(|| IdempotencyKey::of([seed.to_le_bytes()]));
        append
    };
    (first..first + size).map(one).collect()
}

async fn appended(home: &Home, size: u64, streams: u64, keyed: bool) -> Duration {
    let store = home.store().await;
    let batches: Vec<_> =
        (0..EVENTS / size).map(|n| batch(n * size, size, streams, keyed)).collect();
    let start = Instant::now();
    for batch in batches {
        for outcome in store.append_batch(batch.into()).await.unwrap() {
            outcome.unwrap();
        }
    }
    start.elapsed()
}

/// The same rows of `events` by the statement of 100 rows, and nothing else.
async fn raw(home: &Home, size: u64) -> Duration {
    let store = home.store().await;
    let mut connection = store.database.open_writer().await.unwrap();
    let insert = statement::Sized::new(
        "insert into events (position, stream_id, version, type_id, event_id, codec, \
         recorded_at, data, meta) values",
        "(?,?,?,?,?,?,?,?,?)",
        "",
    );
    let batches: Vec<Vec<_>> = (0..EVENTS / size)
        .map(|n| (n * size..).zip(batch(n * size, size, 100, false)).collect())
        .collect();
    let start = Instant::now();
    for batch in batches {
        let mut transaction = connection.begin_with("begin immediate").await.unwrap();
        insert
            .write(&mut transaction, &batch, |row, (seed, append)| {
                let event = &append.events[0];
                row.counter(seed + 1)
                    .counter(seed % 100)
                    .counter(seed / 100 + 1)
                    .integer(1)
                    .blob(event.id.as_uuid().as_bytes())
                    .integer(i64::from(event.codec.code()))
                    .integer(event.recorded_at.as_micros())
                    .blob(&event.data)
                    .blob(&event.meta);
            })
            .await
            .unwrap();
        transaction.commit().await.unwrap();
    }
    start.elapsed()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn measure_append() {
    let home = Home::new();
    let rate = |time: Duration| EVENTS as f64 / time.as_secs_f64() / 1e3;
    println!("rates in k events/s, best of {ROUNDS}; ratio to raw is the median pair");
    for (size, streams, keyed) in [
        (500, 100, false),
        (500, 100, true),
        (500, EVENTS, true),
        (64, 64, false),
        (64, 64, true),
        (1, 100, false),
        (1, 100, true),
    ] {
        let (mut best, mut best_raw, mut ratios) = (0.0_f64, 0.0_f64, Vec::new());
        for _ in 0..ROUNDS {
            let (raw, ours) =
                (rate(raw(&home, size).await), rate(appended(&home, size, streams, keyed).await));
            best = best.max(ours);
            best_raw = best_raw.max(raw);
            ratios.push(ours / raw);
        }
        ratios.sort_by(f64::total_cmp);
        println!(
            "batch {size:>3}  streams {streams:>5}  keys {keyed:<5}  raw {best_raw:>6.1}  append_batch {best:>6.1}  ratio {:.2}",
            ratios[ratios.len() / 2]
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn measure_read() {
    let home = Home::new();
    let store = home.store().await;
    for n in 0..EVENTS / 500 {
        store.append_batch(batch(n * 500, 500, 100, false).into()).await.unwrap();
    }
    for _ in 0..ROUNDS {
        let start = Instant::now();
        let mut after = Position::ZERO;
        while let Some(last) = store.read_all(after, 5_000).await.unwrap().last() {
            after = last.position;
        }
        println!("read_all {:.0} k events/s", EVENTS as f64 / start.elapsed().as_secs_f64() / 1e3);
    }
}
