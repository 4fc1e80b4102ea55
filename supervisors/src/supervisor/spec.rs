//! What a supervisor is told before it starts: itself, and its children.

use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::actor::slot::OnCrashOf;
use crate::actor::task::{TaskChild, TaskContext};
use crate::actor::{Actor, DEFAULT_CAPACITY, Overflow, SlotKind};
use crate::component::{ComponentHooks, PlainHooks, SupervisedComponent, SupervisionMetadata};
use crate::dependency::start_order;
use crate::error::{Failure, SpecError};
use crate::health::HealthSpec;
use crate::path::{Path, check_id};
use crate::resilience::Backoff;
use crate::supervisor::across;
use crate::supervisor::child::{ActorChild, ChildFactory, RawChild, SupervisorChild};
use crate::supervisor::intensity::Intensity;
use crate::supervisor::policy::{ChildPolicy, ComponentType, Policies};
use crate::supervisor::strategy::{AutoShutdown, RestartPolicy, Strategy};

/// How long a worker may take to stop, as in OTP.
pub const DEFAULT_SHUTDOWN: Duration = Duration::from_secs(5);

/// How long a start may take. OTP waits for ever, which lets one child hang its whole tree.
pub const DEFAULT_START_DEADLINE: Duration = Duration::from_secs(30);

/// How a child is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shutdown {
    /// Killed at once: the message in hand is dropped at its next `await`, `stop` does not run.
    BrutalKill,
    /// Told to stop, and killed if it has not ended after this long.
    After(Duration),
    /// Told to stop, and waited for. The default for supervisors.
    Infinity,
}

/// What happens to the message in hand when its life crashes or is killed.
#[derive(Clone)]
pub struct OnCrash {
    /// `fn(&M) -> M` for the child's message type.
    copy: Option<Arc<dyn Any + Send + Sync>>,
    /// The type it copies.
    message: &'static str,
    max_attempts: u32,
}

impl OnCrash {
    /// It becomes a dead letter that names it and shows no content, because the handler owns it.
    /// The default: nothing is copied.
    #[must_use]
    pub fn dead_letter() -> Self {
        Self { copy: None, message: "", max_attempts: 1 }
    }

    /// It becomes a dead letter with its content, at the price of a copy of every message.
    #[must_use]
    pub fn dead_letter_with_copy<M: Clone + Send + 'static>() -> Self {
        Self::redeliver::<M>(1)
    }

    /// The next life gets it again, in front of all others, until it has been in hand
    /// `max_attempts` times; then it becomes a dead letter with its content. For handlers that
    /// may see a message twice.
    #[must_use]
    pub fn redeliver<M: Clone + Send + 'static>(max_attempts: u32) -> Self {
        let copy: fn(&M) -> M = M::clone;
        let message = std::any::type_name::<M>();
        Self { copy: Some(Arc::new(copy)), message, max_attempts: max_attempts.max(1) }
    }

    /// Refuses copies of another type than the child's messages.
    pub(crate) fn check<M: 'static>(&self, child: &str) -> Result<(), SpecError> {
        match &self.copy {
            Some(copy) if !copy.is::<fn(&M) -> M>() => Err(SpecError::WrongMessageType {
                child: child.to_owned(),
                wanted: self.message,
                actual: std::any::type_name::<M>(),
            }),
            _ => Ok(()),
        }
    }

    /// The copy function, if it is one for `M`.
    pub(crate) fn for_messages<M: 'static>(&self) -> OnCrashOf<M> {
        let copy = self.copy.as_ref().and_then(|copy| copy.downcast_ref::<fn(&M) -> M>()).copied();
        OnCrashOf { copy, max_attempts: self.max_attempts }
    }
}

impl fmt::Debug for OnCrash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OnCrash")
            .field("copies", &self.copy.is_some())
            .field("max_attempts", &self.max_attempts)
            .finish()
    }
}

/// One child: what it is, and how it is kept alive.
///
/// What is not set comes from the policy of its component type, and else from OTP: permanent,
/// 5 s to stop, no delay between restarts.
#[derive(Clone)]
pub struct ChildSpec {
    pub(crate) id: Arc<str>,
    pub(crate) child: Arc<dyn ChildFactory>,
    pub(crate) restart: Option<RestartPolicy>,
    pub(crate) shutdown: Shutdown,
    pub(crate) significant: bool,
    pub(crate) start_deadline: Option<Duration>,
    pub(crate) backoff: Option<Backoff>,
    pub(crate) give_up_after: Option<u32>,
    pub(crate) capacity: usize,
    pub(crate) overflow: Overflow,
    pub(crate) on_crash: OnCrash,
    pub(crate) metadata: SupervisionMetadata,
    pub(crate) health: Option<HealthSpec>,
    /// What few children have.
    pub(crate) registered: Option<Arc<Registered>>,
}

