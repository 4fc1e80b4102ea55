//! Single facts: the head, versions, answers, types, times.

use std::sync::Arc;

use sqlx::{Row as _, postgres::PgRow};
use uuid::Uuid;

use super::database::PgDatabase;
use crate::{
    event::{Position, StreamId, Timestamp, Version},
    store::{Appended, IdempotencyKey, RecordedType, StoreError},
};

/// The end of the log. (`>= n + 1` and not `> n`, which would not leave out the partition that ends
/// with `n`.) The rows of `store_head` and `streams` are right up to a place a little
/// before it, and the events behind that place have the rest.
macro_rules! head_query {
    () => {
        "select coalesce((select e.position from events e where e.position >= h.position + 1 \
                          order by e.position desc limit 1), h.position) as head \
           from store_head h where h.id = 1"
    };
}
pub(super) use head_query;

pub(super) async fn head(database: &PgDatabase) -> Result<Position, StoreError> {
    let head: i64 = sqlx::query_scalar(head_query!())
        .fetch_one(database.pool()?)
        .await
        .map_err(|error| database.fault(error))?;
    Ok(Position::new(head.cast_unsigned()))
}

/// The positions of one part of the log, as migration 0008 counts them.
const PART: i64 = 50_000;

/// The end of the log, and the place behind which the first event of one of these categories can
/// come: not before `after`. What lies between is known to have none.
pub(super) async fn head_and_next(
    database: &PgDatabase,
    categories: &[String],
    after: i64,
) -> Result<(Position, i64), StoreError> {
    const TEXT: &str = concat!(
        "select l.head, h.parts_from, h.parts_to, \
                (select min(p.part) from unnest($1::text[]) k (category), lateral ( \
                    select part from category_parts c \
                     where c.category = k.category and c.part >= $2 order by part limit 1) p) \
           from store_head h, (",
        head_query!(),
        ") l where h.id = 1"
    );
    let row =
        sqlx::query(TEXT).bind(categories).bind(after / PART).fetch_one(database.pool()?).await;
    let read = |row: PgRow| {
        let (from, to): (i64, i64) = (row.try_get(1)?, row.try_get(2)?);
        let part = row.try_get::<Option<i64>, _>(3)?.map_or(to, |part| part * PART);
        let next = if after >= from { after.max(part.min(to)) } else { after };
        Ok((Position::new(row.try_get::<i64, _>(0)?.cast_unsigned()), next))
    };
    row.and_then(read).map_err(|error| database.fault(error))
}

/// The version of a stream `s`, whose row may be a little behind; with the row `h` of the head.
macro_rules! version_of_s {
    () => {
        "coalesce((select e.version from events e where e.stream_id = s.id \
                     and e.version > s.version and e.position >= h.position + 1 \
                   order by e.version desc limit 1), s.version)"
    };
}
pub(super) use version_of_s;

pub(super) async fn stream_version(
    database: &PgDatabase,
    stream: &StreamId,
) -> Result<Version, StoreError> {
    const TEXT: &str =
        concat!("select ", version_of_s!(), " from streams s, store_head h where s.name = $1");
    let version: Option<i64> = sqlx::query_scalar(TEXT)
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
    let row = sqlx::query(
        "select s.first_position, coalesce((select e.position from events e \
             where e.stream_id = s.id and e.version > s.version and e.position >= h.position + 1 \
             order by e.version desc limit 1), s.last_position) \
         from streams s, store_head h where s.name = $1 and s.status = 0",
    )
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

pub(super) async fn answer(
    database: &PgDatabase,
    key: IdempotencyKey,
) -> Result<Option<Appended>, StoreError> {
    let row = sqlx::query(
        "select s.name, c.version, c.position, c.events \
         from command_results c join streams s on s.id = c.stream_id where c.key = $1",
    )
    .bind(Uuid::from_bytes(*key.as_bytes()))
    .fetch_optional(database.pool()?)
    .await
    .map_err(|error| database.fault(error))?;
    let read = row.map(|row| {
        Ok(appended(stream_id(&row, 0)?, row.try_get(1)?, row.try_get(2)?, row.try_get(3)?))
    });
    read.transpose().map_err(|error| database.fault(error))
}

/// The first answer to a key, from its row: the last version and position, and how many events.
pub(super) fn appended(stream: StreamId, version: i64, position: i64, events: i32) -> Appended {
    let last_version = Version::new(version.cast_unsigned());
    let last_position = Position::new(position.cast_unsigned());
    let before = u64::from(events.cast_unsigned()).saturating_sub(1);
    Appended {
        stream,
        first_version: last_version.minus(before),
        last_version,
        first_position: last_position.minus(before),
        last_position,
        duplicate: false,
    }
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
