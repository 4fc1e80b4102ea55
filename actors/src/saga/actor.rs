//! The actor of one saga: writes down what it is about to do, does it, and writes down what came
//! of it.
//!
//! It lives under a dynamic supervisor, is started by the [manager](super::manager) and ends when
//! there is nothing to do for a while. It keeps nothing that is not in the log, apart from the
//! step that runs; a life that finds a step begun and not ended knows that it may have had its
//! effect.

use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use mister_smith_supervisors::{
    Actor, Address, Context, ErrorClass, Failure, StartError, TaskGuard,
};
use serde_json::Value;

use super::definition::{Definition, StepContext, StepError};
use super::manager::ManagerMessage;
use super::state::{Next, SagaEvent, SagaState, SagaStatus, StepShape, StepStatus};
use super::{Definitions, parts_of};
use crate::event::{Decoder, Event, EventId, Metadata, NewEvent, StreamId, Timestamp, Version};
use crate::guarded::text_of;
use crate::pool::{Lease, PoolMessage, store_failure};
use crate::store::committer::{CommitError, CommitterHandle, CommitterMessage};
use crate::store::{Append, AppendError, ExpectedVersion};

/// A saga that waits longer than this ends its actor; the manager starts it again in time.
pub(super) const NAP: Duration = Duration::from_secs(30);

/// How often an event is handed in again, when the store is out of order.
const WRITES: u32 = 8;

/// The pause before the first of them, doubled with each.
const FIRST_PAUSE: Duration = Duration::from_millis(20);

/// Events of a page.
const PAGE: usize = 500;

/// What a saga can be told.
#[derive(Debug)]
pub enum SagaMessage {
    /// Go on. Sent by the actor to itself, when it starts and when a pause is over.
    Go,
    /// Somebody has written into its stream.
    Changed,
    /// A step has ended. Sent by the actor to itself.
    Ended(Box<Ended>),
}

/// What came of a try.
#[derive(Debug)]
pub struct Ended {
    run: u64,
    result: Result<Option<Value>, Trouble>,
}

#[derive(Debug)]
struct Trouble {
    reason: String,
    /// It may work another time.
    retry: bool,
    /// It may have had its effect.
    unknown: bool,
}

impl From<StepError> for Trouble {
    fn from(error: StepError) -> Self {
        Self { reason: error.reason, retry: error.retry, unknown: error.retry }
    }
}

/// What a fresh start needs.
#[derive(Clone, Debug)]
pub struct SagaArgs {
    /// Its stream.
    pub stream: StreamId,
    /// Path of the pool.
    pub pool: Arc<str>,
    /// Path of the committer.
    pub committer: Arc<str>,
    /// Path of the manager.
    pub manager: Arc<str>,
    /// What sagas do.
    pub definitions: Definitions,
}

/// The try that runs.
struct Running {
    number: u64,
    step: usize,
    attempt: u32,
    undo: bool,
    _task: TaskGuard,
}

/// The actor.
pub struct SagaActor {
    args: SagaArgs,
    lease: Lease,
    committer: CommitterHandle,
    manager: Address<ManagerMessage>,
    state: SagaState,
    version: Version,
    metadata: Metadata,
    /// The last event, the cause of the next one.
    last: Option<EventId>,
    definition: Option<Arc<dyn Definition>>,
    shape: Vec<StepShape>,
    running: Option<Running>,
    runs: u64,
    timer: Option<TaskGuard>,
    shown: Arc<Mutex<String>>,
}

impl Actor for SagaActor {
    type Message = SagaMessage;
    type Args = SagaArgs;

    async fn start(args: &SagaArgs, cx: &mut Context<Self>) -> Result<Self, StartError> {
        let pool: Address<PoolMessage> = cx.find(&args.pool)?;
        let committer: Address<CommitterMessage> = cx.find(&args.committer)?;
        let manager = cx.find(&args.manager)?;
        let lease = pool.ask(PoolMessage::Lease).await?;
        let shown = Arc::new(Mutex::new(String::new()));
        let status = Arc::clone(&shown);
        cx.describe(move || status.lock().unwrap_or_else(PoisonError::into_inner).clone());
        let mut actor = Self {
            args: args.clone(),
            lease,
            committer: CommitterHandle::new(committer),
            manager,
            state: SagaState::default(),
            version: Version::ZERO,
            metadata: Metadata::default(),
            last: None,
            definition: None,
            shape: Vec::new(),
            running: None,
            runs: 0,
            timer: Some(cx.tell_after(Duration::ZERO, SagaMessage::Go)),
            shown,
        };
        actor.reload().await?;
        let SagaState { name, version, .. } = &actor.state;
        actor.definition = args.definitions.get(name, *version).cloned();
        actor.shape = actor.definition.as_ref().map(|one| one.shape()).unwrap_or_default();
        actor.show();
        Ok(actor)
    }

