//! Reading pages, on the shared connections.
//!
//! The events are partitioned by position. A read by position touches the partitions that it
//! needs. A read of one stream is bounded by the first and last position that its row has, and
//! takes in addition what lies behind the place up to which those rows are right.
//!
//! A page is bounded in bytes. What the server has begun to send it sends to the end, so it is
//! asked for no more rows than fit if they are as large as the last ones, and a connection with
//! too much still to come is closed.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

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
    lookup::{self, version_of_s},
    names::Names,
    types::{Known, Types},
};
use crate::{
    event::{ContentType, EventId, Position, RecordedEvent, StreamId, Timestamp, Version},
    store::{EventFilter, MAX_PAGE, MAX_PAGE_BYTES, MAX_SCAN, MatchingPage, StoreError},
};

/// Reads pages of events.
#[derive(Debug)]
pub(super) struct Reader {
    database: Arc<PgDatabase>,
    types: Arc<Types>,
    names: Names,
    /// The mean size of the events of the last page, in bytes.
    mean: AtomicU64,
}

/// What a query found.
struct Found {
    events: Vec<RecordedEvent>,
    /// Whether that is all, or the page was full before.
    whole: bool,
    /// The last version of the stream that was asked for.
    last: Version,
}

/// The column with the last version of a stream, behind those of an event.
const STREAM_COLUMN: usize = 9;

