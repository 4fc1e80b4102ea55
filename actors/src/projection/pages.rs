//! Pages of the log, shared by the partitions of a projection: they read the same events, each at
//! its own pace, and mostly close together.

use std::sync::{Arc, Mutex, PoisonError};

use crate::event::{Position, RecordedEvent};
use crate::store::{EventStore, MatchingPage, StoreError};

/// Pages that are kept.
const KEPT: usize = 2;

/// A page, or the part of one behind a position.
#[derive(Debug, Clone)]
pub(super) struct Page {
    events: Arc<Vec<RecordedEvent>>,
    from: usize,
    scanned_to: Position,
}

impl Page {
    /// The events that a projection wants.
    pub(super) fn matching(page: MatchingPage) -> Self {
        Self { events: Arc::new(page.events), from: 0, scanned_to: page.scanned_to }
    }

    /// Everything up to here was looked at, if it is further than the last event.
    pub(super) const fn scanned_to(&self) -> Position {
        self.scanned_to
    }

    pub(super) fn events(&self) -> &[RecordedEvent] {
        &self.events[self.from..]
    }
}

#[derive(Debug, Default, Clone)]
pub(super) struct Pages {
    kept: Arc<Mutex<Vec<Arc<Vec<RecordedEvent>>>>>,
}

impl Pages {
    /// Events after a position. Where partitions share them: a page that one of them has read, or
    /// another one.
    pub(super) async fn read(
        &self,
        store: &dyn EventStore,
        after: Position,
        limit: usize,
        shared: bool,
    ) -> Result<Page, StoreError> {
        if shared
            && let Some(page) = self.find(after) {
            return Ok(page);
        }
        let events = Arc::new(store.read_all(after, limit).await?);
        // A short page grows: the next one to ask may get more.
        if shared && events.len() == limit {
            let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            if kept.len() == KEPT {
                kept.remove(0);
            }
            kept.push(Arc::clone(&events));
        }
        Ok(Page { events, from: 0, scanned_to: Position::ZERO })
    }

    fn find(&self, after: Position) -> Option<Page> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.iter().rev().find_map(|events| {
            let (first, last) = (events.first()?.position, events.last()?.position);
            let inside = first <= after.next() && after < last;
            let from = usize::try_from(after.next().get().checked_sub(first.get())?).ok()?;
            inside.then(|| Page { events: Arc::clone(events), from, scanned_to: Position::ZERO })
        })
    }
}
