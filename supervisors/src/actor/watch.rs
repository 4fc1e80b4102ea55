//! The end of an actor, for those who have to know.

use std::pin::pin;
use std::sync::Arc;

use crate::actor::cell::SlotCell;
use crate::actor::slot::AnySlot;
use crate::error::ExitReason;
use crate::path::Path;

/// How an actor ended: it has no life, and its supervisor will not start another.
///
/// A restart is not an end. A child that was stopped by an operator has ended, also when somebody
/// starts it again later.
#[derive(Clone, Debug)]
pub struct Ended {
    /// Which actor.
    pub path: Path,
    /// Its last life.
    pub life: u64,
    /// What that ended of, or why no other will follow.
    pub reason: ExitReason,
}

/// Waits for the end of what lives in a slot.
pub(crate) async fn ended(slot: Arc<dyn AnySlot>) -> Ended {
    let cell: &SlotCell = slot.cell();
    loop {
        let notify = match cell.ended_or_notify() {
            Ok(ended) => return ended,
            Err(notify) => notify,
        };
        let mut told = pin!(notify.notified());
        // Registered before the second look, so that nothing comes in between.
        told.as_mut().enable();
        if let Ok(ended) = cell.ended_or_notify() {
            return ended;
        }
        told.await;
    }
}
