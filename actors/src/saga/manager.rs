//! The manager: sees to it that every saga that is open goes on.
//!
//! It follows the log for sagas that begin, are resumed or aborted, and wakes those whose time has
//! come. When it starts it finds the open ones in their read model. What it keeps in memory is
//! only who sleeps until when, a line a saga.
//!
//! Where that read model is being made again (a new version of it, or SQLite's migration 8, which
//! leaves it to be made in another file), it goes by the log from the beginning, and wakes every
//! saga that ever began. That costs the reading of each one's stream, once: whether something is to
//! be done, a saga decides on its own events alone.
//!
//! Where several nodes share a store, one of them has the sagas: the manager follows the log under a
//! claim, and the others stand by. A claim that is lost ends its life, and the sagas end with it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use mister_smith_supervisors::{
    Actor, ChildSpec, Context, ErrorClass, ExitReason, Failure, RestartPolicy, StartError,
    SupervisedComponent, SupervisionMetadata, SupervisorError, SupervisorRef, TaskGuard,
};
use tokio::sync::watch;

use super::actor::{NAP, SagaActor, SagaArgs, SagaMessage};
use super::summary::{OpenSagas, SagaSummary};
use super::{Definitions, SagaStatus};
use crate::component;
use crate::event::{Position, StreamId, Timestamp};
use crate::pool::{Lease, lease_at_start, store_failure};
use crate::projection::{Compare, ListQuery, Projection, ProjectionError};
use crate::store::EventFilter;
use crate::store::claims::ClaimError;
use crate::store::follow::{self, Cursor, Follow, Follower, Shown, Step};

/// Under which name the claim is kept.
const CLAIM: &str = "sagas";

/// Sagas of one page when it starts, and events of one page later.
const PAGE: usize = 500;

/// What makes a saga go on.
const TYPES: [&str; 3] = ["saga.started", "saga.resumed", "saga.abort_requested"];

/// What the manager can be told.
#[derive(Debug)]
pub enum ManagerMessage {
    /// What comes next in the log. Sent by the manager to itself.
    Next(Box<Result<Step, ClaimError>>),
    /// A saga's actor has ended, and goes on then, or when something happens to it.
    Asleep {
        /// Its stream.
        stream: StreamId,
        /// When it goes on by itself.
        until: Option<Timestamp>,
    },
    /// Some may have to be woken. Sent by the manager to itself.
    Due,
    /// Another node has taken over, or the store is gone. Sent by the manager to itself.
    Lost(ClaimError),
}

/// What a fresh start needs.
#[derive(Clone, Debug)]
pub struct ManagerArgs {
    /// Path of the pool.
    pub pool: Arc<str>,
    /// Path of the committer.
    pub committer: Arc<str>,
    /// Path of the dynamic supervisor under which the sagas' actors live.
    pub running: Arc<str>,
    /// Who this node is to the others on its store.
    pub owner: Arc<str>,
    /// The end of the log.
    pub head: watch::Receiver<Position>,
    /// Whether it stands by, for those who look.
    pub shown: Arc<Shown>,
    /// What sagas do.
    pub definitions: Definitions,
}

/// The actor.
pub struct SagaManager {
    args: ManagerArgs,
    lease: Lease,
    follower: Follower,
    cursor: Cursor,
    paused: bool,
    begun: bool,
    due: BTreeSet<(Timestamp, StreamId)>,
    asleep: BTreeMap<StreamId, Timestamp>,
    following: Option<TaskGuard>,
    timer: Option<TaskGuard>,
    _keeping: TaskGuard,
    shown: Arc<AtomicU64>,
}

impl Actor for SagaManager {
    type Message = ManagerMessage;
    type Args = ManagerArgs;

