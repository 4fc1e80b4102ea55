//! A slot as JSON. The names are part of the API.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use mister_smith_supervisors::{
    ErrorClass, FailureRecord, Health, IntensityUse, LifecycleEvent, LifecycleKind, MailboxView,
    MessageView, NodeView, Overflow, Reaction, Recorded, SlotKind, SlotState, SupervisionTree,
    WaitView,
};
use serde::Serialize;
use utoipa::ToSchema;

use super::lint::codes;

/// A part of the tree.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Tree {
    /// The last lifecycle event that it shows.
    pub(super) seq: u64,
    /// When it was looked at.
    pub(super) at: String,
    /// The slot at the top.
    pub(super) root: Node,
}

/// What the tree knows about one slot.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Node {
    pub(super) path: String,
    pub(super) id: String,
    /// `supervisor`, `dynamic_supervisor`, `actor` or `raw`.
    pub(super) kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) component: Option<&'static str>,
    pub(super) actor_type: &'static str,
    /// `starting`, `up`, `stopping`, `suspended`, `backing_off`, `down` or `failed`.
    pub(super) state: &'static str,
    pub(super) suspended: bool,
    pub(super) life: u64,
    pub(super) restarts: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) restarted_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) up_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) started_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) backing_off_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) strategy: Option<&'static str>,
    pub(super) restart: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) intensity: Option<Used>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) mailbox: Option<Mailbox>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) handling: Option<Handling>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) waiting_on: Option<Wait>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) last_failure: Option<LastFailure>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) health: Option<HealthState>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) status: Option<String>,
    /// Codes of what is wrong with it; see `/debug/v1/lints`.
    pub(super) lints: Vec<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) children: Option<Children>,
    #[schema(no_recursion)]
    pub(super) nodes: Vec<Node>,
}

/// Restarts within a period, and how many there may be.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Used {
    pub(super) used: u32,
    pub(super) max: u32,
    pub(super) period_ms: u64,
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Mailbox {
    pub(super) depth: usize,
    pub(super) capacity: usize,
    /// `wait`, `fail`, `drop_oldest` or `drop_newest`.
    pub(super) overflow: &'static str,
    pub(super) high_water: usize,
}

/// What an actor did so far. Quantiles are true up to a factor of four.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Handling {
    pub(super) handled: u64,
    pub(super) busy_ms: u64,
    pub(super) p50_us: u64,
    pub(super) p99_us: u64,
    pub(super) max_us: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) in_hand: Option<InHand>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct InHand {
    pub(super) message: &'static str,
    pub(super) elapsed_ms: u64,
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Wait {
    pub(super) path: String,
    pub(super) message: &'static str,
    pub(super) elapsed_ms: u64,
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct LastFailure {
    pub(super) at: String,
    pub(super) life: u64,
    pub(super) reason: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) class: Option<&'static str>,
    pub(super) seq: u64,
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct HealthState {
    /// `healthy`, `degraded` or `unhealthy`.
    pub(super) status: &'static str,
    pub(super) detail: String,
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Children {
    pub(super) total: usize,
    pub(super) shown: usize,
    pub(super) by_state: BTreeMap<&'static str, usize>,
    pub(super) restarts: u64,
}

/// A failure, and what the supervisor did about it.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Failure {
    pub(super) seq: u64,
    pub(super) at: String,
    pub(super) life: u64,
    /// `error`, `panic`, `killed` ….
    pub(super) kind: &'static str,
    pub(super) reason: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) class: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) message: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) location: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) backtrace: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) decision: Option<Decision>,
}

/// What a supervisor decided.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Decision {
    pub(super) supervisor: String,
    pub(super) strategy: &'static str,
    /// `restarts`, `gives_up`, `stays_down` ….
    pub(super) outcome: &'static str,
    pub(super) affected: Vec<String>,
    pub(super) backoff_ms: u64,
    pub(super) intensity: Used,
    pub(super) text: String,
}

/// How many messages of a kind, and how long they took.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Message {
    #[serde(rename = "type")]
    pub(super) kind: &'static str,
    pub(super) count: u64,
    pub(super) busy_ms: u64,
    pub(super) p50_us: u64,
    pub(super) p99_us: u64,
    pub(super) max_us: u64,
}

