//! Reading pages of events, each in one go on a thread that reads.
//!
//! A page that is cut at [`MAX_PAGE_BYTES`] stops right there: no row behind the last one is
//! touched.

use std::sync::Arc;

use bytes::Bytes;
use rusqlite::{Connection, Params, Row, types::Value};
use uuid::Uuid;

use super::{
    reader::{Failure, Names},
    statement::saturated,
};
use crate::{
    event::{ContentType, EventId, Position, RecordedEvent, StreamId, Timestamp, Version},
    store::{EventFilter, MAX_PAGE, MAX_PAGE_BYTES, MAX_SCAN, MatchingPage},
};

type Found<T> = Result<T, Failure>;

pub(super) fn page(
    connection: &Connection,
    names: &mut Names,
    after: Position,
    limit: usize,
) -> Found<Vec<RecordedEvent>> {
    let text = "select position, stream_id, version, type_id, event_id, codec, recorded_at, data, \
                meta from events where position > ? order by position limit ?";
    let values = (saturated(after.get()), bounded(limit));
    Ok(gather(connection, names, text, values, None)?.0)
}

pub(super) fn stream_page(
    connection: &Connection,
    names: &mut Names,
    stream: &StreamId,
    after: Version,
    limit: usize,
) -> Found<Vec<RecordedEvent>> {
    // A deleted stream reads as empty; its events are found by position only.
    let text = "select position, stream_id, version, type_id, event_id, codec, recorded_at, data, \
                meta from events \
                where stream_id = (select id from streams where name = ? and status = 0) \
                and version > ? order by version limit ?";
    let values = (stream.as_str(), saturated(after.get()), bounded(limit));
    Ok(gather(connection, names, text, values, Some(stream))?.0)
}

pub(super) fn backward_page(
    connection: &Connection,
    names: &mut Names,
    stream: &StreamId,
    before: Version,
    limit: usize,
) -> Found<Vec<RecordedEvent>> {
    let text = "select position, stream_id, version, type_id, event_id, codec, recorded_at, data, \
                meta from events \
                where stream_id = (select id from streams where name = ? and status = 0) \
                and version < ? order by version desc limit ?";
    let values = (stream.as_str(), saturated(before.get()), bounded(limit));
    Ok(gather(connection, names, text, values, Some(stream))?.0)
}

pub(super) fn matching_page(
    connection: &Connection,
    names: &mut Names,
    filter: &EventFilter,
    after: Position,
    limit: usize,
) -> Found<MatchingPage> {
    let limit = limit.min(MAX_PAGE);
    if limit == 0 {
        // Nothing was looked at, so nothing was passed over.
        return Ok(MatchingPage { events: Vec::new(), scanned_to: after });
    }
    let end = super::lookup::head(connection)?.min(after.plus(MAX_SCAN));
    let marks = |count: usize| vec!["?"; count].join(",");
    let mut text = String::from(
        "select e.position, e.stream_id, e.version, e.type_id, e.event_id, e.codec, \
         e.recorded_at, e.data, e.meta from events e",
    );
    if !filter.categories.is_empty() {
        // CROSS JOIN keeps SQLite's planner from walking the streams first.
        text.push_str(" cross join streams s on s.id = e.stream_id");
    }
    text.push_str(" where e.position > ? and e.position <= ?");
    if !filter.types.is_empty() {
        let marks = marks(filter.types.len());
        text.push_str(&format!(
            " and e.type_id in (select id from event_types where name in ({marks}))"
        ));
    }
    if !filter.categories.is_empty() {
        text.push_str(&format!(" and s.category in ({})", marks(filter.categories.len())));
    }
    text.push_str(" order by e.position limit ?");
    let mut values = vec![saturated(after.get()).into(), saturated(end.get()).into()];
    let wanted = filter.types.iter().chain(&filter.categories);
    values.extend(wanted.map(|name| Value::from(name.to_string())));
    values.push(bounded(limit).into());
    let values = rusqlite::params_from_iter(values);
    let (events, whole) = gather(connection, names, &text, values, None)?;
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

/// The events, and whether they are all that the query found (or it was cut at
/// [`MAX_PAGE_BYTES`]).
fn gather(
    connection: &Connection,
    names: &mut Names,
    text: &str,
    values: impl Params,
    stream: Option<&StreamId>,
) -> Found<(Vec<RecordedEvent>, bool)> {
    let mut statement = connection.prepare_cached(text)?;
    let mut rows = statement.query(values)?;
    let mut events = Vec::new();
    let mut bytes = 0;
    // Runs of one stream share its name.
    let mut last: Option<(i64, StreamId)> = None;
    while let Some(row) = rows.next()? {
        let number = row.get(1)?;
        let stream = match (&last, stream) {
            (_, Some(stream)) => stream.clone(),
            (Some((id, stream)), None) if *id == number => stream.clone(),
            _ => last.insert((number, names.stream(connection, number)?)).1.clone(),
        };
        let event = event(connection, names, row, stream)?;
        bytes += event.size();
        events.push(event);
        if bytes >= MAX_PAGE_BYTES {
            return Ok((events, false));
        }
    }
    Ok((events, true))
}

fn event(
    connection: &Connection,
    names: &mut Names,
    row: &Row<'_>,
    stream: StreamId,
) -> Found<RecordedEvent> {
    let (event_type, schema_version) = type_of(connection, names, row.get(3)?)?;
    let codec: u8 = row.get(5)?;
    let position = Position::new(row.get::<_, i64>(0)?.cast_unsigned());
    let id = Uuid::from_slice(row.get_ref(4)?.as_blob().map_err(rusqlite::Error::from)?)
        .map_err(|error| Failure::Corrupt(format!("event {position} has no valid id: {error}")))?;
    Ok(RecordedEvent {
        position,
        stream,
        version: Version::new(row.get::<_, i64>(2)?.cast_unsigned()),
        id: EventId::new(id),
        event_type,
        schema_version,
        codec: ContentType::from_code(codec).ok_or_else(|| newer(codec))?,
        data: blob(row, 7)?,
        meta: blob(row, 8)?,
        recorded_at: Timestamp::from_micros(row.get(6)?),
    })
}

fn blob(row: &Row<'_>, column: usize) -> rusqlite::Result<Bytes> {
    Ok(match row.get_ref(column)?.as_blob()? {
        [] => Bytes::new(),
        bytes => Bytes::copy_from_slice(bytes),
    })
}

fn newer(codec: u8) -> Failure {
    let error = format!("content type {codec} is of a newer version");
    Failure::Sql(rusqlite::Error::FromSqlConversionFailure(
        5,
        rusqlite::types::Type::Integer,
        error.into(),
    ))
}

fn type_of(connection: &Connection, names: &mut Names, id: i64) -> Found<(Arc<str>, u16)> {
    if !names.types.contains_key(&id) {
        names.reload_types(connection)?;
    }
    let known = names.types.get(&id);
    let (name, version) = known
        .ok_or_else(|| Failure::Corrupt(format!("event type {id} has no row in event_types")))?;
    Ok((Arc::clone(name), *version))
}
