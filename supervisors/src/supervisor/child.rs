//! How a child of each kind gets its slot and starts a life.

use std::any::{Any, TypeId};
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use ractor::{ActorCell, SpawnErr};
use tokio::sync::oneshot;

use crate::actor::life::{Life, LifeState};
use crate::actor::mailbox::{Mailbox, MailboxFacts};
use crate::actor::panic::{Who, catch_panic};
use crate::actor::slot::{AnySlot, Slot, SlotCell, SlotInfo, SlotKind, SlotState};
use crate::actor::{Actor, Context, short_type_name};
use crate::component::Hooks;
use crate::environment::Environment;
use crate::error::{ExitReason, Failure, SpecError, StartError};
use crate::health::Health;
use crate::path::Path;
use crate::supervisor::policy::Policies;
use crate::supervisor::spec::{ChildSpec, SupervisorKind, SupervisorSpec};
use crate::supervisor::{
    SupervisorActor, SupervisorArgs, SupervisorLink, SupervisorPlace, SupervisorRef,
};
use crate::tree::TreeRoot;

/// How long a new life waits for the one before it, before its slot is shown as stuck. A life
/// that was killed lets go within microseconds; only code that never yields holds on.
const LETTING_GO: Duration = Duration::from_millis(100);

/// What a start came to.
#[derive(Debug)]
pub(crate) enum StartResult {
    Started(ActorCell),
    Ignored,
    Failed(ExitReason),
}

/// What a starting life needs to know of its place.
#[derive(Clone)]
pub(crate) struct StartContext {
    pub(crate) parent: ActorCell,
    pub(crate) supervisor: SupervisorRef,
    pub(crate) root: TreeRoot,
    pub(crate) policies: Arc<Policies>,
    pub(crate) life: u64,
    /// The event that led to this start.
    pub(crate) cause_seq: Option<u64>,
}

pub(crate) type StartFuture = Pin<Box<dyn Future<Output = StartResult> + Send>>;

/// A kind of child: makes the slot once, and a life at every start.
pub(crate) trait ChildFactory: Send + Sync {
    /// What can be known to be wrong before the start.
    fn check(&self, spec: &ChildSpec, policies: &Policies) -> Result<(), SpecError>;
    /// The type of the messages that it takes at its address, if it has one.
    fn takes(&self) -> Option<TypeId> {
        None
    }
    fn slot(&self, spec: &ChildSpec, path: Path, env: &Arc<Environment>) -> Arc<dyn AnySlot>;
    /// Whether a slot kept from an earlier life of the supervisor is one this factory could have
    /// made.
    fn fits(&self, slot: &dyn AnySlot) -> bool;
    fn start(&self, slot: Arc<dyn AnySlot>, at: StartContext) -> StartFuture;
    /// What a supervisor is declared to be.
    fn supervisor(&self) -> Option<&SupervisorSpec> {
        None
    }
}

/// A child that is an [`Actor`], with the hooks `H`.
pub(crate) struct ActorChild<A: Actor, H> {
    args: A::Args,
    hooks: PhantomData<fn() -> H>,
}

impl<A: Actor, H: Hooks<A>> ActorChild<A, H> {
    pub(crate) fn new(args: A::Args) -> Self {
        Self { args, hooks: PhantomData }
    }
}

impl<A: Actor, H: Hooks<A>> ChildFactory for ActorChild<A, H> {
    fn check(&self, spec: &ChildSpec, _: &Policies) -> Result<(), SpecError> {
        match spec.on_crash.copies_other_than::<A::Message>() {
            None => Ok(()),
            Some(copies) => {
                let takes = std::any::type_name::<A::Message>();
                Err(SpecError::OtherMessages { child: spec.id.to_string(), takes, copies })
            }
        }
    }

    fn takes(&self) -> Option<TypeId> {
        Some(TypeId::of::<A::Message>())
    }

    fn slot(&self, spec: &ChildSpec, path: Path, env: &Arc<Environment>) -> Arc<dyn AnySlot> {
        let info = SlotInfo {
            kind: SlotKind::Actor,
            component: spec.metadata.component_type,
            actor_type: short_type_name::<A>(),
            message_type: short_type_name::<A::Message>(),
        };
        let cell = SlotCell::new(path, info, Arc::clone(env));
        let on_crash = spec.on_crash.for_messages::<A::Message>();
        let mailbox = Mailbox::new(spec.capacity, spec.overflow);
        let checks = H::CHECKS_HEALTH;
        Arc::new(Slot::<A::Message>::new(cell, mailbox, on_crash, checks, A::message_name))
    }

