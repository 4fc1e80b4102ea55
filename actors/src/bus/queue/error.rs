//! Faults of queues.

use mister_smith_supervisors::ErrorClass;

use super::SentAll;
use crate::bus::wire::Unsendable;

/// Messages were not all sent.
#[derive(Debug, thiserror::Error)]
#[error("{sent} messages are in the queue, then: {source}")]
pub struct SendError {
    /// How many are in it for sure, from the first.
    pub sent: usize,
    /// The highest number of those, 0 if there is none.
    pub last: u64,
    /// How many of those were there already.
    pub duplicates: u64,
    /// What happened to the next one.
    pub source: QueueError,
}

impl SendError {
    /// What is known of those that are in it.
    #[must_use]
    pub const fn done(&self) -> SentAll {
        SentAll { last: self.last, duplicates: self.duplicates }
    }

    /// None was sent.
    pub(in crate::bus) const fn at_once(source: QueueError) -> Self {
        Self { sent: 0, last: 0, duplicates: 0, source }
    }

    /// The result of sending what was left of it once more.
    #[cfg(any(feature = "nats", feature = "redis"))]
    pub(super) fn go_on(&self, rest: Result<SentAll, Self>) -> Result<SentAll, Self> {
        match rest {
            Ok(SentAll { last, duplicates }) => {
                Ok(SentAll { last: last.max(self.last), duplicates: duplicates + self.duplicates })
            }
            Err(again) => Err(Self {
                sent: again.sent + self.sent,
                last: again.last.max(self.last),
                duplicates: again.duplicates + self.duplicates,
                source: again.source,
            }),
        }
    }
}

/// A fault of a queue.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QueueError {
    /// The name cannot be used.
    #[error("{name:?} is not a name of a queue or a group; use letters, digits, - and _")]
    Name {
        /// The name.
        name: String,
    },
    /// The address names no queue that this program knows.
    #[error(
        "{url} is not the address of a queue; give memory:, nats://HOST:PORT or redis://HOST:PORT"
    )]
    Unknown {
        /// The address.
        url: String,
    },
    /// The adapter was left out of this program.
    #[error("built without feature `{feature}`; rebuild with `--features {feature}`")]
    NotBuilt {
        /// What brings it.
        feature: &'static str,
    },
    /// It holds as much as it may.
    #[error("queue {queue} is full ({detail}); receive faster, or let it hold more")]
    Full {
        /// The queue.
        queue: String,
        /// Of what.
        detail: String,
    },
    /// A message is larger than the server takes.
    #[error("a message of {bytes} bytes is too large for queue {queue}")]
    TooLarge {
        /// The queue.
        queue: String,
        /// How large it is.
        bytes: usize,
    },
    /// A message that no queue can carry.
    #[error("a message for queue {queue} cannot be sent: {source}")]
    Message {
        /// The queue.
        queue: String,
        /// What is wrong with it.
        source: Unsendable,
    },
    /// A message for another queue.
    #[error(
        "queue {queue} takes {subjects}, not {subject}; let it take more, or publish elsewhere"
    )]
    Elsewhere {
        /// The queue.
        queue: String,
        /// The message's subject.
        subject: String,
        /// What the queue takes.
        subjects: String,
    },
    /// The server cannot be reached.
    #[error("queue {queue} cannot be reached: {reason}; it is tried again")]
    Unreachable {
        /// The queue.
        queue: String,
        /// What happened.
        reason: String,
    },
    /// The server has something else under that name, or refuses.
    #[error("queue {queue}: {reason}")]
    Refused {
        /// The queue.
        queue: String,
        /// What the server said.
        reason: String,
    },
    /// A receipt of another queue.
    #[error("the receipt is not of queue {queue}")]
    Receipt {
        /// The queue.
        queue: String,
    },
}

impl QueueError {
    /// How to react.
    #[must_use]
    pub const fn class(&self) -> ErrorClass {
        match self {
            Self::Full { .. } | Self::Unreachable { .. } => ErrorClass::Transient,
            Self::Name { .. }
            | Self::Unknown { .. }
            | Self::NotBuilt { .. }
            | Self::TooLarge { .. }
            | Self::Message { .. }
            | Self::Elsewhere { .. }
            | Self::Receipt { .. } => ErrorClass::User,
            Self::Refused { .. } => ErrorClass::Permanent,
        }
    }

    /// Whether it is this one message that cannot be sent, now or later, while others can.
    #[must_use]
    pub const fn is_of_the_message(&self) -> bool {
        matches!(self, Self::TooLarge { .. } | Self::Message { .. } | Self::Elsewhere { .. })
    }
}
