//! The time of day by which keys grow old: one that a clock which is set wrong for a while cannot
//! hurry.
//!
//! A clock that jumps a week ahead would make all keys a week older at once, and a command that is
//! repeated then has a second effect. So it is compared with a clock that only ever counts: what it
//! is ahead of that since the process began is believed when it has stayed so for as long as keys
//! are kept, since by then they are old enough by either. What goes back is believed at once.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// What it may go ahead at once: clocks drift, and are set right.
const STEP_US: i64 = 60 * 60 * 1_000_000;

/// See the [module](self).
#[derive(Debug)]
pub(super) struct SteadyClock {
    began: Instant,
    believed: Believed,
}

/// How far the time of day is ahead of what was counted, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Believed {
    ahead: i64,
    /// What the time of day says instead, and since when.
    said: Option<(i64, Duration)>,
}

impl SteadyClock {
    pub(super) fn new() -> Self {
        Self { began: Instant::now(), believed: Believed { ahead: wall(), said: None } }
    }

    /// Microseconds since 1970, for what is kept for `age`.
    pub(super) fn now(&mut self, age: Duration) -> i64 {
        self.believed.now(wall(), self.began.elapsed(), age)
    }
}

fn wall() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    micros(since)
}

fn micros(time: Duration) -> i64 {
    i64::try_from(time.as_micros()).unwrap_or(i64::MAX)
}

impl Believed {
    fn now(&mut self, wall: i64, counted: Duration, age: Duration) -> i64 {
        let ahead = wall.saturating_sub(micros(counted));
        let agrees = |with: i64| ahead.saturating_sub(with) <= STEP_US;
        self.said = match self.said {
            _ if agrees(self.ahead) => None,
            // What it said before, and goes on to say.
            Some((said, since)) if agrees(said) && said.saturating_sub(ahead) <= STEP_US => {
                Some((said, since))
            }
            _ => Some((ahead, counted)),
        };
        match self.said {
            Some((_, since)) if counted.saturating_sub(since) < age => {}
            _ => *self = Self { ahead, said: None },
        }
        micros(counted).saturating_add(self.ahead)
    }
}

#[cfg(test)]
mod tests;
