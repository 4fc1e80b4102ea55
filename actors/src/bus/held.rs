//! What a subscription holds back: the message in hand, and those that wait for their next try.
//!
//! It belongs to the subscription and not to the life of its actor, so a crash loses nothing of
//! it. Messages wait in lanes: one lane a subject, or one for all, or one for each message, as the
//! order says. A lane is tried from its front, and what comes later for it stands behind.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use indexmap::IndexMap;
use tokio::time::Instant;

use super::message::Message;
use super::subscription::Order;

/// A message and what was tried with it.
#[derive(Debug, Clone)]
pub(super) struct Item {
    pub(super) message: Arc<Message>,
    /// How often it was tried.
    pub(super) attempts: u32,
}

impl Item {
    pub(super) fn new(message: Arc<Message>) -> Self {
        Self { message, attempts: 0 }
    }
}

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct Held {
    in_hand: Option<Item>,
    /// Taken out of the mailbox, while older ones are tried again before it.
    arrived: Option<Arc<Message>>,
    lanes: IndexMap<Arc<str>, Lane>,
    due: BTreeSet<(Instant, Arc<str>)>,
    count: usize,
}

#[derive(Debug)]
struct Lane {
    due: Instant,
    items: VecDeque<Item>,
}

/// The lane of a message.
fn lane_of(order: Order, message: &Message) -> Arc<str> {
    match order {
        Order::PerSubject => message.subject().to_shared(),
        Order::Strict => "".into(),
        Order::Unordered => message.id().to_string().into(),
    }
}

impl Held {
    /// Messages that wait for their turn.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    pub(super) fn take_in_hand(&mut self, item: Item) {
        self.in_hand = Some(item);
    }

    /// What was in hand: of this life, or of one that crashed.
    pub(super) fn put_down(&mut self) -> Option<Item> {
        self.in_hand.take()
    }

    /// Keeps a message that has just come, while older ones are tried again.
    pub(super) fn arrive(&mut self, message: Arc<Message>) {
        self.arrived = Some(message);
    }

    /// The message that has just come.
    pub(super) fn take_arrived(&mut self) -> Option<Arc<Message>> {
        self.arrived.take()
    }

    /// Puts a message behind those of its lane; hands it back if none waits there.
    pub(super) fn queue(&mut self, order: Order, message: Arc<Message>) -> Option<Arc<Message>> {
        if self.lanes.is_empty() {
            return Some(message);
        }
        match self.lanes.get_mut(&lane_of(order, &message)) {
            None => Some(message),
            Some(lane) => {
                lane.items.push_back(Item::new(message));
                self.count += 1;
                None
            }
        }
    }

    /// Puts a message in front of its lane, which goes on at `due`.
    pub(super) fn again(&mut self, order: Order, item: Item, due: Instant) {
        let key = lane_of(order, &item.message);
        self.count += 1;
        let lane = self
            .lanes
            .entry(Arc::clone(&key))
            .or_insert_with(|| Lane { due, items: VecDeque::new() });
        self.due.remove(&(lane.due, Arc::clone(&key)));
        lane.due = due;
        lane.items.push_front(item);
        self.due.insert((due, key));
    }

    /// The first message of a lane whose time has come. A lane that is empty then is gone.
    pub(super) fn next_due(&mut self, now: Instant) -> Option<Item> {
        let (due, key) = self.due.first()?.clone();
        if due > now {
            return None;
        }
        let lane = self.lanes.get_mut(&key)?;
        let item = lane.items.pop_front()?;
        self.count -= 1;
        if lane.items.is_empty() {
            self.lanes.swap_remove(&key);
            self.due.remove(&(due, key));
        }
        Some(item)
    }

    /// When the next lane goes on.
    pub(super) fn next_at(&self) -> Option<Instant> {
        self.due.first().map(|(due, _)| *due)
    }
}
