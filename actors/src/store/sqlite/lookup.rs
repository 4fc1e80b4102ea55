//! Single facts: the head, versions, answers, types, times.

use std::sync::Arc;

use sqlx::{Row as _, sqlite::SqliteRow};
use uuid::Uuid;

use super::{append, database::Database};
use crate::{
    event::{Position, StreamId, Timestamp, Version},
    store::{Appended, IdempotencyKey, RecordedType, StoreError},
};

pub(super) async fn head(database: &Database) -> Result<Position, StoreError> {
    let head: i64 = sqlx::query_scalar("select position from store_head")
        .fetch_one(database.readers()?)
        .await
        .map_err(|error| database.fault(error))?;
    Ok(Position::new(head.cast_unsigned()))
}

pub(super) async fn stream_version(
    database: &Database,
    stream: &StreamId,
) -> Result<Version, StoreError> {
    let version: Option<i64> = sqlx::query_scalar("select version from streams where name = ?")
        .bind(stream.to_shared())
        .fetch_optional(database.readers()?)
        .await
        .map_err(|error| database.fault(error))?;
    Ok(version.map_or(Version::ZERO, |version| Version::new(version.cast_unsigned())))
}

pub(super) async fn store_id(database: &Database) -> Result<Uuid, StoreError> {
    let id: Vec<u8> = sqlx::query_scalar("select store_uuid from store_head")
        .fetch_one(database.readers()?)
        .await
        .map_err(|error| database.fault(error))?;
    Uuid::from_slice(&id)
        .map_err(|error| database.corrupt(format!("its name is not a UUID ({error})")))
}

pub(super) async fn answer(
    database: &Database,
    key: IdempotencyKey,
) -> Result<Option<Appended>, StoreError> {
    let row = sqlx::query(
        "select c.key, s.name, c.version, c.position, c.events from command_results c \
         cross join streams s on s.id = c.stream_id where c.key = ?",
    )
    .bind(key.as_bytes().as_slice())
    .fetch_optional(database.readers()?)
    .await
    .map_err(|error| database.fault(error))?;
    let answer = row.map(|row| append::answer(&row).map(|(_, appended)| appended)).transpose();
    answer.map_err(|error| database.fault(error))
}

pub(super) async fn event_types(database: &Database) -> Result<Vec<RecordedType>, StoreError> {
    let query = "select name, schema_version from event_types order by name, schema_version";
    let rows = sqlx::query(query)
        .fetch_all(database.readers()?)
        .await
        .map_err(|error| database.fault(error))?;
    let read = |row: &SqliteRow| {
        let name = Arc::from(row.try_get::<String, _>(0)?);
        Ok(RecordedType { name, schema_version: row.try_get(1)? })
    };
    rows.iter().map(read).collect::<sqlx::Result<_>>().map_err(|error| database.fault(error))
}

pub(super) async fn position_at(
    database: &Database,
    time: Timestamp,
) -> Result<Position, StoreError> {
    let query = "select position from position_marks where at <= ? order by at desc limit 1";
    let position: Option<i64> = sqlx::query_scalar(query)
        .bind(time.as_micros())
        .fetch_optional(database.readers()?)
        .await
        .map_err(|error| database.fault(error))?;
    Ok(position.map_or(Position::ZERO, |position| Position::new(position.cast_unsigned())))
}
