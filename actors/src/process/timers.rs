//! Deadlines of processes: kept in the store, so that they are there after any crash.
//!
//! The actor is a [`Follower`] of the events of a process. What [`then`](super::Process::then) wants to be
//! heard later becomes a note in the store, together with the place up to which the events were
//! read; so none is missed and none is there twice. When its time has come the process hears it,
//! under a name, and then the note is removed.

use std::collections::BTreeSet;
use std::fmt;
use std::marker::PhantomData;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::{FutureExt, StreamExt, stream};
use mister_smith_supervisors::{
    Actor, Context, ExitReason, Failure, StartError, SupervisedComponent, SupervisionMetadata,
    TaskGuard,
};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::effects::effects_of;
use super::{Due, Kind, Process, id_of, key_of};
use crate::command::{CommandBus, CommandEnvelope};
use crate::component;
use crate::error::ErrorClass;
use crate::event::{Position, RecordedEvent, Timestamp};
use crate::guarded::guarded;
use crate::pool::{Lease, lease_at_start};
use crate::store::claims::ClaimError;
use crate::store::follow::{Cursor, Follow, Follower, Shown, Step, failure};
use crate::store::{EventFilter, EventStore};

/// Events, and notes, of one page.
const PAGE: usize = 500;

/// Deadlines that processes hear of at once.
const AT_ONCE: usize = 16;

/// The pause before a process is told again that could not be told.
const AGAIN: Duration = Duration::from_millis(200);

/// A deadline.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Timer {
    due: Timestamp,
    /// The event that set it.
    position: Position,
    /// Its name among those of the event.
    name: String,
}

impl Timer {
    /// The id of its note.
    fn note(&self) -> Arc<str> {
        // PostgreSQL takes no NUL.
        format!("{:020}/{}", self.position.get(), self.name.replace('\0', "\\0")).into()
    }
}

/// What the actor can be told.
#[derive(Debug)]
pub enum TimersMessage {
    /// What comes next in the log. Sent by the actor to itself.
    Next(Box<Result<Step, ClaimError>>),
    /// Some may be due. Sent by the actor to itself.
    Due,
    /// Processes have heard of theirs; those that remain could not be told.
    Told(Told),
    /// Another node has taken over, or the store is gone. Sent by the actor to itself.
    Lost(ClaimError),
}

/// What came of deadlines that were due.
#[derive(Debug)]
pub struct Told {
    done: Vec<Timer>,
    again: Vec<Timer>,
}

/// What a fresh start needs.
pub struct TimersArgs<P> {
    pub(super) pool: Arc<str>,
    pub(super) owner: Arc<str>,
    pub(super) head: watch::Receiver<Position>,
    pub(super) shown: Arc<Shown>,
    pub(super) commands: CommandBus,
    pub(super) process: PhantomData<fn() -> P>,
}

impl<P> Clone for TimersArgs<P> {
    fn clone(&self) -> Self {
        Self {
            pool: Arc::clone(&self.pool),
            owner: Arc::clone(&self.owner),
            head: self.head.clone(),
            shown: Arc::clone(&self.shown),
            commands: self.commands.clone(),
            process: PhantomData,
        }
    }
}

/// The actor.
pub struct Timers<P> {
    args: TimersArgs<P>,
    lease: Lease,
    follower: Follower,
    cursor: Cursor,
    paused: bool,
    waiting: BTreeSet<Timer>,
    telling: Option<TaskGuard>,
    reading: Option<TaskGuard>,
    alarm: Option<TaskGuard>,
    _keeping: TaskGuard,
    shown: Arc<AtomicUsize>,
}

impl<P: Process> Actor for Timers<P> {
    type Message = TimersMessage;
    type Args = TimersArgs<P>;

    async fn start(args: &TimersArgs<P>, cx: &mut Context<Self>) -> Result<Self, StartError> {
        let lease = lease_at_start(cx, &args.pool).await?;
        let (shown, count) = (Arc::clone(&args.shown), Arc::<AtomicUsize>::default());
        let (standing, waiting) = (Arc::clone(&shown), Arc::clone(&count));
        cx.describe(move || {
            let standing = standing.standing();
            if standing.standby {
                return "standby: another node has them".to_owned();
            }
            let paused = if standing.paused { "paused   " } else { "" };
            let trouble = standing.trouble.map(|trouble| format!("   {trouble}"));
            let waiting = waiting.load(Ordering::Relaxed);
            format!("{paused}{waiting} waiting{}", trouble.unwrap_or_default())
        });
        let follow = Follow::new(format!("timers.{}", P::CATEGORY), Arc::clone(&args.owner))
            .filter(EventFilter::ALL.categories([P::CATEGORY]));
        let follower = Follower::new(follow, &lease, args.head.clone(), cx.clock(), shown);
        let kept = follower.clone();
        let mut timers = Self {
            args: args.clone(),
            lease,
            _keeping: cx.spawn_tell(async move { TimersMessage::Lost(kept.keep().await) }),
            follower,
            cursor: Cursor::default(),
            paused: false,
            waiting: BTreeSet::new(),
            telling: None,
            reading: None,
            alarm: None,
            shown: count,
        };
        timers.go_on(cx);
        Ok(timers)
    }

