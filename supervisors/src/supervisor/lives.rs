//! The lives under one supervisor: starting, stopping, and learning of their ends.
//!
//! A supervisor must never await a child, a timer or I/O in its handler. Everything that takes
//! time is a small task that ends in a [`SupervisorMessage`]; dropping its guard aborts it, so
//! none outlives its supervisor.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use ractor::{ActorCell, ActorId, ActorRef};

use crate::actor::TaskGuard;
use crate::actor::slot::{AnySlot, SlotKind, SlotState};
use crate::environment::Environment;
use crate::error::ExitReason;
use crate::health::{Health, HealthSpec};
use crate::lifecycle::LifecycleKind;
use crate::supervisor::child::{StartContext, StartFuture, StartResult};
use crate::supervisor::orders::Key;
use crate::supervisor::policy::{ChildPolicy, Policies, Terms};
use crate::supervisor::spec::{ChildSpec, Shutdown};
use crate::supervisor::{SupervisorMessage, SupervisorRef};
use crate::tree::TreeRoot;

/// How long a killed life may take to end before its slot is shown as stuck. A kill takes effect
/// at the next `await`.
pub(crate) const KILL_GRACE: Duration = Duration::from_secs(1);

/// One child as the driver sees it.
pub(crate) struct LiveChild {
    pub(crate) spec: ChildSpec,
    pub(crate) slot: Arc<dyn AnySlot>,
    /// The event that led to what happens to it now: a restart names the failure before it.
    pub(crate) cause_seq: Option<u64>,
    /// The event that told of its last end by itself, or of its last failed start.
    pub(crate) ended_seq: Option<u64>,
    actor: Option<ActorId>,
    start: Option<Start>,
    start_failed: bool,
    timer: Option<TaskGuard>,
    health: Option<TaskGuard>,
    failed_checks: u32,
}

impl LiveChild {
    fn new(spec: ChildSpec, slot: Arc<dyn AnySlot>, policy: Option<Arc<ChildPolicy>>) -> Box<Self> {
        let shutdown = spec.shutdown;
        slot.cell().terms(|terms| *terms = Terms { policy, shutdown });
        Box::new(Self {
            spec,
            slot,
            cause_seq: None,
            ended_seq: None,
            actor: None,
            start: None,
            start_failed: false,
            timer: None,
            health: None,
            failed_checks: 0,
        })
    }
}

/// A start that has not been reported yet.
enum Start {
    Done,
    /// Dropping the guard drops the start, and what it had made.
    UnderWay(#[expect(dead_code, reason = "held for its drop")] TaskGuard),
}

/// All lives under one supervisor, by key.
pub(crate) struct Lives {
    /// Boxed: a B-tree that is filled in order leaves half of each node empty.
    pub(crate) children: BTreeMap<Key, Box<LiveChild>>,
    pub(crate) env: Arc<Environment>,
    myself: ActorRef<SupervisorMessage>,
    supervisor: SupervisorRef,
    root: TreeRoot,
    policies: Arc<Policies>,
    /// The policy of the last child that has one of its own.
    policy: Option<Arc<ChildPolicy>>,
    by_actor: BTreeMap<ActorId, Key>,
    /// Ends that arrived before the report of the start. Each start has one end, so nothing stays.
    early_ends: BTreeMap<ActorId, RawEnd>,
    /// Starts that were done at once and are still to be reported.
    done: VecDeque<(Key, u64, StartResult)>,
    /// Lives that were given up as stuck; their ends come late and mean nothing.
    abandoned: BTreeSet<ActorId>,
}

/// What ractor says about an end. Why, the slot knows better.
#[derive(Clone, Debug)]
pub(crate) enum RawEnd {
    Terminated(Option<String>),
    Failed(String),
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
            by_actor: BTreeMap::new(),
            early_ends: BTreeMap::new(),
            done: VecDeque::new(),
            abandoned: BTreeSet::new(),
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
        self.children.insert(key, LiveChild::new(spec, slot, policy));
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

