//! The supervisor as a state machine without I/O: inputs in, orders out.
//!
//! OTP's supervisor is one process that does one thing at a time and keeps what arrives meanwhile
//! in its mailbox. So does this machine: a [`Job`] is a list of stops and starts, done one after
//! the other; inputs that arrive meanwhile wait in `inbox`. The driver carries the orders out and
//! reports back; it decides nothing.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crate::error::ExitReason;
use crate::path::Path;
use crate::resilience::Backoff;
use crate::supervisor::intensity::{IntensityUse, Window};
use crate::supervisor::policy::ChildPolicy;
use crate::supervisor::reaction::{Outcome, Reaction};
use crate::supervisor::strategy::{
    ChildView, Decision, Policy, RestartPolicy, decide, decide_restart, group,
};

/// Names a child for as long as its supervisor lives.
pub(crate) type Key = u64;

/// Names a command until it is answered.
pub(crate) type Token = u64;

#[derive(Clone, Debug)]
pub(crate) enum Input {
    /// A life ended, in whatever way.
    Ended {
        key: Key,
        reason: ExitReason,
    },
    /// The start that was ordered is done.
    StartDone {
        key: Key,
        outcome: StartOutcome,
    },
    /// The delay before a restart is over.
    Retry {
        key: Key,
        epoch: u64,
    },
    /// Bad health has to be treated as a failure.
    Unhealthy {
        key: Key,
        reason: ExitReason,
    },
    Command {
        token: Token,
        command: Command,
    },
}

#[derive(Clone, Debug)]
pub(crate) enum StartOutcome {
    Started,
    Ignored,
    Failed(ExitReason),
}

#[derive(Clone, Debug)]
pub(crate) enum Command {
    /// OTP's `start_child`; the driver has made the slot under this key.
    Add {
        key: Key,
        child: Declared,
    },
    /// OTP's `terminate_child`.
    Terminate(Arc<str>),
    /// OTP's `restart_child`: starts a child that is down.
    Restart(Arc<str>),
    /// OTP's `delete_child`.
    Delete(Arc<str>),
    /// Stops and starts a child and its group on purpose; not counted as a failure.
    PlannedRestart(Arc<str>),
    Suspend(Arc<str>),
    Resume(Arc<str>),
}

/// What a command came to.
#[derive(Clone, Debug)]
pub(crate) enum Reply {
    Done,
    NotFound(Arc<str>),
    Running(Arc<str>),
    Restarting(Arc<str>),
    AlreadyStarted(Arc<str>),
    AlreadyPresent(Arc<str>),
    StartFailed(Arc<str>, ExitReason),
    Stopping,
}

/// What led to an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// Nothing that has a number.
    Nothing,
    /// This event: what an operator did, or what happened to the supervisor itself.
    Event(u64),
    /// The last end, or failed start, of this child.
    Child(Key),
    /// The escalation that was ordered before.
    Escalation,
}

impl Cause {
    fn of(event: Option<u64>) -> Self {
        event.map_or(Self::Nothing, Self::Event)
    }
}

/// What the machine waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Awaited {
    Stop(Key),
    Start(Key),
}

/// An order to the driver.
#[derive(Clone, Debug)]
pub(crate) enum Order {
    /// Start a life. `restart`: it takes the place of one that ended.
    Start {
        key: Key,
        restart: bool,
    },
    /// Drop a start that is under way.
    AbortStart {
        key: Key,
    },
    /// Stop the life and report its end. `planned`: another will take its place.
    Stop {
        key: Key,
        planned: bool,
    },
    /// Report `Retry` after the backoff's delay for this many failures in a row.
    RetryAfter {
        key: Key,
        epoch: u64,
        backoff: Backoff,
        failures: u32,
    },
    /// Forget the delay: the child was stopped or started meanwhile.
    CancelRetry {
        key: Key,
    },
    /// It has no life and none is due: its mailbox closes until it is started again.
    Down {
        key: Key,
        reason: ExitReason,
    },
    /// Its spec is gone.
    Forget {
        key: Key,
        reason: ExitReason,
    },
    /// Hold back its messages, or let them through.
    Pause {
        key: Key,
        paused: bool,
    },
    Reply {
        token: Token,
        reply: Reply,
    },
    /// All children had their first start.
    Ready,
    /// What is done about the end of this child; the orders that do it come after.
    Decided {
        key: Key,
        reaction: Arc<Reaction>,
    },
    /// It gives up, and begins to stop its children.
    Escalating {
        reason: ExitReason,
    },
    /// All children are down: end with this reason.
    Finish(ExitReason),
}

