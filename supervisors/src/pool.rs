//! Many actors behind one name: pools of equals, and crowds in parts.

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::actor::{Actor, Address, SlotState};
use crate::error::SupervisorError;
use crate::supervisor::{ChildSpec, SupervisorRef, SupervisorSpec};

impl SupervisorSpec {
    /// A supervisor of `size` equal actors, made from one spec, with the ids `0`, `1`, …; the way in
    /// is [`ActorSystem::pool`](crate::ActorSystem::pool). Their strategy is `OneForOne`; raise the
    /// [`intensity`](Self::intensity) with the size, since all of them share it.
    #[must_use]
    pub fn pool(id: impl Into<Arc<str>>, size: usize, spec: ChildSpec) -> Self {
        let workers = (0..size.max(1)).map(|n| spec.clone().with_id(n.to_string()));
        workers.fold(Self::new(id), Self::child)
    }

    /// A crowd in `parts`: as many dynamic supervisors, each like `part` but for its id, so that more
    /// than one processor can start and stop children, and the failures of some do not use up the
    /// intensity of all. The way in is [`ActorSystem::partitions`](crate::ActorSystem::partitions).
    #[must_use]
    pub fn partitioned(id: impl Into<Arc<str>>, parts: usize, part: Self) -> Self {
        let parts = (0..parts.max(1)).map(|n| {
            let mut part = part.clone();
            part.id = n.to_string().into();
            part
        });
        parts.fold(Self::new(id), |spec, part| spec.child(part))
    }
}

/// The workers of a pool ([`SupervisorSpec::pool`]). Cheap to clone; clones share the turn.
pub struct Pool<M: Send + 'static> {
    workers: Arc<[Address<M>]>,
    turn: Arc<AtomicUsize>,
}

impl<M: Send + 'static> Pool<M> {
    /// The children of `supervisor` that take messages of type `M`, as they are now.
    pub(crate) fn of(supervisor: &SupervisorRef) -> Option<Self> {
        let ids = supervisor.which_children();
        let workers: Vec<_> = ids.iter().filter_map(|id| supervisor.child(id)).collect();
        (!workers.is_empty()).then(|| Self { workers: workers.into(), turn: Arc::default() })
    }

    /// All of them.
    #[must_use]
    pub fn workers(&self) -> &[Address<M>] {
        &self.workers
    }

    /// The next one in turn. One that has no life now is passed over, unless none has.
    #[must_use]
    pub fn round_robin(&self) -> &Address<M> {
        let size = self.workers.len();
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let up = (0..size).find(|n| self.workers[(turn + n) % size].state() == SlotState::Up);
        &self.workers[(turn + up.unwrap_or(0)) % size]
    }

    /// The one with the fewest messages waiting. Ties go round.
    #[must_use]
    pub fn least_loaded(&self) -> &Address<M> {
        let size = self.workers.len();
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let load = |n: &usize| {
            let worker = &self.workers[(turn + n) % size];
            (worker.state() != SlotState::Up, worker.depth())
        };
        let least = (0..size).min_by_key(load).unwrap_or(0);
        &self.workers[(turn + least) % size]
    }

    /// The one for this key, always the same: what has one key is handled in order.
    #[must_use]
    pub fn by_key(&self, key: &(impl Hash + ?Sized)) -> &Address<M> {
        &self.workers[part_of(key, self.workers.len())]
    }
}

/// The same on every machine and in every run of one version of this program.
fn part_of(key: &(impl Hash + ?Sized), parts: usize) -> usize {
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    usize::try_from(hasher.finish() % parts.max(1) as u64).unwrap_or(0)
}

impl<M: Send + 'static> Clone for Pool<M> {
    fn clone(&self) -> Self {
        Self { workers: Arc::clone(&self.workers), turn: Arc::clone(&self.turn) }
    }
}

impl<M: Send + 'static> fmt::Debug for Pool<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.workers.iter()).finish()
    }
}

/// A crowd in parts ([`SupervisorSpec::partitioned`]): each id belongs to one of them.
#[derive(Clone, Debug)]
pub struct Partitions(Arc<[SupervisorRef]>);

impl Partitions {
    pub(crate) fn new(parts: Vec<SupervisorRef>) -> Option<Self> {
        (!parts.is_empty()).then(|| Self(parts.into()))
    }

    /// The supervisor that has, or would have, the child with this id.
    #[must_use]
    pub fn part(&self, id: &str) -> &SupervisorRef {
        &self.0[part_of(id, self.0.len())]
    }

    /// All of them.
    #[must_use]
    pub fn parts(&self) -> &[SupervisorRef] {
        &self.0
    }

    /// Starts an actor and returns its address.
    ///
    /// # Errors
    /// As [`SupervisorRef::start_child`].
    pub async fn spawn<A: Actor>(
        &self,
        id: impl Into<Arc<str>>,
        args: A::Args,
    ) -> Result<Address<A::Message>, SupervisorError> {
        let id = id.into();
        self.part(&id).spawn::<A>(Arc::clone(&id), args).await
    }

    /// Starts a child.
    ///
    /// # Errors
    /// As [`SupervisorRef::start_child`].
    pub async fn start_child(&self, spec: ChildSpec) -> Result<(), SupervisorError> {
        self.part(spec.id()).start_child(spec).await
    }

    /// Finds a child's address.
    #[must_use]
    pub fn child<M: Send + 'static>(&self, id: &str) -> Option<Address<M>> {
        self.part(id).child(id)
    }

    /// Stops a child in order; it is forgotten.
    ///
    /// # Errors
    /// As [`SupervisorRef::terminate_child`].
    pub async fn terminate_child(&self, id: &str) -> Result<(), SupervisorError> {
        self.part(id).terminate_child(id).await
    }

    /// How many children there are in all parts.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.iter().map(SupervisorRef::count).sum()
    }
}
