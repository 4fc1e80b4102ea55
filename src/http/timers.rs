//! Timers over HTTP.
//!
//! | request | what |
//! |---|---|
//! | `GET /api/v1/timers?kind=&state=&after=&limit=` | timers of the store, by kind and name, and the kinds that this node handles |
//! | `POST /api/v1/timers/{kind}/{name}/cancel` | take one back |

use axum::Json;
use axum::extract::{Query, State};
use axum::http::Uri;
use mister_smith_actors::error::ErrorClass;
use mister_smith_actors::timer::{TimerError, TimerFilter, TimerRow, TimerState};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Edge, Problem, decode, raw_path};

const PREFIX: &str = "/api/v1/timers/";

/// Timers of a page unless asked otherwise.
const PAGE: usize = 100;

/// The most of one page.
const LARGEST_PAGE: usize = 1_000;

/// What a list is asked for with.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Listed {
    kind: Option<String>,
    state: Option<TimerState>,
    /// `KIND/NAME` of the last one of the page before.
    after: Option<String>,
    limit: Option<usize>,
}

pub(super) async fn list(
    State(edge): State<Edge>,
    Query(listed): Query<Listed>,
) -> Result<Json<Value>, Problem> {
    let timers = &edge.node()?.timers;
    let limit = listed.limit.unwrap_or(PAGE).clamp(1, LARGEST_PAGE);
    let mut filter = TimerFilter::default();
    if let Some(kind) = listed.kind {
        filter = filter.kind(kind);
    }
    if let Some(state) = listed.state {
        filter = filter.state(state);
    }
    let after = listed.after.as_deref().map(|after| after.split_once('/').unwrap_or((after, "")));
    let page = timers.list(&filter, after, limit).await.map_err(problem)?;
    let next = (page.len() == limit).then(|| page.last().map(id)).flatten();
    let shown: Vec<_> = page.iter().map(show).collect();
    let handled: Vec<_> = timers
        .handled()
        .into_iter()
        .map(|(kind, counted)| {
            json!({
                "kind": kind, "fired": counted.fired(), "retried": counted.retried(),
                "dead": counted.dead(), "unknown": counted.unknown(), "next": counted.next(),
                "trouble": counted.trouble().map(|(name, reason)| format!("{name}: {reason}")),
            })
        })
        .collect();
    Ok(Json(json!({ "timers": shown, "next": next, "handled": handled })))
}

fn id(row: &TimerRow) -> String {
    format!("{}/{}", row.kind, row.name)
}

fn show(row: &TimerRow) -> Value {
    json!({
        "kind": row.kind, "name": row.name, "due": row.due, "at": row.at, "state": row.state,
        "attempts": row.attempts, "reason": row.reason, "bytes": row.payload.len(),
    })
}

pub(super) async fn act(State(edge): State<Edge>, uri: Uri) -> Result<Json<Value>, Problem> {
    let (rest, _) = raw_path(&uri, PREFIX)?;
    let (timer, action) = rest.rsplit_once('/').unwrap_or((rest, ""));
    if action != "cancel" {
        return Err(Problem::missing(format!(
            "{action:?} cannot be done with a timer; give cancel"
        )));
    }
    let Some((kind, name)) = timer.split_once('/') else {
        return Err(Problem::missing("a timer is named by KIND/NAME"));
    };
    let (kind, name) = (decode(kind)?, decode(name)?);
    match edge.node()?.timers.cancel(&kind, &name).await.map_err(problem)? {
        true => Ok(Json(json!({ "kind": kind, "name": name, "done": action }))),
        false => Err(Problem::missing(format!("there is no timer {name} of kind {kind}"))),
    }
}

fn problem(error: TimerError) -> Problem {
    let text = error.to_string();
    match error.class() {
        ErrorClass::User => Problem::bad_request(text),
        _ => Problem::unavailable(text),
    }
}
