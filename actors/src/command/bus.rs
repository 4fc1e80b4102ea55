//! The bus: finds the aggregate of a command, starts it if it is not live, and waits for the
//! answer.
//!
//! The registry is the dynamic supervisor's own index: nothing here has to be kept in step with
//! who lives.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use mister_smith_supervisors::{
    Address, AskError, ChildSpec, Overflow, RestartPolicy, SupervisorError, SupervisorRef,
};
use tokio::sync::oneshot;

use super::middleware::{CommandInfo, Middleware, Next};
use super::{CommandEnvelope, CommandError, Executed, Request};
use crate::aggregate::actor::{AggregateActor, AggregateArgs, AggregateMessage, Look, LookAt};
use crate::aggregate::live::LiveAggregates;
use crate::aggregate::{Aggregate, check_owner, stream_of};
use crate::component;
use crate::event::{Metadata, StreamId, Version};
use crate::store::IdempotencyKey;
use crate::store::notes::{Owned, Owner, Owners};

/// How often a command is handed to another life because the one it met was ending.
const HAND_OVERS: usize = 8;

/// How new the state has to be that a look sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Freshness {
    /// Everything that any node has written before the look.
    #[default]
    Newest,
    /// Whatever this node has in memory, and in the log: on a store that other nodes write to it may
    /// lack what they have written since this aggregate was live here, or its last command.
    InMemory,
}

/// How aggregates live.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct CommandOptions {
    /// An aggregate ends after this long without a command; 60 s unless said otherwise.
    pub idle_after: Duration,
    /// A command is answered within this time; 10 s unless said otherwise.
    pub deadline: Duration,
    /// How often a command is decided again after a conflict; 3 times unless said otherwise.
    pub retries: u32,
    /// Commands that wait for one aggregate at most; 1,024 unless said otherwise.
    pub mailbox: usize,
    /// Aggregates that are live at most; 50,000 unless said otherwise. The next one makes one
    /// passivate that was not used for long.
    pub live: usize,
}

impl Default for CommandOptions {
    fn default() -> Self {
        Self {
            idle_after: Duration::from_secs(60),
            deadline: Duration::from_secs(10),
            retries: 3,
            mailbox: 1_024,
            live: 50_000,
        }
    }
}

impl CommandOptions {
    /// Sets after how long without a command an aggregate ends.
    #[must_use]
    pub fn idle_after(mut self, idle_after: Duration) -> Self {
        self.idle_after = idle_after;
        self
    }

    /// Sets how long a command may take.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Sets how often a command is decided again after a conflict.
    #[must_use]
    pub fn retries(mut self, retries: u32) -> Self {
        self.retries = retries;
        self
    }

    /// Sets how many aggregates are live at most.
    #[must_use]
    pub fn live(mut self, live: usize) -> Self {
        self.live = live;
        self
    }
}

/// Sends commands to aggregates. Cheap to clone.
#[derive(Clone)]
pub struct CommandBus(Arc<Inner>);

struct Inner {
    supervisor: SupervisorRef,
    pool: Arc<str>,
    committer: Arc<str>,
    options: CommandOptions,
    live: LiveAggregates,
    owners: Owners,
    middleware: Vec<Arc<dyn Middleware>>,
}

impl CommandBus {
    /// A bus to the aggregates under a dynamic supervisor, with the paths of the pool and the
    /// committer that their actors use.
    #[must_use]
    pub fn new(
        supervisor: SupervisorRef,
        pool: impl Into<Arc<str>>,
        committer: impl Into<Arc<str>>,
        options: CommandOptions,
        middleware: Vec<Arc<dyn Middleware>>,
    ) -> Self {
        let live = LiveAggregates::new(options.live);
        Self(Arc::new(Inner {
            supervisor,
            pool: pool.into(),
            committer: committer.into(),
            options,
            live,
            owners: Owners::default(),
            middleware,
        }))
    }

