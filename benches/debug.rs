//! What looking costs: the debug API with 100,000 actors, and a node under load with a page open.
//!
//! `cargo bench --bench debug`; the goals are those of docs/benchmarks.md.

#![allow(clippy::expect_used, missing_docs, reason = "a benchmark may panic")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use mister_smith::SystemCore;
use mister_smith::prelude::*;
use mister_smith_testkit::Client;

const ACTORS: usize = 100_000;

/// Counts what it is told.
struct Counter(Arc<AtomicU64>);

impl Actor for Counter {
    type Message = ();
    type Args = Arc<AtomicU64>;

    async fn start(args: &Self::Args, _: &mut Context<Self>) -> Result<Self, StartError> {
        Ok(Self(Arc::clone(args)))
    }

    async fn handle(&mut self, (): (), _: &mut Context<Self>) -> Result<(), Failure> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

fn median(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}

async fn timed(client: &Client, path: &str) -> (f64, usize) {
    let (mut times, mut bytes) = (Vec::new(), 0);
    for _ in 0..15 {
        let begin = Instant::now();
        let reply = client.send("GET".parse().expect("a method"), path, &[], "").await;
        let reply = reply.expect("the node answers");
        assert_eq!(reply.status, 200, "{path}");
        times.push(begin.elapsed().as_secs_f64() * 1e3);
        bytes = reply.body.len();
    }
    (median(times), bytes)
}

/// Messages a second between four senders and four actors.
async fn throughput(core: &SystemCore, counted: &Arc<AtomicU64>, time: Duration) -> f64 {
    let stop = Arc::new(AtomicBool::new(false));
    let mut senders = Vec::new();
    for n in 0..4 {
        let address: Address<()> =
            core.actors().find(&format!("/agents/busy-{n}")).expect("it was started");
        let stop = Arc::clone(&stop);
        senders.push(tokio::spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                for _ in 0..256 {
                    let _ = address.tell(()).await;
                }
            }
        }));
    }
    let (before, begin) = (counted.load(Ordering::Relaxed), Instant::now());
    tokio::time::sleep(time).await;
    let rate = (counted.load(Ordering::Relaxed) - before) as f64 / begin.elapsed().as_secs_f64();
    stop.store(true, Ordering::Relaxed);
    for sender in senders {
        let _ = sender.await;
    }
    rate
}

/// What the page does: a stream, the pixels every 1.5 s, the node every 5 s, the tree at the start.
async fn page(addr: std::net::SocketAddr) {
    let client = Client::new(addr).with_deadline(Duration::from_secs(3_600));
    let following = client.get("/debug/v1/stream?paths=/agents/busy-0,/agents/busy-1,/resources");
    let get = async |path: &str| {
        let _ = Client::new(addr).send("GET".parse().expect("a method"), path, &[], "").await;
    };
    let polling = async {
        get("/debug/v1/tree").await;
        for turn in 0_u32.. {
            if turn.is_multiple_of(3) {
                get("/debug/v1/node").await;
            }
            get("/debug/v1/heat").await;
            tokio::time::sleep(Duration::from_millis(1_500)).await;
        }
    };
    tokio::select! {
        _ = following => {}
        () = polling => {}
    }
}

async fn run() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = format!("sqlite://{}", dir.path().join("smith.db").display());
    let listen = "127.0.0.1:0".parse().expect("an address");
    let core = SystemCore::embedded().store(store).listen(listen).start().await.expect("a node");
    let counted = Arc::new(AtomicU64::new(0));
    for n in 0..4 {
        let busy = core.spawn::<Counter>(&format!("busy-{n}"), Arc::clone(&counted)).await;
        busy.expect("it starts");
    }
    let addr = core.addr().expect("it listens");

    let (mut alone, mut watched) = (Vec::new(), Vec::new());
    for _ in 0..9 {
        alone.push(throughput(&core, &counted, Duration::from_secs(3)).await);
        let open = tokio::spawn(page(addr));
        tokio::time::sleep(Duration::from_millis(100)).await;
        watched.push(throughput(&core, &counted, Duration::from_secs(3)).await);
        open.abort();
    }
    let pairs = alone.iter().zip(&watched).map(|(alone, watched)| watched / alone).collect();
    println!(
        "throughput: {:.2} M messages/s alone, {:.2} with a page open, x {:.3} (goal ≥ 0.95)",
        median(alone.clone()) / 1e6,
        median(watched.clone()) / 1e6,
        median(pairs)
    );

    let client = Client::new(addr);
    for n in 4..ACTORS {
        let id = format!("idle-{n}");
        core.spawn::<Counter>(&id, Arc::clone(&counted)).await.expect("it starts");
    }
    for (what, path) in [
        ("summary", "/debug/v1/node"),
        ("tree, 50 worst", "/debug/v1/tree"),
        ("pixels", "/debug/v1/heat"),
        ("search", "/debug/v1/tree?q=idle-4242"),
        ("lints", "/debug/v1/lints"),
        ("one actor", "/debug/v1/actors/agents/idle-4242"),
    ] {
        let (millis, bytes) = timed(&client, path).await;
        println!("100,000 actors, {what:<16} {millis:7.1} ms  {bytes:>8} bytes");
    }
    core.stop(Duration::from_secs(60)).await;
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(run());
}
