use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

/// What a handler does at one try of a message.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Act {
    Ack,
    Retry(u64),
    Fail,
    Panic,
    Hang,
}

fn any_act() -> impl Strategy<Value = Act> {
    prop_oneof![
        6 => Just(Act::Ack),
        3 => (0..400_u64).prop_map(Act::Retry),
        1 => Just(Act::Fail),
        1 => Just(Act::Panic),
        1 => Just(Act::Hang),
    ]
}

const ATTEMPTS: u32 = 3;

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Whatever handlers do, and whenever the subscriber and its supervisor are killed: each
    /// message is acknowledged once or becomes one dead letter, and those of a subject come to
    /// their end in the order in which they were published.
    #[test]
    fn each_message_comes_to_one_end_in_the_order_of_its_subject(
        messages in vec((0..4_usize, vec(any_act(), 3)), 1..40),
        kills in vec((0..40_usize, any::<bool>()), 0..4),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async {
            let town = Town::start().await;
            let acts: Arc<Vec<Vec<Act>>> = Arc::new(messages.iter().map(|(_, a)| a.clone()).collect());
            let ends = Seen::default();
            let given = ends.clone();
            let subscription = to("s", ">")
                .retry(RetryPolicy::attempts(ATTEMPTS))
                .deadline(Duration::from_secs(1));
            town.bus
                .subscribe(subscription, move || {
                    let (acts, ends) = (Arc::clone(&acts), given.clone());
                    move |delivery: Delivery| {
                        let number = number(&delivery);
                        let acts = &acts[number as usize];
                        let act = acts[(delivery.attempt as usize - 1) % acts.len()];
                        let ends = ends.clone();
                        async move {
                            match act {
                                Act::Ack => {
                                    ends.push(number);
                                    Outcome::Ack
                                }
                                Act::Retry(ms) => {
                                    Outcome::retry_after(Duration::from_millis(ms), "again")
                                }
                                Act::Fail => Outcome::fail("never"),
                                Act::Panic => panic!("a fault in the application"),
                                Act::Hang => std::future::pending().await,
                            }
                        }
                    }
                })
                .await
                .unwrap();
            for (number, (subject, _)) in messages.iter().enumerate() {
                town.publish(&format!("s.{subject}"), number as u64).await.unwrap();
                for (_, whole) in kills.iter().filter(|(at, _)| *at == number) {
                    let path = if *whole { "/messaging/subscriptions" } else { "/messaging/subscriptions/s" };
                    let _ = town.system.kill(path);
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            }
            // All have come to their end once nothing is left.
            let mut ended: Vec<(u64, bool)>;
            loop {
                let dead = town.office.kept();
                ended = ends.now().into_iter().map(|n| (n, true)).collect();
                ended.extend(dead.iter().map(|letter| {
                    let Order::Placed { number } = *letter.message.event::<Order>().unwrap();
                    (number, false)
                }));
                if ended.len() >= messages.len() {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            // Nothing comes after the end.
            tokio::time::sleep(Duration::from_secs(60)).await;
            assert_eq!(ends.now().len() + town.office.kept().len(), messages.len());
            ended.sort_unstable();
            let numbers: Vec<_> = ended.iter().map(|(number, _)| *number).collect();
            assert_eq!(numbers, (0..messages.len() as u64).collect::<Vec<_>>());
            let mut last: BTreeMap<usize, u64> = BTreeMap::new();
            for number in ends.now() {
                let subject = messages[number as usize].0;
                let before = last.insert(subject, number);
                assert!(before.is_none_or(|before| before < number), "{subject}: {before:?} {number}");
            }
        });
    }
}
