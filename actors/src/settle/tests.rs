//! The settler, with an office that says what it is told to say.

use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, join_all};
use mister_smith_supervisors::{Backoff, Clock, ErrorClass};
use tokio::time::Instant;
use uuid::Uuid;

use super::*;
use crate::bus::queue::{QueueError, SendError, Sender, SentAll};
use crate::bus::wire::WireMessage;
use crate::bus::{EventBus, NewMessage, Subject};
use crate::event::ContentType;

/// Answers what it is told to, and remembers what it kept.
#[derive(Debug, Default)]
struct Office {
    answers: Mutex<Vec<OfficeError>>,
    kept: Mutex<Vec<Undelivered>>,
    panics: bool,
}

impl Office {
    fn saying(answers: impl IntoIterator<Item = ErrorClass>) -> Arc<Self> {
        let answers = answers.into_iter().map(|class| OfficeError::new(class, "not now")).collect();
        Arc::new(Self { answers: Mutex::new(answers), ..Self::default() })
    }

    fn kept(&self) -> Vec<(FailureCause, String, u32)> {
        let kept = self.kept.lock().unwrap();
        kept.iter().map(|one| (one.cause, one.reason.clone(), one.attempts)).collect()
    }
}

impl DeadLetterOffice for Office {
    fn keep(&self, undelivered: Undelivered) -> BoxFuture<'_, Result<(), OfficeError>> {
        assert!(!self.panics, "a fault in the office");
        async {
            match self.answers.lock().unwrap().pop() {
                Some(error) => Err(error),
                None => {
                    self.kept.lock().unwrap().push(undelivered);
                    Ok(())
                }
            }
        }
        .boxed()
    }

    fn settle(&self, _: Uuid) -> BoxFuture<'_, Result<(), OfficeError>> {
        async { Ok(()) }.boxed()
    }
}

fn settler(office: Arc<Office>, attempts: u32) -> Settler {
    let quick = Backoff::exponential(Duration::from_millis(10), Duration::from_millis(10));
    Settler {
        name: "worker".into(),
        retry: RetryPolicy::attempts(attempts).backoff(quick),
        deadline: Duration::from_secs(10),
        office,
        results: None,
        counts: Arc::default(),
        seed: 7,
    }
}

fn delivery(n: u64) -> Delivery {
    let bus = EventBus::new(Clock::starting_at(1_000_000), n);
    let subject = Subject::of(["a", "b"]);
    let message = NewMessage::bytes(subject, "thing", ContentType::Raw, n.to_string()).unwrap();
    Delivery {
        message: bus.stamp(message),
        handler: "worker".into(),
        attempt: 1,
        redelivered: false,
        source: Source::Bus,
    }
}

async fn run(settler: &Settler, handler: impl Handler) -> bool {
    settler.run(&handler, delivery(1), async || ()).await
}

#[tokio::test(start_paused = true)]
async fn what_panics_is_tried_again_wherever_it_panics() {
    // A drop that panics, of something that the future holds while it waits.
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            if !std::thread::panicking() {
                panic!("in the drop");
            }
        }
    }
    let office = Office::saying([]);
    let settler = settler(Arc::clone(&office), 4);
    let tries = AtomicU32::new(0);
    let handler = move |_: Delivery| {
        let n = tries.fetch_add(1, Ordering::SeqCst);
        assert!(n != 0, "in the call");
        async move {
            assert!(n != 1, "in the future");
            if n == 2 {
                // Given up at its deadline, with this in hand.
                let _bomb = Bomb;
                std::future::pending::<()>().await;
            }
            Outcome::Ack
        }
    };
    assert!(run(&settler, handler).await);
    assert_eq!(settler.counts.retried.load(Ordering::Relaxed), 3);
    assert_eq!(settler.counts.acked.load(Ordering::Relaxed), 1);
    assert!(office.kept().is_empty());
    assert_eq!(settler.counts.trouble(), None, "it is over");
}

#[tokio::test(start_paused = true)]
async fn the_cause_says_whether_it_failed_or_crashed() {
    let office = Office::saying([]);
    let settler = settler(Arc::clone(&office), 2);
    assert!(run(&settler, |_| async { Outcome::retry("busy") }).await);
    assert!(run(&settler, |_| async { Outcome::fail("never") }).await);
    let crash = |_: Delivery| async {
        panic!("boom");
        #[allow(unreachable_code, reason = "it says what it would answer")]
        Outcome::Ack
    };
    assert!(run(&settler, crash).await);
    let late = |_: Delivery| async {
        std::future::pending::<()>().await;
        Outcome::Ack
    };
    assert!(run(&settler, late).await);
    let of = Outcome::of(ErrorClass::User, "no such thing");
    assert!(run(&settler, move |_| std::future::ready(of.clone())).await);
    let late = "the handler was given up: it took longer than 10s";
    let expected = [
        (FailureCause::Exhausted, "busy".to_owned(), 2),
        (FailureCause::Failed, "never".to_owned(), 1),
        (FailureCause::Crashed, "the handler crashed: panic: boom".to_owned(), 2),
        (FailureCause::Exhausted, late.to_owned(), 2),
        (FailureCause::Failed, "no such thing".to_owned(), 1),
    ];
    assert_eq!(office.kept(), expected);
}

