//! The two databases, as far as migrations see them: one connection, opened for them and closed
//! after them, whatever came out. A lock that is left behind would stop the next attempt.

use std::path::{Path, PathBuf};

use mister_smith_actors::event::Timestamp;
#[cfg(feature = "postgres")]
use mister_smith_actors::store::postgres::options::{PgOptions, read_address};
#[cfg(feature = "sqlite")]
use mister_smith_actors::store::sqlite::{file_of, read_models_of};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, Row as _};

use super::MigrateError;
use super::texts::{Migration, checksum, wants_no_transaction};

/// Where the schema of a node is.
#[derive(Debug, Clone)]
pub(super) enum Target {
    #[cfg(feature = "sqlite")]
    Sqlite(PathBuf),
    /// The file of read models beside a log's.
    #[cfg(feature = "sqlite")]
    SqliteRead(PathBuf),
    #[cfg(feature = "postgres")]
    Postgres(String),
}

impl Target {
    pub(super) fn of(url: &Path) -> Result<Self, MigrateError> {
        let text = url.to_str().unwrap_or_default();
        // The pool knows which schemes there are, and what to say about others.
        mister_smith_actors::pool::connector(text)?;
        match text.split_once("://").map(|(scheme, _)| scheme) {
            #[cfg(feature = "postgres")]
            Some("postgres" | "postgresql") => Ok(Self::Postgres(text.to_owned())),
            #[cfg(feature = "sqlite")]
            _ => Ok(Self::Sqlite(file_of(url))),
            #[cfg(not(feature = "sqlite"))]
            _ => unreachable!("the pool has refused it"),
        }
    }

    /// Where its read models are, if not in it.
    pub(super) fn read_models(&self) -> Option<Self> {
        match self {
            #[cfg(feature = "sqlite")]
            Self::Sqlite(path) => Some(Self::SqliteRead(read_models_of(path))),
            _ => None,
        }
    }

    /// The folder of its migrations.
    pub(super) const fn kind(&self) -> &'static str {
        match self {
            #[cfg(feature = "sqlite")]
            Self::Sqlite(_) => "sqlite",
            #[cfg(feature = "sqlite")]
            Self::SqliteRead(_) => "sqlite_read",
            #[cfg(feature = "postgres")]
            Self::Postgres(_) => "postgres",
        }
    }

    /// Its migrations.
    pub(super) const fn migrations(&self) -> &'static [Migration] {
        match self {
            #[cfg(feature = "sqlite")]
            Self::Sqlite(_) => super::texts::SQLITE,
            #[cfg(feature = "sqlite")]
            Self::SqliteRead(_) => super::texts::SQLITE_READ,
            #[cfg(feature = "postgres")]
            Self::Postgres(_) => super::texts::POSTGRES,
        }
    }

    /// Its name in errors and reports, without a password.
    pub(super) fn name(&self) -> String {
        match self {
            #[cfg(feature = "sqlite")]
            Self::Sqlite(path) | Self::SqliteRead(path) => path.display().to_string(),
            #[cfg(feature = "postgres")]
            Self::Postgres(url) => without_password(url),
        }
    }

    /// Whether it is there at all; a server is taken to be.
    pub(super) fn exists(&self) -> bool {
        match self {
            #[cfg(feature = "sqlite")]
            Self::Sqlite(path) | Self::SqliteRead(path) => path.exists(),
            #[cfg(feature = "postgres")]
            Self::Postgres(_) => true,
        }
    }

    /// Opens it to be changed; makes a file, and the directories above it, if there are none.
    pub(super) async fn open(&self) -> Result<Database, MigrateError> {
        match self {
            #[cfg(feature = "sqlite")]
            Self::Sqlite(path) | Self::SqliteRead(path) => {
                if let Some(directory) = path.parent().filter(|one| !one.as_os_str().is_empty()) {
                    std::fs::create_dir_all(directory).map_err(|source| MigrateError::Open {
                        store: self.name(),
                        cure: SQLITE_CURE,
                        source: source.into(),
                    })?;
                }
                let options = sqlx::sqlite::SqliteConnectOptions::new()
                    .filename(path)
                    .create_if_missing(true)
                    .foreign_keys(false)
                    .journal_mode(sqlx::sqlite::SqliteJournalMode::Wal);
                let connection = options.connect().await.map_err(|error| self.fault(error))?;
                Ok(Database::Sqlite(connection))
            }
            #[cfg(feature = "postgres")]
            Self::Postgres(_) => self.look().await,
        }
    }

    /// Opens it to be looked at.
    pub(super) async fn look(&self) -> Result<Database, MigrateError> {
        match self {
            #[cfg(feature = "sqlite")]
            Self::Sqlite(path) | Self::SqliteRead(path) => {
                let options =
                    sqlx::sqlite::SqliteConnectOptions::new().filename(path).read_only(true);
                let connection = options.connect().await.map_err(|error| self.fault(error))?;
                Ok(Database::Sqlite(connection))
            }
            #[cfg(feature = "postgres")]
            Self::Postgres(url) => {
                let (options, _) = read_address(url, PgOptions::default())
                    .map_err(|error| self.fault(sqlx::Error::Configuration(Box::new(error))))?;
                let options = options.application_name("smith migrate").disable_statement_logging();
                let connection = options.connect().await.map_err(|error| self.fault(error))?;
                Ok(Database::Postgres(connection))
            }
        }
    }

    /// What an error outside a migration means.
    pub(super) fn fault(&self, error: sqlx::Error) -> MigrateError {
        let code = error.as_database_error().and_then(|error| error.code());
        let code = code.map(|code| code.into_owned()).unwrap_or_default();
        let store = self.name();
        match self {
            #[cfg(feature = "sqlite")]
            Self::Sqlite(_) | Self::SqliteRead(_) => match code
                .parse::<u32>()
                .map(|code| code & 0xff)
            {
                Ok(26) => MigrateError::NotADatabase { store },
                // Read-only, or cannot be opened (https://www.sqlite.org/rescode.html).
                Ok(8 | 14) => MigrateError::Open { store, cure: SQLITE_CURE, source: error.into() },
                _ => MigrateError::Database { store, source: error },
            },
            #[cfg(feature = "postgres")]
            Self::Postgres(_) => match &*code {
                "55P03" => MigrateError::Locked { store },
                "" if !matches!(error, sqlx::Error::Database(_)) => {
                    let cure = "start the server, or give another address";
                    MigrateError::Open { store, cure, source: error.into() }
                }
                "3D000" | "28P01" | "28000" => {
                    let cure = "make the database and the user, or give another address";
                    MigrateError::Open { store, cure, source: error.into() }
                }
                _ => MigrateError::Database { store, source: error },
            },
        }
    }
}

