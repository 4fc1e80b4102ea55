//! Single facts: the head, versions, answers, types, times.

use std::{collections::BTreeMap, sync::Arc};

use sqlx::{PgConnection, Row as _, postgres::PgRow};
use uuid::Uuid;

use super::database::PgDatabase;
use crate::{
    event::{Position, StreamId, Timestamp, Version},
    store::{Appended, IdempotencyKey, RecordedType, StoreError},
};

pub(super) async fn head(database: &PgDatabase) -> Result<Position, StoreError> {
    let head: i64 = sqlx::query_scalar("select position from store_head")
        .fetch_one(database.pool()?)
        .await
        .map_err(|error| database.fault(error))?;
    Ok(Position::new(head.cast_unsigned()))
}

pub(super) async fn stream_version(
    database: &PgDatabase,
    stream: &StreamId,
) -> Result<Version, StoreError> {
    let version: Option<i64> = sqlx::query_scalar("select version from streams where name = $1")
        .bind(stream.as_str())
        .fetch_optional(database.pool()?)
        .await
        .map_err(|error| database.fault(error))?;
    Ok(version.map_or(Version::ZERO, |version| Version::new(version.cast_unsigned())))
}

/// The first and the last position of a stream that takes events.
pub(super) async fn span(
    database: &PgDatabase,
    stream: &StreamId,
) -> Result<Option<(Position, Position)>, StoreError> {
    let query = "select first_position, last_position from streams where name = $1 and status = 0";
    let row = sqlx::query(query)
        .bind(stream.as_str())
        .fetch_optional(database.pool()?)
        .await
        .map_err(|error| database.fault(error))?;
    let read = |row: PgRow| {
        let place = |column| row.try_get::<i64, _>(column).map(i64::cast_unsigned);
        Ok((Position::new(place(0)?), Position::new(place(1)?)))
    };
    row.map(read).transpose().map_err(|error| database.fault(error))
}

pub(super) async fn store_id(database: &PgDatabase) -> Result<Uuid, StoreError> {
    sqlx::query_scalar("select store_uuid from store_head")
        .fetch_one(database.pool()?)
        .await
        .map_err(|error| database.fault(error))
}

const ANSWERS: &str = "select c.key, s.name, c.version, c.position, c.events \
     from command_results c join streams s on s.id = c.stream_id where c.key = any($1)";

pub(super) async fn answer(
    database: &PgDatabase,
    key: IdempotencyKey,
) -> Result<Option<Appended>, StoreError> {
    let row = sqlx::query(ANSWERS)
        .bind(vec![Uuid::from_bytes(*key.as_bytes())])
        .fetch_optional(database.pool()?)
        .await
        .map_err(|error| database.fault(error))?;
    let read = row.map(|row| read_answer(&row).map(|(_, appended)| appended)).transpose();
    read.map_err(|error| database.fault(error))
}

pub(super) async fn answers(
    connection: &mut PgConnection,
    keys: Vec<Uuid>,
) -> sqlx::Result<BTreeMap<IdempotencyKey, Appended>> {
    if keys.is_empty() {
        return Ok(BTreeMap::new());
    }
    let rows = sqlx::query(ANSWERS).bind(keys).fetch_all(connection).await?;
    rows.iter().map(read_answer).collect()
}

/// The first answer to a key, from its row.
fn read_answer(row: &PgRow) -> sqlx::Result<(IdempotencyKey, Appended)> {
    let key: Uuid = row.try_get(0)?;
    let last_version = Version::new(row.try_get::<i64, _>(2)?.cast_unsigned());
    let last_position = Position::new(row.try_get::<i64, _>(3)?.cast_unsigned());
    let before = u64::from(row.try_get::<i32, _>(4)?.cast_unsigned()).saturating_sub(1);
    let appended = Appended {
        stream: stream_id(row, 1)?,
        first_version: last_version.minus(before),
        last_version,
        first_position: last_position.minus(before),
        last_position,
        duplicate: false,
    };
    Ok((IdempotencyKey::new(key.into_bytes()), appended))
}

pub(super) fn stream_id(row: &PgRow, column: usize) -> sqlx::Result<StreamId> {
    let name: &str = row.try_get(column)?;
    StreamId::new(name).map_err(|error| sqlx::Error::Decode(Box::new(error)))
}

pub(super) async fn event_types(database: &PgDatabase) -> Result<Vec<RecordedType>, StoreError> {
    let query = "select name, schema_version from event_types order by name, schema_version";
    let rows = sqlx::query(query)
        .fetch_all(database.pool()?)
        .await
        .map_err(|error| database.fault(error))?;
    let read = |row: &PgRow| {
        let name = Arc::from(row.try_get::<String, _>(0)?);
        let schema_version = u16::try_from(row.try_get::<i32, _>(1)?).unwrap_or(u16::MAX);
        Ok(RecordedType { name, schema_version })
    };
    rows.iter().map(read).collect::<sqlx::Result<_>>().map_err(|error| database.fault(error))
}

pub(super) async fn position_at(
    database: &PgDatabase,
    time: Timestamp,
) -> Result<Position, StoreError> {
    let query = "select position from position_marks where at <= $1 order by at desc limit 1";
    let position: Option<i64> = sqlx::query_scalar(query)
        .bind(time.as_micros())
        .fetch_optional(database.pool()?)
        .await
        .map_err(|error| database.fault(error))?;
    Ok(position.map_or(Position::ZERO, |position| Position::new(position.cast_unsigned())))
}

/// Everything up to here was archived.
pub(super) async fn floor(database: &PgDatabase) -> Result<Position, StoreError> {
    let floor: Option<i64> = sqlx::query_scalar("select max(to_position) from archives")
        .fetch_one(database.pool()?)
        .await
        .map_err(|error| database.fault(error))?;
    Ok(floor.map_or(Position::ZERO, |floor| Position::new(floor.cast_unsigned())))
}