    /// Starts the next life of a child.
    ///
    /// Most starts are done at their first poll: those wait in [`next_done`](Self::next_done). Any
    /// other goes on in a task, and its result comes as `StartDone`.
    pub(crate) fn start(&mut self, key: Key) {
        let Some(child) = self.children.get_mut(&key) else { return };
        let slot = Arc::clone(&child.slot);
        let life = slot.cell().next_life();
        // A slot whose last life has not let go stays stuck until it does.
        if slot.cell().state() != SlotState::Stuck {
            slot.cell().set_state(SlotState::Starting);
        }
        slot.open();
        let context = StartContext {
            parent: self.myself.get_cell(),
            supervisor: self.supervisor.called_by(&slot.cell().path),
            root: self.root.clone(),
            policies: Arc::clone(&self.policies),
            life,
            cause_seq: child.cause_seq,
        };
        let mut started = child.spec.child.start(Arc::clone(&slot), context);
        // A start that failed is tried again from a task, so that a child that fails on and on
        // does not keep its supervisor from everything else.
        if !child.start_failed {
            let mut nobody = std::task::Context::from_waker(std::task::Waker::noop());
            if let Poll::Ready(result) = started.as_mut().poll(&mut nobody) {
                child.start = Some(Start::Done);
                self.done.push_back((key, life, result));
                return;
            }
        }
        let deadline = child.spec.start_deadline;
        let shutdown = child.spec.shutdown;
        let myself = self.myself.clone();
        child.start = Some(Start::UnderWay(TaskGuard::spawn(async move {
            let result = match deadline {
                None => started.await,
                Some(after) => match tokio::time::timeout(after, &mut started).await {
                    Ok(result) => result,
                    Err(_) if slot.supervisor().is_some() => {
                        stop_starting(&slot, shutdown, started).await;
                        StartResult::Failed(ExitReason::StartTimeout { after })
                    }
                    Err(_) if slot.cell().state() == SlotState::Stuck => {
                        StartResult::Failed(ExitReason::Stuck { waited: after })
                    }
                    Err(_) => StartResult::Failed(ExitReason::StartTimeout { after }),
                },
            };
            let _ = myself.send_message(SupervisorMessage::StartDone { key, life, result });
        })));
    }

    /// The next start that was done at once: key, life, result.
    pub(crate) fn next_done(&mut self) -> Option<(Key, u64, StartResult)> {
        self.done.pop_front()
    }

    /// Takes the report of a start, which is told by whoever decides what follows. `None` when it
    /// is not the current life's any more.
    ///
    /// The second value is the end of a life that was over before its start was reported.
    pub(crate) fn started(
        &mut self,
        key: Key,
        life: u64,
        result: &StartResult,
    ) -> Option<Option<RawEnd>> {
        let child = self.children.get_mut(&key)?;
        let cell = child.slot.cell();
        if cell.life() != life || child.start.take().is_none() {
            return None;
        }
        let mut early = None;
        child.start_failed = matches!(result, StartResult::Failed(_));
        match result {
            StartResult::Started(actor) => {
                let id = actor.get_id();
                child.actor = Some(id);
                child.failed_checks = 0;
                self.by_actor.insert(id, key);
                early = self.early_ends.remove(&id);
                cell.set_state(SlotState::Up);
                if let Some(health) = child.spec.health {
                    child.health = Some(health_timer(&self.myself, key, life, health));
                }
            }
            StartResult::Ignored => cell.set_state(SlotState::Down),
            StartResult::Failed(_) => {
                cell.set_state(SlotState::Down);
                // A supervisor that ran out of time while its children started is still there.
                if let Some(actor) = cell.current() {
                    actor.kill();
                }
            }
        }
        Some(early)
    }

    /// Drops a start that is under way. What it had made is dropped with it.
    pub(crate) fn abort_start(&mut self, key: Key) {
        if let Some(child) = self.children.get_mut(&key) {
            child.start = None;
            child.slot.cell().set_state(SlotState::Down);
            // A supervisor that was starting its children is an actor already: it stops them.
            if let Some(cell) = child.slot.cell().current() {
                cell.kill();
            }
        }
    }

    /// Tells a life to stop, kills it when its time is up, and gives it up as stuck when even
    /// that does not end it.
    pub(crate) fn stop(&mut self, key: Key, planned: bool) {
        let Some(child) = self.children.get_mut(&key) else { return };
        let cause_seq = child.cause_seq;
        let cell = child.slot.cell();
        cell.set_state(SlotState::Stopping);
        child.health = None;
        let life = cell.life();
        let is_there = child.actor.is_some() || cell.current().is_some();
        match (child.spec.shutdown, child.slot.supervisor()) {
            // A start that has not come to an actor yet: nothing would hear of the stop.
            _ if !is_there => return self.kill(key, life),
            (Shutdown::BrutalKill, _) => return self.kill(key, life),
            (_, Some(link)) => {
                if !link.send(SupervisorMessage::ShutDown { cause_seq }) {
                    return self.kill(key, life);
                }
            }
            (_, None) => cell.request_stop(planned),
        }
        if let Shutdown::After(limit) = child.spec.shutdown {
            let message = SupervisorMessage::StopTimeout { key, life };
            child.timer = Some(send_after(&self.myself, limit, message));
        }
    }

