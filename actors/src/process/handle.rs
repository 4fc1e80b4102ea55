//! Processes from outside: start them, and see how far they are.

use std::fmt;
use std::marker::PhantomData;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use mister_smith_supervisors::{Address, Backoff, ChildSpec, SupervisorError, SupervisorRef};
use tokio::sync::watch;

use super::Process;
use super::effects::Effects;
use super::reactions::Reactions;
use super::timers::{Deadlines, Setter, SetterArgs, TimersMessage, begun, kind_of};
use crate::aggregate::{InvalidAggregate, stream_of};
use crate::bus::{DEFAULT_HANDLE_DEADLINE, RetryPolicy};
use crate::command::CommandBus;
use crate::consumer::{Begin, Consumer, ConsumerError, ConsumerRef, Consumers};
use crate::event::Position;
use crate::pool::PoolHandle;
use crate::store::EventFilter;
use crate::timer::{TimerError, TimerOptions, Timers};

/// Effects of one event that can all take as long as they may.
const EFFECTS: u32 = 64;

/// How a process is run.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ProcessOptions {
    /// With which events it begins when it is started for the first time; all.
    pub begin: Begin,
    /// How many processes react, and have their effects, at once; 32.
    pub lanes: usize,
    /// How long one try of an effect may take; 30 s.
    pub deadline: Duration,
    /// When an effect is tried again; 20 times within some minutes. Then it is a dead letter, and
    /// what has waited for it, the other effects of its event and those of later events of the
    /// process, goes on.
    pub retry: RetryPolicy,
}

impl Default for ProcessOptions {
    fn default() -> Self {
        let pauses = Backoff::exponential(Duration::from_millis(100), Duration::from_secs(30));
        Self {
            begin: Begin::Beginning,
            lanes: 32,
            deadline: DEFAULT_HANDLE_DEADLINE,
            retry: RetryPolicy::attempts(20).backoff(pauses),
        }
    }
}

impl ProcessOptions {
    /// Sets where it begins.
    #[must_use]
    pub fn begin(mut self, begin: Begin) -> Self {
        self.begin = begin;
        self
    }

    /// Sets how many do something at once.
    #[must_use]
    pub fn lanes(mut self, lanes: usize) -> Self {
        self.lanes = lanes.max(1);
        self
    }

    /// Sets how long a try may take.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Sets when an effect is tried again.
    #[must_use]
    pub fn retry(mut self, retry: RetryPolicy) -> Self {
        self.retry = retry;
        self
    }
}

/// Starts processes of a node. Cheap to clone.
#[derive(Clone)]
pub struct Processes(Arc<Inner>);

struct Inner {
    supervisor: SupervisorRef,
    consumers: Consumers,
    commands: CommandBus,
    timers: Timers,
    pool: PoolHandle,
    /// The pool's path.
    pool_path: Arc<str>,
    owner: Arc<str>,
    head: watch::Receiver<Position>,
}

/// A process that runs. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ProcessRef {
    reactions: ConsumerRef,
    effects: ConsumerRef,
}

