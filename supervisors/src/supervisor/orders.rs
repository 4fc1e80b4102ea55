//! The words between a supervisor's rules and its driver: inputs in, orders out.
//!
//! Both machines, the one of declared children ([`Machine`]) and the one of a [`Crowd`], speak
//! them, so that one driver carries both out and one dry run plays both.
//!
//! One crash, from beginning to end: the driver gives [`Input::Ended`]; the machine decides, and
//! orders first the [`Order::Report`] that tells of the end together with the decision, then the
//! stops and starts that it has decided on. Nothing is told or done beside the orders, so their
//! order is the order of the events.
//!
//! [`Machine`]: crate::supervisor::machine::Machine
//! [`Crowd`]: crate::supervisor::crowd::Crowd

use std::sync::Arc;

use crate::error::ExitReason;
use crate::resilience::Backoff;
use crate::supervisor::Change;
use crate::supervisor::policy::ChildPolicy;
use crate::supervisor::reaction::Reaction;

/// Names a child for as long as its supervisor lives.
pub(crate) type Key = u64;

/// Names a command until it is answered.
pub(crate) type Token = u64;

/// Who waits for the answer to a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Asker {
    pub(crate) token: Token,
    /// The child in which, or below which, the asker lives. It must not wait for its stopper.
    pub(crate) from: Option<Key>,
}

/// What the driver reports. Everything about a life names the life, so that news of one that has
/// been replaced does nothing to the one in its place.
#[derive(Clone, Debug)]
pub(crate) enum Input {
    /// The start that was ordered is done.
    StartDone { key: Key, life: u64, outcome: StartOutcome },
    /// A life ended, in whatever way.
    Ended { key: Key, life: u64, reason: ExitReason },
    /// A life that was told to stop does not end, not even killed: it is given up.
    Stuck { key: Key, life: u64 },
    /// Bad health has to be treated as a failure.
    Unhealthy { key: Key, life: u64, reason: ExitReason },
    /// The delay before a restart is over.
    Retry { key: Key, epoch: u64 },
    /// Somebody asks for something.
    Command { asker: Asker, command: Command },
    /// Stop everything in order and end with `Shutdown`.
    ShutDown,
}

#[derive(Clone, Debug)]
pub(crate) enum StartOutcome {
    Started,
    Ignored,
    Failed(ExitReason),
}

#[derive(Clone, Debug)]
pub(crate) enum Command {
    /// OTP's `start_child`, under the key that the child is to have.
    Add { key: Key, child: Declared },
    /// Something done to the child with this id.
    Change { change: Change, id: Arc<str> },
}

/// What a command came to.
#[derive(Clone, Debug)]
pub(crate) enum Reply {
    Done,
    NotFound(Arc<str>),
    Running(Arc<str>),
    Restarting(Arc<str>),
    AlreadyStarted(Arc<str>),
    AlreadyPresent(Arc<str>),
    StartFailed(Arc<str>, ExitReason),
    /// The child needs another one that is not up.
    NeedsDependency {
        id: Arc<str>,
        dependency: Arc<str>,
    },
    /// The child depends on something that is no child here.
    UnknownDependency {
        id: Arc<str>,
        dependency: Arc<str>,
    },
    /// There is no room for one more.
    MaxChildren(usize),
    Stopping,
}

/// What led to an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// Nothing that has a number.
    Nothing,
    /// This event: what an operator did, or what happened to the supervisor itself.
    Event(u64),
    /// The last report of an end, or of a failed start, of this child.
    Child(Key),
    /// What has led to the last order about this child.
    Last(Key),
    /// Whatever made the supervisor end.
    Ending,
}

impl Cause {
    pub(crate) fn of(event: Option<u64>) -> Self {
        event.map_or(Self::Nothing, Self::Event)
    }
}

/// An order to the driver.
#[derive(Clone, Debug)]
pub(crate) enum Order {
    /// Make a slot for the child that this command brings.
    Admit { key: Key, token: Token },
    /// Start this life.
    Start { key: Key, life: u64 },
    /// Drop a start that is under way; nothing of it is reported any more.
    AbortStart { key: Key },
    /// Stop the life and report its end. `planned`: another will take its place.
    Stop { key: Key, life: u64, planned: bool },
    /// Report `Retry` after the backoff's delay for this many failures in a row.
    RetryAfter { key: Key, epoch: u64, backoff: Backoff, failures: u32 },
    /// Forget the delay: the child was stopped or started meanwhile.
    CancelRetry { key: Key },
    /// It has no life and none is due: its mailbox closes until it is started again.
    Down { key: Key, reason: ExitReason },
    /// Its spec is gone, and its slot with it.
    Forget { key: Key, reason: ExitReason },
    /// It has no life, and its slot waits for the next life of this supervisor.
    Keep { key: Key },
    /// Hold back its messages, or let them through.
    Pause { key: Key, paused: bool },
    /// Answer a command.
    Reply { token: Token, reply: Reply },
    /// All children had their first start.
    Ready,
    /// Tell what happened to a life, and what is done about it.
    Report(Report),
    /// The supervisor begins to stop its children; what follows has this cause.
    Ending { reason: ExitReason },
    /// All children are down: end with this reason.
    Finish(ExitReason),
}

/// What is told of a life.
#[derive(Clone, Debug)]
pub(crate) struct Report {
    pub(crate) key: Key,
    pub(crate) life: u64,
    pub(crate) news: News,
    /// What is done about it; the orders that do it come after.
    pub(crate) reaction: Option<Arc<Reaction>>,
    /// Its slot goes with it.
    pub(crate) gone: bool,
}

#[derive(Clone, Debug)]
pub(crate) enum News {
    /// It is up. `restart`: it takes the place of one that ended.
    Up { restart: bool },
    /// It did not start.
    StartFailed(ExitReason),
    /// Its health is so bad that it is stopped for it.
    Unhealthy(ExitReason),
    /// It ended by itself, or was killed.
    Ended(ExitReason),
    /// It ended because its supervisor wanted it so.
    Stopped(ExitReason),
    /// It was told to stop and is given up.
    Stuck,
}

/// What a machine waits for, for whoever plays the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Awaited {
    Stop(Key, u64),
    Start(Key, u64),
}

/// A child as declared.
#[derive(Clone, Debug)]
pub(crate) struct Declared {
    pub(crate) id: Arc<str>,
    /// Shared by all children with the same one.
    pub(crate) policy: Arc<ChildPolicy>,
    pub(crate) significant: bool,
    pub(crate) depends_on: Vec<Arc<str>>,
    /// Held since an earlier life of its supervisor.
    pub(crate) suspended: bool,
    /// Something in another branch that it needs is not up.
    pub(crate) blocked: bool,
    /// A supervisor stops in order even while it starts.
    pub(crate) supervisor: bool,
    /// The number of its last life; 0 for none.
    pub(crate) life: u64,
}
