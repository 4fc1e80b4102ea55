//! The one who tries a message, judges what came of it, and buries it.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use mister_smith_supervisors::ErrorClass;
use tokio::time::sleep;
use uuid::Uuid;

use super::{
    Counts, DeadLetterOffice, Delivery, FailureCause, Handled, Handler, OfficeError, Outcome,
    RetryPolicy, Trouble, Undelivered,
};
use crate::bus::queue::Sender;
use crate::bus::wire::WireMessage;
use crate::bus::{Message, splitmix};
use crate::guarded::{Broken, guarded_within};

/// Dead letters of one handler that are sent again and wait for their turn, at most.
pub(crate) const MOST_AGAIN: usize = 1_000;

/// The pause before a dead letter is handed in, or a result is sent, again.
const AGAIN: Duration = Duration::from_millis(200);

/// How long an office may take for one letter; then it counts as out of order.
const OFFICE_DEADLINE: Duration = Duration::from_secs(60);

/// How long a queue may take for the results of one message; then it is asked again.
const SEND_DEADLINE: Duration = Duration::from_secs(60);

/// The longest pause before a message is tried again.
const LONGEST_PAUSE: Duration = Duration::from_secs(365 * 86_400);

/// The most of a reason that is kept, in bytes.
const REASON_BYTES: usize = 64 << 10;

/// How the messages of one handler are settled. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Settler {
    /// Whose messages they are.
    pub(crate) name: Arc<str>,
    pub(crate) retry: RetryPolicy,
    /// How long a try may take.
    pub(crate) deadline: Duration,
    pub(crate) office: Arc<dyn DeadLetterOffice>,
    /// Where what messages lead to is sent.
    pub(crate) results: Option<Arc<dyn Sender>>,
    pub(crate) counts: Arc<Counts>,
    /// For the jitter of pauses.
    pub(crate) seed: u64,
}

/// What came of one try.
#[derive(Debug)]
pub(crate) struct Tried(Result<Handled, Broken>);

impl Tried {
    /// Whether the handler may be in no state to go on.
    pub(crate) fn panicked(&self) -> bool {
        matches!(self.0, Err(Broken::Panicked(_)))
    }

    /// A try that ended with its life.
    pub(crate) fn crashed(reason: &str) -> Self {
        Self(Err(Broken::Panicked(reason.to_owned())))
    }
}

impl From<Outcome> for Tried {
    fn from(outcome: Outcome) -> Self {
        Self(Ok(outcome.into()))
    }
}

/// What is to be done with a message after a try.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is done, and what it led to is sent.
    Done,
    /// It is tried again.
    Again {
        /// After this long.
        after: Duration,
    },
    /// It becomes a dead letter.
    Bury { cause: FailureCause, reason: String },
}

impl Settler {
    /// Hands a message to the handler once. `pending` hears when that is not done at once.
    ///
    /// # Cancel safety
    /// A dropped call may have had its effect.
    pub(crate) async fn attempt<H: Handler>(
        &self,
        handler: &H,
        delivery: Delivery,
        pending: impl FnOnce(),
    ) -> Tried {
        Tried(guarded_within(self.deadline, || handler.handle(delivery), pending).await)
    }

    /// Whether a first try is done, with nothing left to send or to tell. Then it is counted here,
    /// and there is nothing to judge: the usual way, and a short one.
    pub(crate) fn is_done_at_once(&self, tried: &Tried, message: &Message) -> bool {
        let done = match &tried.0 {
            Ok(Handled { outcome: Outcome::Ack, results }) => results.is_empty(),
            _ => false,
        };
        let done = done && message.dead_letter().is_none();
        if done {
            Counts::add(&self.counts.acked);
        }
        done
    }

