//! The actor of one subscription: hands its messages to the handler, one after the other.
//!
//! Its mailbox is the subscription's queue and belongs to its slot, so that a crash loses nothing
//! that waits. What is in hand or waits for another try is in [`Held`], which the lives share. A
//! message ends in one of three ways: acknowledged, kept as a dead letter, or dropped by the
//! subscription's own overflow policy and counted.

use std::fmt;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mister_smith_supervisors::{Actor, ClockAnchor, Context, Failure, StartError, TaskGuard};
use tokio::time::{Instant, sleep_until};

use super::held::{Held, Item};
use super::latency::Latency;
use super::message::Message;
use super::subscription::Order;
use crate::guarded::guarded;
use crate::settle::{Counts, Delivery, Handler, Settler, Source, Tried, Verdict};

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
    pub(super) counts: Arc<Counts>,
}

impl Shared {
    pub(super) fn new(latency: Latency) -> Self {
        Self { latency, held: Mutex::default(), counts: Arc::default() }
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
    pub(super) make: Arc<dyn Fn() -> H + Send + Sync>,
    pub(super) order: Order,
    /// Messages that may be held back before the mailbox is left alone.
    pub(super) capacity: usize,
    pub(super) shared: Arc<Shared>,
    pub(super) settler: Settler,
}

impl<H> Clone for SubscriberArgs<H> {
    fn clone(&self) -> Self {
        Self {
            make: Arc::clone(&self.make),
            order: self.order,
            capacity: self.capacity,
            shared: Arc::clone(&self.shared),
            settler: self.settler.clone(),
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
    anchor: ClockAnchor,
}

impl<H: Handler> Actor for SubscriberActor<H> {
    type Message = SubscriberMessage;
    type Args = SubscriberArgs<H>;

    async fn start(args: &SubscriberArgs<H>, cx: &mut Context<Self>) -> Result<Self, StartError> {
        let shown = Arc::clone(&args.shared);
        cx.describe(move || {
            let handled = shown.counts.acked.load(Ordering::Relaxed);
            match shown.waiting() {
                0 => format!("{handled} handled"),
                waiting => format!("{handled} handled   {waiting} to be tried again"),
            }
        });
        let handler = (args.make)();
        let mut actor = Self {
            args: args.clone(),
            handler,
            holding: true,
            finishing: false,
            timer: None,
            anchor: ClockAnchor::default(),
        };
        // The life before ended with it in hand.
        let orphan = args.shared.held().put_down();
        if let Some(item) = orphan {
            let tried = Tried::crashed("the subscriber ended with it in hand");
            actor.settle(item, tried).await;
        }
        if let Some(message) = actor.next_arrived() {
            let item = Item::new(message);
            args.shared.held().again(args.order, item, Instant::now());
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
                let taken_us = cx.taken_at_us(&mut self.anchor);
                self.run(Item::new(message), taken_us).await?;
            }
            SubscriberMessage::Deliver(message) => {
                self.args.shared.held().arrive(message);
                self.catch_up(cx).await?;
                if let Some(message) = self.next_arrived() {
                    self.run(Item::new(message), cx.clock().wall_us()).await?;
                }
            }
            SubscriberMessage::Due => {
                self.timer = None;
                self.catch_up(cx).await?;
            }
            SubscriberMessage::Finish => {
                self.finishing = true;
                self.catch_up(cx).await?;
            }
        }
        // What is held back counts like what waits in the mailbox: beyond the capacity nothing
        // more is taken out of it.
        while self.holding && self.args.shared.waiting() >= self.args.capacity {
            self.wait_for_due().await;
            self.catch_up(cx).await?;
        }
        if self.finishing && !self.holding && cx.address().depth() == 0 {
            cx.stop();
        }
        if self.holding || self.timer.is_some() {
            self.set_timer(cx);
        }
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
        held.queue(self.args.order, message)
    }

    /// Tries again what is due.
    async fn catch_up(&mut self, cx: &Context<Self>) -> Result<(), Failure> {
        loop {
            let next = self.args.shared.held().next_due(Instant::now());
            match next {
                Some(item) => self.run(item, cx.clock().wall_us()).await?,
                None => break,
            }
        }
        self.holding = self.args.shared.waiting() > 0;
        Ok(())
    }

    async fn wait_for_due(&mut self) {
        let next = self.args.shared.held().next_at();
        if let Some(at) = next {
            sleep_until(at).await;
        }
    }

    /// A timer for the next lane, unless one runs.
    fn set_timer(&mut self, cx: &Context<Self>) {
        let next = self.args.shared.held().next_at();
        let Some(at) = next.filter(|_| self.holding) else {
            self.timer = None;
            return;
        };
        // One that has rung and is not heard found no room in the mailbox.
        let runs = |(due, _): &(Instant, TaskGuard)| *due <= at && *due > Instant::now();
        if self.timer.as_ref().is_some_and(runs) {
            return;
        }
        let wait = cx.spawn_tell(async move {
            sleep_until(at).await;
            SubscriberMessage::Due
        });
        self.timer = Some((at, wait));
    }

    /// Hands a message to the handler and does what it says. A handler that panicked is made anew.
    async fn run(&mut self, mut item: Item, taken_us: i64) -> Result<(), Failure> {
        let Self { args, handler, .. } = &*self;
        item.attempts += 1;
        if item.attempts == 1 {
            let took = taken_us - item.message.at().as_micros();
            // The clock of another node may be ahead of this one's.
            args.shared.latency.record(u64::try_from(took).unwrap_or(0));
        }
        let delivery = Delivery {
            message: Arc::clone(&item.message),
            handler: Arc::clone(&args.settler.name),
            attempt: item.attempts,
            redelivered: item.attempts > 1,
            source: Source::Bus,
        };
        // Only one that has to be waited for can be interrupted.
        let mut item = Some(item);
        let pending = || {
            if let Some(item) = item.take() {
                args.shared.held().take_in_hand(item);
            }
        };
        let tried = args.settler.attempt(handler, delivery, pending).await;
        let panicked = tried.panicked();
        let item = match item {
            Some(item) => item,
            None => match args.shared.held().put_down() {
                Some(item) => item,
                None => return Ok(()),
            },
        };
        self.settle(item, tried).await;
        if panicked {
            let made = guarded(|| (self.args.make)());
            self.handler = made.map_err(|panic| {
                Failure::permanent(format!("the handler could not be made anew: {panic}"))
            })?;
        }
        Ok(())
    }

    /// Does what came of a message. Until that is durable it counts as in hand: a life that ends
    /// meanwhile leaves it to the next one.
    async fn settle(&mut self, item: Item, tried: Tried) {
        let SubscriberArgs { settler, shared, order, .. } = &self.args;
        let (message, attempts) = (Arc::clone(&item.message), item.attempts);
        if attempts == 1 && settler.is_done_at_once(&tried, &message) {
            return;
        }
        shared.held().take_in_hand(item.clone());
        let verdict = settler.judge(tried, &message, attempts).await;
        match verdict {
            Verdict::Done => settler.settle_letter(&message).await,
            Verdict::Again { after } => {
                let mut held = shared.held();
                let _ = held.put_down();
                held.again(*order, item, Instant::now() + after);
                drop(held);
                self.holding = true;
                return;
            }
            Verdict::Bury { cause, reason } => {
                settler.bury(&message, cause, reason, attempts).await;
            }
        }
        let _ = shared.held().put_down();
    }
}
