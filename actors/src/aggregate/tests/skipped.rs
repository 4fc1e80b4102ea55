//! Streams that cannot be read: what is said of them, and how they are mended.

use futures_util::future::join_all;
use mister_smith_supervisors::ErrorClass;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Account, Bank, Happened, Order, Refused};
use crate::aggregate::actor::AggregateMessage;
use crate::aggregate::{Aggregate, SnapshotPolicy, Unreadable};
use crate::command::CommandError;
use crate::event::{Event, EventId, NewEvent, StreamId, Timestamp, Version};
use crate::store::notes::Skipped;
use crate::store::{Append, ExpectedVersion};

async fn skip(bank: &Bank, version: u64) {
    skip_of(bank, "account-7", version).await;
}

async fn skip_of(bank: &Bank, stream: &str, version: u64) {
    let stream = StreamId::new(stream).unwrap();
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
    assert!(error.contains("`evolve`: panic: a fault in evolve"), "{error}");
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

/// A first start that could not come to anything was answered as worth a retry. After a crash the
/// supervisor tried on and on, and who asked waited for the whole deadline and heard of that alone.
#[tokio::test]
async fn a_stream_that_cannot_be_read_is_answered_at_once_and_for_good_also_after_a_crash() {
    let bank = Bank::open().await;
    bank.bus.send::<Account>("7", Order::Open).await.unwrap();
    append(&bank, "account.nonsense", 3, &Happened::Opened).await;
    let aggregates = bank.system.supervisor("/aggregates").unwrap();
    for crashed in [true, false] {
        if crashed {
            bank.system.kill("/aggregates/account-7").unwrap();
        }
        let left = aggregates.restarts_left().await.unwrap();
        let commands = (0..300).map(|_| bank.bus.send::<Account>("7", Order::Deposit(1)));
        let looks = (0..300).map(|_| bank.bus.look("7", |_: &Account, _| ()));
        let (commands, looks) = futures_util::join!(join_all(commands), join_all(looks));
        let commands = commands.into_iter().map(|answer| answer.unwrap_err());
        for error in commands.chain(looks.into_iter().map(|answer| answer.unwrap_err())) {
            let CommandError::Unreadable(why) = &error else { panic!("{error:?}") };
            let Unreadable::Event { stream, version, .. } = &**why else { panic!("{why:?}") };
            assert_eq!((stream.as_str(), version.get()), ("account-7", 2));
            assert_eq!(error.class(), ErrorClass::Permanent);
            assert!(error.to_string().contains("smith events skip account-7 2"), "{error}");
        }
        let now = aggregates.restarts_left().await.unwrap();
        assert!(now + 1 >= left, "{left} restarts were left, {now} are");
    }
    skip(&bank, 2).await;
    let done = bank.bus.send::<Account>("7", Order::Deposit(1)).await.unwrap();
    assert_eq!(done.version.get(), 3);
}

/// Panics wherever serde is asked.
#[derive(Debug, Default, Deserialize)]
struct Fussy {
    seen: u64,
}

impl Serialize for Fussy {
    fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        panic!("a fault in serialize")
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
enum Said {
    #[serde(rename = "fussy.said")]
    Said {
        #[serde(deserialize_with = "fussily")]
        number: u64,
    },
}

impl Event for Said {}

fn fussily<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    match u64::deserialize(from)? {
        13 => panic!("a fault in deserialize"),
        number => Ok(number),
    }
}

impl Aggregate for Fussy {
    type Command = u64;
    type Event = Said;
    type Rejection = Refused;
    const CATEGORY: &'static str = "fussy";

    fn decide(&self, number: &u64) -> Result<Vec<Said>, Refused> {
        Ok(vec![Said::Said { number: *number }])
    }

    fn evolve(&mut self, Said::Said { .. }: Said) {
        self.seen += 1;
    }

    fn snapshots() -> SnapshotPolicy {
        SnapshotPolicy::every(1)
    }
}

/// A snapshot that could not be written ended the life of every command that was due for one; an
/// event whose reading panics could not be passed over.
#[tokio::test]
async fn a_panic_in_serde_costs_a_snapshot_and_can_be_passed_over() {
    let bank = Bank::open().await;
    for number in [1, 13, 2] {
        bank.bus.send::<Fussy>("7", number).await.unwrap();
    }
    let life =
        || bank.system.find::<AggregateMessage<Fussy>>("/aggregates/fussy-7").unwrap().life();
    assert_eq!(life(), 1);
    bank.system.kill("/aggregates/fussy-7").unwrap();
    let seen = async || bank.bus.look("7", |fussy: &Fussy, _| fussy.seen).await;
    let error = seen().await.unwrap_err().to_string();
    assert!(error.contains("panic: a fault in deserialize"), "{error}");
    assert!(error.contains("smith events skip fussy-7 2 --reason"), "{error}");
    skip_of(&bank, "fussy-7", 2).await;
    assert_eq!(seen().await.unwrap(), 2);
}
