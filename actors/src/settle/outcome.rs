//! What a handler says about a message, and when a message is tried again.

use std::fmt;
use std::time::Duration;

use mister_smith_supervisors::{Backoff, ErrorClass};

use crate::bus::wire::WireMessage;

/// What came of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// It is done.
    Ack,
    /// It did not work now.
    Retry {
        /// The pause before the next try; the policy's unless given.
        after: Option<Duration>,
        /// Why.
        reason: String,
    },
    /// It will never work: it becomes a dead letter.
    Fail {
        /// Why.
        reason: String,
    },
}

impl Outcome {
    /// Try it again, as the policy says.
    pub fn retry(reason: impl fmt::Display) -> Self {
        Self::Retry { after: None, reason: reason.to_string() }
    }

    /// Try it again after a pause.
    pub fn retry_after(after: Duration, reason: impl fmt::Display) -> Self {
        Self::Retry { after: Some(after), reason: reason.to_string() }
    }

    /// Never try it again.
    pub fn fail(reason: impl fmt::Display) -> Self {
        Self::Fail { reason: reason.to_string() }
    }

    /// What an error of a class asks for: what goes away by itself, and what an operator may mend
    /// meanwhile, is tried again; anything else will be the same at every try.
    pub fn of(class: ErrorClass, reason: impl fmt::Display) -> Self {
        match class {
            ErrorClass::Transient | ErrorClass::System => Self::retry(reason),
            ErrorClass::Permanent | ErrorClass::User => Self::fail(reason),
        }
    }
}

/// An `Ok` is an acknowledgement, an error is tried again.
impl<E: fmt::Display> From<Result<(), E>> for Outcome {
    fn from(result: Result<(), E>) -> Self {
        match result {
            Ok(()) => Self::Ack,
            Err(error) => Self::retry(error),
        }
    }
}

/// What came of a message, and what it led to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Handled {
    /// Whether it is done.
    pub outcome: Outcome,
    /// What it led to: sent, before the message is acknowledged and only then, to the queue for
    /// results that the handler was started with.
    pub results: Vec<WireMessage>,
}

impl Handled {
    /// It is done, and led to these messages. Their ids are to be the same if it is handled again;
    /// [`Delivery::key`](super::Delivery::key) is what to make them of.
    #[must_use]
    pub fn with(results: Vec<WireMessage>) -> Self {
        Self { outcome: Outcome::Ack, results }
    }
}

impl From<Outcome> for Handled {
    fn from(outcome: Outcome) -> Self {
        Self { outcome, results: Vec::new() }
    }
}

impl<E: fmt::Display> From<Result<(), E>> for Handled {
    fn from(result: Result<(), E>) -> Self {
        Outcome::from(result).into()
    }
}

/// When a message is tried again, and when it becomes a dead letter.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RetryPolicy {
    pub(crate) attempts: u32,
    backoff: Backoff,
}

impl RetryPolicy {
    /// At most this many tries, the first included.
    #[must_use]
    pub fn attempts(attempts: u32) -> Self {
        Self { attempts: attempts.max(1), ..Self::default() }
    }

    /// The pauses between them.
    #[must_use]
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.backoff = backoff;
        self
    }

    /// The pause after try number `attempt` (the first is 1), with a random number for its jitter.
    pub(crate) fn pause(&self, attempt: u32, random: u64) -> Duration {
        let ceiling = self.backoff.ceiling(attempt.saturating_sub(1));
        // The upper 32 bits are enough for a pause.
        ceiling.mul_f64((random >> 32) as f64 / f64::from(u32::MAX))
    }
}

impl Default for RetryPolicy {
    /// Five tries, up to 100 ms after the first, twice as long after each, at most 5 s.
    fn default() -> Self {
        let backoff = Backoff::exponential(Duration::from_millis(100), Duration::from_secs(5));
        Self { attempts: 5, backoff }
    }
}
