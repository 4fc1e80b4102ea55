//! The end of the log in memory: who follows it there reads no database.
//!
//! A [`Tail`] is a store in front of another. What is appended through it stays in memory, up to a
//! bound in bytes, and a reader that is not far behind gets its pages from there. A filter that
//! wants nothing of a commit passes over it with one comparison for each kind of event in it.
//!
//! Where several nodes share a store, the events of the others are missing. The first reader that
//! comes to such a gap fetches them once, for all readers of this node.
//!
//! The answers are those of the store behind it: only what is committed is kept, and after a fault
//! nothing is believed that was not read again.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use futures_util::{FutureExt, future::BoxFuture};
use tokio::sync::Mutex;

use self::recent::{Found, Recent};
use super::forward::forward;
use super::{
    Append, AppendError, AppendOutcome, Appended, EventFilter, EventStore, MAX_PAGE, MatchingPage,
    StoreError,
};
use crate::event::{Position, RecordedEvent};

mod recent;
#[cfg(test)]
mod tests;

/// How much of the end of the log is kept unless something else is said: 32 MiB.
pub const DEFAULT_BYTES: usize = 32 << 20;

/// Events of others that are fetched at a time. A gap that is longer is not closed: the readers
/// are ahead of it.
const FETCH: usize = 1_000;

/// See the [module](self).
#[derive(Debug)]
pub struct Tail {
    store: Arc<dyn EventStore>,
    recent: RwLock<Recent>,
    /// One reader fetches, the others wait and find it in memory.
    fetching: Mutex<()>,
    /// Nobody else appends to this store.
    sole: bool,
    /// An append has ended and nobody knows how: there may be more than memory has.
    doubtful: AtomicBool,
    closed: AtomicBool,
}

impl Tail {
    /// The end of `store` in memory, at most `bytes` of it; `sole` if nobody but this value
    /// appends to it. What is in the log already is not fetched.
    ///
    /// # Errors
    ///
    /// The store could not be read.
    pub async fn over(
        store: Arc<dyn EventStore>,
        sole: bool,
        bytes: usize,
    ) -> Result<Self, StoreError> {
        let recent = RwLock::new(Recent::after(store.head().await?, bytes));
        let (doubtful, closed) = (AtomicBool::new(false), AtomicBool::new(false));
        Ok(Self { store, recent, fetching: Mutex::new(()), sole, doubtful, closed })
    }

