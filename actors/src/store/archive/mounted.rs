//! Files and database as one store: a reader of the log does not notice where one ends and the
//! other begins.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::{FutureExt, future::BoxFuture};

use super::reader::{Archives, Page};
use super::{ArchiveError, SharedCold};
use crate::event::{Position, RecordedEvent, StreamId, Version};
use crate::store::forward::forward;
use crate::store::{EventFilter, EventStore, MatchingPage, StoreError};

/// A store whose old ranges are in files. What is in the database is read there; what the
/// database says was archived is read from the files; appends are the database's.
#[derive(Debug)]
pub struct ArchivedStore {
    store: Arc<dyn EventStore>,
    archives: Archives,
    /// Everything up to here was in files once: they are asked first. What was put back into the
    /// database meanwhile is the same in the files.
    floor: AtomicU64,
}

impl ArchivedStore {
    /// A store with the archives of a place. The place is not looked at before it is needed.
    #[must_use]
    pub fn new(store: Arc<dyn EventStore>, cold: SharedCold) -> Self {
        let archives = Archives::new(cold, store.store_id());
        Self { store, archives, floor: AtomicU64::new(0) }
    }

    /// The same, after a look at the place.
    ///
    /// # Errors
    /// It cannot be read, or holds archives of another log.
    ///
    /// # Cancel safety
    /// Dropping the call loses nothing.
    pub async fn open(store: Arc<dyn EventStore>, cold: SharedCold) -> Result<Self, ArchiveError> {
        let opened = Self::new(store, cold);
        opened.archives.reload().await?;
        Ok(opened)
    }

    fn is_archived(&self, position: Position) -> bool {
        position.get() <= self.floor.load(Ordering::Relaxed)
    }

    /// Everything up to where a store's error says; the error itself if it says something else.
    fn archived(&self, error: StoreError) -> Result<(Position, StoreError), StoreError> {
        match error {
            StoreError::Archived { up_to, .. } => {
                self.floor.fetch_max(up_to.get(), Ordering::Relaxed);
                Ok((up_to, error))
            }
            error => Err(error),
        }
    }

    fn fault(&self, error: ArchiveError) -> StoreError {
        error.into_store(&**self.archives.cold())
    }

    /// A page out of the files; where they end in it, the database goes on.
    async fn page(
        &self,
        after: Position,
        limit: usize,
    ) -> Result<Option<Vec<RecordedEvent>>, StoreError> {
        let page = self.archives.page(after, limit).await.map_err(|error| self.fault(error))?;
        let Some(events) = page else { return Ok(None) };
        let mut page = Page::of(events, limit);
        let last = page.events.last().map(|event| event.position);
        // What fails here fails with the next call.
        if let Some(last) = last
            && page.room() > 0
            && let Ok(rest) = self.store.read_all(last, page.room()).await
        {
            page.take(&rest);
        }
        Ok(Some(page.events))
    }

    async fn all(&self, after: Position, limit: usize) -> Result<Vec<RecordedEvent>, StoreError> {
        if self.is_archived(after.next())
            && let Some(page) = self.page(after, limit).await?
        {
            return Ok(page);
        }
        match self.store.read_all(after, limit).await {
            Ok(page) => Ok(page),
            Err(error) => {
                let (_, error) = self.archived(error)?;
                self.page(after, limit).await?.ok_or(error)
            }
        }
    }

    async fn matching(
        &self,
        filter: &EventFilter,
        after: Position,
        limit: usize,
    ) -> Result<MatchingPage, StoreError> {
        let archives = &self.archives;
        if self.is_archived(after.next()) {
            let page = archives.matching(filter, after, limit).await;
            if let Some(page) = page.map_err(|error| self.fault(error))? {
                return Ok(page);
            }
        }
        match self.store.read_matching(filter, after, limit).await {
            Ok(page) => Ok(page),
            Err(error) => {
                let (_, error) = self.archived(error)?;
                let page = archives.matching(filter, after, limit).await;
                page.map_err(|error| self.fault(error))?.ok_or(error)
            }
        }
    }

    /// Where the archived events of a stream may be.
    async fn within(
        &self,
        stream: &StreamId,
        up_to: Position,
    ) -> Result<(Position, Position), StoreError> {
        let span = self.store.span(stream).await?;
        Ok(span.map_or((Position::ZERO, up_to), |(first, last)| (first, last.min(up_to))))
    }

    async fn stream(
        &self,
        stream: &StreamId,
        after: Version,
        limit: usize,
    ) -> Result<Vec<RecordedEvent>, StoreError> {
        let error = match self.store.read_stream(stream, after, limit).await {
            Ok(page) => return Ok(page),
            Err(error) => error,
        };
        let (up_to, error) = self.archived(error)?;
        let within = self.within(stream, up_to).await?;
        let page = self.archives.stream(stream, after, within, limit).await;
        let page = page.map_err(|error| self.fault(error))?;
        // Files that are not there leave a hole.
        let whole = page.iter().zip(1..).all(|(event, n)| event.version == after.plus(n));
        let Some(last) = page.last().map(|event| event.version).filter(|_| whole) else {
            return Err(error);
        };
        let mut page = Page::of(page, limit);
        if page.room() > 0
            && let Ok(rest) = self.store.read_stream(stream, last, page.room()).await
        {
            page.take(&rest);
        }
        Ok(page.events)
    }

    async fn stream_backward(
        &self,
        stream: &StreamId,
        before: Version,
        limit: usize,
    ) -> Result<Vec<RecordedEvent>, StoreError> {
        let mut page = Page::of(self.part_backward(stream, before, limit).await?, limit);
        let last = page.events.last().map(|event| event.version);
        if let Some(last) = last
            && last > Version::new(1)
            && page.room() > 0
            && let Ok(rest) = self.part_backward(stream, last, page.room()).await
        {
            page.take(&rest);
        }
        Ok(page.events)
    }

    /// A part of a stream that is in the database, or one that is in files.
    async fn part_backward(
        &self,
        stream: &StreamId,
        before: Version,
        limit: usize,
    ) -> Result<Vec<RecordedEvent>, StoreError> {
        let error = match self.store.read_stream_backward(stream, before, limit).await {
            Ok(page) => return Ok(page),
            Err(error) => error,
        };
        let (up_to, error) = self.archived(error)?;
        let within = self.within(stream, up_to).await?;
        let last = self.store.stream_version(stream).await?;
        let page = self.archives.stream_backward(stream, before, within, limit).await;
        let page = page.map_err(|error| self.fault(error))?;
        let begin = before.minus(1).min(last).next();
        let whole = page.iter().zip(1..).all(|(event, n)| event.version == begin.minus(n));
        if page.is_empty() || !whole { Err(error) } else { Ok(page) }
    }
}

impl EventStore for ArchivedStore {
    forward!(
        store: append_batch, head, stream_version, answer, event_types, position_at, changed, store_id, span,
    );

    fn read_stream<'a>(
        &'a self,
        stream: &'a StreamId,
        after: Version,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<RecordedEvent>, StoreError>> {
        self.stream(stream, after, limit).boxed()
    }

    fn read_all(
        &self,
        after: Position,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<RecordedEvent>, StoreError>> {
        self.all(after, limit).boxed()
    }

    fn read_stream_backward<'a>(
        &'a self,
        stream: &'a StreamId,
        before: Version,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<RecordedEvent>, StoreError>> {
        self.stream_backward(stream, before, limit).boxed()
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
