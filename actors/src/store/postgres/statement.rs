//! The statement that writes a batch: one round trip, all or nothing, and nothing that more than
//! one append changes.
//!
//! 1. The lock of appending is taken together with all others who do the same. Who holds it alone
//!    ([`append`](super::append), under the lock) keeps them out.
//! 2. The first event is written at the position behind the head that the batch was planned on. If
//!    somebody else's event is there, or comes to be there while this one waits for them, nothing
//!    is written: the rest of the statement hangs on that row. So the log is as it was planned on,
//!    and all that was known of streams still holds.
//! 3. A new stream or a key that is there all the same was not looked for; it stops the first event
//!    likewise.
//! 4. So does an owner of a category to which something comes from outside. Who becomes the owner
//!    waits until no statement is under way that may not have seen that (`Notes::own`).
//! 5. The other events, the rows of new streams and the answers to keys follow.
//!
//! Rows of streams that were there before are not touched, but for the tombstone: see
//! [`settle`](super::settle).

use sqlx::PgConnection;
use uuid::Uuid;

use super::look::categories;
use crate::{
    event::{NewEvent, Position, StreamId, Version},
    store::plan::{Accepted, Mark, Plan, StreamChange},
};

/// Takes the lock of appending alone.
pub(super) const LOCK: &str = "begin; select pg_advisory_xact_lock(7033157211)";

/// Where a stream of the batch is believed to be.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    /// Its number.
    pub(super) number: i64,
    /// Its version; zero if it is to be made.
    pub(super) version: Version,
}

/// A plan with all that has to be known to write it.
#[derive(Debug)]
pub(super) struct Write<'a> {
    pub(super) plan: &'a Plan<'a>,
    /// The head that the plan was made on.
    pub(super) base: Position,
    /// Of each stream of the plan, in its order.
    pub(super) places: &'a [Place],
    /// The number of each event's type, in the order of the events.
    pub(super) types: &'a [i32],
    pub(super) mark: Option<Mark>,
}

/// Writes it; answers whether it is written. If not, something was not as it was planned on.
pub(super) async fn put(connection: &mut PgConnection, write: &Write<'_>) -> sqlx::Result<bool> {
    match &*write.plan.accepted {
        [one]
            if one.events.len() == 1
                && write.mark.is_none()
                && write.all_are_plain()
                && (one.key.is_some() || !one.outside) =>
        {
            put_one(connection, write, one, &one.events[0]).await
        }
        _ => put_many(connection, write).await,
    }
}

const MANY: &str = "\
with first as (
    insert into events (position, stream_id, version, recorded_at, type_id, codec, event_id, data,
                        meta)
    select $1, $2, $3, $4, $5, $6, $7, $8, $9
     where pg_advisory_xact_lock_shared(7033157211) is not null
       and not exists (select from streams where name = any($19::text[]))
       and not exists (select from command_results where key = any($28::uuid[]))
       and not exists (select from category_owners where category = any($34::text[]))
    on conflict (position) do nothing
    returning 1
),
rest as (
    insert into events (position, stream_id, version, recorded_at, type_id, codec, event_id, data,
                        meta)
    select $1 + e.n, e.stream_id, e.version, e.recorded_at, e.type_id, e.codec, e.event_id, e.data,
           e.meta
      from first, unnest($10::int8[], $11::int8[], $12::int8[], $13::int4[], $14::int2[],
                         $15::uuid[], $16::bytea[], $17::bytea[]) with ordinality
               as e (stream_id, version, recorded_at, type_id, codec, event_id, data, meta, n)
),
made as (
    insert into streams (id, name, category, version, first_position, last_position, status)
    select s.* from first,
           unnest($18::int8[], $19::text[], $20::text[], $21::int8[], $22::int8[], $23::int8[],
                  $24::int2[]) as s
),
ended as (
    update streams set version = s.version, last_position = s.last, status = 1
      from first, unnest($25::int8[], $26::int8[], $27::int8[]) as s (id, version, last)
     where streams.id = s.id
),
answered as (
    insert into command_results (key, stream_id, version, position, events, recorded_at)
    select k.*, (extract(epoch from clock_timestamp()) * 1000000)::int8 from first,
           unnest($28::uuid[], $29::int8[], $30::int8[], $31::int8[], $32::int4[]) as k
),
marked as (
    update store_head set marked_at = $33 from first
     where id = 1 and $33 / 60000000 > coalesce(marked_at / 60000000, -1)
    returning 1
),
noted as (
    insert into position_marks (at, position) select $33, $1 - 1 from marked on conflict do nothing
)
select count(*) from first";

