//! Finds the actor of a stream by its name, and starts it if it is not there.
//!
//! The registry is the dynamic supervisor's own index: nothing here has to be kept in step with
//! who lives.

use std::sync::Arc;
use std::time::Duration;

use mister_smith_supervisors::{
    Address, AskError, ChildSpec, Overflow, RestartPolicy, SupervisorError, SupervisorRef,
};

use super::stream::{Incoming, IngestError, StreamActor, StreamArgs, StreamMessage};
use crate::component;
use crate::event::StreamId;
use crate::store::AppendOutcome;

/// Requests that wait for one stream at most.
const MAILBOX: usize = 256;

/// How often a request is handed to another life because the one it met was ending.
const HAND_OVERS: usize = 3;

/// All streams of a node. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Aggregates {
    supervisor: SupervisorRef,
    pool: Arc<str>,
    committer: Arc<str>,
    idle_after: Duration,
    deadline: Duration,
}

impl Aggregates {
    /// Streams under a dynamic supervisor, with the paths of the pool and the committer that their
    /// actors use. Actors end after a minute without an event; a request takes 10 s at most.
    #[must_use]
    pub fn new(
        supervisor: SupervisorRef,
        pool: impl Into<Arc<str>>,
        committer: impl Into<Arc<str>>,
    ) -> Self {
        Self {
            supervisor,
            pool: pool.into(),
            committer: committer.into(),
            idle_after: Duration::from_secs(60),
            deadline: Duration::from_secs(10),
        }
    }

    /// After how long without an event a stream's actor ends.
    #[must_use]
    pub fn idle_after(mut self, idle_after: Duration) -> Self {
        self.idle_after = idle_after;
        self
    }

    /// Hands events to a stream, in order, and waits until they are durable.
    ///
    /// # Errors
    /// See [`IngestError`]. After an error the events may be in the log; a repeat with the same
    /// keys finds out and doubles nothing.
    ///
    /// # Cancel safety
    /// A dropped call may have written them.
    pub async fn ingest(
        &self,
        stream: &StreamId,
        events: Vec<Incoming>,
    ) -> Result<Vec<AppendOutcome>, IngestError> {
        let mut tries = 0;
        loop {
            let actor = self.find(stream).await?;
            let copy = events.clone();
            let asked =
                actor.ask_within(self.deadline, |reply| StreamMessage::Ingest(copy, reply)).await;
            tries += 1;
            match asked {
                Ok(committed) => return Ok(committed?),
                // It was passivated between the look-up and the question: the next one is new.
                Err(AskError::Stopped { .. }) if tries <= HAND_OVERS => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    async fn find(&self, stream: &StreamId) -> Result<Address<StreamMessage>, SupervisorError> {
        for _ in 0..HAND_OVERS {
            if let Some(actor) = self.supervisor.child(stream.as_str()) {
                return Ok(actor);
            }
            match self.supervisor.spawn_spec(self.spec(stream)).await {
                // Somebody else was faster.
                Err(SupervisorError::AlreadyStarted { .. }) => {}
                started => return started,
            }
        }
        Err(SupervisorError::Down { supervisor: self.supervisor.path().clone() })
    }

    fn spec(&self, stream: &StreamId) -> ChildSpec {
        let args = StreamArgs {
            stream: stream.clone(),
            pool: Arc::clone(&self.pool),
            committer: Arc::clone(&self.committer),
            idle_after: self.idle_after,
        };
        // It ends by itself when idle, and comes back when it crashed.
        ChildSpec::actor::<StreamActor>(stream.as_str(), args)
            .component_type(component::AGGREGATE)
            .restart(RestartPolicy::Transient)
            .mailbox(MAILBOX, Overflow::default())
    }
}
