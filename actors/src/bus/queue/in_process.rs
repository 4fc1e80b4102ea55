//! Queues in the memory of this process.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use indexmap::IndexMap;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

use super::{
    Keep, MessageQueue, QueueError, QueueOptions, Receipt, Received, Reject, SendError, SentAll,
};
use crate::bus::wire::WireMessage;

/// Queues by name. Cheap to clone; all clones have the same queues.
#[derive(Debug, Clone, Default)]
pub struct Broker(Arc<Mutex<BTreeMap<String, Arc<Shelf>>>>);

impl Broker {
    /// A queue, as one group sees it.
    #[must_use]
    pub fn queue(&self, options: QueueOptions) -> InProcessQueue {
        let mut shelves = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let shelf = Arc::clone(shelves.entry(options.name.clone()).or_default());
        shelf.lock().groups.entry(options.group.clone()).or_default();
        InProcessQueue { shelf, options }
    }
}

/// One queue.
#[derive(Default)]
struct Shelf {
    content: Mutex<Content>,
    grown: Notify,
}

#[derive(Default)]
struct Content {
    /// The number of the first message that is kept.
    first: u64,
    messages: VecDeque<(Instant, WireMessage)>,
    ids: IndexMap<String, (Instant, u64)>,
    groups: BTreeMap<String, Group>,
}

#[derive(Default)]
struct Group {
    /// The number of the next message that nobody has had.
    next: u64,
    pending: BTreeMap<u64, Pending>,
}

struct Pending {
    due: Instant,
    delivered: u64,
}

/// A delivery: the number of the message, and which delivery it is.
struct Ticket {
    number: u64,
    delivered: u64,
}

impl Shelf {
    fn lock(&self) -> MutexGuard<'_, Content> {
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Content {
    fn end(&self) -> u64 {
        self.first + self.messages.len() as u64
    }

    /// Removes what is too old, and what all groups are done with.
    fn trim(&mut self, options: &QueueOptions, now: Instant) {
        while let Some((at, _)) = self.messages.front() {
            let handled =
                |group: &Group| group.next > self.first && !group.pending.contains_key(&self.first);
            let done = options.keep == Keep::UntilHandled && self.groups.values().all(handled);
            if !done && now.duration_since(*at) < options.max_age {
                break;
            }
            self.messages.pop_front();
            for group in self.groups.values_mut() {
                group.pending.remove(&self.first);
            }
            self.first += 1;
            for group in self.groups.values_mut() {
                group.next = group.next.max(self.first);
            }
        }
        while let Some((_, (at, _))) = self.ids.first()
            && now.duration_since(*at) >= options.dedupe_within
        {
            self.ids.shift_remove_index(0);
        }
    }
}

/// See the [module](self).
pub struct InProcessQueue {
    shelf: Arc<Shelf>,
    options: QueueOptions,
}

impl InProcessQueue {
    fn put(&self, messages: &[WireMessage]) -> Result<SentAll, SendError> {
        let now = Instant::now();
        let mut content = self.shelf.lock();
        content.trim(&self.options, now);
        let mut done = SentAll::default();
        for (sent, message) in messages.iter().enumerate() {
            if let Some((_, number)) = content.ids.get(&message.id) {
                done.duplicates += 1;
                done.last = done.last.max(number + 1);
                continue;
            }
            if content.messages.len() as u64 >= self.options.max_messages {
                let detail = format!("{} messages", content.messages.len());
                let source = QueueError::Full { queue: self.options.name.clone(), detail };
                return Err(SendError { sent, last: done.last, source });
            }
            let number = content.end();
            content.messages.push_back((now, message.clone()));
            content.ids.insert(message.id.clone(), (now, number));
            done.last = number + 1;
        }
        drop(content);
        self.shelf.grown.notify_waiters();
        Ok(done)
    }

