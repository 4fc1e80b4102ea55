//! The lives under one supervisor: starting, stopping, and learning of their ends.
//!
//! A supervisor must never await a child, a timer or I/O in its handler, and never runs code that
//! is not its own. Lives are tasks that report by message; everything that takes time is one alarm
//! clock per supervisor, whose ring is a message too.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ractor::ActorRef;

use crate::actor::TaskGuard;
use crate::actor::slot::AnySlot;
use crate::actor::state::SlotState;
use crate::environment::Environment;
use crate::error::{ExitReason, SpecError};
use crate::health::HealthSpec;
use crate::lifecycle::LifecycleKind;
use crate::path::Path;
use crate::supervisor::arrivals::Arrival;
use crate::supervisor::child::{ChildFactory, StartContext, StartResult};
use crate::supervisor::lives::clock::Alarm;
use crate::supervisor::lives::raw::RawActors;
use crate::supervisor::orders::Key;
use crate::supervisor::policy::{ChildPolicy, Policies, Terms};
use crate::supervisor::spec::{ChildSpec, Registered, Shutdown};
use crate::supervisor::{SupervisorMessage, SupervisorRef};
use crate::tree::TreeRoot;

pub(super) mod clock;
mod health;
pub(super) mod raw;
mod stops;

/// How long a killed life may take to end before its slot is shown as stuck. A kill takes effect
/// at the next `await`.
pub(crate) const KILL_GRACE: Duration = Duration::from_secs(1);

/// What is needed of a spec for as long as its child is there. There may be a million.
pub(crate) struct Needed {
    pub(crate) id: Arc<str>,
    child: Arc<dyn ChildFactory>,
    shutdown: Shutdown,
    start_deadline: Option<Duration>,
    registered: Option<Arc<Registered>>,
    health: Option<Box<HealthSpec>>,
}

impl From<ChildSpec> for Needed {
    fn from(spec: ChildSpec) -> Self {
        Self {
            id: spec.id,
            child: spec.child,
            shutdown: spec.shutdown,
            start_deadline: spec.start_deadline,
            registered: spec.registered,
            health: spec.health.map(Box::new),
        }
    }
}

/// One child as the driver sees it.
pub(crate) struct LiveChild {
    pub(crate) spec: Needed,
    pub(crate) slot: Arc<dyn AnySlot>,
    /// The event that led to what happens to it now: a restart names the failure before it.
    pub(crate) cause_seq: Option<u64>,
    /// The event that told of its last end by itself, or of its last failed start.
    pub(crate) ended_seq: Option<u64>,
    /// The life that was started last.
    pub(crate) life: u64,
    /// That life is up, and its end has not been heard.
    pub(crate) up: bool,
    /// It was told to stop.
    stopping: bool,
    /// Another life will follow the one that is stopped.
    planned: bool,
    /// The number of its entering into names and groups.
    entered: u64,
    /// It depends on something in another branch.
    needs_across: bool,
    /// Its start has not been reported yet.
    starting: bool,
    /// The start took too long, and its end is awaited.
    timed_out: Option<Duration>,
    alarm: Option<(Duration, Alarm)>,
    health_at: Option<Duration>,
    health_check: Option<TaskGuard>,
    failed_checks: u32,
}

impl LiveChild {
    fn new(spec: ChildSpec, slot: Arc<dyn AnySlot>, policy: Option<Arc<ChildPolicy>>) -> Box<Self> {
        let needs_across = spec.paths_needed().next().is_some();
        let spec = Needed::from(spec);
        let shutdown = spec.shutdown;
        slot.cell().terms(|terms| *terms = Terms { policy, shutdown });
        Box::new(Self {
            spec,
            slot,
            cause_seq: None,
            ended_seq: None,
            life: 0,
            up: false,
            stopping: false,
            planned: false,
            entered: 0,
            needs_across,
            starting: false,
            timed_out: None,
            alarm: None,
            health_at: None,
            health_check: None,
            failed_checks: 0,
        })
    }

    fn is_supervisor(&self) -> bool {
        self.slot.supervisor().is_some()
    }
}

