//! Deadlines of processes: kept in the store, so that they are there after any crash.
//!
//! The actor follows the events of a process. What [`then`](super::Process::then) wants to be
//! heard later becomes a note in the store, together with the place up to which the events were
//! read; so none is missed and none is there twice. When its time has come the process hears it,
//! under a name, and then the note is removed.

use std::collections::BTreeSet;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::{StreamExt, stream};
use mister_smith_supervisors::{
    Actor, Context, ErrorClass as Class, Failure, StartError, SupervisedComponent,
    SupervisionMetadata, TaskGuard,
};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::effects::effects_of;
use super::{Due, Kind, Process, id_of, key_of};
use crate::command::{CommandBus, CommandEnvelope};
use crate::component;
use crate::error::ErrorClass;
use crate::event::{Position, RecordedEvent, Timestamp};
use crate::pool::{Lease, lease_at_start, store_failure};
use crate::projection::ProjectionError;
use crate::store::read_model::claim::{Claim, LEASE, Note};
use crate::store::{EventFilter, EventStore};

/// Events, and notes, of one page.
const PAGE: usize = 500;

/// Deadlines that processes hear of at once.
const AT_ONCE: usize = 16;

/// The pause before a process is told again that could not be told.
const AGAIN: Duration = Duration::from_millis(200);

/// Positions of the log that may be passed over without a checkpoint.
const PASSED_OVER: u64 = 10_000;

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
        format!("{:020}/{}", self.position.get(), self.name).into()
    }
}

/// What the actor can be told.
#[derive(Debug)]
pub enum TimersMessage {
    /// There may be something to read. Sent by the actor to itself.
    Continue,
    /// Some may be due. Sent by the actor to itself.
    Due,
    /// Processes have heard of theirs; those that remain could not be told.
    Told(Told),
    /// Say that it is alive. Sent by the actor to itself.
    Renew,
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
    pub(super) commands: CommandBus,
    pub(super) process: PhantomData<fn() -> P>,
}

impl<P> Clone for TimersArgs<P> {
    fn clone(&self) -> Self {
        Self {
            pool: Arc::clone(&self.pool),
            owner: Arc::clone(&self.owner),
            head: self.head.clone(),
            commands: self.commands.clone(),
            process: PhantomData,
        }
    }
}

/// The actor.
pub struct Timers<P> {
    args: TimersArgs<P>,
    lease: Lease,
    claim: Option<Claim>,
    at: Position,
    saved: Position,
    waiting: BTreeSet<Timer>,
    telling: Option<TaskGuard>,
    reading: Option<TaskGuard>,
    alarm: Option<TaskGuard>,
    renewal: Option<TaskGuard>,
    shown: Arc<Shown>,
}

#[derive(Debug, Default)]
struct Shown {
    waiting: AtomicUsize,
    standby: AtomicBool,
}

impl<P: Process> Actor for Timers<P> {
    type Message = TimersMessage;
    type Args = TimersArgs<P>;

    async fn start(args: &TimersArgs<P>, cx: &mut Context<Self>) -> Result<Self, StartError> {
        let lease = lease_at_start(cx, &args.pool).await?;
        let shown = Arc::new(Shown::default());
        let status = Arc::clone(&shown);
        cx.describe(move || match status.standby.load(Ordering::Relaxed) {
            true => "standby: another node has them".to_owned(),
            false => format!("{} waiting", status.waiting.load(Ordering::Relaxed)),
        });
        Ok(Self {
            args: args.clone(),
            lease,
            claim: None,
            at: Position::ZERO,
            saved: Position::ZERO,
            waiting: BTreeSet::new(),
            telling: None,
            reading: Some(cx.tell_after(Duration::ZERO, TimersMessage::Continue)),
            alarm: None,
            renewal: None,
            shown,
        })
    }

    async fn handle(
        &mut self,
        message: TimersMessage,
        cx: &mut Context<Self>,
    ) -> Result<(), Failure> {
        match message {
            TimersMessage::Continue => self.read(cx).await.map_err(failure)?,
            TimersMessage::Due => {
                self.alarm = None;
                self.tell(cx);
            }
            TimersMessage::Told(told) => self.told(told, cx).await.map_err(failure)?,
            TimersMessage::Renew => {
                self.save([]).await.map_err(failure)?;
                self.renewal = Some(cx.tell_after(LEASE / 3, TimersMessage::Renew));
            }
        }
        self.shown.waiting.store(self.waiting.len(), Ordering::Relaxed);
        Ok(())
    }

    fn message_name(message: &TimersMessage) -> &'static str {
        match message {
            TimersMessage::Continue => "Continue",
            TimersMessage::Due => "Due",
            TimersMessage::Told(_) => "Told",
            TimersMessage::Renew => "Renew",
        }
    }
}

