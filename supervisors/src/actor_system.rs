//! One system of actors: a root supervisor, and everything below it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::actor::panic::install_hook;
use crate::actor::slot::AnySlot;
use crate::actor::state::SlotState;
use crate::actor::{Actor, Address, DeadLetters};
use crate::actor_system::root::RootWatch;
use crate::environment::{Clock, Environment, HeardBy};
use crate::error::{ExitReason, LookupError, SpecError, SupervisorError};
use crate::groups::Group;
use crate::inspect::DEFAULT_HISTORY;
use crate::lifecycle::Observer;
use crate::path::Path;
use crate::pool::{Partitions, Pool};
use crate::supervisor::across;
use crate::supervisor::child::{ChildFactory, StartSupervisor, SupervisorChild};
use crate::supervisor::{ChildSpec, Policies, SupervisorMessage, SupervisorRef, SupervisorSpec};
use crate::thread_pool::{ComputeError, ThreadPoolSpec, ThreadPoolSpecs, ThreadPools, Work};
use crate::tree::{Depth, SupervisionTree, TreeRoot};

pub use act::{Act, Acted};
pub use look::{ActorView, Totals};

mod act;
mod look;
mod root;

/// Builds an [`ActorSystem`].
pub struct ActorSystemBuilder {
    name: Arc<str>,
    root: SupervisorSpec,
    policies: Policies,
    observers: Vec<Arc<dyn Observer>>,
    dead_letters: Option<Arc<dyn DeadLetters>>,
    seed: u64,
    epoch_us: i64,
    clock: Option<Clock>,
    history: usize,
    backtraces: bool,
    thread_pools: ThreadPoolSpecs,
}

impl ActorSystemBuilder {
    /// The size of one of the system's thread pools. Unless set: `compute` has a thread per core,
    /// `io` 16 and `blocking` 64, each with room for 1,024 pieces of work to wait.
    #[must_use]
    pub fn thread_pool(mut self, pool: Work, spec: ThreadPoolSpec) -> Self {
        let at = match pool {
            Work::Compute => 0,
            Work::Io => 1,
            Work::Blocking => 2,
        };
        self.thread_pools.0[at] = spec;
        self
    }

    /// Hears every lifecycle event, after those added before it.
    #[must_use]
    pub fn observer(mut self, observer: impl Observer) -> Self {
        self.observers.push(Arc::new(observer));
        self
    }

    /// Takes the dead letters. Without one they are logged.
    #[must_use]
    pub fn dead_letters(mut self, hook: impl DeadLetters) -> Self {
        self.dead_letters = Some(Arc::new(hook));
        self
    }

    /// Policies by component type; OTP's behaviour for every type unless set.
    #[must_use]
    pub fn policies(mut self, policies: Policies) -> Self {
        self.policies = policies;
        self
    }

    /// The seed of the system's randomness: the jitter of backoffs, and
    /// [`Context::random_u64`](crate::Context::random_u64). 0 unless set.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// What the wall clock shows at the start, microseconds since the Unix epoch. 0 unless set.
    #[must_use]
    pub fn epoch_us(mut self, epoch_us: i64) -> Self {
        self.epoch_us = epoch_us;
        self
    }

