//! Keeping the write-ahead log short without holding up commits.
//!
//! The log is copied into the file by a second thread, in passing, and then once more by the
//! thread that writes, between two jobs: in between there were commits, but few, and only when all
//! is copied can the next commit begin the log from its start. It writes over old bytes then,
//! which was measured 1.2 to 1.4 times faster than a log that grows. The second thread is never
//! interrupted by more of the same: the next copy is asked for when it is done.
//!
//! A commit begins the log anew only if it meets no reader in it. Readers that overlap all the
//! time prevent that, so a log above [`LONG_BYTES`] is restarted by force: while this thread holds
//! the right to write and all is copied, new readers need the log no more, and it waits for the
//! few that were there before. The first commit afterwards cuts the file down.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use rusqlite::Connection;

use super::{
    options::SqliteOptions,
    threads::{State, Threads},
    writer,
};

/// As much that is not copied yet is copied.
const COPY_BYTES: u64 = 4 << 20;

/// A longer log is restarted by force, and its file cut down.
pub(super) const LONG_BYTES: u64 = 64 << 20;

/// As much more, before a restart that a reader prevented is tried again.
const RETRY_BYTES: u64 = 16 << 20;

/// How long commits wait for the readers in a log that is too long.
const RESTART_WAIT: Duration = Duration::from_secs(1);

/// What a checkpoint of the write-ahead log did, in pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WalCheckpoint {
    /// Pages in the write-ahead log.
    pub wal_pages: u64,
    /// How many of them are in the database file now. When it is all of them, the next commit
    /// begins the write-ahead log from its start.
    pub copied_pages: u64,
}

/// What the thread that writes knows of the log's upkeep.
#[derive(Debug)]
pub(super) struct Upkeep {
    path: PathBuf,
    options: SqliteOptions,
    page_bytes: u64,
    helper: Option<Threads<Helper>>,
    /// Set while the helper copies; `None` when there is nothing of it to be completed.
    copying: Option<Arc<AtomicBool>>,
    /// Pages of the log at which it is restarted by force; more after a reader prevented it.
    restart_at: u64,
}

impl Upkeep {
    pub(super) fn new(path: PathBuf, options: SqliteOptions) -> Self {
        Self { path, options, page_bytes: 0, helper: None, copying: None, restart_at: 0 }
    }

    /// Between two jobs.
    pub(super) fn after(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        if self.page_bytes == 0 {
            self.page_bytes = connection
                .query_row("pragma page_size", (), |row| row.get(0))
                .map(|bytes: i64| bytes.max(512).cast_unsigned())?;
            self.restart_at = LONG_BYTES / self.page_bytes;
        }
        if self.copying.as_ref().is_some_and(|copying| copying.load(Ordering::Acquire)) {
            return Ok(());
        }
        // Looks, and copies nothing.
        let (_, log) = checkpoint(connection, "noop")?;
        if log.wal_pages < LONG_BYTES / self.page_bytes {
            self.restart_at = LONG_BYTES / self.page_bytes;
        }
        if log.wal_pages >= self.restart_at {
            self.copying = None;
            return self.restart(connection);
        }
        if self.copying.take().is_some() {
            checkpoint(connection, "passive")?;
        } else if log.wal_pages - log.copied_pages >= COPY_BYTES / self.page_bytes {
            self.help();
        }
        Ok(())
    }

    /// Sets the helper to work.
    fn help(&mut self) {
        if self.helper.is_none() {
            let helper =
                Helper { path: self.path.clone(), options: self.options.clone(), open: None };
            match Threads::start("smith-sqlite-wal", [helper]) {
                Ok(started) => self.helper = Some(started),
                // No thread to be had: this one does it all.
                Err(_) => {
                    self.copying = Some(Arc::default());
                    return;
                }
            }
        }
        let copying = Arc::new(AtomicBool::new(true));
        let done = Done(Arc::clone(&copying));
        let job = move |helper: &mut Helper| {
            let _done = done;
            helper.copy();
        };
        if let Some(helper) = &self.helper {
            // Nobody waits for it: the flag says when it is done.
            drop(helper.run(job));
        }
        self.copying = Some(copying);
    }

    fn restart(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        connection.busy_timeout(RESTART_WAIT)?;
        let restarted = checkpoint(connection, "restart");
        connection.busy_timeout(self.options.busy_timeout)?;
        let (busy, log) = restarted?;
        if busy {
            self.restart_at = log.wal_pages + RETRY_BYTES / self.page_bytes;
            tracing::warn!(
                file = %self.path.display(),
                bytes = log.wal_pages * self.page_bytes,
                "a reader keeps the write-ahead log from being restarted; it grows"
            );
        }
        Ok(())
    }
}

impl Drop for Upkeep {
    fn drop(&mut self) {
        if let Some(helper) = &self.helper {
            helper.end();
        }
    }
}

/// However the helper ends, it is done.
struct Done(Arc<AtomicBool>);

impl Drop for Done {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

#[derive(Debug)]
struct Helper {
    path: PathBuf,
    options: SqliteOptions,
    open: Option<Connection>,
}

impl Helper {
    fn copy(&mut self) {
        let copied =
            match self.open.take().map_or_else(|| writer::open(&self.path, &self.options), Ok) {
                Ok(connection) => {
                    checkpoint(&connection, "passive").map(|_| self.open = Some(connection))
                }
                Err(error) => Err(error),
            };
        if let Err(error) = copied {
            let file = self.path.display();
            tracing::warn!(%error, %file, "the write-ahead log was not copied; it grows");
        }
    }
}

impl State for Helper {
    fn reset(&mut self) {
        self.open = None;
    }
}

/// Runs a checkpoint; answers whether another one or a reader was in its way, and what is copied.
pub(super) fn checkpoint(
    connection: &Connection,
    mode: &str,
) -> rusqlite::Result<(bool, WalCheckpoint)> {
    let mut statement = connection.prepare_cached(&format!("pragma wal_checkpoint({mode})"))?;
    statement.query_row((), |row| {
        // SQLite says -1 when there is no write-ahead log yet.
        let pages = |column| row.get::<_, i64>(column).map(|pages| pages.max(0).cast_unsigned());
        let done = WalCheckpoint { wal_pages: pages(1)?, copied_pages: pages(2)? };
        Ok((row.get::<_, i64>(0)? != 0, done))
    })
}
