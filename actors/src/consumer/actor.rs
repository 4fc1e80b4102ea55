//! The actor of a consumer: keeps a window of events in hand, and the place.
//!
//! Events are handled in tasks beside the mailbox, so that the actor answers and stops at once,
//! however long a handler takes; the claim is renewed beside both. The tasks end with this life;
//! what they had not settled comes again in the next.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use mister_smith_supervisors::{
    Actor, Context, ExitReason, Failure, Health, ReplyPort, StartError, SupervisedComponent,
    SupervisionMetadata, TaskGuard,
};
use tokio::sync::{Semaphore, watch};

use super::runner::Runner;
use super::{Begin, Consumer, ConsumerError};
use crate::bus::{DeadLetterOffice, EventBus, Message};
use crate::component;
use crate::event::{Position, RecordedEvent};
use crate::pool::{Lease, lease_at_start};
use crate::settle::{Counts, MOST_AGAIN, Settler};
use crate::store::StoreError;
use crate::store::claims::{ClaimError, Note, Request};
use crate::store::follow::window::{Bounds, Mark, Window};
use crate::store::follow::{Cursor, Follow, Follower, MARK, Shown, Step, failure};

/// The note that it has begun, and where.
const BEGUN: &str = "begun";

/// Events that may wait in memory, behind others of their lanes.
pub const WINDOW: usize = 1_000;

/// Their size in bytes.
const WINDOW_BYTES: usize = 16 << 20;

/// What a consumer can be told.
pub enum ConsumerMessage {
    /// What comes next in the log. Sent by the actor to itself.
    Next(Box<Result<Step, ClaimError>>),
    /// An event is settled. Sent by the actor to itself.
    Settled(Cursor, Position),
    /// Another node has taken over, or the store is gone. Sent by the actor to itself.
    Lost(ClaimError),
    /// Go back, or ahead. Answers after which event it goes on.
    Replay(Begin, ReplyPort<Result<Position, ConsumerError>>),
    /// Do what is asked, on whichever node.
    Ask(Request, ReplyPort<Result<(), ConsumerError>>),
    /// A dead letter is to be handled again.
    Again(Arc<Message>),
    /// What came of it. Sent by the actor to itself.
    AgainDone(u64),
}

impl ConsumerMessage {
    fn name(&self) -> &'static str {
        match self {
            Self::Next(_) => "Next",
            Self::Settled(..) => "Settled",
            Self::Lost(_) => "Lost",
            Self::Replay(..) => "Replay",
            Self::Ask(..) => "Ask",
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
    pub(super) counts: Arc<Counts>,
    /// How far it is, for those who wait.
    pub(super) shown: Arc<Shown>,
}

/// An event in the window.
#[derive(Debug)]
struct Item {
    event: RecordedEvent,
    /// So many nodes have died of it.
    deaths: u32,
}

/// The actor.
pub struct ConsumerActor {
    args: ConsumerArgs,
    lease: Lease,
    follower: Follower,
    cursor: Cursor,
    paused: bool,
    runner: Runner,
    window: Window<Item>,
    running: BTreeMap<Position, TaskGuard>,
    /// Settled since the place was kept.
    unsaved: usize,
    /// What is settled beyond the place is noted.
    marked: bool,
    /// What is settled is not known; nothing is read until somebody says where to begin.
    held: bool,
    /// What is read, and how much at most.
    reading: Option<(usize, TaskGuard)>,
    _keeping: TaskGuard,
    /// Dead letters that are handled again, or wait for one of the places.
    again: BTreeMap<u64, TaskGuard>,
    agains: u64,
    places: Arc<Semaphore>,
}

impl Actor for ConsumerActor {
    type Message = ConsumerMessage;
    type Args = ConsumerArgs;

