//! The tree: parts of it, all of it as pixels, and one actor in full.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, Uri, header};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use mister_smith_actors::component;
use mister_smith_supervisors::{
    Action, ActorSystem, ActorView, Backoff, ComponentType, Depth, Look, NodeView, Shutdown, Sort,
    SupervisionTree,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::{IntoParams, ToSchema};

use super::tagged;
use super::view::{Entry, Failure, Message, Node, Tree, millis, states};
use crate::debug::actor_path;
use crate::http::{Edge, Problem, raw_path};

const ACTORS: &str = "/debug/v1/actors/";

/// Children of a dynamic supervisor, unless asked otherwise.
const CHILDREN: usize = 50;

/// Children of a dynamic supervisor at most.
const MOST_CHILDREN: usize = 5_000;

/// What part of the tree.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Asked {
    /// Where to begin; the root.
    path: Option<String>,
    /// Levels below; all.
    depth: Option<usize>,
    /// Children of a dynamic supervisor that are shown, the worst first; 50.
    children: Option<usize>,
    /// `worst`, `name`, `restarts`, `mailbox`, `busy` or `rate`.
    sort: Option<String>,
    /// Only what is in this state, and what leads to it.
    state: Option<String>,
    /// Only components of this type, and what leads to them.
    component: Option<String>,
    /// Only what has this in its path, and what leads to it.
    q: Option<String>,
    /// `json` or `text`.
    format: Option<String>,
}

/// `GET /debug/v1/tree`
#[utoipa::path(get, path = "/debug/v1/tree", tag = "tree", params(Asked),
    responses((status = 200, description = "A part of the tree", body = Tree),
        (status = 404, description = "Nothing lives there")))]
pub(super) async fn show(
    State(edge): State<Edge>,
    query: Result<Query<Asked>, axum::extract::rejection::QueryRejection>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let Query(asked) = query.map_err(|error| Problem::bad_request(error.body_text()))?;
    let actors = &edge.node()?.actors;
    let path = asked.path.as_deref().unwrap_or("/");
    let missing = || Problem::missing(format!("nothing lives at {path}"));
    match asked.format.as_deref() {
        None | Some("json") => {}
        Some("text") => {
            let depth = Depth {
                levels: asked.depth.unwrap_or(usize::MAX),
                dynamic_children: asked.children.unwrap_or(Depth::FOLDED.dynamic_children),
            };
            let tree = actors.look(path, depth).ok_or_else(missing)?;
            let plain = [(header::CONTENT_TYPE, "text/plain; charset=utf-8")];
            return Ok((plain, tree.to_string()).into_response());
        }
        Some(other) => {
            return Err(Problem::bad_request(format!("format is {other:?}; give json or text")));
        }
    }
    let seq = actors.timeline().last();
    let tree = actors.look_for(&look(actors, path, &asked)?).ok_or_else(missing)?;
    Ok(tagged(&headers, &Tree::of(seq, actors.clock().wall_us(), &tree)))
}

fn look(actors: &ActorSystem, path: &str, asked: &Asked) -> Result<Look, Problem> {
    let wrong = |what: &str, given: &str, known: &str| {
        Problem::bad_request(format!("{what} is {given:?}; give {known}"))
    };
    let sort = match asked.sort.as_deref() {
        None | Some("worst") => Sort::Worst,
        Some("name") => Sort::Name,
        Some("restarts") => Sort::Restarts,
        Some("mailbox") => Sort::Mailbox,
        Some("busy") => Sort::Busy,
        Some("rate" | "handled") => Sort::Handled,
        Some(other) => {
            let known = "worst, name, restarts, mailbox, busy or rate";
            return Err(wrong("sort", other, known));
        }
    };
    let children = asked.children.unwrap_or(CHILDREN).min(MOST_CHILDREN);
    let mut look =
        Look::at(path).levels(asked.depth.unwrap_or(usize::MAX)).children(children).sort(sort);
    if let Some(word) = given(asked.state.as_ref()) {
        let all = states(word);
        if all.is_empty() {
            let known = "starting, up, stopping, suspended, backing_off, down or failed";
            return Err(wrong("state", word, known));
        }
        look = all.into_iter().fold(look, Look::state);
    }
    if let Some(word) = given(asked.component.as_ref()) {
        if !is_component(actors, word) {
            let known = "agent, aggregate, resource, store, event_bus, projection, saga or edge";
            return Err(wrong("component", word, known));
        }
        look = look.component(word);
    }
    if let Some(text) = given(asked.q.as_ref()) {
        look = look.text(text);
    }
    Ok(look)
}

