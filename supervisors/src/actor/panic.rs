//! The process's panic hook, with ours in front of it.
//!
//! `catch_unwind` gives only the message. Location and stack are known to the panic hook alone, so
//! one hook is installed for the process, in front of the one that was there. It keeps a report
//! only for code that runs under a [`Guard`](crate::actor::guard::Guard), and then calls the
//! earlier hook.

use std::any::Any;
use std::backtrace::{Backtrace, BacktraceStatus};
use std::cell::{Cell, RefCell};
use std::fmt;
use std::ops::Deref;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Once};

use crate::actor::stack::Stack;
use crate::error::PanicReport;

#[cfg(panic = "abort")]
compile_error!("panic = \"abort\" ends the process at the first crash: no supervision is possible");

thread_local! {
    static CATCHING: Cell<Catching> = const { Cell::new(Catching::No) };
    static REPORT: RefCell<Option<PanicReport>> = const { RefCell::new(None) };
}

/// What the hook keeps of a panic on this thread.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Catching {
    No,
    /// The stack only if `RUST_BACKTRACE` says so.
    Report,
    WithStack,
}

impl Catching {
    /// From now on on this thread. Returns what was so before.
    pub(crate) fn replace(self) -> Self {
        CATCHING.replace(self)
    }
}

/// Puts our hook in front of the process's panic hook, once.
///
/// The only process-wide thing in the kernel: Rust has one panic hook. It keeps nothing between
/// panics and serves any number of systems.
pub(crate) fn install_hook() {
    static INSTALL: Once = Once::new();
    INSTALL.call_once(|| {
        let earlier = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let catching = CATCHING.get();
            if catching != Catching::No {
                let report = PanicReport {
                    message: message_of(info.payload()),
                    location: info.location().map(ToString::to_string),
                    backtrace: if catching == Catching::WithStack || asked_for() {
                        Stack::capture()
                    } else {
                        Stack::default()
                    },
                };
                let before = REPORT.with_borrow_mut(|slot| slot.replace(report));
                drop(before);
            }
            earlier(info);
        }));
    });
}

/// Whether `RUST_BACKTRACE` asks for stacks.
fn asked_for() -> bool {
    Backtrace::capture().status() == BacktraceStatus::Captured
}

/// What is known of a panic that was caught.
///
/// A report is the panic's only if it says the same: a handler may catch a panic itself, and another
/// may come past our hook (`resume_unwind`).
pub(crate) fn report_of(payload: Box<dyn Any + Send>) -> Arc<PanicReport> {
    // Before the payload is dropped: that may panic in its turn.
    let known = REPORT.take();
    let message = said(payload);
    let known = known.filter(|report| report.message == message);
    Arc::new(known.unwrap_or_else(|| PanicReport {
        message,
        location: None,
        backtrace: Stack::default(),
    }))
}

/// What a panic said, of a payload that nobody else wants.
pub(crate) fn said(payload: Box<dyn Any + Send>) -> String {
    let message = message_of(&*payload);
    // A payload is anything, and so is its drop.
    drop(Theirs::new(payload));
    message
}

fn message_of(payload: &(dyn Any + Send)) -> String {
    if let Some(text) = payload.downcast_ref::<&str>() {
        (*text).to_owned()
    } else if let Some(text) = payload.downcast_ref::<String>() {
        text.clone()
    } else {
        "a panic without a message".to_owned()
    }
}

/// Runs code of the application that does not belong to an actor. A panic in it is logged, and
/// nobody else's.
pub(crate) fn caught<T>(what: &'static str, run: impl FnOnce() -> T) -> Option<T> {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(done) => Some(done),
        Err(payload) => {
            tracing::error!(
                what,
                panic = message_of(&*payload),
                "code of the application panicked"
            );
            // The payload is the application's too.
            if catch_unwind(AssertUnwindSafe(|| drop(payload))).is_err() {
                tracing::error!(what, "and so did what it panicked with");
            }
            None
        }
    }
}

/// Something of the application's that the kernel shares out: whoever lets go of it last, a
/// supervisor perhaps, is not hurt by a panic in its drop.
pub(crate) struct Theirs<T>(Option<T>);

impl<T> Theirs<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(Some(value))
    }
}

impl<T> Deref for Theirs<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.0.as_ref().expect("it is there until it is dropped")
    }
}

impl<T> Drop for Theirs<T> {
    fn drop(&mut self) {
        if std::mem::needs_drop::<T>() {
            let value = self.0.take();
            caught("drop", || drop(value));
        }
    }
}

impl<T: fmt::Debug> fmt::Debug for Theirs<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}
