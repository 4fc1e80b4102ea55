//! The projection actor: follows the log, page by page, and keeps one read model.
//!
//! It lives under `projections`. A start claims the read model (which fences whoever had it
//! before) and goes on after its checkpoint; rows and checkpoint are written in one transaction,
//! so each event has its effect once, whatever is killed when. Each page is a message to itself,
//! so a kill, a stop or a health check waits for one page at most.

use std::fmt;
use std::sync::Arc;

use mister_smith_supervisors::{
    Actor, Address, ComponentType, Context, ErrorClass, Failure, StartError, SupervisedComponent,
    SupervisionMetadata, TaskGuard,
};
use tokio::sync::watch;

use crate::event::Position;
use crate::pool::{Lease, PoolMessage, store_failure};
use crate::projection::{Epoch, ProjectionError};

/// Events of one transaction of the read model at most.
pub const PAGE: usize = 500;

/// What the projection can be told.
#[derive(Debug)]
pub enum ProjectionMessage {
    /// There may be more in the log.
    Continue,
}

/// What a fresh start needs.
#[derive(Clone, Debug)]
pub struct ProjectionArgs {
    pool: String,
    owner: String,
    head: watch::Receiver<Position>,
    done: Arc<watch::Sender<Position>>,
}

impl ProjectionArgs {
    /// A projection that leases its store from the pool at path `pool`, is woken by `head`, and
    /// announces on `done` how far it is. `owner` is written into its checkpoint.
    #[must_use]
    pub fn new(
        pool: impl Into<String>,
        owner: impl Into<String>,
        head: watch::Receiver<Position>,
        done: Arc<watch::Sender<Position>>,
    ) -> Self {
        Self { pool: pool.into(), owner: owner.into(), head, done }
    }
}

/// The actor that keeps the read model of streams.
pub struct StreamProjection {
    lease: Lease,
    epoch: Epoch,
    at: Position,
    head: watch::Receiver<Position>,
    done: Arc<watch::Sender<Position>>,
    /// Waits for the log to grow.
    waiting: Option<TaskGuard>,
}

impl Actor for StreamProjection {
    type Message = ProjectionMessage;
    type Args = ProjectionArgs;

    async fn start(args: &ProjectionArgs, cx: &mut Context<Self>) -> Result<Self, StartError> {
        let pool: Address<PoolMessage> = cx.find(&args.pool)?;
        let lease = pool.ask(PoolMessage::Lease).await?;
        let claim = lease.streams.claim(&args.owner).await.map_err(projection_failure)?;
        args.done.send_replace(claim.checkpoint);
        let (head, done) = (args.head.clone(), Arc::clone(&args.done));
        cx.describe(move || {
            let (head, done) = (head.borrow().get(), done.borrow().get());
            format!("position {done}   lag {}", head.saturating_sub(done))
        });
        let mut projection = Self {
            lease,
            epoch: claim.epoch,
            at: claim.checkpoint,
            head: args.head.clone(),
            done: Arc::clone(&args.done),
            waiting: None,
        };
        projection.wait(cx);
        Ok(projection)
    }

    async fn handle(
        &mut self,
        message: ProjectionMessage,
        cx: &mut Context<Self>,
    ) -> Result<(), Failure> {
        match message {
            ProjectionMessage::Continue => {
                self.apply_page().await?;
                self.wait(cx);
                Ok(())
            }
        }
    }

    fn message_name(_: &ProjectionMessage) -> &'static str {
        "Continue"
    }
}

impl StreamProjection {
    async fn apply_page(&mut self) -> Result<(), Failure> {
        let events = self.lease.store.read_all(self.at, PAGE).await.map_err(store_failure)?;
        if events.is_empty() {
            return Ok(());
        }
        let applied = self.lease.streams.apply(self.epoch, &events).await;
        self.at = applied.map_err(projection_failure)?;
        self.done.send_replace(self.at);
        Ok(())
    }

    /// Goes on at once while the log is ahead, else when it grows.
    fn wait(&mut self, cx: &Context<Self>) {
        let mut head = self.head.clone();
        let at = self.at;
        self.waiting = Some(cx.spawn_tell(async move {
            // The sender lives as long as the node; without it there is nothing to wait for.
            let _ = head.wait_for(|head| *head > at).await;
            ProjectionMessage::Continue
        }));
    }
}

impl SupervisedComponent for StreamProjection {
    type Handover = ();

    fn supervision_metadata(_: &ProjectionArgs) -> SupervisionMetadata {
        SupervisionMetadata::of(ComponentType::Projection)
    }
}

impl fmt::Debug for StreamProjection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamProjection")
            .field("at", &self.at)
            .field("epoch", &self.epoch)
            .finish_non_exhaustive()
    }
}

fn projection_failure(error: ProjectionError) -> Failure {
    match error {
        ProjectionError::Store(error) => store_failure(error),
        // Somebody else has it now: a new life claims it back, which is right for a node's only
        // projection of that name.
        other => Failure::wrap(ErrorClass::Transient, other),
    }
}
