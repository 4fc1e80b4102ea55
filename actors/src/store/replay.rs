//! Replay: events of the past, once more, without disturbing the present.
//!
//! It reads pages over the connections that read, one page ahead of whoever takes them, and never
//! waits for a writer's lock. It can be slowed down to a rate, and it can be ended at any event and
//! resumed from its [`ReplayCursor`].

use std::sync::Arc;
use std::time::Duration;

use mister_smith_supervisors::TaskGuard;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until};

use super::{EventFilter, EventStore, MAX_PAGE, StoreError};
use crate::event::{Position, RecordedEvent, StreamId, Timestamp, Version};

/// Where a replay begins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ReplayFrom {
    /// After a position, in the order of commits; from the first event after
    /// [`Position::ZERO`].
    Position(Position),
    /// With the first event that was recorded at this time or later, leaving out what was recorded
    /// earlier.
    Time(Timestamp),
    /// After a version of one stream.
    Stream(StreamId, Version),
}

/// How far a replay is: keep it, and another process can go on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplayCursor {
    /// What comes next. A replay from a time becomes one from a position with its first page.
    pub from: ReplayFrom,
    /// What was recorded before is left out.
    pub since: Option<Timestamp>,
    /// Where it ends: a position, or a version of the stream.
    pub to: u64,
    /// What is let through.
    pub filter: EventFilter,
    /// Events that were given out.
    pub done: u64,
}

/// How much of a replay is done, by places in the log (or in the stream).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplayProgress {
    /// Events that were given out.
    pub events: u64,
    /// Places that were passed.
    pub at: u64,
    /// Where it ends.
    pub to: u64,
}

/// Events of the past. It ends at what was the head of the log (or the end of the stream) when it
/// began, or earlier.
#[derive(Debug)]
pub struct Replay {
    store: Arc<dyn EventStore>,
    cursor: ReplayCursor,
    page: usize,
    /// The page after the one that was given out last.
    ahead: Option<Ahead>,
    rate: Option<Rate>,
}

#[derive(Debug)]
struct Ahead {
    answer: oneshot::Receiver<Result<Page, StoreError>>,
    _task: TaskGuard,
}

/// Events and the place after which to go on.
#[derive(Debug)]
struct Page {
    events: Vec<RecordedEvent>,
    next: u64,
}

#[derive(Debug)]
struct Rate {
    per_second: u32,
    /// Since when, and how many events were given out then.
    since: Option<(Instant, u64)>,
}

impl Replay {
    /// A replay up to the end as it is now.
    ///
    /// # Errors
    ///
    /// The store could not be read.
    ///
    /// # Cancel safety
    ///
    /// Dropping the call loses nothing.
    pub async fn begin(store: Arc<dyn EventStore>, from: ReplayFrom) -> Result<Self, StoreError> {
        let (from, since) = match from {
            ReplayFrom::Time(time) => {
                (ReplayFrom::Position(store.position_at(time).await?), Some(time))
            }
            other => (other, None),
        };
        let to = match &from {
            ReplayFrom::Stream(stream, _) => store.stream_version(stream).await?.get(),
            _ => store.head().await?.get(),
        };
        let cursor = ReplayCursor { from, since, to, filter: EventFilter::ALL, done: 0 };
        Ok(Self::resume(store, cursor))
    }

    /// A replay that goes on where another one was.
    pub fn resume(store: Arc<dyn EventStore>, cursor: ReplayCursor) -> Self {
        Self { store, cursor, page: MAX_PAGE, ahead: None, rate: None }
    }

    /// Ends at this place, if it is before the end.
    #[must_use]
    pub fn to(mut self, place: u64) -> Self {
        self.cursor.to = self.cursor.to.min(place);
        self
    }

    /// Only what this filter lets through.
    #[must_use]
    pub fn filter(mut self, filter: EventFilter) -> Self {
        self.cursor.filter = filter;
        self
    }

    /// Events of one page at most.
    #[must_use]
    pub fn page(mut self, events: usize) -> Self {
        self.page = events.clamp(1, MAX_PAGE);
        self
    }

    /// At most this many events a second, on average from the first page on. A page is at most a
    /// tenth of a second's events then.
    #[must_use]
    pub fn rate(mut self, events_per_second: u32) -> Self {
        let per_second = events_per_second.max(1);
        self.page = self.page.min((per_second as usize / 10).max(1));
        self.rate = Some(Rate { per_second, since: None });
        self
    }

