//! What can be done to a running system by path, by whom, and why.

use std::sync::Arc;

use crate::actor::SlotKind;
use crate::actor::slot::AnySlot;
use crate::actor_system::ActorSystem;
use crate::error::SupervisorError;
use crate::lifecycle::{Action, Deed, LifecycleKind, Origin};
use crate::path::{Path, unescape};
use crate::supervisor::{Change, Given};

/// An action, with who wants it and which life is meant.
///
/// ```
/// use mister_smith_supervisors::{Act, Action, Origin};
///
/// let act = Act::new(Action::Restart).by(Origin::new("anna").because("it is slow")).life(3);
/// ```
#[derive(Clone, Debug)]
#[must_use = "an action does nothing until it is given to `ActorSystem::act`"]
pub struct Act {
    action: Action,
    origin: Option<Origin>,
    life: Option<u64>,
}

impl Act {
    /// An action by nobody in particular, on whichever life is there.
    pub fn new(action: Action) -> Self {
        Self { action, origin: None, life: None }
    }

    /// Who does it: the action becomes a lifecycle event, and the cause of what follows.
    pub fn by(mut self, origin: Origin) -> Self {
        self.origin = Some(origin);
        self
    }

    /// Only if the actor is in this life.
    pub fn life(mut self, life: u64) -> Self {
        self.life = Some(life);
        self
    }
}

/// An action that was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acted {
    /// What was done.
    pub action: Action,
    /// To whom.
    pub path: Path,
    /// The life that was there when it was done.
    pub life: u64,
    /// The lifecycle event that says who did it, if somebody did.
    pub seq: Option<u64>,
}

impl ActorSystem {
    /// Does something to the actor at `path`, and returns when it is done; a kill is done when it
    /// has begun.
    ///
    /// # Errors
    /// Nothing lives there, it is the root (which can only be killed), it is in another life than
    /// the one that was meant, there is no life to kill, a start failed, or its supervisor is down.
    ///
    /// # Cancel safety
    /// Dropping the future does not take the action back.
    pub async fn act(&self, path: &str, act: Act) -> Result<Acted, SupervisorError> {
        let slot = self.slot_at(path)?;
        let cell = slot.cell();
        let life = cell.life();
        if let Some(error) = act.life.and_then(|expected| cell.other_life(expected)) {
            return Err(error);
        }
        let change = Change::of(act.action);
        let refusal = match change {
            Some(change) => unsupported(&*slot, change),
            None => (!cell.is_running()).then(|| nothing_to_kill(&cell.path)),
        };
        if let Some(error) = refusal {
            return Err(error);
        }
        let seq = act.origin.map(|origin| {
            let deed = Arc::new(Deed { action: act.action, origin });
            cell.env.emit(cell, life, None, LifecycleKind::Action(deed))
        });
        match change {
            Some(change) => {
                let given = Given { cause_seq: seq, life: act.life };
                self.change(&slot, change, given).await?;
            }
            None if cell.kill_life_because(life, seq) => {}
            None => return Err(nothing_to_kill(&cell.path)),
        }
        Ok(Acted { action: act.action, path: cell.path.clone(), life, seq })
    }

    /// Kills the current life at `path`, whatever lives there. Its supervisor treats it as a
    /// crash. Says which life it was; `None` when there was none to kill.
    ///
    /// # Errors
    /// Nothing lives there.
    pub fn kill(&self, path: &str) -> Result<Option<u64>, SupervisorError> {
        let slot = self.slot_at(path)?;
        let life = slot.cell().life();
        Ok(slot.cell().kill_life(life).then_some(life))
    }

    /// Kills life `life` at `path`, and no other.
    ///
    /// # Errors
    /// Nothing lives there.
    pub fn kill_life(&self, path: &str, life: u64) -> Result<bool, SupervisorError> {
        Ok(self.slot_at(path)?.cell().kill_life(life))
    }

    /// Restarts the child at `path` and its group on purpose; one that is down is started.
    ///
    /// # Errors
    /// As [`act`](Self::act).
    pub async fn restart(&self, path: &str) -> Result<(), SupervisorError> {
        self.act(path, Act::new(Action::Restart)).await.map(|_| ())
    }

    /// Holds the child at `path` until [`resume`](Self::resume).
    ///
    /// # Errors
    /// As [`act`](Self::act).
    pub async fn suspend(&self, path: &str) -> Result<(), SupervisorError> {
        self.act(path, Act::new(Action::Suspend)).await.map(|_| ())
    }

    /// Ends a hold.
    ///
    /// # Errors
    /// As [`act`](Self::act).
    pub async fn resume(&self, path: &str) -> Result<(), SupervisorError> {
        self.act(path, Act::new(Action::Resume)).await.map(|_| ())
    }

    /// Stops the child at `path` in order; it stays down until it is started again.
    ///
    /// # Errors
    /// As [`act`](Self::act).
    pub async fn stop(&self, path: &str) -> Result<(), SupervisorError> {
        self.act(path, Act::new(Action::Stop)).await.map(|_| ())
    }

    async fn change(
        &self,
        slot: &Arc<dyn AnySlot>,
        change: Change,
        given: Given,
    ) -> Result<(), SupervisorError> {
        let path = &slot.cell().path;
        let id = path.segments().last().map(unescape).unwrap_or_default();
        let parent = path.parent().unwrap_or_else(Path::root);
        let supervisor = self
            .root
            .supervisor(&parent)
            .map_err(|_| SupervisorError::NotFound { supervisor: parent, id: id.clone() })?;
        supervisor.change_given(change, &id, given).await
    }

    pub(super) fn slot_at(&self, path: &str) -> Result<Arc<dyn AnySlot>, SupervisorError> {
        let path = Path::parse(path);
        self.root.find(&path).ok_or_else(|| SupervisorError::NotFound {
            supervisor: Path::root(),
            id: path.as_str().trim_start_matches('/').to_owned(),
        })
    }
}

/// What cannot be done to this kind of slot.
pub(super) fn unsupported(slot: &dyn AnySlot, change: Change) -> Option<SupervisorError> {
    let cell = slot.cell();
    let raw = cell.info.kind == SlotKind::Raw;
    let (action, why) = if raw && matches!(change, Change::Suspend | Change::Resume) {
        ("suspended", "a raw ractor actor has its own mailbox; stop it instead")
    } else if cell.path.is_root() {
        ("changed", "it is the root; shut the system down instead")
    } else {
        return None;
    };
    Some(SupervisorError::Unsupported { path: cell.path.clone(), action, why })
}

fn nothing_to_kill(path: &Path) -> SupervisorError {
    let why = "it has no life now; look at it again";
    SupervisorError::Unsupported { path: path.clone(), action: "killed", why }
}
