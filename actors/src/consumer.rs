//! Durable consumers: handlers that follow the log, each under a name of its own.
//!
//! A subscription of the [bus](crate::bus) hears what is published while it lives. A consumer
//! hears everything that is in the log, from where it began, whatever crashes: its place is kept
//! in the store, events come to it in the order of the log, and one that it cannot handle is tried
//! again and then kept as a dead letter, with the others going on.
//!
//! ```text
//! commit ─▶ log ─▶ [`actor`]: a window of lanes ─▶ handler ─▶ ack ─▶ place
//!                                                  └▶ retry … ─▶ dead letter
//! ```
//!
//! An event comes at least once. It comes again when the node, or the consumer, ended before its
//! checkpoint was written; [`Delivery::redelivered`](crate::bus::Delivery) says that this may be so,
//! and [`Delivery::key`](crate::bus::Delivery::key) names the event's effect for ever, for whoever
//! must tell a repeat.
//!
//! Where several nodes share a store, one of them has the consumer, and the others stand by.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::bus::queue::Sender;
use crate::bus::{DEFAULT_HANDLE_DEADLINE, Handler, RetryPolicy};
use crate::event::{Position, RecordedEvent, Timestamp};
use crate::settle::AnyHandler;
use crate::store::EventFilter;
use crate::store::claims::ClaimError;

pub mod actor;
mod handle;
mod runner;

pub use handle::{ConsumerRef, ConsumerStatus, Consumers};

#[cfg(test)]
mod tests;

/// Events that may come again after a crash, besides those that were in hand.
pub const DEFAULT_PAGE: usize = 100;

/// A durable consumer, before it is started.
///
/// ```
/// use mister_smith_actors::bus::{Delivery, Outcome};
/// use mister_smith_actors::consumer::{Begin, Consumer};
/// use mister_smith_actors::store::EventFilter;
///
/// let mailer = Consumer::new("mailer", |delivery: Delivery| async move {
///     // Send it, under the name `delivery.key()`, so that a repeat is told.
///     println!("{} {}", delivery.key(), delivery.message.subject());
///     Outcome::Ack
/// })
/// .filter(EventFilter::ALL.categories(["order"]))
/// .begin(Begin::End)
/// .lanes_by_stream(16);
/// # let _ = mailer;
/// ```
#[derive(Clone)]
pub struct Consumer {
    name: Arc<str>,
    filter: EventFilter,
    begin: Begin,
    plan: runner::Plan,
    page: usize,
}

/// Where a consumer begins when it is started for the first time, or goes back to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Begin {
    /// With the first event of the log.
    #[default]
    Beginning,
    /// With what comes from now on.
    End,
    /// With the event after this one.
    After(Position),
    /// With the first event that was recorded at this time or later.
    At(Timestamp),
}

/// Which events wait for each other.
type LaneOf = Arc<dyn Fn(&RecordedEvent) -> Arc<str> + Send + Sync>;

impl Consumer {
    /// A consumer with a name, unique in its store, that handles everything from the beginning of
    /// the log, one event after the other.
    pub fn new(name: impl Into<Arc<str>>, handler: impl Handler) -> Self {
        Self {
            name: name.into(),
            filter: EventFilter::ALL,
            begin: Begin::default(),
            plan: runner::Plan {
                handler: AnyHandler::new(handler),
                lane: Arc::new(|_| "".into()),
                lanes: 1,
                retry: RetryPolicy::default(),
                deadline: DEFAULT_HANDLE_DEADLINE,
                results: None,
            },
            page: DEFAULT_PAGE,
        }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Handles only what a filter lets through.
    #[must_use]
    pub fn filter(mut self, filter: EventFilter) -> Self {
        self.filter = filter;
        self
    }

    /// Where it begins the first time. Later it goes on where it was.
    #[must_use]
    pub fn begin(mut self, begin: Begin) -> Self {
        self.begin = begin;
        self
    }

    /// When an event is tried again, and when it becomes a dead letter: after five tries unless
    /// said otherwise. Those of its lane wait meanwhile, and only those, unless so many of them
    /// wait that the window is full ([`WINDOW`](actor::WINDOW)).
    #[must_use]
    pub fn retry(mut self, retry: RetryPolicy) -> Self {
        self.plan.retry = retry;
        self
    }

    /// How long a try may take; 30 s unless said otherwise.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.plan.deadline = deadline;
        self
    }

    /// Where what events lead to is sent, before they are settled.
    #[must_use]
    pub fn results(mut self, queue: Arc<dyn Sender>) -> Self {
        self.plan.results = Some(queue);
        self
    }

    /// Handles up to so many events at once, in no order; for handlers of
    /// [batches](crate::bus::Batch), and others that do not mind.
    #[must_use]
    pub fn unordered(self, at_once: usize) -> Self {
        self.lanes_by(at_once, |event| event.position.to_string().into())
    }

    /// Handles the events of up to so many streams at once, those of one stream in their order.
    #[must_use]
    pub fn lanes_by_stream(self, lanes: usize) -> Self {
        self.lanes_by(lanes, |event| event.stream.as_str().into())
    }

    /// Handles up to so many events at once; those for which `lane` answers the same one after
    /// the other, in the order of the log.
    #[must_use]
    pub fn lanes_by(
        mut self,
        lanes: usize,
        lane: impl Fn(&RecordedEvent) -> Arc<str> + Send + Sync + 'static,
    ) -> Self {
        self.plan.lanes = lanes.max(1);
        self.plan.lane = Arc::new(lane);
        self
    }

    /// How many events may come again after a crash, besides those that were in hand; 100 unless
    /// said otherwise. The place is kept as often as that needs, when there is nothing more to do,
    /// and every other second.
    #[must_use]
    pub fn page(mut self, events: usize) -> Self {
        self.page = events.clamp(1, crate::store::MAX_PAGE);
        self
    }
}

impl fmt::Debug for Consumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consumer")
            .field("name", &self.name)
            .field("filter", &self.filter)
            .field("begin", &self.begin)
            .field("lanes", &self.plan.lanes)
            .finish_non_exhaustive()
    }
}

/// Why nothing came of a request about a consumer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConsumerError {
    /// The name is none.
    #[error("{name:?} is no name of a consumer; use up to 100 letters, digits, '-', '_' and '.'")]
    Name {
        /// The name.
        name: String,
    },
    /// There is one of that name.
    #[error("there is a consumer {name} already")]
    Exists {
        /// The name.
        name: String,
    },
    /// There is none of that name.
    #[error("there is no consumer {name} on this node; it has {known}")]
    Unknown {
        /// The name.
        name: String,
        /// Those that there are.
        known: String,
    },
    /// The node that has it does not answer.
    #[error("consumer {name} was asked, and its node has not heard yet; it will when it can")]
    Unheard {
        /// The name.
        name: String,
    },
    /// The store failed, or another node has taken it over.
    #[error(transparent)]
    Claim(#[from] ClaimError),
    /// The consumer did not answer.
    #[error(transparent)]
    Actor(#[from] mister_smith_supervisors::AskError),
    /// The consumer's actor could not be started or ended.
    #[error(transparent)]
    Supervisor(#[from] mister_smith_supervisors::SupervisorError),
}
