//! The server of commands from other nodes: an actor that serves each category in a group.
//!
//! It lives under the node's supervisor, after everything that a command needs. It decides
//! nothing: each command goes through the [`CommandBus`], with its middleware, and is answered
//! when the bus has answered, so that nothing is acknowledged that is not durable. What it holds
//! when it ends is not answered; the sender repeats it with the same key, and another member of the
//! group, or the next life, has it.
//!
//! When it is stopped it takes no new requests, and answers those that it has.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use mister_smith_supervisors::{
    Actor, Context, ExitReason, Failure, Health, StartError, SupervisedComponent,
    SupervisionMetadata, TaskGuard,
};
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_json::value::RawValue;
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, timeout};

use super::{DEFAULT_PREFIX, Order, Problem, STATUS, TIMEOUT_MS, subject_of};
use crate::aggregate::Aggregate;
use crate::bus::Pattern;
use crate::bus::remote::{Answer, Asked, Remote, Requests};
use crate::bus::wire::{CONTENT_TYPE, WireMessage};
use crate::command::{CommandBus, CommandEnvelope, CommandError, Executed, fingerprint};
use crate::component;
use crate::guarded::{Broken, guarded_within};
use crate::store::notes::Owner;

/// Commands that are executed at once, unless said otherwise.
pub const DEFAULT_CONCURRENCY: usize = 64;

/// Commands of one category that wait besides, unless said otherwise.
pub const DEFAULT_WAITING: usize = 1_024;

/// How long a command may take, whatever its sender says.
const LONGEST: Duration = Duration::from_secs(60);

/// How long a sender waits that does not say it.
const UNSAID: Duration = Duration::from_secs(10);

/// How long a stop waits for what is in hand; less than a supervisor waits for a child.
const LAST: Duration = Duration::from_secs(4);

/// How commands are served.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ServeOptions {
    /// The first token of the subjects; `smith`.
    pub prefix: String,
    /// Who shares the commands: one member of the group gets each; `commands`.
    pub group: String,
    /// Commands that are executed at once; 64.
    pub concurrency: usize,
    /// Commands of one category that wait besides; 1,024. One more is told that it is busy.
    pub waiting: usize,
}

impl Default for ServeOptions {
    fn default() -> Self {
        Self {
            prefix: DEFAULT_PREFIX.to_owned(),
            group: "commands".to_owned(),
            concurrency: DEFAULT_CONCURRENCY,
            waiting: DEFAULT_WAITING,
        }
    }
}

impl ServeOptions {
    /// Sets the first token of the subjects.
    #[must_use]
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// Sets how many commands are executed at once.
    #[must_use]
    pub fn concurrency(mut self, commands: usize) -> Self {
        self.concurrency = commands.max(1);
        self
    }

    /// Sets how many commands of one category wait besides.
    #[must_use]
    pub fn waiting(mut self, commands: usize) -> Self {
        self.waiting = commands;
        self
    }
}

/// What a refusal is called, and what is known of it, for programs far away.
#[derive(Debug, Clone, PartialEq)]
pub struct Refusal {
    /// Its name: `too_much`.
    pub code: String,
    /// What belongs to it.
    pub data: Value,
}

type Run = dyn Fn(CommandBus, Bytes) -> BoxFuture<'static, Result<Executed, Problem>> + Send + Sync;

/// A kind of aggregate whose commands are served. Cheap to clone.
#[derive(Clone)]
pub struct Served {
    category: &'static str,
    owner: Owner,
    run: Arc<Run>,
}

impl Served {
    /// Serves an aggregate's commands, as JSON. Refusals are told as text.
    #[must_use]
    pub fn of<A: Aggregate>() -> Self
    where
        A::Command: DeserializeOwned,
    {
        Self::made::<A>(|_| None)
    }

    /// Serves an aggregate's commands, and names its refusals.
    #[must_use]
    pub fn with_refusals<A: Aggregate>(name: fn(&A::Rejection) -> Refusal) -> Self
    where
        A::Command: DeserializeOwned,
    {
        Self::made::<A>(move |error| error.rejection().map(name))
    }

    fn made<A: Aggregate>(
        refusal: impl Fn(&CommandError) -> Option<Refusal> + Copy + Send + Sync + 'static,
    ) -> Self
    where
        A::Command: DeserializeOwned,
    {
        let run = move |bus: CommandBus, bytes: Bytes| {
            async move {
                let unreadable = |error| Problem::new(400, "unreadable", error);
                let order: Order<&RawValue> = serde_json::from_slice(&bytes).map_err(unreadable)?;
                let Order { id, key, metadata, command } = order;
                let fingerprint = match key {
                    None => None,
                    // Another spelling of the same JSON is the same command.
                    Some(_) => Some(fingerprint::of(&of_text(command).map_err(unreadable)?)),
                };
                let command = of_text(command).map_err(unreadable)?;
                let envelope = CommandEnvelope { command, key, fingerprint, metadata };
                bus.send::<A>(&id, envelope).await.map_err(|error| {
                    let mut problem = Problem::of(&error);
                    if let Some(Refusal { code, data }) = refusal(&error) {
                        (problem.code, problem.data) = (code, data);
                    }
                    problem
                })
            }
            .boxed()
        };
        Self { category: A::CATEGORY, owner: A::OWNER, run: Arc::new(run) }
    }

