//! The actor of a consumer: takes the name, reads pages, keeps the place.
//!
//! A page is handled in a task beside the mailbox, so that the actor answers, renews its claim and
//! stops at once, however long a handler takes. The task ends with this life; what it had not
//! settled comes again in the next.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use mister_smith_supervisors::{
    Actor, Context, ErrorClass, Failure, Health, ReplyPort, StartError, SupervisedComponent,
    SupervisionMetadata, TaskGuard,
};
use tokio::sync::watch;

use super::page::{Runner, Shown};
use super::{Begin, Consumer, ConsumerError};
use crate::bus::{DeadLetterOffice, EventBus, Message, Outcome};
use crate::component;
use crate::event::{Position, RecordedEvent};
use crate::pool::{Lease, lease_at_start, store_failure};
use crate::projection::ProjectionError;
use crate::store::read_model::claim::{Claim, LEASE};

/// The note that it has begun, and where.
const BEGUN: &str = "begun";

/// Positions of the log that may be passed over without a checkpoint.
const PASSED_OVER: u64 = 10_000;

/// What a consumer can be told.
pub enum ConsumerMessage {
    /// There may be something to do. Sent by the actor to itself.
    Continue,
    /// Say that it is alive. Sent by the actor to itself.
    Renew,
    /// A run was handled: its number, and what was not begun of it. Sent by the actor to itself.
    Handled(u64, Vec<RecordedEvent>),
    /// Go back, or ahead. Answers after which event it goes on.
    Replay(Begin, ReplyPort<Result<Position, ConsumerError>>),
    /// Stop handling events, or go on.
    Pause(bool),
    /// A dead letter is to be handled again.
    Again(Arc<Message>),
    /// What came of it. Sent by the actor to itself.
    AgainDone(u64),
}

impl ConsumerMessage {
    fn name(&self) -> &'static str {
        match self {
            Self::Continue => "Continue",
            Self::Renew => "Renew",
            Self::Handled(..) => "Handled",
            Self::Replay(..) => "Replay",
            Self::Pause(_) => "Pause",
            Self::Again(_) => "Again",
            Self::AgainDone(_) => "AgainDone",
        }
    }
}

impl fmt::Debug for ConsumerMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a fresh start needs.
#[derive(Clone)]
pub struct ConsumerArgs {
    pub(super) consumer: Consumer,
    pub(super) pool: Arc<str>,
    pub(super) owner: Arc<str>,
    pub(super) head: watch::Receiver<Position>,
    pub(super) bus: EventBus,
    pub(super) office: Arc<dyn DeadLetterOffice>,
    pub(super) shown: Arc<Shown>,
    /// How far it is, for those who wait.
    pub(super) done: Arc<watch::Sender<Position>>,
}

/// The actor.
pub struct ConsumerActor {
    args: ConsumerArgs,
    lease: Lease,
    claim: Option<Claim>,
    runner: Runner,
    /// Everything up to here is settled, and written so up to `saved`.
    at: Position,
    saved: Position,
    /// The page that is handled goes up to here.
    page_to: Position,
    running: Option<TaskGuard>,
    /// Counts the runs of this life.
    run: u64,
    /// What was not begun of the page when the consumer was paused.
    left: Vec<RecordedEvent>,
    waiting: Option<TaskGuard>,
    renewal: Option<TaskGuard>,
    again: Vec<(u64, TaskGuard)>,
    agains: u64,
}

impl Actor for ConsumerActor {
    type Message = ConsumerMessage;
    type Args = ConsumerArgs;

    async fn start(args: &ConsumerArgs, cx: &mut Context<Self>) -> Result<Self, StartError> {
        let lease = lease_at_start(cx, &args.pool).await?;
        let (shown, head) = (Arc::clone(&args.shown), args.head.clone());
        cx.describe(move || describe(&shown, head.borrow().get()));
        let runner = Runner {
            name: Arc::clone(&args.consumer.name),
            plan: args.consumer.plan.clone(),
            bus: args.bus.clone(),
            office: Arc::clone(&args.office),
            shown: Arc::clone(&args.shown),
            repeats_to: Position::ZERO,
            seed: cx.random_u64(),
        };
        Ok(Self {
            args: args.clone(),
            lease,
            claim: None,
            runner,
            at: Position::ZERO,
            saved: Position::ZERO,
            page_to: Position::ZERO,
            running: None,
            run: 0,
            left: Vec::new(),
            waiting: Some(cx.tell_after(Duration::ZERO, ConsumerMessage::Continue)),
            renewal: None,
            again: Vec::new(),
            agains: 0,
        })
    }

