//! Dead letters in a node on SQLite.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};

use super::{DeadLetterError, LetterState};
use crate::bus::{Delivery, NewMessage, Outcome, RetryPolicy, Subscription};
use crate::command::{
    CommandBus, CommandError, CommandInfo, CommandOptions, Executed, Middleware, Next,
};
use crate::event::{Event, Metadata};
use crate::tests::world::{COMMITTER, POOL, World};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum Invoice {
    #[serde(rename = "invoice.sent")]
    Sent { number: u64 },
}

impl Event for Invoice {}

/// A subscriber that refuses everything until the switch is on.
async fn subscribe(
    world: &World,
    works: &Arc<AtomicBool>,
) -> tokio::sync::mpsc::UnboundedReceiver<u64> {
    let (handled, numbers) = tokio::sync::mpsc::unbounded_channel();
    let works = Arc::clone(works);
    let subscription = Subscription::new("mail", "invoice.>").unwrap();
    world
        .bus
        .subscribe(subscription.retry(RetryPolicy::attempts(1)), move || {
            let (works, handled) = (Arc::clone(&works), handled.clone());
            move |delivery: Delivery| {
                let Invoice::Sent { number } = *delivery.message.event::<Invoice>().unwrap();
                let outcome = match works.load(Ordering::SeqCst) {
                    true => {
                        handled.send(number).unwrap();
                        Outcome::Ack
                    }
                    false => Outcome::fail(format!("no address for {number}")),
                };
                async { outcome }
            }
        })
        .await
        .unwrap();
    numbers
}

async fn publish(world: &World, number: u64) {
    let metadata = Metadata { actor: Some("billing".to_owned()), ..Metadata::default() };
    let message = NewMessage::event("invoice.sent", Invoice::Sent { number }).unwrap();
    world.bus.publish(message.metadata(metadata)).await.unwrap();
}

