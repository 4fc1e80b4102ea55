//! The supervisor of declared children as a state machine without I/O.
//!
//! OTP's supervisor is one process that does one thing at a time and keeps what arrives meanwhile
//! in its mailbox. So does this machine: a [`Job`] is a list of stops and starts, done one after
//! the other; inputs that arrive meanwhile wait in `inbox`. The driver carries the orders out and
//! reports back; it decides nothing.
//!
//! | | |
//! |---|---|
//! | this file | inputs, jobs, and what comes after a job |
//! | `steps` | one stop, one start |
//! | `ends` | a child has ended or did not start: what follows |
//! | `commands` | what is asked of it |

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crate::error::ExitReason;
use crate::path::Path;
use crate::supervisor::intensity::{IntensityUse, Window};
use crate::supervisor::orders::{
    Asker, Awaited, Cause, Declared, Input, Key, News, Order, Reply, Report,
};
use crate::supervisor::policy::{ChildPolicy, Record};
use crate::supervisor::reaction::{Outcome, Reaction};
use crate::supervisor::strategy::{ChildView, Policy, RestartPolicy};

mod commands;
mod ends;
mod steps;

#[derive(Clone, Debug)]
struct Child {
    key: Key,
    path: Path,
    declared: Declared,
    phase: Phase,
    suspended: bool,
    /// Something in another branch that it needs is not up.
    blocked: bool,
    /// It would have been started, had it not been suspended, or without what it depends on. It
    /// is started as soon as nothing stands in the way.
    due: bool,
    /// The number of its life, or of its last one.
    life: u64,
    record: Record,
    /// Counts its delays, so that the end of one that was cut short does nothing.
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
    /// Who waits for it.
    asker: Option<Asker>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Stop(Key),
    Start(Key),
}

/// What a job is for, which says what comes after it.
#[derive(Clone, Debug)]
enum Purpose {
    Init,
    /// Restart after a failure, or the retry of one.
    Restart,
    /// The group is stopped; these start after the delay that comes next.
    BackOff {
        key: Key,
        start: Vec<Key>,
    },
    /// It has ended, or is stopped for bad health, and is not started again.
    Leave {
        key: Key,
        reason: ExitReason,
        shut_down: bool,
    },
    Planned,
    /// It is suspended, and its life is over or ends for bad health.
    Hold,
    Terminate {
        key: Key,
    },
    StartChild {
        key: Key,
        added: bool,
    },
    Resume,
    ShutDown {
        reason: ExitReason,
    },
}

