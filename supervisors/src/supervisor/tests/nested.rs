//! Nested supervisors on paper: one machine a supervisor, each the child of another.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::scenario::{Action, Nested, Node, nested};
use crate::error::{ExitReason, Failure};
use crate::path::Path;
use crate::supervisor::machine::Machine;
use crate::supervisor::orders::{Declared, Input, Key, Order, StartOutcome};

/// Scenarios in which a *transient* supervisor gives up. In OTP its reason is then `shutdown`,
/// which counts as normal, so its parent leaves it down; ours is `Escalated`, and it is restarted.
/// The one intended difference that these scenarios can show.
pub(super) fn a_transient_supervisor_gives_up(scenario: &Nested) -> bool {
    let mut paper = Paper::new(&scenario.tree);
    scenario.steps.iter().any(|action| {
        paper.step(action);
        paper.transient_gave_up
    })
}

struct Sup {
    name: String,
    node: Node,
    machine: Machine,
    alive: bool,
    /// Its parent and its key there.
    parent: Option<(usize, Key)>,
    ready: bool,
    end: Option<ExitReason>,
}

/// A whole tree on paper.
struct Paper {
    sups: Vec<Sup>,
    /// By name: supervisors and workers.
    names: BTreeMap<String, Place>,
    refusals: BTreeMap<String, usize>,
    happened: Vec<String>,
    transient_gave_up: bool,
}

#[derive(Clone, Copy)]
struct Place {
    parent: Option<usize>,
    key: Key,
    sup: Option<usize>,
    alive: bool,
}

impl Paper {
    fn new(tree: &Node) -> Self {
        let mut paper = Self {
            sups: Vec::new(),
            names: BTreeMap::new(),
            refusals: BTreeMap::new(),
            happened: Vec::new(),
            transient_gave_up: false,
        };
        paper.declare(tree, None, 0);
        paper
    }

    fn declare(&mut self, node: &Node, parent: Option<usize>, key: Key) {
        let sup = node.supervisor.is_some().then(|| {
            self.sups.push(Sup {
                name: node.name().to_owned(),
                node: node.clone(),
                machine: Machine::new(Path::root(), node.policy()),
                alive: false,
                parent: parent.map(|parent| (parent, key)),
                ready: false,
                end: None,
            });
            self.sups.len() - 1
        });
        self.names.insert(node.name().to_owned(), Place { parent, key, sup, alive: false });
        for (i, child) in node.children.iter().enumerate() {
            self.declare(child, sup, i as Key);
        }
    }

    fn by_key(&self, sup: usize, key: Key) -> Node {
        self.sups[sup].node.children[key as usize].clone()
    }

    /// Starts a supervisor from scratch; says how it went.
    fn start_sup(&mut self, at: usize) -> StartOutcome {
        let name = self.sups[at].name.clone();
        self.happened.push(format!("init {name}"));
        let node = self.sups[at].node.clone();
        let sup = &mut self.sups[at];
        sup.machine = Machine::new(Path::root(), node.policy());
        sup.alive = true;
        sup.ready = false;
        sup.end = None;
        self.names.get_mut(&name).unwrap().alive = true;
        let children = node
            .children
            .iter()
            .enumerate()
            .map(|(i, child)| {
                let declared = Declared {
                    id: child.name().into(),
                    policy: Arc::new(child.child_policy()),
                    significant: child.significant,
                    depends_on: Vec::new(),
                    suspended: false,
                    blocked: false,
                    supervisor: child.supervisor.is_some(),
                    life: 0,
                };
                (i as Key, declared)
            })
            .collect();
        self.sups[at].machine.init(Duration::ZERO, children, None);
        self.run(at);
        match self.sups[at].end.take() {
            Some(reason) => StartOutcome::Failed(reason),
            None => StartOutcome::Started,
        }
    }

    /// Carries out the orders of one supervisor; its end is left in `end`.
    fn run(&mut self, at: usize) {
        while let Some((order, _)) = self.sups[at].machine.next_order() {
            match order {
                Order::Start { key, life } => {
                    let outcome = self.start_child(at, key);
                    self.input(at, Input::StartDone { key, life, outcome });
                }
                Order::Stop { key, life, .. } => {
                    self.stop_child(at, key);
                    let reason = ExitReason::Shutdown;
                    self.input(at, Input::Ended { key, life, reason });
                }
                Order::Ready => self.sups[at].ready = true,
                Order::Finish(reason) => {
                    let name = self.sups[at].name.clone();
                    self.sups[at].alive = false;
                    self.names.get_mut(&name).unwrap().alive = false;
                    if self.sups[at].ready
                        && !reason.is_normal()
                        && self.sups[at].node.is_transient()
                    {
                        self.transient_gave_up = true;
                    }
                    self.sups[at].end = Some(reason);
                }
                Order::RetryAfter { .. } => panic!("no scenario has a backoff"),
                _ => {}
            }
        }
    }

