//! An event-sourced account: commands, rejections, the same key twice, a crash, a read model.

use std::sync::Arc;

use mister_smith::actors::aggregate::fixture;
use mister_smith::actors::event::{Decoder, RecordedEvent};
use mister_smith::actors::projection::{Compare, ListQuery, Projection, ProjectionFault};
use mister_smith::prelude::*;
use serde::{Deserialize, Serialize};

/// What an account is: made of its events, and of nothing else.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Account {
    open: bool,
    cents: u64,
}

enum Command {
    Open,
    Deposit(u64),
    Withdraw(u64),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum Happened {
    #[serde(rename = "account.opened")]
    Opened,
    #[serde(rename = "account.deposited")]
    Deposited { cents: u64 },
    #[serde(rename = "account.withdrawn")]
    Withdrawn { cents: u64 },
}

impl Event for Happened {}

#[derive(Debug, PartialEq, thiserror::Error)]
enum Refused {
    #[error("the account is not open")]
    NotOpen,
    #[error("there are only {0} cents")]
    TooMuch(u64),
}

impl Aggregate for Account {
    type Command = Command;
    type Event = Happened;
    type Rejection = Refused;
    const CATEGORY: &'static str = "account";

    fn decide(&self, command: &Command) -> Result<Vec<Happened>, Refused> {
        match *command {
            Command::Open if self.open => Ok(vec![]),
            Command::Open => Ok(vec![Happened::Opened]),
            _ if !self.open => Err(Refused::NotOpen),
            Command::Deposit(cents) => Ok(vec![Happened::Deposited { cents }]),
            Command::Withdraw(cents) if cents > self.cents => Err(Refused::TooMuch(self.cents)),
            Command::Withdraw(cents) => Ok(vec![Happened::Withdrawn { cents }]),
        }
    }

    fn evolve(&mut self, event: Happened) {
        match event {
            Happened::Opened => self.open = true,
            Happened::Deposited { cents } => self.cents += cents,
            Happened::Withdrawn { cents } => self.cents -= cents,
        }
    }
}

/// A read model: the balance of every account, to be listed and filtered.
struct Balances;

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Balance {
    cents: u64,
}

impl Projection for Balances {
    type Document = Balance;
    const NAME: &'static str = "balances";

    fn ids(&self, event: &RecordedEvent) -> Vec<Arc<str>> {
        match event.stream.category() {
            "account" => vec![event.stream.to_shared()],
            _ => vec![],
        }
    }

    fn apply(
        &self,
        event: &RecordedEvent,
        _: &str,
        balance: Option<Balance>,
    ) -> Result<Option<Balance>, ProjectionFault> {
        let mut balance = balance.unwrap_or_default();
        match Decoder::new().decode(event)? {
            Happened::Opened => {}
            Happened::Deposited { cents } => balance.cents += cents,
            Happened::Withdrawn { cents } => balance.cents -= cents,
        }
        Ok(Some(balance))
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    // The rules alone, without a store.
    fixture::given::<Account>([Happened::Opened, Happened::Deposited { cents: 5 }])
        .when(Command::Withdraw(7))
        .then_rejected(&Refused::TooMuch(5));

    let dir = tempfile::tempdir()?;
    let store = format!("sqlite://{}", dir.path().join("bank.db").display());
    let node = SystemCore::embedded().store(store).aggregate::<Account>().projection(Balances);
    let node = node.start().await?;
    let bank = node.commands();

    bank.send::<Account>("17", Command::Open).await?;
    let deposit = || CommandEnvelope::new(Command::Deposit(250)).key("payment 4711");
    let first = bank.send::<Account>("17", deposit()).await?;
    let again = bank.send::<Account>("17", deposit()).await?; // the same answer, no second effect
    assert_eq!((again.version, again.duplicate), (first.version, true));
    println!("deposited once: {} at version {}", first.stream, first.version);

    let refused = bank.send::<Account>("17", Command::Withdraw(300)).await;
    if let Err(refused) = refused {
        println!("withdrawing 300: {refused}");
    }

    node.actors().kill("/domain/aggregates/account-17")?;
    let cents = bank.look("17", |account: &Account, _| account.cents).await?;
    println!("after a kill the state comes back from the log: {cents} cents");

    let balances = node.projection("balances")?;
    if let Some(position) = first.position {
        balances.wait_for(position).await?; // read your own write
    }
    let rich = ListQuery::first(10).filter("cents", Compare::Ge, 200);
    for (id, balance) in balances.list::<Balance>(&rich).await? {
        println!("{id} has {} cents", balance.cents);
    }
    println!("{}", node.tree());
    node.stop(std::time::Duration::from_secs(5)).await;
    Ok(())
}
