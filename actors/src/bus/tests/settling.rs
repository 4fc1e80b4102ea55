//! Subscriptions whose handlers, offices and mailboxes misbehave.

use std::sync::atomic::AtomicU32;

use mister_smith_supervisors::{Backoff, LifecycleKind, Overflow};

use super::*;

/// Refuses every letter for good, as an authorization would.
#[derive(Debug, Default)]
struct Refusing(AtomicU32);

impl DeadLetterOffice for Refusing {
    fn keep(&self, _: Undelivered) -> BoxFuture<'_, Result<(), OfficeError>> {
        self.0.fetch_add(1, Ordering::SeqCst);
        async { Err(OfficeError::new(ErrorClass::User, "nobody is signed in")) }.boxed()
    }

    fn settle(&self, _: Uuid) -> BoxFuture<'_, Result<(), OfficeError>> {
        async { Err(OfficeError::new(ErrorClass::User, "nobody is signed in")) }.boxed()
    }
}

#[tokio::test(start_paused = true)]
async fn an_office_that_refuses_a_letter_for_good_holds_nobody_up() {
    let town = Town::start_with(Arc::new(Refusing::default())).await;
    let seen = Seen::default();
    let given = seen.clone();
    town.bus
        .subscribe(to("picky", ">"), move || {
            let seen = given.clone();
            move |delivery: Delivery| {
                let number = number(&delivery);
                seen.push(number);
                async move { if number == 1 { Outcome::fail("no") } else { Outcome::Ack } }
            }
        })
        .await
        .unwrap();
    for number in 1..=3 {
        town.publish("order.placed", number).await.unwrap();
    }
    assert_eq!(seen.wait_for(3).await, [1, 2, 3]);
    let status = || town.bus.subscriptions().remove(0).handling.unwrap();
    while status().acknowledged < 2 {
        tokio::task::yield_now().await;
    }
    assert_eq!((status().dead, status().refused), (1, 1), "it is counted, and not hidden");
}

/// A handler that panics is the handler's trouble: its actor lives, and so do its neighbours.
#[tokio::test(start_paused = true)]
async fn a_thousand_panics_restart_nobody() {
    let town = Town::start().await;
    let quick = RetryPolicy::attempts(2)
        .backoff(Backoff::exponential(Duration::from_millis(1), Duration::from_millis(1)));
    let made = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&made);
    town.bus
        .subscribe(to("bad", ">").retry(quick), move || {
            count.fetch_add(1, Ordering::SeqCst);
            |_: Delivery| async {
                panic!("a fault in the application");
                #[allow(unreachable_code, reason = "it says what it would answer")]
                Outcome::Ack
            }
        })
        .await
        .unwrap();
    let good = town.collect(to("good", ">")).await;
    for number in 0..1_001 {
        town.publish("order.placed", number).await.unwrap();
    }
    good.wait_for(1_001).await;
    let kept = town.office.wait_for(1_001).await;
    assert!(kept.iter().all(|one| one.cause == FailureCause::Crashed && one.attempts == 2));
    assert!(made.load(Ordering::SeqCst) > 2_000, "each panic has its handler made anew");
    let events = town.system.timeline().since(0, usize::MAX).events;
    let crashes = events.iter().filter(|one| matches!(one.kind, LifecycleKind::Failed { .. }));
    assert_eq!(crashes.count(), 0);
}

/// The end of a subscription does not depend on room in its mailbox, nor on its first message.
#[tokio::test(start_paused = true)]
async fn a_subscription_that_is_ended_leaves_no_actor_behind() {
    let policies = [
        Overflow::Wait(Duration::from_secs(1)),
        Overflow::Fail,
        Overflow::DropNewest,
        Overflow::DropOldest,
    ];
    for policy in policies {
        for messages in [0, 1, 5] {
            let town = Town::start().await;
            let (open, gate) = tokio::sync::watch::channel(false);
            town.bus
                .subscribe(to("slow", ">").buffer(2, policy), move || {
                    let gate = gate.clone();
                    move |_: Delivery| {
                        let mut gate = gate.clone();
                        async move {
                            let _ = gate.wait_for(|open| *open).await;
                            Outcome::Ack
                        }
                    }
                })
                .await
                .unwrap();
            for number in 0..messages {
                // What finds no room is the policy's business.
                let _ = town.publish("order.placed", number).await;
            }
            town.bus.unsubscribe("slow").await.unwrap();
            open.send_replace(true);
            let supervisor = town.system.supervisor("/messaging/subscriptions").unwrap();
            while supervisor.count() > 0 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    }
}

/// What waits for its next try, in a subscription whose mailbox is full, is tried at its time.
#[tokio::test(start_paused = true)]
async fn a_full_mailbox_loses_no_retry() {
    let town = Town::start().await;
    let seen = Seen::default();
    let (given, open) = (seen.clone(), Arc::new(tokio::sync::Semaphore::new(0)));
    let gate = Arc::clone(&open);
    let again = Outcome::retry_after(Duration::from_millis(50), "later");
    town.bus
        .subscribe(to("s", ">").buffer(2, Overflow::DropNewest), move || {
            let (seen, gate, again) = (given.clone(), Arc::clone(&gate), again.clone());
            move |delivery: Delivery| {
                let (seen, gate, again) = (seen.clone(), Arc::clone(&gate), again.clone());
                async move {
                    let number = number(&delivery);
                    if number == 1 && delivery.attempt == 1 {
                        return again;
                    }
                    if number == 2 {
                        // Long enough for the other's time to come, with the mailbox full.
                        gate.acquire().await.unwrap().forget();
                    }
                    seen.push(number);
                    Outcome::Ack
                }
            }
        })
        .await
        .unwrap();
    town.publish("a", 1).await.unwrap();
    tokio::time::sleep(Duration::from_millis(10)).await;
    town.publish("b", 2).await.unwrap();
    tokio::time::sleep(Duration::from_millis(10)).await;
    for number in 3..=4 {
        assert_eq!(town.publish("c", number).await.unwrap().delivered, 1);
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    open.add_permits(1);
    let mut all = seen.wait_for(4).await;
    all.sort_unstable();
    assert_eq!(all, [1, 2, 3, 4]);
}

#[tokio::test(start_paused = true)]
async fn a_publisher_hears_of_subscriptions_that_come_and_go() {
    let town = Town::start().await;
    let mut publisher = town.bus.publisher(Subject::of(["order", "placed"]));
    assert_eq!(publisher.publish(Order::Placed { number: 1 }).await.unwrap().delivered, 0);
    let seen = town.collect(to("s", "order.*")).await;
    for number in 2..=3 {
        let published = publisher.publish(Order::Placed { number }).await.unwrap();
        assert_eq!(published.delivered, 1);
    }
    assert_eq!(seen.wait_for(2).await, [2, 3]);
    town.bus.unsubscribe("s").await.unwrap();
    assert_eq!(publisher.publish(Order::Placed { number: 4 }).await.unwrap().delivered, 0);
}
