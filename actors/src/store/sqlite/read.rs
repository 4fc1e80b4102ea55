//! Reading pages, on the pool of read-only connections.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock},
};

use bytes::Bytes;
use futures_util::TryStreamExt;
use sqlx::{
    AssertSqlSafe, Row as _, Sqlite,
    query::Query,
    sqlite::{SqliteArguments, SqliteRow},
};
use uuid::Uuid;

use super::{database::Database, lookup, statement::saturated};
use crate::{
    event::{ContentType, EventId, Position, RecordedEvent, StreamId, Timestamp, Version},
    store::{EventFilter, MAX_PAGE, MAX_PAGE_BYTES, MAX_SCAN, MatchingPage, StoreError},
};

/// The names behind the numbers of event types. A number never changes its meaning, so what was
/// read once stays right; an unknown number means a new type, and the table is read again.
#[derive(Debug, Default)]
pub(super) struct TypeNames(RwLock<Arc<Names>>);

/// Name and schema version of each number.
type Names = BTreeMap<i64, (Arc<str>, u16)>;

impl TypeNames {
    fn known(&self) -> Arc<Names> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    async fn reload(&self, database: &Database) -> Result<Arc<Names>, StoreError> {
        let rows = sqlx::query("select id, name, schema_version from event_types")
            .fetch_all(database.readers()?)
            .await
            .map_err(|error| database.fault(error))?;
        let name = |row: &SqliteRow| {
            Ok((row.try_get(0)?, (row.try_get::<String, _>(1)?.into(), row.try_get(2)?)))
        };
        let names = rows.iter().map(name).collect::<sqlx::Result<BTreeMap<_, _>>>();
        let names = Arc::new(names.map_err(|error| database.fault(error))?);
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&names);
        Ok(names)
    }
}

pub(super) async fn page(
    database: &Database,
    types: &TypeNames,
    after: Position,
    limit: usize,
) -> Result<Vec<RecordedEvent>, StoreError> {
    // CROSS JOIN keeps SQLite's planner from walking the streams first.
    let query = sqlx::query(
        "select e.position, e.version, e.type_id, e.event_id, e.codec, e.recorded_at, e.data, \
         e.meta, s.name from events e cross join streams s on s.id = e.stream_id \
         where e.position > ? order by e.position limit ?",
    );
    let query = query.bind(saturated(after.get())).bind(bounded(limit));
    collect(database, types, query, None).await
}

pub(super) async fn stream_page(
    database: &Database,
    types: &TypeNames,
    stream: &StreamId,
    after: Version,
    limit: usize,
) -> Result<Vec<RecordedEvent>, StoreError> {
    // A deleted stream reads as empty; its events are found by position only.
    let query = sqlx::query(
        "select position, version, type_id, event_id, codec, recorded_at, data, meta from events \
         where stream_id = (select id from streams where name = ? and status = 0) \
         and version > ? order by version limit ?",
    );
    let query = query.bind(stream.to_shared()).bind(saturated(after.get())).bind(bounded(limit));
    collect(database, types, query, Some(stream)).await
}

pub(super) async fn backward_page(
    database: &Database,
    types: &TypeNames,
    stream: &StreamId,
    before: Version,
    limit: usize,
) -> Result<Vec<RecordedEvent>, StoreError> {
    let query = sqlx::query(
        "select position, version, type_id, event_id, codec, recorded_at, data, meta from events \
         where stream_id = (select id from streams where name = ? and status = 0) \
         and version < ? order by version desc limit ?",
    );
    let query = query.bind(stream.to_shared()).bind(saturated(before.get())).bind(bounded(limit));
    collect(database, types, query, Some(stream)).await
}

pub(super) async fn matching_page(
    database: &Database,
    types: &TypeNames,
    filter: &EventFilter,
    after: Position,
    limit: usize,
) -> Result<MatchingPage, StoreError> {
    let head = lookup::head(database).await?;
    let end = head.min(after.plus(MAX_SCAN));
    let mut sql = String::from(
        "select e.position, e.version, e.type_id, e.event_id, e.codec, e.recorded_at, e.data, \
         e.meta, s.name from events e cross join streams s on s.id = e.stream_id \
         where e.position > ? and e.position <= ?",
    );
    let marks = |count: usize| vec!["?"; count].join(",");
    if !filter.types.is_empty() {
        let marks = marks(filter.types.len());
        sql.push_str(&format!(
            " and e.type_id in (select id from event_types where name in ({marks}))"
        ));
    }
    if !filter.categories.is_empty() {
        sql.push_str(&format!(" and s.category in ({})", marks(filter.categories.len())));
    }
    sql.push_str(" order by e.position limit ?");
    // The text is made of literals of this crate; values are only ever bound.
    let mut query = sqlx::query(AssertSqlSafe(sql))
        .persistent(false)
        .bind(saturated(after.get()))
        .bind(saturated(end.get()));
    for name in filter.types.iter().chain(&filter.categories) {
        query = query.bind(Arc::clone(name));
    }
    let limit = limit.min(MAX_PAGE);
    let (events, whole) = gather(database, types, query.bind(bounded(limit)), None).await?;
    let scanned_to = match events.last() {
        // Cut short, so there may be more behind the last one.
        Some(last) if !whole || events.len() == limit => last.position,
        _ => end.max(after),
    };
    Ok(MatchingPage { events, scanned_to })
}

