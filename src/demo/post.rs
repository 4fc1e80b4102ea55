//! Who hears what happens in the shop: subscriptions of the bus, and a durable consumer. Some
//! messages they cannot handle, so that there are dead letters to look at.

use std::time::Duration;

use mister_smith_actors::bus::{Delivery, Outcome, RetryPolicy, Subscription};
use mister_smith_actors::consumer::{Begin, Consumer};
use mister_smith_actors::store::EventFilter;
use mister_smith_supervisors::{Backoff, Overflow};

use super::luck::Luck;
use crate::system::SystemCore;

/// One event of so many is too much for the fraud check, on the bus.
const SUSPICIOUS: usize = 400;

/// One event of so many has no receipt, at the consumer.
const ILLEGIBLE: usize = 1_000;

/// One event of so many has its receipt with the second try.
const SMUDGED: usize = 60;

/// Three tries, soon after each other.
fn retry() -> RetryPolicy {
    let (first, last) = (Duration::from_millis(20), Duration::from_millis(200));
    RetryPolicy::attempts(3).backoff(Backoff::exponential(first, last))
}

/// Starts them all.
pub(super) async fn deliver(node: &SystemCore, seed: u64) -> anyhow::Result<()> {
    let bus = node.bus();
    let log = Subscription::new("journal", "events.>")?;
    bus.subscribe(log, || |_: Delivery| async { Outcome::Ack }).await?;
    let slow = Subscription::new("analytics", "events.basket.>")?.buffer(256, Overflow::DropOldest);
    let analytics = || {
        |_: Delivery| async {
            tokio::time::sleep(Duration::from_millis(2)).await;
            Outcome::Ack
        }
    };
    bus.subscribe(slow, analytics).await?;
    let fraud = Subscription::new("fraud.check", "events.basket.>")?.retry(retry());
    let check = move || {
        move |delivery: Delivery| {
            let position = delivery.message.position().unwrap_or_default().get();
            let suspicious = Luck::of(seed ^ position, "fraud").one_in(SUSPICIOUS);
            async move {
                match suspicious {
                    true => Outcome::fail("the fraud check does not know this basket"),
                    false => Outcome::Ack,
                }
            }
        }
    };
    bus.subscribe(fraud, check).await?;
    let receipts = Consumer::new("receipts", move |delivery: Delivery| async move {
        let position = delivery.message.position().unwrap_or_default().get();
        let mut luck = Luck::of(seed ^ position, "receipt");
        match (luck.one_in(ILLEGIBLE), luck.one_in(SMUDGED) && delivery.attempt == 1) {
            (true, _) => Outcome::fail("nobody can read it"),
            (_, true) => Outcome::retry("the printer is out of paper"),
            _ => Outcome::Ack,
        }
    });
    let receipts = receipts
        .filter(EventFilter::ALL.categories(["basket", "shelf"]))
        .begin(Begin::End)
        .retry(retry())
        .lanes_by_stream(8);
    node.consumers().start(receipts).await?;
    Ok(())
}
