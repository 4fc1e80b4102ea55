//! One supervisor: the state machine alone, carried out by a few lines that start and stop
//! nothing.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::scenario::{Child, Flat, Step, flat};
use crate::error::{ExitReason, Failure};
use crate::path::Path;
use crate::supervisor::Change;
use crate::supervisor::Shutdown;
use crate::supervisor::machine::Machine;
use crate::supervisor::orders::{Asker, Command, Declared, Input, Key, Order, Reply, StartOutcome};

/// A supervisor on paper.
pub(super) struct Paper {
    machine: Machine,
    /// In start order, as the driver keeps them.
    children: Vec<(Key, String, Shutdown, bool)>,
    outcomes: BTreeMap<String, VecDeque<String>>,
    next_key: Key,
    pub(super) happened: Vec<String>,
    reply: Option<Reply>,
    dead: bool,
    ready: bool,
    /// A child whose end has not been heard of yet.
    late: Option<Key>,
}

impl Paper {
    pub(super) fn new(scenario: &Flat) -> Self {
        Self {
            machine: Machine::new(Path::root(), scenario.policy()),
            children: Vec::new(),
            outcomes: BTreeMap::new(),
            next_key: 0,
            happened: Vec::new(),
            reply: None,
            dead: false,
            ready: false,
            late: None,
        }
    }

    fn add(&mut self, child: &Child) -> (Key, Declared) {
        self.next_key += 1;
        self.children.push((self.next_key, child.id.clone(), child.shutdown(), false));
        let declared = Declared {
            id: child.id.as_str().into(),
            policy: Arc::new(child.policy()),
            significant: child.significant,
            depends_on: Vec::new(),
            suspended: false,
            blocked: false,
            supervisor: false,
            life: 0,
        };
        (self.next_key, declared)
    }

    fn child(&mut self, key: Key) -> &mut (Key, String, Shutdown, bool) {
        self.children.iter_mut().find(|child| child.0 == key).unwrap()
    }

    fn key_of(&self, id: &str) -> Option<(Key, bool)> {
        self.children.iter().find(|child| child.1 == id).map(|child| (child.0, child.3))
    }

    /// Carries out orders until there are none.
    fn run(&mut self) {
        while let Some((order, _)) = self.machine.next_order() {
            match order {
                Order::Start { key, life } => self.start(key, life),
                Order::Stop { key, life, .. } => {
                    self.hear_late();
                    let child = self.child(key);
                    if !child.3 {
                        // It died before the order reached it, and that was reported.
                        continue;
                    }
                    child.3 = false;
                    let (_, id, shutdown, _) = child.clone();
                    // The recording does not see a brutal kill.
                    if shutdown != Shutdown::BrutalKill {
                        self.happened.push(format!("stop {id}"));
                    }
                    self.input(Input::Ended { key, life, reason: ExitReason::Shutdown });
                }
                Order::Forget { key, .. } => self.children.retain(|child| child.0 != key),
                Order::Reply { reply, .. } => self.reply = Some(reply),
                Order::Ready => self.ready = true,
                Order::Finish(_) => self.dead = true,
                Order::RetryAfter { .. } => panic!("no scenario has a backoff"),
                Order::AbortStart { .. }
                | Order::CancelRetry { .. }
                | Order::Down { .. }
                | Order::Pause { .. }
                | Order::Admit { .. }
                | Order::Keep { .. }
                | Order::Report(_)
                | Order::Ending { .. } => {}
            }
        }
    }

    fn start(&mut self, key: Key, life: u64) {
        let id = self.child(key).1.clone();
        let planned = self.outcomes.get_mut(&id).and_then(VecDeque::pop_front);
        let outcome = planned.unwrap_or_else(|| "ok".to_owned());
        self.happened.push(format!("start {id} {outcome}"));
        // A start takes time: what has ended meanwhile is heard before its result.
        self.hear_late();
        let outcome = match outcome.as_str() {
            "ok" => StartOutcome::Started,
            "ignore" => StartOutcome::Ignored,
            _ => StartOutcome::Failed(ExitReason::Error(Failure::permanent("planned"))),
        };
        self.child(key).3 = matches!(outcome, StartOutcome::Started);
        self.input(Input::StartDone { key, life, outcome });
    }

    fn input(&mut self, input: Input) {
        self.machine.input(Duration::ZERO, input, None);
    }

    fn change(&mut self, change: Change, id: Arc<str>) -> String {
        self.command(Command::Change { change, id })
    }