    async fn start(args: &ConsumerArgs, cx: &mut Context<Self>) -> Result<Self, StartError> {
        let lease = lease_at_start(cx, &args.pool).await?;
        let (counts, head, shown) =
            (Arc::clone(&args.counts), args.head.clone(), Arc::clone(&args.shown));
        cx.describe(move || {
            let line = shown.line(*head.borrow());
            match trouble_of(&counts) {
                Some(trouble) => format!("{line}   {trouble}"),
                None => line,
            }
        });
        let plan = &args.consumer.plan;
        let settler = Settler {
            name: Arc::clone(&args.consumer.name),
            retry: plan.retry,
            deadline: plan.deadline,
            office: Arc::clone(&args.office),
            results: plan.results.clone(),
            counts: Arc::clone(&args.counts),
            seed: cx.random_u64(),
        };
        let runner = Runner {
            handler: plan.handler.clone(),
            lane: Arc::clone(&plan.lane),
            settler,
            bus: args.bus.clone(),
            repeats_to: Position::ZERO,
        };
        let follow = Follow::new(place_of(&args.consumer.name), Arc::clone(&args.owner))
            .filter(args.consumer.filter.clone())
            .repeats((WINDOW + 2 * args.consumer.page) as u64);
        let (head, shown) = (args.head.clone(), Arc::clone(&args.shown));
        let follower = Follower::new(follow, &lease, head, cx.clock(), shown);
        let kept = follower.clone();
        let mut actor = Self {
            window: Window::new(bounds(&args.consumer), Position::ZERO),
            args: args.clone(),
            lease,
            _keeping: cx.spawn_tell(async move { ConsumerMessage::Lost(kept.keep().await) }),
            follower,
            cursor: Cursor::default(),
            paused: false,
            runner,
            running: BTreeMap::new(),
            unsaved: 0,
            marked: false,
            held: false,
            reading: None,
            again: BTreeMap::new(),
            agains: 0,
            places: Arc::new(Semaphore::new(args.consumer.plan.lanes)),
        };
        actor.read_on(cx);
        Ok(actor)
    }

    async fn handle(
        &mut self,
        message: ConsumerMessage,
        cx: &mut Context<Self>,
    ) -> Result<(), Failure> {
        match message {
            ConsumerMessage::Next(step) => {
                self.reading = None;
                let step = (*step).map_err(failure)?;
                self.take(step).await.map_err(failure)?;
                self.go_on(cx).await.map_err(failure)?;
            }
            ConsumerMessage::Settled(cursor, position) if cursor.is_turn_of(self.cursor) => {
                self.running.remove(&position);
                self.window.settle(position);
                self.unsaved += 1;
                self.go_on(cx).await.map_err(failure)?;
            }
            // It was given up when the place moved, and had ended already.
            ConsumerMessage::Settled(..) => {}
            ConsumerMessage::Lost(error) => return Err(failure(error)),
            ConsumerMessage::Replay(begin, reply) => match self.place(begin).await {
                Ok(at) => {
                    self.ask(Request::GoTo(at), move |done| reply.send(done.map(|()| at)), cx)
                }
                Err(error) => reply.send(Err(ClaimError::from(error).into())),
            },
            ConsumerMessage::Ask(request, reply) => {
                self.ask(request, move |done| reply.send(done), cx);
            }
            ConsumerMessage::Again(message) => self.again(message, cx),
            ConsumerMessage::AgainDone(number) => _ = self.again.remove(&number),
        }
        Ok(())
    }

    async fn stop(&mut self, _: &ExitReason, _: &mut Context<Self>) {
        // What is handled ends with this life, and another node may begin with it.
        self.running.clear();
        if self.save().await.is_ok() {
            self.follower.release().await;
        }
    }

    fn message_name(message: &ConsumerMessage) -> &'static str {
        message.name()
    }
}

