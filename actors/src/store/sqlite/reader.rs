//! A connection that reads, on a thread of its own, and the names that it remembers.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use rusqlite::{Connection, OpenFlags, OptionalExtension};

use super::{options::SqliteOptions, recent::Recent, threads::State};
use crate::event::StreamId;

/// Half of the names of streams that one reader remembers; one takes some 100 bytes.
const NAMES: usize = 25_000;

/// Statements that stay prepared.
const PREPARED: usize = 32;

/// Name and schema version of each event type by its number.
pub(super) type Types = BTreeMap<i64, (Arc<str>, u16)>;

/// Why a read failed.
#[derive(Debug)]
pub(super) enum Failure {
    Sql(rusqlite::Error),
    /// What is there contradicts itself.
    Corrupt(String),
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sql(error)
    }
}

/// What a thread that reads works with.
#[derive(Debug)]
pub(super) struct Reader {
    path: PathBuf,
    options: SqliteOptions,
    connection: Option<Connection>,
    pub(super) names: Names,
}

/// The names behind numbers. A number never changes its meaning, so what was read once stays
/// right.
#[derive(Debug)]
pub(super) struct Names {
    pub(super) types: Types,
    streams: Recent<i64, StreamId>,
}

impl Reader {
    pub(super) fn new(path: PathBuf, options: SqliteOptions) -> Self {
        let names = Names { types: Types::new(), streams: Recent::new(NAMES) };
        Self { path, options, connection: None, names }
    }

    /// Runs `work`; after an error the connection is closed, and the next one opens another.
    pub(super) fn look<T>(
        &mut self,
        work: impl FnOnce(&Connection, &mut Names) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => open(&self.path, &self.options)?,
        };
        let value = work(&connection, &mut self.names)?;
        self.connection = Some(connection);
        Ok(value)
    }
}

impl State for Reader {
    fn reset(&mut self) {
        self.connection = None;
    }
}

impl Names {
    /// Reads the table of types again: an unknown number is a new type.
    pub(super) fn reload_types(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        let mut statement =
            connection.prepare_cached("select id, name, schema_version from event_types")?;
        let mut rows = statement.query(())?;
        self.types.clear();
        while let Some(row) = rows.next()? {
            let name = row.get_ref(1)?.as_str()?;
            self.types.insert(row.get(0)?, (name.into(), row.get(2)?));
        }
        Ok(())
    }

    /// The name of a stream by its number.
    pub(super) fn stream(&mut self, connection: &Connection, id: i64) -> Result<StreamId, Failure> {
        if !self.streams.touch(&id) {
            let mut statement =
                connection.prepare_cached("select name from streams where id = ?")?;
            let name: Option<String> = statement.query_row([id], |row| row.get(0)).optional()?;
            let name =
                name.ok_or_else(|| Failure::Corrupt(format!("stream {id} has no row in streams")))?;
            let stream = StreamId::new(name).map_err(|error| {
                Failure::Corrupt(format!("stream {id} has no valid name: {error}"))
            })?;
            self.streams.insert(id, stream);
        }
        Ok(self.streams.peek(&id).expect("it was put there").clone())
    }
}

fn open(path: &Path, options: &SqliteOptions) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(options.busy_timeout)?;
    connection.set_prepared_statement_cache_capacity(PREPARED);
    Ok(connection)
}
