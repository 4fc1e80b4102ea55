//! Projections over HTTP: how they stand, and what an operator can do with them.
//!
//! | request | what |
//! |---|---|
//! | `GET /api/v1/projections` | all of them |
//! | `GET /api/v1/projections/{name}` | one |
//! | `GET /api/v1/projections/{name}/parked?limit=&id=&after=&position=` | a page of its parked events |
//! | `POST /api/v1/projections/{name}/pause\|resume\|reset\|rebuild` | |
//! | `POST /api/v1/projections/{name}/parked/{id}/retry\|skip` | |

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::Uri;
use axum::response::{IntoResponse, Response};
use axum::{Json, http::StatusCode};
use mister_smith_actors::event::Position;
use mister_smith_actors::projection::ParkedQuery;
use mister_smith_actors::projection::handle::{ProjectionRef, RequestError};
use mister_smith_supervisors::ErrorClass;
use serde::Deserialize;
use serde_json::json;

use super::{Edge, Problem, decode, raw_path};

const PREFIX: &str = "/api/v1/projections/";

/// Events of a page unless it says otherwise, and at most.
const PARKED: usize = 100;
const MOST_PARKED: usize = 1_000;

/// Which parked events are asked for: those of one document, or behind one of them.
#[derive(Debug, Deserialize)]
pub(super) struct ParkedPage {
    limit: Option<usize>,
    id: Option<String>,
    after: Option<String>,
    position: Option<u64>,
}

impl ParkedPage {
    fn query(self) -> ParkedQuery {
        let position = Position::new(self.position.unwrap_or(u64::MAX));
        ParkedQuery {
            id: self.id.map(Into::into),
            after: self.after.map(|after| (after.into(), position)),
            limit: self.limit.unwrap_or(PARKED).min(MOST_PARKED),
        }
    }
}

/// `GET /api/v1/projections`
pub(super) async fn list(State(edge): State<Edge>) -> Result<Response, Problem> {
    let mut all = Vec::new();
    for projection in &edge.node()?.projections {
        all.push(projection.status().await.map_err(problem)?);
    }
    Ok(Json(json!({ "projections": all })).into_response())
}

/// `GET /api/v1/projections/{name}` and `…/parked`
pub(super) async fn get(
    State(edge): State<Edge>,
    uri: Uri,
    page: Result<Query<ParkedPage>, QueryRejection>,
) -> Result<Response, Problem> {
    let (rest, _) = raw_path(&uri, PREFIX)?;
    match rest.split_once('/') {
        None => {
            let projection = edge.node()?.projection(&decode(rest)?)?;
            Ok(Json(projection.status().await.map_err(problem)?).into_response())
        }
        Some((name, "parked")) => {
            let projection = edge.node()?.projection(&decode(name)?)?;
            let Query(page) = page.map_err(|error| Problem::bad_request(error.to_string()))?;
            let query = page.query();
            let parked = projection.parked(&query).await.map_err(problem)?;
            let next = (parked.len() == query.limit).then(|| parked.last()).flatten();
            let next = next.map(|last| json!({ "after": last.id, "position": last.position }));
            Ok(Json(json!({ "parked": parked, "next": next })).into_response())
        }
        Some((_, other)) => Err(Problem::missing(format!(
            "a projection has no {other}; ask for parked, or for the projection itself"
        ))),
    }
}

/// `POST /api/v1/projections/{name}/…`
pub(super) async fn act(State(edge): State<Edge>, uri: Uri) -> Result<Response, Problem> {
    let (rest, _) = raw_path(&uri, PREFIX)?;
    let (name, action) = rest.split_once('/').unwrap_or((rest, ""));
    let node = edge.node()?;
    let projection = node.projection(&decode(name)?)?;
    if let Some(parked) = action.strip_prefix("parked/") {
        return settle(projection, parked).await;
    }
    match action {
        "rebuild" => projection.rebuild().await.map_err(problem)?,
        "reset" => projection.reset().await.map_err(problem)?,
        "pause" | "resume" => {
            match action {
                "pause" => projection.pause().await.map_err(problem)?,
                _ => projection.resume().await.map_err(problem)?,
            };
        }
        other => {
            return Err(Problem::missing(format!(
                "{other:?} cannot be done with a projection; \
                 give pause, resume, reset, rebuild or parked/ID/retry"
            )));
        }
    }
    // A rebuild goes on in the background; the others are done.
    let status = if action == "rebuild" { StatusCode::ACCEPTED } else { StatusCode::OK };
    Ok((status, Json(json!({ "projection": projection.name(), "done": action }))).into_response())
}

async fn settle(projection: &ProjectionRef, parked: &str) -> Result<Response, Problem> {
    let (id, action) = parked.rsplit_once('/').unwrap_or((parked, ""));
    let id = decode(id)?;
    let answer = match action {
        "retry" => {
            let retried = projection.retry(&id).await.map_err(problem)?;
            json!({ "id": id, "applied": retried.applied, "left": retried.left })
        }
        "skip" => json!({ "id": id, "skipped": projection.skip(&id).await.map_err(problem)? }),
        other => {
            return Err(Problem::missing(format!(
                "{other:?} cannot be done with parked events; give retry or skip"
            )));
        }
    };
    Ok(Json(answer).into_response())
}

fn problem(error: RequestError) -> Problem {
    let text = error.to_string();
    match error {
        RequestError::Parked { .. } => Problem::conflict(text),
        RequestError::Projection(error) if error.class() == ErrorClass::User => {
            Problem::bad_request(text)
        }
        _ => Problem::unavailable(text),
    }
}