impl ConsumerActor {
    async fn take(&mut self, step: Step) -> Result<(), ClaimError> {
        let next = step.cursor();
        match step {
            Step::Begin(_) => return self.begin(next).await,
            _ if !next.is_turn_of(self.cursor) => return Ok(()),
            Step::Paused(paused, _) => self.paused = paused,
            Step::Page(events, _) => {
                let filter = self.args.consumer.filter.clone();
                for event in events {
                    if !filter.is_feedback(&event.stream) {
                        self.push(event, 0);
                    }
                }
                self.window.passed(next.position());
            }
            Step::Poison(event, deaths, _) => self.push(*event, deaths),
        }
        self.cursor = next;
        Ok(())
    }

    fn push(&mut self, event: RecordedEvent, deaths: u32) {
        let bytes = event.data.len() + event.meta.len() + size_of::<RecordedEvent>();
        let (position, lane) = (event.position, self.runner.lane(&event));
        self.window.push(position, lane, bytes, Item { event, deaths });
    }

    /// Begins behind the place, with what a life before has not settled.
    async fn begin(&mut self, cursor: Cursor) -> Result<(), ClaimError> {
        self.running.clear();
        (self.unsaved, self.paused) = (0, false);
        if self.follower.note(BEGUN).await?.is_none() {
            let at = self.place(self.args.consumer.begin).await?;
            // Which begins another turn.
            return self.follower.go_to(at, [begun(at)]).await;
        }
        let mark = self.follower.note(MARK).await?;
        let mark = mark.map(|note| serde_json::from_slice(&note)).transpose();
        (self.cursor, self.held) = (cursor, mark.is_err());
        let window = Window::new(bounds(&self.args.consumer), cursor.position());
        let mark: Option<Mark> = match mark {
            Ok(mark) => mark,
            Err(error) => {
                (self.window, self.marked) = (window, false);
                self.args.shown.stands_still(format!(
                    "what is settled beyond event {} cannot be read ({error}), and may be of a \
                     newer program; run that one, or replay the consumer from a place",
                    cursor.position()
                ));
                return Ok(());
            }
        };
        self.marked = mark.is_some();
        self.window = window.resume(mark.unwrap_or_default());
        // An earlier life handled some of what was there then, maybe.
        self.runner.repeats_to = self.lease.store.head().await?;
        Ok(())
    }

    /// Begins with what can begin, keeps the place now and then, and reads on.
    async fn go_on(&mut self, cx: &Context<Self>) -> Result<(), ClaimError> {
        self.follower.settle(self.cursor, self.window.prefix());
        while !self.paused
            && let Some((position, item)) = self.window.begin()
        {
            let (runner, follower) = (self.runner.clone(), self.follower.clone());
            let cursor = self.cursor;
            let handling = cx.spawn_tell(async move {
                let Item { event, deaths } = item;
                match deaths {
                    0 => runner.settle(event, &follower).await,
                    _ => {
                        let reason = format!("{deaths} nodes died while they handled it");
                        runner.bury(&event, reason, deaths).await;
                    }
                }
                ConsumerMessage::Settled(cursor, position)
            });
            self.running.insert(position, handling);
        }
        let idle = self.window.running() == 0;
        if self.unsaved > 0 && (idle || self.unsaved > self.args.consumer.page / 2) {
            self.save().await?;
        }
        self.read_on(cx);
        Ok(())
    }

    /// Reads when there is much room, or nothing else can begin.
    fn read_on(&mut self, cx: &Context<Self>) {
        let room = self.window.room();
        let wanted = room >= WINDOW / 2 || !self.window.can_begin();
        let limit = if wanted && !self.held { room } else { 0 };
        if self.reading.as_ref().is_some_and(|(reads, _)| *reads > 0 || limit == 0) {
            return;
        }
        let (follower, cursor) = (self.follower.clone(), self.cursor);
        let reading = cx.spawn_tell(async move {
            ConsumerMessage::Next(Box::new(follower.next(cursor, limit).await))
        });
        self.reading = Some((limit, reading));
    }

