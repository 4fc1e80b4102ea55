//! What a subscriber says when it subscribes, and what it answers to each message.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use mister_smith_supervisors::{Backoff, Overflow};
use uuid::Uuid;

use super::message::Message;
use super::subject::{InvalidSubject, Pattern};

/// Messages that wait for a subscriber at most, unless it says otherwise.
pub const DEFAULT_BUFFER: usize = 1_024;

/// How long a publisher waits for room in a subscriber's buffer, unless it says otherwise.
pub const DEFAULT_WAIT: Duration = Duration::from_secs(1);

/// How long a subscriber may take for one message, unless it says otherwise.
pub const DEFAULT_HANDLE_DEADLINE: Duration = Duration::from_secs(30);

/// A subscription, before it is made.
#[derive(Debug, Clone)]
pub struct Subscription {
    pub(super) name: Arc<str>,
    pub(super) pattern: Pattern,
    pub(super) group: Option<Arc<str>>,
    pub(super) buffer: usize,
    pub(super) overflow: Overflow,
    pub(super) policy: Policy,
    pub(super) target: Option<Duration>,
}

/// How a subscription's messages are handled.
#[derive(Debug, Clone)]
pub(super) struct Policy {
    pub(super) retry: RetryPolicy,
    pub(super) order: Order,
    pub(super) deadline: Duration,
}

impl Subscription {
    /// A subscription with a name, unique in its bus, to a pattern such as `order.*.placed`.
    ///
    /// # Errors
    /// The pattern is none.
    pub fn new(
        name: impl Into<Arc<str>>,
        pattern: impl TryInto<Pattern, Error = impl Into<InvalidSubject>>,
    ) -> Result<Self, InvalidSubject> {
        Ok(Self {
            name: name.into(),
            pattern: pattern.try_into().map_err(Into::into)?,
            group: None,
            buffer: DEFAULT_BUFFER,
            overflow: Overflow::Wait(DEFAULT_WAIT),
            policy: Policy {
                retry: RetryPolicy::default(),
                order: Order::default(),
                deadline: DEFAULT_HANDLE_DEADLINE,
            },
            target: None,
        })
    }

    /// Shares the messages with the other subscriptions of this group: each message goes to the
    /// one with the shortest queue.
    #[must_use]
    pub fn group(mut self, group: impl Into<Arc<str>>) -> Self {
        self.group = Some(group.into());
        self
    }

    /// How many messages may wait, and what happens to one more: 1,024, and the publisher waits
    /// up to a second, unless said otherwise.
    #[must_use]
    pub fn buffer(mut self, messages: usize, overflow: Overflow) -> Self {
        self.buffer = messages.max(1);
        self.overflow = overflow;
        self
    }

    /// When a message is tried again, and when no more.
    #[must_use]
    pub fn retry(mut self, retry: RetryPolicy) -> Self {
        self.policy.retry = retry;
        self
    }

    /// Which messages wait for one that is tried again.
    #[must_use]
    pub fn order(mut self, order: Order) -> Self {
        self.policy.order = order;
        self
    }

    /// How soon after it was published, or recorded, a message should be with the handler. Later
    /// ones are counted ([`SubscriptionStatus::latency`](super::SubscriptionStatus::latency)).
    #[must_use]
    pub fn target(mut self, target: Duration) -> Self {
        self.target = Some(target);
        self
    }

    /// How long one message may take; then it is tried again. 30 s unless said otherwise.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.policy.deadline = deadline;
        self
    }
}

/// Which messages wait for one that is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Order {
    /// Those of the same subject; the others go on.
    #[default]
    PerSubject,
    /// All.
    Strict,
    /// None.
    Unordered,
}

/// When a message is tried again, and when it becomes a dead letter.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RetryPolicy {
    pub(crate) attempts: u32,
    pub(super) backoff: Backoff,
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

/// A message in a subscriber's hands.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Delivery {
    /// The message, shared with all others who receive it.
    pub message: Arc<Message>,
    /// Which try this is; the first is 1.
    pub attempt: u32,
}

/// What came of a delivery.
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

/// Handles the messages of a subscription, one after the other.
///
/// It lives in an actor under a supervisor. When it panics, the actor is restarted with a new
/// handler, and the message in hand counts as tried.
pub trait Handler: Send + 'static {
    /// Handles one message.
    ///
    /// # Cancel safety
    /// A kill, or the end of the subscription's deadline, drops the future at its next `await`;
    /// the message is then tried again.
    fn handle(&mut self, delivery: Delivery) -> impl Future<Output = Outcome> + Send;
}

impl<F, R> Handler for F
where
    F: FnMut(Delivery) -> R + Send + 'static,
    R: Future<Output = Outcome> + Send,
{
    fn handle(&mut self, delivery: Delivery) -> impl Future<Output = Outcome> + Send {
        self(delivery)
    }
}

/// A message that a subscriber could not handle, with all that is known about it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Undelivered {
    /// The subscription.
    pub subscription: Arc<str>,
    /// The message.
    pub message: Arc<Message>,
    /// Why it was given up.
    pub cause: FailureCause,
    /// What the subscriber said last.
    pub reason: String,
    /// How often it was tried.
    pub attempts: u32,
}

/// Why a message was given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum FailureCause {
    /// The subscriber said that it will never work.
    Failed,
    /// The tries of its policy are used up.
    Exhausted,
    /// The subscriber crashed with it in hand, each time.
    Crashed,
}

/// Where messages go that a subscriber could not handle.
///
/// A delivery is settled only when this has answered: a node that ends before still has the
/// message where it came from, if that is durable.
pub trait DeadLetterOffice: Send + Sync + fmt::Debug {
    /// Keeps one, durably.
    fn keep(
        &self,
        undelivered: Undelivered,
    ) -> futures_util::future::BoxFuture<'_, Result<(), OfficeError>>;

    /// A message that was sent again for a dead letter has been handled.
    fn settle(&self, letter: Uuid) -> futures_util::future::BoxFuture<'_, Result<(), OfficeError>>;
}

/// A dead letter could not be kept now.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the dead letter could not be kept: {reason}; it is tried again")]
pub struct OfficeError {
    /// Why.
    pub reason: String,
}
