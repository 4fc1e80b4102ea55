//! The same scenarios on running supervisors, with real actors, on a paused clock.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::flat::same_result;
use super::nested::{a_transient_supervisor_gives_up, sorted};
use super::scenario::{Child, Flat, LONG, Nested, Node, Step, flat, nested};
use crate::*;

/// What the actors of one scenario share.
#[derive(Default)]
struct Script {
    happened: Mutex<Vec<String>>,
    outcomes: Mutex<BTreeMap<String, VecDeque<String>>>,
    refusals: Mutex<BTreeMap<String, usize>>,
}

impl Script {
    fn note(&self, what: String) {
        self.happened.lock().unwrap().push(what);
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.happened.lock().unwrap())
    }
}

/// A worker that does as the script says.
struct Scripted {
    id: String,
    script: Arc<Script>,
    flat: bool,
    ends_itself: bool,
}

#[derive(Clone)]
struct Role {
    id: String,
    script: Arc<Script>,
    flat: bool,
}

#[derive(Clone, Copy, Debug)]
enum Do {
    Crash,
    Panic,
    Normal,
    Shutdown,
}

impl Actor for Scripted {
    type Message = Do;
    type Args = Role;

    async fn start(role: &Role, _: &mut Context<Self>) -> Result<Self, StartError> {
        let Role { id, script, flat } = role.clone();
        if flat {
            let planned =
                script.outcomes.lock().unwrap().get_mut(&id).and_then(VecDeque::pop_front);
            let outcome = planned.unwrap_or_else(|| "ok".to_owned());
            script.note(format!("start {id} {outcome}"));
            match outcome.as_str() {
                "ok" => {}
                "ignore" => return Err(StartError::Ignore),
                "hang" => std::future::pending().await,
                _ => return Err(Failure::permanent("planned").into()),
            }
        } else {
            let mut refusals = script.refusals.lock().unwrap();
            if let Some(left) = refusals.get_mut(&id).filter(|left| **left > 0) {
                *left -= 1;
                script.note(format!("refuse {id}"));
                return Err(Failure::permanent("planned").into());
            }
            drop(refusals);
            script.note(format!("start {id}"));
        }
        Ok(Self { id, script, flat, ends_itself: false })
    }

    async fn handle(&mut self, what: Do, cx: &mut Context<Self>) -> Result<(), Failure> {
        if !self.flat {
            self.script.note(format!("exit {}", self.id));
        }
        self.ends_itself = true;
        match what {
            Do::Crash => return Err(Failure::permanent("planned")),
            Do::Panic => panic!("planned"),
            Do::Normal => cx.stop(),
            Do::Shutdown => cx.shut_down(),
        }
        Ok(())
    }

    async fn stop(&mut self, _: &ExitReason, _: &mut Context<Self>) {
        if !self.ends_itself {
            self.script.note(format!("stop {}", self.id));
        }
    }
}

/// How long a start may hang.
pub(super) const START_DEADLINE: Duration = Duration::from_secs(1);

/// Lets everything run until nothing is left to do: on a paused clock, time moves only then.
async fn settle() {
    tokio::time::sleep(Duration::from_millis(1)).await;
}

fn supervisor(id: &str, policy: crate::Policy) -> SupervisorSpec {
    SupervisorSpec::new(id)
        .strategy(policy.strategy)
        .intensity(policy.intensity.restarts, LONG)
        .auto_shutdown(policy.auto_shutdown)
}

fn is_up(system: &ActorSystem, path: &str) -> bool {
    let tree = system.look(path, Depth::FOLDED);
    tree.is_some_and(|tree| tree.root.state == SlotState::Up)
}

fn send(system: &ActorSystem, path: &str, op: &str) {
    match op {
        "kill" => assert!(system.kill(path).unwrap().is_some(), "{path} was up"),
        op => {
            let what = match op {
                "crash" => Do::Crash,
                "panic" => Do::Panic,
                "normal" => Do::Normal,
                "shutdown" => Do::Shutdown,
                other => panic!("unknown operation {other}"),
            };
            system.find::<Do>(path).unwrap().try_tell(what).unwrap();
        }
    }
}

// --- flat --------------------------------------------------------------------------------------

