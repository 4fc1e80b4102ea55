//! Appends to PostgreSQL: the store beside raw inserts of the same rows.
//!
//! `cargo bench --features postgres --bench postgres`. Needs the programs of a PostgreSQL server
//! (`scripts/test` installs them) and starts one of its own, with `fsync` on, by a Unix socket. The
//! raw side is one connection that inserts the same rows by `unnest` into one table with the same
//! indexes and nothing else: no streams, no versions, no head, no keys. Both take turns, so that a
//! drift of the machine meets both. `-- --short` takes a second.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, reason = "a test may panic")]

use std::time::{Duration, Instant};

use mister_smith::actors::event::{
    ContentType, EventId, NewEvent, Position, StreamId, Timestamp, Version,
};
use mister_smith::actors::store::postgres::{PgOptions, PgStore};
use mister_smith::actors::store::{Append, EventStore, ExpectedVersion, IdempotencyKey};
use mister_smith_testkit::Postgres;
use sqlx::{Connection as _, PgConnection};
use uuid::Uuid;

/// Streams that the appends go to, one after another.
const STREAMS: usize = 2_000;

const DATA: &[u8] = &[7; 220];
const META: &[u8] = &[9; 60];

/// One shape of a batch.
struct Case {
    name: &'static str,
    appends: usize,
    events: usize,
    keyed: bool,
    /// Streams that begin with these events.
    fresh: bool,
}

const CASES: [Case; 9] = [
    Case { name: "1 append of 1", appends: 1, events: 1, keyed: false, fresh: false },
    Case { name: "8 of 1", appends: 8, events: 1, keyed: false, fresh: false },
    Case { name: "64 of 1", appends: 64, events: 1, keyed: false, fresh: false },
    Case { name: "512 of 1", appends: 512, events: 1, keyed: false, fresh: false },
    Case { name: "64 of 1, new streams", appends: 64, events: 1, keyed: false, fresh: true },
    Case { name: "64 of 1, with keys", appends: 64, events: 1, keyed: true, fresh: false },
    Case { name: "512 of 1, with keys", appends: 512, events: 1, keyed: true, fresh: false },
    Case { name: "1 of 512", appends: 1, events: 512, keyed: false, fresh: false },
    Case { name: "8 of 64", appends: 8, events: 64, keyed: false, fresh: false },
];

fn main() {
    let short = std::env::args().any(|arg| arg == "--short" || arg == "--test");
    let runtime = mister_smith::runtime::build().expect("a runtime");
    runtime.block_on(run(short));
}

