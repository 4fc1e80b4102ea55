//! What a subscriber says when it subscribes.

use std::sync::Arc;
use std::time::Duration;

use mister_smith_supervisors::Overflow;

use super::queue::Sender;
use super::subject::{InvalidSubject, Pattern};
use crate::settle::RetryPolicy;

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
    pub(super) results: Option<Arc<dyn Sender>>,
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
            results: None,
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

    /// Where what messages lead to is sent, before they are acknowledged.
    #[must_use]
    pub fn results(mut self, queue: Arc<dyn Sender>) -> Self {
        self.results = Some(queue);
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
