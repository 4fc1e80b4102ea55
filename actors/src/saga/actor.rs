//! The actor of one saga: writes down what it is about to do, does it, and writes down the result.
//!
//! It lives under a dynamic supervisor, is started by the [manager](super::manager) and ends when
//! there is nothing to do for a while. It keeps nothing that is not in the log, apart from the
//! step that runs; a life that finds a step begun and not ended knows that it may have had its
//! effect.
//!
//! What comes of a step and what begins next is one append, and so are the last result and the end:
//! a saga of four steps costs five commits after the one that began it. A step is run by the life
//! whose event began it, and by no other: after each write the id of that event decides, because
//! another owner that does not know yet that it is none may write the same at the same version.
//!
//! The store may be out of order for a while, and an event may be of a program that is newer than
//! this one. Neither is a crash: the life ends, and the [board](super::board) says when it is tried
//! again.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use mister_smith_supervisors::{
    Actor, Address, Context, ErrorClass, ExitReason, Failure, StartError, TaskGuard,
};

use serde_json::Value;

use self::attempt::{Running, Trouble};
use self::journal::{Journal, NotWritten};
use super::board::{Begun, Board};
use super::definition::{Definition, StepContext};
use super::events::{SagaEvent, failed};
use super::state::{Next, SagaStatus, StepShape, StepState, StepStatus};
use super::{Definitions, parts_of};
use crate::event::{EventId, StreamId, Timestamp, Version};
use crate::pool::PoolMessage;
use crate::store::committer::{CommitterHandle, CommitterMessage};
use crate::store::follow::{self, Follower};

mod attempt;
mod journal;

pub use attempt::Ended;

/// A saga that waits longer than this ends its actor; the manager starts it again in time.
pub(super) const NAP: Duration = Duration::from_secs(30);

/// When a saga is tried again that could not go on because of the store; up to twice as long.
pub(super) const AGAIN: Duration = Duration::from_secs(1);

/// When a saga is tried again that cannot go on with this program.
pub(super) const ASIDE: Duration = Duration::from_secs(60);

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

/// What a fresh start needs.
#[derive(Clone, Debug)]
pub struct SagaArgs {
    /// Its stream.
    pub stream: StreamId,
    /// The event that began it, if its manager knows of no other.
    pub(super) begun: Begun,
    /// Path of the pool.
    pub pool: Arc<str>,
    /// Path of the committer.
    pub committer: Arc<str>,
    /// Where it says that it rests.
    pub board: Board,
    /// Under whose claim it goes on; a node that slept past its lease asks before it does anything.
    pub claim: Option<Follower>,
    /// What sagas do.
    pub definitions: Definitions,
}

/// What is shown of it.
#[derive(Debug, Default)]
struct Seen {
    status: SagaStatus,
    done: usize,
    steps: usize,
    runs: Option<String>,
}

/// The actor.
pub struct SagaActor {
    args: SagaArgs,
    journal: Journal,
    definition: Option<Arc<dyn Definition>>,
    shape: Vec<StepShape>,
    running: Option<Running>,
    timer: Option<TaskGuard>,
    /// The board knows that this life ends.
    rests: bool,
    seen: Arc<Mutex<Seen>>,
}

impl Actor for SagaActor {
    type Message = SagaMessage;
    type Args = SagaArgs;

    async fn start(args: &SagaArgs, cx: &mut Context<Self>) -> Result<Self, StartError> {
        // Before anything is read: whatever is heard from here on is told, or seen at the end.
        args.board.begins(&args.stream);
        let pool: Address<PoolMessage> = cx.find(&args.pool)?;
        let committer: Address<CommitterMessage> = cx.find(&args.committer)?;
        let seen = Arc::<Mutex<Seen>>::default();
        let shown = Arc::clone(&seen);
        cx.describe(move || shown.lock().unwrap_or_else(PoisonError::into_inner).to_string());
        // The first one is never refused; one of a life before does as well.
        let _ = cx.address().try_tell(SagaMessage::Go);
        Ok(Self {
            journal: Journal::new(
                args.stream.clone(),
                args.board.clone(),
                pool,
                CommitterHandle::new(committer),
            ),
            args: args.clone(),
            definition: None,
            shape: Vec::new(),
            running: None,
            timer: None,
            rests: false,
            seen,
        })
    }