    /// What is to be done after try number `attempts`. What the message led to is sent here.
    ///
    /// # Cancel safety
    /// A dropped call may have sent results; the next try sends them again.
    pub(crate) async fn judge(&self, tried: Tried, message: &Message, attempts: u32) -> Verdict {
        let (outcome, exhausted) = match tried.0 {
            Ok(Handled { outcome: Outcome::Ack, results }) if !results.is_empty() => {
                (self.send(&results, message).await, FailureCause::Exhausted)
            }
            Ok(Handled { outcome, .. }) => (outcome, FailureCause::Exhausted),
            Err(broken @ Broken::Panicked(_)) => {
                (Outcome::retry(format!("the handler crashed: {broken}")), FailureCause::Crashed)
            }
            Err(broken @ Broken::Late(_)) => (
                Outcome::retry(format!("the handler was given up: {broken}")),
                FailureCause::Exhausted,
            ),
        };
        match outcome {
            Outcome::Ack => {
                Counts::add(&self.counts.acked);
                self.counts.clear_trouble(message.id());
                Verdict::Done
            }
            Outcome::Retry { after, reason } if attempts < self.retry.attempts => {
                Counts::add(&self.counts.retried);
                if attempts <= 1 {
                    tracing::warn!(
                        handler = &*self.name, subject = %message.subject(), id = %message.id(),
                        reason, "not handled; it is tried again"
                    );
                }
                self.trouble_with(message, reason);
                let pause = || self.pause(message, attempts);
                Verdict::Again { after: after.unwrap_or_else(pause).min(LONGEST_PAUSE) }
            }
            Outcome::Retry { reason, .. } => Verdict::Bury { cause: exhausted, reason },
            Outcome::Fail { reason } => Verdict::Bury { cause: FailureCause::Failed, reason },
        }
    }

    /// Tries a message, here and with all its pauses, until it is done or a dead letter. `before`
    /// is waited for before each try. Answers as [`bury`](Self::bury) does.
    ///
    /// # Cancel safety
    /// A dropped call may have had its effect.
    pub(crate) async fn run<H: Handler, B: Future<Output = ()>>(
        &self,
        handler: &H,
        mut delivery: Delivery,
        before: impl Fn() -> B,
    ) -> bool {
        let message = Arc::clone(&delivery.message);
        loop {
            before().await;
            let tried = self.attempt(handler, delivery.clone(), || ()).await;
            match self.judge(tried, &message, delivery.attempt).await {
                Verdict::Done => {
                    self.settle_letter(&message).await;
                    return true;
                }
                Verdict::Again { after } => sleep(after).await,
                Verdict::Bury { cause, reason } => {
                    return self.bury(&message, cause, reason, delivery.attempt).await;
                }
            }
            delivery.attempt += 1;
            delivery.redelivered = true;
        }
    }

    /// Tries the message of a dead letter once more, and no second time: a person decided about this
    /// one. The letter is done with then, or open as before.
    ///
    /// # Cancel safety
    /// A dropped call may have had its effect.
    pub(crate) async fn run_again<H: Handler>(
        &self,
        handler: &H,
        letter: &Arc<Message>,
        delivery: Delivery,
    ) {
        let delivery = Delivery { redelivered: true, ..delivery };
        let tried = self.attempt(handler, delivery, || ()).await;
        match self.judge(tried, letter, u32::MAX).await {
            Verdict::Done => self.settle_letter(letter).await,
            Verdict::Again { .. } => {}
            Verdict::Bury { cause, reason } => {
                self.bury(letter, cause, reason, 1).await;
            }
        }
    }

    /// Gives the message of a dead letter back untried, because [`MOST_AGAIN`] others wait.
    pub(crate) async fn give_back(&self, letter: &Arc<Message>) {
        let reason = format!("{MOST_AGAIN} were sent again already; send it again later");
        self.bury(letter, FailureCause::Exhausted, reason, 0).await;
    }

    /// A policy's pause, with jitter that the message and the try decide.
    fn pause(&self, message: &Message, attempts: u32) -> Duration {
        let low = message.id().as_uuid().as_u64_pair().1;
        self.retry.pause(attempts, splitmix(self.seed ^ low ^ u64::from(attempts)))
    }

