//! A SQLite store whose commits fail in chosen ways, and into which somebody else writes.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::Semaphore;
use uuid::Uuid;

use crate::event::{EventId, RecordedEvent, StreamId, Version};
use crate::pool::{Connect, Connections, Lease, connector};
use crate::store::forward::forward;
use crate::store::snapshot::{Snapshot, SnapshotStore};
use crate::store::{
    Append, AppendOutcome, Appended, EventStore, ExpectedVersion, IdempotencyKey, StoreError,
};

/// What happens to the next commit.
#[derive(Debug, Clone)]
pub(crate) enum Fault {
    /// Nothing.
    None,
    /// It is written, and the answer is lost.
    AnswerLost,
    /// It is not written, and nobody knows.
    NotWritten,
    /// It is not written yet: it is kept, and written right before the next one.
    Late,
    /// Somebody else's append is written right before it.
    After(Append),
}

/// Hears of each commit, before it is written and after.
pub(crate) type Hook = Arc<dyn Fn(When) + Send + Sync>;

/// When a hook is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum When {
    Before,
    After,
}

#[derive(Default)]
pub(crate) struct Faults {
    plan: Mutex<VecDeque<Fault>>,
    late: Mutex<Vec<Arc<[Append]>>>,
    commits: Mutex<Vec<usize>>,
    hook: Mutex<Option<Hook>>,
    /// The store says that others write to it.
    pub(crate) shared: bool,
    /// Reads of a stream's events that fail next.
    pub(crate) failing_stream_reads: AtomicUsize,
    /// Reads of a stream's events that there were.
    pub(crate) stream_reads: AtomicUsize,
    /// Reads of a stream's version that fail next, and those that there were.
    pub(crate) failing_reads: AtomicUsize,
    pub(crate) version_reads: AtomicUsize,
    /// Reads of a stream's version wait for a permit.
    pub(crate) gate: Mutex<Option<Arc<Semaphore>>>,
    /// Somebody else writes this before each read of a stream's version.
    pub(crate) busy: Mutex<Option<Append>>,
    /// Events of streams up to this version are not there.
    pub(crate) archived_up_to: AtomicU64,
    /// The store without the faults.
    past: Mutex<Option<Arc<dyn EventStore>>>,
    /// Writes of snapshots wait for a permit.
    pub(crate) saves: Mutex<Option<Arc<Semaphore>>>,
}

impl std::fmt::Debug for Faults {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Faults").finish_non_exhaustive()
    }
}

impl Faults {
    /// On a store that others write to, or not.
    pub(crate) fn on(shared: bool) -> Self {
        Self { shared, ..Self::default() }
    }

    pub(crate) fn hook(&self, hook: Hook) {
        *self.hook.lock().unwrap() = Some(hook);
    }

    fn call(&self, when: When) {
        let hook = self.hook.lock().unwrap().clone();
        if let Some(hook) = hook {
            hook(when);
        }
    }

    pub(crate) fn then(&self, fault: Fault) {
        self.plan.lock().unwrap().push_back(fault);
    }

    /// The store of the last lease, for what others do.
    pub(crate) fn past(&self) -> Arc<dyn EventStore> {
        self.past.lock().unwrap().clone().expect("there was a lease")
    }

    fn may_read(failing: &AtomicUsize) -> Result<(), StoreError> {
        let one_less = |left: usize| left.checked_sub(1);
        match failing.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less) {
            Ok(_) => Err(lost()),
            Err(_) => Ok(()),
        }
    }

    /// How many appends each commit had.
    pub(crate) fn commits(&self) -> Vec<usize> {
        self.commits.lock().unwrap().clone()
    }
}

#[derive(Debug)]
pub(crate) struct FaultyConnect {
    path: PathBuf,
    faults: Arc<Faults>,
}

impl FaultyConnect {
    pub(crate) fn new(path: &Path, faults: Arc<Faults>) -> Self {
        Self { path: path.to_owned(), faults }
    }
}

impl Connect for FaultyConnect {
    fn connect(&self) -> BoxFuture<'_, Result<Arc<dyn Connections>, StoreError>> {
        async {
            let connect = connector(self.path.to_str().unwrap()).unwrap();
            let inner = connect.connect().await?;
            let faults = Arc::clone(&self.faults);
            Ok(Arc::new(FaultyConnections { inner, faults }) as Arc<dyn Connections>)
        }
        .boxed()
    }
}

#[derive(Debug)]
struct FaultyConnections {
    inner: Arc<dyn Connections>,
    faults: Arc<Faults>,
}

impl Connections for FaultyConnections {
    fn lease(&self) -> Lease {
        let lease = self.inner.lease();
        *self.faults.past.lock().unwrap() = Some(Arc::clone(&lease.store));
        let store = FaultyStore { inner: lease.store, faults: Arc::clone(&self.faults) };
        let snapshots =
            FaultySnapshots { inner: lease.snapshots, faults: Arc::clone(&self.faults) };
        Lease {
            store: Arc::new(store),
            snapshots: Arc::new(snapshots),
            shared: lease.shared || self.faults.shared,
            ..lease
        }
    }

