//! A supervised future: a child without a mailbox.
//!
//! It is started, restarted, backed off and given up like any child; its life is the future.

use std::any::TypeId;
use std::convert::Infallible;
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;

use tokio::sync::Notify;

use crate::actor::Address;
use crate::actor::cell::{Running, SlotCell};
use crate::actor::gate::Sign;
use crate::actor::guard::{Guard, Outcome};
use crate::actor::life::{Report, acquire};
use crate::actor::panic::Theirs;
use crate::actor::reply::Settled;
use crate::actor::short_type_name;
use crate::actor::slot::{AnySlot, OnCrashOf, Overflow, Slot};
use crate::actor::state::{SlotInfo, SlotKind};
use crate::environment::{Clock, Environment, spawn};
use crate::error::{ExitReason, Failure, LookupError, SpecError};
use crate::health::Health;
use crate::path::Path;
use crate::supervisor::SupervisorRef;
use crate::supervisor::child::{ChildFactory, StartContext};
use crate::supervisor::policy::Policies;
use crate::supervisor::spec::ChildSpec;
use crate::tree::TreeRoot;

/// A task's messages: it takes none.
type Never = Infallible;

/// What a supervised task knows of its place.
#[derive(Clone)]
pub struct TaskContext {
    slot: Arc<Slot<Never>>,
    root: TreeRoot,
    supervisor: SupervisorRef,
    life: u64,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    /// The task wants to be told to stop, and ends by itself.
    asked: AtomicBool,
    stop: Notify,
}

impl TaskContext {
    /// Where the task stands in the tree.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.slot.cell.path
    }

    /// Which life this is: 1, and one more for every start after it.
    #[must_use]
    pub fn life(&self) -> u64 {
        self.life
    }

    /// Waits until the task is told to stop. A task that never asks is cut off at its next `await`
    /// when it is stopped; one that has asked has the shutdown time of its spec to end by itself.
    ///
    /// # Cancel safety
    /// Nothing is lost by dropping it.
    pub async fn stopping(&self) {
        self.shared.asked.store(true, Ordering::SeqCst);
        loop {
            let mut told = pin!(self.shared.stop.notified());
            told.as_mut().enable();
            if self.slot.cell.gate.is_ending(self.life) {
                return;
            }
            told.await;
        }
    }

    /// Says how it is, for the health checks of its spec ([`ChildSpec::health`]).
    pub fn set_health(&self, health: Health) {
        self.slot.cell.report_health(self.life, health);
    }

    /// The supervisor of this task.
    #[must_use]
    pub fn supervisor(&self) -> &SupervisorRef {
        &self.supervisor
    }

    /// Finds an actor of this system.
    ///
    /// # Errors
    /// Nothing lives there, or it takes other messages.
    pub fn find<M: Send + 'static>(&self, path: &str) -> Result<Address<M>, LookupError> {
        self.root.address(&Path::parse(path))
    }

    /// What the tree shows beside this task. See [`Context::describe`](crate::Context::describe).
    pub fn describe(&self, status: impl Fn() -> String + Send + Sync + 'static) {
        self.slot.cell.set_status(Arc::new(status));
    }

    /// The system's clock.
    #[must_use]
    pub fn clock(&self) -> Clock {
        self.slot.cell.env.clock
    }
}

impl fmt::Debug for TaskContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskContext").field("path", self.path()).field("life", &self.life).finish()
    }
}

/// A child that is a future, made afresh for each life.
pub(crate) struct TaskChild<F>(Arc<Theirs<F>>);

impl<F> TaskChild<F> {
    pub(crate) fn new(make: F) -> Self {
        Self(Arc::new(Theirs::new(make)))
    }
}