    async fn handle(
        &mut self,
        message: SagaMessage,
        cx: &mut Context<Self>,
    ) -> Result<(), Failure> {
        if let Err(failure) = self.take(message, cx).await {
            self.give_up(&failure, cx);
        }
        self.show();
        Ok(())
    }

    async fn stop(&mut self, _: &ExitReason, cx: &mut Context<Self>) {
        // One that somebody has stopped comes back.
        if !self.rests {
            self.args.board.again(&self.args.stream, later(now(cx), ASIDE));
        }
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
    async fn take(&mut self, message: SagaMessage, cx: &mut Context<Self>) -> Result<(), Failure> {
        // The first message may be any: one to a life before waits for this one.
        let fresh = self.journal.version == Version::ZERO;
        if fresh {
            self.load(cx).await?;
        }
        let ended = match message {
            SagaMessage::Ended(ended) => Some(*ended),
            SagaMessage::Changed if !fresh => {
                self.journal.reload().await?;
                None
            }
            SagaMessage::Go | SagaMessage::Changed => None,
        };
        self.advance(ended, cx).await
    }

    /// Takes in what there is when this life begins. A saga that has just begun needs no look at
    /// the store: if there is more of it, the first append says so.
    async fn load(&mut self, cx: &Context<Self>) -> Result<(), Failure> {
        match self.args.begun.take().filter(|_| cx.life() == 1) {
            Some(begun) => self.journal.take(&begun)?,
            None => self.journal.reload().await?,
        }
        let (name, version) = (&self.journal.state.name, self.journal.state.version);
        self.definition = self.args.definitions.get(name, version).cloned();
        self.shape = self.definition.as_ref().map(|one| one.shape()).unwrap_or_default();
        Ok(())
    }

    /// Ends this life, because of trouble that is not the saga's.
    fn give_up(&mut self, failure: &Failure, cx: &mut Context<Self>) {
        let pause = match failure.class() {
            ErrorClass::Transient => {
                tracing::debug!(stream = %self.args.stream, %failure, "tried again soon");
                // Many meet the same trouble at once.
                AGAIN + AGAIN.mul_f64((cx.random_u64() >> 32) as f64 / f64::from(u32::MAX))
            }
            _ => {
                tracing::error!(
                    stream = %self.args.stream, %failure,
                    "this program cannot go on with a saga; it is tried again every minute"
                );
                ASIDE
            }
        };
        self.running = None;
        self.args.board.again(&self.args.stream, later(now(cx), pause));
        self.rests = true;
        cx.stop();
    }

    fn status_of(&self, step: usize) -> Option<&StepStatus> {
        let name = &self.shape.get(step)?.name;
        self.journal.state.steps.iter().find(|step| step.name == *name).map(|step| &step.status)
    }

    /// Whether the try that the log has as running is the one that this event began.
    fn runs(&self, begun: EventId, step: usize, undo: bool) -> bool {
        let begins = match undo {
            true => StepStatus::Undoing,
            false => StepStatus::Running,
        };
        self.journal.begun.is_some_and(|last| last.id == begun)
            && self.status_of(step) == Some(&begins)
    }

    /// Goes on until something runs or has to be waited for.
    async fn advance(
        &mut self,
        mut ended: Option<Ended>,
        cx: &mut Context<Self>,
    ) -> Result<(), Failure> {
        loop {
            if let Some(claim) = &self.args.claim {
                claim.assure().await.map_err(follow::failure)?;
            }
            if let Some(one) = ended.take() {
                ended = self.ended(one, cx).await?;
                continue;
            }
            self.timer = None;
            let at = now(cx);
            let goes_on = self.running.as_ref().is_some_and(|running| {
                // Somebody turned it round, or it is another's try: ours may have had its effect,
                // and the state says so.
                self.runs(running.begun, running.step, running.undo)
                    && !self.journal.state.is_overdue(at)
            });
            if goes_on {
                self.timer =
                    self.until_deadline(at).map(|wait| cx.tell_after(wait, SagaMessage::Go));
                return Ok(());
            }
            self.running = None;
            let (definition, shape) = (&self.definition, &self.shape);
            let due = |journal: &Journal, now| due(journal, definition.as_ref(), shape, now);
            let tried = self.journal.record(cx, due).await.map_err(failure)?;
            ended = self.begin(&tried, cx);
            if self.running.is_none() && self.rest(cx).await? {
                return Ok(());
            }
        }
    }

    fn until_deadline(&self, at: Timestamp) -> Option<Duration> {
        let state = &self.journal.state;
        let deadline = state.deadline.filter(|_| state.status == SagaStatus::Running);
        deadline.map(|deadline| wait_until(at, deadline))
    }

    /// Takes a nap, or ends this life: there is nothing to do for now. Answers whether it does.
    async fn rest(&mut self, cx: &mut Context<Self>) -> Result<bool, Failure> {
        let at = now(cx);
        let until = match self.journal.state.next(&self.shape, at) {
            Next::Wait(until) => Some(until),
            Next::Rest => self.anothers_until(at),
            // Time went on.
            _ => return Ok(false),
        };
        if let Some(wait) = until.map(|until| wait_until(at, until)).filter(|wait| *wait <= NAP) {
            self.timer = Some(cx.tell_after(wait, SagaMessage::Go));
            return Ok(true);
        }
        let Journal { version, .. } = self.journal;
        self.rests = self.args.board.rest(&self.args.stream, version, until);
        match self.rests {
            true => cx.stop(),
            false => self.journal.reload().await?,
        }
        Ok(self.rests)
    }

    /// Until when another owner may be running the step that is under way; after that, nobody is.
    fn anothers_until(&self, at: Timestamp) -> Option<Timestamp> {
        let definition = self.definition.as_ref()?;
        let until = anothers(&self.journal, definition, &self.shape)?;
        let by = self.journal.state.deadline;
        let by = by.filter(|by| self.journal.state.status == SagaStatus::Running && *by > at);
        Some(by.map_or(until, |by| by.min(until)))
    }

    /// Begins the step that the last write began, if it was ours; answers its result if it is done
    /// at once.
    fn begin(&mut self, tried: &[EventId], cx: &Context<Self>) -> Option<Ended> {
        let begun = self.journal.begun.filter(|begun| tried.contains(&begun.id))?;
        let (step, StepState { status, attempts, undo_attempts, .. }) =
            in_progress(&self.journal, &self.shape)?;
        let undo = *status == StepStatus::Undoing;
        let attempt = if undo { *undo_attempts } else { *attempts };
        let definition = self.definition.as_ref()?;
        let (name, id) = parts_of(&self.args.stream).unwrap_or_default();
        let step_name = &self.shape[step].name;
        let key = match undo {
            true => format!("saga/{name}/{id}/{step_name}/undo"),
            false => format!("saga/{name}/{id}/{step_name}"),
        };
        let (saga, data) = (id.into(), self.journal.state.data.clone());
        let context = StepContext { saga, attempt, key, data, metadata: self.journal.metadata() };
        let (running, ended) = Running::begin(begun.id, (step, undo), definition, context, cx);
        self.running = Some(running);
        ended
    }

    /// Writes down what came of the step that ran, and what comes next; answers the result of that
    /// if it is done at once.
    async fn ended(&mut self, ended: Ended, cx: &Context<Self>) -> Result<Option<Ended>, Failure> {
        let Some(running) = self.running.take_if(|running| running.begun == ended.begun) else {
            return Ok(None);
        };
        let Some(definition) = self.definition.clone() else { return Ok(None) };
        let random = cx.random_u64();
        let Running { begun, step, attempt, undo, .. } = running;
        let policy = definition.policy(step, undo);
        let name = &self.shape[step].name;
        let shape = &self.shape;
        let after = |journal: &Journal, now, result: &Result<Option<Value>, Trouble>| {
            let step = name.clone();
            let again = |retry: bool| match retry && attempt < policy.attempts {
                true => Some(later(now, policy.pause(attempt, random))),
                false => None,
            };
            // Not ours: another's try of the step runs, or none.
            let ours = journal.begun.is_some_and(|last| last.id == begun);
            if !ours
                || in_progress(journal, shape).is_none_or(|(place, _)| shape[place].name != step)
            {
                return due(journal, Some(&definition), shape, now);
            }
            let first = match (result, undo) {
                (Ok(data), false) => {
                    let data = Option::clone(data).unwrap_or_default();
                    vec![SagaEvent::StepCompleted { step, data }]
                }
                (Ok(_), true) => vec![SagaEvent::CompensationCompleted { step }],
                (Err(Trouble { reason, retry, unknown }), false) => {
                    failed(step, attempt, reason.clone(), *unknown, again(*retry))
                }
                (Err(Trouble { reason, retry, .. }), true) => {
                    let (reason, retry_at) = (reason.clone(), again(*retry));
                    vec![SagaEvent::CompensationFailed { step, attempt, reason, retry_at }]
                }
            };
            journal.state.plan(first, shape, now)
        };
        let mut result = ended.result;
        let tried = loop {
            match self.journal.record(cx, |journal, now| after(journal, now, &result)).await {
                // It had its effect, and what it answers cannot be kept.
                Err(NotWritten::Refused(reason)) if result.is_ok() => {
                    result = Err(Trouble::unknown(reason));
                }
                other => break other.map_err(failure)?,
            }
        };
        Ok(self.begin(&tried, cx))
    }

    fn show(&self) {
        let state = &self.journal.state;
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.status = state.status;
        seen.done = state.steps.iter().filter(|step| step.status == StepStatus::Done).count();
        seen.steps = self.shape.len();
        let runs = self.running.as_ref().map(|running| &self.shape[running.step].name);
        if seen.runs.as_ref() != runs {
            seen.runs = runs.cloned();
        }
    }
}

/// What is to be written down now, when nothing runs here.
fn due(
    journal: &Journal,
    definition: Option<&Arc<dyn Definition>>,
    shape: &[StepShape],
    now: Timestamp,
) -> Vec<SagaEvent> {
    let state = &journal.state;
    if !matches!(state.status, SagaStatus::Running | SagaStatus::Compensating) {
        return Vec::new();
    }
    let Some(definition) = definition else {
        let reason = format!(
            "this program has no saga {} of version {}; register it, then retry",
            state.name, state.version
        );
        return vec![SagaEvent::Parked { reason }];
    };
    if let Some(reason) = state.misfit(shape) {
        return vec![SagaEvent::Parked { reason }];
    }
    let first = match anothers(journal, definition, shape) {
        Some(until) if until > now => Vec::new(),
        _ => state.orphan(shape, now),
    };
    state.plan(first, shape, now)
}

/// The step that the log has as running.
fn in_progress<'a>(journal: &'a Journal, shape: &[StepShape]) -> Option<(usize, &'a StepState)> {
    let runs = |step: &&StepState| matches!(step.status, StepStatus::Running | StepStatus::Undoing);
    let step = journal.state.steps.iter().find(runs)?;
    Some((shape.iter().position(|one| one.name == step.name)?, step))
}

