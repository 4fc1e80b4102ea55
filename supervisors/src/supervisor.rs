//! The supervisor: starts children in order, watches them, restarts them, gives up.
//!
//! ```text
//! SupervisorRef ──command──▶ SupervisorActor (ractor)
//!                              └─ Driver    inputs in, orders out           driver.rs, orders.rs
//!                                  ├─ Brain   decides: pure, no I/O         machine.rs, crowd.rs, strategy.rs
//!                                  └─ Lives   carries out: tasks and timers lives.rs, child.rs
//! ```
//!
//! The rules are those of Erlang/OTP's `supervisor`:
//!
//! - children start in order, each only when the one before is up, and stop in reverse;
//! - [`Strategy`] says who is affected by a failure, [`RestartPolicy`] who is started again;
//! - every restart attempt counts; more than the intensity allows within its period stops all
//!   children in reverse and fails upward;
//! - a child that fails to start is the next target, and not the one that crashed.
//!
//! It differs from OTP, on purpose, in three points: the intensity's window is exact; a supervisor
//! that gives up ends with the abnormal reason `Escalated`; a suspended child stays suspended
//! through a restart of its group.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use indexmap::IndexMap;
use ractor::{ActorProcessingErr, ActorRef, SupervisionEvent};
use tokio::sync::oneshot;

use crate::actor::cell::Running;
use crate::actor::slot::AnySlot;
use crate::actor::{Actor, Address, typed};
use crate::environment::{Environment, lock};
use crate::error::{ExitReason, SupervisorError};
use crate::health::Health;
use crate::lifecycle::Action;
use crate::path::Path;
use crate::supervisor::brain::Brain;
use crate::supervisor::child::{Reports, StartResult};
use crate::supervisor::driver::Driver;
use crate::supervisor::lives::{Lives, RawEnd};
use crate::supervisor::orders::Key;
use crate::tree::TreeRoot;

pub use intensity::{Intensity, IntensityUse, Window};
pub use plan::{Plan, PlannedEnd, PlannedStop};
pub use policy::{ChildPolicy, ComponentType, Policies};
pub use reaction::{Outcome, Reaction, ReactionCell};
pub use spec::{
    ChildSpec, DEFAULT_SHUTDOWN, DEFAULT_START_DEADLINE, OnCrash, Shutdown, SupervisorSpec,
};
pub use strategy::{
    AutoShutdown, ChildView, Decision, Policy, RestartPolicy, Situation, Strategy, affected,
    decide, decide_restart, group,
};

pub(crate) use lives::KILL_GRACE;
pub(crate) use policy::Terms;
pub(crate) use rehearsal::rehearse;
use spec::SupervisorKind;

mod brain;
pub(crate) mod child;
mod crowd;
mod driver;
mod feed;
mod intensity;
mod lives;
mod machine;
pub(crate) mod orders;
mod plan;
pub(crate) mod policy;
mod reaction;
mod rehearsal;
mod reports;
pub(crate) mod spec;
pub(crate) mod strategy;
#[cfg(test)]
mod tests;

/// What a supervisor hears.
pub(crate) enum SupervisorMessage {
    /// Start the children.
    Init,
    /// There is more to do than could be done in one go.
    GoOn,
    /// Stop the children in reverse and end with `Shutdown`.
    ShutDown {
        cause_seq: Option<u64>,
    },
    StartDone {
        key: Key,
        life: u64,
        result: StartResult,
    },
    /// A life is over.
    Ended {
        key: Key,
        life: u64,
        reason: ExitReason,
    },
    /// Somebody killed this life of this child.
    Killed {
        id: Arc<str>,
        life: u64,
    },
    /// The clock has rung.
    Tick,
    HealthChecked {
        key: Key,
        life: u64,
        health: Health,
    },
    Request(Request),
}

/// A question to a supervisor, with its asker, so that nobody waits for who stops him.
pub(crate) struct Request {
    pub(crate) caller: Option<Path>,
    pub(crate) ask: Ask,
    pub(crate) given: Given,
}

/// What comes with a change that somebody orders.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Given {
    /// The event that says who ordered it.
    pub(crate) cause_seq: Option<u64>,
    /// Only if the child is in this life.
    pub(crate) life: Option<u64>,
}

pub(crate) type Answer<T> = oneshot::Sender<Result<T, SupervisorError>>;