#[cfg(feature = "sqlite")]
const SQLITE_CURE: &str =
    "make its directory exist and writable for this user, or give another path";

#[cfg(feature = "postgres")]
fn without_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return "postgres://…".to_owned() };
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let path = path.split_once("password=").map_or(path, |(before, _)| before);
    format!("{scheme}://{host}{}", path.trim_end_matches(['?', '&']))
}

/// The lock of migrating, on PostgreSQL.
#[cfg(feature = "postgres")]
const LOCK: i64 = 7_033_157_213;

/// An open connection.
pub(super) enum Database {
    #[cfg(feature = "sqlite")]
    Sqlite(sqlx::sqlite::SqliteConnection),
    #[cfg(feature = "postgres")]
    Postgres(sqlx::postgres::PgConnection),
}

/// A row of `schema_migrations`.
#[derive(Debug, Clone)]
pub(super) struct Applied {
    pub(super) version: u32,
    pub(super) name: String,
    pub(super) checksum: Vec<u8>,
    pub(super) down: String,
    pub(super) at: Timestamp,
    pub(super) took_ms: u64,
}

macro_rules! execute {
    ($self:expr, $text:expr) => {{
        let text = $text;
        match $self {
            #[cfg(feature = "sqlite")]
            Database::Sqlite(connection) => {
                sqlx::raw_sql(text).execute(connection).await.map(|_| ())
            }
            #[cfg(feature = "postgres")]
            Database::Postgres(connection) => {
                sqlx::raw_sql(text).execute(connection).await.map(|_| ())
            }
        }
    }};
}

impl Database {
    /// Keeps other processes from migrating until the connection is closed. On SQLite each
    /// transaction does that by itself.
    pub(super) async fn lock(&mut self) -> sqlx::Result<()> {
        match self {
            #[cfg(feature = "sqlite")]
            Self::Sqlite(_) => Ok(()),
            #[cfg(feature = "postgres")]
            Self::Postgres(connection) => {
                sqlx::raw_sql("set lock_timeout = '30s'").execute(&mut *connection).await?;
                sqlx::query("select pg_advisory_lock($1)")
                    .bind(LOCK)
                    .execute(connection)
                    .await
                    .map(drop)
            }
        }
    }

    /// Begins a transaction that writes. The lock first, then the look: another process may be
    /// migrating the same database.
    pub(super) async fn begin(&mut self) -> sqlx::Result<()> {
        match self {
            #[cfg(feature = "sqlite")]
            Self::Sqlite(connection) => {
                sqlx::raw_sql("begin immediate").execute(connection).await.map(drop)
            }
            #[cfg(feature = "postgres")]
            Self::Postgres(connection) => {
                sqlx::raw_sql("begin").execute(connection).await.map(drop)
            }
        }
    }

    pub(super) async fn commit(&mut self) -> sqlx::Result<()> {
        execute!(self, "commit")
    }

    pub(super) async fn rollback(&mut self) -> sqlx::Result<()> {
        execute!(self, "rollback")
    }

