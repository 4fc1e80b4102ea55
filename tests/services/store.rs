//! The PostgreSQL store alone.

use std::sync::Arc;
use std::time::Duration;

use mister_smith::actors::event::{Position, StreamId, Timestamp, Version};
use mister_smith::actors::store::claims::{self, postgres::PgClaims};
use mister_smith::actors::store::memory::MemoryStore;
use mister_smith::actors::store::read_model::documents::{self, postgres::PgDocuments};
use mister_smith::actors::store::subscription::Subscription;
use mister_smith::actors::store::timers;
use mister_smith::actors::store::{
    Append, EventStore, ExpectedVersion, IdempotencyKey, conformance,
};
use mister_smith_testkit::Postgres;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use crate::server::{DEADLINE, database, numbered, open, store};

#[tokio::test(flavor = "multi_thread")]
async fn the_postgres_store_keeps_every_law() {
    let server = Postgres::start().await;
    Box::pin(conformance::run(async || store(&server).await)).await;
    conformance::snapshots::run(async || store(&server).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_in_postgres_keep_every_law() {
    let server = Postgres::start().await;
    documents::conformance::run(async || {
        PgDocuments::new(Arc::clone(store(&server).await.database()))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn claims_in_postgres_keep_every_law() {
    let server = Postgres::start().await;
    claims::conformance::run(true, async || {
        PgClaims::new(Arc::clone(store(&server).await.database()))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn timers_in_postgres_keep_every_law() {
    let server = Postgres::start().await;
    timers::conformance::run(async || {
        let store = store(&server).await;
        let claims = PgClaims::new(Arc::clone(store.database()));
        (store, Arc::new(claims))
    })
    .await;
}

/// A claim that a server crash takes back would give two nodes one epoch.
#[tokio::test(flavor = "multi_thread")]
async fn a_claim_outlives_the_death_of_its_database() {
    let server = Postgres::start().await;
    let url = database(&server).await;
    for round in 0..3 {
        let first = PgClaims::new(Arc::clone(open(&url).await.database()));
        let name = format!("f{round}");
        let mine = claims::Claims::claim(&first, &name, "a", Duration::ZERO).await.unwrap();
        let claims::Claimed::Yes(mine) = mine else { panic!("{mine:?}") };
        server.kill9().await;
        server.restart().await;
        let second = PgClaims::new(Arc::clone(open(&url).await.database()));
        let theirs = claims::Claims::claim(&second, &name, "b", Duration::ZERO).await.unwrap();
        let claims::Claimed::Yes(theirs) = theirs else { panic!("{theirs:?}") };
        assert!(theirs.fence.epoch > mine.fence.epoch, "{mine:?} {theirs:?}");
        let save = claims::Save::renewal(Duration::ZERO).to(Position::new(9));
        let late = claims::Claims::save(&second, &mine.fence, save).await;
        assert!(matches!(late, Err(claims::ClaimError::Lost { .. })), "{late:?}");
    }
}

/// Batches of appends to few streams, with repeated keys, links and tombstones.
fn batches() -> impl Strategy<Value = Vec<Vec<Append>>> {
    let expected = prop_oneof![
        4 => Just(ExpectedVersion::Any),
        1 => Just(ExpectedVersion::NoStream),
        1 => Just(ExpectedVersion::StreamExists),
        4 => (0..6_u64).prop_map(|version| ExpectedVersion::Exact(Version::new(version))),
    ];
    // One event alone takes a path of its own.
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
        prop_oneof![prop::collection::vec(one.clone(), 1), prop::collection::vec(one, 0..24)];
    prop::collection::vec(batch, 1..10)
}

/// The same random history into memory and PostgreSQL, written by two stores in turn (as two
/// nodes would, each with what it remembers of streams that the other has changed): equal answers,
/// equal reads.
#[tokio::test(flavor = "multi_thread")]
async fn memory_and_postgres_cannot_be_told_apart() {
    let server = Postgres::start().await;
    let mut runner = TestRunner::default();
    for _ in 0..24 {
        let history = batches().new_tree(&mut runner).unwrap().current();
        let url = database(&server).await;
        let memory = MemoryStore::new();
        let stores = [open(&url).await, open(&url).await];
        for (n, batch) in history.iter().enumerate() {
            let expected = memory.append_batch(batch.clone().into()).await.unwrap();
            // Runs of batches by one store, so that its memory is used and gets old.
            let outcomes = stores[(n / 2) % 2].append_batch(batch.clone().into()).await.unwrap();
            assert_eq!(outcomes, expected, "batch {n} of {history:?}");
        }
        let postgres = &stores[0];
        assert_eq!(
            conformance::whole_log(postgres, 13).await,
            conformance::whole_log(&memory, 5_000).await
        );
        let end = Version::new(u64::MAX);
        for n in 0..4 {
            let stream = StreamId::new(format!("s-{n}")).unwrap();
            assert_eq!(
                conformance::whole_stream(postgres, &stream, 5).await,
                conformance::whole_stream(&memory, &stream, 5_000).await
            );
            assert_eq!(
                postgres.read_stream_backward(&stream, end, 50).await.unwrap(),
                memory.read_stream_backward(&stream, end, 50).await.unwrap()
            );
        }
        for key in 0..12_u8 {
            let key = IdempotencyKey::of([[key]]);
            assert_eq!(postgres.answer(key).await.unwrap(), memory.answer(key).await.unwrap());
        }
        assert_eq!(postgres.event_types().await.unwrap(), memory.event_types().await.unwrap());
        let time = Timestamp::from_micros(1_700_000_000_000_000);
        assert_eq!(
            postgres.position_at(time).await.unwrap(),
            memory.position_at(time).await.unwrap()
        );
        for store in stores {
            store.close().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_stores_append_wakes_who_waits() {
    let server = Postgres::start().await;
    let url = database(&server).await;
    let (writer, reader) = (open(&url).await, Arc::new(open(&url).await));
    let mut subscription = Subscription::new(reader, Position::ZERO, 100);
    for number in 1..=20 {
        let (page, written) = tokio::join!(
            tokio::time::timeout(DEADLINE, subscription.next()),
            writer.append_batch([numbered("s", number)].into())
        );
        written.unwrap();
        let page = page.expect("it is woken").unwrap();
        assert_eq!(page.len(), 1);
        assert_eq!(u128::from(page[0].position.get()), number);
    }
    // A reader that is slower by far holds nothing up, and misses nothing.
    let batch = (21..=4_000).map(|number| numbered("s", number)).collect();
    writer.append_batch(batch).await.unwrap();
    let mut expected = 21;
    while expected <= 4_000 {
        for event in subscription.next().await.unwrap() {
            assert_eq!(event.position.get(), expected);
            expected += 1;
        }
    }
}