pub(crate) enum Ask {
    Start(Box<ChildSpec>, Answer<Arc<dyn AnySlot>>),
    Change(Change, Arc<str>, Answer<()>),
    SetIntensity(Intensity, Answer<()>),
    SetPolicy(Arc<str>, ChildPolicy, Answer<()>),
    RestartsLeft(Answer<u32>),
}

/// What can be done to a child by id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// OTP's `terminate_child`.
    Terminate,
    /// OTP's `restart_child`: starts a child that is down.
    Restart,
    /// OTP's `delete_child`.
    Delete,
    /// Stops and starts a child and its group on purpose; not counted as a failure.
    PlannedRestart,
    Suspend,
    Resume,
}

impl Change {
    /// What an operator's action asks of the supervisor; a kill asks nothing of it.
    pub(crate) fn of(action: Action) -> Option<Self> {
        match action {
            Action::Kill => None,
            Action::Restart => Some(Self::PlannedRestart),
            Action::Stop => Some(Self::Terminate),
            Action::Start => Some(Self::Restart),
            Action::Suspend => Some(Self::Suspend),
            Action::Resume => Some(Self::Resume),
        }
    }
}

/// A supervisor's place in the tree, shared by its slot and everybody who refers to it.
pub(crate) type SupervisorLink = Arc<SupervisorPlace>;

pub(crate) struct SupervisorPlace {
    pub(crate) path: Path,
    pub(crate) strategy: Strategy,
    pub(crate) dynamic: bool,
    intensity: Mutex<Intensity>,
    /// Children in start order (a dynamic supervisor's in no promised one). Written only by the
    /// supervisor's current life.
    pub(crate) children: RwLock<IndexMap<Arc<str>, Arc<dyn AnySlot>>>,
    current: Mutex<Option<(u64, ActorRef<SupervisorMessage>)>>,
    /// Specs of the children that a dynamic supervisor starts again in its next life.
    kept: Mutex<IndexMap<Arc<str>, ChildSpec>>,
    /// What a fresh life starts with.
    declared: Mutex<SupervisorSpec>,
    /// What decides in the current life. Only its driver changes it, and never holds it while it
    /// carries orders out; everybody may copy it.
    brain: Mutex<Option<Arc<Mutex<Brain>>>>,
    /// It is suspended, or a supervisor above it is: so are all that live below.
    holds: AtomicBool,
}

impl SupervisorPlace {
    pub(crate) fn shared(path: Path, spec: &SupervisorSpec) -> SupervisorLink {
        Arc::new(Self {
            path,
            strategy: spec.strategy,
            dynamic: spec.kind != SupervisorKind::Static,
            intensity: Mutex::new(spec.intensity),
            children: RwLock::new(IndexMap::new()),
            current: Mutex::new(None),
            kept: Mutex::new(IndexMap::new()),
            declared: Mutex::new(spec.clone()),
            brain: Mutex::new(None),
            holds: AtomicBool::new(false),
        })
    }

    /// Whether a life of the supervisor is there.
    pub(crate) fn is_up(&self) -> bool {
        lock(&self.current).is_some()
    }

    /// A copy of what decides here now, to try something out on the child with this id.
    pub(crate) fn copy_for(&self, id: &str) -> Option<Brain> {
        let brain = lock(&self.brain).clone()?;
        let copy = lock(&brain).copy_for(id);
        Some(copy)
    }

    /// How much of its intensity is used up at `now`.
    pub(crate) fn intensity_use(&self, now: Duration) -> IntensityUse {
        let brain = lock(&self.brain).clone();
        match brain {
            Some(brain) => lock(&brain).intensity_use(now),
            None => Window::default().in_use(now, self.intensity()),
        }
    }

    /// Whether its children go with its life.
    pub(crate) fn forgets_children(&self) -> bool {
        matches!(lock(&self.declared).kind, SupervisorKind::Dynamic { keep: false, .. })
    }

    /// The children that its next life starts, in order.
    pub(crate) fn declared(&self) -> SupervisorSpec {
        let mut spec = lock(&self.declared).clone();
        let declared = spec.children.len();
        for kept in lock(&self.kept).values() {
            if spec.children[..declared].iter().all(|child| child.id != kept.id) {
                spec.children.push(kept.clone());
            }
        }
        spec
    }

    pub(crate) fn intensity(&self) -> Intensity {
        *lock(&self.intensity)
    }

