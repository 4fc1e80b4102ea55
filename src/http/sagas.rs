//! Sagas over HTTP.
//!
//! | request | what |
//! |---|---|
//! | `GET /api/v1/sagas?name=&status=&open=&after=&limit=` | sagas, by their streams |
//! | `GET /api/v1/sagas/{name}/{id}` | one, with its steps and its history |
//! | `POST /api/v1/sagas/{name}/{id}/retry?by=` | let it go on |
//! | `POST /api/v1/sagas/{name}/{id}/abort?by=&reason=` | have it undone |

use axum::Json;
use axum::extract::{Query, State};
use axum::http::Uri;
use mister_smith_actors::saga::{SagaError, SagaFilter};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Edge, Problem, decode, raw_path};

const PREFIX: &str = "/api/v1/sagas/";

/// Sagas of a page unless asked otherwise.
const PAGE: usize = 100;

/// What a list is asked for with.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Listed {
    name: Option<String>,
    status: Option<String>,
    open: bool,
    after: Option<String>,
    limit: Option<usize>,
}

/// Who wants something, and why.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Wanted {
    by: Option<String>,
    reason: Option<String>,
}

pub(super) async fn list(
    State(edge): State<Edge>,
    Query(listed): Query<Listed>,
) -> Result<Json<Value>, Problem> {
    let Listed { name, status, open, after, limit } = listed;
    let limit = limit.unwrap_or(PAGE);
    let filter = SagaFilter { open, name, status };
    let page = edge.node()?.sagas.list(&filter, after.as_deref(), limit).await;
    let page = page.map_err(problem)?;
    let next = (page.len() == limit).then(|| page.last().map(|(stream, _)| stream.to_string()));
    let sagas: Vec<_> = page.into_iter().map(|(_, summary)| summary).collect();
    Ok(Json(json!({ "sagas": sagas, "next": next.flatten() })))
}

pub(super) async fn show(State(edge): State<Edge>, uri: Uri) -> Result<Json<Value>, Problem> {
    let (rest, _) = raw_path(&uri, PREFIX)?;
    let (name, id) = parts(rest)?;
    let sagas = &edge.node()?.sagas;
    let state = sagas.state(&name, &id).await.map_err(problem)?;
    let history = sagas.history(&name, &id).await.map_err(problem)?;
    let history: Vec<_> = history
        .into_iter()
        .map(|(recorded, event)| {
            json!({
                "version": recorded.version, "position": recorded.position,
                "at": recorded.recorded_at, "event": event,
            })
        })
        .collect();
    Ok(Json(json!({ "name": name, "id": id, "state": state, "history": history })))
}

pub(super) async fn act(
    State(edge): State<Edge>,
    Query(wanted): Query<Wanted>,
    uri: Uri,
) -> Result<Json<Value>, Problem> {
    let (rest, _) = raw_path(&uri, PREFIX)?;
    let (saga, action) = rest.rsplit_once('/').unwrap_or((rest, ""));
    let (name, id) = parts(saga)?;
    let sagas = &edge.node()?.sagas;
    let by = wanted.by.as_deref().unwrap_or("operator");
    let position = match action {
        "retry" => sagas.retry(&name, &id, by).await,
        "abort" => {
            let reason = wanted.reason.as_deref().unwrap_or("aborted");
            sagas.abort(&name, &id, by, reason).await
        }
        other => {
            return Err(Problem::missing(format!(
                "{other:?} cannot be done with a saga; give retry or abort"
            )));
        }
    };
    let position = position.map_err(problem)?;
    Ok(Json(json!({ "name": name, "id": id, "done": action, "position": position })))
}

/// Name and id of `NAME/ID`.
fn parts(rest: &str) -> Result<(String, String), Problem> {
    match rest.split_once('/') {
        Some((name, id)) => Ok((decode(name)?, decode(id)?)),
        None => Err(Problem::missing("a saga is named by NAME/ID")),
    }
}

fn problem(error: SagaError) -> Problem {
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