async fn put_many(connection: &mut PgConnection, write: &Write<'_>) -> sqlx::Result<bool> {
    let (first, rest) = Events::of(write);
    let (made, ended, answers) = (Made::of(write), Ended::of(write), Answers::of(write));
    let event = first.event;
    let written: i64 = sqlx::query_scalar(MANY)
        .bind(write.base.next().get().cast_signed())
        .bind(first.stream)
        .bind(first.version)
        .bind(event.recorded_at.as_micros())
        .bind(first.event_type)
        .bind(i16::from(event.codec.code()))
        .bind(*event.id.as_uuid())
        .bind(&event.data[..])
        .bind(&event.meta[..])
        .bind(rest.stream)
        .bind(rest.version)
        .bind(rest.recorded_at)
        .bind(rest.event_type)
        .bind(rest.codec)
        .bind(rest.id)
        .bind(rest.data)
        .bind(rest.meta)
        .bind(made.number)
        .bind(made.name)
        .bind(made.category)
        .bind(made.version)
        .bind(made.first)
        .bind(made.last)
        .bind(made.status)
        .bind(ended.number)
        .bind(ended.version)
        .bind(ended.last)
        .bind(answers.key)
        .bind(answers.stream)
        .bind(answers.version)
        .bind(answers.last)
        .bind(answers.events)
        .bind(write.mark.map(|mark| mark.at.as_micros()))
        .bind(write.outside())
        .fetch_one(connection)
        .await?;
    Ok(written == 1)
}

const ONE: &str = "\
insert into events (position, stream_id, version, recorded_at, type_id, codec, event_id, data, meta) \
select $1, $2, $3, $4, $5, $6, $7, $8, $9 \
 where pg_advisory_xact_lock_shared(7033157211) is not null \
on conflict (position) do nothing";

macro_rules! one_keyed {
    ($and:literal) => {
        concat!(
            "with first as ( \
                insert into events (position, stream_id, version, recorded_at, type_id, codec, \
                                    event_id, data, meta) \
                select $1, $2, $3, $4, $5, $6, $7, $8, $9 \
                 where pg_advisory_xact_lock_shared(7033157211) is not null \
                   and not exists (select from command_results where key = $10) ",
            $and,
            "on conflict (position) do nothing returning 1) \
             insert into command_results (key, stream_id, version, position, events, recorded_at) \
             select $10, $2, $3, $1, 1, (extract(epoch from clock_timestamp()) * 1000000)::int8 \
               from first"
        )
    };
}

const ONE_KEYED: &str = one_keyed!("");

const ONE_FROM_OUTSIDE: &str =
    one_keyed!("and not exists (select from category_owners where category = $11) ");

/// One event for one stream that is there: the same without arrays, which cost a fifth of a
/// millisecond.
async fn put_one(
    connection: &mut PgConnection,
    write: &Write<'_>,
    one: &Accepted<'_>,
    event: &NewEvent,
) -> sqlx::Result<bool> {
    let text = match (one.key, one.outside) {
        (None, _) => ONE,
        (Some(_), false) => ONE_KEYED,
        (Some(_), true) => ONE_FROM_OUTSIDE,
    };
    let query = sqlx::query(text)
        .bind(write.base.next().get().cast_signed())
        .bind(write.places[0].number)
        .bind(one.appended.last_version.get().cast_signed())
        .bind(event.recorded_at.as_micros())
        .bind(write.types[0])
        .bind(i16::from(event.codec.code()))
        .bind(*event.id.as_uuid())
        .bind(&event.data[..])
        .bind(&event.meta[..]);
    let query = match one.key {
        Some(key) => query.bind(Uuid::from_bytes(*key.as_bytes())),
        None => query,
    };
    let query = match one.outside {
        true => query.bind(one.appended.stream.category()),
        false => query,
    };
    Ok(query.execute(connection).await?.rows_affected() == 1)
}

