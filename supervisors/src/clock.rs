//! The clock of a system: one for durations, one for the time of day.
//!
//! Durations are measured on tokio's clock, which stands still in a test with paused time. The
//! time of day of a node is the machine's, asked each time: after the clock was set, or the machine
//! has slept, times are right at once, and waits [until](Clock::until) a time end at most a second
//! late. So it can go back, as the machine's does; what must not go back is measured with
//! [`elapsed`](Clock::elapsed). A system that follows no machine (tests, simulations) has a time of
//! day that moves with its durations, and its runs are alike.

use std::fmt;
use std::time::Duration;

use tokio::time::Instant;

/// How often a wait for a time of day looks whether the clock was set.
const LOOK: Duration = Duration::from_secs(1);

/// How long a look at the machine's clock is good for, in nanoseconds.
const FRESH_NS: u64 = 1_000_000;

/// A look at the machine's clock that is good for the messages of a millisecond. Begin with the
/// default.
#[derive(Debug, Clone, Copy, Default)]
pub struct ClockAnchor {
    at_ns: u64,
    wall_us: i64,
}

/// The time of a system: how long it has been running, and the time of day. Cheap to copy.
///
/// [`elapsed`](Self::elapsed) never goes back; [`wall_us`](Self::wall_us) is the machine's clock.
#[derive(Clone, Copy)]
pub struct Clock {
    start: Instant,
    epoch_us: i64,
    /// The processor's counter at `start`, where the clock runs and the counter can be trusted.
    counter: Option<u64>,
    /// The machine's time of day, microseconds since the Unix epoch.
    wall: Option<fn() -> i64>,
}

impl Clock {
    /// A clock that starts now and shows `epoch_us` (microseconds since the Unix epoch) now. It
    /// goes on from there, whatever the machine's clock does.
    #[must_use]
    pub fn starting_at(epoch_us: i64) -> Self {
        let start = Instant::now();
        let counter = ticks::runs(start).then(ticks::now);
        Self { start, epoch_us, counter, wall: None }
    }

    /// A clock that shows what `wall` answers (microseconds since the Unix epoch), asked each time.
    /// Where tokio's clock is paused it starts there and moves with it instead.
    #[must_use]
    pub fn following(wall: fn() -> i64) -> Self {
        let clock = Self::starting_at(wall());
        Self { wall: clock.counter.is_some().then_some(wall), ..clock }
    }

    /// The same, also where tokio's clock is paused: for tests in which the clock is set.
    #[must_use]
    pub fn bound_to(wall: fn() -> i64) -> Self {
        Self { wall: Some(wall), ..Self::starting_at(wall()) }
    }

    /// Time since the system started.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    /// Time of day, microseconds since the Unix epoch. Goes back only if the machine's clock is set
    /// back.
    #[must_use]
    pub fn wall_us(&self) -> i64 {
        match self.wall {
            Some(wall) => wall(),
            None => self.wall_at(self.elapsed()),
        }
    }

    /// The time of day at a moment of the past, by the clock as it is set now.
    pub(crate) fn wall_at(&self, elapsed: Duration) -> i64 {
        match self.wall {
            Some(wall) => wall().saturating_sub(micros(self.elapsed().saturating_sub(elapsed))),
            None => self.epoch_us.saturating_add(micros(elapsed)),
        }
    }

    /// The time of day at a moment that [`ticks_ns`](Self::ticks_ns) answered, as the clock was set
    /// at most [`FRESH_NS`] before or after.
    pub(crate) fn wall_near(&self, anchor: &mut ClockAnchor, at_ns: u64) -> i64 {
        if self.wall.is_none() {
            return self.wall_at(Duration::from_nanos(at_ns));
        }
        if anchor.wall_us == 0 || at_ns.abs_diff(anchor.at_ns) > FRESH_NS {
            *anchor = ClockAnchor { at_ns: self.ticks_ns(), wall_us: self.wall_us() };
        }
        let apart = i64::try_from(at_ns.abs_diff(anchor.at_ns) / 1_000).unwrap_or(i64::MAX);
        match at_ns < anchor.at_ns {
            true => anchor.wall_us.saturating_sub(apart),
            false => anchor.wall_us.saturating_add(apart),
        }
    }

    /// How far the time of day has moved against the time that has passed, in microseconds: what
    /// it was set forward (or back, below zero), and what the machine has slept.
    #[must_use]
    pub fn stepped_us(&self) -> i64 {
        let passed = self.epoch_us.saturating_add(micros(self.elapsed()));
        self.wall_us().saturating_sub(passed)
    }

    /// Waits until the time of day is `wall_us` or later; a second late at most if the clock is
    /// set, or the machine sleeps, meanwhile.
    ///
    /// # Cancel safety
    /// Nothing is lost by dropping it.
    pub async fn until(self, wall_us: i64) {
        loop {
            let left = wall_us.saturating_sub(self.wall_us());
            let Some(left) = u64::try_from(left).ok().filter(|left| *left > 0) else { return };
            let left = Duration::from_micros(left);
            tokio::time::sleep(if self.wall.is_some() { left.min(LOOK) } else { left }).await;
        }
    }

    pub(crate) fn elapsed_ns(&self) -> u64 {
        u64::try_from(self.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// The same, read from the processor's counter: 10 ns instead of 25 a reading, which is a third
    /// of what a message costs. On a clock that was paused when the system started it stands still
    /// like everything else.
    #[inline]
    pub(crate) fn ticks_ns(&self) -> u64 {
        match self.counter {
            Some(start) => ticks::since(start),
            None => self.elapsed_ns(),
        }
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Clock")
            .field("start", &self.start)
            .field("epoch_us", &self.epoch_us)
            .field("follows", &self.wall.is_some())
            .finish_non_exhaustive()
    }
}

fn micros(time: Duration) -> i64 {
    i64::try_from(time.as_micros()).unwrap_or(i64::MAX)
}

/// The processor's counter.
mod ticks {
    use std::sync::OnceLock;

    use quanta::Clock as Counter;
    use tokio::time::Instant;

    /// Calibrated once: its rate is a property of the machine.
    fn counter() -> &'static Counter {
        static COUNTER: OnceLock<Counter> = OnceLock::new();
        COUNTER.get_or_init(Counter::new)
    }

    /// Whether tokio's clock runs with real time: on a paused one nothing moves by itself.
    pub(super) fn runs(start: Instant) -> bool {
        let real = counter();
        let begun = real.now();
        while real.now().duration_since(begun).as_nanos() < 2_000 {
            std::hint::spin_loop();
        }
        Instant::now() > start
    }

    #[inline]
    pub(super) fn now() -> u64 {
        counter().raw()
    }

    #[inline]
    pub(super) fn since(start: u64) -> u64 {
        let counter = counter();
        counter.delta_as_nanos(start, counter.raw())
    }
}

#[cfg(test)]
mod tests;