/// All lives under one supervisor, by key.
pub(crate) struct Lives {
    /// Boxed: a B-tree that is filled in order leaves half of each node empty.
    pub(crate) children: BTreeMap<Key, Box<LiveChild>>,
    pub(crate) env: Arc<Environment>,
    pub(crate) myself: ActorRef<SupervisorMessage>,
    supervisor: SupervisorRef,
    root: TreeRoot,
    policies: Arc<Policies>,
    /// The policy of the last child that has one of its own.
    policy: Option<Arc<ChildPolicy>>,
    alarms: BTreeSet<(Duration, Key, Alarm)>,
    /// When the clock rings next, and the task that waits for it.
    clock: Option<(Duration, TaskGuard)>,
    /// Lives that were given up as stuck; their ends come late.
    abandoned: BTreeMap<(Key, u64), Arc<dyn AnySlot>>,
    raw: RawActors,
}

impl Lives {
    pub(crate) fn new(
        env: Arc<Environment>,
        myself: ActorRef<SupervisorMessage>,
        supervisor: SupervisorRef,
        root: TreeRoot,
        policies: Arc<Policies>,
    ) -> Self {
        Self {
            children: BTreeMap::new(),
            env,
            myself,
            supervisor,
            root,
            policies,
            policy: None,
            alarms: BTreeSet::new(),
            clock: None,
            abandoned: BTreeMap::new(),
            raw: RawActors::default(),
        }
    }

    pub(crate) fn policies(&self) -> &Policies {
        &self.policies
    }

    /// Takes a child in; it is started by [`start`](Self::start).
    pub(crate) fn insert(&mut self, key: Key, spec: ChildSpec, slot: Arc<dyn AnySlot>) {
        let policy = spec.policy(&self.policies);
        let policy = (policy != ChildPolicy::OTP).then(|| match &self.policy {
            Some(known) if **known == policy => Arc::clone(known),
            _ => Arc::clone(self.policy.insert(Arc::new(policy))),
        });
        let entered = self.register(&spec, &slot);
        let mut child = LiveChild::new(spec, slot, policy);
        child.entered = entered;
        self.children.insert(key, child);
    }

    /// Refuses a child whose name somebody else has.
    pub(crate) fn name_is_free(&self, spec: &ChildSpec, parent: &Path) -> Result<(), SpecError> {
        match spec.registered.as_ref().and_then(|given| given.name.as_ref()) {
            Some(name) => self.env.groups.is_free(name, &parent.child(&spec.id)),
            None => Ok(()),
        }
    }

    /// Enters a child under the name and into the groups that its spec gives it. A name that
    /// somebody took meanwhile stays with them.
    fn register(&self, spec: &ChildSpec, slot: &Arc<dyn AnySlot>) -> u64 {
        let Some(given) = &spec.registered else { return 0 };
        match self.env.groups.enter(slot, given.name.as_ref(), &given.groups) {
            Ok(entered) => entered,
            Err(error) => {
                let path = &slot.cell().path;
                tracing::error!(actor.path = %path, %error, "an actor goes without its name");
                0
            }
        }
    }

    /// A spec that is not needed any more holds the application's arguments: dropped elsewhere.
    pub(crate) fn put_away_spec(&self, spec: Option<ChildSpec>) {
        if let Some(spec) = spec {
            self.put_away_child(spec.child);
        }
    }

    fn put_away_child(&self, child: Arc<dyn ChildFactory>) {
        if Arc::strong_count(&child) == 1 && child.owns_something() {
            self.env.dispose_elsewhere(child);
        }
    }

    /// What comes next of a child has this cause.
    pub(crate) fn because(&mut self, key: Key, cause_seq: Option<u64>) {
        if let Some(child) = self.children.get_mut(&key) {
            child.cause_seq = cause_seq;
        }
    }

    pub(crate) fn set_policy(&mut self, key: Key, policy: Arc<ChildPolicy>) {
        if let Some(child) = self.children.get(&key) {
            child.slot.cell().terms(|terms| terms.policy = Some(policy));
        }
    }

    // --- starts --------------------------------------------------------------------------------

