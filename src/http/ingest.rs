//! `POST /api/v1/data/ingest`: CloudEvents in, answered when they are durable.
//!
//! The way of one request: a place among those under way (else 429) → body under its limits (413)
//! → plain bytes (415, 400) → events, each with its own verdict (400 when the body as a whole is
//! no JSON) → the node's [`Ingest`](mister_smith_actors::ingest::Ingest) → one answer that names
//! every event.
//!
//! Nothing is half lost in silence: an event is `accepted` or `duplicate` with its place in the
//! log, `rejected` with the reason, or `retry`, and then the whole answer is a 503 that may be
//! sent again as it is: the `source` and `id` of an event are its idempotency key.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use http_body_util::{BodyExt, Limited};
use indexmap::IndexMap;
use mister_smith_actors::event::{ContentType, RecordedEvent, StreamId};
use mister_smith_actors::ingest::{Incoming, IngestError, Ingested, Refused};
use mister_smith_actors::store::IdempotencyKey;
use mister_smith_supervisors::ErrorClass;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::sync::OwnedSemaphorePermit;

use super::body::decode_body;
use super::cloudevents::{self, CloudEvent, Data, ExtensionValue, Mode, ParseError, Reject};
use super::{Edge, Node, Problem, query};

/// How often a part of the node that is being restarted is tried again before the client is told to.
const TRIES: u32 = 4;

/// The wait before the second try; it doubles.
const FIRST_WAIT: Duration = Duration::from_millis(25);

/// What became of one event.
#[derive(Debug, Serialize)]
#[serde(tag = "status", rename_all = "snake_case")]
enum Outcome {
    Accepted {
        stream: String,
        version: u64,
        position: u64,
    },
    Duplicate {
        stream: String,
        version: u64,
        position: u64,
    },
    Rejected {
        reason: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        attribute: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        column: Option<usize>,
    },
    Retry {
        reason: String,
    },
}

#[derive(Debug, Serialize)]
struct Row {
    index: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<usize>,
    #[serde(flatten)]
    outcome: Outcome,
}

#[derive(Debug, Serialize)]
struct Answer {
    accepted: usize,
    duplicates: usize,
    rejected: usize,
    #[serde(skip_serializing_if = "is_zero")]
    retry: usize,
    results: Vec<Row>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_zero(n: &usize) -> bool {
    *n == 0
}

/// The handler.
pub(super) async fn ingest(
    State(edge): State<Edge>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let node = edge.node()?;
    let (_request, _bytes) = admit(&edge, &headers)?;
    let body = read(&edge, body).await?;
    let body = plain(&edge, &headers, body).await?;
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let parsed = cloudevents::parse(content_type, &body, &edge.limits().events)
        .map_err(|error| unparsed(&error))?;
    let single = parsed.mode == Mode::Single;

    let mut rows = Vec::with_capacity(parsed.items.len());
    let mut taken = Vec::with_capacity(parsed.items.len());
    for item in parsed.items {
        let (index, line) = (item.index, item.line);
        match item.event.map_err(|reject| rejected(&reject)).and_then(|event| {
            // What names the stream.
            let named_by = if event.subject.is_some() { "subject" } else { "source" };
            let stream = StreamId::new(event.stream_name())
                .map_err(|error| refused(error.to_string(), Some(named_by)))?;
            Ok((named_by, stream, incoming(&event, &body)))
        }) {
            Ok((named_by, stream, event)) => {
                taken.push(Taken { index, line, named_by, stream, event });
            }
            Err(outcome) => rows.push(Row { index, line, outcome }),
        }
    }
    rows.extend(hand_in(node, taken).await);
    rows.sort_by_key(|row| row.index);
    Ok(answer(rows, single))
}

/// An event that can be read, with its place in the request.
struct Taken {
    index: usize,
    line: Option<usize>,
    named_by: &'static str,
    stream: StreamId,
    event: Incoming,
}

/// A place among the requests under way, and room for the body in memory.
fn admit(
    edge: &Edge,
    headers: &HeaderMap,
) -> Result<(OwnedSemaphorePermit, OwnedSemaphorePermit), Problem> {
    let limits = edge.limits();
    let length = headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse().ok());
    if length.is_some_and(|length: usize| length > limits.body_bytes) {
        return Err(too_large(limits.body_bytes));
    }
    let compressed = headers.contains_key(header::CONTENT_ENCODING);
    // What a compressed body grows to is known only at its end.
    let bytes = match length {
        Some(length) if !compressed => length,
        _ => limits.body_bytes,
    };
    let kib = u32::try_from(bytes.div_ceil(1024).max(1)).unwrap_or(u32::MAX);
    let busy = |what: &str| Problem::too_many(format!("too many {what} under way; retry later"));
    let request =
        Arc::clone(&edge.0.requests).try_acquire_owned().map_err(|_| busy("requests are"))?;
    let room =
        Arc::clone(&edge.0.bytes).try_acquire_many_owned(kib).map_err(|_| busy("bytes are"))?;
    Ok((request, room))
}

