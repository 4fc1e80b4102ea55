//! What can be done with a projection from outside: read it, wait for it, make it again.
//!
//! Any node can be asked. What is asked for is written into the database; the node that writes the
//! projection finds it there within [`LOOK_EVERY`](super::actor::LOOK_EVERY), this one at once.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use mister_smith_supervisors::{AskError, ChildSpec, HealthSpec, Path, SupervisorSpec};
use serde::{Serialize, de::DeserializeOwned};
use tokio::sync::watch;

use super::actor::{ProjectionActor, ProjectionArgs, Shared};
use super::desk::ParkedDesk;
use super::shown::Shown;
use super::{
    ListQuery, Parked, ParkedDocument, ParkedQuery, Progress, Projection, ProjectionError, Wanted,
    wanted_by,
};
use crate::event::Position;
use crate::pool::PoolHandle;
use crate::store::claims::{ClaimError, Request};
use crate::store::follow::wait_until_heard;
use crate::store::read_model::documents::Part;

/// How long [`ProjectionRef::wait_for`] waits.
pub const WAIT_FOR: Duration = Duration::from_secs(30);

/// How long [`ProjectionRef::retry`] waits for the node that applies the events.
const RETRY_FOR: Duration = Duration::from_secs(4);

/// How often it looks how far that is.
const RETRY_LOOK: Duration = Duration::from_millis(20);

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
    wanted: Wanted,
    shared: Shared,
    /// One of each partition.
    shown: Vec<Arc<Shown>>,
}

/// Registers a projection: its handle, and what it is in the tree.
pub fn register<P: Projection>(projection: P) -> Registered {
    let projection = Arc::new(projection);
    let wanted = wanted_by::<P>();
    let shared = Shared::default();
    let shown: Vec<_> = (0..wanted.partitions).map(|_| Arc::<Shown>::default()).collect();
    let handle = Unbound { name: P::NAME, wanted, shared: shared.clone(), shown: shown.clone() };
    let plan = move |given: PlanArgs| {
        let part = |partition: u16, id: String| {
            let args = ProjectionArgs {
                projection: Arc::clone(&projection),
                partition,
                pool: Arc::clone(&given.pool),
                owner: Arc::clone(&given.owner),
                head: given.head.clone(),
                shown: Arc::clone(&shown[usize::from(partition)]),
                shared: shared.clone(),
            };
            ChildSpec::component::<ProjectionActor<P>>(id, args).health(given.health)
        };
        if wanted.partitions == 1 {
            return Node::Actor(part(0, P::NAME.to_owned()));
        }
        let supervisor = SupervisorSpec::new(P::NAME);
        let parts =
            (0..wanted.partitions).map(|partition| part(partition, format!("p{partition}")));
        Node::Supervisor(parts.fold(supervisor, SupervisorSpec::child))
    };
    Registered { handle, plan: Box::new(plan) }
}

impl Unbound {
    /// Its name.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// The handle, with the pool that it reads through and the path that its actors are below.
    #[must_use]
    pub fn bind(self, pool: PoolHandle, projections: &str) -> ProjectionRef {
        let path = Path::parse(projections).child(self.name);
        ProjectionRef { inner: self, pool, path }
    }
}

/// A projection. Cheap to clone.
#[derive(Clone)]
pub struct ProjectionRef {
    inner: Unbound,
    pool: PoolHandle,
    path: Path,
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
    /// Documents that stand still, because an event cannot be applied.
    pub parked: usize,
    /// Their events that wait.
    pub parked_events: u64,
    /// Documents of the build that is made that stand still.
    pub parked_building: usize,
    /// It stands still until it is resumed.
    pub paused: bool,
    /// Why this node, or the new build, does not go on; the projection's place in the tree says
    /// the same.
    pub trouble: Option<String>,
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
    /// It was not as far when the caller's time was over. It goes on.
    #[error("projection {name} is at {at} and not at {position} yet{}", why(trouble))]
    Behind {
        /// The projection.
        name: String,
        /// What was waited for.
        position: Position,
        /// How far it is.
        at: Position,
        /// Why it does not go on, if that is known.
        trouble: Option<String>,
    },
    /// A parked event cannot be applied.
    #[error("{id} stays parked: {reason}")]
    Parked {
        /// The document.
        id: String,
        /// Why.
        reason: String,
    },
}

fn why(trouble: &Option<String>) -> String {
    trouble.as_ref().map(|trouble| format!(": {trouble}")).unwrap_or_default()
}

