//! The statement that writes a batch: one round trip, all or nothing.
//!
//! 1. The head moves, under a lock. Everybody who appends takes this lock first, so nobody waits
//!    for a stream while holding another one, and commits happen in the order of positions.
//! 2. New streams are inserted, others updated where they are at the version that was believed.
//! 3. If one of them was not, the statement divides by zero: all of it is undone, and the caller
//!    goes the slow way. A key that is known already does the same by its index.
//! 4. Events and answers are written, each at its offset from where the head was.
//!
//! An advisory lock is taken before the row of the head: waiters on a row are woken all at once,
//! waiters on an advisory lock one by one.

use indexmap::IndexMap;
use sqlx::PgConnection;
use uuid::Uuid;

use super::types::Known;
use crate::{
    event::{NewEvent, Position, StreamId, Version},
    store::plan::{Accepted, Mark, Plan},
};

/// The advisory lock of appending.
pub(super) const LOCK: i64 = 7_033_157_211;

/// Where a stream of the batch is believed to be.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    /// Its number.
    pub(super) id: i64,
    /// Its version; zero if it is to be made.
    pub(super) version: Version,
}

/// A plan with all that has to be known to write it.
#[derive(Debug)]
pub(super) struct Write<'a> {
    pub(super) plan: &'a Plan<'a>,
    /// The head that the plan was made on; its positions are taken as offsets from there.
    pub(super) base: Position,
    pub(super) places: &'a IndexMap<StreamId, Place>,
    pub(super) types: &'a Known,
    pub(super) mark: Option<Mark>,
}

/// Writes it, and answers where the head was.
///
/// # Errors
///
/// Division by zero or a known key: somebody was faster. Nothing was written, as after any other
/// error, unless the connection was lost.
pub(super) async fn put(
    connection: &mut PgConnection,
    write: &Write<'_>,
) -> sqlx::Result<Position> {
    let base = match &*write.plan.accepted {
        [one] if one.events.len() == 1 && write.mark.is_none() => {
            put_one(connection, write, one, &one.events[0]).await?
        }
        _ => put_many(connection, write).await?,
    };
    Ok(Position::new(base.cast_unsigned()))
}

/// The mark is decided on the row: other nodes write marks too, and their times only go up.
const LOCKED: &str = "with lock as materialized (select pg_advisory_xact_lock(7033157211)), \
    head as (update store_head set position = position + $1, \
                 marked_at = case when $29::int8 / 60000000 <= marked_at / 60000000 \
                                  then marked_at else coalesce($29, marked_at) end \
               from lock where id = 1 \
             returning position - $1 as base, marked_at), ";

const LOCKED_ONE: &str = "with lock as materialized (select pg_advisory_xact_lock(7033157211)), \
    head as (update store_head set position = position + $1 from lock where id = 1 \
             returning position - $1 as base), ";

const MADE: &str = "\
made as (
    insert into streams (id, name, category, version, first_position, last_position, status)
    select s.id, s.name, s.category, s.version, base + s.first, base + s.last, s.status
      from head, unnest($2::int8[], $3::text[], $4::text[], $5::int8[], $6::int8[], $7::int8[],
                        $8::int2[]) as s (id, name, category, version, first, last, status)
    on conflict (name) do nothing
    returning 1
),
moved as (
    update streams set version = s.version, last_position = base + s.last, status = s.status
      from head, unnest($9::int8[], $10::int8[], $11::int8[], $12::int8[], $13::int2[])
               as s (id, believed, version, last, status)
     where streams.id = s.id and streams.version = s.believed and streams.status = 0
    returning 1
),
written as (
    insert into events (position, stream_id, version, recorded_at, type_id, codec, event_id, data,
                        meta)
    select base + e.at, e.stream_id, e.version, e.recorded_at, e.type_id, e.codec, e.event_id,
           e.data, e.meta
      from head, unnest($14::int8[], $15::int8[], $16::int8[], $17::int8[], $18::int4[],
                        $19::int2[], $20::uuid[], $21::bytea[], $22::bytea[])
               as e (at, stream_id, version, recorded_at, type_id, codec, event_id, data, meta)
),
answered as (
    insert into command_results (key, stream_id, version, position, events, recorded_at)
    select k.key, k.stream_id, k.version, base + k.last, k.events, k.recorded_at
      from head, unnest($23::uuid[], $24::int8[], $25::int8[], $26::int8[], $27::int4[],
                        $28::int8[]) as k (key, stream_id, version, last, events, recorded_at)
),
marked as (
    insert into position_marks (at, position)
    select $29, base from head where marked_at = $29
    on conflict do nothing
)
select base / (case when (select count(*) from made) + (select count(*) from moved) = $30
                    then 1 else 0 end) from head";

