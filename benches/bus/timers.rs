//! Timers that are due: how many a second are set, fired and gone.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use mister_smith::SystemCore;
use mister_smith::actors::event::Timestamp;
use mister_smith::actors::timer::{Fired, NewTimer, Timer, TimerOptions};
use mister_smith_testkit::Postgres;

use super::{Count, rate};

const TIMERS: usize = 20_000;

/// Timers of one page that is set.
const PAGE: usize = 500;

pub(crate) async fn timers() {
    let server = Postgres::start().await;
    let dir = tempfile::tempdir().expect("a directory");
    let sqlite = format!("sqlite://{}", dir.path().join("smith.db").display());
    for (name, store) in [("SQLite", sqlite), ("PostgreSQL", server.create_database().await)] {
        let core = SystemCore::embedded().store(store).start().await.expect("a node");
        // All are due before anybody fires them.
        let began = Instant::now();
        for page in 0..TIMERS / PAGE {
            let timer = |n| {
                let name = format!("{:06}", page * PAGE + n);
                NewTimer::new("bench", name, Timestamp::from_micros(n as i64), vec![7; 100])
            };
            let set = core.timers().set_all((0..PAGE).map(timer).collect());
            set.await.expect("they are set");
        }
        let set = rate(TIMERS, began.elapsed());
        let count = Arc::new(Count::default());
        count.wanted.store(TIMERS as u64, Ordering::Relaxed);
        let counting = Arc::clone(&count);
        let handler = move |_: Timer| {
            counting.one();
            async { Fired::Done }
        };
        let began = Instant::now();
        core.timers().handle("bench", TimerOptions::default(), handler).await.expect("it starts");
        count.all().await;
        let fired = rate(TIMERS, began.elapsed());
        println!(
            "timers    {name:<10} {:.1} k/s set by {PAGE}, {:.1} k/s fired and removed",
            set / 1e3,
            fired / 1e3
        );
        core.stop(std::time::Duration::from_secs(10)).await;
    }
}
