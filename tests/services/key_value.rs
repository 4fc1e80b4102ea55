//! Buckets on a NATS server that is killed and started again.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{FutureExt, StreamExt};
use mister_smith::actors::bus::key_value::{
    BucketOptions, From, KeyValue, KeyValueError, conformance,
};
use mister_smith_testkit::{Broker, eventually};

use crate::remote::connected;
use crate::server::DEADLINE;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nats_keeps_every_law_of_buckets() {
    let server = Broker::nats().await;
    let connection = connected(&server.url()).await;
    Box::pin(conformance::run(&move |options| {
        let bucket = connection.bucket(options).unwrap();
        async move { Arc::new(bucket) as Arc<dyn KeyValue> }.boxed()
    }))
    .await;
}

/// What we make is a bucket for the client of NATS itself, and the other way round.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bucket_is_one_for_every_client_of_nats() {
    let server = Broker::nats().await;
    let connection = connected(&server.url()).await;
    let ours = connection.bucket(BucketOptions::new("shared").history(3)).unwrap();
    let revision = ours.put("a.b", "1".into()).await.unwrap();
    let theirs = connection.jetstream().get_key_value("shared").await.unwrap();
    let entry = theirs.entry("a.b").await.unwrap().unwrap();
    assert_eq!((entry.revision, &entry.value[..]), (revision, &b"1"[..]));
    let next = theirs.update("a.b", "2".into(), revision).await.unwrap();
    assert_eq!(ours.get("a.b").await.unwrap().unwrap().revision, next);
    theirs.delete("a.b").await.unwrap();
    assert_eq!(ours.get("a.b").await, Ok(None));
    ours.purge("a.b").await.unwrap();
    assert_eq!(theirs.get("a.b").await.unwrap(), None);
}

/// Puts until it is answered: a put may be repeated.
async fn put(bucket: &dyn KeyValue, key: &str, value: u64) -> u64 {
    let put = async || bucket.put(key, value.to_string().into()).await;
    eventually(DEADLINE, async || put().await.map_err(|error| error.to_string())).await
}

/// A watch goes on over the death of the server, and misses nothing that is kept.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_survives_the_server() {
    let server = Broker::nats().await;
    let watcher = connected(&server.url()).await;
    let writer = connected(&server.url()).await;
    let options = || BucketOptions::new("watched").history(64);
    let bucket = writer.bucket(options()).unwrap();
    put(&bucket, "k", 0).await;
    let watched = watcher.bucket(options()).unwrap();
    let mut watch = watched.watch(">", From::Current).await.unwrap();
    let seeing = async {
        let mut seen: Vec<u64> = Vec::new();
        while seen.last() != Some(&30) {
            // An error says that the server is away; the watch goes on.
            if let Some(Ok(entry)) = watch.changes.next().await {
                seen.push(std::str::from_utf8(&entry.value).unwrap().parse().unwrap());
            }
        }
        seen
    };
    let writing = async {
        for n in 1..=30 {
            if n % 10 == 0 {
                server.kill9();
                server.restart().await;
            }
            put(&bucket, "k", n).await;
        }
    };
    let all = async { tokio::join!(seeing, writing) };
    let (mut seen, ()) = tokio::time::timeout(DEADLINE, all).await.expect("it sees the last one");
    // A put whose answer was lost was made twice.
    assert!(seen.is_sorted(), "{seen:?}");
    seen.dedup();
    assert_eq!(seen, (0..=30).collect::<Vec<_>>());
}

/// A server that comes back without its data begins to count again, and a watch with it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_notices_that_the_server_forgot_everything() {
    let server = Broker::nats().await;
    let connection = connected(&server.url()).await;
    let bucket = connection.bucket(BucketOptions::new("forgotten")).unwrap();
    for n in 0..5 {
        put(&bucket, "k", n).await;
    }
    let mut watch = bucket.watch("k", From::Current).await.unwrap();
    let first = watch.changes.next().await.unwrap().unwrap();
    assert_eq!((first.revision, &first.value[..]), (5, &b"4"[..]));
    server.kill9();
    server.forget();
    server.restart().await;
    let (seeing, bucket) = (
        async {
            loop {
                if let Some(Ok(entry)) = watch.changes.next().await {
                    return entry;
                }
            }
        },
        &bucket,
    );
    let both = async { tokio::join!(seeing, put(bucket, "k", 77)) };
    let (entry, revision) = tokio::time::timeout(DEADLINE, both).await.expect("it sees it");
    assert_eq!((entry.revision, &entry.value[..]), (revision, &b"77"[..]));
    assert!(revision < 5, "{revision}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_down_is_told_and_used_when_it_comes() {
    let server = Broker::nats_that_is_down();
    let connection =
        mister_smith::actors::bus::queue::nats::Connection::open(&server.url()).await.unwrap();
    let bucket = connection.bucket(BucketOptions::new("late")).unwrap();
    let error = bucket.get("k").await.unwrap_err();
    assert!(matches!(error, KeyValueError::Unreachable { .. }), "{error}");
    server.restart().await;
    assert_eq!(put(&bucket, "k", 1).await, 1);
    let left = Duration::from_secs(5);
    assert!(tokio::time::timeout(left, bucket.keys()).await.unwrap().is_ok());
}
