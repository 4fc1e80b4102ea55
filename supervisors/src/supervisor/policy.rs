//! Policies by component type: one place that says how pools, stores, agents … are restarted.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::resilience::Backoff;
use crate::supervisor::spec::Shutdown;
use crate::supervisor::strategy::RestartPolicy;

/// What a component is, as far as its supervision is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum ComponentType {
    /// An agent.
    Agent,
    /// An aggregate, found again by its events.
    Aggregate,
    /// A connection pool or another resource.
    Resource,
    /// The store and its committer.
    Store,
    /// The event bus and its relays.
    EventBus,
    /// A projection.
    Projection,
    /// A saga.
    Saga,
    /// A server at the edge: HTTP, health.
    Edge,
    /// Configuration: no restart mends a wrong one, so its first failure goes up.
    Config,
}

/// How children of one type are restarted, where their spec does not say otherwise.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ChildPolicy {
    /// When it is started again.
    pub restart: RestartPolicy,
    /// How long it waits before.
    pub backoff: Backoff,
    /// After how many failures in a row its supervisor gives up, besides the intensity.
    pub give_up_after: Option<u32>,
}

impl ComponentType {
    /// One word for logs and JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Aggregate => "aggregate",
            Self::Resource => "resource",
            Self::Store => "store",
            Self::EventBus => "event_bus",
            Self::Projection => "projection",
            Self::Saga => "saga",
            Self::Edge => "edge",
            Self::Config => "config",
        }
    }
}

impl ChildPolicy {
    /// Permanent, without delay, limited only by the intensity: OTP's behaviour.
    pub const OTP: Self =
        Self { restart: RestartPolicy::Permanent, backoff: Backoff::NONE, give_up_after: None };
}

impl Default for ChildPolicy {
    fn default() -> Self {
        Self::OTP
    }
}

/// On what terms a child lives now. Kept in its slot, where everybody can read it.
#[derive(Clone, Debug)]
pub(crate) struct Terms {
    /// Shared by all children with the same one: there may be 100,000. `None` is OTP's.
    pub(crate) policy: Option<Arc<ChildPolicy>>,
    pub(crate) shutdown: Shutdown,
}

impl Default for Terms {
    fn default() -> Self {
        Self { policy: None, shutdown: Shutdown::Infinity }
    }
}

impl Terms {
    pub(crate) fn policy(&self) -> &ChildPolicy {
        self.policy.as_deref().unwrap_or(&ChildPolicy::OTP)
    }
}

/// How a child has fared: what its own limit on failures in a row is measured by.
#[derive(Clone, Debug, Default)]
pub(crate) struct Record {
    pub(crate) failures_in_a_row: u32,
    up_since: Option<Duration>,
}

impl Record {
    pub(crate) fn up(&mut self, now: Duration) {
        self.up_since = Some(now);
    }

    /// It ended and is left so: the row is over.
    pub(crate) fn left(&mut self) {
        self.failures_in_a_row = 0;
    }

    /// Counts a failure; says whether there were too many in a row.
    pub(crate) fn failed(&mut self, policy: &ChildPolicy, now: Duration) -> bool {
        // Only a life that was up can have been healthy; a failed start goes on with the row.
        if let Some(up_since) = self.up_since.take()
            && now.saturating_sub(up_since) >= policy.backoff.healthy_for()
        {
            self.failures_in_a_row = 0;
        }
        self.failures_in_a_row = self.failures_in_a_row.saturating_add(1);
        policy.give_up_after.is_some_and(|limit| self.failures_in_a_row > limit)
    }

    /// How many failures the next delay is for.
    pub(crate) fn before(&self) -> u32 {
        self.failures_in_a_row.saturating_sub(1)
    }
}

/// Policies by component type. A type without one gets [`ChildPolicy::OTP`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Policies(BTreeMap<ComponentType, ChildPolicy>);

impl Policies {
    /// None at all: OTP's behaviour for every type.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// What a node uses: resources back off (a database that is down stays down for a while) and
    /// never wear out; configuration goes up at its first failure.
    #[must_use]
    pub fn recommended() -> Self {
        let resource = ChildPolicy {
            backoff: Backoff::exponential(Duration::from_millis(50), Duration::from_secs(5)),
            ..ChildPolicy::OTP
        };
        let config = ChildPolicy { give_up_after: Some(0), ..ChildPolicy::OTP };
        Self::new().set(ComponentType::Resource, resource).set(ComponentType::Config, config)
    }

    /// Sets the policy of a type.
    #[must_use]
    pub fn set(mut self, component: ComponentType, policy: ChildPolicy) -> Self {
        self.0.insert(component, policy);
        self
    }

    /// The policy of a type.
    #[must_use]
    pub fn of(&self, component: Option<ComponentType>) -> ChildPolicy {
        component.and_then(|component| self.0.get(&component)).copied().unwrap_or_default()
    }
}