    fn usage(&self) -> (u32, u32) {
        self.inner.usage()
    }

    fn mark_closed(&self) {
        self.inner.mark_closed();
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.inner.close()
    }
}

#[derive(Debug)]
struct FaultyStore {
    inner: Arc<dyn EventStore>,
    faults: Arc<Faults>,
}

fn lost() -> StoreError {
    StoreError::Backend { store: "test".to_owned(), source: "connection lost".into() }
}

impl FaultyStore {
    async fn append(&self, batch: Arc<[Append]>) -> Result<Vec<AppendOutcome>, StoreError> {
        self.faults.call(When::Before);
        let result = self.faulty_append(batch).await;
        self.faults.call(When::After);
        result
    }

    async fn faulty_append(&self, batch: Arc<[Append]>) -> Result<Vec<AppendOutcome>, StoreError> {
        self.faults.commits.lock().unwrap().push(batch.len());
        let late = std::mem::take(&mut *self.faults.late.lock().unwrap());
        for late in late {
            self.inner.append_batch(late).await?;
        }
        let fault = self.faults.plan.lock().unwrap().pop_front().unwrap_or(Fault::None);
        match fault {
            Fault::None => self.inner.append_batch(batch).await,
            Fault::AnswerLost => {
                self.inner.append_batch(batch).await?;
                Err(lost())
            }
            Fault::NotWritten => Err(lost()),
            Fault::Late => {
                self.faults.late.lock().unwrap().push(batch);
                Err(lost())
            }
            Fault::After(mut other) => {
                other.expected = ExpectedVersion::Any;
                self.inner.append_batch([other].into()).await?;
                self.inner.append_batch(batch).await
            }
        }
    }
}

impl EventStore for FaultyStore {
    forward!(
        inner: read_all, head, read_stream_backward, read_matching, event_types, position_at, changed, store_id,
    );

    fn append_batch(
        &self,
        batch: Arc<[Append]>,
    ) -> BoxFuture<'_, Result<Vec<AppendOutcome>, StoreError>> {
        self.append(batch).boxed()
    }

    fn read_stream<'a>(
        &'a self,
        stream: &'a StreamId,
        after: Version,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<RecordedEvent>, StoreError>> {
        let archived = Version::new(self.faults.archived_up_to.load(Ordering::Relaxed));
        async move {
            self.faults.stream_reads.fetch_add(1, Ordering::Relaxed);
            Faults::may_read(&self.faults.failing_stream_reads)?;
            self.inner.read_stream(stream, after.max(archived), limit).await
        }
        .boxed()
    }

    fn stream_version<'a>(
        &'a self,
        stream: &'a StreamId,
    ) -> BoxFuture<'a, Result<Version, StoreError>> {
        async move {
            let reads = self.faults.version_reads.fetch_add(1, Ordering::Relaxed);
            Faults::may_read(&self.faults.failing_reads)?;
            let busy = self.faults.busy.lock().unwrap().clone();
            if let Some(mut other) = busy {
                let number = u128::MAX - reads as u128;
                other.events[0].id = EventId::new(Uuid::from_u128(number));
                self.inner.append_batch([other].into()).await?.remove(0).unwrap();
            }
            let version = self.inner.stream_version(stream).await;
            let gate = self.faults.gate.lock().unwrap().clone();
            if let Some(gate) = gate {
                gate.acquire().await.unwrap().forget();
            }
            version
        }
        .boxed()
    }

    fn answer(&self, key: IdempotencyKey) -> BoxFuture<'_, Result<Option<Appended>, StoreError>> {
        async move {
            Faults::may_read(&self.faults.failing_reads)?;
            self.inner.answer(key).await
        }
        .boxed()
    }
}

#[derive(Debug)]
struct FaultySnapshots {
    inner: Arc<dyn SnapshotStore>,
    faults: Arc<Faults>,
}

impl SnapshotStore for FaultySnapshots {
    fn load_snapshot<'a>(
        &'a self,
        stream: &'a StreamId,
    ) -> BoxFuture<'a, Result<Option<Snapshot>, StoreError>> {
        self.inner.load_snapshot(stream)
    }

    fn save_snapshot<'a>(
        &'a self,
        stream: &'a StreamId,
        snapshot: Snapshot,
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        async move {
            let gate = self.faults.saves.lock().unwrap().clone();
            if let Some(gate) = gate {
                gate.acquire().await.unwrap().forget();
            }
            self.inner.save_snapshot(stream, snapshot).await
        }
        .boxed()
    }

    fn delete_snapshot<'a>(
        &'a self,
        stream: &'a StreamId,
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        self.inner.delete_snapshot(stream)
    }
}
