//! What lives on the actors: messages, store, projections, sagas, and how the node is set up.

use std::fmt::Write as _;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Extension, Path, Query, State};
use axum::http::{HeaderMap, Uri, header};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use mister_smith_actors::bus::broker::Broker;
use mister_smith_actors::dead_letter::{DeadLetterError, LetterSummary};
use mister_smith_actors::event::{Metadata, Position, StreamId, Version, typed};
use mister_smith_actors::projection::ListQuery;
use mister_smith_actors::projection::handle::RequestError;
use mister_smith_actors::projection::streams::StreamSummary;
use mister_smith_actors::saga::{SagaError, SagaFilter, StepStatus};
use mister_smith_supervisors::{Act, Action, ComponentType, ErrorClass, Look, NodeView};
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::IntoParams;

use super::act::wanted;
use super::view::{millis, state, time};
use super::{listed, tagged};
use crate::debug::failed;
use crate::http::access::{Caller, Role};
use crate::http::{Edge, Node, Problem, decode, raw_path, too_little};

/// Rows of a page, unless asked otherwise, and at most.
const PAGE: (usize, usize) = (100, 1_000);

type Answer = Result<Json<Value>, Problem>;

/// Which rows.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Rows {
    after: Option<String>,
    limit: Option<usize>,
    /// Dead letters of this subscription, consumer or processor.
    origin: Option<String>,
    /// Sagas of this kind.
    name: Option<String>,
    /// Sagas in this state.
    status: Option<String>,
    /// Sagas that have not ended.
    open: bool,
}

impl Rows {
    fn limit(&self) -> usize {
        self.limit.unwrap_or(PAGE.0).clamp(1, PAGE.1)
    }
}

fn down(error: impl std::fmt::Display) -> Problem {
    Problem::unavailable(error.to_string())
}

/// `GET /debug/v1/bus`
#[utoipa::path(get, path = "/debug/v1/bus", tag = "messages",
    responses((status = 200, description = "Messages published, subscriptions, brokers")))]
pub(super) async fn bus(State(edge): State<Edge>, headers: HeaderMap) -> Result<Response, Problem> {
    let node = edge.node()?;
    let brokers: Vec<_> = node.brokers.iter().map(Broker::status).collect();
    Ok(tagged(
        &headers,
        &json!({
            "published": node.bus.published(),
            "subscriptions": node.bus.subscriptions(),
            "brokers": brokers,
        }),
    ))
}

fn letter(id: &str, letter: &LetterSummary) -> Value {
    json!({
        "id": id, "origin": letter.origin, "subject": letter.subject,
        "event_type": letter.event_type, "bytes": letter.bytes, "cause": letter.cause,
        "reason": letter.reason, "attempts": letter.attempts, "failures": letter.failures,
        "state": letter.state, "kept_at": letter.first_at, "last_at": letter.last_at,
    })
}

/// `GET /debug/v1/dead-letters`
#[utoipa::path(get, path = "/debug/v1/dead-letters", tag = "messages", params(Rows),
    responses((status = 200, description = "Messages that wait for a person")))]
pub(super) async fn dead_letters(State(edge): State<Edge>, Query(rows): Query<Rows>) -> Answer {
    let limit = rows.limit();
    let letters = &edge.node()?.letters;
    let page = letters.list(rows.origin.as_deref(), rows.after.as_deref(), limit).await;
    let page = page.map_err(lost)?;
    let next = (page.len() == limit).then(|| page.last().map(|(id, _)| id.to_string())).flatten();
    let all: Vec<_> = page.iter().map(|(id, one)| letter(id, one)).collect();
    Ok(Json(json!({ "dead_letters": all, "next": next })))
}

/// `GET /debug/v1/dead-letters/{id}`
#[utoipa::path(get, path = "/debug/v1/dead-letters/{id}", tag = "messages",
    params(("id" = String, Path, description = "Its id")),
    responses((status = 200, description = "A dead letter; its payload for admins only")))]
