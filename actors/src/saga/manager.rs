//! The manager: sees to it that every saga that is open goes on.
//!
//! It follows the log for sagas that begin, are resumed or aborted, and wakes those whose time has
//! come. When it starts it finds the open ones in their read model. What it keeps in memory is
//! only who sleeps until when, a line a saga.
//!
//! Where several nodes share a store, one of them has the sagas: the manager claims them, as a
//! projection claims its documents, and the others stand by.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use mister_smith_supervisors::{
    Actor, ChildSpec, Context, ErrorClass, Failure, RestartPolicy, StartError, SupervisedComponent,
    SupervisionMetadata, SupervisorError, SupervisorRef, TaskGuard,
};

use super::actor::{NAP, SagaActor, SagaArgs, SagaMessage};
use super::summary::{OpenSagas, SagaSummary};
use super::{Definitions, SagaStatus};
use crate::component;
use crate::event::{Position, RecordedEvent, StreamId, Timestamp};
use crate::pool::{Lease, lease_at_start, store_failure};
use crate::projection::{Compare, ListQuery, Projection, ProjectionError};
use crate::store::read_model::Epoch;
use crate::store::read_model::documents::{Claimed, Commit, Part, Wanted, Writer};
use crate::store::subscription::Subscription;
use crate::store::{EventFilter, StoreError};

/// How long the claim is good without a sign of life.
const LEASE: Duration = Duration::from_secs(5);

/// Under which name the claim is kept.
const CLAIM: &str = "$sagas";

/// Sagas of one page when it starts, and events of one page later.
const PAGE: usize = 500;

/// What makes a saga go on.
const TYPES: [&str; 3] = ["saga.started", "saga.resumed", "saga.abort_requested"];

/// What the manager can be told.
#[derive(Debug)]
pub enum ManagerMessage {
    /// Find the open sagas, or try to get them. Sent by the manager to itself.
    Begin,
    /// Events of the log. Sent by the manager to itself.
    Heard(Box<Heard>),
    /// A saga's actor has ended, and goes on then, or when something happens to it.
    Asleep {
        /// Its stream.
        stream: StreamId,
        /// When it goes on by itself.
        until: Option<Timestamp>,
    },
    /// Some may have to be woken. Sent by the manager to itself.
    Due,
    /// Say that it is alive. Sent by the manager to itself.
    Renew,
}

/// A page of the log, and where to go on.
#[derive(Debug)]
pub struct Heard {
    subscription: Subscription,
    result: Result<Vec<RecordedEvent>, StoreError>,
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
    /// What sagas do.
    pub definitions: Definitions,
}

/// The actor.
pub struct SagaManager {
    args: ManagerArgs,
    lease: Lease,
    claim: Option<(Part, Epoch)>,
    begun: bool,
    due: BTreeSet<(Timestamp, StreamId)>,
    asleep: BTreeMap<StreamId, Timestamp>,
    following: Option<TaskGuard>,
    timer: Option<TaskGuard>,
    renewal: Option<TaskGuard>,
    shown: Arc<Shown>,
}

#[derive(Debug, Default)]
struct Shown {
    standby: AtomicU64,
    asleep: AtomicU64,
}

impl Actor for SagaManager {
    type Message = ManagerMessage;
    type Args = ManagerArgs;

    async fn start(args: &ManagerArgs, cx: &mut Context<Self>) -> Result<Self, StartError> {
        let lease = lease_at_start(cx, &args.pool).await?;
        let shown = Arc::new(Shown::default());
        let status = Arc::clone(&shown);
        cx.describe(move || match status.standby.load(Ordering::Relaxed) {
            0 => format!("{} asleep", status.asleep.load(Ordering::Relaxed)),
            _ => "standby: another node has the sagas".to_owned(),
        });
        Ok(Self {
            args: args.clone(),
            lease,
            claim: None,
            begun: false,
            due: BTreeSet::new(),
            asleep: BTreeMap::new(),
            following: None,
            timer: None,
            // The supervisor of the sagas starts after this.
            renewal: Some(cx.tell_after(Duration::ZERO, ManagerMessage::Begin)),
            shown,
        })
    }

