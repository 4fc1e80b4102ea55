//! The relay and the table relay in a node on SQLite, with an outlet that fails as it is told.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use mister_smith_supervisors::{ChildSpec, ErrorClass};
use proptest::collection::vec;
use proptest::prelude::*;
use sqlx::{Connection as _, Executor as _, SqliteConnection};

use super::relay::{DEFAULT_LOOK_EVERY, Relay, RelayArgs, RelayMessage};
use super::table::{Nudge, TableArgs, TableMessage, TableRelay};
use super::{BusOutlet, Letters, Outlet, OutletError, QueueOutlet, subject_under};
use crate::bus::queue::in_process::Broker;
use crate::bus::queue::{Queue, QueueOptions, Retention, SentAll};
use crate::bus::wire::WireMessage;
use crate::bus::{Delivery, Outcome, Subject, Subscription};
use crate::event::{Position, RecordedEvent, StreamId, Timestamp};
use crate::store::follow::Shown;
use crate::store::messages::sqlite;
use crate::store::{Append, EventFilter, ExpectedVersion, IdempotencyKey, conformance};
use crate::tests::world::{POOL, World};

mod losses;
mod poison;

const DEADLINE: Duration = Duration::from_secs(20);

/// What goes wrong with a call.
#[derive(Debug, Clone, Copy)]
enum Fault {
    /// Only so many arrive, and the sender knows.
    After(usize),
    /// All arrive, and the answer is lost.
    AnswerLost,
    /// All arrive, and then everything that came after the n-th is forgotten.
    Forget(usize),
}

/// Remembers what came, in order.
#[derive(Debug, Default)]
struct Post {
    came: Mutex<Vec<(String, Position)>>,
    faults: Mutex<Vec<Fault>>,
    /// Positions that it still has, in the order in which they came.
    has: Mutex<Vec<Position>>,
    number: Mutex<u64>,
    /// Positions that it will never take.
    refuses: Mutex<BTreeSet<u64>>,
}

impl Post {
    fn has(&self) -> Vec<u64> {
        let mut seen = BTreeSet::new();
        let has = self.has.lock().unwrap();
        has.iter().map(|at| at.get()).filter(|at| seen.insert(*at)).collect()
    }

    /// Loses what came after the n-th, and nobody is told.
    fn lose(&self, keep: usize) {
        let mut number = self.number.lock().unwrap();
        self.has.lock().unwrap().truncate(keep);
        *number = keep as u64;
    }

    async fn until_it_has(&self, all: impl IntoIterator<Item = u64>) {
        let all: BTreeSet<u64> = all.into_iter().collect();
        let arrived = async {
            while self.has().into_iter().collect::<BTreeSet<_>>() != all {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let arrived = tokio::time::timeout(DEADLINE, arrived).await;
        assert!(arrived.is_ok(), "it has {:?}", self.has());
    }
}

impl Outlet for Post {
    fn send<'a>(
        &'a self,
        _: uuid::Uuid,
        events: &'a [(Subject, RecordedEvent)],
    ) -> BoxFuture<'a, Result<SentAll, OutletError>> {
        async move {
            tokio::task::yield_now().await;
            let fault = self.faults.lock().unwrap().pop();
            let refuses = self.refuses.lock().unwrap().clone();
            let bad = |one: &(Subject, RecordedEvent)| refuses.contains(&one.1.position.get());
            let good = events.iter().position(bad).unwrap_or(events.len());
            let sent = match fault {
                Some(Fault::After(count)) => count.min(good),
                _ => good,
            };
            let mut number = self.number.lock().unwrap();
            for (subject, event) in &events[..sent] {
                self.came.lock().unwrap().push((subject.to_string(), event.position));
                self.has.lock().unwrap().push(event.position);
                *number += 1;
            }
            let error = |sent| OutletError {
                sent,
                done: SentAll { last: *number, duplicates: 0 },
                refused: false,
                reason: "a fault".to_owned(),
                class: ErrorClass::Transient,
            };
            match fault {
                None if sent < events.len() => Err(OutletError {
                    refused: true,
                    reason: "too large".to_owned(),
                    class: ErrorClass::User,
                    ..error(sent)
                }),
                None => Ok(SentAll { last: *number, duplicates: 0 }),
                Some(Fault::After(_)) => Err(error(sent)),
                Some(Fault::AnswerLost) => Err(error(0)),
                Some(Fault::Forget(keep)) => {
                    let error = error(sent);
                    let mut has = self.has.lock().unwrap();
                    has.truncate(keep);
                    *number = has.len() as u64;
                    Err(error)
                }
            }
        }
        .boxed()
    }

