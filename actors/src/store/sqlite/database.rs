//! The file: how its connections are opened, shared and closed.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

use rusqlite::Connection;
use sqlx::{
    ConnectOptions as _, SqlitePool,
    sqlite::{SqliteConnectOptions, SqliteConnection, SqlitePoolOptions, SqliteSynchronous},
};
use tokio::{
    sync::{Mutex, OwnedMutexGuard, Semaphore, oneshot},
    time::timeout,
};
use uuid::Uuid;

use super::statement::saturated;
use super::{
    engine,
    fault::{driver_fault, fault},
    options::{Durability, SqliteOptions},
    reader::{Failure, Names, Reader},
    threads::Threads,
    wal::{LONG_BYTES, WalCheckpoint},
    writer::Writer,
};
use crate::{event::Position, store::StoreError};

/// Pages after which a connection that is not the log's writer copies the write-ahead log itself.
/// For the log that is late: its own upkeep comes first, if there are appends at all.
const COPY_AFTER_PAGES: u32 = 4_096;

/// For read models, that have no other upkeep: SQLite's own default.
const COPY_READ_MODELS_AFTER_PAGES: u32 = 1_000;

/// The tables of read models.
const MADE_FROM_THE_LOG: [&str; 6] =
    ["documents", "parked", "checkpoints", "projection_notes", "projection_builds", "log"];

