//! A store in memory: the same promises, and nothing after the process.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use futures_util::{FutureExt, future::BoxFuture};

use super::{
    Append, AppendOutcome, Appended, EventStore, IdempotencyKey, MAX_PAGE, MAX_PAGE_BYTES,
    StoreError,
    plan::{Known, plan},
};
use crate::event::{Position, RecordedEvent, StreamId, Version};

/// An [`EventStore`] in memory, deterministic and without I/O.
///
/// For tests and seeded simulations. It grows until it is dropped.
#[derive(Debug, Default)]
pub struct MemoryStore {
    log: Mutex<Log>,
}

#[derive(Debug, Default)]
struct Log {
    /// The event at position `n` is at index `n - 1`.
    events: Vec<RecordedEvent>,
    /// The event of version `n` is at index `n - 1` of its stream; the value indexes `events`.
    streams: BTreeMap<StreamId, Vec<usize>>,
    answers: BTreeMap<IdempotencyKey, Appended>,
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        // No call below leaves the log half changed, so the log of a panicked holder is whole.
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known for Log {
    fn version(&self, stream: &StreamId) -> Version {
        Version::new(self.streams.get(stream).map_or(0, |events| events.len() as u64))
    }

    fn answer(&self, key: &IdempotencyKey) -> Option<Appended> {
        self.answers.get(key).cloned()
    }
}

impl Log {
    fn append(&mut self, batch: Vec<Append>) -> Vec<AppendOutcome> {
        let plan = plan(batch, self.head(), self);
        for accepted in plan.accepted {
            let Appended { stream, mut first_version, .. } = accepted.appended.clone();
            if let Some(key) = accepted.key {
                self.answers.insert(key, accepted.appended);
            }
            let index = self.streams.entry(stream.clone()).or_default();
            for event in accepted.events {
                index.push(self.events.len());
                let position = Position::new(self.events.len() as u64 + 1);
                self.events.push(RecordedEvent::at(position, stream.clone(), first_version, event));
                first_version = first_version.next();
            }
        }
        plan.outcomes
    }

    fn head(&self) -> Position {
        Position::new(self.events.len() as u64)
    }

    fn stream_page(&self, stream: &StreamId, after: Version, limit: usize) -> Vec<RecordedEvent> {
        let index = self.streams.get(stream).map_or(&[][..], Vec::as_slice);
        page(tail(index, after.get()).iter().map(|&at| &self.events[at]), limit)
    }

    fn page(&self, after: Position, limit: usize) -> Vec<RecordedEvent> {
        page(tail(&self.events, after.get()).iter(), limit)
    }
}

fn tail<T>(all: &[T], after: u64) -> &[T] {
    usize::try_from(after).ok().and_then(|after| all.get(after..)).unwrap_or_default()
}

fn page<'a>(events: impl Iterator<Item = &'a RecordedEvent>, limit: usize) -> Vec<RecordedEvent> {
    let mut bytes = 0;
    let mut page = Vec::new();
    for event in events.take(limit.min(MAX_PAGE)) {
        bytes += event.size();
        page.push(event.clone());
        if bytes >= MAX_PAGE_BYTES {
            break;
        }
    }
    page
}

impl EventStore for MemoryStore {
    fn append_batch(
        &self,
        batch: Vec<Append>,
    ) -> BoxFuture<'_, Result<Vec<AppendOutcome>, StoreError>> {
        // In the future and not before it: a call that is never awaited writes nothing.
        async move { Ok(self.log().append(batch)) }.boxed()
    }

    fn read_stream<'a>(
        &'a self,
        stream: &'a StreamId,
        after: Version,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<RecordedEvent>, StoreError>> {
        async move { Ok(self.log().stream_page(stream, after, limit)) }.boxed()
    }

    fn read_all(
        &self,
        after: Position,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<RecordedEvent>, StoreError>> {
        async move { Ok(self.log().page(after, limit)) }.boxed()
    }

    fn head(&self) -> BoxFuture<'_, Result<Position, StoreError>> {
        async move { Ok(self.log().head()) }.boxed()
    }

    fn stream_version<'a>(
        &'a self,
        stream: &'a StreamId,
    ) -> BoxFuture<'a, Result<Version, StoreError>> {
        async move { Ok(self.log().version(stream)) }.boxed()
    }
}