/// Why a process could not be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProcessError {
    /// It is no aggregate.
    #[error(transparent)]
    Aggregate(#[from] InvalidAggregate),
    /// One of its consumers could not be started.
    #[error(transparent)]
    Consumer(#[from] ConsumerError),
    /// The actor that sets its deadlines could not be started.
    #[error(transparent)]
    Supervisor(#[from] SupervisorError),
    /// The actor that fires its deadlines could not be started.
    #[error(transparent)]
    Timers(#[from] TimerError),
}

impl Processes {
    /// Processes whose actors live under a dynamic supervisor, with what they need of their node.
    #[must_use]
    pub fn new(
        supervisor: SupervisorRef,
        consumers: Consumers,
        commands: CommandBus,
        timers: Timers,
        (pool_path, pool): (impl Into<Arc<str>>, PoolHandle),
        owner: impl Into<Arc<str>>,
        head: watch::Receiver<Position>,
    ) -> Self {
        Self(Arc::new(Inner {
            supervisor,
            consumers,
            commands,
            timers,
            pool,
            pool_path: pool_path.into(),
            owner: owner.into(),
            head,
        }))
    }

    /// Starts a process: from now on it reacts. It goes on where it was, in whichever life of the
    /// node. Its actors are `CATEGORY.timers`, `CATEGORY.effects` and
    /// `CATEGORY.reactions`, and `process.CATEGORY` among the timers.
    ///
    /// # Errors
    /// It is started already, or is no aggregate.
    ///
    /// # Cancel safety
    /// A dropped call may have started some of its actors. Wait for it.
    pub async fn start<P: Process>(
        &self,
        options: ProcessOptions,
    ) -> Result<ProcessRef, ProcessError> {
        stream_of::<P>("any")?;
        let inner = &self.0;
        inner.commands.declare::<P>().map_err(InvalidAggregate::from)?;
        self.timers_of::<P>().await?;
        begun::<P>(&inner.pool, &inner.owner).await;
        let handler = Effects::<P> {
            commands: inner.commands.clone(),
            pool: inner.pool.clone(),
            deadline: options.deadline,
            attempts: options.retry.attempts,
            named_from: OnceLock::new(),
            process: PhantomData,
        };
        let effects = Consumer::new(format!("{}.effects", P::CATEGORY), handler)
            .filter(EventFilter::ALL.categories([P::CATEGORY]))
            .retry(options.retry)
            .deadline(options.deadline.saturating_mul(EFFECTS))
            .lanes_by_stream(options.lanes);
        let effects = self.consumer(effects).await?;
        let handler = Reactions::<P> {
            commands: inner.commands.clone(),
            timers: inner.timers.clone(),
            pool: inner.pool.clone(),
            process: PhantomData,
        };
        let reactions = Consumer::new(format!("{}.reactions", P::CATEGORY), handler)
            .filter(P::reacts_to())
            .begin(options.begin)
            .retry(RetryPolicy::attempts(u32::MAX))
            .lanes_by(options.lanes, |event| match P::on(event) {
                Ok(Some((id, _))) => id.into(),
                _ => "".into(),
            });
        let reactions = inner.consumers.start(reactions).await?;
        Ok(ProcessRef { reactions, effects })
    }

    /// Starts what sets the deadlines and what fires them, or finds them.
    pub(super) async fn timers_of<P: Process>(&self) -> Result<(), ProcessError> {
        let inner = &self.0;
        let deadlines = Deadlines::<P> {
            pool: inner.pool.clone(),
            commands: inner.commands.clone(),
            timers: inner.timers.clone(),
            process: PhantomData,
        };
        match inner.timers.handle(kind_of::<P>(), TimerOptions::default(), deadlines).await {
            // A start that was given up half way is taken up again.
            Ok(()) | Err(TimerError::Exists { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        let args = SetterArgs::<P> {
            pool: Arc::clone(&inner.pool_path),
            owner: Arc::clone(&inner.owner),
            head: inner.head.clone(),
            shown: Arc::default(),
            timers: inner.timers.clone(),
            process: PhantomData,
        };
        let timers = format!("{}.timers", P::CATEGORY);
        let spec = ChildSpec::component::<Setter<P>>(timers, args);
        let started: Result<Address<TimersMessage>, _> = inner.supervisor.spawn_spec(spec).await;
        match started {
            // A start that was given up half way is taken up again.
            Ok(_) | Err(SupervisorError::AlreadyStarted { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Starts a consumer, or finds it.
    async fn consumer(&self, consumer: Consumer) -> Result<ConsumerRef, ConsumerError> {
        let name = consumer.name().to_owned();
        match self.0.consumers.start(consumer).await {
            Err(ConsumerError::Exists { .. }) => self.0.consumers.get(&name),
            other => other,
        }
    }
}

impl ProcessRef {
    /// What takes it from events of others to its own.
    #[must_use]
    pub fn reactions(&self) -> &ConsumerRef {
        &self.reactions
    }

    /// What takes it from its own events to what others do.
    #[must_use]
    pub fn effects(&self) -> &ConsumerRef {
        &self.effects
    }
}

impl fmt::Debug for Processes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Processes").field("consumers", &self.0.consumers).finish_non_exhaustive()
    }
}