async fn put_many(connection: &mut PgConnection, write: &Write<'_>) -> sqlx::Result<i64> {
    let rows = Rows::of(write);
    let text = sqlx::AssertSqlSafe([LOCKED, MADE].concat());
    sqlx::query_scalar(text)
        .bind(write.plan.head.get().cast_signed() - write.base.get().cast_signed())
        .bind(rows.made.id)
        .bind(rows.made.name)
        .bind(rows.made.category)
        .bind(rows.made.version)
        .bind(rows.made.first)
        .bind(rows.made.last)
        .bind(rows.made.status)
        .bind(rows.moved.id)
        .bind(rows.moved.believed)
        .bind(rows.moved.version)
        .bind(rows.moved.last)
        .bind(rows.moved.status)
        .bind(rows.events.at)
        .bind(rows.events.stream_id)
        .bind(rows.events.version)
        .bind(rows.events.recorded_at)
        .bind(rows.events.type_id)
        .bind(rows.events.codec)
        .bind(rows.events.id)
        .bind(rows.events.data)
        .bind(rows.events.meta)
        .bind(rows.answers.key)
        .bind(rows.answers.stream_id)
        .bind(rows.answers.version)
        .bind(rows.answers.last)
        .bind(rows.answers.events)
        .bind(rows.answers.recorded_at)
        .bind(write.mark.map(|mark| mark.at.as_micros()))
        .bind(i64::try_from(write.plan.streams.len()).unwrap_or(i64::MAX))
        .fetch_one(connection)
        .await
}

const MOVED_ONE: &str = "\
moved as (update streams set version = $4, last_position = base + 1, status = $12 from head \
          where id = $2 and version = $3 and streams.status = 0 returning 1), ";

const MADE_ONE: &str = "\
moved as (insert into streams (id, name, category, version, first_position, last_position, status) \
          select $2, $13, $14, $4, base + 1, base + 1, $12 from head where $3 = 0::int8 \
          on conflict (name) do nothing returning 1), ";

const WRITTEN_ONE: &str = "\
written as (insert into events (position, stream_id, version, recorded_at, type_id, codec, \
                                event_id, data, meta) \
            select base + 1, $2, $4, $5, $6, $7, $8, $9, $10 from head), \
answered as (insert into command_results (key, stream_id, version, position, events, recorded_at) \
             select $11, $2, $4, base + 1, 1, $5 from head where $11::uuid is not null) \
select base / (select count(*) from moved) from head";

/// One event for one stream: the same without arrays, which cost a fifth of a millisecond.
async fn put_one(
    connection: &mut PgConnection,
    write: &Write<'_>,
    one: &Accepted<'_>,
    event: &NewEvent,
) -> sqlx::Result<i64> {
    let stream = &one.appended.stream;
    let place = write.places[stream];
    let known = place.version > Version::ZERO;
    let stream_part = if known { MOVED_ONE } else { MADE_ONE };
    let text = sqlx::AssertSqlSafe([LOCKED_ONE, stream_part, WRITTEN_ONE].concat());
    let query = sqlx::query_scalar(text)
        .bind(1_i64)
        .bind(place.id)
        .bind(place.version.get().cast_signed())
        .bind(one.appended.last_version.get().cast_signed())
        .bind(event.recorded_at.as_micros())
        .bind(write.types.id(event))
        .bind(i16::from(event.codec.code()))
        .bind(*event.id.as_uuid())
        .bind(&event.data[..])
        .bind(&event.meta[..])
        .bind(one.key.map(|key| Uuid::from_bytes(*key.as_bytes())))
        .bind(i16::from(write.plan.streams[stream].deleted));
    match known {
        true => query.fetch_one(connection).await,
        false => query.bind(stream.as_str()).bind(stream.category()).fetch_one(connection).await,
    }
}