    async fn handle(
        &mut self,
        message: ConsumerMessage,
        cx: &mut Context<Self>,
    ) -> Result<(), Failure> {
        match message {
            ConsumerMessage::Continue => self.go_on(cx).await.map_err(failure)?,
            ConsumerMessage::Renew => self.renew(cx).await.map_err(failure)?,
            ConsumerMessage::Handled(run, left) if run == self.run => {
                self.running = None;
                self.settled(left, true, cx).await.map_err(failure)?;
            }
            // It was given up for a replay, when its end was under way already.
            ConsumerMessage::Handled(..) => {}
            ConsumerMessage::Pause(paused) => {
                self.args.shown.paused.store(paused, Ordering::Relaxed);
                self.go_on(cx).await.map_err(failure)?;
            }
            ConsumerMessage::Replay(begin, reply) => {
                let answer = self.replay(begin).await;
                let fenced = matches!(&answer, Err(ConsumerError::Store(_)));
                reply.send(answer);
                if fenced {
                    return Err(Failure::transient("the place could not be kept"));
                }
                self.go_on(cx).await.map_err(failure)?;
            }
            ConsumerMessage::Again(message) => self.again(message, cx),
            ConsumerMessage::AgainDone(number) => self.again.retain(|(one, _)| *one != number),
        }
        Ok(())
    }

    fn message_name(message: &ConsumerMessage) -> &'static str {
        message.name()
    }
}

impl ConsumerActor {
    /// Begins the next page, if there is one and none is under way.
    async fn go_on(&mut self, cx: &Context<Self>) -> Result<(), ProjectionError> {
        if self.running.is_some() || (self.claim.is_none() && !self.take(cx).await?) {
            return Ok(());
        }
        if self.args.shown.paused.load(Ordering::Relaxed) {
            self.waiting = None;
            return Ok(());
        }
        if !self.left.is_empty() {
            let left = std::mem::take(&mut self.left);
            self.begin(left, cx);
            return Ok(());
        }
        let Consumer { filter, page, .. } = &self.args.consumer;
        let mut page = self.lease.store.read_matching(filter, self.at, *page).await?;
        page.events.retain(|event| !filter.is_feedback(&event.stream));
        if page.scanned_to <= self.at {
            self.wait(cx);
            return Ok(());
        }
        self.page_to = page.scanned_to;
        match page.events.is_empty() {
            true => self.settled(Vec::new(), false, cx).await,
            false => {
                self.begin(page.events, cx);
                Ok(())
            }
        }
    }

    fn begin(&mut self, events: Vec<RecordedEvent>, cx: &Context<Self>) {
        self.run += 1;
        let (runner, run) = (self.runner.clone(), self.run);
        self.running = Some(
            cx.spawn_tell(async move { ConsumerMessage::Handled(run, runner.run(events).await) }),
        );
    }

    /// A page was settled, apart from what is left of it: its place is kept, and the rest comes
    /// next. Where nothing was handled, the place can be found again.
    async fn settled(
        &mut self,
        left: Vec<RecordedEvent>,
        handled: bool,
        cx: &Context<Self>,
    ) -> Result<(), ProjectionError> {
        self.at = match left.first() {
            Some(first) => Position::new(first.position.get() - 1),
            None => self.page_to,
        };
        if handled || self.at.get() - self.saved.get() >= PASSED_OVER {
            self.save().await?;
        }
        self.args.shown.at.store(self.at.get(), Ordering::Relaxed);
        self.args.done.send_replace(self.at);
        self.left = left;
        // Through the mailbox, so that a stop does not wait for the whole log.
        self.waiting = Some(cx.tell_after(Duration::ZERO, ConsumerMessage::Continue));
        Ok(())
    }

    async fn save(&mut self) -> Result<(), ProjectionError> {
        if let Some(claim) = &self.claim {
            claim.save(self.at, []).await?;
            self.saved = self.at;
        }
        Ok(())
    }

    /// Takes the name, and finds out where to go on.
    async fn take(&mut self, cx: &Context<Self>) -> Result<bool, ProjectionError> {
        let name = format!("$consumer.{}", self.args.consumer.name);
        let taken = Claim::take(&self.lease.documents, name, &self.args.owner).await?;
        let shown = Arc::clone(&self.args.shown);
        shown.standby.store(taken.is_none(), Ordering::Relaxed);
        let Some((claim, mut at)) = taken else {
            self.waiting = Some(cx.tell_after(LEASE / 3, ConsumerMessage::Continue));
            return Ok(false);
        };
        if claim.note(BEGUN).await?.is_none() {
            at = self.place(self.args.consumer.begin).await?;
            claim.save(at, [begun(at)]).await?;
        }
        // An earlier life handled some of what was there then, maybe.
        self.runner.repeats_to = self.lease.store.head().await?;
        self.claim = Some(claim);
        (self.at, self.saved) = (at, at);
        shown.at.store(at.get(), Ordering::Relaxed);
        self.args.done.send_replace(at);
        if self.lease.shared {
            self.renewal = Some(cx.tell_after(LEASE / 3, ConsumerMessage::Renew));
        }
        Ok(true)
    }

