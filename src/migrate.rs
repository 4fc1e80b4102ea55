//! Migrations of the SQLite database: the texts, which of them a file has, and how it gets the rest.
//!
//! Each migration and its row in `schema_migrations` are one transaction, on a connection that is
//! opened for it and closed after it. The row keeps the text of the way back, so that an older
//! program's migrations can be undone by anybody who has the file.
//!
//! Never done: a text that changed after it was applied, a number below one that was applied, and
//! a database that a newer program has migrated. Each is an error that says what to do.

use std::path::{Path, PathBuf};

use mister_smith_actors::{event::Timestamp, store::sqlite::file_of};
use sha2::{Digest, Sha256};
use sqlx::{
    ConnectOptions, Connection, Row,
    sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode},
};

#[cfg(test)]
mod tests;

/// One step of the schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Migration {
    version: u32,
    name: &'static str,
    up: &'static str,
    down: &'static str,
}

macro_rules! migration {
    ($version:literal, $name:literal) => {
        Migration {
            version: $version,
            name: $name,
            up: include_str!(concat!("../migrations/sqlite/", $name, ".up.sql")),
            down: include_str!(concat!("../migrations/sqlite/", $name, ".down.sql")),
        }
    };
}

/// All of them, in order. Texts that were released are never edited: add another one.
const MIGRATIONS: &[Migration] = &[
    migration!(1, "0001_event_store"),
    migration!(2, "0002_stream_summaries"),
    migration!(3, "0003_streams_and_snapshots"),
];

/// What [`up`] did.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// The database file.
    pub path: PathBuf,
    /// The file did not exist before.
    pub created: bool,
    /// The version before; 0 for an empty database.
    pub from: u32,
    /// The version now.
    pub to: u32,
    /// The names of the migrations that were applied, in order.
    pub applied: Vec<String>,
}

/// How a database stands to this program.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Status {
    /// The database file.
    pub path: PathBuf,
    /// The version of the database; 0 if it is empty or does not exist.
    pub version: u32,
    /// The version that this program needs.
    pub newest: u32,
    /// Every migration, in order.
    pub migrations: Vec<MigrationStatus>,
}

/// One line of a [`Status`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct MigrationStatus {
    /// Its number.
    pub version: u32,
    /// Its name, with the number.
    pub name: String,
    /// When it was applied and how long that took, in milliseconds; `None` if it is pending.
    pub applied: Option<(Timestamp, u64)>,
}

/// Why a database was left as it was.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MigrateError {
    /// The file cannot be opened or made.
    #[error(
        "cannot open {path}: {source}; make its directory exist and writable for this user, or give another path",
        path = .path.display()
    )]
    Open {
        /// The database file.
        path: PathBuf,
        /// What the system said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The file is something else.
    #[error("{path} is not a database; give another path, or move that file away", path = .path.display())]
    NotADatabase {
        /// The file.
        path: PathBuf,
    },
    /// A newer program was here.
    #[error(
        "{path} is at version {found}, this program knows versions up to {known}; run a newer smith, or `smith migrate down --to {known}` with the newer one",
        path = .path.display()
    )]
    Newer {
        /// The database file.
        path: PathBuf,
        /// The version of the database.
        found: u32,
        /// The newest version that this program knows.
        known: u32,
    },
    /// A text is not the one that was applied.
    #[error(
        "migrations/sqlite/{name}.up.sql changed after it was applied to {path}; restore the file, and put the change into a new migration",
        path = .path.display()
    )]
    Changed {
        /// The database file.
        path: PathBuf,
        /// The migration.
        name: String,
    },
    /// A number was added below one that was applied.
    #[error(
        "migration {name} is pending, but {path} is at version {at} already; give it a number above {at}",
        path = .path.display()
    )]
    OutOfOrder {
        /// The database file.
        path: PathBuf,
        /// The late migration.
        name: String,
        /// The version of the database.
        at: u32,
    },
    /// A migration failed; the database is as it was before it.
    #[error("migration {name} failed, {path} is as it was before it: {source}", path = .path.display())]
    Failed {
        /// The database file.
        path: PathBuf,
        /// The migration.
        name: String,
        /// What SQLite said.
        source: sqlx::Error,
    },
    /// SQLite failed outside a migration.
    #[error("{path}: {source}", path = .path.display())]
    Database {
        /// The database file.
        path: PathBuf,
        /// What SQLite said.
        source: sqlx::Error,
    },
}

