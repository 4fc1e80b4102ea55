//! `GET /api/v1/bus`: how many messages were published, and how the subscriptions and
//! the brokers stand.

use axum::Json;
use axum::extract::State;
use mister_smith_actors::bus::broker::Broker;
use serde_json::{Value, json};

use super::{Edge, Problem};

pub(super) async fn show(State(edge): State<Edge>) -> Result<Json<Value>, Problem> {
    let node = edge.node()?;
    let brokers: Vec<_> = node.brokers.iter().map(Broker::status).collect();
    Ok(Json(json!({
        "published": node.bus.published(),
        "subscriptions": node.bus.subscriptions(),
        "brokers": brokers,
    })))
}