    /// From now on everything goes to the store behind it, which knows that it is closed.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.write().forget();
    }

    /// How many bytes it holds, with what it needs to find them.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.read().bytes()
    }

    fn read(&self) -> RwLockReadGuard<'_, Recent> {
        self.recent.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Recent> {
        self.recent.write().unwrap_or_else(PoisonError::into_inner)
    }

    async fn append(&self, batch: Arc<[Append]>) -> Result<Vec<AppendOutcome>, StoreError> {
        let mut unknown = Unknown { tail: self, ended: false };
        let outcomes = self.store.append_batch(Arc::clone(&batch)).await?;
        if !self.closed.load(Ordering::Acquire) {
            let runs = written(&batch, &outcomes);
            let mut recent = self.write();
            runs.into_iter().for_each(|run| recent.insert(run));
        }
        unknown.ended = true;
        // What was in the way may be an append of which nobody heard, and that came late.
        if outcomes.iter().any(|one| matches!(one, Err(AppendError::Conflict { .. }))) {
            self.doubtful.store(true, Ordering::Release);
        }
        Ok(outcomes)
    }

    /// What is in memory after a position; `None` if the store has to be asked.
    fn remembered(
        &self,
        filter: &EventFilter,
        after: Position,
        limit: usize,
    ) -> Option<MatchingPage> {
        if self.closed.load(Ordering::Acquire) {
            return None;
        }
        match recent::page(|from, chunks| self.read().chunks(from, chunks), filter, after, limit) {
            Found::Page(page) => Some(page),
            Found::End if self.sole && !self.doubtful.load(Ordering::Acquire) => {
                Some(MatchingPage { events: Vec::new(), scanned_to: after })
            }
            Found::End | Found::Elsewhere => None,
        }
    }

    async fn matching(
        &self,
        filter: &EventFilter,
        after: Position,
        limit: usize,
    ) -> Result<MatchingPage, StoreError> {
        let limit = limit.min(MAX_PAGE);
        if limit == 0 {
            return self.store.read_matching(filter, after, 0).await;
        }
        if let Some(page) = self.remembered(filter, after, limit) {
            return Ok(page);
        }
        if !self.read().is_near_end(after, FETCH as u64) {
            let page = self.store.read_matching(filter, after, limit).await?;
            // Who reads behind the end of memory does so on and on, unless it begins anew there.
            // But not one whose place the log has not reached: nobody else could follow from there.
            if page.scanned_to > after {
                self.write().jump(after);
            }
            return Ok(page);
        }
        let fetching = self.fetching.lock().await;
        // Somebody else has fetched it meanwhile, mostly.
        if let Some(page) = self.remembered(filter, after, limit) {
            return Ok(page);
        }
        let from = self.read().end();
        // Whoever comes to doubt while this is read doubts on. So does who has found something: a
        // page also ends when it is large enough.
        let doubtful = self.doubtful.swap(false, Ordering::AcqRel);
        let events = self.store.read_all(from, FETCH).await;
        if doubtful && events.as_ref().map_or(true, |events| !events.is_empty()) {
            self.doubtful.store(true, Ordering::Release);
        }
        self.write().insert(events?);
        drop(fetching);
        match self.remembered(filter, after, limit) {
            Some(page) => Ok(page),
            None => self.store.read_matching(filter, after, limit).await,
        }
    }

    async fn end(&self) -> Result<Position, StoreError> {
        let head = self.store.head().await?;
        if head > self.read().end() {
            self.doubtful.store(true, Ordering::Release);
        }
        Ok(head)
    }
}

/// An append until it is answered. One that failed or was dropped may be in the log.
struct Unknown<'a> {
    tail: &'a Tail,
    ended: bool,
}

impl Drop for Unknown<'_> {
    fn drop(&mut self) {
        if !self.ended {
            // A server that was replaced by one that knows less gives the same places again.
            self.tail.write().forget();
            self.tail.doubtful.store(true, Ordering::Release);
        }
    }
}

/// The events of a batch as they are in the log, in runs without a gap.
fn written(batch: &[Append], outcomes: &[AppendOutcome]) -> Vec<Vec<RecordedEvent>> {
    let mut runs: Vec<Vec<RecordedEvent>> = Vec::new();
    for (append, outcome) in batch.iter().zip(outcomes) {
        let Ok(Appended { stream, first_version, first_position, duplicate: false, .. }) = outcome
        else {
            continue;
        };
        let end = |run: &Vec<RecordedEvent>| run.last().map(|last| last.position.next());
        if runs.last().and_then(end) != Some(*first_position) {
            runs.push(Vec::with_capacity(batch.len()));
        }
        let Some(run) = runs.last_mut() else { continue };
        run.extend((0..).zip(&append.events).map(|(n, event)| {
            let (position, version) = (first_position.plus(n), first_version.plus(n));
            RecordedEvent::at(position, stream.clone(), version, event.clone())
        }));
    }
    runs
}

impl EventStore for Tail {
    forward!(
        store: read_stream, stream_version, read_stream_backward, answer, event_types, position_at, changed, store_id, span,
    );

    fn append_batch(
        &self,
        batch: Arc<[Append]>,
    ) -> BoxFuture<'_, Result<Vec<AppendOutcome>, StoreError>> {
        self.append(batch).boxed()
    }

    fn read_all(
        &self,
        after: Position,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<RecordedEvent>, StoreError>> {
        async move { Ok(self.matching(&EventFilter::ALL, after, limit).await?.events) }.boxed()
    }

    fn head(&self) -> BoxFuture<'_, Result<Position, StoreError>> {
        self.end().boxed()
    }

    fn read_matching<'a>(
        &'a self,
        filter: &'a EventFilter,
        after: Position,
        limit: usize,
    ) -> BoxFuture<'a, Result<MatchingPage, StoreError>> {
        self.matching(filter, after, limit).boxed()
    }
}
