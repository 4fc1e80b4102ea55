//! A choreography: an order that is placed asks the warehouse, hears what it says, and is given up
//! if nobody pays in time. No place knows the whole way; each says what it concludes.
//!
//! `cargo run --example process_order`

use std::time::Duration;

use mister_smith::actors::event::{Decoder, EventCodecError, RecordedEvent};
use mister_smith::actors::store::EventFilter;
use mister_smith::prelude::*;
use serde::{Deserialize, Serialize};

/// What customers do.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Order;

enum OrderCommand {
    Place,
    Pay,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum OrderEvent {
    #[serde(rename = "order.placed")]
    Placed {},
    #[serde(rename = "order.paid")]
    Paid {},
}

impl Event for OrderEvent {}

impl Aggregate for Order {
    type Command = OrderCommand;
    type Event = OrderEvent;
    type Rejection = std::convert::Infallible;
    const CATEGORY: &'static str = "order";

    fn decide(&self, command: &OrderCommand) -> Result<Vec<OrderEvent>, Self::Rejection> {
        Ok(vec![match command {
            OrderCommand::Place => OrderEvent::Placed {},
            OrderCommand::Pay => OrderEvent::Paid {},
        }])
    }

    fn evolve(&mut self, _: OrderEvent) {}
}

/// What the warehouse has.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Goods {
    reserved: u32,
}

enum GoodsCommand {
    Reserve,
    Release,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum GoodsEvent {
    #[serde(rename = "goods.reserved")]
    Reserved {},
    #[serde(rename = "goods.released")]
    Released {},
}

impl Event for GoodsEvent {}

#[derive(Debug, thiserror::Error)]
#[error("there are only two")]
struct SoldOut;

impl Aggregate for Goods {
    type Command = GoodsCommand;
    type Event = GoodsEvent;
    type Rejection = SoldOut;
    const CATEGORY: &'static str = "goods";

    fn decide(&self, command: &GoodsCommand) -> Result<Vec<GoodsEvent>, SoldOut> {
        match command {
            GoodsCommand::Reserve if self.reserved == 2 => Err(SoldOut),
            GoodsCommand::Reserve => Ok(vec![GoodsEvent::Reserved {}]),
            GoodsCommand::Release => Ok(vec![GoodsEvent::Released {}]),
        }
    }

    fn evolve(&mut self, event: GoodsEvent) {
        match event {
            GoodsEvent::Reserved {} => self.reserved += 1,
            GoodsEvent::Released {} => self.reserved -= 1,
        }
    }
}

/// Sees to it that an order that is placed ends: paid, or given up with its goods released.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Fulfilment {
    state: State,
}

#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
enum State {
    #[default]
    New,
    Waiting,
    Ended,
}

enum Hears {
    Placed,
    SoldOut,
    Paid,
    TooLate,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum Concluded {
    #[serde(rename = "fulfilment.begun")]
    Begun {},
    #[serde(rename = "fulfilment.completed")]
    Completed {},
    #[serde(rename = "fulfilment.given_up")]
    GivenUp { why: String, release: bool },
}

impl Event for Concluded {}

impl Aggregate for Fulfilment {
    type Command = Hears;
    type Event = Concluded;
    type Rejection = std::convert::Infallible;
    const CATEGORY: &'static str = "fulfilment";

    fn decide(&self, heard: &Hears) -> Result<Vec<Concluded>, Self::Rejection> {
        let given_up = |why: &str, release| Concluded::GivenUp { why: why.to_owned(), release };
        Ok(match (heard, &self.state) {
            (Hears::Placed, State::New) => vec![Concluded::Begun {}],
            (Hears::SoldOut, State::Waiting) => vec![given_up("sold out", false)],
            (Hears::Paid, State::Waiting) => vec![Concluded::Completed {}],
            (Hears::TooLate, State::Waiting) => vec![given_up("nobody paid", true)],
            _ => vec![],
        })
    }

    fn evolve(&mut self, event: Concluded) {
        self.state = match event {
            Concluded::Begun {} => State::Waiting,
            _ => State::Ended,
        };
    }
}

impl Process for Fulfilment {
    fn reacts_to() -> EventFilter {
        EventFilter::ALL.categories(["order"])
    }

    fn on(event: &RecordedEvent) -> Result<Option<(String, Hears)>, EventCodecError> {
        let heard = match Decoder::<OrderEvent>::new().decode(event)? {
            OrderEvent::Placed {} => Hears::Placed,
            OrderEvent::Paid {} => Hears::Paid,
        };
        let order = event.stream.as_str().trim_start_matches("order-");
        Ok(Some((order.to_owned(), heard)))
    }

    fn then(_: &str, event: &Concluded) -> Vec<Effect<Self>> {
        match event {
            Concluded::Begun {} => vec![
                Effect::send::<Goods>("reserve", "shelf", GoodsCommand::Reserve)
                    .refused(|_| Hears::SoldOut),
                // In a shop this would be days; it is in the store, and comes after any restart.
                Effect::after("payment", Duration::from_millis(400), || Hears::TooLate),
            ],
            Concluded::GivenUp { release: true, .. } => {
                vec![Effect::send::<Goods>("release", "shelf", GoodsCommand::Release)]
            }
            _ => vec![],
        }
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let store = format!("sqlite://{}", dir.path().join("shop.db").display());
    let system = SystemCore::embedded().store(store).start().await?;
    system.processes().start::<Fulfilment>(ProcessOptions::default()).await?;
    for order in ["1", "2", "3"] {
        system.commands().send::<Order>(order, OrderCommand::Place).await?;
    }
    // Whoever dies meanwhile: the process goes on where it was.
    system.actors().kill("/domain/consumers/fulfilment.reactions")?;
    system.commands().send::<Order>("1", OrderCommand::Pay).await?;
    for order in ["1", "2", "3"] {
        while !system
            .commands()
            .look::<Fulfilment, _>(order, |f, _| f.state == State::Ended)
            .await?
        {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    println!("{}", system.tree());
    let lease = system.pool().lease().await?;
    for event in lease.store.read_all(mister_smith::actors::event::Position::ZERO, 100).await? {
        println!("{:>3}  {:<16}  {}", event.position, event.stream, event.event_type);
    }
    system.stop(Duration::from_secs(10)).await;
    Ok(())
}
