//! Dead letters: messages that somebody could not handle, kept until a person decides.
//!
//! Each is an aggregate with a stream of its own, `dead_letter-ID`, so it is as durable as every
//! event, and what was done about it, and when, can be read for ever. The open ones are a read
//! model, [`Letters`].
//!
//! ```text
//! subscriber gives up ─▶ kept ─▶ requeue ─▶ requeued ─▶ handled ─▶ settled
//!                         ▲  └─▶ purge ─▶ purged  └─▶ given up again ─┐
//!                         └──────────────────────────────────────────┘
//! ```

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::aggregate::Aggregate;
use crate::bus::{FailureCause, Message};
use crate::event::{ContentType, Event, Position, RecordedEvent, Timestamp};
use crate::projection::{EventFilter, Projection, ProjectionFault};
use crate::store::notes::Owner;
use crate::store::{EventStore, event_at};

mod desk;

pub use desk::{DeadLetterError, DeadLetters, LETTER_BYTES, Requeued};

#[cfg(test)]
mod tests;

/// A dead letter as it is kept: the whole message, and why it is here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Letter {
    /// Who could not handle it: a subscription, or a queue's consumer.
    pub origin: String,
    /// Where it was published.
    pub subject: String,
    /// The message's id.
    pub message_id: Uuid,
    /// The type of the event.
    pub event_type: String,
    /// The version of its schema.
    pub schema_version: u16,
    /// How the payload is to be read.
    pub codec: ContentType,
    /// The payload, byte for byte.
    pub data: Bytes,
    /// Metadata, as it came.
    pub meta: Bytes,
    /// When the message was published.
    pub published_at: Timestamp,
    /// Its place in the log, if it came from there.
    pub position: Option<Position>,
    /// Why it was given up.
    pub cause: FailureCause,
    /// What the handler said last.
    pub reason: String,
    /// How often it was tried.
    pub attempts: u32,
    /// The payload is not here: it is more than a letter holds, or cannot be written.
    #[serde(default)]
    pub left_out: bool,
}

/// What happened to a dead letter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum LetterEvent {
    /// It was given up, for the first time or again.
    #[serde(rename = "dead_letter.kept")]
    Kept(Box<Letter>),
    /// It was sent to its subscriber again.
    #[serde(rename = "dead_letter.requeued")]
    Requeued {
        /// Who did it.
        by: String,
    },
    /// It could not be sent again.
    #[serde(rename = "dead_letter.returned")]
    Returned {
        /// Why.
        reason: String,
    },
    /// It has been handled after all.
    #[serde(rename = "dead_letter.settled")]
    Settled {},
    /// Somebody decided that it will not be handled.
    #[serde(rename = "dead_letter.purged")]
    Purged {
        /// Who did it.
        by: String,
    },
}

impl Event for LetterEvent {}

/// What can be done with a dead letter.
#[derive(Debug, Clone)]
pub enum LetterCommand {
    /// Keep it.
    Keep(Box<Letter>),
    /// Note that it is sent again.
    Requeue {
        /// Who does it.
        by: String,
    },
    /// Note that it could not be sent again.
    Return {
        /// Why.
        reason: String,
    },
    /// Note that it was handled.
    Settle,
    /// Give it up for good.
    Purge {
        /// Who does it.
        by: String,
    },
}

/// Where a dead letter stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum LetterState {
    /// There is none.
    #[default]
    None,
    /// It waits for a decision.
    Open,
    /// It was sent again, and its subscriber has not answered yet.
    Requeued,
    /// It was handled.
    Settled,
    /// It was given up for good.
    Purged,
}

/// A dead letter's state, made of its events.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetter {
    /// Where it stands.
    pub state: LetterState,
    /// The message; `None` before the first event.
    pub letter: Option<Box<Letter>>,
    /// How often it was given up.
    pub failures: u32,
}

/// Why nothing can be done with a dead letter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LetterRefusal {
    /// There is none.
    #[error("there is no such dead letter; see `smith dead-letters list`")]
    Unknown,
    /// It was handled.
    #[error("it was handled already; nothing is left to do")]
    Settled,
    /// It was purged.
    #[error("it was purged; a purged dead letter is not sent again")]
    Purged,
}

impl Aggregate for DeadLetter {
    type Command = LetterCommand;
    type Event = LetterEvent;
    type Rejection = LetterRefusal;
    const CATEGORY: &'static str = crate::store::DEAD_LETTERS;
    const OWNER: Owner = Owner::DeadLetters;

