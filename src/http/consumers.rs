//! Durable consumers over HTTP.
//!
//! | request | what |
//! |---|---|
//! | `GET /api/v1/consumers` | all that this node has started |
//! | `POST /api/v1/consumers/{name}/pause\|resume` | handle nothing for a while |
//! | `POST /api/v1/consumers/{name}/replay?from=` | go back, or ahead |

use axum::Json;
use axum::extract::{Path, Query, State};
use mister_smith_actors::consumer::{Begin, ConsumerError};
use mister_smith_actors::event::Position;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Edge, Problem};

/// Where to go on.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Wanted {
    from: Option<String>,
}

pub(super) async fn list(State(edge): State<Edge>) -> Result<Json<Value>, Problem> {
    Ok(Json(json!({ "consumers": edge.node()?.consumers.list() })))
}

pub(super) async fn act(
    State(edge): State<Edge>,
    Path((name, action)): Path<(String, String)>,
    Query(wanted): Query<Wanted>,
) -> Result<Json<Value>, Problem> {
    let consumer = edge.node()?.consumers.get(&name).map_err(problem)?;
    match action.as_str() {
        "pause" => consumer.pause().await.map_err(problem)?,
        "resume" => consumer.resume().await.map_err(problem)?,
        "replay" => {
            let from = wanted.from.as_deref().unwrap_or_default();
            let after = consumer.replay(begin(from)?).await.map_err(problem)?;
            return Ok(Json(json!({ "name": name, "done": action, "after": after })));
        }
        other => {
            return Err(Problem::missing(format!(
                "{other:?} cannot be done with a consumer; give pause, resume or replay"
            )));
        }
    }
    Ok(Json(json!({ "name": name, "done": action })))
}

/// `beginning`, `end`, the position of the first event, or the time of the first event.
fn begin(text: &str) -> Result<Begin, Problem> {
    match (text, text.parse::<u64>()) {
        ("beginning", _) => Ok(Begin::Beginning),
        ("end", _) => Ok(Begin::End),
        (_, Ok(first)) => Ok(Begin::After(Position::new(first.saturating_sub(1)))),
        _ => text.parse().map(Begin::At).map_err(|_| {
            Problem::bad_request(format!(
                "from={text:?} is no place in the log; give beginning, end, a position \
                 or a time such as 2026-11-21T08:00:00Z"
            ))
        }),
    }
}

fn problem(error: ConsumerError) -> Problem {
    let text = error.to_string();
    match error {
        ConsumerError::Unknown { .. } => Problem::missing(text),
        ConsumerError::Exists { .. } => Problem::conflict(text),
        ConsumerError::Name { .. } => Problem::bad_request(text),
        _ => Problem::unavailable(text),
    }
}