/// A child as declared.
#[derive(Clone, Debug)]
pub(crate) struct Declared {
    pub(crate) id: Arc<str>,
    pub(crate) policy: ChildPolicy,
    pub(crate) significant: bool,
    pub(crate) depends_on: Vec<Arc<str>>,
    /// Held since an earlier life of its supervisor.
    pub(crate) suspended: bool,
}

#[derive(Clone, Debug)]
struct Child {
    key: Key,
    declared: Declared,
    phase: Phase,
    suspended: bool,
    /// It would have been started, had it not been suspended.
    held: bool,
    failures_in_a_row: u32,
    up_since: Option<Duration>,
    epoch: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Phase {
    Down,
    Starting,
    Up,
    Stopping,
    /// OTP's `restarting`: these start when the delay is over, itself among them.
    Waiting {
        start: Vec<Key>,
    },
}

#[derive(Clone, Debug)]
struct Job {
    steps: VecDeque<Step>,
    purpose: Purpose,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Stop(Key),
    Start(Key),
}

#[derive(Clone, Debug)]
enum Purpose {
    Init,
    /// Restart after a failure, or the retry of one.
    Restart,
    /// The group is stopped and the delay comes next.
    BackOff {
        key: Key,
    },
    Planned {
        token: Token,
    },
    Terminate {
        token: Token,
        key: Key,
    },
    StartChild {
        token: Token,
        key: Key,
        added: bool,
    },
    Resume {
        token: Token,
    },
    Unhealthy {
        key: Key,
        reason: ExitReason,
    },
    ShutDown {
        reason: ExitReason,
    },
}

/// The machine. See the module's page.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    /// Where the supervisor stands, for the reasons it gives.
    path: Path,
    pub(crate) policy: Policy,
    children: Vec<Child>,
    window: Window,
    inbox: VecDeque<(Input, Option<u64>)>,
    job: Option<Job>,
    awaiting: Option<Step>,
    orders: VecDeque<(Order, Cause)>,
    /// What led to what is under way: one thing is done at a time, so there is one cause.
    cause: Cause,
    /// What led to the order that was handed out last.
    ordered_by: Cause,
    /// The event behind the next input, if it has one.
    behind: Option<u64>,
    finished: bool,
    now: Duration,
}

impl Machine {
    pub(crate) fn new(path: Path, policy: Policy) -> Self {
        Self {
            path,
            policy,
            children: Vec::new(),
            window: Window::default(),
            inbox: VecDeque::new(),
            job: None,
            awaiting: None,
            orders: VecDeque::new(),
            cause: Cause::Nothing,
            ordered_by: Cause::Nothing,
            behind: None,
            finished: false,
            now: Duration::ZERO,
        }
    }

    /// The event that leads to the next call of [`init`](Self::init), [`input`](Self::input) with a
    /// command, or [`shut_down`](Self::shut_down).
    pub(crate) fn because(&mut self, event: Option<u64>) {
        self.behind = event;
    }

    /// Starts all children, in order.
    pub(crate) fn init(&mut self, now: Duration, children: Vec<(Key, Declared)>) {
        self.now = now;
        self.cause = Cause::of(self.behind.take());
        self.children =
            children.into_iter().map(|(key, declared)| Child::new(key, declared)).collect();
        let steps = self.children.iter().map(|child| Step::Start(child.key)).collect();
        self.job = Some(Job { steps, purpose: Purpose::Init });
        self.advance();
    }

