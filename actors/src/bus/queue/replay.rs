//! A guard at the door of a processor: messages that somebody has overheard and sends again.
//!
//! A queue that delivers a message again counts its deliveries, so a second delivery is none of
//! the guard's business. A message that comes as new, with an id that was seen, is a repeat: it is
//! acknowledged and not processed. One whose time is outside the window cannot be judged: it
//! becomes a dead letter, for a person to look at.
//!
//! The guard lives as long as the processor's options, in memory: after the end of the node it
//! knows nothing, and what is older than that is for an inbox to know
//! ([`store::messages`](crate::store::messages)).

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::bus::Message;
use crate::event::Timestamp;
use crate::event::flow::{Freshness, ReplayWindow};

/// See the [module](self). Clones share their window.
#[derive(Clone)]
pub struct ReplayGuard(Arc<Inner>);

struct Inner {
    window: Mutex<ReplayWindow>,
    repeats: AtomicU64,
    refused: AtomicU64,
}

/// What is to be done with a message.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Process it.
    Process,
    /// It was seen: leave it.
    Repeat,
    /// Nobody can say: why.
    Refuse(String),
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
        if delivered > 1 {
            return Verdict::Process;
        }
        let (id, at) = (*message.id().as_uuid(), message.at());
        let mut window = self.0.window.lock().unwrap_or_else(PoisonError::into_inner);
        let freshness = window.check(id, at, now);
        drop(window);
        match freshness {
            Freshness::Fresh => Verdict::Process,
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