/// A form sends what was not filled in as an empty text.
fn given(text: Option<&String>) -> Option<&str> {
    text.map(String::as_str).filter(|text| !text.is_empty())
}

/// Whether a component type has this name: one of the node's own, or one that an application gave
/// to something in the tree.
fn is_component(actors: &ActorSystem, word: &str) -> bool {
    use component::{AGENT, AGGREGATE, EDGE, EVENT_BUS, PROJECTION, RESOURCE, SAGA, STORE};
    let known = [AGENT, AGGREGATE, RESOURCE, STORE, EVENT_BUS, PROJECTION, SAGA, EDGE];
    let found = || {
        let tree = actors.look_for(&Look::at("/").component(word).children(1))?;
        let named = |node: &NodeView| node.component.map(ComponentType::as_str) == Some(word);
        tree.walk().any(named).then_some(())
    };
    known.iter().any(|one| one.as_str() == word) || found().is_some()
}

/// Every slot as a byte.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Pixels {
    seq: u64,
    count: usize,
    /// Base64, a byte a slot: bits 0–2 the state, 3–4 the mailbox, 5–6 restarts, 7 busy for long.
    states: String,
    spans: Vec<Span>,
}

/// The slots below a supervisor.
#[derive(Debug, Serialize, ToSchema)]
struct Span {
    path: String,
    from: usize,
    count: usize,
}

/// `GET /debug/v1/heat`
#[utoipa::path(get, path = "/debug/v1/heat", tag = "tree",
    responses((status = 200, description = "Every slot as a byte", body = Pixels)))]
pub(super) async fn heat(
    State(edge): State<Edge>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let heat = edge.node()?.actors.heat();
    let spans = heat.spans.iter().map(|span| Span {
        path: span.path.to_string(),
        from: span.from,
        count: span.count,
    });
    let pixels = Pixels {
        seq: heat.seq,
        count: heat.states.len(),
        states: STANDARD.encode(&heat.states),
        spans: spans.collect(),
    };
    Ok(tagged(&headers, &pixels))
}

/// `GET /debug/v1/heat/{index}`
#[utoipa::path(get, path = "/debug/v1/heat/{index}", tag = "tree",
    params(("index" = usize, Path, description = "Which pixel")),
    responses((status = 200, description = "Whose pixel it is"),
        (status = 404, description = "There are fewer")))]
pub(super) async fn pixel(
    State(edge): State<Edge>,
    Path(index): Path<usize>,
) -> Result<Json<Value>, Problem> {
    let found = edge.node()?.actors.heat_path(index);
    let (seq, path) = found.ok_or_else(|| Problem::missing(format!("there is no slot {index}")))?;
    Ok(Json(json!({ "seq": seq, "path": path.as_str() })))
}

/// One actor in full.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Actor {
    node: Node,
    messages: Vec<Message>,
    dependents: Vec<Dependent>,
    config: Config,
    /// Whether the flight recorder is on.
    recording: bool,
    recorder: Vec<Entry>,
    failures: Vec<Failure>,
    /// How its last failure came about, first cause first.
    lineage: Vec<String>,
}

/// Who ends or starts with an actor.
#[derive(Debug, Serialize, ToSchema)]
struct Dependent {
    path: String,
    why: String,
}

#[derive(Debug, Serialize, ToSchema)]
struct Config {
    restart: &'static str,
    /// How long a stop may take; `None` for as long as it takes.
    shutdown_ms: Option<u64>,
    backoff: String,
    give_up_after: Option<u32>,
}

/// `GET /debug/v1/actors/{path}`, `…/plan?action=` and `…/state`
#[utoipa::path(get, path = "/debug/v1/actors/{path}", tag = "actor",
    params(("path" = String, Path, description = "The actor's path, as it is; `…/plan?action=` for \
        a dry run, `…/state` for what the actor shows of its state, to an admin")),
    responses((status = 200, description = "All that is known of an actor", body = Actor),
        (status = 404, description = "Nothing lives there")))]
