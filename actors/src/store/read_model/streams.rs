//! The read model of streams: one row for each.
//!
//! [`Summaries`] is what it means, as a pure fold; an adapter of [`StreamSummaries`] keeps the
//! same rows in a database, exactly once in effect.

use std::{collections::BTreeMap, fmt, sync::Arc};

use bytes::Bytes;
use futures_util::future::BoxFuture;

use super::{Checkpoint, Claim, Epoch, ProjectionError};
use crate::event::{ContentType, Position, RecordedEvent, StreamId, Timestamp};

#[cfg(feature = "sqlite")]
pub mod sqlite;

#[cfg(test)]
mod tests;

/// The name of its checkpoint.
pub const NAME: &str = "stream_summaries";

/// The most rows of one page; a larger limit is read as this one.
pub const MAX_PAGE: usize = 1_000;

/// What is known of one stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamSummary {
    /// Its name.
    pub id: StreamId,
    /// How many events it has.
    pub events: u64,
    /// The earliest time of its events.
    pub first_at: Timestamp,
    /// The latest time of its events.
    pub last_at: Timestamp,
    /// How many events of each type it has.
    pub by_type: BTreeMap<Arc<str>, u64>,
    /// How the last event's payload is to be read.
    pub last_codec: ContentType,
    /// The last event's payload.
    pub last_payload: Bytes,
    /// The last event's place in the log.
    pub last_position: Position,
}

/// The read model in a database.
pub trait StreamSummaries: Send + Sync + fmt::Debug {
    /// Takes the projection over; whoever had it before is fenced from now on.
    ///
    /// # Errors
    ///
    /// The database failed.
    ///
    /// # Cancel safety
    ///
    /// A dropped call may have claimed it; claim again.
    fn claim<'a>(&'a self, owner: &'a str) -> BoxFuture<'a, Result<Claim, ProjectionError>>;

    /// Applies the next events of the log and moves the checkpoint, in one transaction. Answers
    /// the new checkpoint.
    ///
    /// Events at or below the checkpoint have been applied before and are skipped.
    ///
    /// # Errors
    ///
    /// [`Fenced`](ProjectionError::Fenced): claimed by somebody else since.
    /// [`Gap`](ProjectionError::Gap): the events do not follow the checkpoint or each other.
    /// Otherwise the database failed. Nothing was applied, unless the fault came while committing:
    /// giving the same events again is always right.
    ///
    /// # Cancel safety
    ///
    /// A dropped call applies all or nothing; giving the same events again is right.
    fn apply<'a>(
        &'a self,
        epoch: Epoch,
        events: &'a [RecordedEvent],
    ) -> BoxFuture<'a, Result<Position, ProjectionError>>;

    /// Removes all rows and goes back to the begin of the log, to be applied again.
    ///
    /// # Errors
    ///
    /// As for [`apply`](Self::apply).
    ///
    /// # Cancel safety
    ///
    /// As for [`apply`](Self::apply).
    fn reset(&self, epoch: Epoch) -> BoxFuture<'_, Result<(), ProjectionError>>;

    /// The row of one stream.
    ///
    /// # Errors
    ///
    /// The database failed.
    ///
    /// # Cancel safety
    ///
    /// Dropping the call loses nothing.
    fn get<'a>(
        &'a self,
        id: &'a StreamId,
    ) -> BoxFuture<'a, Result<Option<StreamSummary>, ProjectionError>>;

    /// At most `limit` rows (and at most [`MAX_PAGE`]) in the order of names, after a name.
    ///
    /// # Errors
    ///
    /// The database failed.
    ///
    /// # Cancel safety
    ///
    /// Dropping the call loses nothing.
    fn list<'a>(
        &'a self,
        after: Option<&'a StreamId>,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<StreamSummary>, ProjectionError>>;

    /// How far it is, and whose it is.
    ///
    /// # Errors
    ///
    /// The database failed.
    ///
    /// # Cancel safety
    ///
    /// Dropping the call loses nothing.
    fn checkpoint(&self) -> BoxFuture<'_, Result<Checkpoint, ProjectionError>>;
}

impl StreamSummary {
    /// The summary of a stream of which only this event is known.
    fn of(event: &RecordedEvent) -> Self {
        Self {
            id: event.stream.clone(),
            events: 1,
            first_at: event.recorded_at,
            last_at: event.recorded_at,
            by_type: BTreeMap::from([(Arc::clone(&event.event_type), 1)]),
            last_codec: event.codec,
            last_payload: event.data.clone(),
            last_position: event.position,
        }
    }

    fn add(&mut self, event: &RecordedEvent) {
        self.events += 1;
        self.first_at = self.first_at.min(event.recorded_at);
        self.last_at = self.last_at.max(event.recorded_at);
        match self.by_type.get_mut(&event.event_type) {
            Some(count) => *count += 1,
            None => drop(self.by_type.insert(Arc::clone(&event.event_type), 1)),
        }
        self.last_codec = event.codec;
        self.last_payload = event.data.clone();
        self.last_position = event.position;
    }

    /// Adds what comes after it.
    fn merge(&mut self, later: Self) {
        self.events += later.events;
        self.first_at = self.first_at.min(later.first_at);
        self.last_at = self.last_at.max(later.last_at);
        for (event_type, count) in later.by_type {
            *self.by_type.entry(event_type).or_default() += count;
        }
        self.last_codec = later.last_codec;
        self.last_payload = later.last_payload;
        self.last_position = later.last_position;
    }
}

/// What the read model means: the summaries of events in memory, as a pure fold.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Summaries {
    streams: BTreeMap<StreamId, StreamSummary>,
}

impl Summaries {
    /// The summaries of `events`, which are in the order of the log.
    pub fn of<'a>(events: impl IntoIterator<Item = &'a RecordedEvent>) -> Self {
        let mut summaries = Self::default();
        for event in events {
            summaries.add(event);
        }
        summaries
    }

    /// Adds the next event.
    pub fn add(&mut self, event: &RecordedEvent) {
        match self.streams.get_mut(&event.stream) {
            Some(summary) => summary.add(event),
            None => drop(self.streams.insert(event.stream.clone(), StreamSummary::of(event))),
        }
    }

    /// Adds the summaries of what comes after.
    pub fn merge(&mut self, later: Self) {
        for (id, summary) in later.streams {
            match self.streams.get_mut(&id) {
                Some(earlier) => earlier.merge(summary),
                None => drop(self.streams.insert(id, summary)),
            }
        }
    }

    /// The summary of one stream.
    pub fn get(&self, id: &StreamId) -> Option<&StreamSummary> {
        self.streams.get(id)
    }

    /// All summaries, in the order of names.
    pub fn iter(&self) -> impl Iterator<Item = &StreamSummary> {
        self.streams.values()
    }
}

/// The events of a page that are new after `checkpoint`.
///
/// # Errors
///
/// They do not follow it, or each other, without a gap.
#[cfg_attr(not(feature = "sqlite"), expect(dead_code, reason = "only databases need it"))]
fn unseen(
    checkpoint: Position,
    events: &[RecordedEvent],
) -> Result<&[RecordedEvent], ProjectionError> {
    let known = events.partition_point(|event| event.position <= checkpoint);
    let new = &events[known..];
    let mut last = checkpoint;
    for event in new {
        if event.position != last.next() {
            return Err(ProjectionError::Gap {
                projection: NAME,
                checkpoint: last,
                found: event.position,
            });
        }
        last = event.position;
    }
    Ok(new)
}