    async fn start(args: &ManagerArgs, cx: &mut Context<Self>) -> Result<Self, StartError> {
        let lease = lease_at_start(cx, &args.pool).await?;
        let (shown, count) = (Arc::clone(&args.shown), Arc::<AtomicU64>::default());
        let (standing, asleep) = (Arc::clone(&shown), Arc::clone(&count));
        cx.describe(move || {
            let standing = standing.standing();
            if standing.standby {
                return "standby: another node has the sagas".to_owned();
            }
            let paused = if standing.paused { "paused   " } else { "" };
            format!("{paused}{} asleep", asleep.load(Ordering::Relaxed))
        });
        let filter = EventFilter::ALL.categories([super::CATEGORY]).types(TYPES);
        let follow = Follow::new(CLAIM, Arc::clone(&args.owner)).filter(filter);
        let follower = Follower::new(follow, &lease, args.head.clone(), cx.clock(), shown);
        let kept = follower.clone();
        let mut manager = Self {
            args: args.clone(),
            lease,
            // The supervisor of the sagas starts after this.
            _keeping: cx.spawn_tell(async move { ManagerMessage::Lost(kept.keep().await) }),
            follower,
            cursor: Cursor::default(),
            paused: false,
            begun: false,
            due: BTreeSet::new(),
            asleep: BTreeMap::new(),
            following: None,
            timer: None,
            shown: count,
        };
        manager.go_on(cx);
        Ok(manager)
    }

    async fn handle(
        &mut self,
        message: ManagerMessage,
        cx: &mut Context<Self>,
    ) -> Result<(), Failure> {
        match message {
            ManagerMessage::Next(step) => {
                self.take((*step).map_err(follow::failure)?, cx).await?;
                self.go_on(cx);
            }
            ManagerMessage::Asleep { stream, until } => self.sleep(stream, until),
            ManagerMessage::Due => self.wake(cx).await?,
            ManagerMessage::Lost(error) => return Err(follow::failure(error)),
        }
        self.set_timer(cx);
        self.shown.store(self.asleep.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    async fn stop(&mut self, _: &ExitReason, _: &mut Context<Self>) {
        // The sagas' actors come after this one in the tree, and have ended.
        self.follower.release().await;
    }

    fn message_name(message: &ManagerMessage) -> &'static str {
        match message {
            ManagerMessage::Next(_) => "Next",
            ManagerMessage::Asleep { .. } => "Asleep",
            ManagerMessage::Due => "Due",
            ManagerMessage::Lost(_) => "Lost",
        }
    }
}

impl SagaManager {
    /// Sets going those that are open, once. Others may begin with the events after that.
    async fn begin(&mut self, cx: &Context<Self>) -> Result<(), Failure> {
        if self.begun || self.paused {
            return Ok(());
        }
        self.asleep.clear();
        self.due.clear();
        let documents = &self.lease.documents;
        // Asked for before the documents are read: they are at least as far.
        let progress = documents.progress(OpenSagas::NAME).await.map_err(failure)?;
        let active = progress.iter().filter(|part| part.active);
        let from = active.map(|part| part.position).min().unwrap_or_default();
        let supervisor = self.supervisor(cx)?;
        let now = Timestamp::from_micros(cx.clock().wall_us());
        let nap = i64::try_from(NAP.as_micros()).unwrap_or(i64::MAX);
        let mut query = ListQuery::first(PAGE).filter("open", Compare::Eq, true);
        loop {
            let page = self.lease.documents.list(OpenSagas::NAME, &query).await.map_err(failure)?;
            let Some(last) = page.last() else { break };
            query = query.after(&*last.id);
            for document in page {
                let summary = serde_json::from_slice::<SagaSummary>(&document.data);
                let wake_at = summary.ok().and_then(|summary| match summary.status {
                    SagaStatus::Running => {
                        summary.wake_at.map(|at| summary.deadline.map_or(at, |by| by.min(at)))
                    }
                    _ => summary.wake_at,
                });
                let Ok(stream) = StreamId::new(document.id) else { continue };
                match wake_at {
                    Some(at) if at.as_micros() > now.as_micros() + nap => {
                        self.sleep(stream, Some(at));
                    }
                    _ => self.poke(&stream, &supervisor, cx).await?,
                }
            }
        }
        (self.cursor, self.begun) = (self.cursor.after(from), true);
        // What the documents tell was looked at; a follower that is careful waits for all before.
        self.follower.settle(self.cursor, from);
        Ok(())
    }

