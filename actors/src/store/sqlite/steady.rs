//! The time of day by which keys grow old: one that a clock which is set wrong for a while cannot
//! hurry.
//!
//! A clock that jumps a week ahead would make all keys a week older at once, and a command that is
//! repeated then has a second effect. So it is compared with a clock that only ever counts: what it
//! is ahead of that since the process began is believed when it has stayed so for as long as keys
//! are kept, since by then they are old enough by either. What goes back is believed at once.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::Connection;

/// What it may go ahead at once: clocks drift, and are set right.
const STEP_US: i64 = 60 * 60 * 1_000_000;

/// See the [module](self). All clones are one: a file that is opened again is no reason to believe
/// a clock that was not believed before.
#[derive(Debug, Clone)]
pub(super) struct SteadyClock {
    began: Instant,
    /// Since it was first asked.
    believed: Arc<Mutex<Option<Believed>>>,
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
        Self { began: Instant::now(), believed: Arc::default() }
    }

    /// One that was first asked at another time of day, in microseconds.
    #[cfg(test)]
    pub(super) fn first_asked_at(wall: i64) -> Self {
        let believed = Believed { ahead: wall, said: None };
        Self { began: Instant::now(), believed: Arc::new(Mutex::new(Some(believed))) }
    }

    /// Microseconds since 1970, for what is kept for `age`. The time of day is what SQLite takes for
    /// it.
    pub(super) fn now(&self, connection: &Connection, age: Duration) -> rusqlite::Result<i64> {
        let wall: i64 = connection
            .prepare_cached("select cast(unixepoch('subsec') * 1000000 as integer)")?
            .query_row((), |row| row.get(0))?;
        let counted = self.began.elapsed();
        let ahead = wall.saturating_sub(micros(counted));
        // Nothing below panics while it holds the lock.
        let mut believed = self.believed.lock().unwrap_or_else(PoisonError::into_inner);
        let believed = believed.get_or_insert(Believed { ahead, said: None });
        Ok(believed.now(wall, counted, age))
    }
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
