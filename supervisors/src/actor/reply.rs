//! One question, one answer.
//!
//! An ask is one allocation, shared by three parties: the asker, the [`ReplyPort`] inside the
//! message, and the mailbox entry that carries the message. The entry is what lets the asker
//! learn *why* there is no answer: handled without one, crashed in hand, or never handled.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use crate::environment::lock;
use crate::error::ExitReason;

/// Where the answer to a question goes. Part of a message; [`send`](Self::send) uses it up.
///
/// A port may be kept and answered after the handler has returned. A port that is dropped without
/// an answer fails the question with [`AskError::NoReply`](crate::AskError::NoReply), or with
/// `Crashed` when it died with its actor.
pub struct ReplyPort<T> {
    cell: Arc<AskCell<T>>,
}

impl<T> ReplyPort<T> {
    /// Answers. An asker that no longer waits gets nothing, and that is no error.
    pub fn send(self, answer: T) {
        let mut inner = lock(&self.cell.inner);
        if inner.answer.is_none() {
            inner.answer = Some(answer);
        }
        let waker = inner.waker.take();
        drop(inner);
        wake(waker);
    }
}

impl<T> Clone for ReplyPort<T> {
    /// A second port for the same question, as copies of a message need. The first answer counts.
    fn clone(&self) -> Self {
        lock(&self.cell.inner).ports += 1;
        Self { cell: Arc::clone(&self.cell) }
    }
}

impl<T> Drop for ReplyPort<T> {
    fn drop(&mut self) {
        let mut inner = lock(&self.cell.inner);
        inner.ports -= 1;
        let waker = if inner.ports == 0 { inner.waker.take() } else { None };
        drop(inner);
        wake(waker);
    }
}

impl<T> fmt::Debug for ReplyPort<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ReplyPort")
    }
}

/// What became of the message that carried a question.
#[derive(Clone, Debug)]
pub(crate) enum Settled {
    /// A life handled it. The answer may still come from a port that was kept.
    Handled { life: u64 },
    /// Its life ended with the message in hand.
    InHand(ExitReason),
    /// Nobody will handle it: the slot stopped, or the mailbox dropped it.
    Unhandled { stopped: bool },
}

/// The part of a question that a mailbox entry holds, without the type of the answer.
pub(crate) trait AskOutcome: Send + Sync {
    fn settle(&self, outcome: Settled);
}

pub(crate) struct AskCell<T> {
    inner: Mutex<Inner<T>>,
}

struct Inner<T> {
    answer: Option<T>,
    settled: Option<Settled>,
    ports: u32,
    waker: Option<Waker>,
}

/// How a question ended.
pub(crate) enum Answer<T> {
    Reply(T),
    None(Settled),
}

impl<T: Send + 'static> AskCell<T> {
    pub(crate) fn new() -> (Arc<Self>, ReplyPort<T>) {
        let cell = Arc::new(Self {
            inner: Mutex::new(Inner { answer: None, settled: None, ports: 1, waker: None }),
        });
        let port = ReplyPort { cell: Arc::clone(&cell) };
        (cell, port)
    }

    pub(crate) fn poll(&self, cx: &mut Context<'_>) -> Poll<Answer<T>> {
        let mut inner = lock(&self.inner);
        if let Some(answer) = inner.answer.take() {
            return Poll::Ready(Answer::Reply(answer));
        }
        match &inner.settled {
            // Handled, and a port was kept: the answer is still to come.
            Some(Settled::Handled { .. }) if inner.ports > 0 => {}
            Some(settled) => return Poll::Ready(Answer::None(settled.clone())),
            None => {}
        }
        if !inner.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            inner.waker = Some(cx.waker().clone());
        }
        Poll::Pending
    }
}

impl<T: Send> AskOutcome for AskCell<T> {
    fn settle(&self, outcome: Settled) {
        let mut inner = lock(&self.inner);
        inner.settled = Some(outcome);
        // An answered question has woken its asker already.
        let waker = if inner.answer.is_none() { inner.waker.take() } else { None };
        drop(inner);
        wake(waker);
    }
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}
