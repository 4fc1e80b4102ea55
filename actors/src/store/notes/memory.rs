//! The notes in memory.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::{Notes, Skipped};
use crate::event::{Position, StreamId, Timestamp};
use crate::store::StoreError;
use crate::store::memory::MemoryStore;

/// What a [`MemoryStore`] keeps of them.
#[derive(Debug, Default)]
pub(in crate::store) struct MemoryNotes(Mutex<Kept>);

#[derive(Debug, Default)]
pub(in crate::store) struct Kept {
    pub(in crate::store) owners: BTreeMap<String, String>,
    skipped: BTreeMap<Position, Skipped>,
}

impl MemoryNotes {
    pub(in crate::store) fn kept(&self) -> MutexGuard<'_, Kept> {
        // Nothing below panics while it holds the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Notes for MemoryStore {
    fn own<'a>(
        &'a self,
        category: &'a str,
        owner: &'a str,
        _: Timestamp,
    ) -> BoxFuture<'a, Result<String, StoreError>> {
        async move {
            let mut kept = self.notes().kept();
            let owner = kept.owners.entry(category.to_owned()).or_insert_with(|| owner.to_owned());
            Ok(owner.clone())
        }
        .boxed()
    }

    fn owners(&self) -> BoxFuture<'_, Result<Vec<(String, String)>, StoreError>> {
        async move { Ok(self.notes().kept().owners.clone().into_iter().collect()) }.boxed()
    }

    fn skip(&self, skipped: Skipped) -> BoxFuture<'_, Result<bool, StoreError>> {
        async move {
            let mut kept = self.notes().kept();
            let new = !kept.skipped.contains_key(&skipped.position);
            kept.skipped.entry(skipped.position).or_insert(skipped);
            Ok(new)
        }
        .boxed()
    }

    fn skipped<'a>(
        &'a self,
        stream: Option<&'a StreamId>,
    ) -> BoxFuture<'a, Result<Vec<Skipped>, StoreError>> {
        async move {
            let kept = self.notes().kept();
            let asked = |skipped: &&Skipped| stream.is_none_or(|stream| skipped.stream == *stream);
            Ok(kept.skipped.values().filter(asked).cloned().collect())
        }
        .boxed()
    }
}
