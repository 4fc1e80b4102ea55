//! Sagas: steps a second through a whole node, and how long many open ones take to go on elsewhere.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use mister_smith::SystemCore;
use mister_smith::actors::saga::SagaFilter;
use mister_smith::prelude::*;
use mister_smith_testkit::Postgres;

use super::{ROUNDS, median, rate};

fn steps() -> Saga<u64> {
    (0..4).fold(Saga::new("bench"), |saga, n| {
        saga.step(Step::new(format!("s{n}"), |cx: StepContext<u64>| async move { Ok(cx.data + 1) }))
    })
}

async fn begin(core: &SystemCore, prefix: &str, count: usize) {
    let all = (0..count).map(|n| {
        let (sagas, id) = (core.sagas().clone(), format!("{prefix}{n}"));
        async move {
            sagas.start("bench", &id, &0_u64, Metadata::default()).await.expect("it begins");
        }
    });
    join_all(all).await;
}

/// Waits until no saga is open; looks at the list of them only when the log stands still.
async fn all_done(core: &SystemCore) {
    loop {
        let head = core.head();
        tokio::time::sleep(Duration::from_millis(5)).await;
        if core.head() != head {
            continue;
        }
        core.wait_for(head).await.expect("followed");
        let filter = SagaFilter { open: true, ..SagaFilter::default() };
        let listed = core.sagas().list(&filter, None, 1).await.expect("a list");
        if listed.is_empty() && core.head() == head {
            return;
        }
    }
}

/// Sagas of four steps, begun at once: steps a second until the last one is in the list as done.
pub(crate) async fn sagas() {
    const SAGAS: usize = 2_000;
    let server = Postgres::start().await;
    let dir = tempfile::tempdir().expect("a directory");
    let sqlite = format!("sqlite://{}", dir.path().join("smith.db").display());
    for (name, store) in [("SQLite", sqlite), ("PostgreSQL", server.create_database().await)] {
        let core = SystemCore::embedded().store(store).saga(steps()).start().await.expect("a node");
        let mut rates = Vec::new();
        for round in 0..=ROUNDS {
            let began = Instant::now();
            begin(&core, &format!("{round}-"), SAGAS).await;
            all_done(&core).await;
            // The first round makes the indexes warm.
            if round > 0 {
                rates.push(rate(SAGAS * 4, began.elapsed()));
            }
        }
        let rate = median(rates);
        println!(
            "saga      {name:<10} {:.1} k steps/s ({:.1} k events/s), {SAGAS} sagas of 4 steps at once",
            rate / 1e3,
            rate * 10.0 / 4.0 / 1e3
        );
        core.stop(Duration::from_secs(10)).await;
    }
}

/// A saga whose only step has no end, and how often that was begun.
fn endless(calls: &Arc<AtomicUsize>) -> Saga<u64> {
    let calls = Arc::clone(calls);
    let step = Step::new("s", move |_: StepContext<u64>| {
        calls.fetch_add(1, Ordering::SeqCst);
        pending()
    });
    Saga::new("bench").step(step.timeout(Duration::from_secs(86_400)))
}

/// Open sagas whose node ends, while two others stand by on the same PostgreSQL: how long until all
/// of them have gone on, and whether any was begun twice or on both (then the claim was lost).
pub(crate) async fn open(count: usize) {
    let server = Postgres::start().await;
    let store = server.create_database().await;
    let mut nodes = Vec::new();
    for _ in 0..3 {
        let calls = Arc::<AtomicUsize>::default();
        let builder = SystemCore::embedded().store(store.clone()).saga(endless(&calls));
        nodes.push((builder.start().await.expect("a node"), calls));
        if nodes.len() == 1 {
            let (first, calls) = &nodes[0];
            let began = Instant::now();
            for page in 0..count.div_ceil(2_000) {
                begin(first, &format!("{page}-"), 2_000.min(count - page * 2_000)).await;
            }
            until(&[&**calls], count).await;
            println!(
                "open      {count} sagas begun and in their step after {:.1?}",
                began.elapsed()
            );
        }
    }
    let (first, _) = nodes.remove(0);
    let ended = Instant::now();
    first.stop(Duration::from_secs(30)).await;
    let (stopped, began) = (ended.elapsed(), Instant::now());
    let calls: Vec<_> = nodes.iter().map(|(_, calls)| &**calls).collect();
    until(&calls, count).await;
    let took = began.elapsed();
    // A claim that is lost shows within a lease or two.
    tokio::time::sleep(Duration::from_secs(15)).await;
    let seen: Vec<_> = calls.iter().map(|calls| calls.load(Ordering::SeqCst)).collect();
    println!(
        "open      {count} sagas: their node stopped in {stopped:.1?}; all went on elsewhere {took:.1?} later; \
         begun by the others 15 s later: {seen:?}"
    );
    for (node, _) in nodes {
        node.stop(Duration::from_secs(30)).await;
    }
}

async fn until(calls: &[&AtomicUsize], count: usize) {
    while calls.iter().map(|calls| calls.load(Ordering::SeqCst)).sum::<usize>() < count {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
