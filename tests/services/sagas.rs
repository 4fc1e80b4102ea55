//! Many open sagas on nodes that share a database: one node has them, and stays their owner.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use mister_smith::SystemCore;
use mister_smith::prelude::*;
use mister_smith_testkit::{Postgres, eventually};

use crate::server::{DEADLINE, database};

/// More than two pages of the list of open ones.
const OPEN: usize = 1_200;

struct Here {
    core: SystemCore,
    /// How often a step without end was begun on this node.
    calls: Arc<AtomicUsize>,
}

impl Here {
    async fn start(name: &str, url: &str) -> Self {
        let calls = Arc::<AtomicUsize>::default();
        let counted = Arc::clone(&calls);
        let endless = Step::new("endless", move |cx: StepContext<bool>| {
            let ends = cx.data;
            if !ends {
                counted.fetch_add(1, Ordering::SeqCst);
            }
            async move { if ends { Ok(true) } else { pending().await } }
        });
        let saga = Saga::new("work").step(endless.timeout(Duration::from_secs(86_400)));
        let builder = SystemCore::embedded().name(name).store(url).saga(saga);
        Self { core: builder.start().await.unwrap(), calls }
    }

    async fn begin(&self, id: &str, ends: bool) {
        self.core.sagas().start("work", id, &ends, Metadata::default()).await.unwrap();
    }

    fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }
}

/// The claim ran out while its new owner began the open sagas one after the other; the next node took
/// it, and so on: steps were run again and again.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_takes_over_many_open_sagas_keeps_them() {
    let server = Postgres::start().await;
    let url = database(&server).await;
    let first = Here::start("one", &url).await;
    let ids: Vec<_> = (0..OPEN).map(|n| n.to_string()).collect();
    join_all(ids.iter().map(|id| first.begin(id, false))).await;
    let begun = async |nodes: &[&Here], wanted: usize| {
        eventually(DEADLINE, async || {
            let calls: Vec<_> = nodes.iter().map(|node| node.calls()).collect();
            if calls.iter().sum::<usize>() >= wanted { Ok(()) } else { Err(format!("{calls:?}")) }
        })
        .await;
    };
    begun(&[&first], OPEN).await;
    let (second, third) = (Here::start("two", &url).await, Here::start("three", &url).await);
    assert!(first.core.stop(Duration::from_secs(30)).await);
    begun(&[&second, &third], OPEN).await;
    // It has them, and takes what comes.
    for n in 0..200 {
        let id = format!("more-{n}");
        third.begin(&id, true).await;
        let state = second.core.sagas().wait("work", &id).await.unwrap();
        assert_eq!(format!("{:?}", state.status), "Completed");
    }
    let mut calls = [second.calls(), third.calls()];
    calls.sort_unstable();
    assert_eq!(calls, [0, OPEN], "one node began each of them, once");
}