    /// A clock that the system shares with what is around it; else it starts one of its own.
    #[must_use]
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = Some(clock);
        self
    }

    /// How many lifecycle events are kept for [`timeline`](ActorSystem::timeline);
    /// [`DEFAULT_HISTORY`] unless set.
    #[must_use]
    pub fn history(mut self, events: usize) -> Self {
        self.history = events;
        self
    }

    /// Whether every panic keeps its stack, which costs some 10 µs a panic; on unless set. Without
    /// it `RUST_BACKTRACE` decides.
    #[must_use]
    pub fn backtraces(mut self, always: bool) -> Self {
        self.backtraces = always;
        self
    }

    /// Starts all children in order and returns when they are up.
    ///
    /// # Errors
    /// The spec cannot work, or a child did not start; then those that had started are stopped.
    ///
    /// # Cancel safety
    /// A dropped `start` may leave the children that are up running. Wait for it.
    pub async fn start(self) -> Result<ActorSystem, SupervisorError> {
        install_hook();
        let mut checked = self.root.clone();
        checked.check(&self.policies)?;
        across::check(&checked)?;
        let heard_by = HeardBy {
            observers: self.observers,
            dead_letters: self.dead_letters,
            history: self.history,
            backtraces: self.backtraces,
        };
        let clock = self.clock.unwrap_or_else(|| Clock::starting_at(self.epoch_us));
        let runtime = tokio::runtime::Handle::current();
        let pools = ThreadPools::new(self.thread_pools);
        let env = Arc::new(Environment::new(clock, runtime, self.seed, heard_by, pools));
        let factory = SupervisorChild::new(self.root.clone());
        let spec = ChildSpec::from(self.root.clone());
        let slot = factory.slot(&spec, Path::root(), &env);
        let root = TreeRoot::new(&slot);
        env.set_root(root.clone());
        let life = slot.cell().next_life();
        slot.cell().set_state(SlotState::Starting);
        let watch = RootWatch::begin(&slot);
        let (report, started) = watch.report();
        let starting = StartSupervisor {
            slot: Arc::clone(&slot),
            spec: self.root,
            root: root.clone(),
            policies: Arc::new(self.policies),
            life,
            cause_seq: None,
        };
        starting.begin(None, report);
        let system = ActorSystem { name: self.name, slot, root, watch };
        if started.await.is_ok() {
            return Ok(system);
        }
        // It is told why once all that had started has ended.
        Err(match system.ended().await {
            ExitReason::ChildStart { child, cause } => {
                SupervisorError::StartFailed { path: child, reason: *cause }
            }
            reason => SupervisorError::StartFailed { path: Path::root(), reason },
        })
    }
}

impl fmt::Debug for ActorSystemBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ActorSystemBuilder").field("root", &self.root).finish_non_exhaustive()
    }
}

/// A running system of actors. Cheap to clone; several live side by side in one process.
#[derive(Clone)]
pub struct ActorSystem {
    name: Arc<str>,
    slot: Arc<dyn AnySlot>,
    root: TreeRoot,
    watch: RootWatch,
}

impl ActorSystem {
    /// A system whose root supervisor is `root`; its id is the system's name.
    #[must_use]
    pub fn builder(root: SupervisorSpec) -> ActorSystemBuilder {
        ActorSystemBuilder {
            name: Arc::clone(&root.id),
            root,
            policies: Policies::new(),
            observers: Vec::new(),
            dead_letters: None,
            seed: 0,
            epoch_us: 0,
            clock: None,
            history: DEFAULT_HISTORY,
            backtraces: true,
            thread_pools: ThreadPoolSpecs::default(),
        }
    }

    /// The system's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The system's clock.
    #[must_use]
    pub fn clock(&self) -> Clock {
        self.slot.cell().env.clock
    }

    /// A random number from the system's seeded generator.
    #[must_use]
    pub fn random_u64(&self) -> u64 {
        use rand::Rng;
        self.slot.cell().env.random(|rng| rng.next_u64())
    }

