//! The bounded queue that belongs to a slot.
//!
//! One lock around a queue and the line of senders that wait for room. The life takes the queue
//! whole when its own part is used up: one lock for many messages on the reading side, and, unlike
//! a channel, a queue can drop its oldest message. What was taken and not yet handled stays with
//! the slot (in the [`Receiver`]), so a crash loses only the message in flight.
//!
//! A sender that finds the mailbox full leaves its message in the line. Whoever finds room next,
//! the life or another sender, moves messages from the head of the line into the queue: first
//! come, first served by construction, and nobody is told "full" while there is room.
//!
//! Nothing here knows actors, tasks or time, so that a model checker can run it.

use std::collections::VecDeque;
use std::task::{Context, Poll, Waker};

use crate::sync::{AtomicUsize, Mutex, MutexGuard, Ordering, lock};

/// The reading end: held by at most one life at a time, and kept by the slot between lives.
pub(crate) struct Receiver<E> {
    /// Taken from the queue and not yet handled.
    pub(crate) taken: VecDeque<E>,
}

impl<E> Default for Receiver<E> {
    fn default() -> Self {
        Self { taken: VecDeque::new() }
    }
}

/// What a full mailbox does with one more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WhenFull {
    Refuse,
    DropOldest,
    DropNewest,
}

/// Why an entry was not taken, with the entry.
#[derive(Debug)]
pub(crate) enum Refused<E> {
    Full(E),
    Closed(E),
}

/// What became of an entry that was taken: dropped entries are the caller's to report.
#[derive(Debug)]
pub(crate) enum Taken<E> {
    Queued,
    DroppedOldest(E),
    DroppedNewest(E),
}

/// Messages on the life's own side of the mailbox that are not handled yet: the life writes it with
/// each message, and senders read it only when the mailbox looks full.
struct Left(AtomicUsize);

/// See the module's page. `E` is what waits in it.
pub(crate) struct Mailbox<E> {
    inner: Mutex<Inner<E>>,
    /// Entries in `Inner::queue`, for those who only look.
    queued: AtomicUsize,
    /// Senders in the line, for the life, which asks after each message.
    waiting: AtomicUsize,
    /// The most that ever waited.
    high_water: AtomicUsize,
    capacity: usize,
    when_full: WhenFull,
    left: Left,
}

struct Inner<E> {
    queue: VecDeque<E>,
    /// What the life took at most, still to be handled: [`Left`] as it was when somebody last had to
    /// know.
    lent: usize,
    line: VecDeque<Waiting<E>>,
    /// Counts on for as long as the mailbox lives: a waiter of long ago must not take the place of
    /// another for its own.
    next_waiter: u64,
    closed: bool,
    /// The life has found nothing and waits to be woken.
    parked: bool,
    life: Option<Waker>,
}

/// A sender in the line.
struct Waiting<E> {
    id: u64,
    entry: E,
    waker: Waker,
}

impl<E> Mailbox<E> {
    pub(crate) fn new(capacity: usize, when_full: WhenFull) -> Self {
        Self {
            inner: Mutex::new(Inner {
                queue: VecDeque::new(),
                lent: 0,
                line: VecDeque::new(),
                next_waiter: 0,
                closed: false,
                parked: false,
                life: None,
            }),
            queued: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            high_water: AtomicUsize::new(0),
            capacity,
            when_full,
            left: Left(AtomicUsize::new(0)),
        }
    }

    pub(crate) fn capacity(&self) -> usize {
        self.capacity
    }

    pub(crate) fn high_water(&self) -> usize {
        self.high_water.load(Ordering::Relaxed)
    }

    /// Messages that wait, without the one in flight.
    pub(crate) fn depth(&self) -> usize {
        self.queued.load(Ordering::Relaxed) + self.left.0.load(Ordering::Relaxed)
    }

    /// Takes an entry if there is room, or by the overflow policy.
    pub(crate) fn push(&self, entry: E) -> Result<Taken<E>, Refused<E>> {
        let mut inner = lock(&self.inner);
        if inner.closed {
            return Err(Refused::Closed(entry));
        }
        let mut admitted = Admitted::default();
        if !inner.line.is_empty() {
            self.admit(&mut inner, &mut admitted);
        }
        let mut taken = Taken::Queued;
        if !inner.line.is_empty() || !self.has_room(&mut inner) {
            match self.when_full {
                WhenFull::Refuse => {
                    self.published(inner, admitted);
                    return Err(Refused::Full(entry));
                }
                WhenFull::DropNewest => return Ok(Taken::DroppedNewest(entry)),
                WhenFull::DropOldest => {
                    if let Some(oldest) = inner.queue.pop_front() {
                        taken = Taken::DroppedOldest(oldest);
                    }
                }
            }
        }
        inner.queue.push_back(entry);
        self.published(inner, admitted);
        Ok(taken)
    }

    /// Whether one more fits, exactly. What the life has handled since anybody had to know is
    /// looked up only when the answer depends on it.
    fn has_room(&self, inner: &mut Inner<E>) -> bool {
        if inner.queue.len() + inner.lent < self.capacity {
            return true;
        }
        if inner.lent > 0 {
            inner.lent = self.left.0.load(Ordering::Acquire);
        }
        inner.queue.len() + inner.lent < self.capacity
    }

