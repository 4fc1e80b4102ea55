//! Starting and stopping, one child or all.

use super::{Crowd, Ending, Phase, Then};
use crate::error::ExitReason;
use crate::supervisor::orders::{Cause, Key, News, Order, Reply};

impl Crowd {
    /// Starts the next life, unless it is held.
    pub(super) fn start(&mut self, key: Key, phase: Phase) {
        let Some(member) = self.member(key) else { return };
        if member.suspended {
            member.phase = Phase::Held;
            return self.settled(key);
        }
        member.life += 1;
        member.phase = phase;
        let life = member.life;
        self.order(Order::Start { key, life });
    }

    pub(super) fn restart(&mut self, key: Key) {
        self.start(key, Phase::Starting { restart: true, first: false });
    }

    /// Stops a life that is up or starting.
    pub(super) fn stop(&mut self, key: Key, then: Then) {
        self.refuse_from(key);
        self.set_phase(key, Phase::Stopping(then));
        let planned = match then {
            Then::Start | Then::BackOff | Then::Hold => true,
            Then::Forget => false,
            Then::End => self.is_kept(key),
        };
        let life = self.life_of(key);
        self.order(Order::Stop { key, life, planned });
    }

    /// Waits before the next life.
    pub(super) fn back_off(&mut self, key: Key) {
        let Some(member) = self.member(key) else { return };
        member.phase = Phase::Waiting;
        let (epoch, backoff, failures) =
            (member.epoch.into(), member.policy.backoff, member.record.before());
        self.order(Order::RetryAfter { key, epoch, backoff, failures });
        self.settled(key);
    }

    pub(super) fn retry(&mut self, key: Key, epoch: u64) {
        let Some(member) = self.member(key) else { return };
        if member.phase == Phase::Waiting && u64::from(member.epoch) == epoch {
            self.restart(key);
        }
    }

    pub(super) fn cancel_retry(&mut self, key: Key) {
        let Some(member) = self.member(key) else { return };
        if member.phase == Phase::Waiting {
            member.phase = Phase::Held;
            member.epoch += 1;
            self.order(Order::CancelRetry { key });
        }
    }

    pub(super) fn first_start_done(&mut self) {
        self.first_starts = self.first_starts.saturating_sub(1);
        self.ready_at_last();
    }

    pub(super) fn ready_at_last(&mut self) {
        if self.first_starts == 0 && !self.filling && self.ending.is_none() {
            self.order(Order::Ready);
        }
    }

    // --- the end -------------------------------------------------------------------------------

    /// Begins to stop all children.
    pub(super) fn end(&mut self, reason: ExitReason) {
        if self.ending.is_some() {
            return;
        }
        self.order(Order::Ending { reason: reason.clone() });
        self.cause = Cause::Ending;
        self.ending = Some(Ending { reason, told: Key::MAX });
    }

    /// Tells one more child that everything ends. `false` when there is nothing left to do now.
    pub(super) fn tell_one_more(&mut self) -> bool {
        if self.finished {
            return false;
        }
        let Some(ending) = &mut self.ending else { return false };
        self.cause = Cause::Ending;
        if let Some((&key, _)) = self.members.range(..ending.told).next_back() {
            ending.told = key;
            self.end_one(key);
            return true;
        }
        ending.told = 0;
        if self.members.is_empty() {
            self.finished = true;
            let reason = ending.reason.clone();
            self.order(Order::Finish(reason));
        }
        self.finished
    }

    /// Nobody who waits for an answer about it waits any longer, and its life ends. What an
    /// operator has stopped for good goes its way.
    fn end_one(&mut self, key: Key) {
        self.refuse_about(key);
        let Some(member) = self.member(key) else { return };
        match member.phase {
            Phase::Up => self.stop(key, Then::End),
            Phase::Starting { .. } if member.supervisor => self.stop(key, Then::End),
            Phase::Starting { .. } => {
                self.order(Order::AbortStart { key });
                self.leave(key, ExitReason::Shutdown);
            }
            Phase::Stopping(Then::Forget) => {}
            Phase::Stopping(_) => member.phase = Phase::Stopping(Then::End),
            Phase::Waiting | Phase::Held => {
                self.cancel_retry(key);
                self.leave(key, ExitReason::Shutdown);
            }
        }
    }

    fn refuse_about(&mut self, key: Key) {
        let Some(asked) = self.member(key).and_then(|member| member.asked.take()) else { return };
        for asker in asked.now.into_iter().chain(asked.then.into_iter().map(|(asker, ..)| asker)) {
            self.reply(asker, Reply::Stopping);
        }
    }

    /// A child is about to be stopped: it, and whoever lives below it, must not wait for anything
    /// here. What they have asked for goes on if it has begun.
    fn refuse_from(&mut self, key: Key) {
        let askers: Vec<_> = self
            .children_ask
            .range((key, 0)..=(key, u64::MAX))
            .map(|(&(_, token), &about)| (token, about))
            .collect();
        for (token, about) in askers {
            let Some(asked) = self.member(about).and_then(|member| member.asked.as_mut()) else {
                continue;
            };
            let now = asked.now.take_if(|asker| asker.token == token);
            let at = asked.then.iter().position(|(asker, ..)| asker.token == token);
            let then = at.and_then(|at| asked.then.remove(at)).map(|(asker, ..)| asker);
            for asker in now.into_iter().chain(then) {
                self.reply(asker, Reply::Stopping);
            }
        }
    }

    /// A life that was told to stop is over.
    pub(super) fn stopped(&mut self, key: Key, then: Then, news: News, reason: ExitReason) {
        let gone = match then {
            Then::Forget => true,
            Then::End => !self.is_kept(key),
            _ => false,
        };
        self.report(key, news, None, gone);
        match then {
            Then::Forget | Then::End => {
                self.answer(key, Reply::Done);
                self.leave(key, reason);
            }
            Then::Start => self.restart(key),
            Then::BackOff => self.begin_again(key),
            Then::Hold => {
                self.set_phase(key, Phase::Held);
                self.settled(key);
            }
        }
    }

    /// The next life after a failure: at once, or after its delay.
    pub(super) fn begin_again(&mut self, key: Key) {
        match self.member(key) {
            Some(member) if member.policy.backoff.is_none() => self.restart(key),
            _ => self.back_off(key),
        }
    }
}
