//! The last lifecycle events of a system, kept for whoever comes later.
//!
//! A ring under one lock that is held for the time of a push or of copying one page: a reader that
//! is slow, or gone, holds up nobody. What it has missed it is told ([`Missed`]), so that it can
//! look at the tree again.

use std::collections::VecDeque;
use std::fmt;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use tokio::sync::Notify;

use crate::environment::lock;
use crate::inspect::{Lineage, PastTree};
use crate::lifecycle::{LifecycleEvent, LifecycleKind};

/// How many lifecycle events a system keeps when its builder does not say; about 10 MB when full.
pub const DEFAULT_HISTORY: usize = 65_536;

/// How many events wait for an observer that does not keep up.
const OBSERVER_BACKLOG: usize = 65_536;

/// Numbers lifecycle events and keeps the last ones.
pub(crate) struct History {
    ring: Mutex<VecDeque<Arc<LifecycleEvent>>>,
    /// What observers have not heard yet, if there are any. Bounded: an observer that is slower than
    /// everything else is told how much it has missed.
    unheard: Option<Mutex<VecDeque<Arc<LifecycleEvent>>>>,
    capacity: usize,
    last: AtomicU64,
    failures: AtomicU64,
    grown: Notify,
}

impl History {
    pub(crate) fn new(capacity: usize, observed: bool) -> Self {
        Self {
            ring: Mutex::new(VecDeque::new()),
            unheard: observed.then(Mutex::default),
            capacity: capacity.max(1),
            last: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            grown: Notify::new(),
        }
    }

    /// Gives an event its number and keeps it.
    pub(crate) fn push(&self, mut event: LifecycleEvent) -> Arc<LifecycleEvent> {
        if matches!(event.kind, LifecycleKind::Failed { .. } | LifecycleKind::StartFailed { .. }) {
            self.failures.fetch_add(1, Ordering::Relaxed);
        }
        let mut ring = lock(&self.ring);
        // Numbered under the lock: the ring is in the order of its numbers, without holes.
        let seq = self.last.load(Ordering::Relaxed) + 1;
        event.seq = seq;
        let event = Arc::new(event);
        // Dropped outside the lock: what an event tells of may be the application's.
        let (mut oldest, mut missed) = (None, None);
        if ring.len() == self.capacity {
            oldest = ring.pop_front();
        }
        ring.push_back(Arc::clone(&event));
        if let Some(unheard) = &self.unheard {
            // Under the lock of the ring, so that observers hear the same order.
            let mut unheard = lock(unheard);
            if unheard.len() == OBSERVER_BACKLOG {
                missed = unheard.pop_front();
            }
            unheard.push_back(Arc::clone(&event));
        }
        self.last.store(seq, Ordering::Release);
        drop(ring);
        drop((oldest, missed));
        self.grown.notify_waiters();
        event
    }

    pub(crate) fn last(&self) -> u64 {
        self.last.load(Ordering::Acquire)
    }

    /// Takes what observers have not heard yet.
    pub(crate) fn take_unheard(&self) -> VecDeque<Arc<LifecycleEvent>> {
        self.unheard.as_ref().map(|unheard| std::mem::take(&mut *lock(unheard))).unwrap_or_default()
    }
}

/// The lifecycle events of a system, as far back as they are kept. Cheap to clone.
///
/// ```
/// # use mister_smith_supervisors::*;
/// # async fn follow(system: ActorSystem) {
/// let timeline = system.timeline();
/// let mut seen = 0;
/// loop {
///     let page = timeline.since(seen, 100);
///     if let Some(missed) = page.missed {
///         println!("{} to {} came too fast; look at the tree", missed.from, missed.to);
///     }
///     for event in &page.events {
///         println!("{event}");
///     }
///     seen = page.next;
///     timeline.changed(seen).await;
/// }
/// # }
/// ```
#[derive(Clone)]
pub struct Timeline {
    history: Arc<History>,
}

