//! The kinds of components that a node is made of, and how each is restarted.
//!
//! The kernel knows kinds only by name. A kind of an application's own is one more
//! [`ComponentType::new`], and one more [`Policies::set`].

use std::time::Duration;

use mister_smith_supervisors::{Backoff, ChildPolicy, ComponentType, Policies};

/// Agents. No policy: OTP's, unless a spec sets its own.
pub const AGENT: ComponentType = ComponentType::new("agent");

/// Live aggregates and processes: read again from the log, delays of up to 1 s.
pub const AGGREGATE: ComponentType = ComponentType::new("aggregate");

/// Pools and connections: a database that is down stays down for a while, delays of up to 5 s.
pub const RESOURCE: ComponentType = ComponentType::new("resource");

/// The committer and the feed: everybody waits for them, delays of up to 1 s.
pub const STORE: ComponentType = ComponentType::new("store");

/// The event bus, relays and outboxes: delays of up to 1 s.
pub const EVENT_BUS: ComponentType = ComponentType::new("event_bus");

/// Projections and consumers: one that fails reads its page again, delays of up to 5 s.
pub const PROJECTION: ComponentType = ComponentType::new("projection");

/// Sagas, their manager and timers: delays of up to 1 s.
pub const SAGA: ComponentType = ComponentType::new("saga");

/// Servers for the outside, HTTP and commands: delays of up to 1 s.
pub const EDGE: ComponentType = ComponentType::new("edge");

/// Configuration: no restart mends a wrong one, so its first failure escalates.
pub const CONFIG: ComponentType = ComponentType::new("config");

/// The policies that a node uses; the constants say why.
#[must_use]
pub fn recommended() -> Policies {
    Policies::new()
        .set(AGGREGATE, spaced(5, 1_000))
        .set(RESOURCE, spaced(10, 5_000))
        .set(STORE, spaced(5, 1_000))
        .set(EVENT_BUS, spaced(5, 1_000))
        .set(PROJECTION, spaced(10, 5_000))
        .set(SAGA, spaced(5, 1_000))
        .set(EDGE, spaced(5, 1_000))
        .set(CONFIG, ChildPolicy { give_up_after: Some(0), ..ChildPolicy::OTP })
}

/// Restarts whose delays grow from `base_ms` to `cap_ms` and begin anew after 10 s of health.
fn spaced(base_ms: u64, cap_ms: u64) -> ChildPolicy {
    let (base, cap) = (Duration::from_millis(base_ms), Duration::from_millis(cap_ms));
    ChildPolicy {
        backoff: Backoff::exponential(base, cap).reset_after(Duration::from_secs(10)),
        give_up_after: Some(1_000),
        ..ChildPolicy::OTP
    }
}
