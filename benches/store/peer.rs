//! The peer: cqrs-es 0.5 with postgres-es 0.5, default tables, a pool of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use cqrs_es::event_sink::EventSink;
use cqrs_es::{Aggregate, DomainEvent};
use mister_smith_testkit::Postgres;
use postgres_es::{default_postgress_pool, postgres_cqrs};
use serde::{Deserialize, Serialize};

use super::deposited;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum Event {
    Deposited { cents: u64, account: String, reference: String, note: String },
}

impl DomainEvent for Event {
    fn event_type(&self) -> String {
        "account.deposited".to_owned()
    }

    fn event_version(&self) -> String {
        "1".to_owned()
    }
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Account {
    events: u64,
    cents: u64,
}

impl Aggregate for Account {
    const TYPE: &'static str = "account";
    type Command = u64;
    type Event = Event;
    type Error = super::Never;
    type Services = ();

    async fn handle(
        &mut self,
        cents: u64,
        _: &(),
        sink: &EventSink<Self>,
    ) -> Result<(), super::Never> {
        let super::Happened::Deposited { cents, account, reference, note } = deposited(cents);
        sink.write(Event::Deposited { cents, account, reference, note }, self).await;
        Ok(())
    }

    fn apply(&mut self, Event::Deposited { cents, .. }: Event) {
        self.events += 1;
        self.cents += cents;
    }
}

const TABLE: &str = "create table events (aggregate_type text not null, aggregate_id text not null, \
     sequence bigint check (sequence >= 0) not null, event_type text not null, \
     event_version text not null, payload json not null, metadata json not null, \
     primary key (aggregate_type, aggregate_id, sequence))";

/// Commands a second with as many aggregates at once; streams of a hundred events, since it reads
/// a stream whole for each command.
pub(crate) async fn commands(server: &Postgres, at_once: usize, time: Duration) -> f64 {
    let url = server.create_database().await;
    let name = url.split(['/', '?']).nth(3).unwrap().to_owned();
    server.sql(&name, TABLE).await;
    let pool = default_postgress_pool(&url).await;
    let cqrs = Arc::new(postgres_cqrs::<Account>(pool, vec![], ()));
    let stop = Arc::new(AtomicBool::new(false));
    let count = Arc::new(AtomicU64::new(0));
    let begun = Instant::now();
    let tasks: Vec<_> = (0..at_once)
        .map(|n| {
            let (cqrs, stop, count) = (Arc::clone(&cqrs), Arc::clone(&stop), Arc::clone(&count));
            tokio::spawn(async move {
                let mut sent = 0_u64;
                while !stop.load(Ordering::Relaxed) {
                    let id = format!("{n}-{}", sent / 100);
                    cqrs.execute(&id, 1).await.unwrap();
                    sent += 1;
                    count.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    tokio::time::sleep(time).await;
    let rate = count.load(Ordering::Relaxed) as f64 / begun.elapsed().as_secs_f64();
    stop.store(true, Ordering::Relaxed);
    for task in tasks {
        task.await.unwrap();
    }
    rate
}