/// Some events, in order.
#[derive(Clone, Debug)]
pub struct TimelinePage {
    /// Events that are wanted and gone.
    pub missed: Option<Missed>,
    /// The events.
    pub events: Vec<Arc<LifecycleEvent>>,
    /// Where to go on: the number of the last event here, or the one that was given.
    pub next: u64,
    /// The number of the last event of all.
    pub last: u64,
}

/// Events that are not kept any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Missed {
    /// The first one.
    pub from: u64,
    /// The last one.
    pub to: u64,
}

impl Timeline {
    pub(crate) fn new(history: Arc<History>) -> Self {
        Self { history }
    }

    /// The number of the last event; 0 before the first.
    #[must_use]
    pub fn last(&self) -> u64 {
        self.history.last()
    }

    /// How many lives have failed, or failed to start, so far.
    #[must_use]
    pub fn failures(&self) -> u64 {
        self.history.failures.load(Ordering::Relaxed)
    }

    /// The number of the first event that is kept; one more than the last when none is.
    #[must_use]
    pub fn first(&self) -> u64 {
        let ring = lock(&self.history.ring);
        ring.front().map_or_else(|| self.last() + 1, |event| event.seq)
    }

    /// The event with this number, if it is kept.
    #[must_use]
    pub fn get(&self, seq: u64) -> Option<Arc<LifecycleEvent>> {
        let ring = lock(&self.history.ring);
        let first = ring.front()?.seq;
        let at = usize::try_from(seq.checked_sub(first)?).ok()?;
        ring.get(at).cloned()
    }

    /// Events after `seq`, at most `limit`, and what of them is gone.
    #[must_use]
    pub fn since(&self, seq: u64, limit: usize) -> TimelinePage {
        let ring = lock(&self.history.ring);
        let last = self.last();
        let first = ring.front().map_or(last + 1, |event| event.seq);
        let missed = (seq + 1 < first).then(|| Missed { from: seq + 1, to: first - 1 });
        let skip = usize::try_from((seq + 1).saturating_sub(first)).unwrap_or(usize::MAX);
        // Not `iter().skip()`: that would walk what is skipped.
        let from = skip.min(ring.len());
        let events: Vec<_> = ring.range(from..).take(limit).cloned().collect();
        drop(ring);
        let next = events.last().map_or_else(|| seq.max(first - 1).min(last), |event| event.seq);
        TimelinePage { missed, events, next, last }
    }

    /// Waits until there are events after `seq`, and returns the number of the last one.
    ///
    /// # Cancel safety
    /// Nothing is lost by dropping it.
    pub async fn changed(&self, seq: u64) -> u64 {
        loop {
            let mut grown = pin!(self.history.grown.notified());
            // Registered before the look, so that nothing comes in between.
            grown.as_mut().enable();
            let last = self.last();
            if last > seq {
                return last;
            }
            grown.await;
        }
    }

    /// How an event came about: from its first cause, as far as it is kept, to itself.
    #[must_use]
    pub fn lineage(&self, seq: u64) -> Option<Lineage> {
        Lineage::of(self.get(seq)?, |seq| self.get(seq))
    }

    /// The tree as it was right after event `seq`, as far as the events that are kept show it:
    /// folded from those up to `seq`, and, where a slot has none, guessed from what happened to it
    /// next. Slots without any event are not shown. `None` when `seq` is not kept.
    #[must_use]
    pub fn at(&self, seq: u64) -> Option<PastTree> {
        let events: Vec<_> = {
            let ring = lock(&self.history.ring);
            let first = ring.front()?.seq;
            if seq < first || seq > self.last() {
                return None;
            }
            ring.iter().cloned().collect()
        };
        let after = events.partition_point(|event| event.seq <= seq);
        let mut tree = PastTree::default();
        events[..after].iter().for_each(|event| tree.apply(event));
        events[after..].iter().for_each(|event| tree.apply_backwards(event));
        tree.settle(seq);
        Some(tree)
    }
}

impl fmt::Debug for Timeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Timeline").field("last", &self.last()).finish_non_exhaustive()
    }
}