#[derive(Default)]
struct Rows<'a> {
    made: Made<'a>,
    moved: Moved,
    events: Events<'a>,
    answers: Answers,
}

#[derive(Default)]
struct Made<'a> {
    id: Vec<i64>,
    name: Vec<&'a str>,
    category: Vec<&'a str>,
    version: Vec<i64>,
    first: Vec<i64>,
    last: Vec<i64>,
    status: Vec<i16>,
}

#[derive(Default)]
struct Moved {
    id: Vec<i64>,
    believed: Vec<i64>,
    version: Vec<i64>,
    last: Vec<i64>,
    status: Vec<i16>,
}

#[derive(Default)]
struct Events<'a> {
    at: Vec<i64>,
    stream_id: Vec<i64>,
    version: Vec<i64>,
    recorded_at: Vec<i64>,
    type_id: Vec<Option<i32>>,
    codec: Vec<i16>,
    id: Vec<Uuid>,
    data: Vec<&'a [u8]>,
    meta: Vec<&'a [u8]>,
}

#[derive(Default)]
struct Answers {
    key: Vec<Uuid>,
    stream_id: Vec<i64>,
    version: Vec<i64>,
    last: Vec<i64>,
    events: Vec<i32>,
    recorded_at: Vec<i64>,
}

impl<'a> Rows<'a> {
    fn of(write: &'a Write<'_>) -> Self {
        let mut rows = Self::default();
        let offset = |at: Position| at.get().cast_signed() - write.base.get().cast_signed();
        for (name, change) in &write.plan.streams {
            let place = write.places[*name];
            let (version, last) =
                (change.version.get().cast_signed(), offset(change.last_position));
            let status = i16::from(change.deleted);
            if place.version > Version::ZERO {
                rows.moved.id.push(place.id);
                rows.moved.believed.push(place.version.get().cast_signed());
                rows.moved.version.push(version);
                rows.moved.last.push(last);
                rows.moved.status.push(status);
            } else {
                rows.made.id.push(place.id);
                rows.made.name.push(name.as_str());
                rows.made.category.push(name.category());
                rows.made.version.push(version);
                rows.made.first.push(offset(change.first_position));
                rows.made.last.push(last);
                rows.made.status.push(status);
            }
        }
        for Accepted { appended, events, key } in &write.plan.accepted {
            let stream = write.places[&appended.stream].id;
            let first = (offset(appended.first_position), appended.first_version);
            for (n, event) in (0_u32..).zip(*events) {
                rows.events.at.push(first.0 + i64::from(n));
                rows.events.stream_id.push(stream);
                rows.events.version.push(first.1.plus(u64::from(n)).get().cast_signed());
                rows.events.recorded_at.push(event.recorded_at.as_micros());
                rows.events.type_id.push(write.types.id(event));
                rows.events.codec.push(i16::from(event.codec.code()));
                rows.events.id.push(*event.id.as_uuid());
                rows.events.data.push(&event.data);
                rows.events.meta.push(&event.meta);
            }
            if let Some(key) = key {
                let at = events.last().map_or(0, |event| event.recorded_at.as_micros());
                rows.answers.key.push(Uuid::from_bytes(*key.as_bytes()));
                rows.answers.stream_id.push(stream);
                rows.answers.version.push(appended.last_version.get().cast_signed());
                rows.answers.last.push(offset(appended.last_position));
                rows.answers.events.push(i32::try_from(events.len()).unwrap_or(i32::MAX));
                rows.answers.recorded_at.push(at);
            }
        }
        rows
    }
}
