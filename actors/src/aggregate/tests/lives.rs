//! How aggregates come and go: snapshots, passivation, the bound on how many are live.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::future::join_all;
use mister_smith_supervisors::{AskError, ErrorClass};
use tokio::sync::Semaphore;

use super::super::actor::AggregateMessage;
use super::{Account, Bank, Order, Refused, refusal};
use crate::command::{CommandError, CommandOptions};
use crate::event::{StreamId, Version};
use crate::store::snapshot::Snapshot;

/// Waits until `check` is true. The tests' own deadline ends what never becomes true.
async fn until(mut check: impl AsyncFnMut() -> bool) {
    let tries = async {
        while !check().await {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), tries).await.expect("it becomes true");
}

fn stream(id: &str) -> StreamId {
    StreamId::new(format!("account-{id}")).unwrap()
}

async fn snapshot(bank: &Bank, id: &str) -> Option<Snapshot> {
    bank.lease().await.snapshots.load_snapshot(&stream(id)).await.unwrap()
}

fn life(bank: &Bank, id: &str) -> u64 {
    let path = format!("/aggregates/account-{id}");
    bank.system.find::<AggregateMessage<Account>>(&path).unwrap().life()
}

async fn passivate(bank: &Bank, id: &str) {
    let path = format!("/aggregates/account-{id}");
    let actor = bank.system.find::<AggregateMessage<Account>>(&path).unwrap();
    actor.tell(AggregateMessage::Passivate).await.unwrap();
    until(async || bank.bus.live().count() == 0).await;
}

async fn live_again(bank: &Bank, id: &str) -> Account {
    let before = life(bank, id);
    bank.system.kill(&format!("/aggregates/account-{id}")).unwrap();
    let account = bank.account(id).await;
    let after = life(bank, id);
    assert!(after > before, "another life answered");
    account
}

#[tokio::test]
async fn a_snapshot_is_taken_and_the_next_life_begins_there() {
    let bank = Bank::open().await;
    bank.bus.send::<Account>("7", Order::Open).await.unwrap();
    for _ in 0..24 {
        bank.bus.send::<Account>("7", Order::Deposit(1)).await.unwrap();
    }
    until(async || snapshot(&bank, "7").await.is_some()).await;
    let taken = snapshot(&bank, "7").await.unwrap();
    assert_eq!(taken.version, Version::new(20));

    // A snapshot that says something else than the events proves that it is read.
    let mut other: Account = rmp_serde::from_slice(&taken.data).unwrap();
    other.cents += 1_000_000;
    let data = rmp_serde::to_vec_named(&other).unwrap().into();
    let lease = bank.lease().await;
    lease.snapshots.save_snapshot(&stream("7"), Snapshot { data, ..taken }).await.unwrap();
    assert_eq!(live_again(&bank, "7").await.cents, 1_000_024);
    assert_eq!(bank.bus.live().snapshots_discarded(), 0);
}

#[tokio::test]
async fn a_snapshot_that_cannot_be_used_is_thrown_away_and_counted() {
    let bank = Bank::open().await;
    bank.bus.send::<Account>("7", Order::Open).await.unwrap();
    bank.bus.send::<Account>("7", Order::Many(30)).await.unwrap();
    until(async || snapshot(&bank, "7").await.is_some()).await;
    let good = snapshot(&bank, "7").await.unwrap();
    let bad = [
        Snapshot { data: b"\xc1".as_slice().into(), ..good.clone() },
        Snapshot { schema: good.schema + 1, ..good.clone() },
        // Ahead of the log, as after a restore from a backup.
        Snapshot { version: Version::new(500), ..good },
    ];
    for (n, bad) in (1..).zip(bad) {
        let lease = bank.lease().await;
        lease.snapshots.delete_snapshot(&stream("7")).await.unwrap();
        lease.snapshots.save_snapshot(&stream("7"), bad).await.unwrap();
        assert_eq!(live_again(&bank, "7").await.cents, 30);
        assert_eq!(bank.bus.live().snapshots_discarded(), n);
        assert_eq!(snapshot(&bank, "7").await, None);
    }
}

/// The snapshot of a stream whose events were archived is all that is left of it. A program of
/// another shape deleted it before it found that the events are gone, and then the program before
/// could not start either.
#[tokio::test]
async fn a_snapshot_is_kept_until_the_events_are_known_to_be_there() {
    let bank = Bank::open().await;
    bank.bus.send::<Account>("7", Order::Open).await.unwrap();
    bank.bus.send::<Account>("7", Order::Many(30)).await.unwrap();
    until(async || snapshot(&bank, "7").await.is_some()).await;
    passivate(&bank, "7").await;
    let good = snapshot(&bank, "7").await.unwrap();
    let lease = bank.lease().await;
    // What the program of another shape sees; and the first events are in an archive.
    lease.snapshots.delete_snapshot(&stream("7")).await.unwrap();
    let other = Snapshot { schema: good.schema + 1, ..good.clone() };
    lease.snapshots.save_snapshot(&stream("7"), other.clone()).await.unwrap();
    bank.faults.archived_up_to.store(20, Ordering::Relaxed);
    let look = bank.bus.look("7", |account: &Account, _| account.clone()).await;
    let error = look.unwrap_err().to_string();
    assert!(error.contains("restore the archive") && error.contains("is kept"), "{error}");
    assert_eq!(snapshot(&bank, "7").await, Some(other));
    // The program that wrote it goes on.
    lease.snapshots.save_snapshot(&stream("7"), good).await.unwrap();
    assert_eq!(bank.account("7").await.cents, 30);
}

