//! Counters for Prometheus.

use std::fmt::Write as _;

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use mister_smith_actors::event::Position;
use mister_smith_supervisors::{Look, NodeView};

use crate::http::{Edge, Node, Problem};

/// `GET /debug/v1/metrics`: for Prometheus.
#[utoipa::path(get, path = "/debug/v1/metrics", tag = "node",
    responses((status = 200, description = "Counters in Prometheus' text format",
        content_type = "text/plain")))]
pub(super) async fn show(State(edge): State<Edge>) -> Result<Response, Problem> {
    let text = exposition(edge.node()?);
    let kind = "text/plain; version=0.0.4; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, kind)], text).into_response())
}

fn exposition(node: &Node) -> String {
    let mut out = String::new();
    let mut family = |name: &str, kind: &str, help: &str, rows: Vec<(String, u64)>| {
        let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for (labels, value) in rows {
            let _ = writeln!(out, "{name}{labels} {value}");
        }
    };
    let plain = |value: u64| vec![(String::new(), value)];
    let heat = node.actors.heat();
    let tree = node.actors.look_for(&Look::at("/").children(0));
    let head: Position = *node.facts.head.borrow();
    family("smith_actors", "gauge", "Slots of the tree", plain(heat.states.len() as u64));
    family("smith_log_position", "gauge", "The last event of the log", plain(head.get()));
    family(
        "smith_lifecycle_events_total",
        "counter",
        "What happened to actors",
        plain(node.actors.timeline().last()),
    );
    let undelivered = tree.as_ref().map_or(0, |tree| tree.dead_letters);
    family(
        "smith_undelivered_total",
        "counter",
        "Messages that no actor handled",
        plain(undelivered),
    );
    let slots: Vec<&NodeView> = tree.iter().flat_map(|tree| tree.walk()).collect();
    let by_path = |value: &dyn Fn(&NodeView) -> Option<u64>| -> Vec<(String, u64)> {
        let rows = slots.iter().filter_map(|slot| {
            Some((format!("{{path=\"{}\"}}", label(slot.path.as_str())), value(slot)?))
        });
        rows.collect()
    };
    let rows = by_path(&|slot| Some(slot.restarts));
    family("smith_restarts_total", "counter", "Restarts of a slot", rows);
    let rows = by_path(&|slot| slot.mailbox.as_ref().map(|mailbox| mailbox.depth as u64));
    family("smith_mailbox_depth", "gauge", "Messages that wait", rows);
    let rows = by_path(&|slot| slot.mailbox.as_ref().map(|mailbox| mailbox.handled));
    family("smith_handled_total", "counter", "Messages handled", rows);
    let rows = by_path(&|slot| slot.supervisor.map(|one| one.children as u64));
    family("smith_children", "gauge", "Children of a supervisor", rows);
    family(
        "smith_bus_published_total",
        "counter",
        "Messages published",
        plain(node.bus.published()),
    );
    let subscriptions = node.bus.subscriptions();
    let by_name = |value: &dyn Fn(&mister_smith_actors::bus::SubscriptionStatus) -> Option<u64>| {
        let rows = subscriptions.iter().filter_map(|one| {
            Some((format!("{{subscription=\"{}\"}}", label(&one.name)), value(one)?))
        });
        rows.collect::<Vec<_>>()
    };
    family(
        "smith_bus_delivered_total",
        "counter",
        "Messages put into a subscription's mailbox",
        by_name(&|one| Some(one.delivered)),
    );
    family(
        "smith_bus_late_total",
        "counter",
        "Messages that took longer than the subscription's target",
        by_name(&|one| one.latency.map(|latency| latency.late)),
    );
    out
}

/// A text as the value of a label.
fn label(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}