    async fn handle(
        &mut self,
        message: SagaMessage,
        cx: &mut Context<Self>,
    ) -> Result<(), Failure> {
        match message {
            SagaMessage::Go => {}
            SagaMessage::Changed => {
                self.reload().await?;
            }
            SagaMessage::Ended(ended) => self.ended(*ended, cx).await?,
        }
        self.advance(cx).await?;
        self.show();
        Ok(())
    }

    fn message_name(message: &SagaMessage) -> &'static str {
        match message {
            SagaMessage::Go => "Go",
            SagaMessage::Changed => "Changed",
            SagaMessage::Ended(_) => "Ended",
        }
    }
}

impl SagaActor {
    /// Reads what is new in the stream.
    async fn reload(&mut self) -> Result<(), Failure> {
        let decoder = Decoder::<SagaEvent>::new();
        loop {
            let page = self.lease.store.read_stream(&self.args.stream, self.version, PAGE).await;
            let page = page.map_err(store_failure)?;
            if page.is_empty() {
                break;
            }
            for recorded in page {
                let event = decoder.decode(&recorded);
                let event = event.map_err(|error| Failure::wrap(ErrorClass::Permanent, error))?;
                if recorded.version.get() == 1 {
                    let started = Metadata::from_bytes(&recorded.meta);
                    self.metadata = started.caused_by(*recorded.id.as_uuid());
                }
                self.version = recorded.version;
                self.last = Some(recorded.id);
                self.state.evolve(event);
            }
        }
        // Somebody turned it round, or stopped it: what runs may have had its effect, and the
        // state says so.
        let ours = |running: &Running| match running.undo {
            true => self.status_of(running.step) == Some(&StepStatus::Undoing),
            false => self.status_of(running.step) == Some(&StepStatus::Running),
        };
        if self.running.as_ref().is_some_and(|running| !ours(running)) {
            self.running = None;
        }
        Ok(())
    }

    fn status_of(&self, step: usize) -> Option<&StepStatus> {
        let name = &self.shape.get(step)?.name;
        self.state.steps.iter().find(|step| step.name == *name).map(|step| &step.status)
    }

    /// Writes down what `what` says in this state, if it says anything. After a conflict, or when
    /// one does not know what came of it, it is asked again in the state that the log shows: it
    /// must say nothing if what it said is there.
    async fn record(
        &mut self,
        cx: &Context<Self>,
        what: impl Fn(&SagaState, &[StepShape], Timestamp) -> Vec<SagaEvent>,
    ) -> Result<(), Failure> {
        let mut pause = FIRST_PAUSE;
        for _ in 0..WRITES {
            let events = what(&self.state, &self.shape, now(cx));
            if events.is_empty() {
                return Ok(());
            }
            match self.append(&events, cx).await {
                Ok(()) => return Ok(()),
                Err(trouble) if trouble.class() != ErrorClass::Transient => {
                    return Err(Failure::wrap(trouble.class(), trouble));
                }
                Err(WriteError::Append(_)) => self.reload().await?,
                Err(trouble) => {
                    tracing::debug!(stream = %self.args.stream, %trouble, "written again");
                    tokio::time::sleep(pause).await;
                    pause *= 2;
                    self.reload().await?;
                }
            }
        }
        Err(Failure::transient("the saga's events could not be written"))
    }

    async fn append(&mut self, events: &[SagaEvent], cx: &Context<Self>) -> Result<(), WriteError> {
        let at = now(cx);
        let mut last = self.last;
        let mut new = Vec::with_capacity(events.len());
        for event in events {
            let encoded = event.encode().map_err(|error| WriteError::Codec(error.to_string()))?;
            let id = EventId::at(at, cx.random_u64(), cx.random_u64());
            let mut metadata = self.metadata.clone();
            metadata.causation_id = last.map(|last| *last.as_uuid()).or(metadata.causation_id);
            last = Some(id);
            let mut one = NewEvent::new(id, encoded.event_type, encoded.codec, encoded.data, at);
            one.meta = metadata.to_bytes();
            new.push(one);
        }
        let expected = ExpectedVersion::Exact(self.version);
        let append = Append::new(self.args.stream.clone(), expected, new);
        let outcomes = self.committer.submit(vec![append]).await?.durable().await?;
        for outcome in outcomes {
            self.version = outcome?.last_version;
        }
        self.last = last;
        for event in events {
            self.state.evolve(event.clone());
        }
        Ok(())
    }

