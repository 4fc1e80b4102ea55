//! Documents that were read, kept in memory, and changed by the projection's own commits.
//!
//! The projection writes every document through that it has committed, so that a reader who was
//! slow cannot put an older one in its place: of two, the one with the higher position stays. Only
//! what was evicted in between could be missed, and then nothing is put in.
//!
//! Everything in it is of one build, the newest that anybody has spoken of: what comes late from
//! the one before, from a reader or from another partition, is not put in.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use indexmap::IndexMap;

use crate::event::Position;
use crate::store::read_model::documents::{Changed, Document, Read};

/// Documents of one projection that are kept.
pub const CACHED_DOCUMENTS: usize = 10_000;

/// And their bytes.
pub const CACHED_BYTES: usize = 64 * 1024 * 1024;

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
    /// Builds are numbered in order.
    build: i64,
    kept: IndexMap<Arc<str>, Entry>,
    bytes: usize,
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
    pub(super) fn read(&self, before: Before, id: &str, read: &Read) {
        let Some(build) = read.build else { return };
        let mut state = self.state();
        let (data, position) = match &read.document {
            Some(document) => (Some(document.data.clone()), document.position),
            None => (None, Position::ZERO),
        };
        if state.is_of(build) && (state.forgotten == before.0 || state.kept.contains_key(id)) {
            state.keep(id.into(), Entry { data, position });
        }
    }

    /// Keeps what the projection has committed.
    pub(super) fn written(&self, build: i64, changes: &[Changed]) {
        let mut state = self.state();
        if !state.is_of(build) {
            return;
        }
        for (id, data, position) in changes {
            state.keep(Arc::clone(id), Entry { data: data.clone(), position: *position });
        }
    }

    /// Forgets everything: another build is read from now on, or nobody knows.
    pub(super) fn clear(&self) {
        self.state().clear();
    }
}

impl State {
    /// Whether a build is the one of which everything here is. A newer one is from now on.
    fn is_of(&mut self, build: i64) -> bool {
        if build > self.build {
            self.clear();
            self.build = build;
        }
        build == self.build
    }

    fn clear(&mut self) {
        self.kept.clear();
        self.bytes = 0;
        self.forgotten += 1;
    }

    fn keep(&mut self, id: Arc<str>, entry: Entry) {
        let added = size(&id, &entry);
        match self.kept.get_mut(&id) {
            Some(kept) if kept.position > entry.position => return,
            Some(kept) => {
                self.bytes -= size(&id, kept);
                *kept = entry;
            }
            None => drop(self.kept.insert(id, entry)),
        }
        self.bytes += added;
        while self.kept.len() > CACHED_DOCUMENTS || self.bytes > CACHED_BYTES {
            let Some((id, entry)) = self.kept.swap_remove_index(0) else { break };
            self.bytes -= size(&id, &entry);
            self.forgotten += 1;
        }
    }
}

fn size(id: &str, entry: &Entry) -> usize {
    id.len() + entry.data.as_ref().map_or(0, Bytes::len)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(build: i64, text: &'static str, at: u64) -> Read {
        let data = Bytes::from_static(text.as_bytes());
        let document = Document { id: "d".into(), data, position: Position::new(at) };
        Read { build: Some(build), document: Some(document) }
    }

    fn change(text: &'static str, at: u64) -> Changed {
        ("d".into(), Some(Bytes::from_static(text.as_bytes())), Position::new(at))
    }

    fn kept(cache: &DocumentCache) -> Option<Bytes> {
        cache.get("d").ok().flatten().map(|document| document.data)
    }

    /// A reader that began before a switch came back after it, and its document stayed in memory:
    /// two builds have documents of the same position.
    #[test]
    fn what_comes_late_from_the_build_before_is_not_kept() {
        let cache = DocumentCache::default();
        let before = cache.get("d").unwrap_err();
        cache.written(2, &[change("new", 7)]);
        cache.read(before, "d", &read(1, "old", 7));
        cache.written(1, &[change("old", 8)]);
        assert_eq!(kept(&cache).as_deref(), Some(&b"new"[..]));
        // A newer build is another; what is known of this one is worth nothing.
        let before = cache.get("e").unwrap_err();
        cache.read(before, "d", &read(3, "newer", 5));
        cache.written(2, &[change("new", 9)]);
        assert_eq!(kept(&cache), None, "whoever began to read before it is not trusted");
        let before = cache.get("d").unwrap_err();
        cache.read(before, "d", &read(3, "newer", 5));
        assert_eq!(kept(&cache).as_deref(), Some(&b"newer"[..]));
    }

    #[test]
    fn it_is_bounded_by_bytes_too() {
        let cache = DocumentCache::default();
        let large = Bytes::from(vec![b'x'; CACHED_BYTES / 2]);
        for n in 0..5 {
            cache.written(1, &[(n.to_string().into(), Some(large.clone()), Position::new(1))]);
        }
        assert!(cache.state().bytes <= CACHED_BYTES);
        assert_eq!(cache.state().kept.len(), 1);
    }
}
