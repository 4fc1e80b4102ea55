//! The driver of a dynamic supervisor: children that come and go, each on its own.
//!
//! Every child is a `OneForOne` of its own, so there is no sequence to keep and the whole state of
//! a child is its phase. All are stopped at once, under one shared deadline, as OTP's
//! `simple_one_for_one` does it. Add, find and remove are O(1) in the number of children.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use indexmap::IndexMap;

use crate::actor::slot::AnySlot;
use crate::environment::lock;
use crate::error::{ExitReason, SupervisorError};
use crate::lifecycle::LifecycleKind;
use crate::supervisor::child::StartResult;
use crate::supervisor::dynamic::child::{Child, Phase, Then, Waiting};
use crate::supervisor::dynamic::decision::{alone, forgotten};
use crate::supervisor::intensity::Window;
use crate::supervisor::lives::Due;
use crate::supervisor::machine::Key;
use crate::supervisor::reaction::Reaction;
use crate::supervisor::reports::{End, Verdict};
use crate::supervisor::spec::ChildSpec;
use crate::supervisor::strategy::{Decision, RestartPolicy};
use crate::supervisor::{Common, SupervisorMessage, write};

mod child;
pub(super) mod decision;
mod request;

pub(crate) struct DynamicDriver {
    max_children: usize,
    /// Children come back with the next life of this supervisor.
    keep: bool,
    ids: IndexMap<Arc<str>, Key>,
    children: BTreeMap<Key, Box<Child>>,
    /// Set when all children are being stopped: how it will end.
    ending: Option<ExitReason>,
    /// Children that were there from the start and have not had theirs yet.
    first_starts: BTreeSet<Key>,
    pub(crate) common: Common,
}

impl DynamicDriver {
    pub(crate) fn new(common: Common, max_children: usize, keep: bool) -> Self {
        *lock(&common.link.window) = Window::default();
        Self {
            max_children,
            keep,
            ids: IndexMap::new(),
            children: BTreeMap::new(),
            ending: None,
            first_starts: BTreeSet::new(),
            common,
        }
    }

    pub(crate) fn message(&mut self, message: SupervisorMessage) {
        match message {
            SupervisorMessage::Init => self.init(),
            SupervisorMessage::ShutDown { cause_seq } => {
                self.shut_down(ExitReason::Shutdown, cause_seq);
            }
            SupervisorMessage::StartDone { key, life, result } => {
                self.start_done(key, life, result);
            }
            SupervisorMessage::Ended { key, life, reason } => {
                if let Some(end) = self.common.lives.ended(key, life, reason) {
                    self.ended(end);
                }
            }
            SupervisorMessage::Killed { id, life } => {
                if let Some(&key) = self.ids.get(&id) {
                    self.common.lives.killed(key, life);
                }
            }
            SupervisorMessage::Tick => {
                for due in self.common.lives.due() {
                    match due {
                        Due::StartDone { key, life, result } => self.start_done(key, life, result),
                        Due::Retry { key, epoch } => self.retry(key, epoch),
                        Due::Abandoned { key, life } => {
                            let reason = ExitReason::Killed;
                            self.ended(End { key, life, reason, stopping: true, told: true });
                        }
                    }
                }
            }
            SupervisorMessage::HealthChecked { key, life, health } => {
                if self.common.lives.health_checked(key, life, health).is_some() {
                    self.stop(key, Then::Fail);
                }
            }
            SupervisorMessage::Request(request) => self.request(request),
        }
        self.settle();
    }

