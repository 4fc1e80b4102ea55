//! One look at what a batch needs to know, and at what others have appended meanwhile.

use std::collections::BTreeMap;

use sqlx::{PgConnection, Row as _, postgres::PgRow};
use uuid::Uuid;

use super::{
    lookup::{appended, stream_id, version_of_s},
    memory::{Memory, Remembered},
    types::{Type, columns},
};
use crate::{
    event::{Position, StreamId, Timestamp, Version},
    store::{Append, Appended, IdempotencyKey, plan::StreamState},
};

/// A memory is brought up to date from the events behind its head if they are no more than this;
/// it is made anew otherwise.
const CATCH_UP: u64 = 5_000;

/// All of it is of one moment: it is one statement.
const LOOK: &str = concat!(
    "with h as materialized (select position, marked_at from store_head where id = 1), \
     head as materialized (select coalesce((select e.position from events e, h \
         where e.position >= h.position + 1 order by e.position desc limit 1), h.position) as position \
         from h) \
     select 0, head.position, h.marked_at, 0, null::text, null::uuid, null::text from head, h \
     union all \
     select 1, s.id, ",
    version_of_s!(),
    ", s.status, s.name, null, null from streams s, h where s.name = any($1) \
     union all \
     select 2, s.id, t.version, s.status, null, null, null \
       from (select e.stream_id, max(e.version) as version from events e \
              where e.position > $2 and e.position <= $3 group by e.stream_id) t \
       join streams s on s.id = t.stream_id \
     union all \
     select 3, c.version, c.position, c.events, s.name, c.key, null \
       from command_results c join streams s on s.id = c.stream_id where c.key = any($4) \
     union all \
     select 4, t.id, 0, t.schema_version, t.name, null, null \
       from unnest($5::text[], $6::int4[]) m (name, schema_version) \
       join event_types t on t.name = m.name and t.schema_version = m.schema_version \
     union all \
     select 5, max(a.to_position), 0, 0, null, null, null from archives a where a.to_position > $2 \
     union all \
     select 6, 0, 0, 0, o.category, null, o.owner from category_owners o where o.category = any($7)"
);

/// What a look found besides the streams, which are remembered.
#[derive(Debug, Default)]
pub(super) struct Looked {
    /// The first answers to keys of the batch.
    pub(super) answers: BTreeMap<IdempotencyKey, Appended>,
    /// Whose the categories are to which the batch writes from outside.
    pub(super) owners: BTreeMap<String, String>,
    /// Types that have a number.
    pub(super) types: Vec<(i32, Type)>,
    /// The time of the last mark.
    pub(super) marked: Option<Timestamp>,
    /// Others have appended since the last look.
    pub(super) others: bool,
    /// All that was remembered was forgotten, with streams that were not asked for.
    forgot: bool,
}

/// Looks, and brings the memory up to date.
pub(super) async fn look(
    connection: &mut PgConnection,
    memory: &mut Memory,
    batch: &[Append],
    missing: &[Type],
) -> sqlx::Result<Looked> {
    let before = memory.head;
    let mut looked = once(connection, memory, batch, missing).await?;
    if looked.forgot {
        looked = once(connection, memory, batch, missing).await?;
    }
    looked.others = memory.head > before;
    memory.stale = false;
    Ok(looked)
}

async fn once(
    connection: &mut PgConnection,
    memory: &mut Memory,
    batch: &[Append],
    missing: &[Type],
) -> sqlx::Result<Looked> {
    let unknown = batch.iter().filter(|append| memory.get(&append.stream).is_none());
    let mut names: Vec<_> = unknown.map(|append| append.stream.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    let keys = batch.iter().filter_map(|append| append.key);
    let keys: Vec<_> = keys.map(|key| Uuid::from_bytes(*key.as_bytes())).collect();
    let (types, versions) = columns(missing);
    let outside = batch.iter().filter(|append| append.outside);
    let rows = sqlx::query(LOOK)
        .bind(names)
        .bind(memory.head.get().cast_signed())
        .bind(memory.head.plus(CATCH_UP).get().cast_signed())
        .bind(keys)
        .bind(types)
        .bind(versions)
        .bind(categories(outside.map(|append| &append.stream)))
        .fetch_all(connection)
        .await?;
    let mut looked = Looked::default();
    let mut found = Vec::new();
    for row in &rows {
        match row.try_get::<i32, _>(0)? {
            0 => {
                let head = Position::new(row.try_get::<i64, _>(1)?.cast_unsigned());
                if head > memory.head.plus(CATCH_UP) || head < memory.head {
                    memory.forget();
                    looked.forgot = true;
                }
                memory.head = head;
                looked.marked = row.try_get::<Option<i64>, _>(2)?.map(Timestamp::from_micros);
            }
            1 => {
                let state = state(row)?;
                found.push((stream_id(row, 4)?, Remembered { number: row.try_get(1)?, state }));
            }
            2 => {
                let StreamState { version, deleted } = state(row)?;
                memory.moved(row.try_get(1)?, version, deleted);
            }
            3 => {
                let (key, answer) = answer(row)?;
                looked.answers.insert(key, answer);
            }
            // What was appended since was archived in part: it tells nothing of streams any more.
            5 => {
                if row.try_get::<Option<i64>, _>(1)?.is_some() {
                    memory.forget();
                    looked.forgot = true;
                }
            }
            6 => {
                looked.owners.insert(row.try_get(4)?, row.try_get(6)?);
            }
            _ => {
                let version = u16::try_from(row.try_get::<i32, _>(3)?).unwrap_or(u16::MAX);
                let number = i32::try_from(row.try_get::<i64, _>(1)?).unwrap_or_default();
                looked.types.push((number, (row.try_get::<&str, _>(4)?.into(), version)));
            }
        }
    }
    for (name, stream) in found {
        // With the others went those of the batch that were not asked for.
        looked.forgot |= memory.put(name, stream);
    }
    Ok(looked)
}

/// The categories of these streams, each once.
pub(super) fn categories<'a>(streams: impl Iterator<Item = &'a StreamId>) -> Vec<&'a str> {
    let mut categories: Vec<_> = streams.map(StreamId::category).collect();
    categories.sort_unstable();
    categories.dedup();
    categories
}

fn state(row: &PgRow) -> sqlx::Result<StreamState> {
    Ok(StreamState {
        version: Version::new(row.try_get::<i64, _>(2)?.cast_unsigned()),
        deleted: row.try_get::<i32, _>(3)? != 0,
    })
}

fn answer(row: &PgRow) -> sqlx::Result<(IdempotencyKey, Appended)> {
    let key = IdempotencyKey::new(row.try_get::<Uuid, _>(5)?.into_bytes());
    let stream: StreamId = stream_id(row, 4)?;
    Ok((key, appended(stream, row.try_get(1)?, row.try_get(2)?, row.try_get(3)?)))
}
