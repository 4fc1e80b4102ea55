//! The actor of one subscription: hands its messages to the handler, one after the other.
//!
//! Its mailbox is the subscription's queue and belongs to its slot, so that a crash loses nothing
//! that waits. What is in hand or waits for another try is in [`Held`], which the lives share. A
//! message ends in one of three ways: acknowledged, kept as a dead letter, or dropped by the
//! subscription's own overflow policy and counted.

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use mister_smith_supervisors::{Actor, Context, Failure, StartError, TaskGuard};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use uuid::Uuid;

use super::held::{Held, Item};
use super::latency::Latency;
use super::message::Message;
use super::subscription::{
    DeadLetterOffice, Delivery, FailureCause, Handler, Outcome, Policy, Undelivered,
};

/// The pause before a dead letter is kept again, when its office is out of order.
const OFFICE_PAUSE: Duration = Duration::from_millis(200);

/// What a subscription's actor can be told.
pub enum SubscriberMessage {
    /// Handle this.
    Deliver(Arc<Message>),
    /// A message's pause is over. Sent by the actor to itself.
    Due,
    /// End, when what came before is handled.
    Finish,
}

impl fmt::Debug for SubscriberMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Deliver(_) => "Deliver",
            Self::Due => "Due",
            Self::Finish => "Finish",
        })
    }
}

/// What all lives of a subscription's actor share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) latency: Latency,
    held: Mutex<Held>,
    pub(super) acked: AtomicU64,
    pub(super) retried: AtomicU64,
    pub(super) dead: AtomicU64,
}

impl Shared {
    pub(super) fn new(latency: Latency) -> Self {
        Self {
            latency,
            held: Mutex::default(),
            acked: AtomicU64::new(0),
            retried: AtomicU64::new(0),
            dead: AtomicU64::new(0),
        }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Messages that wait for their next try.
    pub(super) fn waiting(&self) -> usize {
        self.held().count()
    }
}

/// What a fresh start needs.
pub(super) struct SubscriberArgs<H> {
    pub(super) name: Arc<str>,
    pub(super) make: Arc<dyn Fn() -> H + Send + Sync>,
    pub(super) policy: Policy,
    /// Messages that may be held back before the mailbox is left alone.
    pub(super) capacity: usize,
    pub(super) shared: Arc<Shared>,
    pub(super) office: Arc<dyn DeadLetterOffice>,
}

impl<H> Clone for SubscriberArgs<H> {
    fn clone(&self) -> Self {
        Self {
            name: Arc::clone(&self.name),
            make: Arc::clone(&self.make),
            policy: self.policy.clone(),
            capacity: self.capacity,
            shared: Arc::clone(&self.shared),
            office: Arc::clone(&self.office),
        }
    }
}

/// The actor.
pub(super) struct SubscriberActor<H> {
    args: SubscriberArgs<H>,
    handler: H,
    /// There may be messages whose pause is over.
    holding: bool,
    finishing: bool,
    timer: Option<(Instant, TaskGuard)>,
}

impl<H: Handler> Actor for SubscriberActor<H> {
    type Message = SubscriberMessage;
    type Args = SubscriberArgs<H>;

    async fn start(args: &SubscriberArgs<H>, cx: &mut Context<Self>) -> Result<Self, StartError> {
        let shown = Arc::clone(&args.shared);
        cx.describe(move || match shown.waiting() {
            0 => format!("{} handled", shown.acked.load(Ordering::Relaxed)),
            waiting => format!(
                "{} handled   {waiting} to be tried again",
                shown.acked.load(Ordering::Relaxed)
            ),
        });
        let handler = (args.make)();
        let mut actor =
            Self { args: args.clone(), handler, holding: true, finishing: false, timer: None };
        // The life before ended with it in hand.
        let orphan = args.shared.held().put_down();
        if let Some(item) = orphan {
            let reason = "the subscriber crashed with it in hand".to_owned();
            let again = Outcome::Retry { after: None, reason };
            actor.settle(item, again, FailureCause::Crashed, cx).await;
        }
        if let Some(message) = actor.next_arrived() {
            let item = Item::new(message);
            args.shared.held().again(args.policy.order, item, Instant::now());
        }
        actor.set_timer(cx);
        Ok(actor)
    }

    async fn handle(
        &mut self,
        message: SubscriberMessage,
        cx: &mut Context<Self>,
    ) -> Result<(), Failure> {
        match message {
            SubscriberMessage::Deliver(message) if !self.holding => {
                self.run(Item::new(message), cx.taken_at_us(), cx).await;
            }
            SubscriberMessage::Deliver(message) => {
                self.args.shared.held().arrive(message);
                self.catch_up(cx).await;
                if let Some(message) = self.next_arrived() {
                    self.run(Item::new(message), cx.clock().wall_us(), cx).await;
                }
            }
            SubscriberMessage::Due => {
                self.timer = None;
                self.catch_up(cx).await;
            }
            SubscriberMessage::Finish => self.finishing = true,
        }
        // What is held back counts like what waits in the mailbox: beyond the capacity nothing
        // more is taken out of it.
        while self.holding && self.args.shared.waiting() >= self.args.capacity {
            self.wait_for_due().await;
            self.catch_up(cx).await;
        }
        if self.finishing && !self.holding {
            cx.stop();
        }
        self.set_timer(cx);
        Ok(())
    }

