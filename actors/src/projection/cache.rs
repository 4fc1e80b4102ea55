//! Documents that were read, kept in memory, and changed by the projection's own commits.
//!
//! The projection writes every document through that it has committed, so that a reader who was
//! slow cannot put an older one in its place: of two, the one with the higher position stays. Only
//! what was evicted in between could be missed, and then nothing is put in.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use indexmap::IndexMap;

use crate::event::Position;
use crate::store::read_model::documents::Document;

/// Documents of one projection that are kept.
pub const CACHED_DOCUMENTS: usize = 10_000;

/// The documents of one projection. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct DocumentCache(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    state: Mutex<State>,
    hits: AtomicU64,
    misses: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    kept: IndexMap<Arc<str>, Entry>,
    /// Counts what was forgotten.
    forgotten: u64,
}

#[derive(Debug, Clone)]
struct Entry {
    data: Option<Bytes>,
    position: Position,
}

/// The state of the cache before the database is read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Before(u64);

impl DocumentCache {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How often a document was there, and how often not.
    #[must_use]
    pub fn hits_and_misses(&self) -> (u64, u64) {
        (self.0.hits.load(Ordering::Relaxed), self.0.misses.load(Ordering::Relaxed))
    }

    /// What is known of a document: itself or that there is none.
    pub(super) fn get(&self, id: &str) -> Result<Option<Document>, Before> {
        let state = self.state();
        match state.kept.get_full(id) {
            Some((_, id, entry)) => {
                self.0.hits.fetch_add(1, Ordering::Relaxed);
                let document = |data: &Bytes| Document {
                    id: Arc::clone(id),
                    data: data.clone(),
                    position: entry.position,
                };
                Ok(entry.data.as_ref().map(document))
            }
            None => {
                self.0.misses.fetch_add(1, Ordering::Relaxed);
                Err(Before(state.forgotten))
            }
        }
    }

    /// Keeps what the database said.
    pub(super) fn read(&self, before: Before, id: &str, found: Option<&Document>) {
        let mut state = self.state();
        let (data, position) = match found {
            Some(document) => (Some(document.data.clone()), document.position),
            None => (None, Position::ZERO),
        };
        if state.forgotten == before.0 || state.kept.contains_key(id) {
            state.keep(id.into(), Entry { data, position });
        }
    }

    /// Keeps what the projection has committed.
    pub(super) fn written(&self, changes: &[(Arc<str>, Option<Bytes>, Position)]) {
        let mut state = self.state();
        for (id, data, position) in changes {
            state.keep(Arc::clone(id), Entry { data: data.clone(), position: *position });
        }
    }

    /// Forgets everything: another build is read from now on.
    pub(super) fn clear(&self) {
        let mut state = self.state();
        state.kept.clear();
        state.forgotten += 1;
    }
}

impl State {
    fn keep(&mut self, id: Arc<str>, entry: Entry) {
        match self.kept.get_mut(&id) {
            Some(kept) if kept.position > entry.position => {}
            Some(kept) => *kept = entry,
            None => {
                if self.kept.len() >= CACHED_DOCUMENTS {
                    self.kept.swap_remove_index(0);
                    self.forgotten += 1;
                }
                self.kept.insert(id, entry);
            }
        }
    }
}
