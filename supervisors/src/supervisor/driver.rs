//! The driver of a supervisor: carries out what its [`Brain`] orders, and decides nothing.
//!
//! It never does much in one go: after [`SLICE`] orders it sends itself a message and lets others
//! run, so that starting or stopping 100,000 children holds nobody up.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::actor::slot::AnySlot;
use crate::actor::state::SlotState;
use crate::environment::lock;
use crate::error::{ExitReason, SpecError, SupervisorError};
use crate::lifecycle::LifecycleKind;
use crate::path::{Path, unescape};
use crate::supervisor::arrivals::{Arrival, Waiting};
use crate::supervisor::brain::Brain;
use crate::supervisor::child::StartResult;
use crate::supervisor::crowd::Crowd;
use crate::supervisor::feed::Feed;
use crate::supervisor::lives::clock::Due;
use crate::supervisor::machine::Machine;
use crate::supervisor::orders::{
    Asker, Cause, Command, Declared, Input, Key, News, Order, Reply, Report, StartOutcome, Token,
};
use crate::supervisor::policy::ChildPolicy;
use crate::supervisor::spec::{ChildSpec, SupervisorKind, check_child};
use crate::supervisor::strategy::RestartPolicy;
use crate::supervisor::{Answer, Ask, Common, Policy, Request, SupervisorMessage};
use crate::sync::write;

/// How much is done before others may run.
const SLICE: usize = 256;

pub(crate) struct Driver {
    /// Shared with whoever wants to know what would happen. Never held while orders are carried out.
    brain: Arc<Mutex<Brain>>,
    requests: BTreeMap<Token, Pending>,
    next_token: Token,
    /// The event that made it end.
    ending: Option<u64>,
    /// Children that a crowd begins with, and that are still to be taken in.
    feed: Option<Feed>,
    /// There is a message on its way to go on with what is left.
    goes_on: bool,
    /// The child that is about to be started for somebody who waits.
    arriving: Option<(Key, Box<Arrival>)>,
    /// The policy of the last child: most have the same.
    policy: Arc<ChildPolicy>,
    /// The last field: its drop tells the tree that this life is over.
    pub(crate) common: Common,
}

/// A command that waits for its reply.
enum Pending {
    Change(Answer<()>),
    Start {
        /// Until it is taken in.
        spec: Option<Box<ChildSpec>>,
        /// As soon as it is.
        slot: Option<Arc<dyn AnySlot>>,
        waiting: Waiting,
    },
}

impl Driver {
    pub(crate) fn new(common: Common) -> Self {
        let spec = &common.spec;
        let path = common.path().clone();
        let brain = match spec.kind {
            SupervisorKind::Static => Brain::Fixed(Machine::new(
                path,
                Policy {
                    strategy: spec.strategy,
                    intensity: spec.intensity,
                    auto_shutdown: spec.auto_shutdown,
                },
            )),
            SupervisorKind::Dynamic { max_children, keep } => {
                Brain::Crowd(Crowd::new(path, spec.intensity, max_children, keep))
            }
        };
        let brain = Arc::new(Mutex::new(brain));
        *lock(&common.link.brain) = Some(Arc::clone(&brain));
        common.link.arrivals.open(common.life);
        Self {
            brain,
            requests: BTreeMap::new(),
            next_token: 0,
            ending: None,
            feed: None,
            goes_on: false,
            arriving: None,
            policy: Arc::new(ChildPolicy::OTP),
            common,
        }
    }

    pub(crate) fn message(&mut self, message: SupervisorMessage) {
        let link = Arc::clone(&self.common.link);
        for (key, life) in link.arrivals.begin() {
            self.start_done(key, life, StartResult::Started);
        }
        self.take(message);
        self.carry_out();
        link.arrivals.done();
    }

