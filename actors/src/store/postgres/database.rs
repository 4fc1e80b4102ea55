//! How the database is reached.
//!
//! | connections | settings of their sessions |
//! |---|---|
//! | shared | asynchronous commits, a limit for statements |
//! | the writer | synchronous commits, plans that are made once; ended by the server if it holds a transaction and says nothing |
//! | health | one, apart from the shared ones: whether the server answers does not depend on whether those are in use |
//!
//! Settings are made with `set` after connecting and not with the start of the session: poolers
//! refuse or lose what comes there. One that gives each transaction another session (PgBouncer's
//! `pool_mode = transaction`) loses these, too, and prepared statements, and listens for nobody: it
//! is refused, as soon as a connection is seen to change the process of the server behind it.

use std::{fmt, time::Duration};

use sqlx::{
    AssertSqlSafe, ConnectOptions as _, PgPool, Row as _,
    postgres::{PgConnectOptions, PgConnection, PgPoolOptions},
};
use tokio::{sync::Mutex, time::timeout};

use super::{
    fault::{fault, pooled},
    options::{PgOptions, read_address},
};
use crate::{event::Position, store::StoreError};

/// The name of our sessions. The versions that update the rows of streams with each append call
/// theirs `smith`, and are told by it.
const APPLICATION: &str = "mister-smith";

/// How long the writer may hold a transaction and say nothing. It holds the lock of appending
/// then, and the others wait.
const WRITER_SILENT: Duration = Duration::from_secs(5);

/// The same of shared connections: they hold rows at most.
const SHARED_SILENT: Duration = Duration::from_secs(30);

/// One database and the connections to it that are shared.
pub struct PgDatabase {
    /// Its address without the password.
    name: String,
    connect: PgConnectOptions,
    pub(super) options: PgOptions,
    pool: PgPool,
    /// The connection that answers whether the server does.
    health: Mutex<Option<(PgConnection, i32)>>,
}

impl PgDatabase {
    /// A database by its `postgres://` address. Nothing is connected yet.
    ///
    /// # Errors
    ///
    /// The address cannot be used.
    pub fn open(url: &str, options: PgOptions) -> Result<Self, StoreError> {
        let (connect, options) = read_address(url, options).map_err(|error| {
            let (store, cure) = ("postgres://…".to_owned(), error.to_string());
            StoreError::Unavailable { store, cure, source: Box::new(error) }
        })?;
        let connect = connect.application_name(APPLICATION).disable_statement_logging();
        // What is written here, read models and snapshots, need not be on the disk before it is
        // answered: what a crash takes, its checkpoint goes back with, and the log gives it again.
        // Claims are not of that kind: they are made durable with their statement.
        let session = session(&options, SHARED_SILENT) + "set synchronous_commit to off;";
        let pool = PgPoolOptions::new()
            .min_connections(options.min_connections.min(options.most()))
            .max_connections(options.most())
            .acquire_timeout(options.acquire_timeout)
            .idle_timeout(options.idle_timeout)
            .max_lifetime(options.max_lifetime)
            // A round trip for each use; a connection that is gone tells by its first statement.
            .test_before_acquire(false)
            .after_connect(move |connection, _| {
                let session = session.clone();
                Box::pin(async move { set(connection, session).await })
            })
            .connect_lazy_with(connect.clone());
        Ok(Self { name: name_of(&connect), connect, options, pool, health: Mutex::default() })
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
        // Its few statements are planned once, and as for tables of millions of rows: a plan that
        // was made while a table was small would read all of it for each append later.
        let session = session(&self.options, WRITER_SILENT)
            + "set plan_cache_mode to force_generic_plan; set enable_seqscan to off; \
               set enable_hashjoin to off; set enable_mergejoin to off; set jit to off; \
               select set_config('synchronous_commit', 'on', false) \
                where current_setting('synchronous_commit') = 'off';";
        self.lone(session).await
    }

