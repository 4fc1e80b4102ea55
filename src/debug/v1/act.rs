//! What an operator can do with an actor, and what that would do.

use std::sync::{Arc, PoisonError};

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Extension, State};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use mister_smith_supervisors::{Act, Action, Origin, Plan};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::view::{Used, millis};
use super::{ANSWERS, Desk};
use crate::debug::{actor_path, failed};
use crate::http::access::Caller;
use crate::http::{Edge, Problem, raw_path};

/// Bytes of a request at most.
const MOST: usize = 16 << 10;

/// Bytes of a key at most.
const LONGEST_KEY: usize = 200;

/// An answer that a repeat gets, too.
pub(super) type Answer = Result<Value, (u16, String)>;

/// Why, and to which life.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Wanted {
    /// Why: it is in the record.
    reason: Option<String>,
    /// The life that is meant; another one is left alone.
    expect_life: Option<u64>,
}

/// What an action would do.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Rehearsal {
    action: &'static str,
    path: String,
    life: u64,
    /// Whether it would be done.
    allowed: bool,
    /// Why not.
    why: Option<String>,
    /// Who ends, in this order.
    stops: Vec<Stop>,
    /// Who begins, in this order.
    starts: Vec<String>,
    backoff_ms: u64,
    intensity: Option<Used>,
    escalates: bool,
    ends_system: bool,
    text: String,
}

#[derive(Debug, Serialize, ToSchema)]
struct Stop {
    path: String,
    /// `killed`, `stopped` or `gave_up`.
    how: &'static str,
}

impl Rehearsal {
    fn of(plan: &Plan) -> Self {
        Self {
            action: plan.action.as_str(),
            path: plan.path.to_string(),
            life: plan.life,
            allowed: plan.refused.is_none(),
            why: plan.refused.clone(),
            stops: plan
                .stops
                .iter()
                .map(|stop| Stop { path: stop.path.to_string(), how: stop.how.as_str() })
                .collect(),
            starts: plan.starts.iter().map(ToString::to_string).collect(),
            backoff_ms: millis(plan.backoff()),
            intensity: plan.intensity.map(Used::of),
            escalates: plan.escalates(),
            ends_system: plan.ends_system,
            text: plan.text(),
        }
    }
}

fn action(word: &str) -> Result<Action, Problem> {
    Action::parse(word).ok_or_else(|| {
        Problem::missing(format!(
            "there is no action {word:?}; give kill, restart, stop, start, suspend or resume"
        ))
    })
}

/// `GET /debug/v1/actors/{path}/plan?action=`
pub(super) fn plan(edge: &Edge, path: &str, query: Option<&str>) -> Result<Response, Problem> {
    let given = query.unwrap_or_default().split('&').find_map(|pair| pair.strip_prefix("action="));
    let action = action(given.unwrap_or("kill"))?;
    let plan = edge.node()?.actors.plan(path, action).map_err(|error| failed(&error))?;
    Ok(Json(Rehearsal::of(&plan)).into_response())
}

/// `POST /debug/v1/actors/{path}/{action}`
#[utoipa::path(post, path = "/debug/v1/actors/{path}/{action}", tag = "actor",
    params(("path" = String, Path, description = "The actor's path, as it is"),
        ("action" = String, Path, description = "kill, restart, stop, start, suspend, resume, \
            record or unrecord"),
        ("Idempotency-Key" = String, Header, description = "Names the request: a repeat has no \
            second effect")),
    request_body = Wanted,
    responses((status = 200, description = "It is done, or, for a kill, on its way"),
        (status = 400, description = "No key"), (status = 403, description = "Not allowed"),
        (status = 404, description = "Nothing lives there"),
        (status = 409, description = "Another life, or it cannot be done now")))]
