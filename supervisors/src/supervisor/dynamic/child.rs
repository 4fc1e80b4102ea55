//! One child of a dynamic supervisor: its phase is its whole state.

use std::sync::Arc;

use crate::actor::slot::AnySlot;
use crate::supervisor::Answer;

pub(super) struct Child {
    pub(super) phase: Phase,
    pub(super) suspended: bool,
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