impl<F, T> ChildFactory for TaskChild<F>
where
    F: Fn(TaskContext) -> T + Send + Sync + 'static,
    T: Future<Output = Result<(), Failure>> + Send + 'static,
{
    fn check(&self, spec: &ChildSpec, _: &Policies) -> Result<(), SpecError> {
        spec.has_no_mailbox("a task")
    }

    fn kind(&self) -> SlotKind {
        SlotKind::Task
    }

    fn message_type(&self) -> Option<(TypeId, &'static str)> {
        None
    }

    fn slot(&self, spec: &ChildSpec, path: Path, env: &Arc<Environment>) -> Arc<dyn AnySlot> {
        let info = SlotInfo {
            kind: SlotKind::Task,
            component: spec.metadata.component_type,
            actor_type: short_type_name::<F>(),
            message_type: "(task)",
        };
        let cell = SlotCell::new(path, info, Arc::clone(env));
        let on_crash = OnCrashOf { copy: None, max_attempts: 1 };
        let never: fn(&Never) -> &'static str = |never| match *never {};
        Arc::new(Slot::<Never>::new(cell, (1, Overflow::Fail), on_crash, false, never))
    }

    fn fits(&self, slot: &Arc<dyn AnySlot>) -> bool {
        slot.cell().info.kind == SlotKind::Task
    }

    fn start(&self, slot: Arc<dyn AnySlot>, at: StartContext) {
        let env = Arc::clone(&slot.cell().env);
        let report = Report::new(at.parent.clone(), at.key, at.life);
        if let Ok(slot) = slot.as_any().downcast::<Slot<Never>>() {
            spawn(&env, run(Arc::clone(&self.0), slot, at, report));
        }
    }
}

async fn run<F, T>(
    make: Arc<Theirs<F>>,
    slot: Arc<Slot<Never>>,
    at: StartContext,
    mut report: Report,
) where
    F: Fn(TaskContext) -> T,
    T: Future<Output = Result<(), Failure>>,
{
    let life = at.life;
    poll_fn(|cx| {
        slot.cell.register(life, cx.waker());
        Poll::Ready(())
    })
    .await;
    let mut guard = Guard::new(Arc::clone(&slot) as Arc<dyn AnySlot>, life);
    let Some(token) = acquire(&slot, life, &mut guard).await else { return };
    let shared = Arc::<Shared>::default();
    let context = TaskContext {
        slot: Arc::clone(&slot),
        root: at.root,
        supervisor: at.supervisor,
        life,
        shared: Arc::clone(&shared),
    };
    slot.cell.up(life, Running::Life);
    report.up();
    let outcome = guard
        .run(async {
            let mut future = pin!(make(context));
            let mut told = false;
            poll_fn(|cx| {
                if slot.cell.gate.sign(life) == Sign::Stop && !std::mem::replace(&mut told, true) {
                    shared.stop.notify_waiters();
                }
                match future.as_mut().poll(cx) {
                    Poll::Ready(done) => Poll::Ready(Some(done)),
                    Poll::Pending if told && !shared.asked.load(Ordering::SeqCst) => {
                        Poll::Ready(None)
                    }
                    Poll::Pending => Poll::Pending,
                }
            })
            .await
        })
        .await;
    let stopped = slot.cell.gate.is_ending(life);
    let reason = match outcome {
        Outcome::Done(None) => ExitReason::Shutdown,
        Outcome::Done(Some(Ok(()))) if stopped => ExitReason::Shutdown,
        Outcome::Done(Some(Ok(()))) => ExitReason::Normal,
        Outcome::Done(Some(Err(failure))) => ExitReason::Error(failure),
        Outcome::Panicked(panic) => ExitReason::Panic(panic),
        Outcome::Killed => slot.cell.exit_of(life).unwrap_or(ExitReason::Killed),
    };
    slot.cell.correct_exit(life, reason.clone());
    guard.settle(&Settled::Ended(reason.clone()));
    // With it goes what the task has said of itself.
    if let Err(panic) = guard.within(|| drop(token)) {
        tracing::error!(%panic, "dropping a task's description panicked");
    }
    report.end(reason);
}