    fn message_name(message: &SubscriberMessage) -> &'static str {
        match message {
            SubscriberMessage::Deliver(_) => "Deliver",
            SubscriberMessage::Due => "Due",
            SubscriberMessage::Finish => "Finish",
        }
    }
}

impl<H: Handler> SubscriberActor<H> {
    /// The message that has just come, unless it has to wait behind others.
    fn next_arrived(&self) -> Option<Arc<Message>> {
        let mut held = self.args.shared.held();
        let message = held.take_arrived()?;
        held.queue(self.args.policy.order, message)
    }

    /// Tries again what is due.
    async fn catch_up(&mut self, cx: &Context<Self>) {
        loop {
            let next = self.args.shared.held().next_due(Instant::now());
            match next {
                Some(item) => self.run(item, cx.clock().wall_us(), cx).await,
                None => break,
            }
        }
        self.holding = self.args.shared.waiting() > 0;
    }

    async fn wait_for_due(&mut self) {
        let next = self.args.shared.held().next_at();
        if let Some(at) = next {
            sleep_until(at).await;
        }
    }

    /// A timer for the next lane, unless one runs.
    fn set_timer(&mut self, cx: &Context<Self>) {
        if !self.holding {
            self.timer = None;
            return;
        }
        let Some(at) = self.args.shared.held().next_at() else { return };
        if self.timer.as_ref().is_some_and(|(due, _)| *due <= at) {
            return;
        }
        let wait = cx.spawn_tell(async move {
            sleep_until(at).await;
            SubscriberMessage::Due
        });
        self.timer = Some((at, wait));
    }

    /// Hands a message to the handler and does what it says.
    async fn run(&mut self, mut item: Item, taken_us: i64, cx: &Context<Self>) {
        item.attempts += 1;
        if item.attempts == 1 {
            let took = taken_us - item.message.at().as_micros();
            // The clock of another node may be ahead of this one's.
            self.args.shared.latency.record(u64::try_from(took).unwrap_or(0));
        }
        let delivery = Delivery { message: Arc::clone(&item.message), attempt: item.attempts };
        self.args.shared.held().take_in_hand(item);
        let deadline = self.args.policy.deadline;
        let outcome = within(deadline, self.handler.handle(delivery)).await;
        let Some(item) = self.args.shared.held().put_down() else { return };
        let outcome = outcome.unwrap_or_else(|| Outcome::Retry {
            after: None,
            reason: format!("the subscriber took longer than {deadline:?}"),
        });
        self.settle(item, outcome, FailureCause::Exhausted, cx).await;
    }

    /// Does what came of a message. `exhausted` is the cause if there are no more tries.
    async fn settle(
        &mut self,
        mut item: Item,
        outcome: Outcome,
        exhausted: FailureCause,
        cx: &Context<Self>,
    ) {
        let shared = Arc::clone(&self.args.shared);
        match outcome {
            Outcome::Ack => {
                shared.acked.fetch_add(1, Ordering::Relaxed);
                if let Some(letter) = item.message.dead_letter() {
                    self.settle_letter(item, letter).await;
                }
            }
            Outcome::Retry { after, reason } if item.attempts < self.args.policy.retry.attempts => {
                shared.retried.fetch_add(1, Ordering::Relaxed);
                let pause = self.args.policy.retry.pause(item.attempts, cx.random_u64());
                item.reason = reason;
                let due = Instant::now() + after.unwrap_or(pause);
                shared.held().again(self.args.policy.order, item, due);
                self.holding = true;
            }
            Outcome::Retry { reason, .. } => self.bury(item, exhausted, reason).await,
            Outcome::Fail { reason } => self.bury(item, FailureCause::Failed, reason).await,
        }
    }

    /// Makes it a dead letter. Until that is durable it counts as in hand: a life that ends
    /// meanwhile leaves it to the next one.
    async fn bury(&mut self, item: Item, cause: FailureCause, reason: String) {
        let SubscriberArgs { name, shared, office, .. } = &self.args;
        shared.dead.fetch_add(1, Ordering::Relaxed);
        tracing::warn!(
            subscription = &**name, subject = %item.message.subject(), id = %item.message.id(),
            attempts = item.attempts, reason, "dead letter"
        );
        let letter = Undelivered {
            subscription: Arc::clone(name),
            message: Arc::clone(&item.message),
            cause,
            reason,
            attempts: item.attempts,
        };
        shared.held().take_in_hand(item);
        while let Err(error) = office.keep(letter.clone()).await {
            tracing::warn!(subscription = &**name, %error);
            sleep(OFFICE_PAUSE).await;
        }
        let _ = shared.held().put_down();
    }

    /// Tells the office that a dead letter has been handled after all.
    async fn settle_letter(&mut self, item: Item, letter: Uuid) {
        let SubscriberArgs { name, shared, office, .. } = &self.args;
        shared.held().take_in_hand(item);
        while let Err(error) = office.settle(letter).await {
            tracing::warn!(subscription = &**name, %error);
            sleep(OFFICE_PAUSE).await;
        }
        let _ = shared.held().put_down();
    }
}

/// Waits for a future, at most this long. A handler that is done at once costs no timer.
async fn within<F: Future>(deadline: Duration, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    let early = poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending => Poll::Ready(None),
    })
    .await;
    match early {
        Some(output) => Some(output),
        None => timeout(deadline, future).await.ok(),
    }
}
