//! What is asked of it. Commands are served one after the other, each when nothing else is done.

use super::{Child, Machine, Phase, Purpose, Step};
use crate::error::ExitReason;
use crate::supervisor::Change;
use crate::supervisor::orders::{Asker, Command, Declared, Key, Order, Reply};
use crate::supervisor::strategy::group;
use std::sync::Arc;

impl Machine {
    pub(super) fn command(&mut self, asker: Asker, command: Command) {
        let (change, id) = match command {
            Command::Add { key, child } => return self.add(asker, key, child),
            Command::Change { change, id } => (change, id),
        };
        let Some(key) = self.key_of(&id) else {
            return self.reply(asker, Reply::NotFound(id));
        };
        match change {
            Change::Terminate => {
                self.unsuspend(key);
                self.begin([Step::Stop(key)], Purpose::Terminate { key }, Some(asker));
            }
            Change::Restart => match self.refusal(key) {
                Some(refusal) => self.reply(asker, refusal),
                None => {
                    self.unsuspend(key);
                    let purpose = Purpose::StartChild { key, added: false };
                    self.begin(self.start_steps(key), purpose, Some(asker));
                }
            },
            Change::Delete => match self.not_down(key) {
                Some(refusal) => self.reply(asker, refusal),
                None => {
                    self.forget(key, ExitReason::Shutdown);
                    self.reply(asker, Reply::Done);
                }
            },
            Change::PlannedRestart => self.planned_restart(asker, key),
            Change::Suspend => self.suspend(asker, key),
            Change::Resume => self.resume(asker, key),
            Change::Block => self.block(asker, key),
            Change::Unblock => {
                if let Some(child) = self.child_mut(key) {
                    child.blocked = false;
                }
                // If it is due, it is started as soon as this is answered.
                self.reply(asker, Reply::Done);
            }
        }
    }

    fn add(&mut self, asker: Asker, key: Key, child: Declared) {
        let id = Arc::clone(&child.id);
        if let Some(known) = self.children.iter().find(|other| other.declared.id == id) {
            let reply = match known.phase {
                Phase::Down | Phase::Waiting { .. } => Reply::AlreadyPresent(id),
                _ => Reply::AlreadyStarted(id),
            };
            return self.reply(asker, reply);
        }
        if let Some(dependency) = child.depends_on.iter().find(|id| self.key_of(id).is_none()) {
            let dependency = Arc::clone(dependency);
            return self.reply(asker, Reply::UnknownDependency { id, dependency });
        }
        if let Some(dependency) = self.missing(&child) {
            return self.reply(asker, Reply::NeedsDependency { id, dependency });
        }
        self.order(Order::Admit { key, token: asker.token });
        let child = Child::new(&self.path, key, child);
        self.children.push(child);
        let purpose = Purpose::StartChild { key, added: true };
        self.begin([Step::Start(key)], purpose, Some(asker));
    }

    fn planned_restart(&mut self, asker: Asker, key: Key) {
        let Some(at) = self.index(key) else { return };
        self.unsuspend(key);
        let (stop, start) = group(&self.views(), at, self.policy.strategy);
        let stop = self.keys(&stop).into_iter().map(Step::Stop);
        let start = self.keys(&start).into_iter().map(Step::Start);
        self.begin(stop.chain(start), Purpose::Planned, Some(asker));
    }

    fn suspend(&mut self, asker: Asker, key: Key) {
        let Some(child) = self.child_mut(key) else { return };
        child.suspended = true;
        if let Phase::Waiting { start } = child.phase.clone() {
            child.due = true;
            // The rest of its group was to come back with it, and does not have to wait for it.
            self.cancel_retry(key);
            let others = start.into_iter().filter(|k| *k != key).map(Step::Start);
            self.begin(others, Purpose::Restart, None);
        }
        self.order(Order::Pause { key, paused: true });
        self.reply(asker, Reply::Done);
    }

    /// Something in another branch that the child needs is about to be down, or is.
    fn block(&mut self, asker: Asker, key: Key) {
        let Some(child) = self.child_mut(key) else { return };
        child.blocked = true;
        match child.phase.clone() {
            Phase::Up => {
                child.due = true;
                self.begin([Step::Stop(key)], Purpose::Hold, Some(asker));
            }
            Phase::Waiting { start } => {
                child.due = true;
                self.cancel_retry(key);
                let others = start.into_iter().filter(|k| *k != key).map(Step::Start);
                self.begin(others, Purpose::Restart, Some(asker));
            }
            _ => self.reply(asker, Reply::Done),
        }
    }

    fn resume(&mut self, asker: Asker, key: Key) {
        self.unsuspend(key);
        let starts = self.child(key).is_some_and(|child| {
            child.due
                && child.phase == Phase::Down
                && !child.blocked
                && self.missing(&child.declared).is_none()
        });
        if starts {
            self.begin(self.start_steps(key), Purpose::Resume, Some(asker));
        } else {
            // It has a life, or none is due, or it waits for what it needs.
            self.reply(asker, Reply::Done);
        }
    }

    fn unsuspend(&mut self, key: Key) {
        let Some(child) = self.child_mut(key) else { return };
        if std::mem::take(&mut child.suspended) {
            self.order(Order::Pause { key, paused: false });
        }
    }

    /// Why a child cannot be started.
    fn refusal(&self, key: Key) -> Option<Reply> {
        self.not_down(key).or_else(|| {
            let declared = &self.child(key)?.declared;
            let dependency = self.missing(declared)?;
            Some(Reply::NeedsDependency { id: Arc::clone(&declared.id), dependency })
        })
    }

    fn not_down(&self, key: Key) -> Option<Reply> {
        let child = self.child(key)?;
        let id = Arc::clone(&child.declared.id);
        match child.phase {
            Phase::Down => None,
            Phase::Waiting { .. } => Some(Reply::Restarting(id)),
            _ => Some(Reply::Running(id)),
        }
    }
}
