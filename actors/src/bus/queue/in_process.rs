//! Queues in the memory of this process.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use mister_smith_supervisors::Clock;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

use super::{
    GroupStatus, Queue, QueueError, QueueOptions, Receipt, Received, Receiver, Reject, SendError,
    Sender, SentAll, check_name,
};
use crate::bus::wire::WireMessage;
use crate::event::Timestamp;

mod content;

use content::Content;

/// Queues by name. Cheap to clone; all clones have the same queues.
#[derive(Debug, Clone, Default)]
pub struct Broker {
    queues: Arc<Mutex<BTreeMap<String, Arc<Shelf>>>>,
    clock: Option<Clock>,
}

impl Broker {
    /// The same queues, with a clock that says when a message was taken. Without one nobody
    /// knows the time of day.
    #[must_use]
    pub fn at(&self, clock: Clock) -> Self {
        Self { queues: Arc::clone(&self.queues), clock: Some(clock) }
    }

    /// A queue, made if it is not there.
    #[must_use]
    pub fn queue(&self, options: QueueOptions) -> InProcessQueue {
        let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        let shelf = Arc::clone(queues.entry(options.name.clone()).or_default());
        InProcessQueue(Arc::new(Opened { shelf, options, clock: self.clock }))
    }
}

/// One queue.
#[derive(Default)]
struct Shelf {
    content: Mutex<Content>,
    grown: Notify,
}

impl Shelf {
    fn lock(&self) -> MutexGuard<'_, Content> {
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A queue under the options of one who opened it.
struct Opened {
    shelf: Arc<Shelf>,
    options: QueueOptions,
    clock: Option<Clock>,
}

impl Opened {
    fn now(&self) -> Option<Timestamp> {
        self.clock.map(|clock| Timestamp::from_micros(clock.wall_us()))
    }

    /// The content, without what is not to be there any more.
    fn content(&self) -> MutexGuard<'_, Content> {
        let mut content = self.shelf.lock();
        content.trim(&self.options, Instant::now());
        content
    }

    fn put(&self, messages: &[WireMessage]) -> Result<SentAll, SendError> {
        let (now, at) = (Instant::now(), self.now());
        let mut content = self.content();
        let mut done = SentAll::default();
        for (sent, message) in messages.iter().enumerate() {
            let number = match content.put(&self.options, message, now, at) {
                Ok(number) => number,
                Err(number) if number > 0 => {
                    done.duplicates += 1;
                    number
                }
                Err(_) => {
                    let detail = content.detail();
                    let source = QueueError::Full { queue: self.options.name.clone(), detail };
                    let SentAll { last, duplicates } = done;
                    return Err(SendError { sent, last, duplicates, source });
                }
            };
            done.last = done.last.max(number);
        }
        drop(content);
        self.shelf.grown.notify_waiters();
        Ok(done)
    }
}

/// See the [module](self).
#[derive(Clone)]
pub struct InProcessQueue(Arc<Opened>);

impl Queue for InProcessQueue {
    fn sender(&self) -> Arc<dyn Sender> {
        Arc::new(InProcessSender(Arc::clone(&self.0)))
    }

    fn receiver(&self, group: &str) -> Result<Arc<dyn Receiver>, QueueError> {
        check_name(group)?;
        Ok(Arc::new(InProcessReceiver { queue: Arc::clone(&self.0), group: group.into() }))
    }

    fn groups(&self) -> BoxFuture<'_, Result<Vec<GroupStatus>, QueueError>> {
        async { Ok(self.0.content().status()) }.boxed()
    }

    fn remove_group<'a>(&'a self, group: &'a str) -> BoxFuture<'a, Result<bool, QueueError>> {
        async move { Ok(self.0.shelf.lock().remove(group)) }.boxed()
    }
}

struct InProcessSender(Arc<Opened>);

impl Sender for InProcessSender {
    fn send<'a>(
        &'a self,
        messages: &'a [WireMessage],
    ) -> BoxFuture<'a, Result<SentAll, SendError>> {
        async move {
            let outgoing = self.0.options.outgoing(messages);
            let put = self.0.put(&outgoing.messages);
            outgoing.end(put)
        }
        .boxed()
    }

    fn tail(&self) -> BoxFuture<'_, Result<u64, QueueError>> {
        async { Ok(self.0.shelf.lock().end()) }.boxed()
    }
}