    /// Goes on until something runs or has to be waited for.
    async fn advance(&mut self, cx: &mut Context<Self>) -> Result<(), Failure> {
        self.timer = None;
        if self.state.status == SagaStatus::None {
            cx.stop();
            return Ok(());
        }
        if self.running.is_none() {
            self.record(cx, |state, _, now| state.orphan(now).into_iter().collect()).await?;
        }
        loop {
            if let Some(reason) = self.misfit() {
                self.record(cx, |state, _, _| match state.status {
                    SagaStatus::Running | SagaStatus::Compensating => {
                        vec![SagaEvent::Parked { reason: reason.clone() }]
                    }
                    _ => Vec::new(),
                })
                .await?;
            }
            let at = now(cx);
            let overdue = self.state.status == SagaStatus::Running
                && self.state.deadline.is_some_and(|deadline| deadline <= at);
            if self.running.is_some() && !overdue {
                self.timer =
                    self.until_deadline(at).map(|wait| cx.tell_after(wait, SagaMessage::Go));
                return Ok(());
            }
            self.running = None;
            match self.state.next(&self.shape, at) {
                Next::Record(_) => {
                    self.record(cx, |state, shape, now| match state.next(shape, now) {
                        Next::Record(event) => vec![event],
                        _ => Vec::new(),
                    })
                    .await?;
                }
                Next::Run { step, attempt } => self.run(step, attempt, false, cx).await?,
                Next::Undo { step, attempt } => self.run(step, attempt, true, cx).await?,
                Next::Wait(until) => {
                    let wait = wait_until(at, until);
                    if wait <= NAP {
                        self.timer = Some(cx.tell_after(wait, SagaMessage::Go));
                        return Ok(());
                    }
                    return self.rest(Some(until), cx).await;
                }
                Next::Rest => return self.rest(None, cx).await,
            }
        }
    }

    fn misfit(&self) -> Option<String> {
        if self.state.status.is_final() {
            return None;
        }
        match &self.definition {
            Some(_) => self.state.misfit(&self.shape),
            None => {
                let SagaState { name, version, .. } = &self.state;
                Some(format!(
                    "this program has no saga {name} of version {version}; register it, then retry"
                ))
            }
        }
    }

    fn until_deadline(&self, at: Timestamp) -> Option<Duration> {
        match self.state.status {
            SagaStatus::Running => self.state.deadline.map(|deadline| wait_until(at, deadline)),
            _ => None,
        }
    }

    /// Ends this life: there is nothing to do before `until`, or at all.
    async fn rest(
        &mut self,
        until: Option<Timestamp>,
        cx: &mut Context<Self>,
    ) -> Result<(), Failure> {
        let asleep = ManagerMessage::Asleep { stream: self.args.stream.clone(), until };
        // A manager that is being restarted finds this saga by itself.
        let _ = self.manager.tell(asleep).await;
        cx.stop();
        Ok(())
    }

    /// Writes down that a step begins, and begins it.
    async fn run(
        &mut self,
        step: usize,
        attempt: u32,
        undo: bool,
        cx: &Context<Self>,
    ) -> Result<(), Failure> {
        let wanted = match undo {
            true => Next::Undo { step, attempt },
            false => Next::Run { step, attempt },
        };
        self.record(cx, |state, shape, now| match state.next(shape, now) == wanted {
            false => Vec::new(),
            true => {
                let step = shape[step].name.clone();
                vec![match undo {
                    true => SagaEvent::CompensationStarted { step, attempt },
                    false => SagaEvent::StepStarted { step, attempt },
                }]
            }
        })
        .await?;
        let begun = match undo {
            true => StepStatus::Undoing,
            false => StepStatus::Running,
        };
        let Some(definition) = self.definition.clone() else { return Ok(()) };
        if self.status_of(step) != Some(&begun) {
            return Ok(());
        }
        let (name, id) = parts_of(&self.args.stream).unwrap_or_default();
        let step_name = &self.shape[step].name;
        let key = match undo {
            true => format!("saga/{name}/{id}/{step_name}/undo"),
            false => format!("saga/{name}/{id}/{step_name}"),
        };
        let mut metadata = self.metadata.clone();
        metadata.causation_id = self.last.map(|last| *last.as_uuid()).or(metadata.causation_id);
        let data = self.state.data.clone();
        let context = StepContext { saga: id.into(), attempt, key, data, metadata };
        self.runs += 1;
        let number = self.runs;
        let timeout = definition.timeout(step);
        let task = cx.spawn_tell(async move {
            let running = async {
                match undo {
                    true => definition.undo(step, context).await.map(|()| None),
                    false => definition.run(step, context).await.map(Some),
                }
            };
            let result = tokio::time::timeout(timeout, AssertUnwindSafe(running).catch_unwind());
            let unknown = |reason| Err(Trouble { reason, retry: true, unknown: true });
            let result = match result.await {
                Ok(Ok(result)) => result.map_err(Trouble::from),
                Ok(Err(panic)) => unknown(format!("it panicked: {}", text_of(panic))),
                Err(_) => unknown(format!("it took longer than {timeout:?}")),
            };
            SagaMessage::Ended(Box::new(Ended { run: number, result }))
        });
        self.running = Some(Running { number, step, attempt, undo, _task: task });
        Ok(())
    }

