//! An event on its way through a handler: as a delivery, until it is settled.

use std::sync::Arc;
use std::time::Duration;

use super::LaneOf;
use crate::bus::queue::Sender;
use crate::bus::{Delivery, EventBus, FailureCause, Message, NewMessage, RetryPolicy, Source};
use crate::event::{Position, RecordedEvent};
use crate::guarded::guarded;
use crate::outbox::{SubjectOf, subject_under};
use crate::settle::{AnyHandler, Settler};
use crate::store::follow::Follower;

/// How events are handled.
#[derive(Clone)]
pub(super) struct Plan {
    pub(super) handler: AnyHandler,
    pub(super) lane: LaneOf,
    /// Lanes at once.
    pub(super) lanes: usize,
    pub(super) retry: RetryPolicy,
    pub(super) deadline: Duration,
    pub(super) results: Option<Arc<dyn Sender>>,
}

/// Handles the events of one consumer.
#[derive(Clone)]
pub(super) struct Runner {
    pub(super) handler: AnyHandler,
    pub(super) lane: LaneOf,
    pub(super) settler: Settler,
    pub(super) bus: EventBus,
    /// Events up to here may have been handled by an earlier life.
    pub(super) repeats_to: Position,
}

impl Runner {
    /// The lane of an event. One for which the application has no answer is in one with all of
    /// those; its handler will say what is wrong.
    pub(super) fn lane(&self, event: &RecordedEvent) -> Arc<str> {
        guarded(|| (self.lane)(event)).unwrap_or_else(|_| "".into())
    }

    /// Tries an event until it is acknowledged or a dead letter.
    ///
    /// # Cancel safety
    /// A dropped call may have handled it; it comes again.
    pub(super) async fn settle(&self, event: RecordedEvent, follower: &Follower) {
        let message = self.message(&event);
        let delivery = self.delivery(message, event);
        // One whose letter is refused for good is still in the log.
        self.settler.run(&self.handler, delivery, || follower.certain()).await;
    }

    /// Makes an event a dead letter that nobody has tried in this life.
    pub(super) async fn bury(&self, event: &RecordedEvent, reason: String, attempts: u32) {
        let message = self.message(event);
        self.settler.bury(&message, FailureCause::Crashed, reason, attempts).await;
    }

    /// Handles an event once more, for its dead letter: that is done with then, or open as before.
    pub(super) async fn again(&self, message: Arc<Message>, event: Result<RecordedEvent, String>) {
        let event = match event {
            Ok(event) => event,
            Err(reason) => {
                self.settler.bury(&message, FailureCause::Failed, reason, 1).await;
                return;
            }
        };
        let delivery = self.delivery(Arc::clone(&message), event);
        self.settler.run_again(&self.handler, &message, delivery).await;
    }

    fn message(&self, event: &RecordedEvent) -> Arc<Message> {
        let subject: SubjectOf = subject_under("events");
        let subject = subject(event).unwrap_or_else(|| crate::bus::Subject::of(["events"]));
        self.bus.stamp(NewMessage::recorded(subject, event))
    }

    fn delivery(&self, message: Arc<Message>, event: RecordedEvent) -> Delivery {
        Delivery {
            message,
            handler: Arc::clone(&self.settler.name),
            attempt: 1,
            redelivered: event.position <= self.repeats_to,
            source: Source::Log { event: Arc::new(event) },
        }
    }
}
