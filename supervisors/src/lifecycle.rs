//! What happens to actors, as events.
//!
//! Every change of a slot is one [`LifecycleEvent`], emitted by the supervisor at the one place
//! that applies a decision. An [`Observer`] hears them in order; the bus republishes them.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::error::ExitReason;
use crate::path::Path;

/// One thing that happened to one slot.
#[derive(Clone, Debug)]
pub struct LifecycleEvent {
    /// Counts up from 1 in one system, without holes.
    pub seq: u64,
    /// The event that led to this one: a restart names the failure, an escalation names it too.
    pub cause_seq: Option<u64>,
    /// Wall clock, microseconds since the Unix epoch.
    pub at_us: i64,
    /// Which slot.
    pub path: Path,
    /// The life it happened to; lives of a slot count up from 1.
    pub life: u64,
    /// What happened.
    pub kind: LifecycleKind,
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
            _ => Ok(()),
        }
    }
}

/// Hears what happens. Called on the supervisor's task: return at once, never block.
pub trait Observer: Send + Sync + 'static {
    /// One event, in the order of its `seq`.
    fn on_event(&self, event: &LifecycleEvent);
}

impl<F: Fn(&LifecycleEvent) + Send + Sync + 'static> Observer for F {
    fn on_event(&self, event: &LifecycleEvent) {
        self(event);
    }
}