    /// Moves senders' messages from the line into the queue while there is room. A mailbox that is
    /// closed has none: they come back to their senders.
    fn admit(&self, inner: &mut Inner<E>, admitted: &mut Admitted) {
        while !inner.closed && !inner.line.is_empty() && self.has_room(inner) {
            let Some(Waiting { entry, waker, .. }) = inner.line.pop_front() else { break };
            inner.queue.push_back(entry);
            admitted.0.push(waker);
        }
        self.waiting.store(inner.line.len(), Ordering::Relaxed);
    }

    /// Writes down what everybody may see, wakes the life if it has nothing to do, and then, outside
    /// the lock, the senders that were let in.
    fn published(&self, mut inner: MutexGuard<'_, Inner<E>>, admitted: Admitted) {
        let queued = inner.queue.len();
        self.queued.store(queued, Ordering::Relaxed);
        // Written under the lock only, so that a plain load and store do.
        if queued + inner.lent > self.high_water.load(Ordering::Relaxed) {
            let waits = queued + self.left.0.load(Ordering::Relaxed).min(inner.lent);
            if waits > self.high_water.load(Ordering::Relaxed) {
                self.high_water.store(waits, Ordering::Relaxed);
            }
        }
        if inner.parked && queued > 0 {
            inner.parked = false;
            if let Some(life) = &inner.life {
                life.wake_by_ref();
            }
        }
        drop(inner);
        admitted.wake();
    }

    /// Waits for room, first come first served. The message is in the line from the first poll on.
    ///
    /// # Cancel safety
    /// A waiter that is dropped takes its message out of the line, unless it was let in before.
    pub(crate) fn wait(&self, entry: E) -> WaitForRoom<'_, E> {
        WaitForRoom { mailbox: self, state: Place::Outside(Some(entry)) }
    }

    /// Whether a sender waits for room.
    #[inline]
    pub(crate) fn has_waiting(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }

    /// Lets waiting senders in where room has come free. For the life, now and then.
    #[cold]
    pub(crate) fn let_in(&self) {
        let mut admitted = Admitted::default();
        let mut inner = lock(&self.inner);
        self.admit(&mut inner, &mut admitted);
        self.published(inner, admitted);
    }

    /// The next entry for the life that holds `receiver`. `None`: the life has nothing to do, and is
    /// woken when that changes.
    pub(crate) fn next(&self, receiver: &mut Receiver<E>) -> Option<E> {
        if let Some(entry) = receiver.taken.pop_front() {
            self.left.0.store(receiver.taken.len(), Ordering::Release);
            return Some(entry);
        }
        self.take(receiver, true)
    }

    /// As [`next`](Self::next), without going to sleep when there is nothing.
    pub(crate) fn next_now(&self, receiver: &mut Receiver<E>) -> Option<E> {
        if let Some(entry) = receiver.taken.pop_front() {
            self.left.0.store(receiver.taken.len(), Ordering::Release);
            return Some(entry);
        }
        self.take(receiver, false)
    }

    fn take(&self, receiver: &mut Receiver<E>, park: bool) -> Option<E> {
        let mut admitted = Admitted::default();
        let mut inner = lock(&self.inner);
        inner.lent = 0;
        if self.when_full == WhenFull::DropOldest {
            // Taken one by one, so that the oldest is always still in the queue.
            let entry = inner.queue.pop_front();
            inner.parked = park && entry.is_none();
            self.queued.store(inner.queue.len(), Ordering::Relaxed);
            return entry;
        }
        std::mem::swap(&mut inner.queue, &mut receiver.taken);
        let entry = receiver.taken.pop_front();
        inner.lent = receiver.taken.len();
        self.left.0.store(inner.lent, Ordering::Release);
        if !inner.line.is_empty() {
            self.admit(&mut inner, &mut admitted);
        }
        inner.parked = park && entry.is_none() && inner.queue.is_empty();
        if entry.is_none() && !inner.queue.is_empty() {
            // The line was let into an empty mailbox.
            drop(inner);
            admitted.wake();
            return self.take(receiver, park);
        }
        self.published(inner, admitted);
        entry
    }

    /// Puts entries back in front of all others, in their order.
    pub(crate) fn put_back(
        &self,
        receiver: &mut Receiver<E>,
        entries: impl DoubleEndedIterator<Item = E>,
    ) {
        for entry in entries.rev() {
            receiver.taken.push_front(entry);
        }
        let left = receiver.taken.len();
        self.left.0.store(left, Ordering::Release);
        lock(&self.inner).lent = left;
    }

    /// A life reads from here on, and is woken by `waker`. It begins by asking for the next entry.
    pub(crate) fn attach(&self, waker: Waker) {
        let mut inner = lock(&self.inner);
        inner.life = Some(waker);
        inner.parked = false;
    }

    /// No life reads any more. What the last one had taken goes back to the front of the queue, so
    /// that between two lives everything that waits is in one place; a closed mailbox hands it
    /// out instead.
    pub(crate) fn detach(&self, receiver: &mut Receiver<E>) -> VecDeque<E> {
        let mut inner = lock(&self.inner);
        inner.life = None;
        inner.parked = false;
        inner.lent = 0;
        self.left.0.store(0, Ordering::Release);
        let mut taken = std::mem::take(&mut receiver.taken);
        if inner.closed {
            return taken;
        }
        taken.append(&mut inner.queue);
        inner.queue = taken;
        self.queued.store(inner.queue.len(), Ordering::Relaxed);
        VecDeque::new()
    }

    /// Takes messages again.
    pub(crate) fn open(&self) {
        lock(&self.inner).closed = false;
    }

    /// Whether everything is refused.
    pub(crate) fn is_closed(&self) -> bool {
        lock(&self.inner).closed
    }

    /// Refuses everything from now on and hands out what waits in the queue. Senders in the line get
    /// their messages back.
    pub(crate) fn close(&self) -> VecDeque<E> {
        let mut inner = lock(&self.inner);
        inner.closed = true;
        let queue = std::mem::take(&mut inner.queue);
        self.queued.store(0, Ordering::Relaxed);
        let wakers = Admitted(inner.line.iter().map(|waiting| waiting.waker.clone()).collect());
        drop(inner);
        wakers.wake();
        queue
    }
}