    fn take(&mut self, message: SupervisorMessage) {
        match message {
            SupervisorMessage::Init => match self.common.spec.kind {
                SupervisorKind::Static => self.init(),
                SupervisorKind::Dynamic { keep, .. } => self.feed = Some(self.begin_feed(keep)),
            },
            SupervisorMessage::GoOn => self.goes_on = false,
            SupervisorMessage::ShutDown { cause_seq } => self.input(Input::ShutDown, cause_seq),
            SupervisorMessage::StartDone { key, life, result } => {
                self.start_done(key, life, result);
            }
            SupervisorMessage::Ended { key, life, reason } => {
                if self.common.lives.ended(key, life, &reason) {
                    self.input(Input::Ended { key, life, reason }, None);
                }
            }
            SupervisorMessage::Killed { id, life } => {
                let key = lock(&self.brain).key_of(&id);
                if let Some(key) = key {
                    self.common.lives.killed(key, life);
                }
            }
            SupervisorMessage::StopNow { key, life } => self.common.lives.stop_now(key, life),
            SupervisorMessage::Tick => {
                for due in self.common.lives.due() {
                    self.due(due);
                }
            }
            SupervisorMessage::HealthChecked { key, life, health } => {
                if let Some(reason) = self.common.lives.health_checked(key, life, health) {
                    self.input(Input::Unhealthy { key, life, reason }, None);
                }
            }
            SupervisorMessage::Request(request) => self.request(request),
        }
    }

    /// Whether there is more to do than was done in one go.
    pub(crate) fn goes_on(&self) -> bool {
        self.goes_on
    }

    /// The clock has brought this.
    fn due(&mut self, due: Due) {
        match due {
            Due::StartDone { key, life, result } => self.start_done(key, life, result),
            Due::Retry { key, epoch } => self.input(Input::Retry { key, epoch }, None),
            Due::Stuck { key, life } => self.input(Input::Stuck { key, life }, None),
            Due::Lost { key, life } => {
                let (news, reaction) = (News::Stuck, None);
                self.common.lives.report(Report { key, life, news, reaction, gone: false });
                let reason = ExitReason::Killed;
                self.input(Input::Ended { key, life, reason }, None);
            }
        }
    }

    fn start_done(&mut self, key: Key, life: u64, result: StartResult) {
        let Some(result) = self.common.lives.started(key, life, result) else { return };
        let outcome = match result {
            StartResult::Started | StartResult::StartedRaw(_) => StartOutcome::Started,
            StartResult::Ignored => StartOutcome::Ignored,
            StartResult::Failed(reason) => StartOutcome::Failed(reason),
        };
        self.input(Input::StartDone { key, life, outcome }, None);
    }

    fn input(&mut self, input: Input, cause: Option<u64>) {
        let now = self.now();
        lock(&self.brain).input(now, input, cause);
    }

    fn now(&self) -> Duration {
        self.common.lives.env.clock.elapsed()
    }

    // --- the beginning -------------------------------------------------------------------------

    fn init(&mut self) {
        let declared: Vec<ChildSpec> = self.common.spec.children.clone();
        let mut index = indexmap::IndexMap::with_capacity(declared.len());
        let mut children = Vec::with_capacity(declared.len());
        for spec in declared {
            let slot = self.common.slot_for(&spec);
            index.insert(Arc::clone(&spec.id), Arc::clone(&slot));
            let key = self.common.next_key();
            children.push((key, self.declared(&spec, Some(&slot))));
            self.common.lives.insert(key, spec, slot);
        }
        let before = std::mem::replace(&mut *write(&self.common.link.children), index);
        self.common.link.hold_all();
        // Children that were added at run time go with the life that had them, as in OTP.
        for (id, slot) in before {
            if self.common.link.child(&id).is_none_or(|kept| !Arc::ptr_eq(&kept, &slot)) {
                slot.close(&ExitReason::Shutdown);
            }
        }
        let now = self.now();
        if let Brain::Fixed(machine) = &mut *lock(&self.brain) {
            machine.init(now, children, self.common.cause_seq);
        }
    }

    fn begin_feed(&mut self, keep: bool) -> Feed {
        let declared = std::mem::take(&mut self.common.spec.children);
        Feed::new(&self.common.link, declared, keep)
    }

