//! The actor: a value that handles one message at a time, under a supervisor.
//!
//! ```text
//! Address ──▶ Slot: path, mailbox, statistics        stays
//!               └─ Life 1, Life 2, …: your Actor     comes and goes
//! ```
//!
//! An [`Address`] points at the slot, so it outlives every crash. Messages that wait survive it
//! too; only the one in flight is lost, and it becomes a [`DeadLetter`] (or is handed to the next
//! life, if the spec says so).

use std::future::Future;
use std::sync::Arc;

pub use address::{Address, DEFAULT_ASK_DEADLINE, KillHandle, Offered};
pub use context::Context;
pub use dead_letter::{DeadLetter, DeadLetterCause, DeadLetters};
pub use kinds::MessageView;
pub use recipient::{Recipient, RecipientError};
pub use reply::ReplyPort;
pub use slot::{DEFAULT_CAPACITY, DEFAULT_SEND_DEADLINE, Overflow, URGENT_CAPACITY};
pub use stack::Stack;
pub use state::{FAILURES_KEPT, FailureRecord, SlotKind, SlotState};
pub use stats::{HandlingView, LATENCY_BUCKETS_NS, MAX_MESSAGE_KINDS};
pub use task::TaskContext;
pub use timers::TaskGuard;
pub use waits::WaitView;
pub use watch::Ended;

use crate::actor::slot::{AnySlot, Slot};
use crate::error::{ExitReason, Failure, LookupError, StartError};
use crate::inspect::Picture;
use crate::path::Path;

pub(crate) mod address;
pub(crate) mod ask;
pub(crate) mod cell;
mod context;
pub(crate) mod current;
mod dead_letter;
pub(crate) mod gate;
pub(crate) mod guard;
pub(crate) mod in_flight;
mod kinds;
pub(crate) mod life;
pub(crate) mod mailbox;
pub(crate) mod panic;
mod recipient;
pub(crate) mod reply;
pub(crate) mod slot;
mod stack;
pub(crate) mod state;
mod stats;
pub(crate) mod task;
#[cfg(test)]
mod tests;
pub(crate) mod timers;
mod waits;
pub(crate) mod watch;

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

    /// A short name for a message, shown while it is in flight and after a crash. Called for each
    /// message: return a constant.
    ///
    /// The default is the name of the message type; only its last parts are shown.
    fn message_name(_message: &Self::Message) -> &'static str {
        std::any::type_name::<Self::Message>()
    }

    /// What it shows of its state to people who ask, between two messages. Nothing by default. A
    /// panic in it is logged, and the life goes on.
    fn inspect(&self) -> Option<Picture> {
        None
    }
}

/// A message's name as it is shown: the default one is shortened, once per kind.
pub(crate) fn shown_name<M>(name: &'static str) -> &'static str {
    if name == std::any::type_name::<M>() { short_type_name::<M>() } else { name }
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