    async fn handle(
        &mut self,
        message: ManagerMessage,
        cx: &mut Context<Self>,
    ) -> Result<(), Failure> {
        match message {
            ManagerMessage::Begin => self.begin(cx).await?,
            ManagerMessage::Heard(heard) => self.heard(*heard, cx).await?,
            ManagerMessage::Asleep { stream, until } => self.sleep(stream, until),
            ManagerMessage::Due => self.wake(cx).await?,
            ManagerMessage::Renew => self.renew(cx).await?,
        }
        self.set_timer(cx);
        self.shown.asleep.store(self.asleep.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    fn message_name(message: &ManagerMessage) -> &'static str {
        match message {
            ManagerMessage::Begin => "Begin",
            ManagerMessage::Heard(_) => "Heard",
            ManagerMessage::Asleep { .. } => "Asleep",
            ManagerMessage::Due => "Due",
            ManagerMessage::Renew => "Renew",
        }
    }
}

impl SagaManager {
    /// Gets the sagas, if they are to be had, and sets going those that are open.
    async fn begin(&mut self, cx: &Context<Self>) -> Result<(), Failure> {
        if self.begun {
            return Ok(());
        }
        if self.lease.shared && !self.try_claim().await.map_err(failure)? {
            self.shown.standby.store(1, Ordering::Relaxed);
            self.renewal = Some(cx.tell_after(LEASE / 3, ManagerMessage::Begin));
            return Ok(());
        }
        self.shown.standby.store(0, Ordering::Relaxed);
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
        self.begun = true;
        self.follow(self.subscription(from), cx);
        if self.lease.shared {
            self.renewal = Some(cx.tell_after(LEASE / 3, ManagerMessage::Renew));
        }
        Ok(())
    }

    async fn try_claim(&mut self) -> Result<bool, ProjectionError> {
        let build =
            self.lease.documents.builds(CLAIM, Wanted { version: 1, partitions: 1 }).await?.active;
        let part = Part { build: build.id, partition: 0 };
        match self.lease.documents.claim(part, &self.args.owner, LEASE).await? {
            Claimed::Held { .. } => Ok(false),
            Claimed::Yes(claim) => {
                self.claim = Some((part, claim.epoch));
                Ok(true)
            }
        }
    }

    /// Keeps the claim. One that was lost ends this life, and all sagas of this node with it.
    async fn renew(&mut self, cx: &Context<Self>) -> Result<(), Failure> {
        let Some((part, epoch)) = self.claim else { return Ok(()) };
        let commit = Commit {
            writer: Writer { part, owner: Arc::clone(&self.args.owner), epoch },
            lease: LEASE,
            from: None,
            to: Position::ZERO,
            changes: Vec::new(),
            park: Vec::new(),
            unpark: Vec::new(),
        };
        self.lease.documents.commit(commit).await.map_err(failure)?;
        self.renewal = Some(cx.tell_after(LEASE / 3, ManagerMessage::Renew));
        Ok(())
    }

    fn subscription(&self, after: Position) -> Subscription {
        let filter = EventFilter::ALL.categories([super::CATEGORY]).types(TYPES);
        Subscription::new(Arc::clone(&self.lease.store), after, PAGE).filter(filter)
    }

    fn follow(&mut self, mut subscription: Subscription, cx: &Context<Self>) {
        self.following = Some(cx.spawn_tell(async move {
            let result = subscription.next().await;
            ManagerMessage::Heard(Box::new(Heard { subscription, result }))
        }));
    }

    async fn heard(&mut self, heard: Heard, cx: &Context<Self>) -> Result<(), Failure> {
        let supervisor = self.supervisor(cx)?;
        for event in heard.result.map_err(store_failure)? {
            self.poke(&event.stream, &supervisor, cx).await?;
        }
        self.follow(heard.subscription, cx);
        Ok(())
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
            .field("begun", &self.begun)
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
