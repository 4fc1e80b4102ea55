//! What an outlet refuses of what a relay sends: it becomes a dead letter, and everything behind it
//! goes on.
//!
//! Relay and table share this. A dead letter that is sent again comes back to the relay by the name
//! of its origin, and is settled when the outlet has taken it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use mister_smith_supervisors::Address;
use tokio::time::timeout;

use crate::bus::wire::WireMessage;
use crate::bus::{EventBus, Message, NewMessage, Pattern, Subject};
use crate::settle::{Counts, DeadLetterOffice, FailureCause, RetryPolicy, Settler};

/// How long a relay waits for a dead letter to be kept before it looks after its other duties, and
/// tries again.
const KEEP_WITHIN: Duration = Duration::from_secs(5);

/// A message's id on the wire, where that is not what its other headers make of it.
const WIRE_ID: &str = "Smith-Wire-Id";

/// Its subject, where that cannot be one.
const WIRE_SUBJECT: &str = "Smith-Wire-Subject";

/// Where what a relay cannot send goes, and how it comes back.
#[derive(Debug, Clone)]
pub struct Letters {
    /// The bus by which dead letters come back.
    pub bus: EventBus,
    /// Who keeps them.
    pub office: Arc<dyn DeadLetterOffice>,
}

/// The letters of one relay.
#[derive(Clone)]
pub(super) struct Refused {
    bus: EventBus,
    settler: Settler,
}

/// What became of a message that was refused.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Kept {
    /// Its dead letter is durable.
    Letter,
    /// It can never be one.
    Never,
    /// Not now.
    NotYet,
}

impl Refused {
    /// The letters of the relay of this name. Those that are sent again are told to `address`.
    pub(super) fn new<M: Send + 'static>(
        name: &str,
        letters: &Letters,
        address: Address<M>,
        again: impl Fn(Arc<Message>) -> M + Send + Sync + 'static,
    ) -> Self {
        let name: Arc<str> = name.into();
        // Nothing is published there; dead letters are delivered by name. A life before this one
        // has the same address, so that one that is connected already is no matter.
        let nothing = Pattern::from(&Subject::of(["system", "outbox", &name]));
        let _ = letters.bus.connect(Arc::clone(&name), nothing, address, again);
        let settler = Settler {
            name,
            retry: RetryPolicy::attempts(1),
            deadline: KEEP_WITHIN,
            office: Arc::clone(&letters.office),
            results: None,
            counts: Arc::new(Counts::default()),
            seed: 0,
        };
        Self { bus: letters.bus.clone(), settler }
    }

    /// Makes a dead letter of a message that was refused.
    pub(super) async fn keep(&self, message: NewMessage, reason: &str) -> Kept {
        let message = self.bus.stamp(message);
        let burying = self.settler.bury(&message, FailureCause::Failed, reason.to_owned(), 1);
        match timeout(KEEP_WITHIN, burying).await {
            Ok(true) => Kept::Letter,
            Ok(false) => Kept::Never,
            Err(_) => Kept::NotYet,
        }
    }

    /// A dead letter was sent again: it is settled, or open again.
    pub(super) async fn sent_again(&self, message: &Arc<Message>, sent: Result<(), String>) {
        match sent {
            Ok(()) => self.settler.settle_letter(message).await,
            Err(reason) => {
                self.settler.bury(message, FailureCause::Failed, reason, 1).await;
            }
        }
    }
}

impl fmt::Debug for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Refused").field("name", &self.settler.name).finish_non_exhaustive()
    }
}

/// A message of the wire as a dead letter holds it. A subject that is none is written as one.
pub(super) fn letter_of(wire: &WireMessage) -> NewMessage {
    let mut held = wire.clone();
    held.headers.insert(WIRE_ID.to_owned(), wire.id.clone());
    held.to_message_as_it_is().unwrap_or_else(|_| {
        held.headers.insert(WIRE_SUBJECT.to_owned(), wire.subject.clone());
        held.subject = Subject::of([&wire.subject]).to_string();
        // What `of` makes is a subject, whatever it is made of.
        held.to_message_as_it_is().expect("an escaped subject is a subject")
    })
}

/// The message of the wire that a dead letter holds.
pub(super) fn wire_of(letter: &Message) -> Result<WireMessage, String> {
    let mut wire = WireMessage::of(letter).map_err(|error| error.to_string())?;
    if let Some(id) = wire.headers.remove(WIRE_ID) {
        wire.id = id;
    }
    if let Some(subject) = wire.headers.remove(WIRE_SUBJECT) {
        wire.subject = subject;
    }
    Ok(wire)
}
