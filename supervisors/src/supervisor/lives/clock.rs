//! The one alarm clock of a supervisor. Its ring is a message like any other.

use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::actor::TaskGuard;
use crate::supervisor::SupervisorMessage;
use crate::supervisor::child::StartResult;
use crate::supervisor::lives::Lives;
use crate::supervisor::orders::Key;

/// What a supervisor waits for by the clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Alarm {
    /// A start has taken too long.
    Start,
    /// A life that was told to stop has not.
    Stop,
    /// A life that was killed has not ended.
    Kill,
    /// The backoff of this epoch is over.
    Retry(u64),
    /// Time to look at its health.
    Health,
}

/// What the clock has brought.
pub(crate) enum Due {
    /// A start took too long, and has failed.
    StartDone { key: Key, life: u64, result: StartResult },
    /// A backoff is over.
    Retry { key: Key, epoch: u64 },
    /// A life that was told to stop is given up as stuck.
    Stuck { key: Key, life: u64 },
    /// A life that somebody killed is.
    Lost { key: Key, life: u64 },
}

impl Lives {
    pub(super) fn arm(&mut self, key: Key, delay: Duration, alarm: Alarm) {
        self.disarm(key);
        let Some(child) = self.children.get_mut(&key) else { return };
        let at = self.env.clock.elapsed().saturating_add(delay);
        child.alarm = Some((at, alarm));
        self.ring_at(at, key, alarm);
    }

    pub(super) fn disarm(&mut self, key: Key) {
        if let Some((at, alarm)) = self.children.get_mut(&key).and_then(|child| child.alarm.take())
        {
            self.alarms.remove(&(at, key, alarm));
        }
    }

    pub(super) fn ring_at(&mut self, at: Duration, key: Key, alarm: Alarm) {
        self.alarms.insert((at, key, alarm));
        self.wind();
    }

    /// Sees to it that the clock rings at the first alarm, or earlier.
    pub(super) fn wind(&mut self) {
        let Some(&(first, _, _)) = self.alarms.first() else { return };
        if self.clock.as_ref().is_some_and(|(at, _)| *at <= first) {
            return;
        }
        let wait = first.saturating_sub(self.env.clock.elapsed());
        let to = self.myself.clone();
        let guard = TaskGuard::spawn(async move {
            tokio::time::sleep(wait).await;
            let _ = to.send_message(SupervisorMessage::Tick);
        });
        self.clock = Some((first, guard));
    }

    /// The clock has rung: what is due, in order.
    pub(crate) fn due(&mut self) -> Vec<Due> {
        self.clock = None;
        let now = self.env.clock.elapsed();
        let mut due = Vec::new();
        while let Some(&(at, key, alarm)) = self.alarms.first()
            && at <= now
        {
            self.alarms.pop_first();
            let Some(child) = self.children.get_mut(&key) else { continue };
            if alarm == Alarm::Health {
                child.health_at = None;
            } else {
                child.alarm = None;
            }
            match alarm {
                Alarm::Start => {
                    due.extend(self.start_timed_out(key).map(|(life, result)| Due::StartDone {
                        key,
                        life,
                        result,
                    }))
                }
                Alarm::Stop => {
                    let life = child.life;
                    self.env.not_in_order.fetch_add(1, Ordering::SeqCst);
                    self.kill(key, life);
                }
                Alarm::Kill => {
                    let abandoned = self.abandon(key);
                    due.extend(abandoned.map(|(life, stopping)| {
                        if stopping { Due::Stuck { key, life } } else { Due::Lost { key, life } }
                    }));
                }
                Alarm::Retry(epoch) => due.push(Due::Retry { key, epoch }),
                Alarm::Health => self.check_health(key),
            }
        }
        self.wind();
        due
    }
}