    /// Starts the next life of a child. What comes of it arrives as `StartDone`.
    pub(crate) fn start(&mut self, key: Key, arrival: Option<Box<Arrival>>) {
        let Some(child) = self.children.get_mut(&key) else { return };
        let slot = Arc::clone(&child.slot);
        let cell = slot.cell();
        let life = cell.next_life();
        child.life = life;
        child.starting = true;
        if std::mem::take(&mut child.stopping) {
            self.env.in_between.fetch_sub(1, Ordering::SeqCst);
        }
        child.timed_out = None;
        // A slot whose last life has not let go stays stuck until it does.
        if cell.state() != SlotState::Stuck {
            cell.set_state(SlotState::Starting);
        }
        self.env.in_between.fetch_add(1, Ordering::SeqCst);
        slot.open();
        let deadline = child.spec.start_deadline;
        let context = StartContext {
            parent: self.myself.clone(),
            key,
            supervisor: self.supervisor.called_by(&cell.path),
            root: self.root.clone(),
            policies: Arc::clone(&self.policies),
            life,
            cause_seq: child.cause_seq,
            deadline,
            // What is checked has to be known at once.
            arrival: arrival.filter(|_| child.spec.health.is_none()),
        };
        child.spec.child.start(Arc::clone(&slot), context);
        if let Some(after) = deadline {
            self.arm(key, after, Alarm::Start);
        }
    }

    /// Takes the report of a start, which is told by whoever decides what follows. `None` when it
    /// is not the current life's any more.
    pub(crate) fn started(
        &mut self,
        key: Key,
        life: u64,
        result: StartResult,
    ) -> Option<StartResult> {
        let child = self.children.get_mut(&key)?;
        if child.life != life || !std::mem::take(&mut child.starting) {
            return None;
        }
        self.env.in_between.fetch_sub(1, Ordering::SeqCst);
        let cell = child.slot.cell();
        let result = match (result, child.timed_out.take()) {
            (StartResult::Failed(_), Some(after)) => {
                StartResult::Failed(ExitReason::StartTimeout { after })
            }
            (result, _) => result,
        };
        match &result {
            StartResult::Started | StartResult::StartedRaw(_) => {
                child.up = true;
                child.failed_checks = 0;
                if !child.stopping {
                    cell.set_state(SlotState::Up);
                    self.env.across_up(&cell.path);
                }
                if let StartResult::StartedRaw(actor) = &result {
                    self.raw.by_actor.insert(actor.get_id(), (key, life));
                }
            }
            StartResult::Ignored | StartResult::Failed(_) => {
                cell.set_state(SlotState::Down);
                if std::mem::take(&mut child.stopping) {
                    self.env.in_between.fetch_sub(1, Ordering::SeqCst);
                }
                if child.is_supervisor() {
                    // An actor's life clears its own slot when it lets go.
                    cell.life_ended(life, false);
                }
            }
        }
        let health = child.spec.health.as_deref().copied().filter(|_| child.up && !child.stopping);
        if !child.stopping {
            self.disarm(key);
        }
        if let Some(health) = health {
            self.check_again(key, health);
        }
        if self.children.get(&key).is_some_and(|child| child.slot.cell().is_killed()) {
            // By somebody who was faster than this report.
            self.killed(key, life);
        }
        if let StartResult::StartedRaw(actor) = &result
            && let Some(reason) = self.raw.early.remove(&actor.get_id())
        {
            let message = SupervisorMessage::Ended { key, life, reason };
            let _ = self.myself.send_message(message);
        }
        Some(result)
    }

    /// A start has taken too long. `Some`: it has failed; else its end is awaited.
    fn start_timed_out(&mut self, key: Key) -> Option<(u64, StartResult)> {
        let child = self.children.get_mut(&key)?;
        let (after, life) = (child.spec.start_deadline?, child.life);
        if !child.starting {
            return None;
        }
        let cell = child.slot.cell();
        if let Some(link) = child.slot.supervisor() {
            // Its children that are up are stopped in order, and then it has failed.
            child.timed_out = Some(after);
            cell.gate.stop(life);
            link.send(SupervisorMessage::ShutDown { cause_seq: child.cause_seq });
            return None;
        }
        let reason = if cell.state() == SlotState::Stuck {
            ExitReason::Stuck { waited: after }
        } else {
            ExitReason::StartTimeout { after }
        };
        cell.end_life(life);
        Some((life, StartResult::Failed(reason)))
    }

