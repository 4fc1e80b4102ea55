//! A store in a PostgreSQL database, for one node or many.
//!
//! | file | what |
//! |---|---|
//! | [`database`], [`options`] | how it is reached: connections, closing; address and options |
//! | `append` | a batch by the way that is short enough |
//! | `statement` | the statement that writes it |
//! | `memory`, `look` | what is remembered, and how it is brought up to date |
//! | `settle` | rows that follow the log |
//! | `recover` | what became of a batch whose connection was lost |
//! | `read`, `lookup` | pages and single facts |
//! | `names`, `types` | what the numbers of streams and types stand for |
//! | `keys` | answers to keys, forgotten by age |
//! | `partition` | parts of the log, made ahead |
//! | `archiver` | old partitions into files, and back |
//! | `listen` | hearing of what other nodes append |
//! | `fault` | what an error of the database means |
//!
//! The tables are those of `migrations/postgres`; [`PgStore::open`] expects to find them. An event
//! takes the position behind the last one that is committed, and the key of the position refuses
//! everybody but the first: so positions are gapless and in the order of commits, however many
//! nodes append.

use std::sync::Arc;

use futures_util::{FutureExt, future::BoxFuture};
use tokio::{
    sync::Mutex,
    time::{Instant, timeout},
};
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
mod keys;
mod listen;
mod look;
mod lookup;
mod memory;
mod names;
pub mod options;
mod partition;
mod read;
mod recover;
mod settle;
mod snapshot;
mod statement;
mod types;

pub use database::PgDatabase;
pub(in crate::store) use fault::is_undone;
pub use options::{PgOptions, Wake};
pub use partition::Partition;

/// An [`EventStore`] in a PostgreSQL database.
#[derive(Debug)]
pub struct PgStore {
    database: Arc<PgDatabase>,
    /// `None` until the first append, and after a call that did not end well: the connection of
    /// such a call is not used again.
    writer: Mutex<Option<append::Writer>>,
    types: Arc<types::Types>,
    reader: read::Reader,
    head_watch: listen::HeadWatch,
    settler: settle::Settler,
    keys: keys::Keys,
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
        let store_id = lookup::store_id(&database).await;
        // Through a pooler that shares sessions the tables are there or not, as it happens.
        if matches!(store_id, Ok(_) | Err(StoreError::NotMigrated { .. })) {
            database.ping().await?;
        }
        let store_id = store_id?;
        let types = Arc::<types::Types>::default();
        Ok(Self {
            reader: read::Reader::new(Arc::clone(&database), Arc::clone(&types)),
            head_watch: listen::HeadWatch::new(Arc::clone(&database)),
            settler: settle::Settler::new(Arc::clone(&database)),
            keys: keys::Keys::default(),
            database,
            writer: Mutex::new(None),
            types,
            store_id,
        })
    }

    /// The database below, to be shared with read models.
    pub const fn database(&self) -> &Arc<PgDatabase> {
        &self.database
    }

    /// Brings the rows of streams forward to where the log ends now: what is to be archived must be
    /// behind the place up to which they are right.
    ///
    /// # Errors
    ///
    /// The database failed.
    ///
    /// # Cancel safety
    ///
    /// A dropped call brought them forward or not.
    pub async fn settle(&self) -> Result<(), StoreError> {
        settle::settle(&self.database).await
    }

    /// Forgets keys that are older than [`PgOptions::keep_keys`], unless that was done within the
    /// last minute.
    ///
    /// # Errors
    ///
    /// The database failed.
    ///
    /// # Cancel safety
    ///
    /// A dropped call forgot some of them, or all.
    pub async fn forget_old_keys(&self) -> Result<(), StoreError> {
        self.keys.tidy(&self.database).await
    }

    /// Waits for the append in hand and closes the connections. Later calls answer
    /// [`StoreError::Closed`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the call can leave connections open until the store itself is dropped.
    pub async fn close(&self) {
        let writer = self.writer.lock().await.take();
        self.settler.close();
        if let Some(writer) = writer {
            writer.close().await;
            if let Err(error) = settle::settle(&self.database).await {
                tracing::debug!(%error, "the rows of streams stay behind until the next append");
            }
        }
        self.head_watch.close();
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
            match self.answered(read()).await {
                Err(StoreError::Lost { .. }) if Instant::now() < end => {}
                result => return result,
            }
        }
        self.answered(read()).await
    }

    /// A server that says nothing at all is not waited for without end.
    async fn answered<T>(
        &self,
        read: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let options = &self.database.options;
        match timeout(options.acquire_timeout + options.answer_within(), read).await {
            Ok(result) => result,
            Err(_) => Err(self.database.fault(database::silent("read"))),
        }
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
            None => recover::open(&self.database, &self.types, self.settler.older()).await?,
        };
        let written = recover::append(&mut writer, &self.database, &batch).await?;
        *slot = Some(writer);
        self.head_watch.wrote(written.head);
        self.settler.wrote(written.head);
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
        self.read(move || self.reader.stream_page(stream, after, limit)).boxed()
    }

    fn read_all(
        &self,
        after: Position,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<RecordedEvent>, StoreError>> {
        self.read(move || self.reader.page(after, limit)).boxed()
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
        self.read(move || self.reader.backward_page(stream, before, limit)).boxed()
    }

    fn read_matching<'a>(
        &'a self,
        filter: &'a EventFilter,
        after: Position,
        limit: usize,
    ) -> BoxFuture<'a, Result<MatchingPage, StoreError>> {
        self.read(move || self.reader.matching_page(filter, after, limit)).boxed()
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
        self.head_watch.changed(after).boxed()
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
