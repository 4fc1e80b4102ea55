//! The tree as JSON: every field it knows. The names are part of the API.

use mister_smith_supervisors::{
    ExitReason, FailureRecord, LATENCY_BUCKETS_NS, MailboxView, NodeView, SlotKind, SupervisionTree,
};
use serde_json::{Value, json};

/// The whole tree.
pub(super) fn tree(tree: &SupervisionTree) -> Value {
    json!({ "dead_letters": tree.dead_letters, "root": node(&tree.root) })
}

fn node(node: &NodeView) -> Value {
    let kind = match node.kind {
        SlotKind::Actor => "actor",
        SlotKind::Supervisor => "supervisor",
        SlotKind::DynamicSupervisor => "dynamic_supervisor",
        _ => "raw",
    };
    json!({
        "path": node.path.as_str(),
        "id": node.id,
        "kind": kind,
        "actor_type": node.actor_type,
        "message_type": node.message_type,
        "state": node.state.as_str(),
        "suspended": node.suspended,
        "life": node.life,
        "restarts": node.restarts,
        "up_for_ms": node.up_for.map(|up| millis(up.as_millis())),
        "started_at_us": node.started_at_us,
        "status": node.status,
        "health": node.health.as_ref().map(|health| json!({
            "state": health.as_str(),
            "detail": health.detail().map(ToString::to_string),
        })),
        "last_failure": node.last_failure.as_deref().map(failure),
        "mailbox": node.mailbox.as_ref().map(mailbox),
        "supervisor": node.supervisor.map(|supervisor| json!({
            "strategy": supervisor.strategy,
            "intensity": supervisor.intensity.restarts,
            "period_ms": millis(supervisor.intensity.period.as_millis()),
            "children": supervisor.children,
        })),
        "children": node.children.iter().map(self::node).collect::<Vec<_>>(),
    })
}

fn failure(record: &FailureRecord) -> Value {
    let panic = record.reason.panic();
    json!({
        "kind": record.reason.kind(),
        "reason": record.reason.to_string(),
        "class": match &record.reason {
            ExitReason::Error(failure) => Some(failure.class().as_str()),
            _ => None,
        },
        "life": record.life,
        "at_us": record.at_us,
        "seq": record.seq,
        "message_in_hand": record.message_in_hand,
        "location": panic.and_then(|panic| panic.location.clone()),
        "backtrace": panic.map(|panic| panic.backtrace.to_string()),
    })
}

fn mailbox(mailbox: &MailboxView) -> Value {
    let bounds = LATENCY_BUCKETS_NS.iter().map(Some).chain([None]);
    json!({
        "depth": mailbox.depth,
        "capacity": mailbox.capacity,
        "handled": mailbox.handled,
        "busy_us": millis(mailbox.busy.as_micros()),
        "latency": bounds
            .zip(mailbox.latency)
            .map(|(up_to_ns, count)| json!({ "up_to_ns": up_to_ns, "count": count }))
            .collect::<Vec<_>>(),
        "in_hand": mailbox.in_hand.map(|(message, since)| json!({
            "message": message,
            "for_us": millis(since.as_micros()),
        })),
    })
}

/// A duration as a JSON number.
fn millis(value: u128) -> u64 {
    u64::try_from(value).unwrap_or(u64::MAX)
}