    fn init(&mut self) {
        let mut declared = std::mem::take(&mut self.common.spec.children);
        let mut kept = std::mem::take(&mut *lock(&self.common.link.kept));
        // Declared children are kept too, and are one child each.
        for spec in &declared {
            kept.swap_remove(&spec.id);
        }
        declared.extend(kept.into_values());
        // What is not kept ends with the life of the supervisor that had it, as in OTP.
        let wanted: BTreeSet<&str> = declared.iter().map(|spec| &*spec.id).collect();
        write(&self.common.link.children).retain(|id, slot| {
            let kept = wanted.contains(&**id);
            if !kept {
                slot.close(&ExitReason::Shutdown);
            }
            kept
        });
        for spec in declared {
            let slot = self.common.slot_for(&spec);
            // A slot that has lived before is restarted, by the rules of a restart.
            let restart = slot.cell().life() > 0;
            let cause_seq = self.common.cause_seq;
            let key = self.insert(spec, slot, None, restart, cause_seq);
            if self.children.get(&key).is_some_and(|child| child.phase != Phase::Held) {
                self.first_starts.insert(key);
            }
        }
        if self.first_starts.is_empty() {
            self.common.ready();
        }
    }

    fn insert(
        &mut self,
        spec: ChildSpec,
        slot: Arc<dyn AnySlot>,
        waiting: Option<Waiting>,
        restart: bool,
        cause_seq: Option<u64>,
    ) -> Key {
        let key = self.common.next_key();
        let policy = spec.policy(self.common.lives.policies());
        if self.keep && policy.restart != RestartPolicy::Temporary {
            lock(&self.common.link.kept).insert(Arc::clone(&spec.id), spec.clone());
        }
        self.ids.insert(Arc::clone(&spec.id), key);
        self.common.link.insert(Arc::clone(&spec.id), Arc::clone(&slot));
        let suspended = slot.cell().is_suspended();
        self.common.lives.insert(key, spec, slot);
        self.common.lives.because(key, cause_seq);
        // Who was held when the supervisor's last life ended stays so until somebody resumes it.
        let phase = if suspended { Phase::Held } else { Phase::Starting { restart } };
        let child = Child { phase, suspended, epoch: 0, waiting };
        self.children.insert(key, Box::new(child));
        if !suspended {
            self.common.lives.start(key);
        }
        key
    }

    fn start_done(&mut self, key: Key, life: u64, result: StartResult) {
        let Some(child) = self.children.get(&key) else { return };
        let restart = matches!(child.phase, Phase::Starting { restart: true });
        let Some(result) = self.common.lives.started(key, life, result) else { return };
        self.first_start_done(key);
        match result {
            StartResult::Started | StartResult::StartedRaw(_) => {
                self.common.lives.report_up(key, life, restart);
                self.up(key);
            }
            StartResult::Ignored => self.forget(key, &ExitReason::Normal),
            StartResult::Failed(reason) if restart => self.restart_failed(key, life, reason),
            StartResult::Failed(reason) => self.first_start_failed(key, life, reason),
        }
    }

    fn first_start_done(&mut self, key: Key) {
        if self.first_starts.remove(&key) && self.first_starts.is_empty() {
            self.common.ready();
        }
    }

    fn up(&mut self, key: Key) {
        let now = self.now();
        let ending = self.ending.is_some();
        let slot = self.common.lives.children.get(&key).map(|child| Arc::clone(&child.slot));
        let Some(child) = self.children.get_mut(&key) else { return };
        child.phase = Phase::Up;
        if let Some(slot) = &slot {
            slot.cell().terms(|terms| terms.up_since = Some(now));
        }
        match (child.waiting.take(), slot) {
            (Some(Waiting::Slot(answer)), Some(slot)) => drop(answer.send(Ok(slot))),
            (Some(Waiting::Done(answer)), _) => drop(answer.send(Ok(()))),
            _ => {}
        }
        if ending {
            self.stop(key, Then::Forget);
        }
    }

    fn first_start_failed(&mut self, key: Key, life: u64, reason: ExitReason) {
        let path = self.path_of(key);
        let intensity =
            lock(&self.common.link.window).in_use(self.now(), self.common.spec.intensity);
        let reaction = Some(Arc::new(forgotten(&path, intensity)));
        let verdict = Verdict { reaction, gone: true };
        self.common.lives.report_start_failed(key, life, &reason, verdict);
        self.answer(key, Err(SupervisorError::StartFailed { path, reason: reason.clone() }));
        self.forget(key, &reason);
    }

