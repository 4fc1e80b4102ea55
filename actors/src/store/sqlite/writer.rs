//! The connection that writes, on a thread of its own, and what it does there.

use std::path::PathBuf;

use rusqlite::{Connection, OpenFlags};

use crate::{
    event::Position,
    store::{Appended, IdempotencyKey},
};

use super::{
    memory::Memory,
    options::{Durability, SqliteOptions},
    threads::State,
    wal::{LONG_BYTES, Upkeep},
};

/// Statements that stay prepared: more than this adapter has.
const PREPARED: usize = 64;

/// What the thread that writes works with. After an error the connection is closed and the next
/// job opens another, so that no job can find itself inside somebody else's transaction.
#[derive(Debug)]
pub(super) struct Writer {
    path: PathBuf,
    options: SqliteOptions,
    connection: Option<Connection>,
    /// What a commit on the connection does now.
    durability: Option<Durability>,
    pub(super) memory: Memory,
    upkeep: Upkeep,
}

impl Writer {
    pub(super) fn new(path: PathBuf, options: SqliteOptions) -> Self {
        let upkeep = Upkeep::new(path.clone(), options.clone());
        let memory = Memory::new(options.max_keys);
        Self { path, options, connection: None, durability: None, memory, upkeep }
    }

    /// Opens the connection, unless it is open. The file has to exist; whether it is a database
    /// that may be written shows here.
    pub(super) fn open(&mut self) -> rusqlite::Result<&Connection> {
        if self.connection.is_none() {
            let connection = open(&self.path, &self.options)?;
            self.options.clock.now(&connection, self.options.keys_for)?;
            self.connection = Some(connection);
            self.durability = None;
        }
        Ok(self.connection.as_ref().expect("it was opened above"))
    }

    /// Runs `work` in a transaction. Unless it is to be kept whatever happens, its commit does not
    /// wait for the disk: the next commit that does takes it along.
    pub(super) fn transact<T>(
        &mut self,
        durability: Durability,
        work: impl FnOnce(&Connection, &mut Memory) -> rusqlite::Result<Option<T>>,
    ) -> rusqlite::Result<Option<T>> {
        let done = self.try_transact(durability, work);
        if done.is_err() {
            self.reset();
        }
        done
    }

    fn try_transact<T>(
        &mut self,
        durability: Durability,
        work: impl FnOnce(&Connection, &mut Memory) -> rusqlite::Result<Option<T>>,
    ) -> rusqlite::Result<Option<T>> {
        self.open()?;
        let connection = self.connection.as_ref().expect("it was opened above");
        let durability = match self.options.durability {
            Durability::Full => durability,
            Durability::Normal => Durability::Normal,
        };
        if self.durability != Some(durability) {
            connection.execute_batch(match durability {
                Durability::Full => "pragma synchronous = full",
                Durability::Normal => "pragma synchronous = normal",
            })?;
            self.durability = Some(durability);
        }
        // IMMEDIATE: a transaction that reads before it writes would be refused at once, whatever
        // the busy timeout, if another process wrote in between.
        connection.prepare_cached("begin immediate")?.execute(())?;
        let value = work(connection, &mut self.memory)?;
        let end = if value.is_some() { "commit" } else { "rollback" };
        connection.prepare_cached(end)?.execute(())?;
        Ok(value)
    }

    /// Looks at the log outside a transaction.
    pub(super) fn look<T>(
        &mut self,
        work: impl FnOnce(&Connection, &mut Memory) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<T> {
        self.open()?;
        let connection = self.connection.as_ref().expect("it was opened above");
        let done = work(connection, &mut self.memory);
        if done.is_err() {
            self.reset();
        }
        done
    }

    /// The first answer to a key, if it is known.
    pub(super) fn answer(&mut self, key: &IdempotencyKey) -> rusqlite::Result<Option<Appended>> {
        self.look(|connection, memory| {
            let head: i64 = connection
                .prepare_cached("select position from store_head")?
                .query_row((), |row| row.get(0))?;
            if memory.head() != Some(Position::new(head.cast_unsigned())) {
                memory.refresh(connection)?;
            }
            memory.answer_to(connection, key)
        })
    }

    /// Removes keys that are too old, at most `limit` of them; whether there may be more.
    pub(super) fn expire(&mut self, limit: i64) -> rusqlite::Result<bool> {
        let age = self.options.keys_for;
        self.open()?;
        let connection = self.connection.as_ref().expect("it was opened above");
        let now = self.options.clock.now(connection, age)?;
        let more = self.transact(Durability::Normal, |connection, memory| {
            memory.expire(connection, now, age, limit).map(Some)
        })?;
        Ok(more.unwrap_or_default())
    }

    /// See [`Upkeep::copy`].
    pub(super) fn copy(&mut self) -> rusqlite::Result<super::WalCheckpoint> {
        let connection = self.open()?;
        super::wal::checkpoint(connection, "passive").map(|(_, done)| done)
    }

    /// Changes a setting of the connection that only tests need.
    #[cfg(test)]
    pub(super) fn limit_pages(&mut self, pages: u32) {
        let connection = self.open().expect("the file is there");
        connection
            .query_row(&format!("pragma max_page_count = {pages}"), (), |_| Ok(()))
            .expect("it is a setting");
    }
}

impl State for Writer {
    fn rest(&mut self) {
        let Some(connection) = &self.connection else { return };
        if let Err(error) = self.upkeep.after(connection) {
            tracing::warn!(%error, file = %self.path.display(), "the write-ahead log was not tidied");
        }
    }

    fn reset(&mut self) {
        self.connection = None;
        self.memory.forget();
    }
}

/// A connection that may write.
pub(super) fn open(
    path: &std::path::Path,
    options: &SqliteOptions,
) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(options.busy_timeout)?;
    connection.set_prepared_statement_cache_capacity(PREPARED);
    connection.query_row("pragma journal_mode = wal", (), |_| Ok(()))?;
    // Copying the log into the file would stall the commit that happens to trigger it. When the
    // log begins anew, what is above the limit is cut off.
    connection.query_row("pragma wal_autocheckpoint = 0", (), |_| Ok(()))?;
    connection.query_row(&format!("pragma journal_size_limit = {LONG_BYTES}"), (), |_| Ok(()))?;
    Ok(connection)
}