    /// Kills life `life` of a child that was told to stop.
    pub(crate) fn kill(&mut self, key: Key, life: u64) {
        let Some(child) = self.children.get_mut(&key) else { return };
        if child.slot.cell().life() != life {
            return;
        }
        if child.actor.is_none() {
            // It was told to stop while it started.
            if child.start.is_some() {
                self.abort_start(key);
                if let Some(child) = self.children.get_mut(&key) {
                    child.start = Some(Start::Done);
                    self.done.push_back((key, life, StartResult::Failed(ExitReason::Killed)));
                }
            }
            return;
        }
        if let Some(cell) = child.slot.cell().current() {
            cell.kill();
        }
        let message = SupervisorMessage::KillTimeout { key, life };
        child.timer = Some(send_after(&self.myself, KILL_GRACE, message));
    }

    /// Gives up on a life that does not end. `false` when it has ended meanwhile.
    pub(crate) fn abandon(&mut self, key: Key, life: u64) -> bool {
        let Some(child) = self.children.get_mut(&key) else { return false };
        let cell = child.slot.cell();
        if cell.life() != life {
            return false;
        }
        let Some(actor) = child.actor.take() else { return false };
        self.by_actor.remove(&actor);
        self.abandoned.insert(actor);
        cell.set_state(SlotState::Stuck);
        true
    }

    /// Learns of an end: whose, of which life, and why. `None` when it is nobody's, or its start
    /// was not reported yet.
    pub(crate) fn ended(
        &mut self,
        actor: &ActorCell,
        end: RawEnd,
    ) -> Option<(Key, u64, ExitReason)> {
        let id = actor.get_id();
        if self.abandoned.remove(&id) {
            return None;
        }
        match self.by_actor.get(&id) {
            Some(&key) => self.end_of(key, end),
            None => {
                self.early_ends.insert(id, end);
                None
            }
        }
    }

    /// Forgets what ractor said about a supervisor that never came up: its start was reported as
    /// failed.
    pub(crate) fn forget_early_ends(&mut self) {
        // Looked at first: it is almost always empty, and there may be 100,000 children.
        if !self.early_ends.is_empty() && self.children.values().all(|child| child.start.is_none())
        {
            self.early_ends.clear();
        }
    }

    /// The end of the current life of `key`, with the reason that the life itself wrote down.
    /// It is told by whoever decides what follows.
    pub(crate) fn end_of(&mut self, key: Key, end: RawEnd) -> Option<(Key, u64, ExitReason)> {
        let child = self.children.get_mut(&key)?;
        let id = child.actor.take()?;
        self.by_actor.remove(&id);
        child.timer = None;
        child.health = None;
        let cell = child.slot.cell();
        let life = cell.life();
        let stopping = cell.state() == SlotState::Stopping;
        if cell.info.kind != SlotKind::Actor {
            // An actor's life clears its own slot when it lets go.
            cell.life_ended(life, false);
        }
        let reason = match (cell.exit_of(life), end) {
            // A kill that came after the life had written a reason (while it stopped) counts.
            (_, RawEnd::Terminated(Some(word))) if word == "killed" => ExitReason::Killed,
            (Some(reason), _) => reason,
            (None, RawEnd::Terminated(_)) if stopping => ExitReason::Shutdown,
            (None, RawEnd::Terminated(_)) => ExitReason::Normal,
            (None, RawEnd::Failed(text)) => {
                ExitReason::Error(crate::error::Failure::permanent(text))
            }
        };
        cell.record_exit(life, reason.clone());
        cell.set_state(SlotState::Down);
        Some((key, life, reason))
    }

    /// Waits before a restart; the end of the wait comes as `Retry`.
    pub(crate) fn retry_after(&mut self, key: Key, epoch: u64, delay: Duration) {
        let Some(child) = self.children.get_mut(&key) else { return };
        let cell = child.slot.cell();
        cell.back_off(delay);
        self.env.emit(cell, cell.life(), child.cause_seq, LifecycleKind::BackingOff { delay });
        let message = SupervisorMessage::Retry { key, epoch };
        child.timer = Some(send_after(&self.myself, delay, message));
    }

    pub(crate) fn cancel_retry(&mut self, key: Key) {
        if let Some(child) = self.children.get_mut(&key) {
            child.timer = None;
            child.slot.cell().set_state(SlotState::Down);
        }
    }

    /// Removes a child; its slot is closed for good.
    pub(crate) fn remove(&mut self, key: Key, reason: &ExitReason) -> Option<Box<LiveChild>> {
        let child = self.children.remove(&key)?;
        if child.slot.cell().state() != SlotState::Stuck {
            child.slot.cell().set_state(SlotState::Down);
        }
        child.slot.close(reason);
        Some(child)
    }

    pub(crate) fn suspend(&mut self, key: Key, paused: bool, cause_seq: Option<u64>) {
        let Some(child) = self.children.get(&key) else { return };
        let cell = child.slot.cell();
        cell.set_suspended(paused);
        child.slot.pause(paused);
        let kind = if paused { LifecycleKind::Suspended } else { LifecycleKind::Resumed };
        self.env.emit(cell, cell.life(), cause_seq, kind);
    }

