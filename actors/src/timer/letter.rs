//! A timer that failed for good, as a dead letter, and the way back.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{Timer, TimerRow};
use crate::bus::{
    DeadLetterOffice, EventBus, FailureCause, Message, NewMessage, Subject, Undelivered,
};
use crate::event::{ContentType, EventId, Timestamp};
use crate::store::IdempotencyKey;
use crate::store::timers::NewTimer;

/// The type of the event in a letter.
const TYPE: &str = "timer";

/// What a letter says of its timer.
#[derive(Debug, Serialize, Deserialize)]
struct Said {
    kind: Arc<str>,
    name: Arc<str>,
    due: Timestamp,
    payload: Payload,
}

/// Text where it is one: people read it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Payload {
    Text(String),
    Bytes(Bytes),
}

/// Under which name the letters of a kind are kept.
pub(super) fn origin(kind: &str) -> Arc<str> {
    format!("timer.{kind}").into()
}

/// The id of a firing: the same for every try.
pub(super) fn id_of(timer: &Timer) -> EventId {
    EventId::new(IdempotencyKey::of(["timer", &*timer.key()]).to_uuid())
}

/// Keeps a letter; it is durable when this returns.
///
/// # Errors
/// It is not kept: what the office said.
pub(super) async fn keep(
    (bus, office): (&EventBus, &dyn DeadLetterOffice),
    timer: &Timer,
    cause: FailureCause,
    reason: String,
) -> Result<(), String> {
    let payload = match std::str::from_utf8(&timer.payload) {
        Ok(text) => Payload::Text(text.to_owned()),
        Err(_) => Payload::Bytes(timer.payload.clone()),
    };
    let (kind, name) = (Arc::clone(&timer.kind), Arc::clone(&timer.name));
    let said = Said { kind, name, due: timer.due, payload };
    let said = serde_json::to_vec(&said).map_err(|error| error.to_string())?;
    let subject = Subject::of(["timers", &*timer.kind]);
    let message = NewMessage::bytes(subject, TYPE, ContentType::Json, said)
        .map_err(|error| error.to_string())?
        .id(id_of(timer))
        .at(timer.due);
    let letter = Undelivered {
        subscription: origin(&timer.kind),
        message: bus.stamp(message),
        cause,
        reason,
        attempts: timer.attempt,
    };
    office.keep(letter).await.map_err(|error| error.to_string())
}

/// The timer of a letter that is sent again.
///
/// # Errors
/// It is not one of a timer.
pub(super) fn timer_of(message: &Message) -> Result<NewTimer, String> {
    let encoded = message.encoded().map_err(|error| error.to_string())?;
    let said: Said = serde_json::from_slice(&encoded.data).map_err(|error| error.to_string())?;
    let payload = match said.payload {
        Payload::Text(text) => text.into(),
        Payload::Bytes(bytes) => bytes,
    };
    Ok(NewTimer::new(said.kind, said.name, said.due, payload))
}

/// A row as its handler sees it.
pub(crate) fn timer(row: &TimerRow) -> Timer {
    Timer {
        kind: Arc::clone(&row.kind),
        name: Arc::clone(&row.name),
        due: row.due,
        payload: row.payload.clone(),
        attempt: row.attempts.saturating_add(1),
    }
}