pub(super) struct Running {
    script: Arc<Script>,
    /// The scenario's supervisor is the root of a system of its own.
    pub(super) system: Option<ActorSystem>,
    /// How long nothing may happen before all that was to happen has happened.
    settle: Duration,
}

impl Running {
    /// `settle` longer than every start deadline.
    pub(super) fn new(settle: Duration) -> Self {
        Self { script: Arc::default(), system: None, settle }
    }

    pub(super) fn happened(&self) -> Vec<String> {
        self.script.take()
    }

    pub(super) async fn end_together(&self, names: &[&str]) {
        let Some(system) = &self.system else { return };
        for name in names {
            let path = format!("/{name}");
            if is_up(system, &path) {
                send(system, &path, "crash");
            }
        }
        tokio::time::sleep(self.settle).await;
    }

    fn spec(&self, child: &Child) -> ChildSpec {
        let role = Role { id: child.id.clone(), script: Arc::clone(&self.script), flat: true };
        let spec = ChildSpec::actor::<Scripted>(child.id.as_str(), role)
            .restart(child.policy().restart)
            .start_deadline(START_DEADLINE)
            .shutdown(child.shutdown());
        if child.significant { spec.significant() } else { spec }
    }

    fn plan(&self, child: &Child) -> Option<VecDeque<String>> {
        let planned = child.start_outcomes.clone().into();
        self.script.outcomes.lock().unwrap().insert(child.id.clone(), planned)
    }

    pub(super) async fn step(&mut self, scenario: &Flat, step: &Step) -> String {
        if step.op == "init" {
            let mut root = supervisor("root", scenario.policy());
            for child in &scenario.children {
                self.plan(child);
                root = root.child(self.spec(child));
            }
            self.system = ActorSystem::builder(root).start().await.ok();
            return if self.system.is_some() { "ok" } else { "failed" }.to_owned();
        }
        let Some(system) = self.system.clone() else { return "dead".to_owned() };
        let root = system.supervisor("/").unwrap();
        let path = format!("/{}", step.name());
        let result = match step.op.as_str() {
            "crash" | "panic" | "kill" | "normal" | "shutdown" if !is_up(&system, &path) => {
                return "nochild".to_owned();
            }
            op @ ("crash" | "panic" | "kill" | "normal" | "shutdown") => {
                send(&system, &path, op);
                Ok(())
            }
            "terminate" => root.terminate_child(step.name()).await,
            "restart" => root.restart_child(step.name()).await,
            "delete" => root.delete_child(step.name()).await,
            "add" => {
                let child = step.added();
                let earlier = self.plan(&child);
                let result = root.start_child(self.spec(&child)).await;
                let refused = matches!(
                    result,
                    Err(SupervisorError::AlreadyStarted { .. }
                        | SupervisorError::AlreadyPresent { .. })
                );
                if refused && let Some(earlier) = earlier {
                    self.script.outcomes.lock().unwrap().insert(child.id.clone(), earlier);
                }
                result
            }
            "stop" => {
                assert!(system.shutdown(Duration::from_secs(60)).await, "stopped in order");
                Ok(())
            }
            other => panic!("unknown operation {other}"),
        };
        tokio::time::sleep(self.settle).await;
        match result {
            Ok(()) => "ok",
            Err(SupervisorError::NotFound { .. }) => "not_found",
            Err(SupervisorError::Running { .. }) => "running",
            Err(SupervisorError::Restarting { .. }) => "restarting",
            Err(SupervisorError::AlreadyStarted { .. }) => "already_started",
            Err(SupervisorError::AlreadyPresent { .. }) => "already_present",
            Err(SupervisorError::StartFailed { .. }) => "failed",
            Err(_) => "dead",
        }
        .to_owned()
    }

