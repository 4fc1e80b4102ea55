//! What can be done with a projection from outside: read it, wait for it, make it again.

use std::fmt;
use std::sync::Arc;

use mister_smith_supervisors::{
    Address, AskError, ChildSpec, HealthSpec, LookupError, Path, SupervisorSpec,
};
use serde::{Serialize, de::DeserializeOwned};
use tokio::sync::watch;

use super::actor::{ProjectionActor, ProjectionArgs, ProjectionMessage, Shared, partition_with};
use super::{ListQuery, Parked, Progress, Projection, ProjectionError};
use crate::event::Position;
use crate::pool::PoolHandle;

/// A projection of this node, before the node starts.
pub struct Registered {
    /// Its handle, without the way to its actors.
    pub handle: Unbound,
    /// Makes the part of the tree that it is.
    pub plan: Plan,
}

impl fmt::Debug for Registered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registered").field("name", &self.handle.name).finish_non_exhaustive()
    }
}

/// What a projection is in the tree: an actor, or a supervisor of one for each partition.
#[derive(Debug)]
pub enum Node {
    /// One partition.
    Actor(ChildSpec),
    /// Several.
    Supervisor(SupervisorSpec),
}

/// What the plan of a projection is given: the paths, the owner, the end of the log, and how often
/// its health is asked for.
#[derive(Debug, Clone)]
pub struct PlanArgs {
    /// Path of the pool.
    pub pool: Arc<str>,
    /// What is written into its claims.
    pub owner: Arc<str>,
    /// The end of the log.
    pub head: watch::Receiver<Position>,
    /// How its health is watched.
    pub health: HealthSpec,
}

/// Makes the part of the tree that a projection is.
pub type Plan = Box<dyn FnOnce(PlanArgs) -> Node + Send>;

/// A handle without the way to its actors.
#[derive(Debug, Clone)]
pub struct Unbound {
    name: &'static str,
    version: u32,
    partitions: u16,
    partition_with: fn(&str) -> u16,
    shared: Shared,
    done: Vec<Arc<watch::Sender<Position>>>,
}

/// Registers a projection: its handle, and what it is in the tree.
pub fn register<P: Projection>(projection: P) -> Registered {
    let projection = Arc::new(projection);
    let partitions = P::PARTITIONS.max(1);
    let shared = Shared::default();
    let done: Vec<_> = (0..partitions).map(|_| Arc::new(watch::Sender::default())).collect();
    let handle = Unbound {
        name: P::NAME,
        version: P::VERSION,
        partitions,
        partition_with: partition_with::<P>,
        shared: shared.clone(),
        done: done.clone(),
    };
    let plan = move |given: PlanArgs| {
        let part = |partition: u16, id: String| {
            let args = ProjectionArgs {
                projection: Arc::clone(&projection),
                partition,
                pool: Arc::clone(&given.pool),
                owner: Arc::clone(&given.owner),
                head: given.head.clone(),
                done: Arc::clone(&done[usize::from(partition)]),
                shared: shared.clone(),
            };
            ChildSpec::component::<ProjectionActor<P>>(id, args).health(given.health)
        };
        if partitions == 1 {
            return Node::Actor(part(0, P::NAME.to_owned()));
        }
        let supervisor = SupervisorSpec::new(P::NAME);
        let parts = (0..partitions).map(|partition| part(partition, format!("p{partition}")));
        Node::Supervisor(parts.fold(supervisor, SupervisorSpec::child))
    };
    Registered { handle, plan: Box::new(plan) }
}

/// Finds the actor of a partition by its path.
pub type FindActor =
    Arc<dyn Fn(&str) -> Result<Address<ProjectionMessage>, LookupError> + Send + Sync>;

impl Unbound {
    /// Its name.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// The handle, with the pool that it reads through and the way to its actors below a path.
    #[must_use]
    pub fn bind(self, pool: PoolHandle, projections: &str, find: FindActor) -> ProjectionRef {
        let path = Path::parse(projections).child(self.name);
        ProjectionRef { inner: self, pool, path, find }
    }
}