    /// Keeps the place; where much is settled beyond it, that too.
    async fn save(&mut self) -> Result<(), ClaimError> {
        let far = self.window.beyond() > (self.args.consumer.page / 2) as u64;
        let note: Option<Note> = match far || self.window.goes_on() {
            true => {
                serde_json::to_vec(&self.window.mark()).ok().map(|m| (MARK.into(), Some(m.into())))
            }
            false => self.marked.then(|| (MARK.into(), None)),
        };
        let marked = note.as_ref().is_some_and(|(_, data)| data.is_some());
        self.follower.save_lightly(self.cursor, self.window.prefix(), note).await?;
        (self.marked, self.unsaved) = (marked, 0);
        Ok(())
    }

    /// After which event one goes on who begins there.
    async fn place(&self, begin: Begin) -> Result<Position, StoreError> {
        let store = &self.lease.store;
        Ok(match begin {
            Begin::Beginning => Position::ZERO,
            Begin::End => store.head().await?,
            Begin::After(position) => position.min(store.head().await?),
            Begin::At(time) => store.position_at(time).await?,
        })
    }

    /// Asks whoever has the consumer, beside the mailbox: the answer may take a while.
    fn ask(
        &self,
        request: Request,
        answer: impl FnOnce(Result<(), ConsumerError>) + Send + 'static,
        cx: &mut Context<Self>,
    ) {
        let (follower, name) = (self.follower.clone(), self.args.consumer.name.to_string());
        let asking = cx.spawn_guard(async move {
            answer(match follower.ask(request).await {
                Ok(true) => Ok(()),
                Ok(false) => Err(ConsumerError::Unheard { name }),
                Err(error) => Err(error.into()),
            });
        });
        cx.keep(asking);
    }

    /// Dead letters come again, beside the others: they have gone on long ago. As many at once as
    /// there are lanes; the others wait, and too many of them go back to where they were.
    fn again(&mut self, message: Arc<Message>, cx: &Context<Self>) {
        self.agains += 1;
        let number = self.agains;
        let (runner, store) = (self.runner.clone(), Arc::clone(&self.lease.store));
        let (places, crowded) = (Arc::clone(&self.places), self.again.len() >= MOST_AGAIN);
        let handling = cx.spawn_tell(async move {
            if crowded {
                runner.settler.give_back(&message).await;
            } else if let Ok(_place) = places.acquire().await {
                let event = crate::dead_letter::event_of(&*store, &message).await;
                runner.again(message, event).await;
            }
            ConsumerMessage::AgainDone(number)
        });
        self.again.insert(number, handling);
    }
}

/// What is tried again, and why.
pub(super) fn trouble_of(counts: &Counts) -> Option<String> {
    let trouble = counts.trouble()?;
    let position = trouble.position.unwrap_or_default();
    Some(format!("event {position}: {}", trouble.reason))
}

/// The name under which a consumer's place is kept.
pub(crate) fn place_of(consumer: &str) -> String {
    format!("consumer.{consumer}")
}

fn bounds(consumer: &Consumer) -> Bounds {
    Bounds { at_once: consumer.plan.lanes, events: WINDOW, bytes: WINDOW_BYTES }
}

fn begun(at: Position) -> Note {
    (BEGUN.into(), Some(format!("{{\"after\":{at}}}").into()))
}

impl SupervisedComponent for ConsumerActor {
    type Handover = ();

    async fn health_check(&mut self, _: &mut Context<Self>) -> Health {
        let event = trouble_of(&self.args.counts);
        let trouble = || self.args.shown.standing().trouble.map(|text| text.to_string());
        match event.or_else(trouble) {
            None => Health::Healthy,
            Some(trouble) => Health::degraded(trouble),
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
            .field("at", &self.window.prefix())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for ConsumerArgs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConsumerArgs").field("consumer", &self.consumer).finish_non_exhaustive()
    }
}