    pub(crate) fn child(&self, id: &str) -> Option<Arc<dyn AnySlot>> {
        read(&self.children).get(id).cloned()
    }

    /// The children as they are now.
    pub(crate) fn slots(&self) -> Vec<Arc<dyn AnySlot>> {
        self.first_slots(usize::MAX)
    }

    /// The first children as they are now, at most this many.
    pub(crate) fn first_slots(&self, most: usize) -> Vec<Arc<dyn AnySlot>> {
        read(&self.children).values().take(most).cloned().collect()
    }

    /// Looks at each child, without copying the list. `look` must not wait for anybody.
    pub(crate) fn each(&self, mut look: impl FnMut(&Arc<dyn AnySlot>)) {
        read(&self.children).values().for_each(&mut look);
    }

    pub(crate) fn len(&self) -> usize {
        read(&self.children).len()
    }

    fn insert(&self, id: Arc<str>, slot: Arc<dyn AnySlot>) {
        write(&self.children).insert(id, Arc::clone(&slot));
        self.hold_new(&slot);
    }

    /// A child that is new here is held with all others. Looked at after it is in the list, so that
    /// a hold which begins meanwhile finds it there.
    fn hold_new(&self, slot: &Arc<dyn AnySlot>) {
        if self.holds.load(Ordering::SeqCst) {
            self.hold_child(&**slot, &slot.cell().env);
        }
    }

    /// O(1) for a dynamic supervisor, whose order means nothing; order is kept for a static one.
    fn remove(&self, id: &str) {
        let mut children = write(&self.children);
        if self.dynamic {
            children.swap_remove(id);
        } else {
            children.shift_remove(id);
        }
    }

    pub(crate) fn send(&self, message: SupervisorMessage) -> bool {
        let current = lock(&self.current).clone();
        current.is_some_and(|(_, actor)| actor.send_message(message).is_ok())
    }

    /// The system has ended: what the specs hold of the application's is let go, so that nothing it
    /// points at lives on in a circle.
    pub(crate) fn forget_specs(&self) {
        let declared = std::mem::take(&mut lock(&self.declared).children);
        let kept = std::mem::take(&mut *lock(&self.kept));
        let env = self.first_slots(1).first().map(|slot| Arc::clone(&slot.cell().env));
        match env {
            Some(env) => env.dispose((declared, kept)),
            None => drop((declared, kept)),
        }
    }

    pub(crate) fn close_children(&self, reason: &ExitReason) {
        for slot in self.slots() {
            slot.close(reason);
        }
    }

    /// Holds a child or lets it go on: it is held if it is suspended, or its supervisor, or any
    /// supervisor above.
    pub(crate) fn hold_child(&self, child: &dyn AnySlot, env: &Environment) {
        let _one_at_a_time = lock(&env.holds);
        child.hold(self.holds.load(Ordering::SeqCst) || child.cell().is_suspended());
    }

    /// All children that are here now are held, if the supervisor is.
    fn hold_all(&self) {
        if self.holds.load(Ordering::SeqCst) {
            for slot in self.slots() {
                self.hold_new(&slot);
            }
        }
    }

    /// The supervisor itself is held, or not any more. Under the lock of all holds.
    pub(crate) fn hold_children(&self, held: bool) {
        self.holds.store(held, Ordering::SeqCst);
        self.each(|child| {
            child.hold(held || child.cell().is_suspended());
        });
    }
}

fn read<T>(lock: &RwLock<T>) -> std::sync::RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> std::sync::RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// A handle to a supervisor: survives its restarts, as an address does.
///
/// # Cancel safety
/// Every method sends one request and waits for the answer. Dropping the future does not take the
/// request back.
#[derive(Clone)]
pub struct SupervisorRef {
    link: SupervisorLink,
    caller: Option<Path>,
}

impl SupervisorRef {
    pub(crate) fn new(link: SupervisorLink) -> Self {
        Self { link, caller: None }
    }

    pub(crate) fn place(&self) -> &SupervisorPlace {
        &self.link
    }

    /// The same handle in the hands of the actor at `path`.
    pub(crate) fn called_by(&self, path: &Path) -> Self {
        Self { link: Arc::clone(&self.link), caller: Some(path.clone()) }
    }

