//! The actor: a value that handles one message at a time, under a supervisor.
//!
//! ```text
//! Address ──▶ Slot: path, mailbox, statistics        stays
//!               └─ Life 1, Life 2, …: your Actor     comes and goes
//! ```
//!
//! An [`Address`] points at the slot, so it outlives every crash. Messages that wait survive it
//! too; only the one in hand is lost, and it becomes a [`DeadLetter`] (or is handed to the next
//! life, if the spec says so).

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

pub use address::{Address, DEFAULT_ASK_DEADLINE, KillHandle, Offered};
pub use dead_letter::{DeadLetter, DeadLetterCause, DeadLetters};
pub use kinds::MessageView;
pub use mailbox::{DEFAULT_CAPACITY, DEFAULT_SEND_DEADLINE, Overflow};
pub use recorder::{Handled, RECORDER_LENGTH, Recorded};
pub use reply::ReplyPort;
pub use slot::{FAILURES_KEPT, FailureRecord, SlotKind, SlotState};
pub use stats::{HandlingView, LATENCY_BUCKETS_NS, MAX_MESSAGE_KINDS};
pub use waits::WaitView;

use crate::actor::slot::{AnySlot, Slot};
use crate::environment::Clock;
use crate::error::{ExitReason, Failure, LookupError, StartError};
use crate::path::Path;
use crate::supervisor::SupervisorRef;
use crate::tree::TreeRoot;

pub(crate) mod address;
pub(crate) mod current;
mod dead_letter;
mod kinds;
pub(crate) mod life;
pub(crate) mod mailbox;
pub(crate) mod panic;
mod recorder;
pub(crate) mod reply;
pub(crate) mod slot;
mod stats;
#[cfg(test)]
mod tests;
mod token;
mod waits;

/// Something that lives under a supervisor and handles one message at a time.
///
/// `start` makes the private state from arguments that every restart reuses; `handle` changes it;
/// `stop` says goodbye. Return an error from `handle` when the state may be wrong: the actor ends
/// and its supervisor decides. Answer the sender (through a [`ReplyPort`] in the message) when
/// the sender can act.
///
/// ```
/// use mister_smith_supervisors::{Actor, Context, Failure, StartError};
///
/// struct Counter(u64);
///
/// impl Actor for Counter {
///     type Message = u64;
///     type Args = ();
///
///     async fn start(_: &(), _: &mut Context<Self>) -> Result<Self, StartError> {
///         Ok(Self(0))
///     }
///
///     async fn handle(&mut self, add: u64, _: &mut Context<Self>) -> Result<(), Failure> {
///         self.0 = self.0.checked_add(add).ok_or(Failure::permanent("overflow"))?;
///         Ok(())
///     }
/// }
/// ```
pub trait Actor: Sized + Send + 'static {
    /// What it can be told.
    type Message: Send + 'static;
    /// What every fresh start is given. Cheap to clone; kept by the supervisor.
    type Args: Clone + Send + Sync + 'static;

    /// Makes the state of a new life. The supervisor waits for it, up to the start deadline,
    /// before it starts the next child.
    ///
    /// # Errors
    /// [`StartError::Ignore`] leaves the slot without a life; anything else is a failed start,
    /// which counts as a restart when it is one.
    fn start(
        args: &Self::Args,
        cx: &mut Context<Self>,
    ) -> impl Future<Output = Result<Self, StartError>> + Send;

    /// Handles one message.
    ///
    /// # Errors
    /// An error ends this life; the supervisor decides what comes next.
    ///
    /// # Cancel safety
    /// A kill drops the future at its next `await`. What must not be half done belongs behind one
    /// `await`, or into another actor.
    fn handle(
        &mut self,
        message: Self::Message,
        cx: &mut Context<Self>,
    ) -> impl Future<Output = Result<(), Failure>> + Send;

    /// Says goodbye: called when a life ends in order, never after an error, a panic or a kill.
    fn stop(
        &mut self,
        _why: &ExitReason,
        _cx: &mut Context<Self>,
    ) -> impl Future<Output = ()> + Send {
        async {}
    }

    /// A short name for a message, shown while it is in hand and after a crash.
    fn message_name(_message: &Self::Message) -> &'static str {
        short_type_name::<Self::Message>()
    }
}

/// The last part of a type's path: `mailbox::Message` for `a::b::mailbox::Message`. Of a generic
/// type without what it is made of: `actor::Message` for `a::actor::Message<a::b::C>`.
pub(crate) fn short_type_name<T: ?Sized>() -> &'static str {
    let name = std::any::type_name::<T>();
    let name = name.split('<').next().unwrap_or(name);
    let mut parts = name.rmatch_indices("::");
    match (parts.next(), parts.next()) {
        (Some(_), Some((second, _))) => &name[second + 2..],
        _ => name,
    }
}

/// What an actor knows about where and when it lives.
pub struct Context<A: Actor> {
    slot: Arc<Slot<A::Message>>,
    root: TreeRoot,
    supervisor: SupervisorRef,
    life: u64,
    /// In a mutex only so that a context can be shared across an `await`.
    handover: Mutex<Option<Box<dyn Any + Send>>>,
    pub(crate) ending: Option<ExitReason>,
}

