//! A world on paper for one machine: what is ordered is noted, and done when the test says so.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::error::{ExitReason, Failure};
use crate::path::Path;
use crate::resilience::Backoff;
use crate::supervisor::brain::Brain;
use crate::supervisor::crowd::Crowd;
use crate::supervisor::machine::Machine;
use crate::supervisor::orders::{
    Asker, Command, Declared, Input, Key, News, Order, Reply, StartOutcome, Token,
};
use crate::supervisor::{
    AutoShutdown, Change, ChildPolicy, Intensity, Policy, RestartPolicy, Strategy,
};

pub(super) const PATIENT: Intensity = Intensity::new(100, Duration::from_secs(1_000));

/// A child called by its letter: `child("d").needs(&["a", "e"])`.
#[derive(Clone)]
pub(super) struct Make(pub(super) Declared);

pub(super) fn child(id: &str) -> Make {
    Make(Declared {
        id: id.into(),
        policy: Arc::new(ChildPolicy::OTP),
        significant: false,
        depends_on: Vec::new(),
        suspended: false,
        blocked: false,
        supervisor: false,
        life: 0,
    })
}

impl Make {
    pub(super) fn needs(mut self, ids: &[&str]) -> Self {
        self.0.depends_on = ids.iter().map(|id| (*id).into()).collect();
        self
    }

    pub(super) fn restart(mut self, restart: RestartPolicy) -> Self {
        self.0.policy = Arc::new(ChildPolicy { restart, ..*self.0.policy });
        self
    }

    pub(super) fn backs_off(mut self) -> Self {
        let backoff = Backoff::exponential(Duration::from_secs(10), Duration::from_secs(10));
        self.0.policy = Arc::new(ChildPolicy { backoff, ..*self.0.policy });
        self
    }

    pub(super) fn significant(mut self) -> Self {
        self.0.significant = true;
        self
    }

    pub(super) fn supervisor(mut self) -> Self {
        self.0.supervisor = true;
        self
    }
}

pub(super) struct World {
    pub(super) brain: Brain,
    pub(super) names: BTreeMap<Key, Arc<str>>,
    next: u64,
    /// Orders as they came: `start a1`, `stop a1 planned`, `reply 7 Done`.
    pub(super) log: Vec<String>,
    /// Delays that run.
    pub(super) retries: BTreeMap<Key, u64>,
    pub(super) now: Duration,
}

impl World {
    pub(super) fn fixed(policy: Policy, children: &[Make]) -> Self {
        let mut world = Self::of(Brain::Fixed(Machine::new(Path::root(), policy)));
        let children = children.iter().map(|c| (world.key(&c.0.id), c.0.clone())).collect();
        let Brain::Fixed(machine) = &mut world.brain else { unreachable!() };
        machine.init(Duration::ZERO, children, None);
        world
    }

    pub(super) fn strategy(strategy: Strategy, children: &[Make]) -> Self {
        let auto_shutdown = AutoShutdown::Never;
        Self::fixed(Policy { strategy, intensity: PATIENT, auto_shutdown }, children)
    }

    pub(super) fn crowd(intensity: Intensity, keep: bool, children: &[Make]) -> Self {
        let crowd = Crowd::new(Path::root(), intensity, 1_000, keep);
        let mut world = Self::of(Brain::Crowd(crowd));
        for child in children {
            let key = world.key(&child.0.id);
            let Brain::Crowd(crowd) = &mut world.brain else { unreachable!() };
            crowd.fill(Duration::ZERO, key, child.0.clone(), None);
        }
        let Brain::Crowd(crowd) = &mut world.brain else { unreachable!() };
        crowd.filled();
        world
    }

    fn of(brain: Brain) -> Self {
        let (names, retries) = (BTreeMap::new(), BTreeMap::new());
        Self { brain, names, next: 0, log: Vec::new(), retries, now: Duration::ZERO }
    }

    pub(super) fn key(&mut self, id: &str) -> Key {
        self.next += 1;
        self.names.insert(self.next, id.into());
        self.next
    }

    pub(super) fn at(&self, id: &str) -> (Key, u64) {
        let key = self.brain.key_of(id).unwrap();
        (key, self.brain.life_of(key))
    }