    /// Takes in one more of the children that a crowd begins with. `false` when there are no more.
    fn feed_one(&mut self) -> bool {
        let Some(feed) = &mut self.feed else { return false };
        // Outside of every lock: what is closed becomes dead letters, and those are shown to hooks.
        if let Some(slot) = feed.leftovers.pop() {
            slot.close(&ExitReason::Shutdown);
            return true;
        }
        let now = self.now();
        let Some(spec) = self.feed.as_mut().and_then(|feed| feed.specs.next()) else {
            let feed = self.feed.take();
            if let Brain::Crowd(crowd) = &mut *lock(&self.brain) {
                crowd.filled();
            }
            for request in feed.into_iter().flat_map(|mut feed| std::mem::take(&mut feed.requests))
            {
                self.request(request);
            }
            return true;
        };
        let slot = self.common.slot_for(&spec);
        let key = self.common.next_key();
        let declared = self.declared(&spec, Some(&slot));
        self.take_in(key, spec, slot);
        if let Brain::Crowd(crowd) = &mut *lock(&self.brain) {
            crowd.fill(now, key, declared, self.common.cause_seq);
        }
        true
    }

    fn declared(&mut self, spec: &ChildSpec, slot: Option<&Arc<dyn AnySlot>>) -> Declared {
        let policy = self.shared(spec.policy(self.common.lives.policies()));
        Declared {
            id: Arc::clone(&spec.id),
            policy,
            significant: spec.significant,
            depends_on: spec.siblings_needed().map(Into::into).collect(),
            blocked: self.needs_across(spec),
            // Who was held stays so until somebody resumes it.
            suspended: slot.is_some_and(|slot| slot.cell().is_suspended()),
            supervisor: spec.child.supervisor().is_some(),
            life: slot.map_or(0, |slot| slot.cell().life()),
        }
    }

    /// Enters what a child needs of other branches, and says whether any of that is not up.
    fn needs_across(&self, spec: &ChildSpec) -> bool {
        let mut needed = spec.paths_needed().peekable();
        if needed.peek().is_none() {
            return false;
        }
        let env = &self.common.lives.env;
        let path = self.common.path().child(&spec.id);
        needed.for_each(|needed| env.across.add(needed, path.clone()));
        env.across_missing(&path).is_some()
    }

    fn shared(&mut self, policy: ChildPolicy) -> Arc<ChildPolicy> {
        if *self.policy != policy {
            self.policy = Arc::new(policy);
        }
        Arc::clone(&self.policy)
    }

    fn take_in(&mut self, key: Key, spec: ChildSpec, slot: Arc<dyn AnySlot>) {
        let id = Arc::clone(&spec.id);
        let temporary =
            spec.policy(self.common.lives.policies()).restart == RestartPolicy::Temporary;
        if self.keeps() && !temporary {
            lock(&self.common.link.kept).insert(Arc::clone(&id), spec.clone());
        }
        self.common.link.insert(id, Arc::clone(&slot));
        self.common.lives.insert(key, spec, slot);
    }

    fn keeps(&self) -> bool {
        matches!(self.common.spec.kind, SupervisorKind::Dynamic { keep: true, .. })
    }

    // --- requests ------------------------------------------------------------------------------

    fn request(&mut self, request: Request) {
        if let Some(feed) = &mut self.feed {
            // Asked for when all are there.
            feed.requests.push(request);
            return;
        }
        let Request { caller, ask, given } = request;
        let from = caller.and_then(|caller| self.child_of(&caller));
        match ask {
            Ask::Start(spec, answer) => self.add(from, spec, answer),
            Ask::Change(change, id, answer) => {
                if let Some(error) = self.common.refusal(&id, given) {
                    refuse(answer, error);
                    return;
                }
                let asker = self.asker(from, Pending::Change(answer));
                let command = Command::Change { change, id };
                self.input(Input::Command { asker, command }, given.cause_seq);
            }
            Ask::SetIntensity(intensity, answer) => {
                self.common.set_intensity(intensity);
                lock(&self.brain).rules().intensity = intensity;
                let _ = answer.send(Ok(()));
            }
            Ask::SetPolicy(id, policy, answer) => {
                let _ = answer.send(self.set_policy(&id, policy));
            }
            Ask::RestartsLeft(answer) => {
                let intensity = lock(&self.brain).intensity_use(self.now());
                let _ = answer.send(Ok(intensity.max.saturating_sub(intensity.used)));
            }
        }
    }

