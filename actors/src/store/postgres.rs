//! A store in a PostgreSQL database, for one node or many.
//!
//! | file | what |
//! |---|---|
//! | [`database`] | how it is reached: options, connections, closing |
//! | `append` | a batch as one statement; the slow way when somebody was faster |
//! | `statement` | that statement |
//! | `recover` | what became of a batch whose connection was lost |
//! | `read`, `lookup` | pages and single facts |
//! | `partition` | parts of the log, made ahead |
//! | `archiver` | old partitions into files, and back |
//! | `listen` | hearing of what other nodes append |
//! | `fault` | what an error of the database means |
//!
//! The tables are those of `migrations/postgres`; [`PgStore::open`] expects to find them. Positions
//! are given under a lock that is held to the end of the transaction, so they are gapless and in
//! the order of commits, however many nodes append.

use std::sync::Arc;

use futures_util::{FutureExt, future::BoxFuture};
use tokio::{sync::Mutex, time::Instant};
use uuid::Uuid;

use super::{
    Append, AppendOutcome, Appended, EventFilter, EventStore, IdempotencyKey, MatchingPage,
    RecordedType, StoreError,
};
use crate::event::{Position, RecordedEvent, StreamId, Timestamp, Version};

mod append;
mod archiver;
pub mod database;
mod fault;
mod listen;
mod lookup;
mod partition;
mod read;
mod recover;
mod snapshot;
mod statement;
mod types;

pub use database::{PgDatabase, PgOptions, Wake};
pub use partition::Partition;

/// An [`EventStore`] in a PostgreSQL database.
#[derive(Debug)]
pub struct PgStore {
    database: Arc<PgDatabase>,
    /// `None` until the first append, and after a call that did not end well: the connection of
    /// such a call is not used again.
    writer: Mutex<Option<append::Writer>>,
    types: Arc<types::Types>,
    ear: listen::Ear,
    store_id: Uuid,
}

impl PgStore {
    /// Opens the migrated database at a `postgres://` address.
    ///
    /// # Errors
    ///
    /// The address is none, the server cannot be reached, or the database has not the tables.
    ///
    /// # Cancel safety
    ///
    /// Dropping the call closes what it had opened.
    pub async fn open(url: &str, options: PgOptions) -> Result<Self, StoreError> {
        Self::on(Arc::new(PgDatabase::open(url, options)?)).await
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
    pub async fn on(database: Arc<PgDatabase>) -> Result<Self, StoreError> {
        let store_id = lookup::store_id(&database).await?;
        Ok(Self {
            ear: listen::Ear::new(Arc::clone(&database)),
            database,
            writer: Mutex::new(None),
            types: Arc::default(),
            store_id,
        })
    }

    /// The database below, to be shared with read models.
    pub const fn database(&self) -> &Arc<PgDatabase> {
        &self.database
    }

    /// Waits for the append in hand and closes the connections. Later calls answer
    /// [`StoreError::Closed`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the call can leave connections open until the store itself is dropped.
    pub async fn close(&self) {
        let writer = self.writer.lock().await.take();
        if let Some(writer) = writer {
            writer.close().await;
        }
        self.ear.close();
        self.database.close().await;
    }

    /// Reads, and reads again if the connection was lost: after the server was away, each one that
    /// waited in the pool tells so by its first use.
    async fn read<T, F>(&self, read: impl Fn() -> F + Send) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, StoreError>> + Send,
    {
        let end = Instant::now() + self.database.options.acquire_timeout;
        let (_, connections) = self.database.usage();
        for _ in 0..connections {
            match read().await {
                Err(StoreError::Lost { .. }) if Instant::now() < end => {}
                result => return result,
            }
        }
        read().await
    }

    async fn append(&self, batch: Arc<[Append]>) -> Result<Vec<AppendOutcome>, StoreError> {
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        self.database.pool()?;
        let mut slot = self.writer.lock().await;
        // Taken out and put back only when all is well. If this future is dropped halfway, the
        // connection is dropped with it.
        let mut writer = match slot.take() {
            Some(writer) => writer,
            None => recover::open(&self.database, &self.types).await?,
        };
        let written = recover::append(&mut writer, &self.database, &batch).await?;
        *slot = Some(writer);
        self.ear.wrote(written.head);
        Ok(written.outcomes)
    }
}

impl EventStore for PgStore {
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
        self.read(move || read::stream_page(&self.database, &self.types, stream, after, limit))
            .boxed()
    }

    fn read_all(
        &self,
        after: Position,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<RecordedEvent>, StoreError>> {
        self.read(move || read::page(&self.database, &self.types, after, limit)).boxed()
    }

    fn head(&self) -> BoxFuture<'_, Result<Position, StoreError>> {
        self.read(move || lookup::head(&self.database)).boxed()
    }

    fn stream_version<'a>(
        &'a self,
        stream: &'a StreamId,
    ) -> BoxFuture<'a, Result<Version, StoreError>> {
        self.read(move || lookup::stream_version(&self.database, stream)).boxed()
    }

    fn read_stream_backward<'a>(
        &'a self,
        stream: &'a StreamId,
        before: Version,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<RecordedEvent>, StoreError>> {
        self.read(move || read::backward_page(&self.database, &self.types, stream, before, limit))
            .boxed()
    }

    fn read_matching<'a>(
        &'a self,
        filter: &'a EventFilter,
        after: Position,
        limit: usize,
    ) -> BoxFuture<'a, Result<MatchingPage, StoreError>> {
        self.read(move || read::matching_page(&self.database, &self.types, filter, after, limit))
            .boxed()
    }

    fn answer(&self, key: IdempotencyKey) -> BoxFuture<'_, Result<Option<Appended>, StoreError>> {
        self.read(move || lookup::answer(&self.database, key)).boxed()
    }

    fn event_types(&self) -> BoxFuture<'_, Result<Vec<RecordedType>, StoreError>> {
        self.read(move || lookup::event_types(&self.database)).boxed()
    }

    fn position_at(&self, time: Timestamp) -> BoxFuture<'_, Result<Position, StoreError>> {
        self.read(move || lookup::position_at(&self.database, time)).boxed()
    }

    fn changed(&self, after: Position) -> BoxFuture<'_, Result<Position, StoreError>> {
        self.read(move || self.ear.changed(after)).boxed()
    }

    fn store_id(&self) -> Uuid {
        self.store_id
    }

    fn span<'a>(
        &'a self,
        stream: &'a StreamId,
    ) -> BoxFuture<'a, Result<Option<(Position, Position)>, StoreError>> {
        self.read(move || lookup::span(&self.database, stream)).boxed()
    }
}