/// One SQLite file and the connections to it that are shared.
pub struct Database {
    path: PathBuf,
    options: SqliteOptions,
    copy_after: u32,
    /// For those who speak sqlx. It opens a connection when one is asked for.
    pool: SqlitePool,
    /// SQLite lets one connection write at a time and the others poll with growing sleeps. The
    /// writers of one process wait here instead, in order, and are woken at once.
    turn: Arc<Mutex<()>>,
    writer: OnceLock<Threads<Writer>>,
    readers: OnceLock<Threads<Reader>>,
    /// Readers that are free.
    free: Arc<Semaphore>,
    /// Answers whether the file can be read at all, however busy the readers are.
    reserve: OnceLock<Threads<Reader>>,
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
        let database = Self::new(file_of(path.as_ref()), options, COPY_AFTER_PAGES)?;
        database.on_writer(|writer| writer.open().map(drop)).await?;
        Ok(database)
    }

    /// The file of the read models beside the log at a path or an address; see
    /// [`read_models_of`]. It is opened by the first who uses it.
    ///
    /// # Errors
    ///
    /// The linked SQLite is older than 3.51.3.
    pub fn read_models(log: impl AsRef<Path>, options: SqliteOptions) -> Result<Self, StoreError> {
        Self::new(read_models_of(log.as_ref()), options, COPY_READ_MODELS_AFTER_PAGES)
    }

    /// Makes sure that what is in this file of read models was made from the log `store_id` and
    /// from no more than is in it up to `head`: after a copy, or a backup that was put back, all of
    /// it goes and is made again. Answers whether that was so.
    ///
    /// `head` is asked once it is known how far the read models are, so that a node that goes on
    /// meanwhile cannot make it look too short.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or not written.
    ///
    /// # Cancel safety
    ///
    /// A dropped call removes all or nothing.
    pub async fn belong_to(
        &self,
        store_id: Uuid,
        head: impl Future<Output = Result<Position, StoreError>>,
    ) -> Result<bool, StoreError> {
        let look = |connection: &Connection| {
            let log = "select (select store_uuid from log), \
                       (select coalesce(max(position), 0) from checkpoints)";
            connection.query_row(log, (), |row| Ok((row.get(0)?, row.get(1)?)))
        };
        let (of, reached): (Option<Vec<u8>>, i64) = self.read(look).await?;
        let short = saturated(head.await?.get()) < reached;
        if of.as_deref() == Some(store_id.as_bytes()) && !short {
            return Ok(true);
        }
        self.write(move |connection| {
            for table in MADE_FROM_THE_LOG {
                connection.execute(&format!("delete from {table}"), ())?;
            }
            connection
                .execute("insert into log (id, store_uuid) values (1, ?)", [store_id.as_bytes()])
        })
        .await?;
        Ok(of.is_none())
    }

    fn new(path: PathBuf, options: SqliteOptions, copy_after: u32) -> Result<Self, StoreError> {
        engine::check(&path.display().to_string())?;
        let pool = SqlitePoolOptions::new()
            .max_connections(options.readers.max(1))
            .acquire_timeout(options.acquire_timeout)
            // They live as long as the database: a file handle does not wear out.
            .idle_timeout(None)
            .max_lifetime(None)
            .test_before_acquire(false)
            .connect_lazy_with(connect_options(&path, &options).read_only(true));
        let free = Arc::new(Semaphore::new(options.readers.max(1) as usize));
        Ok(Self {
            path,
            options,
            copy_after,
            pool,
            turn: Arc::new(Mutex::new(())),
            writer: OnceLock::new(),
            readers: OnceLock::new(),
            free,
            reserve: OnceLock::new(),
        })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Runs `work` in a transaction of its own on the thread that writes, in turn with the log's
    /// appends. An error rolls it back.
    ///
    /// The answer does not wait for the disk, but for the operating system: on power loss what was
    /// written last may be missing, and never something in between. The next append takes it
    /// along.
    ///
    /// # Errors
    ///
    /// What `work` said, or SQLite.
    ///
    /// # Cancel safety
    ///
    /// A dropped call does the whole work or nothing.
    pub async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.transact(Durability::Normal, work).await
    }

    /// [`write`](Self::write) that is as durable as an append when it is answered.
    ///
    /// # Errors
    ///
    /// What `work` said, or SQLite.
    ///
    /// # Cancel safety
    ///
    /// A dropped call does the whole work or nothing.
    pub(crate) async fn write_durably<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.transact(self.options.durability, work).await
    }

    async fn transact<T: Send + 'static>(
        &self,
        durability: Durability,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let work = |connection: &Connection, _: &mut _| work(connection).map(Some);
        let done = self.on_writer(move |writer| writer.transact(durability, work)).await?;
        Ok(done.expect("it committed, so there is a value"))
    }

    /// Runs `work` on one of the threads that read.
    ///
    /// # Errors
    ///
    /// What `work` said, or SQLite, or all of them stay busy for the time that
    /// [`SqliteOptions::acquire_timeout`] allows.
    ///
    /// # Cancel safety
    ///
    /// Dropping the call loses nothing; the thread is free again when the work is done.
    pub async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.look(|connection, _| Ok(work(connection)?)).await
    }

    /// [`read`](Self::read) with the names that the thread remembers.
    pub(super) async fn look<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection, &mut Names) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.is_open()?;
        let free = Arc::clone(&self.free).acquire_owned();
        let permit = timeout(self.options.acquire_timeout, free).await.map_err(|elapsed| {
            StoreError::Exhausted { store: self.name(), source: Box::new(elapsed) }
        })?;
        let threads = self.threads(&self.readers, "smith-sqlite-read", self.options.readers)?;
        let answer = threads.run(move |reader| {
            let _permit = permit;
            reader.look(work)
        });
        self.answer(answer).await
    }

    /// Whether the file can be read, on a connection that is kept for this question.
    ///
    /// # Errors
    ///
    /// It cannot.
    ///
    /// # Cancel safety
    ///
    /// Dropping the call loses nothing.
    pub async fn ping(&self) -> Result<(), StoreError> {
        self.is_open()?;
        let threads = self.threads(&self.reserve, "smith-sqlite-look", 1)?;
        let look = |connection: &Connection, _: &mut Names| {
            Ok(connection.query_row("select 1 from sqlite_schema limit 1", (), |_| Ok(()))?)
        };
        self.answer(threads.run(move |reader| reader.look(look))).await
    }

    fn threads<'a>(
        &self,
        threads: &'a OnceLock<Threads<Reader>>,
        name: &str,
        count: u32,
    ) -> Result<&'a Threads<Reader>, StoreError> {
        let reader = |_| Reader::new(self.path.clone(), self.options.clone());
        self.started(threads, || Threads::start(name, (0..count.max(1)).map(reader)))
    }

    fn started<'a, S>(
        &self,
        threads: &'a OnceLock<Threads<S>>,
        start: impl FnOnce() -> io::Result<Threads<S>>,
    ) -> Result<&'a Threads<S>, StoreError> {
        if threads.get().is_none() {
            let started = start().map_err(|source| StoreError::Backend {
                store: self.name(),
                source: Box::new(source),
            })?;
            // Of two that come at once the second is dropped, and its threads end.
            let _ = threads.set(started);
        }
        Ok(threads.get().expect("it was set above"))
    }

    /// Runs `work` on the thread that writes, when no other writer of this process writes.
    pub(super) async fn on_writer<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Writer) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let turn = self.turn().await;
        self.is_open()?;
        let writer = || Writer::new(self.path.clone(), self.options.clone());
        let threads =
            self.started(&self.writer, || Threads::start("smith-sqlite-write", [writer()]))?;
        // The turn goes along: it is over when the work is done, whoever still waits for it.
        let answer = threads.run(move |writer| {
            let _turn = turn;
            work(writer)
        });
        self.answer(answer).await
    }

    async fn answer<T, E: Into<Failure>>(
        &self,
        answer: Option<oneshot::Receiver<Result<T, E>>>,
    ) -> Result<T, StoreError> {
        let Some(answer) = answer else { return Err(StoreError::Closed { store: self.name() }) };
        match answer.await {
            Ok(done) => done.map_err(|error| fault(self.name(), error)),
            Err(panicked) => {
                Err(StoreError::Lost { store: self.name(), source: Box::new(panicked) })
            }
        }
    }

    fn is_open(&self) -> Result<(), StoreError> {
        match self.pool.is_closed() {
            true => Err(StoreError::Closed { store: self.name() }),
            false => Ok(()),
        }
    }

    /// Read-only connections for those who speak sqlx.
    pub(crate) fn readers(&self) -> Result<&SqlitePool, StoreError> {
        self.is_open()?;
        Ok(&self.pool)
    }

    /// A connection for a writer that speaks sqlx. It has to hold the [`turn`](Self::turn) while
    /// it writes.
    ///
    /// It does not sync: what power loss takes from a read model, its checkpoint goes back with,
    /// and the log gives it again.
    pub(crate) async fn open_read_model_writer(&self) -> Result<SqliteConnection, StoreError> {
        self.is_open()?;
        connect_options(&self.path, &self.options)
            .synchronous(SqliteSynchronous::Normal)
            .pragma("wal_autocheckpoint", self.copy_after.to_string())
            .pragma("journal_size_limit", LONG_BYTES.to_string())
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
        self.on_writer(Writer::copy).await
    }

    /// Refuses everything from now on, at once: whoever still holds this database gets
    /// [`StoreError::Closed`] and has to ask for the one that took its place. What is under way
    /// may finish.
    pub fn mark_closed(&self) {
        // sqlx marks the pool closed before the first poll; what the future would add is waiting.
        drop(self.pool.close());
        // The threads end when their queues are empty.
        self.readers.get().map(Threads::stop);
        self.reserve.get().map(Threads::stop);
        self.writer.get().map(Threads::stop);
    }

    /// Waits until it is closed.
    pub(crate) async fn closed(&self) {
        self.pool.close_event().await;
    }

    /// Shared connections in use, and how many there may be.
    pub fn usage(&self) -> (u32, u32) {
        let most = self.options.readers.max(1);
        let free = u32::try_from(self.free.available_permits()).unwrap_or(u32::MAX);
        let idle = u32::try_from(self.pool.num_idle()).unwrap_or(u32::MAX);
        (most.saturating_sub(free).max(self.pool.size().saturating_sub(idle)), most)
    }

    /// Closes all connections, after what is under way.
    pub(crate) async fn close(&self) {
        self.mark_closed();
        for readers in [&self.readers, &self.reserve] {
            if let Some(threads) = readers.get() {
                threads.ended().await;
            }
        }
        self.pool.close().await;
        // The last one to go copies the write-ahead log into the file.
        if let Some(threads) = self.writer.get() {
            threads.ended().await;
        }
    }

    pub(crate) fn fault(&self, error: sqlx::Error) -> StoreError {
        driver_fault(self.name(), error)
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

/// The file of the read models beside the log that a `sqlite://` address or a plain path names:
/// `smith.read.db` beside `smith.db`. All of it follows from the log: it can be deleted while no
/// node runs, and is made again.
pub fn read_models_of(address: &Path) -> PathBuf {
    let log = file_of(address);
    let extension = log.extension().map(|extension| extension.to_os_string());
    let mut read = std::ffi::OsString::from("read");
    if let Some(extension) = extension {
        read.push(".");
        read.push(extension);
    }
    log.with_extension(read)
}
