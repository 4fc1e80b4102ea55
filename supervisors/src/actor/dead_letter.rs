//! Messages that nobody will handle.

use std::any::Any;
use std::fmt;

use crate::error::ExitReason;
use crate::path::Path;

/// A message that was accepted and will not be handled, with the reason.
pub struct DeadLetter {
    /// Whose mailbox it was in.
    pub path: Path,
    /// The life that held it, or that would have been next.
    pub life: u64,
    /// The message's type.
    pub message_type: &'static str,
    /// Why it will not be handled.
    pub cause: DeadLetterCause,
    /// How often a life has taken it in hand.
    pub attempts: u32,
    /// The message, for [`downcast`](Box::downcast). `None` when the life consumed it: a handler
    /// owns its message, so only a spec that keeps copies
    /// ([`ChildSpec::on_crash`](crate::ChildSpec::on_crash)) can still show it.
    pub message: Option<Box<dyn Any + Send>>,
}

/// Why a message will not be handled.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum DeadLetterCause {
    /// The life that had it in hand ended so.
    InHand(ExitReason),
    /// The slot stopped for good while the message waited.
    Stopped(ExitReason),
    /// The mailbox was full, and its policy drops the oldest.
    DroppedOldest,
    /// The mailbox was full, and its policy drops the newest.
    DroppedNewest,
    /// A timer's message, or what a task of the actor told it, found no place in the mailbox.
    Undeliverable {
        /// The mailbox was full; else its actor had stopped.
        full: bool,
    },
}

impl fmt::Display for DeadLetterCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InHand(reason) => write!(f, "in hand when its life ended: {reason}"),
            Self::Stopped(reason) => write!(f, "waiting when its actor stopped: {reason}"),
            Self::DroppedOldest => f.write_str("mailbox full, oldest dropped"),
            Self::DroppedNewest => f.write_str("mailbox full, newest dropped"),
            Self::Undeliverable { full: true } => f.write_str("told by itself, mailbox full"),
            Self::Undeliverable { full: false } => f.write_str("told by itself, stopped before"),
        }
    }
}

impl fmt::Debug for DeadLetter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeadLetter")
            .field("path", &self.path)
            .field("life", &self.life)
            .field("message_type", &self.message_type)
            .field("cause", &self.cause)
            .field("attempts", &self.attempts)
            .finish_non_exhaustive()
    }
}

/// Takes messages that nobody will handle. Called where the message dies: return at once. A panic in
/// it is logged. A letter that is kept keeps the question inside it waiting until its deadline.
pub trait DeadLetters: Send + Sync + 'static {
    /// One dead letter.
    fn on_dead_letter(&self, letter: DeadLetter);
}

impl<F: Fn(DeadLetter) + Send + Sync + 'static> DeadLetters for F {
    fn on_dead_letter(&self, letter: DeadLetter) {
        self(letter);
    }
}
