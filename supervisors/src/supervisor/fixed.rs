//! The driver of a static supervisor: carries out what the [`Machine`] orders.

use std::collections::BTreeMap;
use std::sync::Arc;

use ractor::ActorCell;

use crate::actor::slot::{AnySlot, SlotState};
use crate::error::{ExitReason, SupervisorError};
use crate::lifecycle::LifecycleKind;
use crate::path::Path;
use crate::supervisor::child::StartResult;
use crate::supervisor::lives::{LiveChild, RawEnd};
use crate::supervisor::machine::{
    Command, Declared, Input, Key, Machine, Order, Reply, StartOutcome, Token,
};
use crate::supervisor::spec::{ChildSpec, check_child};
use crate::supervisor::{Answer, Ask, Change, Common, Policy, Request, SupervisorMessage, write};

pub(crate) struct StaticDriver {
    machine: Machine,
    requests: BTreeMap<Token, Pending>,
    next_token: Token,
    /// The event that led to what is under way: stops and starts of siblings name it.
    cause_seq: Option<u64>,
    /// Whether the start of a key takes the place of an earlier life.
    restarts: BTreeMap<Key, bool>,
    /// The last field: its drop tells the tree that this life is over.
    pub(crate) common: Common,
}

/// A command that waits for its reply.
struct Pending {
    caller: Option<Path>,
    answer: PendingAnswer,
}

enum PendingAnswer {
    Slot(Arc<dyn AnySlot>, Answer<Arc<dyn AnySlot>>),
    Done(Answer<()>),
}

impl StaticDriver {
    pub(crate) fn new(common: Common) -> Self {
        let policy = Policy {
            strategy: common.spec.strategy,
            intensity: common.spec.intensity,
            auto_shutdown: common.spec.auto_shutdown,
        };
        let machine = Machine::new(common.path().clone(), policy);
        Self {
            machine,
            requests: BTreeMap::new(),
            next_token: 0,
            cause_seq: None,
            restarts: BTreeMap::new(),
            common,
        }
    }

    pub(crate) fn message(&mut self, message: SupervisorMessage) {
        match message {
            SupervisorMessage::Init => self.init(),
            SupervisorMessage::ShutDown => {
                let now = self.now();
                self.machine.shut_down(now, ExitReason::Shutdown);
            }
            SupervisorMessage::StartDone { key, life, result } => {
                self.start_done(key, life, result);
            }
            SupervisorMessage::Retry { key, epoch } => self.input(Input::Retry { key, epoch }),
            SupervisorMessage::StopTimeout { key, life } => self.common.lives.kill(key, life),
            SupervisorMessage::KillTimeout { key, life } => {
                if self.common.lives.abandon(key, life) {
                    self.input(Input::Ended { key, reason: ExitReason::Killed });
                }
            }
            SupervisorMessage::HealthTick { key, life } => {
                self.common.lives.check_health(key, life);
            }
            SupervisorMessage::HealthChecked { key, life, health } => {
                if let Some(reason) = self.common.lives.health_checked(key, life, health) {
                    self.input(Input::Unhealthy { key, reason });
                }
            }
            SupervisorMessage::Request(request) => self.request(request),
        }
        self.carry_out();
    }

    pub(crate) fn actor_ended(&mut self, actor: &ActorCell, end: RawEnd) {
        if let Some((key, reason)) = self.common.lives.ended(actor, end) {
            self.cause_seq = self.common.lives.children.get(&key).and_then(|c| c.cause_seq);
            self.input(Input::Ended { key, reason });
            self.carry_out();
        }
    }

    fn init(&mut self) {
        let declared: Vec<ChildSpec> = self.common.spec.children.clone();
        let mut index = indexmap::IndexMap::with_capacity(declared.len());
        let mut children = Vec::with_capacity(declared.len());
        for spec in declared {
            let slot = self.common.slot_for(&spec);
            index.insert(Arc::clone(&spec.id), Arc::clone(&slot));
            let key = self.common.next_key();
            children.push((key, self.declared(&spec)));
            self.common.lives.children.insert(key, LiveChild::new(spec, slot));
        }
        let before = std::mem::replace(&mut *write(&self.common.link.children), index);
        // Children that were added at run time go with the life that had them, as in OTP.
        for (id, slot) in before {
            if self.common.link.child(&id).is_none_or(|kept| !Arc::ptr_eq(&kept, &slot)) {
                slot.close(&ExitReason::Shutdown);
            }
        }
        let now = self.now();
        self.machine.init(now, children);
    }

