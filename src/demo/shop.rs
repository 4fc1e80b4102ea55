//! A shop: baskets that are filled, shelves that orders take from, and the orders, each a saga
//! that reserves, pays and ships, and takes it all back when it is refused.

use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::future::join_all;
use mister_smith_actors::aggregate::Aggregate;
use mister_smith_actors::command::{CommandBus, CommandEnvelope};
use mister_smith_actors::event::{Event, Metadata};
use mister_smith_actors::saga::{Saga, Sagas, Step, StepContext, StepError};
use mister_smith_supervisors::{Actor, Context, Failure, StartError, TaskGuard};
use serde::{Deserialize, Serialize};

use super::agents;
use super::luck::Luck;
use crate::system::SystemCore;

/// Baskets that are filled.
const BASKETS: usize = 300;

/// Shelves that orders take from.
const SHELVES: usize = 8;

/// How often baskets are filled.
const BEAT: Duration = Duration::from_millis(100);

/// How often an order comes.
const ORDERS: Duration = Duration::from_secs(1);

/// Commands that are under way at once.
const AT_ONCE: usize = 64;

/// A basket of a customer.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Basket {
    cents: u64,
}

pub(super) enum BasketCommand {
    Add(u64),
    CheckOut,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) enum BasketEvent {
    #[serde(rename = "basket.filled")]
    Filled { cents: u64 },
    #[serde(rename = "basket.checked_out")]
    CheckedOut { cents: u64 },
}

impl Event for BasketEvent {}

#[derive(Debug, thiserror::Error)]
#[error("there is nothing in it")]
pub(super) struct Empty;

impl Aggregate for Basket {
    type Command = BasketCommand;
    type Event = BasketEvent;
    type Rejection = Empty;
    const CATEGORY: &'static str = "basket";

    fn decide(&self, command: &BasketCommand) -> Result<Vec<BasketEvent>, Empty> {
        match command {
            BasketCommand::Add(cents) => Ok(vec![BasketEvent::Filled { cents: *cents }]),
            BasketCommand::CheckOut if self.cents == 0 => Err(Empty),
            BasketCommand::CheckOut => Ok(vec![BasketEvent::CheckedOut { cents: self.cents }]),
        }
    }

    fn evolve(&mut self, event: BasketEvent) {
        match event {
            BasketEvent::Filled { cents } => self.cents += cents,
            BasketEvent::CheckedOut { .. } => self.cents = 0,
        }
    }
}

/// A shelf: how much of it is promised to orders.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Shelf {
    reserved: u64,
}

pub(super) enum ShelfCommand {
    Reserve,
    Release,
    Ship,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) enum ShelfEvent {
    #[serde(rename = "shelf.reserved")]
    Reserved {},
    #[serde(rename = "shelf.released")]
    Released {},
    #[serde(rename = "shelf.shipped")]
    Shipped {},
}

impl Event for ShelfEvent {}

impl Aggregate for Shelf {
    type Command = ShelfCommand;
    type Event = ShelfEvent;
    type Rejection = Infallible;
    const CATEGORY: &'static str = "shelf";

    fn decide(&self, command: &ShelfCommand) -> Result<Vec<ShelfEvent>, Infallible> {
        Ok(match command {
            ShelfCommand::Reserve => vec![ShelfEvent::Reserved {}],
            ShelfCommand::Release if self.reserved > 0 => vec![ShelfEvent::Released {}],
            ShelfCommand::Ship if self.reserved > 0 => vec![ShelfEvent::Shipped {}],
            ShelfCommand::Release | ShelfCommand::Ship => vec![],
        })
    }

    fn evolve(&mut self, event: ShelfEvent) {
        match event {
            ShelfEvent::Reserved {} => self.reserved += 1,
            ShelfEvent::Released {} | ShelfEvent::Shipped {} => {
                self.reserved = self.reserved.saturating_sub(1);
            }
        }
    }
}

/// Where the steps of orders hand in commands: sagas are declared before the node is up.
#[derive(Debug, Default)]
pub(super) struct Counter(OnceLock<CommandBus>);

impl Counter {
    pub(super) fn open(&self, commands: CommandBus) {
        let _ = self.0.set(commands);
    }

    /// Does something to a shelf, once for a key.
    async fn shelf(&self, order: &Order, what: ShelfCommand, key: &str) -> Result<(), StepError> {
        let closed = || StepError::retry("the shop is not open yet");
        let commands = self.0.get().ok_or_else(closed)?;
        let command = CommandEnvelope::new(what).key(key);
        commands.send::<Shelf>(&order.shelf, command).await.map_err(StepError::retry)?;
        Ok(())
    }
}

/// What an order is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Order {
    shelf: String,
    cents: u64,
    /// Decides how it goes, with the number of the try.
    luck: u64,
}

impl Order {
    fn luck(&self, purpose: &str, attempt: u32) -> Luck {
        Luck::of(self.luck, &format!("{purpose} {attempt}"))
    }
}

