//! The relay: follows the log and sends what it wants of it.
//!
//! It keeps its checkpoint as projections do, under a claim, so that of several nodes on one store
//! one sends. Beside it are marks: up to which event the outlet's numbers went. An outlet whose
//! last number is lower than it was has lost messages (a JetStream server that lost power, a Redis
//! without its file), and the relay goes back to the last mark that it still has.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use mister_smith_supervisors::{
    Actor, Context, ErrorClass, Failure, Health, StartError, SupervisedComponent,
    SupervisionMetadata, TaskGuard,
};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::{Outlet, OutletError, SubjectOf};
use crate::bus::Subject;
use crate::component;
use crate::event::{Position, RecordedEvent};
use crate::pool::{Lease, lease_at_start, store_failure};
use crate::projection::ProjectionError;
use crate::store::EventFilter;
use crate::store::read_model::Epoch;
use crate::store::read_model::documents::{Claimed, Commit, Part, Wanted, Writer};

/// Events that are sent at a time.
const PAGE: usize = 500;

/// How long the claim is good without a sign of life.
const LEASE: Duration = Duration::from_secs(5);

/// The pause after a failure, doubled with each, up to the last.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// Positions of the log that may be passed over without a checkpoint.
const PASSED_OVER: u64 = 10_000;

/// Marks that are kept.
const MARKS: usize = 64;

/// The document that holds the marks.
const DOCUMENT: &str = "marks";

/// What the relay can be told.
#[derive(Debug)]
pub enum RelayMessage {
    /// There may be something to send. Sent by the relay to itself.
    Continue,
}

/// What a fresh start needs.
#[derive(Clone)]
pub struct RelayArgs {
    /// Its name, under which its checkpoint is kept.
    pub name: Arc<str>,
    /// Path of the pool.
    pub pool: Arc<str>,
    /// Who this node is to the others on its store.
    pub owner: Arc<str>,
    /// The end of the log.
    pub head: watch::Receiver<Position>,
    /// Where it sends.
    pub outlet: Arc<dyn Outlet>,
    /// What it sends.
    pub filter: EventFilter,
    /// Under which subjects.
    pub subject: SubjectOf,
    /// How far it is, for those who wait.
    pub done: Arc<watch::Sender<Position>>,
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
    lease: Lease,
    claim: Option<(Part, Epoch)>,
    at: Position,
    saved: Position,
    marks: Vec<Mark>,
    /// The outlet has to be asked whether it has lost anything.
    doubtful: bool,
    failures: u32,
    waiting: Option<TaskGuard>,
    shown: Arc<Shown>,
}

#[derive(Debug, Default)]
struct Shown {
    at: AtomicU64,
    standby: AtomicBool,
    trouble: Mutex<Option<String>>,
}

impl Actor for Relay {
    type Message = RelayMessage;
    type Args = RelayArgs;

    async fn start(args: &RelayArgs, cx: &mut Context<Self>) -> Result<Self, StartError> {
        let lease = lease_at_start(cx, &args.pool).await?;
        let shown = Arc::new(Shown::default());
        let (status, head) = (Arc::clone(&shown), args.head.clone());
        cx.describe(move || {
            if status.standby.load(Ordering::Relaxed) {
                return "standby: another node sends".to_owned();
            }
            let at = status.at.load(Ordering::Relaxed);
            let pending = head.borrow().get().saturating_sub(at);
            let trouble = status.trouble.lock().unwrap_or_else(PoisonError::into_inner);
            match &*trouble {
                Some(trouble) => format!("{pending} pending   {trouble}"),
                None => format!("{pending} pending"),
            }
        });
        Ok(Self {
            args: args.clone(),
            lease,
            claim: None,
            at: Position::ZERO,
            saved: Position::ZERO,
            marks: Vec::new(),
            doubtful: true,
            failures: 0,
            waiting: Some(cx.tell_after(Duration::ZERO, RelayMessage::Continue)),
            shown,
        })
    }

    async fn handle(&mut self, _: RelayMessage, cx: &mut Context<Self>) -> Result<(), Failure> {
        if self.claim.is_none() && !self.try_claim().await.map_err(failure)? {
            self.shown.standby.store(true, Ordering::Relaxed);
            self.waiting = Some(cx.tell_after(LEASE / 3, RelayMessage::Continue));
            return Ok(());
        }
        match self.work().await {
            Ok(more) => {
                self.failures = 0;
                *self.shown.trouble.lock().unwrap_or_else(PoisonError::into_inner) = None;
                match more {
                    // Through the mailbox, so that a stop does not wait for the whole log.
                    true => {
                        self.waiting = Some(cx.tell_after(Duration::ZERO, RelayMessage::Continue));
                    }
                    false => self.wait(cx),
                }
            }
            Err(Trouble::Read(error)) => return Err(failure(error)),
            Err(Trouble::Outlet(error)) => self.pause(&error, cx),
        }
        self.shown.at.store(self.at.get(), Ordering::Relaxed);
        self.args.done.send_replace(self.at);
        Ok(())
    }