    pub(super) fn input(&mut self, input: Input) {
        self.brain.input(self.now, input, None);
    }

    /// The next order, written down.
    pub(super) fn next(&mut self) -> Option<Order> {
        let (order, _) = self.brain.next_order()?;
        let name = |key: &Key| self.names[key].to_string();
        let line = match &order {
            Order::Start { key, life } => format!("start {}{life}", name(key)),
            Order::Stop { key, life, planned } => {
                format!("stop {}{life}{}", name(key), if *planned { " planned" } else { "" })
            }
            Order::AbortStart { key } => format!("abort {}", name(key)),
            Order::Reply { token, reply } => match reply {
                Reply::NeedsDependency { dependency, .. } => {
                    format!("reply {token} needs {dependency}")
                }
                Reply::UnknownDependency { dependency, .. } => {
                    format!("reply {token} unknown {dependency}")
                }
                Reply::StartFailed(..) => format!("reply {token} StartFailed"),
                reply => format!("reply {token} {reply:?}"),
            },
            Order::Forget { key, .. } => format!("forget {}", name(key)),
            Order::Keep { key } => format!("keep {}", name(key)),
            Order::Finish(reason) => format!("finish {}", reason.kind()),
            Order::Report(report) => match (&report.news, &report.reaction) {
                (News::Ended(_) | News::Unhealthy(_), Some(reaction)) => {
                    format!("{}{} {}", name(&report.key), report.life, reaction.outcome.as_str())
                }
                _ => String::new(),
            },
            Order::RetryAfter { key, epoch, .. } => {
                self.retries.insert(*key, *epoch);
                format!("wait {}", name(key))
            }
            _ => String::new(),
        };
        if !line.is_empty() {
            self.log.push(line);
        }
        Some(order)
    }

    /// Writes down what is ordered, and does none of it.
    pub(super) fn orders(&mut self) {
        while self.next().is_some() {}
    }

    /// Does what is ordered, at once; delays go on.
    pub(super) fn run(&mut self) {
        while let Some(order) = self.next() {
            match order {
                Order::Start { key, life } => {
                    self.input(Input::StartDone { key, life, outcome: StartOutcome::Started })
                }
                Order::Stop { key, life, .. } => {
                    self.input(Input::Ended { key, life, reason: ExitReason::Shutdown });
                }
                _ => {}
            }
        }
    }

    pub(super) fn taken(&mut self) -> Vec<String> {
        std::mem::take(&mut self.log)
    }

    pub(super) fn up(&mut self, id: &str) {
        let (key, life) = self.at(id);
        self.input(Input::StartDone { key, life, outcome: StartOutcome::Started });
    }

    pub(super) fn ends(&mut self, id: &str, reason: ExitReason) {
        let (key, life) = self.at(id);
        self.input(Input::Ended { key, life, reason });
    }

    pub(super) fn crashes(&mut self, id: &str) {
        self.ends(id, ExitReason::Error(Failure::permanent("planned")));
    }

    pub(super) fn unhealthy(&mut self, id: &str) {
        let (key, life) = self.at(id);
        self.input(Input::Unhealthy { key, life, reason: ExitReason::Unhealthy("ill".into()) });
    }

    pub(super) fn delay_over(&mut self, id: &str) {
        let key = self.at(id).0;
        let epoch = self.retries[&key];
        self.input(Input::Retry { key, epoch });
    }

    pub(super) fn ask(&mut self, token: Token, change: Change, id: &str) {
        self.ask_from(token, None, change, id);
    }

    /// Asked by the child `from` itself.
    pub(super) fn ask_from(&mut self, token: Token, from: Option<&str>, change: Change, id: &str) {
        let from = from.map(|from| self.at(from).0);
        let command = Command::Change { change, id: id.into() };
        self.input(Input::Command { asker: Asker { token, from }, command });
    }

    pub(super) fn add(&mut self, token: Token, child: &Make) {
        let key = self.key(&child.0.id);
        let command = Command::Add { key, child: child.0.clone() };
        self.input(Input::Command { asker: Asker { token, from: None }, command });
    }
}