    fn fits(&self, slot: &dyn AnySlot) -> bool {
        let info = slot.cell().info;
        info.kind == SlotKind::Actor && info.actor_type == short_type_name::<A>()
    }

    fn start(&self, slot: Arc<dyn AnySlot>, at: StartContext) -> StartFuture {
        let slot = slot
            .as_any()
            .downcast::<Slot<A::Message>>()
            .expect("a slot is started by the factory that made it, or one that `fits`");
        let args = self.args.clone();
        Box::pin(start_life::<A, H>(slot, args, at))
    }
}

/// Waits for the life before, makes the state, recovers, and lets ractor run it.
async fn start_life<A: Actor, H: Hooks<A>>(
    slot: Arc<Slot<A::Message>>,
    args: A::Args,
    at: StartContext,
) -> StartResult {
    let token = match slot.try_acquire(at.life) {
        Some(token) => token,
        None => match tokio::time::timeout(LETTING_GO, slot.acquire(at.life)).await {
            Ok(token) => token,
            Err(_) => {
                slot.cell.set_state(SlotState::Stuck);
                slot.acquire(at.life).await
            }
        },
    };
    slot.cell.set_state(SlotState::Starting);
    let who = Who::new(Arc::clone(&slot) as Arc<dyn AnySlot>);
    let mut cx = Context::<A>::new(slot, at.root, at.supervisor, at.life);
    let made = catch_panic(who, async {
        let mut actor = A::start(&args, &mut cx).await?;
        if at.life > 1 {
            H::post_restart_recovery(&mut actor, &mut cx).await.map_err(StartError::Failed)?;
        }
        Ok(actor)
    })
    .await;
    let actor = match made {
        Ok(Ok(actor)) => actor,
        Ok(Err(StartError::Ignore)) => return StartResult::Ignored,
        Ok(Err(StartError::Failed(failure))) => {
            return StartResult::Failed(ExitReason::Error(failure));
        }
        Err(report) => return StartResult::Failed(ExitReason::Panic(report)),
    };
    let state = LifeState::new(actor, cx, token);
    match ractor::Actor::spawn_linked(None, Life::<A, H>::default(), state, at.parent).await {
        Ok((actor, _)) => StartResult::Started(actor.get_cell()),
        Err(error) => StartResult::Failed(spawn_failure(&error)),
    }
}

fn spawn_failure(error: &SpawnErr) -> ExitReason {
    ExitReason::Error(Failure::transient(error.to_string()))
}

/// A slot without a mailbox: a supervisor's, or a raw ractor actor's.
pub(crate) struct PlainSlot {
    cell: SlotCell,
    link: Option<SupervisorLink>,
}

impl AnySlot for PlainSlot {
    fn cell(&self) -> &SlotCell {
        &self.cell
    }

    fn as_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync> {
        self
    }

    fn mailbox(&self) -> Option<MailboxFacts> {
        None
    }

    fn open(&self) {}

    fn close(&self, reason: &ExitReason) {
        if let Some(link) = &self.link {
            link.close_children(reason);
        }
    }

    fn pause(&self, paused: bool) -> bool {
        match &self.link {
            Some(link) => {
                link.pause_children(paused);
                true
            }
            None => false,
        }
    }

    fn record(&self, _: Option<bool>) -> bool {
        false
    }

    fn supervisor(&self) -> Option<&SupervisorLink> {
        self.link.as_ref()
    }

    fn ask_health(&self, _: oneshot::Sender<Health>) -> bool {
        false
    }
}

/// A child that is a supervisor.
pub(crate) struct SupervisorChild {
    spec: SupervisorSpec,
}

impl SupervisorChild {
    pub(crate) fn new(spec: SupervisorSpec) -> Self {
        Self { spec }
    }
}

impl ChildFactory for SupervisorChild {
    fn supervisor(&self) -> Option<&SupervisorSpec> {
        Some(&self.spec)
    }

    fn check(&self, spec: &ChildSpec, policies: &Policies) -> Result<(), SpecError> {
        spec.has_no_mailbox("a supervisor")?;
        self.spec.clone().check(policies)
    }

