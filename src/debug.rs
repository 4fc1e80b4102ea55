//! The debug endpoint: see the live tree, and act on it.
//!
//! | path | what |
//! |---|---|
//! | `GET /debug/tree?format=json\|text&path=&children=` | everything the tree knows |
//! | `POST /debug/actors/{path}/kill\|restart\|suspend\|resume` | what an operator can do |
//! | `GET /healthz` | the process answers |
//! | `GET /readyz` | the node does its work, or which part does not |
//!
//! Nothing here asks an actor: a stuck one is shown as stuck. A restart that takes this server
//! with it is answered with 202 when it begins, any other with 200 when it is done.

use axum::Json;
use axum::extract::{Query, State};
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use mister_smith_supervisors::{Depth, ErrorClass, SlotState, SupervisionTree, SupervisorError};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::http::{Edge, Problem, decode, raw_path};

pub(crate) mod page;
pub(crate) mod v1;
mod view;

/// Children of one dynamic supervisor that are shown when the request does not say.
const DEFAULT_CHILDREN: usize = 100;

/// What part of the tree, and how.
#[derive(Debug, Deserialize)]
pub(crate) struct TreeQuery {
    format: Option<String>,
    path: Option<String>,
    children: Option<usize>,
}

/// `GET /debug/tree`
pub(crate) async fn tree(
    State(edge): State<Edge>,
    query: Result<Query<TreeQuery>, axum::extract::rejection::QueryRejection>,
) -> Result<Response, Problem> {
    let Query(query) = query.map_err(|error| Problem::bad_request(error.body_text()))?;
    let actors = &edge.node()?.actors;
    let path = query.path.as_deref().unwrap_or("/");
    let text = match query.format.as_deref() {
        None | Some("json") => false,
        Some("text") => true,
        Some(other) => {
            return Err(Problem::bad_request(format!("format is {other:?}; give json or text")));
        }
    };
    let default = if text { Depth::FOLDED.dynamic_children } else { DEFAULT_CHILDREN };
    let depth = Depth { levels: usize::MAX, dynamic_children: query.children.unwrap_or(default) };
    let tree = actors
        .look(path, depth)
        .ok_or_else(|| Problem::missing(format!("nothing lives at {path}")))?;
    Ok(if text {
        let headers = [(header::CONTENT_TYPE, "text/plain; charset=utf-8")];
        (headers, tree.to_string()).into_response()
    } else {
        Json(view::tree(&tree)).into_response()
    })
}

/// `POST /debug/actors/{path}/{action}`
pub(crate) async fn act(State(edge): State<Edge>, uri: Uri) -> Result<Response, Problem> {
    let (raw, _) = raw_path(&uri, "/debug/actors/")?;
    // A path with its slashes and escapes, then the action behind the last slash.
    let (path, action) = raw.rsplit_once('/').unwrap_or(("", raw));
    let path = actor_path(path)?;
    let actors = &edge.node()?.actors;
    let done = match action {
        "kill" if path.trim_matches('/').is_empty() => {
            let detail = "the root has nobody to start it again; end the process with SIGTERM";
            return Err(Problem::new(StatusCode::CONFLICT, detail));
        }
        "kill" => match actors.kill(&path) {
            Ok(Some(life)) => return Ok(acted(&path, action, json!({ "life": life }))),
            Ok(None) => {
                let detail = format!("{path} has no life to kill now");
                return Err(Problem::new(StatusCode::CONFLICT, detail));
            }
            Err(error) => Err(error),
        },
        "restart" => actors.restart(&path).await,
        "suspend" => actors.suspend(&path).await,
        "resume" => actors.resume(&path).await,
        other => {
            return Err(Problem::missing(format!(
                "there is no action {other:?}; POST /debug/actors/PATH/kill, restart, suspend or resume"
            )));
        }
    };
    done.map_err(|error| failed(&error))?;
    Ok(acted(&path, action, json!({})))
}

/// The path of an actor from a part of a URL, where each segment is percent-encoded on its own: a
/// `%2F` there is a slash of an id and not one of the path.
fn actor_path(raw: &str) -> Result<String, Problem> {
    let mut path = String::with_capacity(raw.len() + 1);
    for segment in raw.split('/') {
        path.push('/');
        path.push_str(&decode(segment)?.replace('%', "%25").replace('/', "%2F"));
    }
    Ok(path)
}

fn acted(path: &str, action: &str, mut more: Value) -> Response {
    tracing::info!(actor.path = path, action, "operator");
    more["path"] = path.into();
    more["action"] = action.into();
    Json(more).into_response()
}

fn failed(error: &SupervisorError) -> Problem {
    let status = match (error, error.class()) {
        (SupervisorError::NotFound { .. }, _) => StatusCode::NOT_FOUND,
        (_, ErrorClass::Transient) => return Problem::unavailable(error.to_string()),
        (_, ErrorClass::User) => StatusCode::CONFLICT,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    Problem::new(status, error.to_string())
}

/// `GET /healthz`: the process answers.
pub(crate) async fn healthz() -> Response {
    Json(json!({ "status": "ok" })).into_response()
}

/// `GET /readyz`: every part that the node needs is up.
pub(crate) async fn readyz(State(edge): State<Edge>) -> Result<Response, Problem> {
    let depth = Depth { levels: usize::MAX, dynamic_children: 0 };
    let tree = edge.node()?.actors.look("/", depth);
    let down = tree.as_ref().map_or_else(Vec::new, not_ready);
    if down.is_empty() {
        return Ok(Json(json!({ "status": "ready" })).into_response());
    }
    let parts: Vec<&str> = down.iter().map(|(path, _)| path.as_str()).collect();
    let detail = format!("not ready: {}", parts.join(", "));
    let parts: Vec<Value> =
        down.iter().map(|(path, why)| json!({ "path": path, "why": why })).collect();
    Err(Problem::unavailable(detail).with("parts", parts))
}

fn not_ready(tree: &SupervisionTree) -> Vec<(String, String)> {
    let unhealthy = |node: &mister_smith_supervisors::NodeView| match &node.health {
        Some(health @ mister_smith_supervisors::Health::Unhealthy(_)) => Some(health.to_string()),
        _ => None,
    };
    tree.walk()
        .filter_map(|node| {
            let why = match node.state {
                SlotState::Up => unhealthy(node)?,
                state => state.as_str().to_owned(),
            };
            Some((node.path.to_string(), why))
        })
        .collect()
}
