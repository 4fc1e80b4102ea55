//! The notes in a SQLite file.

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use rusqlite::types::Type;
use rusqlite::{Connection, Row, params};

use super::{Notes, Skipped};
use crate::event::{Position, StreamId, Timestamp, Version};
use crate::store::StoreError;
use crate::store::sqlite::SqliteStore;

impl Notes for SqliteStore {
    fn own<'a>(
        &'a self,
        category: &'a str,
        owner: &'a str,
        at: Timestamp,
    ) -> BoxFuture<'a, Result<String, StoreError>> {
        let (category, owner) = (category.to_owned(), owner.to_owned());
        let note = move |connection: &Connection| {
            connection.execute(
                "insert into category_owners (category, owner, since) values (?, ?, ?) \
                 on conflict do nothing",
                params![category, owner, at.as_micros()],
            )?;
            let asked = "select owner from category_owners where category = ?";
            connection.query_row(asked, [&category], |row| row.get(0))
        };
        self.database().write(note).boxed()
    }

    fn owners(&self) -> BoxFuture<'_, Result<Vec<(String, String)>, StoreError>> {
        let read = |connection: &Connection| {
            let mut statement = connection
                .prepare("select category, owner from category_owners order by category")?;
            let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
            rows.collect()
        };
        self.database().read(read).boxed()
    }

    fn skip(&self, skipped: Skipped) -> BoxFuture<'_, Result<bool, StoreError>> {
        let note = move |connection: &Connection| {
            let noted = connection.execute(
                "insert into skipped_events (stream, version, position, by, reason, at) \
                 values (?, ?, ?, ?, ?, ?) on conflict do nothing",
                params![
                    skipped.stream.as_str(),
                    skipped.version.get().cast_signed(),
                    skipped.position.get().cast_signed(),
                    skipped.by,
                    skipped.reason,
                    skipped.at.as_micros(),
                ],
            )?;
            Ok(noted == 1)
        };
        self.database().write(note).boxed()
    }

    fn skipped<'a>(
        &'a self,
        stream: Option<&'a StreamId>,
    ) -> BoxFuture<'a, Result<Vec<Skipped>, StoreError>> {
        let stream = stream.map(ToString::to_string);
        let read = move |connection: &Connection| {
            let mut statement = connection.prepare(
                "select stream, version, position, by, reason, at from skipped_events \
                 where ?1 is null or stream = ?1 order by position",
            )?;
            let rows = statement.query_map([stream], skipped)?;
            rows.collect()
        };
        self.database().read(read).boxed()
    }
}

fn skipped(row: &Row<'_>) -> rusqlite::Result<Skipped> {
    let name: String = row.get(0)?;
    let invalid = |error| rusqlite::Error::FromSqlConversionFailure(0, Type::Text, Box::new(error));
    Ok(Skipped {
        stream: StreamId::new(name).map_err(invalid)?,
        version: Version::new(row.get::<_, i64>(1)?.cast_unsigned()),
        position: Position::new(row.get::<_, i64>(2)?.cast_unsigned()),
        by: row.get(3)?,
        reason: row.get(4)?,
        at: Timestamp::from_micros(row.get(5)?),
    })
}