    /// Takes what comes next in the log.
    async fn take(&mut self, step: Step, cx: &Context<Self>) -> Result<(), Failure> {
        let next = step.cursor();
        match step {
            Step::Begin(_) => {
                (self.cursor, self.begun) = (next, false);
                self.paused = self.args.shown.standing().paused;
                return self.begin(cx).await;
            }
            _ if !next.is_turn_of(self.cursor) => return Ok(()),
            Step::Page(events, _) => {
                let supervisor = self.supervisor(cx)?;
                for event in events {
                    self.poke(&event.stream, &supervisor, cx).await?;
                }
            }
            // A poke does nothing but wake its saga; that one is guarded by itself.
            Step::Poison(event, ..) => {
                let supervisor = self.supervisor(cx)?;
                self.poke(&event.stream, &supervisor, cx).await?;
            }
            // What runs goes on; nothing else is begun.
            Step::Paused(paused, _) => {
                (self.cursor, self.paused) = (next, paused);
                return self.begin(cx).await;
            }
        }
        self.follower.settle(next, next.position());
        self.cursor = next;
        Ok(())
    }

    fn go_on(&mut self, cx: &Context<Self>) {
        let (follower, cursor) = (self.follower.clone(), self.cursor);
        self.following = Some(cx.spawn_tell(async move {
            ManagerMessage::Next(Box::new(follower.next(cursor, PAGE).await))
        }));
    }

    fn supervisor(&self, cx: &Context<Self>) -> Result<SupervisorRef, Failure> {
        cx.find_supervisor(&self.args.running)
            .map_err(|error| Failure::transient(error.to_string()))
    }

    fn sleep(&mut self, stream: StreamId, until: Option<Timestamp>) {
        if let Some(before) = self.asleep.remove(&stream) {
            self.due.remove(&(before, stream.clone()));
        }
        if let Some(until) = until {
            self.asleep.insert(stream.clone(), until);
            self.due.insert((until, stream));
        }
    }

    /// Wakes those whose time has come.
    async fn wake(&mut self, cx: &Context<Self>) -> Result<(), Failure> {
        self.timer = None;
        let supervisor = self.supervisor(cx)?;
        let now = Timestamp::from_micros(cx.clock().wall_us());
        while let Some((until, stream)) = self.due.first().cloned()
            && until <= now
        {
            self.sleep(stream.clone(), None);
            self.poke(&stream, &supervisor, cx).await?;
        }
        Ok(())
    }

    fn set_timer(&mut self, cx: &Context<Self>) {
        if self.paused {
            self.timer = None;
            return;
        }
        self.timer =
            self.due.first().map(|(until, _)| cx.tell_at(until.as_micros(), ManagerMessage::Due));
    }

    /// Tells a saga that there is something new, or starts its actor.
    async fn poke(
        &mut self,
        stream: &StreamId,
        supervisor: &SupervisorRef,
        cx: &Context<Self>,
    ) -> Result<(), Failure> {
        self.sleep(stream.clone(), None);
        for _ in 0..8 {
            if let Some(actor) = supervisor.child::<SagaMessage>(stream.as_str())
                && actor.tell(SagaMessage::Changed).await.is_ok()
            {
                return Ok(());
            }
            match supervisor.spawn_spec::<SagaMessage>(self.spec(stream, cx)).await {
                Ok(_) => return Ok(()),
                // It is just ending, or just beginning.
                Err(SupervisorError::AlreadyStarted { .. }) => {}
                Err(error) => return Err(Failure::wrap(ErrorClass::Transient, error)),
            }
        }
        Err(Failure::transient(format!("the actor of {stream} neither runs nor starts")))
    }

    fn spec(&self, stream: &StreamId, cx: &Context<Self>) -> ChildSpec {
        let args = SagaArgs {
            stream: stream.clone(),
            pool: Arc::clone(&self.args.pool),
            committer: Arc::clone(&self.args.committer),
            manager: cx.path().as_str().into(),
            definitions: self.args.definitions.clone(),
        };
        ChildSpec::actor::<SagaActor>(stream.as_str(), args)
            .component_type(component::SAGA)
            .restart(RestartPolicy::Transient)
    }
}

impl SupervisedComponent for SagaManager {
    type Handover = ();

    fn supervision_metadata(_: &ManagerArgs) -> SupervisionMetadata {
        SupervisionMetadata::of(component::SAGA)
    }
}

impl fmt::Debug for SagaManager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SagaManager")
            .field("follower", &self.follower)
            .field("asleep", &self.asleep.len())
            .finish_non_exhaustive()
    }
}

fn failure(error: ProjectionError) -> Failure {
    match error {
        ProjectionError::Store(error) => store_failure(error),
        other => Failure::wrap(ErrorClass::Transient, other),
    }
}
