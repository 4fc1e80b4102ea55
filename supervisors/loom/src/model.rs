//! What the models share: a runtime of one task per thread, and a life.

use std::collections::VecDeque;
use std::mem::ManuallyDrop;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use loom::model::Builder;
use loom::sync::Notify;

use crate::mailbox::{Mailbox, Receiver, Refused, Taken, WhenFull};
use crate::sync::{AtomicUsize, Ordering};

/// A message: its sender's number and its own, as in 21 for the first of sender 2.
pub(crate) type Message = u32;

/// Runs `model` in every order with at most so many preemptions. Few faults need more than two; the
/// number of orders grows with its power.
pub(crate) fn explore(preemptions: usize, model: impl Fn() + Send + Sync + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound.get_or_insert(preemptions);
    builder.check(model);
}

pub(crate) fn mailbox(capacity: usize, when_full: WhenFull) -> Arc<Mailbox<Message>> {
    Arc::new(Mailbox::new(capacity, when_full))
}

/// A task's waker, and its sleep. As in a runtime, a wake-up that comes while the task runs is not
/// lost: the next sleep ends at once. A sleep that nobody ends is a deadlock, which loom reports.
#[derive(Default)]
pub(crate) struct Bell(Notify);

impl Bell {
    pub(crate) fn sleep(&self) {
        self.0.wait();
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.notify();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.notify();
    }
}

/// Runs a future to its end. One that is cut off by a failing model is never dropped: its drop would
/// need the model, and the panic in it would hide what failed.
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    let bell = Arc::new(Bell::default());
    let waker = Waker::from(Arc::clone(&bell));
    let mut future = ManuallyDrop::new(Box::pin(future));
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            drop(ManuallyDrop::into_inner(future));
            return output;
        }
        bell.sleep();
    }
}

/// Polls once, with a waker that nobody listens to.
pub(crate) fn poll_once<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    Pin::new(future).poll(&mut Context::from_waker(Waker::noop()))
}

/// A life, as far as its mailbox knows it.
pub(crate) struct Life<'a> {
    mailbox: &'a Mailbox<Message>,
    receiver: Receiver<Message>,
    bell: Arc<Bell>,
}

impl<'a> Life<'a> {
    pub(crate) fn begin(mailbox: &'a Mailbox<Message>, receiver: Receiver<Message>) -> Self {
        Self::with_bell(mailbox, receiver, Arc::new(Bell::default()))
    }

    /// One that others can wake.
    pub(crate) fn with_bell(
        mailbox: &'a Mailbox<Message>,
        receiver: Receiver<Message>,
        bell: Arc<Bell>,
    ) -> Self {
        mailbox.attach(Waker::from(Arc::clone(&bell)));
        Self { mailbox, receiver, bell }
    }

    /// The next message, or nothing and the duty to sleep.
    pub(crate) fn poll_next(&mut self) -> Option<Message> {
        self.mailbox.next(&mut self.receiver)
    }

    pub(crate) fn next_now(&mut self) -> Option<Message> {
        self.mailbox.next_now(&mut self.receiver)
    }

    pub(crate) fn sleep(&self) {
        self.bell.sleep();
    }

    /// Waits for the next message.
    pub(crate) fn next(&mut self) -> Message {
        loop {
            if let Some(message) = self.poll_next() {
                return message;
            }
            self.sleep();
        }
    }

    /// Everything that is left, without waiting.
    pub(crate) fn drain(&mut self) -> Vec<Message> {
        std::iter::from_fn(|| self.next_now()).collect()
    }

    pub(crate) fn put_back(&mut self, message: Message) {
        self.mailbox.put_back(&mut self.receiver, std::iter::once(message));
    }

    /// Lets go of the mailbox. What a closed one hands out, and the receiver for the next life.
    pub(crate) fn end(mut self) -> (VecDeque<Message>, Receiver<Message>) {
        (self.mailbox.detach(&mut self.receiver), self.receiver)
    }
}

/// Something that has happened, for a thread that asks whether it has happened before.
#[derive(Default)]
pub(crate) struct Flag(AtomicUsize);

impl Flag {
    pub(crate) fn set(&self) {
        self.0.store(1, Ordering::Release);
    }

    pub(crate) fn is_set(&self) -> bool {
        self.0.load(Ordering::Acquire) == 1
    }
}

/// Whether the sender was told that its message is in. Any other answer must hand it back.
pub(crate) fn accepted(answer: Result<Taken<Message>, Refused<Message>>, message: Message) -> bool {
    match answer {
        Ok(Taken::Queued) => true,
        Err(Refused::Full(back) | Refused::Closed(back)) => {
            assert_eq!(back, message, "another's message was handed back");
            false
        }
        Ok(dropped) => panic!("this mailbox drops nothing: {dropped:?}"),
    }
}

/// Each sender's messages come in the order in which they were sent.
pub(crate) fn assert_in_order(handled: &[Message]) {
    for sender in 0..10 {
        let own = handled.iter().filter(|&message| message / 10 == sender);
        assert!(own.is_sorted(), "out of order: {handled:?}");
    }
}

/// Each message has exactly one fate.
pub(crate) fn assert_each_once(fates: impl IntoIterator<Item = Message>, sent: &[Message]) {
    let mut fates: Vec<_> = fates.into_iter().collect();
    fates.sort_unstable();
    assert_eq!(fates, sent, "what became of the messages, and what was sent");
}