/// Under which name and in which groups a child can be found.
#[derive(Clone, Debug, Default)]
pub(crate) struct Registered {
    pub(crate) name: Option<Arc<str>>,
    pub(crate) groups: Vec<Arc<str>>,
}

impl ChildSpec {
    /// A child that is an [`Actor`], started afresh from `args` at every restart.
    #[must_use]
    pub fn actor<A: Actor>(id: impl Into<Arc<str>>, args: A::Args) -> Self {
        let child = Arc::new(ActorChild::<A, PlainHooks>::new(args));
        Self::new(id.into(), child, Shutdown::After(DEFAULT_SHUTDOWN))
    }

    /// A child that is a [`SupervisedComponent`]: with its own health checks, hand-over and
    /// metadata.
    #[must_use]
    pub fn component<A: SupervisedComponent>(id: impl Into<Arc<str>>, args: A::Args) -> Self {
        let metadata = A::supervision_metadata(&args);
        let child = Arc::new(ActorChild::<A, ComponentHooks>::new(args));
        let mut spec = Self::new(id.into(), child, Shutdown::After(DEFAULT_SHUTDOWN));
        spec.metadata = metadata;
        spec
    }

    /// A child that is a raw ractor actor: the door for code that speaks ractor already. It has
    /// ractor's unbounded mailbox, which dies with each life, and no address of ours.
    #[must_use]
    pub fn raw<R, F>(id: impl Into<Arc<str>>, make: F) -> Self
    where
        R: ractor::Actor,
        F: Fn() -> (R, R::Arguments) + Send + Sync + 'static,
    {
        Self::new(id.into(), Arc::new(RawChild::new(make)), Shutdown::After(DEFAULT_SHUTDOWN))
    }

    /// A child that is a future, made afresh for each life: started, restarted, backed off and given
    /// up like any other, but without a mailbox. Transient unless set: a task that is done stays
    /// down.
    ///
    /// ```
    /// # use mister_smith_supervisors::*;
    /// let heart = ChildSpec::task("heart", |cx| async move {
    ///     loop {
    ///         println!("{} beats", cx.path());
    ///         tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    ///     }
    /// });
    /// # SupervisorSpec::new("node").child(heart);
    /// ```
    #[must_use]
    pub fn task<F, T>(id: impl Into<Arc<str>>, make: F) -> Self
    where
        F: Fn(TaskContext) -> T + Send + Sync + 'static,
        T: Future<Output = Result<(), Failure>> + Send + 'static,
    {
        let child = Arc::new(TaskChild::new(make));
        let spec = Self::new(id.into(), child, Shutdown::After(DEFAULT_SHUTDOWN));
        spec.restart(RestartPolicy::Transient)
    }

    fn new(id: Arc<str>, child: Arc<dyn ChildFactory>, shutdown: Shutdown) -> Self {
        Self {
            id,
            child,
            restart: None,
            shutdown,
            significant: false,
            start_deadline: Some(DEFAULT_START_DEADLINE),
            backoff: None,
            give_up_after: None,
            capacity: DEFAULT_CAPACITY,
            overflow: Overflow::default(),
            on_crash: OnCrash::dead_letter(),
            metadata: SupervisionMetadata::default(),
            health: None,
            registered: None,
        }
    }

