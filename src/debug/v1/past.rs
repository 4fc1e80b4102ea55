//! What happened, why, and how the tree was.

use std::collections::BTreeMap;

use axum::extract::{Path, Query, State};
use axum::http::HeaderMap;
use axum::response::Response;
use mister_smith_supervisors::{PastNode, PastTree};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::{IntoParams, ToSchema};

use super::tagged;
use super::view::{Event, kind, state, time};
use crate::http::{Edge, Problem};

/// Events of a page, unless asked otherwise.
const PAGE: usize = 500;

/// Events of a page at most.
const LONGEST: usize = 5_000;

/// Which events.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Asked {
    /// Only after this event.
    since: Option<u64>,
    /// Only up to this event.
    until: Option<u64>,
    /// Only of this actor and those below it.
    path: Option<String>,
    /// At most this many, the last ones unless `since` is given; 500.
    limit: Option<usize>,
}

/// Some events, in order.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Page {
    /// The first event that is kept.
    first: u64,
    /// The last event of all.
    last: u64,
    events: Vec<Event>,
}

/// `GET /debug/v1/timeline`
#[utoipa::path(get, path = "/debug/v1/timeline", tag = "past", params(Asked),
    responses((status = 200, description = "What happened, oldest first", body = Page)))]
pub(super) async fn timeline(
    State(edge): State<Edge>,
    Query(asked): Query<Asked>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let timeline = edge.node()?.actors.timeline();
    let limit = asked.limit.unwrap_or(PAGE).clamp(1, LONGEST);
    let (first, last) = (timeline.first(), timeline.last());
    let until = asked.until.unwrap_or(last).min(last);
    let path = asked.path.as_deref().map(mister_smith_supervisors::Path::parse);
    let wanted = |event: &mister_smith_supervisors::LifecycleEvent| {
        event.seq <= until && path.as_ref().is_none_or(|path| event.path.is_within(path))
    };
    let from = asked.since.unwrap_or(0);
    let mut events: Vec<_> =
        timeline.since(from, usize::MAX).events.into_iter().filter(|event| wanted(event)).collect();
    if events.len() > limit {
        match asked.since {
            Some(_) => events.truncate(limit),
            None => drop(events.drain(..events.len() - limit)),
        }
    }
    let events = events.iter().map(|event| Event::of(event)).collect();
    Ok(tagged(&headers, &Page { first, last, events }))
}

/// How an event came about.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Why {
    /// From the first cause to the event itself.
    events: Vec<Event>,
    /// Whether the first one is the first cause; else what led to it is not kept any more.
    whole: bool,
    /// One sentence.
    text: String,
}

/// `GET /debug/v1/lineage/{seq}`
#[utoipa::path(get, path = "/debug/v1/lineage/{seq}", tag = "past",
    params(("seq" = u64, Path, description = "The event")),
    responses((status = 200, description = "How it came about", body = Why),
        (status = 404, description = "It is not kept")))]
pub(super) async fn lineage(
    State(edge): State<Edge>,
    Path(seq): Path<u64>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let timeline = edge.node()?.actors.timeline();
    let found =
        timeline.lineage(seq).ok_or_else(|| gone(seq, timeline.first(), timeline.last()))?;
    let why = Why {
        events: found.events.iter().map(|event| Event::of(event)).collect(),
        whole: found.whole,
        text: found.text,
    };
    Ok(tagged(&headers, &why))
}

fn gone(seq: u64, first: u64, last: u64) -> Problem {
    Problem::missing(format!("event {seq} is not kept; there are {first} to {last}"))
}

/// `GET /debug/v1/at/{seq}`
#[utoipa::path(get, path = "/debug/v1/at/{seq}", tag = "past",
    params(("seq" = u64, Path, description = "After which event")),
    responses((status = 200, description = "The tree as it was: path, kind, state, life and \
        restarts"), (status = 404, description = "It is not kept")))]
pub(super) async fn at(
    State(edge): State<Edge>,
    Path(seq): Path<u64>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let actors = &edge.node()?.actors;
    let timeline = actors.timeline();
    let past = timeline.at(seq).ok_or_else(|| gone(seq, timeline.first(), timeline.last()))?;
    let root = Past::of(actors.name(), &past);
    Ok(tagged(&headers, &json!({ "seq": past.seq, "at": time(past.at_us), "root": root })))
}

/// A slot as it was.
#[derive(Debug, Serialize)]
struct Past {
    path: String,
    id: String,
    kind: &'static str,
    state: &'static str,
    life: u64,
    restarts: u64,
    /// Not from events before that moment, but from what happened to it next.
    guessed: bool,
    children: PastChildren,
    nodes: Vec<Past>,
}

#[derive(Debug, Default, Serialize)]
struct PastChildren {
    total: usize,
    shown: usize,
}

/// Children of one supervisor that are shown.
const MOST: usize = 200;

impl Past {
    fn of(name: &str, past: &PastTree) -> Self {
        let mut by_parent = BTreeMap::<String, Vec<&PastNode>>::new();
        for node in past.nodes().filter(|node| !node.path.is_root()) {
            let parent = node.path.parent().map(|parent| parent.to_string()).unwrap_or_default();
            by_parent.entry(parent).or_default().push(node);
        }
        let root = past.nodes().find(|node| node.path.is_root());
        let mut top = Self::node("/", root, &by_parent);
        name.clone_into(&mut top.id);
        top
    }

    fn node(
        path: &str,
        node: Option<&PastNode>,
        by_parent: &BTreeMap<String, Vec<&PastNode>>,
    ) -> Self {
        let below = by_parent.get(path).map_or(&[][..], Vec::as_slice);
        let nodes: Vec<_> = below
            .iter()
            .take(MOST)
            .map(|child| Self::node(child.path.as_str(), Some(child), by_parent))
            .collect();
        let id = path.rsplit('/').next().unwrap_or_default();
        Self {
            path: path.to_owned(),
            id: id.replace("%2F", "/").replace("%25", "%"),
            kind: node.map_or("supervisor", |node| kind(node.kind)),
            state: node.map_or("up", |node| state(node.state)),
            life: node.map_or(1, |node| node.life),
            restarts: node.map_or(0, |node| node.restarts),
            guessed: node.is_none_or(|node| node.guessed),
            children: PastChildren { total: below.len(), shown: nodes.len() },
            nodes,
        }
    }
}
