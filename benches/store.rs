//! Commands through aggregates until they are durable, replay, projections and cold loads, on
//! PostgreSQL and SQLite; against raw inserts of the same rows and against cqrs-es.
//!
//! `cargo bench --bench store --features postgres`. It starts a PostgreSQL server of its own (fsync
//! on, Unix socket). Every number has its limit or peer beside it, taken in the same round, and the
//! ratio is the median of the rounds' ratios: a busy machine moves both. The driver runs on the
//! same two workers. `-- --short` takes some seconds, `-- --long` fills ten million events.
//! `-- --cell sqlite 512 20` runs one cell for twenty seconds, for a profiler, and tells how much
//! of the processor a command took, thread by thread; `-- --cell sqlite replay 1000000` fills a
//! log and replays it.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, reason = "a test may panic")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use mister_smith::SystemCore;
use mister_smith::actors::aggregate::actor::AggregateMessage;
use mister_smith::actors::event::{Decoder, Position, RecordedEvent};
use mister_smith::actors::projection::{Projection, ProjectionFault};
use mister_smith::actors::store::EventFilter;
use mister_smith::actors::store::replay::{Replay, ReplayFrom};
use mister_smith::prelude::*;
use mister_smith_testkit::Postgres;
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

#[path = "store/cpu.rs"]
mod cpu;
#[path = "store/peer.rs"]
mod peer;
#[path = "store/raw.rs"]
mod raw;

/// An aggregate whose events have 181 bytes of MessagePack.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Account<const SNAPSHOTS: bool> {
    events: u64,
    cents: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
enum Happened {
    #[serde(rename = "account.deposited")]
    Deposited { cents: u64, account: String, reference: String, note: String },
}

impl Event for Happened {}

#[derive(Debug, thiserror::Error)]
#[error("never")]
struct Never;

impl<const SNAPSHOTS: bool> Aggregate for Account<SNAPSHOTS> {
    type Command = u64;
    type Event = Happened;
    type Rejection = Never;
    const CATEGORY: &'static str = if SNAPSHOTS { "account" } else { "plain" };

    fn decide(&self, cents: &u64) -> Result<Vec<Happened>, Never> {
        Ok(vec![deposited(*cents)])
    }

    fn evolve(&mut self, Happened::Deposited { cents, .. }: Happened) {
        self.events += 1;
        self.cents += cents;
    }

    fn snapshots() -> SnapshotPolicy {
        if SNAPSHOTS { SnapshotPolicy::default() } else { SnapshotPolicy::NEVER }
    }
}

fn deposited(cents: u64) -> Happened {
    Happened::Deposited {
        cents,
        account: "DE89 3704 0044 0532 0130 00".to_owned(),
        reference: format!("invoice {cents:>12} of the second quarter"),
        note: "a note as people write them, sixty bytes or so in all, fine".to_owned(),
    }
}

/// Counts, and keeps one document.
struct Count;

#[derive(Clone, Default, Serialize, Deserialize)]
struct Counted {
    events: u64,
}

impl Projection for Count {
    type Document = Counted;
    const NAME: &'static str = "count";

    fn ids(&self, _: &RecordedEvent) -> Vec<Arc<str>> {
        vec!["all".into()]
    }

    fn apply(
        &self,
        _: &RecordedEvent,
        _: &str,
        counted: Option<Counted>,
    ) -> Result<Option<Counted>, ProjectionFault> {
        Ok(Some(Counted { events: counted.unwrap_or_default().events + 1 }))
    }
}

struct Plan {
    cell: Duration,
    rounds: usize,
    log: u64,
}

fn main() {
    let has = |name: &str| std::env::args().any(|arg| arg == name);
    let plan = match (has("--short") || has("--test"), has("--long")) {
        (true, _) => Plan { cell: Duration::from_millis(200), rounds: 1, log: 20_000 },
        (_, true) => Plan { cell: Duration::from_secs(1), rounds: 3, log: 10_000_000 },
        _ => Plan { cell: Duration::from_secs(1), rounds: 3, log: 1_000_000 },
    };
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let args: Vec<String> = std::env::args().collect();
    match args.iter().position(|arg| arg == "--cell") {
        Some(at) => runtime.block_on(Box::pin(cell(&args[at + 1..]))),
        None => runtime.block_on(Box::pin(run(plan))),
    }
    runtime.shutdown_timeout(Duration::from_secs(1));
}

