//! The slot: what stays of an actor while its lives come and go.
//!
//! Path, statistics, mailbox and address belong to the slot. A life borrows the slot's
//! [`Receiver`] for as long as it runs ([`LifeToken`]); the next life waits for it, so two lives
//! of one slot never overlap.

use std::any::Any;
use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};
use std::time::Duration;

use tokio::sync::oneshot;

use crate::actor::cell::SlotCell;
use crate::actor::dead_letter::{DeadLetter, DeadLetterCause};
use crate::actor::in_flight::LifeToken;
use crate::actor::mailbox::{Mailbox, Receiver, WhenFull};
use crate::actor::reply::Settled;
use crate::actor::state::SlotKind;
use crate::actor::timers::Armed;
use crate::environment::{Environment, spawn};
use crate::error::ExitReason;
use crate::health::Health;
use crate::inspect::picture::Picture;
use crate::inspect::recorder::Sent;
use crate::path::Path;
use crate::supervisor::SupervisorLink;
use crate::sync::lock;

/// How many messages a mailbox holds when its spec does not say.
pub const DEFAULT_CAPACITY: usize = 1024;

/// How long a sender waits for room when its mailbox does not say otherwise.
pub const DEFAULT_SEND_DEADLINE: Duration = Duration::from_secs(5);

/// Urgent messages that wait at most ([`Address::tell_urgent`](crate::Address::tell_urgent)).
pub const URGENT_CAPACITY: usize = 64;

/// What happens to a message that finds the mailbox full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Overflow {
    /// The sender waits, first come first served, at most this long; then it gets its message
    /// back. The deadline is what keeps two actors that fill each other's mailboxes from waiting
    /// forever.
    Wait(Duration),
    /// The sender gets its message back at once.
    Fail,
    /// The oldest waiting message goes to the dead letters.
    DropOldest,
    /// The new message goes to the dead letters.
    DropNewest,
}

impl Default for Overflow {
    fn default() -> Self {
        Self::Wait(DEFAULT_SEND_DEADLINE)
    }
}

impl Overflow {
    pub(crate) fn when_full(self) -> WhenFull {
        match self {
            Self::Wait(_) | Self::Fail => WhenFull::Refuse,
            Self::DropOldest => WhenFull::DropOldest,
            Self::DropNewest => WhenFull::DropNewest,
        }
    }
}

/// A message on its way.
pub(crate) struct Entry<M> {
    pub(crate) message: M,
    /// What few messages carry.
    pub(crate) extra: Option<Box<Extra>>,
}

/// What only redelivered, recorded and timed messages carry: one pointer for all others.
#[derive(Debug, Default)]
pub(crate) struct Extra {
    /// How often a life has taken it in hand already.
    pub(crate) attempts: u32,
    pub(crate) sent: Option<Sent>,
    /// It comes from a timer, and is worth nothing once that is gone.
    pub(crate) armed: Option<Arc<Armed>>,
}

impl Extra {
    pub(crate) fn attempts(extra: Option<&Self>) -> u32 {
        extra.map_or(0, |extra| extra.attempts)
    }
}

/// What a life is asked beside its mailbox, and answers between two messages.
pub(crate) enum Call {
    Health(oneshot::Sender<Health>),
    Inspect(oneshot::Sender<Option<Picture>>),
    /// To end in order, once it has handled so many of the messages that wait.
    StopAfter(usize),
    /// Urgent messages wait.
    Urgent,
}

/// What a mailbox shows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MailboxFacts {
    pub(crate) depth: usize,
    pub(crate) capacity: usize,
    pub(crate) overflow: Overflow,
    pub(crate) high_water: usize,
}

/// A slot of any kind, as supervisors and the tree see it.
pub(crate) trait AnySlot: Send + Sync + 'static {
    fn cell(&self) -> &SlotCell;
    fn as_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync>;
    /// For slots that have a mailbox.
    fn mailbox(&self) -> Option<MailboxFacts>;
    /// Takes messages again after `close`.
    fn open(&self);
    /// Stopped for good, as far as anyone knows: waiting messages go to the dead letters, on a task
    /// of their own.
    fn close(&self, reason: &ExitReason);
    /// Stops or starts handing messages to the life, by whether it or a supervisor above it is
    /// suspended. `false`: this kind cannot.
    fn hold(&self, held: bool) -> bool;
    /// Writes down what it handles, or forgets it; `None` only asks. Says whether it does.
    fn record(&self, on: Option<bool>) -> bool;
    /// The supervisor in this slot, if one is.
    fn supervisor(&self) -> Option<&SupervisorLink>;
    /// Whether the life can be asked for its health.
    fn checks_health(&self) -> bool;
}