    /// Where the supervisor stands.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.link.path
    }

    /// How many children it has, running or not. O(1).
    #[must_use]
    pub fn count(&self) -> usize {
        self.link.len()
    }

    /// The ids of its children, in start order where it has one.
    #[must_use]
    pub fn which_children(&self) -> Vec<String> {
        read(&self.link.children).keys().map(ToString::to_string).collect()
    }

    /// Starts an actor as a child and returns its address.
    ///
    /// # Errors
    /// As [`start_child`](Self::start_child).
    pub async fn spawn<A: Actor>(
        &self,
        id: impl Into<Arc<str>>,
        args: A::Args,
    ) -> Result<Address<A::Message>, SupervisorError> {
        self.spawn_spec(ChildSpec::actor::<A>(id, args)).await
    }

    /// Starts a child that takes messages of type `M` and returns its address.
    ///
    /// # Errors
    /// As [`start_child`](Self::start_child); `Spec` also when it takes other messages.
    pub async fn spawn_spec<M: Send + 'static>(
        &self,
        spec: ChildSpec,
    ) -> Result<Address<M>, SupervisorError> {
        let path = self.link.path.child(&spec.id);
        spec.takes::<M>()?;
        let slot = self.ask(|answer| Ask::Start(Box::new(spec), answer)).await?;
        typed::<M>(slot, &path).map_err(|error| SupervisorError::StartFailed {
            path,
            reason: ExitReason::Error(error.into()),
        })
    }

    /// Starts a child, OTP's `start_child`. It is added after all others.
    ///
    /// # Errors
    /// A child of that id is there, the spec cannot work, the start failed (then it is not
    /// added), or the supervisor is down.
    pub async fn start_child(&self, spec: impl Into<ChildSpec>) -> Result<(), SupervisorError> {
        let spec = spec.into();
        self.ask(|answer| Ask::Start(Box::new(spec), answer)).await.map(|_| ())
    }

    /// Finds a child's address. O(1).
    #[must_use]
    pub fn child<M: Send + 'static>(&self, id: &str) -> Option<Address<M>> {
        let slot = self.link.child(id)?;
        typed::<M>(slot, &self.link.path).ok()
    }

    /// Stops a child in order and keeps its spec, OTP's `terminate_child`; a temporary child and a
    /// dynamic supervisor's child is forgotten.
    ///
    /// # Errors
    /// No such child, or the supervisor is down.
    pub async fn terminate_child(&self, id: &str) -> Result<(), SupervisorError> {
        self.change(Change::Terminate, id).await
    }

    /// Starts a child that is down, OTP's `restart_child`.
    ///
    /// # Errors
    /// No such child, it runs or is being restarted, the start failed, or the supervisor is down.
    pub async fn restart_child(&self, id: &str) -> Result<(), SupervisorError> {
        self.change(Change::Restart, id).await
    }

    /// Forgets a child that is down, OTP's `delete_child`.
    ///
    /// # Errors
    /// No such child, it runs or is being restarted, or the supervisor is down.
    pub async fn delete_child(&self, id: &str) -> Result<(), SupervisorError> {
        self.change(Change::Delete, id).await
    }

    /// Stops a child and whoever its strategy says, in order and with time to hand over, and
    /// starts them again. Not counted as a failure.
    ///
    /// # Errors
    /// No such child, a start failed, or the supervisor is down.
    pub async fn planned_restart(&self, id: &str) -> Result<(), SupervisorError> {
        self.change(Change::PlannedRestart, id).await
    }

    /// Holds a child: its messages wait, it keeps its state, and no restart of its group starts
    /// it until [`resume`](Self::resume). Suspending a supervisor holds all actors below it.
    ///
    /// # Errors
    /// No such child, or the supervisor is down.
    pub async fn suspend(&self, id: &str) -> Result<(), SupervisorError> {
        self.change(Change::Suspend, id).await
    }

    /// Ends a hold; a child that would have been started meanwhile is started now.
    ///
    /// # Errors
    /// No such child, its start failed, or the supervisor is down.
    pub async fn resume(&self, id: &str) -> Result<(), SupervisorError> {
        self.change(Change::Resume, id).await
    }

    /// Sets the intensity from now on, until the supervisor is restarted.
    ///
    /// # Errors
    /// The supervisor is down.
    pub async fn set_intensity(&self, intensity: Intensity) -> Result<(), SupervisorError> {
        self.ask(|answer| Ask::SetIntensity(intensity, answer)).await
    }

    /// Sets how a child is restarted, from now on, until the supervisor is restarted.
    ///
    /// # Errors
    /// No such child, or the supervisor is down.
    pub async fn set_policy(&self, id: &str, policy: ChildPolicy) -> Result<(), SupervisorError> {
        self.ask(|answer| Ask::SetPolicy(id.into(), policy, answer)).await
    }

    /// Restarts left before it gives up.
    ///
    /// # Errors
    /// The supervisor is down.
    pub async fn restarts_left(&self) -> Result<u32, SupervisorError> {
        self.ask(Ask::RestartsLeft).await
    }

    pub(crate) async fn change(&self, change: Change, id: &str) -> Result<(), SupervisorError> {
        self.change_given(change, id, Given::default()).await
    }

    pub(crate) async fn change_given(
        &self,
        change: Change,
        id: &str,
        given: Given,
    ) -> Result<(), SupervisorError> {
        self.ask_given(|answer| Ask::Change(change, id.into(), answer), given).await
    }

    async fn ask<T>(&self, ask: impl FnOnce(Answer<T>) -> Ask) -> Result<T, SupervisorError> {
        self.ask_given(ask, Given::default()).await
    }

    async fn ask_given<T>(
        &self,
        ask: impl FnOnce(Answer<T>) -> Ask,
        given: Given,
    ) -> Result<T, SupervisorError> {
        let (answer, answered) = oneshot::channel();
        let request = Request { caller: self.caller.clone(), ask: ask(answer), given };
        let down = || SupervisorError::Down { supervisor: self.link.path.clone() };
        if !self.link.send(SupervisorMessage::Request(request)) {
            return Err(down());
        }
        // A supervisor that ends with the request in its hands drops the answer.
        answered.await.unwrap_or_else(|_| Err(down()))
    }
}

