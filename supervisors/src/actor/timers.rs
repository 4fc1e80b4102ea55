//! Tasks and timers that belong to a life.
//!
//! A helper task ends with its guard, and with its life at the latest. A panic in it fails the life
//! that it works for: nobody else would hear of it.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::task::AbortHandle;

use crate::actor::address::Address;
use crate::actor::guard::{Guard, Outcome};
use crate::actor::panic::caught;
use crate::actor::reply::Settled;
use crate::actor::slot::{AnySlot, Entry, Extra, Slot};
use crate::environment::{spawn, spawn_on};
use crate::error::ExitReason;

/// A task that ends with its owner: dropping the guard aborts it.
///
/// Where it was made by a [`Context`](crate::Context), a panic in it fails the life. One made by
/// [`TaskGuard::spawn`] belongs to nobody, and its panic is only logged.
#[must_use = "the task is aborted when its guard is dropped"]
pub struct TaskGuard {
    task: AbortHandle,
    armed: Option<Arc<Armed>>,
}

impl TaskGuard {
    /// Starts a task that lives no longer than the guard, outside of any actor. Inside one,
    /// [`Context::spawn_guard`](crate::Context::spawn_guard) is better.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn spawn(future: impl Future<Output = ()> + Send + 'static) -> Self {
        let future = async move {
            let mut future = std::pin::pin!(future);
            let run = std::future::poll_fn(|cx| {
                caught("a task without an actor", || future.as_mut().poll(cx))
                    .unwrap_or(std::task::Poll::Ready(()))
            });
            run.await;
        };
        let task = spawn_on(&tokio::runtime::Handle::current(), future).abort_handle();
        Self { task, armed: None }
    }

    /// A task of the life that `slot` is in.
    pub(crate) fn of_life(
        slot: Arc<dyn AnySlot>,
        life: u64,
        future: impl Future<Output = ()> + Send + 'static,
    ) -> Self {
        let env = Arc::clone(&slot.cell().env);
        let task = spawn(&env, async move {
            let mut guard = Guard::new(Arc::clone(&slot), life);
            let outcome = guard.shield(future).await;
            if let Outcome::Panicked(report) = outcome {
                let reason = ExitReason::Panic(report);
                guard.settle(&Settled::Ended(reason.clone()));
                slot.cell().fail_life(life, reason);
            }
            guard.settle_by_fate();
        });
        Self { task: task.abort_handle(), armed: None }
    }

    /// Whether the task has ended.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.task.is_finished()
    }

    /// Whether nothing will come of it any more: a timer's message waits for longer than its task.
    pub(crate) fn is_over(&self) -> bool {
        match &self.armed {
            Some(armed) if armed.once => armed.over.load(Ordering::Acquire),
            _ => self.is_finished(),
        }
    }
}

impl Drop for TaskGuard {
    fn drop(&mut self) {
        if let Some(armed) = &self.armed {
            armed.cancelled.store(true, Ordering::Release);
        }
        self.task.abort();
    }
}

impl fmt::Debug for TaskGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskGuard").field("finished", &self.is_finished()).finish()
    }
}

/// What a timer's messages carry: they mean nothing once the timer is cancelled, nor to another
/// life.
#[derive(Debug)]
pub(crate) struct Armed {
    life: u64,
    cancelled: AtomicBool,
    /// A message of this timer waits in the mailbox.
    waits: AtomicBool,
    /// It has but one message.
    once: bool,
    /// That one has left the mailbox.
    over: AtomicBool,
}

impl Armed {
    fn new(life: u64, once: bool) -> Arc<Self> {
        let [cancelled, waits, over] = std::array::from_fn(|_| AtomicBool::new(false));
        Arc::new(Self { life, cancelled, waits, once, over })
    }

    /// Whether the message is still meant for life `life`. It has left the mailbox.
    pub(crate) fn take(&self, life: u64) -> bool {
        self.left();
        self.life == life && !self.cancelled.load(Ordering::Acquire)
    }

    /// The message has left the mailbox, or found no place in it.
    pub(crate) fn left(&self) {
        self.waits.store(false, Ordering::Release);
        self.over.store(self.once, Ordering::Release);
    }
}

fn entry<M>(message: M, armed: &Arc<Armed>) -> Entry<M> {
    let extra = Extra { armed: Some(Arc::clone(armed)), ..Extra::default() };
    Entry { message, extra: Some(Box::new(extra)) }
}

/// Tells the actor `message` when `wait` is over, unless the guard is dropped before the message is
/// handled.
pub(crate) fn after<M: Send + 'static>(
    slot: &Arc<Slot<M>>,
    life: u64,
    wait: impl Future<Output = ()> + Send + 'static,
    message: M,
) -> TaskGuard {
    let armed = Armed::new(life, true);
    let (address, mine) = (Address::new(Arc::clone(slot)), Arc::clone(&armed));
    let future = async move {
        wait.await;
        address.deliver(entry(message, &mine)).await;
    };
    let slot = Arc::clone(slot) as Arc<dyn AnySlot>;
    TaskGuard::of_life(slot, life, future).armed(armed)
}

/// Tells the actor a message every `period`. A tick that is due while the one before still waits in
/// the mailbox is left out.
pub(crate) fn every<M: Send + 'static>(
    slot: &Arc<Slot<M>>,
    life: u64,
    period: Duration,
    mut message: impl FnMut() -> M + Send + 'static,
) -> TaskGuard {
    let armed = Armed::new(life, false);
    let (address, mine) = (Address::new(Arc::clone(slot)), Arc::clone(&armed));
    let future = async move {
        let mut ticks = tokio::time::interval(period.max(Duration::from_micros(1)));
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        // The first tick of tokio's is at once.
        ticks.tick().await;
        loop {
            ticks.tick().await;
            if !mine.waits.swap(true, Ordering::AcqRel) {
                address.deliver(entry(message(), &mine)).await;
            }
        }
    };
    let slot = Arc::clone(slot) as Arc<dyn AnySlot>;
    TaskGuard::of_life(slot, life, future).armed(armed)
}

impl TaskGuard {
    fn armed(mut self, armed: Arc<Armed>) -> Self {
        self.armed = Some(armed);
        self
    }
}