/// Brings the database at a path or a `sqlite://` address to this program's version; makes the
/// file, and the directories above it, if there are none.
///
/// # Errors
///
/// See [`MigrateError`]. Migrations before the one that failed stay applied.
///
/// # Cancel safety
///
/// A dropped call leaves each migration applied or not, none by half.
pub async fn up(path: impl AsRef<Path>) -> Result<Report, MigrateError> {
    apply(path.as_ref(), MIGRATIONS).await
}

/// How the database at a path or a `sqlite://` address stands; changes nothing.
///
/// # Errors
///
/// It is no database, or its migrations are not those of this program.
///
/// # Cancel safety
///
/// Dropping the call loses nothing.
pub async fn status(path: impl AsRef<Path>) -> Result<Status, MigrateError> {
    inspect(path.as_ref(), MIGRATIONS).await
}

/// A row of `schema_migrations`.
#[derive(Debug)]
struct Applied {
    version: u32,
    name: String,
    checksum: Vec<u8>,
    at: Timestamp,
    took_ms: u64,
}

async fn apply(path: &Path, migrations: &[Migration]) -> Result<Report, MigrateError> {
    let path = file_of(path);
    let created = !path.exists();
    if let Some(directory) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        std::fs::create_dir_all(directory)
            .map_err(|source| MigrateError::Open { path: path.clone(), source: source.into() })?;
    }
    let options = SqliteConnectOptions::new()
        .filename(&path)
        .create_if_missing(true)
        .foreign_keys(false)
        .journal_mode(SqliteJournalMode::Wal);
    let mut connection = options.connect().await.map_err(|error| opening(&path, error))?;
    let result = advance(&mut connection, &path, migrations).await;
    // Closed whatever came out: a lock that is left behind would stop the next attempt.
    let _ = connection.close().await;
    let (from, applied) = result?;
    let to = migrations.last().map_or(from, |last| last.version.max(from));
    Ok(Report { path, created, from, to, applied })
}

async fn advance(
    connection: &mut SqliteConnection,
    path: &Path,
    migrations: &[Migration],
) -> Result<(u32, Vec<String>), MigrateError> {
    let failed = |source| opening(path, source);
    let mut from = None;
    let mut names = Vec::new();
    loop {
        // The lock first, then the look: another process may be migrating the same file.
        let mut transaction = connection.begin_with("begin immediate").await.map_err(failed)?;
        let applied = read_applied(&mut transaction).await.map_err(failed)?;
        let at = check(path, migrations, &applied)?;
        let from = *from.get_or_insert(at);
        let Some(next) = migrations.iter().find(|migration| migration.version > at) else {
            transaction.rollback().await.map_err(failed)?;
            return Ok((from, names));
        };
        let started = jiff::Timestamp::now();
        let run = async {
            run(&mut transaction, next, started).await?;
            transaction.commit().await
        };
        run.await.map_err(|source| MigrateError::Failed {
            path: path.to_owned(),
            name: next.name.to_owned(),
            source,
        })?;
        tracing::info!(migration = next.name, path = %path.display(), "migration applied");
        names.push(next.name.to_owned());
    }
}

/// Runs one migration and writes its row, inside the caller's transaction.
async fn run(
    connection: &mut SqliteConnection,
    migration: &Migration,
    started: jiff::Timestamp,
) -> sqlx::Result<()> {
    const TABLE: &str = "create table if not exists schema_migrations (
            version    integer primary key,
            name       text not null,
            checksum   blob not null,
            up         text not null,
            down       text not null,
            applied_at integer not null, -- microseconds since 1970
            took_ms    integer not null
        ) strict";
    sqlx::query(TABLE).execute(&mut *connection).await?;
    sqlx::raw_sql(migration.up).execute(&mut *connection).await?;
    let took = jiff::Timestamp::now().duration_since(started);
    sqlx::query("insert into schema_migrations values (?, ?, ?, ?, ?, ?, ?)")
        .bind(migration.version)
        .bind(migration.name)
        .bind(checksum(migration.up))
        .bind(migration.up)
        .bind(migration.down)
        .bind(started.as_microsecond())
        .bind(i64::try_from(took.as_millis()).unwrap_or(i64::MAX).max(0))
        .execute(connection)
        .await?;
    Ok(())
}