/// Senders to wake once the lock is open again.
#[derive(Default)]
struct Admitted(Vec<Waker>);

impl Admitted {
    fn wake(self) {
        self.0.into_iter().for_each(Waker::wake);
    }
}

/// A sender that waits for room. See [`Mailbox::wait`].
pub(crate) struct WaitForRoom<'a, E> {
    mailbox: &'a Mailbox<E>,
    state: Place<E>,
}

enum Place<E> {
    Outside(Option<E>),
    InLine(u64),
    Done,
}

// The entry is moved, never pinned.
impl<E> Unpin for WaitForRoom<'_, E> {}

impl<E> WaitForRoom<'_, E> {
    /// Gives up. The entry, unless it was let in before.
    pub(crate) fn take_back(&mut self) -> Option<E> {
        match std::mem::replace(&mut self.state, Place::Done) {
            Place::Outside(entry) => entry,
            Place::InLine(id) => {
                let mut inner = lock(&self.mailbox.inner);
                let at = inner.line.iter().position(|waiting| waiting.id == id)?;
                let waiting = inner.line.remove(at);
                self.mailbox.waiting.store(inner.line.len(), Ordering::Relaxed);
                waiting.map(|waiting| waiting.entry)
            }
            Place::Done => None,
        }
    }
}

impl<E> Future for WaitForRoom<'_, E> {
    type Output = Result<Taken<E>, Refused<E>>;

    fn poll(mut self: std::pin::Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let mailbox = this.mailbox;
        match &mut this.state {
            Place::Outside(entry) => {
                let Some(offered) = entry.take() else { return Poll::Pending };
                match mailbox.push(offered) {
                    Err(Refused::Full(back)) => {
                        let mut inner = lock(&mailbox.inner);
                        if inner.closed {
                            drop(inner);
                            this.state = Place::Done;
                            return Poll::Ready(Err(Refused::Closed(back)));
                        }
                        let id = inner.next_waiter;
                        inner.next_waiter += 1;
                        let waker = cx.waker().clone();
                        inner.line.push_back(Waiting { id, entry: back, waker });
                        this.state = Place::InLine(id);
                        // Room may have come since the push, and nobody else may be about to look.
                        let mut admitted = Admitted::default();
                        mailbox.admit(&mut inner, &mut admitted);
                        mailbox.published(inner, admitted);
                        Poll::Pending
                    }
                    done => {
                        this.state = Place::Done;
                        Poll::Ready(done)
                    }
                }
            }
            Place::InLine(id) => {
                let id = *id;
                let mut inner = lock(&mailbox.inner);
                let at = inner.line.iter().position(|waiting| waiting.id == id);
                let closed = inner.closed;
                match at {
                    None => {
                        this.state = Place::Done;
                        Poll::Ready(Ok(Taken::Queued))
                    }
                    Some(at) if closed => {
                        let waiting = inner.line.remove(at);
                        mailbox.waiting.store(inner.line.len(), Ordering::Relaxed);
                        drop(inner);
                        this.state = Place::Done;
                        match waiting {
                            Some(waiting) => Poll::Ready(Err(Refused::Closed(waiting.entry))),
                            None => Poll::Ready(Ok(Taken::Queued)),
                        }
                    }
                    Some(at) => {
                        if let Some(waiting) = inner.line.get_mut(at)
                            && !waiting.waker.will_wake(cx.waker())
                        {
                            waiting.waker = cx.waker().clone();
                        }
                        Poll::Pending
                    }
                }
            }
            Place::Done => Poll::Pending,
        }
    }
}

impl<E> Drop for WaitForRoom<'_, E> {
    fn drop(&mut self) {
        // Outside the lock: dropping a message runs its owner's code.
        drop(self.take_back());
    }
}
