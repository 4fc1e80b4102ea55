//! The place that a subscription's messages go to: the mailbox of an actor.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use mister_smith_supervisors::{Address, Offered, TellError};

use super::message::Message;
use super::subject::Pattern;
use super::subscriber::Shared;
use crate::settle;

/// One subscription, as publishers see it.
pub(super) struct Route {
    /// Counts up with each subscription of the bus.
    pub(super) number: u64,
    pub(super) name: Arc<str>,
    pub(super) pattern: Pattern,
    pub(super) group: Option<Arc<str>>,
    pub(super) sink: Box<dyn Sink>,
    pub(super) counts: Counts,
    pub(super) handling: Handling,
    /// Publishers waited for it in vain. Until it has room again it gets no message, so that one
    /// that hangs costs each of them one deadline, and not one for each message.
    pub(super) cut_off: AtomicBool,
}

/// What is known of the handler behind a route.
pub(super) enum Handling {
    /// Nothing: an actor gets the messages as messages of its own.
    Unknown,
    /// It is one of a subscription.
    Subscriber(Arc<Shared>),
    /// It is one of a processor or a consumer, and counts.
    Counted(Arc<settle::Counts>),
}

impl Handling {
    pub(super) fn subscriber(&self) -> Option<&Shared> {
        match self {
            Self::Subscriber(shared) => Some(shared),
            Self::Unknown | Self::Counted(_) => None,
        }
    }

    pub(super) fn counts(&self) -> Option<&settle::Counts> {
        match self {
            Self::Subscriber(shared) => Some(&shared.counts),
            Self::Counted(counts) => Some(counts),
            Self::Unknown => None,
        }
    }
}

/// What happened to a subscription's messages.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) delivered: AtomicU64,
    pub(super) dropped: AtomicU64,
    pub(super) refused: AtomicU64,
}

/// What came of an offer.
pub(super) enum Offer {
    /// It is in the mailbox.
    Taken,
    /// It is in the mailbox, and another is not any more; or it is not in the mailbox itself.
    Dropped,
    /// There is no room.
    Full,
    /// Nobody will ever take it.
    Gone,
}

/// A mailbox that takes messages.
pub(super) trait Sink: Send + Sync {
    /// Puts a message into it if there is room now.
    fn try_offer(&self, message: &Arc<Message>) -> Offer;
    /// Waits for room, as the mailbox's policy says.
    fn offer(&self, message: Arc<Message>) -> BoxFuture<'_, Offer>;
    /// Messages that wait.
    fn depth(&self) -> usize;
    /// Where the actor is in the tree.
    fn path(&self) -> String;
}

/// The mailbox of an actor whose messages are made of bus messages.
pub(super) struct AddressSink<M: Send + 'static, F> {
    pub(super) address: Address<M>,
    pub(super) wrap: F,
}

impl<M, F> Sink for AddressSink<M, F>
where
    M: Send + 'static,
    F: Fn(Arc<Message>) -> M + Send + Sync,
{
    fn try_offer(&self, message: &Arc<Message>) -> Offer {
        judge(self.address.offer((self.wrap)(Arc::clone(message))))
    }

    fn offer(&self, message: Arc<Message>) -> BoxFuture<'_, Offer> {
        let message = (self.wrap)(message);
        async { judge(self.address.tell(message).await.map(|()| Offered::Queued)) }.boxed()
    }

    fn depth(&self) -> usize {
        self.address.depth()
    }

    fn path(&self) -> String {
        self.address.path().to_string()
    }
}

fn judge<M>(offered: Result<Offered, TellError<M>>) -> Offer {
    match offered {
        Ok(Offered::Queued) => Offer::Taken,
        Ok(_) => Offer::Dropped,
        Err(TellError::Full { .. }) => Offer::Full,
        Err(_) => Offer::Gone,
    }
}

impl Route {
    /// Puts a message into the mailbox if there is room now, and counts.
    pub(super) fn try_offer(&self, message: &Arc<Message>) -> Offer {
        let offer = self.sink.try_offer(message);
        match offer {
            Offer::Taken => {
                self.counts.delivered.fetch_add(1, Ordering::Relaxed);
                if self.cut_off.load(Ordering::Relaxed) {
                    self.cut_off.store(false, Ordering::Relaxed);
                    tracing::info!(subscription = &*self.name, "has room again");
                }
            }
            Offer::Dropped => _ = self.counts.dropped.fetch_add(1, Ordering::Relaxed),
            Offer::Full | Offer::Gone => {}
        }
        offer
    }

    /// Waits for room, and counts. Cuts the subscription off if there is none in time.
    pub(super) async fn offer(&self, message: &Arc<Message>) -> bool {
        let taken = match self.cut_off.load(Ordering::Relaxed) {
            true => false,
            false => matches!(self.sink.offer(Arc::clone(message)).await, Offer::Taken),
        };
        match taken {
            true => _ = self.counts.delivered.fetch_add(1, Ordering::Relaxed),
            false => {
                self.counts.refused.fetch_add(1, Ordering::Relaxed);
                if !self.cut_off.swap(true, Ordering::Relaxed) {
                    tracing::warn!(
                        subscription = &*self.name,
                        waiting = self.sink.depth(),
                        "has no room for messages; it gets none until it has"
                    );
                }
            }
        }
        taken
    }
}

impl fmt::Debug for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Route")
            .field("name", &self.name)
            .field("pattern", &self.pattern)
            .field("group", &self.group)
            .finish_non_exhaustive()
    }
}