    async fn handle(
        &mut self,
        message: TimersMessage,
        cx: &mut Context<Self>,
    ) -> Result<(), Failure> {
        match message {
            TimersMessage::Next(step) => {
                let step = (*step).map_err(failure)?;
                self.take(step, cx).await.map_err(failure)?;
                self.go_on(cx);
            }
            TimersMessage::Due => {
                self.alarm = None;
                self.tell(cx);
            }
            TimersMessage::Told(told) => self.told(told, cx).await.map_err(failure)?,
            TimersMessage::Lost(error) => return Err(failure(error)),
        }
        self.shown.store(self.waiting.len(), Ordering::Relaxed);
        Ok(())
    }

    async fn stop(&mut self, _: &ExitReason, _: &mut Context<Self>) {
        // What is told is told by a task of this life, which ends with it.
        self.telling = None;
        self.follower.release().await;
    }

    fn message_name(message: &TimersMessage) -> &'static str {
        match message {
            TimersMessage::Next(_) => "Next",
            TimersMessage::Due => "Due",
            TimersMessage::Told(_) => "Told",
            TimersMessage::Lost(_) => "Lost",
        }
    }
}

impl<P: Process> Timers<P> {
    fn go_on(&mut self, cx: &Context<Self>) {
        let (follower, cursor) = (self.follower.clone(), self.cursor);
        self.reading = Some(cx.spawn_tell(async move {
            TimersMessage::Next(Box::new(follower.next(cursor, PAGE).await))
        }));
    }

    /// Takes what comes next in the log: deadlines that the process's events set are kept.
    async fn take(&mut self, step: Step, cx: &Context<Self>) -> Result<(), ClaimError> {
        let next = step.cursor();
        match step {
            Step::Begin(_) => {
                self.load().await?;
                self.paused = self.args.shown.standing().paused;
            }
            _ if !next.is_turn_of(self.cursor) => return Ok(()),
            Step::Paused(paused, _) => self.paused = paused,
            Step::Page(events, _) => {
                let timers: Vec<_> = events.iter().flat_map(timers_of::<P>).collect();
                if timers.is_empty() {
                    self.follower.settle(next, next.position());
                } else {
                    let notes = timers.iter().map(|timer| {
                        (timer.note(), serde_json::to_vec(timer).ok().map(Into::into))
                    });
                    let notes = notes.collect::<Vec<_>>();
                    self.follower.save_at(next, next.position(), notes).await?;
                }
                self.waiting.extend(timers);
            }
            Step::Poison(event, deaths, _) => {
                let reason = format!("{deaths} nodes died while they looked for its deadlines");
                self.follower.park(next, &event, &reason).await?;
                self.follower.settle(next, event.position);
            }
        }
        self.cursor = next;
        self.set_alarm(cx);
        Ok(())
    }

    /// Finds what earlier lives, here or on other nodes, have kept.
    async fn load(&mut self) -> Result<(), ClaimError> {
        self.waiting.clear();
        self.telling = None;
        let mut after: Option<Arc<str>> = None;
        loop {
            let page = self.follower.notes(after.as_deref(), PAGE).await?;
            let Some((last, _)) = page.last() else { return Ok(()) };
            after = Some(Arc::clone(last));
            for (id, data) in &page {
                match serde_json::from_slice(data) {
                    Ok(timer) => _ = self.waiting.insert(timer),
                    // It stays: whoever can read it tells its process.
                    Err(error) => tracing::error!(
                        process = P::CATEGORY, deadline = &**id, %error,
                        "a deadline cannot be read, and may be of a newer program"
                    ),
                }
            }
        }
    }

    fn set_alarm(&mut self, cx: &Context<Self>) {
        self.alarm = match self.waiting.first() {
            // Also when the clock is set, or the machine sleeps, meanwhile.
            Some(first) if self.telling.is_none() && !self.paused => {
                Some(cx.tell_at(first.due.as_micros(), TimersMessage::Due))
            }
            _ => None,
        };
    }

