//! A store for tests: it counts what is asked of it, takes its time, or keeps its answers.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use uuid::Uuid;

use super::{
    Append, AppendOutcome, Appended, EventFilter, EventStore, IdempotencyKey, MatchingPage,
    RecordedType, StoreError,
};
use crate::event::{Position, RecordedEvent, StreamId, Timestamp, Version};

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

    fn read_stream<'a>(
        &'a self,
        stream: &'a StreamId,
        after: Version,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<RecordedEvent>, StoreError>> {
        self.store.read_stream(stream, after, limit)
    }

    fn read_all(
        &self,
        after: Position,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<RecordedEvent>, StoreError>> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        self.store.read_all(after, limit)
    }

    fn head(&self) -> BoxFuture<'_, Result<Position, StoreError>> {
        self.store.head()
    }

    fn stream_version<'a>(
        &'a self,
        stream: &'a StreamId,
    ) -> BoxFuture<'a, Result<Version, StoreError>> {
        self.store.stream_version(stream)
    }

    fn read_stream_backward<'a>(
        &'a self,
        stream: &'a StreamId,
        before: Version,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<RecordedEvent>, StoreError>> {
        self.store.read_stream_backward(stream, before, limit)
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

    fn answer(&self, key: IdempotencyKey) -> BoxFuture<'_, Result<Option<Appended>, StoreError>> {
        self.store.answer(key)
    }

    fn event_types(&self) -> BoxFuture<'_, Result<Vec<RecordedType>, StoreError>> {
        self.store.event_types()
    }

    fn position_at(&self, time: Timestamp) -> BoxFuture<'_, Result<Position, StoreError>> {
        self.store.position_at(time)
    }

    fn changed(&self, after: Position) -> BoxFuture<'_, Result<Position, StoreError>> {
        self.store.changed(after)
    }

    fn store_id(&self) -> Uuid {
        self.store.store_id()
    }
}
