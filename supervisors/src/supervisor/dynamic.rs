//! The driver of a dynamic supervisor: children that come and go, each on its own.
//!
//! Every child is a `OneForOne` of its own, so there is no sequence to keep and the whole state of
//! a child is its phase. All are stopped at once, under one shared deadline, as OTP's
//! `simple_one_for_one` does it. Add, find and remove are O(1) in the number of children.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use indexmap::IndexMap;
use ractor::ActorCell;

use crate::actor::slot::AnySlot;
use crate::environment::lock;
use crate::error::{ExitReason, SupervisorError};
use crate::lifecycle::LifecycleKind;
use crate::supervisor::child::StartResult;
use crate::supervisor::dynamic::child::{Child, Phase, Then, Waiting};
use crate::supervisor::intensity::Window;
use crate::supervisor::lives::{LiveChild, RawEnd};
use crate::supervisor::machine::Key;
use crate::supervisor::spec::{ChildSpec, check_child};
use crate::supervisor::strategy::{
    AutoShutdown, Decision, Policy, RestartPolicy, Strategy, decide, decide_restart,
};
use crate::supervisor::{Answer, Ask, Change, Common, Request, SupervisorMessage, write};

mod child;

pub(crate) struct DynamicDriver {
    max_children: usize,
    /// Children come back with the next life of this supervisor.
    keep: bool,
    window: Window,
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
        Self {
            max_children,
            keep,
            window: Window::default(),
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
            SupervisorMessage::ShutDown => self.shut_down(ExitReason::Shutdown),
            SupervisorMessage::StartDone { key, life, result } => {
                self.start_done(key, life, result);
            }
            SupervisorMessage::Retry { key, epoch } => self.retry(key, epoch),
            SupervisorMessage::StopTimeout { key, life } => self.common.lives.kill(key, life),
            SupervisorMessage::KillTimeout { key, life } => {
                if self.common.lives.abandon(key, life) {
                    self.ended(key, ExitReason::Killed);
                }
            }
            SupervisorMessage::HealthTick { key, life } => {
                self.common.lives.check_health(key, life);
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

    pub(crate) fn actor_ended(&mut self, actor: &ActorCell, end: RawEnd) {
        if let Some((key, reason)) = self.common.lives.ended(actor, end) {
            self.ended(key, reason);
            self.settle();
        }
    }

    fn init(&mut self) {
        let mut declared = std::mem::take(&mut self.common.spec.children);
        let kept = std::mem::take(&mut *lock(&self.common.link.kept));
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
            let key = self.insert(spec, slot, None, restart);
            self.first_starts.insert(key);
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
    ) -> Key {
        let key = self.common.next_key();
        let policy = spec.policy(self.common.lives.policies());
        if self.keep && policy.restart != RestartPolicy::Temporary {
            lock(&self.common.link.kept).insert(Arc::clone(&spec.id), spec.clone());
        }
        self.ids.insert(Arc::clone(&spec.id), key);
        self.common.link.insert(Arc::clone(&spec.id), Arc::clone(&slot));
        self.common.lives.children.insert(key, LiveChild::new(spec, slot));
        let child = Child {
            policy,
            phase: Phase::Starting { restart },
            suspended: false,
            failures_in_a_row: 0,
            up_since: None,
            epoch: 0,
            waiting,
        };
        self.children.insert(key, Box::new(child));
        self.common.lives.start(key);
        key
    }

    fn start_done(&mut self, key: Key, life: u64, result: StartResult) {
        let Some(child) = self.children.get(&key) else { return };
        let restart = matches!(child.phase, Phase::Starting { restart: true });
        let Some(early) = self.common.lives.started(key, life, &result, restart) else { return };
        self.common.lives.forget_early_ends();
        self.first_start_done(key);
        match result {
            StartResult::Started(_) => self.up(key),
            StartResult::Ignored => self.forget(key, &ExitReason::Normal),
            StartResult::Failed(reason) if restart => self.restart_failed(key, reason),
            StartResult::Failed(reason) => self.first_start_failed(key, reason),
        }
        if let Some((key, reason)) = early.and_then(|end| self.common.lives.end_of(key, end)) {
            self.ended(key, reason);
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
        child.up_since = Some(now);
        match (child.waiting.take(), slot) {
            (Some(Waiting::Slot(answer)), Some(slot)) => drop(answer.send(Ok(slot))),
            (Some(Waiting::Done(answer)), _) => drop(answer.send(Ok(()))),
            _ => {}
        }
        if ending {
            self.stop(key, Then::Forget);
        }
    }

    fn first_start_failed(&mut self, key: Key, reason: ExitReason) {
        let path = self.path_of(key);
        self.answer(key, Err(SupervisorError::StartFailed { path, reason: reason.clone() }));
        self.forget(key, &reason);
    }

    fn restart_failed(&mut self, key: Key, reason: ExitReason) {
        let path = self.path_of(key);
        self.answer(key, Err(SupervisorError::StartFailed { path, reason: reason.clone() }));
        let now = self.now();
        let Some(child) = self.children.get_mut(&key) else { return };
        let worn_out = child.count_failure(now);
        let views = [child.view()];
        let policy = self.policy();
        let decision = decide_restart(&views, 0, worn_out, &policy, &mut self.window, now);
        self.carry_out(key, reason, &decision, true);
    }

    fn ended(&mut self, key: Key, reason: ExitReason) {
        let now = self.now();
        let policy = self.policy();
        let Some(child) = self.children.get_mut(&key) else { return };
        match child.phase {
            Phase::Stopping(Then::Forget) => {
                self.answer(key, Ok(()));
                self.forget(key, &reason);
            }
            _ if self.ending.is_some() => self.forget(key, &reason),
            Phase::Stopping(Then::Start) => self.start(key),
            Phase::Up | Phase::Stopping(Then::Fail) if child.suspended => {
                child.phase = Phase::Held;
            }
            Phase::Up | Phase::Stopping(Then::Fail) => {
                // A life that its supervisor stopped for bad health did not end as it should.
                let normal = child.phase == Phase::Up && reason.is_normal();
                let worn_out = child.count_failure(now);
                let views = [child.view()];
                let decision = decide(&views, 0, normal, worn_out, &policy, &mut self.window, now);
                self.carry_out(key, reason, &decision, false);
            }
            Phase::Starting { .. } | Phase::Waiting | Phase::Held => {}
        }
    }

    fn carry_out(&mut self, key: Key, reason: ExitReason, decision: &Decision, failed_start: bool) {
        match decision {
            Decision::Leave { .. } => self.forget(key, &reason),
            Decision::GiveUp => {
                let seq = self.common.lives.children.get(&key).and_then(|child| child.cause_seq);
                let cell = self.common.slot.cell();
                let kind = LifecycleKind::Escalated { reason: reason.clone() };
                self.common.lives.env.emit(&cell.path, cell.life(), seq, kind);
                let child = self.path_of(key);
                self.forget(key, &reason);
                self.shut_down(ExitReason::Escalated { child, cause: Box::new(reason) });
            }
            Decision::Restart { .. } => {
                let Some(child) = self.children.get_mut(&key) else { return };
                let backoff = child.policy.backoff;
                if backoff.is_none() && !failed_start {
                    self.start(key);
                    return;
                }
                child.phase = Phase::Waiting;
                let failures = child.failures_in_a_row.saturating_sub(1);
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

    fn shut_down(&mut self, reason: ExitReason) {
        if self.ending.is_some() {
            return;
        }
        self.ending = Some(reason);
        let keys: Vec<Key> = self.children.keys().copied().collect();
        for key in keys {
            self.stop(key, Then::Forget);
        }
    }

    /// Reports the starts that were done at once, and ends when all is done.
    fn settle(&mut self) {
        while let Some((key, life, result)) = self.common.lives.next_done() {
            self.start_done(key, life, result);
        }
        if self.children.is_empty() && self.common.finished.is_none() {
            self.common.finished = self.ending.clone();
        }
    }

    fn forget(&mut self, key: Key, reason: &ExitReason) {
        self.children.remove(&key);
        if self.ending.is_some() && self.keep {
            // Its slot waits for the next life of this supervisor; if there is none, the parent
            // closes it with this one's.
            if let Some(child) = self.common.lives.children.remove(&key) {
                self.ids.swap_remove(&child.spec.id);
            }
            return;
        }
        if let Some(child) = self.common.lives.remove(key, reason) {
            self.ids.swap_remove(&child.spec.id);
            self.common.link.remove(&child.spec.id);
            if self.keep {
                lock(&self.common.link.kept).swap_remove(&child.spec.id);
            }
        }
    }

    // --- requests ------------------------------------------------------------------------------

    fn request(&mut self, request: Request) {
        let stopping = self.ending.is_some() || self.is_stopping_caller(&request);
        match request.ask {
            Ask::Start(_, answer) if stopping => drop(answer.send(Err(self.stopping_error()))),
            Ask::Change(_, _, answer) if stopping => {
                drop(answer.send(Err(self.stopping_error())));
            }
            Ask::Start(spec, answer) => self.add(*spec, answer),
            Ask::Change(change, id, answer) => match self.ids.get(&id) {
                Some(&key) => self.change(key, change, answer),
                None => drop(answer.send(Err(self.not_found(&id)))),
            },
            Ask::SetIntensity(intensity, answer) => {
                self.common.set_intensity(intensity);
                drop(answer.send(Ok(())));
            }
            Ask::SetPolicy(id, policy, answer) => {
                let key = self.ids.get(&id).copied();
                let child = key.and_then(|key| self.children.get_mut(&key));
                let result = match child {
                    Some(child) => {
                        child.policy = policy;
                        Ok(())
                    }
                    None => Err(self.not_found(&id)),
                };
                drop(answer.send(result));
            }
            Ask::RestartsLeft(answer) => {
                let left = self.window.left(self.now(), self.common.spec.intensity);
                drop(answer.send(Ok(left)));
            }
        }
    }

    /// Looks only at the one child that could be the caller: there may be 100,000 others.
    fn is_stopping_caller(&self, request: &Request) -> bool {
        let Some(caller) = &request.caller else { return false };
        let own = self.common.path().segments().count();
        let Some(segment) = caller.segments().nth(own) else { return false };
        if !caller.is_within(self.common.path()) {
            return false;
        }
        let id = crate::path::unescape(segment);
        let key = self.ids.get(&*id).copied();
        let child = key.and_then(|key| self.children.get(&key));
        child.is_some_and(|child| matches!(child.phase, Phase::Stopping(_)))
    }

    fn add(&mut self, spec: ChildSpec, answer: Answer<Arc<dyn AnySlot>>) {
        let refusal = if let Err(error) =
            check_child(&spec, &self.common.spec, self.common.lives.policies())
        {
            Some(error.into())
        } else if self.ids.contains_key(&spec.id) {
            Some(SupervisorError::AlreadyStarted { path: self.common.path().child(&spec.id) })
        } else if self.children.len() >= self.max_children {
            Some(SupervisorError::MaxChildren {
                supervisor: self.common.path().clone(),
                max: self.max_children,
            })
        } else {
            None
        };
        if let Some(error) = refusal {
            drop(answer.send(Err(error)));
            return;
        }
        let slot =
            spec.child.slot(&spec, self.common.path().child(&spec.id), &self.common.lives.env);
        self.insert(spec, slot, Some(Waiting::Slot(answer)), false);
    }

    fn change(&mut self, key: Key, change: Change, answer: Answer<()>) {
        let path = self.path_of(key);
        let Some(child) = self.children.get_mut(&key) else { return };
        match (change, child.phase) {
            (Change::Terminate | Change::PlannedRestart, Phase::Starting { .. }) => {
                drop(answer.send(Err(SupervisorError::Restarting { path })));
            }
            (Change::Terminate | Change::PlannedRestart, Phase::Stopping(_)) => {
                drop(answer.send(Err(self.stopping_error())));
            }
            (Change::Terminate, _) => {
                child.waiting = Some(Waiting::Done(answer));
                self.stop(key, Then::Forget);
            }
            (Change::PlannedRestart, _) => {
                child.waiting = Some(Waiting::Done(answer));
                self.unsuspend(key);
                self.stop(key, Then::Start);
            }
            (Change::Restart | Change::Delete, Phase::Waiting) => {
                drop(answer.send(Err(SupervisorError::Restarting { path })));
            }
            (Change::Restart | Change::Delete, _) => {
                drop(answer.send(Err(SupervisorError::Running { path })));
            }
            (Change::Suspend, phase) => {
                child.suspended = true;
                if phase == Phase::Waiting {
                    child.phase = Phase::Held;
                    child.epoch += 1;
                    self.common.lives.cancel_retry(key);
                }
                self.common.lives.suspend(key, true);
                drop(answer.send(Ok(())));
            }
            (Change::Resume, phase) => {
                self.unsuspend(key);
                if phase == Phase::Held {
                    if let Some(child) = self.children.get_mut(&key) {
                        child.waiting = Some(Waiting::Done(answer));
                    }
                    self.start(key);
                } else {
                    drop(answer.send(Ok(())));
                }
            }
        }
    }

    fn unsuspend(&mut self, key: Key) {
        let Some(child) = self.children.get_mut(&key) else { return };
        if std::mem::take(&mut child.suspended) {
            self.common.lives.suspend(key, false);
        }
    }

    fn answer(&mut self, key: Key, result: Result<(), SupervisorError>) {
        let waiting = self.children.get_mut(&key).and_then(|child| child.waiting.take());
        match (waiting, result) {
            (Some(Waiting::Done(answer)), result) => drop(answer.send(result)),
            (Some(Waiting::Slot(answer)), Err(error)) => drop(answer.send(Err(error))),
            // A start that is answered without a slot was taken back.
            (Some(Waiting::Slot(answer)), Ok(())) => {
                drop(answer.send(Err(self.stopping_error())));
            }
            (None, _) => {}
        }
    }

    // --- small change --------------------------------------------------------------------------

    fn policy(&self) -> Policy {
        Policy {
            strategy: Strategy::OneForOne,
            intensity: self.common.spec.intensity,
            auto_shutdown: AutoShutdown::Never,
        }
    }

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
