//! The dry run of an action.
//!
//! It takes copies of what the supervisors know (machines, windows, terms: all in cells that anybody
//! may read) and plays the world to them: what is stopped has stopped, what is started is up. The
//! decisions are those of [`Machine`] and [`alone`], the ones that running supervisors ask.

use std::sync::Arc;
use std::time::Duration;

use crate::actor::slot::AnySlot;
use crate::error::ExitReason;
use crate::lifecycle::Action;
use crate::path::{Path, unescape};
use crate::supervisor::dynamic::decision::alone;
use crate::supervisor::machine::{Awaited, Command, Input, Machine, Order, Reply, StartOutcome};
use crate::supervisor::plan::{Plan, PlannedEnd, PlannedStop};
use crate::supervisor::reaction::Outcome;
use crate::supervisor::spec::{Shutdown, SupervisorSpec};
use crate::supervisor::strategy::Decision;
use crate::supervisor::{SupervisorLink, SupervisorPlace};
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
        if link.dynamic {
            return self.change_alone(slot, action);
        }
        let mut machine = self.machine(&link)?;
        let id: Arc<str> = id_of(path).into();
        let command = match action {
            Action::Restart => Command::PlannedRestart(id),
            Action::Stop => Command::Terminate(id),
            Action::Start => Command::Restart(id),
            Action::Suspend => Command::Suspend(id),
            _ => Command::Resume(id),
        };
        machine.input(self.now, Input::Command { token: 0, command });
        self.drive(&mut machine, &link);
        match &self.reply {
            Some(Reply::Done) | None => Ok(()),
            Some(Reply::Running(_)) => Err("it runs"),
            Some(Reply::Restarting(_)) => Err("it is being restarted"),
            Some(Reply::Stopping) => Err("its supervisor is stopping"),
            Some(_) => Err("its supervisor would refuse"),
        }
    }

    /// The same for a child of a dynamic supervisor.
    fn change_alone(&mut self, slot: &Arc<dyn AnySlot>, action: Action) -> Refused {
        use crate::actor::SlotState as State;
        let cell = slot.cell();
        let up = cell.is_reported_up();
        match (action, cell.state()) {
            (Action::Stop | Action::Restart, State::Starting) => {
                return Err("it is being restarted");
            }
            (Action::Stop | Action::Restart, State::Stopping) => {
                return Err("it is being stopped");
            }
            (Action::Start, State::Backoff) => return Err("it is being restarted"),
            (Action::Start, _) => return Err("it runs"),
            (Action::Suspend, _) => {}
            (Action::Resume, _) if up || !cell.is_suspended() => {}
            (Action::Resume, _) => self.start(slot),
            (action, _) => {
                if up {
                    self.stop(slot);
                }
                if action == Action::Restart {
                    self.start(slot);
                }
            }
        }
        Ok(())
    }

    /// A copy of a machine, with what is under way and what waits done.
    fn machine(&mut self, link: &SupervisorLink) -> Result<Machine, &'static str> {
        let mut machine = link.machine().ok_or("its supervisor is down")?;
        // What happens anyway is no part of the plan.
        let mut aside =
            Rehearsal { root: self.root, now: self.now, plan: self.plan.clone(), reply: None };
        loop {
            if aside.drive(&mut machine, link).is_some() {
                return Err("its supervisor is ending");
            }
            match machine.awaited() {
                Some(Awaited::Stop(key)) => {
                    machine.input(self.now, Input::Ended { key, reason: ExitReason::Shutdown });
                }
                Some(Awaited::Start(key)) => {
                    let outcome = StartOutcome::Started;
                    machine.input(self.now, Input::StartDone { key, outcome });
                }
                None => return Ok(machine),
            }
        }
    }

    /// Carries out the orders on paper. `Some` when the supervisor ends.
    fn drive(&mut self, machine: &mut Machine, link: &SupervisorLink) -> Option<ExitReason> {
        while let Some(order) = machine.next_order() {
            match order {
                Order::Start { key, .. } => {
                    if let Some(slot) = link.child(&machine.id_of(key)) {
                        self.start(&slot);
                    }
                    let outcome = StartOutcome::Started;
                    machine.input(self.now, Input::StartDone { key, outcome });
                }
                Order::Stop { key, .. } => {
                    if let Some(slot) = link.child(&machine.id_of(key)) {
                        self.stop(&slot);
                    }
                    machine.input(self.now, Input::Ended { key, reason: ExitReason::Shutdown });
                }
                Order::RetryAfter { key, epoch, .. } => {
                    machine.input(self.now, Input::Retry { key, epoch });
                }
                Order::Decided { reaction, .. } => {
                    self.plan.reactions.push((*reaction).clone());
                }
                Order::Reply { reply, .. } => self.reply = Some(reply),
                Order::Finish(reason) => return Some(reason),
                Order::AbortStart { .. }
                | Order::CancelRetry { .. }
                | Order::Down { .. }
                | Order::Forget { .. }
                | Order::Pause { .. }
                | Order::Ready
                | Order::Escalating { .. } => {}
            }
        }
        None
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
        if let Some(mut machine) = link.machine() {
            machine.shut_down(self.now, ExitReason::Shutdown);
            self.drive(&mut machine, link);
            return;
        }
        for slot in link.slots() {
            if slot.cell().is_reported_up() {
                self.stop(&slot);
            }
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
        let end = if link.dynamic {
            self.ended_alone(slot, &link, reason)
        } else {
            let mut machine = self.machine(&link)?;
            if let Some(key) = machine.key_of(&id_of(path)) {
                machine.input(self.now, Input::Ended { key, reason: reason.clone() });
            }
            self.drive(&mut machine, &link)
        };
        let Some(end) = end else { return Ok(()) };
        if !parent.cell().path.is_root() {
            let how = if end.is_normal() { PlannedEnd::Stopped } else { PlannedEnd::GaveUp };
            self.ends(&parent.cell().path, how);
        }
        self.ended(&parent, &end)
    }

    /// The same for a child of a dynamic supervisor.
    fn ended_alone(
        &mut self,
        slot: &Arc<dyn AnySlot>,
        link: &SupervisorLink,
        reason: &ExitReason,
    ) -> Option<ExitReason> {
        let cell = slot.cell();
        let mut window = link.window();
        let (mut terms, intensity) = (cell.terms(|terms| terms.clone()), link.intensity());
        let (suspended, normal) = (cell.is_suspended(), Some(reason.is_normal()));
        let (decision, reaction) =
            alone(&cell.path, &mut terms, suspended, normal, intensity, &mut window, self.now);
        let held = reaction.outcome == Outcome::Held;
        self.plan.reactions.push(reaction);
        match decision {
            Decision::Restart { .. } if !held => self.start(slot),
            Decision::GiveUp => {
                for other in link.slots() {
                    if other.cell().path != cell.path && other.cell().is_reported_up() {
                        self.stop(&other);
                    }
                }
                let cause = Box::new(reason.clone());
                return Some(ExitReason::Escalated { child: cell.path.clone(), cause });
            }
            _ => {}
        }
        None
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