/// Until when the step that is under way may run elsewhere. What a life before began ran here, and
/// is over; what was begun since belongs to another owner, which is given the time of the step.
fn anothers(
    journal: &Journal,
    definition: &Arc<dyn Definition>,
    shape: &[StepShape],
) -> Option<Timestamp> {
    let (step, _) = in_progress(journal, shape)?;
    let begun = journal.begun.filter(|begun| Some(begun.version) > journal.inherited)?;
    Some(later(begun.at, definition.timeout(step)))
}

fn failure(not_written: NotWritten) -> Failure {
    match not_written {
        NotWritten::Refused(reason) => Failure::permanent(reason),
        NotWritten::Failed(failure) => failure,
    }
}

fn now(cx: &Context<SagaActor>) -> Timestamp {
    Timestamp::from_micros(cx.clock().wall_us())
}

pub(super) fn later(at: Timestamp, wait: Duration) -> Timestamp {
    let micros = i64::try_from(wait.as_micros()).unwrap_or(i64::MAX);
    Timestamp::from_micros(at.as_micros().saturating_add(micros))
}

fn wait_until(at: Timestamp, until: Timestamp) -> Duration {
    let micros = until.as_micros().saturating_sub(at.as_micros());
    Duration::from_micros(u64::try_from(micros).unwrap_or(0))
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { status, done, steps, runs } = self;
        match (status, runs) {
            (SagaStatus::Running, Some(runs)) => write!(f, "{done}/{steps} steps   {runs}"),
            (SagaStatus::Running, None) => write!(f, "{done}/{steps} steps"),
            (SagaStatus::Compensating, _) => f.write_str("undoing"),
            (SagaStatus::None, _) => Ok(()),
            (other, _) => f.write_str(&format!("{other:?}").to_lowercase()),
        }
    }
}

impl fmt::Debug for SagaActor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SagaActor")
            .field("stream", &self.args.stream)
            .field("status", &self.journal.state.status)
            .finish_non_exhaustive()
    }
}
