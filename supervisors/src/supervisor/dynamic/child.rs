//! One child of a dynamic supervisor: its phase is its whole state.

use std::sync::Arc;
use std::time::Duration;

use crate::actor::slot::AnySlot;
use crate::supervisor::Answer;
use crate::supervisor::policy::ChildPolicy;
use crate::supervisor::strategy::ChildView;

pub(super) struct Child {
    pub(super) policy: ChildPolicy,
    pub(super) phase: Phase,
    pub(super) suspended: bool,
    pub(super) failures_in_a_row: u32,
    pub(super) up_since: Option<Duration>,
    pub(super) epoch: u64,
    /// Who waits for what is going on now.
    pub(super) waiting: Option<Waiting>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Starting {
        restart: bool,
    },
    Up,
    Stopping(Then),
    Waiting,
    /// Suspended without a life.
    Held,
}

/// What comes after a stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Then {
    Forget,
    Start,
    /// Bad health is treated as a failure once the life has ended.
    Fail,
}

pub(super) enum Waiting {
    Slot(Answer<Arc<dyn AnySlot>>),
    Done(Answer<()>),
}

impl Child {
    pub(super) fn view(&self) -> ChildView {
        ChildView {
            restart: self.policy.restart,
            significant: false,
            up: false,
            suspended: self.suspended,
            depends_on: Vec::new(),
        }
    }

    /// Counts a failure; says whether there were too many in a row.
    pub(super) fn count_failure(&mut self, now: Duration) -> bool {
        if let Some(up_since) = self.up_since.take()
            && now.saturating_sub(up_since) >= self.policy.backoff.healthy_for()
        {
            self.failures_in_a_row = 0;
        }
        self.failures_in_a_row = self.failures_in_a_row.saturating_add(1);
        self.policy.give_up_after.is_some_and(|limit| self.failures_in_a_row > limit)
    }
}
