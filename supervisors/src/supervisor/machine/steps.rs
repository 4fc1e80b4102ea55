//! One stop, one start.

use super::{Child, Machine, Phase, Purpose, Step};
use crate::error::ExitReason;
use crate::supervisor::orders::{Input, Key, News, Order, StartOutcome};
use crate::supervisor::reaction::Outcome;

impl Machine {
    pub(super) fn begin_stop(&mut self, key: Key) {
        let Some(child) = self.child(key) else { return };
        match child.phase {
            Phase::Up => {
                self.refuse_from(key);
                // OTP flushes the exit of a sibling that died while its group was stopped: it is
                // no second failure.
                if let Some(reason) = self.take_end(key) {
                    let reaction = self.reaction(key, Outcome::WithItsGroup, &[]);
                    self.report(key, News::Ended(reason), Some(reaction), false);
                    self.stopped(key);
                } else {
                    self.order_stop(key);
                }
            }
            Phase::Waiting { .. } => {
                self.cancel_retry(key);
                self.stopped(key);
            }
            // A supervisor that was starting when all began to end.
            Phase::Starting => {
                self.refuse_from(key);
                self.order_stop(key);
            }
            Phase::Down | Phase::Stopping => self.stopped(key),
        }
    }

    fn order_stop(&mut self, key: Key) {
        let (life, planned) = (self.life_of(key), self.comes_back(key));
        self.set_phase(key, Phase::Stopping);
        self.awaiting = Some(Step::Stop(key));
        self.order(Order::Stop { key, life, planned });
    }

    /// The end of its life, if it waits in the inbox.
    fn take_end(&mut self, key: Key) -> Option<ExitReason> {
        let at = self.end_in_inbox(key)?;
        match self.inbox.remove(at) {
            Some((Input::Ended { reason, .. }, _)) => Some(reason),
            _ => None,
        }
    }

    /// Whether another life will take the place of the one that is stopped now.
    fn comes_back(&self, key: Key) -> bool {
        let Some(job) = &self.job else { return false };
        let held = |child: &Child| child.is_held() && !child.is_temporary();
        job.steps.contains(&Step::Start(key))
            || matches!(job.purpose, Purpose::Hold)
            || matches!(&job.purpose, Purpose::BackOff { start, .. } if start.contains(&key))
            || job.purpose.is_of_a_group() && self.child(key).is_some_and(held)
    }

    pub(super) fn stop_done(&mut self, key: Key, news: News) {
        self.awaiting = None;
        let gone = self.goes_with_its_life(key);
        self.report(key, news, None, gone);
        self.stopped(key);
    }

    /// A child's life is over because its supervisor wanted it so.
    fn stopped(&mut self, key: Key) {
        self.set_phase(key, Phase::Down);
        if self.goes_with_its_group(key) {
            self.forget(key, ExitReason::Shutdown);
        } else if self.job.as_ref().is_some_and(|job| job.purpose.is_of_a_group())
            && let Some(child) = self.child_mut(key)
        {
            // The group goes on without it; `resume` starts it.
            child.due |= child.is_held();
        }
    }

    /// A temporary child that is stopped with its group is not started again.
    fn goes_with_its_group(&self, key: Key) -> bool {
        let Some(job) = &self.job else { return false };
        job.purpose.is_of_a_group()
            && self.child(key).is_some_and(Child::is_temporary)
            && !self.comes_back(key)
    }

    /// Whether its spec goes when it is stopped now.
    fn goes_with_its_life(&self, key: Key) -> bool {
        let of = match self.job.as_ref().map(|job| &job.purpose) {
            Some(Purpose::Terminate { key } | Purpose::Leave { key, .. }) => Some(*key),
            _ => None,
        };
        let temporary = self.child(key).is_some_and(Child::is_temporary);
        self.goes_with_its_group(key) || of == Some(key) && temporary
    }

    pub(super) fn begin_start(&mut self, key: Key) {
        if self.child(key).is_some_and(|child| matches!(child.phase, Phase::Waiting { .. })) {
            self.cancel_retry(key);
        }
        let Some(child) = self.child(key) else { return };
        if child.phase == Phase::Up {
            return;
        }
        let may = !child.is_held() && self.missing(&child.declared).is_none();
        let Some(child) = self.child_mut(key) else { return };
        child.due = !may;
        if !may {
            return;
        }
        child.life += 1;
        child.phase = Phase::Starting;
        let life = child.life;
        self.awaiting = Some(Step::Start(key));
        self.order(Order::Start { key, life });
    }

