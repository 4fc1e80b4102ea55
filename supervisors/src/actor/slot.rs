//! The slot: what stays of an actor while its lives come and go.
//!
//! Path, statistics, mailbox and address belong to the slot. A life borrows the slot's
//! [`Receiver`] for as long as it runs ([`LifeToken`]); the next life waits for it, so two lives
//! of one slot never overlap.

use std::any::Any;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ractor::{ActorCell, ActorRef};

use crate::actor::dead_letter::{DeadLetter, DeadLetterCause};
use crate::actor::kinds::Kinds;
use crate::actor::life::LifeMessage;
use crate::actor::mailbox::{Entry, Extra, Mailbox, MailboxFacts, Receiver};
use crate::actor::recorder::{Handled, Recorded, Recorder};
use crate::actor::reply::Settled;
use crate::actor::stats::Stats;
use crate::actor::token::LifeToken;
use crate::actor::waits::{Wait, WaitView};
use crate::environment::{Environment, lock};
use crate::error::{ExitReason, SupervisorError};
use crate::health::Health;
use crate::path::Path;
use crate::resilience::ErrorClass;
use crate::supervisor::{ComponentType, ReactionCell, SupervisorLink, Terms};

/// What a slot is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SlotState {
    /// A life is being started.
    Starting,
    /// A life handles messages.
    Up,
    /// The life was told to stop and has not ended yet.
    Stopping,
    /// The next life waits for its backoff to run out.
    Backoff,
    /// The next life will be started as soon as its supervisor gets to it.
    Restarting,
    /// No life, and none is due: it ended, was terminated, or asked to be ignored.
    Down,
    /// Held by an operator or the API.
    Suspended,
    /// A life does not end although it was killed.
    Stuck,
}

impl SlotState {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 8] = [
        Self::Starting,
        Self::Up,
        Self::Stopping,
        Self::Backoff,
        Self::Restarting,
        Self::Down,
        Self::Suspended,
        Self::Stuck,
    ];

    /// One word for the tree and JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Up => "up",
            Self::Stopping => "stopping",
            Self::Backoff => "backoff",
            Self::Restarting => "restarting",
            Self::Down => "down",
            Self::Suspended => "suspended",
            Self::Stuck => "stuck",
        }
    }
}

/// The last thing that went wrong in a slot.
#[derive(Clone, Debug)]
pub struct FailureRecord {
    /// What the life died of.
    pub reason: ExitReason,
    /// Which life.
    pub life: u64,
    /// Wall clock, microseconds since the Unix epoch.
    pub at_us: i64,
    /// The kind of message that was in hand, if one was.
    pub message_in_hand: Option<&'static str>,
    /// The lifecycle event that reported it.
    pub seq: u64,
    /// The class of the error, where the reason is one.
    pub class: Option<ErrorClass>,
    /// What its supervisor did about it.
    pub decision: ReactionCell,
}

/// Failures that a slot remembers.
pub const FAILURES_KEPT: usize = 8;

/// What a slot is, fixed at its creation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SlotInfo {
    pub(crate) kind: SlotKind,
    pub(crate) component: Option<ComponentType>,
    pub(crate) actor_type: &'static str,
    pub(crate) message_type: &'static str,
}

/// What lives in a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SlotKind {
    /// An [`Actor`](crate::Actor).
    Actor,
    /// A supervisor with declared children.
    Supervisor,
    /// A supervisor whose children come and go.
    DynamicSupervisor,
    /// A raw ractor actor.
    Raw,
}

/// The part of a slot that does not depend on the message type.
pub(crate) struct SlotCell {
    pub(crate) path: Path,
    pub(crate) info: SlotInfo,
    pub(crate) env: Arc<Environment>,
    pub(crate) stats: Stats,
    state: AtomicU8,
    stop_requested: AtomicBool,
    suspended: AtomicBool,
    /// It waits for answers.
    waits: AtomicBool,
    /// A start was reported, and no end since.
    reported_up: AtomicBool,
    life: AtomicU64,
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
    current: Option<ActorCell>,
    exit: Option<(u64, ExitReason)>,
    /// The life that ended last ended with a message in hand.
    ended_in_hand: bool,
    kinds: Kinds,
    rare: Option<Box<Rare>>,
    /// The event that ends this life: an action, or an escalation. 0 for none.
    blamed: (u64, u64),
    terms: Terms,
    status: Option<Arc<dyn Fn() -> String + Send + Sync>>,
    handover: Option<Box<dyn Any + Send>>,
    health: Option<Health>,
    planned_stop: bool,
}

