//! cqrs-es 0.5 with postgres-es 0.5, default tables, a pool of its own, two workers as the bench.
//!
//! A round is a line on standard input, `AT_ONCE MILLISECONDS URL` with the URL of an empty
//! database; the answer is a line with commands a second. It ends with its input.

#![allow(clippy::unwrap_used, missing_docs, reason = "a bench may panic")]

use std::io::BufRead as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use cqrs_es::event_sink::EventSink;
use cqrs_es::{Aggregate, DomainEvent};
use postgres_es::{default_postgress_pool, postgres_cqrs};
use serde::{Deserialize, Serialize};
use sqlx::Executor as _;

/// The fields of the bench's own event.
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

#[derive(Debug, thiserror::Error)]
#[error("never")]
struct Never;

#[derive(Debug, Default, Serialize, Deserialize)]
struct Account {
    events: u64,
    cents: u64,
}

impl Aggregate for Account {
    const TYPE: &'static str = "account";
    type Command = u64;
    type Event = Event;
    type Error = Never;
    type Services = ();

    async fn handle(&mut self, cents: u64, _: &(), sink: &EventSink<Self>) -> Result<(), Never> {
        let event = Event::Deposited {
            cents,
            account: "DE89 3704 0044 0532 0130 00".to_owned(),
            reference: format!("invoice {cents:>12} of the second quarter"),
            note: "a note as people write them, sixty bytes or so in all, fine".to_owned(),
        };
        sink.write(event, self).await;
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

fn main() {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    for line in std::io::stdin().lock().lines() {
        let line = line.unwrap();
        let mut parts = line.splitn(3, ' ');
        let mut number = || parts.next().unwrap().parse::<u64>().unwrap();
        let (at_once, time) = (number(), Duration::from_millis(number()));
        println!("{}", runtime.block_on(commands(parts.next().unwrap(), at_once, time)));
    }
}

/// Commands a second with as many aggregates at once; streams of a hundred events, since it reads
/// a stream whole for each command.
async fn commands(url: &str, at_once: u64, time: Duration) -> f64 {
    let pool = default_postgress_pool(url).await;
    pool.execute(TABLE).await.unwrap();
    let cqrs = Arc::new(postgres_cqrs::<Account>(pool.clone(), vec![], ()));
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
    pool.close().await;
    rate
}
