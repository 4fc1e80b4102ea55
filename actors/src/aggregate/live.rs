//! Which aggregates are live, so that their number can be bounded.
//!
//! When there are too many, the next start asks one of them to passivate: the one that was used
//! longest ago among a few picked at random, as Redis evicts keys
//! (<https://redis.io/docs/latest/develop/reference/eviction/>). So nothing has to be kept in the
//! order of use, and a command touches one atomic.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use indexmap::IndexMap;

use crate::event::StreamId;

/// How many are looked at to find one that may go.
const SAMPLE: u64 = 8;

/// The live aggregates of a node. Cheap to clone.
#[derive(Debug, Clone)]
pub struct LiveAggregates {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    most: usize,
    live: Mutex<IndexMap<StreamId, Arc<Use>>>,
    /// Counts commands, as a clock that says who was used before whom.
    ticks: AtomicU64,
    passivated: AtomicU64,
    snapshots_discarded: AtomicU64,
}

struct Use {
    at: AtomicU64,
    leaving: AtomicBool,
    /// Asks it to passivate; false if it could not be asked now.
    ask_to_leave: Box<dyn Fn() -> bool + Send + Sync>,
}

impl fmt::Debug for Use {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Use").field("at", &self.at).field("leaving", &self.leaving).finish()
    }
}

impl LiveAggregates {
    /// Room for `most` of them; a few more live for a moment while others end.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self {
            inner: Arc::new(Inner {
                most: most.max(1),
                live: Mutex::default(),
                ticks: AtomicU64::new(0),
                passivated: AtomicU64::new(0),
                snapshots_discarded: AtomicU64::new(0),
            }),
        }
    }

    /// How many are live.
    #[must_use]
    pub fn count(&self) -> usize {
        self.live().len()
    }

    /// How many were asked to make room, so far.
    #[must_use]
    pub fn passivated(&self) -> u64 {
        self.inner.passivated.load(Ordering::Relaxed)
    }

    /// How many snapshots could not be used and were thrown away, so far. Some after a change of
    /// the state's shape are expected; more mean that something else writes them.
    #[must_use]
    pub fn snapshots_discarded(&self) -> u64 {
        self.inner.snapshots_discarded.load(Ordering::Relaxed)
    }

    pub(super) fn snapshot_discarded(&self) {
        self.inner.snapshots_discarded.fetch_add(1, Ordering::Relaxed);
    }

    fn live(&self) -> MutexGuard<'_, IndexMap<StreamId, Arc<Use>>> {
        // Nothing below panics while it holds the lock.
        self.inner.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Enters an aggregate that has just started. `ask_to_leave` asks it to passivate, without
    /// waiting, and says whether it could be asked.
    pub(super) fn enter(
        &self,
        stream: &StreamId,
        ask_to_leave: impl Fn() -> bool + Send + Sync + 'static,
    ) -> Membership {
        let used = Arc::new(Use {
            at: AtomicU64::new(self.tick()),
            leaving: AtomicBool::new(false),
            ask_to_leave: Box::new(ask_to_leave),
        });
        self.live().insert(stream.clone(), Arc::clone(&used));
        Membership { live: self.clone(), stream: stream.clone(), used }
    }

    fn tick(&self) -> u64 {
        self.inner.ticks.fetch_add(1, Ordering::Relaxed)
    }

    /// Asks one to make room for another, if there are too many. It is not waited for: the bound
    /// may be passed by as many as are ending.
    pub(crate) fn make_room(&self) {
        let Some(victim) = self.victim() else { return };
        if (victim.ask_to_leave)() {
            self.inner.passivated.fetch_add(1, Ordering::Relaxed);
        } else {
            victim.leaving.store(false, Ordering::Relaxed);
        }
    }

    fn victim(&self) -> Option<Arc<Use>> {
        let live = self.live();
        if live.len() < self.inner.most {
            return None;
        }
        let size = live.len() as u64;
        let sampled = (0..SAMPLE).filter_map(|_| {
            let at = usize::try_from(scattered(self.tick()) % size).ok()?;
            live.get_index(at).map(|(_, used)| used)
        });
        let staying = sampled.filter(|used| !used.leaving.load(Ordering::Relaxed));
        let victim = staying.min_by_key(|used| used.at.load(Ordering::Relaxed))?;
        victim.leaving.store(true, Ordering::Relaxed);
        Some(Arc::clone(victim))
    }
}

/// SplitMix64 (Steele, Lea and Flood, 2014): counting up in, scattered out. So the picks follow
/// from the order of commands, and a seeded run repeats them.
const fn scattered(n: u64) -> u64 {
    let z = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A live aggregate's place; dropping it gives the place back.
#[derive(Debug)]
pub(super) struct Membership {
    live: LiveAggregates,
    stream: StreamId,
    used: Arc<Use>,
}

impl Membership {
    /// It was used just now.
    pub(super) fn touch(&self) {
        self.used.at.store(self.live.tick(), Ordering::Relaxed);
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        let mut live = self.live.live();
        // The next life may have entered already.
        if live.get(&self.stream).is_some_and(|used| Arc::ptr_eq(used, &self.used)) {
            live.swap_remove(&self.stream);
        }
    }
}
