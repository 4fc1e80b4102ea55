//! What was projected, and what is in the log.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{Query, State};
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use mister_smith_actors::event::{ContentType, Position, RecordedEvent, StreamId, Version};
use mister_smith_actors::pool::Lease;
use mister_smith_actors::projection::ListQuery;
use mister_smith_actors::projection::streams::StreamSummary;
use serde::{Deserialize, Serialize};
use serde_json::json;
use serde_json::value::RawValue;

use super::{Edge, Problem, ingest};

/// Rows of a page when the request does not say.
const DEFAULT_LIMIT: usize = 100;

/// Rows of a page at most.
const MAX_LIMIT: usize = 1_000;

/// `?limit=&after=`.
#[derive(Debug, Deserialize)]
pub(super) struct Page {
    limit: Option<usize>,
    after: Option<String>,
}

type PageQuery = Result<Query<Page>, axum::extract::rejection::QueryRejection>;

impl Page {
    fn take(query: PageQuery) -> Result<Self, Problem> {
        match query {
            Ok(Query(page)) => Ok(page),
            Err(error) => Err(Problem::bad_request(format!(
                "{}; give limit as a number from 1 to {MAX_LIMIT}",
                error.body_text()
            ))),
        }
    }

    fn limit(&self) -> Result<usize, Problem> {
        match self.limit {
            None => Ok(DEFAULT_LIMIT),
            Some(limit) if (1..=MAX_LIMIT).contains(&limit) => Ok(limit),
            Some(limit) => Err(Problem::bad_request(format!(
                "limit is {limit}; give a number from 1 to {MAX_LIMIT}"
            ))),
        }
    }

    fn after_number(&self) -> Result<u64, Problem> {
        match &self.after {
            None => Ok(0),
            Some(text) => text.parse().map_err(|_| {
                Problem::bad_request(format!(
                    "after is {text:?}; give the number that the page before ended with"
                ))
            }),
        }
    }

    fn after_stream(&self) -> Result<Option<StreamId>, Problem> {
        self.after.as_deref().map(stream_id).transpose()
    }
}

fn stream_id(name: &str) -> Result<StreamId, Problem> {
    StreamId::new(name).map_err(|error| Problem::bad_request(error.to_string()))
}

async fn lease(edge: &Edge) -> Result<Lease, Problem> {
    edge.node()?.pool.lease().await.map_err(|error| Problem::unavailable(error.to_string()))
}

/// Any fault of a read is worth a second try: the pool may be restarting.
fn unreadable(error: &dyn std::error::Error) -> Problem {
    Problem::unavailable(error.to_string())
}

/// `GET /api/v1/streams`
pub(super) async fn streams(
    State(edge): State<Edge>,
    query: PageQuery,
) -> Result<Response, Problem> {
    let page = Page::take(query)?;
    let (limit, after) = (page.limit()?, page.after_stream()?);
    let summaries = edge.node()?.projection("streams")?;
    let mut asked = ListQuery::first(limit);
    if let Some(after) = after {
        asked = asked.after(after.as_str());
    }
    // Before the rows, so that they are at least as far.
    let position = summaries.position();
    let rows = summaries.list::<StreamSummary>(&asked).await;
    let rows = rows.map_err(|error| unreadable(&error))?;
    let next = (rows.len() == limit).then(|| rows.last().map(|(id, _)| id.to_string())).flatten();
    let streams = rows.iter().map(|(id, row)| Row::new(id, row, None)).collect();
    Ok(ok(&Rows { streams, next, position }))
}

/// `GET /api/v1/streams/{id}` and `/api/v1/streams/{id}/events`.
///
/// Names may hold slashes, written as they are or as `%2F`; a stream whose name ends in `/events`
/// is asked for with its slash escaped.
pub(super) async fn stream(
    State(edge): State<Edge>,
    uri: Uri,
    query: PageQuery,
) -> Result<Response, Problem> {
    let (rest, name) = raw_path(&uri, "/api/v1/streams/")?;
    match rest.strip_suffix("/events") {
        Some(raw) => {
            let page = Page::take(query)?;
            stream_events(&edge, &stream_id(&decode(raw)?)?, &page).await
        }
        None => {
            let id = stream_id(&name)?;
            let row = edge.node()?.projection("streams")?.get::<StreamSummary>(id.as_str()).await;
            let Some(row) = row.map_err(|error| unreadable(&error))? else {
                return Err(no_stream(&id));
            };
            let store = lease(&edge).await?.store;
            let last = store.read_all(row.last_position.minus(1), 1).await;
            let last = last.map_err(|error| unreadable(&error))?;
            Ok(ok(&Row::new(id.as_str(), &row, last.first())))
        }
    }
}

