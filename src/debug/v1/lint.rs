//! What is wrong, and what to do about it.
//!
//! A lint is read off what the tree knows anyway; there is no state behind it.

use std::time::Duration;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use mister_smith_supervisors::{ActorSystem, Health, Look, NodeView, SlotState};
use serde::Serialize;
use utoipa::ToSchema;

use super::view::millis;
use super::{listed, tagged};
use crate::http::{Edge, Problem};

/// Children of a dynamic supervisor that are looked at, the worst first.
const WORST: usize = 200;

/// A message in hand for longer is worth a look.
const SLOW: Duration = Duration::from_secs(5);

/// A message in hand for longer is an error.
const STUCK: Duration = Duration::from_secs(30);

/// Restarts of one child that are a storm, if the last one was a moment ago.
const STORM: u64 = 5;

/// A restart was a moment ago.
const FRESH: Duration = Duration::from_secs(10);

/// Children beyond which a dynamic supervisor is worth a look.
const MANY: usize = 50_000;

/// Something that is wrong.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct Lint {
    pub(super) code: &'static str,
    /// `error`, `warning` or `hint`.
    pub(super) severity: &'static str,
    pub(super) path: String,
    pub(super) text: String,
    /// What to do.
    pub(super) advice: &'static str,
}

/// `GET /debug/v1/lints`
#[utoipa::path(get, path = "/debug/v1/lints", tag = "why",
    responses((status = 200, description = "What is wrong, the worst first", body = [Lint])))]
pub(super) async fn lints(
    State(edge): State<Edge>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    Ok(tagged(&headers, &listed("lints", of_system(&edge.node()?.actors)).0))
}

/// Who waits for whom.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Waiting {
    /// Circles: nothing but a deadline ends them.
    pub(super) cycles: Vec<Vec<String>>,
    pub(super) edges: Vec<Edges>,
}

/// One actor waits for another.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Edges {
    pub(super) from: String,
    pub(super) to: String,
    pub(super) message: &'static str,
    pub(super) waiting_ms: u64,
}

/// `GET /debug/v1/waits`
#[utoipa::path(get, path = "/debug/v1/waits", tag = "why",
    responses((status = 200, description = "Questions without an answer yet, circles first",
        body = Waiting)))]
pub(super) async fn waits(
    State(edge): State<Edge>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let waits = edge.node()?.actors.waits();
    let cycles = waits.cycles.iter().map(|cycle| cycle.iter().map(ToString::to_string).collect());
    let edges = waits.edges.iter().map(|edge| Edges {
        from: edge.from.to_string(),
        to: edge.to.to_string(),
        message: edge.message,
        waiting_ms: millis(edge.waiting),
    });
    Ok(tagged(&headers, &Waiting { cycles: cycles.collect(), edges: edges.collect() }))
}

/// Everything that is wrong with a system, the worst first.
pub(super) fn of_system(actors: &ActorSystem) -> Vec<Lint> {
    let mut all: Vec<Lint> = actors
        .waits()
        .cycles
        .iter()
        .map(|cycle| Lint {
            code: "deadlock",
            severity: "error",
            path: cycle.first().map(ToString::to_string).unwrap_or_default(),
            text: format!(
                "{} wait for each other",
                cycle.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
            ),
            advice: "let one of them tell instead of ask, or answer before it asks; until then \
                     the deadline of the question ends it",
        })
        .collect();
    if let Some(tree) = actors.look_for(&Look::at("/").children(WORST)) {
        all.extend(tree.walk().flat_map(of));
    }
    all.extend(of_clock(actors.clock().stepped_us()));
    let rank = |lint: &Lint| match lint.severity {
        "error" => 0,
        "warning" => 1,
        _ => 2,
    };
    all.sort_by_key(rank);
    all
}

/// A clock that was set while the node ran.
fn of_clock(stepped_us: i64) -> Option<Lint> {
    let seconds = stepped_us / 1_000_000;
    (seconds != 0).then(|| Lint {
        code: "clock_stepped",
        severity: "warning",
        path: "/".to_owned(),
        text: format!(
            "the time of day has moved {seconds:+} s against the time that has passed since the \
             node started"
        ),
        advice: "the machine's clock was set, or the machine slept; times and deadlines follow it \
                 within a second; let NTP keep it, so that it moves in small steps",
    })
}

/// The codes of what is wrong with a slot.
pub(super) fn codes(node: &NodeView) -> Vec<&'static str> {
    of(node).into_iter().map(|lint| lint.code).collect()
}

/// What is wrong with a slot.
fn of(node: &NodeView) -> Vec<Lint> {
    let mut found = Vec::new();
    let mut lint = |code, severity, text, advice| {
        found.push(Lint { code, severity, path: node.path.to_string(), text, advice });
    };
    match node.state {
        SlotState::Stuck => lint(
            "stuck",
            "error",
            "it does not end although it was killed, and no other life can start".to_owned(),
            "its handler blocks a thread; restart the process, and move the blocking work to \
             spawn_blocking",
        ),
        SlotState::Backoff => lint(
            "backing_off",
            "warning",
            format!("it failed and waits; {} restarts so far", node.restarts),
            "see its last failure, and mend the cause",
        ),
        _ => {}
    }
    if let Some(mailbox) = &node.mailbox {
        if let Some((message, since)) = mailbox.in_hand.filter(|(_, since)| *since > SLOW) {
            let severity = if since > STUCK { "error" } else { "warning" };
            lint(
                "slow_handler",
                severity,
                format!("{message} has been in hand for {} s", since.as_secs()),
                "see for whom it waits; let long work run beside the mailbox (Context::spawn_tell)",
            );
        }
        if mailbox.depth * 100 > mailbox.capacity * 85 {
            lint(
                "mailbox_near_full",
                "warning",
                format!("{} of {} messages wait", mailbox.depth, mailbox.capacity),
                "it is slower than its senders: make it faster, spread the work over more actors, \
                 or choose what is dropped (Overflow)",
            );
        } else if mailbox.high_water >= mailbox.capacity {
            lint(
                "mailbox_was_full",
                "hint",
                format!("all {} places of its mailbox were taken once", mailbox.capacity),
                "senders waited; a larger mailbox helps against bursts, and against nothing else",
            );
        }
    }
    if node.restarts >= STORM
        && node.up_for.is_some_and(|up| up < FRESH)
        && node.state == SlotState::Up
    {
        lint(
            "restart_storm",
            "warning",
            format!("{} restarts, the last one a moment ago", node.restarts),
            "see its last failure; a backoff (ChildPolicy) makes the tries rarer, and mends nothing",
        );
    }
    if let Some(supervisor) = &node.supervisor {
        let (used, max) = (supervisor.used, supervisor.intensity.restarts);
        if used > 0 && used * 2 >= max {
            lint(
                "intensity_half_used",
                "warning",
                format!(
                    "{used} of {max} restarts within {} s are used; one more than that, and it \
                     gives up",
                    supervisor.intensity.period.as_secs()
                ),
                "mend what fails below it, before it stops all its children and fails upward",
            );
        }
        if supervisor.children >= MANY {
            lint(
                "many_children",
                "hint",
                format!("it has {} children", supervisor.children),
                "see that what is started also ends: passivation, an idle time, a bound",
            );
        }
    }
    match &node.health {
        Some(Health::Unhealthy(why)) => lint(
            "unhealthy",
            "error",
            why.to_string(),
            "its own check says so; see its status and its last failure",
        ),
        Some(Health::Degraded(why)) => {
            lint("degraded", "warning", why.to_string(), "it works, and not as it should");
        }
        _ => {}
    }
    found
}

#[cfg(test)]
mod tests;