async fn run(plan: Plan) {
    let mut peer = peer::Peer::start();
    let server = Postgres::start().await;
    let dir = TempDir::new().unwrap();
    for kind in ["postgres", "sqlite"] {
        let url = match kind {
            "postgres" => server.create_database().await,
            _ => format!("sqlite://{}", dir.path().join("smith.db").display()),
        };
        let name = url.split(['/', '?']).nth(3).unwrap_or_default().to_owned();
        let core = SystemCore::embedded().store(&url).start().await.unwrap();
        println!("\n{kind}: commands a second, durable, one event a command");
        println!(
            "{:<26} {:>9} {:>8} {:>8}   {:>9} {:>6}",
            "", "k/s", "p50 ms", "p99 ms", "raw k/s", "ratio"
        );
        for at_once in [1, 8, 64, 512] {
            let raw_at = if at_once == 1 || (kind == "postgres" && at_once < 512) { 1 } else { 0 };
            let mut cells = Vec::new();
            for _ in 0..plan.rounds {
                let limit = match (kind, raw_at) {
                    ("postgres", 1) => raw::pg_single(&url, at_once, plan.cell).await,
                    ("postgres", _) => raw::pg_unnest(&url, 1_000, plan.cell).await,
                    (_, 1) => raw::sqlite(&dir, 1, plan.cell).await,
                    _ => raw::sqlite(&dir, if at_once == 512 { 100 } else { 20 }, plan.cell).await,
                };
                cells.push((commands(&core, at_once, 1, plan.cell).await, limit));
            }
            report(&format!("{at_once} aggregates at once"), &cells);
        }
        let mut cells = Vec::new();
        for _ in 0..plan.rounds {
            let limit = commands(&core, 64, 1, plan.cell).await.rate;
            cells.push((commands(&core, 1, 64, plan.cell).await, limit));
        }
        report("1 hot, 64 in flight (of 64)", &cells);
        if kind == "postgres" {
            println!("against cqrs-es with postgres-es, streams of some hundred events");
            for at_once in [1, 8, 64] {
                let mut cells = Vec::new();
                for _ in 0..plan.rounds {
                    let limit = peer.commands(&server, at_once, plan.cell).await;
                    cells.push((commands(&core, at_once, 1, plan.cell).await, limit));
                }
                report(&format!("{at_once} aggregates at once"), &cells);
            }
        }
        followers(&core, plan.rounds, plan.cell).await;
        half_load(&core, plan.cell).await;

        let mut filled = core.head().get();
        for goal in [plan.log / 100, plan.log / 10, plan.log] {
            fill(&core, goal, &mut filled).await;
            // The committer hears of what was filled in past it with its next commit.
            core.commands().send::<Account<true>>("0", 1).await.unwrap();
            core.wait_for(core.head()).await.unwrap();
            let now = commands(&core, 64, 1, plan.cell).await;
            println!(
                "with {filled:>9} events: {:>6.1} k/s at 64, p99 {:.1} ms",
                now.rate / 1e3,
                now.p99
            );
        }
        core.wait_for(core.head()).await.unwrap();
        cold(&core).await;
        replay(&core, &url, plan.rounds).await;
        core.stop(Duration::from_secs(10)).await;
        // The lock of the file goes with it.
        drop(core);
        projected(&url).await;
        if kind == "postgres" {
            let size = "select pg_size_pretty(pg_database_size(current_database()))";
            println!("database: {}", server.sql(&name, size).await);
        }
    }
}

/// One kind of store, one number of commands at once, for some seconds.
async fn cell(args: &[String]) {
    let [kind, at_once, seconds, ..] = args else {
        panic!("give the kind of store, how many at once and for how long: --cell sqlite 512 20");
    };
    let seconds = seconds.parse().unwrap();
    let dir = TempDir::new().unwrap();
    let server = if kind == "postgres" { Some(Postgres::start().await) } else { None };
    let url = match &server {
        Some(server) => server.create_database().await,
        None => format!("sqlite://{}", dir.path().join("smith.db").display()),
    };
    let core = SystemCore::embedded().store(&url).start().await.unwrap();
    if at_once == "replay" {
        fill(&core, seconds, &mut 0).await;
        replay(&core, &url, 5).await;
        core.stop(Duration::from_secs(10)).await;
        drop(core);
        return projected(&url).await;
    }
    let at_once = at_once.parse().unwrap();
    commands(&core, at_once, 1, Duration::from_secs(1)).await;
    let (before, head) = (cpu::by_thread(), core.head());
    let cell = commands(&core, at_once, 1, Duration::from_secs(seconds)).await;
    let (after, count) = (cpu::by_thread(), core.head().get() - head.get());
    println!(
        "{kind}, {at_once} at once: {:.2} k/s, p50 {:.2} ms, p99 {:.2} ms",
        cell.rate / 1e3,
        cell.p50,
        cell.p99
    );
    for (name, time) in cpu::between(&before, &after) {
        println!("{name:<26} {:>6.1} µs a command", time.as_secs_f64() * 1e6 / count as f64);
    }
    core.stop(Duration::from_secs(10)).await;
}

