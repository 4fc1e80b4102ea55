//! Stopping lives, and learning of their ends.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::actor::slot::AnySlot;
use crate::actor::state::{SlotKind, SlotState};
use crate::error::ExitReason;
use crate::lifecycle::LifecycleKind;
use crate::supervisor::SupervisorMessage;
use crate::supervisor::across;
use crate::supervisor::lives::clock::Alarm;
use crate::supervisor::lives::{KILL_GRACE, Lives};
use crate::supervisor::orders::Key;
use crate::supervisor::spec::Shutdown;

impl Lives {
    /// Tells a life to stop, kills it when its time is up, and gives it up as stuck when even
    /// that does not end it. `planned`: another life will follow.
    pub(crate) fn stop(&mut self, key: Key, planned: bool) {
        let Some(child) = self.children.get_mut(&key) else { return };
        let cell = child.slot.cell();
        cell.set_state(SlotState::Stopping);
        if !planned {
            cell.refuse_asks(true);
        }
        child.planned = planned;
        child.health_check = None;
        let life = child.life;
        if !std::mem::replace(&mut child.stopping, true) {
            self.env.in_between.fetch_add(1, Ordering::SeqCst);
        }
        if child.spec.shutdown != Shutdown::BrutalKill && self.env.across.has_dependents(&cell.path)
        {
            let path = cell.path.clone();
            let message = SupervisorMessage::StopNow { key, life };
            across::stop_after_dependents(&self.env, self.myself.clone(), path, message);
            return self.disarm(key);
        }
        self.stop_now(key, life);
    }

    /// The stop itself, once no dependent in another branch stands in its way.
    pub(crate) fn stop_now(&mut self, key: Key, life: u64) {
        let Some(child) = self.children.get_mut(&key) else { return };
        if child.life != life || !child.stopping || !(child.up || child.starting) {
            return;
        }
        let (cause_seq, planned) = (child.cause_seq, child.planned);
        let cell = child.slot.cell();
        let limit = match (child.spec.shutdown, child.slot.supervisor()) {
            (Shutdown::BrutalKill, _) => None,
            (shutdown, Some(link)) => {
                if child.starting {
                    // It may be too early for the message. First the sign: one that begins now sees
                    // it, or gets the message.
                    cell.gate.stop(life);
                }
                let told = link.send(SupervisorMessage::ShutDown { cause_seq });
                (told || child.starting).then_some(shutdown)
            }
            (shutdown, None) => {
                cell.request_stop(life, planned);
                Some(shutdown)
            }
        };
        // What it asks of those that its own supervisor would have to start first is not answered.
        self.fail_blocked();
        match limit {
            None => self.kill(key, life),
            Some(Shutdown::After(limit)) => self.arm(key, limit, Alarm::Stop),
            Some(_) => self.disarm(key),
        }
    }

    /// Kills life `life` of a child that was told to stop.
    pub(super) fn kill(&mut self, key: Key, life: u64) {
        let Some(child) = self.children.get_mut(&key) else { return };
        if child.life != life || !(child.up || child.starting) {
            return;
        }
        child.slot.cell().end_life(life);
        self.arm(key, KILL_GRACE, Alarm::Kill);
    }

    /// Somebody killed life `life` of a child. One that does not end in time is given up.
    pub(crate) fn killed(&mut self, key: Key, life: u64) {
        let child = self.children.get(&key);
        if child.is_some_and(|child| child.life == life && child.up && !child.stopping) {
            self.arm(key, KILL_GRACE, Alarm::Kill);
        }
    }

    /// Gives up on a life that does not end: which life, and whether it was told to stop. `None`
    /// when it has ended meanwhile.
    pub(super) fn abandon(&mut self, key: Key) -> Option<(u64, bool)> {
        let child = self.children.get_mut(&key)?;
        if !std::mem::take(&mut child.up) {
            return None;
        }
        self.ended_in_between(key);
        let child = self.children.get_mut(&key)?;
        let stopping = std::mem::take(&mut child.stopping);
        let life = child.life;
        child.slot.cell().set_state(SlotState::Stuck);
        self.env.not_in_order.fetch_add(1, Ordering::SeqCst);
        self.abandoned.insert((key, life), Arc::clone(&child.slot));
        Some((life, stopping))
    }

    fn ended_in_between(&self, key: Key) {
        if self.children.get(&key).is_some_and(|child| child.stopping) {
            self.env.in_between.fetch_sub(1, Ordering::SeqCst);
        }
    }

    /// Learns of an end. `false` when it is nobody's, or the late one of a life that was given up.
    /// It is told by whoever decides what follows.
    pub(crate) fn ended(&mut self, key: Key, life: u64, reason: &ExitReason) -> bool {
        if let Some(slot) = self.abandoned.remove(&(key, life)) {
            let cause = self.children.get(&key).and_then(|child| child.cause_seq);
            self.let_go_at_last(&slot, life, cause, reason);
            return false;
        }
        let Some(child) = self.children.get_mut(&key) else { return false };
        if child.life != life || !std::mem::take(&mut child.up) {
            return false;
        }
        self.ended_in_between(key);
        self.disarm(key);
        let Some(child) = self.children.get_mut(&key) else { return false };
        child.health_check = None;
        let stopping = std::mem::take(&mut child.stopping);
        let planned = std::mem::take(&mut child.planned);
        let cell = child.slot.cell();
        if !matches!(cell.info.kind, SlotKind::Actor | SlotKind::Task) {
            // An actor's life clears its own slot when it lets go.
            cell.life_ended(life, false);
        }
        cell.record_exit(life, reason.clone());
        cell.set_state(SlotState::Down);
        if stopping && !planned {
            self.env.asks.fail_asked(&*child.slot);
        }
        if !stopping {
            self.env.across_down(&child.slot.cell().path);
        }
        self.fail_blocked();
        true
    }

    /// A life that was given up as stuck has ended after all.
    fn let_go_at_last(
        &self,
        slot: &Arc<dyn AnySlot>,
        life: u64,
        cause: Option<u64>,
        reason: &ExitReason,
    ) {
        let cell = slot.cell();
        if cell.life() == life && cell.state() == SlotState::Stuck {
            cell.set_state_of(life, SlotState::Down);
            let kind = LifecycleKind::Stopped { reason: reason.clone() };
            self.env.emit(cell, life, cause, kind);
        }
    }

    /// Fails the questions that wait for each other's end, if there can be any.
    fn fail_blocked(&self) {
        if self.env.in_between.load(Ordering::SeqCst) > 0 {
            self.env.asks.fail_blocked(&self.root);
        }
    }
}
