use std::sync::atomic::AtomicU32;

use mister_smith_supervisors::Backoff;

use super::*;

#[tokio::test(start_paused = true)]
async fn every_subscriber_gets_every_message_in_order_and_shares_it() {
    let town = Town::start().await;
    let all = town.collect(to("all", ">")).await;
    let placed_only = town.collect(to("placed", "order.*.placed")).await;
    for number in 0..100 {
        let subject = if number % 2 == 0 { "order.7.placed" } else { "order.7.paid" };
        let published = town.publish(subject, number).await.unwrap();
        assert_eq!(published.delivered, if number % 2 == 0 { 2 } else { 1 });
    }
    assert_eq!(all.wait_for(100).await, (0..100).collect::<Vec<_>>());
    assert_eq!(placed_only.wait_for(50).await, (0..100).step_by(2).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn an_event_is_shared_within_the_process_and_decoded_from_bytes() {
    let town = Town::start().await;
    let (sent, mut got) = tokio::sync::mpsc::unbounded_channel();
    for name in ["one", "two"] {
        let sent = sent.clone();
        town.bus
            .subscribe(to(name, ">"), move || {
                let sent = sent.clone();
                move |delivery: Delivery| {
                    sent.send(delivery.message.event::<Order>().unwrap()).unwrap();
                    async { Outcome::Ack }
                }
            })
            .await
            .unwrap();
    }
    town.publish("order.placed", 5).await.unwrap();
    let (one, two) = (got.recv().await.unwrap(), got.recv().await.unwrap());
    assert!(Arc::ptr_eq(&one, &two), "the event was copied");
    let json = br#"{"number":6}"#.as_slice();
    let message =
        NewMessage::bytes("order.placed", "order.placed", ContentType::Json, json).unwrap();
    town.bus.publish(message).await.unwrap();
    assert_eq!(*got.recv().await.unwrap(), Order::Placed { number: 6 });
}

#[tokio::test(start_paused = true)]
async fn a_group_shares_the_messages() {
    let town = Town::start().await;
    let a = town.collect(to("a", "job.>").group("workers")).await;
    let b = town.collect(to("b", "job.>").group("workers")).await;
    let watcher = town.collect(to("watcher", "job.>")).await;
    for number in 0..60 {
        assert_eq!(town.publish("job.new", number).await.unwrap().delivered, 2);
    }
    watcher.wait_for(60).await;
    while a.now().len() + b.now().len() < 60 {
        tokio::task::yield_now().await;
    }
    assert!(a.now().len() >= 20 && b.now().len() >= 20, "one member got nearly all");
    let mut both = [a.now(), b.now()].concat();
    both.sort_unstable();
    assert_eq!(both, (0..60).collect::<Vec<_>>());
}

/// Says what to answer at each call, and acknowledges after that.
async fn scripted(town: &Town, subscription: Subscription, script: Vec<Outcome>) -> Seen {
    let (seen, calls) = (Seen::default(), Arc::new(AtomicU32::new(0)));
    let given = seen.clone();
    town.bus
        .subscribe(subscription, move || {
            let (seen, calls, script) = (given.clone(), Arc::clone(&calls), script.clone());
            move |delivery: Delivery| {
                seen.push(number(&delivery));
                let call = calls.fetch_add(1, Ordering::SeqCst) as usize;
                let outcome = script.get(call).cloned().unwrap_or(Outcome::Ack);
                async move { outcome }
            }
        })
        .await
        .unwrap();
    seen
}

#[tokio::test(start_paused = true)]
async fn a_message_that_is_tried_again_holds_back_its_subject_and_no_other() {
    let town = Town::start().await;
    let again = Outcome::retry_after(Duration::from_secs(9), "not yet");
    let seen = scripted(&town, to("s", ">"), vec![again]).await;
    for (subject, number) in [("a", 1), ("a", 2), ("b", 3), ("a", 4), ("b", 5)] {
        town.publish(subject, number).await.unwrap();
    }
    assert_eq!(seen.wait_for(6).await, [1, 3, 5, 1, 2, 4]);
}

#[tokio::test(start_paused = true)]
async fn strict_order_holds_back_everything_and_unordered_nothing() {
    let town = Town::start().await;
    let again = || vec![Outcome::retry_after(Duration::from_secs(9), "not yet")];
    let strict = to("strict", ">").order(super::super::Order::Strict);
    let strict = scripted(&town, strict, again()).await;
    let unordered = to("unordered", ">").order(super::super::Order::Unordered);
    let unordered = scripted(&town, unordered, again()).await;
    for number in 1..=3 {
        town.publish("a", number).await.unwrap();
    }
    assert_eq!(strict.wait_for(4).await, [1, 1, 2, 3]);
    assert_eq!(unordered.wait_for(4).await, [1, 2, 3, 1]);
}

#[tokio::test(start_paused = true)]
async fn what_fails_for_good_or_too_often_is_a_dead_letter_before_it_is_settled() {
    let town = Town::start().await;
    *town.office.failures.lock().unwrap() = 3;
    let retry = RetryPolicy::attempts(3)
        .backoff(Backoff::exponential(Duration::from_secs(1), Duration::from_secs(1)));
    let script = vec![
        Outcome::fail("no such customer"),
        Outcome::retry("busy"),
        Outcome::retry("busy"),
        Outcome::retry("still busy"),
    ];
    let seen = scripted(&town, to("s", ">").retry(retry), script).await;
    for number in 1..=3 {
        town.publish("a", number).await.unwrap();
    }
    assert_eq!(seen.wait_for(5).await, [1, 2, 2, 2, 3]);
    let kept = town.office.wait_for(2).await;
    let told: Vec<_> = kept
        .iter()
        .map(|letter| (letter.cause, &*letter.reason, letter.attempts, &*letter.subscription))
        .collect();
    assert_eq!(
        told,
        [
            (FailureCause::Failed, "no such customer", 1, "s"),
            (FailureCause::Exhausted, "still busy", 3, "s"),
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_subscriber_that_crashes_loses_nothing_and_concerns_nobody_else() {
    let town = Town::start().await;
    let steady = town.collect(to("steady", ">")).await;
    let seen = Seen::default();
    let shown = seen.clone();
    let crashes = Arc::new(AtomicU32::new(0));
    town.bus
        .subscribe(to("shaky", ">").retry(RetryPolicy::attempts(3)), move || {
            let (seen, crashes) = (shown.clone(), Arc::clone(&crashes));
            move |delivery: Delivery| {
                let number = number(&delivery);
                // The second message never works; the fourth only once does not.
                let fourth = number == 4 && crashes.fetch_add(1, Ordering::SeqCst) == 0;
                if number == 2 || fourth {
                    panic!("a fault in the application");
                }
                seen.push(number);
                async { Outcome::Ack }
            }
        })
        .await
        .unwrap();
    for number in 1..=5 {
        town.publish(&format!("a.{number}"), number).await.unwrap();
    }
    assert_eq!(steady.wait_for(5).await, [1, 2, 3, 4, 5]);
    let mut seen = seen.wait_for(4).await;
    seen.sort_unstable();
    assert_eq!(seen, [1, 3, 4, 5]);
    let kept = town.office.wait_for(1).await;
    assert_eq!((kept[0].cause, kept[0].attempts), (FailureCause::Crashed, 3));
    assert_eq!(kept.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_subscriber_that_hangs_is_told_to_try_again() {
    let town = Town::start().await;
    let seen = Seen::default();
    let given = seen.clone();
    let subscription = to("s", ">").deadline(Duration::from_secs(2));
    let made = town
        .bus
        .subscribe(subscription, move || {
            let seen = given.clone();
            move |delivery: Delivery| {
                let seen = seen.clone();
                async move {
                    if delivery.attempt == 1 {
                        std::future::pending::<()>().await;
                    }
                    seen.push(number(&delivery));
                    Outcome::Ack
                }
            }
        })
        .await
        .unwrap();
    town.publish("a", 1).await.unwrap();
    assert_eq!(seen.wait_for(1).await, [1]);
    assert_eq!(made.retried(), 1);
}

#[tokio::test(start_paused = true)]
async fn unsubscribing_handles_what_came_before_and_nothing_after() {
    let town = Town::start().await;
    let again = Outcome::retry_after(Duration::from_secs(5), "later");
    let seen = scripted(&town, to("s", ">"), vec![again]).await;
    for number in 1..=3 {
        town.publish("a", number).await.unwrap();
    }
    town.bus.unsubscribe("s").await.unwrap();
    assert_eq!(town.publish("a", 4).await.unwrap().delivered, 0);
    assert_eq!(seen.wait_for(4).await, [1, 1, 2, 3]);
    let supervisor = town.system.supervisor("/messaging/subscriptions").unwrap();
    while supervisor.count() > 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(matches!(
        town.bus.unsubscribe("s").await,
        Err(SubscribeError::Unknown { name }) if name == "s"
    ));
    // The name is free again.
    let seen = town.collect(to("s", ">")).await;
    town.publish("a", 5).await.unwrap();
    assert_eq!(seen.wait_for(1).await, [5]);
    let second = town.bus.subscribe(to("s", ">"), || |_: Delivery| async { Outcome::Ack }).await;
    assert!(matches!(second, Err(SubscribeError::Exists { .. })));
}

#[tokio::test(start_paused = true)]
async fn a_dead_letter_that_is_sent_again_goes_to_its_subscription_and_is_settled() {
    let town = Town::start().await;
    let other = town.collect(to("other", ">")).await;
    let script = vec![Outcome::fail("no")];
    let seen = scripted(&town, to("s", "a"), script).await;
    town.publish("a", 1).await.unwrap();
    let letter = town.office.wait_for(1).await.remove(0);
    let id = letter_id("s", letter.message.id());
    let encoded = letter.message.encoded().unwrap().clone();
    let again = NewMessage::encoded(letter.message.subject().clone(), encoded)
        .id(letter.message.id())
        .for_dead_letter(id);
    town.bus.deliver_to("s", again).await.unwrap();
    assert_eq!(seen.wait_for(2).await, [1, 1]);
    while town.office.settled.lock().unwrap().is_empty() {
        tokio::task::yield_now().await;
    }
    assert_eq!(*town.office.settled.lock().unwrap(), [id]);
    assert_eq!(other.now(), [1], "the others have it already");
}

#[tokio::test(start_paused = true)]
async fn how_long_messages_take_is_held_against_a_target() {
    let town = Town::start().await;
    let seen = Seen::default();
    let given = seen.clone();
    let subscription = to("slow", "order.>").target(Duration::from_millis(40));
    town.bus
        .subscribe(subscription, move || {
            let seen = given.clone();
            move |delivery: Delivery| {
                seen.push(number(&delivery));
                async {
                    tokio::time::sleep(Duration::from_millis(30)).await;
                    Outcome::Ack
                }
            }
        })
        .await
        .unwrap();
    for number in 0..3 {
        town.publish("order.placed", number).await.unwrap();
    }
    seen.wait_for(3).await;
    let status = town.bus.subscriptions().into_iter().find(|one| &*one.name == "slow").unwrap();
    let latency = status.latency.unwrap();
    assert_eq!((latency.count, latency.late, latency.target_us), (3, 1, Some(40_000)));
    assert!((30_000..60_000).contains(&latency.p50_us), "{latency:?}");
    assert!((60_000..62_000).contains(&latency.max_us), "{latency:?}");
}
