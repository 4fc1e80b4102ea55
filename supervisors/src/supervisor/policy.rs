//! Policies by component type: one place that says how pools, stores, agents … are restarted.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::resilience::Backoff;
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
