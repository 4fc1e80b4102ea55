//! The dry run of an action.
//!
//! It takes copies of what decides in the supervisors, and plays the world to them: what is stopped
//! has stopped, what is started is up.

use std::sync::Arc;
use std::time::Duration;

use crate::actor::slot::AnySlot;
use crate::error::ExitReason;
use crate::inspect::plan::{Plan, PlannedEnd, PlannedStop};
use crate::lifecycle::Action;
use crate::path::{Path, unescape};
use crate::supervisor::brain::Brain;
use crate::supervisor::orders::{Asker, Awaited, Command, Input, Order, Reply, StartOutcome};
use crate::supervisor::spec::{Shutdown, SupervisorSpec};
use crate::supervisor::{Change, SupervisorLink, SupervisorPlace};
use crate::tree::TreeRoot;

/// What `action` would do to the child in `slot`.
pub(crate) fn rehearse(root: &TreeRoot, slot: &Arc<dyn AnySlot>, action: Action) -> Plan {
    let cell = slot.cell();
    let plan = Plan {
        action,
        path: cell.path.clone(),
        life: cell.life(),
        refused: None,
        stops: Vec::new(),
        starts: Vec::new(),
        reactions: Vec::new(),
        intensity: None,
        ends_system: false,
    };
    let now = cell.env.clock.elapsed();
    let mut rehearsal = Rehearsal { root, now, plan, reply: None };
    let refused =
        if action == Action::Kill { rehearsal.kill(slot) } else { rehearsal.change(slot, action) };
    let mut plan = rehearsal.plan;
    if let Err(why) = refused {
        plan.refused = Some(why.to_owned());
        plan.stops.clear();
        plan.starts.clear();
        plan.reactions.clear();
    }
    plan.intensity = match plan.reactions.first() {
        Some(reaction) => Some(reaction.intensity),
        None => rehearsal.root.place_of(&cell.path).map(|link| link.intensity_use(now)),
    };
    plan
}

struct Rehearsal<'a> {
    root: &'a TreeRoot,
    now: Duration,
    plan: Plan,
    reply: Option<Reply>,
}

type Refused = Result<(), &'static str>;

