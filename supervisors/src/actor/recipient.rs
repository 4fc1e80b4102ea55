//! An actor by what it accepts, whatever its own message type is.

use std::fmt;
use std::future::Future;
use std::hash::{Hash, Hasher};
use std::pin::Pin;
use std::sync::Arc;

use crate::actor::Address;
use crate::actor::slot::AnySlot;
use crate::actor::watch::{Ended, ended};
use crate::error::TellError;
use crate::path::Path;
use crate::resilience::ErrorClass;

/// Where to send messages of type `N`, to an actor whose own messages are made from them.
///
/// Made by [`Address::recipient`] and [`Address::map`]. Actors of different types can stand in one
/// list, or be swapped in a test. Two recipients are equal if they lead to the same actor, whatever
/// they map.
pub struct Recipient<N>(Arc<dyn Accept<N>>);

/// A message was not taken. It had been made into one of the actor's own, so it cannot be handed
/// back.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecipientError {
    /// The mailbox is full, and stayed so for as long as its policy waits.
    #[error("mailbox of {path} is full ({capacity} messages); slow down or raise its capacity")]
    Full {
        /// Whose mailbox.
        path: Path,
        /// How many messages it holds.
        capacity: usize,
    },
    /// The actor has stopped for good.
    #[error("{path} has stopped")]
    Stopped {
        /// Which actor.
        path: Path,
    },
}

impl RecipientError {
    /// Who can mend it.
    #[must_use]
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Full { .. } => ErrorClass::Transient,
            Self::Stopped { .. } => ErrorClass::Permanent,
        }
    }
}

impl<M> From<TellError<M>> for RecipientError {
    fn from(error: TellError<M>) -> Self {
        match error {
            TellError::Full { path, capacity, .. } => Self::Full { path, capacity },
            TellError::Stopped { path, .. } => Self::Stopped { path },
        }
    }
}

type Told<'a> = Pin<Box<dyn Future<Output = Result<(), RecipientError>> + Send + 'a>>;

trait Accept<N>: Send + Sync {
    fn try_tell(&self, message: N) -> Result<(), RecipientError>;
    fn tell(&self, message: N) -> Told<'_>;
    fn slot(&self) -> Arc<dyn AnySlot>;
    fn path(&self) -> &Path;
}

struct Mapped<M: Send + 'static, F> {
    address: Address<M>,
    map: F,
}

impl<N, M, F> Accept<N> for Mapped<M, F>
where
    M: Send + 'static,
    F: Fn(N) -> M + Send + Sync,
{
    fn try_tell(&self, message: N) -> Result<(), RecipientError> {
        Ok(self.address.try_tell((self.map)(message))?)
    }

    fn tell(&self, message: N) -> Told<'_> {
        let message = (self.map)(message);
        Box::pin(async move { Ok(self.address.tell(message).await?) })
    }

    fn slot(&self) -> Arc<dyn AnySlot> {
        self.address.any_slot()
    }

    fn path(&self) -> &Path {
        self.address.path()
    }
}

impl<N: Send + 'static> Recipient<N> {
    pub(crate) fn new<M: Send + 'static>(
        address: Address<M>,
        map: impl Fn(N) -> M + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(Mapped { address, map }))
    }

    /// Sends a message, waiting for room if the mailbox's policy says so.
    ///
    /// # Errors
    /// The mailbox stays full, or the actor has stopped for good.
    ///
    /// # Cancel safety
    /// A dropped `tell` either has put the message into the mailbox or drops it.
    pub async fn tell(&self, message: N) -> Result<(), RecipientError> {
        self.0.tell(message).await
    }

    /// Sends a message if there is room for it now.
    ///
    /// # Errors
    /// The mailbox is full, or the actor has stopped for good.
    pub fn try_tell(&self, message: N) -> Result<(), RecipientError> {
        self.0.try_tell(message)
    }

    /// Where the actor stands in the tree.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Waits until the actor has ended. See [`Address::ended`].
    ///
    /// # Cancel safety
    /// Nothing is lost by dropping it.
    pub async fn ended(&self) -> Ended {
        ended(self.0.slot()).await
    }
}

impl<N> Clone for Recipient<N> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<N> Recipient<N> {
    fn key(&self) -> *const () {
        Arc::as_ptr(&self.0.slot()).cast()
    }
}

impl<N> PartialEq for Recipient<N> {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl<N> Eq for Recipient<N> {}

impl<N> Hash for Recipient<N> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.key().hash(state);
    }
}

impl<N> fmt::Debug for Recipient<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Recipient({})", self.0.path())
    }
}