pub(super) async fn actor(
    State(edge): State<Edge>,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Response, Problem> {
    let (raw, _) = raw_path(&uri, ACTORS)?;
    // The root's own is `/plan` alone.
    let planned = raw.strip_suffix("/plan").or_else(|| (raw == "plan").then_some(""));
    if let Some(path) = planned {
        return super::act::plan(&edge, &actor_path(path)?, uri.query());
    }
    if let Some(path) = raw.strip_suffix("/state").or_else(|| (raw == "state").then_some("")) {
        return state(&edge, &actor_path(path)?).await;
    }
    let path = actor_path(raw)?;
    let actors = &edge.node()?.actors;
    let missing = || Problem::missing(format!("nothing lives at {path}"));
    let tree = actors.look_for(&Look::at(&path).levels(1).children(0)).ok_or_else(missing)?;
    let view = actors.actor(&path).ok_or_else(missing)?;
    let plan = actors.plan(&path, Action::Kill).ok();
    let timeline = actors.timeline();
    let last = view.failures.iter().map(|failure| failure.seq).max();
    let lineage = last.and_then(|seq| timeline.lineage(seq)).map(|lineage| {
        lineage.events.iter().map(|event| super::view::Event::of(event).text).collect()
    });
    let dependents = plan.into_iter().flat_map(|plan| {
        let own = plan.path.clone();
        let strategy = plan.reactions.first().map(|reaction| reaction.strategy.as_str());
        let mut stops = plan.stops;
        stops.retain(|stop| stop.path != own);
        stops.into_iter().map(move |stop| Dependent {
            why: match (stop.path.is_within(&own), strategy) {
                (true, _) => "it is below it".to_owned(),
                (false, Some(strategy)) => format!("{strategy}: it ends with it"),
                (false, None) => "it ends with it".to_owned(),
            },
            path: stop.path.to_string(),
        })
    });
    Ok(tagged(&headers, &Actor::of(&tree, &view, dependents.take(100).collect(), lineage)))
}

/// How long an actor may take before it comes to show its state.
const PICTURE_WITHIN: Duration = Duration::from_secs(1);

/// `GET /debug/v1/actors/{path}/state`: the only read that asks an actor.
async fn state(edge: &Edge, path: &str) -> Result<Response, Problem> {
    let actors = &edge.node()?.actors;
    if actors.actor(path).is_none() {
        return Err(Problem::missing(format!("nothing lives at {path}")));
    }
    let picture = match actors.inspect(path, PICTURE_WITHIN).await {
        Ok(Some(picture)) => picture,
        Ok(None) => {
            return Err(Problem::missing(format!(
                "{path} shows nothing of its state; implement `Actor::inspect` for it"
            )));
        }
        Err(error) => return Err(Problem::unavailable(error.to_string())),
    };
    // Written, and dropped, by code of the application.
    let write = move || serde_json::to_value(picture.as_serialize()).map_err(|e| e.to_string());
    let written = catch_unwind(AssertUnwindSafe(write));
    match written.unwrap_or_else(|_| Err("it panicked".to_owned())) {
        Ok(state) => Ok(Json(json!({ "path": path, "state": state })).into_response()),
        Err(error) => {
            Err(Problem::broken(format!("the state of {path} cannot be written: {error}")))
        }
    }
}

impl Actor {
    fn of(
        tree: &SupervisionTree,
        view: &ActorView,
        dependents: Vec<Dependent>,
        lineage: Option<Vec<String>>,
    ) -> Self {
        let root: &NodeView = &tree.root;
        Self {
            node: Node::of(root),
            messages: view.messages.iter().map(Message::of).collect(),
            dependents,
            config: Config {
                restart: view.policy.restart.as_str(),
                shutdown_ms: match view.shutdown {
                    Shutdown::BrutalKill => Some(0),
                    Shutdown::After(wait) => Some(millis(wait)),
                    Shutdown::Infinity => None,
                },
                backoff: in_words(view.policy.backoff),
                give_up_after: view.policy.give_up_after,
            },
            recording: view.recording,
            recorder: view.recorded.iter().rev().map(Entry::of).collect(),
            failures: view.failures.iter().rev().map(|failure| Failure::of(failure)).collect(),
            lineage: lineage.unwrap_or_default(),
        }
    }
}

fn in_words(backoff: Backoff) -> String {
    match (backoff.ceiling(0), backoff.ceiling(u32::MAX)) {
        (_, most) if most.is_zero() => "none".to_owned(),
        (first, most) => {
            format!("up to {first:?} at first, more with each failure, up to {most:?}")
        }
    }
}