impl Rehearsal<'_> {
    fn kill(&mut self, slot: &Arc<dyn AnySlot>) -> Refused {
        if !slot.cell().is_running() {
            return Err("it has no life to kill now");
        }
        self.killed(slot);
        self.ended(slot, &ExitReason::Killed)
    }

    fn change(&mut self, slot: &Arc<dyn AnySlot>, action: Action) -> Refused {
        let path = &slot.cell().path;
        let Some(link) = self.root.place_of(path) else {
            return Err("it is the root; shut the system down instead");
        };
        if slot.cell().info.kind == crate::actor::SlotKind::Raw
            && matches!(action, Action::Suspend | Action::Resume)
        {
            return Err("a raw ractor actor has its own mailbox; stop it instead");
        }
        if !link.is_up() {
            return Err("its supervisor is down");
        }
        let id = id_of(path);
        let mut brain = self.copy(&link, &id)?;
        let Some(change) = Change::of(action) else { return Ok(()) };
        let command = Command::Change { change, id: id.into() };
        let asker = Asker { token: 0, from: None };
        brain.input(self.now, Input::Command { asker, command }, None);
        self.drive(&mut brain, &link);
        match &self.reply {
            Some(Reply::Done) | None => Ok(()),
            Some(Reply::Running(_)) => Err("it runs"),
            Some(Reply::Restarting(_)) => Err("it is being restarted"),
            Some(Reply::Stopping) => Err("its supervisor is stopping"),
            Some(Reply::NeedsDependency { .. }) => Err("what it depends on is not up"),
            Some(_) => Err("its supervisor would refuse"),
        }
    }

    /// A copy of what decides at `link`, with what is under way and what waits done.
    fn copy(&self, link: &SupervisorLink, id: &str) -> Result<Brain, &'static str> {
        let mut brain = link.copy_for(id).ok_or("its supervisor is down")?;
        // What happens anyway is no part of the plan.
        let mut aside =
            Rehearsal { root: self.root, now: self.now, plan: self.plan.clone(), reply: None };
        loop {
            if aside.drive(&mut brain, link).is_some() || brain.is_ending() {
                return Err("its supervisor is ending");
            }
            let done = match brain.awaited() {
                Some(Awaited::Stop(key, life)) => {
                    Input::Ended { key, life, reason: ExitReason::Shutdown }
                }
                Some(Awaited::Start(key, life)) => {
                    Input::StartDone { key, life, outcome: StartOutcome::Started }
                }
                None => return Ok(brain),
            };
            brain.input(self.now, done, None);
        }
    }

    /// Carries out the orders on paper. `Some` when the supervisor ends.
    fn drive(&mut self, brain: &mut Brain, link: &SupervisorLink) -> Option<ExitReason> {
        while let Some((order, _)) = brain.next_order() {
            let done = match order {
                Order::Start { key, life } => {
                    if let Some(slot) = link.child(&brain.id_of(key)) {
                        self.start(&slot);
                    }
                    Input::StartDone { key, life, outcome: StartOutcome::Started }
                }
                Order::Stop { key, life, .. } => {
                    if let Some(slot) = link.child(&brain.id_of(key)) {
                        self.stop(&slot);
                    }
                    Input::Ended { key, life, reason: ExitReason::Shutdown }
                }
                Order::RetryAfter { key, epoch, .. } => Input::Retry { key, epoch },
                Order::Report(report) => {
                    let reaction = report.reaction.as_deref().cloned();
                    self.plan.reactions.extend(reaction);
                    continue;
                }
                Order::Reply { reply, .. } => {
                    self.reply = Some(reply);
                    continue;
                }
                // Its copy knows of one child.
                Order::Ending { .. } if link.dynamic => {
                    self.stop_others(link, brain);
                    continue;
                }
                Order::Finish(reason) => return Some(reason),
                _ => continue,
            };
            brain.input(self.now, done, None);
        }
        None
    }

    /// Stops whoever lives under a supervisor and is not known to the copy of what decides there.
    fn stop_others(&mut self, link: &SupervisorLink, known: &Brain) {
        let ended: Vec<Path> = self.plan.stops.iter().map(|stop| stop.path.clone()).collect();
        for slot in link.slots() {
            let path = &slot.cell().path;
            let up = slot.cell().is_reported_up() && !ended.contains(path);
            if up && known.key_of(&id_of(path)).is_none() {
                self.stop(&slot);
            }
        }
    }

    // --- ends ----------------------------------------------------------------------------------

    fn ends(&mut self, path: &Path, how: PlannedEnd) {
        self.plan.stops.push(PlannedStop { path: path.clone(), how });
    }

    /// A life is killed, and what lives below it with it.
    fn killed(&mut self, slot: &Arc<dyn AnySlot>) {
        self.ends(&slot.cell().path, PlannedEnd::Killed);
        if let Some(link) = slot.supervisor() {
            self.lost(link);
        }
    }

    fn lost(&mut self, place: &SupervisorPlace) {
        for slot in place.slots().iter().rev() {
            if slot.cell().is_reported_up() {
                self.ends(&slot.cell().path, PlannedEnd::Killed);
            }
            if let Some(link) = slot.supervisor() {
                self.lost(link);
            }
        }
    }

    /// A supervisor stops a child in order.
    fn stop(&mut self, slot: &Arc<dyn AnySlot>) {
        let cell = slot.cell();
        if cell.terms(|terms| terms.shutdown) == Shutdown::BrutalKill {
            return self.killed(slot);
        }
        if let Some(link) = slot.supervisor() {
            self.stop_below(link);
        }
        self.ends(&cell.path, PlannedEnd::Stopped);
    }

    fn stop_below(&mut self, link: &SupervisorLink) {
        // Of a crowd, nobody in particular: all are stopped at once.
        if let Some(mut brain) = link.copy_for("") {
            brain.input(self.now, Input::ShutDown, None);
            self.drive(&mut brain, link);
        }
    }

    /// A child has ended by itself: what its supervisor does, and so on upward.
    fn ended(&mut self, slot: &Arc<dyn AnySlot>, reason: &ExitReason) -> Refused {
        let path = &slot.cell().path;
        let (Some(parent), Some(link)) =
            (path.parent().and_then(|parent| self.root.find(&parent)), self.root.place_of(path))
        else {
            self.plan.ends_system = true;
            return Ok(());
        };
        let id = id_of(path);
        let mut brain = self.copy(&link, &id)?;
        if let Some(key) = brain.key_of(&id) {
            let life = brain.life_of(key);
            brain.input(self.now, Input::Ended { key, life, reason: reason.clone() }, None);
        }
        let end = self.drive(&mut brain, &link);
        let Some(end) = end else { return Ok(()) };
        if !parent.cell().path.is_root() {
            let how = if end.is_normal() { PlannedEnd::Stopped } else { PlannedEnd::GaveUp };
            self.ends(&parent.cell().path, how);
        }
        self.ended(&parent, &end)
    }

    // --- starts --------------------------------------------------------------------------------

    fn start(&mut self, slot: &Arc<dyn AnySlot>) {
        let path = &slot.cell().path;
        match slot.supervisor() {
            Some(link) => self.start_supervisor(path, &link.declared(), self.afresh(path, link)),
            None => self.plan.starts.push(path.clone()),
        }
    }

    /// A dynamic supervisor that stops in order takes the slots of its children with it, and who was
    /// held there is not any more.
    fn afresh(&self, path: &Path, place: &SupervisorPlace) -> bool {
        let in_order = |stop: &PlannedStop| stop.path == *path && stop.how != PlannedEnd::Killed;
        place.forgets_children() && self.plan.stops.iter().any(in_order)
    }

    /// A fresh life of a supervisor starts what is declared, and is up when all that is.
    fn start_supervisor(&mut self, path: &Path, spec: &SupervisorSpec, afresh: bool) {
        for child in &spec.children {
            let path = path.child(&child.id);
            let slot = self.root.find(&path);
            if !afresh && slot.as_ref().is_some_and(|slot| slot.cell().is_suspended()) {
                continue;
            }
            match (slot.as_ref().and_then(|slot| slot.supervisor()), child.child.supervisor()) {
                (Some(link), _) => {
                    let afresh = afresh || self.afresh(&path, link);
                    self.start_supervisor(&path, &link.declared(), afresh);
                }
                (None, Some(spec)) => self.start_supervisor(&path, &spec.in_start_order(), true),
                (None, None) => self.plan.starts.push(path),
            }
        }
        self.plan.starts.push(path.clone());
    }
}

fn id_of(path: &Path) -> String {
    path.segments().last().map(unescape).unwrap_or_default()
}
