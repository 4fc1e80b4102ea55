//! A process in a node on SQLite: goods that run out, a bank that is slow, actors that are killed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use serde::{Deserialize, Serialize};

use super::{Effect, Process, ProcessError, ProcessOptions};
use crate::aggregate::Aggregate;
use crate::bus::RetryPolicy;
use crate::consumer::ConsumerError;
use crate::event::{
    ContentType, Decoder, Event, EventCodecError, EventId, Metadata, NewEvent, Position,
    RecordedEvent, StreamId, Timestamp,
};
use crate::saga::StepError;
use crate::store::{Append, EventFilter, ExpectedVersion, IdempotencyKey};
use crate::tests::world::World;

mod rings;

const DEADLINE: Duration = Duration::from_secs(30);

/// Goods of one kind.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Stock {
    left: Option<u64>,
    reserved: BTreeSet<String>,
}

#[derive(Debug, Clone)]
enum StockCommand {
    Deliver(u64),
    Reserve(String),
    Release(String),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum StockEvent {
    #[serde(rename = "stock.delivered")]
    Delivered { goods: u64 },
    #[serde(rename = "stock.reserved")]
    Reserved { order: String },
    #[serde(rename = "stock.released")]
    Released { order: String },
}

impl Event for StockEvent {}

#[derive(Debug, thiserror::Error)]
#[error("nothing is left")]
struct SoldOut;

impl Aggregate for Stock {
    type Command = StockCommand;
    type Event = StockEvent;
    type Rejection = SoldOut;
    const CATEGORY: &'static str = "stock";

    fn decide(&self, command: &StockCommand) -> Result<Vec<StockEvent>, SoldOut> {
        Ok(match command {
            StockCommand::Deliver(goods) => vec![StockEvent::Delivered { goods: *goods }],
            StockCommand::Reserve(_) if self.left.unwrap_or(0) == 0 => return Err(SoldOut),
            StockCommand::Reserve(order) => vec![StockEvent::Reserved { order: order.clone() }],
            StockCommand::Release(order) => match self.reserved.contains(order) {
                true => vec![StockEvent::Released { order: order.clone() }],
                false => vec![],
            },
        })
    }

    fn evolve(&mut self, event: StockEvent) {
        let left = self.left.unwrap_or(0);
        match event {
            StockEvent::Delivered { goods } => self.left = Some(left + goods),
            StockEvent::Reserved { order } => {
                // Twice would leave the set as it is, and one good too few.
                self.left = Some(left - 1);
                self.reserved.insert(order);
            }
            StockEvent::Released { order } => {
                self.left = Some(left + 1);
                self.reserved.remove(&order);
            }
        }
    }
}

/// How an order is fulfilled.
#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
struct Fulfilment {
    stage: Stage,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Stage {
    #[default]
    Nothing,
    Begun,
    Reserved,
    Paid,
    Cancelled,
}

#[derive(Debug, Clone)]
enum Hears {
    Placed,
    Reserved,
    SoldOut,
    Paid,
    Declined,
    TooLate,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum Concluded {
    #[serde(rename = "fulfilment.begun")]
    Begun {},
    #[serde(rename = "fulfilment.reserved")]
    Reserved {},
    #[serde(rename = "fulfilment.paid")]
    Paid {},
    #[serde(rename = "fulfilment.cancelled")]
    Cancelled { why: String },
}

impl Event for Concluded {}

impl Aggregate for Fulfilment {
    type Command = Hears;
    type Event = Concluded;
    type Rejection = std::convert::Infallible;
    const CATEGORY: &'static str = "fulfilment";

    fn decide(&self, heard: &Hears) -> Result<Vec<Concluded>, Self::Rejection> {
        let cancelled = |why: &str| vec![Concluded::Cancelled { why: why.to_owned() }];
        Ok(match (heard, self.stage) {
            (Hears::Placed, Stage::Nothing) => vec![Concluded::Begun {}],
            (Hears::Reserved, Stage::Begun) => vec![Concluded::Reserved {}],
            (Hears::SoldOut, Stage::Begun) => cancelled("sold out"),
            (Hears::Paid, Stage::Reserved) => vec![Concluded::Paid {}],
            (Hears::Declined, Stage::Reserved) => cancelled("declined"),
            (Hears::TooLate, Stage::Begun | Stage::Reserved) => cancelled("too late"),
            _ => vec![],
        })
    }