    /// How far it is. What was given out is behind it.
    pub const fn cursor(&self) -> &ReplayCursor {
        &self.cursor
    }

    /// How much is done.
    pub fn progress(&self) -> ReplayProgress {
        ReplayProgress { events: self.cursor.done, at: self.at(), to: self.cursor.to }
    }

    fn at(&self) -> u64 {
        match &self.cursor.from {
            ReplayFrom::Position(position) => position.get(),
            ReplayFrom::Stream(_, version) => version.get(),
            // Never kept: it became a position.
            ReplayFrom::Time(_) => 0,
        }
    }

    /// The next events; `None` at the end. Never an empty page.
    ///
    /// # Errors
    ///
    /// The store could not be read; the next call goes on from the same place.
    ///
    /// # Cancel safety
    ///
    /// Dropping the call loses nothing.
    pub async fn next(&mut self) -> Result<Option<Vec<RecordedEvent>>, StoreError> {
        loop {
            if self.at() >= self.cursor.to {
                return Ok(None);
            }
            self.pace().await;
            let mut ahead = match self.ahead.take() {
                Some(ahead) => ahead,
                None => self.read_ahead(),
            };
            let page = match (&mut ahead.answer).await {
                Ok(page) => page?,
                // The task ends without an answer only with its runtime.
                Err(_) => return Ok(None),
            };
            let stuck = page.next <= self.at();
            // What is behind the end is not of this replay.
            self.move_to(page.next.min(self.cursor.to));
            if stuck {
                // The log ends earlier than it did.
                return Ok(None);
            }
            if self.at() < self.cursor.to {
                self.ahead = Some(self.read_ahead());
            }
            let mut events = page.events;
            let (since, to) = (self.cursor.since, self.cursor.to);
            let by_stream = matches!(self.cursor.from, ReplayFrom::Stream(..));
            let filter = &self.cursor.filter;
            events.retain(|event| {
                let place = if by_stream { event.version.get() } else { event.position.get() };
                place <= to
                    && since.is_none_or(|since| event.recorded_at >= since)
                    && filter.accepts(&event.stream, &event.event_type)
            });
            if !events.is_empty() {
                self.cursor.done += events.len() as u64;
                return Ok(Some(events));
            }
        }
    }

    fn move_to(&mut self, place: u64) {
        match &mut self.cursor.from {
            ReplayFrom::Stream(_, version) => *version = Version::new(place),
            other => *other = ReplayFrom::Position(Position::new(place)),
        }
    }

    /// Reads the page behind the cursor in a task of its own.
    fn read_ahead(&self) -> Ahead {
        let (store, from) = (Arc::clone(&self.store), self.cursor.from.clone());
        let (filter, limit) = (self.cursor.filter.clone(), self.page);
        let (give, answer) = oneshot::channel();
        let task = TaskGuard::spawn(async move {
            let page = read(&*store, &from, &filter, limit).await;
            // Whoever asked may be gone.
            let _ = give.send(page);
        });
        Ahead { answer, _task: task }
    }

    async fn pace(&mut self) {
        let done = self.cursor.done;
        let Some(rate) = &mut self.rate else { return };
        let (since, before) = *rate.since.get_or_insert_with(|| (Instant::now(), done));
        let due = (done - before) as f64 / f64::from(rate.per_second);
        sleep_until(since + Duration::from_secs_f64(due)).await;
    }
}

async fn read(
    store: &dyn EventStore,
    from: &ReplayFrom,
    filter: &EventFilter,
    limit: usize,
) -> Result<Page, StoreError> {
    match from {
        ReplayFrom::Stream(stream, version) => {
            let events = store.read_stream(stream, *version, limit).await?;
            let next = events.last().map_or(version.get(), |event| event.version.get());
            Ok(Page { events, next })
        }
        ReplayFrom::Position(position) if filter.is_all() => {
            let events = store.read_all(*position, limit).await?;
            let next = events.last().map_or(position.get(), |event| event.position.get());
            Ok(Page { events, next })
        }
        ReplayFrom::Position(position) => {
            let page = store.read_matching(filter, *position, limit).await?;
            Ok(Page { events: page.events, next: page.scanned_to.get() })
        }
        ReplayFrom::Time(_) => Ok(Page { events: Vec::new(), next: 0 }),
    }
}

#[cfg(test)]
mod tests;