    fn decide(&self, command: &LetterCommand) -> Result<Vec<LetterEvent>, LetterRefusal> {
        let open = || match self.state {
            LetterState::Open | LetterState::Requeued => Ok(()),
            LetterState::None => Err(LetterRefusal::Unknown),
            LetterState::Settled => Err(LetterRefusal::Settled),
            LetterState::Purged => Err(LetterRefusal::Purged),
        };
        let event = match command {
            // Whoever keeps it did not hear that it is kept: one letter is enough.
            LetterCommand::Keep(_) if self.state == LetterState::Open => return Ok(vec![]),
            LetterCommand::Keep(letter) => LetterEvent::Kept(letter.clone()),
            LetterCommand::Requeue { by } => {
                open()?;
                LetterEvent::Requeued { by: by.clone() }
            }
            LetterCommand::Return { reason } => match self.state {
                LetterState::Requeued => LetterEvent::Returned { reason: reason.clone() },
                _ => return Ok(vec![]),
            },
            LetterCommand::Settle => match self.state {
                LetterState::Open | LetterState::Requeued => LetterEvent::Settled {},
                _ => return Ok(vec![]),
            },
            LetterCommand::Purge { by } => {
                open()?;
                LetterEvent::Purged { by: by.clone() }
            }
        };
        Ok(vec![event])
    }

    fn evolve(&mut self, event: LetterEvent) {
        match event {
            LetterEvent::Kept(letter) => {
                self.letter = Some(letter);
                self.failures += 1;
                self.state = LetterState::Open;
            }
            LetterEvent::Requeued { .. } => self.state = LetterState::Requeued,
            LetterEvent::Returned { .. } => self.state = LetterState::Open,
            LetterEvent::Settled {} => self.state = LetterState::Settled,
            LetterEvent::Purged { .. } => self.state = LetterState::Purged,
        }
    }
}

/// A dead letter that waits, as it is listed: everything but the bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct LetterSummary {
    /// Open, or sent again and not yet handled.
    pub state: LetterState,
    /// Who could not handle it.
    pub origin: String,
    /// Where it was published.
    pub subject: String,
    /// The message's id.
    pub message_id: Uuid,
    /// The type of the event.
    pub event_type: String,
    /// Bytes of the payload.
    pub bytes: usize,
    /// Why it was given up.
    pub cause: FailureCause,
    /// What the handler said last.
    pub reason: String,
    /// How often it was tried, the last time.
    pub attempts: u32,
    /// How often it was given up.
    pub failures: u32,
    /// When it was given up first.
    pub first_at: Timestamp,
    /// When something happened to it last.
    pub last_at: Timestamp,
}

/// The event of the log that a dead letter was made of.
pub(crate) async fn event_of(
    store: &dyn EventStore,
    message: &Message,
) -> Result<RecordedEvent, String> {
    let position = message.position().ok_or("the dead letter has no place in the log")?;
    let event = event_at(store, position).await.map_err(|error| error.to_string())?;
    event.ok_or_else(|| format!("event {position} is not in the log"))
}

/// The dead letters that wait, by id. Those that were handled or purged are not among them.
#[derive(Debug, Clone, Copy, Default)]
pub struct Letters;

impl Projection for Letters {
    type Document = LetterSummary;
    const NAME: &'static str = "dead_letters";

    fn filter(&self) -> EventFilter {
        EventFilter::ALL.categories([DeadLetter::CATEGORY])
    }

    fn ids(&self, event: &RecordedEvent) -> Vec<Arc<str>> {
        match event.stream.as_str().strip_prefix("dead_letter-") {
            Some(id) => vec![id.into()],
            None => Vec::new(),
        }
    }

    fn apply(
        &self,
        event: &RecordedEvent,
        _: &str,
        summary: Option<LetterSummary>,
    ) -> Result<Option<LetterSummary>, ProjectionFault> {
        let happened =
            LetterEvent::decode(&event.event_type, event.schema_version, event.codec, &event.data)?;
        let at = event.recorded_at;
        let moved =
            |state| summary.clone().map(|summary| LetterSummary { state, last_at: at, ..summary });
        Ok(match happened {
            LetterEvent::Kept(letter) => Some(LetterSummary {
                state: LetterState::Open,
                origin: letter.origin,
                subject: letter.subject,
                message_id: letter.message_id,
                event_type: letter.event_type,
                bytes: letter.data.len(),
                cause: letter.cause,
                reason: letter.reason,
                attempts: letter.attempts,
                failures: summary.as_ref().map_or(0, |summary| summary.failures) + 1,
                first_at: summary.as_ref().map_or(at, |summary| summary.first_at),
                last_at: at,
            }),
            LetterEvent::Requeued { .. } => moved(LetterState::Requeued),
            LetterEvent::Returned { reason } => moved(LetterState::Open).map(|summary| {
                LetterSummary { reason: format!("not sent again: {reason}"), ..summary }
            }),
            LetterEvent::Settled {} | LetterEvent::Purged { .. } => None,
        })
    }
}
