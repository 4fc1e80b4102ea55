//! How a SQLite file is opened.

use std::time::Duration;

use super::steady::SteadyClock;

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
    /// What "written" means; default: [`Durability::Full`].
    pub durability: Durability,
    /// Connections that read, at least 1; default: 4.
    pub readers: u32,
    /// How long to wait for the lock of another process; default: 5 s.
    pub busy_timeout: Duration,
    /// How long a read waits for a connection before it is refused as
    /// [`Exhausted`](crate::store::StoreError::Exhausted); default: 30 s.
    pub acquire_timeout: Duration,
    /// How long an idempotency key is known, by the times of the log's events and the machine's
    /// clock, whichever is behind; default: 7 days. A clock that is set wrong while these options, or
    /// a clone of them, are in use makes it longer, and not shorter.
    pub keys_for: Duration,
    /// The most idempotency keys that are known at a time, the newest ones; default: 4,000,000.
    /// They are kept in memory, at about 22 bytes each.
    pub max_keys: usize,
    /// By which keys grow old.
    pub(super) clock: SteadyClock,
}

impl Default for SqliteOptions {
    fn default() -> Self {
        Self {
            durability: Durability::Full,
            readers: 4,
            busy_timeout: Duration::from_secs(5),
            acquire_timeout: Duration::from_secs(30),
            keys_for: Duration::from_secs(7 * 24 * 60 * 60),
            max_keys: 4_000_000,
            clock: SteadyClock::new(),
        }
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

    /// Sets how long a read waits for a connection.
    #[must_use]
    pub const fn acquire_timeout(mut self, timeout: Duration) -> Self {
        self.acquire_timeout = timeout;
        self
    }

    /// Sets how long an idempotency key is known.
    #[must_use]
    pub const fn keys_for(mut self, time: Duration) -> Self {
        self.keys_for = time;
        self
    }

    /// Sets how many idempotency keys are known at most.
    #[must_use]
    pub const fn max_keys(mut self, count: usize) -> Self {
        self.max_keys = count;
        self
    }
}
