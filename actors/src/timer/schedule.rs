//! Messages that are published later: at a time, after a while, or again and again.
//!
//! Each is a [timer](crate::timer) in the store: it survives restarts, and of several nodes one
//! publishes it. A message has the same id however often it is tried, and another one each time
//! that it is due.
//!
//! - On the bus it is published on the node that has the claim, to the subscriptions there: a bus
//!   is the memory of one node. A node claims when it has a subscription. A message that nobody
//!   there subscribes to waits, in sight (`smith timers list`), and is tried again: a node that
//!   starts has its subscriptions one after the other. Where several nodes have different ones,
//!   use a queue.
//! - On a [queue](Schedules::queue) it is sent by a node that has the queue.
//! - A pattern is cron's, in UTC: five fields (minute, hour, day, month, weekday), or six with
//!   seconds in front. What was missed, because no node was up, is published once, and then it goes
//!   on with the next time from now.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::civil::DateTime;
use serde::{Deserialize, Serialize};

use super::{Fired, NewTimer, Timer, TimerError, TimerHandler, TimerOptions, Timers, letter};
use crate::bus::queue::Sender;
use crate::bus::wire::WireMessage;
use crate::bus::{EventBus, NewMessage, Subject};
use crate::error::ErrorClass;
use crate::event::{ContentType, EncodedEvent, EventCodecError, Metadata, Timestamp};
use crate::guarded::guarded;

#[cfg(test)]
#[cfg(feature = "sqlite")]
mod tests;

/// The kind of messages for the bus.
pub const BUS: &str = "message";

/// The kinds of messages for queues begin so.
const QUEUES: &str = "queue.";

