//! When an aggregate's state is kept, so that its next life reads less.

use std::time::Duration;

/// When a snapshot is taken: as soon as one of the limits is reached since the last one.
///
/// A snapshot is written after the commit, beside the commands, and never holds one up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct SnapshotPolicy {
    /// After this many events; 100 unless said otherwise (Commanded and Marten advise the same
    /// order of magnitude).
    pub events: Option<u64>,
    /// After this many bytes of payload.
    pub bytes: Option<u64>,
    /// With the first event that is this much later than the last snapshot.
    pub age: Option<Duration>,
    /// When the actor passivates, if at least this many events are new; 10 unless said otherwise.
    pub on_passivation: Option<u64>,
}

impl Default for SnapshotPolicy {
    fn default() -> Self {
        Self { events: Some(100), bytes: None, age: None, on_passivation: Some(10) }
    }
}

impl SnapshotPolicy {
    /// No snapshots: the state is always made of all its events.
    pub const NEVER: Self = Self { events: None, bytes: None, age: None, on_passivation: None };

    /// After this many events, and on passivation no more.
    #[must_use]
    pub const fn every(events: u64) -> Self {
        Self { events: Some(events), ..Self::NEVER }
    }

    /// After this many bytes of payload, too.
    #[must_use]
    pub const fn bytes(self, bytes: u64) -> Self {
        Self { bytes: Some(bytes), ..self }
    }

    /// After this time, too.
    #[must_use]
    pub const fn age(self, age: Duration) -> Self {
        Self { age: Some(age), ..self }
    }

    /// On passivation too, if at least this many events are new.
    #[must_use]
    pub const fn on_passivation(self, events: u64) -> Self {
        Self { on_passivation: Some(events), ..self }
    }

    /// Whether it is time.
    pub(crate) fn is_due(&self, since: Since) -> bool {
        let reached = |limit: Option<u64>, value| limit.is_some_and(|limit| value >= limit);
        since.events > 0
            && (reached(self.events, since.events)
                || reached(self.bytes, since.bytes)
                || self.age.is_some_and(|age| since.age >= age))
    }

    /// Whether it is worth it before a life ends.
    pub(crate) fn is_due_at_the_end(&self, since: Since) -> bool {
        self.on_passivation.is_some_and(|least| since.events >= least.max(1))
    }
}

/// What came since the last snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Since {
    pub(crate) events: u64,
    pub(crate) bytes: u64,
    pub(crate) age: Duration,
}
