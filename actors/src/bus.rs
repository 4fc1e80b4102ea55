//! The event bus: messages between the actors of a node, by subject.
//!
//! Publishing runs in the caller: it looks up who gets the subject and puts one shared message
//! into each mailbox. Each subscription is an actor of its own under a supervisor, so a slow one
//! or one that crashes concerns nobody else.
//!
//! | you want | look at |
//! |---|---|
//! | to publish | [`EventBus::publish`], [`NewMessage`] |
//! | to subscribe, with answers, retries and dead letters | [`EventBus::subscribe`], [`Subscription`], [`Handler`] |
//! | messages in the mailbox of an actor that you have already | [`EventBus::connect`] |
//! | messages between processes | [`queue`], [`wire`] |
//! | a question to whoever serves a subject, in any process | [`remote`] |
//! | the last value of each key, for all nodes | [`key_value`] |
//! | one connection to a broker for all of these | [`broker`] |
//! | what happens to the node's actors, as messages | [`lifecycle_feed`] |
//!
//! What is promised: the messages of one publisher to one subject reach each subscriber in the
//! order in which they were published, and are handled in that order, also when one of them is
//! tried again (unless the subscription says [`Order::Unordered`]). The bus itself is memory:
//! what must survive the node is an event of the log first and comes to the bus from there.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use mister_smith_supervisors::{
    Address, AskError, ChildSpec, Clock, LookupError, RestartPolicy, SupervisorError, SupervisorRef,
};
use tokio::sync::{Mutex, OnceCell};
use uuid::Uuid;

use crate::event::{EventId, Timestamp};
use crate::settle::{Counts, Settler};

mod actor;
pub mod broker;
mod held;
pub mod key_value;
mod latency;
pub mod lifecycle_feed;
mod message;
mod publish;
pub mod queue;
pub mod remote;
mod routes;
mod sink;
mod subject;
mod subscriber;
mod subscription;
pub mod wire;

pub use actor::{BusActor, BusArgs, BusMessage};
use latency::Latency;
pub use latency::LatencyStatus;
pub use message::{Message, NewMessage};
pub use publish::{PublishError, Published, Publisher};
pub use subject::{InvalidSubject, MAX_SUBJECT_BYTES, Pattern, SYSTEM, Subject};
pub use subscriber::SubscriberMessage;
pub use subscription::{
    DEFAULT_BUFFER, DEFAULT_HANDLE_DEADLINE, DEFAULT_WAIT, Order, Subscription,
};

pub use crate::settle::{
    Batch, BatchHandler, DeadLetterOffice, Delivery, FailureCause, Handled, Handler, OfficeError,
    Outcome, Outcomes, RetryPolicy, Source, Undelivered,
};

use queue::processor::ProcessorMessage;
use routes::Routes;
use sink::{AddressSink, Handling, Offer, Route};
use subscriber::{Shared, SubscriberActor, SubscriberArgs};

#[cfg(test)]
mod tests;

/// Patterns of the ways back for dead letters of timers begin so.
pub(crate) const TIMERS: &str = "system.timer.";

/// The bus of one node. Cheap to clone.
#[derive(Clone)]
pub struct EventBus(Arc<Inner>);

struct Inner {
    clock: Clock,
    ids: IdSource,
    routes: Routes,
    numbers: AtomicU64,
    published: AtomicU64,
    supervisor: OnceCell<SupervisorRef>,
    office: OnceCell<Arc<dyn DeadLetterOffice>>,
    /// One subscription is made or ended at a time.
    changing: Mutex<()>,
}

/// Ids without a lock: a counter, spread over 74 bits by a seed.
struct IdSource {
    seed: (u64, u64),
    count: AtomicU64,
}

impl IdSource {
    fn next(&self, at: Timestamp) -> EventId {
        let n = self.count.fetch_add(1, Ordering::Relaxed);
        let spread = |seed: u64| splitmix(seed.wrapping_add(n));
        EventId::at(at, spread(self.seed.0), spread(self.seed.1))
    }
}

/// Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014.
pub(crate) fn splitmix(mut z: u64) -> u64 {
    z = z.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Why a subscription was not made, or not ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SubscribeError {
    /// The name is in use.
    #[error("there is a subscription {name} already; give this one another name")]
    Exists {
        /// The name.
        name: String,
    },
    /// There is none of that name.
    #[error("there is no subscription {name}")]
    Unknown {
        /// The name.
        name: String,
    },
    /// The bus is not part of a running node.
    #[error("the bus is not up; start the node first")]
    NotUp,
    /// Its actor did not start.
    #[error(transparent)]
    Supervisor(#[from] SupervisorError),
    /// Its actor is not there.
    #[error(transparent)]
    Lookup(#[from] LookupError),
    /// Its actor did not answer.
    #[error(transparent)]
    Actor(#[from] AskError),
}

/// What became of a subscription's messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct HandlingStatus {
    /// Acknowledged.
    pub acknowledged: u64,
    /// Tries that failed and were followed by another.
    pub retried: u64,
    /// Given up.
    pub dead: u64,
    /// Given up without a dead letter: it was refused for good, and the log has a line about it.
    pub refused: u64,
    /// Messages that wait for their next try.
    pub waiting: usize,
}

/// How a subscription stands.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct SubscriptionStatus {
    /// Its name.
    pub name: Arc<str>,
    /// What it gets.
    pub pattern: String,
    /// With whom it shares.
    pub group: Option<Arc<str>>,
    /// The actor in whose mailbox its messages are.
    pub path: String,
    /// Messages that wait.
    pub depth: usize,
    /// Messages that were put into its mailbox.
    pub delivered: u64,
    /// Messages that were dropped because it was full.
    pub dropped: u64,
    /// Messages whose publishers waited for room in vain.
    pub refused: u64,
    /// It gets no messages until it has room again.
    pub cut_off: bool,
    /// What became of its messages, if it has a handler of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub handling: Option<HandlingStatus>,
    /// How long its messages took to reach its handler, if it has one of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency: Option<LatencyStatus>,
}

impl EventBus {
    /// A bus, not yet part of a node: it has a clock and a seed for its messages' ids.
    #[must_use]
    pub fn new(clock: Clock, seed: u64) -> Self {
        let seed = (splitmix(seed), splitmix(!seed));
        Self(Arc::new(Inner {
            clock,
            ids: IdSource { seed, count: AtomicU64::new(0) },
            routes: Routes::new(),
            numbers: AtomicU64::new(0),
            published: AtomicU64::new(0),
            supervisor: OnceCell::new(),
            office: OnceCell::new(),
            changing: Mutex::new(()),
        }))
    }

    /// Makes it part of a node: under which dynamic supervisor subscriptions live, and where dead
    /// letters go. Only the first call counts.
    pub fn attach(&self, supervisor: SupervisorRef, office: Arc<dyn DeadLetterOffice>) {
        let _ = self.0.supervisor.set(supervisor);
        let _ = self.0.office.set(office);
    }

    pub(crate) fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.0.clock.wall_us())
    }

    pub(crate) fn stamp(&self, message: NewMessage) -> Arc<Message> {
        let NewMessage { subject, id, at, metadata, origin, body } = message;
        let at = at.unwrap_or_else(|| self.now());
        let id = id.unwrap_or_else(|| self.0.ids.next(at));
        Arc::new(Message { id, subject, at, metadata, origin, body })
    }

    /// A number for what is to look random, and be the same in each run with the same seed.
    pub(crate) fn seed(&self) -> u64 {
        splitmix(self.0.ids.seed.0 ^ self.0.numbers.load(Ordering::Relaxed))
    }

    /// Subscribes: from now on messages that match are handed to a handler, one after the other,
    /// in an actor of its own. `make` makes the handler, anew after each crash.
    ///
    /// # Errors
    /// The name is in use, or the node is not up.
    ///
    /// # Cancel safety
    /// A dropped call has subscribed or not.
    pub async fn subscribe<H: Handler>(
        &self,
        subscription: Subscription,
        make: impl Fn() -> H + Send + Sync + 'static,
    ) -> Result<SubscriptionRef, SubscribeError> {
        let _turn = self.0.changing.lock().await;
        let (supervisor, office) = self.parts()?;
        let Subscription { name, pattern, group, buffer, overflow, policy, target, results } =
            subscription;
        let exists = || SubscribeError::Exists { name: name.to_string() };
        if self.0.routes.get(&name).is_some() {
            return Err(exists());
        }
        let shared = Arc::new(Shared::new(Latency::new(target)));
        let settler = Settler {
            name: Arc::clone(&name),
            retry: policy.retry,
            deadline: policy.deadline,
            office: Arc::clone(office),
            results,
            counts: Arc::clone(&shared.counts),
            seed: self.seed(),
        };
        let args = SubscriberArgs {
            make: Arc::new(make),
            order: policy.order,
            capacity: buffer,
            shared: Arc::clone(&shared),
            settler,
        };
        let spec = ChildSpec::actor::<SubscriberActor<H>>(Arc::clone(&name), args)
            .restart(RestartPolicy::Transient)
            .mailbox(buffer, overflow);
        let spawned = spawn_anew::<SubscriberMessage>(supervisor, &name, spec).await?;
        let address = spawned.ok_or_else(exists)?;
        let sink = AddressSink { address: address.clone(), wrap: SubscriberMessage::Deliver };
        let handling = Handling::Subscriber(Arc::clone(&shared));
        self.insert(Arc::clone(&name), pattern, group, Box::new(sink), handling)?;
        Ok(SubscriptionRef { name, address, shared })
    }

    /// Puts the messages that match into the mailbox of an actor, as messages of its own. The
    /// actor answers nothing and nothing is tried again; the mailbox's own policy says what
    /// happens when it is full.
    ///
    /// # Errors
    /// The name is in use.
    pub fn connect<M: Send + 'static>(
        &self,
        name: impl Into<Arc<str>>,
        pattern: Pattern,
        address: Address<M>,
        wrap: impl Fn(Arc<Message>) -> M + Send + Sync + 'static,
    ) -> Result<(), SubscribeError> {
        let sink = Box::new(AddressSink { address, wrap });
        self.insert(name.into(), pattern, None, sink, Handling::Unknown)
    }

    /// The same for an actor that has a handler, with what that counts.
    pub(crate) fn connect_counted<M: Send + 'static>(
        &self,
        name: Arc<str>,
        pattern: Pattern,
        address: Address<M>,
        wrap: impl Fn(Arc<Message>) -> M + Send + Sync + 'static,
        counts: Arc<Counts>,
    ) -> Result<(), SubscribeError> {
        let sink = Box::new(AddressSink { address, wrap });
        self.insert(name, pattern, None, sink, Handling::Counted(counts))
    }

    /// Whether there is a subscription, or something else that is connected, of that name.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.routes.get(name).is_some()
    }

    /// Where subscriptions live, and where their dead letters go.
    fn parts(&self) -> Result<(&SupervisorRef, &Arc<dyn DeadLetterOffice>), SubscribeError> {
        let parts = self.0.supervisor.get().zip(self.0.office.get());
        parts.ok_or(SubscribeError::NotUp)
    }

    fn insert(
        &self,
        name: Arc<str>,
        pattern: Pattern,
        group: Option<Arc<str>>,
        sink: Box<dyn sink::Sink>,
        handling: Handling,
    ) -> Result<(), SubscribeError> {
        let route = Arc::new(Route {
            number: self.0.numbers.fetch_add(1, Ordering::Relaxed),
            name: Arc::clone(&name),
            pattern,
            group,
            sink,
            counts: sink::Counts::default(),
            handling,
            cut_off: false.into(),
        });
        match self.0.routes.insert(route) {
            true => Ok(()),
            false => Err(SubscribeError::Exists { name: name.to_string() }),
        }
    }

    /// Ends a subscription. What is in its mailbox is handled first; an actor that was
    /// [connected](Self::connect) is left alone.
    ///
    /// # Errors
    /// There is none of that name, or its actor takes nothing.
    pub async fn unsubscribe(&self, name: &str) -> Result<(), SubscribeError> {
        let _turn = self.0.changing.lock().await;
        let unknown = || SubscribeError::Unknown { name: name.to_owned() };
        self.0.routes.remove(name).ok_or_else(unknown)?;
        let supervisor = self.0.supervisor.get().ok_or(SubscribeError::NotUp)?;
        if let Some(actor) = supervisor.child::<SubscriberMessage>(name) {
            // Ahead of what waits, so that a full mailbox cannot lose it: the actor ends when it
            // has handled the rest. One that is gone already has nothing left to handle.
            let _ = actor.tell_urgent(SubscriberMessage::Finish);
        } else if supervisor.child::<ProcessorMessage>(name).is_some() {
            // What it has in hand is delivered again, to whoever processes the queue then.
            supervisor.terminate_child(name).await?;
        }
        Ok(())
    }

    /// Hands a message to one subscription only, whatever its pattern.
    ///
    /// # Errors
    /// There is none of that name, or it has no room.
    pub async fn deliver_to(&self, name: &str, message: NewMessage) -> Result<(), RedeliverError> {
        let unknown = || SubscribeError::Unknown { name: name.to_owned() };
        let route = self.0.routes.get(name).ok_or_else(unknown)?;
        let message = self.stamp(message);
        let full = || RedeliverError::Full { name: name.to_owned() };
        match route.try_offer(&message) {
            Offer::Taken | Offer::Dropped => Ok(()),
            Offer::Full => route.offer(&message).await.then_some(()).ok_or_else(full),
            Offer::Gone => Err(unknown().into()),
        }
    }

    /// All subscriptions, in the order in which they were made.
    #[must_use]
    pub fn subscriptions(&self) -> Vec<SubscriptionStatus> {
        let status = |route: &Arc<Route>| {
            let sink::Counts { delivered, dropped, refused } = &route.counts;
            SubscriptionStatus {
                name: Arc::clone(&route.name),
                pattern: route.pattern.to_string(),
                group: route.group.clone(),
                path: route.sink.path(),
                depth: route.sink.depth(),
                delivered: delivered.load(Ordering::Relaxed),
                dropped: dropped.load(Ordering::Relaxed),
                refused: refused.load(Ordering::Relaxed),
                cut_off: route.cut_off.load(Ordering::Relaxed),
                handling: route.handling.counts().map(|counts| HandlingStatus {
                    acknowledged: counts.acked.load(Ordering::Relaxed),
                    retried: counts.retried.load(Ordering::Relaxed),
                    dead: counts.dead.load(Ordering::Relaxed),
                    refused: counts.refused.load(Ordering::Relaxed),
                    waiting: route.handling.subscriber().map_or(0, Shared::waiting),
                }),
                latency: route.handling.subscriber().map(|shared| shared.latency.status()),
            }
        };
        self.0.routes.all().iter().map(status).collect()
    }

    /// Messages that were published so far.
    #[must_use]
    pub fn published(&self) -> u64 {
        self.0.published.load(Ordering::Relaxed)
    }

    /// Ends all routes: what is published from now on reaches nobody.
    pub fn close(&self) {
        self.0.routes.clear();
    }
}