pub(super) async fn act(
    State(edge): State<Edge>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    uri: Uri,
    body: Result<Bytes, axum::extract::rejection::BytesRejection>,
) -> Result<Json<Value>, Problem> {
    let (raw, _) = raw_path(&uri, "/debug/v1/actors/")?;
    let (path, word) = raw.rsplit_once('/').unwrap_or(("", raw));
    let (path, word) = (actor_path(path)?, word.to_owned());
    let key = headers.get("idempotency-key").and_then(|value| value.to_str().ok());
    let key = key.filter(|key| !key.is_empty() && key.len() <= LONGEST_KEY).ok_or_else(|| {
        Problem::bad_request(
            "send a header Idempotency-Key with up to 200 letters of your choice, another one for \
             another action: a repeat with the same one has no second effect",
        )
    })?;
    let body =
        body.map_err(|error| Problem::from_code(error.status().as_u16(), error.body_text()))?;
    let wanted = wanted(&body)?;
    // A key is the caller's own.
    let who = caller.name.as_deref().unwrap_or_default();
    let key = format!("{who}\n{key}\n{path}\n{word}");
    let node = edge.node()?.clone();
    let doing = once(edge.desk(), key, async move {
        do_it(&node, &caller, &path, &word, wanted)
            .await
            .map_err(|problem| (problem.status().as_u16(), problem.detail().to_owned()))
    });
    doing.await.map(Json).map_err(|(status, detail)| Problem::from_code(status, detail))
}

pub(super) fn wanted(body: &[u8]) -> Result<Wanted, Problem> {
    if body.len() > MOST {
        return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "at most 16 KiB are taken"));
    }
    match body.trim_ascii() {
        [] => Ok(Wanted::default()),
        body => serde_json::from_slice(body).map_err(|error| {
            Problem::bad_request(format!(
                "the body is none: {error}; give {{\"reason\": \"…\", \"expect_life\": 1}}"
            ))
        }),
    }
}

impl Wanted {
    /// Who wants it, and why.
    pub(super) fn origin(&self, caller: &Caller) -> Origin {
        let origin = Origin::new(caller.name.clone().unwrap_or_else(|| "operator".into()));
        match self.reason.as_deref().map(str::trim).filter(|reason| !reason.is_empty()) {
            Some(reason) => origin.because(reason),
            None => origin,
        }
    }
}

/// Does something once a key; who comes with the same key meanwhile waits, and all get the same
/// answer.
async fn once(desk: &Desk, key: String, doing: impl Future<Output = Answer>) -> Answer {
    let cell = {
        let mut answers = desk.answers.lock().unwrap_or_else(PoisonError::into_inner);
        while answers.len() >= ANSWERS && !answers.contains_key(&key) {
            answers.shift_remove_index(0);
        }
        Arc::clone(answers.entry(key).or_default())
    };
    cell.get_or_init(|| doing).await.clone()
}

async fn do_it(
    node: &crate::http::Node,
    caller: &Caller,
    path: &str,
    word: &str,
    wanted: Wanted,
) -> Result<Value, Problem> {
    let actors = &node.actors;
    let origin = wanted.origin(caller);
    if let Some(on) = match word {
        "record" => Some(true),
        "unrecord" => Some(false),
        _ => None,
    } {
        actors.record(path, on).map_err(|error| failed(&error))?;
        return Ok(json!({ "action": word, "path": path }));
    }
    let action = action(word)?;
    if action == Action::Kill && path.trim_matches('/').is_empty() {
        return Err(Problem::conflict(
            "the root has nobody to start it again; end the process with SIGTERM",
        ));
    }
    tracing::info!(actor.path = path, action = word, by = %origin, "operator");
    let mut act = Act::new(action).by(origin);
    if let Some(life) = wanted.expect_life {
        act = act.life(life);
    }
    let done = actors.act(path, act).await.map_err(|error| failed(&error))?;
    Ok(json!({
        "action": done.action.as_str(), "path": done.path.as_str(), "life": done.life,
        "seq": done.seq,
    }))
}
