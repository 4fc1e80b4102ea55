//! An order as a saga: reserve, pay, ship; and back again when the payment is refused.
//!
//! `cargo run --example saga_order`

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use mister_smith::prelude::*;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Order {
    item: String,
    cents: u64,
    parcel: Option<String>,
}

/// A warehouse. It knows a repeat by its key, as every participant of a saga has to.
#[derive(Default)]
struct Warehouse {
    reserved: Mutex<BTreeMap<String, String>>,
}

impl Warehouse {
    fn reserve(&self, key: &str, item: &str) {
        let mut reserved = self.reserved.lock().expect("nobody panics with it");
        reserved.entry(key.to_owned()).or_insert_with(|| item.to_owned());
    }

    fn release(&self, key: &str) {
        self.reserved.lock().expect("nobody panics with it").remove(key);
    }

    fn count(&self) -> usize {
        self.reserved.lock().expect("nobody panics with it").len()
    }
}

fn order_saga(warehouse: &Arc<Warehouse>) -> Saga<Order> {
    let (reserve, release) = (Arc::clone(warehouse), Arc::clone(warehouse));
    Saga::new("order")
        .step(
            Step::new("reserve", move |cx: StepContext<Order>| {
                let warehouse = Arc::clone(&reserve);
                async move {
                    warehouse.reserve(&cx.key, &cx.data.item);
                    Ok(cx.data)
                }
            })
            .undo(move |cx: StepContext<Order>| {
                let warehouse = Arc::clone(&release);
                async move {
                    warehouse.release(cx.key.trim_end_matches("/undo"));
                    Ok(())
                }
            }),
        )
        .step(Step::new("pay", |cx: StepContext<Order>| async move {
            match cx.data.cents {
                0..10_000 => Ok(cx.data),
                cents => Err(StepError::refused(format!("{cents} cents are above the limit"))),
            }
        }))
        .step(Step::new("ship", |cx: StepContext<Order>| async move {
            Ok(Order { parcel: Some(format!("parcel for {}", cx.saga)), ..cx.data })
        }))
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let warehouse = Arc::new(Warehouse::default());
    let core = SystemCore::embedded()
        .store(format!("sqlite://{}", directory.path().join("smith.db").display()))
        .saga(order_saga(&warehouse))
        .start()
        .await?;

    let order = |item: &str, cents| Order { item: item.to_owned(), cents, parcel: None };
    core.sagas().start("order", "1", &order("a book", 1_900), Metadata::default()).await?;
    core.sagas().start("order", "2", &order("a piano", 900_000), Metadata::default()).await?;
    for id in ["1", "2"] {
        let state = core.sagas().wait("order", id).await?;
        println!("order {id}: {:?} {}", state.status, state.reason.unwrap_or_default());
        for (_, event) in core.sagas().history("order", id).await? {
            println!("    {event:?}");
        }
    }
    println!("reserved: {}", warehouse.count());
    anyhow::ensure!(warehouse.count() == 1, "the piano is back on its shelf");
    core.stop(mister_smith::system::DEFAULT_STOP_DEADLINE).await;
    Ok(())
}