    /// From now on nobody from outside writes to an aggregate's streams, on this node. Its first
    /// command says so to the others.
    pub(crate) fn declare<A: Aggregate>(&self) -> Result<(), Owned> {
        self.0.owners.declare(A::CATEGORY, A::OWNER).map(drop)
    }

    /// The same bus, whose aggregates' streams are known to others by `owners`.
    #[must_use]
    pub fn owners(self, owners: Owners) -> Self {
        let Inner { supervisor, pool, committer, options, live, middleware, .. } = &*self.0;
        Self(Arc::new(Inner {
            supervisor: supervisor.clone(),
            pool: Arc::clone(pool),
            committer: Arc::clone(committer),
            options: options.clone(),
            live: live.clone(),
            owners,
            middleware: middleware.clone(),
        }))
    }

    /// Sends a command to an aggregate by its id, and waits until what came of it is durable.
    ///
    /// # Errors
    /// See [`CommandError`]. After an error of class transient the command may have had its
    /// effect; a repeat with the same key finds out and doubles nothing.
    ///
    /// # Cancel safety
    /// A dropped call may have had its effect.
    pub async fn send<A: Aggregate>(
        &self,
        id: &str,
        command: impl Into<CommandEnvelope<A::Command>>,
    ) -> Result<Executed, CommandError> {
        let CommandEnvelope { command, key, fingerprint, metadata } = command.into();
        let stream = stream_of::<A>(id)?;
        // What the system does on its own account is nobody's to allow.
        if self.0.middleware.is_empty() || A::OWNER != Owner::Aggregate {
            return self
                .deliver::<A>(&stream, command, key.as_deref(), fingerprint, metadata)
                .await;
        }
        let name = std::any::type_name::<A::Command>();
        let info = CommandInfo {
            category: A::CATEGORY,
            command: name.rsplit("::").next().unwrap_or(name),
            stream,
            key,
            metadata,
        };
        let send = |info: CommandInfo| {
            async move {
                let CommandInfo { stream, key, metadata, .. } = info;
                self.deliver::<A>(&stream, command, key.as_deref(), fingerprint, metadata).await
            }
            .boxed()
        };
        Next::new(&self.0.middleware, send).run(info).await
    }