pub(super) async fn dead_letter(
    State(edge): State<Edge>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Answer {
    let found = edge.node()?.letters.show(&id).await.map_err(lost)?;
    let Some(kept) = found.letter.as_deref() else {
        return Err(Problem::missing(format!("there is no dead letter {id}")));
    };
    let mut shown = json!({
        "id": id, "state": found.state, "failures": found.failures, "origin": kept.origin,
        "subject": kept.subject, "event_type": kept.event_type, "cause": kept.cause,
        "reason": kept.reason, "attempts": kept.attempts, "message_id": kept.message_id,
        "schema_version": kept.schema_version, "content_type": kept.codec.media_type(),
        "published_at": kept.published_at, "position": kept.position, "bytes": kept.data.len(),
        "metadata": Metadata::from_bytes(&kept.meta),
    });
    shown["message"] = match caller.role >= Role::Admin {
        true => match typed::payload_value(&kept.event_type, kept.codec, &kept.data) {
            Ok(value) => value,
            Err(_) => json!({ "base64": STANDARD.encode(&kept.data) }),
        },
        false => json!({ "hidden": "payloads are shown to admins" }),
    };
    Ok(Json(shown))
}

/// `POST /debug/v1/dead-letters/{id}/requeue|purge`
#[utoipa::path(post, path = "/debug/v1/dead-letters/{id}/{action}", tag = "messages",
    params(("id" = String, Path, description = "Its id"),
        ("action" = String, Path, description = "requeue or purge")),
    responses((status = 200, description = "Done"), (status = 409, description = "Not now")))]
pub(super) async fn settle(
    State(edge): State<Edge>,
    Extension(caller): Extension<Caller>,
    Path((id, action)): Path<(String, String)>,
    body: Bytes,
) -> Answer {
    let by = wanted(&body)?.origin(&caller).to_string();
    let letters = &edge.node()?.letters;
    match action.as_str() {
        "requeue" => letters.requeue(&id, &by).await.map_err(lost)?,
        "purge" => letters.purge(&id, &by).await.map_err(lost)?,
        other => {
            return Err(Problem::missing(format!(
                "{other:?} cannot be done with a dead letter; give requeue or purge"
            )));
        }
    }
    Ok(Json(json!({ "id": id, "done": action })))
}

fn lost(error: DeadLetterError) -> Problem {
    let text = error.to_string();
    match &error {
        DeadLetterError::Command(command) if command.class() == ErrorClass::User => {
            Problem::conflict(text)
        }
        DeadLetterError::Redeliver { .. } => Problem::conflict(text),
        _ => Problem::unavailable(text),
    }
}

/// `GET /debug/v1/store`
#[utoipa::path(get, path = "/debug/v1/store", tag = "data",
    responses((status = 200, description = "The log: where it is, and how long")))]
pub(super) async fn store(
    State(edge): State<Edge>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let node = edge.node()?;
    let lease = node.pool.lease().await.map_err(down)?;
    let head = lease.store.head().await.map_err(down)?;
    let types = lease.store.event_types().await.map_err(down)?;
    let facts = &node.facts;
    let file = facts.store.strip_prefix("sqlite://").unwrap_or(&facts.store);
    let bytes = std::fs::metadata(file).ok().map(|file| file.len());
    Ok(tagged(
        &headers,
        &json!({
            "kind": facts.kind, "url": facts.store, "head": head, "bytes": bytes,
            "event_types": types, "id": lease.store.store_id(), "shared": lease.shared,
        }),
    ))
}

/// `GET /debug/v1/streams`
#[utoipa::path(get, path = "/debug/v1/streams", tag = "data", params(Rows),
    responses((status = 200, description = "Streams by their names")))]
pub(super) async fn streams(State(edge): State<Edge>, Query(rows): Query<Rows>) -> Answer {
    let limit = rows.limit();
    let mut query = ListQuery::first(limit);
    if let Some(after) = rows.after.as_deref() {
        query = query.after(after);
    }
    let streams = edge.node()?.projection("streams")?;
    let page = streams.list::<StreamSummary>(&query).await.map_err(unread)?;
    let next = (page.len() == limit).then(|| page.last().map(|(id, _)| id.to_string())).flatten();
    let all: Vec<_> = page
        .iter()
        .map(|(id, one)| {
            json!({
                "id": id, "events": one.events, "first_at": one.first_at, "last_at": one.last_at,
                "by_type": one.by_type,
            })
        })
        .collect();
    Ok(Json(json!({ "streams": all, "next": next })))
}