/// A projection. Cheap to clone.
#[derive(Clone)]
pub struct ProjectionRef {
    inner: Unbound,
    pool: PoolHandle,
    path: Path,
    find: FindActor,
}

/// How a projection stands.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct ProjectionStatus {
    /// Its name.
    pub name: String,
    /// The version of this program.
    pub version: u32,
    /// How many partitions it has.
    pub partitions: u16,
    /// The last event that is in the documents that are read.
    pub position: Position,
    /// How many events of the log are not.
    pub lag: u64,
    /// Documents whose events are parked.
    pub parked: usize,
    /// All partitions of the active build and of the one that is made.
    pub progress: Vec<Progress>,
}

/// Why nothing came of a request to a projection.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// The documents could not be read or written.
    #[error(transparent)]
    Projection(#[from] ProjectionError),
    /// The log could not be read.
    #[error(transparent)]
    Store(#[from] crate::store::StoreError),
    /// The pool or the projection's actor did not answer.
    #[error(transparent)]
    Actor(#[from] AskError),
    /// The node is stopping.
    #[error(transparent)]
    Lookup(#[from] LookupError),
    /// A parked event cannot be applied.
    #[error("{id} stays parked: {reason}")]
    Parked {
        /// The document.
        id: String,
        /// Why.
        reason: String,
    },
}

impl ProjectionRef {
    /// Its name.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.inner.name
    }

    /// Where its actors are: itself, or below it.
    #[must_use]
    pub fn paths(&self) -> Vec<Path> {
        match self.inner.partitions {
            1 => vec![self.path.clone()],
            many => (0..many).map(|n| self.path.child(&format!("p{n}"))).collect(),
        }
    }

    /// A document.
    ///
    /// # Errors
    /// It could not be read, or is not a `D`.
    pub async fn get<D: DeserializeOwned>(&self, id: &str) -> Result<Option<D>, RequestError> {
        let lease = self.pool.lease().await?;
        // Where other nodes may write the projection, nobody tells this one's cache.
        let cached = if lease.shared { None } else { Some(self.inner.shared.cache.get(id)) };
        let found = match cached {
            Some(Ok(found)) => found,
            other => {
                let found = lease.documents.get(self.inner.name, id).await?;
                if let Some(Err(before)) = other {
                    self.inner.shared.cache.read(before, id, found.as_ref());
                }
                found
            }
        };
        found.map(|found| self.decode(&found.id, &found.data)).transpose()
    }

    /// A page of documents with their ids.
    ///
    /// # Errors
    /// A field is none, they could not be read, or are not `D`.
    pub async fn list<D: DeserializeOwned>(
        &self,
        query: &ListQuery,
    ) -> Result<Vec<(Arc<str>, D)>, RequestError> {
        let lease = self.pool.lease().await?;
        let found = lease.documents.list(self.inner.name, query).await?;
        found
            .into_iter()
            .map(|found| Ok((Arc::clone(&found.id), self.decode(&found.id, &found.data)?)))
            .collect()
    }

    fn decode<D: DeserializeOwned>(&self, id: &str, data: &[u8]) -> Result<D, RequestError> {
        serde_json::from_slice(data).map_err(|error| {
            RequestError::Projection(ProjectionError::Document {
                projection: self.inner.name.to_owned(),
                id: id.to_owned(),
                reason: error.to_string(),
            })
        })
    }

    /// The last event that is in the documents, in all partitions, as this node has heard.
    #[must_use]
    pub fn position(&self) -> Position {
        self.inner.done.iter().map(|done| *done.borrow()).min().unwrap_or_default()
    }

    /// Waits until everything up to `position` is in the documents: then a reader finds what it
    /// has written.
    ///
    /// # Cancel safety
    /// Nothing is lost by dropping it.
    pub async fn wait_for(&self, position: Position) {
        for done in &self.inner.done {
            // The sender lives as long as this value does.
            let _ = done.subscribe().wait_for(|at| *at >= position).await;
        }
    }

    /// How it stands.
    ///
    /// # Errors
    /// The store could not be read.
    pub async fn status(&self) -> Result<ProjectionStatus, RequestError> {
        let lease = self.pool.lease().await?;
        let head = lease.store.head().await?;
        let progress = lease.documents.progress(self.inner.name).await?;
        let active = progress.iter().filter(|part| part.active);
        let position = active.clone().map(|part| part.position).min().unwrap_or_default();
        // The database hears of events that the projection does not want now and then only.
        let position = position.max(self.position());
        let parked = match active.clone().next() {
            None => 0,
            Some(part) => {
                let mut ids: Vec<_> =
                    lease.documents.parked(part.build).await?.into_iter().map(|p| p.id).collect();
                ids.dedup();
                ids.len()
            }
        };
        Ok(ProjectionStatus {
            name: self.inner.name.to_owned(),
            version: self.inner.version,
            partitions: self.inner.partitions,
            position,
            lag: head.get().saturating_sub(position.get()),
            parked,
            progress,
        })
    }

    /// Begins to make all documents again, beside those that are read, which stay in use until
    /// the new ones are as far.
    ///
    /// # Errors
    /// The store could not be written.
    pub async fn rebuild(&self) -> Result<(), RequestError> {
        let lease = self.pool.lease().await?;
        let Unbound { name, version, partitions, .. } = self.inner;
        lease.documents.begin_build(name, version, partitions).await?;
        self.inner.shared.builds_changed();
        Ok(())
    }

    /// Throws all documents away and begins again. Readers see it grow; [`rebuild`](Self::rebuild)
    /// spares them that.
    ///
    /// # Errors
    /// The store could not be written.
    pub async fn reset(&self) -> Result<(), RequestError> {
        let lease = self.pool.lease().await?;
        lease.documents.reset(self.inner.name).await?;
        for done in &self.inner.done {
            done.send_replace(Position::ZERO);
        }
        self.inner.shared.builds_changed();
        Ok(())
    }

    /// The parked events, by document and position.
    ///
    /// # Errors
    /// The store could not be read.
    pub async fn parked(&self) -> Result<Vec<Parked>, RequestError> {
        let lease = self.pool.lease().await?;
        match self.active_build(&lease).await? {
            None => Ok(Vec::new()),
            Some(build) => Ok(lease.documents.parked(build).await?),
        }
    }

    async fn active_build(
        &self,
        lease: &crate::pool::Lease,
    ) -> Result<Option<i64>, ProjectionError> {
        let progress = lease.documents.progress(self.inner.name).await?;
        Ok(progress.iter().find(|part| part.active).map(|part| part.build))
    }

    /// Applies the parked events of a document again, in order. Answers how many there were.
    ///
    /// # Errors
    /// One cannot be applied, and the document stays parked; or the actor did not answer.
    pub async fn retry(&self, id: &str) -> Result<usize, RequestError> {
        let path = match self.inner.partitions {
            1 => self.path.clone(),
            _ => self.path.child(&format!("p{}", (self.inner.partition_with)(id))),
        };
        let actor = (self.find)(path.as_str())?;
        let question = |reply| ProjectionMessage::Retry(id.to_owned(), reply);
        let answer = actor.ask(question).await?;
        answer.map_err(|reason| RequestError::Parked { id: id.to_owned(), reason })
    }

    /// Leaves out the first parked event of a document, which is then never applied to it.
    /// Answers whether there was one. [`retry`](Self::retry) applies the rest.
    ///
    /// # Errors
    /// The store could not be written.
    pub async fn skip(&self, id: &str) -> Result<bool, RequestError> {
        let lease = self.pool.lease().await?;
        let Some(build) = self.active_build(&lease).await? else { return Ok(false) };
        tracing::warn!(projection = self.inner.name, id, "a parked event is left out");
        Ok(lease.documents.skip(build, id).await?)
    }

    /// How often a document was in memory, and how often not.
    #[must_use]
    pub fn cache_hits_and_misses(&self) -> (u64, u64) {
        self.inner.shared.cache.hits_and_misses()
    }
}

impl fmt::Debug for ProjectionRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProjectionRef").field("path", &self.path).finish_non_exhaustive()
    }
}
