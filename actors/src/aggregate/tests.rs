//! Aggregates in a tree of pool, committer and aggregates, on SQLite, with faults between.

pub(crate) mod faulty;
mod laws;
mod lives;
mod shared;
mod skipped;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use mister_smith_supervisors::{ActorSystem, ChildSpec, Policies, Strategy, SupervisorSpec};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use uuid::Uuid;

use super::{Aggregate, SnapshotPolicy};
use crate::command::{CommandBus, CommandError, CommandOptions, Middleware};
use crate::event::{Event, EventId, NewEvent, Position, StreamId, Timestamp};
use crate::pool::{Lease, Pool, PoolArgs, PoolHandle, PoolMessage};
use crate::store::committer::{Committer, CommitterArgs};
use crate::store::sqlite::tests::Home;
use crate::store::{Append, ExpectedVersion, StoreError};
use faulty::{Faults, FaultyConnect};

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Account {
    open: bool,
    cents: i64,
    deposits: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Order {
    Open,
    Deposit(i64),
    Withdraw(i64),
    /// As many deposits of one cent.
    Many(usize),
    Break,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum Happened {
    #[serde(rename = "account.opened")]
    Opened,
    #[serde(rename = "account.deposited")]
    Deposited { cents: i64 },
    #[serde(rename = "account.withdrawn")]
    Withdrawn { cents: i64 },
}

impl Event for Happened {}

#[derive(Debug, PartialEq, thiserror::Error)]
pub(crate) enum Refused {
    #[error("the account is not open")]
    NotOpen,
    #[error("the account is open already")]
    Open,
    #[error("there are only {0} cents")]
    TooMuch(i64),
}

impl Aggregate for Account {
    type Command = Order;
    type Event = Happened;
    type Rejection = Refused;
    const CATEGORY: &'static str = "account";

    fn decide(&self, order: &Order) -> Result<Vec<Happened>, Refused> {
        match *order {
            Order::Open if self.open => Err(Refused::Open),
            Order::Open => Ok(vec![Happened::Opened]),
            Order::Break => panic!("a fault in the application"),
            _ if !self.open => Err(Refused::NotOpen),
            Order::Deposit(0) => Ok(vec![]),
            Order::Deposit(cents) => Ok(vec![Happened::Deposited { cents }]),
            Order::Many(count) => Ok(vec![Happened::Deposited { cents: 1 }; count]),
            Order::Withdraw(cents) if cents > self.cents => Err(Refused::TooMuch(self.cents)),
            Order::Withdraw(cents) => Ok(vec![Happened::Withdrawn { cents }]),
        }
    }

    fn evolve(&mut self, event: Happened) {
        match event {
            Happened::Opened => self.open = true,
            Happened::Deposited { cents } => {
                self.cents += cents;
                self.deposits += 1;
            }
            Happened::Withdrawn { cents: POISON } => panic!("a fault in evolve"),
            Happened::Withdrawn { cents } => self.cents -= cents,
        }
    }

    fn snapshots() -> SnapshotPolicy {
        SnapshotPolicy::every(20).on_passivation(5)
    }
}

/// A withdrawal that the program cannot stand.
const POISON: i64 = 666_666;

/// Pool, committer and aggregates.
pub(crate) struct Bank {
    pub(crate) system: ActorSystem,
    pub(crate) bus: CommandBus,
    faults: Arc<Faults>,
    strangers: Mutex<u128>,
    _home: Arc<Home>,
}

impl Bank {
    pub(super) async fn open() -> Self {
        Self::with(CommandOptions::default()).await
    }

    pub(super) async fn with(options: CommandOptions) -> Self {
        Self::made(options, Vec::new(), false).await
    }

    /// On a store to which others write.
    pub(super) async fn shared() -> Self {
        Self::made(CommandOptions::default(), Vec::new(), true).await
    }

    /// What another node does.
    pub(super) async fn stranger(&self, id: &str, happened: &[Happened]) {
        let events = happened.iter().map(|happened| {
            let encoded = happened.encode().unwrap();
            let mut number = self.strangers.lock().unwrap();
            *number += 1;
            let id = EventId::new(Uuid::from_u128(*number));
            let at = Timestamp::from_micros(0);
            NewEvent::new(id, encoded.event_type, encoded.codec, encoded.data, at)
        });
        let stream = StreamId::new(format!("account-{id}")).unwrap();
        let append = Append::new(stream, ExpectedVersion::Any, events.collect());
        loop {
            // A pool that was killed closes the lease before it.
            self.lease().await;
            match self.faults.past().append_batch([append.clone()].into()).await {
                Ok(outcomes) => {
                    outcomes.into_iter().next().unwrap().unwrap();
                    break;
                }
                Err(StoreError::Closed { .. }) => {}
                Err(error) => panic!("{error}"),
            }
        }
    }

    pub(crate) async fn guarded(middleware: Vec<Arc<dyn Middleware>>) -> Self {
        Self::made(CommandOptions::default(), middleware, false).await
    }

    async fn made(
        options: CommandOptions,
        middleware: Vec<Arc<dyn Middleware>>,
        shared: bool,
    ) -> Self {
        let home = Arc::new(Home::new());
        let path = home.file().await;
        let faults = Arc::new(Faults::on(shared));
        let connect = Arc::new(FaultyConnect::new(&path, Arc::clone(&faults)));
        let head = Arc::new(watch::Sender::new(Position::ZERO));
        let patient = Duration::from_secs(1);
        let committer = CommitterArgs::new("/resources/pool", head);
        let resources = SupervisorSpec::new("resources")
            .strategy(Strategy::RestForOne)
            .intensity(10_000, patient)
            .child(ChildSpec::component::<Pool>("pool", PoolArgs::new(connect)))
            .child(ChildSpec::component::<Committer>("committer", committer));
        let root = SupervisorSpec::new("bank")
            .strategy(Strategy::RestForOne)
            .intensity(10_000, patient)
            .child(resources)
            .child(SupervisorSpec::dynamic("aggregates").intensity(10_000, patient));
        // Restarts without pauses: the tests kill more than a node would see in a day.
        let system = ActorSystem::builder(root).policies(Policies::new()).start().await.unwrap();
        let aggregates = system.supervisor("/aggregates").unwrap();
        let bus = CommandBus::new(
            aggregates,
            "/resources/pool",
            "/resources/committer",
            options,
            middleware,
        );
        Self { system, bus, faults, strangers: Mutex::new(0), _home: home }
    }

    pub(crate) async fn lease(&self) -> Lease {
        let pool = self.system.find::<PoolMessage>("/resources/pool").unwrap();
        PoolHandle::new(pool).lease().await.unwrap()
    }

    pub(super) async fn account(&self, id: &str) -> Account {
        self.bus.look(id, |account: &Account, _| account.clone()).await.unwrap()
    }

    /// The state made of the events alone, past every actor and snapshot.
    pub(super) async fn replayed(&self, id: &str) -> Account {
        let stream = StreamId::new(format!("account-{id}")).unwrap();
        let events =
            crate::store::conformance::whole_stream(&*self.lease().await.store, &stream, 500).await;
        let mut account = Account::default();
        for event in &events {
            account.evolve(crate::event::Decoder::new().decode(event).unwrap());
        }
        account
    }
}

#[track_caller]
pub(super) fn refusal(answer: &Result<crate::command::Executed, CommandError>) -> &Refused {
    match answer {
        Err(error) => error.rejection().unwrap_or_else(|| panic!("{error}")),
        Ok(executed) => panic!("expected a refusal, got {executed:?}"),
    }
}
