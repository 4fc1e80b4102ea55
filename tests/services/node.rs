//! Whole nodes on one database.

use std::time::Duration;

use mister_smith::SystemCore;
use mister_smith::actors::projection::streams::StreamSummary;
use mister_smith::prelude::*;
use mister_smith_testkit::{Postgres, eventually};
use serde::{Deserialize, Serialize};

use crate::server::{DEADLINE, database};

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Counter {
    count: u64,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Counted {
    #[serde(rename = "counter.counted")]
    Counted { by: u64 },
}

impl Event for Counted {}

#[derive(Debug, thiserror::Error)]
#[error("never")]
pub(crate) struct Never;

impl Aggregate for Counter {
    type Command = u64;
    type Event = Counted;
    type Rejection = Never;
    const CATEGORY: &'static str = "counter";

    fn decide(&self, by: &u64) -> Result<Vec<Counted>, Never> {
        Ok(vec![Counted::Counted { by: *by }])
    }

    fn evolve(&mut self, Counted::Counted { by }: Counted) {
        self.count += by;
    }
}

pub(crate) async fn node(name: &str, url: &str) -> SystemCore {
    let core = SystemCore::embedded().name(name).store(url).aggregate::<Counter>();
    core.start().await.unwrap()
}

/// Sends until it is answered, always with the same key.
pub(crate) async fn count(core: &SystemCore, id: &str, key: u64) -> Executed {
    loop {
        let command = CommandEnvelope::new(1).key(key.to_string());
        match core.commands().send::<Counter>(id, command).await {
            Ok(executed) => return executed,
            Err(error) => assert_eq!(error.class(), ErrorClass::Transient, "{error}"),
        }
    }
}

pub(crate) async fn value(core: &SystemCore, id: &str) -> u64 {
    loop {
        match core.commands().look(id, |counter: &Counter, _| counter.count).await {
            Ok(count) => return count,
            Err(error) => assert_eq!(error.class(), ErrorClass::Transient, "{error}"),
        }
    }
}

/// Two nodes command the same aggregates: each sees the other's events, by a conflict at the
/// latest, and none is lost or doubled.
#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_share_aggregates_and_one_of_them_projects() {
    let server = Postgres::start().await;
    let url = database(&server).await;
    let nodes = [node("one", &url).await, node("two", &url).await];
    let work = (0..120_u64).map(|n| {
        let core = nodes[(n % 2) as usize].clone();
        tokio::spawn(async move { count(&core, &format!("{}", n % 3), n).await })
    });
    let mut last = None;
    for work in work.collect::<Vec<_>>() {
        last = last.max(work.await.unwrap().position);
    }
    for id in ["0", "1", "2"] {
        // An aggregate that is live on both knows of the other's events with its next command.
        count(&nodes[0], id, 1_000).await;
        count(&nodes[1], id, 1_001).await;
        assert_eq!(value(&nodes[1], id).await, 42);
    }
    // Each node reads what one of them projects.
    for core in &nodes {
        eventually(DEADLINE, async || {
            let streams = core.projection("streams").unwrap();
            match streams.get::<StreamSummary>("counter-1").await {
                Ok(Some(summary)) if summary.events == 42 => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
    }
    let standby = |core: &SystemCore| core.tree().to_string().contains("standby");
    assert!(standby(&nodes[0]) != standby(&nodes[1]), "{}\n{}", nodes[0].tree(), nodes[1].tree());

    // The one that projects goes, the other takes over.
    let (gone, stays) = match standby(&nodes[0]) {
        true => (&nodes[1], &nodes[0]),
        false => (&nodes[0], &nodes[1]),
    };
    assert!(gone.stop(Duration::from_secs(20)).await);
    let position = count(stays, "9", 1).await.position.unwrap();
    tokio::time::timeout(DEADLINE, stays.wait_for(position)).await.expect("it takes over").unwrap();
    stays.stop(Duration::from_secs(20)).await;
}

/// The server is killed under a node that works: commands are repeated with their keys, and
/// nothing that was answered is lost.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_lives_through_the_death_of_its_database() {
    let server = Postgres::start().await;
    let url = database(&server).await;
    let core = node("node", &url).await;
    for round in 0..2_u64 {
        let work = (0..60_u64).map(|n| {
            let core = core.clone();
            tokio::spawn(async move { count(&core, &format!("{}", n % 4), round * 100 + n).await })
        });
        let work: Vec<_> = work.collect();
        server.kill9().await;
        server.restart().await;
        for work in work {
            work.await.unwrap();
        }
    }
    let mut total = 0;
    for id in ["0", "1", "2", "3"] {
        total += value(&core, id).await;
    }
    assert_eq!(total, 120);
    let head = core.head();
    assert_eq!(head.get(), 120);
    tokio::time::timeout(DEADLINE, core.wait_for(head))
        .await
        .expect("the projection follows")
        .unwrap();
    let streams = core.projection("streams").unwrap();
    let summary: StreamSummary = streams.get("counter-0").await.unwrap().unwrap();
    assert_eq!(summary.events, 30);
    core.stop(Duration::from_secs(20)).await;
}
