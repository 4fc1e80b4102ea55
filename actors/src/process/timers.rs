//! Deadlines of processes, as [timers](crate::timer).
//!
//! A [`Follower`] of a process's events sets what [`then`](super::Process::then) wants to be heard
//! later, and takes back what it cancels, before its place goes on: so none is missed. What fires
//! them has its place in the kind `process.CATEGORY`: it reads the event again, and lets the
//! process hear what it said, under a name that is the same for every try.
//!
//! An event that this program cannot read, or that it panics at, is a timer too, due at once: it
//! waits, in sight, until a program can read it, and sets its deadlines then.
//!
//! Deadlines of earlier programs, which were notes of the follower, become timers when a node of
//! this program takes the claim.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mister_smith_supervisors::{
    Actor, Context, ExitReason, Failure, StartError, SupervisedComponent, SupervisionMetadata,
    TaskGuard,
};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::sleep;

use super::effects::effects_of;
use super::{Due, Kind, Process, id_of, key_of};
use crate::command::{CommandBus, CommandEnvelope, CommandError};
use crate::component;
use crate::error::ErrorClass;
use crate::event::{Position, RecordedEvent, Timestamp};
use crate::guarded::guarded;
use crate::pool::{Lease, PoolHandle, lease_at_start};
use crate::store::claims::{ClaimError, Note};
use crate::store::follow::{Cursor, Follow, Follower, Shown, Step, failure};
use crate::store::{EventFilter, IdempotencyKey, event_at};
use crate::timer::{Fired, NewTimer, Timer, TimerError, TimerHandler, Timers};

/// Events, and notes, of one page.
const PAGE: usize = 500;

/// The note that says from where on effects go by their names; see [`super::effects`].
const NAMED: &str = "$named";

/// The longest beginning of a name that is readable.
const READABLE: usize = 600;

/// How long a start waits for the first life of the actor to begin.
const BEGINS: Duration = Duration::from_secs(5);

/// What a timer carries, and what earlier programs noted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Deadline {
    #[serde(default)]
    due: Timestamp,
    /// The event that set it.
    position: Position,
    /// Its name among those of the event; none if the event has not been read yet.
    name: Option<String>,
}

impl Deadline {
    fn timer(self, kind: Arc<str>, name: String) -> NewTimer {
        let payload = serde_json::to_vec(&self).unwrap_or_default();
        NewTimer::new(kind, name, self.due, payload)
    }
}

/// The kind of the timers of a process.
pub(super) fn kind_of<P: Process>() -> Arc<str> {
    format!("process.{}", P::CATEGORY).into()
}

/// The name that the follower claims.
fn claim_of<P: Process>() -> String {
    format!("timers.{}", P::CATEGORY)
}

/// The names of the deadlines of one process that have one name begin so.
fn prefix_of(id: &str, name: &str) -> String {
    let escape = |text: &str, to: &mut String| {
        for c in text.chars() {
            match c {
                '/' | '%' | '\0'..='\x1f' => to.push_str(&format!("%{:02x}", u32::from(c))),
                c => to.push(c),
            }
        }
        to.push('/');
    };
    let mut prefix = String::new();
    escape(id, &mut prefix);
    escape(name, &mut prefix);
    match prefix.len() > READABLE {
        true => format!("%hash/{:?}/", IdempotencyKey::of([id, name])),
        false => prefix,
    }
}

/// The name of a deadline that an event sets.
fn name_of(id: &str, name: &str, position: Position) -> String {
    format!("{}{:020}", prefix_of(id, name), position.get())
}

/// What an event of a process wants of time.
enum Wish {
    Set(NewTimer),
    /// Those of a name that events before it have set.
    Cancel {
        from: String,
        to: String,
    },
}

/// Why it is not known what an event wants.
fn unread<P: Process>(event: &RecordedEvent) -> NewTimer {
    let deadline = Deadline { due: event.recorded_at, position: event.position, name: None };
    deadline.timer(kind_of::<P>(), format!("%event/{:020}", event.position.get()))
}

/// What an event wants of time.
///
/// # Errors
/// This program cannot read it.
fn wishes_of<P: Process>(event: &RecordedEvent) -> Result<Vec<Wish>, String> {
    let effects = effects_of::<P>(event).map_err(|error| error.to_string())?;
    let id = id_of(event);
    let wish = |effect: super::Effect<P>| match effect.kind {
        Kind::Later { due, .. } => {
            let due = match due {
                Due::At(time) => time,
                Due::After(wait) => {
                    let micros = i64::try_from(wait.as_micros()).unwrap_or(i64::MAX);
                    Timestamp::from_micros(event.recorded_at.as_micros().saturating_add(micros))
                }
            };
            let name = name_of(id, &effect.name, event.position);
            let (position, text) = (event.position, Some(effect.name.to_string()));
            let deadline = Deadline { due, position, name: text };
            Some(Wish::Set(deadline.timer(kind_of::<P>(), name)))
        }
        Kind::Cancel => {
            let from = prefix_of(id, &effect.name);
            let to = format!("{from}{:020}", event.position.get());
            Some(Wish::Cancel { from, to })
        }
        Kind::Send { .. } | Kind::Call(_) => None,
    };
    Ok(effects.into_iter().filter_map(wish).collect())
}

