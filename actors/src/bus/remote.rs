//! Requests and answers between processes: ask whoever serves a subject, and get one answer.
//!
//! | adapter | address | when |
//! |---|---|---|
//! | [`in_process`] | `memory:` | one process |
//! | `nats` (feature) | `nats://HOST:PORT` | between nodes, over core NATS |
//!
//! The promises, each a law of [`conformance`]:
//!
//! - A request goes to one member of each group that serves its subject, and the first answer
//!   comes back, to nobody else.
//! - [`NoResponders`](RemoteError::NoResponders): nobody had the request.
//! - [`NoAnswer`](RemoteError::NoAnswer): somebody may have had it, and may have done it. Nothing
//!   here repeats a request; who repeats one names it, as
//!   [commands](crate::command::remote) do with their keys.
//! - Who [closes](Requests::close) gets no new requests, and those that were on their way to it.
//!
//! Nothing is stored: a request that is on its way when the broker dies is gone.

use std::fmt;
use std::time::Duration;

use futures_util::future::BoxFuture;
use mister_smith_supervisors::ErrorClass;

use super::subject::Pattern;
use super::wire::{Unsendable, WireMessage};

pub mod conformance;
pub mod in_process;
#[cfg(feature = "nats")]
pub mod nats;

/// Asks, and serves.
pub trait Remote: Send + Sync + fmt::Debug {
    /// Sends a request to the message's subject, and waits for one answer.
    ///
    /// # Errors
    /// See [`RemoteError`]; after [`NoAnswer`](RemoteError::NoAnswer) it may have had its effect.
    ///
    /// # Cancel safety
    /// A dropped request may have had its effect.
    fn request<'a>(
        &'a self,
        message: &'a WireMessage,
        within: Duration,
    ) -> BoxFuture<'a, Result<WireMessage, RemoteError>>;

    /// Serves subjects, as one member of a group: from when this returns, if there is a connection
    /// to the broker, and from when there is one otherwise.
    ///
    /// # Errors
    /// The broker cannot be told.
    fn serve<'a>(
        &'a self,
        subjects: &'a Pattern,
        group: &'a str,
    ) -> BoxFuture<'a, Result<Box<dyn Requests>, RemoteError>>;
}

/// Requests as they come in. Dropping it ends the service at once.
pub trait Requests: Send + fmt::Debug {
    /// The next request; `None` when it was closed and all have been taken, or when the connection
    /// has ended for good.
    ///
    /// # Cancel safety
    /// No request is lost by dropping it.
    fn next(&mut self) -> BoxFuture<'_, Option<Asked>>;

    /// Takes no more. What was on its way still comes.
    fn close(&mut self) -> BoxFuture<'_, ()>;
}

/// A request in the hands of who serves it. Without an answer the asker waits in vain.
pub struct Asked {
    /// The request.
    pub message: WireMessage,
    pub(super) reply: Box<dyn Reply>,
}

impl Asked {
    /// Answers it.
    ///
    /// # Errors
    /// The answer was not sent. That it was sent does not mean that it has arrived.
    pub async fn answer(self, answer: WireMessage) -> Result<(), RemoteError> {
        self.reply.send(answer).await
    }

    /// The request, and how to answer it.
    #[must_use]
    pub fn split(self) -> (WireMessage, Answer) {
        (self.message, Answer(self.reply))
    }
}

impl fmt::Debug for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Asked").field("message", &self.message).finish_non_exhaustive()
    }
}

/// Where an answer goes.
pub struct Answer(Box<dyn Reply>);

impl Answer {
    /// Sends it.
    ///
    /// # Errors
    /// As for [`Asked::answer`].
    pub async fn send(self, answer: WireMessage) -> Result<(), RemoteError> {
        self.0.send(answer).await
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Answer")
    }
}

/// How an adapter sends an answer.
pub(super) trait Reply: Send {
    fn send(self: Box<Self>, answer: WireMessage) -> BoxFuture<'static, Result<(), RemoteError>>;
}

/// Why a request has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RemoteError {
    /// Nobody serves the subject: nothing has happened.
    #[error("nobody serves {subject}")]
    NoResponders {
        /// The subject.
        subject: String,
    },
    /// No answer came: what was asked for may have happened.
    #[error("no answer from {subject} within {after:?}; it may have had the request")]
    NoAnswer {
        /// The subject.
        subject: String,
        /// How long it was waited for.
        after: Duration,
    },
    /// There is no connection: nothing was sent.
    #[error("the broker cannot be reached: {reason}; it is tried again")]
    Unreachable {
        /// What happened.
        reason: String,
    },
    /// No broker can carry the message: nothing was sent.
    #[error("the message cannot be sent: {0}")]
    Message(#[from] Unsendable),
    /// The message is larger than the broker takes: nothing was sent.
    #[error("a message of {bytes} bytes is too large, at most {most} are taken")]
    TooLarge {
        /// How large it is.
        bytes: usize,
        /// How large it may be.
        most: usize,
    },
}

impl RemoteError {
    /// How to react.
    #[must_use]
    pub const fn class(&self) -> ErrorClass {
        match self {
            Self::NoResponders { .. } | Self::NoAnswer { .. } | Self::Unreachable { .. } => {
                ErrorClass::Transient
            }
            Self::TooLarge { .. } | Self::Message(_) => ErrorClass::User,
        }
    }
}
