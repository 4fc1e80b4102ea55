//! How the database is reached.

use std::{fmt, str::FromStr, time::Duration};

use sqlx::{
    ConnectOptions as _, PgPool,
    postgres::{PgConnectOptions, PgConnection, PgPoolOptions},
};

use super::fault::fault;
use crate::{event::Position, store::StoreError};

/// How a node hears that another one has appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Wake {
    /// By `LISTEN` and `NOTIFY`, with a look once a second behind it.
    #[default]
    Notify,
    /// By a look once a second only: for connections through a pooler that gives each transaction
    /// another session, where `LISTEN` hears nothing.
    Poll,
}

/// How to open a PostgreSQL database.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct PgOptions {
    /// Connections for reading and for read models, at least 2; 8 unless said otherwise. The
    /// writer and the listener have one each besides.
    pub connections: u32,
    /// How long to wait for a free one of them; 5 s unless said otherwise.
    pub acquire_timeout: Duration,
    /// How long an append tries to reach a database that has gone, before it fails; 10 s unless
    /// said otherwise.
    pub reconnect_for: Duration,
    /// How other nodes' appends are heard of.
    pub wake: Wake,
}

impl Default for PgOptions {
    fn default() -> Self {
        Self {
            connections: 8,
            acquire_timeout: Duration::from_secs(5),
            reconnect_for: Duration::from_secs(10),
            wake: Wake::Notify,
        }
    }
}

impl PgOptions {
    /// Sets how many connections read.
    #[must_use]
    pub const fn connections(mut self, connections: u32) -> Self {
        self.connections = connections;
        self
    }

    /// Sets how long to wait for a free connection.
    #[must_use]
    pub const fn acquire_timeout(mut self, timeout: Duration) -> Self {
        self.acquire_timeout = timeout;
        self
    }

    /// Sets how long an append tries to reach a database that has gone.
    #[must_use]
    pub const fn reconnect_for(mut self, time: Duration) -> Self {
        self.reconnect_for = time;
        self
    }

    /// Sets how other nodes' appends are heard of.
    #[must_use]
    pub const fn wake(mut self, wake: Wake) -> Self {
        self.wake = wake;
        self
    }
}

/// One database and the connections to it that are shared.
pub struct PgDatabase {
    /// Its address without the password.
    name: String,
    connect: PgConnectOptions,
    pub(super) options: PgOptions,
    pool: PgPool,
}

impl PgDatabase {
    /// A database by its `postgres://` address. Nothing is connected yet.
    ///
    /// # Errors
    ///
    /// The address is none.
    pub fn open(url: &str, options: PgOptions) -> Result<Self, StoreError> {
        let connect = PgConnectOptions::from_str(url).map_err(|error| StoreError::Unavailable {
            store: "postgres://…".to_owned(),
            cure: "the address is not one of PostgreSQL; give \
                   postgres://USER:PASSWORD@HOST:PORT/DATABASE"
                .to_owned(),
            source: Box::new(error),
        })?;
        let connect = connect
            .application_name("smith")
            .options([
                ("search_path", "ms_framework,ms_projections,public"),
                // Each statement has to see what was committed while it waited for the lock.
                ("default_transaction_isolation", "read committed"),
            ])
            .disable_statement_logging();
        let pool = PgPoolOptions::new()
            .max_connections(options.connections.max(2))
            .acquire_timeout(options.acquire_timeout)
            .idle_timeout(None)
            .max_lifetime(None)
            // A round trip for each use; a connection that is gone tells by its first statement.
            .test_before_acquire(false)
            // What is written here, read models and snapshots, need not be on the disk before it is
            // answered: what a crash takes, its checkpoint goes back with, and the log gives it
            // again. The log's writer has a connection of its own.
            .connect_lazy_with(connect.clone().options([("synchronous_commit", "off")]));
        Ok(Self { name: name_of(&connect), connect, options, pool })
    }

    /// Its address without the password.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The shared connections.
    pub(crate) fn pool(&self) -> Result<&PgPool, StoreError> {
        if self.pool.is_closed() {
            return Err(StoreError::Closed { store: self.name.clone() });
        }
        Ok(&self.pool)
    }

    /// The connection that appends.
    pub(super) async fn connect_writer(&self) -> Result<PgConnection, StoreError> {
        self.pool()?;
        // Its few statements are planned once, and as for tables of millions of rows: a plan that
        // was made while a table was small would read all of it for each append later.
        let connect = self.connect.clone().options([
            ("plan_cache_mode", "force_generic_plan"),
            ("enable_seqscan", "off"),
            ("enable_hashjoin", "off"),
            ("enable_mergejoin", "off"),
            ("jit", "off"),
        ]);
        connect.connect().await.map_err(|error| self.fault(error))
    }

    /// A pool of one connection, for a listener: it cannot share.
    pub(super) fn lone_pool(&self) -> PgPool {
        PgPoolOptions::new()
            .max_connections(1)
            .acquire_timeout(self.options.acquire_timeout)
            .idle_timeout(None)
            .max_lifetime(None)
            .connect_lazy_with(self.connect.clone())
    }

    /// Refuses everything from now on, at once: whoever still holds this database gets
    /// [`StoreError::Closed`] and has to ask for the one that took its place. What is under way
    /// may finish.
    pub fn mark_closed(&self) {
        // sqlx marks the pool closed before the first poll; what the future would add is waiting.
        drop(self.pool.close());
    }

    /// Waits until it is closed.
    pub(crate) async fn closed(&self) {
        self.pool.close_event().await;
    }

    /// Shared connections in use, and how many there may be.
    pub fn usage(&self) -> (u32, u32) {
        let idle = u32::try_from(self.pool.num_idle()).unwrap_or(u32::MAX);
        (self.pool.size().saturating_sub(idle), self.options.connections.max(2))
    }

    pub(super) async fn close(&self) {
        self.pool.close().await;
    }

    pub(crate) fn fault(&self, error: sqlx::Error) -> StoreError {
        // The pool waits for a server that refuses connections, and then says the same as if all
        // of them were in use.
        if matches!(error, sqlx::Error::PoolTimedOut)
            && self.pool.size() < self.options.connections.max(2)
        {
            return StoreError::Lost { store: self.name.clone(), source: Box::new(error) };
        }
        fault(self.name.clone(), error)
    }

    pub(super) fn archived(&self, up_to: Position) -> StoreError {
        StoreError::Archived { store: self.name.clone(), up_to }
    }

    pub(crate) fn corrupt(&self, detail: String) -> StoreError {
        StoreError::Corrupt { store: self.name.clone(), detail }
    }
}

/// The address, without the password, for errors and logs.
fn name_of(connect: &PgConnectOptions) -> String {
    let database = connect.get_database().unwrap_or(connect.get_username());
    match connect.get_socket() {
        Some(socket) => format!("postgres:///{database}?host={}", socket.display()),
        None => format!("postgres://{}:{}/{database}", connect.get_host(), connect.get_port()),
    }
}

impl fmt::Debug for PgDatabase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PgDatabase")
            .field("name", &self.name)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}