/// `GET /debug/v1/streams/{id}`
#[utoipa::path(get, path = "/debug/v1/streams/{id}", tag = "data", params(Rows,
    ("id" = String, Path, description = "The stream's name")),
    responses((status = 200, description = "Events of a stream; payloads for admins only")))]
pub(super) async fn stream(
    State(edge): State<Edge>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    Query(rows): Query<Rows>,
) -> Answer {
    let stream = StreamId::new(id).map_err(|error| Problem::bad_request(error.to_string()))?;
    let after = rows.after.as_deref().and_then(|text| text.parse().ok()).map(Version::new);
    let lease = edge.node()?.pool.lease().await.map_err(down)?;
    let limit = rows.limit();
    let page = lease.store.read_stream(&stream, after.unwrap_or_default(), limit).await;
    let page = page.map_err(down)?;
    let next = (page.len() == limit).then(|| page.last().map(|one| one.version)).flatten();
    let events: Vec<_> = page
        .iter()
        .map(|event| {
            let payload = match caller.role >= Role::Admin {
                true => typed::payload_value(&event.event_type, event.codec, &event.data)
                    .unwrap_or_else(|_| json!({ "base64": STANDARD.encode(&event.data) })),
                false => json!({ "hidden": "payloads are shown to admins" }),
            };
            json!({
                "version": event.version, "position": event.position, "type": event.event_type,
                "at": event.recorded_at, "bytes": event.data.len(), "payload": payload,
                "metadata": Metadata::from_bytes(&event.meta),
            })
        })
        .collect();
    Ok(Json(json!({ "id": stream, "events": events, "next": next })))
}

fn unread(error: RequestError) -> Problem {
    Problem::unavailable(error.to_string())
}

/// `GET /debug/v1/projections`
#[utoipa::path(get, path = "/debug/v1/projections", tag = "data",
    responses((status = 200, description = "How far the read models are")))]
pub(super) async fn projections(State(edge): State<Edge>) -> Answer {
    let node = edge.node()?;
    let mut all = Vec::new();
    for projection in &node.projections {
        let status = projection.status().await.map_err(unread)?;
        let paths: Vec<_> = projection.paths().iter().map(ToString::to_string).collect();
        let slots = paths.iter().filter_map(|path| node.actors.look_for(&Look::at(path).levels(0)));
        let slots: Vec<_> = slots.map(|tree| tree.root).collect();
        all.push(json!({
            "name": status.name, "version": status.version, "position": status.position,
            "lag": status.lag, "parked": status.parked, "partitions": status.progress,
            "paused": slots.iter().any(|slot| slot.suspended),
            "status": slots.first().and_then(|slot| slot.status.clone()), "paths": paths,
        }));
    }
    Ok(listed("projections", all))
}

/// `POST /debug/v1/projections/{name}/rebuild|pause|resume`
#[utoipa::path(post, path = "/debug/v1/projections/{name}/{action}", tag = "data",
    params(("name" = String, Path, description = "Its name"),
        ("action" = String, Path, description = "rebuild, pause or resume")),
    responses((status = 200, description = "Done, or begun")))]
pub(super) async fn project(
    State(edge): State<Edge>,
    Extension(caller): Extension<Caller>,
    Path((name, action)): Path<(String, String)>,
    body: Bytes,
) -> Answer {
    let origin = wanted(&body)?.origin(&caller);
    let node = edge.node()?;
    let projection = node.projection(&name)?;
    let held = match action.as_str() {
        "rebuild" => {
            tracing::info!(projection = name, by = %origin, "a rebuild is begun");
            projection.rebuild().await.map_err(unread)?;
            None
        }
        "pause" => Some(Action::Suspend),
        "resume" => Some(Action::Resume),
        other => {
            return Err(Problem::missing(format!(
                "{other:?} cannot be done with a projection; give rebuild, pause or resume"
            )));
        }
    };
    if let Some(held) = held {
        for path in projection.paths() {
            let act = Act::new(held).by(origin.clone());
            node.actors.act(path.as_str(), act).await.map_err(|error| failed(&error))?;
        }
    }
    Ok(Json(json!({ "name": name, "done": action })))
}

/// `GET /debug/v1/consumers`
#[utoipa::path(get, path = "/debug/v1/consumers", tag = "data",
    responses((status = 200, description = "How far the durable consumers are")))]
