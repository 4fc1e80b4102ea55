//! Migrations of a store's schema: which of them a database has, and how it gets the others.
//!
//! Each migration and its row in `schema_migrations` are one transaction, on a connection that is
//! opened for it and closed after it. The row keeps the text of the way back, so that what a newer
//! program has applied can be undone by an older one.
//!
//! Never done: a text that changed after it was applied, a number below one that was applied, and
//! a database that a newer program has migrated. Each is an error that names the file and says
//! what to do.

use std::path::Path;

use mister_smith_actors::event::Timestamp;
use serde::Serialize;

mod database;
mod error;
mod texts;

use database::{Applied, Database, Target};
pub use error::MigrateError;
use texts::{Migration, checksum};

#[cfg(test)]
mod tests;

/// What [`up`] or [`down`] did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Report {
    /// The database: its file or its address.
    pub store: String,
    /// The file did not exist before.
    pub created: bool,
    /// The version before; 0 for an empty database.
    pub from: u32,
    /// The version now.
    pub to: u32,
    /// What was applied or undone, in that order.
    pub steps: Vec<Step>,
    /// The same of the file of read models, where they have one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub read_models: Option<Box<Report>>,
}

/// A migration that was applied or undone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Step {
    /// Its name, with the number.
    pub name: String,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
}

/// How a database stands to this program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Status {
    /// The database: its file or its address.
    pub store: String,
    /// The version of the database; 0 if it is empty or does not exist.
    pub version: u32,
    /// The version that this program needs.
    pub newest: u32,
    /// Every migration, in order: those of this program, and those of a newer one.
    pub migrations: Vec<MigrationStatus>,
    /// What is wrong with it; nothing is applied while there is something.
    pub problems: Vec<String>,
    /// The same of the file of read models, where they have one. It follows from the log, so it is
    /// made whenever it is missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub read_models: Option<Box<Status>>,
}

impl Status {
    /// The names of what is to be applied.
    #[must_use]
    pub fn pending(&self) -> Vec<&str> {
        let pending = self.migrations.iter().filter(|one| one.applied_at.is_none());
        pending.map(|one| &*one.name).collect()
    }
}

/// One line of a [`Status`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct MigrationStatus {
    /// Its number.
    pub version: u32,
    /// Its name, with the number.
    pub name: String,
    /// When it was applied; `None` if it is pending.
    pub applied_at: Option<Timestamp>,
    /// How long that took, in milliseconds.
    pub took_ms: Option<u64>,
}

/// Brings the database at an address to this program's version. A SQLite file, and the directories
/// above it, are made if there are none; the file of read models beside it likewise.
///
/// # Errors
///
/// See [`MigrateError`]. Migrations before the one that failed stay applied.
///
/// # Cancel safety
///
/// A dropped call leaves each migration applied or not, none by half.
pub async fn up(url: impl AsRef<Path>) -> Result<Report, MigrateError> {
    let target = Target::of(url.as_ref())?;
    let mut report = apply(&target, target.migrations()).await?;
    if let Some(beside) = target.read_models() {
        let made = apply(&beside, beside.migrations()).await;
        let made = made.map_err(|source| MigrateError::ReadModels {
            store: beside.name(),
            source: Box::new(source),
        })?;
        report.read_models = Some(Box::new(made));
    }
    Ok(report)
}

/// Undoes migrations until the database is at version `to`, by the texts that are stored in it;
/// also those of a newer program. What was in their tables is gone: see [`losses`]. A file of read
/// models is left alone: whether it fits the log is looked at when it is opened.
///
/// # Errors
///
/// See [`MigrateError`]. Migrations that were undone before the one that failed stay undone.
///
/// # Cancel safety
///
/// A dropped call leaves each migration applied or not, none by half.
pub async fn down(url: impl AsRef<Path>, to: u32) -> Result<Report, MigrateError> {
    undo(&Target::of(url.as_ref())?, to).await
}

