//! How a child of each kind gets its slot and starts a life.

use std::any::{Any, TypeId};
use std::future::poll_fn;
use std::marker::PhantomData;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use ractor::{ActorCell, ActorRef};

use crate::actor::cell::{Running, SlotCell};
use crate::actor::guard::{Guard, Outcome};
use crate::actor::life::{self, Report};
use crate::actor::panic::Theirs;
use crate::actor::slot::{AnySlot, MailboxFacts, Slot};
use crate::actor::state::{SlotInfo, SlotKind};
use crate::actor::{Actor, short_type_name};
use crate::component::Hooks;
use crate::environment::{Environment, spawn};
use crate::error::{ExitReason, Failure, SpecError};
use crate::path::Path;
use crate::supervisor::arrivals::Arrival;
use crate::supervisor::orders::Key;
use crate::supervisor::policy::Policies;
use crate::supervisor::spec::{ChildSpec, SupervisorKind, SupervisorSpec};
use crate::supervisor::{
    SupervisorActor, SupervisorArgs, SupervisorLink, SupervisorMessage, SupervisorPlace,
    SupervisorRef,
};
use crate::tree::TreeRoot;

/// What a start came to.
#[derive(Debug)]
pub(crate) enum StartResult {
    Started,
    /// A raw ractor actor, whose end ractor reports.
    StartedRaw(ActorCell),
    Ignored,
    Failed(ExitReason),
}

/// What a starting life needs to know of its place.
pub(crate) struct StartContext {
    pub(crate) parent: ActorRef<SupervisorMessage>,
    pub(crate) key: Key,
    pub(crate) supervisor: SupervisorRef,
    pub(crate) root: TreeRoot,
    pub(crate) policies: Arc<Policies>,
    pub(crate) life: u64,
    /// The event that led to this start.
    pub(crate) cause_seq: Option<u64>,
    /// How long the start may take.
    pub(crate) deadline: Option<Duration>,
    /// It may say itself that it is up.
    pub(crate) arrival: Option<Box<Arrival>>,
}

/// A kind of child: makes the slot once, and a life at every start.
pub(crate) trait ChildFactory: Send + Sync {
    /// What can be known to be wrong before the start.
    fn check(&self, spec: &ChildSpec, policies: &Policies) -> Result<(), SpecError>;
    /// What the child is.
    fn kind(&self) -> SlotKind;
    /// The type of its messages, if it has an address.
    fn message_type(&self) -> Option<(TypeId, &'static str)>;
    fn slot(&self, spec: &ChildSpec, path: Path, env: &Arc<Environment>) -> Arc<dyn AnySlot>;
    /// Whether a slot kept from an earlier life of the supervisor is one this factory could have
    /// made.
    fn fits(&self, slot: &Arc<dyn AnySlot>) -> bool;
    /// Begins a life. What comes of it is told to the supervisor.
    fn start(&self, slot: Arc<dyn AnySlot>, at: StartContext);
    /// Whether dropping it runs anything of the application's.
    fn owns_something(&self) -> bool {
        true
    }
    /// What a supervisor is declared to be.
    fn supervisor(&self) -> Option<&SupervisorSpec> {
        None
    }
}

/// A child that is an [`Actor`], with the hooks `H`.
pub(crate) struct ActorChild<A: Actor, H> {
    args: Arc<Theirs<A::Args>>,
    hooks: PhantomData<fn() -> H>,
}

impl<A: Actor, H: Hooks<A>> ActorChild<A, H> {
    pub(crate) fn new(args: A::Args) -> Self {
        Self { args: Arc::new(Theirs::new(args)), hooks: PhantomData }
    }
}

impl<A: Actor, H: Hooks<A>> ChildFactory for ActorChild<A, H> {
    fn check(&self, spec: &ChildSpec, _: &Policies) -> Result<(), SpecError> {
        spec.on_crash.check::<A::Message>(&spec.id)
    }

    fn kind(&self) -> SlotKind {
        SlotKind::Actor
    }

    fn owns_something(&self) -> bool {
        std::mem::needs_drop::<A::Args>()
    }

    fn message_type(&self) -> Option<(TypeId, &'static str)> {
        Some((TypeId::of::<A::Message>(), short_type_name::<A::Message>()))
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
        let mailbox = (spec.capacity, spec.overflow);
        let checks = H::CHECKS_HEALTH;
        Arc::new(Slot::<A::Message>::new(cell, mailbox, on_crash, checks, A::message_name))
    }

    fn fits(&self, slot: &Arc<dyn AnySlot>) -> bool {
        Arc::clone(slot).as_any().is::<Slot<A::Message>>()
            && slot.cell().info.actor_type == short_type_name::<A>()
    }

    fn start(&self, slot: Arc<dyn AnySlot>, at: StartContext) {
        let env = Arc::clone(&slot.cell().env);
        match slot.as_any().downcast::<Slot<A::Message>>() {
            Ok(slot) => {
                let args = Arc::clone(&self.args);
                spawn(&env, life::run::<A, H>(args, slot, at));
            }
            Err(_) => wrong_slot(&at),
        }
    }
}

/// A slot of another kind than the factory makes: a fault of the kernel, told as a failed start.
fn wrong_slot(at: &StartContext) {
    let reason = ExitReason::Error(Failure::permanent("the slot is another kind of actor's"));
    Report::new(at.parent.clone(), at.key, at.life).end(reason);
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
        self.cell.set_ended(reason);
        if let Some(link) = &self.link {
            link.close_children(reason);
        }
    }