    fn input(&mut self, at: usize, input: Input) {
        self.sups[at].machine.input(Duration::ZERO, input, None);
    }

    fn start_child(&mut self, at: usize, key: Key) -> StartOutcome {
        let node = self.by_key(at, key);
        let name = node.name().to_owned();
        let place = self.names[&name];
        if let Some(sup) = place.sup {
            return self.start_sup(sup);
        }
        if let Some(left) = self.refusals.get_mut(&name).filter(|left| **left > 0) {
            *left -= 1;
            self.happened.push(format!("refuse {name}"));
            return StartOutcome::Failed(ExitReason::Error(Failure::permanent("planned")));
        }
        self.happened.push(format!("start {name}"));
        self.names.get_mut(&name).unwrap().alive = true;
        StartOutcome::Started
    }

    fn stop_child(&mut self, at: usize, key: Key) {
        let name = self.by_key(at, key).name().to_owned();
        match self.names[&name].sup {
            Some(sup) => {
                self.input(sup, Input::ShutDown);
                self.run(sup);
                self.sups[sup].end = None;
            }
            None => self.happened.push(format!("stop {name}")),
        }
        self.names.get_mut(&name).unwrap().alive = false;
    }

    /// A child has ended; what its supervisor makes of it may end that one too.
    fn ended(&mut self, at: usize, key: Key, reason: ExitReason) {
        let life = self.sups[at].machine.life_of(key);
        self.input(at, Input::Ended { key, life, reason });
        self.run(at);
        if let Some(reason) = self.sups[at].end.take()
            && let Some((parent, key)) = self.sups[at].parent
        {
            self.ended(parent, key, reason);
        }
    }

    fn step(&mut self, action: &Action) {
        let Some(name) = action.child.clone() else {
            self.start_sup(0);
            return;
        };
        if action.action == "fail_starts" {
            self.refusals.insert(name, action.times.unwrap());
            return;
        }
        let place = self.names[&name];
        // A supervisor ignores messages; these scenarios kill workers only.
        let (Some(parent), None, true) = (place.parent, place.sup, place.alive) else { return };
        let reason = match action.action.as_str() {
            "crash" => ExitReason::Error(Failure::permanent("planned")),
            "kill" => ExitReason::Killed,
            "normal" => ExitReason::Normal,
            "shutdown" => ExitReason::Shutdown,
            other => panic!("unknown action {other}"),
        };
        if action.action != "kill" {
            self.happened.push(format!("exit {name}"));
        }
        self.names.get_mut(&name).unwrap().alive = false;
        self.ended(parent, place.key, reason);
    }

    fn alive(&self) -> Vec<String> {
        let mut alive: Vec<String> = self
            .names
            .iter()
            .filter(|(_, place)| place.alive)
            .map(|(name, _)| name.clone())
            .collect();
        alive.sort();
        alive
    }
}

pub(super) fn sorted(names: &[String]) -> Vec<String> {
    let mut names = names.to_vec();
    names.sort();
    names
}

#[test]
fn machines_in_a_tree_decide_as_otp_in_600_nested_scenarios() {
    let mut excluded = 0;
    for scenario in nested() {
        if a_transient_supervisor_gives_up(&scenario) {
            excluded += 1;
            continue;
        }
        let mut paper = Paper::new(&scenario.tree);
        for (i, action) in scenario.steps.iter().enumerate() {
            paper.step(action);
            let at =
                format!("scenario {} step {i} {} {:?}", scenario.id, action.action, action.child);
            assert_eq!(std::mem::take(&mut paper.happened), action.events, "{at}: events");
            assert_eq!(paper.alive(), sorted(&action.alive), "{at}: alive");
        }
    }
    // A wrong rule for the exclusion would make the test empty.
    assert!(excluded < 60, "{excluded} of 600 scenarios excluded");
    eprintln!("{excluded} scenarios excluded: a transient supervisor gives up");
}
