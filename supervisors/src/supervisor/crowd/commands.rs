//! What is asked of it. What is asked about a child waits until that child is up or down.

use std::sync::Arc;

use super::{Asked, Crowd, Phase, Then};
use crate::error::ExitReason;
use crate::supervisor::Change;
use crate::supervisor::orders::{Asker, Cause, Command, Declared, Key, Order, Reply};

impl Crowd {
    pub(super) fn command(&mut self, asker: Asker, command: Command, cause: Option<u64>) {
        let stopping =
            |key| self.members.get(&key).is_some_and(|m| matches!(m.phase, Phase::Stopping(_)));
        if self.ending.is_some() || asker.from.is_some_and(stopping) {
            return self.reply(asker, Reply::Stopping);
        }
        let (change, id) = match command {
            Command::Add { key, child } => return self.add(asker, key, child),
            Command::Change { change, id } => (change, id),
        };
        let Some(key) = self.key_of(&id) else {
            return self.reply(asker, Reply::NotFound(id));
        };
        if let Some(from) = asker.from {
            self.children_ask.insert((from, asker.token), key);
        }
        let Some(member) = self.member(key) else { return };
        member.asked.get_or_insert_default().then.push_back((asker, change, cause));
        self.settled(key);
    }

    fn add(&mut self, asker: Asker, key: Key, child: Declared) {
        let id = Arc::clone(&child.id);
        if self.ids.contains_key(&id) {
            return self.reply(asker, Reply::AlreadyStarted(id));
        }
        if self.members.len() >= self.most {
            return self.reply(asker, Reply::MaxChildren(self.most));
        }
        self.order(Order::Admit { key, token: asker.token });
        self.take_in(key, child);
        self.wait_for(key, asker);
        self.start(key, Phase::Starting { restart: false, first: false });
    }

    /// It is up, or has no life: what is asked about it is done, one after the other, until it is
    /// on its way again.
    pub(super) fn settled(&mut self, key: Key) {
        while let Some(member) = self.member(key) {
            if matches!(member.phase, Phase::Starting { .. } | Phase::Stopping(_)) {
                return;
            }
            let Some(asked) = &mut member.asked else { return };
            let Some((asker, change, cause)) = asked.then.pop_front() else {
                member.asked = None;
                return;
            };
            self.cause = Cause::of(cause);
            self.change(key, change, asker);
        }
    }

    fn change(&mut self, key: Key, change: Change, asker: Asker) {
        let Some(member) = self.member(key) else { return };
        let (id, phase) = (Arc::clone(&member.id), member.phase);
        match (change, phase) {
            (Change::Terminate, Phase::Up) => {
                self.wait_for(key, asker);
                self.stop(key, Then::Forget);
            }
            (Change::Terminate, _) | (Change::Delete, Phase::Held) => {
                self.cancel_retry(key);
                self.reply(asker, Reply::Done);
                self.leave(key, ExitReason::Shutdown);
            }
            (Change::PlannedRestart, Phase::Up) => {
                self.unsuspend(key);
                self.wait_for(key, asker);
                self.stop(key, Then::Start);
            }
            (Change::PlannedRestart, _) | (Change::Restart | Change::Resume, Phase::Held) => {
                self.unsuspend(key);
                self.cancel_retry(key);
                self.wait_for(key, asker);
                self.restart(key);
            }
            (Change::Restart | Change::Delete, Phase::Waiting) => {
                self.reply(asker, Reply::Restarting(id));
            }
            (Change::Restart | Change::Delete, _) => self.reply(asker, Reply::Running(id)),
            (Change::Suspend, _) => {
                member.suspended = true;
                self.cancel_retry(key);
                self.order(Order::Pause { key, paused: true });
                self.reply(asker, Reply::Done);
            }
            (Change::Resume, _) => {
                self.unsuspend(key);
                self.reply(asker, Reply::Done);
            }
            // Nobody in a crowd depends on anything.
            (Change::Block | Change::Unblock, _) => self.reply(asker, Reply::Done),
        }
    }

    fn unsuspend(&mut self, key: Key) {
        let Some(member) = self.member(key) else { return };
        if std::mem::take(&mut member.suspended) {
            self.order(Order::Pause { key, paused: false });
        }
    }

    /// Somebody waits for what is begun now.
    fn wait_for(&mut self, key: Key, asker: Asker) {
        if let Some(from) = asker.from {
            self.children_ask.insert((from, asker.token), key);
        }
        if let Some(member) = self.member(key) {
            member.asked.get_or_insert_with(Box::<Asked>::default).now = Some(asker);
        }
    }

    /// What was begun is done.
    pub(super) fn answer(&mut self, key: Key, reply: Reply) {
        let asked = self.member(key).and_then(|member| member.asked.as_mut());
        if let Some(asker) = asked.and_then(|asked| asked.now.take()) {
            self.reply(asker, reply);
        }
    }
}