    /// Sends what a message led to. A queue that cannot be reached is waited for: the handler has
    /// done its part, and is not asked again.
    async fn send(&self, results: &[WireMessage], message: &Message) -> Outcome {
        let Some(queue) = &self.results else {
            let count = results.len();
            return Outcome::fail(format!(
                "it led to {count} messages, and there is no queue for them; start the handler \
                 with one for its results"
            ));
        };
        let mut rest = results;
        loop {
            let sent = guarded_within(SEND_DEADLINE, || queue.send(rest), || ()).await;
            let error = match sent {
                Ok(Ok(_)) => return Outcome::Ack,
                Ok(Err(error)) => {
                    // Those are in it; sent again they would be in it twice, one day.
                    rest = rest.get(error.sent..).unwrap_or_default();
                    if error.source.class() != ErrorClass::Transient {
                        return Outcome::fail(error);
                    }
                    error.to_string()
                }
                Err(broken @ Broken::Panicked(_)) => return Outcome::fail(broken),
                Err(broken @ Broken::Late(_)) => broken.to_string(),
            };
            if rest.is_empty() {
                return Outcome::Ack;
            }
            self.trouble_with(message, format!("its results wait: {error}"));
            sleep(AGAIN).await;
        }
    }

    /// Makes a message a dead letter, and returns when that is durable, however long that takes.
    /// `false` if the office refuses it for good: then it is counted, logged, and nowhere else than
    /// where it came from.
    ///
    /// # Cancel safety
    /// A dropped call may have kept it; one letter of one message is kept once.
    pub(crate) async fn bury(
        &self,
        message: &Arc<Message>,
        cause: FailureCause,
        mut reason: String,
        attempts: u32,
    ) -> bool {
        Counts::add(&self.counts.dead);
        reason.truncate(reason.floor_char_boundary(REASON_BYTES));
        tracing::warn!(
            handler = &*self.name, subject = %message.subject(), id = %message.id(),
            position = message.position().map(|at| at.get()), attempts, reason, "dead letter"
        );
        let (subscription, message) = (Arc::clone(&self.name), Arc::clone(message));
        let letter = Undelivered { subscription, message, cause, reason, attempts };
        let kept = self.hand_in(&letter.message, || self.office.keep(letter.clone())).await;
        if let Err(error) = &kept {
            Counts::add(&self.counts.refused);
            tracing::error!(
                handler = &*self.name, subject = %letter.message.subject(),
                id = %letter.message.id(), reason = letter.reason, %error,
                "a message could not be handled, and its dead letter was refused for good"
            );
        }
        kept.is_ok()
    }

    /// Tells the office that the message of a dead letter has been handled after all, if it is one.
    pub(crate) async fn settle_letter(&self, message: &Message) {
        let Some(letter) = message.dead_letter() else { return };
        self.settled(message, letter).await;
    }

    async fn settled(&self, message: &Message, letter: Uuid) {
        if let Err(error) = self.hand_in(message, || self.office.settle(letter)).await {
            tracing::error!(
                handler = &*self.name, %letter, %error,
                "a message was handled, and its dead letter stays as it is"
            );
        }
    }

    /// Asks the office until it answers: that it is done, or that it never will be.
    async fn hand_in<F>(&self, message: &Message, ask: impl Fn() -> F) -> Result<(), OfficeError>
    where
        F: Future<Output = Result<(), OfficeError>>,
    {
        loop {
            let answer = guarded_within(OFFICE_DEADLINE, &ask, || ()).await;
            let error = match answer {
                Ok(Ok(())) => {
                    self.counts.clear_trouble(message.id());
                    return Ok(());
                }
                Ok(Err(error)) => error,
                Err(broken @ Broken::Panicked(_)) => {
                    OfficeError::new(ErrorClass::Permanent, broken)
                }
                Err(broken @ Broken::Late(_)) => OfficeError::new(ErrorClass::Transient, broken),
            };
            self.trouble_with(message, error.to_string());
            match error.class {
                ErrorClass::Transient | ErrorClass::System => sleep(AGAIN).await,
                ErrorClass::Permanent | ErrorClass::User => return Err(error),
            }
        }
    }

    fn trouble_with(&self, message: &Message, reason: String) {
        let (id, position) = (message.id(), message.position());
        self.counts.set_trouble(Trouble { message: id, position, reason });
    }
}