    /// Takes an input. The orders it leads to are then in [`next_order`](Self::next_order).
    pub(crate) fn input(&mut self, now: Duration, input: Input) {
        if self.finished {
            return;
        }
        self.now = now;
        let behind = self.behind.take();
        match (input, self.awaiting) {
            (Input::Ended { key, reason }, Some(Step::Stop(awaited))) if key == awaited => {
                self.awaiting = None;
                let unhealthy =
                    matches!(self.job, Some(Job { purpose: Purpose::Unhealthy { .. }, .. }));
                if !reason.is_normal() && !unhealthy {
                    // It died before the order to stop reached it.
                    self.decided(key, Outcome::WithItsGroup, &[]);
                }
                self.stopped(key);
            }
            (Input::StartDone { key, outcome }, Some(Step::Start(awaited))) if key == awaited => {
                self.awaiting = None;
                self.start_done(key, outcome);
            }
            (Input::StartDone { .. }, _) => {}
            (Input::Command { token, .. }, _) if self.is_shutting_down() => {
                self.reply(token, Reply::Stopping);
            }
            (input, _) => self.inbox.push_back((input, behind)),
        }
        self.advance();
    }

    /// Stops everything in reverse order and ends with `reason`. What is being started is dropped.
    pub(crate) fn shut_down(&mut self, now: Duration, reason: ExitReason) {
        if self.finished || self.is_shutting_down() {
            return;
        }
        self.now = now;
        self.cause = Cause::of(self.behind.take());
        if let Some(Step::Start(key)) = self.awaiting {
            self.awaiting = None;
            self.set_phase(key, Phase::Down);
            self.order(Order::AbortStart { key });
        }
        self.begin_shut_down(reason);
        self.advance();
    }

    pub(crate) fn next_order(&mut self) -> Option<Order> {
        let (order, cause) = self.orders.pop_front()?;
        self.ordered_by = cause;
        Some(order)
    }

    /// What led to the last order of [`next_order`](Self::next_order).
    pub(crate) fn ordered_by(&self) -> Cause {
        self.ordered_by
    }

    /// Takes what was decided about a child out of the orders, for whoever reports its end before
    /// the orders are carried out.
    pub(crate) fn take_decided(&mut self, key: Key) -> Option<Arc<Reaction>> {
        let at = self
            .orders
            .iter()
            .position(|(order, _)| matches!(order, Order::Decided { key: of, .. } if *of == key))?;
        match self.orders.remove(at) {
            Some((Order::Decided { reaction, .. }, _)) => Some(reaction),
            _ => None,
        }
    }

    /// Whether the spec of a child is about to go.
    pub(crate) fn forgets(&self, key: Key) -> bool {
        self.orders
            .iter()
            .any(|(order, _)| matches!(order, Order::Forget { key: of, .. } if *of == key))
    }

    /// What it waits for, for whoever plays the world.
    pub(crate) fn awaited(&self) -> Option<Awaited> {
        self.awaiting.map(|step| match step {
            Step::Stop(key) => Awaited::Stop(key),
            Step::Start(key) => Awaited::Start(key),
        })
    }

    /// The id of a child.
    pub(crate) fn id_of(&self, key: Key) -> Arc<str> {
        self.id(key)
    }

    /// The key of the child with this id.
    pub(crate) fn key_of(&self, id: &str) -> Option<Key> {
        self.children.iter().find(|child| &*child.declared.id == id).map(|child| child.key)
    }

    /// Restarts counted in the window now.
    pub(crate) fn intensity_use(&self, now: Duration) -> IntensityUse {
        self.window.in_use(now, self.policy.intensity)
    }

    fn order(&mut self, order: Order) {
        self.orders.push_back((order, self.cause));
    }

    /// Fails what `caller` asked and what still waits: its caller is about to be stopped and must
    /// not wait for its stopper.
    pub(crate) fn refuse_waiting(&mut self, refused: impl Fn(Token) -> bool) {
        let mut kept = VecDeque::with_capacity(self.inbox.len());
        for (input, behind) in self.inbox.drain(..) {
            match input {
                Input::Command { token, .. } if refused(token) => {
                    self.orders
                        .push_back((Order::Reply { token, reply: Reply::Stopping }, self.cause));
                }
                other => kept.push_back((other, behind)),
            }
        }
        self.inbox = kept;
    }

    /// Restarts left before the supervisor gives up.
    pub(crate) fn restarts_left(&self, now: Duration) -> u32 {
        self.window.left(now, self.policy.intensity)
    }

    pub(crate) fn set_child_policy(&mut self, key: Key, policy: ChildPolicy) {
        if let Some(child) = self.child_mut(key) {
            child.declared.policy = policy;
        }
    }

