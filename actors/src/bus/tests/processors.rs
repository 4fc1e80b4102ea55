use std::sync::atomic::AtomicUsize;

use mister_smith_supervisors::Backoff;

use super::super::queue::in_process::Broker;
use super::super::queue::processor::ProcessorOptions;
use super::super::queue::replay::ReplayGuard;
use super::super::queue::{
    Queue, QueueError, QueueOptions, Receipt, Received, Receiver, Reject, SendError, Sender,
    SentAll,
};
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
                Handled::with(vec![done])
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
    let options = ProcessorOptions::default().deadline(Duration::from_secs(20)).retry(quick(2));
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
    assert_eq!(kept[0].reason, "the handler was given up: it took longer than 20s");
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

/// A sender that takes its time, and counts.
#[derive(Debug)]
struct Slow {
    inner: Arc<dyn Sender>,
    takes: Duration,
}

impl Sender for Slow {
    fn send<'a>(
        &'a self,
        messages: &'a [WireMessage],
    ) -> BoxFuture<'a, Result<SentAll, SendError>> {
        async {
            tokio::time::sleep(self.takes).await;
            self.inner.send(messages).await
        }
        .boxed()
    }

    fn tail(&self) -> BoxFuture<'_, Result<u64, QueueError>> {
        self.inner.tail()
    }
}

/// More time is asked for until a message is settled, not only until its handler is done.
#[tokio::test(start_paused = true)]
async fn what_is_kept_long_after_its_handler_is_not_delivered_again() {
    let (town, broker) = (Town::start().await, Broker::default());
    let queue = jobs(&broker, 1).await;
    let results = broker.queue(QueueOptions::new("results"));
    let slow = Slow { inner: results.sender(), takes: Duration::from_secs(12) };
    let runs = Seen::default();
    let given = runs.clone();
    let options = ProcessorOptions::default().results(Arc::new(slow));
    town.bus
        .process("worker", Arc::clone(&queue), options, move |delivery: Delivery| {
            given.push(number_of(&delivery));
            async {
                // Longer than half of what a receiver may take.
                tokio::time::sleep(Duration::from_secs(4)).await;
                Handled::with(vec![WireMessage::new(&Subject::of(["results", "x"]), "r", "1")])
            }
        })
        .await
        .unwrap();
    empty(&*queue).await;
    assert_eq!(runs.now(), [0]);
    let got = results.receiver("g").unwrap().receive(10, LONG).await.unwrap();
    assert_eq!(got.len(), 1);
}

/// A panic of the call itself, before there is a future, takes no place away.
#[tokio::test(start_paused = true)]
async fn a_handler_that_panics_before_its_future_is_there_stops_nobody() {
    let (town, broker) = (Town::start().await, Broker::default());
    let queue = jobs(&broker, 20).await;
    let done = Seen::default();
    let given = done.clone();
    let options = ProcessorOptions::default().concurrency(1).retry(quick(2));
    town.bus
        .process("worker", Arc::clone(&queue), options, move |delivery: Delivery| {
            let n = number_of(&delivery);
            assert!(!n.is_multiple_of(5), "poison");
            given.push(n);
            async { Outcome::Ack }
        })
        .await
        .unwrap();
    empty(&*queue).await;
    assert_eq!(done.now(), (0..20_u64).filter(|n| !n.is_multiple_of(5)).collect::<Vec<_>>());
    let kept = town.office.wait_for(4).await;
    assert!(kept.iter().all(|one| one.cause == FailureCause::Crashed && one.attempts == 2));
}

/// What ends the whole process each time is never settled by anybody; the queue's count tells.
#[tokio::test(start_paused = true)]
async fn what_was_delivered_too_often_is_a_dead_letter_untried() {
    let (town, broker) = (Town::start().await, Broker::default());
    let queue = jobs(&broker, 1).await;
    let runs = Seen::default();
    let given = runs.clone();
    let options = ProcessorOptions::default().retry(quick(3));
    town.bus
        .process("worker", Arc::clone(&queue), options, move |delivery: Delivery| {
            given.push(u64::from(delivery.attempt));
            async {
                std::future::pending::<()>().await;
                Outcome::Ack
            }
        })
        .await
        .unwrap();
    for n in 1..=3 {
        runs.wait_for(n).await;
        town.system.kill("/messaging/subscriptions/worker").unwrap();
    }
    let kept = town.office.wait_for(1).await;
    assert_eq!((kept[0].cause, kept[0].attempts), (FailureCause::Crashed, 4));
    assert_eq!(runs.now(), [1, 2, 3]);
    empty(&*queue).await;
}