/// The slot of an actor with messages of type `M`.
pub(crate) struct Slot<M> {
    pub(crate) cell: SlotCell,
    pub(crate) mailbox: Mailbox<Entry<M>>,
    pub(crate) overflow: Overflow,
    berth: Mutex<Berth<M>>,
    /// Messages that overtake. Empty for nearly all actors, always.
    urgent: Mutex<VecDeque<Entry<M>>>,
    pub(crate) on_crash: OnCrashOf<M>,
    checks_health: bool,
    /// The slot writes down what it handles.
    recording: AtomicBool,
    /// The actor's names for its messages.
    pub(crate) name_of: fn(&M) -> &'static str,
}

/// The receiver while no life holds it, and the life that waits for it.
struct Berth<M> {
    receiver: Option<Receiver<Entry<M>>>,
    next: Option<(u64, Waker)>,
}

/// What happens to the message in flight, with the way to copy it where a copy is kept.
pub(crate) struct OnCrashOf<M> {
    pub(crate) copy: Option<fn(&M) -> M>,
    /// How often a message may be taken in hand before it is a dead letter.
    pub(crate) max_attempts: u32,
}

impl<M: Send + 'static> Slot<M> {
    pub(crate) fn new(
        cell: SlotCell,
        (capacity, overflow): (usize, Overflow),
        on_crash: OnCrashOf<M>,
        checks_health: bool,
        name_of: fn(&M) -> &'static str,
    ) -> Self {
        let recording = cell.env.recording.load(Ordering::Relaxed);
        Self {
            cell,
            mailbox: Mailbox::new(capacity, overflow.when_full()),
            overflow,
            berth: Mutex::new(Berth { receiver: Some(Receiver::default()), next: None }),
            urgent: Mutex::new(VecDeque::new()),
            on_crash,
            checks_health,
            recording: AtomicBool::new(recording),
            name_of,
        }
    }

    /// Takes the receiver if no earlier life holds it.
    pub(crate) fn try_acquire(self: &Arc<Self>, life: u64) -> Option<LifeToken<M>> {
        let receiver = lock(&self.berth).receiver.take()?;
        Some(LifeToken::new(Arc::clone(self), receiver, life))
    }

    /// Waits until no earlier life holds the receiver.
    pub(crate) async fn acquire(self: &Arc<Self>, life: u64) -> LifeToken<M> {
        let receiver = poll_fn(|cx| {
            let mut berth = lock(&self.berth);
            match berth.receiver.take() {
                Some(receiver) => Poll::Ready(receiver),
                None => {
                    // An earlier life that waits too is given up, and must not be woken instead.
                    if berth.next.as_ref().is_none_or(|(of, _)| *of <= life) {
                        berth.next = Some((life, cx.waker().clone()));
                    }
                    Poll::Pending
                }
            }
        });
        LifeToken::new(Arc::clone(self), receiver.await, life)
    }

    /// A life lets go.
    pub(crate) fn give_back(&self, receiver: Receiver<Entry<M>>) {
        let next = {
            let mut berth = lock(&self.berth);
            berth.receiver = Some(receiver);
            berth.next.take()
        };
        if let Some((_, next)) = next {
            next.wake();
        }
    }

    #[inline]
    pub(crate) fn is_recording(&self) -> bool {
        self.recording.load(Ordering::Relaxed)
    }

    /// Puts a message in front of all others. `Err`: too many are there already, or it has stopped.
    pub(crate) fn push_urgent(&self, entry: Entry<M>) -> Result<(), (bool, Entry<M>)> {
        {
            let mut urgent = lock(&self.urgent);
            // Under the lock: whoever closes the mailbox looks for urgent messages after that.
            if self.mailbox.is_closed() {
                return Err((true, entry));
            }
            if urgent.len() >= URGENT_CAPACITY {
                return Err((false, entry));
            }
            urgent.push_back(entry);
        }
        // Without a life it waits for the next one, which looks before its first message.
        self.cell.call(Call::Urgent);
        Ok(())
    }

    pub(crate) fn take_urgent(&self) -> VecDeque<Entry<M>> {
        std::mem::take(&mut lock(&self.urgent))
    }

    /// Nobody will handle it: it goes to the dead letters, and with it the question it carries.
    pub(crate) fn bury(&self, entry: Entry<M>, cause: &DeadLetterCause) {
        self.burial(cause).bury(&self.cell.env, entry);
    }

    fn burial(&self, cause: &DeadLetterCause) -> Burial {
        Burial {
            path: self.cell.path.clone(),
            life: self.cell.life(),
            message_type: self.cell.info.message_type,
            cause: cause.clone(),
        }
    }

    /// The same, one after the other on a task of its own: the hook is the application's, and so is
    /// the drop of a message, and there may be a million.
    pub(crate) fn bury_elsewhere(&self, entries: VecDeque<Entry<M>>, cause: &DeadLetterCause) {
        if entries.is_empty() {
            return;
        }
        let env = Arc::clone(&self.cell.env);
        let burial = self.burial(cause);
        spawn(&self.cell.env, async move {
            for (n, entry) in entries.into_iter().enumerate() {
                if n % LETTERS == LETTERS - 1 {
                    tokio::task::yield_now().await;
                }
                burial.bury(&env, entry);
            }
        });
    }
}

