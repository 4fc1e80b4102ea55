//! The bounded queue that belongs to a slot.
//!
//! A mutex around a `VecDeque` that the life takes whole at a wake-up: one lock for many messages
//! on the reading side, and, unlike a channel, it can drop its oldest message. What was taken and
//! not yet handled stays with the slot (in the [`Receiver`]), so a crash loses only the message
//! in hand.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ractor::ActorRef;
use tokio::sync::Notify;

use crate::actor::life::LifeMessage;
use crate::actor::recorder::Sent;
use crate::actor::reply::AskOutcome;
use crate::environment::lock;

/// How many messages a mailbox holds when its spec does not say.
pub const DEFAULT_CAPACITY: usize = 1024;

/// How long a sender waits for room when its mailbox does not say otherwise.
pub const DEFAULT_SEND_DEADLINE: Duration = Duration::from_secs(5);

/// What happens to a message that finds the mailbox full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Overflow {
    /// The sender waits, first come first served, at most this long; then it gets its message
    /// back. The deadline is what keeps two actors that fill each other's mailboxes from waiting
    /// for ever.
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

/// A message on its way, with the question that waits on it.
pub(crate) struct Entry<M> {
    pub(crate) message: M,
    pub(crate) ask: Option<Arc<dyn AskOutcome>>,
    /// What few messages carry.
    pub(crate) extra: Option<Box<Extra>>,
}

/// What only redelivered and recorded messages carry: one pointer for all others.
#[derive(Debug, Default)]
pub(crate) struct Extra {
    /// How often a life has taken it in hand already.
    pub(crate) attempts: u32,
    pub(crate) sent: Option<Sent>,
}

impl Extra {
    pub(crate) fn attempts(extra: Option<&Self>) -> u32 {
        extra.map_or(0, |extra| extra.attempts)
    }
}

/// The reading end: held by at most one life at a time, and kept by the slot between lives.
pub(crate) struct Receiver<M> {
    /// Taken from the queue and not yet handled.
    taken: VecDeque<Entry<M>>,
    /// What a crash would lose: everything about the message in hand but the message.
    pub(crate) in_hand: Option<InHand<M>>,
}

impl<M> Default for Receiver<M> {
    fn default() -> Self {
        Self { taken: VecDeque::new(), in_hand: None }
    }
}

pub(crate) struct InHand<M> {
    pub(crate) ask: Option<Arc<dyn AskOutcome>>,
    pub(crate) copy: Option<M>,
    pub(crate) extra: Option<Box<Extra>>,
    pub(crate) name: &'static str,
}

pub(crate) struct Mailbox<M> {
    inner: Mutex<Inner<M>>,
    /// Entries in `Inner::queue`, for those who only look.
    queued: AtomicUsize,
    /// Entries in `Receiver::taken`: they still count against the capacity.
    taken: AtomicUsize,
    paused: AtomicBool,
    /// The slot writes down what it handles. Here, beside what every sender reads anyway: beside the
    /// counters of the life it would cost each of them a cache line.
    recording: AtomicBool,
    /// Senders in `wait_for_room`.
    waiting: AtomicUsize,
    /// Lets senders in one at a time, in the order they came (tokio's mutex is fair).
    turnstile: tokio::sync::Mutex<()>,
    room: Notify,
    capacity: usize,
    overflow: Overflow,
    /// The most that ever waited.
    high_water: AtomicUsize,
}

/// What a mailbox shows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MailboxFacts {
    pub(crate) depth: usize,
    pub(crate) capacity: usize,
    pub(crate) overflow: Overflow,
    pub(crate) high_water: usize,
}

struct Inner<M> {
    queue: VecDeque<Entry<M>>,
    closed: bool,
    /// A wake-up is on its way to the life, or the life is draining.
    scheduled: bool,
    life: Option<ActorRef<LifeMessage>>,
}

/// Why an entry was not taken, with the entry.
pub(crate) enum Refused<M> {
    Full(Entry<M>),
    Closed(Entry<M>),
}

/// What became of an entry that was taken: dropped entries are the caller's to report.
pub(crate) enum Taken<M> {
    Queued,
    DroppedOldest(Entry<M>),
    DroppedNewest(Entry<M>),
}