    /// Finds an actor.
    ///
    /// # Errors
    /// Nothing lives there, or it takes other messages.
    pub fn find<M: Send + 'static>(&self, path: &str) -> Result<Address<M>, LookupError> {
        self.root.address(&Path::parse(path))
    }

    /// Finds a supervisor; `/` is the root.
    ///
    /// # Errors
    /// Nothing lives there, or it is no supervisor.
    pub fn supervisor(&self, path: &str) -> Result<SupervisorRef, LookupError> {
        self.root.supervisor(&Path::parse(path))
    }

    /// Starts an actor under the supervisor at `parent`.
    ///
    /// # Errors
    /// No supervisor there, a child of that id is there, or the start failed.
    pub async fn spawn<A: Actor>(
        &self,
        parent: &str,
        id: &str,
        args: A::Args,
    ) -> Result<Address<A::Message>, SupervisorError> {
        let supervisor = self.supervisor(parent).map_err(|_| SupervisorError::NotFound {
            supervisor: Path::parse(parent),
            id: id.to_owned(),
        })?;
        supervisor.spawn::<A>(id, args).await
    }

    /// Looks at the whole tree.
    #[must_use]
    pub fn tree(&self) -> SupervisionTree {
        self.look("/", Depth::ALL).expect("the root is always there")
    }

    /// Looks at a part of the tree. `None` when nothing lives there.
    #[must_use]
    pub fn look(&self, path: &str, depth: Depth) -> Option<SupervisionTree> {
        let slot = self.root.find(&Path::parse(path))?;
        Some(SupervisionTree::of(&slot, &self.name, depth))
    }

    /// Finds an actor by the name that its spec gave it ([`ChildSpec::name`]).
    ///
    /// # Errors
    /// Nobody has that name, or it takes other messages.
    pub fn named<M: Send + 'static>(&self, name: &str) -> Result<Address<M>, LookupError> {
        self.slot.cell().env.groups.named(name)
    }

    /// The actors of a group ([`ChildSpec::group`]) that take messages of type `M`.
    #[must_use]
    pub fn group<M: Send + 'static>(&self, group: &str) -> Group<M> {
        self.slot.cell().env.groups.group(group)
    }

    /// The workers of the pool at `path` ([`SupervisorSpec::pool`]) that take messages of type `M`.
    ///
    /// # Errors
    /// No supervisor lives there, or it has no such worker.
    pub fn pool<M: Send + 'static>(&self, path: &str) -> Result<Pool<M>, LookupError> {
        Pool::of(&self.supervisor(path)?)
            .ok_or_else(|| LookupError::NotFound { path: Path::parse(path) })
    }

    /// The crowd in parts at `path` ([`SupervisorSpec::partitioned`]).
    ///
    /// # Errors
    /// No supervisor lives there, or nothing below it is one.
    pub fn partitions(&self, path: &str) -> Result<Partitions, LookupError> {
        let parent = self.supervisor(path)?;
        let parts = parent
            .which_children()
            .into_iter()
            .map(|id| self.root.supervisor(&parent.path().child(&id)));
        let parts = parts.collect::<Result<Vec<_>, _>>()?;
        Partitions::new(parts).ok_or_else(|| LookupError::NotFound { path: Path::parse(path) })
    }

    /// Runs work on one of the system's thread pools.
    ///
    /// # Errors
    /// The pool's queue is full, or the work panicked.
    ///
    /// # Cancel safety
    /// Work that has begun runs to its end; its result goes nowhere.
    pub async fn run_on<T: Send + 'static>(
        &self,
        pool: Work,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, ComputeError> {
        let env = &self.slot.cell().env;
        env.thread_pools.run(env.clock, pool, work).await
    }

    /// Waits until the root has ended and everything with it, and says why: `Shutdown` after
    /// [`shutdown`](Self::shutdown), `Escalated` when it gave up. By then every mailbox is closed,
    /// and observers have heard all events.
    ///
    /// # Cancel safety
    /// Nothing is lost by dropping it.
    pub async fn ended(&self) -> ExitReason {
        self.watch.ended().await
    }

    /// Stops everything, in reverse start order, and kills what is left after `deadline`.
    ///
    /// Returns whether everything stopped in order: `false` when a life had to be killed because its
    /// own time or the deadline ran out, or does not end at all.
    pub async fn shutdown(&self, deadline: Duration) -> bool {
        let cell = self.slot.cell();
        let killed = || cell.env.not_in_order.load(Ordering::SeqCst);
        let before = killed();
        if let Some(link) = self.slot.supervisor() {
            link.send(SupervisorMessage::ShutDown { cause_seq: None });
        }
        if tokio::time::timeout(deadline, self.ended()).await.is_ok() {
            return killed() == before;
        }
        cell.end_life(cell.life());
        self.ended().await;
        false
    }
}

impl fmt::Debug for ActorSystem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ActorSystem").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Checks a tree of specs without starting it.
///
/// # Errors
/// What [`ActorSystemBuilder::start`] would refuse.
pub fn check(spec: &SupervisorSpec, policies: &Policies) -> Result<(), SpecError> {
    spec.clone().check(policies)?;
    across::check(spec)
}