async fn inspect(path: &Path, migrations: &[Migration]) -> Result<Status, MigrateError> {
    let path = file_of(path);
    let applied = if path.exists() {
        let options = SqliteConnectOptions::new().filename(&path).read_only(true);
        let mut connection = options.connect().await.map_err(|error| opening(&path, error))?;
        let applied = read_applied(&mut connection).await;
        let _ = connection.close().await;
        applied.map_err(|error| opening(&path, error))?
    } else {
        Vec::new()
    };
    let version = check(&path, migrations, &applied)?;
    let line = |migration: &Migration| MigrationStatus {
        version: migration.version,
        name: migration.name.to_owned(),
        applied: applied
            .iter()
            .find(|row| row.version == migration.version)
            .map(|row| (row.at, row.took_ms)),
    };
    let newest = migrations.last().map_or(0, |last| last.version);
    Ok(Status { path, version, newest, migrations: migrations.iter().map(line).collect() })
}

/// The version of the database, if its migrations are the first ones of ours.
fn check(path: &Path, migrations: &[Migration], applied: &[Applied]) -> Result<u32, MigrateError> {
    let at = applied.last().map_or(0, |row| row.version);
    let known = migrations.last().map_or(0, |last| last.version);
    if at > known {
        return Err(MigrateError::Newer { path: path.to_owned(), found: at, known });
    }
    for row in applied {
        let ours = migrations.iter().find(|migration| migration.version == row.version);
        if ours.is_none_or(|migration| checksum(migration.up) != row.checksum) {
            return Err(MigrateError::Changed { path: path.to_owned(), name: row.name.clone() });
        }
    }
    let is_applied = |version| applied.iter().any(|row| row.version == version);
    let late = migrations.iter().find(|ours| ours.version < at && !is_applied(ours.version));
    match late {
        Some(late) => {
            Err(MigrateError::OutOfOrder { path: path.to_owned(), name: late.name.to_owned(), at })
        }
        None => Ok(at),
    }
}

async fn read_applied(connection: &mut SqliteConnection) -> sqlx::Result<Vec<Applied>> {
    let present: bool = sqlx::query_scalar(
        "select exists (select 1 from sqlite_schema where name = 'schema_migrations')",
    )
    .fetch_one(&mut *connection)
    .await?;
    if !present {
        return Ok(Vec::new());
    }
    let rows = sqlx::query(
        "select version, name, checksum, applied_at, took_ms from schema_migrations \
         order by version",
    )
    .fetch_all(connection)
    .await?;
    let applied = |row: &sqlx::sqlite::SqliteRow| {
        Ok(Applied {
            version: row.try_get(0)?,
            name: row.try_get(1)?,
            checksum: row.try_get(2)?,
            at: Timestamp::from_micros(row.try_get(3)?),
            took_ms: row.try_get::<i64, _>(4)?.cast_unsigned(),
        })
    };
    rows.iter().map(applied).collect()
}

/// SHA-256 of a text with its line ends as LF: a checkout on Windows is no change.
fn checksum(text: &str) -> Vec<u8> {
    Sha256::digest(text.replace("\r\n", "\n")).to_vec()
}

/// What an error outside a migration means.
fn opening(path: &Path, error: sqlx::Error) -> MigrateError {
    let code = error
        .as_database_error()
        .and_then(|error| error.code())
        .and_then(|code| code.parse::<u32>().ok())
        .map(|code| code & 0xff);
    let path = path.to_owned();
    match code {
        Some(26) => MigrateError::NotADatabase { path },
        // Read-only, or cannot be opened (https://www.sqlite.org/rescode.html).
        Some(8 | 14) => MigrateError::Open { path, source: error.into() },
        _ => MigrateError::Database { path, source: error },
    }
}
