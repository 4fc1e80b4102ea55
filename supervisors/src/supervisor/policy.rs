//! Policies by component type: one place that says how all components of a kind are
//! restarted.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::resilience::Backoff;
use crate::supervisor::spec::Shutdown;
use crate::supervisor::strategy::RestartPolicy;

/// What kind of component a child is, by name: what policies are set for, and what the tree can be
/// filtered by.
///
/// Names are the application's; the kernel only compares them.
///
/// ```
/// use mister_smith_supervisors::ComponentType;
///
/// const GATEWAY: ComponentType = ComponentType::new("gateway");
/// assert_eq!(GATEWAY.as_str(), "gateway");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ComponentType(&'static str);

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
    /// A kind of that name. Types of the same name are equal.
    #[must_use]
    pub const fn new(name: &'static str) -> Self {
        Self(name)
    }

    /// One word for logs and JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        self.0
    }
}

impl fmt::Display for ComponentType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.0)
    }
}

impl fmt::Debug for ComponentType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.0)
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
