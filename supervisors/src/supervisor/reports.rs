//! What happens to the lives under one supervisor, told as events.
//!
//! The one place that emits them. An end is told together with what is done about it: the decision
//! is made first, and carried out after.

use crate::actor::{SlotKind, SlotState};
use crate::environment::Environment;
use crate::error::ExitReason;
use crate::lifecycle::{LifecycleEvent, LifecycleKind};
use crate::supervisor::lives::{LiveChild, Lives};
use crate::supervisor::orders::{News, Report};
use crate::supervisor::reaction::ReactionCell;
use crate::supervisor::{SupervisorLink, SupervisorPlace};

impl Lives {
    /// Tells what happened to a life.
    pub(crate) fn report(&mut self, report: Report) {
        let Some(child) = self.children.get_mut(&report.key) else { return };
        let env = &self.env;
        let life = report.life;
        let slot = std::sync::Arc::clone(&child.slot);
        let blamed = || slot.cell().take_blame(life);
        match &report.news {
            News::Up { restart } => up(env, child, life, *restart),
            News::StartFailed(reason) => {
                // A supervisor says itself which of its children did not start.
                let cause = blamed().or(child.cause_seq);
                let kind = LifecycleKind::StartFailed { reason: reason.clone() };
                failed(env, child, &report, reason, cause, kind);
            }
            News::Unhealthy(reason) => {
                let kind = LifecycleKind::Failed { reason: reason.clone() };
                failed(env, child, &report, reason, None, kind);
                // The life goes on until it is stopped for it.
                child.slot.cell().set_reported_up(true);
            }
            News::Ended(reason) if reason.is_normal() => {
                let seq = stopped(env, child, &report, reason, blamed());
                child.cause_seq = Some(seq);
                child.ended_seq = Some(seq);
            }
            News::Ended(reason) => {
                // Whoever killed it did not make it fail by itself in the same moment.
                let own = matches!(reason, ExitReason::Error(_) | ExitReason::Panic(_));
                let cause = blamed().filter(|_| !own);
                let kind = LifecycleKind::Failed { reason: reason.clone() };
                failed(env, child, &report, reason, cause, kind);
            }
            News::Stopped(reason) => {
                let blamed = blamed();
                let seq = stopped(env, child, &report, reason, child.cause_seq.or(blamed));
                child.cause_seq = child.cause_seq.or(Some(seq));
            }
            News::Stuck => {
                let cell = child.slot.cell();
                cell.set_reported_up(false);
                let seq = env.emit(cell, life, child.cause_seq, LifecycleKind::Stuck);
                child.cause_seq = Some(seq);
            }
        }
        // A supervisor that is killed while it starts leaves children too.
        let over = matches!(report.news, News::Ended(_) | News::Stopped(_) | News::StartFailed(_));
        if let (true, Some(link)) = (over, child.slot.supervisor()) {
            report_lost(env, link, child.cause_seq);
        }
    }
}

fn up(env: &Environment, child: &mut LiveChild, life: u64, restart: bool) {
    let cell = child.slot.cell();
    let cause = child.cause_seq.take();
    let told = cell.set_reported_up(true);
    if restart {
        let restarts = cell.count_restart();
        env.emit(cell, life, cause, LifecycleKind::Restarted { restarts });
    } else if !told {
        // One that told of it itself is not told of again.
        env.emit(cell, life, cause, LifecycleKind::Started);
    }
}

/// Tells of an end in order.
fn stopped(
    env: &Environment,
    child: &LiveChild,
    report: &Report,
    reason: &ExitReason,
    cause_seq: Option<u64>,
) -> u64 {
    let cell = child.slot.cell();
    cell.set_reported_up(false);
    let kind = LifecycleKind::Stopped { reason: reason.clone() };
    let event = LifecycleEvent::new(cell.path.clone(), cell.info.kind, report.life, kind);
    env.publish(LifecycleEvent { cause_seq, gone: report.gone, ..event })
}

/// Tells of a failure, and writes it down in the slot.
fn failed(
    env: &Environment,
    child: &mut LiveChild,
    report: &Report,
    reason: &ExitReason,
    cause_seq: Option<u64>,
    kind: LifecycleKind,
) {
    let cell = child.slot.cell();
    let decision = ReactionCell::of(report.reaction.clone());
    cell.set_reported_up(false);
    let event = LifecycleEvent::new(cell.path.clone(), cell.info.kind, report.life, kind);
    let seq = env.publish(LifecycleEvent {
        cause_seq,
        decision: Some(decision.clone()),
        gone: report.gone,
        ..event
    });
    cell.record_failure(report.life, reason.clone(), seq, decision);
    child.cause_seq = Some(seq);
    child.ended_seq = Some(seq);
}

/// A supervisor is gone without having stopped its children: what lived below it was killed with
/// it, and nobody else would tell.
fn report_lost(env: &Environment, link: &SupervisorLink, cause_seq: Option<u64>) {
    let place: &SupervisorPlace = link;
    for slot in place.slots().iter().rev() {
        let cell = slot.cell();
        if cell.set_reported_up(false) {
            if cell.state() != SlotState::Stuck {
                cell.set_state(SlotState::Down);
            }
            let life = cell.life();
            if !matches!(cell.info.kind, SlotKind::Actor | SlotKind::Task) {
                // An actor's life clears its own slot when it lets go.
                cell.life_ended(life, false);
            }
            let reason = cell.exit_of(life).unwrap_or(ExitReason::Killed);
            let kind = LifecycleKind::Stopped { reason };
            let event = LifecycleEvent::new(cell.path.clone(), cell.info.kind, life, kind);
            env.publish(LifecycleEvent { cause_seq, gone: place.forgets_children(), ..event });
        }
        if let Some(below) = slot.supervisor() {
            report_lost(env, below, cause_seq);
        }
    }
}
