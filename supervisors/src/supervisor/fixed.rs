//! The driver of a static supervisor: carries out what the [`Machine`] orders.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use crate::actor::slot::AnySlot;
use crate::actor::state::SlotState;
use crate::environment::lock;
use crate::error::{ExitReason, SupervisorError};
use crate::lifecycle::LifecycleKind;
use crate::path::Path;
use crate::supervisor::child::StartResult;
use crate::supervisor::lives::Due;
use crate::supervisor::machine::{
    Cause, Command, Declared, Input, Key, Machine, Order, Reply, StartOutcome, Token,
};
use crate::supervisor::reports::{End, Verdict};
use crate::supervisor::spec::{ChildSpec, check_child};
use crate::supervisor::{Answer, Ask, Change, Common, Policy, Request, SupervisorMessage, write};

pub(crate) struct StaticDriver {
    /// Shared with whoever wants to know what would happen. Never held while orders are carried out.
    machine: Arc<Mutex<Machine>>,
    requests: BTreeMap<Token, Pending>,
    next_token: Token,
    /// The last end that was told, also of a child that is forgotten since.
    last_end: Option<(Key, u64)>,
    /// The event that says that it gave up.
    escalated: Option<u64>,
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
        let machine = Arc::new(Mutex::new(Machine::new(common.path().clone(), policy)));
        *lock(&common.link.machine) = Some(Arc::clone(&machine));
        Self {
            machine,
            requests: BTreeMap::new(),
            next_token: 0,
            last_end: None,
            escalated: None,
            restarts: BTreeMap::new(),
            common,
        }
    }

    pub(crate) fn message(&mut self, message: SupervisorMessage) {
        match message {
            SupervisorMessage::Init => self.init(),
            SupervisorMessage::ShutDown { cause_seq } => {
                let now = self.now();
                let mut machine = lock(&self.machine);
                machine.because(cause_seq);
                machine.shut_down(now, ExitReason::Shutdown);
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
                if let Some(key) = self.key_of(&id) {
                    self.common.lives.killed(key, life);
                }
            }
            SupervisorMessage::Tick => {
                for due in self.common.lives.due() {
                    match due {
                        Due::StartDone { key, life, result } => self.start_done(key, life, result),
                        Due::Retry { key, epoch } => self.input(Input::Retry { key, epoch }),
                        Due::Abandoned { key, .. } => {
                            self.input(Input::Ended { key, reason: ExitReason::Killed });
                        }
                    }
                }
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

    /// Decided first, then told, then carried out: whoever hears of it hears what is done about it.
    fn ended(&mut self, end: End) {
        self.input(Input::Ended { key: end.key, reason: end.reason.clone() });
        let verdict = self.verdict(end.key);
        self.common.lives.report_end(&end, verdict);
        self.note_end(end.key);
    }

    fn verdict(&self, key: Key) -> Verdict {
        let mut machine = lock(&self.machine);
        Verdict { reaction: machine.take_decided(key), gone: machine.forgets(key) }
    }

    fn note_end(&mut self, key: Key) {
        let seq = self.common.lives.children.get(&key).and_then(|child| child.ended_seq);
        self.last_end = seq.map(|seq| (key, seq)).or(self.last_end);
    }

    /// The event that led to the order in hand.
    fn cause_seq(&self) -> Option<u64> {
        match lock(&self.machine).ordered_by() {
            Cause::Nothing => None,
            Cause::Event(seq) => Some(seq),
            Cause::Escalation => self.escalated,
            Cause::Child(key) => match self.common.lives.children.get(&key) {
                Some(child) => child.ended_seq,
                None => self.last_end.filter(|(of, _)| *of == key).map(|(_, seq)| seq),
            },
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
            // Who was held stays so until somebody resumes it.
            let suspended = slot.cell().is_suspended();
            children.push((key, Declared { suspended, ..self.declared(&spec) }));
            self.common.lives.insert(key, spec, slot);
        }
        let before = std::mem::replace(&mut *write(&self.common.link.children), index);
        // Children that were added at run time go with the life that had them, as in OTP.
        for (id, slot) in before {
            if self.common.link.child(&id).is_none_or(|kept| !Arc::ptr_eq(&kept, &slot)) {
                slot.close(&ExitReason::Shutdown);
            }
        }
        let now = self.now();
        let mut machine = lock(&self.machine);
        machine.because(self.common.cause_seq);
        machine.init(now, children);
    }

    fn declared(&self, spec: &ChildSpec) -> Declared {
        Declared {
            id: Arc::clone(&spec.id),
            policy: spec.policy(self.common.lives.policies()),
            significant: spec.significant,
            depends_on: spec.metadata.depends_on.iter().map(|id| id.as_str().into()).collect(),
            suspended: false,
        }
    }

    fn start_done(&mut self, key: Key, life: u64, result: StartResult) {
        let restart = self.restarts.remove(&key).unwrap_or(false);
        let Some(result) = self.common.lives.started(key, life, result) else { return };
        let (outcome, failed) = match result {
            StartResult::Started | StartResult::StartedRaw(_) => {
                self.common.lives.report_up(key, life, restart);
                (StartOutcome::Started, None)
            }
            StartResult::Ignored => (StartOutcome::Ignored, None),
            StartResult::Failed(reason) => (StartOutcome::Failed(reason.clone()), Some(reason)),
        };
        self.input(Input::StartDone { key, outcome });
        if let Some(reason) = failed {
            let verdict = self.verdict(key);
            self.common.lives.report_start_failed(key, life, &reason, verdict);
            self.note_end(key);
        }
    }

    fn input(&mut self, input: Input) {
        let now = self.now();
        lock(&self.machine).input(now, input);
    }

    fn now(&self) -> std::time::Duration {
        self.common.lives.env.clock.elapsed()
    }

    // --- requests ------------------------------------------------------------------------------

    fn request(&mut self, request: Request) {
        let stopping = self.common.is_stopping(request.caller.as_ref());
        let Request { caller, ask, given } = request;
        match ask {
            Ask::Start(_, answer) if stopping => {
                let _ = answer.send(Err(self.stopping_error()));
            }
            Ask::Change(_, _, answer) if stopping => {
                let _ = answer.send(Err(self.stopping_error()));
            }
            Ask::Start(spec, answer) => self.add(caller, *spec, answer),
            Ask::Change(change, id, answer) => {
                if let Some(error) = self.common.refusal(&id, given) {
                    let _ = answer.send(Err(error));
                    return;
                }
                let token = self.pending(caller, PendingAnswer::Done(answer));
                let command = match change {
                    Change::Terminate => Command::Terminate(id),
                    Change::Restart => Command::Restart(id),
                    Change::Delete => Command::Delete(id),
                    Change::PlannedRestart => Command::PlannedRestart(id),
                    Change::Suspend => Command::Suspend(id),
                    Change::Resume => Command::Resume(id),
                };
                lock(&self.machine).because(given.cause_seq);
                self.input(Input::Command { token, command });
            }
            Ask::SetIntensity(intensity, answer) => {
                self.common.set_intensity(intensity);
                lock(&self.machine).policy.intensity = intensity;
                let _ = answer.send(Ok(()));
            }
            Ask::SetPolicy(id, policy, answer) => {
                let key = self.key_of(&id);
                let result = match key {
                    Some(key) => {
                        lock(&self.machine).set_child_policy(key, policy);
                        self.common.lives.set_policy(key, policy);
                        Ok(())
                    }
                    None => Err(self.not_found(&id)),
                };
                let _ = answer.send(result);
            }
            Ask::RestartsLeft(answer) => {
                let left = lock(&self.machine).restarts_left(self.now());
                let _ = answer.send(Ok(left));
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
        self.common.lives.insert(key, spec, slot);
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
            let order = lock(&self.machine).next_order();
            let Some(order) = order else { return };
            self.order(order);
        }
    }

    fn order(&mut self, order: Order) {
        let cause_seq = self.cause_seq();
        let lives = &mut self.common.lives;
        match order {
            Order::Start { key, restart } => {
                if let Some(child) = lives.children.get_mut(&key) {
                    child.cause_seq = cause_seq;
                }
                self.restarts.insert(key, restart);
                lives.start(key);
            }
            Order::AbortStart { key } => {
                lives.abort_start(key);
            }
            Order::Stop { key, planned } => {
                if let Some(child) = lives.children.get_mut(&key) {
                    child.cause_seq = cause_seq;
                    let stopping = child.slot.cell().path.clone();
                    let requests = &self.requests;
                    lock(&self.machine).refuse_waiting(|token| {
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
            Order::Pause { key, paused } => lives.suspend(key, paused, cause_seq),
            Order::Reply { token, reply } => self.reply(token, reply),
            Order::Ready => self.common.ready(),
            Order::Decided { key, reaction } => lives.decided(key, Some(reaction)),
            Order::Escalating { reason } => {
                let cell = self.common.slot.cell();
                let kind = LifecycleKind::Escalated { reason };
                self.escalated = Some(lives.env.emit(cell, cell.life(), cause_seq, kind));
            }
            Order::Finish(reason) => {
                self.common.ends_because(cause_seq);
                self.common.finished = Some(reason);
            }
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
