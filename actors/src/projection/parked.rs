//! What is parked of a partition: documents that stand still, because an event cannot be applied.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::store::read_model::documents::ParkedDocument;

/// Documents of one partition that may stand still. Beyond it the projection is broken rather than
/// the events, and stops where it is.
pub(super) const MAX_DOCUMENTS: usize = 1_000;

/// Events of one partition that may be parked. They wait in a table of their own; beyond it the
/// projection stops, and they wait in the log.
pub(super) const MAX_EVENTS: u64 = 10_000;

/// Events whose documents are unknown, because the projection's `ids` cannot tell. No projection's
/// document has this id: ids of documents come from events, this one is made here, and one that is
/// the same is only parked with it.
pub(super) const UNKNOWN: &str = "$ids";

#[derive(Debug, Default)]
pub(super) struct ParkedSet {
    events: BTreeMap<Arc<str>, u64>,
    /// To be applied again.
    due: Vec<Arc<str>>,
    total: u64,
}

impl ParkedSet {
    /// As the database has it.
    pub(super) fn new(documents: impl IntoIterator<Item = ParkedDocument>) -> Self {
        let mut set = Self::default();
        for document in documents {
            if document.due {
                set.due.push(Arc::clone(&document.id));
            }
            set.total += document.events;
            set.events.insert(document.id, document.events);
        }
        set
    }

    pub(super) fn contains(&self, id: &str) -> bool {
        self.events.contains_key(id)
    }

    pub(super) fn documents(&self) -> usize {
        self.events.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// One event more.
    pub(super) fn add(&mut self, id: &Arc<str>) {
        *self.events.entry(Arc::clone(id)).or_default() += 1;
        self.total += 1;
    }

    /// So many events of a document are done.
    pub(super) fn done(&mut self, id: &str, events: u64) {
        if let Some(left) = self.events.get_mut(id) {
            *left = left.saturating_sub(events);
        }
        self.total = self.total.saturating_sub(events);
    }

    /// None of its events is parked any more.
    pub(super) fn remove(&mut self, id: &str) {
        self.total = self.total.saturating_sub(self.events.remove(id).unwrap_or_default());
        self.due.retain(|due| &**due != id);
    }

    /// The document that is next.
    pub(super) fn due(&self) -> Option<&Arc<str>> {
        self.due.last()
    }

    /// It was tried.
    pub(super) fn tried(&mut self, id: &str) {
        self.due.retain(|due| &**due != id);
    }

    /// Why nothing more is applied.
    pub(super) fn full(&self) -> Option<String> {
        let (documents, events) = (self.events.len(), self.total);
        (documents >= MAX_DOCUMENTS || events >= MAX_EVENTS).then(|| {
            format!(
                "stands still: {events} events of {documents} documents are parked; mend the \
                 cause, then retry or skip them"
            )
        })
    }
}
