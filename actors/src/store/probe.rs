//! A store for tests: it counts what is asked of it, takes its time, or keeps its answers.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::forward::forward;
use super::{Append, AppendOutcome, EventFilter, EventStore, MatchingPage, StoreError};
use crate::event::{Position, RecordedEvent};

/// See the [module](self).
#[derive(Debug, Default)]
pub(crate) struct Probe<S> {
    store: S,
    takes: Duration,
    /// How many appends each batch had.
    pub(crate) batches: Mutex<Vec<usize>>,
    /// It commits and does not answer.
    pub(crate) silent: AtomicBool,
    reads: AtomicUsize,
}

impl<S: Default> Probe<S> {
    /// A store that takes so long for an append.
    pub(crate) fn slow(takes: Duration) -> Self {
        Self { takes, ..Self::default() }
    }

    /// How often the log was read since the last time.
    pub(crate) fn reads(&self) -> usize {
        self.reads.swap(0, Ordering::SeqCst)
    }
}

impl<S: EventStore> EventStore for Probe<S> {
    forward!(
        store: read_stream, head, stream_version, read_stream_backward, answer, event_types, position_at, changed, store_id,
    );

    fn append_batch(
        &self,
        batch: Arc<[Append]>,
    ) -> BoxFuture<'_, Result<Vec<AppendOutcome>, StoreError>> {
        async move {
            self.batches.lock().unwrap_or_else(PoisonError::into_inner).push(batch.len());
            if !self.takes.is_zero() {
                tokio::time::sleep(self.takes).await;
            }
            let outcomes = self.store.append_batch(batch).await;
            if self.silent.load(Ordering::SeqCst) {
                std::future::pending::<()>().await;
            }
            outcomes
        }
        .boxed()
    }

    fn read_all(
        &self,
        after: Position,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<RecordedEvent>, StoreError>> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        self.store.read_all(after, limit)
    }

    fn read_matching<'a>(
        &'a self,
        filter: &'a EventFilter,
        after: Position,
        limit: usize,
    ) -> BoxFuture<'a, Result<MatchingPage, StoreError>> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        self.store.read_matching(filter, after, limit)
    }
}
