//! The part of a slot that does not depend on the message type.

use std::any::Any;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Waker;
use std::time::Duration;

use ractor::ActorCell;
use tokio::sync::Notify;

use crate::actor::gate::Gate;
use crate::actor::kinds::Kinds;
use crate::actor::panic::caught;
use crate::actor::slot::{Call, Extra};
use crate::actor::state::{FAILURES_KEPT, FailureRecord, SlotInfo, SlotState};
use crate::actor::stats::Stats;
use crate::actor::watch::Ended;
use crate::environment::Environment;
use crate::error::{ExitReason, SupervisorError};
use crate::health::Health;
use crate::inspect::recorder::{Handled, Recorded, Recorder};
use crate::path::{Path, unescape};
use crate::supervisor::{ReactionCell, SupervisorMessage, Terms};
use crate::sync::lock;

/// What runs in a slot now.
#[derive(Clone)]
pub(crate) enum Running {
    /// A life of our own: ended through its gate.
    Life,
    /// An actor that ractor runs: a supervisor, or a raw one.
    Ractor(ActorCell),
}

/// See the module's page.
pub(crate) struct SlotCell {
    pub(crate) path: Path,
    pub(crate) info: SlotInfo,
    pub(crate) env: Arc<Environment>,
    pub(crate) stats: Stats,
    pub(crate) gate: Gate,
    state: AtomicU8,
    suspended: AtomicBool,
    /// Its life was told to stop and no other will follow: questions are refused.
    refuses_asks: AtomicBool,
    /// A start was reported, and no end since.
    reported_up: AtomicBool,
    /// How many answers it waits for.
    waits: AtomicU32,
    restarts: AtomicU64,
    started_at_ns: AtomicU64,
    /// When it was last restarted, and when its backoff is over; 0 for never.
    restarted_at_ns: AtomicU64,
    backoff_until_ns: AtomicU64,
    slow: Mutex<Slow>,
}

/// What is read and written rarely.
#[derive(Default)]
struct Slow {
    running: Option<Running>,
    /// The task of the current life, from its first poll to its end.
    waker: Option<(u64, Waker)>,
    exit: Option<(u64, ExitReason)>,
    /// The life that ended last ended with a message in flight.
    ended_in_flight: bool,
    kinds: Kinds,
    rare: Option<Box<Rare>>,
    /// The event that ends this life: an action, or an escalation. 0 for none.
    blamed: (u64, u64),
    terms: Terms,
    status: Option<Arc<dyn Fn() -> String + Send + Sync>>,
    planned_stop: bool,
    killed: bool,
}

/// What few slots have: an idle actor pays a pointer for it.
#[derive(Default)]
struct Rare {
    recorder: Recorder,
    failures: Vec<Arc<FailureRecord>>,
    calls: Vec<Call>,
    handover: Option<Box<dyn Any + Send>>,
    health: Option<Health>,
    /// What the current life says of itself, unasked.
    reported_health: Option<Health>,
    ended: Option<Ended>,
    /// Wakes those that wait for the end.
    ending: Option<Arc<Notify>>,
}

impl Slow {
    fn rare(&mut self) -> &mut Rare {
        self.rare.get_or_insert_default()
    }
}

impl SlotCell {
    pub(crate) fn new(path: Path, info: SlotInfo, env: Arc<Environment>) -> Self {
        Self {
            path,
            info,
            env,
            stats: Stats::default(),
            gate: Gate::new(),
            state: AtomicU8::new(SlotState::Down as u8),
            suspended: AtomicBool::new(false),
            refuses_asks: AtomicBool::new(false),
            reported_up: AtomicBool::new(false),
            waits: AtomicU32::new(0),
            restarts: AtomicU64::new(0),
            started_at_ns: AtomicU64::new(0),
            restarted_at_ns: AtomicU64::new(0),
            backoff_until_ns: AtomicU64::new(0),
            slow: Mutex::new(Slow::default()),
        }
    }

    // --- state ---------------------------------------------------------------------------------

    pub(crate) fn state(&self) -> SlotState {
        SlotState::ALL[usize::from(self.state.load(Ordering::SeqCst)).min(7)]
    }

