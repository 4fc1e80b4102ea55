//! One question, one answer.
//!
//! An ask is one allocation, shared by the asker and the [`ReplyPort`] inside the message. The
//! mailbox does not know which messages carry questions: a port that is dropped without an answer
//! says so itself, and whoever drops messages on purpose (a life that ends, a mailbox that closes)
//! collects those ports ([`unanswered`]) and tells their askers why.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use crate::error::ExitReason;
use crate::sync::lock;

/// Where the answer to a question goes. Part of a message; [`send`](Self::send) uses it up.
///
/// A port may be kept and answered after the handler has returned. A port that is dropped without
/// an answer fails the question with [`AskError::NoReply`](crate::AskError::NoReply), or with
/// `Crashed` when it died with its actor.
pub struct ReplyPort<T> {
    /// Gone once it was answered.
    cell: Option<Arc<AskCell<T>>>,
}

impl<T> ReplyPort<T> {
    /// Answers. The answer to an asker that no longer waits is dropped, which is not an error.
    pub fn send(mut self, answer: T) {
        let Some(cell) = self.cell.take() else { return };
        let mut inner = lock(&cell.inner);
        inner.ports -= 1;
        // Of two ports for one question the first answer counts. And somebody waits for it, if the
        // question is held besides by this port and the others.
        let awaited = Arc::strong_count(&cell) > inner.ports as usize + 1;
        let late = if awaited && inner.answer.is_none() && inner.outcome.is_none() {
            inner.answer = Some(answer);
            None
        } else {
            Some(answer)
        };
        let waker = inner.waker.take();
        drop(inner);
        if let Some(waker) = waker {
            waker.wake();
        }
        drop(late);
    }

    /// Whether somebody still waits for the answer.
    #[must_use]
    pub fn is_awaited(&self) -> bool {
        self.cell.as_ref().is_some_and(|cell| {
            let inner = lock(&cell.inner);
            // Whoever holds the question and is not a port waits for its answer.
            let others = Arc::strong_count(cell) > inner.ports as usize;
            others && inner.answer.is_none() && inner.outcome.is_none()
        })
    }
}

impl<T> Clone for ReplyPort<T> {
    /// A second port for the same question, as copies of a message need. The first answer counts.
    fn clone(&self) -> Self {
        // The reference first: whoever counts both never takes a port for an asker that is gone.
        let cell = self.cell.clone();
        if let Some(cell) = &cell {
            lock(&cell.inner).ports += 1;
        }
        Self { cell }
    }
}

impl<T> Drop for ReplyPort<T> {
    fn drop(&mut self) {
        let Some(cell) = self.cell.take() else { return };
        let mut inner = lock(&cell.inner);
        inner.ports -= 1;
        let unanswered = inner.ports == 0 && inner.answer.is_none() && inner.outcome.is_none();
        drop(inner);
        if unanswered {
            unanswered::give_up((cell.erase)(cell));
        }
    }
}

impl<T> fmt::Debug for ReplyPort<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ReplyPort")
    }
}

/// Why a question gets no answer.
#[derive(Clone, Debug)]
pub(crate) enum Settled {
    /// Its message was handled, and the port dropped without an answer.
    NoReply,
    /// Its port was dropped by nobody in particular: the asker looks at what became of the actor.
    Dropped,
    /// The life that had the message, or kept the port, ended.
    Ended(ExitReason),
    /// Nobody will handle it: the mailbox closed.
    Stopped,
    /// Nobody will handle it: the mailbox dropped it.
    Full,
    /// The deadline is over.
    Late,
    /// The asker's own supervisor waits for the asker, and would have to start the one it asks.
    Blocked,
}

/// A question, without the type of its answer.
pub(crate) trait AskOutcome: Send + Sync {
    /// Fails the question, unless it has its answer or has failed before.
    fn settle(&self, outcome: Settled);
}

pub(crate) struct AskCell<T> {
    inner: Mutex<Inner<T>>,
    /// Forgets the type of the answer. Made where it is known to be `Send`.
    erase: fn(Arc<Self>) -> Arc<dyn AskOutcome>,
}

struct Inner<T> {
    answer: Option<T>,
    outcome: Option<Settled>,
    ports: u32,
    waker: Option<Waker>,
}

