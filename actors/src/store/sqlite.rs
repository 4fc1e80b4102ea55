//! A store in one SQLite file.
//!
//! One connection writes, a few read, and a third kind copies the write-ahead log into the file
//! when it is told to. SQLite calls block, so sqlx runs each connection on a thread of its own.
//!
//! The tables are those of `migrations/sqlite`; [`SqliteStore::open`] expects to find them.

use std::{path::Path, sync::Arc};

use futures_util::{FutureExt, future::BoxFuture};
use tokio::sync::Mutex;
use uuid::Uuid;

use super::{Append, AppendOutcome, EventStore, StoreError};
use crate::event::{Position, RecordedEvent, StreamId, Version};

mod append;
mod database;
mod fault;
mod read;
pub(crate) mod statement;

pub use database::{Database, Durability, SqliteOptions, WalCheckpoint, file_of};

#[cfg(test)]
pub(crate) mod tests;

/// An [`EventStore`] in one SQLite file.
#[derive(Debug)]
pub struct SqliteStore {
    database: Arc<Database>,
    /// `None` until the first append, and after a call that did not end well: see
    /// [`append_batch`](EventStore::append_batch).
    writer: Mutex<Option<append::Writer>>,
    types: read::TypeNames,
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
        let store_id = read::store_id(&database).await?;
        let writer = append::Writer::open(&database).await?;
        Ok(Self {
            database,
            writer: Mutex::new(Some(writer)),
            types: read::TypeNames::default(),
            store_id,
        })
    }

    /// The database below, to be shared with read models in the same file.
    pub const fn database(&self) -> &Arc<Database> {
        &self.database
    }

    /// The name of this log, made with it. Messages derived from events carry it, so that two
    /// logs on one bus are told apart.
    pub const fn store_id(&self) -> Uuid {
        self.store_id
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
        self.database.close().await;
    }

    async fn append(&self, batch: Vec<Append>) -> Result<Vec<AppendOutcome>, StoreError> {
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
        let outcomes = writer.append(batch).await.map_err(|error| self.database.fault(error))?;
        *slot = Some(writer);
        Ok(outcomes)
    }
}

impl EventStore for SqliteStore {
    fn append_batch(
        &self,
        batch: Vec<Append>,
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
        read::head(&self.database).boxed()
    }

    fn stream_version<'a>(
        &'a self,
        stream: &'a StreamId,
    ) -> BoxFuture<'a, Result<Version, StoreError>> {
        read::stream_version(&self.database, stream).boxed()
    }
}