    pub(crate) fn set_state(&self, state: SlotState) {
        self.state.store(state as u8, Ordering::SeqCst);
    }

    /// Changes the state only if `life` is still the current one, so that a late word about a life
    /// that is gone cannot hide the one that is there.
    pub(crate) fn set_state_of(&self, life: u64, state: SlotState) {
        let _slow = lock(&self.slow);
        if self.life() == life {
            self.set_state(state);
        }
    }

    pub(crate) fn is_suspended(&self) -> bool {
        self.suspended.load(Ordering::SeqCst)
    }

    pub(crate) fn set_suspended(&self, suspended: bool) {
        self.suspended.store(suspended, Ordering::SeqCst);
    }

    /// A start was reported, or an end; says what was so before.
    pub(crate) fn set_reported_up(&self, up: bool) -> bool {
        self.reported_up.swap(up, Ordering::AcqRel)
    }

    pub(crate) fn is_reported_up(&self) -> bool {
        self.reported_up.load(Ordering::Acquire)
    }

    /// Whether questions fail at once.
    pub(crate) fn refuses_asks(&self) -> bool {
        self.refuses_asks.load(Ordering::SeqCst)
    }

    pub(crate) fn refuse_asks(&self, refuse: bool) {
        self.refuses_asks.store(refuse, Ordering::SeqCst);
    }

    pub(crate) fn started_at(&self) -> Duration {
        Duration::from_nanos(self.started_at_ns.load(Ordering::Relaxed))
    }

    pub(crate) fn restarts(&self) -> u64 {
        self.restarts.load(Ordering::Relaxed)
    }