    fn hold(&self, held: bool) -> bool {
        self.cell.gate.hold(held);
        match &self.link {
            Some(link) => {
                link.hold_children(held);
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

    fn checks_health(&self) -> bool {
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

    fn kind(&self) -> SlotKind {
        match self.spec.kind {
            SupervisorKind::Static => SlotKind::Supervisor,
            SupervisorKind::Dynamic { .. } => SlotKind::DynamicSupervisor,
        }
    }

    fn message_type(&self) -> Option<(TypeId, &'static str)> {
        None
    }

    fn slot(&self, spec: &ChildSpec, path: Path, env: &Arc<Environment>) -> Arc<dyn AnySlot> {
        let kind = self.kind();
        let component = spec.metadata.component_type;
        let (actor_type, message_type) = ("Supervisor", "(supervisor)");
        let info = SlotInfo { kind, component, actor_type, message_type };
        let link = SupervisorPlace::shared(path.clone(), &self.spec);
        Arc::new(PlainSlot { cell: SlotCell::new(path, info, Arc::clone(env)), link: Some(link) })
    }

    fn fits(&self, slot: &Arc<dyn AnySlot>) -> bool {
        slot.cell().info.kind == self.kind()
    }

    fn start(&self, slot: Arc<dyn AnySlot>, at: StartContext) {
        let report = Report::new(at.parent.clone(), at.key, at.life);
        let starting = StartSupervisor {
            slot,
            spec: self.spec.clone(),
            root: at.root,
            policies: at.policies,
            life: at.life,
            cause_seq: at.cause_seq,
        };
        starting.begin(Some(at.parent.get_cell()), report);
    }
}

/// What a supervisor is started with.
pub(crate) struct StartSupervisor {
    pub(crate) slot: Arc<dyn AnySlot>,
    pub(crate) spec: SupervisorSpec,
    pub(crate) root: TreeRoot,
    pub(crate) policies: Arc<Policies>,
    pub(crate) life: u64,
    pub(crate) cause_seq: Option<u64>,
}

impl StartSupervisor {
    /// Starts the supervisor. It reports when all its children are up, and when it has ended.
    pub(crate) fn begin(mut self, parent: Option<ActorCell>, report: impl Reports) {
        let env = Arc::clone(&self.slot.cell().env);
        let mut report: Box<dyn Reports> = Box::new(report);
        if let Err(error) = self.spec.check(&self.policies) {
            let failure = Failure::wrap(crate::resilience::ErrorClass::User, error);
            report.end(ExitReason::Error(failure));
            return;
        }
        let Self { slot, spec, root, policies, life, cause_seq } = self;
        let args = SupervisorArgs { slot, spec, root, policies, life, cause_seq, report };
        spawn(&env, async move {
            let spawned = match parent {
                Some(parent) => {
                    ractor::Actor::spawn_linked(None, SupervisorActor, args, parent).await
                }
                None => ractor::Actor::spawn(None, SupervisorActor, args).await,
            };
            // The report went down with the arguments, and has told of it.
            if let Err(error) = spawned {
                tracing::error!(%error, "ractor did not start a supervisor");
            }
        });
    }
}

/// Who hears of a supervisor: its parent, or whoever started the system.
pub(crate) trait Reports: Send + 'static {
    /// All its children are up.
    fn up(&mut self);
    /// It ends with this reason once the report is dropped.
    fn end(&mut self, reason: ExitReason);
}

impl Reports for Report {
    fn up(&mut self) {
        Self::up(self);
    }

    fn end(&mut self, reason: ExitReason) {
        Self::end(self, reason);
    }
}

/// A child that is a raw ractor actor.
pub(crate) struct RawChild<R, F> {
    make: Arc<Theirs<F>>,
    actor: PhantomData<fn() -> R>,
}

impl<R, F> RawChild<R, F> {
    pub(crate) fn new(make: F) -> Self {
        Self { make: Arc::new(Theirs::new(make)), actor: PhantomData }
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

    fn kind(&self) -> SlotKind {
        SlotKind::Raw
    }

    fn message_type(&self) -> Option<(TypeId, &'static str)> {
        None
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

    fn fits(&self, slot: &Arc<dyn AnySlot>) -> bool {
        slot.cell().info.kind == SlotKind::Raw
    }

    fn start(&self, slot: Arc<dyn AnySlot>, at: StartContext) {
        let make = Arc::clone(&self.make);
        let env = Arc::clone(&slot.cell().env);
        let (key, life) = (at.key, at.life);
        spawn(&env, async move {
            // A start that is taken back ends now, and not when it likes.
            poll_fn(|cx| {
                slot.cell().register(life, cx.waker());
                Poll::Ready(())
            })
            .await;
            let mut guard = Guard::new(Arc::clone(&slot), life);
            let parent = at.parent.get_cell();
            let spawned = guard
                .run(async move {
                    let (actor, args) = make();
                    ractor::Actor::spawn_linked(None, actor, args, parent).await
                })
                .await;
            let result = match spawned {
                Outcome::Done(Ok((actor, _))) => {
                    slot.cell().up(life, Running::Ractor(actor.get_cell()));
                    if slot.cell().gate.is_killed(life) {
                        actor.kill();
                    }
                    StartResult::StartedRaw(actor.get_cell())
                }
                // The error is the application's, and so is how it is shown.
                Outcome::Done(Err(error)) => match guard.within(|| error.to_string()) {
                    Ok(text) => StartResult::Failed(ExitReason::Error(Failure::transient(text))),
                    Err(panic) => StartResult::Failed(ExitReason::Panic(panic)),
                },
                Outcome::Panicked(report) => StartResult::Failed(ExitReason::Panic(report)),
                Outcome::Killed => StartResult::Failed(ExitReason::Killed),
            };
            let _ = at.parent.send_message(SupervisorMessage::StartDone { key, life, result });
        });
    }
}