pub(super) async fn consumers(State(edge): State<Edge>) -> Answer {
    Ok(listed("consumers", edge.node()?.consumers.list()))
}

/// `GET /debug/v1/sagas`
#[utoipa::path(get, path = "/debug/v1/sagas", tag = "data", params(Rows),
    responses((status = 200, description = "Sagas, by the names of their streams")))]
pub(super) async fn sagas(State(edge): State<Edge>, Query(rows): Query<Rows>) -> Answer {
    let limit = rows.limit();
    let given = |text: Option<String>| text.filter(|text| !text.is_empty());
    let filter = SagaFilter { open: rows.open, name: given(rows.name), status: given(rows.status) };
    let page = edge.node()?.sagas.list(&filter, rows.after.as_deref(), limit).await;
    let page = page.map_err(stuck)?;
    let next = (page.len() == limit).then(|| page.last().map(|(id, _)| id.to_string())).flatten();
    let all: Vec<_> = page
        .iter()
        .map(|(_, one)| {
            json!({
                "name": one.name, "id": one.id, "status": one.status, "step": one.step,
                "open": one.open, "wake_at": one.wake_at, "deadline": one.deadline,
                "started_at": one.started_at, "last_at": one.last_at, "error": one.reason,
            })
        })
        .collect();
    Ok(Json(json!({ "sagas": all, "next": next })))
}

/// Name and id of a saga, and what is behind them.
fn parts(uri: &Uri) -> Result<(String, String, String), Problem> {
    let (rest, _) = raw_path(uri, "/debug/v1/sagas/")?;
    let mut parts = rest.splitn(3, '/');
    match (parts.next(), parts.next(), parts.next()) {
        (Some(name), Some(id), more) => {
            Ok((decode(name)?, decode(id)?, more.unwrap_or_default().to_owned()))
        }
        _ => Err(Problem::missing("a saga is named by NAME/ID")),
    }
}

/// `GET /debug/v1/sagas/{name}/{id}`
#[utoipa::path(get, path = "/debug/v1/sagas/{name}/{id}", tag = "data",
    params(("name" = String, Path, description = "Its kind"),
        ("id" = String, Path, description = "Its id")),
    responses((status = 200, description = "A saga with its steps and its history; its data for \
        admins only")))]
pub(super) async fn saga(
    State(edge): State<Edge>,
    Extension(caller): Extension<Caller>,
    uri: Uri,
) -> Answer {
    let (name, id, _) = parts(&uri)?;
    let sagas = &edge.node()?.sagas;
    let state = sagas.state(&name, &id).await.map_err(stuck)?;
    let history = sagas.history(&name, &id).await.map_err(stuck)?;
    let steps: Vec<_> = state
        .steps
        .iter()
        .map(|step| {
            let status = match step.status {
                StepStatus::Running => "running",
                StepStatus::Waiting(_) => "waiting",
                StepStatus::Done => "done",
                StepStatus::Failed => "failed",
                StepStatus::Undoing => "undoing",
                StepStatus::UndoWaiting(_) => "undo_waiting",
                StepStatus::UndoFailed => "undo_failed",
                StepStatus::Undone => "undone",
                _ => "unknown",
            };
            json!({
                "name": step.name, "status": status, "attempts": step.attempts,
                "undo_attempts": step.undo_attempts, "error": step.reason,
            })
        })
        .collect();
    let history: Vec<_> = history
        .iter()
        .map(|(recorded, event)| {
            let told = serde_json::to_value(event).unwrap_or_default();
            json!({
                "at": recorded.recorded_at, "position": recorded.position,
                "type": recorded.event_type, "text": story(&told),
            })
        })
        .collect();
    let data = match caller.role >= Role::Admin {
        true => state.data,
        false => json!({ "hidden": "payloads are shown to admins" }),
    };
    Ok(Json(json!({
        "name": name, "id": id, "status": state.status, "version": state.version, "data": data,
        "error": state.reason, "deadline": state.deadline, "steps": steps, "history": history,
    })))
}