    fn declared(&self, spec: &ChildSpec) -> Declared {
        Declared {
            id: Arc::clone(&spec.id),
            policy: spec.policy(self.common.lives.policies()),
            significant: spec.significant,
            depends_on: spec.metadata.depends_on.iter().map(|id| id.as_str().into()).collect(),
        }
    }

    fn start_done(&mut self, key: Key, life: u64, result: StartResult) {
        let restart = self.restarts.remove(&key).unwrap_or(false);
        let Some(early) = self.common.lives.started(key, life, &result, restart) else { return };
        let outcome = match result {
            StartResult::Started(_) => StartOutcome::Started,
            StartResult::Ignored => StartOutcome::Ignored,
            StartResult::Failed(reason) => StartOutcome::Failed(reason),
        };
        self.common.lives.forget_early_ends();
        self.input(Input::StartDone { key, outcome });
        if let Some((key, reason)) = early.and_then(|end| self.common.lives.end_of(key, end)) {
            self.input(Input::Ended { key, reason });
        }
    }

    fn input(&mut self, input: Input) {
        let now = self.now();
        self.machine.input(now, input);
    }

    fn now(&self) -> std::time::Duration {
        self.common.lives.env.clock.elapsed()
    }

    // --- requests ------------------------------------------------------------------------------

    fn request(&mut self, request: Request) {
        self.cause_seq = None;
        let stopping = self.common.is_stopping(request.caller.as_ref());
        let Request { caller, ask } = request;
        match ask {
            Ask::Start(_, answer) if stopping => {
                let _ = answer.send(Err(self.stopping_error()));
            }
            Ask::Change(_, _, answer) if stopping => {
                let _ = answer.send(Err(self.stopping_error()));
            }
            Ask::Start(spec, answer) => self.add(caller, *spec, answer),
            Ask::Change(change, id, answer) => {
                let token = self.pending(caller, PendingAnswer::Done(answer));
                let command = match change {
                    Change::Terminate => Command::Terminate(id),
                    Change::Restart => Command::Restart(id),
                    Change::Delete => Command::Delete(id),
                    Change::PlannedRestart => Command::PlannedRestart(id),
                    Change::Suspend => Command::Suspend(id),
                    Change::Resume => Command::Resume(id),
                };
                self.input(Input::Command { token, command });
            }
            Ask::SetIntensity(intensity, answer) => {
                self.common.set_intensity(intensity);
                self.machine.policy.intensity = intensity;
                let _ = answer.send(Ok(()));
            }
            Ask::SetPolicy(id, policy, answer) => {
                let key = self.key_of(&id);
                let result = match key {
                    Some(key) => {
                        self.machine.set_child_policy(key, policy);
                        Ok(())
                    }
                    None => Err(self.not_found(&id)),
                };
                let _ = answer.send(result);
            }
            Ask::RestartsLeft(answer) => {
                let _ = answer.send(Ok(self.machine.restarts_left(self.now())));
            }
        }
    }

    fn add(&mut self, caller: Option<Path>, spec: ChildSpec, answer: Answer<Arc<dyn AnySlot>>) {
        if let Err(error) = check_child(&spec, &self.common.spec, self.common.lives.policies()) {
            let _ = answer.send(Err(error.into()));
            return;
        }
        let slot = self.common.slot_for(&spec);
        let key = self.common.next_key();
        let token = self.pending(caller, PendingAnswer::Slot(Arc::clone(&slot), answer));
        let child = self.declared(&spec);
        if self.common.link.child(&spec.id).is_none() {
            self.common.link.insert(Arc::clone(&spec.id), Arc::clone(&slot));
        }
        self.common.lives.children.insert(key, LiveChild::new(spec, slot));
        self.input(Input::Command { token, command: Command::Add { key, child } });
    }

    fn pending(&mut self, caller: Option<Path>, answer: PendingAnswer) -> Token {
        self.next_token += 1;
        self.requests.insert(self.next_token, Pending { caller, answer });
        self.next_token
    }

    fn key_of(&self, id: &str) -> Option<Key> {
        self.common.lives.children.iter().find(|(_, c)| &*c.spec.id == id).map(|(key, _)| *key)
    }

