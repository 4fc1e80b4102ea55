//! The relay: follows the log and sends what it wants of it.
//!
//! It is a [`Follower`], so that of several nodes on one store one sends; one that publishes on the
//! bus of its node follows on every node. Beside its place are marks: up to which event the
//! outlet's numbers went. An outlet whose last number is lower than it was has lost messages (a
//! JetStream server that lost power, a Redis without its file), and so has one that numbers new
//! messages lower than the mark and their count make it: the relay goes back to the last mark that
//! the outlet still has. It asks when it has begun, after each failure, and now and then.
//!
//! An event that the outlet will never take becomes a dead letter (`outbox/refused.rs`), and those
//! behind it go on. What dead letters themselves record is sent only to who asks for it by name.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use mister_smith_supervisors::{
    Actor, Context, ExitReason, Failure, Health, StartError, SupervisedComponent,
    SupervisionMetadata, TaskGuard,
};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::refused::{Kept, Letters, Refused};
use super::{Outlet, OutletError, SubjectOf};
use crate::bus::queue::SentAll;
use crate::bus::{Message, NewMessage, Subject};
use crate::component;
use crate::dead_letter::event_of;
use crate::event::{Position, RecordedEvent};
use crate::guarded::guarded;
use crate::pool::{lease_at_start, store_failure};
use crate::store::claims::{ClaimError, Note};
use crate::store::follow::{Cursor, Follow, Follower, Page, Shown, Step, failure};
use crate::store::{DEAD_LETTERS, EventFilter, EventStore};
use uuid::Uuid;

/// Events that are sent at a time.
const PAGE: usize = 500;

/// The pause after a failure, doubled with each, up to the last.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// How often the outlet is asked whether it has lost anything while nothing is sent.
pub const DEFAULT_LOOK_EVERY: Duration = Duration::from_secs(10);

/// Marks that are kept.
const MARKS: usize = 64;

/// The note that holds the marks.
const NOTE: &str = "marks";

/// What the relay can be told.
#[derive(Debug)]
pub enum RelayMessage {
    /// What comes next in the log. Sent by the relay to itself.
    Next(Box<Result<Step, ClaimError>>),
    /// The outlet may take it now. Sent by the relay to itself.
    Again,
    /// The outlet may have lost something. Sent by the relay to itself.
    Look,
    /// A dead letter is to be sent again.
    Requeued(Arc<Message>),
    /// Another node has taken over, or the store is gone. Sent by the relay to itself.
    Lost(ClaimError),
}

/// What a fresh start needs.
#[derive(Clone)]
pub struct RelayArgs {
    /// Its name, under which its place is kept.
    pub name: Arc<str>,
    /// Path of the pool.
    pub pool: Arc<str>,
    /// Who this node is to the others on its store; `None` to send on every node, from what comes
    /// after its start.
    pub owner: Option<Arc<str>>,
    /// The end of the log.
    pub head: watch::Receiver<Position>,
    /// Where it sends.
    pub outlet: Arc<dyn Outlet>,
    /// What it sends.
    pub filter: EventFilter,
    /// Under which subjects.
    pub subject: SubjectOf,
    /// How far it is, for those who wait.
    pub shown: Arc<Shown>,
    /// Where events go that the outlet refuses.
    pub letters: Letters,
    /// How often the outlet is asked whether it has lost anything.
    pub look_every: Duration,
}

/// The name under which a relay's place is kept.
pub(crate) fn place_of(relay: &str) -> String {
    format!("relay.{relay}")
}

/// Up to which event an outlet's numbers went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Mark {
    position: Position,
    number: u64,
}

/// The actor.
pub struct Relay {
    args: RelayArgs,
    store_id: Uuid,
    store: Arc<dyn EventStore>,
    follower: Follower,
    cursor: Cursor,
    /// Everything up to here was sent, or is not to be.
    at: Position,
    marks: Vec<Mark>,
    /// The outlet has to be asked whether it has lost anything.
    doubtful: bool,
    failures: u32,
    _keeping: TaskGuard,
    waiting: Option<TaskGuard>,
    looking: Option<TaskGuard>,
    refused: Refused,
    trouble: Arc<Mutex<Option<String>>>,
}

impl Actor for Relay {
    type Message = RelayMessage;
    type Args = RelayArgs;