async fn read(edge: &Edge, body: Body) -> Result<Bytes, Problem> {
    let limits = edge.limits();
    let collected = Limited::new(body, limits.body_bytes).collect();
    match tokio::time::timeout(limits.body_deadline, collected).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
            Err(too_large(limits.body_bytes))
        }
        Ok(Err(error)) => Err(Problem::bad_request(format!("the body broke off: {error}"))),
        Err(_) => Err(Problem::new(
            StatusCode::REQUEST_TIMEOUT,
            format!("the body took longer than {:?}", limits.body_deadline),
        )),
    }
}

fn too_large(limit: usize) -> Problem {
    let detail = format!("the body has more than {limit} bytes; send less at once");
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, detail)
}

async fn plain(edge: &Edge, headers: &HeaderMap, body: Bytes) -> Result<Bytes, Problem> {
    let Some(encoding) = headers.get(header::CONTENT_ENCODING) else { return Ok(body) };
    let encoding = encoding.to_str().unwrap_or("?").to_owned();
    let limit = edge.limits().body_bytes;
    let decode = move || match decode_body(Some(&encoding), &body, limit) {
        Ok(Cow::Borrowed(_)) => Ok(body.clone()),
        Ok(Cow::Owned(plain)) => Ok(Bytes::from(plain)),
        Err(error) => Err(Problem::from_code(error.status(), error.to_string())),
    };
    // Beside the runtime's threads: how much a small body grows to is known only at its end.
    tokio::task::spawn_blocking(decode)
        .await
        .unwrap_or_else(|_| Err(Problem::unavailable("the node is stopping")))
}

fn unparsed(error: &ParseError) -> Problem {
    let problem = Problem::from_code(error.status(), error.to_string());
    match error {
        ParseError::Malformed { line, column, .. } => {
            problem.with("line", *line).with("column", *column)
        }
        _ => problem,
    }
}

fn rejected(reject: &Reject) -> Outcome {
    let column = match reject {
        Reject::Malformed { column, .. } => Some(*column),
        _ => None,
    };
    Outcome::Rejected {
        reason: reject.to_string(),
        attribute: reject.attribute().map(ToOwned::to_owned),
        column,
    }
}

fn refused(reason: String, attribute: Option<&str>) -> Outcome {
    Outcome::Rejected { reason, attribute: attribute.map(ToOwned::to_owned), column: None }
}

/// Hands the events in, again while a part of the node is being restarted.
async fn hand_in(node: &Node, taken: Vec<Taken>) -> Vec<Row> {
    let mut wait = FIRST_WAIT;
    let mut tries = 1;
    let result = loop {
        let events = taken.iter().map(|one| (one.stream.clone(), one.event.clone()));
        match node.ingest.ingest_all(events).await {
            Err(error) if tries < TRIES && is_quick(&error) => {
                tokio::time::sleep(wait).await;
                wait *= 2;
                tries += 1;
            }
            result => break result,
        }
    };
    let row = |one: &Taken, outcome| Row { index: one.index, line: one.line, outcome };
    match result {
        Ok(outcomes) => {
            let rows = taken.iter().zip(outcomes);
            rows.map(|(one, done)| row(one, outcome(done, one.named_by))).collect()
        }
        Err(error) => {
            let retry = || Outcome::Retry { reason: error.to_string() };
            taken.iter().map(|one| row(one, retry())).collect()
        }
    }
}

/// Whether another life may answer in a moment. An overload and a deadline that has passed are the
/// client's to wait for.
fn is_quick(error: &IngestError) -> bool {
    use mister_smith_actors::store::committer::CommitError;
    error.class() == ErrorClass::Transient
        && !matches!(
            error,
            IngestError::Overloaded { .. }
                | IngestError::Timeout { .. }
                | IngestError::Commit(CommitError::Overloaded { .. })
        )
}

fn outcome(outcome: Ingested, named_by: &str) -> Outcome {
    match outcome {
        Ok(at) => {
            let stream = at.stream.to_string();
            let (version, position) = (at.last_version.get(), at.last_position.get());
            if at.duplicate {
                Outcome::Duplicate { stream, version, position }
            } else {
                Outcome::Accepted { stream, version, position }
            }
        }
        Err(error) => {
            let attribute = match &error {
                Refused::Owned { .. } => Some(named_by),
                Refused::Type { .. } => Some("type"),
                _ => None,
            };
            refused(error.to_string(), attribute)
        }
    }
}

fn answer(rows: Vec<Row>, single: bool) -> Response {
    let count = |is: fn(&Outcome) -> bool| rows.iter().filter(|row| is(&row.outcome)).count();
    let answer = Answer {
        accepted: count(|o| matches!(o, Outcome::Accepted { .. })),
        duplicates: count(|o| matches!(o, Outcome::Duplicate { .. })),
        rejected: count(|o| matches!(o, Outcome::Rejected { .. })),
        retry: count(|o| matches!(o, Outcome::Retry { .. })),
        results: rows,
    };
    let status = if answer.retry > 0 {
        StatusCode::SERVICE_UNAVAILABLE
    } else if single && answer.rejected > 0 {
        StatusCode::BAD_REQUEST
    } else {
        StatusCode::OK
    };
    let retry = answer.retry > 0;
    let body = serde_json::to_string(&answer).unwrap_or_default();
    let mut response = (status, [(header::CONTENT_TYPE, "application/json")], body).into_response();
    if retry {
        response.headers_mut().insert(header::RETRY_AFTER, 1.into());
    }
    response
}

