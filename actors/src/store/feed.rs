//! The feed: hears how long the log has become when other nodes append, and announces it here.
//!
//! It lives beside the committer, on stores that several nodes share. The committer announces what
//! this node has appended by itself; without the feed the rest would be seen with the next append
//! only.

use std::fmt;
use std::sync::Arc;

use mister_smith_supervisors::{
    Actor, Context, Failure, StartError, SupervisedComponent, SupervisionMetadata, TaskGuard,
};
use tokio::sync::watch;

use crate::component;
use crate::event::Position;
use crate::pool::{Lease, lease_at_start, store_failure};
use crate::store::StoreError;

/// What the feed can be told.
#[derive(Debug)]
pub enum FeedMessage {
    /// The log has grown, or cannot be read. Sent by the feed to itself.
    Heard(Result<Position, StoreError>),
}

/// What a fresh start needs.
#[derive(Clone, Debug)]
pub struct FeedArgs {
    pool: String,
    head: Arc<watch::Sender<Position>>,
}

impl FeedArgs {
    /// A feed that leases its store from the pool at path `pool` and announces on `head` how far
    /// the log is.
    #[must_use]
    pub fn new(pool: impl Into<String>, head: Arc<watch::Sender<Position>>) -> Self {
        Self { pool: pool.into(), head }
    }
}

/// The actor.
pub struct Feed {
    lease: Lease,
    head: Arc<watch::Sender<Position>>,
    listening: Option<TaskGuard>,
}

impl Actor for Feed {
    type Message = FeedMessage;
    type Args = FeedArgs;

    async fn start(args: &FeedArgs, cx: &mut Context<Self>) -> Result<Self, StartError> {
        let lease = lease_at_start(cx, &args.pool).await?;
        let head = Arc::clone(&args.head);
        let shown = Arc::clone(&head);
        cx.describe(move || format!("position {}", shown.borrow().get()));
        let mut feed = Self { lease, head, listening: None };
        feed.listen(cx);
        Ok(feed)
    }

    async fn handle(
        &mut self,
        message: FeedMessage,
        cx: &mut Context<Self>,
    ) -> Result<(), Failure> {
        let FeedMessage::Heard(heard) = message;
        super::committer::announce(&self.head, heard.map_err(store_failure)?);
        self.listen(cx);
        Ok(())
    }

    fn message_name(_: &FeedMessage) -> &'static str {
        "Heard"
    }
}

impl Feed {
    fn listen(&mut self, cx: &Context<Self>) {
        let (store, at) = (Arc::clone(&self.lease.store), *self.head.borrow());
        self.listening =
            Some(cx.spawn_tell(async move { FeedMessage::Heard(store.changed(at).await) }));
    }
}

impl SupervisedComponent for Feed {
    type Handover = ();

    fn supervision_metadata(_: &FeedArgs) -> SupervisionMetadata {
        SupervisionMetadata::of(component::STORE)
    }
}

impl fmt::Debug for Feed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Feed").field("head", &*self.head.borrow()).finish_non_exhaustive()
    }
}
