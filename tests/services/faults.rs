//! What goes wrong with a server.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use mister_smith::actors::event::Position;
use mister_smith::actors::store::postgres::{PgOptions, PgStore};
use mister_smith::actors::store::{EventStore, StoreError, conformance};
use mister_smith::prelude::ErrorClass;
use mister_smith_testkit::Postgres;
use tokio::sync::watch;

use crate::server::{database, name_of, numbered, open};

/// The server is killed three times while appends run; each is repeated until it is answered.
/// With a key, and without one while the store itself waits for the server.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_server_loses_nothing_and_doubles_nothing() {
    let server = Postgres::start().await;
    let url = database(&server).await;
    let options = PgOptions::default().reconnect_for(Duration::from_secs(60));
    let store = Arc::new(PgStore::open(&url, options).await.unwrap());
    let stop = Arc::new(AtomicBool::new(false));
    let (count, mut counted) = watch::channel(0_u64);
    let count = Arc::new(count);
    let writers = (0..8_u128).map(|writer| {
        let (store, stop, count) = (Arc::clone(&store), Arc::clone(&stop), Arc::clone(&count));
        tokio::spawn(async move {
            let mut places = BTreeMap::new();
            let mut n = 0;
            while !stop.load(Ordering::Relaxed) {
                n += 1;
                let id = writer * 1_000_000 + n;
                let mut append = numbered(&format!("s-{}", id % 3), id);
                // Half of them have no key: the store has to find out by their ids.
                if writer % 2 == 0 {
                    append.key = None;
                }
                let outcomes = store.append_batch([append].into()).await.unwrap();
                let written = outcomes.into_iter().next().unwrap().unwrap();
                assert!(!written.duplicate, "the store answered its own repeat");
                places.insert(id, written.last_position);
                count.send_modify(|count| *count += 1);
            }
            places
        })
    });
    let writers: Vec<_> = writers.collect();
    for _ in 0..3 {
        let before = *counted.borrow_and_update();
        counted.wait_for(|count| *count >= before + 200).await.unwrap();
        server.kill9().await;
        server.restart().await;
    }
    let before = *counted.borrow_and_update();
    counted.wait_for(|count| *count >= before + 200).await.unwrap();
    stop.store(true, Ordering::Relaxed);
    let mut places = BTreeMap::new();
    for writer in writers {
        places.extend(writer.await.unwrap());
    }
    let log = conformance::whole_log(&*store, 5_000).await;
    assert_eq!(log.len(), places.len(), "each append once, and nothing else");
    for event in &log {
        assert_eq!(places.get(&event.id.as_uuid().as_u128()), Some(&event.position));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stays_away_is_an_error_that_says_so() {
    let server = Postgres::start().await;
    let url = database(&server).await;
    let options = PgOptions::default().reconnect_for(Duration::from_millis(200));
    let store = PgStore::open(&url, options).await.unwrap();
    store.append_batch([numbered("s", 1)].into()).await.unwrap();
    server.kill9().await;
    let error = store.append_batch([numbered("s", 2)].into()).await.unwrap_err();
    assert!(matches!(error, StoreError::Lost { .. }), "{error:?}");
    assert_eq!(error.class(), ErrorClass::Transient);
    assert!(error.to_string().ends_with("it is made again, retry"), "{error}");
    assert!(store.read_all(Position::ZERO, 10).await.is_err());
    server.restart().await;
    // The same keys: whatever became of it, it is there once.
    store.append_batch([numbered("s", 2), numbered("s", 3)].into()).await.unwrap();
    assert_eq!(conformance::whole_log(&store, 10).await.len(), 3);
}

/// Connections that all are in use give an error and not a wait without end, and it passes.
#[tokio::test(flavor = "multi_thread")]
async fn a_pool_that_is_used_up_says_so_and_recovers() {
    let server = Postgres::start().await;
    let url = database(&server).await;
    let options = PgOptions::default().connections(2).acquire_timeout(Duration::from_millis(300));
    let store = PgStore::open(&url, options).await.unwrap();
    for batch in 0..20 {
        let appends = (0..500).map(|n| numbered("s", batch * 500 + n + 1));
        store.append_batch(appends.collect()).await.unwrap();
    }
    let mut refused = 0;
    while refused == 0 {
        let reads = (0..256).map(|_| store.read_all(Position::ZERO, 5_000));
        for error in join_all(reads).await.into_iter().filter_map(Result::err) {
            assert!(matches!(error, StoreError::Exhausted { .. }), "{error:?}");
            assert!(error.to_string().ends_with("are in use; retry, or allow more of them"));
            assert_eq!(error.class(), ErrorClass::Transient);
            refused += 1;
        }
    }
    // Appends have a connection of their own, and never waited.
    store.append_batch([numbered("s", 1_000_000)].into()).await.unwrap();
    while store.head().await.is_err() {}
    assert_eq!(store.head().await.unwrap(), Position::new(10_001));
}

/// Sessions that are ended by an operator, in the middle of appends: the same as a lost
/// connection.
#[tokio::test(flavor = "multi_thread")]
async fn sessions_that_are_terminated_cost_nothing() {
    let server = Postgres::start().await;
    let url = database(&server).await;
    let store = open(&url).await;
    let terminate = "select count(pg_terminate_backend(pid)) from pg_stat_activity \
                     where application_name = 'mister-smith'";
    for round in 0..10 {
        let appends = (0..20).map(|n| numbered("s", round * 20 + n + 1));
        let (outcomes, _) = tokio::join!(
            store.append_batch(appends.collect()),
            server.sql(name_of(&url), terminate)
        );
        for outcome in outcomes.unwrap() {
            outcome.unwrap();
        }
    }
    let store = open(&url).await;
    assert_eq!(conformance::whole_log(&store, 1_000).await.len(), 200);
}
