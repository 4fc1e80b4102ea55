//! The supervisor of children that come and go, as a state machine without I/O.
//!
//! Every child is a `OneForOne` of its own, so there is no sequence to keep, and a child's phase is
//! its whole state. What is asked about a child that is just starting or stopping waits until it
//! is up or down. All are stopped at once, as OTP's `simple_one_for_one` does it.
//!
//! There may be a million: add, find and remove do not depend on how many there are, and the stops
//! of all are handed out one by one, as [`next_order`](Crowd::next_order) is asked for them, so
//! that the driver can pause in between.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use indexmap::IndexMap;

use crate::error::ExitReason;
use crate::path::Path;
use crate::supervisor::intensity::{Intensity, IntensityUse, Window};
use crate::supervisor::orders::{
    Asker, Awaited, Cause, Declared, Input, Key, News, Order, Reply, Report, Token,
};
use crate::supervisor::policy::{ChildPolicy, Record};
use crate::supervisor::reaction::{Outcome, Reaction};
use crate::supervisor::strategy::{Policy, RestartPolicy, Strategy};

mod commands;
mod ends;
mod lives;

#[derive(Clone, Debug)]
struct Member {
    id: Arc<str>,
    policy: Arc<ChildPolicy>,
    record: Record,
    life: u64,
    epoch: u32,
    phase: Phase,
    suspended: bool,
    supervisor: bool,
    /// What is asked about it, while something is: most children are never asked about.
    asked: Option<Box<Asked>>,
}

#[derive(Clone, Debug, Default)]
struct Asked {
    /// Who waits for what is going on now.
    now: Option<Asker>,
    /// What comes when that is done.
    then: VecDeque<(Asker, crate::supervisor::Change, Option<u64>)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// `restart`: in the place of an earlier life, by the rules of a restart. `first`: the
    /// supervisor is not ready before it.
    Starting {
        restart: bool,
        first: bool,
    },
    Up,
    Stopping(Then),
    /// OTP's `restarting`.
    Waiting,
    /// Suspended without a life.
    Held,
}

/// What comes after a stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    Forget,
    Start,
    /// The next life after its delay.
    BackOff,
    /// It was stopped for bad health and is suspended.
    Hold,
    /// Nothing: the supervisor ends.
    End,
}

/// The machine. See the module's page.
#[derive(Clone, Debug)]
pub(crate) struct Crowd {
    path: Path,
    policy: Policy,
    most: usize,
    /// Children come back with the next life of this supervisor.
    keep: bool,
    members: BTreeMap<Key, Box<Member>>,
    ids: IndexMap<Arc<str>, Key>,
    window: Window,
    /// Askers that are children themselves, and which child they ask about.
    children_ask: BTreeMap<(Key, Token), Key>,
    /// First starts that are not done.
    first_starts: usize,
    filling: bool,
    ending: Option<Ending>,
    orders: VecDeque<(Order, Cause)>,
    cause: Cause,
    finished: bool,
    now: Duration,
}

#[derive(Clone, Debug)]
struct Ending {
    reason: ExitReason,
    /// All members with a key from here on have been told to stop.
    told: Key,
}

impl Crowd {
    pub(crate) fn new(path: Path, intensity: Intensity, most: usize, keep: bool) -> Self {
        let policy = Policy {
            strategy: Strategy::OneForOne,
            intensity,
            auto_shutdown: crate::supervisor::AutoShutdown::Never,
        };
        Self {
            path,
            policy,
            most,
            keep,
            members: BTreeMap::new(),
            ids: IndexMap::new(),
            window: Window::default(),
            children_ask: BTreeMap::new(),
            first_starts: 0,
            filling: true,
            ending: None,
            orders: VecDeque::new(),
            cause: Cause::Nothing,
            finished: false,
            now: Duration::ZERO,
        }
    }

    /// A copy that knows of one child only: enough to see what would follow from what happens to
    /// it, however many others there are.
    pub(crate) fn only(&self, id: &str) -> Self {
        let mut copy = Self::new(self.path.clone(), self.policy.intensity, self.most, self.keep);
        copy.window = self.window.clone();
        copy.filling = false;
        copy.ending = self.ending.clone();
        copy.now = self.now;
        if let Some((id, key)) = self.ids.get_key_value(id)
            && let Some(member) = self.members.get(key)
        {
            copy.ids.insert(Arc::clone(id), *key);
            copy.members.insert(*key, member.clone());
        }
        copy
    }

    /// Takes in a child that is there from the beginning. One that has lived before is restarted.
    /// `cause`: the event that led to this life of the supervisor.
    pub(crate) fn fill(&mut self, now: Duration, key: Key, child: Declared, cause: Option<u64>) {
        self.now = now;
        self.cause = Cause::of(cause);
        let restart = child.life > 0;
        let suspended = child.suspended;
        self.take_in(key, child);
        if !suspended {
            self.first_starts += 1;
            self.start(key, Phase::Starting { restart, first: true });
        }
    }

    /// No more of these.
    pub(crate) fn filled(&mut self) {
        self.filling = false;
        self.ready_at_last();
    }

    /// Takes an input, and the event behind it if there is one.
    pub(crate) fn input(&mut self, now: Duration, input: Input, cause: Option<u64>) {
        if self.finished {
            return;
        }
        self.now = now;
        match input {
            Input::StartDone { key, life, outcome } if self.is_in(key, life) => {
                self.cause = Cause::of(cause);
                self.start_done(key, outcome);
            }
            Input::Ended { key, life, reason } if self.is_in(key, life) => {
                self.ended(key, reason);
            }
            Input::Stuck { key, life } if self.is_in(key, life) => self.stuck(key),
            Input::Unhealthy { key, life, reason } if self.is_in(key, life) => {
                self.cause = Cause::Child(key);
                self.unhealthy(key, reason);
            }
            Input::Retry { key, epoch } => {
                self.cause = Cause::Child(key);
                self.retry(key, epoch);
            }
            Input::Command { asker, command } => {
                self.cause = Cause::of(cause);
                self.command(asker, command, cause);
            }
            Input::ShutDown => {
                self.cause = Cause::of(cause);
                self.end(ExitReason::Shutdown);
            }
            // News of a life that is not there any more.
            _ => {}
        }
    }

