//! Publishing: it runs in the caller, and puts one shared message into each mailbox.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use mister_smith_supervisors::ErrorClass;

use super::EventBus;
use super::message::{Message, NewMessage};
use super::routes::{Group, Known, Targets};
use super::sink::{Offer, Route};
use super::subject::Subject;
use crate::event::{Event, EventId};

/// Publishes to one subject. Clones are independent.
#[derive(Clone)]
pub struct Publisher {
    bus: EventBus,
    subject: Subject,
    known: Known,
}

impl Publisher {
    /// Publishes an event: see [`EventBus::publish`].
    ///
    /// # Errors
    /// Some subscribers had no room in time; the others have it.
    ///
    /// # Cancel safety
    /// A dropped call has reached all that had room, and maybe some of the others.
    pub async fn publish<E: Event>(&mut self, event: E) -> Result<Published, PublishError> {
        let (message, published, full) = self.offer(event);
        match full.is_empty() {
            true => Ok(published),
            false => EventBus::wait_for_room(&message, published, full).await,
        }
    }

    fn offer<E: Event>(&mut self, event: E) -> (Arc<Message>, Published, Vec<Arc<Route>>) {
        let Self { bus, subject, known } = self;
        let message = bus.stamp(NewMessage::of(subject.clone(), event));
        bus.0.routes.refresh(subject, known);
        let (published, full) = bus.offer_to(&known.targets, &message);
        (message, published, full)
    }

    /// Where it publishes.
    #[must_use]
    pub fn subject(&self) -> &Subject {
        &self.subject
    }
}

impl fmt::Debug for Publisher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Publisher").field("subject", &self.subject).finish_non_exhaustive()
    }
}

/// Where a published message went.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Published {
    /// The message's id.
    pub id: EventId,
    /// In how many mailboxes it is.
    pub delivered: usize,
    /// How many subscriptions dropped it, or another for it, as they said they would.
    pub dropped: usize,
}

/// Some subscribers did not get the message; all others have it.
#[derive(Debug, Clone, thiserror::Error)]
#[error(
    "{delivered} subscriptions have {subject} ({id}), but {} had no room for it: {}; \
     make the buffer larger, the subscriber faster, or let it drop the oldest",
    refused.len(), refused.join(", ")
)]
#[non_exhaustive]
pub struct PublishError {
    /// The message's id. Publish again with it, and those who know it can tell.
    pub id: EventId,
    /// Its subject.
    pub subject: Subject,
    /// How many have it.
    pub delivered: usize,
    /// The subscriptions that had no room.
    pub refused: Vec<String>,
}

impl PublishError {
    /// How to react: later there may be room.
    #[must_use]
    pub const fn class(&self) -> ErrorClass {
        ErrorClass::Transient
    }
}

impl EventBus {
    /// Publishes a message: it is in the mailbox of each of its subscribers when this returns.
    ///
    /// Those with room get it at once; then the publisher waits for the others, each as long as
    /// its own policy says.
    ///
    /// # Errors
    /// Some had no room in time; the others have it.
    ///
    /// # Cancel safety
    /// A dropped call has reached all that had room, and maybe some of the others.
    pub async fn publish(&self, message: NewMessage) -> Result<Published, PublishError> {
        let (message, published, full) = self.offer(message);
        match full.is_empty() {
            true => Ok(published),
            false => Self::wait_for_room(&message, published, full).await,
        }
    }

    /// What publishes to one subject often: it knows who gets it, and asks again only when a
    /// subscription has come or gone.
    #[must_use]
    pub fn publisher(&self, subject: Subject) -> Publisher {
        Publisher { bus: self.clone(), subject, known: Known::default() }
    }

    /// Waits for those that had no room.
    async fn wait_for_room(
        message: &Arc<Message>,
        mut published: Published,
        full: Vec<Arc<Route>>,
    ) -> Result<Published, PublishError> {
        let mut refused = Vec::new();
        for route in full {
            match route.offer(message).await {
                true => published.delivered += 1,
                false => refused.push(route.name.to_string()),
            }
        }
        if refused.is_empty() {
            return Ok(published);
        }
        let Published { id, delivered, .. } = published;
        Err(PublishError { id, subject: message.subject.clone(), delivered, refused })
    }

    /// Publishes a message to all who have room now, and waits for nobody.
    ///
    /// # Errors
    /// Some had no room; the others have it.
    pub fn try_publish(&self, message: NewMessage) -> Result<Published, PublishError> {
        let (message, published, full) = self.offer(message);
        if full.is_empty() {
            return Ok(published);
        }
        for route in &full {
            route.counts.refused.fetch_add(1, Ordering::Relaxed);
        }
        let refused = full.iter().map(|route| route.name.to_string()).collect();
        let Published { id, delivered, .. } = published;
        Err(PublishError { id, subject: message.subject.clone(), delivered, refused })
    }

    /// Publishes an event.
    ///
    /// # Errors
    /// As for [`publish`](Self::publish).
    pub async fn publish_event<E: Event>(
        &self,
        subject: Subject,
        event: E,
    ) -> Result<Published, PublishError> {
        self.publish(NewMessage::of(subject, event)).await
    }

    /// Gives it to all that have room; answers who has not.
    fn offer(&self, message: NewMessage) -> (Arc<Message>, Published, Vec<Arc<Route>>) {
        let message = self.stamp(message);
        let targets = self.0.routes.targets(&message.subject);
        let (published, full) = self.offer_to(&targets, &message);
        (message, published, full)
    }

    fn offer_to(&self, targets: &Targets, message: &Arc<Message>) -> (Published, Vec<Arc<Route>>) {
        self.0.published.fetch_add(1, Ordering::Relaxed);
        let mut published = Published { id: message.id, delivered: 0, dropped: 0 };
        let mut full = Vec::new();
        for route in &targets.each {
            match route.try_offer(message) {
                Offer::Taken => published.delivered += 1,
                Offer::Dropped => published.dropped += 1,
                Offer::Full => full.push(Arc::clone(route)),
                // It ended a moment ago.
                Offer::Gone => {}
            }
        }
        for group in &targets.groups {
            match offer_one(group, message) {
                Ok(Offer::Dropped) => published.dropped += 1,
                Ok(_) => published.delivered += 1,
                Err(Some(route)) => full.push(route),
                Err(None) => {}
            }
        }
        (published, full)
    }
}

/// Gives a message to one member of a group: the one with the shortest queue, and among equals to
/// one after the other. If none has room, answers for whom to wait.
fn offer_one(group: &Group, message: &Arc<Message>) -> Result<Offer, Option<Arc<Route>>> {
    let count = group.members.len();
    let first = group.turn.fetch_add(1, Ordering::Relaxed);
    let mut order: Vec<_> = (0..count).map(|n| &group.members[(first + n) % count]).collect();
    order.sort_by_key(|route| route.sink.depth());
    let mut shortest = None;
    for route in order {
        match route.try_offer(message) {
            Offer::Full => shortest = shortest.or(Some(route)),
            Offer::Gone => {}
            taken => return Ok(taken),
        }
    }
    Err(shortest.cloned())
}