    /// After which event one goes on who begins there.
    async fn place(&self, begin: Begin) -> Result<Position, ProjectionError> {
        let store = &self.lease.store;
        Ok(match begin {
            Begin::Beginning => Position::ZERO,
            Begin::End => store.head().await?,
            Begin::After(position) => position.min(store.head().await?),
            Begin::At(time) => store.position_at(time).await?,
        })
    }

    /// A claim that was lost ends this life.
    async fn renew(&mut self, cx: &Context<Self>) -> Result<(), ProjectionError> {
        self.save().await?;
        self.renewal = Some(cx.tell_after(LEASE / 3, ConsumerMessage::Renew));
        Ok(())
    }

    async fn replay(&mut self, begin: Begin) -> Result<Position, ConsumerError> {
        let Some(claim) = &self.claim else {
            let name = self.args.consumer.name.to_string();
            return Err(ConsumerError::Standby { name });
        };
        let at = self.place(begin).await?;
        claim.save(at, [begun(at)]).await?;
        (self.running, self.left) = (None, Vec::new());
        self.run += 1;
        (self.at, self.saved) = (at, at);
        self.runner.repeats_to = self.lease.store.head().await.map_err(ProjectionError::from)?;
        self.args.shown.at.store(at.get(), Ordering::Relaxed);
        self.args.done.send_replace(at);
        Ok(at)
    }

    fn wait(&mut self, cx: &Context<Self>) {
        let (mut head, at) = (self.args.head.clone(), self.at);
        self.waiting = Some(cx.spawn_tell(async move {
            if head.wait_for(|head| *head > at).await.is_err() {
                // The node is ending.
                std::future::pending::<()>().await;
            }
            ConsumerMessage::Continue
        }));
    }

    /// A dead letter comes again, beside the others: they have gone on long ago.
    fn again(&mut self, message: Arc<Message>, cx: &Context<Self>) {
        self.agains += 1;
        let number = self.agains;
        let (runner, store) = (self.runner.clone(), Arc::clone(&self.lease.store));
        let handling = cx.spawn_tell(async move {
            let outcome = match super::handle::event_of(&*store, &message).await {
                Ok(event) => runner.attempt(&event, 1).await,
                Err(reason) => Outcome::fail(reason),
            };
            runner.settle_letter(&message, outcome).await;
            ConsumerMessage::AgainDone(number)
        });
        self.again.push((number, handling));
    }
}

fn begun(at: Position) -> (Arc<str>, Option<bytes::Bytes>) {
    (BEGUN.into(), Some(format!("{{\"after\":{at}}}").into()))
}

fn describe(shown: &Shown, head: u64) -> String {
    if shown.standby.load(Ordering::Relaxed) {
        return "standby: another node has it".to_owned();
    }
    let pending = head.saturating_sub(shown.at.load(Ordering::Relaxed));
    let paused = if shown.paused.load(Ordering::Relaxed) { "paused   " } else { "" };
    match shown.trouble() {
        Some((at, reason)) => format!("{paused}{pending} pending   event {at}: {reason}"),
        None => format!("{paused}{pending} pending"),
    }
}

impl SupervisedComponent for ConsumerActor {
    type Handover = ();

    async fn health_check(&mut self, _: &mut Context<Self>) -> Health {
        match self.args.shown.trouble() {
            None => Health::Healthy,
            Some((at, reason)) => Health::degraded(format!("event {at}: {reason}")),
        }
    }

    fn supervision_metadata(_: &ConsumerArgs) -> SupervisionMetadata {
        SupervisionMetadata::of(component::PROJECTION)
    }
}

impl fmt::Debug for ConsumerActor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConsumerActor")
            .field("name", &self.args.consumer.name)
            .field("at", &self.at)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for ConsumerArgs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConsumerArgs").field("consumer", &self.consumer).finish_non_exhaustive()
    }
}

fn failure(error: ProjectionError) -> Failure {
    match error {
        ProjectionError::Store(error) => store_failure(error),
        other => Failure::wrap(ErrorClass::Transient, other),
    }
}