    pub(crate) fn count_restart(&self) -> u64 {
        self.restarted_at_ns.store(self.env.clock.elapsed_ns().max(1), Ordering::Relaxed);
        self.restarts.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// When it was last restarted, on the system's clock.
    pub(crate) fn restarted_at_ns(&self) -> Option<u64> {
        Some(self.restarted_at_ns.load(Ordering::Relaxed)).filter(|ns| *ns > 0)
    }

    pub(crate) fn back_off(&self, delay: Duration) {
        let until = self.env.clock.elapsed().saturating_add(delay);
        let until = u64::try_from(until.as_nanos()).unwrap_or(u64::MAX);
        self.backoff_until_ns.store(until, Ordering::Relaxed);
        self.set_state(SlotState::Backoff);
    }

    pub(crate) fn backoff_until_ns(&self) -> u64 {
        self.backoff_until_ns.load(Ordering::Relaxed)
    }

    // --- lives ---------------------------------------------------------------------------------

    /// The number of the current life, or of the last one.
    pub(crate) fn life(&self) -> u64 {
        self.gate.life()
    }

    /// Numbers the next life.
    pub(crate) fn next_life(&self) -> u64 {
        self.refuse_asks(false);
        let mut slow = lock(&self.slow);
        slow.exit = None;
        slow.planned_stop = false;
        slow.killed = false;
        slow.running = None;
        slow.waker = None;
        if let Some(rare) = &mut slow.rare {
            rare.health = None;
            rare.reported_health = None;
            rare.ended = None;
        }
        self.gate.next_life()
    }

    /// The task that runs life `life`. From now on a kill wakes it.
    pub(crate) fn register(&self, life: u64, waker: &Waker) {
        let mut slow = lock(&self.slow);
        if self.life() == life {
            slow.waker = Some((life, waker.clone()));
        }
    }

    /// A life is up. From now on `kill` and `stop` reach it.
    pub(crate) fn up(&self, life: u64, running: Running) {
        let mut slow = lock(&self.slow);
        if self.life() == life {
            self.started_at_ns.store(self.env.clock.elapsed_ns(), Ordering::Relaxed);
            slow.running = Some(running);
        }
    }

    /// Whether a life runs.
    pub(crate) fn is_running(&self) -> bool {
        lock(&self.slow).running.is_some()
    }

    /// Wakes the task of the current life, so that it looks at its gate.
    pub(crate) fn wake(&self) {
        let waker = lock(&self.slow).waker.as_ref().map(|(_, waker)| waker.clone());
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Tells life `life` to end after the message in flight.
    pub(crate) fn request_stop(&self, life: u64, planned: bool) {
        let running = {
            let mut slow = lock(&self.slow);
            if self.life() != life {
                return;
            }
            slow.planned_stop = planned;
            self.gate.stop(life);
            slow.running.clone()
        };
        match running {
            Some(Running::Ractor(cell)) => cell.stop(None),
            _ => self.wake(),
        }
    }

    pub(crate) fn planned_stop(&self) -> bool {
        lock(&self.slow).planned_stop
    }

    /// Ends life `life` at once, also while it starts.
    pub(crate) fn end_life(&self, life: u64) {
        let running = {
            let mut slow = lock(&self.slow);
            if self.life() != life {
                return;
            }
            slow.killed = true;
            // Under the lock: one that comes up now either is seen here, or sees it.
            self.gate.kill(life);
            slow.running.clone()
        };
        match running {
            Some(Running::Ractor(cell)) => cell.kill(),
            _ => self.wake(),
        }
    }

    /// Ends life `life` as a failure of its own, for the reason given: a task that it owns panicked.
    pub(crate) fn fail_life(&self, life: u64, reason: ExitReason) {
        if !self.gate.is_ending(life) {
            self.record_exit(life, reason);
            self.end_life(life);
        }
    }

    /// Kills life `life`, and no other: a handle taken before a restart must not hit the life
    /// that came after it (kameo #392). Says whether that life was there.
    pub(crate) fn kill_life(&self, life: u64) -> bool {
        self.kill_life_because(life, None)
    }

    /// The same; event `seq` says who wanted it.
    pub(crate) fn kill_life_because(&self, life: u64, seq: Option<u64>) -> bool {
        {
            let mut slow = lock(&self.slow);
            if self.life() != life || slow.running.is_none() {
                return false;
            }
            if let Some(seq) = seq {
                slow.blamed = (life, seq);
            }
        }
        self.end_life(life);
        // Its supervisor gives it up if it does not end.
        if let Some(place) = self.env.root().and_then(|root| root.place_of(&self.path)) {
            let id = self.path.segments().last().map(unescape).unwrap_or_default().into();
            place.send(SupervisorMessage::Killed { id, life });
        }
        true
    }

    /// Whether the current life was killed and still runs.
    pub(crate) fn is_killed(&self) -> bool {
        let slow = lock(&self.slow);
        slow.running.is_some() && slow.killed
    }

    /// The error for whoever meant life `expected`, when this is another one.
    pub(crate) fn other_life(&self, expected: u64) -> Option<SupervisorError> {
        let found = self.life();
        let path = self.path.clone();
        (found != expected).then(|| SupervisorError::OtherLife { path, expected, found })
    }

    /// A life says why it ends. The first reason counts.
    pub(crate) fn record_exit(&self, life: u64, reason: ExitReason) {
        let mut slow = lock(&self.slow);
        if slow.exit.as_ref().is_none_or(|(of, _)| *of != life) && self.life() == life {
            slow.exit = Some((life, reason));
        }
    }

    /// What it said before is not what it ended of.
    pub(crate) fn correct_exit(&self, life: u64, reason: ExitReason) {
        let mut slow = lock(&self.slow);
        if self.life() == life {
            slow.exit = Some((life, reason));
        }
    }

    pub(crate) fn exit_of(&self, life: u64) -> Option<ExitReason> {
        match &lock(&self.slow).exit {
            Some((of, reason)) if *of == life => Some(reason.clone()),
            _ => None,
        }
    }

    /// What a life died of, also after the next one has begun.
    pub(crate) fn end_of_life(&self, life: u64) -> Option<ExitReason> {
        self.exit_of(life).or_else(|| {
            let failure = self.last_failure().filter(|failure| failure.life == life)?;
            Some(failure.reason.clone())
        })
    }

    /// What life `life` ends of or has ended of, as far as that is known. `None`: it goes on.
    pub(crate) fn end_of(&self, life: u64) -> Option<ExitReason> {
        self.end_of_life(life).or_else(|| match self.life() == life {
            true => self.gate.is_killed(life).then_some(ExitReason::Killed),
            false => Some(ExitReason::Shutdown),
        })
    }

    /// The life is over, whoever ended it.
    pub(crate) fn life_ended(&self, life: u64, in_flight: bool) {
        self.stats.idle();
        // Dropped outside the lock: both are the actor's own.
        let (_status, _calls);
        let mut slow = lock(&self.slow);
        if self.life() == life {
            slow.running = None;
            slow.waker = None;
            slow.ended_in_flight = in_flight;
            _status = slow.status.take();
            _calls = slow.rare.as_mut().map(|rare| std::mem::take(&mut rare.calls));
            drop(slow);
        }
    }

    // --- failures ------------------------------------------------------------------------------

    pub(crate) fn record_failure(
        &self,
        life: u64,
        reason: ExitReason,
        seq: u64,
        decision: ReactionCell,
    ) {
        let busy = self.stats.began_ns().is_some();
        let mut slow = lock(&self.slow);
        let in_flight = busy || slow.ended_in_flight;
        let record = FailureRecord {
            class: reason.class(),
            reason,
            life,
            at_us: self.env.clock.wall_us(),
            message_in_hand: slow.kinds.name(self.stats.kind()).filter(|_| in_flight),
            seq,
            decision,
        };
        let failures = &mut slow.rare().failures;
        let oldest = if failures.len() == FAILURES_KEPT { Some(failures.remove(0)) } else { None };
        failures.push(Arc::new(record));
        drop(slow);
        drop(oldest);
    }

    pub(crate) fn last_failure(&self) -> Option<Arc<FailureRecord>> {
        lock(&self.slow).rare.as_ref()?.failures.last().cloned()
    }

    /// Oldest first.
    pub(crate) fn failures(&self) -> Vec<Arc<FailureRecord>> {
        lock(&self.slow).rare.as_ref().map(|rare| rare.failures.clone()).unwrap_or_default()
    }

    /// Event `seq` is why life `life` will end.
    pub(crate) fn blame(&self, life: u64, seq: u64) {
        lock(&self.slow).blamed = (life, seq);
    }

    /// Why life `life` ended, when that has a number.
    pub(crate) fn take_blame(&self, life: u64) -> Option<u64> {
        let (of, seq) = std::mem::take(&mut lock(&self.slow).blamed);
        (of == life && seq > 0).then_some(seq)
    }

    // --- the end for good ----------------------------------------------------------------------

    /// No life and none due. Tells those that wait for it.
    pub(crate) fn set_ended(&self, reason: &ExitReason) {
        let ended = Ended { path: self.path.clone(), life: self.life(), reason: reason.clone() };
        let waiting = {
            let mut slow = lock(&self.slow);
            let rare = slow.rare();
            if rare.ended.is_some() {
                return;
            }
            rare.ended = Some(ended);
            rare.ending.take()
        };
        if let Some(waiting) = waiting {
            waiting.notify_waiters();
        }
    }

    /// How it ended, if it has; else what tells of its end.
    pub(crate) fn ended_or_notify(&self) -> Result<Ended, Arc<Notify>> {
        let mut slow = lock(&self.slow);
        let rare = slow.rare();
        match &rare.ended {
            Some(ended) => Ok(ended.clone()),
            None => Err(Arc::clone(rare.ending.get_or_insert_default())),
        }
    }

    // --- notes ---------------------------------------------------------------------------------

    /// Life `life` says what is shown beside it. Nothing is kept of one that is over: it would stay
    /// for good, and perhaps hold on to this slot.
    pub(crate) fn set_status(&self, life: u64, status: Arc<dyn Fn() -> String + Send + Sync>) {
        let mut slow = lock(&self.slow);
        let lives = slow.waker.as_ref().is_some_and(|(of, _)| *of == life);
        let late = if lives { slow.status.replace(status) } else { Some(status) };
        drop(slow);
        drop(late);
    }

    pub(crate) fn status(&self) -> Option<String> {
        // The closure is an actor's own code: it runs outside the lock, and a panic in it is not
        // whoever looks.
        let status = lock(&self.slow).status.clone()?;
        Some(caught("status", || status()).unwrap_or_else(|| "(panicked)".to_owned()))
    }

    /// Keeps what one life leaves to the next, unless something is there already.
    pub(crate) fn keep_handover(&self, handover: Box<dyn Any + Send>) {
        let mut slow = lock(&self.slow);
        let kept = &mut slow.rare().handover;
        let late = if kept.is_none() { kept.replace(handover) } else { Some(handover) };
        drop(slow);
        self.env.dispose(late);
    }

    pub(crate) fn take_handover(&self) -> Option<Box<dyn Any + Send>> {
        lock(&self.slow).rare.as_mut()?.handover.take()
    }

    pub(crate) fn health(&self) -> Option<Health> {
        lock(&self.slow).rare.as_ref()?.health.clone()
    }

    pub(crate) fn set_health(&self, health: Health) {
        lock(&self.slow).rare().health = Some(health);
    }

    /// Life `life` says how it is.
    pub(crate) fn report_health(&self, life: u64, health: Health) {
        let mut slow = lock(&self.slow);
        if self.life() == life {
            slow.rare().reported_health = Some(health);
        }
    }

    pub(crate) fn reported_health(&self) -> Option<Health> {
        lock(&self.slow).rare.as_ref()?.reported_health.clone()
    }

    /// Asks the life something beside its mailbox.
    pub(crate) fn call(&self, call: Call) -> bool {
        {
            let mut slow = lock(&self.slow);
            if !matches!(slow.running, Some(Running::Life)) {
                return false;
            }
            slow.rare().calls.push(call);
        }
        self.gate.call();
        self.wake();
        true
    }

    /// What it is asked beside its mailbox, in order.
    pub(crate) fn take_calls(&self) -> Vec<Call> {
        self.gate.take_call();
        lock(&self.slow)
            .rare
            .as_mut()
            .map(|rare| std::mem::take(&mut rare.calls))
            .unwrap_or_default()
    }

    /// The kind of the message in flight.
    pub(crate) fn in_flight_name(&self) -> Option<&'static str> {
        lock(&self.slow).kinds.name(self.stats.kind())
    }

    pub(crate) fn kinds<T>(&self, look: impl FnOnce(&mut Kinds) -> T) -> T {
        look(&mut lock(&self.slow).kinds)
    }

    pub(crate) fn terms<T>(&self, look: impl FnOnce(&mut Terms) -> T) -> T {
        look(&mut lock(&self.slow).terms)
    }

    pub(crate) fn forget_recorded(&self) {
        if let Some(rare) = &mut lock(&self.slow).rare {
            rare.recorder = Recorder::default();
        }
    }

    /// Writes a message down. Times on the system's clock.
    #[cold]
    pub(crate) fn record(
        &self,
        name: &'static str,
        life: u64,
        extra: Option<&Extra>,
        (began_ns, ended_ns): (u64, u64),
        outcome: Handled,
    ) {
        let sent = extra.and_then(|extra| extra.sent.as_ref());
        let line = Recorded {
            at_us: self.env.clock.wall_at(Duration::from_nanos(began_ns)),
            name,
            waited: sent.map(|sent| Duration::from_nanos(began_ns.saturating_sub(sent.at_ns))),
            from: sent.and_then(|sent| sent.from.clone()),
            handled_in: Duration::from_nanos(ended_ns.saturating_sub(began_ns)),
            life,
            outcome,
        };
        lock(&self.slow).rare().recorder.write(line);
    }

    pub(crate) fn recorded(&self) -> Vec<Recorded> {
        lock(&self.slow).rare.as_ref().map(|rare| rare.recorder.lines()).unwrap_or_default()
    }

    /// It waits for one answer more, or fewer.
    pub(crate) fn count_wait(&self, more: bool) {
        if more {
            self.waits.fetch_add(1, Ordering::Relaxed);
        } else {
            self.waits.fetch_sub(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn is_waiting(&self) -> bool {
        self.waits.load(Ordering::Relaxed) > 0
    }
}
