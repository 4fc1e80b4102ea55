//! Processes from outside: start them, and see how far they are.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use mister_smith_supervisors::{Address, Backoff, ChildSpec, SupervisorError, SupervisorRef};
use tokio::sync::watch;

use super::Process;
use super::effects::Effects;
use super::reactions::Reactions;
use super::timers::{Timers, TimersArgs, TimersMessage};
use crate::aggregate::{InvalidAggregate, stream_of};
use crate::bus::{DEFAULT_HANDLE_DEADLINE, RetryPolicy};
use crate::command::CommandBus;
use crate::consumer::{Begin, Consumer, ConsumerError, ConsumerRef, Consumers};
use crate::event::Position;
use crate::pool::PoolHandle;
use crate::store::EventFilter;
use crate::store::committer::CommitterHandle;

/// How a process is run.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ProcessOptions {
    /// With which events it begins when it is started for the first time; all.
    pub begin: Begin,
    /// How many processes react, and have their effects, at once; 32.
    pub lanes: usize,
    /// How long one try of an event's effects may take; 30 s.
    pub deadline: Duration,
    /// When an effect is tried again; 20 times within some minutes. Then it is a dead letter, and
    /// the process's later effects, which have waited for it, go on.
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
    committer: CommitterHandle,
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
    /// Its deadlines' actor could not be started.
    #[error(transparent)]
    Supervisor(#[from] SupervisorError),
}

impl Processes {
    /// Processes whose actors live under a dynamic supervisor, with what they need of their node.
    #[must_use]
    pub fn new(
        supervisor: SupervisorRef,
        consumers: Consumers,
        commands: CommandBus,
        committer: CommitterHandle,
        (pool_path, pool): (impl Into<Arc<str>>, PoolHandle),
        owner: impl Into<Arc<str>>,
        head: watch::Receiver<Position>,
    ) -> Self {
        Self(Arc::new(Inner {
            supervisor,
            consumers,
            commands,
            committer,
            pool,
            pool_path: pool_path.into(),
            owner: owner.into(),
            head,
        }))
    }

    /// Starts a process: from now on it reacts. It goes on where it was, in whichever life of the
    /// node. Its actors are `CATEGORY.timers`, `CATEGORY.effects` and `CATEGORY.reactions`.
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
        let handler = Effects::<P> { commands: inner.commands.clone(), process: PhantomData };
        let effects = Consumer::new(format!("{}.effects", P::CATEGORY), handler)
            .filter(EventFilter::ALL.categories([P::CATEGORY]))
            .retry(options.retry)
            .deadline(options.deadline)
            .lanes_by_stream(options.lanes);
        let effects = self.consumer(effects).await?;
        let handler = Reactions::<P> {
            commands: inner.commands.clone(),
            committer: inner.committer.clone(),
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

    /// Starts what keeps the deadlines, or finds it.
    pub(super) async fn timers_of<P: Process>(&self) -> Result<(), SupervisorError> {
        let inner = &self.0;
        let args = TimersArgs::<P> {
            pool: Arc::clone(&inner.pool_path),
            owner: Arc::clone(&inner.owner),
            head: inner.head.clone(),
            shown: Arc::default(),
            commands: inner.commands.clone(),
            process: PhantomData,
        };
        let timers = format!("{}.timers", P::CATEGORY);
        let spec = ChildSpec::component::<Timers<P>>(timers, args);
        let started: Result<Address<TimersMessage>, _> = inner.supervisor.spawn_spec(spec).await;
        match started {
            // A start that was given up half way is taken up again.
            Ok(_) | Err(SupervisorError::AlreadyStarted { .. }) => Ok(()),
            Err(error) => Err(error),
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