/// What an event of a saga says, without its data.
fn story(event: &Value) -> String {
    let inside = event.as_object().and_then(|map| map.values().next());
    let words = ["step", "attempt", "reason", "by"].iter().filter_map(|field| {
        let value = inside?.get(*field)?;
        Some(value.as_str().map_or_else(|| format!("#{value}"), str::to_owned))
    });
    words.collect::<Vec<_>>().join("  ")
}

/// `POST /debug/v1/sagas/{name}/{id}/retry|abort`
#[utoipa::path(post, path = "/debug/v1/sagas/{name}/{id}/{action}", tag = "data",
    params(("name" = String, Path, description = "Its kind"),
        ("id" = String, Path, description = "Its id"),
        ("action" = String, Path, description = "retry or abort")),
    responses((status = 200, description = "Done"), (status = 409, description = "Not now")))]
pub(super) async fn steer(
    State(edge): State<Edge>,
    Extension(caller): Extension<Caller>,
    uri: Uri,
    body: Bytes,
) -> Answer {
    let (name, id, action) = parts(&uri)?;
    let origin = wanted(&body)?.origin(&caller);
    let sagas = &edge.node()?.sagas;
    let position = match action.as_str() {
        "retry" => sagas.retry(&name, &id, &origin.to_string()).await,
        "abort" => {
            let reason = origin.reason.as_deref().unwrap_or("aborted");
            sagas.abort(&name, &id, &origin.by, reason).await
        }
        other => {
            return Err(Problem::missing(format!(
                "{other:?} cannot be done with a saga; give retry or abort"
            )));
        }
    };
    let position = position.map_err(stuck)?;
    Ok(Json(json!({ "name": name, "id": id, "done": action, "position": position })))
}

fn stuck(error: SagaError) -> Problem {
    let text = error.to_string();
    match error {
        SagaError::Unknown { .. } => Problem::missing(text),
        SagaError::State { .. } | SagaError::Busy { .. } => Problem::conflict(text),
        SagaError::UnknownKind { .. } | SagaError::Data { .. } | SagaError::Id(_) => {
            Problem::bad_request(text)
        }
        _ => Problem::unavailable(text),
    }
}

/// `GET /debug/v1/outbox`
#[utoipa::path(get, path = "/debug/v1/outbox", tag = "messages",
    responses((status = 200, description = "What is sent, and what is pending")))]
pub(super) async fn outbox(State(edge): State<Edge>) -> Answer {
    let node = edge.node()?;
    let messaging = node.actors.look_for(&Look::at("/messaging").levels(1));
    let relays = messaging.into_iter().flat_map(|tree| tree.root.children);
    let relays: Vec<_> = relays
        .filter_map(|slot| {
            let name = slot.id.strip_prefix("outbox.")?.to_owned();
            Some(json!({
                "name": name, "path": slot.path.as_str(), "status": slot.status,
                "state": state(slot.state), "head": node.facts.head.borrow().get(),
            }))
        })
        .collect();
    Ok(listed("relays", relays))
}

/// `GET /debug/v1/pools`
#[utoipa::path(get, path = "/debug/v1/pools", tag = "data",
    responses((status = 200, description = "Connections to stores and brokers")))]
pub(super) async fn pools(State(edge): State<Edge>) -> Answer {
    let look = Look::at("/resources").component(ComponentType::Resource);
    let resources = edge.node()?.actors.look_for(&look);
    let all =
        resources.iter().flat_map(|tree| tree.walk()).filter(|slot| slot.supervisor.is_none());
    let pools: Vec<_> = all.map(pool).collect();
    Ok(listed("pools", pools))
}

/// A pool says `2/4 in use` of itself.
fn pool(slot: &NodeView) -> Value {
    let usage = slot.status.as_deref().and_then(|status| {
        let (used, size) = status.split_whitespace().next()?.split_once('/')?;
        Some((used.parse::<u32>().ok()?, size.parse::<u32>().ok()?))
    });
    json!({
        "path": slot.path.as_str(),
        "kind": slot.id.split_once('.').map_or(slot.id.as_str(), |(_, kind)| kind),
        "in_use": usage.map(|(used, _)| used), "size": usage.map(|(_, size)| size),
        "idle": usage.map(|(used, size)| size.saturating_sub(used)),
        "state": state(slot.state), "status": slot.status, "restarts": slot.restarts,
        "up_ms": slot.up_for.map(millis), "started_at": slot.started_at_us.map(time),
    })
}