    /// Goes on until it has to wait for the driver.
    fn advance(&mut self) {
        while self.awaiting.is_none() && !self.finished {
            match &mut self.job {
                Some(job) => match job.steps.pop_front() {
                    Some(Step::Stop(key)) => self.begin_stop(key),
                    Some(Step::Start(key)) => self.begin_start(key),
                    None => self.finish_job(),
                },
                None => match self.inbox.pop_front() {
                    Some((input, behind)) => self.process(input, behind),
                    None => return,
                },
            }
        }
    }

    // --- steps ---------------------------------------------------------------------------------

    fn begin_stop(&mut self, key: Key) {
        let Some(child) = self.child(key) else { return };
        match child.phase {
            Phase::Up => {
                // OTP flushes the exit of a sibling that died while its group was stopped: it is
                // no second failure.
                let died = self.inbox.iter().position(
                    |(input, _)| matches!(input, Input::Ended { key: ended, .. } if *ended == key),
                );
                if let Some(at) = died {
                    self.inbox.remove(at);
                    self.decided(key, Outcome::WithItsGroup, &[]);
                    self.stopped(key);
                    return;
                }
                let planned = self.stop_is_planned(key);
                self.set_phase(key, Phase::Stopping);
                self.awaiting = Some(Step::Stop(key));
                self.order(Order::Stop { key, planned });
            }
            Phase::Waiting { .. } => {
                self.cancel_retry(key);
                self.stopped(key);
            }
            Phase::Down | Phase::Starting | Phase::Stopping => self.stopped(key),
        }
    }

    /// Whether another life will take the place of the one that is stopped.
    fn stop_is_planned(&self, key: Key) -> bool {
        let Some(job) = &self.job else { return false };
        match &job.purpose {
            Purpose::Restart | Purpose::Planned { .. } => job.steps.contains(&Step::Start(key)),
            Purpose::BackOff { key: failed } => self.child(*failed).is_some_and(
                |child| matches!(&child.phase, Phase::Waiting { start } if start.contains(&key)),
            ),
            Purpose::Unhealthy { .. } => true,
            _ => false,
        }
    }

    /// A child's life is over because its supervisor wanted it so.
    fn stopped(&mut self, key: Key) {
        let waiting = self.child(key).is_some_and(|c| matches!(c.phase, Phase::Waiting { .. }));
        if !waiting {
            self.set_phase(key, Phase::Down);
        }
        let Some(job) = &self.job else { return };
        let in_group = matches!(
            job.purpose,
            Purpose::Restart | Purpose::BackOff { .. } | Purpose::Planned { .. }
        );
        let temporary =
            self.child(key).is_some_and(|c| c.declared.policy.restart == RestartPolicy::Temporary);
        let comes_back = job.steps.contains(&Step::Start(key));
        if in_group && temporary && !comes_back {
            self.forget(key, ExitReason::Shutdown);
        } else if in_group && let Some(child) = self.child_mut(key) {
            // The group goes on without it; `resume` starts it.
            child.held |= child.suspended;
        }
    }

    fn begin_start(&mut self, key: Key) {
        let restart = matches!(
            self.job,
            Some(Job { purpose: Purpose::Restart | Purpose::Planned { .. }, .. })
        );
        if self.child(key).is_some_and(|child| matches!(child.phase, Phase::Waiting { .. })) {
            self.cancel_retry(key);
        }
        let Some(child) = self.child_mut(key) else { return };
        if child.phase == Phase::Up {
            return;
        }
        if child.suspended {
            child.held = true;
            return;
        }
        child.phase = Phase::Starting;
        self.awaiting = Some(Step::Start(key));
        self.order(Order::Start { key, restart });
    }

    fn start_done(&mut self, key: Key, outcome: StartOutcome) {
        match outcome {
            StartOutcome::Started => {
                let now = self.now;
                if let Some(child) = self.child_mut(key) {
                    child.phase = Phase::Up;
                    child.up_since = Some(now);
                }
            }
            StartOutcome::Ignored => {
                self.set_phase(key, Phase::Down);
                self.settle_down(key, ExitReason::Normal);
            }
            StartOutcome::Failed(reason) => {
                self.set_phase(key, Phase::Down);
                self.start_failed(key, reason);
            }
        }
    }

