//! An event on its way through a handler: tries one after the other, and a dead letter at the end.

use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use tokio::time::{sleep, timeout};

use super::{Consumed, Handle, LaneOf};
use crate::bus::{
    DeadLetterOffice, EventBus, FailureCause, Message, NewMessage, Outcome, RetryPolicy,
    Undelivered,
};
use crate::event::{Position, RecordedEvent};
use crate::guarded::{guarded, text_of};
use crate::outbox::{SubjectOf, subject_under};
use crate::store::MAX_EVENT_BYTES;
use crate::store::claims::ClaimError;
use crate::store::follow::Follower;

/// The pause before a dead letter is kept again, when its office is out of order.
const OFFICE_PAUSE: Duration = Duration::from_millis(200);

/// The largest event that a dead letter holds: it is an event itself. The payload of a larger one
/// is in the log alone, where whoever handles it again reads it anyway.
const LETTER_BYTES: usize = MAX_EVENT_BYTES - (1 << 20);

/// The most of a reason that is kept, in bytes.
const REASON_BYTES: usize = 64 << 10;

/// How events are handled.
#[derive(Clone)]
pub(super) struct Plan {
    pub(super) handle: Handle,
    pub(super) lane: LaneOf,
    /// Lanes at once.
    pub(super) lanes: usize,
    pub(super) retry: RetryPolicy,
    pub(super) deadline: Duration,
}

/// What a consumer's lives count, and what is shown of it besides its place.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) acked: AtomicU64,
    pub(super) retried: AtomicU64,
    pub(super) dead: AtomicU64,
    /// What is tried again, and why.
    trouble: Mutex<Option<(Position, String)>>,
}

impl Counts {
    pub(super) fn trouble(&self) -> Option<(Position, String)> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_trouble(&self, trouble: Option<(Position, String)>) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
    }

    fn clear_trouble(&self, position: Position) {
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        if trouble.as_ref().is_some_and(|(at, _)| *at == position) {
            *trouble = None;
        }
    }
}

/// Handles the events of one consumer.
#[derive(Clone)]
pub(super) struct Runner {
    pub(super) name: Arc<str>,
    pub(super) plan: Plan,
    pub(super) bus: EventBus,
    pub(super) office: Arc<dyn DeadLetterOffice>,
    pub(super) shown: Arc<Counts>,
    /// Events up to here may have been handled by an earlier life.
    pub(super) repeats_to: Position,
    /// For the jitter of pauses.
    pub(super) seed: u64,
}

impl Runner {
    /// The lane of an event. One for which the application has no answer is in one with all of
    /// those; its handler will say what is wrong.
    pub(super) fn lane(&self, event: &RecordedEvent) -> Arc<str> {
        guarded(|| (self.plan.lane)(event)).unwrap_or_else(|_| "".into())
    }

    /// Tries an event until it is acknowledged or a dead letter.
    ///
    /// # Cancel safety
    /// A dropped call may have handled it; it comes again.
    pub(super) async fn settle(&self, event: RecordedEvent, follower: &Follower) {
        let mut attempt = 0;
        loop {
            attempt += 1;
            certain(follower).await;
            match self.attempt(&event, attempt).await {
                Outcome::Ack => {
                    self.shown.acked.fetch_add(1, Ordering::Relaxed);
                    self.shown.clear_trouble(event.position);
                    return;
                }
                Outcome::Retry { after, reason } if attempt < self.plan.retry.attempts => {
                    self.shown.retried.fetch_add(1, Ordering::Relaxed);
                    if attempt == 1 {
                        tracing::warn!(
                            consumer = &*self.name, position = %event.position, reason,
                            "not handled; it is tried again"
                        );
                    }
                    self.shown.set_trouble(Some((event.position, reason)));
                    let random = mix(self.seed ^ event.position.get() ^ u64::from(attempt));
                    sleep(after.unwrap_or_else(|| self.plan.retry.pause(attempt, random))).await;
                }
                Outcome::Retry { reason, .. } => {
                    return self.bury(&event, FailureCause::Exhausted, reason, attempt).await;
                }
                Outcome::Fail { reason } => {
                    return self.bury(&event, FailureCause::Failed, reason, attempt).await;
                }
            }
        }
    }

    /// Hands an event to the handler once.
    pub(super) async fn attempt(&self, event: &RecordedEvent, attempt: u32) -> Outcome {
        let consumed = Consumed {
            consumer: Arc::clone(&self.name),
            event: event.clone(),
            attempt,
            redelivered: attempt > 1 || event.position <= self.repeats_to,
        };
        let handling = AssertUnwindSafe(async { (self.plan.handle)(consumed).await });
        match timeout(self.plan.deadline, handling.catch_unwind()).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(panic)) => Outcome::retry(format!("the handler panicked: {}", text_of(panic))),
            Err(_) => {
                Outcome::retry(format!("the handler took longer than {:?}", self.plan.deadline))
            }
        }
    }

    /// A dead letter was handled again: it is done with, or open as before.
    pub(super) async fn settle_letter(&self, message: &Arc<Message>, outcome: Outcome) {
        let Some(letter) = message.dead_letter() else { return };
        let (cause, reason) = match outcome {
            Outcome::Ack => {
                self.shown.acked.fetch_add(1, Ordering::Relaxed);
                while self.office.settle(letter).await.is_err() {
                    sleep(OFFICE_PAUSE).await;
                }
                return;
            }
            Outcome::Retry { reason, .. } => (FailureCause::Exhausted, reason),
            Outcome::Fail { reason } => (FailureCause::Failed, reason),
        };
        self.keep(Arc::clone(message), cause, reason, 1).await;
    }

    /// Makes it a dead letter, and returns when that is durable.
    pub(super) async fn bury(
        &self,
        event: &RecordedEvent,
        cause: FailureCause,
        reason: String,
        attempts: u32,
    ) {
        self.shown.dead.fetch_add(1, Ordering::Relaxed);
        tracing::warn!(
            consumer = &*self.name, position = %event.position, attempts, reason, "dead letter"
        );
        let subject: SubjectOf = subject_under("events");
        let subject = subject(event).unwrap_or_else(|| crate::bus::Subject::of(["events"]));
        let message = match event.size() > LETTER_BYTES {
            false => NewMessage::recorded(subject, event),
            true => {
                let (data, meta) = (Bytes::new(), Bytes::new());
                NewMessage::recorded(subject, &RecordedEvent { data, meta, ..event.clone() })
            }
        };
        self.keep(self.bus.stamp(message), cause, reason, attempts).await;
    }

    async fn keep(
        &self,
        message: Arc<Message>,
        cause: FailureCause,
        mut reason: String,
        attempts: u32,
    ) {
        reason.truncate(reason.floor_char_boundary(REASON_BYTES));
        let position = message.position().unwrap_or_default();
        let subscription = Arc::clone(&self.name);
        let letter = Undelivered { subscription, message, cause, reason, attempts };
        while let Err(error) = self.office.keep(letter.clone()).await {
            self.shown.set_trouble(Some((position, error.to_string())));
            sleep(OFFICE_PAUSE).await;
        }
        self.shown.clear_trouble(position);
    }
}

/// Returns when this node has the claim for certain. If another has it, never: this life ends.
async fn certain(follower: &Follower) {
    loop {
        match follower.assure().await {
            Ok(()) => return,
            Err(ClaimError::Store(_)) => sleep(OFFICE_PAUSE).await,
            Err(_) => std::future::pending().await,
        }
    }
}

/// A number that looks random (`splitmix64`, Steele, Lea and Flood 2014).
fn mix(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