fn no_stream(id: &StreamId) -> Problem {
    Problem::missing(format!("there is no stream {id}, or its first event is not projected yet"))
}

async fn stream_events(edge: &Edge, id: &StreamId, page: &Page) -> Result<Response, Problem> {
    let (limit, after) = (page.limit()?, Version::new(page.after_number()?));
    let store = lease(edge).await?.store;
    let events = store.read_stream(id, after, limit).await.map_err(|error| unreadable(&error))?;
    if events.is_empty() {
        let version = store.stream_version(id).await.map_err(|error| unreadable(&error))?;
        if version == Version::ZERO {
            return Err(Problem::missing(format!("there is no stream {id}")));
        }
    }
    let next = events.last().map(|event| event.version.get());
    Ok(page_of(&events, next))
}

/// `GET /api/v1/events`, in the order of commits.
pub(super) async fn events(
    State(edge): State<Edge>,
    query: PageQuery,
) -> Result<Response, Problem> {
    let page = Page::take(query)?;
    let (limit, after) = (page.limit()?, Position::new(page.after_number()?));
    let store = lease(&edge).await?.store;
    let events = store.read_all(after, limit).await.map_err(|error| unreadable(&error))?;
    let next = events.last().map(|event| event.position.get());
    Ok(page_of(&events, next))
}

/// The part of a path behind `prefix`: as it was sent, and decoded.
pub(crate) fn raw_path<'a>(uri: &'a Uri, prefix: &str) -> Result<(&'a str, String), Problem> {
    let rest = uri.path().strip_prefix(prefix).unwrap_or_default();
    Ok((rest, decode(rest)?))
}

/// A part of a URL as text.
pub(crate) fn decode(raw: &str) -> Result<String, Problem> {
    percent_encoding::percent_decode_str(raw)
        .decode_utf8()
        .map(std::borrow::Cow::into_owned)
        .map_err(|_| Problem::bad_request(format!("{raw:?} is not percent-encoded UTF-8")))
}

/// A page of streams.
#[derive(Serialize)]
struct Rows<'a> {
    streams: Vec<Row<'a>>,
    next: Option<String>,
    /// How far the read model is.
    position: Position,
}

/// A stream as the read model knows it.
#[derive(Serialize)]
struct Row<'a> {
    id: &'a str,
    events: u64,
    first_at: String,
    last_at: String,
    by_type: &'a BTreeMap<Arc<str>, u64>,
    last_position: Position,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_payload: Option<Payload<'a>>,
}

/// JSON as it came in, byte for byte (a number read and written again would lose digits); anything
/// else in base64.
#[derive(Serialize)]
#[serde(untagged)]
enum Payload<'a> {
    Json(&'a RawValue),
    Binary { base64: String },
}

impl<'a> Row<'a> {
    fn new(id: &'a str, row: &'a StreamSummary, last: Option<&'a RecordedEvent>) -> Self {
        Self {
            id,
            events: row.events,
            first_at: row.first_at.to_string(),
            last_at: row.last_at.to_string(),
            by_type: &row.by_type,
            last_position: row.last_position,
            last_payload: last.map(|last| Payload::new(last.codec, &last.data)),
        }
    }
}

impl<'a> Payload<'a> {
    fn new(codec: ContentType, bytes: &'a [u8]) -> Self {
        use base64::Engine as _;
        match (codec, serde_json::from_slice(bytes)) {
            (ContentType::Json, Ok(raw)) => Self::Json(raw),
            _ => Self::Binary { base64: base64::prelude::BASE64_STANDARD.encode(bytes) },
        }
    }
}

/// Events with their payloads as they came in, byte for byte.
fn page_of(events: &[RecordedEvent], next: Option<u64>) -> Response {
    let mut body = String::from("{\"events\":[");
    for (i, event) in events.iter().enumerate() {
        if i > 0 {
            body.push(',');
        }
        let head = json!({
            "position": event.position,
            "stream": event.stream,
            "version": event.version,
            "recorded_at": event.recorded_at.to_string(),
        })
        .to_string();
        body.push_str(head.trim_end_matches('}'));
        body.push_str(",\"event\":");
        body.push_str(&ingest::cloudevent(event));
        body.push('}');
    }
    body.push_str("],\"next\":");
    body.push_str(&next.map_or_else(|| "null".to_owned(), |next| next.to_string()));
    body.push('}');
    (StatusCode::OK, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}

fn ok(value: &impl Serialize) -> Response {
    // Strings and numbers: nothing in it can fail to be written.
    let body = serde_json::to_string(value).unwrap_or_default();
    (StatusCode::OK, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}

/// JSON text that is known to be valid.
pub(super) fn raw(text: String) -> Option<Box<RawValue>> {
    RawValue::from_string(text).ok()
}
