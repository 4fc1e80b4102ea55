//! The recorded scenarios, as written in `tests/otp/README.md`.

use std::io::Read;
use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::supervisor::{
    AutoShutdown, ChildPolicy, Intensity, Policy, RestartPolicy, Shutdown, Strategy,
};

/// The scenarios' period never runs out.
pub(super) const LONG: Duration = Duration::from_secs(1_000_000);

#[derive(Debug, Deserialize)]
pub(super) struct Flat {
    pub(super) id: String,
    strategy: String,
    intensity: u32,
    auto_shutdown: String,
    pub(super) children: Vec<Child>,
    pub(super) steps: Vec<Step>,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct Child {
    pub(super) id: String,
    restart: String,
    pub(super) significant: bool,
    shutdown: serde_json::Value,
    pub(super) start_outcomes: Vec<String>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Step {
    pub(super) op: String,
    #[serde(default)]
    pub(super) child: serde_json::Value,
    pub(super) result: String,
    pub(super) events: Vec<Event>,
    children: serde_json::Value,
}

#[derive(Debug, Deserialize)]
pub(super) struct Event {
    #[serde(rename = "do")]
    what: String,
    child: String,
    outcome: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Nested {
    pub(super) id: String,
    pub(super) tree: Node,
    pub(super) steps: Vec<Action>,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct Node {
    pub(super) supervisor: Option<String>,
    pub(super) worker: Option<String>,
    #[serde(default)]
    strategy: String,
    #[serde(default)]
    intensity: u32,
    #[serde(default)]
    auto_shutdown: String,
    restart: String,
    pub(super) significant: bool,
    #[serde(default)]
    pub(super) children: Vec<Node>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Action {
    pub(super) action: String,
    pub(super) child: Option<String>,
    pub(super) times: Option<usize>,
    pub(super) events: Vec<String>,
    pub(super) alive: Vec<String>,
}

pub(super) fn flat() -> Vec<Flat> {
    let rows = load(include_bytes!("../../../tests/otp/flat.jsonl.gz"));
    assert_eq!(rows.len(), 1_200);
    rows
}

pub(super) fn nested() -> Vec<Nested> {
    let rows = load(include_bytes!("../../../tests/otp/nested.jsonl.gz"));
    assert_eq!(rows.len(), 600);
    rows
}

fn load<T: DeserializeOwned>(gz: &[u8]) -> Vec<T> {
    let mut text = String::new();
    flate2::read::GzDecoder::new(gz).read_to_string(&mut text).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

impl Flat {
    pub(super) fn policy(&self) -> Policy {
        policy(&self.strategy, self.intensity, &self.auto_shutdown)
    }
}

impl Child {
    pub(super) fn policy(&self) -> ChildPolicy {
        child_policy(&self.restart)
    }

    pub(super) fn shutdown(&self) -> Shutdown {
        match &self.shutdown {
            serde_json::Value::Number(ms) => {
                Shutdown::After(Duration::from_millis(ms.as_u64().unwrap()))
            }
            serde_json::Value::String(word) if word == "brutal_kill" => Shutdown::BrutalKill,
            serde_json::Value::String(word) if word == "infinity" => Shutdown::Infinity,
            other => panic!("unknown shutdown {other}"),
        }
    }
}

impl Node {
    pub(super) fn policy(&self) -> Policy {
        policy(&self.strategy, self.intensity, &self.auto_shutdown)
    }

    pub(super) fn child_policy(&self) -> ChildPolicy {
        child_policy(&self.restart)
    }

    pub(super) fn name(&self) -> &str {
        self.supervisor.as_deref().or(self.worker.as_deref()).unwrap()
    }

    pub(super) fn is_transient(&self) -> bool {
        self.restart == "transient"
    }
}

impl Step {
    /// The child an operation names.
    pub(super) fn name(&self) -> &str {
        self.child.as_str().unwrap_or("")
    }

    /// The child an `add` brings.
    pub(super) fn added(&self) -> Child {
        serde_json::from_value(self.child.clone()).unwrap()
    }

    /// What happened, as `start c0 ok` and `stop c1`.
    pub(super) fn happened(&self) -> Vec<String> {
        self.events
            .iter()
            .map(|event| match &event.outcome {
                Some(outcome) => format!("{} {} {outcome}", event.what, event.child),
                None => format!("{} {}", event.what, event.child),
            })
            .collect()
    }

    /// Every child's state afterwards, as `c0 up`; `dead` alone when the supervisor has ended.
    pub(super) fn states(&self) -> Vec<String> {
        match &self.children {
            serde_json::Value::Array(children) => children
                .iter()
                .map(|child| {
                    format!(
                        "{} {}",
                        child["child"].as_str().unwrap(),
                        child["state"].as_str().unwrap()
                    )
                })
                .collect(),
            _ => vec!["dead".to_owned()],
        }
    }
}

fn policy(strategy: &str, intensity: u32, auto_shutdown: &str) -> Policy {
    Policy {
        strategy: match strategy {
            "one_for_one" => Strategy::OneForOne,
            "rest_for_one" => Strategy::RestForOne,
            "one_for_all" => Strategy::OneForAll,
            other => panic!("unknown strategy {other}"),
        },
        intensity: Intensity::new(intensity, LONG),
        auto_shutdown: match auto_shutdown {
            "never" => AutoShutdown::Never,
            "any_significant" => AutoShutdown::AnySignificant,
            "all_significant" => AutoShutdown::AllSignificant,
            other => panic!("unknown auto_shutdown {other}"),
        },
    }
}

fn child_policy(restart: &str) -> ChildPolicy {
    let restart = match restart {
        "permanent" => RestartPolicy::Permanent,
        "transient" => RestartPolicy::Transient,
        "temporary" => RestartPolicy::Temporary,
        other => panic!("unknown restart {other}"),
    };
    ChildPolicy { restart, ..ChildPolicy::OTP }
}
