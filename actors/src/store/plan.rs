//! What a batch does to a store, decided without touching it.
//!
//! Every adapter reads what the batch needs to know, asks this function, and writes the answer.
//! So all of them agree on who wins, who conflicts and who came before.

use std::collections::BTreeMap;

use indexmap::IndexMap;

use super::{
    Append, AppendError, AppendOutcome, Appended, IdempotencyKey, InvalidAppend, MAX_APPEND_BYTES,
    MAX_APPEND_EVENTS, MAX_EVENT_BYTES, TOMBSTONE,
};
use crate::event::{MAX_EVENT_TYPE_BYTES, NewEvent, Position, StreamId, Timestamp, Version};

/// What the store holds of the streams and keys that a batch names.
pub(super) trait Known {
    /// How a stream stands; the default if it does not exist.
    fn stream(&self, stream: &StreamId) -> StreamState;
    /// The first answer to a key.
    fn answer(&self, key: &IdempotencyKey) -> Option<Appended>;
    /// Whose the streams of a category are. Asked of what comes from outside.
    fn owner(&self, category: &str) -> Option<&str>;
}

/// How a stream stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct StreamState {
    /// The version of its last event; zero if it does not exist.
    pub(super) version: Version,
    /// Its last event is a tombstone.
    pub(super) deleted: bool,
}

/// What is to be written, and what is to be answered once it is.
#[derive(Debug)]
pub(super) struct Plan<'a> {
    /// One answer for each append, in the order of the batch.
    pub(super) outcomes: Vec<AppendOutcome>,
    /// The appends that are written, in the order of their positions.
    pub(super) accepted: Vec<Accepted<'a>>,
    /// Each changed stream once, however many appends it got, in the order of first use.
    pub(super) streams: IndexMap<&'a StreamId, StreamChange>,
    /// The head of the log afterwards.
    pub(super) head: Position,
}

#[derive(Debug)]
pub(super) struct Accepted<'a> {
    pub(super) appended: Appended,
    pub(super) events: &'a [NewEvent],
    pub(super) key: Option<IdempotencyKey>,
    #[cfg_attr(
        not(feature = "postgres"),
        expect(dead_code, reason = "the others keep everybody out while they decide")
    )]
    pub(super) outside: bool,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct StreamChange {
    pub(super) version: Version,
    pub(super) deleted: bool,
    #[cfg_attr(
        not(any(feature = "sqlite", feature = "postgres")),
        expect(dead_code, reason = "only databases need it")
    )]
    pub(super) first_position: Position,
    pub(super) last_position: Position,
}

/// Decides a batch on a log that ends at `head`.
pub(super) fn plan<'a>(batch: &'a [Append], head: Position, known: &impl Known) -> Plan<'a> {
    let mut plan = Plan {
        outcomes: Vec::with_capacity(batch.len()),
        accepted: Vec::with_capacity(batch.len()),
        streams: IndexMap::new(),
        head,
    };
    let mut answers = BTreeMap::new();
    for append in batch {
        let unlinked =
            append.linked && !matches!(plan.outcomes.last(), Some(Ok(before)) if !before.duplicate);
        let outcome = plan.admit(append, unlinked, known, &mut answers);
        plan.outcomes.push(outcome);
    }
    plan
}

impl<'a> Plan<'a> {
    fn admit(
        &mut self,
        append: &'a Append,
        unlinked: bool,
        known: &impl Known,
        answers: &mut BTreeMap<IdempotencyKey, Appended>,
    ) -> AppendOutcome {
        let Append { stream, expected, events, key, linked: _, outside } = append;
        let (key, expected) = (*key, *expected);
        if let Err(reason) = check(events) {
            return Err(AppendError::Invalid { stream: stream.clone(), reason });
        }
        // Before the version check: a repeat of a request expects the version from before the
        // first one, and it must not hear of a conflict with itself.
        if let Some(first) =
            key.and_then(|key| answers.get(&key).cloned().or_else(|| known.answer(&key)))
        {
            return Ok(Appended { duplicate: true, ..first });
        }
        if *outside && let Some(owner) = known.owner(stream.category()) {
            return Err(AppendError::Owned { stream: stream.clone(), owner: owner.to_owned() });
        }
        let state = match self.streams.get(stream) {
            Some(change) => StreamState { version: change.version, deleted: change.deleted },
            None => known.stream(stream),
        };
        if state.deleted {
            return Err(AppendError::Deleted { stream: stream.clone() });
        }
        let actual = state.version;
        if unlinked || !expected.accepts(actual) {
            return Err(AppendError::Conflict { stream: stream.clone(), expected, actual });
        }
        let deleted = events.last().is_some_and(is_tombstone);
        let count = events.len() as u64;
        let appended = Appended {
            first_version: actual.next(),
            last_version: actual.plus(count),
            first_position: self.head.next(),
            last_position: self.head.plus(count),
            stream: stream.clone(),
            duplicate: false,
        };
        self.head = appended.last_position;
        let change = self.streams.entry(stream).or_insert(StreamChange {
            version: appended.last_version,
            deleted,
            first_position: appended.first_position,
            last_position: appended.last_position,
        });
        change.version = appended.last_version;
        change.deleted = deleted;
        change.last_position = appended.last_position;
        if let Some(key) = key {
            answers.insert(key, appended.clone());
        }
        let outside = *outside;
        self.accepted.push(Accepted { appended: appended.clone(), events, key, outside });
        Ok(appended)
    }
}

fn is_tombstone(event: &NewEvent) -> bool {
    &*event.event_type == TOMBSTONE
}

/// The mark to be written with a plan: the latest time of its events, if it is in a later minute
/// than the last mark, and the position before them.
pub(super) fn mark(plan: &Plan<'_>, before: Position, last: Option<Timestamp>) -> Option<Mark> {
    let events = plan.accepted.iter().flat_map(|append| append.events);
    let at = events.map(|event| event.recorded_at).max()?;
    let minute = |time: Timestamp| time.as_micros().div_euclid(super::MARK_EVERY_US);
    (last.is_none_or(|last| minute(at) > minute(last))).then_some(Mark { at, position: before })
}

/// All events up to `position` were in the log at the time `at`, or were recorded before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) at: Timestamp,
    pub(super) position: Position,
}

fn check(events: &[NewEvent]) -> Result<(), InvalidAppend> {
    if events.is_empty() {
        return Err(InvalidAppend::NoEvents);
    }
    if events.len() > MAX_APPEND_EVENTS {
        return Err(InvalidAppend::TooManyEvents { count: events.len() });
    }
    for (index, event) in events.iter().enumerate() {
        if event.size() > MAX_EVENT_BYTES {
            return Err(InvalidAppend::TooLarge { index, bytes: event.size() });
        }
        let name = &event.event_type;
        if is_tombstone(event) && events.len() == 1 {
            continue;
        }
        if name.is_empty()
            || name.starts_with('$')
            || name.len() > MAX_EVENT_TYPE_BYTES
            || name.contains(char::is_control)
        {
            // Cut, or a refused megabyte would come back as an error text.
            let event_type = name.chars().take(64).collect();
            return Err(InvalidAppend::EventType { index, event_type });
        }
    }
    let bytes = events.iter().map(NewEvent::size).sum();
    if bytes > MAX_APPEND_BYTES {
        return Err(InvalidAppend::TooManyBytes { bytes });
    }
    Ok(())
}
