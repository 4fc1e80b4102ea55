//! Which actor runs on this thread: set while its life is polled, so that a message it sends and a
//! question it asks know where they come from.
//!
//! Setting and reading it costs a thread-local each, and no look-up.

use std::cell::RefCell;
use std::sync::Arc;

use crate::actor::slot::AnySlot;
use crate::path::Path;

thread_local! {
    static CURRENT: RefCell<Option<Arc<dyn AnySlot>>> = const { RefCell::new(None) };
}

/// From now on `who` runs on this thread. Returns who did before, for [`leave`].
pub(crate) fn enter(who: Option<Arc<dyn AnySlot>>) -> Option<Arc<dyn AnySlot>> {
    CURRENT.try_with(|current| current.replace(who)).unwrap_or(None)
}

/// It does not any more. Returns what was entered.
pub(crate) fn leave(outside: Option<Arc<dyn AnySlot>>) -> Option<Arc<dyn AnySlot>> {
    enter(outside)
}

/// The slot of the actor that runs on this thread now; `None` in a task that is no actor's.
pub(crate) fn slot() -> Option<Arc<dyn AnySlot>> {
    look(Arc::clone)
}

/// The path of the actor that runs now.
pub(crate) fn path() -> Option<Path> {
    look(|slot| slot.cell().path.clone())
}

fn look<T>(at: impl FnOnce(&Arc<dyn AnySlot>) -> T) -> Option<T> {
    // A thread that is being torn down runs nobody.
    CURRENT.try_with(|current| current.borrow().as_ref().map(at)).unwrap_or(None)
}