/// Sets and takes back, in order.
async fn grant<P: Process>(
    timers: &Timers,
    wishes: impl IntoIterator<Item = Wish>,
) -> Result<(), TimerError> {
    let mut set = Vec::new();
    for wish in wishes {
        match wish {
            Wish::Set(timer) => set.push(timer),
            Wish::Cancel { from, to } => {
                if !set.is_empty() {
                    timers.set_all(std::mem::take(&mut set)).await?;
                }
                timers.cancel_between(&kind_of::<P>(), &from, &to).await?;
            }
        }
    }
    match set.is_empty() {
        true => Ok(()),
        false => timers.set_all(set).await,
    }
}

/// What the actor can be told.
#[derive(Debug)]
pub enum TimersMessage {
    /// What comes next in the log. Sent by the actor to itself.
    Next(Box<Result<Step, ClaimError>>),
    /// Another node has taken over, or the store is gone. Sent by the actor to itself.
    Lost(ClaimError),
}

/// What a fresh start needs.
pub struct SetterArgs<P> {
    pub(super) pool: Arc<str>,
    pub(super) owner: Arc<str>,
    pub(super) head: watch::Receiver<Position>,
    pub(super) shown: Arc<Shown>,
    pub(super) timers: Timers,
    pub(super) process: PhantomData<fn() -> P>,
}

impl<P> Clone for SetterArgs<P> {
    fn clone(&self) -> Self {
        Self {
            pool: Arc::clone(&self.pool),
            owner: Arc::clone(&self.owner),
            head: self.head.clone(),
            shown: Arc::clone(&self.shown),
            timers: self.timers.clone(),
            process: PhantomData,
        }
    }
}

/// The actor that sets them.
pub struct Setter<P> {
    args: SetterArgs<P>,
    lease: Lease,
    follower: Follower,
    cursor: Cursor,
    reading: Option<TaskGuard>,
    _keeping: TaskGuard,
}

impl<P: Process> Actor for Setter<P> {
    type Message = TimersMessage;
    type Args = SetterArgs<P>;

    async fn start(args: &SetterArgs<P>, cx: &mut Context<Self>) -> Result<Self, StartError> {
        let lease = lease_at_start(cx, &args.pool).await?;
        let (shown, head) = (Arc::clone(&args.shown), args.head.clone());
        cx.describe(move || shown.line(*head.borrow()));
        let follow = Follow::new(claim_of::<P>(), Arc::clone(&args.owner))
            .filter(EventFilter::ALL.categories([P::CATEGORY]));
        let shown = Arc::clone(&args.shown);
        let follower = Follower::new(follow, &lease, args.head.clone(), cx.clock(), shown);
        let kept = follower.clone();
        let mut setter = Self {
            args: args.clone(),
            lease,
            _keeping: cx.spawn_tell(async move { TimersMessage::Lost(kept.keep().await) }),
            follower,
            cursor: Cursor::default(),
            reading: None,
        };
        setter.go_on(cx);
        Ok(setter)
    }

    async fn handle(
        &mut self,
        message: TimersMessage,
        cx: &mut Context<Self>,
    ) -> Result<(), Failure> {
        match message {
            TimersMessage::Next(step) => {
                self.take((*step).map_err(failure)?).await?;
                self.go_on(cx);
                Ok(())
            }
            TimersMessage::Lost(error) => Err(failure(error)),
        }
    }

    async fn stop(&mut self, _: &ExitReason, _: &mut Context<Self>) {
        self.follower.release().await;
    }

    fn message_name(message: &TimersMessage) -> &'static str {
        match message {
            TimersMessage::Next(_) => "Next",
            TimersMessage::Lost(_) => "Lost",
        }
    }
}

fn not_set(error: TimerError) -> Failure {
    Failure::wrap(error.class(), error)
}

impl<P: Process> Setter<P> {
    fn go_on(&mut self, cx: &Context<Self>) {
        let (follower, cursor) = (self.follower.clone(), self.cursor);
        self.reading = Some(cx.spawn_tell(async move {
            TimersMessage::Next(Box::new(follower.next(cursor, PAGE).await))
        }));
    }