impl<M> Mailbox<M> {
    pub(crate) fn new(capacity: usize, overflow: Overflow) -> Self {
        Self {
            inner: Mutex::new(Inner {
                queue: VecDeque::new(),
                closed: false,
                scheduled: false,
                life: None,
            }),
            queued: AtomicUsize::new(0),
            taken: AtomicUsize::new(0),
            paused: AtomicBool::new(false),
            recording: AtomicBool::new(false),
            waiting: AtomicUsize::new(0),
            turnstile: tokio::sync::Mutex::new(()),
            room: Notify::new(),
            capacity,
            overflow,
            high_water: AtomicUsize::new(0),
        }
    }

    pub(crate) fn facts(&self) -> MailboxFacts {
        MailboxFacts {
            depth: self.depth(),
            capacity: self.capacity,
            overflow: self.overflow,
            high_water: self.high_water.load(Ordering::Relaxed),
        }
    }

    pub(crate) fn capacity(&self) -> usize {
        self.capacity
    }

    pub(crate) fn overflow(&self) -> Overflow {
        self.overflow
    }

    /// Messages that wait, without the one in hand.
    pub(crate) fn depth(&self) -> usize {
        self.queued.load(Ordering::Relaxed) + self.taken.load(Ordering::Relaxed)
    }

    /// Takes an entry if there is room, or by the overflow policy.
    pub(crate) fn push(&self, entry: Entry<M>) -> Result<Taken<M>, Refused<M>> {
        // The upper half of the mailbox belongs to those that wait for room: one that comes later
        // never takes a place from them, and does not stand in line while the lower half is free.
        if self.waiting.load(Ordering::SeqCst) > 0 && self.depth() >= self.capacity / 2 {
            return Err(Refused::Full(entry));
        }
        self.push_in_turn(entry)
    }

    fn push_in_turn(&self, entry: Entry<M>) -> Result<Taken<M>, Refused<M>> {
        let mut inner = lock(&self.inner);
        if inner.closed {
            return Err(Refused::Closed(entry));
        }
        let mut taken = Taken::Queued;
        let waiting = inner.queue.len() + self.taken.load(Ordering::SeqCst);
        if waiting >= self.capacity {
            match self.overflow {
                Overflow::Wait(_) | Overflow::Fail => return Err(Refused::Full(entry)),
                Overflow::DropNewest => return Ok(Taken::DroppedNewest(entry)),
                Overflow::DropOldest => {
                    if let Some(oldest) = inner.queue.pop_front() {
                        taken = Taken::DroppedOldest(oldest);
                    }
                }
            }
        }
        inner.queue.push_back(entry);
        self.queued.store(inner.queue.len(), Ordering::Relaxed);
        // Written under the lock only, so that a plain load and store do.
        let most = (waiting + 1).min(self.capacity);
        if most > self.high_water.load(Ordering::Relaxed) {
            self.high_water.store(most, Ordering::Relaxed);
        }
        let life = self.schedule(&mut inner);
        drop(inner);
        wake(life);
        Ok(taken)
    }

    /// Whom to wake, when the queue went from idle to busy.
    fn schedule(&self, inner: &mut Inner<M>) -> Option<ActorRef<LifeMessage>> {
        if inner.scheduled || self.paused.load(Ordering::SeqCst) {
            return None;
        }
        let life = inner.life.clone()?;
        inner.scheduled = true;
        Some(life)
    }

    /// Waits for room, first come first served.
    ///
    /// Cancel safe: a waiter that is dropped leaves no trace, and `entry` still holds its message.
    pub(crate) async fn push_when_room(
        &self,
        entry: &mut Option<Entry<M>>,
    ) -> Result<Taken<M>, Refused<M>> {
        let _waiting = Waiting::new(&self.waiting);
        let _turn = self.turnstile.lock().await;
        loop {
            let room = self.room.notified();
            let offered = entry.take().expect("the entry is put back before each wait");
            match self.push_in_turn(offered) {
                Err(Refused::Full(back)) => *entry = Some(back),
                other => {
                    // The next in line may fit too, and nobody else would tell it.
                    self.room.notify_one();
                    return other;
                }
            }
            room.await;
        }
    }