    async fn start(args: &RelayArgs, cx: &mut Context<Self>) -> Result<Self, StartError> {
        let lease = lease_at_start(cx, &args.pool).await?;
        let owner = args.owner.clone();
        let follow = Follow::new(place_of(&args.name), owner.clone().unwrap_or_default());
        let follow = follow.filter(args.filter.clone());
        let follow = if owner.is_some() { follow } else { follow.on_every_node() };
        let (head, shown) = (args.head.clone(), Arc::clone(&args.shown));
        let follower = Follower::new(follow, &lease, head.clone(), cx.clock(), Arc::clone(&shown));
        follower.begin_here().await.map_err(store_failure)?;
        let trouble = Arc::<Mutex<Option<String>>>::default();
        let status = Arc::clone(&trouble);
        cx.describe(move || {
            let line = shown.line(*head.borrow());
            match &*status.lock().unwrap_or_else(PoisonError::into_inner) {
                Some(trouble) => format!("{line}   {trouble}"),
                None => line,
            }
        });
        let kept = follower.clone();
        let mut relay = Self {
            args: args.clone(),
            store_id: lease.store.store_id(),
            store: Arc::clone(&lease.store),
            _keeping: cx.spawn_tell(async move { RelayMessage::Lost(kept.keep().await) }),
            follower,
            cursor: Cursor::default(),
            at: Position::ZERO,
            marks: Vec::new(),
            doubtful: true,
            failures: 0,
            waiting: None,
            looking: None,
            refused: Refused::new(
                &place_of(&args.name),
                &args.letters,
                cx.address(),
                RelayMessage::Requeued,
            ),
            trouble,
        };
        relay.looking = Some(cx.tell_after(args.look_every, RelayMessage::Look));
        relay.go_on(cx);
        Ok(relay)
    }

    async fn handle(
        &mut self,
        message: RelayMessage,
        cx: &mut Context<Self>,
    ) -> Result<(), Failure> {
        let worked = match message {
            RelayMessage::Next(step) => self.take((*step).map_err(failure)?).await,
            RelayMessage::Again => self.look_back().await,
            RelayMessage::Look => {
                self.looking = Some(cx.tell_after(self.args.look_every, RelayMessage::Look));
                // What it waits for in the log goes on: if the place moves, that is told there.
                return self.look().await.map_err(failure);
            }
            RelayMessage::Requeued(message) => {
                self.send_again(message, cx);
                return Ok(());
            }
            RelayMessage::Lost(error) => return Err(failure(error)),
        };
        match worked {
            Ok(()) => {
                // Through the mailbox, so that a stop does not wait for the whole log.
                self.go_on(cx);
                Ok(())
            }
            Err(Trouble::Claim(error)) => Err(failure(error)),
            Err(Trouble::Outlet(error)) => {
                self.pause(&error, cx);
                Ok(())
            }
        }
    }

    async fn stop(&mut self, _: &ExitReason, _: &mut Context<Self>) {
        self.follower.release().await;
    }

    fn message_name(message: &RelayMessage) -> &'static str {
        match message {
            RelayMessage::Next(_) => "Next",
            RelayMessage::Again => "Again",
            RelayMessage::Look => "Look",
            RelayMessage::Requeued(_) => "Requeued",
            RelayMessage::Lost(_) => "Lost",
        }
    }
}

enum Trouble {
    Claim(ClaimError),
    Outlet(OutletError),
}

impl From<ClaimError> for Trouble {
    fn from(error: ClaimError) -> Self {
        Self::Claim(error)
    }
}

impl Relay {
    fn go_on(&mut self, cx: &Context<Self>) {
        let (follower, cursor) = (self.follower.clone(), self.cursor);
        self.waiting = Some(cx.spawn_tell(async move {
            RelayMessage::Next(Box::new(follower.next(cursor, PAGE).await))
        }));
    }