impl<T: Send + 'static> AskCell<T> {
    pub(crate) fn new() -> (Arc<Self>, ReplyPort<T>) {
        let inner = Inner { answer: None, outcome: None, ports: 1, waker: None };
        let cell = Arc::new(Self { inner: Mutex::new(inner), erase: |cell| cell });
        let port = ReplyPort { cell: Some(Arc::clone(&cell)) };
        (cell, port)
    }

    pub(crate) fn poll(&self, cx: &mut Context<'_>) -> Poll<Result<T, Settled>> {
        let mut inner = lock(&self.inner);
        if let Some(answer) = inner.answer.take() {
            return Poll::Ready(Ok(answer));
        }
        if let Some(outcome) = &inner.outcome {
            return Poll::Ready(Err(outcome.clone()));
        }
        inner.wake_with(cx);
        Poll::Pending
    }

    /// Only whether the question has failed. Its answer, if it is there, stays.
    pub(crate) fn poll_failed(&self, cx: &mut Context<'_>) -> Poll<Settled> {
        let mut inner = lock(&self.inner);
        if let Some(outcome) = &inner.outcome {
            return Poll::Ready(outcome.clone());
        }
        inner.wake_with(cx);
        Poll::Pending
    }

    /// The asker goes away. An answer that it has not taken is dropped here and now: whoever lets go
    /// of the question last is not the one to run its code.
    pub(crate) fn abandon(&self) {
        let unread = {
            let mut inner = lock(&self.inner);
            inner.answer.take()
        };
        drop(unread);
    }
}

impl<T> Inner<T> {
    fn wake_with(&mut self, cx: &Context<'_>) {
        if !self.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            self.waker = Some(cx.waker().clone());
        }
    }
}

impl<T: Send> AskOutcome for AskCell<T> {
    fn settle(&self, outcome: Settled) {
        let mut inner = lock(&self.inner);
        if inner.answer.is_some() || inner.outcome.is_some() {
            return;
        }
        inner.outcome = Some(outcome);
        let waker = inner.waker.take();
        drop(inner);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// Ports that were dropped without an answer.
///
/// Whether such a question failed because its actor crashed is known only when its handler has
/// returned, so while an actor (or [`collect`](unanswered::collect)) runs on a thread, they wait in
/// a list of that thread.
pub(crate) mod unanswered {
    use super::{Arc, AskOutcome, Cell, RefCell, Settled};

    /// Questions whose ports are gone.
    pub(crate) type Unanswered = Vec<Arc<dyn AskOutcome>>;

    thread_local! {
        /// Somebody on this thread will say why.
        static COLLECTING: Cell<bool> = const { Cell::new(false) };
        /// How many wait in `LIST`: looked at after each message, so a plain number.
        static WAITING: Cell<usize> = const { Cell::new(0) };
        static LIST: RefCell<Unanswered> = const { RefCell::new(Vec::new()) };
    }

    /// A port is gone.
    pub(super) fn give_up(question: Arc<dyn AskOutcome>) {
        let collecting = COLLECTING.try_with(Cell::get).unwrap_or(false);
        if collecting {
            let mut question = Some(question);
            let kept = LIST.try_with(|list| {
                if let Ok(mut list) = list.try_borrow_mut() {
                    list.extend(question.take());
                    WAITING.set(list.len());
                }
            });
            if let (Ok(()), None) = (kept, &question) {
                return;
            }
            if let Some(question) = question {
                question.settle(Settled::Dropped);
            }
            return;
        }
        question.settle(Settled::Dropped);
    }

    /// Begins to collect on this thread, with what was collected before. Returns what was collected
    /// there for somebody else, for [`leave`].
    pub(crate) fn enter(mine: Unanswered) -> (bool, Unanswered) {
        // Nearly always both are empty.
        let outer = if WAITING.get() == 0 && mine.is_empty() {
            Vec::new()
        } else {
            WAITING.set(mine.len());
            LIST.with_borrow_mut(|list| std::mem::replace(list, mine))
        };
        (COLLECTING.replace(true), outer)
    }

    /// Ends it. Returns what was collected since [`enter`].
    pub(crate) fn leave((collecting, outer): (bool, Unanswered)) -> Unanswered {
        COLLECTING.set(collecting);
        if WAITING.get() == 0 && outer.is_empty() {
            return Vec::new();
        }
        WAITING.set(outer.len());
        LIST.with_borrow_mut(|list| std::mem::replace(list, outer))
    }

    /// Tells those that were collected so far on this thread. Nearly always there are none.
    #[inline]
    pub(crate) fn settle_here(outcome: impl FnOnce() -> Settled) {
        if WAITING.get() > 0 {
            settle(&LIST.take(), &outcome());
            WAITING.set(0);
        }
    }

    /// Tells each of them.
    pub(crate) fn settle(questions: &Unanswered, outcome: &Settled) {
        for question in questions {
            question.settle(outcome.clone());
        }
    }

    /// Runs `drop_them`, and tells the askers of all ports that it drops.
    pub(crate) fn collect(outcome: &Settled, drop_them: impl FnOnce()) {
        let outside = enter(Vec::new());
        drop_them();
        settle(&leave(outside), outcome);
    }
}
