//! The file: how its connections are opened, shared and closed.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use sqlx::{
    ConnectOptions as _, Connection as _, Row as _, SqlitePool,
    sqlite::{
        SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePoolOptions,
        SqliteSynchronous,
    },
};
use tokio::sync::{Mutex, OwnedMutexGuard};

use super::{engine, fault::fault};
use crate::store::StoreError;

/// What "written" means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Durability {
    /// On the disk before the answer (`synchronous = FULL`). Nothing acknowledged is ever lost.
    #[default]
    Full,
    /// In the operating system before the answer (`synchronous = NORMAL`). Survives the death of
    /// the process; on power loss or a kernel crash the last acknowledged events can vanish.
    Normal,
}

/// How to open a SQLite file.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SqliteOptions {
    /// What "written" means; [`Durability::Full`] unless said otherwise.
    pub durability: Durability,
    /// Connections that read, at least 1; 4 unless said otherwise.
    pub readers: u32,
    /// How long to wait for the lock of another process; 5 s unless said otherwise.
    pub busy_timeout: Duration,
}

impl Default for SqliteOptions {
    fn default() -> Self {
        Self { durability: Durability::Full, readers: 4, busy_timeout: Duration::from_secs(5) }
    }
}

impl SqliteOptions {
    /// Sets what "written" means.
    #[must_use]
    pub const fn durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// Sets how many connections read.
    #[must_use]
    pub const fn readers(mut self, readers: u32) -> Self {
        self.readers = readers;
        self
    }

    /// Sets how long to wait for the lock of another process.
    #[must_use]
    pub const fn busy_timeout(mut self, timeout: Duration) -> Self {
        self.busy_timeout = timeout;
        self
    }
}

/// What a checkpoint of the write-ahead log did, in pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WalCheckpoint {
    /// Pages in the write-ahead log.
    pub wal_pages: u64,
    /// How many of them are in the database file now. When it is all of them, the next commit
    /// begins the write-ahead log from its start.
    pub copied_pages: u64,
}

/// One SQLite file and the connections to it that are shared.
pub struct Database {
    path: PathBuf,
    options: SqliteOptions,
    readers: SqlitePool,
    /// SQLite lets one connection write at a time and the others poll with growing sleeps. The
    /// writers of one process wait here instead, in order, and are woken at once.
    turn: Arc<Mutex<()>>,
    checkpointer: Mutex<Option<SqliteConnection>>,
}