/// Letters after which others have their turn.
const LETTERS: usize = 64;

/// What all that is buried at once has in common.
struct Burial {
    path: Path,
    life: u64,
    message_type: &'static str,
    cause: DeadLetterCause,
}

impl Burial {
    fn bury<M: Send + 'static>(&self, env: &Environment, entry: Entry<M>) {
        if let Some(armed) = entry.extra.as_ref().and_then(|extra| extra.armed.as_ref()) {
            // Else a timer would wait for it forever.
            armed.left();
            if self.cause.is_stop() {
                // A timer's message has no meaning beyond the life that armed the timer.
                env.dispose(entry.message);
                return;
            }
        }
        env.dead_letter(DeadLetter {
            path: self.path.clone(),
            life: self.life,
            message_type: self.message_type,
            cause: self.cause.clone(),
            attempts: Extra::attempts(entry.extra.as_deref()),
            message: Some(Box::new(entry.message)),
        });
    }
}

impl DeadLetterCause {
    pub(crate) fn is_stop(&self) -> bool {
        matches!(self, Self::Stopped(_))
    }

    /// What the asker is told, if the message carried a question.
    pub(crate) fn settled(&self) -> Settled {
        match self {
            Self::InHand(reason) => Settled::Ended(reason.clone()),
            Self::Stopped(_) | Self::Undeliverable { full: false } => Settled::Stopped,
            Self::DroppedOldest | Self::DroppedNewest | Self::Undeliverable { full: true } => {
                Settled::Full
            }
        }
    }
}

/// The slot of an actor, with a way to itself for the tasks that it needs.
impl<M: Send + 'static> AnySlot for Slot<M> {
    fn cell(&self) -> &SlotCell {
        &self.cell
    }

    fn as_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync> {
        self
    }

    fn mailbox(&self) -> Option<MailboxFacts> {
        (self.cell.info.kind == SlotKind::Actor).then(|| MailboxFacts {
            depth: self.mailbox.depth(),
            capacity: self.mailbox.capacity(),
            overflow: self.overflow,
            high_water: self.mailbox.high_water(),
        })
    }

    fn open(&self) {
        self.mailbox.open();
    }

    fn close(&self, reason: &ExitReason) {
        // What a life has taken and still holds, its token buries when it lets go.
        let mut entries = self.mailbox.close();
        entries.extend(self.take_urgent());
        self.cell.set_ended(reason);
        self.bury_elsewhere(entries, &DeadLetterCause::Stopped(reason.clone()));
    }

    fn hold(&self, held: bool) -> bool {
        self.cell.gate.hold(held);
        if !held {
            self.cell.wake();
        }
        true
    }

    fn record(&self, on: Option<bool>) -> bool {
        if let Some(on) = on {
            self.recording.store(on, Ordering::Relaxed);
            if !on {
                self.cell.forget_recorded();
            }
        }
        self.is_recording()
    }

    fn supervisor(&self) -> Option<&SupervisorLink> {
        None
    }

    fn checks_health(&self) -> bool {
        self.checks_health
    }
}

impl<M> fmt::Debug for Slot<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slot").field("path", &self.cell.path).finish_non_exhaustive()
    }
}