/// A hot aggregate is due for the next snapshot before the last one is written; it ended its own
/// writes.
#[tokio::test]
async fn a_snapshot_that_is_being_written_is_not_given_up_for_the_next() {
    let bank = Bank::open().await;
    let gate = Arc::new(Semaphore::new(0));
    *bank.faults.saves.lock().unwrap() = Some(Arc::clone(&gate));
    bank.bus.send::<Account>("7", Order::Open).await.unwrap();
    for _ in 0..5 {
        bank.bus.send::<Account>("7", Order::Many(20)).await.unwrap();
    }
    assert_eq!(snapshot(&bank, "7").await, None, "all are being written");
    gate.add_permits(1);
    until(async || snapshot(&bank, "7").await.is_some()).await;
    let first = snapshot(&bank, "7").await.unwrap().version;
    assert_eq!(first, Version::new(21), "the first one was written to its end");
    gate.add_permits(1);
    until(async || snapshot(&bank, "7").await.unwrap().version > first).await;
    assert_eq!(snapshot(&bank, "7").await.unwrap().version, Version::new(101), "then the newest");
    assert_eq!(gate.available_permits(), 0, "none between them");
}

#[tokio::test]
async fn an_idle_aggregate_passivates_and_keeps_what_is_new() {
    let bank = Bank::with(CommandOptions::default().idle_after(Duration::from_millis(10))).await;
    bank.bus.send::<Account>("7", Order::Open).await.unwrap();
    bank.bus.send::<Account>("7", Order::Many(5)).await.unwrap();
    until(async || bank.bus.live().count() == 0).await;
    until(async || snapshot(&bank, "7").await.is_some()).await;
    assert_eq!(snapshot(&bank, "7").await.unwrap().version, Version::new(6));
    assert_eq!(bank.account("7").await.cents, 5);
}

#[tokio::test]
async fn no_more_aggregates_are_live_than_there_is_room_for() {
    let bank = Bank::with(CommandOptions::default().live(10)).await;
    for n in 0..100 {
        bank.bus.send::<Account>(&n.to_string(), Order::Open).await.unwrap();
        // One is being asked to leave for each that comes.
        until(async || bank.bus.live().count() <= 11).await;
    }
    assert!(bank.bus.live().passivated() >= 89);
    for n in 0..100 {
        assert!(bank.account(&n.to_string()).await.open);
    }
}

/// Commands that meet an ending actor go to the next life.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn passivation_loses_no_command() {
    let options = CommandOptions::default().live(2).idle_after(Duration::from_micros(300));
    let bank = Bank::with(options).await;
    for id in 0..6 {
        bank.bus.send::<Account>(&id.to_string(), Order::Open).await.unwrap();
    }
    let senders = (0..12).map(async |sender| {
        for n in 0..20 {
            let id = ((sender + n) % 6).to_string();
            loop {
                match bank.bus.send::<Account>(&id, Order::Deposit(1)).await {
                    Ok(_) => break,
                    // Nothing but "it ended before it took the command" comes without an effect.
                    Err(CommandError::Actor(AskError::Stopped { .. })) => {}
                    Err(error) => panic!("{error}"),
                }
            }
        }
    });
    join_all(senders).await;
    let mut cents = 0;
    for id in 0..6 {
        cents += bank.replayed(&id.to_string()).await.cents;
    }
    assert_eq!(cents, 12 * 20);
}

#[tokio::test]
async fn a_panic_ends_one_life_and_no_other() {
    let bank = Bank::open().await;
    for id in ["7", "8"] {
        bank.bus.send::<Account>(id, Order::Open).await.unwrap();
    }
    let error = bank.bus.send::<Account>("7", Order::Break).await.unwrap_err();
    assert!(matches!(error, CommandError::Actor(AskError::Crashed { .. })), "{error}");
    assert_eq!(error.class(), ErrorClass::Transient);
    assert!(bank.account("7").await.open);
    assert_eq!(life(&bank, "8"), 1);
}

#[tokio::test]
async fn a_look_waits_for_what_was_sent_before_it() {
    let bank = Bank::open().await;
    bank.bus.send::<Account>("7", Order::Open).await.unwrap();
    let (deposits, account, refused) = futures_util::join!(
        join_all((0..10).map(|_| bank.bus.send::<Account>("7", Order::Deposit(1)))),
        bank.bus.look("7", |account: &Account, version| (account.clone(), version)),
        bank.bus.send::<Account>("7", Order::Withdraw(11)),
    );
    assert!(deposits.iter().all(Result::is_ok));
    let (account, version) = account.unwrap();
    assert_eq!((account.cents, version.get()), (10, 11));
    assert_eq!(refusal(&refused), &Refused::TooMuch(10));
}

#[tokio::test]
async fn what_cannot_be_an_aggregate_says_why() {
    let bank = Bank::open().await;
    let error = bank.bus.send::<Account>("", Order::Open).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "the aggregate's id is no name: a stream needs a name; the text is empty"
    );
    assert_eq!(error.class(), ErrorClass::User);
}