    /// The child in which, or below which, `caller` lives. There may be 100,000: it is found by
    /// its path.
    fn child_of(&self, caller: &Path) -> Option<Key> {
        if !caller.is_within(self.common.path()) {
            return None;
        }
        let own = self.common.path().segments().count();
        let id = unescape(caller.segments().nth(own)?);
        lock(&self.brain).key_of(&id)
    }

    fn add(&mut self, from: Option<Key>, spec: Box<ChildSpec>, answer: Answer<Arc<dyn AnySlot>>) {
        if let Err(error) = check_child(&spec, &self.common.spec, self.common.lives.policies()) {
            self.common.lives.put_away_spec(Some(*spec));
            refuse(answer, error.into());
            return;
        }
        if let Err(error) = self.common.lives.name_is_free(&spec, &self.common.link.path) {
            self.common.lives.put_away_spec(Some(*spec));
            refuse(answer, error.into());
            return;
        }
        let key = self.common.next_key();
        let child = self.declared(&spec, None);
        let waiting = Arc::new(Mutex::new(Some(answer)));
        let asker = self.asker(from, Pending::Start { spec: Some(spec), slot: None, waiting });
        self.input(Input::Command { asker, command: Command::Add { key, child } }, None);
    }

    fn asker(&mut self, from: Option<Key>, pending: Pending) -> Asker {
        self.next_token += 1;
        self.requests.insert(self.next_token, pending);
        Asker { token: self.next_token, from }
    }

    fn set_policy(&mut self, id: &str, policy: ChildPolicy) -> Result<(), SupervisorError> {
        let policy = self.shared(policy);
        let mut brain = lock(&self.brain);
        let key = brain.key_of(id).ok_or_else(|| self.common.not_found(id))?;
        brain.set_child_policy(key, Arc::clone(&policy));
        drop(brain);
        self.common.lives.set_policy(key, policy);
        Ok(())
    }

    fn reply(&mut self, token: Token, reply: Reply) {
        let Some(pending) = self.requests.remove(&token) else { return };
        let result = self.result(reply);
        // An asker that is gone does not mind.
        match pending {
            Pending::Change(answer) => drop(answer.send(result)),
            Pending::Start { spec, slot, waiting } => {
                self.common.lives.put_away_spec(spec.map(|spec| *spec));
                let Some(answer) = lock(&waiting).take() else { return };
                let stopping = || self.common.stopping();
                let slot = result.and_then(|()| slot.ok_or_else(stopping));
                drop(answer.send(slot));
            }
        }
    }

    fn result(&self, reply: Reply) -> Result<(), SupervisorError> {
        let path = |id: Arc<str>| self.common.path().child(&id);
        Err(match reply {
            Reply::Done => return Ok(()),
            Reply::NotFound(id) => self.common.not_found(&id),
            Reply::Running(id) => SupervisorError::Running { path: path(id) },
            Reply::Restarting(id) => SupervisorError::Restarting { path: path(id) },
            Reply::AlreadyStarted(id) => SupervisorError::AlreadyStarted { path: path(id) },
            Reply::AlreadyPresent(id) => SupervisorError::AlreadyPresent { path: path(id) },
            Reply::StartFailed(id, reason) => {
                SupervisorError::StartFailed { path: path(id), reason }
            }
            Reply::NeedsDependency { id, dependency } => {
                SupervisorError::NeedsDependency { path: path(id), dependency: path(dependency) }
            }
            Reply::UnknownDependency { id, dependency } => SpecError::UnknownDependency {
                supervisor: self.common.spec.id.to_string(),
                child: id.to_string(),
                dependency: dependency.to_string(),
            }
            .into(),
            Reply::MaxChildren(max) => {
                SupervisorError::MaxChildren { supervisor: self.common.path().clone(), max }
            }
            Reply::Stopping => self.common.stopping(),
        })
    }

    // --- orders --------------------------------------------------------------------------------