    /// The next entry for the life that holds `receiver`; `None` when it should go idle.
    pub(crate) fn next(&self, receiver: &mut Receiver<M>) -> Option<Entry<M>> {
        if !self.paused.load(Ordering::SeqCst)
            && let Some(entry) = receiver.taken.pop_front()
        {
            let left = self.taken.fetch_sub(1, Ordering::SeqCst) - 1;
            self.tell_waiting(left);
            return Some(entry);
        }
        let mut inner = lock(&self.inner);
        // Read again under the lock, where `resume` schedules: else a wake-up could be lost.
        if self.paused.load(Ordering::SeqCst)
            || (inner.queue.is_empty() && receiver.taken.is_empty())
        {
            inner.scheduled = false;
            return None;
        }
        if matches!(self.overflow, Overflow::DropOldest) {
            // Taken one by one, so that the oldest is always still in the queue.
            let entry = receiver.taken.pop_front().or_else(|| inner.queue.pop_front());
            self.taken.store(receiver.taken.len(), Ordering::SeqCst);
            self.queued.store(inner.queue.len(), Ordering::Relaxed);
            return entry;
        }
        if receiver.taken.is_empty() {
            std::mem::swap(&mut inner.queue, &mut receiver.taken);
            self.queued.store(0, Ordering::Relaxed);
        }
        let entry = receiver.taken.pop_front();
        self.taken.store(receiver.taken.len(), Ordering::SeqCst);
        drop(inner);
        self.tell_waiting(receiver.taken.len());
        entry
    }

    /// Lets a waiting sender try again, once half of the mailbox is free: a wake-up for each
    /// message would cost a task switch each.
    fn tell_waiting(&self, taken_left: usize) {
        if self.waiting.load(Ordering::SeqCst) > 0
            && taken_left + self.queued.load(Ordering::Relaxed) <= self.capacity / 2
        {
            self.room.notify_one();
        }
    }

    /// Puts back an entry that its life had in hand, in front of all others.
    pub(crate) fn put_back(receiver: &mut Receiver<M>, entry: Entry<M>) {
        receiver.taken.push_front(entry);
    }

    /// A new life reads from here on. It begins by draining when anything waits.
    pub(crate) fn attach(&self, life: ActorRef<LifeMessage>) {
        let mut inner = lock(&self.inner);
        inner.life = Some(life);
        inner.scheduled = false;
        let wake_up = if inner.queue.is_empty() { None } else { self.schedule(&mut inner) };
        drop(inner);
        wake(wake_up);
    }

    /// No life reads any more. What the last one had taken goes back to the front of the queue, so
    /// that between two lives everything that waits is in one place; a closed mailbox hands it
    /// out instead.
    pub(crate) fn detach(&self, receiver: &mut Receiver<M>) -> VecDeque<Entry<M>> {
        let mut inner = lock(&self.inner);
        inner.life = None;
        inner.scheduled = false;
        self.taken.store(0, Ordering::SeqCst);
        let mut taken = std::mem::take(&mut receiver.taken);
        if inner.closed {
            return taken;
        }
        taken.append(&mut inner.queue);
        inner.queue = taken;
        self.queued.store(inner.queue.len(), Ordering::Relaxed);
        VecDeque::new()
    }

    #[inline]
    pub(crate) fn is_recording(&self) -> bool {
        self.recording.load(Ordering::Relaxed)
    }

    pub(crate) fn set_recording(&self, on: bool) {
        self.recording.store(on, Ordering::Relaxed);
    }

    pub(crate) fn pause(&self) {
        self.paused.store(true, Ordering::SeqCst);
    }

    pub(crate) fn resume(&self) {
        let mut inner = lock(&self.inner);
        self.paused.store(false, Ordering::SeqCst);
        let waits = !inner.queue.is_empty() || self.taken.load(Ordering::SeqCst) > 0;
        let life = if waits { self.schedule(&mut inner) } else { None };
        drop(inner);
        wake(life);
    }

    pub(crate) fn open(&self) {
        lock(&self.inner).closed = false;
    }

    /// Refuses everything from now on and hands out what waits in the queue.
    pub(crate) fn close(&self) -> VecDeque<Entry<M>> {
        let mut inner = lock(&self.inner);
        inner.closed = true;
        let queue = std::mem::take(&mut inner.queue);
        self.queued.store(0, Ordering::Relaxed);
        drop(inner);
        // Each waiting sender sees the closed mailbox when its turn comes.
        self.room.notify_one();
        queue
    }
}

/// Sends the one wake-up. A life that has just ended loses it, and the next one drains anyway.
fn wake(life: Option<ActorRef<LifeMessage>>) {
    if let Some(life) = life {
        let _ = life.send_message(LifeMessage::Wake);
    }
}

/// Counts a waiting sender for as long as it waits.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}
