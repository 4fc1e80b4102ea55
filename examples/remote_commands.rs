//! One node serves an aggregate, another sends it commands; the key makes a repeat harmless.
//!
//! `cargo run --example remote_commands`

use std::sync::Arc;

use mister_smith::actors::bus::remote::in_process::Network;
use mister_smith::actors::command::remote::server::{Refusal, ServeOptions, Served};
use mister_smith::actors::command::remote::{RemoteCommandError, RemoteOptions};
use mister_smith::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::json;

#[derive(Default, Serialize, Deserialize)]
struct Account {
    cents: u64,
}

#[derive(Serialize, Deserialize)]
enum Order {
    Deposit(u64),
    Withdraw(u64),
}

#[derive(Serialize, Deserialize)]
enum Happened {
    #[serde(rename = "account.deposited")]
    Deposited { cents: u64 },
    #[serde(rename = "account.withdrawn")]
    Withdrawn { cents: u64 },
}

impl Event for Happened {}

#[derive(Debug, thiserror::Error)]
#[error("there are only {0} cents")]
struct TooMuch(u64);

impl Aggregate for Account {
    type Command = Order;
    type Event = Happened;
    type Rejection = TooMuch;
    const CATEGORY: &'static str = "account";

    fn decide(&self, order: &Order) -> Result<Vec<Happened>, TooMuch> {
        match *order {
            Order::Deposit(cents) => Ok(vec![Happened::Deposited { cents }]),
            Order::Withdraw(cents) if cents > self.cents => Err(TooMuch(self.cents)),
            Order::Withdraw(cents) => Ok(vec![Happened::Withdrawn { cents }]),
        }
    }

    fn evolve(&mut self, event: Happened) {
        match event {
            Happened::Deposited { cents } => self.cents += cents,
            Happened::Withdrawn { cents } => self.cents -= cents,
        }
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let file = |name: &str| format!("sqlite://{}", directory.path().join(name).display());
    // Between processes it is `Broker::new("nats://…")?`, given to both nodes with `.broker(…)`,
    // and its `remote()`.
    let network = Arc::new(Network::default());
    let refusals = |TooMuch(cents): &TooMuch| Refusal {
        code: "too_much".to_owned(),
        data: json!({ "cents": cents }),
    };
    let bank = SystemCore::embedded()
        .name("bank")
        .store(file("bank.db"))
        .serve_commands(
            Arc::clone(&network) as _,
            ServeOptions::default(),
            [Served::with_refusals::<Account>(refusals)],
        )
        .start()
        .await?;
    let shop = SystemCore::embedded().name("shop").store(file("shop.db")).start().await?;

    let commands = shop.remote_commands(network, RemoteOptions::default());
    let deposit = || CommandEnvelope::new(Order::Deposit(500)).key("payment 17");
    let first = commands.send::<Account>("ann", deposit()).await?;
    println!("{} is at version {}", first.stream, first.version);
    let again = commands.send::<Account>("ann", deposit()).await?;
    println!("sent again: version {}, duplicate {}", again.version, again.duplicate);
    match commands.send::<Account>("ann", Order::Withdraw(900)).await {
        Err(RemoteCommandError::Refused(problem)) => {
            println!("{}: {} {}", problem.code, problem.detail, problem.data);
        }
        other => anyhow::bail!("expected a refusal, got {other:?}"),
    }
    println!("{}", bank.tree());
    for node in [shop, bank] {
        node.stop(mister_smith::system::DEFAULT_STOP_DEADLINE).await;
    }
    Ok(())
}