impl Write<'_> {
    /// The categories to which it writes from outside.
    fn outside(&self) -> Vec<&str> {
        let outside = self.plan.accepted.iter().filter(|accepted| accepted.outside);
        categories(outside.map(|accepted| &accepted.appended.stream))
    }

    /// No stream is made or ended.
    fn all_are_plain(&self) -> bool {
        let known = self.places.iter().all(|place| place.version > Version::ZERO);
        known && self.plan.streams.values().all(|change| !change.deleted)
    }

    /// The number of an accepted append's stream.
    fn number(&self, stream: &StreamId) -> i64 {
        let at = self.plan.streams.get_index_of(stream);
        at.map_or(0, |at| self.places[at].number)
    }

    /// The streams whose rows are written: those that are made, and those that end.
    fn rows(&self, made: bool) -> impl Iterator<Item = (&StreamId, &StreamChange, i64)> {
        let streams = self.plan.streams.iter().zip(self.places);
        streams
            .filter(move |(_, place)| (place.version == Version::ZERO) == made)
            .map(|((name, change), place)| (*name, change, place.number))
    }
}

/// The first event, which is written before all else.
struct First<'a> {
    stream: i64,
    version: i64,
    event_type: i32,
    event: &'a NewEvent,
}

#[derive(Default)]
struct Events<'a> {
    stream: Vec<i64>,
    version: Vec<i64>,
    recorded_at: Vec<i64>,
    event_type: Vec<i32>,
    codec: Vec<i16>,
    id: Vec<Uuid>,
    data: Vec<&'a [u8]>,
    meta: Vec<&'a [u8]>,
}

impl<'a> Events<'a> {
    /// The first, and the rest as columns.
    fn of(write: &Write<'a>) -> (First<'a>, Self) {
        let mut first = None;
        let mut rest = Self::default();
        let mut types = write.types.iter().copied();
        for Accepted { appended, events, .. } in &write.plan.accepted {
            let stream = write.number(&appended.stream);
            for (n, event) in (0..).zip(*events) {
                let version = appended.first_version.plus(n).get().cast_signed();
                let event_type = types.next().expect("a number for each event");
                if first.is_none() {
                    first = Some(First { stream, version, event_type, event });
                    continue;
                }
                rest.stream.push(stream);
                rest.version.push(version);
                rest.recorded_at.push(event.recorded_at.as_micros());
                rest.event_type.push(event_type);
                rest.codec.push(i16::from(event.codec.code()));
                rest.id.push(*event.id.as_uuid());
                rest.data.push(&event.data);
                rest.meta.push(&event.meta);
            }
        }
        (first.expect("a plan that is written has an event"), rest)
    }
}

#[derive(Default)]
struct Made<'a> {
    number: Vec<i64>,
    name: Vec<&'a str>,
    category: Vec<&'a str>,
    version: Vec<i64>,
    first: Vec<i64>,
    last: Vec<i64>,
    status: Vec<i16>,
}

impl<'a> Made<'a> {
    fn of(write: &'a Write<'_>) -> Self {
        let mut made = Self::default();
        for (name, change, number) in write.rows(true) {
            made.number.push(number);
            made.name.push(name.as_str());
            made.category.push(name.category());
            made.version.push(change.version.get().cast_signed());
            made.first.push(change.first_position.get().cast_signed());
            made.last.push(change.last_position.get().cast_signed());
            made.status.push(i16::from(change.deleted));
        }
        made
    }
}

#[derive(Default)]
struct Ended {
    number: Vec<i64>,
    version: Vec<i64>,
    last: Vec<i64>,
}

impl Ended {
    fn of(write: &Write<'_>) -> Self {
        let mut ended = Self::default();
        for (_, change, number) in write.rows(false).filter(|(_, change, _)| change.deleted) {
            ended.number.push(number);
            ended.version.push(change.version.get().cast_signed());
            ended.last.push(change.last_position.get().cast_signed());
        }
        ended
    }
}

#[derive(Default)]
struct Answers {
    key: Vec<Uuid>,
    stream: Vec<i64>,
    version: Vec<i64>,
    last: Vec<i64>,
    events: Vec<i32>,
}

impl Answers {
    fn of(write: &Write<'_>) -> Self {
        let mut answers = Self::default();
        for Accepted { appended, events, key, .. } in &write.plan.accepted {
            let Some(key) = key else { continue };
            answers.key.push(Uuid::from_bytes(*key.as_bytes()));
            answers.stream.push(write.number(&appended.stream));
            answers.version.push(appended.last_version.get().cast_signed());
            answers.last.push(appended.last_position.get().cast_signed());
            answers.events.push(i32::try_from(events.len()).unwrap_or(i32::MAX));
        }
        answers
    }
}