    /// Refuses a child that does not take messages of type `M`.
    pub(crate) fn takes<M: 'static>(&self) -> Result<(), SpecError> {
        match self.child.message_type() {
            Some((id, _)) if id == std::any::TypeId::of::<M>() => Ok(()),
            known => Err(SpecError::WrongMessageType {
                child: self.id.to_string(),
                wanted: std::any::type_name::<M>(),
                actual: known.map_or("(no messages)", |(_, name)| name),
            }),
        }
    }

    /// The same child under another id.
    #[must_use]
    pub fn with_id(mut self, id: impl Into<Arc<str>>) -> Self {
        self.id = id.into();
        self
    }

    /// A name under which the whole system finds it ([`ActorSystem::named`](crate::ActorSystem::named)),
    /// wherever it stands. One actor has it at a time: a second one is refused.
    #[must_use]
    pub fn name(mut self, name: impl Into<Arc<str>>) -> Self {
        let registered = self.registered.get_or_insert_default();
        Arc::make_mut(registered).name = Some(name.into());
        self
    }

    /// A group that it belongs to, besides others ([`ActorSystem::group`](crate::ActorSystem::group)).
    #[must_use]
    pub fn group(mut self, group: impl Into<Arc<str>>) -> Self {
        let registered = self.registered.get_or_insert_default();
        Arc::make_mut(registered).groups.push(group.into());
        self
    }

    /// The id, unique among its siblings.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// When it is started again.
    #[must_use]
    pub fn restart(mut self, policy: RestartPolicy) -> Self {
        self.restart = Some(policy);
        self
    }

    /// How it is stopped.
    #[must_use]
    pub fn shutdown(mut self, shutdown: Shutdown) -> Self {
        self.shutdown = shutdown;
        self
    }

    /// Its own end may end the supervisor, as [`AutoShutdown`] says.
    #[must_use]
    pub fn significant(mut self) -> Self {
        self.significant = true;
        self
    }

    /// How long its start may take; a start that takes longer has failed. 30 s by default, no
    /// limit for supervisors, whose children have their own.
    #[must_use]
    pub fn start_deadline(mut self, deadline: Duration) -> Self {
        self.start_deadline = Some(deadline);
        self
    }

    /// How long it waits before a restart.
    #[must_use]
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.backoff = Some(backoff);
        self
    }

    /// After more than this many failures in a row its supervisor gives up, whatever its
    /// intensity. Staying up for the backoff's `reset_after` ends a row.
    #[must_use]
    pub fn give_up_after(mut self, failures: u32) -> Self {
        self.give_up_after = Some(failures);
        self
    }

    /// How many messages wait at most, and what happens to one more. 1024, and its sender waits
    /// up to 5 s, by default.
    #[must_use]
    pub fn mailbox(mut self, capacity: usize, overflow: Overflow) -> Self {
        self.capacity = capacity;
        self.overflow = overflow;
        self
    }

    /// What happens to the message in hand at a crash.
    #[must_use]
    pub fn on_crash(mut self, on_crash: OnCrash) -> Self {
        self.on_crash = on_crash;
        self
    }

    /// What must be up before it, and whose restart restarts it: siblings by id, and what lives in
    /// other branches by its path, such as `/resources/pool`. What it needs of another branch must be
    /// declared so that it starts earlier. Dependents are stopped first and started last, whoever
    /// restarts what they need; a [`plan`](crate::ActorSystem::plan) shows siblings only.
    #[must_use]
    pub fn depends_on<I: Into<String>>(mut self, ids: impl IntoIterator<Item = I>) -> Self {
        self.metadata = self.metadata.depends_on(ids);
        self
    }

    /// How its health is checked.
    #[must_use]
    pub fn health(mut self, health: HealthSpec) -> Self {
        self.health = Some(health);
        self
    }

    /// What it is, for the policy by component type.
    #[must_use]
    pub fn component_type(mut self, component: ComponentType) -> Self {
        self.metadata.component_type = Some(component);
        self
    }

    /// Siblings that it needs.
    pub(crate) fn siblings_needed(&self) -> impl Iterator<Item = &str> {
        self.metadata.depends_on.iter().map(String::as_str).filter(|id| !across::is_path(id))
    }

    /// What it needs of other branches.
    pub(crate) fn paths_needed(&self) -> impl Iterator<Item = Path> {
        let paths = self.metadata.depends_on.iter().filter(|id| across::is_path(id));
        paths.map(|path| Path::parse(path))
    }

    /// Refuses settings of a mailbox, on what has none.
    pub(crate) fn has_no_mailbox(&self, on: &'static str) -> Result<(), SpecError> {
        let mailbox = self.capacity != DEFAULT_CAPACITY || self.overflow != Overflow::default();
        let setting = if mailbox {
            "mailbox"
        } else if self.on_crash.copy.is_some() {
            "on_crash"
        } else if self.health.is_some() && self.child.kind() != SlotKind::Task {
            "health"
        } else {
            return Ok(());
        };
        let cure = "set it on an actor, or leave it out";
        Err(SpecError::Misplaced { id: self.id.to_string(), setting, on, cure })
    }

    /// What holds for it, with the policy of its type filled in.
    pub(crate) fn policy(&self, policies: &Policies) -> ChildPolicy {
        let default = policies.of(self.metadata.component_type);
        ChildPolicy {
            restart: self.restart.unwrap_or(default.restart),
            backoff: self.backoff.unwrap_or(default.backoff),
            give_up_after: self.give_up_after.or(default.give_up_after),
        }
    }
}