/// What came of applying parked events again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Retried {
    /// So many were applied.
    pub applied: u64,
    /// So many are still to be applied; it goes on.
    pub left: u64,
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
        match self.inner.wanted.partitions {
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
                let read = lease.documents.get(self.inner.name, id).await?;
                if let Some(Err(before)) = other {
                    self.inner.shared.cache.read(before, id, &read);
                }
                read.document
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
        super::kept::decode(data).map_err(|reason| {
            RequestError::Projection(ProjectionError::Document {
                projection: self.inner.name.to_owned(),
                id: id.to_owned(),
                reason,
            })
        })
    }

    /// The last event that is in the documents, in all partitions, as this node has heard. What
    /// another node writes it hears of within
    /// [`LOOK_EVERY`](super::actor::LOOK_EVERY).
    #[must_use]
    pub fn position(&self) -> Position {
        self.inner.shown.iter().map(|shown| shown.done()).min().unwrap_or_default()
    }

    /// Waits until everything up to `position` is in the documents, whichever node writes them:
    /// then a reader finds what it has written.
    ///
    /// # Errors
    /// [`Behind`](RequestError::Behind): it is not as far after [`WAIT_FOR`].
    ///
    /// # Cancel safety
    /// Nothing is lost by dropping it.
    pub async fn wait_for(&self, position: Position) -> Result<(), RequestError> {
        self.wait_for_within(position, WAIT_FOR).await
    }

    /// [`wait_for`](Self::wait_for), for as long as the caller likes.
    ///
    /// # Errors
    /// [`Behind`](RequestError::Behind): it is not as far.
    ///
    /// # Cancel safety
    /// Nothing is lost by dropping it.
    pub async fn wait_for_within(
        &self,
        position: Position,
        time: Duration,
    ) -> Result<(), RequestError> {
        let all = async {
            for shown in &self.inner.shown {
                let mut done = shown.subscribe();
                if *done.borrow() < position {
                    // A node that stands by looks more often while somebody waits.
                    self.inner.shared.look();
                }
                // The sender lives as long as this value does.
                let _ = done.wait_for(|at| *at >= position).await;
            }
        };
        if tokio::time::timeout(time, all).await.is_ok() {
            return Ok(());
        }
        Err(RequestError::Behind {
            name: self.inner.name.to_owned(),
            position,
            at: self.position(),
            trouble: self.trouble(),
        })
    }

    fn trouble(&self) -> Option<String> {
        self.inner.shown.iter().find_map(|shown| shown.trouble())
    }

    /// How it stands.
    ///
    /// # Errors
    /// The store could not be read.
    pub async fn status(&self) -> Result<ProjectionStatus, RequestError> {
        let lease = self.pool.lease().await?;
        let head = lease.store.head().await?;
        let progress = lease.documents.progress(self.inner.name).await?;
        let mut paused = false;
        for Progress { build, partition, .. } in &progress {
            let part = Part { build: *build, partition: *partition }.to_string();
            let place = lease.documents.claims().place(&part).await;
            let place = place.map_err(ProjectionError::from)?;
            paused |= place.is_some_and(|place| place.paused);
        }
        let active = progress.iter().filter(|part| part.active);
        let position = active.clone().map(|part| part.position).min().unwrap_or_default();
        // The database hears of events that the projection does not want now and then only.
        let position = position.max(self.position());
        let desk = ParkedDesk::new(lease.documents, self.inner.name);
        let [parked, building] = match progress.is_empty() {
            true => <[Vec<ParkedDocument>; 2]>::default(),
            false => desk.documents().await?,
        };
        Ok(ProjectionStatus {
            name: self.inner.name.to_owned(),
            version: self.inner.wanted.version,
            partitions: self.inner.wanted.partitions,
            position,
            lag: head.get().saturating_sub(position.get()),
            parked: parked.len(),
            parked_events: parked.iter().map(|one| one.events).sum(),
            parked_building: building.len(),
            paused,
            trouble: self.trouble(),
            progress,
        })
    }

    /// Lets it stand still, on whichever node writes it, and over restarts, until it is
    /// [resumed](Self::resume). Answers whether that node has heard of it; if not, it will.
    ///
    /// # Errors
    /// The store could not be written.
    pub async fn pause(&self) -> Result<bool, RequestError> {
        self.ask(Request::Pause).await
    }

    /// Lets it go on.
    ///
    /// # Errors
    /// The store could not be written.
    pub async fn resume(&self) -> Result<bool, RequestError> {
        self.ask(Request::Resume).await
    }

    async fn ask(&self, request: Request) -> Result<bool, RequestError> {
        let lease = self.pool.lease().await?;
        let claims = lease.documents.claims();
        let progress = lease.documents.progress(self.inner.name).await?;
        let mut heard = true;
        let mut asked = Vec::new();
        for Progress { build, partition, .. } in progress {
            let name = Part { build, partition }.to_string();
            match claims.ask(&name, request).await {
                Ok(number) => asked.push((name, number)),
                // Retired meanwhile: there is nothing to pause.
                Err(ClaimError::Unknown { .. }) => {}
                Err(error) => return Err(ProjectionError::from(error).into()),
            }
        }
        self.inner.shared.look();
        for (name, number) in asked {
            let held = claims.place(&name).await.map_err(ProjectionError::from)?;
            if held.is_some_and(|place| place.held) {
                let hears = wait_until_heard(&*claims, &name, number).await;
                heard &= hears.map_err(ProjectionError::from)?;
            }
        }
        Ok(heard)
    }

    /// Begins to make all documents again, beside those that are read, which stay in use until
    /// the new ones are as far.
    ///
    /// # Errors
    /// A newer program makes them; or the store could not be written.
    pub async fn rebuild(&self) -> Result<(), RequestError> {
        let lease = self.pool.lease().await?;
        lease.documents.begin_build(self.inner.name, self.inner.wanted).await?;
        self.inner.shared.builds_changed();
        Ok(())
    }

    /// Throws all documents away and begins again, as this program makes them. Readers see it
    /// grow; [`rebuild`](Self::rebuild) spares them that. It is also the way back from a newer
    /// version, once no program of that one runs any more.
    ///
    /// # Errors
    /// The store could not be written.
    pub async fn reset(&self) -> Result<(), RequestError> {
        let lease = self.pool.lease().await?;
        lease.documents.reset(self.inner.name, self.inner.wanted).await?;
        for shown in &self.inner.shown {
            shown.is_done(Position::ZERO);
        }
        self.inner.shared.builds_changed();
        Ok(())
    }

    async fn desk(&self) -> Result<ParkedDesk, RequestError> {
        let lease = self.pool.lease().await?;
        Ok(ParkedDesk::new(lease.documents, self.inner.name))
    }

    /// The documents that stand still, by id.
    ///
    /// # Errors
    /// The store could not be read.
    pub async fn parked_documents(&self) -> Result<Vec<ParkedDocument>, RequestError> {
        let [active, _] = self.desk().await?.documents().await?;
        Ok(active)
    }

    /// A page of parked events, by document and position.
    ///
    /// # Errors
    /// The store could not be read.
    pub async fn parked(&self, query: &ParkedQuery) -> Result<Vec<Parked>, RequestError> {
        Ok(self.desk().await?.page(query).await?)
    }

    /// Applies the parked events of a document again, in order, on whichever node writes them.
    /// What is not done after some seconds goes on.
    ///
    /// # Errors
    /// One cannot be applied, and the document stays parked; or the store could not be written.
    ///
    /// # Cancel safety
    /// It goes on when this is dropped.
    pub async fn retry(&self, id: &str) -> Result<Retried, RequestError> {
        let desk = self.desk().await?;
        let builds = desk.builds_with(id).await?;
        let mut before = Vec::new();
        for &build in &builds {
            before.push(desk.events(build, id).await?);
        }
        desk.retry(id).await?;
        self.inner.shared.look();
        let mut all = Retried { applied: 0, left: 0 };
        for (build, before) in builds.into_iter().zip(before) {
            let done = tokio::time::timeout(RETRY_FOR, self.retried(&desk, build, id));
            let left = match done.await {
                Ok(done) => done.map(|()| 0)?,
                Err(_) => desk.events(build, id).await?,
            };
            all.applied += before.saturating_sub(left);
            all.left += left;
        }
        Ok(all)
    }

    /// Waits until nothing of a document is parked any more.
    async fn retried(&self, desk: &ParkedDesk, build: i64, id: &str) -> Result<(), RequestError> {
        loop {
            match desk.first(build, id).await? {
                None => return Ok(()),
                Some(Parked { attempts: 0, .. }) => {}
                // While it is tried, this is written too.
                Some(first) if first.error == super::retry::TRYING => {}
                Some(Parked { position, error, .. }) => {
                    let reason = format!("event {position}: {error}");
                    return Err(RequestError::Parked { id: id.to_owned(), reason });
                }
            }
            tokio::time::sleep(RETRY_LOOK).await;
        }
    }

    /// Leaves out the first parked event of a document, which is then never applied to it, and
    /// lets those behind it be applied. Answers whether there was one.
    ///
    /// # Errors
    /// The store could not be written.
    pub async fn skip(&self, id: &str) -> Result<bool, RequestError> {
        let skipped = self.desk().await?.skip(id).await?;
        self.inner.shared.look();
        Ok(skipped)
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
