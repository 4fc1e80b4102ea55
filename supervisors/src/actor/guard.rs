//! The guard around everything that belongs to an actor's author.
//!
//! Under a guard a panic becomes a report, a kill takes effect at the next poll, the actor is
//! [`current`], and ports that are dropped unanswered are collected. No code of an actor (its
//! futures, its drop, its hooks) runs outside one.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use crate::actor::current;
use crate::actor::panic::{Catching, report_of};
use crate::actor::reply::Settled;
use crate::actor::reply::unanswered::{self, Unanswered};
use crate::actor::slot::AnySlot;
use crate::error::PanicReport;

/// Whose code runs, and what is kept of its panics.
pub(crate) struct Guard {
    /// Away while the code runs: then it is the current one of the thread.
    slot: Option<Arc<dyn AnySlot>>,
    life: u64,
    catching: Catching,
    unanswered: Unanswered,
}

/// How guarded code ended.
pub(crate) enum Outcome<T> {
    Done(T),
    Panicked(Arc<PanicReport>),
    Killed,
}

impl Guard {
    pub(crate) fn new(slot: Arc<dyn AnySlot>, life: u64) -> Self {
        let stack = slot.cell().env.backtraces;
        let catching = if stack { Catching::WithStack } else { Catching::Report };
        Self { slot: Some(slot), life, catching, unanswered: Vec::new() }
    }

    /// Runs a future of the actor, until it is done, panics, or its life is killed.
    pub(crate) fn run<F: Future>(&mut self, future: F) -> Guarded<'_, F> {
        Guarded { future: Some(future), guard: self, immune: false }
    }

    /// The same for a future that a kill does not end: it belongs to no life.
    pub(crate) fn shield<F: Future>(&mut self, future: F) -> Guarded<'_, F> {
        Guarded { future: Some(future), guard: self, immune: true }
    }

    /// Runs code of the actor that does not wait.
    pub(crate) fn within<R>(&mut self, run: impl FnOnce() -> R) -> Result<R, Arc<PanicReport>> {
        let catching = self.catching.replace();
        let outside = current::enter(self.slot.take());
        let collected = unanswered::enter(std::mem::take(&mut self.unanswered));
        // What panicked is never run again, and dropped with its life: nobody sees the state that
        // the panic left.
        let done = catch_unwind(AssertUnwindSafe(run));
        self.unanswered = unanswered::leave(collected);
        self.slot = current::leave(outside);
        catching.replace();
        done.map_err(report_of)
    }

    /// Tells the askers of all ports that were dropped unanswered so far.
    pub(crate) fn settle(&mut self, outcome: &Settled) {
        if !self.unanswered.is_empty() {
            unanswered::settle(&std::mem::take(&mut self.unanswered), outcome);
        }
    }

    /// Tells them what the end of the life leaves to say, or that nobody answers though it lives.
    pub(crate) fn settle_by_fate(&mut self) {
        let Some(slot) = self.slot.as_ref().filter(|_| !self.unanswered.is_empty()) else { return };
        let outcome = slot.cell().end_of(self.life).map_or(Settled::NoReply, Settled::Ended);
        self.settle(&outcome);
    }

    fn is_killed(&self) -> bool {
        self.slot.as_ref().is_some_and(|slot| slot.cell().gate.is_killed(self.life))
    }
}

pin_project_lite::pin_project! {
    /// See [`Guard::run`]. Not an `async fn`: that would hold the future twice, once as its
    /// argument, in every actor's memory.
    pub(crate) struct Guarded<'a, F> {
        #[pin]
        future: Option<F>,
        guard: &'a mut Guard,
        immune: bool,
    }

    impl<F> PinnedDrop for Guarded<'_, F> {
        /// Cut off: a helper with its life, or a life with its runtime.
        fn drop(this: Pin<&mut Self>) {
            let mut this = this.project();
            if this.future.is_some() {
                if let Err(panic) = this.guard.within(|| this.future.set(None)) {
                    tracing::error!(%panic, "code of an actor panicked when it was cut off");
                }
                this.guard.settle_by_fate();
            }
        }
    }
}

impl<F: Future> Future for Guarded<'_, F> {
    type Output = Outcome<F::Output>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        if !*this.immune && this.guard.is_killed() {
            let future = &mut this.future;
            return match this.guard.within(|| future.set(None)) {
                Ok(()) => Poll::Ready(Outcome::Killed),
                Err(report) => Poll::Ready(Outcome::Panicked(report)),
            };
        }
        let future = &mut this.future;
        let polled = this.guard.within(|| match future.as_mut().as_pin_mut() {
            Some(future) => future.poll(cx),
            None => Poll::Pending,
        });
        let outcome = match polled {
            Ok(Poll::Pending) => return Poll::Pending,
            Ok(Poll::Ready(value)) => Outcome::Done(value),
            Err(report) => Outcome::Panicked(report),
        };
        // Dropped under the guard as well: what is left of it is the actor's.
        match this.guard.within(|| future.set(None)) {
            Ok(()) => Poll::Ready(outcome),
            Err(report) => Poll::Ready(Outcome::Panicked(report)),
        }
    }
}