async fn listed(world: &World, count: usize) -> Vec<(Arc<str>, super::LetterSummary)> {
    let waiting = async {
        loop {
            world.settled().await;
            let page = world.letters.list(None, None, 100).await.unwrap();
            if page.len() == count {
                return page;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), waiting).await.unwrap()
}

#[tokio::test]
async fn a_dead_letter_is_kept_whole_and_sent_again_when_a_person_says_so() {
    let world = World::new().await;
    let works = Arc::new(AtomicBool::new(false));
    let mut handled = subscribe(&world, &works).await;
    publish(&world, 7).await;
    let (id, summary) = listed(&world, 1).await.remove(0);
    assert_eq!((summary.state, &*summary.origin), (LetterState::Open, "mail"));
    assert_eq!((&*summary.reason, summary.attempts), ("no address for 7", 1));
    let letter = world.letters.show(&id).await.unwrap().letter.unwrap();
    assert_eq!(Metadata::from_bytes(&letter.meta).actor.as_deref(), Some("billing"));
    assert_eq!(
        Invoice::decode(&letter.event_type, letter.schema_version, letter.codec, &letter.data)
            .unwrap(),
        Invoice::Sent { number: 7 }
    );

    // It fails again, and is the same letter.
    world.letters.requeue(&id, "ann").await.unwrap();
    loop {
        let (again, summary) = listed(&world, 1).await.remove(0);
        assert_eq!(again, id);
        if summary.failures == 2 {
            assert_eq!(summary.state, LetterState::Open);
            break;
        }
    }
    works.store(true, Ordering::SeqCst);
    world.letters.requeue(&id, "ann").await.unwrap();
    assert_eq!(handled.recv().await, Some(7));
    listed(&world, 0).await;
    let settled = world.letters.requeue(&id, "ann").await.unwrap_err();
    assert_eq!(settled.to_string(), "refused: it was handled already; nothing is left to do");
}

#[tokio::test]
async fn all_open_ones_are_sent_again_and_a_purged_one_is_not() {
    let world = World::new().await;
    let works = Arc::new(AtomicBool::new(false));
    let mut handled = subscribe(&world, &works).await;
    for number in 1..=5 {
        publish(&world, number).await;
    }
    let all = listed(&world, 5).await;
    let third = all.iter().find(|(_, one)| one.reason == "no address for 3").unwrap();
    world.letters.purge(&third.0, "ann").await.unwrap();
    listed(&world, 4).await;
    works.store(true, Ordering::SeqCst);
    let done = world.letters.requeue_all(Some("mail"), "ann").await.unwrap();
    assert_eq!((done.requeued, done.failed), (4, vec![]));
    let mut numbers = Vec::new();
    for _ in 0..4 {
        numbers.push(handled.recv().await.unwrap());
    }
    numbers.sort_unstable();
    assert_eq!(numbers, [1, 2, 4, 5]);
    listed(&world, 0).await;
    assert_eq!(world.letters.requeue_all(Some("other"), "ann").await.unwrap().requeued, 0);
}

#[tokio::test]
async fn a_letter_without_its_subscriber_stays_open_and_says_why() {
    let world = World::new().await;
    let works = Arc::new(AtomicBool::new(false));
    let _handled = subscribe(&world, &works).await;
    publish(&world, 1).await;
    let (id, _) = listed(&world, 1).await.remove(0);
    world.bus.unsubscribe("mail").await.unwrap();
    let error = world.letters.requeue(&id, "ann").await.unwrap_err();
    assert_eq!(error.to_string(), "it could not be sent again: there is no subscription mail");
    let (_, summary) = listed(&world, 1).await.remove(0);
    assert_eq!(summary.state, LetterState::Open);
    for unknown in ["nothing", "00000000-0000-0000-0000-000000000000"] {
        assert!(matches!(
            world.letters.requeue(unknown, "ann").await,
            Err(DeadLetterError::Command(_))
        ));
    }
}

/// The store is out of order while a subscriber gives up: the letter is kept once it is back.
#[tokio::test]
async fn a_letter_is_kept_through_the_death_of_the_store() {
    let world = World::new().await;
    let works = Arc::new(AtomicBool::new(false));
    let _handled = subscribe(&world, &works).await;
    for number in 1..=20 {
        publish(&world, number).await;
        if number % 5 == 0 {
            for path in ["/resources/pool", "/messaging/subscriptions/mail"] {
                let _ = world.system.kill(path);
            }
        }
    }
    let all = listed(&world, 20).await;
    assert!(all.iter().all(|(_, one)| one.state == LetterState::Open));
}

/// A letter whose handler ended with its node is nobody's, and goes with the others after a while.
#[tokio::test]
async fn one_that_was_sent_again_and_never_answered_waits_again_after_a_while() {
    let world = World::new().await;
    let works = Arc::new(AtomicBool::new(false));
    let _handled = subscribe(&world, &works).await;
    publish(&world, 7).await;
    let (_, open) = listed(&world, 1).await.remove(0);
    let at = |minutes: i64| {
        let micros = open.last_at.as_micros() + minutes * 60_000_000;
        crate::event::Timestamp::from_micros(micros)
    };
    let sent = super::LetterSummary { state: LetterState::Requeued, ..open.clone() };
    assert!(open.waits(at(0)));
    assert_eq!((sent.waits(at(14)), sent.waits(at(15))), (false, true));
}

#[tokio::test]
async fn what_cannot_be_written_or_is_too_large_is_a_letter_all_the_same() {
    /// It says that it can be written, and cannot.
    #[derive(Debug, Clone, Deserialize)]
    enum Odd {
        #[serde(rename = "odd.thing")]
        Thing {},
    }

    impl Serialize for Odd {
        fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
            Err(serde::ser::Error::custom("not today"))
        }
    }

    impl Event for Odd {}

    let world = World::new().await;
    let refuse = || |_: Delivery| async { Outcome::fail("no") };
    let subscription = Subscription::new("all", ">").unwrap();
    world.bus.subscribe(subscription, refuse).await.unwrap();
    world.bus.publish(NewMessage::event("odd.thing", Odd::Thing {}).unwrap()).await.unwrap();
    let bytes = vec![7; super::LETTER_BYTES + 1];
    let raw = crate::event::ContentType::Raw;
    let large = NewMessage::bytes("large.thing", "large", raw, bytes).unwrap();
    world.bus.publish(large).await.unwrap();
    for (id, _) in listed(&world, 2).await {
        // What is not there cannot be sent again as if it were nothing.
        let refused = world.letters.requeue(&id, "ann").await;
        assert!(matches!(refused, Err(DeadLetterError::LeftOut)), "{refused:?}");
    }
    let mut reasons: Vec<_> =
        listed(&world, 2).await.into_iter().map(|(_, one)| (one.bytes, one.reason)).collect();
    reasons.sort();
    let size = super::LETTER_BYTES + 1;
    assert!(reasons.iter().all(|(bytes, _)| *bytes == 0));
    let large = format!("no (its {size} bytes are more than a letter holds)");
    assert!(reasons.iter().any(|(_, reason)| *reason == large), "{reasons:?}");
    let odd = |reason: &String| {
        reason.contains("its payload is not here") && reason.contains("not today")
    };
    assert!(reasons.iter().any(|(_, reason)| odd(reason)), "{reasons:?}");
}

/// Asks nobody, and lets nothing through.
#[derive(Debug)]
struct DenyAll;

impl Middleware for DenyAll {
    fn handle<'a>(
        &'a self,
        _: CommandInfo,
        _: Next<'a>,
    ) -> BoxFuture<'a, Result<Executed, CommandError>> {
        async { Err(CommandError::Denied { reason: "nobody is signed in".to_owned() }) }.boxed()
    }
}

/// What the system does on its own account asks nobody.
#[tokio::test]
async fn a_middleware_that_denies_everything_holds_up_no_letter() {
    let world = World::new().await;
    let aggregates = world.system.supervisor("/aggregates").unwrap();
    let options = CommandOptions::default();
    let commands = CommandBus::new(aggregates, POOL, COMMITTER, options, vec![Arc::new(DenyAll)]);
    let works = Arc::new(AtomicBool::new(false));
    let _handled = subscribe(&world, &works).await;
    publish(&world, 7).await;
    let (id, _) = listed(&world, 1).await.remove(0);
    let settle = super::LetterCommand::Settle;
    commands.send::<super::DeadLetter>(&id, settle).await.unwrap();
    listed(&world, 0).await;
}