#[tokio::test(start_paused = true)]
async fn an_office_that_is_out_of_order_is_waited_for_and_one_that_refuses_is_not() {
    let office = Office::saying([ErrorClass::Transient, ErrorClass::System]);
    let patient = settler(Arc::clone(&office), 1);
    assert!(run(&patient, |_| async { Outcome::fail("no") }).await);
    assert_eq!(office.kept().len(), 1);
    assert_eq!(patient.counts.trouble(), None);

    for class in [ErrorClass::Permanent, ErrorClass::User] {
        let office = Office::saying([class]);
        let refused = settler(Arc::clone(&office), 1);
        assert!(!run(&refused, |_| async { Outcome::fail("no") }).await, "it is not kept");
        assert_eq!(refused.counts.refused.load(Ordering::Relaxed), 1);
        assert!(office.kept().is_empty());
    }
    let office = Arc::new(Office { panics: true, ..Office::default() });
    let broken = settler(office, 1);
    assert!(!run(&broken, |_| async { Outcome::fail("no") }).await, "a panic is a refusal");
}

#[tokio::test(start_paused = true)]
async fn results_without_a_queue_are_no_silent_loss() {
    let office = Office::saying([]);
    let settler = settler(Arc::clone(&office), 3);
    let handler = |_: Delivery| async {
        let subject = Subject::of(["results"]);
        Handled::with(vec![WireMessage::new(&subject, "1", "x")])
    };
    assert!(run(&settler, handler).await);
    let (cause, reason, attempts) = office.kept().remove(0);
    assert_eq!((cause, attempts), (FailureCause::Failed, 1));
    assert!(reason.contains("there is no queue for them"), "{reason}");
}

#[tokio::test(start_paused = true)]
async fn a_batch_is_handed_over_when_it_is_full_or_when_its_first_has_waited() {
    let sizes = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&sizes);
    let linger = Duration::from_millis(50);
    let batch = Batch::new(4, linger, move |all: Vec<Delivery>| {
        seen.lock().unwrap().push(all.len());
        async { Outcome::Ack }
    });
    let began = Instant::now();
    let handled = join_all((0..10).map(|n| batch.handle(delivery(n)))).await;
    assert!(handled.iter().all(|one| one.outcome == Outcome::Ack));
    assert_eq!(*sizes.lock().unwrap(), [4, 4, 2]);
    assert_eq!(began.elapsed(), linger, "the last two waited, and no longer");
}

#[tokio::test(start_paused = true)]
async fn each_of_a_batch_hears_its_own_outcome() {
    let batch = Batch::new(3, Duration::from_secs(1), |all: Vec<Delivery>| async move {
        // One too few.
        (1..all.len()).map(Outcome::fail).collect::<Vec<_>>()
    });
    let handled = join_all((0..3).map(|n| batch.handle(delivery(n)))).await;
    let outcomes: Vec<_> = handled.into_iter().map(|one| one.outcome).collect();
    let missing = Outcome::retry("2 outcomes for a batch of 3");
    assert_eq!(outcomes, [Outcome::fail(1), Outcome::fail(2), missing]);
}

/// One that panics takes the others of its batch along once, and then it comes alone.
#[tokio::test(start_paused = true)]
async fn one_poison_of_a_batch_drags_nobody_down() {
    let office = Office::saying([]);
    let settler = settler(Arc::clone(&office), 3);
    let done = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&done);
    let batch = Batch::new(5, Duration::from_millis(50), move |all: Vec<Delivery>| {
        let count = Arc::clone(&count);
        async move {
            for one in &all {
                let data = &one.message.encoded().unwrap().data;
                assert!(&data[..] != b"3", "poison");
            }
            count.fetch_add(all.len(), Ordering::SeqCst);
            Outcome::Ack
        }
    });
    let handler = AnyHandler::new(batch);
    let runs = (0..5).map(|n| settler.run(&handler, delivery(n), async || ()));
    assert!(join_all(runs).await.into_iter().all(|kept| kept));
    assert_eq!(done.load(Ordering::SeqCst), 4);
    let kept = office.kept();
    assert_eq!(kept.len(), 1, "{kept:?}");
    assert_eq!(kept[0].2, 3);
}

/// Whoever runs the batch is given up: the others are tried again.
#[tokio::test(start_paused = true)]
async fn a_batch_whose_runner_ends_is_tried_again() {
    let batch = Arc::new(Batch::new(2, Duration::from_secs(1), |_: Vec<Delivery>| async {
        std::future::pending::<()>().await;
        Outcome::Ack
    }));
    let waiting = batch.handle(delivery(1));
    tokio::pin!(waiting);
    assert!(futures_util::poll!(&mut waiting).is_pending());
    {
        // It fills the batch and runs it, and is dropped.
        let runner = batch.handle(delivery(2));
        tokio::pin!(runner);
        assert!(futures_util::poll!(&mut runner).is_pending());
    }
    let reason = "the batch that it was in was given up";
    assert_eq!(waiting.await.outcome, Outcome::retry(reason));
}

