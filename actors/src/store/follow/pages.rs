//! Pages of the log, and those that several followers share.

use std::collections::VecDeque;
use std::ops::{Deref, Range};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::vec;

use crate::event::{Position, RecordedEvent};
use crate::store::{MatchingPage, StoreError};

/// Pages that are kept.
const KEPT: usize = 2;

/// Events that a follower has read. It may share them with others: whoever takes them out of a page
/// that is shared gets copies.
#[derive(Debug, Clone)]
pub struct Page {
    events: Arc<Vec<RecordedEvent>>,
    part: Range<usize>,
    scanned_to: Position,
}

impl Page {
    /// Everything up to here was looked at.
    pub(super) const fn scanned_to(&self) -> Position {
        self.scanned_to
    }

    /// All but some.
    pub(super) fn without(self, positions: &[Position]) -> Self {
        let scanned_to = self.scanned_to;
        let wanted = self.into_iter().filter(|event| !positions.contains(&event.position));
        MatchingPage { events: wanted.collect(), scanned_to }.into()
    }

    /// What comes after a position, which it has looked at the log from or beyond.
    fn behind(&self, after: Position, limit: usize) -> Self {
        let from = self.events.partition_point(|event| event.position <= after);
        let to = self.events.len().min(from.saturating_add(limit));
        let scanned_to = match self.events[..to].last() {
            Some(last) if to < self.events.len() => last.position,
            _ => self.scanned_to,
        };
        Self { events: Arc::clone(&self.events), part: from..to, scanned_to }
    }
}

impl From<MatchingPage> for Page {
    fn from(MatchingPage { events, scanned_to }: MatchingPage) -> Self {
        Self { part: 0..events.len(), events: Arc::new(events), scanned_to }
    }
}

impl Deref for Page {
    type Target = [RecordedEvent];

    fn deref(&self) -> &[RecordedEvent] {
        &self.events[self.part.clone()]
    }
}

impl IntoIterator for Page {
    type Item = RecordedEvent;
    type IntoIter = vec::IntoIter<RecordedEvent>;

    fn into_iter(self) -> vec::IntoIter<RecordedEvent> {
        let events = match Arc::try_unwrap(self.events) {
            Ok(mut events) => {
                events.truncate(self.part.end);
                events.drain(..self.part.start);
                events
            }
            Err(shared) => shared[self.part].to_vec(),
        };
        events.into_iter()
    }
}

/// The last pages that some followers have read, for all of them. Cheap to clone.
#[derive(Debug, Default, Clone)]
pub struct Pages(Arc<Mutex<VecDeque<Read>>>);

#[derive(Debug)]
struct Read {
    after: Position,
    page: Page,
}

impl Pages {
    fn kept(&self) -> MutexGuard<'_, VecDeque<Read>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Events after a position: of a page that one of them has read, or of another one.
    pub(super) async fn read(
        &self,
        after: Position,
        limit: usize,
        read: impl Future<Output = Result<MatchingPage, StoreError>>,
    ) -> Result<Page, StoreError> {
        if let Some(page) = self.find(after, limit) {
            return Ok(page);
        }
        let page = Page::from(read.await?);
        // A short page grows: the next one to ask may get more.
        if page.len() == limit {
            let mut kept = self.kept();
            kept.truncate(KEPT - 1);
            kept.push_front(Read { after, page: page.clone() });
        }
        Ok(page)
    }

    fn find(&self, after: Position, limit: usize) -> Option<Page> {
        let kept = self.kept();
        let has = |read: &&Read| read.after <= after && after < read.page.scanned_to;
        kept.iter().find(has).map(|read| read.page.behind(after, limit))
    }
}

#[cfg(test)]
mod tests;
