//! Dead letters over HTTP: what could not be handled, and what a person decides about it.
//!
//! | request | what |
//! |---|---|
//! | `GET /api/v1/dead-letters?origin=&after=&limit=` | those that wait, by id |
//! | `GET /api/v1/dead-letters/{id}` | one, with its message |
//! | `POST /api/v1/dead-letters/{id}/requeue\|purge?by=` | send it again, or give it up for good |
//! | `POST /api/v1/dead-letters/requeue?origin=&by=` | send all open ones again |

use axum::Json;
use axum::extract::{Path, Query, State};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use mister_smith_actors::dead_letter::{DeadLetterError, Letter};
use mister_smith_actors::event::{Metadata, typed};
use mister_smith_supervisors::ErrorClass;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Edge, Problem};

/// Letters of a page unless asked otherwise.
const PAGE: usize = 100;

/// What a request may say.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Asked {
    origin: Option<String>,
    after: Option<String>,
    limit: Option<usize>,
    by: Option<String>,
}

impl Asked {
    fn by(&self) -> &str {
        self.by.as_deref().unwrap_or("operator")
    }
}

pub(super) async fn list(
    State(edge): State<Edge>,
    Query(asked): Query<Asked>,
) -> Result<Json<Value>, Problem> {
    let limit = asked.limit.unwrap_or(PAGE);
    let letters = &edge.node()?.letters;
    let page = letters.list(asked.origin.as_deref(), asked.after.as_deref(), limit).await;
    let page = page.map_err(problem)?;
    let next = (page.len() == limit).then(|| page.last().map(|(id, _)| id.to_string()));
    let letters: Vec<_> =
        page.into_iter().map(|(id, summary)| json!({ "id": id, "letter": summary })).collect();
    Ok(Json(json!({ "dead_letters": letters, "next": next.flatten() })))
}

pub(super) async fn show(
    State(edge): State<Edge>,
    Path(id): Path<String>,
) -> Result<Json<Value>, Problem> {
    let letter = edge.node()?.letters.show(&id).await.map_err(problem)?;
    let message = letter.letter.as_deref().map(message);
    Ok(Json(json!({
        "id": id, "state": letter.state, "failures": letter.failures, "message": message,
    })))
}

fn message(letter: &Letter) -> Value {
    let data = match typed::payload_value(&letter.event_type, letter.codec, &letter.data) {
        Ok(value) => json!({ "data": value }),
        Err(_) => json!({ "data_base64": STANDARD.encode(&letter.data) }),
    };
    let mut shown = json!({
        "origin": letter.origin, "subject": letter.subject, "id": letter.message_id,
        "type": letter.event_type, "schema_version": letter.schema_version,
        "content_type": letter.codec.media_type(), "published_at": letter.published_at,
        "position": letter.position, "metadata": Metadata::from_bytes(&letter.meta),
        "cause": letter.cause, "reason": letter.reason, "attempts": letter.attempts,
    });
    if let (Value::Object(shown), Value::Object(data)) = (&mut shown, data) {
        shown.extend(data);
    }
    shown
}

pub(super) async fn act(
    State(edge): State<Edge>,
    Path((id, action)): Path<(String, String)>,
    Query(asked): Query<Asked>,
) -> Result<Json<Value>, Problem> {
    let letters = &edge.node()?.letters;
    match action.as_str() {
        "requeue" => letters.requeue(&id, asked.by()).await.map_err(problem)?,
        "purge" => letters.purge(&id, asked.by()).await.map_err(problem)?,
        other => {
            return Err(Problem::missing(format!(
                "{other:?} cannot be done with a dead letter; give requeue or purge"
            )));
        }
    }
    Ok(Json(json!({ "id": id, "done": action })))
}

pub(super) async fn requeue_all(
    State(edge): State<Edge>,
    Query(asked): Query<Asked>,
) -> Result<Json<Value>, Problem> {
    let letters = &edge.node()?.letters;
    let done = letters.requeue_all(asked.origin.as_deref(), asked.by()).await.map_err(problem)?;
    Ok(Json(json!(done)))
}

fn problem(error: DeadLetterError) -> Problem {
    let text = error.to_string();
    match &error {
        DeadLetterError::Command(command) if command.class() == ErrorClass::User => {
            Problem::conflict(text)
        }
        DeadLetterError::Redeliver { .. } => Problem::conflict(text),
        _ => Problem::unavailable(text),
    }
}
