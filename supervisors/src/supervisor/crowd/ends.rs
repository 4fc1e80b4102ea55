//! A child has ended, or did not start: what follows.

use super::{Crowd, Phase, Then};
use crate::error::ExitReason;
use crate::supervisor::orders::{Cause, Key, News, Reply, StartOutcome};
use crate::supervisor::reaction::Outcome;
use crate::supervisor::strategy::{ChildView, Decision, Situation, decide, decide_restart};

impl Crowd {
    pub(super) fn start_done(&mut self, key: Key, outcome: StartOutcome) {
        let Some(member) = self.members.get(&key) else { return };
        let (restart, first) = match member.phase {
            Phase::Starting { restart, first } => (restart, first),
            // A supervisor that was told to stop while it started: it was up after all, and its
            // end is still to come, or it is gone.
            Phase::Stopping(_) if matches!(outcome, StartOutcome::Started) => {
                return self.report(key, News::Up { restart: false }, None, false);
            }
            Phase::Stopping(_) => return self.leave(key, ExitReason::Shutdown),
            _ => return,
        };
        match outcome {
            StartOutcome::Started => {
                let now = self.now;
                if let Some(member) = self.member(key) {
                    member.phase = Phase::Up;
                    member.record.up(now);
                }
                self.report(key, News::Up { restart }, None, false);
                self.answer(key, Reply::Done);
                self.settled(key);
            }
            StartOutcome::Ignored => {
                self.answer(key, Reply::Done);
                self.leave(key, ExitReason::Normal);
            }
            StartOutcome::Failed(reason) => self.start_failed(key, restart, reason),
        }
        if first {
            self.first_start_done();
        }
    }

    fn start_failed(&mut self, key: Key, restart: bool, reason: ExitReason) {
        self.cause = Cause::Child(key);
        let news = News::StartFailed(reason.clone());
        let reply = Reply::StartFailed(self.id_of(key), reason.clone());
        if !restart {
            if let Some(member) = self.member(key) {
                member.record.failures_in_a_row = 1;
            }
            let reaction = self.reaction(key, Outcome::Forgotten);
            self.report(key, news, Some(reaction), true);
            self.answer(key, reply);
            return self.leave(key, reason);
        }
        // What was asked for was carried out as far as it goes; from here on it is a failure like
        // any other. A retry is a wait, even without a delay, so that others are served first.
        self.answer(key, reply);
        let decision = self.decide(key, None);
        self.carry_out(key, news, reason, &decision, Self::back_off);
    }

    pub(super) fn ended(&mut self, key: Key, reason: ExitReason) {
        let Some(member) = self.members.get(&key) else { return };
        match member.phase {
            Phase::Stopping(then) => {
                self.cause = Cause::Last(key);
                self.stopped(key, then, News::Stopped(reason.clone()), reason);
            }
            Phase::Up => {
                self.cause = Cause::Child(key);
                self.failed(key, News::Ended(reason.clone()), reason);
            }
            Phase::Starting { .. } | Phase::Waiting | Phase::Held => {}
        }
    }

    pub(super) fn stuck(&mut self, key: Key) {
        if let Some(Phase::Stopping(then)) = self.members.get(&key).map(|member| member.phase) {
            self.cause = Cause::Last(key);
            self.stopped(key, then, News::Stuck, ExitReason::Killed);
        }
    }

    pub(super) fn unhealthy(&mut self, key: Key, reason: ExitReason) {
        if self.members.get(&key).is_some_and(|member| member.phase == Phase::Up) {
            self.failed(key, News::Unhealthy(reason.clone()), reason);
        }
    }

    /// A life has ended by itself, or is to be stopped for bad health.
    fn failed(&mut self, key: Key, news: News, reason: ExitReason) {
        let Some(member) = self.members.get(&key) else { return };
        let lives = matches!(news, News::Unhealthy(_));
        if member.suspended {
            let held = self.reaction(key, Outcome::Held);
            self.report(key, news, Some(held), false);
            return if lives {
                self.stop(key, Then::Hold);
            } else {
                self.set_phase(key, Phase::Held);
                self.settled(key);
            };
        }
        if self.ending.is_some() {
            // It would have been told to stop next: no failure any more.
            if !lives {
                let reaction = self.reaction(key, Outcome::WithItsGroup);
                let gone = !self.is_kept(key);
                self.report(key, news, Some(reaction), gone);
                self.leave(key, reason);
            }
            return;
        }
        let decision = self.decide(key, Some(reason.is_normal()));
        if lives {
            self.carry_out(key, news, reason, &decision, |crowd, key| {
                crowd.stop(key, Then::BackOff);
            });
        } else {
            self.carry_out(key, news, reason, &decision, Self::begin_again);
        }
    }

    /// Counts the failure and asks the one decision. `normal`: how a life ended; `None` for a
    /// start that failed.
    fn decide(&mut self, key: Key, normal: Option<bool>) -> Decision {
        let now = self.now;
        let nothing = Decision::Leave { forget: true, shut_down: false };
        let Some(member) = self.members.get_mut(&key) else { return nothing };
        let worn_out = member.record.failed(&member.policy, now);
        let child = ChildView {
            restart: member.policy.restart,
            significant: false,
            alive: false,
            suspended: member.suspended,
            depends_on: Vec::new(),
        };
        let situation =
            Situation { children: &[child], child: 0, worn_out, policy: &self.policy, now };
        match normal {
            Some(normal) => decide(&situation, normal, &mut self.window),
            None => decide_restart(&situation, &mut self.window),
        }
    }

    /// Reports what happened with what is done about it, and does it.
    fn carry_out(
        &mut self,
        key: Key,
        news: News,
        reason: ExitReason,
        decision: &Decision,
        again: impl FnOnce(&mut Self, Key),
    ) {
        let lives = matches!(news, News::Unhealthy(_));
        match decision {
            Decision::Leave { .. } => {
                let reaction = self.reaction(key, Outcome::Forgotten);
                self.report(key, news, Some(reaction), !lives);
                if lives {
                    self.stop(key, Then::Forget);
                } else {
                    self.leave(key, reason);
                }
            }
            Decision::GiveUp => {
                let reaction = self.reaction(key, Outcome::GivesUp);
                self.report(key, news, Some(reaction), !lives && !self.keep);
                let child = self.path.child(&self.id_of(key));
                let cause = Box::new(reason.clone());
                self.end(ExitReason::Escalated { child, cause });
                if !lives {
                    self.leave(key, reason);
                }
            }
            Decision::Restart { .. } => {
                let reaction = self.reaction(key, Outcome::Restarts);
                self.report(key, news, Some(reaction), false);
                again(self, key);
            }
        }
    }
}
