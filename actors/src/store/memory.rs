//! A store in memory: the same promises, and nothing after the process.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use futures_util::{FutureExt, future::BoxFuture};
use tokio::sync::watch;
use uuid::Uuid;

use super::{
    Append, AppendOutcome, Appended, EventFilter, EventStore, IdempotencyKey, MAX_PAGE,
    MAX_PAGE_BYTES, MAX_SCAN, MatchingPage, RecordedType, StoreError,
    notes::memory::MemoryNotes,
    plan::{Known, StreamState, mark, plan},
    snapshot::{Snapshot, SnapshotStore},
};
use crate::event::{Position, RecordedEvent, StreamId, Timestamp, Version};

/// An [`EventStore`] in memory, deterministic and without I/O.
///
/// For tests and seeded simulations. It grows until it is dropped.
#[derive(Debug, Default)]
pub struct MemoryStore {
    log: Mutex<Log>,
    head: watch::Sender<Position>,
    notes: MemoryNotes,
    store_id: Uuid,
}

#[derive(Debug, Default)]
struct Log {
    /// The event at position `n` is at index `n - 1`.
    events: Vec<RecordedEvent>,
    streams: BTreeMap<StreamId, Stream>,
    answers: BTreeMap<IdempotencyKey, Appended>,
    types: BTreeSet<RecordedType>,
    marks: BTreeMap<Timestamp, Position>,
    snapshots: BTreeMap<StreamId, Snapshot>,
}

#[derive(Debug, Default)]
struct Stream {
    /// The event of version `n` is at index `n - 1`; the value indexes the log's events.
    events: Vec<usize>,
    deleted: bool,
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty store of this name.
    pub fn named(store_id: Uuid) -> Self {
        Self { store_id, ..Self::default() }
    }

    pub(super) const fn notes(&self) -> &MemoryNotes {
        &self.notes
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        // No call below leaves the log half changed, so the log of a panicked holder is whole.
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a batch is planned on.
struct Seen<'a> {
    log: &'a Log,
    owners: &'a BTreeMap<String, String>,
}

impl Known for Seen<'_> {
    fn stream(&self, stream: &StreamId) -> StreamState {
        self.log.state(stream)
    }

    fn answer(&self, key: &IdempotencyKey) -> Option<Appended> {
        self.log.answers.get(key).cloned()
    }

    fn owner(&self, category: &str) -> Option<&str> {
        self.owners.get(category).map(String::as_str)
    }
}

impl Log {
    fn append(
        &mut self,
        batch: &[Append],
        owners: &BTreeMap<String, String>,
    ) -> Vec<AppendOutcome> {
        let head = self.head();
        let plan = plan(batch, head, &Seen { log: self, owners });
        let last = self.marks.last_key_value().map(|(at, _)| *at);
        if let Some(mark) = mark(&plan, head, last) {
            self.marks.insert(mark.at, mark.position);
        }
        for accepted in plan.accepted {
            let Appended { stream, mut first_version, .. } = accepted.appended.clone();
            if let Some(key) = accepted.key {
                self.answers.insert(key, accepted.appended);
            }
            let index = self.streams.entry(stream.clone()).or_default();
            index.deleted = plan.streams[&stream].deleted;
            for event in accepted.events.iter().cloned() {
                let name = event.event_type.clone();
                let recorded = RecordedType { name, schema_version: event.schema_version };
                self.types.insert(recorded);
                index.events.push(self.events.len());
                let position = Position::new(self.events.len() as u64 + 1);
                self.events.push(RecordedEvent::at(position, stream.clone(), first_version, event));
                first_version = first_version.next();
            }
        }
        plan.outcomes
    }

    fn state(&self, stream: &StreamId) -> StreamState {
        let known = |stream: &Stream| StreamState {
            version: Version::new(stream.events.len() as u64),
            deleted: stream.deleted,
        };
        self.streams.get(stream).map_or_else(StreamState::default, known)
    }

    fn head(&self) -> Position {
        Position::new(self.events.len() as u64)
    }

    fn stream_page(&self, stream: &StreamId, after: Version, limit: usize) -> Vec<RecordedEvent> {
        page(tail(self.index(stream), after.get()).iter().map(|&at| &self.events[at]), limit)
    }

    fn backward(&self, stream: &StreamId, before: Version, limit: usize) -> Vec<RecordedEvent> {
        let index = self.index(stream);
        let end = usize::try_from(before.get().saturating_sub(1)).unwrap_or(usize::MAX);
        let index = &index[..end.min(index.len())];
        page(index.iter().rev().map(|&at| &self.events[at]), limit)
    }