    fn start_failed(&mut self, key: Key, reason: ExitReason) {
        let Some(job) = self.job.take() else { return };
        self.cause = Cause::Child(key);
        let left: Vec<Key> = job
            .steps
            .iter()
            .filter_map(|step| match step {
                Step::Start(key) => Some(*key),
                Step::Stop(_) => None,
            })
            .collect();
        match job.purpose {
            Purpose::Init => {
                let all: Vec<Key> = self.children.iter().map(|child| child.key).collect();
                self.decided(key, Outcome::FailsStart, &all);
                self.begin_shut_down(ExitReason::ChildStart {
                    child: self.path.child(&self.id(key)),
                    cause: Box::new(reason),
                });
            }
            Purpose::StartChild { token, key, added } => {
                let id = self.id(key);
                let outcome = if added { Outcome::Forgotten } else { Outcome::StaysDown };
                self.decided(key, outcome, &[]);
                if added {
                    self.forget(key, reason.clone());
                } else {
                    self.order(Order::Down { key, reason: reason.clone() });
                }
                self.reply(token, Reply::StartFailed(id, reason));
            }
            Purpose::Planned { token } | Purpose::Resume { token } => {
                // The order was carried out as far as it goes; from here on it is a failure like
                // any other.
                let id = self.id(key);
                self.reply(token, Reply::StartFailed(id, reason.clone()));
                self.restart(key, reason, &left, true);
            }
            _ => self.restart(key, reason, &left, true),
        }
    }

    fn finish_job(&mut self) {
        let Some(job) = self.job.take() else { return };
        match job.purpose {
            Purpose::Init => self.order(Order::Ready),
            Purpose::Restart => {}
            Purpose::BackOff { key } => self.begin_delay(key),
            Purpose::Planned { token } | Purpose::Resume { token } => {
                self.reply(token, Reply::Done);
            }
            Purpose::Terminate { token, key } => {
                self.settle_down(key, ExitReason::Shutdown);
                self.reply(token, Reply::Done);
            }
            Purpose::StartChild { token, .. } => self.reply(token, Reply::Done),
            Purpose::Unhealthy { key, reason } => self.ended(key, reason),
            Purpose::ShutDown { reason } => {
                self.finished = true;
                for (input, _) in std::mem::take(&mut self.inbox) {
                    if let Input::Command { token, .. } = input {
                        self.reply(token, Reply::Stopping);
                    }
                }
                self.order(Order::Finish(reason));
            }
        }
    }

    // --- inputs --------------------------------------------------------------------------------

    fn process(&mut self, input: Input, behind: Option<u64>) {
        self.cause = match &input {
            Input::Ended { key, .. } | Input::Retry { key, .. } | Input::Unhealthy { key, .. } => {
                Cause::Child(*key)
            }
            Input::StartDone { .. } | Input::Command { .. } => Cause::of(behind),
        };
        match input {
            Input::Ended { key, reason } => {
                if self.child(key).is_some_and(|child| child.phase == Phase::Up) {
                    self.ended(key, reason);
                }
            }
            Input::StartDone { .. } => {}
            Input::Retry { key, epoch } => self.retry(key, epoch),
            Input::Unhealthy { key, reason } => {
                if self.child(key).is_some_and(|child| child.phase == Phase::Up) {
                    let purpose = Purpose::Unhealthy { key, reason };
                    self.job = Some(Job { steps: VecDeque::from([Step::Stop(key)]), purpose });
                }
            }
            Input::Command { token, command } => self.command(token, command),
        }
    }

    fn ended(&mut self, key: Key, reason: ExitReason) {
        let Some(at) = self.index(key) else { return };
        let now = self.now;
        let child = &mut self.children[at];
        child.phase = Phase::Down;
        if child.suspended {
            // Held: it stays so, and comes back with `resume`.
            child.held = true;
            self.decided(key, Outcome::Held, &[]);
            return;
        }
        let worn_out = child.count_failure(now);
        let views = self.views();
        let normal = reason.is_normal();
        match decide(&views, at, normal, worn_out, &self.policy, &mut self.window, now) {
            Decision::Leave { shut_down, forget } => {
                let outcome = match (shut_down, forget) {
                    (true, _) => Outcome::EndsSupervisor,
                    (false, true) => Outcome::Forgotten,
                    (false, false) => Outcome::StaysDown,
                };
                self.decided(key, outcome, &[]);
                self.children[at].failures_in_a_row = 0;
                self.settle_down(key, reason);
                if shut_down {
                    self.begin_shut_down(ExitReason::Shutdown);
                }
            }
            decision => self.carry_out(key, reason, decision, &[], false),
        }
    }

