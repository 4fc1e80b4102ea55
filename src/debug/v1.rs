//! The debug API, `/debug/v1`: what a page, a terminal or a script needs to see a node and to act on
//! it. docs/debug-api.md describes it; `/debug/v1/openapi.json` does so for programs.
//!
//! Reading never asks an actor, but for its state: a snapshot walks the supervisors' own index and the slots'
//! counters. So it shows what is stuck, costs nothing while nobody looks, and is quick with
//! 100,000 actors.
//!
//! | file | what |
//! |---|---|
//! | [`view`] | a slot as JSON |
//! | [`tree`] | the tree, its pixels, what an actor is |
//! | [`act`] | dry runs and actions |
//! | [`past`] | what happened, why, and how the tree was |
//! | [`lint`] | what is wrong, and what to do about it |
//! | [`live`] | one stream of what happens |
//! | [`letters`], [`sagas`] | what waits for a person, and what was decided |
//! | [`data`], [`metrics`] | bus, store, projections, outbox, pools, settings; counters |
//! | [`graph`] | the tree as a picture |

use std::sync::{Arc, Mutex};

use axum::Json;
use axum::Router;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use indexmap::IndexMap;
use serde::Serialize;
use sha2::{Digest, Sha256};
use tokio::sync::{OnceCell, Semaphore};

use crate::http::Edge;

mod act;
mod data;
mod graph;
mod letters;
mod lint;
mod live;
mod metrics;
mod node;
mod openapi;
mod past;
mod sagas;
mod tree;
mod view;

/// Streams of events that are open at once.
const STREAMS: usize = 64;

/// Answers to actions that are remembered by their keys.
const ANSWERS: usize = 1_024;

/// What the debug API keeps between requests.
#[derive(Debug)]
pub(crate) struct Desk {
    streams: Arc<Semaphore>,
    answers: Mutex<IndexMap<String, Arc<OnceCell<act::Answer>>>>,
}

impl Default for Desk {
    fn default() -> Self {
        Self { streams: Arc::new(Semaphore::new(STREAMS)), answers: Mutex::default() }
    }
}

/// Everything below `/debug/v1`.
pub(crate) fn router() -> Router<Edge> {
    Router::new()
        .route("/debug/v1/node", get(node::show))
        .route("/debug/v1/tree", get(tree::show))
        .route("/debug/v1/heat", get(tree::heat))
        .route("/debug/v1/heat/{index}", get(tree::pixel))
        .route("/debug/v1/actors/{*rest}", get(tree::actor).post(act::act))
        .route("/debug/v1/waits", get(lint::waits))
        .route("/debug/v1/lints", get(lint::lints))
        .route("/debug/v1/timeline", get(past::timeline))
        .route("/debug/v1/lineage/{seq}", get(past::lineage))
        .route("/debug/v1/at/{seq}", get(past::at))
        .route("/debug/v1/stream", get(live::stream))
        .route("/debug/v1/bus", get(data::bus))
        .route("/debug/v1/dead-letters", get(letters::list))
        .route("/debug/v1/dead-letters/{id}", get(letters::show))
        .route("/debug/v1/dead-letters/{id}/{action}", post(letters::settle))
        .route("/debug/v1/store", get(data::store))
        .route("/debug/v1/streams", get(data::streams))
        .route("/debug/v1/streams/{*id}", get(data::stream))
        .route("/debug/v1/projections", get(data::projections))
        .route("/debug/v1/projections/{name}/{action}", post(data::project))
        .route("/debug/v1/consumers", get(data::consumers))
        .route("/debug/v1/sagas", get(sagas::list))
        .route("/debug/v1/sagas/{name}/{*rest}", get(sagas::show).post(sagas::steer))
        .route("/debug/v1/outbox", get(data::outbox))
        .route("/debug/v1/pools", get(data::pools))
        .route("/debug/v1/config", get(data::config))
        .route("/debug/v1/metrics", get(metrics::show))
        .route("/debug/v1/graph.{form}", get(graph::show))
        .route("/debug/v1/openapi.json", get(openapi::show))
}

/// An answer with a tag: who has it already gets 304 and no body.
fn tagged(headers: &HeaderMap, body: &impl Serialize) -> Response {
    let body = match serde_json::to_vec(body) {
        Ok(body) => body,
        Err(error) => return crate::http::Problem::broken(error.to_string()).into_response(),
    };
    let digest = Sha256::digest(&body);
    let tag: String = digest[..8].iter().map(|byte| format!("{byte:02x}")).collect();
    let tag = format!("\"{tag}\"");
    let known = headers.get(header::IF_NONE_MATCH).and_then(|value| value.to_str().ok());
    let known = known.is_some_and(|known| known.split(',').any(|one| one.trim() == tag));
    let tag = HeaderValue::from_str(&tag).unwrap_or(HeaderValue::from_static("\"\""));
    let no_cache = HeaderValue::from_static("no-cache");
    let headers = [(header::ETAG, tag), (header::CACHE_CONTROL, no_cache)];
    match known {
        true => (StatusCode::NOT_MODIFIED, headers).into_response(),
        false => {
            let json = HeaderValue::from_static("application/json");
            (headers, [(header::CONTENT_TYPE, json)], body).into_response()
        }
    }
}

/// JSON with one member, as lists are answered.
fn listed(name: &'static str, all: impl Serialize) -> Json<serde_json::Value> {
    Json(serde_json::json!({ name: all }))
}
