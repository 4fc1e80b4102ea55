use std::sync::atomic::AtomicUsize;

use mister_smith_supervisors::Backoff;

use super::super::queue::in_process::Broker;
use super::super::queue::processor::{Processed, ProcessorOptions};
use super::super::queue::replay::ReplayGuard;
use super::super::queue::{Queue, QueueOptions, Receiver};
use super::super::wire::WireMessage;
use super::*;

const LONG: Duration = Duration::from_secs(3_600);

fn job(n: u64) -> WireMessage {
    WireMessage::new(&Subject::of(["jobs", "new"]), format!("job-{n}"), n.to_string().into_bytes())
}

fn number_of(delivery: &Delivery) -> u64 {
    let encoded = delivery.message.encoded().unwrap();
    std::str::from_utf8(&encoded.data).unwrap().parse().unwrap()
}

fn quick(attempts: u32) -> RetryPolicy {
    let backoff = Backoff::exponential(Duration::from_millis(10), Duration::from_millis(10));
    RetryPolicy::attempts(attempts).backoff(backoff)
}

async fn jobs(broker: &Broker, count: u64) -> Arc<dyn Receiver> {
    let queue = broker.queue(QueueOptions::new("jobs").ack_within(Duration::from_secs(5)));
    queue.sender().send(&(0..count).map(job).collect::<Vec<_>>()).await.unwrap();
    queue.receiver("workers").unwrap()
}

async fn empty(queue: &dyn Receiver) {
    while queue.waiting().await.unwrap() > 0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn so_many_at_once_and_no_more_and_results_go_out() {
    let (town, broker) = (Town::start().await, Broker::default());
    let queue = jobs(&broker, 40).await;
    let results = broker.queue(QueueOptions::new("results"));
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let seen = Arc::clone(&most);
    let options = ProcessorOptions::default().concurrency(4).results(results.sender());
    town.bus
        .process("worker", Arc::clone(&queue), options, move |delivery: Delivery| {
            let (now, most) = (Arc::clone(&now), Arc::clone(&most));
            async move {
                most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(30)).await;
                now.fetch_sub(1, Ordering::SeqCst);
                let n = number_of(&delivery);
                let subject = Subject::of(["results", "done"]);
                let done = WireMessage::new(&subject, format!("done-{n}"), (n * 2).to_string());
                Processed::with(vec![done])
            }
        })
        .await
        .unwrap();
    let (mut got, results) = (Vec::new(), results.receiver("g").unwrap());
    while got.len() < 40 {
        for one in results.receive(40, LONG).await.unwrap() {
            got.push(one.message.id);
        }
    }
    assert_eq!(seen.load(Ordering::SeqCst), 4);
    got.sort();
    got.dedup();
    assert_eq!(got.len(), 40);
    empty(&*queue).await;
}

#[tokio::test(start_paused = true)]
async fn what_takes_long_is_kept_and_what_takes_too_long_is_a_dead_letter() {
    let (town, broker) = (Town::start().await, Broker::default());
    let queue = jobs(&broker, 2).await;
    let runs = Seen::default();
    let given = runs.clone();
    let options = ProcessorOptions::default()
        .deadline(Duration::from_secs(20))
        .extend_every(Duration::from_secs(2))
        .retry(quick(2));
    town.bus
        .process("worker", Arc::clone(&queue), options, move |delivery: Delivery| {
            let n = number_of(&delivery);
            given.push(n);
            async move {
                // Three times as long as a delivery is good for; or for ever.
                let time = if n == 0 { Duration::from_secs(15) } else { LONG };
                tokio::time::sleep(time).await;
                Outcome::Ack
            }
        })
        .await
        .unwrap();
    let kept = town.office.wait_for(1).await;
    assert_eq!((kept[0].cause, kept[0].attempts), (FailureCause::Exhausted, 2));
    assert_eq!(kept[0].reason, "the processor took longer than 20s");
    empty(&*queue).await;
    let mut runs = runs.now();
    runs.sort_unstable();
    assert_eq!(runs, [0, 1, 1], "the long one was not delivered again");
}

