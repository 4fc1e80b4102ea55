//! Dead letters: what could not be handled, and what a person decides.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Extension, Path, Query, State};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use mister_smith_actors::dead_letter::{DeadLetterError, LetterSummary};
use mister_smith_actors::event::{Metadata, typed};
use mister_smith_supervisors::ErrorClass;
use serde_json::{Value, json};

use super::act::wanted;
use super::data::{Answer, Rows};
use crate::http::access::{Caller, Role};
use crate::http::{Edge, Problem};

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
pub(super) async fn list(State(edge): State<Edge>, Query(rows): Query<Rows>) -> Answer {
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
pub(super) async fn show(
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