    /// A deleted stream reads as empty.
    fn index(&self, stream: &StreamId) -> &[usize] {
        match self.streams.get(stream) {
            Some(stream) if !stream.deleted => &stream.events,
            _ => &[],
        }
    }

    fn matching(&self, filter: &EventFilter, after: Position, limit: usize) -> MatchingPage {
        if limit == 0 {
            return MatchingPage { events: Vec::new(), scanned_to: after };
        }
        let end = self.head().min(after.plus(MAX_SCAN));
        let scanned = tail(&self.events, after.get()).iter();
        let scanned = scanned.take_while(|event| event.position <= end);
        let accepted = |event: &&RecordedEvent| filter.accepts(&event.stream, &event.event_type);
        let limit = limit.min(MAX_PAGE);
        let events = page(scanned.filter(accepted), limit);
        let bytes: usize = events.iter().map(RecordedEvent::size).sum();
        let scanned_to = match events.last() {
            // Cut short, so there may be more behind the last one.
            Some(last) if events.len() == limit || bytes >= MAX_PAGE_BYTES => last.position,
            _ => end.max(after),
        };
        MatchingPage { events, scanned_to }
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
        batch: Arc<[Append]>,
    ) -> BoxFuture<'_, Result<Vec<AppendOutcome>, StoreError>> {
        // In the future and not before it: a call that is never awaited writes nothing.
        async move {
            let mut log = self.log();
            // Held to the end, so that who becomes an owner waits for what may not have seen it.
            let notes = self.notes.kept();
            let outcomes = log.append(&batch, &notes.owners);
            drop(notes);
            self.head.send_replace(log.head());
            Ok(outcomes)
        }
        .boxed()
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
        async move { Ok(self.log().state(stream).version) }.boxed()
    }

    fn read_stream_backward<'a>(
        &'a self,
        stream: &'a StreamId,
        before: Version,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<RecordedEvent>, StoreError>> {
        async move { Ok(self.log().backward(stream, before, limit)) }.boxed()
    }

    fn read_matching<'a>(
        &'a self,
        filter: &'a EventFilter,
        after: Position,
        limit: usize,
    ) -> BoxFuture<'a, Result<MatchingPage, StoreError>> {
        async move { Ok(self.log().matching(filter, after, limit)) }.boxed()
    }

    fn answer(&self, key: IdempotencyKey) -> BoxFuture<'_, Result<Option<Appended>, StoreError>> {
        async move { Ok(self.log().answers.get(&key).cloned()) }.boxed()
    }

    fn event_types(&self) -> BoxFuture<'_, Result<Vec<RecordedType>, StoreError>> {
        async move { Ok(self.log().types.iter().cloned().collect()) }.boxed()
    }

    fn position_at(&self, time: Timestamp) -> BoxFuture<'_, Result<Position, StoreError>> {
        async move {
            let log = self.log();
            let mark = log.marks.range(..=time).next_back();
            Ok(mark.map_or(Position::ZERO, |(_, position)| *position))
        }
        .boxed()
    }

    fn changed(&self, after: Position) -> BoxFuture<'_, Result<Position, StoreError>> {
        async move {
            let mut head = self.head.subscribe();
            let head = head.wait_for(|head| *head > after).await;
            Ok(*head.expect("the sender is a field of this store"))
        }
        .boxed()
    }

    fn store_id(&self) -> Uuid {
        self.store_id
    }
}

impl SnapshotStore for MemoryStore {
    fn load_snapshot<'a>(
        &'a self,
        stream: &'a StreamId,
    ) -> BoxFuture<'a, Result<Option<Snapshot>, StoreError>> {
        async move {
            let log = self.log();
            let deleted = log.state(stream).deleted;
            Ok(log.snapshots.get(stream).filter(|_| !deleted).cloned())
        }
        .boxed()
    }

    fn save_snapshot<'a>(
        &'a self,
        stream: &'a StreamId,
        snapshot: Snapshot,
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        async move {
            let mut log = self.log();
            let state = log.state(stream);
            let newer = log.snapshots.get(stream).is_none_or(|at| at.version <= snapshot.version);
            if newer && !state.deleted && state.version > Version::ZERO {
                log.snapshots.insert(stream.clone(), snapshot);
            }
            Ok(())
        }
        .boxed()
    }

    fn delete_snapshot<'a>(
        &'a self,
        stream: &'a StreamId,
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        async move {
            self.log().snapshots.remove(stream);
            Ok(())
        }
        .boxed()
    }
}
