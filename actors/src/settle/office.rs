//! Where messages go that nobody could handle.

use std::fmt;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use mister_smith_supervisors::ErrorClass;
use uuid::Uuid;

use crate::bus::Message;

/// A message that a handler could not handle, with all that is known about it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Undelivered {
    /// Whose it was: the name of a subscription, a processor, or a consumer.
    pub subscription: Arc<str>,
    /// The message.
    pub message: Arc<Message>,
    /// Why it was given up.
    pub cause: FailureCause,
    /// What the handler said last.
    pub reason: String,
    /// How often it was tried.
    pub attempts: u32,
}

/// Why a message was given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum FailureCause {
    /// The handler said that it will never work.
    Failed,
    /// The tries of its policy are used up.
    Exhausted,
    /// The handler crashed with it in hand, each time.
    Crashed,
}

/// Where messages go that a handler could not handle.
///
/// A delivery is settled only when this has answered: a node that ends before still has the
/// message where it came from, if that is durable.
pub trait DeadLetterOffice: Send + Sync + fmt::Debug {
    /// Keeps one, durably.
    ///
    /// # Errors
    /// One of class transient is tried again for as long as it takes. Any other refuses the letter
    /// for good.
    fn keep(&self, undelivered: Undelivered) -> BoxFuture<'_, Result<(), OfficeError>>;

    /// A message that was sent again for a dead letter has been handled.
    ///
    /// # Errors
    /// As for [`keep`](Self::keep).
    fn settle(&self, letter: Uuid) -> BoxFuture<'_, Result<(), OfficeError>>;
}

/// A dead letter was not kept.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the dead letter was not kept ({class}): {reason}")]
#[non_exhaustive]
pub struct OfficeError {
    /// Whether it may be kept another time.
    pub class: ErrorClass,
    /// Why.
    pub reason: String,
}

impl OfficeError {
    /// An error of a class.
    pub fn new(class: ErrorClass, reason: impl fmt::Display) -> Self {
        Self { class, reason: reason.to_string() }
    }
}