/// Starts an actor that has its name from who asked for it, in place of one that nobody knows of:
/// its caller went away while it was being started or ended. `None` if something else has the name.
pub(crate) async fn spawn_anew<M: Send + 'static>(
    supervisor: &SupervisorRef,
    name: &str,
    spec: ChildSpec,
) -> Result<Option<Address<M>>, SupervisorError> {
    if supervisor.child::<M>(name).is_some() {
        supervisor.terminate_child(name).await?;
    }
    match supervisor.spawn_spec(spec).await {
        Ok(address) => Ok(Some(address)),
        Err(SupervisorError::AlreadyStarted { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Why a message did not reach the one subscription that it is for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RedeliverError {
    /// There is no such subscription.
    #[error(transparent)]
    Subscription(#[from] SubscribeError),
    /// It has no room.
    #[error("subscription {name} has no room; try again later")]
    Full {
        /// Its name.
        name: String,
    },
}

/// A subscription that was made. Dropping it changes nothing.
#[derive(Debug, Clone)]
pub struct SubscriptionRef {
    name: Arc<str>,
    address: Address<SubscriberMessage>,
    shared: Arc<Shared>,
}

impl SubscriptionRef {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where its actor is in the tree.
    #[must_use]
    pub fn path(&self) -> String {
        self.address.path().to_string()
    }

    /// Messages that were acknowledged.
    #[must_use]
    pub fn acked(&self) -> u64 {
        self.shared.counts.acked.load(Ordering::Relaxed)
    }

    /// How often a message was put back for another try.
    #[must_use]
    pub fn retried(&self) -> u64 {
        self.shared.counts.retried.load(Ordering::Relaxed)
    }

    /// Messages that became dead letters.
    #[must_use]
    pub fn dead(&self) -> u64 {
        self.shared.counts.dead.load(Ordering::Relaxed)
    }

    /// Messages that wait, in the mailbox or for another try.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.address.depth() + self.shared.waiting()
    }
}

impl fmt::Debug for EventBus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventBus")
            .field("routes", &self.0.routes)
            .field("published", &self.published())
            .finish_non_exhaustive()
    }
}

/// A dead letter's name, for those who make one of a message.
#[must_use]
pub fn letter_id(subscription: &str, message: EventId) -> Uuid {
    let parts = [subscription.as_bytes(), message.as_uuid().as_bytes()];
    crate::store::IdempotencyKey::of(parts).to_uuid()
}
