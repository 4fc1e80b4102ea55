//! The bus in a small tree, with an office that keeps dead letters in memory.

mod brokers;
mod delivery;
mod laws;
mod lifecycle;
mod overflow;
mod packed;
mod processors;
mod settling;
mod subjects;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use mister_smith_supervisors::{
    ActorSystem, ChildSpec, Clock, ErrorClass, Policies, SupervisorSpec,
};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use uuid::Uuid;

use super::lifecycle_feed::{LifecycleFeed, LifecycleFeedArgs, LifecycleQueue};
use super::*;
use crate::event::{ContentType, Event};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum Order {
    #[serde(rename = "order.placed")]
    Placed { number: u64 },
}

impl Event for Order {}

/// Keeps dead letters in memory, and can be out of order for a while.
#[derive(Debug, Default)]
struct Office {
    kept: Mutex<Vec<Undelivered>>,
    settled: Mutex<Vec<Uuid>>,
    failures: Mutex<u32>,
    grown: Notify,
}

impl Office {
    fn kept(&self) -> Vec<Undelivered> {
        self.kept.lock().unwrap().clone()
    }

    async fn wait_for(&self, count: usize) -> Vec<Undelivered> {
        loop {
            let grown = self.grown.notified();
            let kept = self.kept();
            if kept.len() >= count {
                return kept;
            }
            grown.await;
        }
    }

    fn works(&self) -> Result<(), OfficeError> {
        let mut failures = self.failures.lock().unwrap();
        if *failures == 0 {
            return Ok(());
        }
        *failures -= 1;
        Err(OfficeError::new(ErrorClass::Transient, "out of order"))
    }
}

impl DeadLetterOffice for Office {
    fn keep(&self, undelivered: Undelivered) -> BoxFuture<'_, Result<(), OfficeError>> {
        async {
            self.works()?;
            self.kept.lock().unwrap().push(undelivered);
            self.grown.notify_waiters();
            Ok(())
        }
        .boxed()
    }

    fn settle(&self, letter: Uuid) -> BoxFuture<'_, Result<(), OfficeError>> {
        async move {
            self.works()?;
            self.settled.lock().unwrap().push(letter);
            self.grown.notify_waiters();
            Ok(())
        }
        .boxed()
    }
}

struct Town {
    system: ActorSystem,
    bus: EventBus,
    office: Arc<Office>,
}

impl Town {
    async fn start() -> Self {
        let office = Arc::new(Office::default());
        Self { office: Arc::clone(&office), ..Self::start_with(office).await }
    }

    /// With another office, which keeps nothing here.
    async fn start_with(office: Arc<dyn DeadLetterOffice>) -> Self {
        let clock = Clock::starting_at(1_000_000);
        let bus = EventBus::new(clock, 7);
        let queue = LifecycleQueue::default();
        let patient = Duration::from_secs(1);
        let args = BusArgs::new(bus.clone(), "/messaging/subscriptions", office);
        let feed = LifecycleFeedArgs::new(queue.clone(), bus.clone());
        let messaging = SupervisorSpec::new("messaging")
            .intensity(10_000, patient)
            .child(
                SupervisorSpec::dynamic("subscriptions").intensity(10_000, patient).keep_children(),
            )
            .child(ChildSpec::component::<BusActor>("bus", args))
            .child(ChildSpec::component::<LifecycleFeed>("lifecycle", feed));
        let root = SupervisorSpec::new("town").intensity(10_000, patient).child(messaging);
        let system = ActorSystem::builder(root)
            .policies(Policies::new())
            .seed(7)
            .clock(clock)
            .observer(queue)
            .start()
            .await
            .unwrap();
        Self { system, bus, office: Arc::default() }
    }

    /// Subscribes, and collects the numbers that come.
    async fn collect(&self, subscription: Subscription) -> Seen {
        let seen = Seen::default();
        let given = seen.clone();
        self.bus
            .subscribe(subscription, move || {
                let seen = given.clone();
                move |delivery: Delivery| {
                    seen.push(number(&delivery));
                    async { Outcome::Ack }
                }
            })
            .await
            .unwrap();
        seen
    }

    async fn publish(&self, subject: &str, number: u64) -> Result<Published, PublishError> {
        self.bus.publish(placed(subject, number)).await
    }
}

fn placed(subject: &str, number: u64) -> NewMessage {
    NewMessage::event(subject, Order::Placed { number }).unwrap()
}

fn number(delivery: &Delivery) -> u64 {
    let Order::Placed { number } = *delivery.message.event::<Order>().unwrap();
    number
}

fn to(name: &str, pattern: &str) -> Subscription {
    Subscription::new(name, pattern).unwrap()
}

/// Numbers that a subscriber has seen.
#[derive(Clone, Default)]
struct Seen(Arc<(Mutex<Vec<u64>>, Notify)>);

impl Seen {
    fn push(&self, number: u64) {
        self.0.0.lock().unwrap().push(number);
        self.0.1.notify_waiters();
    }

    fn now(&self) -> Vec<u64> {
        self.0.0.lock().unwrap().clone()
    }

    async fn wait_for(&self, count: usize) -> Vec<u64> {
        loop {
            let grown = self.0.1.notified();
            let seen = self.now();
            if seen.len() >= count {
                return seen;
            }
            grown.await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_queue_in_process_keeps_every_law() {
    let broker = super::queue::in_process::Broker::default();
    Box::pin(super::queue::conformance::run(&move |options| {
        let queue = broker.queue(options);
        async move { Arc::new(queue) as _ }.boxed()
    }))
    .await;
}

#[tokio::test(start_paused = true)]
async fn requests_in_process_keep_every_law() {
    let network = super::remote::in_process::Network::default();
    Box::pin(super::remote::conformance::run(&move || {
        let network = network.clone();
        async move { Arc::new(network) as _ }.boxed()
    }))
    .await;
}

#[tokio::test(start_paused = true)]
async fn buckets_in_process_keep_every_law() {
    let buckets = super::key_value::in_process::Buckets::new(Clock::starting_at(1_000));
    Box::pin(super::key_value::conformance::run(&move |options| {
        let bucket = buckets.bucket(options).unwrap();
        async move { Arc::new(bucket) as _ }.boxed()
    }))
    .await;
}

#[test]
fn a_bucket_s_options_are_checked() {
    use super::key_value::{BucketOptions, in_process::Buckets};
    let buckets = Buckets::new(Clock::starting_at(0));
    let error = |options| buckets.bucket(options).unwrap_err().to_string();
    assert_eq!(
        error(BucketOptions::new("a.b")),
        r#""a.b" is no name of a bucket; use letters, digits, - and _"#
    );
    assert_eq!(
        error(BucketOptions::new("b").history(65)),
        "a bucket keeps 1 to 64 values of each key, not 65"
    );
}
