//! A child has ended, or did not start: what follows.
//!
//! Each of these decides, reports what happened with what was decided, and begins the job that
//! does it.

use super::{Job, Machine, Phase, Purpose, Step};
use crate::error::ExitReason;
use crate::supervisor::orders::{Cause, Key, News, Order, Reply};
use crate::supervisor::reaction::Outcome;
use crate::supervisor::strategy::{
    ChildView, Decision, RestartPolicy, Situation, decide, decide_restart,
};

/// A failure on its way to its restart.
struct Failed<'a> {
    key: Key,
    news: News,
    reason: ExitReason,
    /// What was still to be started after it.
    left: &'a [Key],
}

impl Machine {
    /// A life has ended by itself, or is to be stopped for bad health.
    pub(super) fn ended(&mut self, key: Key, news: News) {
        let Some(at) = self.index(key) else { return };
        let (News::Ended(reason) | News::Unhealthy(reason)) = &news else { return };
        let reason = reason.clone();
        let child = &mut self.children[at];
        if matches!(news, News::Ended(_)) {
            child.phase = Phase::Down;
        }
        if child.is_held() {
            // It stays so, and comes back when that is over.
            child.due = true;
            let held = self.reaction(key, Outcome::Held, &[]);
            self.report(key, news, Some(held), false);
            return self.begin([Step::Stop(key)], Purpose::Hold, None);
        }
        match self.decide(at, Some(reason.is_normal())) {
            Decision::Leave { shut_down, forget } => {
                let outcome = match (shut_down, forget) {
                    (true, _) => Outcome::EndsSupervisor,
                    (false, true) => Outcome::Forgotten,
                    (false, false) => Outcome::StaysDown,
                };
                let gone = forget && matches!(news, News::Ended(_));
                let reaction = self.reaction(key, outcome, &[]);
                self.report(key, news, Some(reaction), gone);
                self.children[at].record.left();
                self.begin([Step::Stop(key)], Purpose::Leave { key, reason, shut_down }, None);
            }
            decision => self.carry_out(Failed { key, news, reason, left: &[] }, decision),
        }
    }

    pub(super) fn start_failed(&mut self, key: Key, reason: ExitReason) {
        let Some(Job { purpose, asker, steps }) = self.job.take() else { return };
        self.cause = Cause::Child(key);
        let left: Vec<Key> = steps
            .iter()
            .filter_map(|step| match step {
                Step::Start(key) => Some(*key),
                Step::Stop(_) => None,
            })
            .collect();
        let news = News::StartFailed(reason.clone());
        match purpose {
            Purpose::Init => {
                let all: Vec<Key> = self.children.iter().map(|child| child.key).collect();
                let reaction = self.reaction(key, Outcome::FailsStart, &all);
                self.report(key, news, Some(reaction), false);
                self.begin_shut_down(ExitReason::ChildStart {
                    child: self.path.child(&self.id_of(key)),
                    cause: Box::new(reason),
                });
            }
            Purpose::StartChild { key: of, added } if of == key => {
                let id = self.id_of(key);
                let outcome = if added { Outcome::Forgotten } else { Outcome::StaysDown };
                let reaction = self.reaction(key, outcome, &[]);
                self.report(key, news, Some(reaction), added);
                if added {
                    self.forget(key, reason.clone());
                } else {
                    self.order(Order::Down { key, reason: reason.clone() });
                }
                self.await_dependencies(key, &left);
                self.answer(asker, Reply::StartFailed(id, reason));
            }
            _ => {
                // What was asked for was carried out as far as it goes; from here on it is a
                // failure like any other.
                let reply = Reply::StartFailed(self.id_of(key), reason.clone());
                let Some(at) = self.index(key) else { return };
                let decision = self.decide(at, None);
                self.carry_out(Failed { key, news, reason, left: &left }, decision);
                self.answer(asker, reply);
            }
        }
    }

    /// Counts the failure and asks the one decision. `normal`: how a life ended; `None` for a
    /// start that failed.
    fn decide(&mut self, at: usize, normal: Option<bool>) -> Decision {
        let now = self.now;
        let child = &mut self.children[at];
        let worn_out = child.record.failed(&child.declared.policy, now);
        let children = self.views();
        let situation =
            Situation { children: &children, child: at, worn_out, policy: &self.policy, now };
        match normal {
            Some(normal) => decide(&situation, normal, &mut self.window),
            None => decide_restart(&situation, &mut self.window),
        }
    }

    fn carry_out(&mut self, failed: Failed<'_>, decision: Decision) {
        let Failed { key, news, reason, left } = failed;
        let (stop, start) = match decision {
            Decision::Restart { stop, start } => (self.keys(&stop), self.keys(&start)),
            Decision::GiveUp => return self.give_up(key, news, reason),
            Decision::Leave { .. } => return,
        };
        let mut start = start;
        // Dependents of what crashed first may be independent of what then failed to start; they
        // still have to come back. For OTP's strategies nothing is added here.
        start.extend(left.iter().filter(|key| !start.contains(key)).copied().collect::<Vec<_>>());
        start.sort_by_key(|key| self.index(*key));
        let mut affected = [&start[..], &stop[..]].concat();
        affected.sort_by_key(|key| self.index(*key));
        affected.dedup();
        let reaction = self.reaction(key, Outcome::Restarts, &affected);
        let failed_start = matches!(news, News::StartFailed(_));
        self.report(key, news, Some(reaction), false);

        let stops = stop.into_iter().map(Step::Stop);
        let delayed = self.child(key).is_some_and(|c| !c.declared.policy.backoff.is_none());
        if delayed || failed_start {
            // A retry goes through the inbox even without a delay, as OTP sends it to itself, so
            // that commands are served in between.
            self.begin(stops, Purpose::BackOff { key, start }, None);
        } else {
            self.begin(stops.chain(start.into_iter().map(Step::Start)), Purpose::Restart, None);
        }
    }

    fn give_up(&mut self, key: Key, news: News, reason: ExitReason) {
        let all: Vec<Key> = self.children.iter().map(|child| child.key).collect();
        let reaction = self.reaction(key, Outcome::GivesUp, &all);
        self.report(key, news, Some(reaction), false);
        let child = self.path.child(&self.id_of(key));
        self.begin_shut_down(ExitReason::Escalated { child, cause: Box::new(reason) });
    }

    /// The steps that start a child which was down, and give those that need it, and live with
    /// what was there before, a new beginning.
    pub(super) fn start_steps(&self, key: Key) -> Vec<Step> {
        let Some(at) = self.index(key) else { return Vec::new() };
        let views = self.views();
        let dependents = crate::supervisor::strategy::affected(
            &views,
            at,
            crate::supervisor::strategy::Strategy::OneForOne,
        );
        let comes_back =
            |view: &ChildView| view.restart != RestartPolicy::Temporary && !view.suspended;
        let lives = |i: &usize| *i != at && self.children[*i].phase != Phase::Down;
        let lives: Vec<usize> = dependents.into_iter().filter(lives).collect();
        let stop = lives.iter().rev().map(|&i| Step::Stop(self.children[i].key));
        let start = lives.iter().filter(|&&i| comes_back(&views[i]));
        stop.chain([Step::Start(key)])
            .chain(start.map(|&i| Step::Start(self.children[i].key)))
            .collect()
    }
}