    /// What is there now, and when to look again at the latest.
    fn take(&self, max: usize) -> (Vec<Received>, Option<Instant>) {
        let now = Instant::now();
        let mut content = self.shelf.lock();
        content.trim(&self.options, now);
        let (first, end) = (content.first, content.end());
        let Content { messages, groups, .. } = &mut *content;
        let Some(group) = groups.get_mut(&self.options.group) else { return (Vec::new(), None) };
        let due = now + self.options.ack_within;
        let mut found = Vec::new();
        let mut numbers: Vec<u64> = group
            .pending
            .iter()
            .filter(|(_, pending)| pending.due <= now)
            .map(|(number, _)| *number)
            .take(max)
            .collect();
        while numbers.len() < max && group.next < end {
            numbers.push(group.next);
            group.next += 1;
        }
        for number in numbers {
            let pending = group.pending.entry(number).or_insert(Pending { due, delivered: 0 });
            pending.due = due;
            pending.delivered += 1;
            let at = usize::try_from(number - first).unwrap_or(usize::MAX);
            let Some((_, message)) = messages.get(at) else { continue };
            let ticket = Ticket { number, delivered: pending.delivered };
            found.push((message.clone(), pending.delivered, Receipt(Arc::new(ticket))));
        }
        let next = group.pending.values().map(|pending| pending.due).min();
        drop(content);
        let unpacked = found.into_iter().map(|(message, delivered, receipt)| {
            self.options.unpacked(message, delivered, receipt)
        });
        (unpacked.collect(), next)
    }

    /// Changes what is known of a delivery, if it is still the last one of its message.
    fn change(
        &self,
        receipt: &Receipt,
        change: impl FnOnce(&mut BTreeMap<u64, Pending>, u64),
    ) -> Result<(), QueueError> {
        let wrong = || QueueError::Receipt { queue: self.options.name.clone() };
        let ticket = receipt.0.downcast_ref::<Ticket>().ok_or_else(wrong)?;
        let mut content = self.shelf.lock();
        if let Some(group) = content.groups.get_mut(&self.options.group)
            && group
                .pending
                .get(&ticket.number)
                .is_some_and(|pending| pending.delivered == ticket.delivered)
        {
            change(&mut group.pending, ticket.number);
        }
        drop(content);
        self.shelf.grown.notify_waiters();
        Ok(())
    }
}

impl MessageQueue for InProcessQueue {
    fn send<'a>(
        &'a self,
        messages: &'a [WireMessage],
    ) -> BoxFuture<'a, Result<SentAll, SendError>> {
        async move { self.put(&self.options.packed(messages)) }.boxed()
    }

    fn receive(
        &self,
        max: usize,
        wait: Duration,
    ) -> BoxFuture<'_, Result<Vec<Received>, QueueError>> {
        async move {
            let until = Instant::now() + wait;
            loop {
                let grown = self.shelf.grown.notified();
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
        async move { self.change(receipt, |pending, number| _ = pending.remove(&number)) }.boxed()
    }

    fn reject<'a>(
        &'a self,
        receipt: &'a Receipt,
        reject: Reject,
    ) -> BoxFuture<'a, Result<(), QueueError>> {
        async move {
            self.change(receipt, |pending, number| match reject {
                Reject::Never => _ = pending.remove(&number),
                Reject::Later(after) => {
                    if let Some(one) = pending.get_mut(&number) {
                        one.due = Instant::now() + after;
                    }
                }
            })
        }
        .boxed()
    }

    fn extend<'a>(&'a self, receipt: &'a Receipt) -> BoxFuture<'a, Result<(), QueueError>> {
        let within = self.options.ack_within;
        async move {
            self.change(receipt, |pending, number| {
                if let Some(one) = pending.get_mut(&number) {
                    one.due = Instant::now() + within;
                }
            })
        }
        .boxed()
    }

    fn tail(&self) -> BoxFuture<'_, Result<u64, QueueError>> {
        async { Ok(self.shelf.lock().end()) }.boxed()
    }

    fn waiting(&self) -> BoxFuture<'_, Result<u64, QueueError>> {
        async {
            let content = self.shelf.lock();
            let end = content.end();
            let group = content.groups.get(&self.options.group);
            Ok(group.map_or(0, |group| end - group.next + group.pending.len() as u64))
        }
        .boxed()
    }

    fn read_limit(&self) -> usize {
        self.options.read_limit
    }
}

impl fmt::Debug for InProcessQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InProcessQueue").field("name", &self.options.name).finish_non_exhaustive()
    }
}

impl fmt::Debug for Shelf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shelf").field("messages", &self.lock().messages.len()).finish()
    }
}