    /// A connection of one's own, whose statements and transactions may take as long as they do,
    /// and whose commits are on the disk: for an archiver, which waits for everybody who reads.
    ///
    /// # Errors
    ///
    /// The server cannot be reached.
    ///
    /// # Cancel safety
    ///
    /// Dropping the call closes it.
    pub(crate) async fn connect_patient(&self) -> Result<PgConnection, StoreError> {
        let session = session(&self.options, Duration::ZERO)
            + "set statement_timeout to 0; set lock_timeout to 0; set synchronous_commit to on;";
        self.lone(session).await
    }

    async fn lone(&self, session: String) -> Result<PgConnection, StoreError> {
        self.pool()?;
        let connected = async {
            let mut connection = self.connect.connect().await?;
            set(&mut connection, session).await?;
            process(&mut connection).await?;
            Ok(connection)
        };
        match timeout(self.options.acquire_timeout, connected).await {
            Ok(connected) => connected.map_err(|error| self.fault(error)),
            Err(_) => Err(self.fault(silent("connect"))),
        }
    }

    /// Asks the server for a sign of life, on a connection that nothing else uses.
    ///
    /// # Errors
    ///
    /// It gave none.
    ///
    /// # Cancel safety
    ///
    /// Dropping the call closes that connection; the next one makes another.
    pub async fn ping(&self) -> Result<(), StoreError> {
        let fault = |error| self.fault(error);
        let mut slot = self.health.lock().await;
        if let Some((mut connection, process)) = slot.take() {
            match behind(&mut connection).await {
                Ok(found) if found == process => {
                    *slot = Some((connection, process));
                    return Ok(());
                }
                Ok(_) => return Err(fault(pooled())),
                // Closed by the server a while ago, it may be; a new one tells.
                Err(_) => {}
            }
        }
        let mut connection = self.lone(session(&self.options, SHARED_SILENT)).await?;
        let process = process(&mut connection).await.map_err(fault)?;
        *slot = Some((connection, process));
        Ok(())
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
        (self.pool.size().saturating_sub(idle), self.options.most())
    }

    pub(super) async fn close(&self) {
        drop(self.health.lock().await.take());
        self.pool.close().await;
    }

    pub(crate) fn fault(&self, error: sqlx::Error) -> StoreError {
        // The pool waits for a server that refuses connections, and then says the same as if all
        // of them were in use.
        if matches!(error, sqlx::Error::PoolTimedOut) && self.pool.size() < self.options.most() {
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

/// An answer that does not come.
pub(super) fn silent(what: &str) -> sqlx::Error {
    let text = format!("no answer of the server ({what})");
    sqlx::Error::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, text))
}

/// What every session is set to. A machine that vanishes keeps what it holds no longer than this.
fn session(options: &PgOptions, silent: Duration) -> String {
    format!(
        "set search_path to ms_framework, ms_projections, public; \
         set default_transaction_isolation to 'read committed'; \
         set statement_timeout to {}; \
         set idle_in_transaction_session_timeout to {}; \
         set tcp_keepalives_idle to 10; set tcp_keepalives_interval to 5; \
         set tcp_keepalives_count to 3; set tcp_user_timeout to 25000; ",
        options.statement_timeout.as_millis(),
        silent.as_millis(),
    )
}

async fn set(connection: &mut PgConnection, session: String) -> sqlx::Result<()> {
    sqlx::raw_sql(AssertSqlSafe(session)).execute(connection).await.map(drop)
}

/// The process of the server behind a connection, if it is the same for two statements.
async fn process(connection: &mut PgConnection) -> sqlx::Result<i32> {
    let process = behind(connection).await?;
    match behind(connection).await? == process {
        true => Ok(process),
        false => Err(pooled()),
    }
}

async fn behind(connection: &mut PgConnection) -> sqlx::Result<i32> {
    // Unprepared: it has to be heard whoever is there.
    sqlx::raw_sql("select pg_backend_pid()").fetch_one(connection).await?.try_get(0)
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