    /// Takes what comes next in the log. The place goes on when all that it wants is durable.
    async fn take(&mut self, step: Step) -> Result<(), Failure> {
        let next = step.cursor();
        match step {
            Step::Begin(_) => {
                self.carry_over(next).await?;
                self.name_effects(next).await.map_err(failure)?;
            }
            _ if !next.is_turn_of(self.cursor) => return Ok(()),
            Step::Paused(..) => {}
            Step::Page(events, _) => {
                let mut wishes = Vec::new();
                for event in events.iter() {
                    match guarded(|| wishes_of::<P>(event)) {
                        Ok(Ok(of)) => wishes.extend(of),
                        Ok(Err(_)) | Err(_) => wishes.push(Wish::Set(unread::<P>(event))),
                    }
                }
                grant::<P>(&self.args.timers, wishes).await.map_err(not_set)?;
                self.follower.settle(next, next.position());
            }
            Step::Poison(event, deaths, _) => {
                let reason = format!("{deaths} nodes died while they looked for its deadlines");
                self.follower.park(next, &event, &reason).await.map_err(failure)?;
                self.follower.settle(next, event.position);
            }
        }
        self.cursor = next;
        Ok(())
    }

    /// Makes timers of what earlier programs have noted. A note goes when its timer is durable.
    async fn carry_over(&self, cursor: Cursor) -> Result<(), Failure> {
        let mut after: Option<Arc<str>> = None;
        loop {
            let page = self.follower.notes(after.as_deref(), PAGE).await.map_err(failure)?;
            let Some((last, _)) = page.last() else { return Ok(()) };
            after = Some(Arc::clone(last));
            let (mut timers, mut gone) = (Vec::new(), Vec::<Note>::new());
            for (id, data) in page {
                match serde_json::from_slice::<Deadline>(&data) {
                    Ok(deadline) => {
                        timers.push(self.noted(deadline).await);
                        gone.push((id, None));
                    }
                    // It stays: a program that can read it sets it.
                    Err(error) => tracing::error!(
                        process = P::CATEGORY, deadline = &*id, %error,
                        "a deadline cannot be read, and may be of a newer program"
                    ),
                }
            }
            if !timers.is_empty() {
                self.args.timers.set_all(timers).await.map_err(not_set)?;
                self.follower.save(cursor, gone).await.map_err(failure)?;
            }
        }
    }

    async fn noted(&self, deadline: Deadline) -> NewTimer {
        let event = event_at(&*self.lease.store, deadline.position).await.ok().flatten();
        let text = deadline.name.clone().unwrap_or_default();
        let name = match event {
            Some(event) => name_of(id_of(&event), &text, deadline.position),
            // Whose it is, its event says; it fires, and cannot be cancelled by its name.
            None => name_of("%noted", &text, deadline.position),
        };
        deadline.timer(kind_of::<P>(), name)
    }

    /// Notes once up to where effects were named by their places in a list: up to here, if a
    /// program before had a place in the log already.
    async fn name_effects(&self, cursor: Cursor) -> Result<(), ClaimError> {
        if self.follower.note(NAMED).await?.is_some() {
            return Ok(());
        }
        let from = match cursor.position() {
            Position::ZERO => Position::ZERO,
            _ => self.lease.store.head().await?,
        };
        let note = serde_json::to_vec(&from).unwrap_or_default();
        self.follower.save(cursor, [(NAMED.into(), Some(note.into()))]).await
    }
}

/// Up to which event the effects of a process are named by their places in a list; `None` while a
/// node of an earlier program has its deadlines.
pub(super) async fn named_from<P: Process>(lease: &Lease) -> Result<Option<Position>, ClaimError> {
    let note = lease.claims.note(&claim_of::<P>(), NAMED).await?;
    Ok(note.and_then(|note: Bytes| serde_json::from_slice(&note).ok()))
}

/// Waits until it is noted, here or on another node, or another node has the claim without it.
pub(super) async fn begun<P: Process>(pool: &PoolHandle, owner: &str) {
    let begun = async {
        loop {
            if let Ok(lease) = pool.lease().await {
                if matches!(named_from::<P>(&lease).await, Ok(Some(_))) {
                    return;
                }
                let place = lease.claims.place(&claim_of::<P>()).await;
                let elsewhere =
                    |place: &crate::store::claims::Place| place.held && &*place.owner != owner;
                if lease.shared && matches!(&place, Ok(Some(place)) if elsewhere(place)) {
                    // It may be noted between the two; another look costs nothing.
                    sleep(Duration::from_millis(100)).await;
                    if !matches!(named_from::<P>(&lease).await, Ok(Some(_))) {
                        return;
                    }
                }
            }
            sleep(Duration::from_millis(5)).await;
        }
    };
    let _ = tokio::time::timeout(BEGINS, begun).await;
}