    // --- health --------------------------------------------------------------------------------

    /// Time for a check. A stuck handler shows in the slot; everything else is asked of the life,
    /// and its answer comes as `HealthChecked`.
    pub(crate) fn check_health(&mut self, key: Key, life: u64) {
        let Some(child) = self.children.get_mut(&key) else { return };
        let (Some(health), Some(_)) = (child.spec.health, child.actor) else { return };
        let cell = child.slot.cell();
        if cell.life() != life || cell.is_suspended() {
            child.health = Some(health_timer(&self.myself, key, life, health));
            return;
        }
        let busy = cell
            .stats
            .in_hand_since_ns()
            .map(|since| Duration::from_nanos(self.env.clock.elapsed_ns().saturating_sub(since)));
        let (reply, answer) = tokio::sync::oneshot::channel();
        let known = match busy {
            Some(busy) if busy >= health.stuck_after => Some(Health::unhealthy(format!(
                "stuck in {} for {busy:?}",
                cell.in_hand_name().unwrap_or("a message")
            ))),
            _ if child.slot.ask_health(reply) => None,
            _ => Some(Health::Healthy),
        };
        let slot = Arc::clone(&child.slot);
        let myself = self.myself.clone();
        let deadline = health.deadline;
        child.health = Some(TaskGuard::spawn(async move {
            let health = match known {
                Some(health) => health,
                None => match tokio::time::timeout(deadline, answer).await {
                    Ok(Ok(health)) => health,
                    Ok(Err(_)) => return,
                    // It answers between two messages: a long one is no fault until it is stuck.
                    Err(_) if slot.cell().stats.in_hand_since_ns().is_some() => {
                        Health::degraded(format!("busy, no answer within {deadline:?}"))
                    }
                    Err(_) => Health::unhealthy(format!("no answer within {deadline:?}")),
                },
            };
            let _ = myself.send_message(SupervisorMessage::HealthChecked { key, life, health });
        }));
    }

    /// Takes the result of a check. `Some` when it is time to treat it as a failure.
    pub(crate) fn health_checked(
        &mut self,
        key: Key,
        life: u64,
        health: Health,
    ) -> Option<ExitReason> {
        let child = self.children.get_mut(&key)?;
        let (Some(spec), Some(_)) = (child.spec.health, child.actor) else { return None };
        let cell = child.slot.cell();
        if cell.life() != life {
            return None;
        }
        let was = cell.health().unwrap_or(Health::Healthy);
        if was != health {
            let healthy = !matches!(health, Health::Unhealthy(_));
            let detail = health.detail().cloned().unwrap_or_else(|| "".into());
            self.env.emit(cell, life, None, LifecycleKind::Health { healthy, detail });
        }
        cell.set_health(health.clone());
        child.failed_checks = match &health {
            Health::Unhealthy(_) => child.failed_checks + 1,
            _ => 0,
        };
        if let (Health::Unhealthy(why), true) =
            (health, child.failed_checks >= spec.unhealthy_after)
        {
            return Some(ExitReason::Unhealthy(why));
        }
        child.health = Some(health_timer(&self.myself, key, life, spec));
        None
    }
}

impl Drop for Lives {
    /// The supervisor is gone, perhaps killed: ractor kills what was linked to it, and nobody
    /// else would correct what the tree shows.
    fn drop(&mut self) {
        for child in self.children.values() {
            let cell = child.slot.cell();
            if child.actor.is_some() || child.start.is_some() || child.timer.is_some() {
                cell.set_state(SlotState::Down);
            }
        }
    }
}

/// A supervisor that did not start in time has children already: it stops them in order, and is
/// waited for.
async fn stop_starting(slot: &Arc<dyn AnySlot>, shutdown: Shutdown, started: StartFuture) {
    let told = shutdown != Shutdown::BrutalKill
        && slot
            .supervisor()
            .is_some_and(|link| link.send(SupervisorMessage::ShutDown { cause_seq: None }));
    let kill = || slot.cell().current().inspect(|actor| actor.kill());
    match shutdown {
        _ if !told => drop(kill()),
        Shutdown::After(limit) => {
            let mut started = started;
            if tokio::time::timeout(limit, &mut started).await.is_err() {
                kill();
            }
        }
        _ => drop(started.await),
    }
}

fn health_timer(
    to: &ActorRef<SupervisorMessage>,
    key: Key,
    life: u64,
    health: HealthSpec,
) -> TaskGuard {
    send_after(to, health.every, SupervisorMessage::HealthTick { key, life })
}

fn send_after(
    to: &ActorRef<SupervisorMessage>,
    delay: Duration,
    message: SupervisorMessage,
) -> TaskGuard {
    let to = to.clone();
    TaskGuard::spawn(async move {
        tokio::time::sleep(delay).await;
        let _ = to.send_message(message);
    })
}
