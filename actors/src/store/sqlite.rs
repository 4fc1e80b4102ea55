//! A store in one SQLite file.
//!
//! One thread writes: it keeps the connection and remembers what it needs to know of the log, so
//! that a batch is one hop there, its rows, one sync, and one hop back. A few threads read, each a
//! page in one go. A third kind copies the write-ahead log into the file in passing.
//!
//! Read models have a file of their own beside it ([`read_models_of`]): what they write waits for
//! nobody here, needs no sync, and can be made again.
//!
//! The tables are those of `migrations/sqlite`; [`SqliteStore::open`] expects to find them.

use std::{path::Path, sync::Arc, time::Duration};

use futures_util::{FutureExt, future::BoxFuture};
use tokio::{sync::watch, time::timeout};
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
mod keys;
mod lookup;
mod memory;
mod options;
mod read;
mod reader;
mod recent;
mod snapshot;
pub(crate) mod statement;
mod steady;
mod threads;
mod wal;
mod writer;

pub use database::{Database, file_of, read_models_of};
pub use options::{Durability, SqliteOptions};
pub use wal::WalCheckpoint;

#[cfg(test)]
pub(crate) mod tests;

/// How often a reader that waits for the log to grow looks whether another process wrote it.
const POLL: Duration = Duration::from_secs(1);

/// Keys that are removed at once, between two appends.
const EXPIRE_ROWS: i64 = 5_000;

/// An [`EventStore`] in one SQLite file.
#[derive(Debug)]
pub struct SqliteStore {
    database: Arc<Database>,
    /// The end of the log, as far as this store wrote it.
    head: Arc<watch::Sender<Position>>,
    store_id: Uuid,
}

impl SqliteStore {
    /// Opens the migrated database at a path or a `sqlite://` address.
    ///
    /// # Errors
    ///
    /// There is no file, it is not a database, it lacks the tables, or it cannot be written.
    ///
    /// # Cancel safety
    ///
    /// Dropping the call closes what it had opened.
    pub async fn open(path: impl AsRef<Path>, options: SqliteOptions) -> Result<Self, StoreError> {
        Self::on(Arc::new(Database::open(path, options).await?)).await
    }

    /// A store on a database that is open already.
    ///
    /// # Errors
    ///
    /// As for [`open`](Self::open).
    ///
    /// # Cancel safety
    ///
    /// Dropping the call loses nothing.
    pub async fn on(database: Arc<Database>) -> Result<Self, StoreError> {
        let store_id = database.look(|connection, _| lookup::store_id(connection)).await?;
        // Loads the keys that are known: not while somebody waits for an append.
        database
            .on_writer(|writer| {
                writer.open()?;
                writer.look(|connection, memory| memory.refresh(connection).map(drop))
            })
            .await?;
        Ok(Self { database, head: Arc::new(watch::Sender::new(Position::ZERO)), store_id })
    }

    /// The database below, to be shared with others that keep tables in the same file.
    pub const fn database(&self) -> &Arc<Database> {
        &self.database
    }

    /// Copies what it can of the write-ahead log into the file, waiting for no reader.
    ///
    /// The store does this by itself all the time; this is for those who want a small file now.
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

    /// Forgets idempotency keys that are older than [`SqliteOptions::keys_for`].
    ///
    /// # Errors
    ///
    /// The file could not be written.
    ///
    /// # Cancel safety
    ///
    /// Dropping the call loses nothing; the rest goes with the next one.
    pub async fn expire_keys(&self) -> Result<(), StoreError> {
        while self.database.on_writer(|writer| writer.expire(EXPIRE_ROWS)).await? {}
        Ok(())
    }

    /// Waits for the append under way and closes the connections; SQLite then copies the rest of
    /// the write-ahead log into the file. Later calls answer [`StoreError::Closed`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the call can leave connections open until the store itself is dropped.
    pub async fn close(&self) {
        self.database.close().await;
    }

    async fn append(&self, batch: Arc<[Append]>) -> Result<Vec<AppendOutcome>, StoreError> {
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        let head = Arc::clone(&self.head);
        self.database
            .on_writer(move |writer| {
                let written = writer.append(&batch)?;
                // From here, so that a batch that nobody waits for any more is heard of, too.
                head.send_if_modified(|head| {
                    let forward = written.head > *head;
                    *head = written.head.max(*head);
                    forward
                });
                Ok(written.outcomes)
            })
            .await
    }

    async fn wait(&self, after: Position) -> Result<Position, StoreError> {
        let mut head = self.head.subscribe();
        loop {
            let now = self.database.look(|connection, _| lookup::head(connection)).await?;
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
        let stream = stream.clone();
        self.database
            .look(move |connection, names| {
                read::stream_page(connection, names, &stream, after, limit)
            })
            .boxed()
    }

    fn read_all(
        &self,
        after: Position,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<RecordedEvent>, StoreError>> {
        self.database
            .look(move |connection, names| read::page(connection, names, after, limit))
            .boxed()
    }

    /// Behind the append under way, if there is one: a committer that starts hears of what the one
    /// before it left on its way.
    fn head(&self) -> BoxFuture<'_, Result<Position, StoreError>> {
        async {
            drop(self.database.turn().await);
            self.database.look(|connection, _| lookup::head(connection)).await
        }
        .boxed()
    }

    fn stream_version<'a>(
        &'a self,
        stream: &'a StreamId,
    ) -> BoxFuture<'a, Result<Version, StoreError>> {
        let stream = stream.clone();
        self.database.look(move |connection, _| lookup::stream_version(connection, &stream)).boxed()
    }

    fn read_stream_backward<'a>(
        &'a self,
        stream: &'a StreamId,
        before: Version,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<RecordedEvent>, StoreError>> {
        let stream = stream.clone();
        self.database
            .look(move |connection, names| {
                read::backward_page(connection, names, &stream, before, limit)
            })
            .boxed()
    }

    fn read_matching<'a>(
        &'a self,
        filter: &'a EventFilter,
        after: Position,
        limit: usize,
    ) -> BoxFuture<'a, Result<MatchingPage, StoreError>> {
        let filter = filter.clone();
        self.database
            .look(move |connection, names| {
                read::matching_page(connection, names, &filter, after, limit)
            })
            .boxed()
    }

    fn answer(&self, key: IdempotencyKey) -> BoxFuture<'_, Result<Option<Appended>, StoreError>> {
        self.database.on_writer(move |writer| writer.answer(&key)).boxed()
    }

    fn event_types(&self) -> BoxFuture<'_, Result<Vec<RecordedType>, StoreError>> {
        self.database.look(|connection, _| lookup::event_types(connection)).boxed()
    }

    fn position_at(&self, time: Timestamp) -> BoxFuture<'_, Result<Position, StoreError>> {
        self.database.look(move |connection, _| lookup::position_at(connection, time)).boxed()
    }

    fn changed(&self, after: Position) -> BoxFuture<'_, Result<Position, StoreError>> {
        self.wait(after).boxed()
    }

    fn store_id(&self) -> Uuid {
        self.store_id
    }
}
