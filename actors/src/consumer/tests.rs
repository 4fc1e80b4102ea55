//! Consumers in a node on SQLite: handlers that fail as they are told, actors that are killed.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mister_smith_supervisors::Backoff;
use proptest::collection::vec;
use proptest::prelude::*;
use tokio::sync::mpsc;

use super::{Begin, Consumer, ConsumerError, ConsumerRef};
use crate::bus::{Delivery, FailureCause, Outcome, RetryPolicy, Subscription};
use crate::event::{Position, StreamId};
use crate::store::claims::{Claimed, Save};
use crate::store::follow::{LEASE, MARK};
use crate::store::{Append, EventFilter, ExpectedVersion, IdempotencyKey, conformance};
use crate::tests::world::World;

const DEADLINE: Duration = Duration::from_secs(30);

fn quick() -> RetryPolicy {
    RetryPolicy::attempts(3)
        .backoff(Backoff::exponential(Duration::from_millis(1), Duration::from_millis(4)))
}

async fn append(world: &World, stream: &str, count: u64) {
    static NUMBERS: AtomicU64 = AtomicU64::new(0);
    for _ in 0..count {
        let number = NUMBERS.fetch_add(1, Ordering::Relaxed);
        let (stream, event) = (StreamId::new(stream).unwrap(), conformance::event(number));
        let append = Append {
            key: Some(IdempotencyKey::of([number.to_le_bytes()])),
            ..Append::new(stream, ExpectedVersion::Any, vec![event])
        };
        while world.commit(append.clone()).await.is_err() {
            tokio::task::yield_now().await;
        }
    }
}

async fn reached(consumer: &ConsumerRef, position: u64) {
    let reached = consumer.wait_for(Position::new(position));
    let reached = tokio::time::timeout(DEADLINE, reached).await;
    assert!(reached.is_ok(), "{:?}", consumer.status());
}

/// A consumer that hands on what it gets and acknowledges it.
fn listener(name: &str) -> (Consumer, mpsc::UnboundedReceiver<Delivery>) {
    let (heard, hearing) = mpsc::unbounded_channel();
    let consumer = Consumer::new(name, move |delivery: Delivery| {
        heard.send(delivery).unwrap();
        async { Outcome::Ack }
    });
    (consumer, hearing)
}

fn positions(hearing: &mut mpsc::UnboundedReceiver<Delivery>) -> Vec<u64> {
    std::iter::from_fn(|| hearing.try_recv().ok())
        .map(|one| one.recorded().unwrap().position.get())
        .collect()
}

#[tokio::test]
async fn it_handles_what_it_wants_in_order_and_goes_on_where_it_was() {
    let world = World::new().await;
    append(&world, "order-1", 3).await;
    append(&world, "bill-1", 2).await;
    let orders = EventFilter::ALL.categories(["order"]);
    let (consumer, mut heard) = listener("orders");
    let started = world.consumers.start(consumer.filter(orders.clone())).await.unwrap();
    append(&world, "order-2", 2).await;
    reached(&started, 7).await;
    assert_eq!(positions(&mut heard), [1, 2, 3, 6, 7]);
    assert_eq!(started.status().handled, 5);

    let world = world.again(Vec::new()).await;
    append(&world, "order-1", 1).await;
    let (consumer, mut heard) = listener("orders");
    let started = world.consumers.start(consumer.filter(orders)).await.unwrap();
    reached(&started, 8).await;
    let got = heard.recv().await.unwrap();
    assert_eq!(got.recorded().unwrap().position, Position::new(8));
    assert_eq!(got.key(), "orders/8");
    assert!(heard.try_recv().is_err(), "what was acknowledged does not come again");
}