/// A message that was handled a while ago.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Entry {
    pub(super) at: String,
    #[serde(rename = "type")]
    pub(super) kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) from: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) wait_us: Option<u64>,
    pub(super) handling_us: u64,
    pub(super) life: u64,
    pub(super) outcome: &'static str,
}

/// One thing that happened.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Event {
    pub(super) seq: u64,
    pub(super) at: String,
    pub(super) path: String,
    pub(super) life: u64,
    /// `started`, `failed`, `restarted`, `backing_off`, `escalated`, `action` ….
    pub(super) kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) by: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) cause_seq: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) decision: Option<Decision>,
    pub(super) text: String,
}

pub(super) fn time(micros: i64) -> String {
    Timestamp::from_microsecond(micros).map_or_else(|_| micros.to_string(), |at| format!("{at:.6}"))
}

pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

pub(super) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// The word for a state. Two that a reader need not tell apart have one.
pub(super) fn state(state: SlotState) -> &'static str {
    match state {
        SlotState::Starting | SlotState::Restarting => "starting",
        SlotState::Backoff => "backing_off",
        // A life that does not end, and no other in its place.
        SlotState::Stuck => "failed",
        other => other.as_str(),
    }
}

/// The state of a word.
pub(super) fn states(word: &str) -> Vec<SlotState> {
    SlotState::ALL.into_iter().filter(|one| state(*one) == word).collect()
}

pub(super) fn kind(kind: SlotKind) -> &'static str {
    match kind {
        SlotKind::Actor => "actor",
        SlotKind::Supervisor => "supervisor",
        SlotKind::DynamicSupervisor => "dynamic_supervisor",
        _ => "raw",
    }
}

pub(super) fn overflow(overflow: Overflow) -> &'static str {
    match overflow {
        Overflow::Wait(_) => "wait",
        Overflow::Fail => "fail",
        Overflow::DropOldest => "drop_oldest",
        Overflow::DropNewest => "drop_newest",
        _ => "unknown",
    }
}

impl Tree {
    pub(super) fn of(seq: u64, at_us: i64, tree: &SupervisionTree) -> Self {
        Self { seq, at: time(at_us), root: Node::of(&tree.root) }
    }
}

impl Node {
    pub(super) fn of(node: &NodeView) -> Self {
        Self {
            path: node.path.to_string(),
            id: node.id.clone(),
            kind: kind(node.kind),
            component: node.component.map(|component| component.as_str()),
            actor_type: node.actor_type,
            state: state(node.state),
            suspended: node.suspended,
            life: node.life,
            restarts: node.restarts,
            restarted_at: node.restarted_at_us.map(time),
            up_ms: node.up_for.map(millis),
            started_at: node.started_at_us.map(time),
            backing_off_ms: node.backing_off.map(millis),
            strategy: node.supervisor.map(|one| one.strategy),
            restart: node.restart.as_str(),
            intensity: node.supervisor.map(|one| Used {
                used: one.used,
                max: one.intensity.restarts,
                period_ms: millis(one.intensity.period),
            }),
            mailbox: node.mailbox.as_ref().map(|one| Mailbox {
                depth: one.depth,
                capacity: one.capacity,
                overflow: overflow(one.overflow),
                high_water: one.high_water,
            }),
            handling: node.mailbox.as_ref().map(Handling::of),
            waiting_on: node.waits.first().map(Wait::of),
            last_failure: node.last_failure.as_deref().map(LastFailure::of),
            health: node.health.as_ref().map(HealthState::of),
            status: node.status.clone(),
            lints: codes(node),
            children: node.supervisor.map(|one| Children {
                total: one.children,
                shown: node.children.len(),
                by_state: one.by_state.iter().fold(BTreeMap::new(), |mut all, (one, count)| {
                    *all.entry(state(one)).or_default() += count;
                    all
                }),
                restarts: one.child_restarts,
            }),
            nodes: node.children.iter().map(Self::of).collect(),
        }
    }
}

impl Handling {
    fn of(mailbox: &MailboxView) -> Self {
        let view = mailbox.handling();
        let quantile = |share| view.quantile(share).map_or(0, micros);
        Self {
            handled: mailbox.handled,
            busy_ms: millis(mailbox.busy),
            p50_us: quantile(0.5),
            p99_us: quantile(0.99),
            max_us: micros(mailbox.longest),
            in_hand: mailbox
                .in_hand
                .map(|(message, since)| InHand { message, elapsed_ms: millis(since) }),
        }
    }
}

