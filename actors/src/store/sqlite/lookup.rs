//! Single facts: the head, versions, types, times.

use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension};
use uuid::Uuid;

use super::reader::Failure;
use crate::{
    event::{Position, StreamId, Timestamp, Version},
    store::RecordedType,
};

pub(super) fn head(connection: &Connection) -> Result<Position, Failure> {
    let mut statement = connection.prepare_cached("select position from store_head")?;
    let head: i64 = statement.query_row((), |row| row.get(0))?;
    Ok(Position::new(head.cast_unsigned()))
}

pub(super) fn stream_version(
    connection: &Connection,
    stream: &StreamId,
) -> Result<Version, Failure> {
    let mut statement = connection.prepare_cached("select version from streams where name = ?")?;
    let version = statement.query_row([stream.as_str()], |row| row.get::<_, i64>(0)).optional()?;
    Ok(version.map_or(Version::ZERO, |version| Version::new(version.cast_unsigned())))
}

pub(super) fn store_id(connection: &Connection) -> Result<Uuid, Failure> {
    let id: Vec<u8> =
        connection.query_row("select store_uuid from store_head", (), |row| row.get(0))?;
    Uuid::from_slice(&id)
        .map_err(|error| Failure::Corrupt(format!("its name is not a UUID ({error})")))
}

pub(super) fn event_types(connection: &Connection) -> Result<Vec<RecordedType>, Failure> {
    let text = "select name, schema_version from event_types order by name, schema_version";
    let mut statement = connection.prepare_cached(text)?;
    let types = statement.query_map((), |row| {
        let name = Arc::from(row.get_ref(0)?.as_str()?);
        Ok(RecordedType { name, schema_version: row.get(1)? })
    })?;
    Ok(types.collect::<rusqlite::Result<_>>()?)
}

pub(super) fn position_at(connection: &Connection, time: Timestamp) -> Result<Position, Failure> {
    let text = "select position from position_marks where at <= ? order by at desc limit 1";
    let mut statement = connection.prepare_cached(text)?;
    let position =
        statement.query_row([time.as_micros()], |row| row.get::<_, i64>(0)).optional()?;
    Ok(position.map_or(Position::ZERO, |position| Position::new(position.cast_unsigned())))
}