impl fmt::Debug for SupervisorRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SupervisorRef({})", self.link.path)
    }
}

/// The ractor actor.
pub(crate) struct SupervisorActor;

pub(crate) struct SupervisorArgs {
    pub(crate) slot: Arc<dyn AnySlot>,
    pub(crate) spec: SupervisorSpec,
    pub(crate) root: TreeRoot,
    pub(crate) policies: Arc<Policies>,
    pub(crate) life: u64,
    pub(crate) cause_seq: Option<u64>,
    pub(crate) report: Box<dyn Reports>,
}

/// What both kinds of supervisor share.
pub(crate) struct Common {
    pub(crate) slot: Arc<dyn AnySlot>,
    pub(crate) link: SupervisorLink,
    pub(crate) lives: Lives,
    pub(crate) spec: SupervisorSpec,
    myself: ActorRef<SupervisorMessage>,
    life: u64,
    /// The event that led to this life.
    pub(crate) cause_seq: Option<u64>,
    is_ready: bool,
    next_key: Key,
    /// Set when all is done: the actor ends with it.
    pub(crate) finished: Option<ExitReason>,
    /// The last field: dropped when nothing else of this life is left.
    report: Box<dyn Reports>,
}

impl Common {
    pub(crate) fn next_key(&mut self) -> Key {
        self.next_key += 1;
        self.next_key
    }

