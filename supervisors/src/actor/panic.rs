//! Catching a panic with its place and its stack.
//!
//! `catch_unwind` gives only the message. Location and backtrace are known to the panic hook
//! alone, so one hook is installed for the process, in front of the one that was there. It keeps
//! a report only for code that runs inside [`catch_panic`], and then calls the earlier hook.

use std::any::Any;
use std::backtrace::Backtrace;
use std::cell::{Cell, RefCell};
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, Once};
use std::task::{Context, Poll};

use crate::actor::current;
use crate::actor::slot::AnySlot;
use crate::error::PanicReport;

#[cfg(panic = "abort")]
compile_error!("panic = \"abort\" ends the process at the first crash: no supervision is possible");

thread_local! {
    static CATCHING: Cell<Catching> = const { Cell::new(Catching::No) };
    static REPORT: RefCell<Option<PanicReport>> = const { RefCell::new(None) };
}

/// What the hook keeps of a panic on this thread.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Catching {
    No,
    /// The stack only if `RUST_BACKTRACE` says so.
    Report,
    WithStack,
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
                    backtrace: match catching {
                        Catching::WithStack => Backtrace::force_capture(),
                        _ => Backtrace::capture(),
                    },
                };
                REPORT.with_borrow_mut(|slot| *slot = Some(report));
            }
            earlier(info);
        }));
    });
}

/// Whose code runs, and what is kept of its panics. A life makes one and hands it on from message
/// to message: counting references for each would cost a cache line that senders read.
pub(crate) struct Who {
    slot: Arc<dyn AnySlot>,
    catching: Catching,
}

impl Who {
    pub(crate) fn new(slot: Arc<dyn AnySlot>) -> Self {
        let stack = slot.cell().env.backtraces;
        let catching = if stack { Catching::WithStack } else { Catching::Report };
        Self { slot, catching }
    }
}

/// Runs a future of the actor `who` and turns a panic in it into a report. While it is polled, the
/// actor is [`current`](crate::actor::current).
pub(crate) fn catch_panic<F: Future>(who: Who, future: F) -> CatchPanic<F> {
    let catching = who.catching;
    CatchPanic { future, who: Some(who.slot), catching }
}

impl<F> CatchPanic<F> {
    /// Gives back whose code it was, when it is done.
    pub(crate) fn into_who(self: Pin<&mut Self>) -> Option<Who> {
        let this = self.project();
        let catching = *this.catching;
        this.who.take().map(|slot| Who { slot, catching })
    }
}

pin_project_lite::pin_project! {
    /// See [`catch_panic`]. Not an `async fn`: that would hold the future twice, once as its
    /// argument, in every actor's memory.
    pub(crate) struct CatchPanic<F> {
        #[pin]
        future: F,
        who: Option<Arc<dyn AnySlot>>,
        catching: Catching,
    }
}

impl<F: Future> Future for CatchPanic<F> {
    type Output = Result<F::Output, Arc<PanicReport>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let future = this.future;
        let outer = CATCHING.replace(*this.catching);
        let outside = current::enter(this.who.take());
        // The future is never polled again after a panic, and the actor it borrowed is dropped
        // with its life: nobody sees the state that the panic left.
        let polled = catch_unwind(AssertUnwindSafe(|| future.poll(cx)));
        *this.who = current::leave(outside);
        CATCHING.set(outer);
        match polled {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(value)) => Poll::Ready(Ok(value)),
            Err(payload) => Poll::Ready(Err(report_of(&*payload))),
        }
    }
}

fn report_of(payload: &(dyn Any + Send)) -> Arc<PanicReport> {
    // No report means that the panic did not pass our hook: `resume_unwind`, or a hook that an
    // application set after us.
    Arc::new(REPORT.take().unwrap_or_else(|| PanicReport {
        message: message_of(payload),
        location: None,
        backtrace: Backtrace::disabled(),
    }))
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
