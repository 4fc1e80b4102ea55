//! What lives on the actors: bus, store, projections, pools, and how the node is set up.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Extension, Path, Query, State};
use axum::http::HeaderMap;
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use mister_smith_actors::bus::broker::Broker;
use mister_smith_actors::component;
use mister_smith_actors::event::{Metadata, StreamId, Version, typed};
use mister_smith_actors::projection::ListQuery;
use mister_smith_actors::projection::handle::RequestError;
use mister_smith_actors::projection::streams::StreamSummary;
use mister_smith_supervisors::{Look, NodeView};
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::IntoParams;

use super::act::wanted;
use super::view::{millis, state, time};
use super::{listed, tagged};
use crate::http::access::{Caller, Role};
use crate::http::{Edge, Problem, too_little};

/// Rows of a page, unless asked otherwise, and at most.
const PAGE: (usize, usize) = (100, 1_000);

pub(super) type Answer = Result<Json<Value>, Problem>;

/// Which rows.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Rows {
    pub(super) after: Option<String>,
    limit: Option<usize>,
    /// Dead letters of this subscription, consumer or processor.
    pub(super) origin: Option<String>,
    /// Sagas of this kind.
    pub(super) name: Option<String>,
    /// Sagas in this state.
    pub(super) status: Option<String>,
    /// Sagas that have not ended.
    pub(super) open: bool,
}

impl Rows {
    pub(super) fn limit(&self) -> usize {
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
            "paused": status.paused || slots.iter().any(|slot| slot.suspended),
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
    tracing::info!(projection = name, action, by = %origin, "asked of a projection");
    match action.as_str() {
        "rebuild" => projection.rebuild().await.map_err(unread)?,
        "pause" => _ = projection.pause().await.map_err(unread)?,
        "resume" => _ = projection.resume().await.map_err(unread)?,
        other => {
            return Err(Problem::missing(format!(
                "{other:?} cannot be done with a projection; give rebuild, pause or resume"
            )));
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
    let look = Look::at("/resources").component(component::RESOURCE.as_str());
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