impl fmt::Debug for ChildSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChildSpec")
            .field("id", &self.id)
            .field("restart", &self.restart)
            .field("shutdown", &self.shutdown)
            .field("metadata", &self.metadata)
            .finish_non_exhaustive()
    }
}

impl From<SupervisorSpec> for ChildSpec {
    /// A supervisor as a child: permanent, given all the time it needs to start and to stop its
    /// own children.
    fn from(spec: SupervisorSpec) -> Self {
        let id = Arc::clone(&spec.id);
        let mut child = Self::new(id, Arc::new(SupervisorChild::new(spec)), Shutdown::Infinity);
        child.start_deadline = None;
        child
    }
}

/// A supervisor: who its children are, and what happens when they fail.
///
/// Intensity is one restart in five seconds unless set, as in OTP.
#[derive(Clone, Debug)]
pub struct SupervisorSpec {
    pub(crate) id: Arc<str>,
    pub(crate) strategy: Strategy,
    pub(crate) intensity: Intensity,
    pub(crate) auto_shutdown: AutoShutdown,
    pub(crate) kind: SupervisorKind,
    pub(crate) children: Vec<ChildSpec>,
    /// A setting that only the other kind has.
    misplaced: Option<&'static str>,
}

/// Whether children are declared, or come and go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SupervisorKind {
    Static,
    Dynamic { max_children: usize, keep: bool },
}

impl SupervisorSpec {
    /// A supervisor with declared children; `OneForOne` unless set.
    #[must_use]
    pub fn new(id: impl Into<Arc<str>>) -> Self {
        Self {
            id: id.into(),
            strategy: Strategy::OneForOne,
            intensity: Intensity::default(),
            auto_shutdown: AutoShutdown::Never,
            kind: SupervisorKind::Static,
            children: Vec::new(),
            misplaced: None,
        }
    }

    /// A supervisor whose children come and go by the hundred thousand: each on its own, started
    /// and found by id, all stopped at once. A child that ends and is not restarted is forgotten.
    #[must_use]
    pub fn dynamic(id: impl Into<Arc<str>>) -> Self {
        let mut spec = Self::new(id);
        spec.kind = SupervisorKind::Dynamic { max_children: usize::MAX, keep: false };
        spec
    }

    /// Sets who is affected when a child fails. A dynamic supervisor is always `OneForOne`; another
    /// one is refused.
    #[must_use]
    pub fn strategy(mut self, strategy: Strategy) -> Self {
        self.strategy = strategy;
        self
    }

    /// At most `restarts` within `period`.
    #[must_use]
    pub fn intensity(mut self, restarts: u32, period: Duration) -> Self {
        self.intensity = Intensity::new(restarts, period);
        self
    }

    /// Whether the end of significant children ends the supervisor.
    #[must_use]
    pub fn auto_shutdown(mut self, auto_shutdown: AutoShutdown) -> Self {
        self.auto_shutdown = auto_shutdown;
        self
    }

    /// The most children a dynamic supervisor holds.
    #[must_use]
    pub fn max_children(mut self, max: usize) -> Self {
        if let SupervisorKind::Dynamic { max_children, .. } = &mut self.kind {
            *max_children = max;
        } else {
            self.misplaced = Some("max_children");
        }
        self
    }

    /// The children of a dynamic supervisor outlive it: when it is restarted, with its group or
    /// after it was killed, it starts all that it had again, in their slots, so that addresses and
    /// waiting messages survive. Without it they end with the supervisor's life, as in OTP.
    /// Temporary children are never kept.
    #[must_use]
    pub fn keep_children(mut self) -> Self {
        if let SupervisorKind::Dynamic { keep, .. } = &mut self.kind {
            *keep = true;
        } else {
            self.misplaced = Some("keep_children");
        }
        self
    }

    /// Adds a child, after those declared before it.
    #[must_use]
    pub fn child(mut self, child: impl Into<ChildSpec>) -> Self {
        self.children.push(child.into());
        self
    }

    /// Checks everything that can be known before the start, and puts the children into start
    /// order.
    pub(crate) fn check(&mut self, policies: &Policies) -> Result<(), SpecError> {
        self.check_ids()?;
        self.check_settings()?;
        self.sort_by_dependencies()?;
        for child in &self.children {
            check_child(child, self, policies)?;
        }
        Ok(())
    }