    async fn take(&mut self, step: Step) -> Result<(), Trouble> {
        let next = step.cursor();
        if !matches!(step, Step::Begin(_)) && !next.is_turn_of(self.cursor) {
            return Ok(());
        }
        match step {
            Step::Begin(_) => {
                let marks = self.follower.note(NOTE).await?;
                let marks = marks.map(|note| serde_json::from_slice(&note)).transpose();
                self.marks = marks.map(Option::unwrap_or_default).unwrap_or_else(|error| {
                    // It goes on from its place: what is in doubt is in the outlet, mostly.
                    tracing::error!(
                        relay = &*self.args.name, %error,
                        "its marks cannot be read: what the outlet has lost before is not found"
                    );
                    Vec::new()
                });
                self.doubtful = true;
                (self.cursor, self.at) = (next, next.position());
                return self.look_back().await;
            }
            Step::Page(events, _) => {
                if !self.send(events, next).await? {
                    return Ok(());
                }
            }
            Step::Poison(event, deaths, _) => {
                let reason = format!("{deaths} nodes died while they sent it");
                self.follower.park(self.cursor, &event, &reason).await?;
                self.follower.settle(next, event.position);
            }
            Step::Paused(..) => {}
        }
        (self.cursor, self.at) = (next, next.position());
        Ok(())
    }

    /// Sends a page; answers whether all of it is done with.
    async fn send(&mut self, page: Page, next: Cursor) -> Result<bool, Trouble> {
        let mut events: Vec<(Subject, RecordedEvent)> = Vec::with_capacity(page.len());
        for event in page {
            if self.args.filter.is_feedback(&event.stream) {
                continue;
            }
            match guarded(|| (self.args.subject)(&event)) {
                Ok(Some(subject)) => events.push((subject, event)),
                Ok(None) => {}
                // It would end every life that comes to it.
                Err(_) => {
                    let reason = "the application panicked when it was to name its subject";
                    self.follower.park(self.cursor, &event, reason).await?;
                }
            }
        }
        let mut rest = &events[..];
        while !rest.is_empty() {
            self.follower.assure().await?;
            let (sent, done, error) = match self.args.outlet.send(self.store_id, rest).await {
                Ok(done) => (rest.len(), done, None),
                Err(error) => (error.sent.min(rest.len()), error.done, Some(error)),
            };
            if self.has_lost(sent, done).await? {
                return Ok(false);
            }
            let (arrived, left) = rest.split_at(sent);
            if let Some((_, last)) = arrived.last() {
                self.at = last.position;
                self.cursor = self.cursor.after(self.at);
                self.mark(done.last);
            }
            rest = match (error, left) {
                (Some(error), [(subject, event), behind @ ..]) if error.refused => {
                    self.refuse(subject, event, error).await?;
                    behind
                }
                (Some(error), _) => {
                    if sent > 0 {
                        self.settle().await?;
                    }
                    return Err(Trouble::Outlet(error));
                }
                (None, left) => left,
            };
        }
        self.failures = 0;
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = None;
        if events.is_empty() {
            self.follower.settle(next, next.position());
            return Ok(true);
        }
        self.at = next.position();
        self.settle().await?;
        Ok(true)
    }

    /// Whether the outlet's numbers show that it has lost messages while nobody looked; then it
    /// goes back. It may take messages of others, so that higher numbers say nothing.
    async fn has_lost(&mut self, sent: usize, done: SentAll) -> Result<bool, Trouble> {
        let new = (sent as u64).saturating_sub(done.duplicates);
        let lost = done.last > 0
            && self.marks.last().is_some_and(|mark| done.last < mark.number.saturating_add(new));
        if lost {
            self.go_back(done.last.saturating_sub(new)).await?;
        }
        Ok(lost)
    }

    /// An event that the outlet will never take becomes a dead letter, or is put aside where it
    /// cannot be one.
    async fn refuse(
        &mut self,
        subject: &Subject,
        event: &RecordedEvent,
        error: OutletError,
    ) -> Result<(), Trouble> {
        // A letter about a letter would be refused like it, and so on.
        let kept = match event.stream.category() == DEAD_LETTERS {
            true => Kept::Never,
            false => {
                let message = NewMessage::recorded(subject.clone(), event);
                self.refused.keep(message, &error.reason).await
            }
        };
        match kept {
            Kept::Letter => {}
            Kept::Never => self.follower.park(self.cursor, event, &error.reason).await?,
            Kept::NotYet => {
                let reason = format!("{}; its dead letter is not kept yet", error.reason);
                return Err(Trouble::Outlet(OutletError { reason, ..error }));
            }
        }
        self.at = event.position;
        self.cursor = self.cursor.after(self.at);
        self.settle().await?;
        Ok(())
    }

