//! Sagas: steps a second, through a whole node.

use std::time::{Duration, Instant};

use mister_smith::SystemCore;
use mister_smith::prelude::*;
use mister_smith_testkit::Postgres;

use super::rate;

fn steps() -> Saga<u64> {
    (0..4).fold(Saga::new("bench"), |saga, n| {
        saga.step(Step::new(format!("s{n}"), |cx: StepContext<u64>| async move { Ok(cx.data + 1) }))
    })
}

/// Sagas of four steps, many at once: steps a second, each with two commits.
pub(crate) async fn sagas() {
    const SAGAS: usize = 500;
    let server = Postgres::start().await;
    let dir = tempfile::tempdir().expect("a directory");
    let sqlite = format!("sqlite://{}", dir.path().join("smith.db").display());
    for (name, store) in [("SQLite", sqlite), ("PostgreSQL", server.create_database().await)] {
        let core = SystemCore::embedded().store(store).saga(steps()).start().await.expect("a node");
        let began = Instant::now();
        let all = (0..SAGAS).map(|n| {
            let sagas = core.sagas().clone();
            async move {
                let id = n.to_string();
                sagas.start("bench", &id, &0_u64, Metadata::default()).await.expect("it begins");
            }
        });
        futures_util::future::join_all(all).await;
        let mut open = true;
        while open {
            tokio::time::sleep(Duration::from_millis(20)).await;
            let filter =
                mister_smith::actors::saga::SagaFilter { open: true, ..Default::default() };
            let head = core.head();
            core.wait_for(head).await.expect("followed");
            let listed = core.sagas().list(&filter, None, 1).await.expect("a list");
            open = !listed.is_empty() || core.head() != head;
        }
        let took = began.elapsed();
        println!(
            "saga      {name:<10} {:.1} k steps/s ({:.1} k events/s), {SAGAS} sagas of 4 steps at once",
            rate(SAGAS * 4, took) / 1e3,
            rate(SAGAS * 10, took) / 1e3
        );
        core.stop(Duration::from_secs(10)).await;
    }
}