// --- CloudEvents in the log ------------------------------------------------------------------------

/// The attributes of a CloudEvent beside its type and its data, kept as the event's metadata.
#[derive(Debug, Serialize, Deserialize)]
struct Attributes<'a> {
    #[serde(borrow)]
    id: Cow<'a, str>,
    #[serde(borrow)]
    source: Cow<'a, str>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    subject: Option<Cow<'a, str>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    time: Option<Cow<'a, str>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    datacontenttype: Option<Cow<'a, str>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    dataschema: Option<Cow<'a, str>>,
    /// Extension attributes, as they came.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    ext: IndexMap<String, Box<RawValue>>,
    /// Whether the event had no data at all.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    nodata: bool,
}

/// What goes into the log. The payload shares the memory of the body.
fn incoming(event: &CloudEvent<'_>, body: &Bytes) -> Incoming {
    let (codec, data) = match &event.data {
        Some(Data::Json(raw)) => (ContentType::Json, body.slice_ref(raw.get().as_bytes())),
        Some(Data::Binary(bytes)) => (binary(event), Bytes::copy_from_slice(bytes)),
        None => (ContentType::Json, Bytes::from_static(b"null")),
    };
    let ext = event.extensions.iter().filter_map(|(name, value)| {
        let text = match value {
            ExtensionValue::String(text) => serde_json::to_string(text).ok()?,
            ExtensionValue::Number(digits) => (*digits).to_owned(),
            ExtensionValue::Bool(bool) => bool.to_string(),
        };
        Some((name.to_string(), query::raw(text)?))
    });
    let attributes = Attributes {
        id: Cow::Borrowed(&event.id),
        source: Cow::Borrowed(&event.source),
        subject: event.subject.as_deref().map(Cow::Borrowed),
        time: event.time.as_ref().map(|time| Cow::Borrowed(time.as_str())),
        datacontenttype: event.datacontenttype.as_deref().map(Cow::Borrowed),
        dataschema: event.dataschema.as_deref().map(Cow::Borrowed),
        ext: ext.collect(),
        nodata: event.data.is_none(),
    };
    Incoming {
        event_type: event.type_.as_ref().into(),
        codec,
        data,
        meta: serde_json::to_vec(&attributes).unwrap_or_default().into(),
        key: IdempotencyKey::of([event.source.as_ref(), event.id.as_ref()]),
    }
}

/// What `data_base64` holds, by the name that its sender gives it. JSON that came in base64 goes
/// out so again.
fn binary(event: &CloudEvent<'_>) -> ContentType {
    match event.datacontenttype.as_deref().and_then(ContentType::from_media_type) {
        Some(ContentType::Json) | None => ContentType::Raw,
        Some(named) => named,
    }
}

/// The CloudEvent that a recorded event was, as JSON; its data is the text that came in.
pub(super) fn cloudevent(event: &RecordedEvent) -> String {
    use base64::Engine as _;
    let mut out = String::with_capacity(event.data.len() + event.meta.len() + 64);
    out.push_str("{\"specversion\":\"1.0\"");
    member(&mut out, "type", &event.event_type);
    let attributes = serde_json::from_slice::<Attributes<'_>>(&event.meta).ok();
    if let Some(attributes) = &attributes {
        member(&mut out, "id", &attributes.id);
        member(&mut out, "source", &attributes.source);
        let optional = [
            ("subject", &attributes.subject),
            ("time", &attributes.time),
            ("datacontenttype", &attributes.datacontenttype),
            ("dataschema", &attributes.dataschema),
        ];
        for (name, value) in optional {
            if let Some(value) = value {
                member(&mut out, name, value);
            }
        }
        for (name, value) in &attributes.ext {
            out.push_str(&format!(",\"{name}\":{}", value.get()));
        }
    } else {
        // Written by something else than this edge.
        member(&mut out, "id", &event.id.to_string());
        member(&mut out, "source", event.stream.as_str());
        if event.codec != ContentType::Json {
            member(&mut out, "datacontenttype", event.codec.media_type());
        }
    }
    match (event.codec, std::str::from_utf8(&event.data)) {
        _ if attributes.is_some_and(|attributes| attributes.nodata) => {}
        (ContentType::Json, Ok(text)) => {
            out.push_str(",\"data\":");
            out.push_str(text);
        }
        _ => {
            let text = base64::prelude::BASE64_STANDARD.encode(&event.data);
            member(&mut out, "data_base64", &text);
        }
    }
    out.push('}');
    out
}

fn member(out: &mut String, name: &str, value: &str) {
    out.push_str(",\"");
    out.push_str(name);
    out.push_str("\":");
    out.push_str(&serde_json::to_string(value).unwrap_or_default());
}
