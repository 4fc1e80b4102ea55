//! Messages that are published later, on a bus and a queue in memory.

use std::time::Duration;

use tokio::sync::mpsc;

use super::*;
use crate::bus::queue::in_process::Broker;
use crate::bus::queue::{Queue, QueueOptions};
use crate::bus::{Delivery, Outcome, Subscription};
use crate::event::EventId;
use crate::tests::world::World;

const DEADLINE: Duration = Duration::from_secs(30);

fn time(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn message(subject: &str) -> NewMessage {
    NewMessage::bytes(subject, "remind", ContentType::Json, "{\"n\":1}").unwrap()
}

#[test]
fn a_pattern_comes_true_in_utc_after_a_time() {
    let after = |pattern: &str, at: &str| next(pattern, time(at)).map(|due| due.to_string());
    // A Friday.
    assert_eq!(after("0 9 * * mon-fri", "2026-11-27T09:00:00Z").unwrap(), "2026-11-30T09:00:00Z");
    assert_eq!(after("0 9 * * mon-fri", "2026-11-27T08:59:59Z").unwrap(), "2026-11-27T09:00:00Z");
    assert_eq!(
        after("*/10 * * * * *", "2026-11-27T08:00:00.5Z").unwrap(),
        "2026-11-27T08:00:10Z",
        "six fields begin with seconds"
    );
    assert_eq!(after("0 0 29 2 *", "2026-01-01T00:00:00Z").unwrap(), "2028-02-29T00:00:00Z");
    for never in ["", "x", "61 * * * *", "0 0 31 2 *"] {
        after(never, "2026-01-01T00:00:00Z").unwrap_err();
    }
}

#[test]
fn a_message_has_one_id_for_each_time_that_it_is_due() {
    let timer = |due: &str| Timer {
        kind: BUS.into(),
        name: "a".into(),
        due: time(due),
        payload: Bytes::new(),
        attempt: 1,
    };
    let id = letter::id_of(&timer("2026-01-01T00:00:00Z"));
    let again = Timer { attempt: 7, ..timer("2026-01-01T00:00:00Z") };
    assert_eq!(letter::id_of(&again), id);
    assert_ne!(letter::id_of(&timer("2026-01-01T00:00:01Z")), id);
}

type Heard = mpsc::UnboundedReceiver<(String, EventId)>;

async fn hears(world: &World, pattern: &str) -> Heard {
    let (tell, heard) = mpsc::unbounded_channel();
    let subscription = Subscription::new(format!("of {pattern}"), pattern).unwrap();
    world
        .bus
        .subscribe(subscription, move || {
            let tell = tell.clone();
            move |delivery: Delivery| {
                let message = &delivery.message;
                let _ = tell.send((message.subject().to_string(), message.id()));
                async { Outcome::Ack }
            }
        })
        .await
        .unwrap();
    heard
}

async fn next_of(heard: &mut Heard) -> (String, EventId) {
    tokio::time::timeout(DEADLINE, heard.recv()).await.expect("it comes").unwrap()
}

/// A node that starts has its subscriptions one after the other: what comes before them waits.
#[tokio::test]
async fn a_message_that_nobody_subscribes_to_waits() {
    let world = World::new().await;
    let schedule = Schedules::new(world.timers.clone(), world.bus.clone());
    schedule.at("a", time("2026-01-01T00:00:00Z"), message("remind.a")).await.unwrap();
    let publisher = Publisher { bus: world.bus.clone(), timers: world.timers.clone() };
    assert!(!publisher.ready(), "this node has no subscription");
    let row = world.timers.get(BUS, "a").await.unwrap().unwrap();
    let timer = letter::timer(&row);
    let fired = publisher.fire(timer.clone()).await;
    assert_eq!(fired, Fired::unknown("nobody on this node subscribes to remind.a"));
    let mut heard = hears(&world, "remind.*").await;
    assert!(publisher.ready());
    assert_eq!(publisher.fire(timer.clone()).await, Fired::Done);
    let (subject, id) = next_of(&mut heard).await;
    assert_eq!((&*subject, id), ("remind.a", letter::id_of(&timer)));
}

/// Each start of a program says what it wants; what was missed meanwhile is published once.
#[tokio::test]
async fn what_a_schedule_has_missed_is_published_once() {
    let world = World::new().await;
    let schedule = Schedules::new(world.timers.clone(), world.bus.clone());
    let refused = schedule.cron("nightly", "not a pattern", message("nightly")).await;
    assert!(matches!(refused, Err(ScheduleError::Pattern { .. })), "{refused:?}");
    schedule.cron("nightly", "0 0 3 1 1 *", message("nightly")).await.unwrap();
    let first = world.timers.get(BUS, "nightly").await.unwrap().unwrap();
    // Years go by.
    let missed = NewTimer::new(BUS, "nightly", time("2020-01-01T03:00:00Z"), first.payload);
    world.timers.set(missed).await.unwrap();
    let row = world.timers.get(BUS, "nightly").await.unwrap().unwrap();

    let world = world.again(Vec::new()).await;
    let schedule = Schedules::new(world.timers.clone(), world.bus.clone());
    schedule.cron("nightly", "0 0 3 1 1 *", message("nightly")).await.unwrap();
    assert_eq!(world.timers.get(BUS, "nightly").await.unwrap().unwrap(), row, "as it was");
    let mut heard = hears(&world, ">").await;
    schedule.start().await.unwrap();
    assert_eq!(next_of(&mut heard).await.1, letter::id_of(&letter::timer(&row)));
    schedule.after("last", Duration::ZERO, message("last")).await.unwrap();
    assert_eq!(next_of(&mut heard).await.0, "last", "once, and not for each year");
    let goes_on = async {
        loop {
            let row = world.timers.get(BUS, "nightly").await.unwrap().unwrap();
            if row.due > world.timers.now() {
                return row;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let row = tokio::time::timeout(DEADLINE, goes_on).await.unwrap();
    // Another pattern takes its place.
    schedule.cron("nightly", "0 0 4 1 1 *", message("nightly")).await.unwrap();
    let other = world.timers.get(BUS, "nightly").await.unwrap().unwrap();
    assert_eq!(other.due.as_micros() - row.due.as_micros(), 3_600_000_000);
    assert!(schedule.cancel("nightly").await.unwrap());
    assert!(!schedule.cancel("nightly").await.unwrap());
}

#[tokio::test]
async fn a_message_is_sent_to_a_queue_by_a_node_that_has_it() {
    let world = World::new().await;
    let schedule = Schedules::new(world.timers.clone(), world.bus.clone());
    let mails = schedule.to_queue("mails");
    mails.after("hello", Duration::ZERO, message("mail.hello")).await.unwrap();
    let queue = Broker::default().queue(QueueOptions::new("mails"));
    let receiver = queue.receiver("g").unwrap();
    schedule.queue("mails", queue.sender()).await.unwrap();
    let mut received = Vec::new();
    while received.is_empty() {
        received = receiver.receive(10, DEADLINE).await.unwrap();
    }
    assert_eq!(received[0].message.subject, "mail.hello");
    assert_eq!(&received[0].message.payload[..], b"{\"n\":1}");
}