#[tokio::test(start_paused = true)]
async fn one_at_a_time_keeps_the_order_through_retries() {
    let (town, broker) = (Town::start().await, Broker::default());
    let queue = jobs(&broker, 6).await;
    let done = Seen::default();
    let given = done.clone();
    let options = ProcessorOptions::default().concurrency(1).retry(quick(5));
    town.bus
        .process("worker", Arc::clone(&queue), options, move |delivery: Delivery| {
            let (n, done) = (number_of(&delivery), given.clone());
            async move {
                if n == 1 && delivery.attempt < 3 {
                    return Outcome::retry("not yet");
                }
                done.push(n);
                Outcome::Ack
            }
        })
        .await
        .unwrap();
    empty(&*queue).await;
    assert_eq!(done.now(), [0, 1, 2, 3, 4, 5]);
}

/// In each lane one after the other, in order, also when one is tried again; across lanes at once.
#[tokio::test(start_paused = true)]
async fn lanes_keep_their_order_and_do_not_wait_for_each_other() {
    let (town, broker) = (Town::start().await, Broker::default());
    let queue = jobs(&broker, 40).await;
    let done = Seen::default();
    let given = done.clone();
    let lane = |delivery: &Delivery| {
        let n = number_of(delivery);
        // A lane that cannot be named is one with all of those.
        assert!(n % 4 != 3, "no lane");
        (n % 4).to_string().into()
    };
    let options = ProcessorOptions::default().concurrency(4).retry(quick(9)).lanes_by(lane);
    town.bus
        .process("worker", Arc::clone(&queue), options, move |delivery: Delivery| {
            let (n, done) = (number_of(&delivery), given.clone());
            async move {
                tokio::time::sleep(Duration::from_millis(5)).await;
                if n == 4 && delivery.attempt < 9 {
                    return Outcome::retry_after(Duration::from_secs(1), "not yet");
                }
                done.push(n);
                Outcome::Ack
            }
        })
        .await
        .unwrap();
    empty(&*queue).await;
    let done = done.now();
    assert_eq!(done.len(), 40);
    for lane in 0..4 {
        let of: Vec<_> = done.iter().copied().filter(|n| n % 4 == lane).collect();
        assert!(of.is_sorted(), "{lane}: {of:?}");
    }
    let late = done.iter().position(|n| *n == 4).unwrap();
    assert!(late >= 5, "the others went on: {done:?}");
}

#[tokio::test(start_paused = true)]
async fn a_foreign_message_has_one_id_and_all_its_headers_at_every_try() {
    let town = Town::start().await;
    let broker = Broker::default().at(Clock::starting_at(1_000_000));
    let queue = jobs(&broker, 0).await;
    let wire = job(7).header("tenant", "acme").header("traceparent", "00-1-2-03");
    broker.queue(QueueOptions::new("jobs")).sender().send(&[wire]).await.unwrap();
    let (tell, mut heard) = tokio::sync::mpsc::unbounded_channel();
    let options = ProcessorOptions::default().retry(quick(2));
    town.bus
        .process("worker", Arc::clone(&queue), options, move |delivery: Delivery| {
            tell.send(delivery).unwrap();
            async { Outcome::retry("once more") }
        })
        .await
        .unwrap();
    let (one, two) = (heard.recv().await.unwrap(), heard.recv().await.unwrap());
    assert_eq!(one.key(), two.key());
    assert_eq!((one.message.id(), one.message.at()), (two.message.id(), two.message.at()));
    assert_eq!((one.redelivered, two.redelivered), (false, true));
    for one in [one, two] {
        assert_eq!(one.headers().get("tenant").map(String::as_str), Some("acme"));
        assert_eq!(one.headers().get("traceparent").map(String::as_str), Some("00-1-2-03"));
    }
    let kept = town.office.wait_for(1).await;
    assert_eq!(kept[0].message.metadata().headers.get("tenant").map(String::as_str), Some("acme"));
}

/// A queue to which somebody else sends: one of its messages has a subject that is none.
#[derive(Debug)]
struct Foreign(Arc<dyn Receiver>);

impl Receiver for Foreign {
    fn receive(
        &self,
        max: usize,
        wait: Duration,
    ) -> BoxFuture<'_, Result<Vec<Received>, QueueError>> {
        async move {
            let mut all = self.0.receive(max, wait).await?;
            for one in all.iter_mut().filter(|one| one.message.id == "job-1") {
                one.message.subject = "a..b".to_owned();
            }
            Ok(all)
        }
        .boxed()
    }

    fn ack<'a>(&'a self, receipt: &'a Receipt) -> BoxFuture<'a, Result<(), QueueError>> {
        self.0.ack(receipt)
    }

    fn reject<'a>(
        &'a self,
        receipt: &'a Receipt,
        reject: Reject,
    ) -> BoxFuture<'a, Result<(), QueueError>> {
        self.0.reject(receipt, reject)
    }

    fn extend<'a>(&'a self, receipt: &'a Receipt) -> BoxFuture<'a, Result<(), QueueError>> {
        self.0.extend(receipt)
    }

    fn waiting(&self) -> BoxFuture<'_, Result<u64, QueueError>> {
        self.0.waiting()
    }

    fn ack_within(&self) -> Duration {
        self.0.ack_within()
    }

    fn read_limit(&self) -> usize {
        self.0.read_limit()
    }
}