struct Cell {
    rate: f64,
    p50: f64,
    p99: f64,
}

fn report(name: &str, cells: &[(Cell, f64)]) {
    let middle = |mut values: Vec<f64>| {
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    let of = |pick: fn(&(Cell, f64)) -> f64| middle(cells.iter().map(pick).collect());
    println!(
        "{name:<26} {:>9.2} {:>8.2} {:>8.2}   {:>9.2} {:>6.2}",
        of(|(cell, _)| cell.rate / 1e3),
        of(|(cell, _)| cell.p50),
        of(|(cell, _)| cell.p99),
        of(|(_, limit)| limit / 1e3),
        of(|(cell, limit)| cell.rate / limit),
    );
}

/// `aggregates` of them, each with `in_flight` commands on the way all the time.
async fn commands(core: &SystemCore, aggregates: usize, in_flight: usize, time: Duration) -> Cell {
    let stop = Arc::new(AtomicBool::new(false));
    let tasks: Vec<_> = (0..aggregates * in_flight)
        .map(|n| {
            let (core, stop) = (core.clone(), Arc::clone(&stop));
            tokio::spawn(async move {
                let id = format!("{}", n % aggregates);
                // The first one starts it; that is not measured.
                core.commands().send::<Account<true>>(&id, 1).await.unwrap();
                let mut latencies = Vec::new();
                let begun = Instant::now();
                while !stop.load(Ordering::Relaxed) {
                    let sent = Instant::now();
                    core.commands().send::<Account<true>>(&id, 1).await.unwrap();
                    latencies.push(sent.elapsed());
                }
                (latencies, begun.elapsed())
            })
        })
        .collect();
    tokio::time::sleep(time).await;
    stop.store(true, Ordering::Relaxed);
    let mut all = Vec::new();
    let mut rate = 0.0;
    for task in tasks {
        let (latencies, took) = task.await.unwrap();
        rate += latencies.len() as f64 / took.as_secs_f64();
        all.extend(latencies);
    }
    all.sort();
    let at = |share: f64| all[(all.len() as f64 * share) as usize].as_secs_f64() * 1e3;
    Cell { rate, p50: at(0.5), p99: at(0.99) }
}

/// Latency at half of what 64 at once reach, commands sent by the clock.
async fn half_load(core: &SystemCore, time: Duration) {
    let full = commands(core, 64, 1, time).await;
    let per_second = full.rate / 2.0;
    let begun = Instant::now();
    let mut tasks = Vec::new();
    let count = (per_second * time.as_secs_f64()) as u64;
    for n in 0..count {
        let due = Duration::from_secs_f64(n as f64 / per_second);
        if due > begun.elapsed() + Duration::from_millis(1) {
            tokio::time::sleep_until((begun + due).into()).await;
        }
        let core = core.clone();
        tasks.push(tokio::spawn(async move {
            let id = format!("{}", n % 64);
            core.commands().send::<Account<true>>(&id, 1).await.unwrap();
            // From when it was due: a late start is part of the wait.
            (begun.elapsed().saturating_sub(due)).as_secs_f64() * 1e3
        }));
    }
    let mut all = Vec::new();
    for task in tasks {
        all.push(task.await.unwrap());
    }
    all.sort_by(f64::total_cmp);
    println!(
        "at half load ({:.1} k/s): p50 {:.2} ms, p99 {:.2} ms",
        per_second / 1e3,
        all[all.len() / 2],
        all[all.len() * 99 / 100]
    );
}

/// What twenty followers at the head cost, none of which wants what is written.
async fn followers(core: &SystemCore, rounds: usize, time: Duration) {
    let mut cells = Vec::new();
    for _ in 0..rounds {
        let alone = commands(core, 64, 1, time).await.rate;
        for n in 0..20 {
            let consumer = Consumer::new(format!("follower-{n}"), |_| async { Outcome::Ack })
                .filter(EventFilter::ALL.categories([format!("other{n}")]))
                .begin(Begin::End);
            core.consumers().start(consumer).await.unwrap();
        }
        cells.push((commands(core, 64, 1, time).await, alone));
        for n in 0..20 {
            core.consumers().stop(&format!("follower-{n}")).await.unwrap();
        }
    }
    report("20 followers (of none)", &cells);
}

/// Fills the log with the streams of many accounts.
async fn fill(core: &SystemCore, goal: u64, filled: &mut u64) {
    use mister_smith::actors::event::{EventId, NewEvent, StreamId, Timestamp};
    use mister_smith::actors::store::{Append, ExpectedVersion};
    let store = core.pool().lease().await.unwrap().store;
    while *filled < goal {
        let batch = (0..1_000_u64.min(goal - *filled)).map(|n| {
            let encoded = deposited(n).encode().unwrap();
            let event = NewEvent::new(
                EventId::new(uuid::Uuid::from_u128(u128::from(*filled + n))),
                encoded.event_type,
                encoded.codec,
                encoded.data,
                Timestamp::from_micros(1_700_000_000_000_000 + (*filled + n).cast_signed()),
            );
            let stream = StreamId::new(format!("filler-{}", (*filled + n) % 10_000)).unwrap();
            Append::new(stream, ExpectedVersion::Any, vec![event])
        });
        let batch: Vec<_> = batch.collect();
        *filled += batch.len() as u64;
        store.append_batch(batch.into()).await.unwrap();
    }
    *filled = store.head().await.unwrap().get();
}

/// Aggregates that are not live: how long the first look takes.
async fn cold(core: &SystemCore) {
    async fn one<const SNAPSHOTS: bool>(core: &SystemCore, events: u64) -> f64 {
        let id = format!("cold{events}");
        let mut sent = 0;
        while sent < events {
            let more = (events - sent).min(1_000);
            let commands = (0..more).map(|_| core.commands().send::<Account<SNAPSHOTS>>(&id, 1));
            for answer in futures_util::future::join_all(commands).await {
                answer.unwrap();
            }
            sent += more;
        }
        let path = format!("/domain/aggregates/{}-{id}", Account::<SNAPSHOTS>::CATEGORY);
        let mut times = Vec::new();
        for _ in 0..5 {
            let actor = core.actors().find::<AggregateMessage<Account<SNAPSHOTS>>>(&path).unwrap();
            let life = actor.life();
            let begun = Instant::now();
            core.actors().kill(&path).unwrap();
            // A kill takes effect a moment later: until then the old life answers.
            while actor.life() == life {
                tokio::task::yield_now().await;
            }
            let look = |account: &Account<SNAPSHOTS>, _| account.events;
            assert_eq!(core.commands().look(&id, look).await.unwrap(), events);
            times.push(begun.elapsed().as_secs_f64() * 1e3);
        }
        times.sort_by(f64::total_cmp);
        times[2]
    }
    println!("cold load (a killed actor until its state is there, its restart included)");
    for events in [10, 1_000, 100_000] {
        let (with, without) = (one::<true>(core, events).await, one::<false>(core, events).await);
        println!("{events:>8} events: {with:>8.2} ms with snapshots, {without:>8.2} ms without");
    }
}

/// The whole log into a typed fold.
async fn replay(core: &SystemCore, url: &str, rounds: usize) {
    let mut ratios = Vec::new();
    let (mut best, mut best_raw) = (0.0_f64, 0.0_f64);
    for _ in 0..rounds {
        let store = core.pool().lease().await.unwrap().store;
        let head = store.head().await.unwrap().get() as f64;
        let raw = head / raw::rows(url).await.as_secs_f64();
        let begun = Instant::now();
        let from = ReplayFrom::Position(Position::ZERO);
        let mut replay = Replay::begin(store, from).await.unwrap();
        let decoder = Decoder::<Happened>::new();
        let mut account = Account::<true>::default();
        while let Some(events) = replay.next().await.unwrap() {
            for event in &events {
                account.evolve(decoder.decode(event).unwrap());
            }
        }
        assert_eq!(account.events as f64, head);
        let ours = head / begun.elapsed().as_secs_f64();
        best = best.max(ours);
        best_raw = best_raw.max(raw);
        ratios.push(ours / raw);
    }
    ratios.sort_by(f64::total_cmp);
    println!(
        "replay, typed fold: {:.0} k events/s; one row stream into the same fold {:.0} k/s; ratio {:.2}",
        best / 1e3,
        best_raw / 1e3,
        ratios[ratios.len() / 2]
    );
}

/// A new projection over the whole log.
async fn projected(url: &str) {
    let begun = Instant::now();
    let core = SystemCore::embedded().store(url).projection(Count).start().await.unwrap();
    let projection = core.projection("count").unwrap();
    let head = core.pool().lease().await.unwrap().store.head().await.unwrap();
    projection.wait_for_within(head, Duration::from_secs(3_600)).await.unwrap();
    let rate = head.get() as f64 / begun.elapsed().as_secs_f64();
    println!("projection, catch-up with a checkpoint a page: {:.0} k events/s", rate / 1e3);
    core.stop(Duration::from_secs(10)).await;
}