    fn slot(&self, spec: &ChildSpec, path: Path, env: &Arc<Environment>) -> Arc<dyn AnySlot> {
        let kind = match self.spec.kind {
            SupervisorKind::Static => SlotKind::Supervisor,
            SupervisorKind::Dynamic { .. } => SlotKind::DynamicSupervisor,
        };
        let component = spec.metadata.component_type;
        let (actor_type, message_type) = ("Supervisor", "(supervisor)");
        let info = SlotInfo { kind, component, actor_type, message_type };
        let link = SupervisorPlace::shared(path.clone(), &self.spec);
        Arc::new(PlainSlot { cell: SlotCell::new(path, info, Arc::clone(env)), link: Some(link) })
    }

    fn fits(&self, slot: &dyn AnySlot) -> bool {
        match self.spec.kind {
            SupervisorKind::Static => slot.cell().info.kind == SlotKind::Supervisor,
            SupervisorKind::Dynamic { .. } => slot.cell().info.kind == SlotKind::DynamicSupervisor,
        }
    }

    fn start(&self, slot: Arc<dyn AnySlot>, at: StartContext) -> StartFuture {
        let spec = self.spec.clone();
        Box::pin(start_supervisor(
            slot,
            spec,
            at.root,
            at.policies,
            Some(at.parent),
            at.life,
            at.cause_seq,
        ))
    }
}

/// Starts a supervisor and waits until all its children are up, or until it has ended because one
/// would not start.
pub(crate) async fn start_supervisor(
    slot: Arc<dyn AnySlot>,
    mut spec: SupervisorSpec,
    root: TreeRoot,
    policies: Arc<Policies>,
    parent: Option<ActorCell>,
    life: u64,
    cause_seq: Option<u64>,
) -> StartResult {
    if let Err(error) = spec.check(&policies) {
        let failure = Failure::wrap(crate::resilience::ErrorClass::User, error);
        return StartResult::Failed(ExitReason::Error(failure));
    }
    let (ready, is_ready) = oneshot::channel();
    let args = SupervisorArgs { slot, spec, root, policies, life, cause_seq, ready };
    let spawned = match parent {
        Some(parent) => ractor::Actor::spawn_linked(None, SupervisorActor, args, parent).await,
        None => ractor::Actor::spawn(None, SupervisorActor, args).await,
    };
    let cell = match spawned {
        Ok((actor, _)) => actor.get_cell(),
        Err(error) => return StartResult::Failed(spawn_failure(&error)),
    };
    let failed = match is_ready.await {
        Ok(Ok(())) => return StartResult::Started(cell),
        Ok(Err(reason)) => reason,
        // Killed while it started.
        Err(_) => ExitReason::Killed,
    };
    // Its parent must not start anything in its place before it is gone.
    let _ = cell.wait(None).await;
    StartResult::Failed(failed)
}

/// A child that is a raw ractor actor.
pub(crate) struct RawChild<R, F> {
    make: Arc<F>,
    actor: PhantomData<fn() -> R>,
}

impl<R, F> RawChild<R, F> {
    pub(crate) fn new(make: F) -> Self {
        Self { make: Arc::new(make), actor: PhantomData }
    }
}

impl<R, F> ChildFactory for RawChild<R, F>
where
    R: ractor::Actor,
    F: Fn() -> (R, R::Arguments) + Send + Sync + 'static,
{
    fn check(&self, spec: &ChildSpec, _: &Policies) -> Result<(), SpecError> {
        spec.has_no_mailbox("a raw ractor actor")
    }

    fn slot(&self, spec: &ChildSpec, path: Path, env: &Arc<Environment>) -> Arc<dyn AnySlot> {
        let info = SlotInfo {
            kind: SlotKind::Raw,
            component: spec.metadata.component_type,
            actor_type: short_type_name::<R>(),
            message_type: short_type_name::<R::Msg>(),
        };
        Arc::new(PlainSlot { cell: SlotCell::new(path, info, Arc::clone(env)), link: None })
    }

    fn fits(&self, slot: &dyn AnySlot) -> bool {
        slot.cell().info.kind == SlotKind::Raw
    }

    fn start(&self, slot: Arc<dyn AnySlot>, at: StartContext) -> StartFuture {
        let make = Arc::clone(&self.make);
        Box::pin(async move {
            let spawned = catch_panic(Who::new(Arc::clone(&slot)), async move {
                let (actor, args) = make();
                ractor::Actor::spawn_linked(None, actor, args, at.parent).await
            })
            .await;
            match spawned {
                Ok(Ok((actor, _))) => {
                    slot.cell().up(actor.get_cell());
                    StartResult::Started(actor.get_cell())
                }
                Ok(Err(error)) => StartResult::Failed(spawn_failure(&error)),
                Err(report) => StartResult::Failed(ExitReason::Panic(report)),
            }
        })
    }
}