/// `GET /debug/v1/config`
#[utoipa::path(get, path = "/debug/v1/config", tag = "node",
    responses((status = 200, description = "How the node is set up, without its secrets")))]
pub(super) async fn config(
    State(edge): State<Edge>,
    Extension(caller): Extension<Caller>,
) -> Answer {
    if caller.role < Role::Viewer {
        return Err(too_little(&caller, Role::Viewer));
    }
    let settings: Vec<_> = edge
        .node()?
        .facts
        .settings
        .iter()
        .map(|(name, value)| {
            json!({ "name": name, "value": value, "source": "start", "secret": false })
        })
        .collect();
    Ok(listed("settings", settings))
}

/// `GET /debug/v1/metrics`: for Prometheus.
#[utoipa::path(get, path = "/debug/v1/metrics", tag = "node",
    responses((status = 200, description = "Counters in Prometheus' text format",
        content_type = "text/plain")))]
pub(super) async fn metrics(State(edge): State<Edge>) -> Result<Response, Problem> {
    let text = exposition(edge.node()?);
    let kind = "text/plain; version=0.0.4; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, kind)], text).into_response())
}

fn exposition(node: &Node) -> String {
    let mut out = String::new();
    let mut family = |name: &str, kind: &str, help: &str, rows: Vec<(String, u64)>| {
        let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for (labels, value) in rows {
            let _ = writeln!(out, "{name}{labels} {value}");
        }
    };
    let plain = |value: u64| vec![(String::new(), value)];
    let heat = node.actors.heat();
    let tree = node.actors.look_for(&Look::at("/").children(0));
    let head: Position = *node.facts.head.borrow();
    family("smith_actors", "gauge", "Slots of the tree", plain(heat.states.len() as u64));
    family("smith_log_position", "gauge", "The last event of the log", plain(head.get()));
    family(
        "smith_lifecycle_events_total",
        "counter",
        "What happened to actors",
        plain(node.actors.timeline().last()),
    );
    let undelivered = tree.as_ref().map_or(0, |tree| tree.dead_letters);
    family(
        "smith_undelivered_total",
        "counter",
        "Messages that no actor handled",
        plain(undelivered),
    );
    let slots: Vec<&NodeView> = tree.iter().flat_map(|tree| tree.walk()).collect();
    let by_path = |value: &dyn Fn(&NodeView) -> Option<u64>| -> Vec<(String, u64)> {
        let rows = slots.iter().filter_map(|slot| {
            Some((format!("{{path=\"{}\"}}", label(slot.path.as_str())), value(slot)?))
        });
        rows.collect()
    };
    let rows = by_path(&|slot| Some(slot.restarts));
    family("smith_restarts_total", "counter", "Restarts of a slot", rows);
    let rows = by_path(&|slot| slot.mailbox.as_ref().map(|mailbox| mailbox.depth as u64));
    family("smith_mailbox_depth", "gauge", "Messages that wait", rows);
    let rows = by_path(&|slot| slot.mailbox.as_ref().map(|mailbox| mailbox.handled));
    family("smith_handled_total", "counter", "Messages handled", rows);
    let rows = by_path(&|slot| slot.supervisor.map(|one| one.children as u64));
    family("smith_children", "gauge", "Children of a supervisor", rows);
    family(
        "smith_bus_published_total",
        "counter",
        "Messages published",
        plain(node.bus.published()),
    );
    let subscriptions = node.bus.subscriptions();
    let by_name = |value: &dyn Fn(&mister_smith_actors::bus::SubscriptionStatus) -> Option<u64>| {
        let rows = subscriptions.iter().filter_map(|one| {
            Some((format!("{{subscription=\"{}\"}}", label(&one.name)), value(one)?))
        });
        rows.collect::<Vec<_>>()
    };
    family(
        "smith_bus_delivered_total",
        "counter",
        "Messages put into a subscription's mailbox",
        by_name(&|one| Some(one.delivered)),
    );
    family(
        "smith_bus_late_total",
        "counter",
        "Messages that took longer than the subscription's target",
        by_name(&|one| one.latency.map(|latency| latency.late)),
    );
    out
}

/// A text as the value of a label.
fn label(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}