    fn command(&mut self, command: Command) -> String {
        self.reply = None;
        let asker = Asker { token: 1, from: None };
        self.input(Input::Command { asker, command });
        self.run();
        match self.reply.take() {
            Some(Reply::Done) => "ok",
            Some(Reply::NotFound(_)) => "not_found",
            Some(Reply::Running(_)) => "running",
            Some(Reply::Restarting(_)) => "restarting",
            Some(Reply::AlreadyStarted(_)) => "already_started",
            Some(Reply::AlreadyPresent(_)) => "already_present",
            Some(Reply::StartFailed(..)) => "failed",
            Some(Reply::Stopping) | None => "dead",
            Some(other) => panic!("{other:?}"),
        }
        .to_owned()
    }

    /// Two children that end at the same time. The supervisor hears of the second one as soon as
    /// what it does about the first one takes time.
    pub(super) fn end_together(&mut self, names: &[&str]) {
        let mut keys = names.iter().filter_map(|name| match self.key_of(name) {
            Some((key, true)) => Some(key),
            _ => None,
        });
        let (first, second) = (keys.next(), keys.next());
        drop(keys);
        for key in [first, second].into_iter().flatten() {
            self.child(key).3 = false;
        }
        self.late = second;
        if let Some(key) = first {
            let reason = ExitReason::Error(Failure::permanent("planned"));
            self.ended(key, reason);
        }
        self.run();
        self.hear_late();
        self.run();
    }

    fn ended(&mut self, key: Key, reason: ExitReason) {
        let life = self.machine.life_of(key);
        self.input(Input::Ended { key, life, reason });
    }

    fn hear_late(&mut self) {
        if let Some(key) = self.late.take() {
            let reason = ExitReason::Error(Failure::permanent("planned"));
            self.ended(key, reason);
        }
    }

    pub(super) fn step(&mut self, scenario: &Flat, step: &Step) -> String {
        let id: Arc<str> = step.name().into();
        match step.op.as_str() {
            "init" => {
                let mut declared = Vec::new();
                for child in &scenario.children {
                    self.outcomes.insert(child.id.clone(), child.start_outcomes.clone().into());
                    declared.push(self.add(child));
                }
                self.machine.init(Duration::ZERO, declared, None);
                self.run();
                if self.ready { "ok" } else { "failed" }.to_owned()
            }
            "crash" | "panic" | "kill" | "normal" | "shutdown" => {
                let Some((key, true)) = self.key_of(step.name()) else {
                    return "nochild".to_owned();
                };
                let reason = match step.op.as_str() {
                    "crash" | "panic" => ExitReason::Error(Failure::permanent("planned")),
                    "kill" => ExitReason::Killed,
                    "normal" => ExitReason::Normal,
                    _ => ExitReason::Shutdown,
                };
                self.child(key).3 = false;
                self.ended(key, reason);
                self.run();
                "ok".to_owned()
            }
            "terminate" => self.change(Change::Terminate, id),
            "restart" => self.change(Change::Restart, id),
            "delete" => self.change(Change::Delete, id),
            "add" => {
                let child = step.added();
                let planned = child.start_outcomes.clone().into();
                let earlier = self.outcomes.insert(child.id.clone(), planned);
                let (key, child_declared) = self.add(&child);
                let result = self.command(Command::Add { key, child: child_declared });
                if result.starts_with("already") {
                    self.children.retain(|child| child.0 != key);
                    // The child that is there keeps its own plan.
                    self.outcomes.extend(earlier.map(|plan| (child.id.clone(), plan)));
                }
                result
            }
            "stop" => {
                self.input(Input::ShutDown);
                self.run();
                "ok".to_owned()
            }
            other => panic!("unknown operation {other}"),
        }
    }

    pub(super) fn states(&self) -> Vec<String> {
        if self.dead {
            return vec!["dead".to_owned()];
        }
        let state = |up: bool| if up { "up" } else { "down" };
        self.children.iter().map(|child| format!("{} {}", child.1, state(child.3))).collect()
    }
}

/// OTP's words for a start that failed: `failed` at init, `error` for an added child, `planned`
/// (the scenario's own reason) for a restarted one.
pub(super) fn same_result(ours: &str, otps: &str) -> bool {
    ours == otps || (ours == "failed" && (otps == "error" || otps == "planned"))
}

#[test]
fn the_machine_decides_as_otp_in_1200_flat_scenarios() {
    for scenario in flat() {
        let mut paper = Paper::new(&scenario);
        for (i, step) in scenario.steps.iter().enumerate() {
            let result = paper.step(&scenario, step);
            let at = format!("scenario {} step {i} {} {}", scenario.id, step.op, step.child);
            assert_eq!(std::mem::take(&mut paper.happened), step.happened(), "{at}: events");
            assert!(same_result(&result, &step.result), "{at}: {result}, OTP {}", step.result);
            assert_eq!(paper.states(), step.states(), "{at}: states");
        }
    }
}
