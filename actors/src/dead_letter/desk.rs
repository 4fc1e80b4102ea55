//! Where dead letters are handed in, and where a person decides about them.

use std::fmt;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use mister_smith_supervisors::ErrorClass;
use serde::Serialize;
use uuid::Uuid;

use super::{DeadLetter, Letter, LetterCommand, LetterState, LetterSummary, Letters};
use crate::bus::{
    DeadLetterOffice, EventBus, InvalidSubject, NewMessage, OfficeError, RedeliverError, Subject,
    Undelivered, letter_id,
};
use crate::command::{CommandBus, CommandError};
use crate::event::{ContentType, EncodedEvent, EventId, Metadata, Position, Timestamp};
use crate::projection::handle::{ProjectionRef, RequestError};
use crate::projection::{Compare, ListQuery, Projection};
use crate::store::MAX_EVENT_BYTES;

/// Dead letters that are looked at for one page of [`DeadLetters::requeue_all`].
const PAGE: usize = 200;

/// The largest payload that a letter holds, with its metadata: a letter is an event itself.
pub const LETTER_BYTES: usize = MAX_EVENT_BYTES - (1 << 20);

/// A letter that was sent again this long ago, and of which nothing was heard, is sent once more
/// with the others: its handler has ended with its node.
const UNANSWERED_US: i64 = 15 * 60 * 1_000_000;

/// The dead letters of a node. Cheap to clone.
#[derive(Clone)]
pub struct DeadLetters(Arc<Inner>);

struct Inner {
    bus: EventBus,
    open: OnceLock<Open>,
}

/// What is there once the node is up.
struct Open {
    commands: CommandBus,
    letters: ProjectionRef,
}

/// Why nothing came of a request about dead letters.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DeadLetterError {
    /// The node is not up.
    #[error("the node is starting; try again")]
    NotUp,
    /// The dead letter, or its state, does not allow it.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// The list could not be read.
    #[error(transparent)]
    Read(#[from] RequestError),
    /// It could not be sent again; it is open as before.
    #[error("it could not be sent again: {source}")]
    Redeliver {
        /// Why.
        source: RedeliverError,
    },
    /// Its payload is not in it.
    #[error(
        "its payload is not in it, and it came from no log: whoever sent it has to send it again"
    )]
    LeftOut,
    /// Its subject is none any more.
    #[error(transparent)]
    Subject(#[from] InvalidSubject),
}

/// What came of sending many dead letters again.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Requeued {
    /// How many were sent.
    pub requeued: usize,
    /// Those that were not, and why.
    pub failed: Vec<(String, String)>,
}

impl DeadLetters {
    /// A desk for the subscribers of a bus; [`open`](Self::open) lets it work.
    #[must_use]
    pub fn new(bus: EventBus) -> Self {
        Self(Arc::new(Inner { bus, open: OnceLock::new() }))
    }

    /// The node is up: dead letters can be kept and read. What subscribers handed in before waits
    /// until now.
    pub fn open(&self, commands: CommandBus, letters: ProjectionRef) {
        let _ = self.0.open.set(Open { commands, letters });
    }

    fn up(&self) -> Result<&Open, DeadLetterError> {
        self.0.open.get().ok_or(DeadLetterError::NotUp)
    }

    /// Keeps a message that could not be handled. Answers the dead letter's id, the same for the
    /// same message and origin, and how far the log is then.
    ///
    /// # Errors
    /// It is not kept, or not as far as one knows: hand it in again.
    pub async fn keep(&self, letter: Letter) -> Result<(Uuid, Option<Position>), DeadLetterError> {
        let id = letter_id(&letter.origin, EventId::new(letter.message_id));
        let command = LetterCommand::Keep(Box::new(letter));
        let done = self.up()?.commands.send::<DeadLetter>(&id.to_string(), command).await?;
        Ok((id, done.position))
    }

