//! What happens to the lives under one supervisor, told as events.
//!
//! The one place that emits them. An end is told when it is known what is done about it: the
//! decision is made first, and carried out after.

use std::sync::Arc;

use crate::actor::{SlotKind, SlotState};
use crate::environment::Environment;
use crate::error::ExitReason;
use crate::lifecycle::{LifecycleEvent, LifecycleKind};
use crate::supervisor::lives::{LiveChild, Lives};
use crate::supervisor::machine::Key;
use crate::supervisor::reaction::{Reaction, ReactionCell};
use crate::supervisor::{SupervisorLink, SupervisorPlace};

/// The end of a life, on its way to being told.
#[derive(Clone, Debug)]
pub(crate) struct End {
    pub(crate) key: Key,
    pub(crate) life: u64,
    pub(crate) reason: ExitReason,
    /// Its supervisor wanted it so.
    pub(crate) stopping: bool,
    /// There was an event about it already.
    pub(crate) told: bool,
}

/// What is told with an end or a failed start.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    pub(crate) reaction: Option<Arc<Reaction>>,
    /// Its slot goes with it.
    pub(crate) gone: bool,
}

impl Lives {
    /// A start that was ordered has led to a life.
    pub(crate) fn report_up(&mut self, key: Key, life: u64, restart: bool) {
        let Some(child) = self.children.get_mut(&key) else { return };
        let cell = child.slot.cell();
        let kind = if restart {
            LifecycleKind::Restarted { restarts: cell.count_restart() }
        } else {
            LifecycleKind::Started
        };
        cell.set_reported_up(true);
        self.env.emit(cell, life, child.cause_seq.take(), kind);
    }

    /// A start that was ordered has failed.
    pub(crate) fn report_start_failed(
        &mut self,
        key: Key,
        life: u64,
        reason: &ExitReason,
        verdict: Verdict,
    ) {
        let Some(child) = self.children.get_mut(&key) else { return };
        // A supervisor says itself which of its children did not start.
        let cause = child.slot.cell().take_blame(life).or(child.cause_seq);
        fail(&self.env, child, life, cause, reason, verdict, |reason| LifecycleKind::StartFailed {
            reason,
        });
    }

    /// A life has ended.
    pub(crate) fn report_end(&mut self, end: &End, verdict: Verdict) {
        let Some(child) = self.children.get_mut(&end.key) else { return };
        if end.told {
            self.decided(end.key, verdict.reaction);
            return;
        }
        let slot = Arc::clone(&child.slot);
        let cell = slot.cell();
        let blamed = cell.take_blame(end.life);
        if end.stopping || end.reason.is_normal() {
            let cause = if end.stopping { child.cause_seq.or(blamed) } else { blamed };
            let kind = LifecycleKind::Stopped { reason: end.reason.clone() };
            cell.set_reported_up(false);
            let event = LifecycleEvent::new(cell.path.clone(), cell.info.kind, end.life, kind);
            let gone = verdict.gone;
            let seq = self.env.publish(LifecycleEvent { cause_seq: cause, gone, ..event });
            if end.stopping {
                child.cause_seq = child.cause_seq.or(Some(seq));
            } else {
                child.cause_seq = Some(seq);
                child.ended_seq = Some(seq);
            }
            self.decided(end.key, verdict.reaction);
        } else {
            // Whoever killed it did not make it fail by itself in the same moment.
            let own = matches!(end.reason, ExitReason::Error(_) | ExitReason::Panic(_));
            let cause = blamed.filter(|_| !own);
            fail(&self.env, child, end.life, cause, &end.reason, verdict, |reason| {
                LifecycleKind::Failed { reason }
            });
        }
        if let Some(link) = slot.supervisor() {
            let cause = self.children.get(&end.key).and_then(|child| child.cause_seq);
            report_lost(&self.env, link, cause);
        }
    }

    /// Bad health is treated as a failure; the life goes on until it is stopped for it.
    pub(crate) fn report_unhealthy(&mut self, key: Key, life: u64, reason: &ExitReason) {
        let Some(child) = self.children.get_mut(&key) else { return };
        fail(&self.env, child, life, None, reason, Verdict::default(), |reason| {
            LifecycleKind::Failed { reason }
        });
        child.slot.cell().set_reported_up(true);
    }

    /// What is done about a failure that was told before it was decided.
    pub(crate) fn decided(&mut self, key: Key, reaction: Option<Arc<Reaction>>) {
        if let (Some(child), Some(reaction)) = (self.children.get_mut(&key), reaction)
            && let Some(decision) = child.decision.take()
        {
            decision.fill(reaction);
        }
    }
}

/// Tells of a failure, and writes it down in the slot.
fn fail(
    env: &Environment,
    child: &mut LiveChild,
    life: u64,
    cause_seq: Option<u64>,
    reason: &ExitReason,
    verdict: Verdict,
    kind: impl FnOnce(ExitReason) -> LifecycleKind,
) {
    let cell = child.slot.cell();
    let undecided = verdict.reaction.is_none();
    let decision = ReactionCell::of(verdict.reaction);
    cell.set_reported_up(false);
    let kind = kind(reason.clone());
    let event = LifecycleEvent::new(cell.path.clone(), cell.info.kind, life, kind);
    let seq = env.publish(LifecycleEvent {
        cause_seq,
        decision: Some(decision.clone()),
        gone: verdict.gone,
        ..event
    });
    cell.record_failure(life, reason.clone(), seq, decision.clone());
    child.decision = undecided.then_some(decision);
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
            if cell.info.kind != SlotKind::Actor {
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
