//! What all actors of one system share: clock, randomness, observer, dead letters.
//!
//! Nothing here is global, so two systems live side by side in one process, and a test gives a
//! system its own clock and seed.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::time::Instant;

use crate::actor::slot::SlotCell;
use crate::actor::{DeadLetter, DeadLetters};
use crate::lifecycle::history::History;
use crate::lifecycle::{LifecycleEvent, LifecycleKind, Observer};

/// A lock whose holder panicked is still a lock: every critical section here leaves its data
/// whole at each step, so the data is good.
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The system's clock: monotonic for durations, and a wall clock that moves with it.
///
/// It follows tokio's clock, so it stands still in a test with paused time.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Instant,
    epoch_us: i64,
}

impl Clock {
    /// A clock that starts now and shows `epoch_us` (microseconds since the Unix epoch) now.
    #[must_use]
    pub fn starting_at(epoch_us: i64) -> Self {
        Self { start: Instant::now(), epoch_us }
    }

    /// Time since the system started.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    /// Wall clock, microseconds since the Unix epoch. Never goes backwards.
    #[must_use]
    pub fn wall_us(&self) -> i64 {
        self.wall_at(self.elapsed())
    }

    pub(crate) fn wall_at(&self, elapsed: Duration) -> i64 {
        self.epoch_us.saturating_add(i64::try_from(elapsed.as_micros()).unwrap_or(i64::MAX))
    }

    pub(crate) fn elapsed_ns(&self) -> u64 {
        u64::try_from(self.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

/// Who hears what happens in a system, and how much of it is kept.
pub(crate) struct HeardBy {
    pub(crate) observers: Vec<Arc<dyn Observer>>,
    pub(crate) dead_letters: Option<Arc<dyn DeadLetters>>,
    pub(crate) history: usize,
    pub(crate) backtraces: bool,
}

/// What all slots of one system share.
pub(crate) struct Environment {
    pub(crate) clock: Clock,
    rng: Mutex<StdRng>,
    pub(crate) history: Arc<History>,
    /// Whether every panic keeps its stack, or only when `RUST_BACKTRACE` says so.
    pub(crate) backtraces: bool,
    /// New slots record what they handle.
    pub(crate) recording: AtomicBool,
    observers: Vec<Arc<dyn Observer>>,
    dead_letters: Option<Arc<dyn DeadLetters>>,
    dead_letter_count: AtomicU64,
}

impl Environment {
    pub(crate) fn new(clock: Clock, seed: u64, heard_by: HeardBy) -> Self {
        let HeardBy { observers, dead_letters, history, backtraces } = heard_by;
        Self {
            clock,
            rng: Mutex::new(StdRng::seed_from_u64(seed)),
            history: Arc::new(History::new(history)),
            backtraces,
            recording: AtomicBool::new(false),
            observers,
            dead_letters,
            dead_letter_count: AtomicU64::new(0),
        }
    }

    /// Runs `draw` on the system's generator.
    pub(crate) fn random<T>(&self, draw: impl FnOnce(&mut StdRng) -> T) -> T {
        draw(&mut lock(&self.rng))
    }

    /// Something happened to a slot. Returns the event's number, so that what follows can name it.
    pub(crate) fn emit(
        &self,
        cell: &SlotCell,
        life: u64,
        cause_seq: Option<u64>,
        kind: LifecycleKind,
    ) -> u64 {
        let event = LifecycleEvent::new(cell.path.clone(), cell.info.kind, life, kind);
        self.publish(LifecycleEvent { cause_seq, ..event })
    }

    /// Numbers an event, keeps it, and tells the observers.
    pub(crate) fn publish(&self, mut event: LifecycleEvent) -> u64 {
        event.at_us = self.clock.wall_us();
        let event = self.history.push(event);
        for observer in &self.observers {
            observer.on_event(&event);
        }
        event.seq
    }

    pub(crate) fn dead_letter(&self, letter: DeadLetter) {
        self.dead_letter_count.fetch_add(1, Ordering::Relaxed);
        match &self.dead_letters {
            Some(hook) => hook.on_dead_letter(letter),
            None => tracing::warn!(
                actor.path = %letter.path,
                message = letter.message_type,
                cause = %letter.cause,
                "dead letter"
            ),
        }
    }

    pub(crate) fn dead_letter_count(&self) -> u64 {
        self.dead_letter_count.load(Ordering::Relaxed)
    }
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Environment").field("clock", &self.clock).finish_non_exhaustive()
    }
}
