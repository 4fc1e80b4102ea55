//! What decides for a supervisor: the machine of declared children, or that of a crowd.

use std::sync::Arc;
use std::time::Duration;

use crate::supervisor::crowd::Crowd;
use crate::supervisor::intensity::IntensityUse;
use crate::supervisor::machine::Machine;
use crate::supervisor::orders::{Awaited, Cause, Input, Key, Order};
use crate::supervisor::policy::ChildPolicy;
use crate::supervisor::strategy::Policy;

#[derive(Clone, Debug)]
pub(crate) enum Brain {
    Fixed(Machine),
    Crowd(Crowd),
}

/// Asks whichever it is.
macro_rules! either {
    ($brain:expr, $it:ident => $asked:expr) => {
        match $brain {
            Brain::Fixed($it) => $asked,
            Brain::Crowd($it) => $asked,
        }
    };
}

impl Brain {
    /// Takes an input, and the event behind it if there is one.
    pub(crate) fn input(&mut self, now: Duration, input: Input, cause: Option<u64>) {
        either!(self, it => it.input(now, input, cause));
    }

    /// The next thing to do, and what led to it.
    pub(crate) fn next_order(&mut self) -> Option<(Order, Cause)> {
        either!(self, it => it.next_order())
    }

    pub(crate) fn key_of(&self, id: &str) -> Option<Key> {
        either!(self, it => it.key_of(id))
    }

    pub(crate) fn id_of(&self, key: Key) -> Arc<str> {
        either!(self, it => it.id_of(key))
    }

    pub(crate) fn life_of(&self, key: Key) -> u64 {
        either!(self, it => it.life_of(key))
    }

    /// The rules it goes by; they may change at run time.
    pub(crate) fn rules(&mut self) -> &mut Policy {
        either!(self, it => it.rules())
    }

    pub(crate) fn set_child_policy(&mut self, key: Key, policy: Arc<ChildPolicy>) {
        either!(self, it => it.set_child_policy(key, policy));
    }

    /// What it waits for, for whoever plays the world.
    pub(crate) fn awaited(&self) -> Option<Awaited> {
        either!(self, it => it.awaited())
    }

    /// Whether all is being stopped.
    pub(crate) fn is_ending(&self) -> bool {
        either!(self, it => it.is_ending())
    }

    /// Restarts counted in the window at `now`.
    pub(crate) fn intensity_use(&self, now: Duration) -> IntensityUse {
        either!(self, it => it.intensity_use(now))
    }

    /// A copy to try something out on the child with this id: of all that it takes, and no more.
    pub(crate) fn copy_for(&self, id: &str) -> Self {
        match self {
            Self::Fixed(machine) => Self::Fixed(machine.clone()),
            Self::Crowd(crowd) => Self::Crowd(crowd.only(id)),
        }
    }
}