    fn evolve(&mut self, event: Concluded) {
        self.stage = match event {
            Concluded::Begun {} => Stage::Begun,
            Concluded::Reserved {} => Stage::Reserved,
            Concluded::Paid {} => Stage::Paid,
            Concluded::Cancelled { .. } => Stage::Cancelled,
        };
    }
}

/// A bank that has an effect once a key. A process is a type, so the bank of a test is found by
/// the first part of the order's number.
#[derive(Default)]
struct Bank {
    charged: Mutex<BTreeMap<String, u32>>,
}

fn banks() -> &'static Mutex<BTreeMap<String, Arc<Bank>>> {
    static BANKS: OnceLock<Mutex<BTreeMap<String, Arc<Bank>>>> = OnceLock::new();
    BANKS.get_or_init(Mutex::default)
}

fn bank(order: &str) -> Arc<Bank> {
    let test = order.split('.').next().unwrap();
    Arc::clone(banks().lock().unwrap().entry(test.to_owned()).or_default())
}

async fn charge(order: String, key: String) -> Result<Option<Hears>, StepError> {
    tokio::task::yield_now().await;
    if order.ends_with("slow") {
        std::future::pending::<()>().await;
    }
    if order.ends_with("poor") {
        return Ok(Some(Hears::Declined));
    }
    *bank(&order).charged.lock().unwrap().entry(key).or_default() += 1;
    tokio::task::yield_now().await;
    Ok(Some(Hears::Paid))
}

impl Process for Fulfilment {
    fn reacts_to() -> EventFilter {
        EventFilter::ALL.types(["order.placed", "stock.reserved"])
    }

    fn on(event: &RecordedEvent) -> Result<Option<(String, Hears)>, EventCodecError> {
        if &*event.event_type == "order.placed" {
            return Ok(Some((super::id_of(event).to_owned(), Hears::Placed)));
        }
        match Decoder::<StockEvent>::new().decode(event)? {
            StockEvent::Reserved { order } => Ok(Some((order, Hears::Reserved))),
            _ => Ok(None),
        }
    }

