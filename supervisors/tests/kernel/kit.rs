//! An actor that does as it is told, and a record of what it did.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use mister_smith_supervisors::*;

/// What an actor can be told to do.
#[derive(Clone, Debug)]
pub(crate) enum Do {
    /// Write this down.
    Note(u64),
    /// Return an error.
    Fail,
    /// Panic.
    Panic,
    /// End with `Normal`.
    End,
    /// Wait this long, then write this down.
    Sleep(Duration, u64),
    /// Answer with the number of this life.
    Life(ReplyPort<u64>),
    /// Let go of the port.
    DropPort(ReplyPort<u64>),
    /// Keep the port in the state.
    KeepPort(ReplyPort<u64>),
    /// Return an error with the port in hand.
    FailWith(ReplyPort<u64>),
    /// Ask the supervisor to terminate a child, and write down 1 if it refused because it is
    /// stopping the caller.
    AskSupervisor(String),
}

/// Everything that the actors of a test share.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    pub(crate) fn note(&self, what: impl Into<String>) {
        self.0.lock().unwrap().push(what.into());
    }

    pub(crate) fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }

    pub(crate) fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }

    /// The numbers that `id` noted.
    pub(crate) fn notes(&self, id: &str) -> Vec<u64> {
        let prefix = format!("{id} ");
        self.all().iter().filter_map(|line| line.strip_prefix(&prefix)?.parse().ok()).collect()
    }
}

#[derive(Clone, Default)]
pub(crate) struct Role {
    pub(crate) id: String,
    pub(crate) log: Log,
    /// Starts that fail, are ignored or hang, from the first on; `ok` afterwards.
    pub(crate) starts: Arc<Mutex<Vec<&'static str>>>,
    /// Ask the supervisor for this child's termination while stopping.
    pub(crate) asks_in_stop: Option<String>,
    /// Takes this long to stop.
    pub(crate) stop_takes: Duration,
}

impl Role {
    pub(crate) fn new(id: &str, log: &Log) -> Self {
        Self { id: id.to_owned(), log: log.clone(), ..Self::default() }
    }

    fn next_start(&self) -> &'static str {
        let mut starts = self.starts.lock().unwrap();
        if starts.is_empty() { "ok" } else { starts.remove(0) }
    }

    pub(crate) fn starts(self, starts: &[&'static str]) -> Self {
        *self.starts.lock().unwrap() = starts.to_vec();
        self
    }
}

pub(crate) struct Puppet {
    role: Role,
    kept: Vec<ReplyPort<u64>>,
}

impl Actor for Puppet {
    type Message = Do;
    type Args = Role;

    async fn start(role: &Role, _: &mut Context<Self>) -> Result<Self, StartError> {
        match role.next_start() {
            "ok" => {}
            "ignore" => return Err(StartError::Ignore),
            "hang" => std::future::pending().await,
            "panic" => panic!("told to panic while it starts"),
            _ => {
                role.log.note(format!("refuse {}", role.id));
                return Err(StartError::Failed(Failure::permanent("told to")));
            }
        }
        role.log.note(format!("start {}", role.id));
        Ok(Self { role: role.clone(), kept: Vec::new() })
    }

    async fn handle(&mut self, what: Do, cx: &mut Context<Self>) -> Result<(), Failure> {
        let id = &self.role.id;
        match what {
            Do::Note(n) => self.role.log.note(format!("{id} {n}")),
            Do::Fail => return Err(Failure::permanent("told to")),
            Do::Panic => panic!("told to panic"),
            Do::End => cx.stop(),
            Do::Sleep(long, n) => {
                tokio::time::sleep(long).await;
                self.role.log.note(format!("{id} {n}"));
            }
            Do::Life(reply) => reply.send(cx.life()),
            Do::DropPort(reply) => drop(reply),
            Do::KeepPort(reply) => self.kept.push(reply),
            Do::FailWith(_reply) => return Err(Failure::permanent("told to")),
            Do::AskSupervisor(child) => {
                let answer = cx.supervisor().terminate_child(&child).await;
                let refused = matches!(answer, Err(SupervisorError::Stopping { .. }));
                self.role.log.note(format!("{id} {}", u8::from(refused)));
            }
        }
        Ok(())
    }

    async fn stop(&mut self, why: &ExitReason, cx: &mut Context<Self>) {
        if let Some(child) = &self.role.asks_in_stop {
            let answer = cx.supervisor().terminate_child(child).await;
            let refused = matches!(answer, Err(SupervisorError::Stopping { .. }));
            self.role.log.note(format!("refused {refused}"));
        }
        tokio::time::sleep(self.role.stop_takes).await;
        self.role.log.note(format!("stop {} {why}", self.role.id));
    }
}

pub(crate) fn puppet(id: &'static str, log: &Log) -> ChildSpec {
    ChildSpec::actor::<Puppet>(id, Role::new(id, log))
}

/// A supervisor that is patient enough for any test.
pub(crate) fn root() -> SupervisorSpec {
    SupervisorSpec::new("root").intensity(1_000, Duration::from_secs(1))
}

pub(crate) async fn start(root: SupervisorSpec) -> ActorSystem {
    ActorSystem::builder(root).start().await.unwrap()
}

pub(crate) fn at(system: &ActorSystem, path: &str) -> Address<Do> {
    system.find(path).unwrap()
}

pub(crate) fn state(system: &ActorSystem, path: &str) -> SlotState {
    system.look(path, Depth::FOLDED).unwrap().root.state
}

/// Lets everything run until there is nothing left to do: on a paused clock, time moves only then.
pub(crate) async fn settle() {
    tokio::time::sleep(Duration::from_millis(1)).await;
}

pub(crate) fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

pub(crate) fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// Waits until the root has ended, or says that it has not.
pub(crate) async fn end_of(system: &ActorSystem) -> Option<ExitReason> {
    tokio::time::timeout(ms(1), system.ended()).await.ok()
}

/// Hears lifecycle events.
pub(crate) fn events() -> (impl Observer, Log) {
    let log = Log::default();
    let written = log.clone();
    let observer = move |event: &LifecycleEvent| {
        written.note(format!("{}#{} {}", event.path, event.life, event.kind.name()));
    };
    (observer, log)
}
