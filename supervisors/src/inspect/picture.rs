//! A picture of an actor's state, for people who look.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::sync::oneshot;

use crate::actor::slot::{AnySlot, Call};
use crate::error::AskError;

/// What an actor shows of its state when it is asked
/// ([`Actor::inspect`](crate::Actor::inspect)): any value that serde can write.
///
/// ```
/// use mister_smith_supervisors::Picture;
///
/// let picture = Picture::of(vec![("open", 3), ("closed", 40)]);
/// # let _: &dyn erased_serde::Serialize = picture.as_serialize();
/// ```
pub struct Picture(Box<dyn erased_serde::Serialize + Send>);

impl Picture {
    /// A picture that owns what it shows. It is made between two messages, so keep it small; it is
    /// written later, by whoever asked.
    #[must_use]
    pub fn of(value: impl Serialize + Send + 'static) -> Self {
        Self(Box::new(value))
    }

    /// What can be given to any serde format.
    #[must_use]
    pub fn as_serialize(&self) -> &dyn erased_serde::Serialize {
        &*self.0
    }
}

impl fmt::Debug for Picture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Picture")
    }
}

impl Serialize for Picture {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        erased_serde::serialize(&*self.0, serializer)
    }
}

/// Asks the life in a slot for its picture.
pub(crate) async fn ask(
    slot: &Arc<dyn AnySlot>,
    deadline: Duration,
) -> Result<Option<Picture>, AskError> {
    let path = || slot.cell().path.clone();
    let (reply, picture) = oneshot::channel();
    let life = slot.cell().life();
    if !slot.cell().call(Call::Inspect(reply)) {
        return Err(AskError::Stopped { path: path() });
    }
    match tokio::time::timeout(deadline, picture).await {
        Ok(Ok(picture)) => Ok(picture),
        // Its life ended before it came to it, or its `inspect` panicked.
        Ok(Err(_)) => Err(match slot.cell().end_of(life) {
            Some(reason) => AskError::Crashed { path: path(), reason },
            None => AskError::NoReply { path: path() },
        }),
        Err(_) => Err(AskError::Timeout { path: path(), after: deadline }),
    }
}