    /// A start failed that has to be tried again, with what was still to be started after it.
    fn restart(&mut self, key: Key, reason: ExitReason, left: &[Key], failed_start: bool) {
        let Some(at) = self.index(key) else { return };
        let now = self.now;
        let worn_out = self.children[at].count_failure(now);
        let views = self.views();
        let decision = decide_restart(&views, at, worn_out, &self.policy, &mut self.window, now);
        self.carry_out(key, reason, decision, left, failed_start);
    }

    fn carry_out(
        &mut self,
        key: Key,
        reason: ExitReason,
        decision: Decision,
        left: &[Key],
        failed_start: bool,
    ) {
        let (stop, start) = match decision {
            Decision::Restart { stop, start } => (stop, start),
            Decision::GiveUp => return self.give_up(key, reason),
            Decision::Leave { .. } => return,
        };
        let mut start: Vec<Key> = start.into_iter().map(|i| self.children[i].key).collect();
        // Dependents of what crashed first may be independent of what then failed to start; they
        // still have to come back. For OTP's strategies nothing is added here.
        start.extend(left.iter().filter(|key| !start.contains(key)).copied().collect::<Vec<_>>());
        start.sort_by_key(|key| self.index(*key));
        let mut affected = start.clone();
        affected.extend(stop.iter().map(|i| self.children[*i].key));
        affected.sort_by_key(|key| self.index(*key));
        affected.dedup();
        self.decided(key, Outcome::Restarts, &affected);
        let mut steps: VecDeque<Step> =
            stop.into_iter().map(|i| Step::Stop(self.children[i].key)).collect();
        let delayed = self.child(key).is_some_and(|c| !c.declared.policy.backoff.is_none());
        let purpose = if delayed || failed_start {
            // A retry goes through the inbox even without a delay, as OTP sends it to itself, so
            // that commands are served in between.
            self.set_phase(key, Phase::Waiting { start });
            Purpose::BackOff { key }
        } else {
            steps.extend(start.into_iter().map(Step::Start));
            Purpose::Restart
        };
        self.job = Some(Job { steps, purpose });
    }

    /// The group is down. Waits, or goes on at once through the inbox.
    fn begin_delay(&mut self, key: Key) {
        let Some(child) = self.child(key) else { return };
        let (epoch, backoff) = (child.epoch, child.declared.policy.backoff);
        let failures = child.failures_in_a_row.saturating_sub(1);
        if backoff.is_none() {
            self.inbox.push_back((Input::Retry { key, epoch }, None));
        } else {
            self.order(Order::RetryAfter { key, epoch, backoff, failures });
        }
    }

    fn retry(&mut self, key: Key, epoch: u64) {
        let Some(child) = self.child_mut(key) else { return };
        // A child that was stopped, suspended or started meanwhile has a new epoch.
        let start = match &mut child.phase {
            Phase::Waiting { start } if child.epoch == epoch => std::mem::take(start),
            _ => return,
        };
        child.phase = Phase::Down;
        let steps = start.into_iter().map(Step::Start).collect();
        self.job = Some(Job { steps, purpose: Purpose::Restart });
    }

    fn give_up(&mut self, key: Key, reason: ExitReason) {
        let all: Vec<Key> = self.children.iter().map(|child| child.key).collect();
        self.decided(key, Outcome::GivesUp, &all);
        self.order(Order::Escalating { reason: reason.clone() });
        self.cause = Cause::Escalation;
        let child = self.path.child(&self.id(key));
        self.begin_shut_down(ExitReason::Escalated { child, cause: Box::new(reason) });
    }

    fn begin_shut_down(&mut self, reason: ExitReason) {
        let steps = self.children.iter().rev().map(|child| Step::Stop(child.key)).collect();
        self.job = Some(Job { steps, purpose: Purpose::ShutDown { reason } });
    }

    // --- commands ------------------------------------------------------------------------------