/// What [`down`] to a version would undo, newest first; changes nothing.
///
/// # Errors
///
/// The database cannot be read, or has no such version.
///
/// # Cancel safety
///
/// Dropping the call loses nothing.
pub async fn losses(url: impl AsRef<Path>, to: u32) -> Result<Vec<Loss>, MigrateError> {
    let target = Target::of(url.as_ref())?;
    let applied = applied(&target).await?;
    let at = applied.last().map_or(0, |row| row.version);
    if to != 0 && !applied.iter().any(|row| row.version == to) {
        return Err(MigrateError::NoSuchVersion { store: target.name(), at, to });
    }
    let undone = applied.into_iter().rev().filter(|row| row.version > to);
    Ok(undone.map(|row| Loss { tables: dropped(&row.down), name: row.name }).collect())
}

/// A migration that would be undone, and the tables that go with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Loss {
    /// Its name, with the number.
    pub name: String,
    /// What is dropped, with all that is in it.
    pub tables: Vec<String>,
}

/// The tables that a text drops.
fn dropped(text: &str) -> Vec<String> {
    let mut tables = Vec::new();
    let mut words = text.split_whitespace().peekable();
    while let Some(word) = words.next() {
        if !is(word, "drop") || words.next_if(|next| is(next, "table")).is_none() {
            continue;
        }
        if words.next_if(|next| is(next, "if")).is_some() {
            words.next_if(|next| is(next, "exists"));
        }
        tables.extend(words.next().map(|name| name.trim_end_matches(';').to_owned()));
    }
    tables
}

fn is(word: &str, keyword: &str) -> bool {
    word.eq_ignore_ascii_case(keyword)
}

/// How the database at an address stands, with everything that is wrong with it; changes nothing.
///
/// # Errors
///
/// It cannot be read.
///
/// # Cancel safety
///
/// Dropping the call loses nothing.
pub async fn status(url: impl AsRef<Path>) -> Result<Status, MigrateError> {
    let target = Target::of(url.as_ref())?;
    let mut status = inspect(&target, target.migrations()).await?;
    if let Some(beside) = target.read_models() {
        status.read_models = Some(Box::new(inspect(&beside, beside.migrations()).await?));
    }
    Ok(status)
}

async fn apply(target: &Target, migrations: &[Migration]) -> Result<Report, MigrateError> {
    let created = !target.exists();
    let mut database = target.open().await?;
    let result = advance(&mut database, target, migrations).await;
    database.close().await;
    let (from, steps) = result?;
    let to = migrations.last().map_or(from, |last| last.version.max(from));
    Ok(Report { store: target.name(), created, from, to, steps, read_models: None })
}

async fn advance(
    database: &mut Database,
    target: &Target,
    migrations: &[Migration],
) -> Result<(u32, Vec<Step>), MigrateError> {
    let fault = |error| target.fault(error);
    let mut from = None;
    let mut steps = Vec::new();
    database.lock().await.map_err(fault)?;
    loop {
        database.begin().await.map_err(fault)?;
        let applied = database.applied().await.map_err(fault)?;
        if let Some(problem) = problems(target, migrations, &applied).into_iter().next() {
            return Err(problem);
        }
        let at = applied.last().map_or(0, |row| row.version);
        let from = *from.get_or_insert(at);
        let Some(next) = migrations.iter().find(|migration| migration.version > at) else {
            database.rollback().await.map_err(fault)?;
            return Ok((from, steps));
        };
        let started = jiff::Timestamp::now();
        let run = async {
            database.run(next.up).await?;
            let took_ms = database.note(next, started).await?;
            database.commit().await?;
            Ok(took_ms)
        };
        let took_ms = run.await.map_err(|source| failed(target, next.name, source))?;
        tracing::info!(migration = next.name, store = %target.name(), took_ms, "applied");
        steps.push(Step { name: next.name.to_owned(), took_ms });
    }
}

async fn undo(target: &Target, to: u32) -> Result<Report, MigrateError> {
    let mut database = target.open().await?;
    let result = retreat(&mut database, target, to).await;
    database.close().await;
    let (from, steps) = result?;
    Ok(Report { store: target.name(), created: false, from, to, steps, read_models: None })
}

