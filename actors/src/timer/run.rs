//! The timers of a kind, on the node that has the claim: read when they are due, fired, settled.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use mister_smith_supervisors::Clock;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use super::{Fire, Fired, LOOK_EVERY, Timer, TimerOptions, letter};
use crate::bus::{DeadLetterOffice, EventBus, FailureCause, splitmix};
use crate::event::{Position, Timestamp};
use crate::guarded::{Broken, guarded_within};
use crate::store::claims::ClaimError;
use crate::store::follow::{Cursor, Follower, MOST_DEATHS, Step};
use crate::store::timers::{Due, Settled, TimerRow, TimerState, TimerTable};

/// The first pause before a timer is tried again that this program does not know.
const UNKNOWN_FIRST: Duration = Duration::from_secs(1);

/// The longest.
const UNKNOWN_LAST: Duration = Duration::from_secs(300);

/// The pause before a dead letter is kept again that was refused.
const OFFICE_PAUSE: Duration = Duration::from_secs(5);

/// The most of a reason that is kept, in bytes.
const REASON_BYTES: usize = 4 << 10;

/// What the lives of a kind count on this node.
#[derive(Debug)]
pub struct Counted {
    fired: AtomicU64,
    retried: AtomicU64,
    dead: AtomicU64,
    unknown: AtomicU64,
    /// When the next one is looked at.
    next: AtomicI64,
    trouble: Mutex<Option<(Arc<str>, String)>>,
}

impl Default for Counted {
    fn default() -> Self {
        let zero = || AtomicU64::new(0);
        let (fired, retried, dead, unknown) = (zero(), zero(), zero(), zero());
        let next = AtomicI64::new(i64::MAX);
        Self { fired, retried, dead, unknown, next, trouble: Mutex::default() }
    }
}

impl Counted {
    /// Those that had their effect.
    #[must_use]
    pub fn fired(&self) -> u64 {
        self.fired.load(Ordering::Relaxed)
    }

    /// Tries that failed and are followed by another.
    #[must_use]
    pub fn retried(&self) -> u64 {
        self.retried.load(Ordering::Relaxed)
    }

    /// Dead letters.
    #[must_use]
    pub fn dead(&self) -> u64 {
        self.dead.load(Ordering::Relaxed)
    }

    /// Those that wait because no program that tried them knows what they are for.
    #[must_use]
    pub fn unknown(&self) -> u64 {
        self.unknown.load(Ordering::Relaxed)
    }

    /// When the next one is looked at, as far as this node has seen.
    #[must_use]
    pub fn next(&self) -> Option<Timestamp> {
        match self.next.load(Ordering::Relaxed) {
            i64::MAX => None,
            at => Some(Timestamp::from_micros(at)),
        }
    }

    /// The name of one that is tried again, and why.
    #[must_use]
    pub fn trouble(&self) -> Option<(Arc<str>, String)> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn is_trouble(&self, timer: &Timer, reason: &str) {
        let trouble = Some((Arc::clone(&timer.name), reason.to_owned()));
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
    }

    fn no_trouble(&self, name: &str) {
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        if trouble.as_ref().is_some_and(|(of, _)| **of == *name) {
            *trouble = None;
        }
    }
}

/// What fires the timers of a kind.
pub(super) struct Run {
    pub(super) kind: Arc<str>,
    pub(super) options: TimerOptions,
    pub(super) handler: Arc<dyn Fire>,
    pub(super) table: Arc<dyn TimerTable>,
    pub(super) follower: Follower,
    pub(super) bus: EventBus,
    pub(super) office: Arc<dyn DeadLetterOffice>,
    pub(super) clock: Clock,
    /// Somebody of this node has set one.
    pub(super) notice: Arc<Notify>,
    /// Others set them too.
    pub(super) shared: bool,
    pub(super) counted: Arc<Counted>,
    /// For the jitter of pauses.
    pub(super) seed: u64,
}

/// Those that are being fired.
struct InFlight<'a> {
    ids: BTreeSet<i64>,
    firing: FuturesUnordered<BoxFuture<'a, (i64, Settled)>>,
    /// So many are fired one at a time, because processes have died here.
    careful: usize,
}

impl Run {
    /// Fires them for as long as its claim lasts.
    ///
    /// # Cancel safety
    /// What was being fired fires again in the next life, under the same key.
    pub(super) async fn run(&self) -> ClaimError {
        match self.go().await {
            Ok(never) => match never {},
            Err(error) => error,
        }
    }

