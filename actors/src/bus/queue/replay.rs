//! A guard at the door of a processor: messages that somebody has overheard and sends again.
//!
//! A queue that delivers a message again counts its deliveries, so a second delivery is none of
//! the guard's business. A message that comes as new, with an id that was settled or is in hand, is
//! a repeat: it is acknowledged and not processed. What was given up unsettled is forgotten, so that
//! it may come as new once more, as it does from a queue that has forgotten its receivers. One whose time is outside the window cannot be judged: it
//! becomes a dead letter, for a person to look at.
//!
//! The guard lives as long as the processor's options, in memory: after the end of the node it
//! knows nothing, and what is older than that is for an inbox to know
//! ([`store::messages`](crate::store::messages)).

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use uuid::Uuid;

use crate::bus::Message;
use crate::event::Timestamp;
use crate::event::flow::{Freshness, ReplayWindow};

/// See the [module](self). Clones share their window.
#[derive(Clone)]
pub struct ReplayGuard(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    window: Mutex<ReplayWindow>,
    repeats: AtomicU64,
    refused: AtomicU64,
}

/// A message that the guard lets through. It is remembered once it is [settled](Self::settled).
#[derive(Debug)]
pub(super) struct Seen {
    id: Uuid,
    guard: Arc<Inner>,
    settled: bool,
}

impl Seen {
    /// From now on it is a repeat.
    pub(super) fn settled(mut self) {
        self.settled = true;
    }
}

impl Drop for Seen {
    fn drop(&mut self) {
        if !self.settled {
            self.guard.window().forget(self.id);
        }
    }
}

/// What is to be done with a message.
#[derive(Debug)]
pub(super) enum Verdict {
    /// Process it, and say when it is settled.
    Process(Seen),
    /// It was seen: leave it.
    Repeat,
    /// Nobody can say: why.
    Refuse(String),
}

impl Inner {
    fn window(&self) -> MutexGuard<'_, ReplayWindow> {
        self.window.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ReplayGuard {
    /// A guard that remembers messages of the last `width`, at most `capacity` of them (some 100
    /// bytes each), for clocks that differ by at most `skew`.
    #[must_use]
    pub fn new(width: Duration, skew: Duration, capacity: usize) -> Self {
        Self(Arc::new(Inner {
            window: Mutex::new(ReplayWindow::new(width, skew, capacity)),
            repeats: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        }))
    }

    /// Messages that came again and were not processed.
    #[must_use]
    pub fn repeats(&self) -> u64 {
        self.0.repeats.load(Ordering::Relaxed)
    }

    /// Messages outside the window, which became dead letters.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.0.refused.load(Ordering::Relaxed)
    }

    pub(super) fn judge(&self, message: &Message, delivered: u64, now: Timestamp) -> Verdict {
        let (id, at) = (*message.id().as_uuid(), message.at());
        let freshness = self.0.window().check(id, at, now);
        // Only who put it there takes it away again.
        let fresh = freshness == Freshness::Fresh;
        let seen = || Seen { id, guard: Arc::clone(&self.0), settled: !fresh };
        match freshness {
            Freshness::Fresh => Verdict::Process(seen()),
            _ if delivered > 1 => Verdict::Process(seen()),
            Freshness::Repeat => {
                self.0.repeats.fetch_add(1, Ordering::Relaxed);
                Verdict::Repeat
            }
            Freshness::TooOld | Freshness::TooNew => {
                self.0.refused.fetch_add(1, Ordering::Relaxed);
                let wrong = if freshness == Freshness::TooOld { "older" } else { "newer" };
                Verdict::Refuse(format!("its time, {at}, is {wrong} than the replay window"))
            }
        }
    }
}

impl fmt::Debug for ReplayGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReplayGuard")
            .field("repeats", &self.repeats())
            .field("refused", &self.refused())
            .finish_non_exhaustive()
    }
}
