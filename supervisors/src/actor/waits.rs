//! Whom an actor waits for: said by its slot while it is in an `ask` that is not answered at once.

use std::sync::Arc;
use std::time::Duration;

use crate::actor::slot::AnySlot;
use crate::path::Path;

/// One unanswered question of an actor.
#[derive(Clone, Debug)]
pub(crate) struct Wait {
    pub(crate) id: u64,
    pub(crate) on: Path,
    pub(crate) message: &'static str,
    pub(crate) since: Duration,
}

impl Wait {
    pub(crate) fn view(&self, now: Duration) -> WaitView {
        let waiting = now.saturating_sub(self.since);
        WaitView { on: self.on.clone(), message: self.message, waiting }
    }
}

/// What an actor waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WaitView {
    /// Whose answer.
    pub on: Path,
    /// To which message.
    pub message: &'static str,
    /// For how long.
    pub waiting: Duration,
}

/// Takes the wait back when the question is answered, or given up.
pub(crate) struct Waiting {
    slot: Arc<dyn AnySlot>,
    id: u64,
}

impl Waiting {
    /// The actor in `slot` waits for the answer of `on`.
    pub(crate) fn begin(slot: Arc<dyn AnySlot>, on: Path, message: &'static str) -> Self {
        let since = slot.cell().env.clock.elapsed();
        let id = slot.cell().begin_wait(on, message, since);
        Self { slot, id }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.slot.cell().end_wait(self.id);
    }
}
