//! Reading pages, on the shared connections.
//!
//! The events are partitioned by position. A read by position touches the partitions that it
//! needs; a read of one stream is bounded by the stream's first and last position, so that it
//! leaves out the partitions from before and after its time.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::TryStreamExt;
use sqlx::{
    Postgres, Row as _,
    postgres::{PgArguments, PgRow},
    query::Query,
};
use uuid::Uuid;

use super::{
    database::PgDatabase,
    lookup::{self, stream_id},
    types::{Known, Types},
};
use crate::{
    event::{ContentType, EventId, Position, RecordedEvent, StreamId, Timestamp, Version},
    store::{EventFilter, MAX_PAGE, MAX_PAGE_BYTES, MAX_SCAN, MatchingPage, StoreError},
};

/// A counter as PostgreSQL's integer. A read after a place beyond the last possible one finds
/// nothing.
fn saturated(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn bounded(limit: usize) -> i64 {
    saturated(limit.min(MAX_PAGE) as u64)
}

pub(super) async fn page(
    database: &PgDatabase,
    types: &Types,
    after: Position,
    limit: usize,
) -> Result<Vec<RecordedEvent>, StoreError> {
    // Positions are gapless, so the limit is a range, which names the partitions.
    let query = sqlx::query(
        "select e.position, e.version, e.type_id, e.event_id, e.codec, e.recorded_at, e.data, \
         e.meta, s.name from events e join streams s on s.id = e.stream_id \
         where e.position > $1 and e.position <= $2 order by e.position",
    );
    let after = saturated(after.get());
    let asked = query.bind(after).bind(after.saturating_add(bounded(limit)));
    let (events, _) = collect(database, types, asked).await?;
    // Positions have no holes: what does not begin with the next one was archived.
    let next = Position::new(after.cast_unsigned()).next();
    match events.first() {
        Some(first) if first.position == next => Ok(events),
        first => {
            let floor = lookup::floor(database).await?;
            if first.is_some() || next <= floor {
                return Err(database.archived(floor));
            }
            Ok(events)
        }
    }
}

pub(super) async fn stream_page(
    database: &PgDatabase,
    types: &Types,
    stream: &StreamId,
    after: Version,
    limit: usize,
) -> Result<Vec<RecordedEvent>, StoreError> {
    // A deleted stream reads as empty; its events are found by position only.
    let query = sqlx::query(
        "select e.position, e.version, e.type_id, e.event_id, e.codec, e.recorded_at, e.data, \
         e.meta, s.version from streams s left join lateral ( \
         select * from events where stream_id = s.id and position >= s.first_position \
         and position <= s.last_position and version > $2 order by version limit $3) e on true \
         where s.name = $1 and s.status = 0 order by e.version",
    );
    let query = query.bind(stream.as_str()).bind(saturated(after.get())).bind(bounded(limit));
    let (events, last) = collect_stream(database, types, query, stream).await?;
    // Versions have no holes: what does not begin with the next one was archived.
    match events.first().map_or(last, |first| first.version) {
        found if found <= after || (!events.is_empty() && found == after.next()) => Ok(events),
        _ if limit == 0 => Ok(events),
        _ => Err(database.archived(lookup::floor(database).await?)),
    }
}

pub(super) async fn backward_page(
    database: &PgDatabase,
    types: &Types,
    stream: &StreamId,
    before: Version,
    limit: usize,
) -> Result<Vec<RecordedEvent>, StoreError> {
    let query = sqlx::query(
        "select e.position, e.version, e.type_id, e.event_id, e.codec, e.recorded_at, e.data, \
         e.meta, s.version from streams s left join lateral ( \
         select * from events where stream_id = s.id and position >= s.first_position \
         and position <= s.last_position and version < $2 order by version desc limit $3) e \
         on true where s.name = $1 and s.status = 0 order by e.version desc",
    );
    let query = query.bind(stream.as_str()).bind(saturated(before.get())).bind(bounded(limit));
    let (events, last) = collect_stream(database, types, query, stream).await?;
    let wanted = last.min(before.minus(1));
    match events.first().map_or(Version::ZERO, |first| first.version) == wanted || limit == 0 {
        true => Ok(events),
        false => Err(database.archived(lookup::floor(database).await?)),
    }
}

pub(super) async fn matching_page(
    database: &PgDatabase,
    types: &Types,
    filter: &EventFilter,
    after: Position,
    limit: usize,
) -> Result<MatchingPage, StoreError> {
    let head = lookup::head(database).await?;
    let end = head.min(after.plus(MAX_SCAN));
    let names = |names: &[Arc<str>]| -> Option<Vec<String>> {
        (!names.is_empty()).then(|| names.iter().map(|name| name.to_string()).collect())
    };
    let query = sqlx::query(
        "select e.position, e.version, e.type_id, e.event_id, e.codec, e.recorded_at, e.data, \
         e.meta, s.name from events e join streams s on s.id = e.stream_id \
         where e.position > $1 and e.position <= $2 \
         and ($3::text[] is null \
              or e.type_id = any(array(select id from event_types where name = any($3)))) \
         and ($4::text[] is null or s.category = any($4)) \
         order by e.position limit $5",
    );
    let limit = limit.min(MAX_PAGE);
    let query = query
        .bind(saturated(after.get()))
        .bind(saturated(end.get()))
        .bind(names(&filter.types))
        .bind(names(&filter.categories))
        .bind(bounded(limit));
    let (events, whole) = collect(database, types, query).await?;
    // Asked for afterwards: what was taken out meanwhile was noted before it went.
    let floor = lookup::floor(database).await?;
    if after < floor {
        return Err(database.archived(floor));
    }
    let scanned_to = match events.last() {
        // Cut short, so there may be more behind the last one.
        Some(last) if !whole || events.len() == limit => last.position,
        _ => end.max(after),
    };
    Ok(MatchingPage { events, scanned_to })
}

/// The events of a stream, and its last version ([`Version::ZERO`] if there is no such stream), of
/// one look: without events there is one row, with the version alone.
async fn collect_stream(
    database: &PgDatabase,
    types: &Types,
    query: Query<'_, Postgres, PgArguments>,
    stream: &StreamId,
) -> Result<(Vec<RecordedEvent>, Version), StoreError> {
    let (events, _, last) = collect_rows(database, types, query, Some(stream)).await?;
    Ok((events, last))
}

/// The events, and whether they are all that the query found (or it was cut at
/// [`MAX_PAGE_BYTES`]).
async fn collect(
    database: &PgDatabase,
    types: &Types,
    query: Query<'_, Postgres, PgArguments>,
) -> Result<(Vec<RecordedEvent>, bool), StoreError> {
    collect_rows(database, types, query, None).await.map(|(events, whole, _)| (events, whole))
}

async fn collect_rows(
    database: &PgDatabase,
    types: &Types,
    query: Query<'_, Postgres, PgArguments>,
    stream: Option<&StreamId>,
) -> Result<(Vec<RecordedEvent>, bool, Version), StoreError> {
    let (mut whole, mut last) = (true, Version::ZERO);
    let mut page = Page { stream: stream.cloned(), types: types.known(), ..Page::default() };
    {
        let mut rows = query.fetch(database.pool()?);
        while let Some(row) = rows.try_next().await.map_err(|error| database.fault(error))? {
            let fault = |error| database.fault(error);
            if stream.is_some() {
                last = Version::new(row.try_get::<i64, _>(8).map_err(fault)?.cast_unsigned());
                if row.try_get::<Option<i64>, _>(0).map_err(fault)?.is_none() {
                    continue;
                }
            }
            page.push(&row, stream.is_none()).map_err(fault)?;
            if page.bytes >= MAX_PAGE_BYTES {
                whole = false;
                break;
            }
        }
    }
    if !page.untyped.is_empty() {
        page.types = types.reload(database).await?;
        page.name_types(database)?;
    }
    Ok((page.events, whole, last))
}

#[derive(Debug, Default)]
struct Page {
    events: Vec<RecordedEvent>,
    bytes: usize,
    /// Index and type number of events whose type is not known yet.
    untyped: Vec<(usize, i32)>,
    types: Arc<Known>,
    /// The stream of the last row. Runs of one stream share its name.
    stream: Option<StreamId>,
}

impl Page {
    fn push(&mut self, row: &PgRow, named: bool) -> sqlx::Result<()> {
        let codec = row.try_get::<i16, _>(4)?;
        let known = u8::try_from(codec).ok().and_then(ContentType::from_code);
        let event = RecordedEvent {
            position: Position::new(row.try_get::<i64, _>(0)?.cast_unsigned()),
            stream: self.stream_of(row, named)?,
            version: Version::new(row.try_get::<i64, _>(1)?.cast_unsigned()),
            id: EventId::new(row.try_get::<Uuid, _>(3)?),
            event_type: Arc::default(),
            schema_version: 0,
            codec: known.ok_or_else(|| {
                let text = format!("content type {codec} is of a newer version");
                sqlx::Error::Decode(text.into())
            })?,
            data: Bytes::copy_from_slice(row.try_get::<&[u8], _>(6)?),
            meta: Bytes::copy_from_slice(row.try_get::<&[u8], _>(7)?),
            recorded_at: Timestamp::from_micros(row.try_get(5)?),
        };
        self.bytes += event.size();
        self.events.push(event);
        let type_id = row.try_get(2)?;
        match self.types.name(type_id) {
            Some((name, version)) => {
                let event = self.events.last_mut().expect("it was pushed above");
                event.event_type = Arc::clone(name);
                event.schema_version = *version;
            }
            None => self.untyped.push((self.events.len() - 1, type_id)),
        }
        Ok(())
    }

    fn stream_of(&mut self, row: &PgRow, named: bool) -> sqlx::Result<StreamId> {
        match &self.stream {
            Some(last) if !named => Ok(last.clone()),
            Some(last) if last.as_str() == row.try_get::<&str, _>(8)? => Ok(last.clone()),
            _ => {
                let stream = stream_id(row, 8)?;
                Ok(self.stream.insert(stream).clone())
            }
        }
    }

    fn name_types(&mut self, database: &PgDatabase) -> Result<(), StoreError> {
        for (index, type_id) in self.untyped.drain(..) {
            let (name, version) = self.types.name(type_id).ok_or_else(|| {
                database.corrupt(format!("event type {type_id} has no row in event_types"))
            })?;
            self.events[index].event_type = Arc::clone(name);
            self.events[index].schema_version = *version;
        }
        Ok(())
    }
}