    async fn go(&self) -> Result<std::convert::Infallible, ClaimError> {
        let (mut cursor, mut held) = (Cursor::default(), false);
        let mut in_flight =
            InFlight { ids: BTreeSet::new(), firing: FuturesUnordered::new(), careful: 0 };
        let (mut alarm, mut look_at) = (None, Instant::now());
        let mut settled = 0;
        loop {
            if held && self.has_room(&in_flight) {
                alarm = self.fill(&mut in_flight).await?;
                look_at = Instant::now() + LOOK_EVERY;
            }
            // Without room a time that has come is no news.
            let idle = held && self.has_room(&in_flight);
            let next = self.follower.next(cursor, 0);
            tokio::select! {
                biased;
                step = next => {
                    let step = step?;
                    cursor = step.cursor();
                    match step {
                        Step::Begin(_) => {
                            settled = cursor.position().get();
                            in_flight = self.begin().await?;
                            held = !self.follower.is_paused();
                        }
                        Step::Paused(paused, _) => held = !paused,
                        Step::Page(..) | Step::Poison(..) => {}
                    }
                }
                Some(first) = in_flight.firing.next(), if !in_flight.firing.is_empty() => {
                    let mut done = vec![first];
                    while let Some(Some(one)) = in_flight.firing.next().now_or_never() {
                        done.push(one);
                    }
                    settled += done.len() as u64;
                    self.settle(&mut in_flight, done).await?;
                    // A place that moves says that it goes on: deaths at one place are counted.
                    self.follower.settle(cursor, Position::new(settled));
                }
                // With whatever woke this, those that are due are looked for.
                () = self.notice.notified() => {}
                () = until(self.clock, alarm), if idle => {}
                () = sleep_until(look_at), if idle && self.shared => {
                    look_at = Instant::now() + LOOK_EVERY;
                }
            }
        }
    }

    /// Forgets what was begun under an earlier claim.
    async fn begin<'a>(&self) -> Result<InFlight<'a>, ClaimError> {
        // This program may know what another one did not.
        self.table.wake(&self.kind).await?;
        self.count_unknown().await?;
        let careful = if self.follower.is_careful() { 2 * self.options.at_once } else { 0 };
        Ok(InFlight { ids: BTreeSet::new(), firing: FuturesUnordered::new(), careful })
    }

    fn has_room(&self, in_flight: &InFlight<'_>) -> bool {
        match in_flight.careful {
            // Not for each single one: what is in flight is read again with those behind it.
            0 => {
                let room = self.options.at_once.saturating_sub(in_flight.ids.len());
                room >= (self.options.at_once / 8).max(1)
            }
            _ => in_flight.ids.is_empty(),
        }
    }