async fn retreat(
    database: &mut Database,
    target: &Target,
    to: u32,
) -> Result<(u32, Vec<Step>), MigrateError> {
    let fault = |error| target.fault(error);
    let mut from = None;
    let mut steps = Vec::new();
    database.lock().await.map_err(fault)?;
    loop {
        database.begin().await.map_err(fault)?;
        let applied = database.applied().await.map_err(fault)?;
        let at = applied.last().map_or(0, |row| row.version);
        let from = *from.get_or_insert(at);
        if to != 0 && !applied.iter().any(|row| row.version == to) {
            return Err(MigrateError::NoSuchVersion { store: target.name(), at, to });
        }
        let Some(last) = applied.last().filter(|row| row.version > to) else {
            database.rollback().await.map_err(fault)?;
            return Ok((from, steps));
        };
        let started = jiff::Timestamp::now();
        let run = async {
            database.run(&last.down).await?;
            database.forget(last.version).await?;
            database.commit().await
        };
        run.await.map_err(|source| failed(target, &last.name, source))?;
        let took = jiff::Timestamp::now().duration_since(started).as_millis();
        let took_ms = u64::try_from(took).unwrap_or(0);
        tracing::info!(migration = %last.name, store = %target.name(), took_ms, "undone");
        steps.push(Step { name: last.name.clone(), took_ms });
    }
}

fn failed(target: &Target, name: &str, source: sqlx::Error) -> MigrateError {
    MigrateError::Failed { store: target.name(), name: name.to_owned(), source }
}

async fn applied(target: &Target) -> Result<Vec<Applied>, MigrateError> {
    if !target.exists() {
        return Ok(Vec::new());
    }
    let mut database = target.look().await?;
    let applied = database.applied().await;
    database.close().await;
    applied.map_err(|error| target.fault(error))
}

async fn inspect(target: &Target, migrations: &[Migration]) -> Result<Status, MigrateError> {
    let applied = applied(target).await?;
    let mut lines: Vec<_> = migrations
        .iter()
        .map(|migration| {
            let row = applied.iter().find(|row| row.version == migration.version);
            MigrationStatus {
                version: migration.version,
                name: migration.name.to_owned(),
                applied_at: row.map(|row| row.at),
                took_ms: row.map(|row| row.took_ms),
            }
        })
        .collect();
    let unknown = |row: &&Applied| !migrations.iter().any(|ours| ours.version == row.version);
    lines.extend(applied.iter().filter(unknown).map(|row| MigrationStatus {
        version: row.version,
        name: row.name.clone(),
        applied_at: Some(row.at),
        took_ms: Some(row.took_ms),
    }));
    lines.sort_by_key(|line| line.version);
    let problems = problems(target, migrations, &applied);
    Ok(Status {
        store: target.name(),
        version: applied.last().map_or(0, |row| row.version),
        newest: migrations.last().map_or(0, |last| last.version),
        migrations: lines,
        problems: problems.iter().map(ToString::to_string).collect(),
        read_models: None,
    })
}

/// Everything that speaks against applying anything.
fn problems(target: &Target, migrations: &[Migration], applied: &[Applied]) -> Vec<MigrateError> {
    let (store, kind) = (target.name(), target.kind());
    let at = applied.last().map_or(0, |row| row.version);
    let known = migrations.last().map_or(0, |last| last.version);
    let mut found = Vec::new();
    if at > known {
        found.push(MigrateError::Newer { store: store.clone(), found: at, known });
    }
    for row in applied.iter().filter(|row| row.version <= known) {
        let ours = migrations.iter().find(|migration| migration.version == row.version);
        if ours.is_none_or(|migration| checksum(migration.up) != row.checksum) {
            let (store, name) = (store.clone(), row.name.clone());
            found.push(MigrateError::Changed { store, kind, name });
        }
    }
    let is_applied = |version| applied.iter().any(|row| row.version == version);
    for late in migrations.iter().filter(|ours| ours.version < at && !is_applied(ours.version)) {
        let (store, name) = (store.clone(), late.name.to_owned());
        found.push(MigrateError::OutOfOrder { store, kind, name, at });
    }
    found
}