fn bounded(limit: usize) -> i64 {
    saturated(limit.min(MAX_PAGE) as u64)
}

async fn collect(
    database: &Database,
    types: &TypeNames,
    query: Query<'_, Sqlite, SqliteArguments>,
    stream: Option<&StreamId>,
) -> Result<Vec<RecordedEvent>, StoreError> {
    gather(database, types, query, stream).await.map(|(events, _)| events)
}

/// The events, and whether they are all that the query found (or it was cut at
/// [`MAX_PAGE_BYTES`]).
async fn gather(
    database: &Database,
    types: &TypeNames,
    query: Query<'_, Sqlite, SqliteArguments>,
    stream: Option<&StreamId>,
) -> Result<(Vec<RecordedEvent>, bool), StoreError> {
    let mut whole = true;
    let mut page = Page { stream: stream.cloned(), types: types.known(), ..Page::default() };
    {
        let mut rows = query.fetch(database.readers()?);
        while let Some(row) = rows.try_next().await.map_err(|error| database.fault(error))? {
            page.push(&row, stream.is_none()).map_err(|error| database.fault(error))?;
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
    Ok((page.events, whole))
}

#[derive(Debug, Default)]
struct Page {
    events: Vec<RecordedEvent>,
    bytes: usize,
    /// Index and type number of events whose type is not known yet.
    untyped: Vec<(usize, i64)>,
    types: Arc<Names>,
    /// The stream of the last row. Runs of one stream share its name.
    stream: Option<StreamId>,
}

impl Page {
    fn push(&mut self, row: &SqliteRow, named: bool) -> sqlx::Result<()> {
        let codec = row.try_get::<u8, _>(4)?;
        let event = RecordedEvent {
            position: Position::new(row.try_get::<i64, _>(0)?.cast_unsigned()),
            stream: self.stream_of(row, named)?,
            version: Version::new(row.try_get::<i64, _>(1)?.cast_unsigned()),
            id: EventId::new(Uuid::from_slice(row.try_get(3)?).map_err(unreadable)?),
            event_type: Arc::default(),
            schema_version: 0,
            codec: ContentType::from_code(codec)
                .ok_or_else(|| unreadable(format!("content type {codec} is of a newer version")))?,
            data: Bytes::from(row.try_get::<Vec<u8>, _>(6)?),
            meta: Bytes::from(row.try_get::<Vec<u8>, _>(7)?),
            recorded_at: Timestamp::from_micros(row.try_get(5)?),
        };
        self.bytes += event.size();
        self.events.push(event);
        let type_id = row.try_get(2)?;
        match self.types.get(&type_id) {
            Some((name, version)) => {
                let event = self.events.last_mut().expect("it was pushed above");
                event.event_type = Arc::clone(name);
                event.schema_version = *version;
            }
            None => self.untyped.push((self.events.len() - 1, type_id)),
        }
        Ok(())
    }

    fn stream_of(&mut self, row: &SqliteRow, named: bool) -> sqlx::Result<StreamId> {
        let name = if named { Some(row.try_get::<&str, _>(8)?) } else { None };
        match (&self.stream, name) {
            (Some(last), None) => Ok(last.clone()),
            (Some(last), Some(name)) if last.as_str() == name => Ok(last.clone()),
            (_, name) => {
                let stream = StreamId::new(name.unwrap_or_default()).map_err(unreadable)?;
                Ok(self.stream.insert(stream).clone())
            }
        }
    }

    fn name_types(&mut self, database: &Database) -> Result<(), StoreError> {
        for (index, type_id) in self.untyped.drain(..) {
            let (name, version) = self.types.get(&type_id).ok_or_else(|| {
                database.corrupt(format!("event type {type_id} has no row in event_types"))
            })?;
            self.events[index].event_type = Arc::clone(name);
            self.events[index].schema_version = *version;
        }
        Ok(())
    }
}

fn unreadable(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> sqlx::Error {
    sqlx::Error::Decode(error.into())
}