/// An order: reserve, pay, ship. One in five is refused, and what was done for it is undone.
pub(super) fn order(counter: &Arc<Counter>) -> Saga<Order> {
    let at = || Arc::clone(counter);
    let (reserve, release, ship) = (at(), at(), at());
    Saga::new("order")
        .step(
            Step::new("reserve", move |cx: StepContext<Order>| {
                let counter = Arc::clone(&reserve);
                async move {
                    counter.shelf(&cx.data, ShelfCommand::Reserve, &cx.key).await?;
                    Ok(cx.data)
                }
            })
            .undo(move |cx: StepContext<Order>| {
                let counter = Arc::clone(&release);
                async move { counter.shelf(&cx.data, ShelfCommand::Release, &cx.key).await }
            }),
        )
        .step(Step::new("pay", |cx: StepContext<Order>| async move {
            if cx.data.luck("refuse", 0).one_in(5) {
                return Err(StepError::refused(format!("{} cents are too much", cx.data.cents)));
            }
            match cx.data.luck("pay", cx.attempt).one_in(4) {
                true => Err(StepError::retry("the bank does not answer")),
                false => Ok(cx.data),
            }
        }))
        .step(Step::new("ship", move |cx: StepContext<Order>| {
            let counter = Arc::clone(&ship);
            async move {
                counter.shelf(&cx.data, ShelfCommand::Ship, &cx.key).await?;
                Ok(cx.data)
            }
        }))
}

/// How many commands went well, and how many did not.
#[derive(Debug, Default)]
struct Tally {
    done: AtomicU64,
    failed: AtomicU64,
}

impl Tally {
    fn count<T, E>(&self, outcome: &Result<T, E>) {
        let counter = if outcome.is_ok() { &self.done } else { &self.failed };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    fn show<A: Actor>(tally: &Arc<Self>, cx: &Context<A>, what: &'static str) {
        let tally = Arc::clone(tally);
        cx.describe(move || {
            let count = |one: &AtomicU64| one.load(Ordering::Relaxed);
            format!("{} {what}, {} not", count(&tally.done), count(&tally.failed))
        });
    }
}

/// Fills baskets, so many a second.
struct Till {
    given: TillArgs,
    luck: Luck,
    tally: Arc<Tally>,
    /// Thousandths of commands that are due.
    due: u64,
    next: TaskGuard,
}

#[derive(Clone)]
struct TillArgs {
    seed: u64,
    rate: u32,
    commands: CommandBus,
}

/// Time to do something.
struct Turn;

impl Actor for Till {
    type Message = Turn;
    type Args = TillArgs;

    async fn start(given: &TillArgs, cx: &mut Context<Self>) -> Result<Self, StartError> {
        let luck = Luck::of(given.seed, &format!("till {}", cx.life()));
        let tally = Arc::default();
        Tally::show(&tally, cx, "commands done");
        Ok(Self { given: given.clone(), luck, tally, due: 0, next: cx.tell_after(BEAT, Turn) })
    }

    async fn handle(&mut self, _: Turn, cx: &mut Context<Self>) -> Result<(), Failure> {
        // What the store cannot take is not made up for later: only the next beat is due.
        self.due += u64::from(self.given.rate) * 100;
        let mut left = self.due / 1_000;
        self.due %= 1_000;
        while left > 0 {
            let batch = left.min(AT_ONCE as u64);
            left -= batch;
            let commands = (0..batch).map(|_| {
                let id = self.luck.below(BASKETS).to_string();
                let command = match self.luck.one_in(10) {
                    true => BasketCommand::CheckOut,
                    false => BasketCommand::Add(100 + self.luck.below(5_000) as u64),
                };
                let bus = &self.given.commands;
                async move { bus.send::<Basket>(&id, command).await }
            });
            let commands: Vec<_> = commands.collect();
            for outcome in join_all(commands).await {
                self.tally.count(&outcome);
            }
        }
        self.next = cx.tell_after(BEAT, Turn);
        Ok(())
    }
}

/// Begins an order every second.
struct Customers {
    luck: Luck,
    sagas: Sagas,
    tally: Arc<Tally>,
    next: TaskGuard,
}

impl Actor for Customers {
    type Message = Turn;
    type Args = (u64, Sagas);

    async fn start((seed, sagas): &Self::Args, cx: &mut Context<Self>) -> Result<Self, StartError> {
        let luck = Luck::of(*seed, &format!("customers {}", cx.life()));
        let tally = Arc::default();
        Tally::show(&tally, cx, "orders begun");
        Ok(Self { luck, sagas: sagas.clone(), tally, next: cx.tell_after(BEAT, Turn) })
    }

    async fn handle(&mut self, _: Turn, cx: &mut Context<Self>) -> Result<(), Failure> {
        let shelf = self.luck.below(SHELVES).to_string();
        let cents = 500 + self.luck.below(90_000) as u64;
        let order = Order { shelf, cents, luck: self.luck.next() };
        // A store that is kept has orders of earlier demos; the time tells them apart.
        let id = cx.clock().wall_us().to_string();
        let outcome = self.sagas.start("order", &id, &order, Metadata::default()).await;
        self.tally.count(&outcome);
        self.next = cx.tell_after(ORDERS, Turn);
        Ok(())
    }
}

/// Starts those who fill baskets and order.
pub(super) async fn employ(node: &SystemCore, seed: u64, rate: u32) -> anyhow::Result<()> {
    let till = TillArgs { seed, rate, commands: node.commands().clone() };
    agents::employ::<Till>(node, "till", till).await?;
    agents::employ::<Customers>(node, "customers", (seed, node.sagas().clone())).await
}
