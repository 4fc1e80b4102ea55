//! A store in one SQLite file.
//!
//! One connection writes, a few read, and a third kind copies the write-ahead log into the file
//! when it is told to. SQLite calls block, so sqlx runs each connection on a thread of its own.
//!
//! The tables are those of `migrations/sqlite`; [`SqliteStore::open`] expects to find them.

use std::{path::Path, sync::Arc, time::Duration};

use futures_util::{FutureExt, future::BoxFuture};
use tokio::{
    sync::{Mutex, watch},
    time::timeout,
};
use uuid::Uuid;

use super::{
    Append, AppendOutcome, Appended, EventFilter, EventStore, IdempotencyKey, MatchingPage,
    RecordedType, StoreError,
};
use crate::event::{Position, RecordedEvent, StreamId, Timestamp, Version};

mod append;
mod database;
mod engine;
mod fault;
mod lookup;
mod read;
mod snapshot;
pub(crate) mod statement;

pub use database::{Database, Durability, SqliteOptions, WalCheckpoint, file_of};

#[cfg(test)]
pub(crate) mod tests;

/// How often a reader that waits for the log to grow looks whether another process wrote it.
const POLL: Duration = Duration::from_secs(1);

/// An [`EventStore`] in one SQLite file.
#[derive(Debug)]
pub struct SqliteStore {
    database: Arc<Database>,
    /// `None` until the first append, and after a call that did not end well: see
    /// [`append_batch`](EventStore::append_batch).
    writer: Mutex<Option<append::Writer>>,
    types: read::TypeNames,
    snapshots: snapshot::Snapshots,
    /// The end of the log, as far as this store wrote it.
    head: watch::Sender<Position>,
    store_id: Uuid,
}

impl SqliteStore {
    /// Opens the migrated database at a path or a `sqlite://` address.
    ///
    /// # Errors
    ///
    /// There is no file, it is no database, it has not the tables, or it cannot be written.
    ///
    /// # Cancel safety
    ///
    /// Dropping the call closes what it had opened.
    pub async fn open(path: impl AsRef<Path>, options: SqliteOptions) -> Result<Self, StoreError> {
        Self::on(Arc::new(Database::open(path, options).await?)).await
    }

    /// A store on a database that is open already, for read models that share it.
    ///
    /// # Errors
    ///
    /// As for [`open`](Self::open).
    ///
    /// # Cancel safety
    ///
    /// Dropping the call loses nothing.
    pub async fn on(database: Arc<Database>) -> Result<Self, StoreError> {
        let store_id = lookup::store_id(&database).await?;
        let writer = append::Writer::open(&database).await?;
        Ok(Self {
            database,
            writer: Mutex::new(Some(writer)),
            types: read::TypeNames::default(),
            snapshots: snapshot::Snapshots::default(),
            head: watch::Sender::new(Position::ZERO),
            store_id,
        })
    }

    /// The database below, to be shared with read models in the same file.
    pub const fn database(&self) -> &Arc<Database> {
        &self.database
    }

    /// Copies what it can of the write-ahead log into the file, waiting for nobody.
    ///
    /// The writer never does this by itself, since it would stall a commit. Call it between
    /// batches: it works on a connection of its own, beside readers and the writer.
    ///
    /// # Errors
    ///
    /// The file could not be written.
    ///
    /// # Cancel safety
    ///
    /// Dropping the call loses nothing; the copy may still run to its end.
    pub async fn checkpoint_passive(&self) -> Result<WalCheckpoint, StoreError> {
        self.database.checkpoint_passive().await
    }

    /// Waits for the append in hand and closes the connections; SQLite then copies the rest of
    /// the write-ahead log into the file. Later calls answer [`StoreError::Closed`].
    ///
    /// A read model that shares the database keeps its own writing connection until it is dropped.
    ///
    /// # Cancel safety
    ///
    /// Dropping the call can leave connections open until the store itself is dropped.
    pub async fn close(&self) {
        let writer = self.writer.lock().await.take();
        if let Some(writer) = writer {
            writer.close().await;
        }
        self.snapshots.close().await;
        self.database.close().await;
    }

    async fn append(&self, batch: Arc<[Append]>) -> Result<Vec<AppendOutcome>, StoreError> {
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        let mut slot = self.writer.lock().await;
        let _turn = self.database.turn().await;
        // Taken out and put back only after a commit. If this future is dropped or fails halfway,
        // the connection is dropped with it, SQLite rolls back, and the next call opens another:
        // no later batch can find itself inside somebody else's transaction.
        let mut writer = match slot.take() {
            Some(writer) => writer,
            None => append::Writer::open(&self.database).await?,
        };
        let written = writer.append(&batch).await.map_err(|error| self.database.fault(error))?;
        *slot = Some(writer);
        self.head.send_if_modified(|head| {
            let forward = written.head > *head;
            *head = written.head.max(*head);
            forward
        });
        Ok(written.outcomes)
    }

    async fn wait(&self, after: Position) -> Result<Position, StoreError> {
        let mut head = self.head.subscribe();
        loop {
            let now = lookup::head(&self.database).await?;
            if now > after {
                return Ok(now);
            }
            tokio::select! {
                biased;
                () = self.database.closed() => {}
                // The answer does not matter: either way the file is asked. The sender is ours.
                _ = timeout(POLL, head.wait_for(|head| *head > after)) => {}
            }
        }
    }
}

impl EventStore for SqliteStore {
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
        read::stream_page(&self.database, &self.types, stream, after, limit).boxed()
    }

    fn read_all(
        &self,
        after: Position,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<RecordedEvent>, StoreError>> {
        read::page(&self.database, &self.types, after, limit).boxed()
    }

    fn head(&self) -> BoxFuture<'_, Result<Position, StoreError>> {
        lookup::head(&self.database).boxed()
    }

    fn stream_version<'a>(
        &'a self,
        stream: &'a StreamId,
    ) -> BoxFuture<'a, Result<Version, StoreError>> {
        lookup::stream_version(&self.database, stream).boxed()
    }

    fn read_stream_backward<'a>(
        &'a self,
        stream: &'a StreamId,
        before: Version,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<RecordedEvent>, StoreError>> {
        read::backward_page(&self.database, &self.types, stream, before, limit).boxed()
    }

    fn read_matching<'a>(
        &'a self,
        filter: &'a EventFilter,
        after: Position,
        limit: usize,
    ) -> BoxFuture<'a, Result<MatchingPage, StoreError>> {
        read::matching_page(&self.database, &self.types, filter, after, limit).boxed()
    }

    fn answer(&self, key: IdempotencyKey) -> BoxFuture<'_, Result<Option<Appended>, StoreError>> {
        lookup::answer(&self.database, key).boxed()
    }

    fn event_types(&self) -> BoxFuture<'_, Result<Vec<RecordedType>, StoreError>> {
        lookup::event_types(&self.database).boxed()
    }

    fn position_at(&self, time: Timestamp) -> BoxFuture<'_, Result<Position, StoreError>> {
        lookup::position_at(&self.database, time).boxed()
    }

    fn changed(&self, after: Position) -> BoxFuture<'_, Result<Position, StoreError>> {
        self.wait(after).boxed()
    }

    fn store_id(&self) -> Uuid {
        self.store_id
    }
}