    pub(super) fn start_done(&mut self, key: Key, outcome: StartOutcome) {
        let purpose = self.job.as_ref().map(|job| &job.purpose);
        let restart = matches!(purpose, Some(Purpose::Restart | Purpose::Planned));
        match outcome {
            StartOutcome::Started => {
                let now = self.now;
                if let Some(child) = self.child_mut(key) {
                    child.phase = Phase::Up;
                    child.record.up(now);
                }
                self.report(key, News::Up { restart }, None, false);
            }
            StartOutcome::Ignored => {
                self.set_phase(key, Phase::Down);
                self.settle_down(key, ExitReason::Normal);
            }
            StartOutcome::Failed(reason) => {
                self.set_phase(key, Phase::Down);
                self.start_failed(key, reason);
            }
        }
    }

    /// Nobody waits for a start any more, because everything is to end. An actor's is dropped. A
    /// supervisor has children already: when its turn comes it is told to stop them.
    pub(super) fn cut_start(&mut self, key: Key) {
        self.awaiting = None;
        if !self.child(key).is_some_and(|child| child.declared.supervisor) {
            self.set_phase(key, Phase::Down);
            self.order(Order::AbortStart { key });
        }
    }

    /// The start of a supervisor that nobody waited for any more: it is up after all, and is to be
    /// stopped, or it is gone.
    pub(super) fn cut_start_done(&mut self, key: Key, outcome: &StartOutcome) {
        let started = matches!(outcome, StartOutcome::Started);
        match self.child(key).map(|child| &child.phase) {
            Some(Phase::Starting) if !started => self.set_phase(key, Phase::Down),
            Some(Phase::Starting) => {
                self.set_phase(key, Phase::Up);
                self.report(key, News::Up { restart: false }, None, false);
            }
            Some(Phase::Stopping) if !started => {
                self.awaiting = None;
                self.stopped(key);
            }
            Some(Phase::Stopping) => self.report(key, News::Up { restart: false }, None, false),
            _ => {}
        }
    }

    // --- between lives -------------------------------------------------------------------------

    /// No life and none due: temporary children go, others keep their spec.
    pub(super) fn settle_down(&mut self, key: Key, reason: ExitReason) {
        let Some(child) = self.child_mut(key) else { return };
        child.due = false;
        if child.is_temporary() {
            self.forget(key, reason);
        } else {
            self.order(Order::Down { key, reason });
        }
    }

    pub(super) fn forget(&mut self, key: Key, reason: ExitReason) {
        self.children.retain(|child| child.key != key);
        self.order(Order::Forget { key, reason });
    }

    /// The group is down. Waits, or goes on at once through the inbox.
    pub(super) fn begin_delay(&mut self, key: Key, start: Vec<Key>) {
        let Some(child) = self.child_mut(key) else { return };
        child.phase = Phase::Waiting { start };
        let (epoch, backoff) = (child.epoch, child.declared.policy.backoff);
        let failures = child.record.before();
        if backoff.is_none() {
            self.inbox.push_back((Input::Retry { key, epoch }, None));
        } else {
            self.order(Order::RetryAfter { key, epoch, backoff, failures });
        }
    }

    pub(super) fn retry(&mut self, key: Key, epoch: u64) {
        let Some(child) = self.child_mut(key) else { return };
        // A child that was stopped, suspended or started meanwhile has a new epoch.
        let start = match &mut child.phase {
            Phase::Waiting { start } if child.epoch == epoch => std::mem::take(start),
            _ => return,
        };
        child.phase = Phase::Down;
        self.begin(start.into_iter().map(Step::Start), Purpose::Restart, None);
    }

    /// Its delay is over before its time. Whoever was to come back with it because of what they
    /// need, and not because of the strategy, comes back when that is up.
    pub(super) fn cancel_retry(&mut self, key: Key) {
        let Some(child) = self.child_mut(key) else { return };
        let phase = std::mem::replace(&mut child.phase, Phase::Down);
        let Phase::Waiting { start } = phase else {
            child.phase = phase;
            return;
        };
        child.epoch += 1;
        self.order(Order::CancelRetry { key });
        self.await_dependencies(key, &start);
    }

    /// Of these, whoever needs something is due; `key` itself is not.
    pub(super) fn await_dependencies(&mut self, key: Key, of: &[Key]) {
        for other in of.iter().copied().filter(|other| *other != key) {
            if let Some(child) = self.child_mut(other) {
                child.due |= child.phase == Phase::Down && !child.declared.depends_on.is_empty();
            }
        }
    }
}

impl Purpose {
    /// Whether children are stopped for the sake of another.
    fn is_of_a_group(&self) -> bool {
        matches!(
            self,
            Self::Restart
                | Self::BackOff { .. }
                | Self::Planned
                | Self::StartChild { .. }
                | Self::Resume
        )
    }
}