    /// Begins to fire those that are due. Answers when the next one is; if there are more that are
    /// due already, they have their turn when one of these is settled.
    async fn fill<'a>(&'a self, in_flight: &mut InFlight<'a>) -> Result<Option<i64>, ClaimError> {
        let now = Timestamp::from_micros(self.clock.wall_us());
        // Those that are being fired are in the table still, in front.
        let (limit, room) = match in_flight.careful {
            0 => (self.options.at_once, self.options.at_once - in_flight.ids.len()),
            _ => (1, 1),
        };
        let Due { rows, next } = self.table.due(&self.kind, now, limit).await?;
        let next = next.map(Timestamp::as_micros);
        self.counted.next.store(next.unwrap_or(i64::MAX), Ordering::Relaxed);
        let fresh: Vec<_> =
            rows.into_iter().filter(|row| !in_flight.ids.contains(&row.id)).take(room).collect();
        if in_flight.careful > 0 && !fresh.is_empty() {
            let marks = fresh.iter().map(|row| (row.id, Settled::Trying)).collect();
            self.write(marks).await?;
            in_flight.careful -= 1;
        }
        for row in fresh {
            in_flight.ids.insert(row.id);
            in_flight.firing.push(self.fire(row).boxed());
        }
        Ok(next)
    }

    async fn settle(
        &self,
        in_flight: &mut InFlight<'_>,
        done: Vec<(i64, Settled)>,
    ) -> Result<(), ClaimError> {
        let ids: Vec<_> = done.iter().map(|(id, _)| *id).collect();
        let unknown = |(_, settled): &(i64, Settled)| {
            matches!(settled, Settled::Later { state: TimerState::Unknown, .. })
        };
        let count = self.counted.unknown() > 0 || done.iter().any(unknown);
        self.write(done).await?;
        if count {
            self.count_unknown().await?;
        }
        for id in ids {
            in_flight.ids.remove(&id);
        }
        Ok(())
    }

    async fn count_unknown(&self) -> Result<(), ClaimError> {
        let unknown = self.table.unknown(&self.kind).await?;
        self.counted.unknown.store(unknown, Ordering::Relaxed);
        Ok(())
    }

    async fn write(&self, rows: Vec<(i64, Settled)>) -> Result<(), ClaimError> {
        let lost = || ClaimError::Lost { name: format!("timer.{}", self.kind) };
        let fence = self.follower.fence().ok_or_else(lost)?;
        match self.table.settle(&fence, rows).await? {
            true => Ok(()),
            false => Err(lost()),
        }
    }

    /// Fires one and says what becomes of it.
    async fn fire(&self, row: TimerRow) -> (i64, Settled) {
        // Another node may have it, if this one slept.
        self.follower.certain().await;
        let timer = letter::timer(&row);
        if row.deaths >= MOST_DEATHS {
            let reason = format!("{} processes died while they fired it", row.deaths);
            return (row.id, self.bury(&timer, FailureCause::Failed, reason).await);
        }
        let fire = || self.handler.fire(timer.clone());
        let settled = match guarded_within(self.options.deadline, fire, || ()).await {
            Ok(fired) => self.judge(&timer, fired).await,
            Err(Broken::Panicked(text)) => {
                let reason = format!("its handler crashed: {text}");
                match timer.attempt >= TimerOptions::PANICS {
                    true => self.bury(&timer, FailureCause::Crashed, reason).await,
                    false => self.retry(&timer, reason),
                }
            }
            Err(late @ Broken::Late(_)) => self.tried(&timer, late.to_string()).await,
        };
        (row.id, settled)
    }

    async fn judge(&self, timer: &Timer, fired: Fired) -> Settled {
        let done = || {
            self.counted.fired.fetch_add(1, Ordering::Relaxed);
            self.counted.no_trouble(&timer.name);
        };
        match fired {
            Fired::Done => {
                done();
                Settled::Done
            }
            Fired::Again(due) => {
                done();
                Settled::Again(due)
            }
            Fired::Retry { reason } => self.tried(timer, reason).await,
            Fired::Unknown { reason } => self.unknown(timer, reason),
            Fired::Fail { class, reason } => {
                let reason = format!("{class}: {reason}");
                self.bury(timer, FailureCause::Failed, reason).await
            }
        }
    }

    /// It did not work: it is tried again, or was tried often enough.
    async fn tried(&self, timer: &Timer, reason: String) -> Settled {
        match timer.attempt >= self.options.retry.attempts {
            true => self.bury(timer, FailureCause::Exhausted, reason).await,
            false => self.retry(timer, reason),
        }
    }

    fn retry(&self, timer: &Timer, reason: String) -> Settled {
        self.counted.retried.fetch_add(1, Ordering::Relaxed);
        if timer.attempt == 1 {
            tracing::warn!(
                kind = &*self.kind,
                timer = &*timer.name,
                reason,
                "not fired; it is tried again"
            );
        }
        let random =
            splitmix(self.seed ^ timer.due.as_micros().cast_unsigned() ^ u64::from(timer.attempt));
        self.counted.is_trouble(timer, &reason);
        self.later(
            timer,
            self.options.retry.pause(timer.attempt, random),
            TimerState::Waiting,
            reason,
        )
    }

    fn unknown(&self, timer: &Timer, reason: String) -> Settled {
        if timer.attempt == 1 {
            tracing::error!(
                kind = &*self.kind,
                timer = &*timer.name,
                reason,
                "this program does not know it; it waits for one that does"
            );
        }
        let pause = UNKNOWN_FIRST * 2_u32.saturating_pow(timer.attempt.min(16));
        self.later(timer, pause.min(UNKNOWN_LAST), TimerState::Unknown, reason)
    }

    fn later(
        &self,
        timer: &Timer,
        pause: Duration,
        state: TimerState,
        mut reason: String,
    ) -> Settled {
        reason.truncate(reason.floor_char_boundary(REASON_BYTES));
        let pause = i64::try_from(pause.as_micros()).unwrap_or(i64::MAX);
        let at = Timestamp::from_micros(self.clock.wall_us().saturating_add(pause));
        Settled::Later { at, state, attempts: timer.attempt, reason }
    }

    /// Makes it a dead letter. It goes when that is durable; a letter that is refused holds up
    /// nobody else.
    async fn bury(&self, timer: &Timer, cause: FailureCause, mut reason: String) -> Settled {
        tracing::warn!(kind = &*self.kind, timer = &*timer.name, reason, "dead letter");
        reason.truncate(reason.floor_char_boundary(REASON_BYTES));
        let desk = (&self.bus, &*self.office);
        match letter::keep(desk, timer, cause, reason.clone()).await {
            Ok(()) => {
                self.counted.dead.fetch_add(1, Ordering::Relaxed);
                self.counted.no_trouble(&timer.name);
                Settled::Done
            }
            Err(refused) => {
                let reason = format!("its dead letter is not kept: {refused}; it failed: {reason}");
                self.counted.is_trouble(timer, &reason);
                self.later(timer, OFFICE_PAUSE, TimerState::Waiting, reason)
            }
        }
    }
}

/// Also when the clock is set, or the machine sleeps, meanwhile.
async fn until(clock: Clock, at: Option<i64>) {
    match at {
        Some(at) => clock.until(at).await,
        None => std::future::pending().await,
    }
}
