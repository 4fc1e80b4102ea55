//! Sagas: where they stand, and what a person decides.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Extension, Query, State};
use axum::http::Uri;
use mister_smith_actors::saga::{SagaError, SagaFilter, StepStatus};
use serde_json::{Value, json};

use super::act::wanted;
use super::data::{Answer, Rows};
use crate::http::access::{Caller, Role};
use crate::http::{Edge, Problem, decode, raw_path};

/// `GET /debug/v1/sagas`
#[utoipa::path(get, path = "/debug/v1/sagas", tag = "data", params(Rows),
    responses((status = 200, description = "Sagas, by the names of their streams")))]
pub(super) async fn list(State(edge): State<Edge>, Query(rows): Query<Rows>) -> Answer {
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
pub(super) async fn show(
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