async fn run(short: bool) {
    let server = Postgres::start().await;
    println!(
        "{:<24} {:>11} {:>9} {:>9} {:>11} {:>9} {:>8}",
        "batches into PostgreSQL", "events/s", "p50 ms", "p99 ms", "raw/s", "p50 ms", "x raw"
    );
    for case in &CASES {
        let url = server.create_database().await;
        mister_smith::migrate::up(&url).await.unwrap();
        let store = PgStore::open(&url, PgOptions::default()).await.unwrap();
        let mut raw = Raw::open(&url).await;
        let mut feed = Feed::new(case);
        let per_batch = case.appends * case.events;
        let rounds = if short { 2 } else { (60_000 / per_batch).clamp(60, 3_000) };
        // Both get warm, and the streams exist.
        for batch in feed.beginnings() {
            store.append_batch(batch.into()).await.unwrap();
        }
        for _ in 0..10 {
            raw.insert(&feed.next()).await;
            let batch = feed.next();
            feed.written(&store.append_batch(batch.into()).await.unwrap());
        }
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            let batch = feed.next();
            let began = Instant::now();
            raw.insert(&batch).await;
            theirs.push(began.elapsed());
            let began = Instant::now();
            let outcomes = store.append_batch(batch.into()).await.unwrap();
            ours.push(began.elapsed());
            feed.written(&outcomes);
        }
        let rate = |times: &[Duration]| {
            (times.len() * per_batch) as f64 / times.iter().sum::<Duration>().as_secs_f64()
        };
        let (our_rate, their_rate) = (rate(&ours), rate(&theirs));
        let at = |times: &mut [Duration], share: f64| {
            times.sort_unstable();
            times[((times.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3
        };
        println!(
            "{:<24} {:>11.0} {:>9.2} {:>9.2} {:>11.0} {:>9.2} {:>8.2}",
            case.name,
            our_rate,
            at(&mut ours, 0.5),
            at(&mut ours, 0.99),
            their_rate,
            at(&mut theirs, 0.5),
            our_rate / their_rate,
        );
        store.close().await;
    }
}

/// Makes batches whose appends expect what their streams are at.
struct Feed<'a> {
    case: &'a Case,
    versions: Vec<Version>,
    at: usize,
    ids: u128,
}

impl<'a> Feed<'a> {
    fn new(case: &'a Case) -> Self {
        Self { case, versions: vec![Version::ZERO; STREAMS], at: 0, ids: 0 }
    }

    fn event(&mut self) -> NewEvent {
        self.ids += 1;
        // Ids as they come from a clock: growing.
        let id = EventId::new(Uuid::from_u128((0x0190 << 112) + (self.ids << 64)));
        let mut event =
            NewEvent::new(id, "bench.happened", ContentType::Raw, DATA, Timestamp::from_micros(1));
        event.meta = META.into();
        event
    }

    /// The first event of every stream.
    fn beginnings(&mut self) -> Vec<Vec<Append>> {
        if self.case.fresh {
            return Vec::new();
        }
        self.versions.fill(Version::new(1));
        let streams: Vec<usize> = (0..STREAMS).collect();
        let batches = streams.chunks(500).map(|streams| {
            let append =
                |&n: &usize| Append::new(name(n), ExpectedVersion::NoStream, vec![self.event()]);
            streams.iter().map(append).collect()
        });
        batches.collect()
    }

    fn next(&mut self) -> Vec<Append> {
        (0..self.case.appends)
            .map(|n| {
                let n = if self.case.fresh { self.ids as usize } else { (self.at + n) % STREAMS };
                let expected = match self.case.fresh {
                    true => ExpectedVersion::NoStream,
                    false => ExpectedVersion::Exact(self.versions[n]),
                };
                let events = (0..self.case.events).map(|_| self.event()).collect();
                let key = self.case.keyed.then(|| IdempotencyKey::of([self.ids.to_le_bytes()]));
                Append { key, ..Append::new(name(n), expected, events) }
            })
            .collect()
    }

    fn written(&mut self, outcomes: &[mister_smith::actors::store::AppendOutcome]) {
        for (n, outcome) in outcomes.iter().enumerate() {
            let appended = outcome.as_ref().expect("nobody else appends");
            assert!(appended.last_position > Position::ZERO);
            if !self.case.fresh {
                self.versions[(self.at + n) % STREAMS] = appended.last_version;
            }
        }
        self.at = (self.at + self.case.appends) % STREAMS;
    }
}

fn name(n: usize) -> StreamId {
    StreamId::new(format!("order-{n:08}")).unwrap()
}

/// One connection and one table.
struct Raw {
    connection: PgConnection,
    position: i64,
}

impl Raw {
    async fn open(url: &str) -> Self {
        let mut connection = PgConnection::connect(url).await.unwrap();
        sqlx::raw_sql(
            "create table raw (position bigint primary key, stream_id bigint not null, \
             version bigint not null, recorded_at bigint not null, type_id integer not null, \
             codec smallint not null, event_id uuid not null, data bytea not null, \
             meta bytea not null); create index on raw (stream_id, version)",
        )
        .execute(&mut connection)
        .await
        .unwrap();
        Self { connection, position: 0 }
    }

    async fn insert(&mut self, batch: &[Append]) {
        let (mut positions, mut streams, mut versions) = (Vec::new(), Vec::new(), Vec::new());
        let (mut times, mut types, mut codecs) = (Vec::new(), Vec::new(), Vec::new());
        let (mut ids, mut data, mut meta) = (Vec::new(), Vec::new(), Vec::new());
        for append in batch {
            let stream = append.stream.as_str()["order-".len()..].parse::<i64>().unwrap();
            let before = match append.expected {
                ExpectedVersion::Exact(version) => version.get().cast_signed(),
                _ => 0,
            };
            for (n, event) in (1_i64..).zip(&append.events) {
                self.position += 1;
                positions.push(self.position);
                streams.push(stream);
                versions.push(before + n);
                times.push(event.recorded_at.as_micros());
                types.push(1_i32);
                codecs.push(i16::from(event.codec.code()));
                ids.push(*event.id.as_uuid());
                data.push(&event.data[..]);
                meta.push(&event.meta[..]);
            }
        }
        sqlx::query(
            "insert into raw select * from unnest($1::int8[], $2::int8[], $3::int8[], \
             $4::int8[], $5::int4[], $6::int2[], $7::uuid[], $8::bytea[], $9::bytea[])",
        )
        .bind(positions)
        .bind(streams)
        .bind(versions)
        .bind(times)
        .bind(types)
        .bind(codecs)
        .bind(ids)
        .bind(data)
        .bind(meta)
        .execute(&mut self.connection)
        .await
        .unwrap();
    }
}