    /// Looks at the state of an aggregate as it is in the log: no event that was acknowledged
    /// before the call is missing in it, whichever node wrote it. `look` is told the version that it
    /// sees.
    ///
    /// On a store that other nodes write to this reads the stream's version, once for all looks that
    /// wait; [`look_as`](Self::look_as) can do without.
    ///
    /// # Errors
    /// As for [`send`](Self::send).
    ///
    /// # Cancel safety
    /// Dropping the call loses nothing.
    pub async fn look<A: Aggregate, T: Send + 'static>(
        &self,
        id: &str,
        look: impl FnOnce(&A, Version) -> T + Send + 'static,
    ) -> Result<T, CommandError> {
        self.look_as(id, Freshness::Newest, look).await
    }

    /// Looks at the state of an aggregate that is as new as one asks for.
    ///
    /// # Errors
    /// As for [`send`](Self::send).
    ///
    /// # Cancel safety
    /// Dropping the call loses nothing.
    pub async fn look_as<A: Aggregate, T: Send + 'static>(
        &self,
        id: &str,
        freshness: Freshness,
        look: impl FnOnce(&A, Version) -> T + Send + 'static,
    ) -> Result<T, CommandError> {
        let stream = stream_of::<A>(id)?;
        let deadline = self.0.options.deadline;
        // An actor that ends drops a look that it has not come to: then it is the next one's.
        let look = Arc::new(Mutex::new(Some(look)));
        let looking = async {
            for _ in 0..HAND_OVERS {
                let actor = self.find::<A>(&stream).await?;
                let (answer, answered) = oneshot::channel();
                let shared = Arc::clone(&look);
                let message = AggregateMessage::Look(Look {
                    freshness,
                    look: Box::new(move |seen| {
                        let seen = seen.map(|LookAt { state, version }| {
                            let look = shared.lock().unwrap_or_else(PoisonError::into_inner).take();
                            look.map(|look| look(state, version))
                        });
                        // An asker that is gone does not mind.
                        let _ = answer.send(seen);
                    }),
                });
                if actor.tell(message).await.is_err() {
                    continue;
                }
                match answered.await {
                    Ok(Ok(Some(value))) => return Ok(value),
                    Ok(Err(error)) => return Err(error),
                    // It was begun, and panicked.
                    Ok(Ok(None)) => {
                        return Err(AskError::NoReply { path: actor.path().clone() }.into());
                    }
                    Err(_) => {}
                }
            }
            Err(self.down().into())
        };
        tokio::time::timeout(deadline, looking).await.unwrap_or_else(|_| {
            let path = self.0.supervisor.path().clone();
            Err(AskError::Timeout { path, after: deadline }.into())
        })
    }

    /// The aggregates that are live.
    #[must_use]
    pub fn live(&self) -> &LiveAggregates {
        &self.0.live
    }

    async fn deliver<A: Aggregate>(
        &self,
        stream: &StreamId,
        command: A::Command,
        key: Option<&str>,
        fingerprint: Option<u64>,
        metadata: Metadata,
    ) -> Result<Executed, CommandError> {
        let command = Arc::new(command);
        let key = key.map(|key| IdempotencyKey::of(["command", stream.as_str(), key]));
        let fingerprint = fingerprint.filter(|_| key.is_some());
        let meta = Metadata { fingerprint, ..metadata }.to_bytes();
        let mut tries = 0;
        loop {
            let actor = self.find::<A>(stream).await?;
            let asked = actor.ask_within(self.0.options.deadline, |reply| {
                AggregateMessage::Execute(Request {
                    command: Arc::clone(&command),
                    key,
                    fingerprint,
                    meta: meta.clone(),
                    reply,
                })
            });
            tries += 1;
            match asked.await {
                Ok(answer) => return answer,
                // It was passivated between the look-up and the question: the next one is new.
                Err(AskError::Stopped { .. }) if tries <= HAND_OVERS => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    async fn find<A: Aggregate>(
        &self,
        stream: &StreamId,
    ) -> Result<Address<AggregateMessage<A>>, CommandError> {
        let mut known = false;
        for _ in 0..HAND_OVERS {
            if let Some(actor) = self.0.supervisor.child(stream.as_str()) {
                return Ok(actor);
            }
            check_owner::<A>(&self.0.owners)?;
            self.0.live.make_room();
            match self.0.supervisor.spawn_spec(self.spec::<A>(stream)).await {
                Ok(actor) => return Ok(actor),
                // Somebody else was faster, or something else has the name.
                Err(SupervisorError::AlreadyStarted { .. }) => known = true,
                Err(error) => return Err(error.into()),
            }
        }
        if known {
            return Err(CommandError::OtherType { stream: stream.clone(), wanted: A::CATEGORY });
        }
        Err(self.down().into())
    }

    fn down(&self) -> SupervisorError {
        SupervisorError::Down { supervisor: self.0.supervisor.path().clone() }
    }

    fn spec<A: Aggregate>(&self, stream: &StreamId) -> ChildSpec {
        let options = &self.0.options;
        let args = AggregateArgs {
            stream: stream.clone(),
            pool: Arc::clone(&self.0.pool),
            committer: Arc::clone(&self.0.committer),
            idle_after: options.idle_after,
            retries: options.retries,
            live: self.0.live.clone(),
            owners: self.0.owners.clone(),
        };
        // It ends by itself when idle, and comes back when it crashed.
        ChildSpec::actor::<AggregateActor<A>>(stream.as_str(), args)
            .component_type(component::AGGREGATE)
            .restart(RestartPolicy::Transient)
            .mailbox(options.mailbox, Overflow::default())
    }
}

impl fmt::Debug for CommandBus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CommandBus")
            .field("options", &self.0.options)
            .field("live", &self.0.live.count())
            .field("middleware", &self.0.middleware)
            .finish_non_exhaustive()
    }
}
