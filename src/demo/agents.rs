//! Agents that talk: each tells and asks others now and then, and crashes when it is told to.
//!
//! They live under `/agents`, started by [`settle`], and live until the node stops. What they know
//! is lost with a life; what waits in their mailboxes is not.

use std::sync::Arc;
use std::time::Duration;

use mister_smith_actors::component;
use mister_smith_supervisors::{
    Actor, ChildSpec, Context, Failure, Overflow, ReplyPort, Shutdown, StartError, TaskGuard,
};

use super::luck::Luck;
use crate::system::SystemCore;

/// Names, in the order in which they are given; who comes after them has a number.
const NAMES: [&str; 16] = [
    "ada", "alan", "barbara", "carl", "dennis", "edsger", "frances", "grace", "joe", "ken",
    "leslie", "margaret", "niklaus", "radia", "robert", "tony",
];

/// How long an agent waits for an answer.
const PATIENCE: Duration = Duration::from_secs(1);

/// How long an agent may take to end.
const FAREWELL: Duration = Duration::from_millis(200);

/// What an agent can be told.
pub(super) enum Talk {
    /// Time to say something.
    Turn,
    /// A remark; it takes this long to think about it.
    Remark(Duration),
    /// How many remarks did you hear?
    HowMany(ReplyPort<u64>),
    /// End, in this way.
    Crash(Mishap),
}

/// How an agent ends.
#[derive(Debug, Clone, Copy)]
pub(super) enum Mishap {
    /// It says that it cannot go on.
    Error(&'static str),
    /// It finds out too late.
    Panic(&'static str),
}

#[derive(Clone)]
pub(super) struct Persona {
    seed: u64,
    number: usize,
    names: Arc<[String]>,
}

pub(super) struct Agent {
    persona: Persona,
    luck: Luck,
    heard: u64,
    next: Option<TaskGuard>,
}

impl Actor for Agent {
    type Message = Talk;
    type Args = Persona;

    async fn start(persona: &Persona, cx: &mut Context<Self>) -> Result<Self, StartError> {
        let purpose = format!("agent {} {}", persona.number, cx.life());
        let luck = Luck::of(persona.seed, &purpose);
        let mut agent = Self { persona: persona.clone(), luck, heard: 0, next: None };
        agent.wait(cx);
        Ok(agent)
    }

    async fn handle(&mut self, talk: Talk, cx: &mut Context<Self>) -> Result<(), Failure> {
        match talk {
            Talk::Turn => {
                self.speak(cx).await;
                self.wait(cx);
            }
            Talk::Remark(think) => {
                self.heard += 1;
                tokio::time::sleep(think).await;
            }
            Talk::HowMany(reply) => reply.send(self.heard),
            Talk::Crash(Mishap::Error(why)) => return Err(Failure::transient(why)),
            Talk::Crash(Mishap::Panic(why)) => panic!("{why}"),
        }
        Ok(())
    }

    fn message_name(talk: &Talk) -> &'static str {
        match talk {
            Talk::Turn => "Turn",
            Talk::Remark(_) => "Remark",
            Talk::HowMany(_) => "HowMany",
            Talk::Crash(_) => "Crash",
        }
    }
}

impl Agent {
    fn wait(&mut self, cx: &Context<Self>) {
        let pause = Duration::from_millis(200 + self.luck.below(600) as u64);
        self.next = Some(cx.tell_after(pause, Talk::Turn));
    }

    /// Tells somebody something, or asks somebody with a higher number: two who asked each other
    /// would both wait until their patience ends.
    async fn speak(&mut self, cx: &Context<Self>) {
        let own = self.persona.number;
        let names = Arc::clone(&self.persona.names);
        let after = &names[own + 1..];
        if self.luck.one_in(3)
            && let Some(name) = self.luck.pick(after)
        {
            // Who is being restarted answers later, or not at all; then there is no answer.
            if let Ok(peer) = cx.find::<Talk>(&path(name)) {
                let _ = peer.ask_within(PATIENCE, Talk::HowMany).await;
            }
            return;
        }
        let to = self.luck.below(names.len());
        let think = Duration::from_millis(self.luck.below(25) as u64);
        if to != own
            && let Ok(peer) = cx.find::<Talk>(&path(&names[to]))
        {
            let _ = peer.try_tell(Talk::Remark(think));
        }
    }
}

/// Where an agent of a name is.
pub(super) fn path(name: &str) -> String {
    format!("/agents/{name}")
}

/// Who there is.
pub(super) fn names(count: usize) -> impl Iterator<Item = String> {
    (0..count).map(|n| match NAMES.get(n) {
        Some(name) => (*name).to_owned(),
        None => format!("agent-{}", n + 1),
    })
}

/// Starts so many agents.
pub(super) async fn settle(node: &SystemCore, seed: u64, count: usize) -> anyhow::Result<()> {
    let names: Arc<[String]> = names(count).collect();
    for (number, name) in names.iter().enumerate() {
        let persona = Persona { seed, number, names: Arc::clone(&names) };
        employ::<Agent>(node, name, persona).await?;
    }
    Ok(())
}

/// Starts somebody under `/agents` who ends soon when told to, whatever they wait for: what is
/// started again with them waits until they have ended.
pub(super) async fn employ<A: Actor>(
    node: &SystemCore,
    name: &str,
    args: A::Args,
) -> anyhow::Result<()> {
    let spec = ChildSpec::actor::<A>(name, args)
        .component_type(component::AGENT)
        .shutdown(Shutdown::After(FAREWELL))
        .mailbox(64, Overflow::DropOldest);
    node.actors().supervisor("/agents")?.spawn_spec::<A::Message>(spec).await?;
    Ok(())
}
