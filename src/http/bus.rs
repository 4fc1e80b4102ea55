//! `GET /api/v1/bus`: how many messages were published, and how the subscriptions stand.

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};

use super::{Edge, Problem};

pub(super) async fn show(State(edge): State<Edge>) -> Result<Json<Value>, Problem> {
    let bus = &edge.node()?.bus;
    Ok(Json(json!({ "published": bus.published(), "subscriptions": bus.subscriptions() })))
}
