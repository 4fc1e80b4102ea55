//! Events stream in while actors are killed one after the other, and the process itself once.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mister_smith_testkit::{Client, ClientError, Smith, eventually};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::Value;
use tokio::sync::watch;

use crate::ledger::Ledger;
use crate::webhooks;

/// Events of one request.
const BATCH: usize = 40;

/// Requests at once.
const SENDERS: usize = 4;

/// An actor is killed each time this many more events are acknowledged.
const KILL_EVERY: usize = 160;

pub(crate) fn from_env(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |text| text.parse().expect("a number"))
}

struct Storm {
    waiting: Mutex<VecDeque<Vec<String>>>,
    ledger: Mutex<Ledger>,
    acknowledged: watch::Sender<usize>,
    /// The client of the process that runs now.
    client: watch::Sender<Client>,
    retries: AtomicUsize,
}

impl Storm {
    /// Sends batches until there are none, each until every event has a place.
    async fn send(&self) {
        loop {
            let batch = self.waiting.lock().unwrap().pop_front();
            let Some(batch) = batch else { return };
            let body = batch.join("\n");
            while !self.try_send(&batch, &body).await {
                self.retries.fetch_add(1, Ordering::Relaxed);
            }
            let total = self.ledger.lock().unwrap().len();
            self.acknowledged.send_replace(total);
        }
    }

    async fn try_send(&self, batch: &[String], body: &str) -> bool {
        let client = self.client.borrow().clone();
        match client.post_ingest("application/x-ndjson", body.to_owned()).await {
            Ok((200 | 503, answer)) => self.ledger.lock().unwrap().take(batch, &answer),
            Ok((429, _)) => false,
            Ok((status, answer)) => panic!("a client must see 200 or 503, not {status}: {answer}"),
            // Only the death of the whole process breaks a connection; then another one answers.
            Err(error) => {
                let gone = client.addr();
                let mut next = self.client.subscribe();
                let changed = next.wait_for(|client| client.addr() != gone);
                let replaced = tokio::time::timeout(Duration::from_secs(60), changed).await;
                assert!(replaced.is_ok(), "no answer from a live node: {error}");
                false
            }
        }
    }

    async fn reaches(&self, count: usize) {
        let mut acknowledged = self.acknowledged.subscribe();
        acknowledged.wait_for(|total| *total >= count).await.expect("the storm goes on");
    }
}

/// Paths of everything that lives below the root.
fn paths(node: &Value, out: &mut Vec<String>) {
    for child in node["children"].as_array().into_iter().flatten() {
        out.push(child["path"].as_str().expect("a path").to_owned());
        paths(child, out);
    }
}

/// Kills one actor or supervisor, whichever the seed says.
async fn kill_one(client: &Client, rng: &mut StdRng) -> Result<Option<String>, ClientError> {
    let (_, tree) = client.get("/debug/tree").await?;
    let mut all = Vec::new();
    paths(&tree["root"], &mut all);
    if all.is_empty() {
        return Ok(None);
    }
    let path = all.swap_remove(rng.random_range(0..all.len()));
    let (status, _) =
        client.post(&format!("/debug/actors{path}/kill"), "application/json", "").await?;
    // It may have ended, or be between two lives, by the time the order arrives.
    assert!(matches!(status, 200 | 404 | 409 | 503), "killing {path}: {status}");
    Ok((status == 200).then_some(path))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_while_actors_and_the_process_are_killed() {
    let seed = from_env("MISTER_SMITH_CHAOS_SEED", 20_261_120);
    let events = usize::try_from(from_env("MISTER_SMITH_CHAOS_EVENTS", 20_000)).expect("fits");
    eprintln!("seed {seed}, {events} events");
    let mut rng = StdRng::seed_from_u64(seed);
    let mut node = Smith::start(env!("CARGO_BIN_EXE_smith")).await;

    let lines = webhooks::lines(events);
    let storm = Arc::new(Storm {
        waiting: Mutex::new(lines.chunks(BATCH).map(<[String]>::to_vec).collect()),
        ledger: Mutex::default(),
        acknowledged: watch::Sender::new(0),
        client: watch::Sender::new(node.client()),
        retries: AtomicUsize::new(0),
    });
    let senders: Vec<_> = (0..SENDERS)
        .map(|_| {
            let storm = Arc::clone(&storm);
            tokio::spawn(async move { storm.send().await })
        })
        .collect();

    let mut killed = Vec::new();
    let mut next = KILL_EVERY;
    let mut process_killed = false;
    while next < events {
        storm.reaches(next).await;
        if !process_killed && next >= events / 2 {
            process_killed = true;
            node.kill9().await;
            node.restart().await;
            storm.client.send_replace(node.client());
        } else if let Some(path) = kill_one(&node.client(), &mut rng).await.expect("the node is up")
        {
            killed.push(path);
        }
        next += KILL_EVERY;
    }
    for sender in senders {
        sender.await.expect("a sender ends when all is sent");
    }

    let client = node.client();
    eventually(Duration::from_secs(60), async || {
        let (status, body) = client.get("/readyz").await.map_err(|error| error.to_string())?;
        if status == 200 { Ok(()) } else { Err(body.to_string()) }
    })
    .await;
    eventually(Duration::from_secs(60), async || {
        let (_, page) =
            client.get("/api/v1/streams?limit=1").await.map_err(|error| error.to_string())?;
        if page["position"] == events { Ok(()) } else { Err(page["position"].to_string()) }
    })
    .await;
    let (_, tree) = client.get("/debug/tree").await.expect("the storm is over");
    let mut restarts = 0;
    let mut open = vec![&tree["root"]];
    while let Some(at) = open.pop() {
        restarts += at["restarts"].as_u64().unwrap_or(0);
        open.extend(at["children"].as_array().into_iter().flatten());
    }
    eprintln!(
        "{} kills and one kill -9, {} retries by clients, {restarts} restarts in the tree",
        killed.len(),
        storm.retries.load(Ordering::Relaxed),
    );
    assert!(restarts > 0, "the tree shows the restarts");
    let ledger = std::mem::take(&mut *storm.ledger.lock().unwrap());
    assert_eq!(ledger.len(), events, "every event was acknowledged in the end");
    ledger.check(&client).await;
}