    /// Its children in start order; as declared, if that is impossible.
    pub(crate) fn in_start_order(&self) -> Self {
        let mut sorted = self.clone();
        match sorted.sort_by_dependencies() {
            Ok(()) => sorted,
            Err(_) => self.clone(),
        }
    }

    fn check_ids(&self) -> Result<(), SpecError> {
        check_id(&self.id)?;
        for (i, child) in self.children.iter().enumerate() {
            check_id(&child.id)?;
            if self.children[..i].iter().any(|other| other.id == child.id) {
                return Err(SpecError::DuplicateId {
                    supervisor: self.id.to_string(),
                    id: child.id.to_string(),
                });
            }
        }
        Ok(())
    }

    fn check_settings(&self) -> Result<(), SpecError> {
        let (setting, on, cure) = match self.kind {
            SupervisorKind::Static => match self.misplaced {
                Some(setting) => (
                    setting,
                    "a supervisor with declared children",
                    "leave it out, or make it SupervisorSpec::dynamic",
                ),
                None => return Ok(()),
            },
            SupervisorKind::Dynamic { .. } => {
                let setting = if self.strategy != Strategy::OneForOne {
                    "strategy"
                } else if self.auto_shutdown != AutoShutdown::Never {
                    "auto_shutdown"
                } else {
                    return Ok(());
                };
                let cure = "leave it out, or declare the children under SupervisorSpec::new";
                (setting, "a dynamic supervisor, whose children stand alone", cure)
            }
        };
        Err(SpecError::Misplaced { id: self.id.to_string(), setting, on, cure })
    }

    fn sort_by_dependencies(&mut self) -> Result<(), SpecError> {
        let ids: Vec<&str> = self.children.iter().map(|child| &*child.id).collect();
        let mut depends_on = Vec::with_capacity(ids.len());
        for child in &self.children {
            let needed: Result<Vec<usize>, SpecError> = child
                .siblings_needed()
                .map(|needed| {
                    ids.iter().position(|id| *id == needed).ok_or_else(|| {
                        SpecError::UnknownDependency {
                            supervisor: self.id.to_string(),
                            child: child.id.to_string(),
                            dependency: needed.to_owned(),
                        }
                    })
                })
                .collect();
            depends_on.push(needed?);
        }
        let order = start_order(&ids, &depends_on)?;
        let mut unsorted: Vec<Option<ChildSpec>> = self.children.drain(..).map(Some).collect();
        self.children.extend(order.into_iter().filter_map(|i| unsorted[i].take()));
        Ok(())
    }
}

/// Checks one child of `supervisor`.
pub(crate) fn check_child(
    child: &ChildSpec,
    supervisor: &SupervisorSpec,
    policies: &Policies,
) -> Result<(), SpecError> {
    check_id(&child.id)?;
    let policy = child.policy(policies);
    if child.capacity == 0 {
        return Err(SpecError::EmptyMailbox { child: child.id.to_string() });
    }
    if supervisor.kind != SupervisorKind::Static {
        let setting = if child.significant {
            Some("significant")
        } else if child.metadata.depends_on.is_empty() {
            None
        } else {
            Some("depends_on")
        };
        if let Some(setting) = setting {
            return Err(SpecError::NotDynamic {
                supervisor: supervisor.id.to_string(),
                child: child.id.to_string(),
                setting,
            });
        }
    }
    if child.significant {
        let needs = if policy.restart == RestartPolicy::Permanent {
            Some("a restart policy other than permanent")
        } else if supervisor.auto_shutdown == AutoShutdown::Never {
            Some("a supervisor with auto_shutdown")
        } else {
            None
        };
        if let Some(needs) = needs {
            return Err(SpecError::Significant { child: child.id.to_string(), needs });
        }
    }
    // Delays that add up to more than the period would keep the tree from ever escalating, the
    // defect of erlang/otp #4648. A limit on failures in a row closes the gap.
    let restarts = supervisor.intensity.restarts.saturating_add(1);
    let expected = policy.backoff.expected_total(restarts);
    if policy.give_up_after.is_none() && expected > supervisor.intensity.period {
        return Err(SpecError::UnreachableIntensity {
            supervisor: supervisor.id.to_string(),
            child: child.id.to_string(),
            restarts,
            expected,
            period: supervisor.intensity.period,
        });
    }
    child.child.check(child, policies)
}