/// A counter as PostgreSQL's integer. A read after a place beyond the last possible one finds
/// nothing.
fn saturated(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// What is read of an event. With the number of its stream, and not its name.
macro_rules! columns {
    () => {
        "select e.position, e.version, e.type_id, e.event_id, e.codec, e.recorded_at, e.data, \
         e.meta, e.stream_id from events e "
    };
}

/// The events of a stream that was not deleted, and its last version, of one look: without events
/// there is one row, with the version alone. The parts of the log that can hold events of it are
/// those between its first event and the last one that its row knows of, and those behind the place
/// up to which all rows are right.
macro_rules! of_stream {
    ($bound:literal, $order:literal) => {
        concat!(
            "select e.position, e.version, e.type_id, e.event_id, e.codec, e.recorded_at, e.data, \
             e.meta, e.stream_id, v.version from store_head h cross join streams s \
             cross join lateral (select ",
            version_of_s!(),
            " as version) v left join lateral ( \
             select * from events where stream_id = s.id \
             and (position between s.first_position and s.last_position \
                  or position >= h.position + 1) ",
            $bound,
            "order by ",
            $order,
            " limit $3) e on true where h.id = 1 and s.name = $1 and s.status = 0 order by e.",
            $order
        )
    };
}

const ALL: &str = concat!(
    columns!(),
    // Positions are gapless, so the limit is a range, which names the partitions.
    "where e.position > $1 and e.position <= $2 order by e.position"
);

const STREAM: &str = of_stream!("and version > $2 ", "version");

const BACKWARD: &str = of_stream!("and version < $2 ", "version desc");

const TYPES: &str = concat!(
    columns!(),
    "where e.position > $1 and e.position <= $2 \
     and e.type_id = any(array(select id from event_types where name = any($3))) \
     order by e.position limit $4"
);

const CATEGORIES: &str = concat!(
    columns!(),
    "join streams s on s.id = e.stream_id where e.position > $1 and e.position <= $2 \
     and ($3::text[] is null \
          or e.type_id = any(array(select id from event_types where name = any($3)))) \
     and s.category = any($5) order by e.position limit $4"
);

impl Reader {
    pub(super) fn new(database: Arc<PgDatabase>, types: Arc<Types>) -> Self {
        Self { database, types, names: Names::default(), mean: AtomicU64::new(0) }
    }

    pub(super) async fn page(
        &self,
        after: Position,
        limit: usize,
    ) -> Result<Vec<RecordedEvent>, StoreError> {
        let after = saturated(after.get());
        let end = after.saturating_add(saturated(self.fitting(limit) as u64));
        let found = self.collect(sqlx::query(ALL).bind(after).bind(end), usize::MAX).await?;
        let events = found.events;
        // Positions have no holes: what does not begin with the next one was archived.
        let next = Position::new(after.cast_unsigned()).next();
        match events.first() {
            Some(first) if first.position == next => Ok(events),
            first => {
                let floor = lookup::floor(&self.database).await?;
                if first.is_some() || next <= floor {
                    return Err(self.database.archived(floor));
                }
                Ok(events)
            }
        }
    }

    /// A deleted stream reads as empty; its events are found by position only.
    pub(super) async fn stream_page(
        &self,
        stream: &StreamId,
        after: Version,
        limit: usize,
    ) -> Result<Vec<RecordedEvent>, StoreError> {
        let (events, last) = self.of_stream(STREAM, stream, after, limit).await?;
        // Versions have no holes: what does not begin with the next one was archived.
        match events.first().map_or(last, |first| first.version) {
            found if found <= after || (!events.is_empty() && found == after.next()) => Ok(events),
            _ if limit == 0 => Ok(events),
            _ => Err(self.database.archived(lookup::floor(&self.database).await?)),
        }
    }

    pub(super) async fn backward_page(
        &self,
        stream: &StreamId,
        before: Version,
        limit: usize,
    ) -> Result<Vec<RecordedEvent>, StoreError> {
        let (events, last) = self.of_stream(BACKWARD, stream, before, limit).await?;
        let wanted = last.min(before.minus(1));
        match events.first().map_or(Version::ZERO, |first| first.version) == wanted || limit == 0 {
            true => Ok(events),
            false => Err(self.database.archived(lookup::floor(&self.database).await?)),
        }
    }

    /// The events of a stream, and its last version; [`Version::ZERO`] if there is no such stream.
    async fn of_stream(
        &self,
        text: &'static str,
        stream: &StreamId,
        from: Version,
        limit: usize,
    ) -> Result<(Vec<RecordedEvent>, Version), StoreError> {
        let limit = self.fitting(limit);
        let query = sqlx::query(text)
            .bind(stream.as_str())
            .bind(saturated(from.get()))
            .bind(saturated(limit as u64));
        let found = self.collect(query, limit).await?;
        Ok((found.events, found.last))
    }

    pub(super) async fn matching_page(
        &self,
        filter: &EventFilter,
        after: Position,
        limit: usize,
    ) -> Result<MatchingPage, StoreError> {
        if limit == 0 {
            return Ok(MatchingPage { events: Vec::new(), scanned_to: after });
        }
        let names = |names: &[Arc<str>]| -> Option<Vec<String>> {
            (!names.is_empty()).then(|| names.iter().map(|name| name.to_string()).collect())
        };
        let (types, categories) = (names(&filter.types), names(&filter.categories));
        let from = saturated(after.get());
        // Parts of the log without such events are left out.
        let (head, next) = match &categories {
            None => (lookup::head(&self.database).await?, from),
            Some(names) => lookup::head_and_next(&self.database, names, from).await?,
        };
        let next = Position::new(next.cast_unsigned());
        let end = head.min(next.plus(MAX_SCAN));
        let limit = self.fitting(limit);
        let places = (saturated(next.get()), saturated(end.get()));
        let found = match (types, categories) {
            _ if end <= next => Found { events: Vec::new(), whole: true, last: Version::ZERO },
            (None, None) => {
                let end = places.1.min(places.0.saturating_add(saturated(limit as u64)));
                self.collect(sqlx::query(ALL).bind(places.0).bind(end), limit).await?
            }
            (Some(types), None) => {
                let query = sqlx::query(TYPES).bind(places.0).bind(places.1).bind(types);
                self.collect(query.bind(saturated(limit as u64)), limit).await?
            }
            (types, Some(categories)) => {
                let query = sqlx::query(CATEGORIES).bind(places.0).bind(places.1).bind(types);
                let query = query.bind(saturated(limit as u64)).bind(categories);
                self.collect(query, limit).await?
            }
        };
        // What was archived cannot be passed over: it may hold what is asked for. Asked for
        // afterwards, as the note comes before the partition goes.
        let floor = lookup::floor(&self.database).await?;
        if after < floor {
            return Err(self.database.archived(floor));
        }
        let scanned_to = match found.events.last() {
            // Cut short, so there may be more behind the last one.
            Some(last) if !found.whole => last.position,
            _ => end.max(next).min(head).max(after),
        };
        Ok(MatchingPage { events: found.events, scanned_to })
    }

    /// How many events may be asked for: as many as fit into a page if they are like the last.
    fn fitting(&self, limit: usize) -> usize {
        let mean = self.mean.load(Ordering::Relaxed).max(1);
        let fit = usize::try_from(MAX_PAGE_BYTES as u64 / mean).unwrap_or(usize::MAX);
        // Never none of what somebody asks for.
        limit.min(MAX_PAGE).min(fit.saturating_add(1))
    }

    /// The events of a query that asks for this many.
    async fn collect(
        &self,
        query: Query<'_, Postgres, PgArguments>,
        limit: usize,
    ) -> Result<Found, StoreError> {
        let fault = |error| self.database.fault(error);
        let mut connection = self.database.pool()?.acquire().await.map_err(fault)?;
        let mut page = Vec::new();
        let (mut bytes, mut cut, mut last) = (0, false, Version::ZERO);
        {
            let mut rows = query.fetch(&mut *connection);
            while let Some(row) = rows.try_next().await.map_err(fault)? {
                if row.len() > STREAM_COLUMN {
                    let version: i64 = row.try_get(STREAM_COLUMN).map_err(fault)?;
                    last = Version::new(version.cast_unsigned());
                    if row.try_get::<Option<i64>, _>(0).map_err(fault)?.is_none() {
                        continue;
                    }
                }
                let row = Unnamed::read(&row).map_err(fault)?;
                bytes += row.size();
                page.push(row);
                if bytes >= MAX_PAGE_BYTES {
                    cut = true;
                    break;
                }
            }
        }
        if cut {
            // Given back, it would read all that the server goes on to send.
            drop(connection.detach());
        } else {
            drop(connection);
        }
        if let Some(mean) = bytes.checked_div(page.len()) {
            self.mean.store(mean as u64, Ordering::Relaxed);
        }
        let whole = !cut && page.len() < limit;
        Ok(Found { events: self.name(page).await?, whole, last })
    }

    /// Puts the names of streams and types in for their numbers.
    async fn name(&self, rows: Vec<Unnamed>) -> Result<Vec<RecordedEvent>, StoreError> {
        let numbers: Vec<_> = rows.iter().map(|row| row.stream).collect();
        let names = self.names.of(&self.database, &numbers).await?;
        let mut unknown: Vec<_> = {
            let known = self.types.known();
            let types = rows.iter().map(|row| row.event_type);
            types.filter(|number| known.name(*number).is_none()).collect()
        };
        let mut fetched = Known::default();
        if !unknown.is_empty() {
            unknown.sort_unstable();
            unknown.dedup();
            fetched = self.types.fetch(&self.database, unknown).await?;
        }
        let known = self.types.known();
        let named = rows.into_iter().zip(names).map(|(row, stream)| {
            let number = row.event_type;
            let named = fetched.name(number).or_else(|| known.name(number));
            // It was known a moment ago; so much is read meanwhile that it was forgotten.
            let (event_type, schema_version) = named.cloned().ok_or_else(|| {
                let text = format!("event type {number} was forgotten while its page was read");
                self.database.fault(sqlx::Error::Protocol(text))
            })?;
            Ok(RecordedEvent {
                position: row.position,
                stream,
                version: row.version,
                id: row.id,
                event_type,
                schema_version,
                codec: row.codec,
                data: row.data,
                meta: row.meta,
                recorded_at: row.recorded_at,
            })
        });
        named.collect()
    }
}

/// An event with numbers for the names of its stream and its type.
struct Unnamed {
    position: Position,
    stream: i64,
    version: Version,
    id: EventId,
    event_type: i32,
    codec: ContentType,
    data: Bytes,
    meta: Bytes,
    recorded_at: Timestamp,
}

impl Unnamed {
    /// The columns are of the types that the migrations gave them, so they are not compared again for
    /// each row: that was a tenth of a replay.
    fn read(row: &PgRow) -> sqlx::Result<Self> {
        let codec = row.try_get_unchecked::<i16, _>(4)?;
        let known = u8::try_from(codec).ok().and_then(ContentType::from_code);
        Ok(Self {
            position: Position::new(row.try_get_unchecked::<i64, _>(0)?.cast_unsigned()),
            version: Version::new(row.try_get_unchecked::<i64, _>(1)?.cast_unsigned()),
            event_type: row.try_get_unchecked(2)?,
            id: EventId::new(row.try_get_unchecked::<Uuid, _>(3)?),
            codec: known.ok_or_else(|| {
                let text = format!("content type {codec} is of a newer version");
                sqlx::Error::Decode(text.into())
            })?,
            recorded_at: Timestamp::from_micros(row.try_get_unchecked(5)?),
            data: bytes(row.try_get_unchecked(6)?),
            meta: bytes(row.try_get_unchecked(7)?),
            stream: row.try_get_unchecked(8)?,
        })
    }

    fn size(&self) -> usize {
        self.data.len() + self.meta.len()
    }
}

fn bytes(column: &[u8]) -> Bytes {
    // Most have no metadata, and an empty copy would be an allocation.
    if column.is_empty() { Bytes::new() } else { Bytes::copy_from_slice(column) }
}
