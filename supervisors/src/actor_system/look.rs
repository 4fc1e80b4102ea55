//! Looking at a running system without asking anybody in it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::actor::{FailureRecord, MessageView, WaitView};
use crate::actor_system::ActorSystem;
use crate::error::{AskError, SupervisorError};
use crate::inspect::rehearsal::rehearse;
use crate::inspect::{Heat, Look, Picture, Plan, Recorded, Timeline, Waits};
use crate::lifecycle::Action;
use crate::path::Path;
use crate::supervisor::{ChildPolicy, Shutdown};
use crate::thread_pool::ThreadPoolView;
use crate::tree::SupervisionTree;

/// What is known of one actor besides its [`NodeView`](crate::NodeView).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ActorView {
    /// Its statistics by kind of message, in the order in which it met them.
    pub messages: Vec<MessageView>,
    /// Its last failures, oldest first.
    pub failures: Vec<Arc<FailureRecord>>,
    /// Whether it records what it handles.
    pub recording: bool,
    /// Its last messages, oldest first.
    pub recorded: Vec<Recorded>,
    /// Whom it waits for now.
    pub waits: Vec<WaitView>,
    /// How it is restarted.
    pub policy: ChildPolicy,
    /// How it is stopped.
    pub shutdown: Shutdown,
}

/// What all slots of a system together have done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Totals {
    /// How many slots there are.
    pub slots: usize,
    /// Messages handled, over all lives of those that are there.
    pub handled: u64,
    /// Restarts of those that are there.
    pub restarts: u64,
    /// Lives that failed, or failed to start, of all that ever were.
    pub failures: u64,
}

impl ActorSystem {
    /// Looks at a part of the tree as `look` says: sorted, filtered, folded. `None` when nothing
    /// lives at its path.
    #[must_use]
    pub fn look_for(&self, look: &Look) -> Option<SupervisionTree> {
        let slot = self.root.find(look.path())?;
        Some(SupervisionTree::looked(&slot, &self.name, look))
    }

    /// What is known of the actor at `path`. `None` when nothing lives there.
    #[must_use]
    pub fn actor(&self, path: &str) -> Option<ActorView> {
        let slot = self.root.find(&Path::parse(path))?;
        let cell = slot.cell();
        let (policy, shutdown) = cell.terms(|terms| (*terms.policy(), terms.shutdown));
        Some(ActorView {
            messages: cell.kinds(|kinds| kinds.views(&cell.stats)),
            failures: cell.failures(),
            recording: slot.record(None),
            recorded: cell.recorded(),
            waits: cell.waits(),
            policy,
            shutdown,
        })
    }

    /// What all slots together have done. Walks them all.
    #[must_use]
    pub fn totals(&self) -> Totals {
        let mut totals = Totals { failures: self.timeline().failures(), ..Totals::default() };
        crate::tree::walk(&self.slot, &mut |slot| {
            let cell = slot.cell();
            totals.slots += 1;
            totals.restarts += cell.restarts();
            totals.handled += cell.kinds(|kinds| kinds.handled(&cell.stats));
        });
        totals
    }

    /// What the system's thread pools do now, and have done.
    #[must_use]
    pub fn thread_pools(&self) -> Vec<ThreadPoolView> {
        self.slot.cell().env.thread_pools.views()
    }

    /// A picture of the state of the actor at `path`, made between two messages. `None`: it shows
    /// none.
    ///
    /// # Errors
    /// Nothing lives there, it has no life now, or does not come to it before the deadline.
    ///
    /// # Cancel safety
    /// Nothing is lost by dropping it.
    pub async fn inspect(
        &self,
        path: &str,
        deadline: Duration,
    ) -> Result<Option<Picture>, AskError> {
        let path = Path::parse(path);
        match self.root.find(&path) {
            Some(slot) => crate::inspect::picture::ask(&slot, deadline).await,
            None => Err(AskError::Stopped { path }),
        }
    }

    /// Every slot as a byte, in the order of the tree.
    #[must_use]
    pub fn heat(&self) -> Heat {
        Heat::of(&self.slot)
    }

    /// The path of the slot at `index` of a [`Heat`] of the tree as it is now, and the last lifecycle
    /// event before: if that is not the heat's, the slot may be another.
    #[must_use]
    pub fn heat_path(&self, index: usize) -> Option<(u64, Path)> {
        Heat::path_at(&self.slot, index)
    }

    /// Who waits for whom: all actors that ask and have no answer yet, and the circles that they
    /// form.
    #[must_use]
    pub fn waits(&self) -> Waits {
        Waits::of(&self.slot)
    }

    /// Switches the flight recorder of the actor at `path`, and of all that live below it now, on
    /// or off; at the root also of all that come later. Switched off, what was recorded is
    /// forgotten.
    ///
    /// # Errors
    /// Nothing lives there.
    pub fn record(&self, path: &str, on: bool) -> Result<(), SupervisorError> {
        let slot = self.slot_at(path)?;
        if slot.cell().path.is_root() {
            slot.cell().env.recording.store(on, Ordering::Relaxed);
        }
        crate::tree::walk(&slot, &mut |slot| {
            slot.record(Some(on));
        });
        Ok(())
    }

    /// The lifecycle events so far, as far back as they are kept.
    #[must_use]
    pub fn timeline(&self) -> Timeline {
        Timeline::new(Arc::clone(&self.slot.cell().env.history))
    }

    /// What `action` would do to the actor at `path`: a dry run by the supervisors' own decisions,
    /// on copies of their state. Nobody is asked, and nothing happens.
    ///
    /// It supposes that what is stopped stops, and what is started starts.
    ///
    /// # Errors
    /// Nothing lives there.
    pub fn plan(&self, path: &str, action: Action) -> Result<Plan, SupervisorError> {
        let slot = self.slot_at(path)?;
        Ok(rehearse(&self.root, &slot, action))
    }
}
