//! Streams that cannot be read: what is said of them, and how they are mended.

use super::{Account, Bank, Happened, Order};
use crate::event::{Event, EventId, NewEvent, StreamId, Timestamp, Version};
use crate::store::notes::Skipped;
use crate::store::{Append, ExpectedVersion};

async fn skip(bank: &Bank, version: u64) {
    let stream = StreamId::new("account-7").unwrap();
    let lease = bank.lease().await;
    let before = Version::new(version - 1);
    let event = lease.store.read_stream(&stream, before, 1).await.unwrap().remove(0);
    let skipped = Skipped {
        stream,
        version: event.version,
        position: event.position,
        by: "ada".to_owned(),
        reason: "forged".to_owned(),
        at: Timestamp::from_micros(0),
    };
    assert!(lease.notes.skip(skipped).await.unwrap());
}

async fn append(bank: &Bank, event_type: &str, number: u128, happened: &Happened) {
    let encoded = happened.encode().unwrap();
    let at = Timestamp::from_micros(0);
    let id = EventId::new(uuid::Uuid::from_u128(number));
    let event = NewEvent::new(id, event_type, encoded.codec, encoded.data, at);
    let stream = StreamId::new("account-7").unwrap();
    let append = Append::new(stream, ExpectedVersion::Any, vec![event]);
    let outcomes = bank.lease().await.store.append_batch([append].into()).await.unwrap();
    outcomes.into_iter().for_each(|outcome| drop(outcome.unwrap()));
}

async fn trouble(bank: &Bank) -> String {
    bank.bus.look("7", |_: &Account, _| ()).await.unwrap_err().to_string()
}

/// An event of a type that nobody reads, and one in whose `evolve` the program panics: the stream
/// could not be loaded for good, and no tool mended it.
#[tokio::test]
async fn a_stream_with_events_that_cannot_be_applied_is_mended_by_passing_them_over() {
    let bank = Bank::open().await;
    append(&bank, "account.opened", 1, &Happened::Opened).await;
    append(&bank, "account.deposited", 2, &Happened::Deposited { cents: 5 }).await;
    append(&bank, "account.nonsense", 3, &Happened::Opened).await;
    append(&bank, "account.deposited", 4, &Happened::Deposited { cents: 7 }).await;
    append(&bank, "account.withdrawn", 5, &Happened::Withdrawn { cents: super::POISON }).await;
    append(&bank, "account.deposited", 6, &Happened::Deposited { cents: 9 }).await;

    let error = trouble(&bank).await;
    let cure = "smith events skip account-7 3 --reason";
    assert!(error.contains("account.nonsense") && error.contains(cure), "{error}");
    skip(&bank, 3).await;
    let error = trouble(&bank).await;
    assert!(error.contains("the aggregate panicked: a fault in evolve"), "{error}");
    assert!(error.contains("smith events skip account-7 5 --reason"), "{error}");
    skip(&bank, 5).await;
    let account = bank.account("7").await;
    assert_eq!((account.cents, account.deposits), (21, 3), "each of the others once");
    let done = bank.bus.send::<Account>("7", Order::Withdraw(21)).await.unwrap();
    assert_eq!(done.version.get(), 7, "they keep their places");

    // One that can be applied counts, whatever somebody said: nodes that have it in memory, and
    // those that read it, have one state.
    skip(&bank, 2).await;
    bank.system.kill("/aggregates/account-7").unwrap();
    assert_eq!(bank.account("7").await.cents, 0);
}