    fn tail(&self) -> BoxFuture<'_, Result<Option<u64>, OutletError>> {
        async { Ok(Some(*self.number.lock().unwrap())) }.boxed()
    }
}

struct Running {
    world: World,
    appended: AtomicU64,
    shown: Arc<Shown>,
}

async fn relay(outlet: Arc<dyn Outlet>, filter: EventFilter) -> Running {
    relay_that_looks(outlet, filter, DEFAULT_LOOK_EVERY).await
}

async fn relay_that_looks(
    outlet: Arc<dyn Outlet>,
    filter: EventFilter,
    look_every: Duration,
) -> Running {
    let world = World::new().await;
    let args = RelayArgs { filter, look_every, ..args(&world, "post", outlet) };
    started(world, args).await
}

fn args(world: &World, name: &str, outlet: Arc<dyn Outlet>) -> RelayArgs {
    RelayArgs {
        name: name.into(),
        pool: POOL.into(),
        owner: Some("test".into()),
        head: world.head.subscribe(),
        outlet,
        filter: EventFilter::ALL,
        subject: subject_under("events"),
        shown: Arc::default(),
        letters: letters_of(world),
        look_every: DEFAULT_LOOK_EVERY,
    }
}

fn letters_of(world: &World) -> Letters {
    Letters { bus: world.bus.clone(), office: Arc::new(world.letters.clone()) }
}

async fn started(world: World, args: RelayArgs) -> Running {
    let shown = Arc::clone(&args.shown);
    let supervisor = world.system.supervisor("/aggregates").unwrap();
    let spec = ChildSpec::component::<Relay>("relay", args);
    supervisor.spawn_spec::<RelayMessage>(spec).await.unwrap();
    Running { world, appended: AtomicU64::new(0), shown }
}

impl Running {
    /// Appends through the committer, so that the head is announced.
    async fn append(&self, stream: &str, count: u64) {
        for n in 0..count {
            let stream = StreamId::new(stream).unwrap();
            let event = conformance::event(n);
            let number = self.appended.fetch_add(1, Ordering::Relaxed).to_le_bytes();
            let append = Append {
                key: Some(IdempotencyKey::of([number])),
                ..Append::new(stream, ExpectedVersion::Any, vec![event])
            };
            while self.world.commit(append.clone()).await.is_err() {
                tokio::task::yield_now().await;
            }
        }
    }

    async fn reached(&self, position: u64) {
        let reached = self.shown.wait_for(Position::new(position));
        tokio::time::timeout(DEADLINE, reached).await.expect("it gets there");
    }
}

#[tokio::test]
async fn events_go_out_in_the_order_of_the_log_under_their_subjects() {
    let post = Arc::new(Post::default());
    let filter = EventFilter::ALL.categories(["order"]);
    let running = relay(Arc::clone(&post) as _, filter).await;
    running.append("order-1", 3).await;
    running.append("bill-1", 2).await;
    running.append("order-2", 1).await;
    running.reached(6).await;
    assert_eq!(post.has(), [1, 2, 3, 6]);
    assert!(post.came.lock().unwrap()[0].0.starts_with("events.order."));
}

