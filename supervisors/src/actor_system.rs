//! One system of actors: a root supervisor, and everything below it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::actor::panic::install_hook;
use crate::actor::slot::AnySlot;
use crate::actor::{Actor, Address, DeadLetters};
use crate::environment::{Clock, Environment};
use crate::error::{ExitReason, LookupError, SpecError, SupervisorError};
use crate::lifecycle::Observer;
use crate::path::Path;
use crate::supervisor::child::{ChildFactory, StartResult, SupervisorChild, start_supervisor};
use crate::supervisor::{
    Change, ChildSpec, Policies, SupervisorMessage, SupervisorRef, SupervisorSpec,
};
use crate::tree::{Depth, SupervisionTree, TreeRoot};

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
}

impl ActorSystemBuilder {
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
        let env = Arc::new(Environment::new(
            self.clock.unwrap_or_else(|| Clock::starting_at(self.epoch_us)),
            self.seed,
            self.observers,
            self.dead_letters,
        ));
        let factory = SupervisorChild::new(self.root.clone());
        let spec = ChildSpec::from(self.root.clone());
        let slot = factory.slot(&spec, Path::root(), &env);
        let root = TreeRoot::new(&slot);
        let life = slot.cell().next_life();
        slot.cell().set_state(crate::actor::SlotState::Starting);
        let started = start_supervisor(
            Arc::clone(&slot),
            self.root,
            root.clone(),
            Arc::new(self.policies),
            None,
            life,
        );
        match started.await {
            StartResult::Started(_) => {
                slot.cell().set_state(crate::actor::SlotState::Up);
                Ok(ActorSystem { name: self.name, slot, root })
            }
            StartResult::Ignored => Err(SupervisorError::Down { supervisor: Path::root() }),
            StartResult::Failed(reason) => {
                slot.close(&reason);
                Err(match reason {
                    ExitReason::ChildStart { child, cause } => {
                        SupervisorError::StartFailed { path: child, reason: *cause }
                    }
                    reason => SupervisorError::StartFailed { path: Path::root(), reason },
                })
            }
        }
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

    /// Kills the current life at `path`, whatever lives there. Its supervisor treats it as a
    /// crash. Says which life it was; `None` when there was none to kill.
    ///
    /// # Errors
    /// Nothing lives there.
    pub fn kill(&self, path: &str) -> Result<Option<u64>, SupervisorError> {
        let slot = self.slot_at(path)?;
        let life = slot.cell().life();
        Ok(slot.cell().kill_life(life).then_some(life))
    }

    /// Kills life `life` at `path`, and no other.
    ///
    /// # Errors
    /// Nothing lives there.
    pub fn kill_life(&self, path: &str, life: u64) -> Result<bool, SupervisorError> {
        Ok(self.slot_at(path)?.cell().kill_life(life))
    }

    /// Restarts the child at `path` and its group on purpose; one that is down is started.
    ///
    /// # Errors
    /// Nothing lives there, it is the root, a start failed, or its supervisor is down.
    pub async fn restart(&self, path: &str) -> Result<(), SupervisorError> {
        self.change(path, Change::PlannedRestart).await
    }

    /// Holds the child at `path` until [`resume`](Self::resume).
    ///
    /// # Errors
    /// Nothing lives there, it is the root, or its supervisor is down.
    pub async fn suspend(&self, path: &str) -> Result<(), SupervisorError> {
        self.change(path, Change::Suspend).await
    }

    /// Ends a hold.
    ///
    /// # Errors
    /// Nothing lives there, it is the root, its start failed, or its supervisor is down.
    pub async fn resume(&self, path: &str) -> Result<(), SupervisorError> {
        self.change(path, Change::Resume).await
    }

    /// Stops the child at `path` in order; it stays down until it is started again.
    ///
    /// # Errors
    /// Nothing lives there, it is the root, or its supervisor is down.
    pub async fn stop(&self, path: &str) -> Result<(), SupervisorError> {
        self.change(path, Change::Terminate).await
    }

    async fn change(&self, path: &str, change: Change) -> Result<(), SupervisorError> {
        let slot = self.slot_at(path)?;
        let path = &slot.cell().path;
        let raw = slot.cell().info.kind == crate::actor::SlotKind::Raw;
        if raw && matches!(change, Change::Suspend | Change::Resume) {
            return Err(SupervisorError::Unsupported {
                path: path.clone(),
                action: "suspended",
                why: "a raw ractor actor has its own mailbox; stop it instead",
            });
        }
        let Some(id) = path.segments().last() else {
            return Err(SupervisorError::Unsupported {
                path: path.clone(),
                action: "changed",
                why: "it is the root; shut the system down instead",
            });
        };
        let parent = path.as_str().rsplit_once('/').map_or("/", |(parent, _)| parent);
        let supervisor = self.root.supervisor(&Path::parse(parent)).map_err(|_| {
            SupervisorError::NotFound { supervisor: Path::parse(parent), id: id.to_owned() }
        })?;
        supervisor.change(change, &crate::path::unescape(id)).await
    }

    fn slot_at(&self, path: &str) -> Result<Arc<dyn AnySlot>, SupervisorError> {
        let path = Path::parse(path);
        self.root.find(&path).ok_or_else(|| SupervisorError::NotFound {
            supervisor: Path::root(),
            id: path.as_str().trim_start_matches('/').to_owned(),
        })
    }

    /// Waits until the root has ended, and says why: `Shutdown` after
    /// [`shutdown`](Self::shutdown), `Escalated` when it gave up.
    ///
    /// # Cancel safety
    /// Nothing is lost by dropping it.
    pub async fn ended(&self) -> ExitReason {
        let cell = self.slot.cell();
        if let Some(actor) = cell.current() {
            let _ = actor.wait(None).await;
        }
        let reason = cell.exit_of(cell.life()).unwrap_or(ExitReason::Killed);
        cell.life_ended(cell.life(), None);
        cell.set_state(crate::actor::SlotState::Down);
        self.slot.close(&reason);
        reason
    }

    /// Stops everything, in reverse start order, and kills what is left after `deadline`.
    ///
    /// Returns whether everything stopped in order.
    pub async fn shutdown(&self, deadline: Duration) -> bool {
        if let Some(link) = self.slot.supervisor() {
            link.send(SupervisorMessage::ShutDown);
        }
        let in_order = tokio::time::timeout(deadline, self.ended()).await.is_ok();
        if !in_order {
            if let Some(actor) = self.slot.cell().current() {
                actor.kill();
            }
            self.ended().await;
        }
        in_order
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
    spec.clone().check(policies)
}
