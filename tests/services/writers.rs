//! Many processes on one database.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use mister_smith::actors::event::{Position, StreamId, Version};
use mister_smith::actors::store::subscription::Subscription;
use mister_smith::actors::store::{Append, AppendError, EventStore, ExpectedVersion, conformance};
use mister_smith_testkit::Postgres;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;

use crate::server::{DEADLINE, database, numbered, open};

/// Where the child finds its database, and which one it is.
const URL: &str = "SMITH_TEST_WRITER_URL";
const NUMBER: &str = "SMITH_TEST_WRITER";

const PROCESSES: u128 = 4;
const WRITERS: u128 = 16;
const APPENDS: u128 = 40;

/// The program of the processes below. Not a test of its own: without its environment it does
/// nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writer() {
    let (Ok(url), Ok(number)) = (std::env::var(URL), std::env::var(NUMBER)) else { return };
    let number: u128 = number.parse().unwrap();
    let store = Arc::new(open(&url).await);
    let writers = (0..WRITERS).map(|writer| {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            for n in 0..APPENDS {
                let id = (number * WRITERS + writer) * 1_000_000 + n;
                // Streams that all share, where everybody expects a version and loses sometimes.
                let stream = format!("shared-{}", id % 5);
                loop {
                    let name = StreamId::new(stream.clone()).unwrap();
                    let at = store.stream_version(&name).await.unwrap();
                    let append =
                        Append { expected: ExpectedVersion::Exact(at), ..numbered(&stream, id) };
                    // Two in a batch: the conflict of one must not fail the other.
                    let own = numbered(&format!("own-{number}-{writer}"), id + 500_000);
                    let outcomes = store.append_batch([append, own].into()).await.unwrap();
                    let own = outcomes[1].as_ref().unwrap();
                    println!("ack {} {}", id + 500_000, own.last_position);
                    match &outcomes[0] {
                        Ok(written) => {
                            println!("ack {id} {}", written.last_position);
                            break;
                        }
                        Err(AppendError::Conflict { actual, .. }) => {
                            assert!(*actual >= Version::ZERO)
                        }
                        Err(error) => panic!("{error}"),
                    }
                }
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    println!("done");
}

fn process(url: &str, number: u128, acks: mpsc::UnboundedSender<(u128, u64)>) -> Child {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["writers::writer", "--exact", "--nocapture", "--test-threads=1"])
        .env(URL, url)
        .env(NUMBER, number.to_string())
        .stdout(std::process::Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let stdout = child.stdout.take().unwrap();
    tokio::spawn(async move {
        let mut lines = BufReader::new(stdout).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            // libtest writes to the same line.
            let Some(ack) = line.split("ack ").nth(1) else { continue };
            let mut words = ack.split(' ').map(str::parse::<u128>);
            // A line that was cut off by the kill is no answer.
            if let (Some(Ok(id)), Some(Ok(position))) = (words.next(), words.next()) {
                let _ = acks.send((id, u64::try_from(position).unwrap()));
            }
        }
    });
    child
}

#[tokio::test(flavor = "multi_thread")]
async fn four_processes_append_at_once_and_two_are_killed() {
    let server = Postgres::start().await;
    let url = database(&server).await;
    let (acks, mut acked) = mpsc::unbounded_channel();
    let mut children: Vec<_> =
        (0..PROCESSES).map(|number| process(&url, number, acks.clone())).collect();
    drop(acks);

    // Follows from the first event on, while everybody writes.
    let reader = Arc::new(open(&url).await);
    let mut subscription = Subscription::new(Arc::clone(&reader) as _, Position::ZERO, 100);
    let (stop, mut stopped) = tokio::sync::watch::channel(0);
    let follower = tokio::spawn(async move {
        let mut seen = 0;
        loop {
            tokio::select! {
                biased;
                page = subscription.next() => for event in page.unwrap() {
                    seen += 1;
                    assert_eq!(event.position.get(), seen, "a gap or a double");
                },
                end = stopped.wait_for(|end| *end > 0 && *end <= seen) => {
                    return *end.unwrap();
                }
            }
        }
    });

    let mut places = BTreeMap::new();
    while let Some((id, position)) = tokio::time::timeout(DEADLINE, acked.recv()).await.unwrap() {
        assert_eq!(places.insert(id, position).unwrap_or(position), position, "{id} moved");
        let killed = usize::from(places.len() >= 300) + usize::from(places.len() >= 700);
        if children.len() + killed > PROCESSES as usize {
            children.pop().unwrap().kill().await.unwrap();
        }
    }
    for mut child in children {
        assert!(child.wait().await.unwrap().success());
    }

    let log = conformance::whole_log(&*reader, 5_000).await;
    let mut ids = BTreeSet::new();
    let mut versions: BTreeMap<StreamId, u64> = BTreeMap::new();
    for event in &log {
        let id = event.id.as_uuid().as_u128();
        assert!(ids.insert(id), "{id} is there twice");
        let version = versions.entry(event.stream.clone()).or_default();
        *version += 1;
        assert_eq!(event.version.get(), *version);
        if let Some(position) = places.remove(&id) {
            assert_eq!(event.position.get(), position, "{id} was told another place");
        }
    }
    assert_eq!(places.len(), 0, "acknowledged and lost: {places:?}");
    assert!(ids.len() as u128 >= 2 * WRITERS * APPENDS * 2, "two processes wrote all of theirs");
    stop.send_replace(log.len() as u64);
    assert_eq!(tokio::time::timeout(DEADLINE, follower).await.unwrap().unwrap(), log.len() as u64);
}
