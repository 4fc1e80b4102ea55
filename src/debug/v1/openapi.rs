//! The API as programs read it: OpenAPI 3.1.

use axum::Json;
use utoipa::OpenApi;

use super::{act, data, graph, letters, lint, live, metrics, node, past, sagas, tree};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Mister Smith, debug API",
        description = "The live tree of a node, what happened to it and why, and what an operator \
            can do. Reading never asks an actor, but for its state."
    ),
    paths(
        node::show, tree::show, tree::heat, tree::pixel, tree::actor, act::act, lint::lints,
        lint::waits, past::timeline, past::lineage, past::at, live::stream, graph::show, data::bus,
        letters::list, letters::show, letters::settle, data::store, data::streams,
        data::stream, data::projections, data::project, data::consumers, sagas::list, sagas::show,
        sagas::steer, data::outbox, data::pools, data::config, metrics::show,
    ),
    tags(
        (name = "node", description = "What it is, and how near to its limits"),
        (name = "tree", description = "The tree, whole or in parts"),
        (name = "actor", description = "One actor, and what can be done with it"),
        (name = "why", description = "What is wrong"),
        (name = "past", description = "What happened"),
        (name = "messages", description = "Bus, dead letters, outbox"),
        (name = "data", description = "Store, projections, sagas, pools"),
    )
)]
struct Api;

/// `GET /debug/v1/openapi.json`
pub(super) async fn show() -> Json<utoipa::openapi::OpenApi> {
    Json(Api::openapi())
}