/// Lets processes hear of their deadlines.
pub(super) struct Deadlines<P> {
    pub(super) pool: PoolHandle,
    pub(super) commands: CommandBus,
    pub(super) timers: Timers,
    pub(super) process: PhantomData<fn() -> P>,
}

impl<P: Process> TimerHandler for Deadlines<P> {
    async fn fire(&self, timer: Timer) -> Fired {
        let deadline: Deadline = match serde_json::from_slice(&timer.payload) {
            Ok(deadline) => deadline,
            Err(error) => return Fired::unknown(format!("its payload cannot be read: {error}")),
        };
        let event = match self.event(deadline.position).await {
            Ok(Some(event)) => event,
            Ok(None) => {
                let reason = format!("event {}, which set it, is gone", deadline.position);
                return Fired::fail(ErrorClass::Permanent, reason);
            }
            Err(reason) => return Fired::retry(reason),
        };
        match deadline.name {
            Some(name) => self.tell(&event, &name).await,
            None => match wishes_of::<P>(&event) {
                Ok(wishes) => match grant::<P>(&self.timers, wishes).await {
                    Ok(()) => Fired::Done,
                    Err(error) => Fired::failed(error.class(), error),
                },
                Err(reason) => Fired::unknown(reason),
            },
        }
    }
}

impl<P: Process> Deadlines<P> {
    async fn event(&self, position: Position) -> Result<Option<RecordedEvent>, String> {
        let lease = self.pool.lease().await.map_err(|error| error.to_string())?;
        event_at(&*lease.store, position).await.map_err(|error| error.to_string())
    }

    /// Whether a later event of the process has cancelled it. What sets and cancels may not be as
    /// far yet, after another node has taken over.
    async fn is_cancelled(&self, event: &RecordedEvent, name: &str) -> Result<bool, String> {
        let lease = self.pool.lease().await.map_err(|error| error.to_string())?;
        let mut after = event.version;
        loop {
            let page = lease.store.read_stream(&event.stream, after, PAGE).await;
            let page = page.map_err(|error| error.to_string())?;
            let Some(last) = page.last() else { return Ok(false) };
            after = last.version;
            // One that this program cannot read, or panics at, says nothing to it.
            let cancels = |event: &RecordedEvent| {
                let effects = guarded(|| effects_of::<P>(event)).ok().and_then(Result::ok);
                let effects = effects.unwrap_or_default();
                let cancel = |one: &super::Effect<P>| matches!(one.kind, Kind::Cancel);
                effects.iter().any(|effect| cancel(effect) && *effect.name == *name)
            };
            if page.iter().any(cancels) {
                return Ok(true);
            }
            if page.len() < PAGE {
                return Ok(false);
            }
        }
    }

    async fn tell(&self, event: &RecordedEvent, name: &str) -> Fired {
        let effects = match effects_of::<P>(event) {
            Ok(effects) => effects,
            Err(error) => return Fired::unknown(error),
        };
        let command = effects.into_iter().find_map(|effect| match effect.kind {
            Kind::Later { command, .. } if *effect.name == *name => Some(command),
            _ => None,
        });
        match self.is_cancelled(event, name).await {
            Ok(false) => {}
            Ok(true) => return Fired::Done,
            Err(reason) => return Fired::retry(reason),
        }
        let Some(command) = command else {
            return Fired::unknown(format!(
                "this program has no deadline {name:?} for {}; cancel it if it was taken out",
                event.event_type
            ));
        };
        let key = key_of::<P>(event, format!("at/{name}"));
        let envelope = CommandEnvelope::new(command()).key(key).caused_by(event);
        match self.commands.send::<P>(id_of(event), envelope).await {
            Ok(_) => Fired::Done,
            // It may have events of a newer program.
            Err(error @ CommandError::Unreadable(_)) => Fired::unknown(error),
            Err(error) => Fired::failed(error.class(), error),
        }
    }
}

impl<P: Process> SupervisedComponent for Setter<P> {
    type Handover = ();

    fn supervision_metadata(_: &SetterArgs<P>) -> SupervisionMetadata {
        SupervisionMetadata::of(component::SAGA)
    }
}

impl<P> fmt::Debug for Setter<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Setter").field("follower", &self.follower).finish_non_exhaustive()
    }
}

impl<P> fmt::Debug for SetterArgs<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SetterArgs").field("pool", &self.pool).finish_non_exhaustive()
    }
}