    fn restart_failed(&mut self, key: Key, life: u64, reason: ExitReason) {
        let path = self.path_of(key);
        self.answer(key, Err(SupervisorError::StartFailed { path, reason: reason.clone() }));
        let (decision, reaction) = self.decide(key, None);
        let verdict = Verdict { reaction, gone: decision == Decision::GiveUp };
        self.common.lives.report_start_failed(key, life, &reason, verdict);
        self.carry_out(key, reason, &decision, true);
    }

    /// Asks the one decision. `normal`: how a life ended; `None` for a start that failed.
    fn decide(&self, key: Key, normal: Option<bool>) -> (Decision, Option<Arc<Reaction>>) {
        let nothing = (Decision::Leave { forget: true, shut_down: false }, None);
        let Some(live) = self.common.lives.children.get(&key) else { return nothing };
        let suspended = self.children.get(&key).is_some_and(|child| child.suspended);
        let mut window = lock(&self.common.link.window);
        let intensity = self.common.spec.intensity;
        let (decision, reaction) = live.slot.cell().terms(|terms| {
            alone(
                &live.slot.cell().path,
                terms,
                suspended,
                normal,
                intensity,
                &mut window,
                self.now(),
            )
        });
        (decision, Some(Arc::new(reaction)))
    }

    fn ended(&mut self, end: End) {
        let key = end.key;
        let gone = self.ending.is_none() || !self.keep;
        let lives = &mut self.common.lives;
        let verdict = |reaction, gone| Verdict { reaction, gone };
        let Some(child) = self.children.get_mut(&key) else {
            lives.report_end(&end, verdict(None, true));
            return;
        };
        match child.phase {
            Phase::Stopping(Then::Forget) => {
                lives.report_end(&end, verdict(None, gone));
                self.answer(key, Ok(()));
                self.forget(key, &end.reason);
            }
            _ if self.ending.is_some() => {
                lives.report_end(&end, verdict(None, gone));
                self.forget(key, &end.reason);
            }
            Phase::Stopping(Then::Start) => {
                lives.report_end(&end, verdict(None, false));
                self.start(key);
            }
            Phase::Up | Phase::Stopping(Then::Fail) => {
                let held = child.suspended;
                if held {
                    child.phase = Phase::Held;
                }
                // A life that its supervisor stopped for bad health did not end as it should.
                let normal = child.phase == Phase::Up && end.reason.is_normal();
                let (decision, reaction) = self.decide(key, Some(normal));
                let gone = !held && !matches!(decision, Decision::Restart { .. });
                self.common.lives.report_end(&end, verdict(reaction, gone));
                if !held {
                    self.carry_out(key, end.reason, &decision, false);
                }
            }
            Phase::Starting { .. } | Phase::Waiting | Phase::Held => {
                lives.report_end(&end, verdict(None, false));
            }
        }
    }

    fn carry_out(&mut self, key: Key, reason: ExitReason, decision: &Decision, failed_start: bool) {
        match decision {
            Decision::Leave { .. } => self.forget(key, &reason),
            Decision::GiveUp => {
                let seq = self.common.lives.children.get(&key).and_then(|child| child.ended_seq);
                let cell = self.common.slot.cell();
                let kind = LifecycleKind::Escalated { reason: reason.clone() };
                let seq = self.common.lives.env.emit(cell, cell.life(), seq, kind);
                let child = self.path_of(key);
                self.forget(key, &reason);
                let reason = ExitReason::Escalated { child, cause: Box::new(reason) };
                self.shut_down(reason, Some(seq));
            }
            Decision::Restart { .. } => {
                let Some(child) = self.children.get_mut(&key) else { return };
                let Some(live) = self.common.lives.children.get(&key) else { return };
                let (backoff, in_a_row) = live
                    .slot
                    .cell()
                    .terms(|terms| (terms.policy().backoff, terms.failures_in_a_row));
                if backoff.is_none() && !failed_start {
                    self.start(key);
                    return;
                }
                child.phase = Phase::Waiting;
                let failures = in_a_row.saturating_sub(1);
                let epoch = child.epoch;
                let delay = self.common.lives.env.random(|rng| backoff.delay(failures, rng));
                self.common.lives.retry_after(key, epoch, delay);
            }
        }
    }