    /// The next thing to do, and what led to it.
    pub(crate) fn next_order(&mut self) -> Option<(Order, Cause)> {
        while self.orders.is_empty() && self.tell_one_more() {}
        self.orders.pop_front()
    }

    /// What it waits for, for whoever plays the world.
    pub(crate) fn awaited(&self) -> Option<Awaited> {
        self.members.iter().find_map(|(&key, member)| match member.phase {
            Phase::Starting { .. } => Some(Awaited::Start(key, member.life)),
            Phase::Stopping(_) => Some(Awaited::Stop(key, member.life)),
            _ => None,
        })
    }

    pub(crate) fn is_ending(&self) -> bool {
        self.ending.is_some()
    }

    pub(crate) fn id_of(&self, key: Key) -> Arc<str> {
        self.members.get(&key).map_or_else(|| "".into(), |member| Arc::clone(&member.id))
    }

    pub(crate) fn key_of(&self, id: &str) -> Option<Key> {
        self.ids.get(id).copied()
    }

    pub(crate) fn life_of(&self, key: Key) -> u64 {
        self.members.get(&key).map_or(0, |member| member.life)
    }

    pub(crate) fn intensity_use(&self, now: Duration) -> IntensityUse {
        self.window.in_use(now, self.policy.intensity)
    }

    pub(crate) fn rules(&mut self) -> &mut Policy {
        &mut self.policy
    }

    pub(crate) fn set_child_policy(&mut self, key: Key, policy: Arc<ChildPolicy>) {
        if let Some(member) = self.members.get_mut(&key) {
            member.policy = policy;
        }
    }

    // --- members -------------------------------------------------------------------------------

    fn is_in(&self, key: Key, life: u64) -> bool {
        self.members.get(&key).is_some_and(|member| member.life == life)
    }

    fn member(&mut self, key: Key) -> Option<&mut Member> {
        self.members.get_mut(&key).map(AsMut::as_mut)
    }

    fn set_phase(&mut self, key: Key, phase: Phase) {
        if let Some(member) = self.member(key) {
            member.phase = phase;
        }
    }

    fn take_in(&mut self, key: Key, child: Declared) {
        self.ids.insert(Arc::clone(&child.id), key);
        let member = Member {
            id: child.id,
            policy: child.policy,
            record: Record::default(),
            life: child.life,
            epoch: 0,
            phase: Phase::Held,
            suspended: child.suspended,
            supervisor: child.supervisor,
            asked: None,
        };
        self.members.insert(key, Box::new(member));
    }

    /// Its part in this life of the supervisor is over.
    fn leave(&mut self, key: Key, reason: ExitReason) {
        let kept = self.is_kept(key);
        let Some(member) = self.members.remove(&key) else { return };
        self.ids.swap_remove(&member.id);
        if let Some(asked) = member.asked {
            let Asked { now, then } = *asked;
            let id = &member.id;
            let ending = self.ending.is_some();
            for asker in now.into_iter().chain(then.into_iter().map(|(asker, ..)| asker)) {
                let reply = if ending { Reply::Stopping } else { Reply::NotFound(Arc::clone(id)) };
                self.reply(asker, reply);
            }
        }
        self.order(if kept { Order::Keep { key } } else { Order::Forget { key, reason } });
    }

    /// Whether it comes back with the next life of the supervisor, which ends.
    fn is_kept(&self, key: Key) -> bool {
        let temporary = |m: &Member| m.policy.restart == RestartPolicy::Temporary;
        self.keep
            && self.ending.is_some()
            && self.members.get(&key).is_some_and(|member| {
                // Who asked for it was told that it is not there.
                let unborn = matches!(member.phase, Phase::Starting { restart: false, .. });
                let stopped = member.phase == Phase::Stopping(Then::Forget);
                !temporary(member) && !unborn && !stopped
            })
    }

    // --- orders --------------------------------------------------------------------------------

    fn order(&mut self, order: Order) {
        self.orders.push_back((order, self.cause));
    }

    fn report(&mut self, key: Key, news: News, reaction: Option<Reaction>, gone: bool) {
        let life = self.life_of(key);
        let reaction = reaction.map(Arc::new);
        self.order(Order::Report(Report { key, life, news, reaction, gone }));
    }

    fn reply(&mut self, asker: Asker, reply: Reply) {
        if let Some(from) = asker.from {
            self.children_ask.remove(&(from, asker.token));
        }
        self.order(Order::Reply { token: asker.token, reply });
    }

    fn reaction(&self, key: Key, outcome: Outcome) -> Reaction {
        let child = self.path.child(&self.id_of(key));
        let member = self.members.get(&key);
        let restarts = outcome == Outcome::Restarts;
        Reaction {
            supervisor: self.path.clone(),
            affected: if restarts { vec![child.clone()] } else { Vec::new() },
            child,
            strategy: Strategy::OneForOne,
            outcome,
            backoff: match member {
                Some(member) if restarts => member.policy.backoff.ceiling(member.record.before()),
                _ => Duration::ZERO,
            },
            intensity: self.window.in_use(self.now, self.policy.intensity),
            in_a_row: member.map_or(0, |member| member.record.failures_in_a_row),
        }
    }
}