impl Wait {
    fn of(wait: &WaitView) -> Self {
        Self { path: wait.on.to_string(), message: wait.message, elapsed_ms: millis(wait.waiting) }
    }
}

impl LastFailure {
    fn of(record: &FailureRecord) -> Self {
        Self {
            at: time(record.at_us),
            life: record.life,
            reason: record.reason.to_string(),
            class: record.class.map(ErrorClass::as_str),
            seq: record.seq,
        }
    }
}

impl HealthState {
    fn of(health: &Health) -> Self {
        Self {
            status: health.as_str(),
            detail: health.detail().map(ToString::to_string).unwrap_or_default(),
        }
    }
}

impl Used {
    pub(super) fn of(used: IntensityUse) -> Self {
        Self { used: used.used, max: used.max, period_ms: millis(used.period) }
    }
}

impl Decision {
    pub(super) fn of(reaction: &Reaction) -> Self {
        Self {
            supervisor: reaction.supervisor.to_string(),
            strategy: reaction.strategy.as_str(),
            outcome: reaction.outcome.as_str(),
            affected: reaction.affected.iter().map(ToString::to_string).collect(),
            backoff_ms: millis(reaction.backoff),
            intensity: Used::of(reaction.intensity),
            text: reaction.to_string(),
        }
    }
}

impl Failure {
    pub(super) fn of(record: &FailureRecord) -> Self {
        let panic = record.reason.panic();
        Self {
            seq: record.seq,
            at: time(record.at_us),
            life: record.life,
            kind: record.reason.kind(),
            reason: record.reason.to_string(),
            class: record.class.map(ErrorClass::as_str),
            message: record.message_in_hand,
            location: panic.and_then(|panic| panic.location.clone()),
            backtrace: panic.map(|panic| panic.backtrace.to_string()),
            decision: record.decision.get().map(Decision::of),
        }
    }
}

impl Message {
    pub(super) fn of(message: &MessageView) -> Self {
        let handling = &message.handling;
        let quantile = |share| handling.quantile(share).map_or(0, micros);
        Self {
            kind: message.name,
            count: handling.handled,
            busy_ms: millis(handling.busy),
            p50_us: quantile(0.5),
            p99_us: quantile(0.99),
            max_us: micros(handling.longest),
        }
    }
}

impl Entry {
    pub(super) fn of(recorded: &Recorded) -> Self {
        Self {
            at: time(recorded.at_us),
            kind: recorded.name,
            from: recorded.from.as_ref().map(ToString::to_string),
            wait_us: recorded.waited.map(micros),
            handling_us: micros(recorded.handled_in),
            life: recorded.life,
            outcome: recorded.outcome.as_str(),
        }
    }
}

impl Event {
    pub(super) fn of(event: &LifecycleEvent) -> Self {
        let reason = match &event.kind {
            LifecycleKind::Failed { reason }
            | LifecycleKind::StartFailed { reason }
            | LifecycleKind::Stopped { reason }
            | LifecycleKind::Escalated { reason } => Some(reason.to_string()),
            LifecycleKind::Restarted { restarts } => Some(format!("{restarts} restarts")),
            LifecycleKind::BackingOff { delay } => Some(format!("for {delay:?}")),
            LifecycleKind::Health { detail, .. } => Some(detail.to_string()),
            LifecycleKind::Action(deed) => deed.origin.reason.as_deref().map(str::to_owned),
            _ => None,
        };
        let by = match &event.kind {
            LifecycleKind::Action(deed) => Some(deed.origin.by.to_string()),
            _ => None,
        };
        let text = match &event.kind {
            LifecycleKind::Action(deed) => {
                format!("{} was given a {} by {}", event.path, deed.action.as_str(), deed.origin)
            }
            kind => match &reason {
                Some(reason) => format!("{} {}: {reason}", event.path, kind.name()),
                None => format!("{} {}", event.path, kind.name()),
            },
        };
        Self {
            seq: event.seq,
            at: time(event.at_us),
            path: event.path.to_string(),
            life: event.life,
            kind: event.kind.name(),
            reason,
            by,
            cause_seq: event.cause_seq,
            decision: event.reaction().map(Decision::of),
            text,
        }
    }
}