impl<A: Actor> Context<A> {
    pub(crate) fn new(
        slot: Arc<Slot<A::Message>>,
        root: TreeRoot,
        supervisor: SupervisorRef,
        life: u64,
    ) -> Self {
        let handover = Mutex::new(slot.cell.take_handover());
        Self { slot, root, supervisor, life, handover, ending: None }
    }

    /// This actor's own address.
    #[must_use]
    pub fn address(&self) -> Address<A::Message> {
        Address::new(Arc::clone(&self.slot))
    }

    /// Where this actor stands in the tree.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.slot.cell.path
    }

    /// Which life this is: 1, and one more for every start after it.
    #[must_use]
    pub fn life(&self) -> u64 {
        self.life
    }

    /// The supervisor of this actor. What a stopping actor asks of the supervisor that stops it
    /// fails at once with [`SupervisorError::Stopping`](crate::SupervisorError::Stopping).
    #[must_use]
    pub fn supervisor(&self) -> &SupervisorRef {
        &self.supervisor
    }

    /// Finds another actor of this system.
    ///
    /// # Errors
    /// Nothing lives there, or it takes other messages.
    pub fn find<M: Send + 'static>(&self, path: &str) -> Result<Address<M>, LookupError> {
        self.root.address(&Path::parse(path))
    }

    /// Finds a supervisor of this system.
    ///
    /// # Errors
    /// Nothing lives there, or it is no supervisor.
    pub fn find_supervisor(&self, path: &str) -> Result<SupervisorRef, LookupError> {
        self.root.supervisor(&Path::parse(path))
    }

    /// The system's clock.
    #[must_use]
    pub fn clock(&self) -> Clock {
        self.slot.cell.env.clock
    }

    /// When the message in hand was taken out of the mailbox: wall clock, microseconds since the
    /// Unix epoch. The actor's statistics need it anyway, so it costs nothing.
    #[must_use]
    pub fn taken_at_us(&self) -> i64 {
        let cell = &self.slot.cell;
        match cell.stats.in_hand_since_ns() {
            Some(ns) => cell.env.clock.wall_at(Duration::from_nanos(ns)),
            None => cell.env.clock.wall_us(),
        }
    }

    /// A random number from the system's seeded generator.
    #[must_use]
    pub fn random_u64(&self) -> u64 {
        use rand::Rng;
        self.slot.cell.env.random(|rng| rng.next_u64())
    }

    /// What the life before this one left in
    /// [`prepare_for_restart`](crate::SupervisedComponent::prepare_for_restart), once.
    pub fn take_handover<T: 'static>(&mut self) -> Option<T> {
        let handover = self.handover.get_mut().unwrap_or_else(PoisonError::into_inner);
        match handover.take()?.downcast::<T>() {
            Ok(value) => Some(*value),
            Err(other) => {
                *handover = Some(other);
                None
            }
        }
    }

    /// Ends this life, in order, once the message in hand is handled.
    pub fn stop(&mut self) {
        self.ending = Some(ExitReason::Normal);
    }

    /// Ends this life in order with the reason `Shutdown`, which counts as normal too.
    pub fn shut_down(&mut self) {
        self.ending = Some(ExitReason::Shutdown);
    }

    /// What the tree shows beside this actor, such as `1/5 in use`. The closure runs only when
    /// somebody looks, on the thread of whoever looks: read atomics, do not block.
    pub fn describe(&self, status: impl Fn() -> String + Send + Sync + 'static) {
        self.slot.cell.set_status(Arc::new(status));
    }

    /// Runs `wait` without stopping the actor, and tells the actor what it returned.
    ///
    /// The task belongs to this life: it is aborted when the returned guard is dropped.
    #[must_use = "the task is aborted when its guard is dropped"]
    pub fn spawn_tell<F>(&self, wait: F) -> TaskGuard
    where
        F: Future<Output = A::Message> + Send + 'static,
    {
        let address = self.address();
        TaskGuard::spawn(async move {
            let message = wait.await;
            let _ = address.tell(message).await;
        })
    }

    /// Tells the actor `message` after `delay`, unless the guard is dropped before.
    #[must_use = "the timer stops when its guard is dropped"]
    pub fn tell_after(&self, delay: Duration, message: A::Message) -> TaskGuard {
        self.spawn_tell(async move {
            tokio::time::sleep(delay).await;
            message
        })
    }
}

impl<A: Actor> fmt::Debug for Context<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context").field("path", self.path()).field("life", &self.life).finish()
    }
}

/// A task that ends with its owner: dropping the guard aborts it.
#[derive(Debug)]
pub struct TaskGuard(tokio::task::JoinHandle<()>);

impl TaskGuard {
    /// Starts a task that lives no longer than the guard.
    #[must_use]
    pub fn spawn(future: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(tokio::spawn(future))
    }
}

impl Drop for TaskGuard {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Casts a slot to the address of the message type it takes.
pub(crate) fn typed<M: Send + 'static>(
    slot: Arc<dyn AnySlot>,
    path: &Path,
) -> Result<Address<M>, LookupError> {
    let actual = slot.cell().info.message_type;
    slot.as_any().downcast::<Slot<M>>().map(Address::new).map_err(|_| LookupError::WrongType {
        path: path.clone(),
        actual,
        wanted: short_type_name::<M>(),
    })
}