/// What few slots have: an idle actor pays a pointer for it.
#[derive(Default)]
struct Rare {
    recorder: Recorder,
    failures: Vec<Arc<FailureRecord>>,
    waits: Vec<Wait>,
    next_wait: u64,
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
            state: AtomicU8::new(SlotState::Down as u8),
            stop_requested: AtomicBool::new(false),
            suspended: AtomicBool::new(false),
            waits: AtomicBool::new(false),
            reported_up: AtomicBool::new(false),
            life: AtomicU64::new(0),
            restarts: AtomicU64::new(0),
            started_at_ns: AtomicU64::new(0),
            restarted_at_ns: AtomicU64::new(0),
            backoff_until_ns: AtomicU64::new(0),
            slow: Mutex::new(Slow::default()),
        }
    }

    pub(crate) fn state(&self) -> SlotState {
        SlotState::ALL[usize::from(self.state.load(Ordering::Acquire)).min(7)]
    }

    pub(crate) fn set_state(&self, state: SlotState) {
        self.state.store(state as u8, Ordering::Release);
    }

    /// The number of the current life, or of the last one.
    pub(crate) fn life(&self) -> u64 {
        self.life.load(Ordering::Acquire)
    }

    /// Numbers the next life.
    pub(crate) fn next_life(&self) -> u64 {
        self.stop_requested.store(false, Ordering::Release);
        let mut slow = lock(&self.slow);
        slow.exit = None;
        slow.planned_stop = false;
        slow.health = None;
        drop(slow);
        self.life.fetch_add(1, Ordering::AcqRel) + 1
    }

    /// A life is up. From now on `kill` and `stop` reach it.
    pub(crate) fn up(&self, cell: ActorCell) {
        self.started_at_ns.store(self.env.clock.elapsed_ns(), Ordering::Relaxed);
        lock(&self.slow).current = Some(cell);
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

    /// A start was reported, or an end; says what was so before.
    pub(crate) fn set_reported_up(&self, up: bool) -> bool {
        self.reported_up.swap(up, Ordering::AcqRel)
    }

    pub(crate) fn is_reported_up(&self) -> bool {
        self.reported_up.load(Ordering::Acquire)
    }

    pub(crate) fn is_suspended(&self) -> bool {
        self.suspended.load(Ordering::Acquire)
    }

    pub(crate) fn set_suspended(&self, suspended: bool) {
        self.suspended.store(suspended, Ordering::Release);
    }

    pub(crate) fn stop_requested(&self) -> bool {
        self.stop_requested.load(Ordering::Acquire)
    }

    /// The current life, if one runs.
    pub(crate) fn current(&self) -> Option<ActorCell> {
        lock(&self.slow).current.clone()
    }

    /// Tells the current life to end after the message in hand.
    pub(crate) fn request_stop(&self, planned: bool) {
        lock(&self.slow).planned_stop = planned;
        self.stop_requested.store(true, Ordering::Release);
        if let Some(cell) = self.current() {
            cell.stop(None);
        }
    }

    pub(crate) fn planned_stop(&self) -> bool {
        lock(&self.slow).planned_stop
    }

    /// Kills life `life`, and no other: a handle taken before a restart must not hit the life
    /// that came after it (kameo #392). Says whether that life was there.
    pub(crate) fn kill_life(&self, life: u64) -> bool {
        self.kill_life_because(life, None)
    }

    /// The same; event `seq` says who wanted it.
    pub(crate) fn kill_life_because(&self, life: u64, seq: Option<u64>) -> bool {
        let mut slow = lock(&self.slow);
        if self.life() != life {
            return false;
        }
        let Some(cell) = slow.current.clone() else { return false };
        if let Some(seq) = seq {
            slow.blamed = (life, seq);
        }
        cell.kill();
        true
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
        if slow.exit.as_ref().is_none_or(|(of, _)| *of != life) {
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

    /// The life is over, whoever ended it.
    pub(crate) fn life_ended(&self, life: u64, in_hand: bool) {
        self.stats.idle();
        let mut slow = lock(&self.slow);
        if self.life() == life {
            slow.current = None;
            slow.ended_in_hand = in_hand;
        }
    }

    pub(crate) fn record_failure(&self, reason: ExitReason, seq: u64, decision: ReactionCell) {
        let busy = self.stats.in_hand_since_ns().is_some();
        let mut slow = lock(&self.slow);
        let in_hand = busy || slow.ended_in_hand;
        let record = FailureRecord {
            class: reason.class(),
            reason,
            life: self.life(),
            at_us: self.env.clock.wall_us(),
            message_in_hand: slow.kinds.name(self.stats.kind()).filter(|_| in_hand),
            seq,
            decision,
        };
        let failures = &mut slow.rare().failures;
        if failures.len() == FAILURES_KEPT {
            failures.remove(0);
        }
        failures.push(Arc::new(record));
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

    pub(crate) fn set_status(&self, status: Arc<dyn Fn() -> String + Send + Sync>) {
        lock(&self.slow).status = Some(status);
    }

    pub(crate) fn status(&self) -> Option<String> {
        // The closure is an actor's own code: it runs outside the lock.
        let status = lock(&self.slow).status.clone();
        status.map(|status| status())
    }

    pub(crate) fn keep_handover(&self, handover: Box<dyn Any + Send>) {
        lock(&self.slow).handover = Some(handover);
    }

    pub(crate) fn take_handover(&self) -> Option<Box<dyn Any + Send>> {
        lock(&self.slow).handover.take()
    }

    pub(crate) fn health(&self) -> Option<Health> {
        lock(&self.slow).health.clone()
    }

    pub(crate) fn set_health(&self, health: Health) {
        lock(&self.slow).health = Some(health);
    }

    /// The kind of the message in hand.
    pub(crate) fn in_hand_name(&self) -> Option<&'static str> {
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

    /// Writes a message down. `began_ns` on the system's clock.
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

    pub(crate) fn begin_wait(&self, on: Path, message: &'static str, since: Duration) -> u64 {
        let mut slow = lock(&self.slow);
        let rare = slow.rare();
        rare.next_wait += 1;
        let id = rare.next_wait;
        rare.waits.push(Wait { id, on, message, since });
        self.waits.store(true, Ordering::Relaxed);
        id
    }

    pub(crate) fn end_wait(&self, id: u64) {
        let mut slow = lock(&self.slow);
        let waits = &mut slow.rare().waits;
        waits.retain(|wait| wait.id != id);
        if waits.is_empty() {
            // An idle actor keeps no room for it.
            *waits = Vec::new();
            self.waits.store(false, Ordering::Relaxed);
        }
    }

    /// What it waits for now.
    pub(crate) fn waits(&self) -> Vec<WaitView> {
        if !self.waits.load(Ordering::Relaxed) {
            return Vec::new();
        }
        let now = self.env.clock.elapsed();
        let slow = lock(&self.slow);
        let waits = slow.rare.as_ref().map(|rare| &rare.waits[..]).unwrap_or_default();
        waits.iter().map(|wait| wait.view(now)).collect()
    }
}

/// A slot of any kind, as supervisors and the tree see it.
pub(crate) trait AnySlot: Send + Sync + 'static {
    fn cell(&self) -> &SlotCell;
    fn as_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync>;
    /// For slots that have a mailbox.
    fn mailbox(&self) -> Option<MailboxFacts>;
    /// Takes messages again after `close`.
    fn open(&self);
    /// Stopped for good, as far as anyone knows: waiting messages go to the dead letters.
    fn close(&self, reason: &ExitReason);
    /// Stops or starts handing messages to the life. `false`: this kind cannot.
    fn pause(&self, paused: bool) -> bool;
    /// Writes down what it handles, or forgets it; `None` only asks. Says whether it does.
    fn record(&self, on: Option<bool>) -> bool;
    /// The supervisor in this slot, if one is.
    fn supervisor(&self) -> Option<&SupervisorLink>;
    /// Asks the life for its health; `false` when this slot has none to ask.
    fn ask_health(&self, reply: tokio::sync::oneshot::Sender<Health>) -> bool;
}

/// The slot of an actor with messages of type `M`.
pub(crate) struct Slot<M> {
    pub(crate) cell: SlotCell,
    pub(crate) mailbox: Mailbox<M>,
    receiver: Arc<tokio::sync::Mutex<Receiver<M>>>,
    pub(crate) on_crash: OnCrashOf<M>,
    checks_health: bool,
    /// The actor's names for its messages.
    pub(crate) name_of: fn(&M) -> &'static str,
}

/// What happens to the message in hand, with the way to copy it where a copy is kept.
pub(crate) struct OnCrashOf<M> {
    pub(crate) copy: Option<fn(&M) -> M>,
    /// How often a message may be taken in hand before it is a dead letter.
    pub(crate) max_attempts: u32,
}

impl<M: Send + 'static> Slot<M> {
    pub(crate) fn new(
        cell: SlotCell,
        mailbox: Mailbox<M>,
        on_crash: OnCrashOf<M>,
        checks_health: bool,
        name_of: fn(&M) -> &'static str,
    ) -> Self {
        let receiver = Arc::new(tokio::sync::Mutex::new(Receiver::default()));
        mailbox.set_recording(cell.env.recording.load(Ordering::Relaxed));
        Self { cell, mailbox, receiver, on_crash, checks_health, name_of }
    }

    /// Takes the receiver if no earlier life holds it.
    pub(crate) fn try_acquire(self: &Arc<Self>, life: u64) -> Option<LifeToken<M>> {
        let receiver = Arc::clone(&self.receiver).try_lock_owned().ok()?;
        Some(LifeToken { slot: Arc::clone(self), receiver, life })
    }

    /// Waits until no earlier life holds the receiver.
    pub(crate) async fn acquire(self: &Arc<Self>, life: u64) -> LifeToken<M> {
        let receiver = Arc::clone(&self.receiver).lock_owned().await;
        LifeToken { slot: Arc::clone(self), receiver, life }
    }

    /// Nobody will handle it: its asker is told, and it goes to the dead letters.
    pub(crate) fn bury(&self, entry: Entry<M>, cause: &DeadLetterCause) {
        let stopped = matches!(cause, DeadLetterCause::Stopped(_));
        if let Some(ask) = entry.ask {
            ask.settle(Settled::Unhandled { stopped });
        }
        self.cell.env.dead_letter(DeadLetter {
            path: self.cell.path.clone(),
            life: self.cell.life(),
            message_type: self.cell.info.message_type,
            cause: cause.clone(),
            attempts: Extra::attempts(entry.extra.as_deref()),
            message: Some(Box::new(entry.message)),
        });
    }
}

impl<M: Send + 'static> AnySlot for Slot<M> {
    fn cell(&self) -> &SlotCell {
        &self.cell
    }

    fn as_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync> {
        self
    }

    fn mailbox(&self) -> Option<MailboxFacts> {
        Some(self.mailbox.facts())
    }

    fn open(&self) {
        self.mailbox.open();
    }

    fn close(&self, reason: &ExitReason) {
        let cause = DeadLetterCause::Stopped(reason.clone());
        // What a life has taken and still holds, its token buries when it lets go.
        for entry in self.mailbox.close() {
            self.bury(entry, &cause);
        }
    }

    fn pause(&self, paused: bool) -> bool {
        if paused {
            self.mailbox.pause();
        } else {
            self.mailbox.resume();
        }
        true
    }

    fn record(&self, on: Option<bool>) -> bool {
        if let Some(on) = on {
            self.mailbox.set_recording(on);
            if !on {
                self.cell.forget_recorded();
            }
        }
        self.mailbox.is_recording()
    }

    fn supervisor(&self) -> Option<&SupervisorLink> {
        None
    }

    fn ask_health(&self, reply: tokio::sync::oneshot::Sender<Health>) -> bool {
        if !self.checks_health {
            return false;
        }
        match self.cell.current() {
            Some(cell) => {
                ActorRef::<LifeMessage>::from(cell).send_message(LifeMessage::Health(reply)).is_ok()
            }
            None => false,
        }
    }
}

impl<M> fmt::Debug for Slot<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slot").field("path", &self.cell.path).finish_non_exhaustive()
    }
}