    /// Sends the event of a dead letter again, beside the others: they have gone on.
    fn send_again(&self, message: Arc<Message>, cx: &mut Context<Self>) {
        let (refused, outlet) = (self.refused.clone(), Arc::clone(&self.args.outlet));
        let (store, id) = (Arc::clone(&self.store), self.store_id);
        let sending = cx.spawn_guard(async move {
            let sent = match event_of(&*store, &message).await {
                Ok(event) => {
                    let one = [(message.subject().clone(), event)];
                    outlet.send(id, &one).await.map(drop).map_err(|error| error.reason)
                }
                Err(reason) => Err(reason),
            };
            refused.sent_again(&message, sent).await;
        });
        cx.keep(sending);
    }

    /// Looks whether the outlet has lost anything since it was sent something.
    async fn look(&mut self) -> Result<(), ClaimError> {
        if self.failures > 0 || self.marks.is_empty() {
            return Ok(());
        }
        self.doubtful = true;
        let trouble = match self.look_back().await {
            Ok(()) => None,
            Err(Trouble::Claim(error)) => return Err(error),
            Err(Trouble::Outlet(error)) => Some(error.to_string()),
        };
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
        Ok(())
    }

    /// Goes back to what the outlet still has.
    async fn look_back(&mut self) -> Result<(), Trouble> {
        if !self.doubtful {
            return Ok(());
        }
        let tail = self.args.outlet.tail().await.map_err(Trouble::Outlet)?;
        self.doubtful = false;
        match (tail, self.marks.last()) {
            (Some(tail), Some(last)) if tail < last.number => self.go_back(tail).await,
            _ => Ok(()),
        }
    }

    /// Goes back to the last mark that an outlet with numbers up to this one has.
    async fn go_back(&mut self, tail: u64) -> Result<(), Trouble> {
        let had = self.marks.last().map_or(0, |mark| mark.number);
        self.marks.retain(|mark| mark.number <= tail);
        let back = self.marks.last().map_or(Position::ZERO, |mark| mark.position);
        tracing::warn!(
            relay = &*self.args.name, from = %self.at, to = %back, tail, had,
            "the outlet has lost messages; they are sent again"
        );
        let note = self.marks_note();
        self.follower.go_to(back.min(self.at), [note]).await?;
        Ok(())
    }

    /// Remembers up to which number of the outlet it is.
    fn mark(&mut self, number: u64) {
        if number == 0 {
            return;
        }
        self.marks.push(Mark { position: self.at, number });
        if self.marks.len() > MARKS {
            // The older, the fewer: the last ones are kept closely, and the first one always.
            let mut index = 0;
            self.marks.retain(|_| {
                index += 1;
                index > MARKS / 2 || index % 2 == 1
            });
        }
    }

    fn marks_note(&self) -> Note {
        (NOTE.into(), Some(serde_json::to_vec(&self.marks).unwrap_or_default().into()))
    }

    /// Keeps how far it is, with the marks or not at all: a place without the mark of what was sent
    /// up to there would say nothing of an outlet that has lost it.
    async fn settle(&mut self) -> Result<(), ClaimError> {
        self.follower.save_lightly(self.cursor, self.at, [self.marks_note()]).await
    }

    /// The outlet does not take it now: later, and then with a look at what it has.
    fn pause(&mut self, error: &OutletError, cx: &Context<Self>) {
        self.doubtful = true;
        let (first, last) = PAUSES;
        let pause = (first * 2_u32.pow(self.failures.min(10))).min(last);
        if self.failures == 0 {
            tracing::warn!(relay = &*self.args.name, %error, "not sent; it is tried again");
        }
        self.failures += 1;
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.to_string());
        self.waiting = Some(cx.tell_after(pause, RelayMessage::Again));
    }
}

impl SupervisedComponent for Relay {
    type Handover = ();

    async fn health_check(&mut self, _: &mut Context<Self>) -> Health {
        let trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let trouble = trouble
            .or_else(|| self.args.shown.standing().trouble.map(|trouble| trouble.to_string()));
        match trouble {
            None => Health::Healthy,
            Some(trouble) => Health::degraded(trouble),
        }
    }

    fn supervision_metadata(_: &RelayArgs) -> SupervisionMetadata {
        SupervisionMetadata::of(component::EVENT_BUS)
    }
}

impl fmt::Debug for Relay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Relay")
            .field("name", &self.args.name)
            .field("at", &self.at)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for RelayArgs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RelayArgs")
            .field("name", &self.name)
            .field("outlet", &self.outlet)
            .field("filter", &self.filter)
            .finish_non_exhaustive()
    }
}