    fn then(order: &str, event: &Concluded) -> Vec<Effect<Self>> {
        let order = order.to_owned();
        match event {
            Concluded::Begun {} => {
                let wait = match order.ends_with("slow") {
                    true => Duration::from_millis(300),
                    false => Duration::from_secs(3_600),
                };
                vec![
                    Effect::send::<Stock>("reserve", "goods", StockCommand::Reserve(order))
                        .refused(|_| Hears::SoldOut),
                    Effect::after("too late", wait, || Hears::TooLate),
                ]
            }
            Concluded::Reserved {} => vec![Effect::call("charge", |cx| charge(order, cx.key))],
            Concluded::Paid {} => vec![],
            Concluded::Cancelled { .. } => {
                vec![Effect::send::<Stock>("release", "goods", StockCommand::Release(order))]
            }
        }
    }
}

async fn place(world: &World, order: &str) {
    let event = NewEvent::new(
        EventId::at(Timestamp::from_micros(1_000), number_of(order), 0),
        "order.placed",
        ContentType::Json,
        "{}",
        Timestamp::from_micros(1_000),
    );
    let stream = StreamId::new(format!("order-{order}")).unwrap();
    let append = Append {
        key: Some(IdempotencyKey::of(["place", order])),
        ..Append::new(stream, ExpectedVersion::Any, vec![event])
    };
    while world.commit(append.clone()).await.is_err() {
        tokio::task::yield_now().await;
    }
}

/// A number that is another one for another text.
fn number_of(text: &str) -> u64 {
    let key = IdempotencyKey::of([text]);
    u64::from_le_bytes(key.as_bytes()[..8].try_into().unwrap())
}

async fn deliver(world: &World, goods: u64) {
    let command = crate::command::CommandEnvelope::new(StockCommand::Deliver(goods)).key("first");
    while world.commands.send::<Stock>("goods", command.clone()).await.is_err() {
        tokio::task::yield_now().await;
    }
}

async fn stage(world: &World, order: &str) -> Stage {
    loop {
        let looked = world.commands.look::<Fulfilment, _>(order, |state, _| state.stage).await;
        if let Ok(stage) = looked {
            return stage;
        }
        tokio::task::yield_now().await;
    }
}

async fn ended(world: &World, order: &str) -> Stage {
    let waiting = async {
        loop {
            let head = *world.head.borrow();
            let stage = stage(world, order).await;
            if matches!(stage, Stage::Paid | Stage::Cancelled) {
                return stage;
            }
            let mut growing = world.head.subscribe();
            let grown = growing.wait_for(|now| *now > head);
            // A look that met a restart may have been at an old state.
            let _ = tokio::time::timeout(Duration::from_millis(200), grown).await;
        }
    };
    tokio::time::timeout(DEADLINE, waiting).await.expect("it comes to an end")
}

async fn stock(world: &World) -> (u64, usize) {
    let looked = world
        .commands
        .look::<Stock, _>("goods", |state, _| (state.left.unwrap_or(0), state.reserved.len()));
    looked.await.unwrap()
}

#[tokio::test]
async fn an_order_goes_its_way_from_one_to_the_next() {
    let world = World::new().await;
    deliver(&world, 2).await;
    let process = world.processes.start::<Fulfilment>(ProcessOptions::default()).await.unwrap();
    place(&world, "way.1").await;
    assert_eq!(ended(&world, "way.1").await, Stage::Paid);
    place(&world, "way.2-poor").await;
    assert_eq!(ended(&world, "way.2-poor").await, Stage::Cancelled);
    place(&world, "way.3").await;
    assert_eq!(ended(&world, "way.3").await, Stage::Paid);
    place(&world, "way.4").await;
    assert_eq!(ended(&world, "way.4").await, Stage::Cancelled, "sold out");
    assert_eq!(stock(&world).await, (0, 2));
    assert_eq!(bank("way").charged.lock().unwrap().values().copied().collect::<Vec<_>>(), [1, 1]);

    let head = *world.head.borrow();
    process.effects().wait_for(head).await;
    assert_eq!(process.effects().status().dead, 0);
    assert_eq!(process.reactions().status().dead, 0);
    let twice = world.processes.start::<Fulfilment>(ProcessOptions::default()).await;
    let exists = matches!(twice, Err(ProcessError::Consumer(ConsumerError::Exists { .. })));
    assert!(exists, "{twice:?}");

    // Every event of an order names the one that caused it, back to its first.
    let lease = world.lease().await;
    let log = lease.store.read_all(Position::ZERO, 1_000).await.unwrap();
    let placed = log.iter().find(|event| event.stream.as_str() == "order-way.1").unwrap();
    let mut at = log
        .iter()
        .find(|event| {
            event.stream.as_str() == "fulfilment-way.1" && &*event.event_type == "fulfilment.paid"
        })
        .unwrap();
    let mut hops = Vec::new();
    while at.id != placed.id {
        hops.push(&*at.event_type);
        let meta = Metadata::from_bytes(&at.meta);
        assert_eq!(meta.correlation_id, Some(*placed.id.as_uuid()));
        let cause = meta.causation_id.unwrap();
        at = log.iter().find(|event| *event.id.as_uuid() == cause).unwrap();
    }
    assert_eq!(
        hops,
        ["fulfilment.paid", "fulfilment.reserved", "stock.reserved", "fulfilment.begun"]
    );
}

#[tokio::test]
async fn a_deadline_comes_after_a_restart_too() {
    let impatient = ProcessOptions::default()
        .deadline(Duration::from_millis(100))
        .retry(RetryPolicy::attempts(2));
    let world = World::new().await;
    deliver(&world, 1).await;
    world.processes.start::<Fulfilment>(ProcessOptions::default()).await.unwrap();
    place(&world, "late.slow").await;
    // Up to where the bank does not answer.
    while stage(&world, "late.slow").await != Stage::Reserved {
        tokio::task::yield_now().await;
    }
    let world = world.again(Vec::new()).await;
    assert_eq!(stage(&world, "late.slow").await, Stage::Reserved, "it was not begun again yet");
    world.processes.start::<Fulfilment>(impatient).await.unwrap();
    assert_eq!(ended(&world, "late.slow").await, Stage::Cancelled);
    // The bank is given up, so that the goods are free again.
    let released = async {
        while stock(&world).await != (1, 0) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, released).await.expect("what comes later goes on");
    world.settled().await;
    let letters = world.letters.list(Some("fulfilment.effects"), None, 10).await.unwrap();
    assert_eq!(letters.len(), 1);
}

/// Deadlines that were found in the store waited until the log went on.
#[tokio::test]
async fn a_deadline_that_was_found_in_the_store_needs_no_other_event() {
    let world = World::new().await;
    deliver(&world, 1).await;
    world.processes.start::<Fulfilment>(ProcessOptions::default()).await.unwrap();
    place(&world, "quiet.slow").await;
    while stage(&world, "quiet.slow").await != Stage::Reserved {
        tokio::task::yield_now().await;
    }
    // The place is at the end of the log when the node stops, so that nothing is read again.
    let lease = world.lease().await;
    let head = lease.store.head().await.unwrap();
    while lease.claims.place("timers.fulfilment").await.unwrap().unwrap().position < head {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let world = world.again(Vec::new()).await;
    // Only the deadlines: nothing else goes on, and so nothing is appended.
    world.processes.timers_of::<Fulfilment>().await.unwrap();
    assert_eq!(ended(&world, "quiet.slow").await, Stage::Cancelled);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

    /// Whoever is killed when: every order ends, goods are reserved once for those that were paid
    /// and for nobody else, and the bank was asked under one name for each.
    #[test]
    fn every_order_ends_and_every_effect_is_had_once(
        goods in 0..12_u64,
        kills in vec((0..12_usize, 0..9_usize), 0..8),
        run in any::<u64>(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let world = World::new().await;
            deliver(&world, goods).await;
            world.processes.start::<Fulfilment>(ProcessOptions::default()).await.unwrap();
            let orders: Vec<String> = (0..12)
                .map(|n| format!("law{run}.{n}{}", if n % 4 == 3 { "-poor" } else { "" }))
                .collect();
            for (n, order) in orders.iter().enumerate() {
                for (_, victim) in kills.iter().filter(|(at, _)| *at == n) {
                    let victim = [
                        "/consumers/fulfilment.reactions",
                        "/consumers/fulfilment.effects",
                        "/consumers/fulfilment.timers",
                        "/timers/process.fulfilment",
                        "/resources/pool",
                        "/resources/committer",
                        "/aggregates/stock-goods",
                        "/aggregates",
                        "/consumers",
                    ][*victim];
                    let _ = world.system.kill(victim);
                }
                place(&world, order).await;
            }
            let mut paid = 0;
            for order in &orders {
                paid += u64::from(ended(&world, order).await == Stage::Paid);
            }
            let settled = async {
                while stock(&world).await != (goods - paid, usize::try_from(paid).unwrap()) {
                    tokio::task::yield_now().await;
                }
            };
            let settled = tokio::time::timeout(DEADLINE, settled).await;
            assert!(settled.is_ok(), "{:?} of {goods}, {paid} paid", stock(&world).await);
            let charged = bank(&orders[0]).charged.lock().unwrap().len() as u64;
            assert_eq!(charged, paid, "names under which the bank was asked");
            assert!(world.letters.list(None, None, 10).await.unwrap().is_empty());
            world.system.shutdown(DEADLINE).await;
        });
    }
}
