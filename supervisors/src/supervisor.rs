//! The supervisor: starts children in order, watches them, restarts them, gives up.
//!
//! ```text
//! SupervisorRef ──command──▶ SupervisorActor (ractor)
//!                              └─ Driver    inputs in, orders out           driver.rs, orders.rs
//!                                  ├─ Brain   decides: pure, no I/O         machine.rs, crowd.rs, strategy.rs
//!                                  └─ Lives   carries out: tasks and timers lives.rs, child.rs
//! ```
//!
//! The rules are those of Erlang/OTP's `supervisor`:
//!
//! - children start in order, each only when the one before is up, and stop in reverse;
//! - [`Strategy`] says who is affected by a failure, [`RestartPolicy`] who is started again;
//! - every restart attempt counts; more than the intensity allows within its period stops all
//!   children in reverse and fails upward;
//! - a child that fails to start is the next target, and not the one that crashed.
//!
//! It differs from OTP, on purpose, in three points: the intensity's window is exact; a supervisor
//! that gives up ends with the abnormal reason `Escalated`; a suspended child stays suspended
//! through a restart of its group.

use std::sync::Arc;

use ractor::{ActorProcessingErr, ActorRef, SupervisionEvent};
use tokio::sync::oneshot;

use crate::actor::cell::Running;
use crate::actor::panic::caught;
use crate::actor::slot::AnySlot;
use crate::environment::lock;
use crate::error::{ExitReason, SupervisorError};
use crate::health::Health;
use crate::lifecycle::Action;
use crate::path::Path;
use crate::supervisor::child::{Reports, StartResult};
use crate::supervisor::driver::Driver;
use crate::supervisor::lives::Lives;
use crate::supervisor::lives::raw::RawEnd;
use crate::supervisor::orders::Key;
use crate::tree::TreeRoot;

pub use intensity::{Intensity, IntensityUse, Window};
pub use policy::{ChildPolicy, ComponentType, Policies};
pub use reaction::{Outcome, Reaction, ReactionCell};
pub use reference::SupervisorRef;
pub use spec::{
    ChildSpec, DEFAULT_SHUTDOWN, DEFAULT_START_DEADLINE, OnCrash, Shutdown, SupervisorSpec,
};
pub use strategy::{
    AutoShutdown, ChildView, Decision, Policy, RestartPolicy, Situation, Strategy, affected,
    decide, decide_restart, group,
};

pub(crate) use lives::KILL_GRACE;
pub(crate) use place::{SupervisorLink, SupervisorPlace};
pub(crate) use policy::Terms;

pub(crate) mod across;
pub(crate) mod arrivals;
pub(crate) mod brain;
pub(crate) mod child;
mod crowd;
mod driver;
mod feed;
mod intensity;
mod lives;
mod machine;
pub(crate) mod orders;
mod place;
pub(crate) mod policy;
mod reaction;
mod reference;
mod reports;
pub(crate) mod spec;
pub(crate) mod strategy;
#[cfg(test)]
mod tests;

/// What a supervisor hears.
pub(crate) enum SupervisorMessage {
    /// Start the children.
    Init,
    /// There is more to do than could be done in one go.
    GoOn,
    /// Stop the children in reverse and end with `Shutdown`.
    ShutDown {
        cause_seq: Option<u64>,
    },
    StartDone {
        key: Key,
        life: u64,
        result: StartResult,
    },
    /// A life is over.
    Ended {
        key: Key,
        life: u64,
        reason: ExitReason,
    },
    /// Somebody killed this life of this child.
    Killed {
        id: Arc<str>,
        life: u64,
    },
    /// The dependents in other branches are down: this life may be told to stop.
    StopNow {
        key: Key,
        life: u64,
    },
    /// The clock has rung.
    Tick,
    HealthChecked {
        key: Key,
        life: u64,
        health: Health,
    },
    Request(Request),
}

/// A question to a supervisor, with its asker, so that nobody waits for who stops him.
pub(crate) struct Request {
    pub(crate) caller: Option<Path>,
    pub(crate) ask: Ask,
    pub(crate) given: Given,
}