    pub(crate) fn ready(&mut self) {
        if !std::mem::replace(&mut self.is_ready, true) {
            self.report.up();
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.link.path
    }

    /// Makes the slot of a child, or takes back the one that an earlier life of this supervisor
    /// left: addresses survive restarts of supervisors too.
    pub(crate) fn slot_for(&self, spec: &ChildSpec) -> Arc<dyn AnySlot> {
        match self.link.child(&spec.id) {
            Some(slot) if spec.child.fits(&slot) => slot,
            _ => spec.child.slot(spec, self.path().child(&spec.id), &self.lives.env),
        }
    }

    pub(crate) fn set_intensity(&mut self, intensity: Intensity) {
        self.spec.intensity = intensity;
        *lock(&self.link.intensity) = intensity;
    }

    /// This life will end, and event `seq` is why.
    pub(crate) fn ends_because(&self, seq: Option<u64>) {
        if let Some(seq) = seq {
            self.slot.cell().blame(self.life, seq);
        }
    }

    /// Refuses a change that is meant for another life of a child.
    pub(crate) fn refusal(&self, id: &str, given: Given) -> Option<SupervisorError> {
        let slot = self.link.child(id)?;
        given.life.and_then(|expected| slot.cell().other_life(expected))
    }

    pub(crate) fn send_myself(&self, message: SupervisorMessage) -> bool {
        self.myself.send_message(message).is_ok()
    }

    pub(crate) fn not_found(&self, id: &str) -> SupervisorError {
        SupervisorError::NotFound { supervisor: self.path().clone(), id: id.to_owned() }
    }

    pub(crate) fn stopping(&self) -> SupervisorError {
        SupervisorError::Stopping { supervisor: self.path().clone() }
    }

    /// Ends the actor once all is done. The reason is in the slot before anyone hears of the end.
    fn finish(&mut self) -> Result<(), ActorProcessingErr> {
        let Some(reason) = self.finished.take() else { return Ok(()) };
        self.slot.cell().record_exit(self.life, reason.clone());
        self.report.end(reason.clone());
        if reason.is_normal() {
            self.myself.stop(None);
            Ok(())
        } else {
            Err(reason.to_string().into())
        }
    }
}

impl Drop for Common {
    fn drop(&mut self) {
        let mut current = lock(&self.link.current);
        if current.as_ref().is_some_and(|(life, _)| *life == self.life) {
            *current = None;
        }
    }
}

impl ractor::Actor for SupervisorActor {
    type Msg = SupervisorMessage;
    type State = Driver;
    type Arguments = SupervisorArgs;

    async fn pre_start(
        &self,
        myself: ActorRef<SupervisorMessage>,
        args: SupervisorArgs,
    ) -> Result<Driver, ActorProcessingErr> {
        let SupervisorArgs { slot, spec, root, policies, life, cause_seq, report } = args;
        let link = slot.supervisor().cloned().ok_or("a supervisor's slot has a link")?;
        slot.cell().up(life, Running::Ractor(myself.get_cell()));
        if slot.cell().gate.is_killed(life) {
            return Err("killed before it began".into());
        }
        // First in its mailbox: what is asked of it before it knows its children would make them anew.
        myself.send_message(SupervisorMessage::Init)?;
        *lock(&link.current) = Some((life, myself.clone()));
        *lock(&link.intensity) = spec.intensity;
        // Checked by now, and with its children in start order.
        *lock(&link.declared) = spec.clone();
        let env = Arc::clone(&slot.cell().env);
        let reference = SupervisorRef::new(Arc::clone(&link));
        let lives = Lives::new(env, myself.clone(), reference, root, policies);
        let common = Common {
            slot,
            link,
            lives,
            spec,
            myself: myself.clone(),
            life,
            cause_seq,
            is_ready: false,
            next_key: 0,
            finished: None,
            report,
        };
        if common.slot.cell().gate.is_ending(life) {
            // Its start was taken back before it began.
            myself.send_message(SupervisorMessage::ShutDown { cause_seq })?;
        }
        Ok(Driver::new(common))
    }

    async fn handle(
        &self,
        _: ActorRef<SupervisorMessage>,
        message: SupervisorMessage,
        driver: &mut Driver,
    ) -> Result<(), ActorProcessingErr> {
        driver.message(message);
        if driver.goes_on() {
            // Its mailbox alone would not let others run in between.
            tokio::task::yield_now().await;
        }
        driver.common.finish()
    }

    async fn handle_supervisor_evt(
        &self,
        _: ActorRef<SupervisorMessage>,
        event: SupervisionEvent,
        driver: &mut Driver,
    ) -> Result<(), ActorProcessingErr> {
        // Lives and supervisors report themselves; only raw ractor actors are ractor's to report.
        let lives = &mut driver.common.lives;
        match event {
            SupervisionEvent::ActorTerminated(actor, state, word) => {
                // What a raw actor leaves is the application's.
                lives.env.dispose_elsewhere(state);
                lives.raw_ended(&actor, RawEnd::Terminated(word));
            }
            SupervisionEvent::ActorFailed(actor, error) => {
                // So are its errors, and how they are shown.
                let text = lives.env.guarded("error of a raw actor", || error.to_string());
                lives.env.dispose_elsewhere(error);
                let text = text.unwrap_or_else(|| "an error that cannot be shown".to_owned());
                lives.raw_ended(&actor, RawEnd::Failed(text));
            }
            SupervisionEvent::ActorStarted(_) | SupervisionEvent::ProcessGroupChanged(_) => {}
        }
        driver.common.finish()
    }
}
