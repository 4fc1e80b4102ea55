//! Commands: how one finds its aggregate, and what comes back.
//!
//! | you want | look at |
//! |---|---|
//! | to send a command | [`CommandBus::send`] |
//! | to name it, so that a repeat has no second effect | [`CommandEnvelope::key`] |
//! | to send one to another node | [`remote`] |
//! | to see or change every command on its way | [`Middleware`] |
//! | to ask a question | [`query`](crate::query) |

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use mister_smith_supervisors::{AskError, ErrorClass, ReplyPort, SupervisorError};
use serde::{Deserialize, Serialize};

use crate::aggregate::{Aggregate, InvalidAggregate, Unreadable};
use crate::event::{EventCodecError, Metadata, Position, RecordedEvent, StreamId, Version};
use crate::store::committer::CommitError;
use crate::store::{AppendError, IdempotencyKey, MAX_APPEND_EVENTS};

mod bus;
mod fingerprint;
mod middleware;
pub mod remote;

pub use bus::{CommandBus, CommandOptions, Freshness};
pub use middleware::{CommandInfo, Middleware, Next};

#[cfg(test)]
mod tests;

/// A command on its way, with what is known about it.
///
/// Any command becomes one by `into()`.
#[derive(Debug, Clone)]
pub struct CommandEnvelope<C> {
    command: C,
    key: Option<Arc<str>>,
    /// What the command was, to tell it from another one with the same key.
    fingerprint: Option<u64>,
    metadata: Metadata,
}

impl<C> CommandEnvelope<C> {
    /// A command without a key and without metadata.
    pub fn new(command: C) -> Self {
        Self { command, key: None, fingerprint: None, metadata: Metadata::default() }
    }

    /// Names the request: a repeat with the same key for the same aggregate has no effect, and
    /// gets the first answer, also after a crash of anything. A command that was refused has not
    /// used up its key.
    ///
    /// The key alone says that it is a repeat: another command with the same key gets the first
    /// answer, too. [`strict_key`](Self::strict_key) refuses it.
    #[must_use]
    pub fn key(mut self, key: impl Into<Arc<str>>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// As [`key`](Self::key), and another command with this key is refused with
    /// [`CommandError::KeyReused`]. What the command was is kept with its events, as a hash of what
    /// serde writes; so an array that is made of a set should have an order, and a program whose
    /// commands have other fields than before refuses repeats of the older program's.
    ///
    /// Not known, and so answered as a repeat: a first command that was sent without it, one whose
    /// events were archived, and one that serde cannot write as JSON.
    #[must_use]
    pub fn strict_key(mut self, key: impl Into<Arc<str>>) -> Self
    where
        C: Serialize,
    {
        self.fingerprint = serde_json::to_value(&self.command).ok().map(|v| fingerprint::of(&v));
        self.key(key)
    }

    /// What the events will carry.
    #[must_use]
    pub fn metadata(mut self, metadata: Metadata) -> Self {
        self.metadata = metadata;
        self
    }

    /// An event is why it is sent: the events will be of the same conversation.
    #[must_use]
    pub fn caused_by(mut self, event: &RecordedEvent) -> Self {
        let headers = std::mem::take(&mut self.metadata.headers);
        self.metadata = Metadata::from_bytes(&event.meta).caused_by(*event.id.as_uuid());
        self.metadata.headers = headers;
        self
    }
}

impl<C> From<C> for CommandEnvelope<C> {
    fn from(command: C) -> Self {
        Self::new(command)
    }
}

/// A command in an aggregate's hands.
pub struct Request<A: Aggregate> {
    pub(crate) command: Arc<A::Command>,
    pub(crate) key: Option<IdempotencyKey>,
    pub(crate) fingerprint: Option<u64>,
    /// What its events will carry.
    pub(crate) meta: Bytes,
    pub(crate) reply: ReplyPort<Result<Executed, CommandError>>,
}

impl<A: Aggregate> Request<A> {
    /// Answers it.
    pub(crate) fn answer(self, answer: Result<Executed, CommandError>) {
        self.reply.send(answer);
    }
}

impl<A: Aggregate> fmt::Debug for Request<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request").field("key", &self.key).finish_non_exhaustive()
    }
}