    fn command(&mut self, token: Token, command: Command) {
        match command {
            Command::Add { key, child } => self.add(token, key, child),
            Command::Terminate(id) => {
                if let Some(key) = self.find(token, &id) {
                    self.unsuspend(key);
                    let purpose = Purpose::Terminate { token, key };
                    self.job = Some(Job { steps: VecDeque::from([Step::Stop(key)]), purpose });
                }
            }
            Command::Restart(id) => {
                if let Some(key) = self.find_down(token, &id) {
                    let purpose = Purpose::StartChild { token, key, added: false };
                    self.unsuspend(key);
                    self.job = Some(Job { steps: VecDeque::from([Step::Start(key)]), purpose });
                }
            }
            Command::Delete(id) => {
                if let Some(key) = self.find_down(token, &id) {
                    self.forget(key, ExitReason::Shutdown);
                    self.reply(token, Reply::Done);
                }
            }
            Command::PlannedRestart(id) => {
                if let Some(key) = self.find(token, &id) {
                    self.planned_restart(token, key);
                }
            }
            Command::Suspend(id) => {
                if let Some(key) = self.find(token, &id) {
                    self.suspend(token, key);
                }
            }
            Command::Resume(id) => {
                if let Some(key) = self.find(token, &id) {
                    self.resume(token, key);
                }
            }
        }
    }

    fn add(&mut self, token: Token, key: Key, child: Declared) {
        let known = self.children.iter().find(|other| other.declared.id == child.id);
        if let Some(known) = known {
            let id = Arc::clone(&child.id);
            let reply = match known.phase {
                Phase::Down | Phase::Waiting { .. } => Reply::AlreadyPresent(id),
                _ => Reply::AlreadyStarted(id),
            };
            self.order(Order::Forget { key, reason: ExitReason::Normal });
            self.reply(token, reply);
            return;
        }
        self.children.push(Child::new(key, child));
        let purpose = Purpose::StartChild { token, key, added: true };
        self.job = Some(Job { steps: VecDeque::from([Step::Start(key)]), purpose });
    }

    fn planned_restart(&mut self, token: Token, key: Key) {
        let Some(at) = self.index(key) else { return };
        self.unsuspend(key);
        let (stop, start) = group(&self.views(), at, self.policy.strategy);
        let mut steps: VecDeque<Step> =
            stop.into_iter().map(|i| Step::Stop(self.children[i].key)).collect();
        steps.push_back(Step::Stop(key));
        steps.extend(start.into_iter().map(|i| Step::Start(self.children[i].key)));
        self.job = Some(Job { steps, purpose: Purpose::Planned { token } });
    }

    fn suspend(&mut self, token: Token, key: Key) {
        let Some(child) = self.child_mut(key) else { return };
        child.suspended = true;
        if matches!(child.phase, Phase::Waiting { .. }) {
            child.held = true;
            // The rest of its group was to come back with it, and does not have to wait for it.
            let Phase::Waiting { start } = child.phase.clone() else { return };
            self.cancel_retry(key);
            self.set_phase(key, Phase::Down);
            let steps = start.into_iter().filter(|k| *k != key).map(Step::Start).collect();
            self.job = Some(Job { steps, purpose: Purpose::Restart });
        }
        self.order(Order::Pause { key, paused: true });
        self.reply(token, Reply::Done);
    }

    fn resume(&mut self, token: Token, key: Key) {
        let Some(child) = self.child_mut(key) else { return };
        let start = child.held && child.phase == Phase::Down;
        self.unsuspend(key);
        if start {
            let purpose = Purpose::Resume { token };
            self.job = Some(Job { steps: VecDeque::from([Step::Start(key)]), purpose });
        } else {
            self.reply(token, Reply::Done);
        }
    }

    fn unsuspend(&mut self, key: Key) {
        let Some(child) = self.child_mut(key) else { return };
        child.held = false;
        if std::mem::take(&mut child.suspended) {
            self.order(Order::Pause { key, paused: false });
        }
    }

    // --- small change --------------------------------------------------------------------------

    /// Writes down what is done about the end of a child, at the place that decides it.
    fn decided(&mut self, key: Key, outcome: Outcome, affected: &[Key]) {
        let Some(child) = self.child(key) else { return };
        let backoff = match outcome {
            Outcome::Restarts => {
                child.declared.policy.backoff.ceiling(child.failures_in_a_row.saturating_sub(1))
            }
            _ => Duration::ZERO,
        };
        let path = |key: &Key| self.path.child(&self.id(*key));
        let reaction = Reaction {
            supervisor: self.path.clone(),
            child: path(&key),
            strategy: self.policy.strategy,
            outcome,
            affected: affected.iter().map(path).collect(),
            backoff,
            intensity: self.window.in_use(self.now, self.policy.intensity),
            in_a_row: child.failures_in_a_row,
        };
        self.order(Order::Decided { key, reaction: Arc::new(reaction) });
    }

