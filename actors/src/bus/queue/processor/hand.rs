//! What a processor has in hand: what runs, and what waits for a place or for its lane.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::{StreamExt, stream};
use indexmap::{IndexMap, IndexSet};
use mister_smith_supervisors::TaskGuard;
use tokio::time::{Instant, interval_at};

use crate::bus::queue::{Receipt, Receiver};

/// Messages whose time is extended at once.
const EXTENDED_AT_ONCE: usize = 16;

/// See the [module](self). `T` is what waits.
pub(super) struct Hand<T> {
    /// Tasks at once.
    places: usize,
    waiting: VecDeque<(Option<Arc<str>>, T)>,
    running: IndexMap<u64, Running>,
    /// Lanes in which something runs.
    busy: IndexSet<Arc<str>>,
}

/// One that runs.
struct Running {
    lane: Option<Arc<str>>,
    again: bool,
    _task: TaskGuard,
}

impl<T> Hand<T> {
    pub(super) fn new(places: usize) -> Self {
        Self { places, waiting: VecDeque::new(), running: IndexMap::new(), busy: IndexSet::new() }
    }

    /// All that is in hand.
    pub(super) fn len(&self) -> usize {
        self.waiting.len() + self.running.len()
    }

    pub(super) fn push(&mut self, lane: Option<Arc<str>>, work: T) {
        self.waiting.push_back((lane, work));
    }

    /// The first that can begin: there is a place, and nothing of its lane runs.
    pub(super) fn next(&mut self) -> Option<(Option<Arc<str>>, T)> {
        if self.running.len() >= self.places {
            return None;
        }
        let free = |(lane, _): &(Option<Arc<str>>, T)| {
            lane.as_ref().is_none_or(|lane| !self.busy.contains(lane))
        };
        let at = self.waiting.iter().position(free)?;
        self.waiting.remove(at)
    }

    /// One of the queue, or a dead letter `again`, has begun.
    pub(super) fn begun(
        &mut self,
        number: u64,
        again: bool,
        lane: Option<Arc<str>>,
        task: TaskGuard,
    ) {
        if let Some(lane) = &lane {
            self.busy.insert(Arc::clone(lane));
        }
        self.running.insert(number, Running { lane, again, _task: task });
    }

    /// One has ended; answers whether it was a dead letter.
    pub(super) fn ended(&mut self, number: u64) -> Option<bool> {
        let Running { lane, again, .. } = self.running.swap_remove(&number)?;
        if let Some(lane) = lane {
            self.busy.swap_remove(&lane);
        }
        Some(again)
    }
}

/// The receipts of what is in hand, until it is settled: whoever keeps them asks for more time.
#[derive(Debug, Default)]
pub(super) struct Receipts(Mutex<BTreeMap<u64, (Receipt, Instant)>>);

impl Receipts {
    fn all(&self) -> MutexGuard<'_, BTreeMap<u64, (Receipt, Instant)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn insert(&self, number: u64, receipt: Receipt) {
        self.all().insert(number, (receipt, Instant::now()));
    }

    pub(super) fn remove(&self, number: u64) {
        self.all().remove(&number);
    }

    /// Asks for more time for all that has been here for a while, until the end of the life: four
    /// times within what a receiver may take, so that one answer may be late.
    pub(super) async fn keep(&self, queue: &dyn Receiver) {
        let every = queue.ack_within() / 4;
        let mut ticks = interval_at(Instant::now() + every, every.max(Duration::from_millis(1)));
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let old = Instant::now().checked_sub(every / 2);
            let due: Vec<_> = self
                .all()
                .values()
                .filter(|(_, since)| old.is_none_or(|old| *since <= old))
                .map(|(receipt, _)| receipt.clone())
                .collect();
            let extending = stream::iter(due).for_each_concurrent(EXTENDED_AT_ONCE, |receipt| async move {
                if let Err(error) = queue.extend(&receipt).await {
                    tracing::debug!(%error, "more time was not given; it may be delivered again");
                }
            });
            extending.await;
        }
    }
}