/// A command that was executed. Its events are durable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Executed {
    /// The aggregate's stream.
    pub stream: StreamId,
    /// How many events it led to; 0 if there was nothing to do.
    pub events: u64,
    /// The version after it.
    pub version: Version,
    /// The place of its last event, to wait for in a projection; `None` if there is none.
    pub position: Option<Position>,
    /// It was a repeat: this is the answer to the first.
    pub duplicate: bool,
}

/// Why a command had no effect, or none that one knows of.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum CommandError {
    /// The aggregate refused it; see [`rejection`](Self::rejection).
    #[error("refused: {0}")]
    Rejected(Arc<dyn StdError + Send + Sync>),
    /// A middleware refused it.
    #[error("not allowed: {reason}")]
    Denied {
        /// What it said.
        reason: String,
    },
    /// The events could not be appended, after all retries.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// The events were not committed, or not as far as one knows: repeat it with the same key.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// It led to more events than one append takes.
    #[error("the command led to {count} events, at most {MAX_APPEND_EVENTS} are taken; split it")]
    TooManyEvents {
        /// How many.
        count: usize,
    },
    /// An event cannot be written.
    #[error(transparent)]
    Event(Arc<EventCodecError>),
    /// Too many commands wait for this aggregate.
    #[error("{waiting} commands wait for this aggregate already; slow down and retry")]
    Overloaded {
        /// How many.
        waiting: usize,
    },
    /// Its key names another command.
    #[error("the key was used for another command to {stream}; give each command a key of its own")]
    KeyReused {
        /// The aggregate's stream.
        stream: StreamId,
    },
    /// What was decided could not be compared with the log, so it is not told.
    #[error("the answer cannot be compared with the log: {reason}; nothing was written, retry")]
    Unchecked {
        /// What the store said.
        reason: String,
        /// How to react.
        class: ErrorClass,
    },
    /// The aggregate cannot be read from its stream, whatever is sent to it, until somebody mends
    /// that. Nothing was written.
    #[error(transparent)]
    Unreadable(Arc<Unreadable>),
    /// There cannot be such an aggregate.
    #[error(transparent)]
    Invalid(Arc<InvalidAggregate>),
    /// The stream is in use as something else.
    #[error("stream {stream} is open as something else than {wanted}; use another id or category")]
    OtherType {
        /// The stream.
        stream: StreamId,
        /// What was asked for.
        wanted: &'static str,
    },
    /// The aggregate's actor did not answer: repeat it with the same key.
    #[error(transparent)]
    Actor(#[from] AskError),
    /// The aggregate's actor could not be started.
    #[error(transparent)]
    Supervisor(#[from] SupervisorError),
}

impl From<EventCodecError> for CommandError {
    fn from(error: EventCodecError) -> Self {
        Self::Event(Arc::new(error))
    }
}

impl From<InvalidAggregate> for CommandError {
    fn from(error: InvalidAggregate) -> Self {
        Self::Invalid(Arc::new(error))
    }
}

impl CommandError {
    pub(crate) fn rejected(rejection: impl StdError + Send + Sync + 'static) -> Self {
        Self::Rejected(Arc::new(rejection))
    }

    /// The aggregate's own reason, if it refused the command.
    #[must_use]
    pub fn rejection<R: StdError + 'static>(&self) -> Option<&R> {
        match self {
            Self::Rejected(reason) => reason.downcast_ref(),
            _ => None,
        }
    }

    /// How to react. What is transient is worth a repeat, with the same key.
    #[must_use]
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Rejected(_)
            | Self::Denied { .. }
            | Self::TooManyEvents { .. }
            | Self::KeyReused { .. }
            | Self::Invalid(_)
            | Self::OtherType { .. } => ErrorClass::User,
            Self::Append(error) => error.class(),
            Self::Commit(error) => error.class(),
            Self::Unchecked { class, .. } => *class,
            Self::Event(_) | Self::Unreadable(_) => ErrorClass::Permanent,
            Self::Supervisor(SupervisorError::StartFailed { reason, .. })
                if reason.class() == Some(ErrorClass::Permanent) =>
            {
                ErrorClass::Permanent
            }
            Self::Overloaded { .. } | Self::Actor(_) | Self::Supervisor(_) => ErrorClass::Transient,
        }
    }

    /// Whether the aggregate tries again by itself: after a conflict, and when a commit failed
    /// for a reason that passes.
    pub(crate) fn is_worth_a_retry(&self) -> bool {
        matches!(self, Self::Append(_) | Self::Commit(_)) && self.class() == ErrorClass::Transient
    }
}