    /// Tells processes whose time has come, beside the mailbox.
    fn tell(&mut self, cx: &Context<Self>) {
        let now = Timestamp::from_micros(cx.clock().wall_us());
        let due: Vec<_> =
            self.waiting.iter().take_while(|timer| timer.due <= now).cloned().collect();
        if due.is_empty() || self.telling.is_some() || self.paused {
            self.set_alarm(cx);
            return;
        }
        let (store, commands) = (Arc::clone(&self.lease.store), self.args.commands.clone());
        let follower = self.follower.clone();
        self.telling = Some(cx.spawn_tell(async move {
            let tellings = due.into_iter().map(|timer| {
                let (store, commands, follower) = (&*store, &commands, &follower);
                async move {
                    // Another node may have them, if this one slept.
                    let ours = follower.assure().await.is_ok();
                    let tell = async || {
                        let told = AssertUnwindSafe(tell_one::<P>(store, commands, &timer));
                        told.catch_unwind().await.unwrap_or(false)
                    };
                    let told = ours && tell().await;
                    (told, timer)
                }
            });
            let told: Vec<_> = stream::iter(tellings).buffer_unordered(AT_ONCE).collect().await;
            let (done, again): (Vec<_>, Vec<_>) = told.into_iter().partition(|(done, _)| *done);
            let timers = |list: Vec<(bool, Timer)>| list.into_iter().map(|(_, one)| one).collect();
            TimersMessage::Told(Told { done: timers(done), again: timers(again) })
        }));
    }

    async fn told(&mut self, told: Told, cx: &Context<Self>) -> Result<(), ClaimError> {
        let done: Vec<_> = told.done.iter().map(|timer| (timer.note(), None)).collect();
        self.follower.save(self.cursor, done).await?;
        for timer in &told.done {
            self.waiting.remove(timer);
        }
        self.telling = None;
        match told.again.is_empty() {
            true => self.set_alarm(cx),
            false => self.alarm = Some(cx.tell_after(AGAIN, TimersMessage::Due)),
        }
        Ok(())
    }
}

/// The deadlines that an event of a process sets.
fn timers_of<P: Process>(event: &RecordedEvent) -> Vec<Timer> {
    let effects = match guarded(|| effects_of::<P>(event)) {
        Ok(Ok(effects)) => effects,
        // It is a dead letter of those who have the effects.
        Ok(Err(_)) | Err(_) => return Vec::new(),
    };
    let timer = |kind| match kind {
        Kind::Later { name, due, .. } => {
            let due = match due {
                Due::At(time) => time,
                Due::After(wait) => {
                    let micros = i64::try_from(wait.as_micros()).unwrap_or(i64::MAX);
                    Timestamp::from_micros(event.recorded_at.as_micros().saturating_add(micros))
                }
            };
            Some(Timer { due, position: event.position, name })
        }
        _ => None,
    };
    effects.into_iter().filter_map(timer).collect()
}

/// Lets a process hear of a deadline; answers whether it is done with.
async fn tell_one<P: Process>(
    store: &dyn EventStore,
    commands: &CommandBus,
    timer: &Timer,
) -> bool {
    let before = Position::new(timer.position.get().saturating_sub(1));
    let event = match store.read_all(before, 1).await {
        Ok(found) => found.into_iter().next().filter(|event| event.position == timer.position),
        Err(_) => return false,
    };
    let Some(event) = event else {
        tracing::error!(?timer, process = P::CATEGORY, "the event of a deadline is gone");
        return true;
    };
    let command =
        effects_of::<P>(&event).unwrap_or_default().into_iter().find_map(|kind| match kind {
            Kind::Later { name, command, .. } if name == timer.name => Some(command),
            _ => None,
        });
    let Some(command) = command else {
        tracing::warn!(?timer, process = P::CATEGORY, "the process no longer has this deadline");
        return true;
    };
    let key = key_of::<P>(&event, format!("at/{}", timer.name));
    let envelope = CommandEnvelope::new(command()).key(key).caused_by(&event);
    match commands.send::<P>(id_of(&event), envelope).await {
        Ok(_) => true,
        Err(error) if error.class() == ErrorClass::Transient => false,
        Err(error) => {
            tracing::warn!(?timer, process = P::CATEGORY, %error, "a deadline was refused");
            true
        }
    }
}

impl<P: Process> SupervisedComponent for Timers<P> {
    type Handover = ();

    fn supervision_metadata(_: &TimersArgs<P>) -> SupervisionMetadata {
        SupervisionMetadata::of(component::SAGA)
    }
}

impl<P> fmt::Debug for Timers<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Timers")
            .field("follower", &self.follower)
            .field("waiting", &self.waiting.len())
            .finish_non_exhaustive()
    }
}

impl<P> fmt::Debug for TimersArgs<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TimersArgs").field("pool", &self.pool).finish_non_exhaustive()
    }
}