    pub(super) async fn states(&self) -> Vec<String> {
        let dead = vec!["dead".to_owned()];
        let Some(system) = &self.system else { return dead };
        if tokio::time::timeout(Duration::from_millis(1), system.ended()).await.is_ok() {
            return dead;
        }
        let state = |node: &NodeView| match node.state {
            SlotState::Up => "up",
            SlotState::Down => "down",
            other => panic!("{} is {other:?}", node.path),
        };
        system.tree().root.children.iter().map(|c| format!("{} {}", c.id, state(c))).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn running_supervisors_do_as_otp_in_1200_flat_scenarios() {
    for scenario in flat() {
        let mut running = Running::new(Duration::from_millis(1));
        for (i, step) in scenario.steps.iter().enumerate() {
            let result = running.step(&scenario, step).await;
            let at = format!("scenario {} step {i} {} {}", scenario.id, step.op, step.child);
            assert_eq!(running.script.take(), step.happened(), "{at}: events");
            // A call to a supervisor that has ended finds nobody; OTP's caller exits.
            let ours_dead = result == "dead" || result == "nochild";
            assert!(
                same_result(&result, &step.result) || ours_dead && step.states() == ["dead"],
                "{at}: {result}, OTP {}",
                step.result
            );
            assert_eq!(running.states().await, step.states(), "{at}: states");
        }
        if let Some(system) = running.system {
            system.shutdown(Duration::from_secs(60)).await;
        }
    }
}

// --- nested ------------------------------------------------------------------------------------

fn child_spec(node: &Node, script: &Arc<Script>) -> ChildSpec {
    let spec = match &node.supervisor {
        Some(_) => ChildSpec::from(supervisor_spec(node, script)),
        None => {
            let id = node.name().to_owned();
            let role = Role { id: id.clone(), script: Arc::clone(script), flat: false };
            ChildSpec::actor::<Scripted>(id, role)
        }
    };
    let spec = spec.restart(node.child_policy().restart);
    if node.significant { spec.significant() } else { spec }
}

fn supervisor_spec(node: &Node, script: &Arc<Script>) -> SupervisorSpec {
    let spec = supervisor(node.name(), node.policy());
    node.children.iter().fold(spec, |spec, child| spec.child(child_spec(child, script)))
}

fn paths(node: &Node, path: &str, out: &mut BTreeMap<String, String>) {
    out.insert(node.name().to_owned(), path.to_owned());
    for child in &node.children {
        let below = format!("{}/{}", path.trim_end_matches('/'), child.name());
        paths(child, &below, out);
    }
}

async fn alive(system: &ActorSystem, paths: &BTreeMap<String, String>) -> Vec<String> {
    if tokio::time::timeout(Duration::from_millis(1), system.ended()).await.is_ok() {
        return Vec::new();
    }
    // Below a supervisor that is down nothing is looked at: its slots wait for its next life.
    let up = |path: &String| {
        let whole = path.split('/').skip(1).filter(|part| !part.is_empty());
        let mut at = String::new();
        whole
            .map(|part| {
                at = format!("{at}/{part}");
                at.clone()
            })
            .all(|p| is_up(system, &p))
    };
    paths.iter().filter(|(_, path)| up(path)).map(|(name, _)| name.clone()).collect()
}

async fn run_nested(scenario: &Nested) {
    let script = Arc::<Script>::default();
    let root = supervisor_spec(&scenario.tree, &script);
    let mut at = BTreeMap::new();
    paths(&scenario.tree, "/", &mut at);
    let system = ActorSystem::builder(root).start().await.unwrap();
    for (i, action) in scenario.steps.iter().enumerate() {
        let name = action.child.clone().unwrap_or_default();
        match action.action.as_str() {
            "start" => {}
            "fail_starts" => {
                script.refusals.lock().unwrap().insert(name.clone(), action.times.unwrap());
            }
            op => {
                let path = &at[&name];
                let is_actor = system.find::<Do>(path).is_ok();
                if is_actor && alive(&system, &at).await.contains(&name) {
                    send(&system, path, op);
                }
            }
        }
        settle().await;
        let place = format!("scenario {} step {i} {} {name}", scenario.id, action.action);
        // Nothing of ours runs when a supervisor starts, so it is not heard here.
        let otp: Vec<_> =
            action.events.iter().filter(|e| !e.starts_with("init")).cloned().collect();
        assert_eq!(script.take(), otp, "{place}: events");
        assert_eq!(alive(&system, &at).await, sorted(&action.alive), "{place}: alive");
    }
    system.shutdown(Duration::from_secs(60)).await;
}

#[tokio::test(start_paused = true)]
async fn running_supervisors_in_a_tree_do_as_otp_in_600_nested_scenarios() {
    for scenario in nested() {
        if !a_transient_supervisor_gives_up(&scenario) {
            run_nested(&scenario).await;
        }
    }
}
