//! When a receiver removes what was handled: now and then, and outside of acknowledgements.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// How often, as long as something was handled.
const EVERY: Duration = Duration::from_secs(5);

pub(super) struct Upkeep {
    /// Settled for good since the last time.
    settled: AtomicU64,
    last: Mutex<Instant>,
}

impl Upkeep {
    pub(super) fn new() -> Self {
        Self { settled: AtomicU64::new(0), last: Mutex::new(Instant::now()) }
    }

    pub(super) fn settled(&self) {
        self.settled.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether it is time; one caller hears so.
    pub(super) fn is_due(&self) -> bool {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let due = last.elapsed() >= EVERY && self.settled.swap(0, Ordering::Relaxed) > 0;
        if due {
            *last = Instant::now();
        }
        due
    }
}
