//! Following the log: what is there, then what comes, without a gap and without a double.
//!
//! Positions are gapless and in the order of commits, so that following is one rule: the next
//! event is the one at the last position plus one. A [`Subscription`] reads pages until it is at
//! the head and then waits for the log to grow. It holds no connection while it waits or while
//! its reader is slow: a reader that is slower than the writer by far costs the store nothing but
//! the pages it asks for.

use std::sync::Arc;

use super::{EventFilter, EventStore, MAX_PAGE, StoreError};
use crate::event::{Position, RecordedEvent};

/// A reader that follows the log.
#[derive(Debug)]
pub struct Subscription {
    store: Arc<dyn EventStore>,
    filter: EventFilter,
    at: Position,
    page: usize,
}

impl Subscription {
    /// Follows everything after a position, by pages of at most `page` events.
    pub fn new(store: Arc<dyn EventStore>, after: Position, page: usize) -> Self {
        Self { store, filter: EventFilter::ALL, at: after, page: page.clamp(1, MAX_PAGE) }
    }

    /// Only what this filter lets through.
    #[must_use]
    pub fn filter(mut self, filter: EventFilter) -> Self {
        self.filter = filter;
        self
    }

    /// Everything up to here was given out or left out by the filter. Keep it, and
    /// [`new`](Self::new) goes on after it.
    pub const fn position(&self) -> Position {
        self.at
    }

    /// The next events, as soon as there are any: never an empty page.
    ///
    /// # Errors
    ///
    /// The store could not be read, or was closed; the next call goes on from the same place.
    ///
    /// # Cancel safety
    ///
    /// Dropping the call loses nothing.
    pub async fn next(&mut self) -> Result<Vec<RecordedEvent>, StoreError> {
        loop {
            if let Some(events) = self.ready().await? {
                return Ok(events);
            }
            self.store.changed(self.at).await?;
        }
    }

    /// The next events that are in the log already; `None` if it is read to its end.
    ///
    /// # Errors
    ///
    /// The store could not be read; the next call goes on from the same place.
    ///
    /// # Cancel safety
    ///
    /// Dropping the call loses nothing.
    pub async fn ready(&mut self) -> Result<Option<Vec<RecordedEvent>>, StoreError> {
        loop {
            let (events, to) = if self.filter.is_all() {
                let events = self.store.read_all(self.at, self.page).await?;
                let to = events.last().map_or(self.at, |event| event.position);
                (events, to)
            } else {
                let page = self.store.read_matching(&self.filter, self.at, self.page).await?;
                (page.events, page.scanned_to)
            };
            let moved = to > self.at;
            self.at = to;
            if !events.is_empty() {
                return Ok(Some(events));
            }
            if !moved {
                return Ok(None);
            }
        }
    }
}
