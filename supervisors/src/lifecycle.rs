//! What happens to actors, as events.
//!
//! Every change of a slot is one [`LifecycleEvent`], emitted by the supervisor at the one place
//! that applies a decision. An [`Observer`] hears them in order; the bus republishes them.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::actor::SlotKind;
use crate::error::ExitReason;
use crate::inspect::Missed;
use crate::path::Path;
use crate::supervisor::{Reaction, ReactionCell};

pub(crate) mod dispatch;
#[cfg(test)]
mod tests;

/// One thing that happened to one slot.
#[derive(Clone, Debug)]
pub struct LifecycleEvent {
    /// Counts up from 1 in one system, without holes.
    pub seq: u64,
    /// The event that led to this one: a restart names the failure, an escalation names it too, and
    /// what an operator did is named by all that follows. Whoever follows these numbers ends at an
    /// event that nothing led to: the first failure, an operator's action, a first start.
    pub cause_seq: Option<u64>,
    /// Wall clock, microseconds since the Unix epoch.
    pub at_us: i64,
    /// Which slot.
    pub path: Path,
    /// What lives there.
    pub slot: SlotKind,
    /// The life it happened to; lives of a slot count up from 1.
    pub life: u64,
    /// What happened.
    pub kind: LifecycleKind,
    /// For failures and failed starts: what its supervisor did about it.
    pub decision: Option<ReactionCell>,
    /// The slot is gone with it: a temporary child, or one of a dynamic supervisor that ended.
    pub gone: bool,
}

impl LifecycleEvent {
    /// An event that nothing led to; `seq` and `at_us` are 0. For folds over stored events.
    #[must_use]
    pub fn new(path: Path, slot: SlotKind, life: u64, kind: LifecycleKind) -> Self {
        Self {
            seq: 0,
            cause_seq: None,
            at_us: 0,
            path,
            slot,
            life,
            kind,
            decision: None,
            gone: false,
        }
    }

    /// What the supervisor did about it, for failures and failed starts, once it has decided.
    #[must_use]
    pub fn reaction(&self) -> Option<&Reaction> {
        self.decision.as_ref()?.get()
    }
}

/// What happened to a slot.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum LifecycleKind {
    /// The first life, or a later one that nobody had to restart, is up.
    Started,
    /// A life ended, and was not told to.
    Failed {
        /// What it died of.
        reason: ExitReason,
    },
    /// A new life is up after a failure or a group restart.
    Restarted {
        /// Restarts of this slot so far.
        restarts: u64,
    },
    /// The next life waits for its backoff to run out.
    BackingOff {
        /// How long it waits.
        delay: Duration,
    },
    /// A start attempt failed.
    StartFailed {
        /// Why.
        reason: ExitReason,
    },
    /// A life ended as it was told to, or because it had nothing more to do.
    Stopped {
        /// `Normal`, `Shutdown`, or `Killed` when the shutdown time ran out.
        reason: ExitReason,
    },
    /// A life does not end although it was killed; no other may start in its place.
    Stuck,
    /// An operator or the API holds the slot.
    Suspended,
    /// The hold is over.
    Resumed,
    /// Its health changed.
    Health {
        /// What the check said.
        healthy: bool,
        /// In words.
        detail: Arc<str>,
    },
    /// A supervisor gave up and fails upward.
    Escalated {
        /// Why.
        reason: ExitReason,
    },
    /// Somebody did something to it on purpose. What followed names this event as its cause.
    Action(Arc<Deed>),
}

/// What somebody did on purpose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deed {
    /// What was done.
    pub action: Action,
    /// Who did it, and why.
    pub origin: Origin,
}

/// Who did something, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Who: a person's name, a token's, a program's.
    pub by: Arc<str>,
    /// Why, as they said.
    pub reason: Option<Arc<str>>,
}

impl Origin {
    /// Somebody, without a reason.
    #[must_use]
    pub fn new(by: impl Into<Arc<str>>) -> Self {
        Self { by: by.into(), reason: None }
    }

    /// Why.
    #[must_use]
    pub fn because(mut self, reason: impl Into<Arc<str>>) -> Self {
        self.reason = Some(reason.into());
        self
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.by)?;
        match &self.reason {
            Some(reason) => write!(f, " ({reason})"),
            None => Ok(()),
        }
    }
}

/// What can be done to an actor by its path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Action {
    /// Ends its life at the next `await`. Its supervisor treats it as a crash.
    Kill,
    /// Stops it and its group in order, and starts them again. Not counted as a failure.
    Restart,
    /// Stops it in order. It stays down.
    Stop,
    /// Starts one that is down.
    Start,
    /// Holds it: its messages wait, it keeps its state.
    Suspend,
    /// Ends a hold.
    Resume,
}

impl Action {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Kill, Self::Restart, Self::Stop, Self::Start, Self::Suspend, Self::Resume];

    /// One word for paths, logs and JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::Restart => "restart",
            Self::Stop => "stop",
            Self::Start => "start",
            Self::Suspend => "suspend",
            Self::Resume => "resume",
        }
    }

    /// The action with this name.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|action| action.as_str() == word)
    }
}

impl LifecycleKind {
    /// One word for logs and JSON.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::Failed { .. } => "failed",
            Self::Restarted { .. } => "restarted",
            Self::BackingOff { .. } => "backing_off",
            Self::StartFailed { .. } => "start_failed",
            Self::Stopped { .. } => "stopped",
            Self::Stuck => "stuck",
            Self::Suspended => "suspended",
            Self::Resumed => "resumed",
            Self::Health { .. } => "health",
            Self::Escalated { .. } => "escalated",
            Self::Action(_) => "action",
        }
    }
}

impl fmt::Display for LifecycleEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}#{} {}", self.seq, self.path, self.life, self.kind.name())?;
        match &self.kind {
            LifecycleKind::Failed { reason }
            | LifecycleKind::StartFailed { reason }
            | LifecycleKind::Stopped { reason }
            | LifecycleKind::Escalated { reason } => write!(f, ": {reason}"),
            LifecycleKind::BackingOff { delay } => write!(f, ": {delay:?}"),
            LifecycleKind::Health { healthy, detail } => {
                write!(f, ": {} {detail}", if *healthy { "healthy" } else { "unhealthy" })
            }
            LifecycleKind::Action(deed) => {
                write!(f, ": {} by {}", deed.action.as_str(), deed.origin)
            }
            _ => Ok(()),
        }
    }
}

/// Hears what happens, in the order of the events' numbers, on a task of its own: an observer that is
/// slow hears late, and one that panics is logged. When the system has ended
/// ([`ActorSystem::ended`](crate::ActorSystem::ended)), every observer has heard everything.
pub trait Observer: Send + Sync + 'static {
    /// One event.
    fn on_event(&self, event: &LifecycleEvent);

    /// Events that came faster than they were told, and are not kept any more: look at the tree.
    fn on_missed(&self, missed: Missed) {
        tracing::warn!(from = missed.from, to = missed.to, "an observer missed lifecycle events");
    }
}

impl<F: Fn(&LifecycleEvent) + Send + Sync + 'static> Observer for F {
    fn on_event(&self, event: &LifecycleEvent) {
        self(event);
    }
}