/// What comes with a change that somebody orders.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Given {
    /// The event that says who ordered it.
    pub(crate) cause_seq: Option<u64>,
    /// Only if the child is in this life.
    pub(crate) life: Option<u64>,
}

pub(crate) type Answer<T> = oneshot::Sender<Result<T, SupervisorError>>;

pub(crate) enum Ask {
    Start(Box<ChildSpec>, Answer<Arc<dyn AnySlot>>),
    Change(Change, Arc<str>, Answer<()>),
    SetIntensity(Intensity, Answer<()>),
    SetPolicy(Arc<str>, ChildPolicy, Answer<()>),
    RestartsLeft(Answer<u32>),
}

/// What can be done to a child by id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// OTP's `terminate_child`.
    Terminate,
    /// OTP's `restart_child`: starts a child that is down.
    Restart,
    /// OTP's `delete_child`.
    Delete,
    /// Stops and starts a child and its group on purpose; not counted as a failure.
    PlannedRestart,
    Suspend,
    Resume,
    /// Stops a child because something in another branch that it needs is about to be down.
    Block,
    /// That is up again.
    Unblock,
}

impl Change {
    /// What an operator's action asks of the supervisor; a kill asks nothing of it.
    pub(crate) fn of(action: Action) -> Option<Self> {
        match action {
            Action::Kill => None,
            Action::Restart => Some(Self::PlannedRestart),
            Action::Stop => Some(Self::Terminate),
            Action::Start => Some(Self::Restart),
            Action::Suspend => Some(Self::Suspend),
            Action::Resume => Some(Self::Resume),
        }
    }
}

/// The ractor actor.
pub(crate) struct SupervisorActor;

pub(crate) struct SupervisorArgs {
    pub(crate) slot: Arc<dyn AnySlot>,
    pub(crate) spec: SupervisorSpec,
    pub(crate) root: TreeRoot,
    pub(crate) policies: Arc<Policies>,
    pub(crate) life: u64,
    pub(crate) cause_seq: Option<u64>,
    pub(crate) report: Box<dyn Reports>,
}

/// What both kinds of supervisor share.
pub(crate) struct Common {
    pub(crate) slot: Arc<dyn AnySlot>,
    pub(crate) link: SupervisorLink,
    pub(crate) lives: Lives,
    pub(crate) spec: SupervisorSpec,
    myself: ActorRef<SupervisorMessage>,
    life: u64,
    /// The event that led to this life.
    pub(crate) cause_seq: Option<u64>,
    is_ready: bool,
    next_key: Key,
    /// Set when all is done: the actor ends with it.
    pub(crate) finished: Option<ExitReason>,
    /// The last field: dropped when nothing else of this life is left.
    report: Box<dyn Reports>,
}

impl Common {
    pub(crate) fn next_key(&mut self) -> Key {
        self.next_key += 1;
        self.next_key
    }

    pub(crate) fn ready(&mut self) {
        if !std::mem::replace(&mut self.is_ready, true) {
            self.report.up();
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.link.path
    }

    /// Makes the slot of a child, or takes back the one that an earlier life of this supervisor
    /// left: addresses survive restarts of supervisors too.
    pub(crate) fn slot_for(&self, spec: &ChildSpec) -> Arc<dyn AnySlot> {
        match self.link.child(&spec.id) {
            Some(slot) if spec.child.fits(&slot) => slot,
            _ => spec.child.slot(spec, self.path().child(&spec.id), &self.lives.env),
        }
    }

    pub(crate) fn set_intensity(&mut self, intensity: Intensity) {
        self.spec.intensity = intensity;
        *lock(&self.link.intensity) = intensity;
    }

    /// This life will end, and event `seq` is why.
    pub(crate) fn ends_because(&self, seq: Option<u64>) {
        if let Some(seq) = seq {
            self.slot.cell().blame(self.life, seq);
        }
    }

    /// Refuses a change that is meant for another life of a child.
    pub(crate) fn refusal(&self, id: &str, given: Given) -> Option<SupervisorError> {
        let slot = self.link.child(id)?;
        given.life.and_then(|expected| slot.cell().other_life(expected))
    }

    pub(crate) fn send_myself(&self, message: SupervisorMessage) -> bool {
        self.myself.send_message(message).is_ok()
    }

    pub(crate) fn not_found(&self, id: &str) -> SupervisorError {
        SupervisorError::NotFound { supervisor: self.path().clone(), id: id.to_owned() }
    }

    pub(crate) fn stopping(&self) -> SupervisorError {
        SupervisorError::Stopping { supervisor: self.path().clone() }
    }

    /// Ends the actor once all is done. The reason is in the slot before anyone hears of the end.
    fn finish(&mut self) -> Result<(), ActorProcessingErr> {
        let Some(reason) = self.finished.take() else { return Ok(()) };
        self.slot.cell().record_exit(self.life, reason.clone());
        self.report.end(reason.clone());
        if reason.is_normal() {
            self.myself.stop(None);
            Ok(())
        } else {
            Err(reason.to_string().into())
        }
    }
}

impl Drop for Common {
    fn drop(&mut self) {
        let mut current = lock(&self.link.current);
        if current.as_ref().is_some_and(|(life, _)| *life == self.life) {
            *current = None;
        }
    }
}

impl ractor::Actor for SupervisorActor {
    type Msg = SupervisorMessage;
    type State = Driver;
    type Arguments = SupervisorArgs;

