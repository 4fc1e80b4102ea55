//! How a queue's messages are processed.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::ReplayGuard;
use crate::bus::queue::Sender;
use crate::bus::subscription::DEFAULT_HANDLE_DEADLINE;
use crate::settle::{Delivery, RetryPolicy};

/// Messages in hand at once, unless said otherwise.
pub const DEFAULT_CONCURRENCY: usize = 8;

/// Which messages wait for each other.
pub(super) type LaneOf = Arc<dyn Fn(&Delivery) -> Arc<str> + Send + Sync>;

/// How a queue's messages are processed.
#[derive(Clone)]
#[non_exhaustive]
pub struct ProcessorOptions {
    /// Messages that are handled at once; 8. With 1 they are handled in their order.
    pub concurrency: usize,
    /// Messages that are taken out of the queue beside those, so that the next ones are there when
    /// there is room; half as many as are handled at once. They are kept as those are.
    pub prefetch: usize,
    /// How long a try may take; 30 s.
    pub deadline: Duration,
    /// How often a message is delivered, and the pauses between.
    pub retry: RetryPolicy,
    /// Where results are sent.
    pub results: Option<Arc<dyn Sender>>,
    /// Messages that were sent again by somebody else than the queue are not handled.
    pub replay: Option<ReplayGuard>,
    pub(super) lane: Option<LaneOf>,
}

impl Default for ProcessorOptions {
    fn default() -> Self {
        Self {
            concurrency: DEFAULT_CONCURRENCY,
            prefetch: DEFAULT_CONCURRENCY / 2,
            deadline: DEFAULT_HANDLE_DEADLINE,
            retry: RetryPolicy::default(),
            results: None,
            replay: None,
            lane: None,
        }
    }
}

impl ProcessorOptions {
    /// Sets how many messages are handled at once, and half as many to be taken beside them.
    #[must_use]
    pub fn concurrency(mut self, concurrency: usize) -> Self {
        self.concurrency = concurrency.max(1);
        self.prefetch = self.concurrency / 2;
        self
    }

    /// Sets how many messages are taken beside those that are handled.
    #[must_use]
    pub fn prefetch(mut self, messages: usize) -> Self {
        self.prefetch = messages;
        self
    }

    /// Handles messages for which `lane` answers the same one after the other, in the order in
    /// which they came, also when one of them is tried again: the others of its lane wait, here,
    /// and those of other lanes go on.
    ///
    /// That holds for one processor. Where several share a group, or one has ended with messages in
    /// hand, the queue decides who gets which message when.
    #[must_use]
    pub fn lanes_by(
        mut self,
        lane: impl Fn(&Delivery) -> Arc<str> + Send + Sync + 'static,
    ) -> Self {
        self.lane = Some(Arc::new(lane));
        self
    }

    /// Sets how long a try may take.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Sets how often a message is delivered.
    #[must_use]
    pub fn retry(mut self, retry: RetryPolicy) -> Self {
        self.retry = retry;
        self
    }

    /// Sets where results are sent.
    #[must_use]
    pub fn results(mut self, queue: Arc<dyn Sender>) -> Self {
        self.results = Some(queue);
        self
    }

    /// Lets a window look at every message before it is handled.
    #[must_use]
    pub fn replay(mut self, guard: ReplayGuard) -> Self {
        self.replay = Some(guard);
        self
    }

    /// The lanes, if there are any: with one message at a time all are in one.
    pub(super) fn lanes(&self) -> Option<LaneOf> {
        match (&self.lane, self.concurrency) {
            (Some(lane), _) => Some(Arc::clone(lane)),
            (None, 1) => Some(Arc::new(|_| "".into())),
            (None, _) => None,
        }
    }
}

impl fmt::Debug for ProcessorOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProcessorOptions")
            .field("concurrency", &self.concurrency)
            .field("prefetch", &self.prefetch)
            .field("deadline", &self.deadline)
            .field("lanes", &self.lane.is_some())
            .field("results", &self.results)
            .finish_non_exhaustive()
    }
}