#[test]
fn a_delivery_s_key_is_the_same_at_every_try() {
    let first = delivery(1);
    let second = Delivery { attempt: 2, redelivered: true, ..first.clone() };
    assert_eq!(first.key(), second.key());
    let wire = WireMessage::new(&Subject::of(["jobs", "new"]), "job-7", "x")
        .header("tenant", "acme")
        .header("traceparent", "00-1-2-03");
    let [one, two] = [(); 2].map(|()| wire.to_message().unwrap());
    let bus = EventBus::new(Clock::starting_at(5), 1);
    let (one, two) = (bus.stamp(one), bus.stamp(two));
    assert_eq!(one.id(), two.id(), "made of the wire's id");
    let headers: Vec<_> = one.metadata().headers.iter().collect();
    let text = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let (tenant, trace) = (text("tenant", "acme"), text("traceparent", "00-1-2-03"));
    assert_eq!(headers, [(&tenant.0, &tenant.1), (&trace.0, &trace.1)]);
    // And back on the wire.
    let back = WireMessage::of(&one).unwrap();
    assert_eq!(back.headers.get("tenant").map(String::as_str), Some("acme"));
    assert_eq!(back.headers.get("traceparent").map(String::as_str), Some("00-1-2-03"));
}

/// A queue that is away, and then there.
#[derive(Debug, Default)]
struct Away {
    calls: AtomicU32,
    sent: AtomicUsize,
}

impl Sender for Away {
    fn send<'a>(
        &'a self,
        messages: &'a [WireMessage],
    ) -> BoxFuture<'a, Result<SentAll, SendError>> {
        async {
            let call = self.calls.fetch_add(1, Ordering::SeqCst);
            if call < 20 {
                // The first of them gets in.
                let sent = usize::from(call == 0);
                self.sent.fetch_add(sent, Ordering::SeqCst);
                let (queue, reason) = ("results".to_owned(), "away".to_owned());
                let source = QueueError::Unreachable { queue, reason };
                return Err(SendError { sent, last: 0, duplicates: 0, source });
            }
            self.sent.fetch_add(messages.len(), Ordering::SeqCst);
            Ok(SentAll::default())
        }
        .boxed()
    }

    fn tail(&self) -> BoxFuture<'_, Result<u64, QueueError>> {
        async { Ok(0) }.boxed()
    }
}

/// Results that wait for their queue are no try: the handler has had its effect.
#[tokio::test(start_paused = true)]
async fn a_queue_for_results_that_is_away_is_waited_for_and_the_handler_is_not_asked_again() {
    let (office, away) = (Office::saying([]), Arc::new(Away::default()));
    let settler =
        Settler { results: Some(Arc::clone(&away) as _), ..settler(Arc::clone(&office), 2) };
    let runs = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&runs);
    let handler = move |_: Delivery| {
        count.fetch_add(1, Ordering::SeqCst);
        let result = |id: &str| WireMessage::new(&Subject::of(["results"]), id, "x");
        std::future::ready(Handled::with(vec![result("1"), result("2")]))
    };
    assert!(run(&settler, handler).await);
    // Each is sent once.
    assert_eq!((runs.load(Ordering::SeqCst), away.sent.load(Ordering::SeqCst)), (1, 2));
    assert!(office.kept().is_empty());
    assert_eq!(settler.counts.trouble(), None);
}

#[tokio::test(start_paused = true)]
async fn a_pause_that_no_clock_can_show_is_a_long_one() {
    let settler = settler(Office::saying([]), 3);
    let delivery = delivery(1);
    let for_ever = Outcome::retry_after(Duration::MAX, "never").into();
    let verdict = settler.judge(for_ever, &delivery.message, 1).await;
    let Verdict::Again { after } = verdict else { panic!("{verdict:?}") };
    assert!(Instant::now().checked_add(after).is_some());
}

/// A message whose try has ended is not handed over to anybody later.
#[tokio::test(start_paused = true)]
async fn a_batch_forgets_those_that_were_given_up() {
    let sizes = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&sizes);
    let batch = Batch::new(2, Duration::from_secs(1), move |all: Vec<Delivery>| {
        seen.lock().unwrap().push(all.len());
        async { Outcome::Ack }
    });
    {
        let given_up = batch.handle(delivery(1));
        tokio::pin!(given_up);
        assert!(futures_util::poll!(&mut given_up).is_pending());
    }
    assert_eq!(batch.handle(delivery(2)).await.outcome, Outcome::Ack);
    assert_eq!(*sizes.lock().unwrap(), [1]);
}