    async fn pre_start(
        &self,
        myself: ActorRef<SupervisorMessage>,
        args: SupervisorArgs,
    ) -> Result<Driver, ActorProcessingErr> {
        let SupervisorArgs { slot, spec, root, policies, life, cause_seq, report } = args;
        let link = slot.supervisor().cloned().ok_or("a supervisor's slot has a link")?;
        slot.cell().up(life, Running::Ractor(myself.get_cell()));
        if slot.cell().gate.is_killed(life) {
            return Err("killed before it began".into());
        }
        // First in its mailbox: what is asked of it before it knows its children would make them anew.
        myself.send_message(SupervisorMessage::Init)?;
        *lock(&link.current) = Some((life, myself.clone()));
        *lock(&link.intensity) = spec.intensity;
        // Checked by now, and with its children in start order.
        *lock(&link.declared) = spec.clone();
        let env = Arc::clone(&slot.cell().env);
        let reference = SupervisorRef::new(Arc::clone(&link));
        let lives = Lives::new(env, myself.clone(), reference, root, policies);
        let common = Common {
            slot,
            link,
            lives,
            spec,
            myself: myself.clone(),
            life,
            cause_seq,
            is_ready: false,
            next_key: 0,
            finished: None,
            report,
        };
        if common.slot.cell().gate.is_ending(life) {
            // Its start was taken back before it began.
            myself.send_message(SupervisorMessage::ShutDown { cause_seq })?;
        }
        Ok(Driver::new(common))
    }

    async fn handle(
        &self,
        _: ActorRef<SupervisorMessage>,
        message: SupervisorMessage,
        driver: &mut Driver,
    ) -> Result<(), ActorProcessingErr> {
        driver.message(message);
        if driver.goes_on() {
            // Its mailbox alone would not let others run in between.
            tokio::task::yield_now().await;
        }
        driver.common.finish()
    }

    async fn handle_supervisor_evt(
        &self,
        _: ActorRef<SupervisorMessage>,
        event: SupervisionEvent,
        driver: &mut Driver,
    ) -> Result<(), ActorProcessingErr> {
        // Lives and supervisors report themselves; only raw ractor actors are ractor's to report.
        let lives = &mut driver.common.lives;
        match event {
            SupervisionEvent::ActorTerminated(actor, state, word) => {
                // What a raw actor leaves is the application's.
                lives.env.dispose_elsewhere(state);
                lives.raw_ended(&actor, RawEnd::Terminated(word));
            }
            SupervisionEvent::ActorFailed(actor, error) => {
                // So are its errors, and how they are shown.
                let text = caught("error of a raw actor", || error.to_string());
                lives.env.dispose_elsewhere(error);
                let text = text.unwrap_or_else(|| "an error that cannot be shown".to_owned());
                lives.raw_ended(&actor, RawEnd::Failed(text));
            }
            SupervisionEvent::ActorStarted(_) | SupervisionEvent::ProcessGroupChanged(_) => {}
        }
        driver.common.finish()
    }
}