    /// Writes down what came of the step that ran.
    async fn ended(&mut self, ended: Ended, cx: &Context<Self>) -> Result<(), Failure> {
        let Some(Running { number, step, attempt, undo, .. }) = self.running else { return Ok(()) };
        if number != ended.run {
            return Ok(());
        }
        let Some(definition) = self.definition.clone() else { return Ok(()) };
        let random = cx.random_u64();
        let name = self.shape[step].name.clone();
        let policy = definition.policy(step, undo);
        self.record(cx, |state, _, now| {
            let begun = match undo {
                true => StepStatus::Undoing,
                false => StepStatus::Running,
            };
            if !state.steps.iter().any(|one| one.name == name && one.status == begun) {
                return Vec::new();
            }
            let step = name.clone();
            let again = |retry: bool| match retry && attempt < policy.attempts {
                true => Some(later(now, policy.pause(attempt, random))),
                false => None,
            };
            match (&ended.result, undo) {
                (Ok(data), false) => {
                    let data = data.clone().unwrap_or_default();
                    vec![SagaEvent::StepCompleted { step, data }]
                }
                (Ok(_), true) => vec![SagaEvent::CompensationCompleted { step }],
                (Err(Trouble { reason, retry, unknown }), false) => {
                    let (retry_at, unknown) = (again(*retry), *unknown);
                    let reason = reason.clone();
                    let back = format!("step {step}: {reason}");
                    let mut events =
                        vec![SagaEvent::StepFailed { step, attempt, reason, unknown, retry_at }];
                    if retry_at.is_none() {
                        events.push(SagaEvent::Compensating { reason: back });
                    }
                    events
                }
                (Err(Trouble { reason, retry, .. }), true) => {
                    let (reason, retry_at) = (reason.clone(), again(*retry));
                    vec![SagaEvent::CompensationFailed { step, attempt, reason, retry_at }]
                }
            }
        })
        .await?;
        self.running = None;
        Ok(())
    }

    fn show(&self) {
        let done = self.state.steps.iter().filter(|step| step.status == StepStatus::Done).count();
        let text = match (self.state.status, &self.running) {
            (SagaStatus::Running, Some(running)) => {
                format!("{done}/{} steps   {}", self.shape.len(), self.shape[running.step].name)
            }
            (SagaStatus::Compensating, _) => "undoing".to_owned(),
            (SagaStatus::Running, None) => format!("{done}/{} steps", self.shape.len()),
            (other, _) => format!("{other:?}").to_lowercase(),
        };
        *self.shown.lock().unwrap_or_else(PoisonError::into_inner) = text;
    }
}

fn now(cx: &Context<SagaActor>) -> Timestamp {
    Timestamp::from_micros(cx.clock().wall_us())
}

fn later(at: Timestamp, wait: Duration) -> Timestamp {
    let micros = i64::try_from(wait.as_micros()).unwrap_or(i64::MAX);
    Timestamp::from_micros(at.as_micros().saturating_add(micros))
}

fn wait_until(at: Timestamp, until: Timestamp) -> Duration {
    let micros = until.as_micros().saturating_sub(at.as_micros());
    Duration::from_micros(u64::try_from(micros).unwrap_or(0))
}

/// Why events are not in the log, or not as far as one knows.
#[derive(Debug, thiserror::Error)]
enum WriteError {
    #[error(transparent)]
    Append(#[from] AppendError),
    #[error(transparent)]
    Commit(#[from] CommitError),
    #[error("an event cannot be written: {0}")]
    Codec(String),
}

impl WriteError {
    fn class(&self) -> ErrorClass {
        match self {
            Self::Append(error) => error.class(),
            Self::Commit(error) => error.class(),
            Self::Codec(_) => ErrorClass::Permanent,
        }
    }
}

impl fmt::Debug for SagaActor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SagaActor")
            .field("stream", &self.args.stream)
            .field("status", &self.state.status)
            .finish_non_exhaustive()
    }
}