impl<P: Process> Timers<P> {
    /// Reads a page of the process's events, and keeps the deadlines that they set.
    async fn read(&mut self, cx: &Context<Self>) -> Result<(), ProjectionError> {
        if self.claim.is_none() && !self.take(cx).await? {
            return Ok(());
        }
        let filter = EventFilter::ALL.categories([P::CATEGORY]);
        let page = self.lease.store.read_matching(&filter, self.at, PAGE).await?;
        if page.scanned_to <= self.at {
            self.wait(cx);
            return Ok(());
        }
        self.at = page.scanned_to;
        let timers: Vec<_> = page.events.iter().flat_map(timers_of::<P>).collect();
        if !timers.is_empty() || self.at.get() - self.saved.get() >= PASSED_OVER {
            let notes: Vec<Note> = timers
                .iter()
                .map(|timer| (timer.note(), serde_json::to_vec(timer).ok().map(Into::into)))
                .collect();
            self.save(notes).await?;
        }
        self.waiting.extend(timers);
        self.set_alarm(cx);
        self.reading = Some(cx.tell_after(Duration::ZERO, TimersMessage::Continue));
        Ok(())
    }

    async fn take(&mut self, cx: &Context<Self>) -> Result<bool, ProjectionError> {
        let name = format!("$timers.{}", P::CATEGORY);
        let taken = Claim::take(&self.lease.documents, name, &self.args.owner).await?;
        self.shown.standby.store(taken.is_none(), Ordering::Relaxed);
        let Some((claim, at)) = taken else {
            self.reading = Some(cx.tell_after(LEASE / 3, TimersMessage::Continue));
            return Ok(false);
        };
        let mut after: Option<Arc<str>> = None;
        loop {
            let page = claim.notes(after.as_deref(), PAGE).await?;
            let Some(last) = page.last() else { break };
            after = Some(Arc::clone(&last.id));
            let timers = page.iter().filter_map(|note| serde_json::from_slice(&note.data).ok());
            self.waiting.extend(timers);
        }
        self.claim = Some(claim);
        (self.at, self.saved) = (at, at);
        if self.lease.shared {
            self.renewal = Some(cx.tell_after(LEASE / 3, TimersMessage::Renew));
        }
        Ok(true)
    }

    async fn save(&mut self, notes: impl IntoIterator<Item = Note>) -> Result<(), ProjectionError> {
        if let Some(claim) = &self.claim {
            claim.save(self.at, notes).await?;
            self.saved = self.at;
        }
        Ok(())
    }

    fn wait(&mut self, cx: &Context<Self>) {
        let (mut head, at) = (self.args.head.clone(), self.at);
        self.reading = Some(cx.spawn_tell(async move {
            if head.wait_for(|head| *head > at).await.is_err() {
                // The node is ending.
                std::future::pending::<()>().await;
            }
            TimersMessage::Continue
        }));
    }

    fn set_alarm(&mut self, cx: &Context<Self>) {
        self.alarm = match self.waiting.first() {
            // Also when the clock is set, or the machine sleeps, meanwhile.
            Some(first) if self.telling.is_none() => {
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
        if due.is_empty() || self.telling.is_some() {
            self.set_alarm(cx);
            return;
        }
        let (store, commands) = (Arc::clone(&self.lease.store), self.args.commands.clone());
        self.telling = Some(cx.spawn_tell(async move {
            let tellings = due.into_iter().map(|timer| {
                let (store, commands) = (&*store, &commands);
                async move { (tell_one::<P>(store, commands, &timer).await, timer) }
            });
            let told: Vec<_> = stream::iter(tellings).buffer_unordered(AT_ONCE).collect().await;
            let (done, again): (Vec<_>, Vec<_>) = told.into_iter().partition(|(done, _)| *done);
            let timers = |list: Vec<(bool, Timer)>| list.into_iter().map(|(_, one)| one).collect();
            TimersMessage::Told(Told { done: timers(done), again: timers(again) })
        }));
    }

    async fn told(&mut self, told: Told, cx: &Context<Self>) -> Result<(), ProjectionError> {
        self.save(told.done.iter().map(|timer| (timer.note(), None)).collect::<Vec<_>>()).await?;
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
    let effects = match effects_of::<P>(event) {
        Ok(effects) => effects,
        // It is a dead letter of those who have the effects.
        Err(_) => return Vec::new(),
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
            .field("at", &self.at)
            .field("waiting", &self.waiting.len())
            .finish_non_exhaustive()
    }
}

impl<P> fmt::Debug for TimersArgs<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TimersArgs").field("pool", &self.pool).finish_non_exhaustive()
    }
}

fn failure(error: ProjectionError) -> Failure {
    match error {
        ProjectionError::Store(error) => store_failure(error),
        other => Failure::wrap(Class::Transient, other),
    }
}