#[tokio::test(start_paused = true)]
async fn a_message_without_a_subject_is_a_dead_letter() {
    let (town, broker) = (Town::start().await, Broker::default());
    let queue: Arc<dyn Receiver> = Arc::new(Foreign(jobs(&broker, 0).await));
    broker.queue(QueueOptions::new("jobs")).sender().send(&[job(1), job(2)]).await.unwrap();
    let done = Seen::default();
    let given = done.clone();
    town.bus
        .process("worker", Arc::clone(&queue), ProcessorOptions::default(), move |d: Delivery| {
            given.push(number_of(&d));
            async { Outcome::Ack }
        })
        .await
        .unwrap();
    let kept = town.office.wait_for(1).await;
    assert_eq!(kept[0].cause, FailureCause::Failed);
    assert!(kept[0].reason.starts_with("\"a..b\" is no subject"), "{}", kept[0].reason);
    assert_eq!(&kept[0].message.encoded().unwrap().data[..], b"1");
    assert_eq!(done.wait_for(1).await, [2]);
    empty(&*queue).await;
}

/// Dead letters that are sent again wait for their turn like everything else.
#[tokio::test(start_paused = true)]
async fn many_dead_letters_at_once_are_no_more_than_may_be_at_once() {
    let (town, broker) = (Town::start().await, Broker::default());
    let queue = jobs(&broker, 0).await;
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (done, seen) = (Seen::default(), Arc::clone(&most));
    let given = done.clone();
    let options = ProcessorOptions::default().concurrency(3);
    town.bus
        .process("worker", queue, options, move |delivery: Delivery| {
            let (now, most, done) = (Arc::clone(&now), Arc::clone(&most), given.clone());
            async move {
                most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(30)).await;
                now.fetch_sub(1, Ordering::SeqCst);
                done.push(number_of(&delivery));
                Outcome::Ack
            }
        })
        .await
        .unwrap();
    for n in 0..200_u64 {
        let subject = Subject::of(["jobs", "new"]);
        let message = NewMessage::bytes(subject, "job", ContentType::Raw, n.to_string()).unwrap();
        let message = message.for_dead_letter(Uuid::from_u128(n.into()));
        town.bus.deliver_to("worker", message).await.unwrap();
    }
    done.wait_for(200).await;
    assert_eq!(seen.load(Ordering::SeqCst), 3);
    while town.office.settled.lock().unwrap().len() < 200 {
        tokio::task::yield_now().await;
    }
}

/// A name that is in use runs nothing, not even for a moment.
#[tokio::test(start_paused = true)]
async fn a_processor_whose_name_is_in_use_handles_nothing() {
    let (town, broker) = (Town::start().await, Broker::default());
    let queue = jobs(&broker, 5).await;
    town.collect(to("worker", "nothing")).await;
    let options = ProcessorOptions::default();
    let started = town
        .bus
        .process("worker", Arc::clone(&queue), options, |_: Delivery| async { Outcome::Ack })
        .await;
    assert!(matches!(started, Err(SubscribeError::Exists { .. })));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(queue.waiting().await.unwrap(), 5);
    let supervisor = town.system.supervisor("/messaging/subscriptions").unwrap();
    assert_eq!(supervisor.count(), 1);
}

/// A queue that has forgotten its receivers delivers what was not settled as new.
#[tokio::test(start_paused = true)]
async fn a_guard_lets_through_what_was_never_settled() {
    let guard = ReplayGuard::new(Duration::from_secs(3_600), Duration::from_secs(60), 1_000);
    let runs = Seen::default();
    for round in 0..2 {
        // The same message, each time from a queue that knows nothing.
        let (town, broker) = (Town::start().await, Broker::default());
        let queue = jobs(&broker, 1).await;
        let (given, options) = (runs.clone(), ProcessorOptions::default().replay(guard.clone()));
        town.bus
            .process("worker", Arc::clone(&queue), options, move |delivery: Delivery| {
                given.push(number_of(&delivery));
                async move {
                    match round {
                        0 => Outcome::retry_after(LONG, "later"),
                        _ => Outcome::Ack,
                    }
                }
            })
            .await
            .unwrap();
        runs.wait_for(round + 1).await;
        if round == 1 {
            empty(&*queue).await;
        }
        while town.bus.subscriptions()[0].handling.unwrap().retried < (1 - round) as u64 {
            tokio::task::yield_now().await;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
        town.bus.unsubscribe("worker").await.unwrap();
    }
    assert_eq!((runs.now().len(), guard.repeats()), (2, 0));
}