    /// The category, and whose it is.
    #[must_use]
    pub fn owned(&self) -> (&'static str, Owner) {
        (self.category, self.owner.clone())
    }
}

fn of_text<T: DeserializeOwned>(text: &RawValue) -> serde_json::Result<T> {
    serde_json::from_str(text.get())
}

impl fmt::Debug for Served {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Served({})", self.category)
    }
}

/// What a fresh start needs.
#[derive(Debug, Clone)]
pub struct CommandServerArgs {
    remote: Arc<dyn Remote>,
    served: Arc<[Served]>,
    options: ServeOptions,
    commands: Arc<watch::Sender<Option<CommandBus>>>,
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    answered: AtomicU64,
    refused: AtomicU64,
    busy: AtomicU64,
    in_hand: AtomicUsize,
}

impl CommandServerArgs {
    /// Serves these, once there is a [command bus](Self::open).
    #[must_use]
    pub fn new(
        remote: Arc<dyn Remote>,
        options: ServeOptions,
        served: impl IntoIterator<Item = Served>,
    ) -> Self {
        Self {
            remote,
            served: served.into_iter().collect(),
            options,
            commands: Arc::default(),
            counts: Arc::default(),
        }
    }

    /// From now on commands go to this bus. Until then none is taken.
    pub fn open(&self, commands: CommandBus) {
        self.commands.send_replace(Some(commands));
    }
}

/// What the server can be told.
#[derive(Debug)]
pub enum CommandServerMessage {
    /// A category is not served any more. Sent by the server to itself.
    Ended {
        /// Which one.
        category: &'static str,
        /// Why.
        trouble: String,
        /// In which life of the server.
        life: u64,
    },
}

/// The actor.
pub struct CommandServer {
    tasks: Vec<TaskGuard>,
    closing: watch::Sender<bool>,
    ended: watch::Receiver<usize>,
}

impl Actor for CommandServer {
    type Message = CommandServerMessage;
    type Args = CommandServerArgs;

    async fn start(args: &CommandServerArgs, cx: &mut Context<Self>) -> Result<Self, StartError> {
        let (closing, stopping) = watch::channel(false);
        let (ending, ended) = watch::channel(0);
        let (ending, permits) =
            (Arc::new(ending), Arc::new(Semaphore::new(args.options.concurrency)));
        let tasks = args.served.iter().map(|served| {
            let category = Category {
                served: served.clone(),
                args: args.clone(),
                permits: Arc::clone(&permits),
                stopping: stopping.clone(),
            };
            let (ending, life) = (Arc::clone(&ending), cx.life());
            cx.spawn_tell(async move {
                let name = category.served.category;
                let result = category.serve().await;
                ending.send_modify(|ended| *ended += 1);
                match result {
                    Err(trouble) => CommandServerMessage::Ended { category: name, trouble, life },
                    // It was told to, and nobody needs to hear it.
                    Ok(()) => std::future::pending().await,
                }
            })
        });
        let tasks = tasks.collect();
        let (counts, served) = (Arc::clone(&args.counts), Arc::clone(&args.served));
        cx.describe(move || {
            let names: Vec<_> = served.iter().map(|served| served.category).collect();
            let count = |number: &AtomicU64| number.load(Ordering::Relaxed);
            format!(
                "{}   {} answered   {} refused   {} busy   {} in hand",
                names.join(", "),
                count(&counts.answered),
                count(&counts.refused),
                count(&counts.busy),
                counts.in_hand.load(Ordering::Relaxed)
            )
        });
        Ok(Self { tasks, closing, ended })
    }

    async fn handle(
        &mut self,
        CommandServerMessage::Ended { category, trouble, life }: CommandServerMessage,
        cx: &mut Context<Self>,
    ) -> Result<(), Failure> {
        match life == cx.life() {
            true => Err(Failure::transient(format!("{category} is not served: {trouble}"))),
            false => Ok(()),
        }
    }

    async fn stop(&mut self, _: &ExitReason, _: &mut Context<Self>) {
        self.closing.send_replace(true);
        let all = self.tasks.len();
        // What is not answered then, its sender repeats.
        let _ = timeout(LAST, self.ended.wait_for(|ended| *ended >= all)).await;
    }

    fn message_name(_: &CommandServerMessage) -> &'static str {
        "Ended"
    }
}

impl SupervisedComponent for CommandServer {
    type Handover = ();

    async fn health_check(&mut self, _: &mut Context<Self>) -> Health {
        Health::Healthy
    }