#[tokio::test]
async fn it_begins_where_it_is_told_and_goes_back_when_it_is_told() {
    let world = World::new().await;
    append(&world, "order-1", 5).await;
    for (name, begin, first) in [
        ("all", Begin::Beginning, 1),
        ("some", Begin::After(Position::new(3)), 4),
        ("new", Begin::End, 6),
        ("far", Begin::After(Position::new(1_000)), 6),
    ] {
        let (consumer, mut heard) = listener(name);
        let consumer = consumer.begin(begin);
        let started = world.consumers.start(consumer).await.unwrap();
        reached(&started, 5).await;
        let wanted: Vec<_> = (first..=5).collect();
        assert_eq!(positions(&mut heard), wanted, "{name}");

        let went = started.replay(Begin::After(Position::new(2))).await.unwrap();
        assert_eq!(went, Position::new(2));
        reached(&started, 5).await;
        let again: Vec<_> = std::iter::from_fn(|| heard.try_recv().ok()).collect();
        assert!(again.iter().all(|one| one.redelivered), "{name}");
        assert_eq!(again.len(), 3, "{name}");
    }
    let all = world.consumers.list();
    assert_eq!(all.iter().map(|one| &*one.name).collect::<Vec<_>>(), ["all", "some", "new", "far"]);
    append(&world, "order-1", 1).await;
    let late = world.lease().await.store.read_all(Position::new(5), 1).await.unwrap();
    let (consumer, mut heard) = listener("late");
    let consumer = consumer.begin(Begin::At(late[0].recorded_at));
    reached(&world.consumers.start(consumer).await.unwrap(), 6).await;
    let heard = positions(&mut heard);
    assert_eq!(heard.last(), Some(&6));
}

#[tokio::test]
async fn names_are_checked_and_unique_and_free_again_after_a_stop() {
    let world = World::new().await;
    for bad in ["", "a b", "a/b", "x".repeat(101).as_str()] {
        let refused = world.consumers.start(listener(bad).0).await;
        assert!(matches!(refused, Err(ConsumerError::Name { .. })), "{bad}");
    }
    world
        .bus
        .subscribe(Subscription::new("taken", "x").unwrap(), || |_| async { Outcome::Ack })
        .await
        .unwrap();
    let refused = world.consumers.start(listener("taken").0).await;
    assert!(matches!(refused, Err(ConsumerError::Exists { .. })));
    world.consumers.start(listener("one").0).await.unwrap();
    let refused = world.consumers.start(listener("one").0).await;
    assert!(matches!(refused, Err(ConsumerError::Exists { .. })));
    world.consumers.stop("one").await.unwrap();
    let unknown = world.consumers.stop("one").await.unwrap_err();
    assert_eq!(unknown.to_string(), "there is no consumer one on this node; it has none");
    world.consumers.start(listener("one").0).await.unwrap();
}

#[tokio::test]
async fn a_paused_consumer_handles_nothing_and_then_what_was_left() {
    let world = World::new().await;
    let (consumer, mut heard) = listener("slow");
    let started = world.consumers.start(consumer).await.unwrap();
    append(&world, "order-1", 1).await;
    reached(&started, 1).await;
    started.pause().await.unwrap();
    append(&world, "order-1", 4).await;
    let (other, mut others) = listener("other");
    reached(&world.consumers.start(other).await.unwrap(), 5).await;
    assert_eq!(positions(&mut others).len(), 5);
    assert_eq!(positions(&mut heard), [1]);
    assert!(started.status().paused);
    started.resume().await.unwrap();
    reached(&started, 5).await;
    assert_eq!(positions(&mut heard), [2, 3, 4, 5]);
}