    /// A page of those that wait, by id; of one origin if it is given.
    ///
    /// # Errors
    /// They could not be read.
    pub async fn list(
        &self,
        origin: Option<&str>,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<(Arc<str>, LetterSummary)>, DeadLetterError> {
        let mut query = ListQuery::first(limit);
        if let Some(origin) = origin {
            query = query.filter("origin", Compare::Eq, origin);
        }
        if let Some(after) = after {
            query = query.after(after);
        }
        Ok(self.up()?.letters.list(&query).await?)
    }

    /// One of them, with the whole message.
    ///
    /// # Errors
    /// There is none of that id, or it could not be read.
    pub async fn show(&self, id: &str) -> Result<DeadLetter, DeadLetterError> {
        let look = |letter: &DeadLetter, _| letter.clone();
        let letter = self.up()?.commands.look::<DeadLetter, _>(id, look).await?;
        match letter.letter {
            Some(_) => Ok(letter),
            None => Err(CommandError::rejected(super::LetterRefusal::Unknown).into()),
        }
    }

    /// Sends one to its subscriber again, with a note of who asked for it. It is settled when the
    /// subscriber acknowledges it, and open again when it is given up again.
    ///
    /// A node that ends before the subscriber has answered leaves it in the state `requeued`,
    /// where it can be sent again.
    ///
    /// # Errors
    /// There is none of that id, it was handled or purged, or its subscriber is not there.
    pub async fn requeue(&self, id: &str, by: &str) -> Result<(), DeadLetterError> {
        let open = self.up()?;
        let whole = |letter: &Letter| !letter.left_out || letter.position.is_some();
        let look = move |letter: &DeadLetter, _| letter.letter.as_deref().is_none_or(whole);
        if !open.commands.look::<DeadLetter, _>(id, look).await? {
            return Err(DeadLetterError::LeftOut);
        }
        let command = LetterCommand::Requeue { by: by.to_owned() };
        open.commands.send::<DeadLetter>(id, command).await?;
        let letter = self.show(id).await?.letter.ok_or(DeadLetterError::NotUp)?;
        let origin = letter.origin.clone();
        let message = message(&letter, id)?;
        if let Err(source) = self.0.bus.deliver_to(&origin, message).await {
            let command = LetterCommand::Return { reason: source.to_string() };
            open.commands.send::<DeadLetter>(id, command).await?;
            return Err(DeadLetterError::Redeliver { source });
        }
        Ok(())
    }

    /// Sends all that are open again, or those of one origin; also those that were sent again
    /// longer than 15 minutes ago and are not settled: their handlers ended with their nodes.
    ///
    /// # Errors
    /// They could not be read. What came of each is in the answer.
    pub async fn requeue_all(
        &self,
        origin: Option<&str>,
        by: &str,
    ) -> Result<Requeued, DeadLetterError> {
        let mut done = Requeued::default();
        let mut after: Option<Arc<str>> = None;
        loop {
            let page = self.list(origin, after.as_deref(), PAGE).await?;
            let Some((last, _)) = page.last() else { return Ok(done) };
            after = Some(Arc::clone(last));
            let now = self.0.bus.now();
            for (id, _) in page.iter().filter(|(_, one)| one.waits(now)) {
                match self.requeue(id, by).await {
                    Ok(()) => done.requeued += 1,
                    Err(error) => done.failed.push((id.to_string(), error.to_string())),
                }
            }
        }
    }

    /// Gives one up for good, with a note of who decided it. Its events stay in the log.
    ///
    /// # Errors
    /// There is none of that id, or it was handled or purged.
    pub async fn purge(&self, id: &str, by: &str) -> Result<(), DeadLetterError> {
        let command = LetterCommand::Purge { by: by.to_owned() };
        self.up()?.commands.send::<DeadLetter>(id, command).await?;
        Ok(())
    }

    /// Waits until a dead letter that was kept at a position is in the list.
    ///
    /// # Errors
    /// The list is not as far after
    /// [`WAIT_FOR`](crate::projection::handle::WAIT_FOR), or this node stops.
    pub async fn wait_for(&self, position: Position) -> Result<(), DeadLetterError> {
        Ok(self.up()?.letters.wait_for(position).await?)
    }
}

fn message(letter: &Letter, id: &str) -> Result<NewMessage, DeadLetterError> {
    let event = EncodedEvent {
        event_type: letter.event_type.as_str().into(),
        schema_version: letter.schema_version,
        codec: letter.codec,
        data: letter.data.clone(),
    };
    let mut message = NewMessage::encoded(Subject::new(letter.subject.as_str())?, event)
        .id(EventId::new(letter.message_id))
        .at(letter.published_at)
        .metadata(Metadata::from_bytes(&letter.meta));
    if let Some(position) = letter.position {
        message = message.position(position);
    }
    match id.parse() {
        Ok(id) => Ok(message.for_dead_letter(id)),
        Err(_) => Err(CommandError::rejected(super::LetterRefusal::Unknown).into()),
    }
}

impl LetterSummary {
    /// Whether it waits for somebody to decide: it is open, or was sent again so long ago that
    /// nobody can be at it any more.
    pub(super) fn waits(&self, now: Timestamp) -> bool {
        match self.state {
            LetterState::Open => true,
            LetterState::Requeued => {
                self.last_at.as_micros().saturating_add(UNANSWERED_US) <= now.as_micros()
            }
            LetterState::None | LetterState::Settled | LetterState::Purged => false,
        }
    }
}

impl Letter {
    /// A message that a handler gave up.
    ///
    /// A payload that no letter can hold is left out, and the reason says so: one that was
    /// published as a value and cannot be written, or one of more than [`LETTER_BYTES`].
    #[must_use]
    pub fn of(undelivered: &Undelivered) -> Self {
        let message = &undelivered.message;
        let mut letter = Self {
            origin: undelivered.subscription.to_string(),
            subject: message.subject().to_string(),
            message_id: *message.id().as_uuid(),
            event_type: message.subject().to_string(),
            schema_version: 1,
            codec: ContentType::Raw,
            data: Bytes::new(),
            meta: message.metadata().to_bytes(),
            published_at: message.at(),
            position: message.position(),
            cause: undelivered.cause,
            reason: undelivered.reason.clone(),
            attempts: undelivered.attempts,
            left_out: false,
        };
        let encoded = match message.encoded() {
            Ok(encoded) => encoded,
            Err(error) => {
                letter.left_out = true;
                letter.reason += &format!(" (its payload is not here: {error})");
                return letter;
            }
        };
        letter.event_type = encoded.event_type.to_string();
        letter.schema_version = encoded.schema_version;
        letter.codec = encoded.codec;
        let bytes = encoded.data.len() + letter.meta.len();
        match (bytes > LETTER_BYTES, letter.position) {
            (false, _) => letter.data = encoded.data.clone(),
            (true, position) => {
                (letter.meta, letter.left_out) = (Bytes::new(), true);
                letter.reason += &match position {
                    Some(at) => {
                        format!(" (its {bytes} bytes are not here, but in the log at {at})")
                    }
                    None => format!(" (its {bytes} bytes are more than a letter holds)"),
                };
            }
        }
        letter
    }
}

impl DeadLetterOffice for DeadLetters {
    fn keep(&self, undelivered: Undelivered) -> BoxFuture<'_, Result<(), OfficeError>> {
        async move {
            self.keep(Letter::of(&undelivered)).await.map(|_| ()).map_err(|error| refused(&error))
        }
        .boxed()
    }

    fn settle(&self, letter: Uuid) -> BoxFuture<'_, Result<(), OfficeError>> {
        async move {
            let open = self.up().map_err(|error| refused(&error))?;
            let settled =
                open.commands.send::<DeadLetter>(&letter.to_string(), LetterCommand::Settle).await;
            settled.map(|_| ()).map_err(|error| refused(&error.into()))
        }
        .boxed()
    }
}

fn refused(error: &DeadLetterError) -> OfficeError {
    let class = match error {
        DeadLetterError::Command(error) => error.class(),
        DeadLetterError::NotUp | DeadLetterError::Read(_) => ErrorClass::Transient,
        DeadLetterError::Redeliver { .. }
        | DeadLetterError::LeftOut
        | DeadLetterError::Subject(_) => ErrorClass::Permanent,
    };
    OfficeError::new(class, error)
}

impl fmt::Debug for DeadLetters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeadLetters")
            .field("projection", &Letters::NAME)
            .field("open", &self.0.open.get().is_some())
            .finish_non_exhaustive()
    }
}
