//! Health: what a component says about itself, and how often it is asked.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// What a health check found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// All is well.
    Healthy,
    /// It works, and something is not as it should be. Never a reason to restart.
    Degraded(Arc<str>),
    /// It does not do its work. Often enough in a row, this is a failure.
    Unhealthy(Arc<str>),
}

impl Health {
    /// Degraded, with the reason.
    #[must_use]
    pub fn degraded(why: impl Into<Arc<str>>) -> Self {
        Self::Degraded(why.into())
    }

    /// Unhealthy, with the reason.
    #[must_use]
    pub fn unhealthy(why: impl Into<Arc<str>>) -> Self {
        Self::Unhealthy(why.into())
    }

    /// One word for the tree and JSON.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Degraded(_) => "degraded",
            Self::Unhealthy(_) => "unhealthy",
        }
    }

    /// The reason, unless all is well.
    #[must_use]
    pub fn detail(&self) -> Option<&Arc<str>> {
        match self {
            Self::Healthy => None,
            Self::Degraded(why) | Self::Unhealthy(why) => Some(why),
        }
    }
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.detail() {
            None => f.write_str(self.as_str()),
            Some(why) => write!(f, "{}: {why}", self.as_str()),
        }
    }
}

/// How often a child is checked, and what counts as a failure.
///
/// Whether a handler is stuck is read from the slot and needs no answer from the actor. A
/// component's own [`health_check`](crate::SupervisedComponent::health_check) runs between two
/// messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HealthSpec {
    pub(crate) every: Duration,
    pub(crate) deadline: Duration,
    pub(crate) unhealthy_after: u32,
    pub(crate) stuck_after: Duration,
}

impl HealthSpec {
    /// Checks once in `every`. Three failed checks in a row are a failure; a check that takes
    /// longer than 5 s failed; a message in hand for more than 30 s is a stuck handler.
    #[must_use]
    pub const fn every(every: Duration) -> Self {
        Self {
            every,
            deadline: Duration::from_secs(5),
            unhealthy_after: 3,
            stuck_after: Duration::from_secs(30),
        }
    }

    /// How long one check may take.
    #[must_use]
    pub const fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// How many failed checks in a row are a failure (at least 1).
    #[must_use]
    pub const fn unhealthy_after(mut self, checks: u32) -> Self {
        self.unhealthy_after = if checks == 0 { 1 } else { checks };
        self
    }

    /// How long one message may be in hand before the handler counts as stuck.
    #[must_use]
    pub const fn stuck_after(mut self, limit: Duration) -> Self {
        self.stuck_after = limit;
        self
    }
}