    /// Takes back the start of an actor, or of anything else that has no children. Nothing of it is
    /// reported any more.
    pub(crate) fn abort_start(&mut self, key: Key) {
        let Some(child) = self.children.get_mut(&key) else { return };
        if !std::mem::take(&mut child.starting) {
            return;
        }
        let cell = child.slot.cell();
        self.env.in_between.fetch_sub(1, Ordering::SeqCst);
        cell.end_life(child.life);
        cell.set_state(SlotState::Down);
        self.disarm(key);
    }

    // --- waits ---------------------------------------------------------------------------------

    /// Waits before a restart; the end of the wait is an alarm.
    pub(crate) fn retry_after(&mut self, key: Key, epoch: u64, delay: Duration) {
        let Some(child) = self.children.get_mut(&key) else { return };
        let cell = child.slot.cell();
        cell.back_off(delay);
        self.env.emit(cell, cell.life(), child.cause_seq, LifecycleKind::BackingOff { delay });
        self.arm(key, delay, Alarm::Retry(epoch));
    }

    pub(crate) fn cancel_retry(&mut self, key: Key) {
        self.disarm(key);
        if let Some(child) = self.children.get_mut(&key) {
            child.slot.cell().set_state(SlotState::Down);
        }
    }

    /// Removes a child; its slot is closed for good.
    pub(crate) fn remove(&mut self, key: Key, reason: &ExitReason) -> Option<Arc<str>> {
        self.disarm(key);
        let child = self.children.remove(&key)?;
        if child.slot.cell().state() != SlotState::Stuck {
            child.slot.cell().set_state(SlotState::Down);
        }
        child.slot.close(reason);
        if let Some(handover) = child.slot.cell().take_handover() {
            self.env.dispose_elsewhere(handover);
        }
        Some(self.put_away(*child))
    }

    /// Removes a child whose slot stays, for the next life of this supervisor.
    pub(crate) fn keep(&mut self, key: Key) -> Option<Arc<str>> {
        self.disarm(key);
        let child = self.children.remove(&key)?;
        Some(self.put_away(*child))
    }

    /// The spec holds the application's arguments: not dropped here.
    fn put_away(&self, child: LiveChild) -> Arc<str> {
        let id = Arc::clone(&child.spec.id);
        if child.needs_across {
            self.env.across.forget(&child.slot.cell().path);
        }
        if let Some(given) = &child.spec.registered {
            let path = &child.slot.cell().path;
            self.env.groups.leave(child.entered, path, given.name.as_ref(), &given.groups);
        }
        self.put_away_child(child.spec.child);
        id
    }

    pub(crate) fn suspend(&mut self, key: Key, paused: bool, cause_seq: Option<u64>) {
        let Some(child) = self.children.get(&key) else { return };
        let cell = child.slot.cell();
        cell.set_suspended(paused);
        self.supervisor.place().hold_child(&*child.slot, &self.env);
        let kind = if paused { LifecycleKind::Suspended } else { LifecycleKind::Resumed };
        self.env.emit(cell, cell.life(), cause_seq, kind);
    }
}

impl Drop for Lives {
    /// The supervisor is gone, perhaps killed: what lives under it ends with it, and nobody else
    /// would correct what the tree shows. Each word names the life that was started here: the next
    /// life of this supervisor may have started others.
    fn drop(&mut self) {
        for (_, child) in std::mem::take(&mut self.children) {
            let cell = child.slot.cell();
            // One that starts may have been told to stop already.
            let in_between = usize::from(child.starting) + usize::from(child.stopping);
            self.env.in_between.fetch_sub(in_between, Ordering::SeqCst);
            if child.up || child.starting {
                cell.end_life(child.life);
            }
            if child.up || child.starting || child.alarm.is_some() {
                cell.set_state_of(child.life, SlotState::Down);
            }
            if child.is_supervisor() {
                cell.gate.stop(child.life);
            }
            // What it needs of other branches it still needs when it comes back.
            let child = LiveChild { needs_across: false, ..*child };
            self.put_away(child);
        }
    }
}