    /// Runs a text that changes the schema, inside the transaction unless it asks for none.
    pub(super) async fn run(&mut self, text: &str) -> sqlx::Result<()> {
        let alone = wants_no_transaction(text);
        if alone {
            self.rollback().await?;
        }
        // The text is of a file of this program, or was stored by one.
        execute!(self, AssertSqlSafe(text.to_owned()))?;
        if alone { self.begin().await } else { Ok(()) }
    }

    pub(super) async fn applied(&mut self) -> sqlx::Result<Vec<Applied>> {
        macro_rules! read {
            ($connection:expr, $exists:literal, $table:literal) => {{
                let present: bool =
                    sqlx::query_scalar($exists).fetch_one(&mut *$connection).await?;
                if !present {
                    return Ok(Vec::new());
                }
                let text = concat!(
                    "select version, name, checksum, down, applied_at, took_ms from ",
                    $table,
                    " order by version"
                );
                let rows = sqlx::query(text).fetch_all($connection).await?;
                rows.iter().map(|row| read_row!(row)).collect()
            }};
        }
        macro_rules! read_row {
            ($row:expr) => {
                Ok(Applied {
                    version: u32::try_from($row.try_get::<i64, _>(0)?).unwrap_or(u32::MAX),
                    name: $row.try_get(1)?,
                    checksum: $row.try_get(2)?,
                    down: $row.try_get(3)?,
                    at: Timestamp::from_micros($row.try_get(4)?),
                    took_ms: $row.try_get::<i64, _>(5)?.cast_unsigned(),
                })
            };
        }
        match self {
            #[cfg(feature = "sqlite")]
            Self::Sqlite(connection) => read!(
                connection,
                "select exists (select 1 from sqlite_schema where name = 'schema_migrations')",
                "schema_migrations"
            ),
            #[cfg(feature = "postgres")]
            Self::Postgres(connection) => read!(
                connection,
                "select to_regclass('ms_migrations.schema_migrations') is not null",
                "ms_migrations.schema_migrations"
            ),
        }
    }

    /// Writes the row of a migration that was run.
    pub(super) async fn note(
        &mut self,
        migration: &Migration,
        started: jiff::Timestamp,
    ) -> sqlx::Result<u64> {
        let took = jiff::Timestamp::now().duration_since(started);
        let took = u64::try_from(took.as_millis()).unwrap_or(0);
        macro_rules! insert {
            ($connection:expr, $table:literal, $insert:literal) => {{
                sqlx::raw_sql($table).execute(&mut *$connection).await?;
                sqlx::query($insert)
                    .bind(i64::from(migration.version))
                    .bind(migration.name)
                    .bind(checksum(migration.up))
                    .bind(migration.up)
                    .bind(migration.down)
                    .bind(started.as_microsecond())
                    .bind(took.cast_signed())
                    .execute($connection)
                    .await?;
            }};
        }
        match self {
            #[cfg(feature = "sqlite")]
            Self::Sqlite(connection) => insert!(
                connection,
                "create table if not exists schema_migrations (
                    version    integer primary key,
                    name       text not null,
                    checksum   blob not null,
                    up         text not null,
                    down       text not null,
                    applied_at integer not null, -- microseconds since 1970
                    took_ms    integer not null
                ) strict",
                "insert into schema_migrations values (?, ?, ?, ?, ?, ?, ?)"
            ),
            #[cfg(feature = "postgres")]
            Self::Postgres(connection) => insert!(
                connection,
                "create schema if not exists ms_migrations;
                 create table if not exists ms_migrations.schema_migrations (
                    version    bigint primary key,
                    name       text not null,
                    checksum   bytea not null,
                    up         text not null,
                    down       text not null,
                    applied_at bigint not null, -- microseconds since 1970
                    took_ms    bigint not null
                )",
                "insert into ms_migrations.schema_migrations values ($1, $2, $3, $4, $5, $6, $7)"
            ),
        }
        Ok(took)
    }

    /// Removes the row of a migration that was undone.
    pub(super) async fn forget(&mut self, version: u32) -> sqlx::Result<()> {
        match self {
            #[cfg(feature = "sqlite")]
            Self::Sqlite(connection) => {
                sqlx::query("delete from schema_migrations where version = ?")
                    .bind(i64::from(version))
                    .execute(connection)
                    .await
                    .map(drop)
            }
            #[cfg(feature = "postgres")]
            Self::Postgres(connection) => {
                sqlx::query("delete from ms_migrations.schema_migrations where version = $1")
                    .bind(i64::from(version))
                    .execute(connection)
                    .await
                    .map(drop)
            }
        }
    }

    pub(super) async fn close(self) {
        // Closing is for the lock and the file; an error of it changes nothing.
        match self {
            #[cfg(feature = "sqlite")]
            Self::Sqlite(connection) => drop(connection.close().await),
            #[cfg(feature = "postgres")]
            Self::Postgres(connection) => drop(connection.close().await),
        }
    }
}