/// Why a message was not scheduled.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ScheduleError {
    /// The pattern is not valid, or never matches.
    #[error(
        "{pattern:?} is not a pattern that comes true: {reason}; write one such as \"0 9 * * mon-fri\""
    )]
    Pattern {
        /// The pattern.
        pattern: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The message cannot be written.
    #[error(transparent)]
    Message(#[from] EventCodecError),
    /// The message cannot be kept.
    #[error("the message cannot be kept: {0}")]
    Kept(#[from] rmp_serde::encode::Error),
    /// The timer was not set.
    #[error(transparent)]
    Timer(#[from] TimerError),
}

impl ScheduleError {
    /// How to react.
    #[must_use]
    pub const fn class(&self) -> ErrorClass {
        match self {
            Self::Pattern { .. } | Self::Message(_) | Self::Kept(_) => ErrorClass::User,
            Self::Timer(error) => error.class(),
        }
    }
}

/// A message as its timer keeps it.
#[derive(Debug, Serialize, Deserialize)]
struct Planned {
    subject: String,
    event_type: Arc<str>,
    schema_version: u16,
    codec: ContentType,
    data: Bytes,
    meta: Bytes,
    #[serde(default)]
    cron: Option<String>,
}

/// Schedules messages. Cheap to clone.
///
/// ```
/// # use std::time::Duration;
/// # use mister_smith_actors::bus::NewMessage;
/// # use mister_smith_actors::event::ContentType;
/// # use mister_smith_actors::timer::schedule::{ScheduleError, Schedules};
/// # async fn example(schedule: &Schedules) -> Result<(), Box<dyn std::error::Error>> {
/// let reminder = NewMessage::bytes("order.17.remind", "remind", ContentType::Json, "{}")?;
/// schedule.after("remind 17", Duration::from_secs(3_600), reminder).await?;
/// schedule.cancel("remind 17").await?;
///
/// // Each start of the program may say it: what is the same stays as it is.
/// let report = NewMessage::bytes("reports.daily", "report", ContentType::Json, "{}")?;
/// schedule.cron("daily report", "0 6 * * *", report).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Schedules {
    timers: Timers,
    bus: EventBus,
    kind: Arc<str>,
}

impl Schedules {
    /// Schedules for a node's bus, and its queues.
    #[must_use]
    pub fn new(timers: Timers, bus: EventBus) -> Self {
        Self { timers, bus, kind: BUS.into() }
    }

    /// Publishes what is scheduled for the bus, from now on.
    ///
    /// # Errors
    /// This node does so already, or the actor did not start.
    pub async fn start(&self) -> Result<(), TimerError> {
        let handler = Publisher { bus: self.bus.clone(), timers: self.timers.clone() };
        self.timers.handle(BUS, TimerOptions::default(), handler).await
    }

    /// Sends what is scheduled for a queue, from now on; a name stands for the same queue on every
    /// node.
    ///
    /// # Errors
    /// This node has a queue of that name already, or the actor did not start.
    pub async fn queue(&self, name: &str, queue: Arc<dyn Sender>) -> Result<(), TimerError> {
        let handler = Forward { bus: self.bus.clone(), timers: self.timers.clone(), queue };
        self.timers.handle(format!("{QUEUES}{name}"), TimerOptions::default(), handler).await
    }

    /// The same for messages to a queue, which this node need not have.
    #[must_use]
    pub fn to_queue(&self, name: &str) -> Self {
        Self { kind: format!("{QUEUES}{name}").into(), ..self.clone() }
    }

    /// Publishes a message at a time; at once if that is over. One of the same name is replaced.
    ///
    /// # Errors
    /// The message cannot be written, or the store failed.
    ///
    /// # Cancel safety
    /// A dropped call has scheduled it or not.
    pub async fn at(
        &self,
        name: &str,
        time: Timestamp,
        message: NewMessage,
    ) -> Result<(), ScheduleError> {
        let payload = self.planned(message, None)?;
        Ok(self.timers.set(NewTimer::new(Arc::clone(&self.kind), name, time, payload)).await?)
    }

    /// Publishes a message after a while. One of the same name is replaced, and so put off.
    ///
    /// # Errors
    /// See [`at`](Self::at).
    ///
    /// # Cancel safety
    /// See [`at`](Self::at).
    pub async fn after(
        &self,
        name: &str,
        wait: Duration,
        message: NewMessage,
    ) -> Result<(), ScheduleError> {
        let micros = i64::try_from(wait.as_micros()).unwrap_or(i64::MAX);
        let time = self.timers.now().as_micros().saturating_add(micros);
        self.at(name, Timestamp::from_micros(time), message).await
    }

    /// Publishes a message whenever a pattern comes true. One of the same name stays as it is if
    /// pattern and message are the same, with what it has missed; else it is replaced.
    ///
    /// # Errors
    /// The pattern is not valid, the message cannot be written, or the store failed.
    ///
    /// # Cancel safety
    /// See [`at`](Self::at).
    pub async fn cron(
        &self,
        name: &str,
        pattern: &str,
        message: NewMessage,
    ) -> Result<(), ScheduleError> {
        let due = next(pattern, self.timers.now())
            .map_err(|reason| ScheduleError::Pattern { pattern: pattern.to_owned(), reason })?;
        let payload = self.planned(message, Some(pattern))?;
        let there = self.timers.get(&self.kind, name).await?;
        if there.is_some_and(|row| row.payload == payload) {
            return Ok(());
        }
        Ok(self.timers.set(NewTimer::new(Arc::clone(&self.kind), name, due, payload)).await?)
    }

    /// Takes a message back; answers whether it was there. One that is being published at this
    /// moment may still come.
    ///
    /// # Errors
    /// The store failed.
    ///
    /// # Cancel safety
    /// A dropped call has taken it back or not.
    pub async fn cancel(&self, name: &str) -> Result<bool, TimerError> {
        self.timers.cancel(&self.kind, name).await
    }

    fn planned(&self, message: NewMessage, cron: Option<&str>) -> Result<Vec<u8>, ScheduleError> {
        let message = self.bus.stamp(message);
        let encoded = message.encoded()?;
        let planned = Planned {
            subject: message.subject().to_string(),
            event_type: Arc::clone(&encoded.event_type),
            schema_version: encoded.schema_version,
            codec: encoded.codec,
            data: encoded.data.clone(),
            meta: message.metadata().to_bytes(),
            cron: cron.map(str::to_owned),
        };
        Ok(rmp_serde::to_vec_named(&planned)?)
    }
}

/// When a pattern comes true next, after a time.
fn next(pattern: &str, after: Timestamp) -> Result<Timestamp, String> {
    let found = guarded(|| {
        let cron: croner::Cron = pattern.parse().map_err(|error| format!("{error}"))?;
        let after = jiff::Timestamp::from_microsecond(after.as_micros())
            .map_err(|error| error.to_string())?;
        let after = after.to_zoned(jiff::tz::TimeZone::UTC).datetime();
        let next: DateTime =
            cron.find_next_occurrence(&after, false).map_err(|error| error.to_string())?;
        let next = next.to_zoned(jiff::tz::TimeZone::UTC).map_err(|error| error.to_string())?;
        Ok(Timestamp::from_micros(next.timestamp().as_microsecond()))
    });
    found.and_then(|found| found)
}

/// What becomes of the timer of a message that is out.
fn and_then(planned: &Planned, now: Timestamp, timer: &Timer) -> Fired {
    let Some(pattern) = &planned.cron else { return Fired::Done };
    match next(pattern, now.max(timer.due)) {
        Ok(due) => Fired::Again(due),
        // It has come true for the last time.
        Err(reason) => {
            tracing::info!(timer = &*timer.name, pattern, reason, "a schedule has ended");
            Fired::Done
        }
    }
}

/// The message of a timer, with the id of this firing.
fn message_of(timer: &Timer) -> Result<(Planned, NewMessage), Fired> {
    let planned: Planned = rmp_serde::from_slice(&timer.payload)
        .map_err(|error| Fired::unknown(format!("its message cannot be read: {error}")))?;
    let subject = Subject::new(planned.subject.as_str())
        .map_err(|error| Fired::fail(ErrorClass::Permanent, error))?;
    let event = EncodedEvent {
        event_type: Arc::clone(&planned.event_type),
        schema_version: planned.schema_version,
        codec: planned.codec,
        data: planned.data.clone(),
    };
    let message = NewMessage::encoded(subject, event)
        .id(letter::id_of(timer))
        .at(timer.due)
        .metadata(Metadata::from_bytes(&planned.meta));
    Ok((planned, message))
}

/// Publishes on the bus.
struct Publisher {
    bus: EventBus,
    timers: Timers,
}

impl TimerHandler for Publisher {
    async fn fire(&self, timer: Timer) -> Fired {
        let (planned, message) = match message_of(&timer) {
            Ok(message) => message,
            Err(fired) => return fired,
        };
        match self.bus.publish(message).await {
            Ok(published) if published.delivered + published.dropped == 0 => {
                Fired::unknown(format!("nobody on this node subscribes to {}", planned.subject))
            }
            Ok(_) => and_then(&planned, self.timers.now(), &timer),
            Err(error) => Fired::failed(error.class(), error),
        }
    }

    /// A node without subscribers leaves them to others.
    fn ready(&self) -> bool {
        let system = |pattern: &str| pattern.split('.').next() == Some(crate::bus::SYSTEM);
        self.bus.subscriptions().iter().any(|one| !system(&one.pattern))
    }
}

/// Sends to a queue.
struct Forward {
    bus: EventBus,
    timers: Timers,
    queue: Arc<dyn Sender>,
}

impl TimerHandler for Forward {
    async fn fire(&self, timer: Timer) -> Fired {
        let (planned, message) = match message_of(&timer) {
            Ok(message) => message,
            Err(fired) => return fired,
        };
        let wire = match WireMessage::of(&self.bus.stamp(message)) {
            Ok(wire) => wire,
            Err(error) => return Fired::fail(ErrorClass::Permanent, error),
        };
        match self.queue.send(&[wire]).await {
            Ok(_) => and_then(&planned, self.timers.now(), &timer),
            Err(error) => Fired::failed(error.source.class(), error.source),
        }
    }
}

impl fmt::Debug for Schedules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Schedules").field("kind", &self.kind).finish_non_exhaustive()
    }
}