#[tokio::test(start_paused = true)]
async fn a_processor_that_is_killed_or_panics_loses_nothing() {
    let (town, broker) = (Town::start().await, Broker::default());
    let queue = jobs(&broker, 60).await;
    let done = Seen::default();
    let given = done.clone();
    let options = ProcessorOptions::default().concurrency(8).retry(quick(50));
    town.bus
        .process("worker", Arc::clone(&queue), options, move |delivery: Delivery| {
            let (n, done) = (number_of(&delivery), given.clone());
            async move {
                tokio::time::sleep(Duration::from_millis(100)).await;
                assert!(n % 7 != 0 || delivery.attempt > 1, "a fault in the application");
                done.push(n);
                Outcome::Ack
            }
        })
        .await
        .unwrap();
    for _ in 0..4 {
        tokio::time::sleep(Duration::from_millis(150)).await;
        town.system.kill("/messaging/subscriptions/worker").unwrap();
    }
    empty(&*queue).await;
    let mut done = done.now();
    done.sort_unstable();
    done.dedup();
    assert_eq!(done, (0..60).collect::<Vec<_>>());
    assert!(town.office.kept().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_dead_letter_finds_its_way_back_to_its_processor() {
    let (town, broker) = (Town::start().await, Broker::default());
    let queue = jobs(&broker, 1).await;
    let works = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let (switch, done) = (Arc::clone(&works), Seen::default());
    let given = done.clone();
    town.bus
        .process(
            "worker",
            Arc::clone(&queue),
            ProcessorOptions::default(),
            move |delivery: Delivery| {
                let (works, n) = (switch.load(Ordering::SeqCst), number_of(&delivery));
                if works {
                    given.push(n);
                }
                async move { if works { Outcome::Ack } else { Outcome::fail("no") } }
            },
        )
        .await
        .unwrap();
    let letter = town.office.wait_for(1).await.remove(0);
    empty(&*queue).await;
    works.store(true, Ordering::SeqCst);
    let id = letter_id("worker", letter.message.id());
    let encoded = letter.message.encoded().unwrap().clone();
    let again = NewMessage::encoded(letter.message.subject().clone(), encoded)
        .id(letter.message.id())
        .for_dead_letter(id);
    town.bus.deliver_to("worker", again).await.unwrap();
    assert_eq!(done.wait_for(1).await, [0]);
    while town.office.settled.lock().unwrap().is_empty() {
        tokio::task::yield_now().await;
    }
    assert_eq!(*town.office.settled.lock().unwrap(), [id]);
}

/// Somebody has overheard messages and sends them again, as new ones: under other ids of the
/// queue, so that it does not know them, but with the event ids that are under a signature.
#[tokio::test(start_paused = true)]
async fn what_was_seen_before_is_not_processed_again() {
    let (town, broker) = (Town::start().await, Broker::default());
    let queue = broker.queue(QueueOptions::new("jobs"));
    let event = |n: u64| EventId::at(Timestamp::from_micros(1_000_000), n, n);
    let sent = |n: u64, id: &str, at: i64| {
        WireMessage::new(&Subject::of(["jobs", "new"]), id, n.to_string())
            .header(crate::bus::wire::EVENT_ID, event(n))
            .header(crate::bus::wire::AT, at)
    };
    let now = 1_000_000;
    let hour = 3_600_000_000;
    let messages = [
        sent(1, "a", now),
        sent(2, "b", now),
        sent(1, "c", now),
        sent(3, "d", now - 2 * hour),
        sent(4, "e", now + hour),
        sent(2, "f", now),
    ];
    queue.sender().send(&messages).await.unwrap();
    let queue = queue.receiver("workers").unwrap();
    let runs = Seen::default();
    let given = runs.clone();
    let guard = ReplayGuard::new(Duration::from_secs(3_600), Duration::from_secs(60), 1_000);
    let options = ProcessorOptions::default().concurrency(1).retry(quick(3)).replay(guard.clone());
    town.bus
        .process("worker", Arc::clone(&queue), options, move |delivery: Delivery| {
            given.push(number_of(&delivery));
            // What the queue delivers again is no replay.
            let again = delivery.attempt == 1;
            async move { if again { Outcome::retry("once more") } else { Outcome::Ack } }
        })
        .await
        .unwrap();
    empty(&*queue).await;
    let mut runs = runs.now();
    runs.sort_unstable();
    assert_eq!(runs, [1, 1, 2, 2]);
    assert_eq!((guard.repeats(), guard.refused()), (2, 2));
    let kept = town.office.kept();
    let mut reasons: Vec<_> = kept.iter().map(|one| one.reason.as_str()).collect();
    reasons.sort_unstable();
    assert_eq!(
        reasons,
        [
            "its time, 1969-12-31T22:00:01Z, is older than the replay window",
            "its time, 1970-01-01T01:00:01Z, is newer than the replay window",
        ]
    );
}