    fn supervision_metadata(_: &CommandServerArgs) -> SupervisionMetadata {
        SupervisionMetadata::of(component::EDGE)
    }
}

impl fmt::Debug for CommandServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CommandServer").field("categories", &self.tasks.len()).finish()
    }
}

/// One category, and what it takes to serve it.
struct Category {
    served: Served,
    args: CommandServerArgs,
    permits: Arc<Semaphore>,
    stopping: watch::Receiver<bool>,
}

impl Category {
    /// Takes requests until it is told to stop, and then answers those that it has.
    async fn serve(mut self) -> Result<(), String> {
        let mut opened = self.args.commands.subscribe();
        let bus = tokio::select! {
            biased;
            () = told(&mut self.stopping) => return Ok(()),
            bus = opened.wait_for(Option::is_some) => bus.ok().and_then(|bus| (*bus).clone()),
        };
        let bus = bus.ok_or("there is no command bus")?;
        let options = &self.args.options;
        let subject = subject_of(&options.prefix, self.served.category);
        let subject = subject.map_err(|error| error.to_string())?;
        let serving = self.args.remote.serve(&Pattern::from(&subject), &options.group).await;
        let mut requests = serving.map_err(|error| error.to_string())?;
        let (mut running, mut stopping) = (FuturesUnordered::new(), self.stopping.clone());
        let most = options.concurrency + options.waiting;
        let mut open = true;
        while open || !running.is_empty() {
            tokio::select! {
                biased;
                () = told(&mut stopping), if open => {
                    open = false;
                    for asked in close(&mut *requests).await {
                        running.push(self.answer(&bus, asked, true));
                    }
                }
                _ = running.next(), if !running.is_empty() => {}
                asked = requests.next(), if open => match asked {
                    Some(asked) => {
                        let room = running.len() < most;
                        running.push(self.answer(&bus, asked, room));
                    }
                    None => return Err("the connection has ended".to_owned()),
                },
            }
        }
        Ok(())
    }

    /// Executes one, as soon as there is a place for it, and answers it.
    async fn answer(&self, bus: &CommandBus, asked: Asked, room: bool) {
        let began = Instant::now();
        let (message, to) = asked.split();
        let counts = &self.args.counts;
        let _in_hand = InHand::new(&counts.in_hand);
        if !room {
            counts.busy.fetch_add(1, Ordering::Relaxed);
            let waiting = self.args.options.waiting;
            let detail = format!("{waiting} commands wait already");
            return send(to, Err(Problem::new(503, "busy", detail))).await;
        }
        let said = message.headers.get(TIMEOUT_MS).and_then(|text| text.parse().ok());
        let time = said.map_or(UNSAID, Duration::from_millis).min(LONGEST);
        let expired = |unknown: bool| {
            let detail = format!("it was not done within {time:?}");
            Problem { unknown, ..Problem::new(504, "expired", detail) }
        };
        let Ok(permit) = timeout(time, self.permits.acquire()).await else {
            return send(to, Err(expired(false))).await;
        };
        let left = time.saturating_sub(began.elapsed());
        let run = || (self.served.run)(bus.clone(), message.payload);
        let result = match guarded_within(left, run, || ()).await {
            Ok(result) => result,
            Err(Broken::Panicked(panic)) => {
                tracing::error!(category = self.served.category, panic, "a command panicked");
                Err(Problem::new(500, "failed", "the command panicked").in_doubt())
            }
            Err(Broken::Late(_)) => Err(expired(true)),
        };
        drop(permit);
        match result {
            Ok(_) => counts.answered.fetch_add(1, Ordering::Relaxed),
            Err(_) => counts.refused.fetch_add(1, Ordering::Relaxed),
        };
        send(to, result).await;
    }
}

async fn told(stopping: &mut watch::Receiver<bool>) {
    // Without its sender the actor has ended, and this task with it.
    let _ = stopping.wait_for(|stopping| *stopping).await;
}

/// Counts what is in hand, for as long as it is.
struct InHand<'a>(&'a AtomicUsize);

impl<'a> InHand<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for InHand<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Takes no more, and what was on its way.
async fn close(requests: &mut dyn Requests) -> Vec<Asked> {
    let mut rest = Vec::new();
    let draining = async {
        requests.close().await;
        while let Some(asked) = requests.next().await {
            rest.push(asked);
        }
    };
    // A broker that is gone does not tell the end.
    let _ = timeout(LAST / 4, draining).await;
    rest
}

async fn send(to: Answer, result: Result<Executed, Problem>) {
    let (status, kind, written) = match &result {
        Ok(executed) => (200, "application/json", serde_json::to_vec(executed)),
        Err(problem) => (problem.status, "application/problem+json", serde_json::to_vec(problem)),
    };
    let payload = written.unwrap_or_default();
    let answer = WireMessage::answer(payload).header(STATUS, status).header(CONTENT_TYPE, kind);
    if let Err(error) = to.send(answer).await {
        tracing::debug!(%error, "an answer was not sent; the sender asks again");
    }
}