    fn retry(&mut self, key: Key, epoch: u64) {
        let child = self.children.get(&key);
        if child.is_some_and(|child| child.phase == Phase::Waiting && child.epoch == epoch) {
            self.start(key);
        }
    }

    fn start(&mut self, key: Key) {
        let Some(child) = self.children.get_mut(&key) else { return };
        if child.suspended {
            child.phase = Phase::Held;
            return;
        }
        child.phase = Phase::Starting { restart: true };
        self.common.lives.start(key);
    }

    fn stop(&mut self, key: Key, then: Then) {
        let Some(child) = self.children.get_mut(&key) else { return };
        match child.phase {
            Phase::Up => {
                child.phase = Phase::Stopping(then);
                self.common.lives.stop(key, then != Then::Forget);
            }
            Phase::Stopping(Then::Fail | Then::Start) if then == Then::Forget => {
                child.phase = Phase::Stopping(then);
            }
            Phase::Waiting | Phase::Held => {
                child.epoch += 1;
                self.common.lives.cancel_retry(key);
                if then == Then::Forget {
                    self.answer(key, Ok(()));
                    self.forget(key, &ExitReason::Shutdown);
                } else {
                    self.start(key);
                }
            }
            Phase::Starting { .. } if then == Then::Forget => {
                self.common.lives.abort_start(key);
                self.answer(key, Err(self.stopping_error()));
                self.forget(key, &ExitReason::Shutdown);
            }
            Phase::Stopping(_) | Phase::Starting { .. } => {}
        }
    }

    fn shut_down(&mut self, reason: ExitReason, cause_seq: Option<u64>) {
        if self.ending.is_some() {
            return;
        }
        self.ending = Some(reason);
        self.common.ends_because(cause_seq);
        let keys: Vec<Key> = self.children.keys().copied().collect();
        for key in keys {
            self.common.lives.because(key, cause_seq);
            self.stop(key, Then::Forget);
        }
    }

    /// Reports the starts that were done at once, and ends when all is done.
    fn settle(&mut self) {
        if self.children.is_empty() && self.common.finished.is_none() {
            self.common.finished = self.ending.clone();
        }
    }

    fn forget(&mut self, key: Key, reason: &ExitReason) {
        self.children.remove(&key);
        if self.ending.is_some() && self.keep {
            // Its slot waits for the next life of this supervisor; if there is none, the parent
            // closes it with this one's.
            if let Some(id) = self.common.lives.keep(key) {
                self.ids.swap_remove(&id);
            }
            return;
        }
        if let Some(id) = self.common.lives.remove(key, reason) {
            self.ids.swap_remove(&id);
            self.common.link.remove(&id);
            if self.keep {
                lock(&self.common.link.kept).swap_remove(&id);
            }
        }
    }

    // --- small change --------------------------------------------------------------------------

    fn path_of(&self, key: Key) -> crate::path::Path {
        match self.common.lives.children.get(&key) {
            Some(child) => child.slot.cell().path.clone(),
            None => self.common.path().clone(),
        }
    }

    fn not_found(&self, id: &str) -> SupervisorError {
        SupervisorError::NotFound { supervisor: self.common.path().clone(), id: id.to_owned() }
    }

    fn stopping_error(&self) -> SupervisorError {
        SupervisorError::Stopping { supervisor: self.common.path().clone() }
    }

    fn now(&self) -> Duration {
        self.common.lives.env.clock.elapsed()
    }
}