    fn carry_out(&mut self) {
        for _ in 0..SLICE {
            let order = lock(&self.brain).next_order();
            if let Some((order, cause)) = order {
                self.order(order, cause);
            } else if !self.feed_one() {
                return;
            }
        }
        if !self.goes_on {
            self.goes_on = self.common.send_myself(SupervisorMessage::GoOn);
        }
    }

    fn order(&mut self, order: Order, cause: Cause) {
        let cause_seq = self.cause_seq(cause);
        let lives = &mut self.common.lives;
        match order {
            Order::Admit { key, token } => self.admit(key, token),
            Order::Start { key, life } => {
                lives.because(key, cause_seq);
                let arriving = self.arriving.take().filter(|(of, _)| *of == key);
                lives.start(key, arriving.map(|(_, arrival)| arrival));
                let slot = lives.children.get(&key).map(|child| &child.slot);
                debug_assert!(slot.is_none_or(|slot| slot.cell().life() == life));
            }
            Order::AbortStart { key } => lives.abort_start(key),
            Order::Stop { key, planned, .. } => {
                lives.because(key, cause_seq);
                lives.stop(key, planned);
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
            // If there is no next life, the parent closes the slot with this one's.
            Order::Keep { key } => drop(lives.keep(key)),
            Order::Pause { key, paused } => lives.suspend(key, paused, cause_seq),
            Order::Reply { token, reply } => self.reply(token, reply),
            Order::Ready => self.common.ready(),
            Order::Report(report) => lives.report(report),
            Order::Ending { reason } => self.end(&reason, cause_seq),
            Order::Finish(reason) => {
                self.common.ends_because(self.ending);
                self.common.finished = Some(reason);
            }
        }
    }

    /// The event that led to an order.
    fn cause_seq(&self, cause: Cause) -> Option<u64> {
        let child = |key| self.common.lives.children.get(&key);
        match cause {
            Cause::Nothing => None,
            Cause::Event(seq) => Some(seq),
            Cause::Child(key) => child(key).and_then(|child| child.ended_seq),
            Cause::Last(key) => child(key).and_then(|child| child.cause_seq),
            Cause::Ending => self.ending,
        }
    }

    fn admit(&mut self, key: Key, token: Token) {
        let Some(Pending::Start { spec, slot, waiting }) = self.requests.get_mut(&token) else {
            return;
        };
        let Some(spec) = spec.take() else { return };
        let path = self.common.path().child(&spec.id);
        let made = spec.child.slot(&spec, path, &self.common.lives.env);
        *slot = Some(Arc::clone(&made));
        if self.common.link.dynamic {
            let (link, reader) = (Arc::clone(&self.common.link), self.common.life);
            let (slot, waiting) = (Arc::clone(&made), Arc::clone(waiting));
            let arrival = Arrival { link, reader, slot, waiting };
            self.arriving = Some((key, Box::new(arrival)));
        }
        self.take_in(key, *spec, made);
    }

    fn forget(&mut self, key: Key, reason: &ExitReason) {
        let Some(id) = self.common.lives.remove(key, reason) else { return };
        self.common.link.remove(&id);
        if self.keeps() {
            let kept = lock(&self.common.link.kept).swap_remove(&id);
            self.common.lives.put_away_spec(kept);
        }
    }

    fn end(&mut self, reason: &ExitReason, cause_seq: Option<u64>) {
        self.ending = cause_seq;
        // Who was to come back and has not yet, comes back with the next life.
        let feed = self.feed.take();
        for request in feed.into_iter().flat_map(|mut feed| std::mem::take(&mut feed.requests)) {
            self.request(request);
        }
        if let ExitReason::Escalated { cause, .. } = reason {
            let cell = self.common.slot.cell();
            let kind = LifecycleKind::Escalated { reason: (**cause).clone() };
            self.ending = Some(self.common.lives.env.emit(cell, cell.life(), cause_seq, kind));
        }
    }
}

fn refuse<T>(answer: Answer<T>, error: SupervisorError) {
    // An asker that is gone does not mind.
    let _ = answer.send(Err(error));
}