/// The machine. See the module's page.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    /// Where the supervisor stands, for the reasons it gives.
    path: Path,
    policy: Policy,
    children: Vec<Child>,
    window: Window,
    /// With the event behind each, if it has one.
    inbox: VecDeque<(Input, Option<u64>)>,
    job: Option<Job>,
    awaiting: Option<Step>,
    orders: VecDeque<(Order, Cause)>,
    /// What led to what is under way: one thing is done at a time, so there is one cause.
    cause: Cause,
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
            finished: false,
            now: Duration::ZERO,
        }
    }

    /// Starts all children, in order. `cause`: the event that led to it.
    pub(crate) fn init(
        &mut self,
        now: Duration,
        children: Vec<(Key, Declared)>,
        cause: Option<u64>,
    ) {
        self.now = now;
        self.cause = Cause::of(cause);
        self.children =
            children.into_iter().map(|(key, child)| Child::new(&self.path, key, child)).collect();
        let steps: Vec<Step> = self.children.iter().map(|child| Step::Start(child.key)).collect();
        self.begin(steps, Purpose::Init, None);
        self.advance();
    }

    /// Takes an input, and the event behind it if there is one. The orders it leads to are then
    /// in [`next_order`](Self::next_order).
    pub(crate) fn input(&mut self, now: Duration, input: Input, cause: Option<u64>) {
        if self.finished {
            return;
        }
        self.now = now;
        match (input, self.awaiting) {
            (Input::Ended { key, life, reason }, Some(Step::Stop(awaited)))
                if key == awaited && self.is_in(key, life) =>
            {
                self.stop_done(key, News::Stopped(reason));
            }
            (Input::Stuck { key, life }, Some(Step::Stop(awaited)))
                if key == awaited && self.is_in(key, life) =>
            {
                self.stop_done(key, News::Stuck);
            }
            (Input::StartDone { key, life, outcome }, step) if self.is_in(key, life) => {
                if step == Some(Step::Start(key)) {
                    self.awaiting = None;
                    self.start_done(key, outcome);
                } else {
                    self.cut_start_done(key, &outcome);
                }
            }
            (Input::StartDone { .. } | Input::Stuck { .. }, _) => {}
            (Input::ShutDown, _) => self.shut_down(cause),
            (Input::Command { asker, .. }, _) if self.must_refuse(asker) => {
                self.reply(asker, Reply::Stopping);
            }
            (input, _) => self.inbox.push_back((input, cause)),
        }
        self.advance();
    }

    /// The next thing to do, and what led to it.
    pub(crate) fn next_order(&mut self) -> Option<(Order, Cause)> {
        self.orders.pop_front()
    }

    /// What it waits for, for whoever plays the world.
    pub(crate) fn awaited(&self) -> Option<Awaited> {
        self.awaiting.map(|step| match step {
            Step::Stop(key) => Awaited::Stop(key, self.life_of(key)),
            Step::Start(key) => Awaited::Start(key, self.life_of(key)),
        })
    }

    /// The id of a child.
    pub(crate) fn id_of(&self, key: Key) -> Arc<str> {
        self.child(key).map_or_else(|| "".into(), |child| Arc::clone(&child.declared.id))
    }

    /// The key of the child with this id.
    pub(crate) fn key_of(&self, id: &str) -> Option<Key> {
        self.children.iter().find(|child| &*child.declared.id == id).map(|child| child.key)
    }

    /// The number of a child's life, or of its last one.
    pub(crate) fn life_of(&self, key: Key) -> u64 {
        self.child(key).map_or(0, |child| child.life)
    }

    /// Restarts counted in the window now.
    pub(crate) fn intensity_use(&self, now: Duration) -> IntensityUse {
        self.window.in_use(now, self.policy.intensity)
    }

    pub(crate) fn rules(&mut self) -> &mut Policy {
        &mut self.policy
    }

    pub(crate) fn set_child_policy(&mut self, key: Key, policy: Arc<ChildPolicy>) {
        if let Some(child) = self.child_mut(key) {
            child.declared.policy = policy;
        }
    }

    /// Goes on until it has to wait for the driver.
    fn advance(&mut self) {
        while self.awaiting.is_none() && !self.finished {
            if let Some(job) = &mut self.job {
                match job.steps.pop_front() {
                    Some(Step::Stop(key)) => self.begin_stop(key),
                    Some(Step::Start(key)) => self.begin_start(key),
                    None => self.finish_job(),
                }
            } else if !self.start_due() {
                match self.inbox.pop_front() {
                    Some((input, cause)) => self.process(input, cause),
                    None => return,
                }
            }
        }
    }

    fn begin(
        &mut self,
        steps: impl IntoIterator<Item = Step>,
        purpose: Purpose,
        asker: Option<Asker>,
    ) {
        self.job = Some(Job { steps: steps.into_iter().collect(), purpose, asker });
    }

    fn process(&mut self, input: Input, cause: Option<u64>) {
        self.cause = match &input {
            Input::Ended { key, .. } | Input::Retry { key, .. } | Input::Unhealthy { key, .. } => {
                Cause::Child(*key)
            }
            _ => Cause::of(cause),
        };
        match input {
            Input::Ended { key, life, reason } if self.is_up_in(key, life) => {
                self.ended(key, News::Ended(reason));
            }
            Input::Unhealthy { key, life, reason } if self.is_up_in(key, life) => {
                self.ended(key, News::Unhealthy(reason));
            }
            Input::Retry { key, epoch } => self.retry(key, epoch),
            Input::Command { asker, command } => self.command(asker, command),
            // News of a life that is not there any more.
            _ => {}
        }
    }

    fn finish_job(&mut self) {
        let Some(Job { purpose, asker, .. }) = self.job.take() else { return };
        match purpose {
            Purpose::Init => self.order(Order::Ready),
            Purpose::Restart
            | Purpose::Hold
            | Purpose::Planned
            | Purpose::Resume
            | Purpose::StartChild { .. } => {}
            Purpose::BackOff { key, start } => self.begin_delay(key, start),
            Purpose::Terminate { key } => self.settle_down(key, ExitReason::Shutdown),
            Purpose::Leave { key, reason, shut_down } => {
                if shut_down {
                    // First: what is done for it has it as its cause.
                    self.begin_shut_down(ExitReason::Shutdown);
                }
                self.settle_down(key, reason);
            }
            Purpose::ShutDown { reason } => {
                self.finished = true;
                self.order(Order::Finish(reason));
            }
        }
        self.answer(asker, Reply::Done);
    }

    /// Starts whoever is due and has all it needs. `false` if there is nobody.
    fn start_due(&mut self) -> bool {
        let ready: Vec<Key> = self
            .children
            .iter()
            .filter(|child| child.due && child.phase == Phase::Down && !child.is_held())
            .filter(|child| self.missing(&child.declared).is_none())
            .map(|child| child.key)
            .collect();
        if ready.is_empty() {
            return false;
        }
        self.begin(ready.into_iter().map(Step::Start), Purpose::Restart, None);
        true
    }

    // --- the end -------------------------------------------------------------------------------

    fn shut_down(&mut self, cause: Option<u64>) {
        if !self.is_ending() {
            self.cause = Cause::of(cause);
            self.begin_shut_down(ExitReason::Shutdown);
        }
    }

    /// Stops everything in reverse order and ends with `reason`. Nobody who waits for an answer
    /// waits any longer: it might be a child, and hold up its own stop.
    fn begin_shut_down(&mut self, reason: ExitReason) {
        self.order(Order::Ending { reason: reason.clone() });
        self.cause = Cause::Ending;
        if let Some(job) = self.job.take() {
            self.answer(job.asker, Reply::Stopping);
        }
        self.refuse(|_| true);
        if let Some(Step::Start(key)) = self.awaiting {
            self.cut_start(key);
        }
        let steps: Vec<Step> =
            self.children.iter().rev().map(|child| Step::Stop(child.key)).collect();
        self.begin(steps, Purpose::ShutDown { reason }, None);
    }

    pub(crate) fn is_ending(&self) -> bool {
        self.finished || matches!(self.job, Some(Job { purpose: Purpose::ShutDown { .. }, .. }))
    }

    // --- answers -------------------------------------------------------------------------------

    /// Whether an asker would wait for its own stop.
    fn must_refuse(&self, asker: Asker) -> bool {
        let stopping = |key| self.child(key).is_some_and(|c| c.phase == Phase::Stopping);
        self.is_ending() || asker.from.is_some_and(stopping)
    }

    /// Refuses the commands that still wait, where their asker is one of these.
    fn refuse(&mut self, whose: impl Fn(Asker) -> bool) {
        let mut kept = VecDeque::with_capacity(self.inbox.len());
        for (input, cause) in std::mem::take(&mut self.inbox) {
            match input {
                Input::Command { asker, .. } if whose(asker) => self.reply(asker, Reply::Stopping),
                input => kept.push_back((input, cause)),
            }
        }
        self.inbox = kept;
    }

    /// A child is about to be stopped: it, and whoever lives below it, must not wait for anything
    /// here. What they have asked for goes on if it has begun.
    fn refuse_from(&mut self, key: Key) {
        let asker = self.job.as_mut().and_then(|job| job.asker.take_if(|a| a.from == Some(key)));
        self.answer(asker, Reply::Stopping);
        self.refuse(|asker| asker.from == Some(key));
    }

    fn answer(&mut self, asker: Option<Asker>, reply: Reply) {
        if let Some(asker) = asker {
            self.reply(asker, reply);
        }
    }

    fn reply(&mut self, asker: Asker, reply: Reply) {
        self.order(Order::Reply { token: asker.token, reply });
    }

    // --- reports -------------------------------------------------------------------------------

    fn order(&mut self, order: Order) {
        self.orders.push_back((order, self.cause));
    }

    /// Tells what happened to a child, with what is done about it, before anything is done.
    fn report(&mut self, key: Key, news: News, reaction: Option<Reaction>, gone: bool) {
        let life = self.life_of(key);
        let reaction = reaction.map(Arc::new);
        self.order(Order::Report(Report { key, life, news, reaction, gone }));
    }

    fn reaction(&self, key: Key, outcome: Outcome, affected: &[Key]) -> Reaction {
        let path = |key: &Key| self.path_of(*key);
        let child = self.child(key);
        let backoff = match (outcome, child) {
            (Outcome::Restarts, Some(child)) => {
                child.declared.policy.backoff.ceiling(child.record.before())
            }
            _ => Duration::ZERO,
        };
        Reaction {
            supervisor: self.path.clone(),
            child: path(&key),
            strategy: self.policy.strategy,
            outcome,
            affected: affected.iter().map(path).collect(),
            backoff,
            intensity: self.window.in_use(self.now, self.policy.intensity),
            in_a_row: child.map_or(0, |child| child.record.failures_in_a_row),
        }
    }

    fn path_of(&self, key: Key) -> Path {
        self.child(key).map_or_else(|| self.path.clone(), |child| child.path.clone())
    }

    // --- children ------------------------------------------------------------------------------

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

    fn is_in(&self, key: Key, life: u64) -> bool {
        self.child(key).is_some_and(|child| child.life == life)
    }

    fn is_up_in(&self, key: Key, life: u64) -> bool {
        self.child(key).is_some_and(|child| child.phase == Phase::Up && child.life == life)
    }

    fn keys(&self, indices: &[usize]) -> Vec<Key> {
        indices.iter().map(|&i| self.children[i].key).collect()
    }

    /// What it depends on and is not up. What has ended is not, though its turn is still to come.
    fn missing(&self, declared: &Declared) -> Option<Arc<str>> {
        let is_up = |id: &Arc<str>| {
            let child = self.children.iter().find(|child| child.declared.id == *id);
            child.is_some_and(|c| c.phase == Phase::Up && self.end_in_inbox(c.key).is_none())
        };
        declared.depends_on.iter().find(|id| !is_up(id)).cloned()
    }

    /// Where in the inbox the end of its life waits.
    fn end_in_inbox(&self, key: Key) -> Option<usize> {
        let life = self.life_of(key);
        self.inbox.iter().position(|(input, _)| {
            matches!(input, Input::Ended { key: k, life: l, .. } if (*k, *l) == (key, life))
        })
    }

    fn views(&self) -> Vec<ChildView> {
        let at = |id: &Arc<str>| self.children.iter().position(|c| c.declared.id == *id);
        self.children
            .iter()
            .map(|child| ChildView {
                restart: child.declared.policy.restart,
                significant: child.declared.significant,
                alive: child.phase != Phase::Down || child.due,
                suspended: child.is_held(),
                depends_on: child.declared.depends_on.iter().filter_map(at).collect(),
            })
            .collect()
    }
}

impl Child {
    fn new(parent: &Path, key: Key, declared: Declared) -> Self {
        Self {
            key,
            path: parent.child(&declared.id),
            suspended: declared.suspended,
            blocked: declared.blocked,
            life: declared.life,
            declared,
            phase: Phase::Down,
            due: false,
            record: Record::default(),
            epoch: 0,
        }
    }

    /// Whether somebody else says when it starts.
    fn is_held(&self) -> bool {
        self.suspended || self.blocked
    }

    fn is_temporary(&self) -> bool {
        self.declared.policy.restart == RestartPolicy::Temporary
    }
}