    fn message_name(_: &RelayMessage) -> &'static str {
        "Continue"
    }
}

enum Trouble {
    Read(ProjectionError),
    Outlet(OutletError),
}

impl From<ProjectionError> for Trouble {
    fn from(error: ProjectionError) -> Self {
        Self::Read(error)
    }
}

impl Relay {
    async fn try_claim(&mut self) -> Result<bool, ProjectionError> {
        let name = format!("$relay.{}", self.args.name);
        let build =
            self.lease.documents.builds(&name, Wanted { version: 1, partitions: 1 }).await?.active;
        let part = Part { build: build.id, partition: 0 };
        let claim = match self.lease.documents.claim(part, &self.args.owner, LEASE).await? {
            Claimed::Held { .. } => return Ok(false),
            Claimed::Yes(claim) => claim,
        };
        let marks = self.lease.documents.load(build.id, &[DOCUMENT.into()]).await?;
        self.marks = marks
            .first()
            .and_then(|document| serde_json::from_slice(&document.data).ok())
            .unwrap_or_default();
        self.claim = Some((part, claim.epoch));
        self.at = claim.checkpoint;
        self.saved = claim.checkpoint;
        self.doubtful = true;
        self.shown.standby.store(false, Ordering::Relaxed);
        Ok(true)
    }

    /// Sends one page; answers whether there may be more.
    async fn work(&mut self) -> Result<bool, Trouble> {
        if self.doubtful {
            self.look_back().await?;
        }
        let filter = &self.args.filter;
        let page = self.lease.store.read_matching(filter, self.at, PAGE).await;
        let page = page.map_err(|error| Trouble::Read(error.into()))?;
        let scanned_to = page.scanned_to;
        if scanned_to <= self.at {
            if self.lease.shared {
                // A sign of life.
                self.save_marks().await?;
            }
            return Ok(false);
        }
        let subject = &self.args.subject;
        let events: Vec<(Subject, RecordedEvent)> = page
            .events
            .into_iter()
            .filter_map(|event| subject(&event).map(|subject| (subject, event)))
            .collect();
        if events.is_empty() {
            self.at = scanned_to;
            if self.at.get() - self.saved.get() >= PASSED_OVER {
                self.save_marks().await?;
            }
            return Ok(true);
        }
        match self.args.outlet.send(self.lease.store.store_id(), &events).await {
            Ok(last) => {
                let before = last.saturating_sub(events.len() as u64);
                if last > 0 && self.marks.last().is_some_and(|mark| mark.number > last) {
                    // It lost messages while nobody looked, and numbers these from there on.
                    self.go_back(before).await?;
                } else {
                    self.at = scanned_to;
                    self.mark(last);
                    self.save_marks().await?;
                }
                Ok(true)
            }
            Err(error) => {
                if let Some(sent) = error.sent.checked_sub(1).and_then(|last| events.get(last)) {
                    self.at = sent.1.position;
                    self.mark(error.last);
                    self.save_marks().await?;
                }
                Err(Trouble::Outlet(error))
            }
        }
    }

    /// Goes back to what the outlet still has.
    async fn look_back(&mut self) -> Result<(), Trouble> {
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
        self.at = back.min(self.at);
        self.save_marks().await?;
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

    /// Keeps how far it is.
    async fn save_marks(&mut self) -> Result<(), ProjectionError> {
        let Some((part, epoch)) = self.claim else { return Ok(()) };
        let marks = serde_json::to_vec(&self.marks).unwrap_or_default();
        let commit = Commit {
            writer: Writer { part, owner: Arc::clone(&self.args.owner), epoch },
            lease: LEASE,
            from: None,
            to: self.at,
            changes: vec![(DOCUMENT.into(), Some(marks.into()), self.at)],
            park: Vec::new(),
            unpark: Vec::new(),
        };
        self.lease.documents.commit(commit).await?;
        self.saved = self.at;
        Ok(())
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
        *self.shown.trouble.lock().unwrap_or_else(PoisonError::into_inner) =
            Some(error.to_string());
        self.waiting = Some(cx.tell_after(pause, RelayMessage::Continue));
    }

    fn wait(&mut self, cx: &Context<Self>) {
        let (mut head, at, shared) = (self.args.head.clone(), self.at, self.lease.shared);
        self.waiting = Some(cx.spawn_tell(async move {
            let grown = async { _ = head.wait_for(|head| *head > at).await };
            match shared {
                true => _ = tokio::time::timeout(LEASE / 3, grown).await,
                false => grown.await,
            }
            RelayMessage::Continue
        }));
    }
}

impl SupervisedComponent for Relay {
    type Handover = ();

    async fn health_check(&mut self, _: &mut Context<Self>) -> Health {
        let trouble = self.shown.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone();
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

fn failure(error: ProjectionError) -> Failure {
    match error {
        ProjectionError::Store(error) => store_failure(error),
        other => Failure::wrap(ErrorClass::Transient, other),
    }
}