#[tokio::test]
async fn the_bus_hears_what_is_in_the_log() {
    let running = relay(Arc::new(Post::default()), EventFilter::ALL).await;
    let (heard, mut positions) = tokio::sync::mpsc::unbounded_channel();
    running
        .world
        .bus
        .subscribe(Subscription::new("all", "events.>").unwrap(), move || {
            let heard = heard.clone();
            move |delivery: Delivery| {
                heard.send(delivery.message.position().unwrap().get()).unwrap();
                async { Outcome::Ack }
            }
        })
        .await
        .unwrap();
    let outlet = Arc::new(BusOutlet::new(running.world.bus.clone()));
    let args = RelayArgs { owner: None, ..args(&running.world, "bus", outlet) };
    let supervisor = running.world.system.supervisor("/aggregates").unwrap();
    let spec = ChildSpec::component::<Relay>("bus", args);
    supervisor.spawn_spec::<RelayMessage>(spec).await.unwrap();
    running.append("order-1", 20).await;
    for wanted in 1..=20 {
        assert_eq!(positions.recv().await, Some(wanted));
    }
}

/// An event whose subject panics ends no life: it is put aside, and the rest goes on.
#[tokio::test]
async fn an_event_whose_subject_panics_is_put_aside() {
    let world = World::new().await;
    let post = Arc::new(Post::default());
    let plain = subject_under("events");
    let args = RelayArgs {
        subject: Arc::new(move |event: &RecordedEvent| {
            assert_ne!(event.position.get(), 2, "a fault in the application");
            plain(event)
        }),
        ..args(&world, "post", Arc::clone(&post) as _)
    };
    let running = started(world, args).await;
    running.append("order-1", 3).await;
    running.reached(3).await;
    assert_eq!(post.has(), [1, 3]);
    let claims = running.world.lease().await.claims;
    let note = claims.note("relay.post", &format!("$parked/{:020}", 2)).await.unwrap();
    assert!(note.is_some(), "it is seen");
}

fn any_fault() -> impl Strategy<Value = Fault> {
    prop_oneof![
        (0..30_usize).prop_map(Fault::After),
        Just(Fault::AnswerLost),
        (0..30_usize).prop_map(Fault::Forget),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Whatever the outlet loses, whoever is killed when: in the end the outlet has every event,
    /// and what it has came in the order of the log.
    #[test]
    fn everything_arrives_in_the_order_of_the_log(
        faults in vec(any_fault(), 0..6),
        kills in vec((0..60_u64, 0..3_usize), 0..4),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let post = Arc::new(Post::default());
            *post.faults.lock().unwrap() = faults;
            let running = relay(Arc::clone(&post) as _, EventFilter::ALL).await;
            for n in 0..60 {
                for (_, victim) in kills.iter().filter(|(at, _)| *at == n) {
                    let path = ["/aggregates/relay", "/resources/pool", "/resources/committer"][*victim];
                    let _ = running.world.system.kill(path);
                }
                running.append("order-1", 1).await;
            }
            let all: Vec<u64> = (1..=60).collect();
            let arrived = async {
                while post.has() != all {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            };
            let arrived = tokio::time::timeout(DEADLINE, arrived).await;
            assert!(arrived.is_ok(), "{:?}", post.has());
            running.world.system.shutdown(DEADLINE).await;
        });
    }
}

#[tokio::test]
async fn a_queue_tells_repeats_by_the_log_and_the_position() {
    let broker = Broker::default();
    let queue = broker.queue(QueueOptions::new("events").retention(Retention::Log));
    let receiver = queue.receiver("g").unwrap();
    let running = relay(Arc::new(QueueOutlet::new(queue.sender())), EventFilter::ALL).await;
    let store = running.world.lease().await.store.store_id();
    running.append("order-1", 5).await;
    running.reached(5).await;
    let got = receiver.receive(10, DEADLINE).await.unwrap();
    let ids: Vec<_> = got.iter().map(|one| one.message.id.clone()).collect();
    let wanted: Vec<_> = (1..=5).map(|n| format!("{store}:{n}")).collect();
    assert_eq!(ids, wanted);
    let message = got[0].message.to_message().unwrap();
    assert_eq!(message.subject().as_str(), got[0].message.subject);
    let lease = running.world.lease().await;
    let event = lease.store.read_all(Position::ZERO, 1).await.unwrap().remove(0);
    assert_eq!(got[0].message.payload, event.data);
    assert_eq!(got[0].message.headers["Smith-Event-Id"], event.id.to_string());
    assert_eq!(got[0].message.headers["Smith-Stream"], "order-1");
}