impl Database {
    /// Opens the file at a path or a `sqlite://` address, which has to exist.
    ///
    /// # Errors
    ///
    /// There is no file, it is no database, it cannot be written, or the linked SQLite is older
    /// than 3.51.3.
    ///
    /// # Cancel safety
    ///
    /// Dropping the call closes what it had opened.
    pub async fn open(path: impl AsRef<Path>, options: SqliteOptions) -> Result<Self, StoreError> {
        let path = file_of(path.as_ref());
        engine::check(&path.display().to_string())?;
        // WAL is a property of the file; setting it here also finds out whether this is a
        // database and whether it may be written.
        let connection = connect_options(&path, &options)
            .journal_mode(SqliteJournalMode::Wal)
            .connect()
            .await
            .map_err(|error| fault(path.display().to_string(), error))?;
        let _ = connection.close().await;
        let readers = SqlitePoolOptions::new()
            .max_connections(options.readers.max(1))
            // They live as long as the database: a file handle does not wear out.
            .idle_timeout(None)
            .max_lifetime(None)
            .test_before_acquire(false)
            .connect_lazy_with(connect_options(&path, &options).read_only(true));
        Ok(Self {
            path,
            options,
            readers,
            turn: Arc::new(Mutex::new(())),
            checkpointer: Mutex::new(None),
        })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The read-only connections.
    pub(crate) fn readers(&self) -> Result<&SqlitePool, StoreError> {
        if self.readers.is_closed() {
            return Err(StoreError::Closed { store: self.name() });
        }
        Ok(&self.readers)
    }

    /// A connection for the log's writer.
    pub(crate) async fn open_writer(&self) -> Result<SqliteConnection, StoreError> {
        self.open_with(match self.options.durability {
            Durability::Full => SqliteSynchronous::Full,
            Durability::Normal => SqliteSynchronous::Normal,
        })
        .await
    }

    /// A connection for the writer of a read model.
    ///
    /// It does not sync: what power loss takes from a read model, its checkpoint goes back with,
    /// and the log gives it again. The log's next commit syncs both, since they share one
    /// write-ahead log.
    pub(crate) async fn open_read_model_writer(&self) -> Result<SqliteConnection, StoreError> {
        self.open_with(SqliteSynchronous::Normal).await
    }

    async fn open_with(
        &self,
        synchronous: SqliteSynchronous,
    ) -> Result<SqliteConnection, StoreError> {
        self.readers()?;
        connect_options(&self.path, &self.options)
            .synchronous(synchronous)
            // Copying the log into the file stalls the commit that happens to trigger it.
            .pragma("wal_autocheckpoint", "0")
            .connect()
            .await
            .map_err(|error| self.fault(error))
    }

    /// Waits for the right to write. Held from before BEGIN to after COMMIT.
    pub(crate) async fn turn(&self) -> OwnedMutexGuard<()> {
        Arc::clone(&self.turn).lock_owned().await
    }

    /// See [`SqliteStore::checkpoint_passive`](super::SqliteStore::checkpoint_passive).
    ///
    /// # Errors
    ///
    /// The file could not be written.
    ///
    /// # Cancel safety
    ///
    /// Dropping the call loses nothing; the copy may still run to its end.
    pub async fn checkpoint_passive(&self) -> Result<WalCheckpoint, StoreError> {
        let mut slot = self.checkpointer.lock().await;
        let mut connection = match slot.take() {
            Some(connection) => connection,
            None => self.open_with(SqliteSynchronous::Normal).await?,
        };
        let row = sqlx::query("pragma wal_checkpoint(passive)")
            .fetch_one(&mut connection)
            .await
            .map_err(|error| self.fault(error))?;
        *slot = Some(connection);
        // SQLite says -1 when there is no write-ahead log yet.
        let pages = |column| row.try_get::<i64, _>(column).map(|n| n.max(0).cast_unsigned());
        Ok(WalCheckpoint {
            wal_pages: pages(1).map_err(|error| self.fault(error))?,
            copied_pages: pages(2).map_err(|error| self.fault(error))?,
        })
    }

    /// Refuses everything from now on, at once: whoever still holds this database gets
    /// [`StoreError::Closed`] and has to ask for the one that took its place. What is under way
    /// may finish.
    pub fn mark_closed(&self) {
        // sqlx marks the pool closed before the first poll; what the future would add is waiting.
        drop(self.readers.close());
    }

    /// Waits until it is closed.
    pub(crate) async fn closed(&self) {
        self.readers.close_event().await;
    }

    /// Shared connections in use, and how many there may be.
    pub fn usage(&self) -> (u32, u32) {
        let idle = u32::try_from(self.readers.num_idle()).unwrap_or(u32::MAX);
        (self.readers.size().saturating_sub(idle), self.options.readers.max(1))
    }

    /// Closes the shared connections.
    pub(crate) async fn close(&self) {
        self.readers.close().await;
        let checkpointer = self.checkpointer.lock().await.take();
        if let Some(connection) = checkpointer {
            let _ = connection.close().await;
        }
    }

    pub(crate) fn fault(&self, error: sqlx::Error) -> StoreError {
        fault(self.name(), error)
    }

    pub(crate) fn corrupt(&self, detail: String) -> StoreError {
        StoreError::Corrupt { store: self.name(), detail }
    }

    fn name(&self) -> String {
        self.path.display().to_string()
    }
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Database")
            .field("path", &self.path)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

fn connect_options(path: &Path, options: &SqliteOptions) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .busy_timeout(options.busy_timeout)
        // There are none; the check would cost a lookup a row.
        .foreign_keys(false)
        .disable_statement_logging()
}

/// The file that a `sqlite://` address or a plain path names.
pub fn file_of(address: &Path) -> PathBuf {
    let Some(text) = address.to_str() else { return address.to_owned() };
    let path = text.strip_prefix("sqlite://").or_else(|| text.strip_prefix("sqlite:"));
    PathBuf::from(path.unwrap_or(text))
}
