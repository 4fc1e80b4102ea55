//! What became of a handler's messages, for those who look.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::event::{EventId, Position};

/// What all lives of a handler's actor count.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) acked: AtomicU64,
    pub(crate) retried: AtomicU64,
    pub(crate) dead: AtomicU64,
    /// Given up, and no dead letter either: its office refused it for good.
    pub(crate) refused: AtomicU64,
    trouble: Mutex<Option<Trouble>>,
}

/// What is tried again, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Trouble {
    pub(crate) message: EventId,
    pub(crate) position: Option<Position>,
    pub(crate) reason: String,
}

impl Counts {
    pub(crate) fn add(count: &AtomicU64) {
        count.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn trouble(&self) -> Option<Trouble> {
        self.locked().clone()
    }

    pub(super) fn set_trouble(&self, trouble: Trouble) {
        *self.locked() = Some(trouble);
    }

    /// The trouble with this message is over.
    pub(super) fn clear_trouble(&self, message: EventId) {
        let mut trouble = self.locked();
        if trouble.as_ref().is_some_and(|one| one.message == message) {
            *trouble = None;
        }
    }

    fn locked(&self) -> MutexGuard<'_, Option<Trouble>> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