fn letter(n: u32) -> WireMessage {
    WireMessage::new(&Subject::of(["orders"]), format!("o{n}"), n.to_string().into_bytes())
}

#[tokio::test]
async fn a_message_goes_out_if_and_only_if_its_transaction_is_committed() {
    let world = World::new().await;
    let orders = Broker::default().queue(QueueOptions::new("orders"));
    let queue = orders.receiver("g").unwrap();
    let nudge = Nudge::default();
    let args = TableArgs {
        pool: POOL.into(),
        owner: "test".into(),
        queue: orders.sender(),
        nudge: nudge.clone(),
        shown: Arc::default(),
        letters: letters_of(&world),
    };
    let supervisor = world.system.supervisor("/aggregates").unwrap();
    let spec = ChildSpec::component::<TableRelay>("table", args);
    supervisor.spawn_spec::<TableMessage>(spec).await.unwrap();
    let url = format!("sqlite://{}", world.path().display());
    let mut connection = SqliteConnection::connect(&url).await.unwrap();
    connection.execute("create table orders (id integer primary key) strict").await.unwrap();
    for n in 1..=6 {
        let mut transaction = connection.begin().await.unwrap();
        sqlx::query("insert into orders values (?)")
            .bind(n)
            .execute(&mut *transaction)
            .await
            .unwrap();
        sqlite::put(&mut transaction, &letter(n).header("Kind", "order")).await.unwrap();
        match n % 2 {
            0 => transaction.commit().await.unwrap(),
            _ => transaction.rollback().await.unwrap(),
        }
        if n == 3 {
            world.system.kill("/aggregates/table").unwrap();
        }
        nudge.nudge();
    }
    let mut got = Vec::new();
    while got.len() < 3 {
        for one in queue.receive(10, DEADLINE).await.unwrap() {
            assert_eq!(one.message.headers["Kind"], "order");
            got.push(one.message.id.clone());
            queue.ack(&one.receipt).await.unwrap();
        }
    }
    assert_eq!(got, ["o2", "o4", "o6"]);
    let lease = world.lease().await;
    let empty = async {
        while !lease.messages.outgoing(10).await.unwrap().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(DEADLINE, empty).await.expect("what was sent is removed");
}

#[tokio::test]
async fn a_repeat_is_known_as_long_as_it_is_remembered() {
    let world = World::new().await;
    let url = format!("sqlite://{}", world.path().display());
    let mut connection = SqliteConnection::connect(&url).await.unwrap();
    let wall = || Timestamp::from_micros(world.system.clock().wall_us());
    let before = Timestamp::from_micros(wall().as_micros() - 1_000_000);
    let mut first = async |commit: bool| {
        let mut transaction = connection.begin().await.unwrap();
        let first = sqlite::first_time(&mut transaction, "mailer", "m1").await.unwrap();
        match commit {
            true => transaction.commit().await.unwrap(),
            false => transaction.rollback().await.unwrap(),
        }
        first
    };
    assert!(first(false).await);
    assert!(first(true).await, "a transaction that was rolled back has handled nothing");
    assert!(!first(true).await);
    let messages = world.lease().await.messages;
    assert_eq!(messages.forget(before).await.unwrap(), 0, "only what is older");
    // By the database's clock, and not by what a message says of its time.
    let after = Timestamp::from_micros(wall().as_micros() + 1_000_000);
    assert_eq!(messages.forget(after).await.unwrap(), 1);
    assert!(first(true).await);
    assert!(
        sqlite::first_time(&mut connection, "other", "m1").await.unwrap(),
        "each consumer has its own"
    );
}