#[tokio::test]
async fn what_cannot_be_handled_is_a_dead_letter_and_can_come_again() {
    let world = World::new().await;
    let mended = Arc::new(AtomicU64::new(0));
    let works = Arc::clone(&mended);
    let consumer = Consumer::new("fussy", move |delivery: Delivery| {
        let works = works.load(Ordering::Relaxed) == 1;
        async move {
            match delivery.recorded().unwrap().position.get() {
                _ if works => Outcome::Ack,
                2 => Outcome::fail("never"),
                3 => Outcome::retry("not now"),
                4 => panic!("a fault in the handler"),
                5 => std::future::pending().await,
                _ => Outcome::Ack,
            }
        }
    })
    .retry(quick())
    .deadline(Duration::from_millis(40));
    append(&world, "order-1", 6).await;
    let started = world.consumers.start(consumer).await.unwrap();
    // The dead letters are in the log too, and do not come to those who caused them.
    reached(&started, 10).await;
    let status = started.status();
    assert_eq!((status.handled, status.dead, status.retried), (2, 4, 6));
    assert_eq!(status.trouble, None);
    world.settled().await;
    let letters = world.letters.list(Some("fussy"), None, 10).await.unwrap();
    assert_eq!(letters.len(), 4);
    let mut reasons = BTreeMap::new();
    for (id, _) in &letters {
        let letter = world.letters.show(id).await.unwrap().letter.unwrap();
        assert!(letter.subject.starts_with("events.order."));
        reasons.insert(letter.position.unwrap().get(), (letter.cause, letter.reason));
    }
    let (given_up, crashed) = (FailureCause::Exhausted, FailureCause::Crashed);
    assert_eq!(reasons[&2], (FailureCause::Failed, "never".to_owned()));
    assert_eq!(reasons[&3], (given_up, "not now".to_owned()));
    let panic = "the handler crashed: panic: a fault in the handler";
    assert_eq!(reasons[&4], (crashed, panic.to_owned()));
    let late = "the handler was given up: it took longer than 40ms";
    assert_eq!(reasons[&5], (given_up, late.to_owned()));

    // Not mended: they are given up again.
    world.letters.requeue(&letters[0].0, "a person").await.unwrap();
    let dead = async |count: usize| {
        let waiting = async {
            loop {
                world.settled().await;
                let open = world.letters.list(Some("fussy"), None, 10).await.unwrap();
                let waiting = open
                    .iter()
                    .filter(|(_, one)| one.state == crate::dead_letter::LetterState::Open);
                if waiting.count() == count {
                    return;
                }
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(DEADLINE, waiting).await.expect("they are settled");
    };
    dead(4).await;
    mended.store(1, Ordering::Relaxed);
    let done = world.letters.requeue_all(Some("fussy"), "a person").await.unwrap();
    assert_eq!((done.requeued, done.failed.len()), (4, 0));
    dead(0).await;
}

/// Dead letters that are sent again together are handled as many at once as there are lanes.
#[tokio::test]
async fn many_dead_letters_at_once_are_no_more_than_there_are_lanes() {
    let world = World::new().await;
    let (now, most) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let mended = Arc::new(AtomicU64::new(0));
    let (works, seen) = (Arc::clone(&mended), Arc::clone(&most));
    let consumer = Consumer::new("fussy", move |_: Delivery| {
        let (now, most) = (Arc::clone(&now), Arc::clone(&most));
        let works = works.load(Ordering::Relaxed) == 1;
        async move {
            if !works {
                return Outcome::fail("never");
            }
            most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            for _ in 0..20 {
                tokio::task::yield_now().await;
            }
            now.fetch_sub(1, Ordering::SeqCst);
            Outcome::Ack
        }
    })
    .lanes_by_stream(2);
    append(&world, "order-1", 40).await;
    let started = world.consumers.start(consumer).await.unwrap();
    reached(&started, 80).await;
    world.settled().await;
    mended.store(1, Ordering::Relaxed);
    let done = world.letters.requeue_all(Some("fussy"), "a person").await.unwrap();
    assert_eq!((done.requeued, done.failed.len()), (40, 0));
    let settled = async {
        while started.status().handled < 40 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, settled).await.expect("they are settled");
    assert!(seen.load(Ordering::SeqCst) <= 2);
}

/// A dead letter is an event, too, and one with such an event in it, or such a reason, could never
/// be written.
#[tokio::test]
async fn an_event_as_large_as_may_be_is_a_dead_letter_and_comes_again_whole() {
    let world = World::new().await;
    let mut large = conformance::event(4);
    large.data = vec![7; crate::store::MAX_EVENT_BYTES - large.meta.len()].into();
    let bytes = large.data.len();
    let stream = StreamId::new("order-1").unwrap();
    let large = Append::new(stream, ExpectedVersion::Any, vec![large]);
    world.commit(large).await.unwrap().remove(0).unwrap();
    let (heard, mut hearing) = mpsc::unbounded_channel();
    let consumer = Consumer::new("fussy", move |delivery: Delivery| {
        heard.send(delivery.recorded().unwrap().data.len()).unwrap();
        async { Outcome::fail("never ".repeat(4 << 20)) }
    });
    let started = world.consumers.start(consumer).await.unwrap();
    reached(&started, 1).await;
    world.settled().await;
    let letters = world.letters.list(Some("fussy"), None, 10).await.unwrap();
    let letter = world.letters.show(&letters[0].0).await.unwrap().letter.unwrap();
    assert_eq!((letter.position, letter.data.len()), (Some(Position::new(1)), 0));
    assert!(letter.reason.starts_with("never never"));
    world.letters.requeue(&letters[0].0, "a person").await.unwrap();
    for _ in 0..2 {
        let seen = tokio::time::timeout(DEADLINE, hearing.recv()).await.unwrap();
        assert_eq!(seen, Some(bytes));
    }
}

/// A page was a barrier: one event that failed for long held up every lane.
#[tokio::test]
async fn an_event_that_fails_for_long_holds_up_its_own_lane_only() {
    let world = World::new().await;
    let (heard, mut hearing) = mpsc::unbounded_channel();
    let mended = Arc::new(AtomicU64::new(0));
    let works = Arc::clone(&mended);
    let stubborn = move || {
        let (heard, works) = (heard.clone(), Arc::clone(&works));
        let retry = RetryPolicy::attempts(u32::MAX)
            .backoff(Backoff::exponential(Duration::from_millis(1), Duration::from_millis(5)));
        Consumer::new("stubborn", move |delivery: Delivery| {
            let works = works.load(Ordering::Relaxed) == 1;
            let first = delivery.recorded().unwrap().position == Position::new(1);
            if !first || works {
                heard.send(delivery.recorded().unwrap().position.get()).unwrap();
            }
            async move { if first && !works { Outcome::retry("no") } else { Outcome::Ack } }
        })
        .retry(retry)
        .page(20)
        .lanes_by_stream(8)
    };
    world.consumers.start(stubborn()).await.unwrap();
    append(&world, "a-1", 1).await;
    append(&world, "b-1", 300).await;
    append(&world, "a-1", 1).await;
    let mut next = async || tokio::time::timeout(DEADLINE, hearing.recv()).await.unwrap();
    for wanted in 2..=301 {
        assert_eq!(next().await, Some(wanted));
    }
    // The others are settled, also for the next life of the node: at most a page comes again.
    let world = world.again(Vec::new()).await;
    mended.store(1, Ordering::Relaxed);
    let started = world.consumers.start(stubborn()).await.unwrap();
    reached(&started, 302).await;
    let again: Vec<u64> = std::iter::from_fn(|| hearing.try_recv().ok()).collect();
    assert!(again.contains(&1) && again.contains(&302), "{again:?}");
    assert!(again.len() <= 2 + 20, "{again:?}");
}

/// A lane that panics was a crash loop in which nothing was handled.
#[tokio::test]
async fn a_lane_that_panics_holds_nothing_up() {
    let world = World::new().await;
    append(&world, "order-1", 3).await;
    let (consumer, mut heard) = listener("odd");
    let consumer = consumer.lanes_by(2, |event| match event.position.get() {
        2 => panic!("a fault of the application"),
        _ => "lane".into(),
    });
    reached(&world.consumers.start(consumer).await.unwrap(), 3).await;
    let mut heard = positions(&mut heard);
    heard.sort_unstable();
    assert_eq!(heard, [1, 2, 3]);
}

/// A pause is no matter of one life.
#[tokio::test]
async fn a_pause_outlives_the_node_and_an_event_can_be_left_out() {
    let world = World::new().await;
    append(&world, "order-1", 1).await;
    let (consumer, mut heard) = listener("slow");
    let started = world.consumers.start(consumer).await.unwrap();
    reached(&started, 1).await;
    started.pause().await.unwrap();
    assert_eq!(positions(&mut heard), [1]);
    let world = world.again(Vec::new()).await;
    append(&world, "order-1", 2).await;
    let (consumer, mut heard) = listener("slow");
    let started = world.consumers.start(consumer).await.unwrap();
    started.skip(Position::new(2)).await.unwrap();
    assert!(started.status().paused);
    assert!(heard.try_recv().is_err());
    started.resume().await.unwrap();
    reached(&started, 3).await;
    assert_eq!(positions(&mut heard), [3]);
}

/// What it had settled was taken for nothing, and came again without a word.
#[tokio::test]
async fn a_mark_that_cannot_be_read_holds_a_consumer_until_somebody_decides() {
    let world = World::new().await;
    append(&world, "order-1", 5).await;
    let claims = world.lease().await.claims;
    let place = super::actor::place_of("held");
    let Claimed::Yes(claim) = claims.claim(&place, "before", LEASE).await.unwrap() else {
        panic!("nobody holds it")
    };
    let note = |id: &str, data: &'static str| (id.into(), Some(data.as_bytes().into()));
    let notes = [note("begun", "{\"after\":0}"), note(MARK, "{\"of\":\"a newer program\"}")];
    let save = Save::renewal(LEASE).to(Position::new(2)).notes(notes);
    claims.save(&claim.fence, save).await.unwrap();
    claims.release(&claim.fence).await.unwrap();
    let (consumer, mut heard) = listener("held");
    let started = world.consumers.start(consumer).await.unwrap();
    let says = "what is settled beyond event 2 cannot be read (missing field";
    let shown = async {
        while !started.status().trouble.is_some_and(|trouble| trouble.starts_with(says)) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, shown).await.expect("it says why");
    append(&world, "order-1", 1).await;
    let (other, _others) = listener("other");
    reached(&world.consumers.start(other).await.unwrap(), 6).await;
    assert!(heard.try_recv().is_err(), "nothing comes");
    assert!(world.system.tree().to_string().contains(says));
    assert!(claims.note(&place, MARK).await.unwrap().is_some(), "whoever can read it finds it");
    started.replay(Begin::After(Position::new(3))).await.unwrap();
    reached(&started, 6).await;
    assert_eq!(positions(&mut heard), [4, 5, 6]);
    assert_eq!(started.status().trouble, None);
}

/// What a handler did, by position.
#[derive(Default)]
struct Diary {
    /// Effects in order: lane and position.
    effects: Vec<(String, u64)>,
    tries: BTreeMap<u64, u32>,
    lies: Vec<u64>,
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Whoever is killed when, and however often a handler fails: every event is handled or a dead
    /// letter, those of a lane for the first time in the order of the log, and one that comes
    /// again says so.
    #[test]
    fn every_event_is_settled_in_the_order_of_its_lane(
        lanes in 1..5_usize,
        page in 1..20_usize,
        failures in vec((1..60_u64, 1..5_u32), 0..12),
        kills in vec((0..60_u64, 0..4_usize), 0..6),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let world = World::new().await;
            let diary = Arc::new(Mutex::new(Diary::default()));
            let failures: BTreeMap<u64, u32> = failures.into_iter().collect();
            let (written, plan) = (Arc::clone(&diary), failures.clone());
            let consumer = Consumer::new("diarist", move |delivery: Delivery| {
                let (diary, plan) = (Arc::clone(&written), plan.clone());
                async move {
                    tokio::task::yield_now().await;
                    let position = delivery.recorded().unwrap().position.get();
                    let mut diary = diary.lock().unwrap();
                    if !delivery.redelivered
                        && (diary.effects.iter().any(|(_, at)| *at == position))
                    {
                        diary.lies.push(position);
                    }
                    let tries = diary.tries.entry(position).or_default();
                    *tries += 1;
                    if plan.get(&position).is_some_and(|failures| *tries <= *failures) {
                        return Outcome::retry("as planned");
                    }
                    diary.effects.push((delivery.recorded().unwrap().stream.to_string(), position));
                    Outcome::Ack
                }
            })
            .retry(quick())
            .page(page)
            .lanes_by_stream(lanes);
            let started = world.consumers.start(consumer).await.unwrap();
            for n in 0..60 {
                for (_, victim) in kills.iter().filter(|(at, _)| *at == n) {
                    let victim = ["/consumers/diarist", "/resources/pool", "/resources/committer",
                        "/consumers"][*victim];
                    let _ = world.system.kill(victim);
                }
                append(&world, ["order-1", "order-2", "order-3"][(n % 3) as usize], 1).await;
            }
            let log = async {
                let lease = world.lease().await;
                lease.store.read_all(Position::ZERO, 1_000).await
            };
            let log = log.await.unwrap();
            reached(&started, log.last().unwrap().position.get()).await;
            world.settled().await;
            let orders: std::collections::BTreeSet<u64> = log
                .iter()
                .filter(|event| event.stream.category() == "order")
                .map(|event| event.position.get())
                .collect();
            assert_eq!(orders.len(), 60);
            let letters = world.letters.list(Some("diarist"), None, 100).await.unwrap();
            let diary = std::mem::take(&mut *diary.lock().unwrap());
            assert_eq!(diary.lies, Vec::<u64>::new(), "said to come for the first time, and did not");
            let done = diary.effects.iter().map(|(_, at)| *at);
            let mut settled = std::collections::BTreeSet::new();
            for (id, _) in &letters {
                let letter = world.letters.show(id).await.unwrap().letter.unwrap();
                let position = letter.position.unwrap().get();
                assert!(failures.get(&position).is_some_and(|tries| *tries >= 3));
                settled.insert(position);
            }
            settled.extend(done);
            assert_eq!(settled, orders);
            let mut last = BTreeMap::new();
            let mut seen = std::collections::BTreeSet::new();
            for (lane, at) in &diary.effects {
                // A dead letter is passed over, and comes later if it comes at all.
                if seen.insert(*at) && !failures.contains_key(at) {
                    let before = last.insert(lane.clone(), *at).unwrap_or(0);
                    assert!(before < *at, "{lane}: {at} after {before}");
                }
            }
            world.system.shutdown(DEADLINE).await;
        });
    }
}