    fn reply(&mut self, token: Token, reply: Reply) {
        let Some(pending) = self.requests.remove(&token) else { return };
        let result = self.result(reply);
        // An asker that is gone does not mind.
        match pending.answer {
            PendingAnswer::Done(answer) => drop(answer.send(result)),
            PendingAnswer::Slot(slot, answer) => drop(answer.send(result.map(|()| slot))),
        }
    }

    fn result(&self, reply: Reply) -> Result<(), SupervisorError> {
        let path = |id: Arc<str>| self.common.path().child(&id);
        Err(match reply {
            Reply::Done => return Ok(()),
            Reply::NotFound(id) => self.not_found(&id),
            Reply::Running(id) => SupervisorError::Running { path: path(id) },
            Reply::Restarting(id) => SupervisorError::Restarting { path: path(id) },
            Reply::AlreadyStarted(id) => SupervisorError::AlreadyStarted { path: path(id) },
            Reply::AlreadyPresent(id) => SupervisorError::AlreadyPresent { path: path(id) },
            Reply::StartFailed(id, reason) => {
                SupervisorError::StartFailed { path: path(id), reason }
            }
            Reply::Stopping => self.stopping_error(),
        })
    }

    fn not_found(&self, id: &str) -> SupervisorError {
        SupervisorError::NotFound { supervisor: self.common.path().clone(), id: id.to_owned() }
    }

    fn stopping_error(&self) -> SupervisorError {
        SupervisorError::Stopping { supervisor: self.common.path().clone() }
    }

    // --- orders --------------------------------------------------------------------------------

    fn carry_out(&mut self) {
        loop {
            if let Some(order) = self.machine.next_order() {
                self.order(order);
            } else if let Some((key, life, result)) = self.common.lives.next_done() {
                self.start_done(key, life, result);
            } else {
                return;
            }
        }
    }

    fn order(&mut self, order: Order) {
        let lives = &mut self.common.lives;
        match order {
            Order::Start { key, restart } => {
                if let Some(child) = lives.children.get_mut(&key)
                    && child.cause_seq.is_none()
                {
                    child.cause_seq = self.cause_seq;
                }
                self.restarts.insert(key, restart);
                lives.start(key);
            }
            Order::AbortStart { key } => lives.abort_start(key),
            Order::Stop { key, planned } => {
                if let Some(child) = lives.children.get_mut(&key) {
                    child.cause_seq = self.cause_seq;
                    let stopping = child.slot.cell().path.clone();
                    let requests = &self.requests;
                    self.machine.refuse_waiting(|token| {
                        let caller = requests.get(&token).and_then(|r| r.caller.as_ref());
                        caller.is_some_and(|caller| caller.is_within(&stopping))
                    });
                }
                self.common.lives.stop(key, planned);
            }
            Order::RetryAfter { key, epoch, backoff, failures } => {
                let delay = lives.env.random(|rng| backoff.delay(failures, rng));
                lives.retry_after(key, epoch, delay);
            }
            Order::CancelRetry { key } => lives.cancel_retry(key),
            Order::Down { key, reason } => {
                if let Some(child) = lives.children.get(&key) {
                    if child.slot.cell().state() != SlotState::Stuck {
                        child.slot.cell().set_state(SlotState::Down);
                    }
                    child.slot.close(&reason);
                }
            }
            Order::Forget { key, reason } => self.forget(key, &reason),
            Order::Pause { key, paused } => lives.suspend(key, paused),
            Order::Reply { token, reply } => self.reply(token, reply),
            Order::Ready => self.common.ready(),
            Order::Escalating { key, reason } => {
                let seq = lives.children.get(&key).and_then(|child| child.cause_seq);
                let cell = self.common.slot.cell();
                let kind = LifecycleKind::Escalated { reason };
                self.cause_seq = Some(lives.env.emit(&cell.path, cell.life(), seq, kind));
            }
            Order::Finish(reason) => self.common.finished = Some(reason),
        }
    }

    fn forget(&mut self, key: Key, reason: &ExitReason) {
        // A refused `start_child` for an id that is there shares the slot of the one that stays.
        let Some(child) = self.common.lives.children.get(&key) else { return };
        let id = Arc::clone(&child.spec.id);
        let shared = self
            .common
            .lives
            .children
            .iter()
            .any(|(other, c)| *other != key && Arc::ptr_eq(&c.slot, &child.slot));
        if shared {
            self.common.lives.children.remove(&key);
        } else {
            self.common.lives.remove(key, reason);
            self.common.link.remove(&id);
        }
    }
}