/// A delivery: the number of the message, and which delivery it is.
struct Ticket {
    number: u64,
    delivered: u64,
}

struct InProcessReceiver {
    queue: Arc<Opened>,
    group: Arc<str>,
}

impl InProcessReceiver {
    /// What is there now, and when to look again at the latest.
    fn take(&self, max: usize) -> (Vec<Received>, Option<Instant>) {
        let (now, options) = (Instant::now(), &self.queue.options);
        let mut content = self.queue.content();
        let seen = self.queue.now();
        let taken = content.take(&self.group, max, now, now + options.ack_within, seen);
        let next = content.next_due(&self.group);
        drop(content);
        let received = taken.into_iter().map(|(number, delivered, kept)| {
            let receipt = Receipt(Arc::new(Ticket { number, delivered }));
            let mut message = kept.message;
            if message.id.is_empty() {
                let micros = kept.at.map_or(0, Timestamp::as_micros);
                message.id = format!("{}:{}:{micros}", options.name, number + 1);
            }
            options.unpacked(message, delivered, kept.at, receipt)
        });
        (received.collect(), next)
    }

    fn settle(
        &self,
        receipt: &Receipt,
        change: impl FnOnce(&mut Content, u64),
    ) -> Result<(), QueueError> {
        let wrong = || QueueError::Receipt { queue: self.queue.options.name.clone() };
        let ticket = receipt.0.downcast_ref::<Ticket>().ok_or_else(wrong)?;
        let seen = self.queue.now();
        let mut content = self.queue.shelf.lock();
        // Whoever has it now decides about it.
        if content.has(&self.group, ticket.number, ticket.delivered, seen) {
            change(&mut content, ticket.number);
        }
        drop(content);
        self.queue.shelf.grown.notify_waiters();
        Ok(())
    }

    fn due(&self, receipt: &Receipt, after: Duration) -> Result<(), QueueError> {
        let due = Instant::now() + after;
        self.settle(receipt, |content, number| content.delay(&self.group, number, due))
    }

    fn done(&self, receipt: &Receipt) -> Result<(), QueueError> {
        self.settle(receipt, |content, number| content.done(&self.group, number))
    }
}

impl Receiver for InProcessReceiver {
    fn receive(
        &self,
        max: usize,
        wait: Duration,
    ) -> BoxFuture<'_, Result<Vec<Received>, QueueError>> {
        async move {
            let until = Instant::now() + wait;
            loop {
                let grown = self.queue.shelf.grown.notified();
                let (found, next) = self.take(max);
                let now = Instant::now();
                if !found.is_empty() || now >= until {
                    return Ok(found);
                }
                let look = next.map_or(until, |next| next.min(until));
                let _ = timeout(look.saturating_duration_since(now), grown).await;
            }
        }
        .boxed()
    }

    fn ack<'a>(&'a self, receipt: &'a Receipt) -> BoxFuture<'a, Result<(), QueueError>> {
        async move { self.done(receipt) }.boxed()
    }

    fn reject<'a>(
        &'a self,
        receipt: &'a Receipt,
        reject: Reject,
    ) -> BoxFuture<'a, Result<(), QueueError>> {
        async move {
            match reject {
                Reject::Never => self.done(receipt),
                Reject::Later(after) => self.due(receipt, after),
            }
        }
        .boxed()
    }

    fn extend<'a>(&'a self, receipt: &'a Receipt) -> BoxFuture<'a, Result<(), QueueError>> {
        async move { self.due(receipt, self.queue.options.ack_within) }.boxed()
    }

    fn waiting(&self) -> BoxFuture<'_, Result<u64, QueueError>> {
        async { Ok(self.queue.content().waiting(&self.group)) }.boxed()
    }

    fn ack_within(&self) -> Duration {
        self.queue.options.ack_within
    }

    fn read_limit(&self) -> usize {
        self.queue.options.read_limit
    }
}

impl fmt::Debug for InProcessQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InProcessQueue").field("name", &self.0.options.name).finish_non_exhaustive()
    }
}

impl fmt::Debug for InProcessSender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InProcessSender")
            .field("queue", &self.0.options.name)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for InProcessReceiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InProcessReceiver")
            .field("queue", &self.queue.options.name)
            .field("group", &self.group)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Shelf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shelf").field("messages", &self.lock().len()).finish()
    }
}