    /// No life and none due: temporary children go, others keep their spec.
    fn settle_down(&mut self, key: Key, reason: ExitReason) {
        let Some(child) = self.child(key) else { return };
        if child.declared.policy.restart == RestartPolicy::Temporary {
            self.forget(key, reason);
        } else {
            self.order(Order::Down { key, reason });
        }
    }

    fn forget(&mut self, key: Key, reason: ExitReason) {
        self.children.retain(|child| child.key != key);
        self.order(Order::Forget { key, reason });
    }

    fn cancel_retry(&mut self, key: Key) {
        if let Some(child) = self.child_mut(key) {
            child.epoch += 1;
            child.phase = Phase::Down;
            self.order(Order::CancelRetry { key });
        }
    }

    fn find(&mut self, token: Token, id: &Arc<str>) -> Option<Key> {
        let key = self.children.iter().find(|c| c.declared.id == *id).map(|c| c.key);
        if key.is_none() {
            self.reply(token, Reply::NotFound(Arc::clone(id)));
        }
        key
    }

    fn find_down(&mut self, token: Token, id: &Arc<str>) -> Option<Key> {
        let key = self.find(token, id)?;
        let refusal = match self.child(key).map(|child| &child.phase) {
            Some(Phase::Down) => return Some(key),
            Some(Phase::Waiting { .. }) => Reply::Restarting(Arc::clone(id)),
            _ => Reply::Running(Arc::clone(id)),
        };
        self.reply(token, refusal);
        None
    }

    fn reply(&mut self, token: Token, reply: Reply) {
        self.order(Order::Reply { token, reply });
    }

    fn is_shutting_down(&self) -> bool {
        self.finished || matches!(self.job, Some(Job { purpose: Purpose::ShutDown { .. }, .. }))
    }

    fn index(&self, key: Key) -> Option<usize> {
        self.children.iter().position(|child| child.key == key)
    }

    fn child(&self, key: Key) -> Option<&Child> {
        self.children.iter().find(|child| child.key == key)
    }

    fn child_mut(&mut self, key: Key) -> Option<&mut Child> {
        self.children.iter_mut().find(|child| child.key == key)
    }

    fn set_phase(&mut self, key: Key, phase: Phase) {
        if let Some(child) = self.child_mut(key) {
            child.phase = phase;
        }
    }

    fn id(&self, key: Key) -> Arc<str> {
        self.child(key).map_or_else(|| "".into(), |child| Arc::clone(&child.declared.id))
    }

    fn views(&self) -> Vec<ChildView> {
        self.children
            .iter()
            .map(|child| ChildView {
                restart: child.declared.policy.restart,
                significant: child.declared.significant,
                up: matches!(child.phase, Phase::Up | Phase::Starting | Phase::Stopping),
                suspended: child.suspended,
                depends_on: child
                    .declared
                    .depends_on
                    .iter()
                    .filter_map(|id| self.children.iter().position(|c| c.declared.id == *id))
                    .collect(),
            })
            .collect()
    }
}

impl Child {
    fn new(key: Key, declared: Declared) -> Self {
        Self {
            key,
            suspended: declared.suspended,
            declared,
            phase: Phase::Down,
            held: false,
            failures_in_a_row: 0,
            up_since: None,
            epoch: 0,
        }
    }

    /// Counts a failure; says whether there were too many in a row.
    fn count_failure(&mut self, now: Duration) -> bool {
        let healthy_for = self.declared.policy.backoff.healthy_for();
        // Only a life that was up can have been healthy; a failed start goes on with the row.
        if let Some(up_since) = self.up_since.take()
            && now.saturating_sub(up_since) >= healthy_for
        {
            self.failures_in_a_row = 0;
        }
        self.failures_in_a_row = self.failures_in_a_row.saturating_add(1);
        self.declared.policy.give_up_after.is_some_and(|limit| self.failures_in_a_row > limit)
    }
}
