//! Events from outside: where they may go, and how many at once.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use mister_smith_supervisors::ErrorClass;

use super::{Incoming, Ingest, IngestError, Ingested, MAX_EVENTS, Refused};
use crate::aggregate::tests::{Account, Bank, Order};
use crate::event::{ContentType, Position, StreamId};
use crate::store::IdempotencyKey;
use crate::store::committer::{CommitterHandle, CommitterMessage};
use crate::store::notes::{Owner, Owners};

const DEADLINE: Duration = Duration::from_secs(20);

async fn open() -> (Bank, Ingest) {
    let mut bank = Bank::guarded(Vec::new()).await;
    let owners = Owners::default();
    bank.bus = bank.bus.clone().owners(owners.clone());
    let committer = bank.system.find::<CommitterMessage>("/resources/committer").unwrap();
    let committer = CommitterHandle::new(committer);
    let numbers = AtomicU64::new(0);
    let random = move || numbers.fetch_add(1, Ordering::Relaxed);
    let ingest = Ingest::new(committer, owners, bank.system.clock(), random);
    (bank, ingest)
}

fn named(stream: &str) -> StreamId {
    StreamId::new(stream).unwrap()
}

fn event(event_type: &str, id: &str) -> Incoming {
    Incoming {
        event_type: event_type.into(),
        codec: ContentType::Json,
        data: b"{}".as_slice().into(),
        meta: b"".as_slice().into(),
        key: IdempotencyKey::of([id]),
    }
}

fn place(done: &Ingested) -> (&str, u64, bool) {
    let done = done.as_ref().unwrap();
    (done.stream.as_str(), done.last_version.get(), done.duplicate)
}

#[tokio::test]
async fn events_of_many_streams_are_taken_once_and_in_order() {
    let (bank, ingest) = open().await;
    let events = || {
        [("a", "1"), ("b", "2"), ("a", "3"), ("a", "1")]
            .map(|(stream, id)| (named(stream), event("x.happened", id)))
    };
    let done = ingest.ingest_all(events()).await.unwrap();
    let places: Vec<_> = done.iter().map(place).collect();
    assert_eq!(places, [("a", 1, false), ("b", 1, false), ("a", 2, false), ("a", 1, true)]);
    let again = ingest.ingest_all(events()).await.unwrap();
    assert!(again.iter().all(|done| place(done).2), "{again:?}");
    // More than one commit takes, and still in order.
    let many = (0..4_500).map(|n| event("x.happened", &format!("many-{n}")));
    let done = ingest.ingest(&named("many"), many).await.unwrap();
    let versions: Vec<_> = done.iter().map(|done| place(done).1).collect();
    assert_eq!(versions, (1..=4_500).collect::<Vec<_>>());
    assert_eq!(ingest.ingest_all([]).await.unwrap(), []);
    bank.system.shutdown(DEADLINE).await;
}

/// A forged event went past `decide` into the account, one of a type that nobody reads made it
/// unloadable, `saga.started` was taken up by the manager, and a tombstone ended any stream.
#[tokio::test]
async fn what_belongs_to_somebody_is_not_written_from_outside() {
    let (bank, ingest) = open().await;
    bank.bus.send::<Account>("7", Order::Open).await.unwrap();
    let owned = [
        ("account-7", Owner::Aggregate),
        ("account-8", Owner::Aggregate),
        ("account", Owner::Aggregate),
        ("saga-order-1", Owner::Sagas),
        ("dead_letter-1", Owner::DeadLetters),
        ("schemas", Owner::Schemas),
        ("schema-x", Owner::Schemas),
        ("process_passed-x-1", Owner::Processes),
        ("$any", Owner::Store),
    ];
    let count = owned.len();
    for (stream, owner) in owned {
        let events = [
            (named("order-1"), event("order.placed", stream)),
            (named(stream), event("account.deposited", &format!("{stream} forged"))),
        ];
        let done = ingest.ingest_all(events).await.unwrap();
        assert!(done[0].is_ok(), "the others are not held up");
        let Err(Refused::Owned { owned, .. }) = &done[1] else { panic!("{stream}: {done:?}") };
        assert_eq!(owned.owner, owner, "{stream}");
    }
    for event_type in ["$tombstone", "$", "", "a\nb", &"x".repeat(257)] {
        let done = ingest.ingest(&named("order-1"), [event(event_type, "t")]).await.unwrap();
        assert!(matches!(done[0], Err(Refused::Type { .. })), "{event_type}: {done:?}");
    }
    let log = bank.lease().await.store.read_all(Position::ZERO, 100).await.unwrap();
    assert!(log.iter().skip(1).all(|event| event.stream.as_str() == "order-1"), "{log:?}");
    assert_eq!(log.len(), 1 + count);
}

/// Another life of the node that takes events in, and has no such aggregate. It read the list of
/// owners before, through connections that others had in use, and believed it for a second.
#[tokio::test]
async fn an_owner_is_known_after_a_restart_and_asks_nobody() {
    let (bank, _) = open().await;
    bank.bus.send::<Account>("7", Order::Open).await.unwrap();
    // Nothing but the committer is needed: it has a lease of its own.
    bank.system.suspend("/resources/pool").await.unwrap();
    let committer = bank.system.find::<CommitterMessage>("/resources/committer").unwrap();
    let committer = CommitterHandle::new(committer);
    let fresh = Ingest::new(committer, Owners::default(), bank.system.clock(), || 7);
    for id in ["1", "2"] {
        let events = [
            (named("account-9"), event("account.opened", id)),
            (named("other-9"), event("other.opened", &format!("other {id}"))),
        ];
        let done = fresh.ingest_all(events).await.unwrap();
        let Err(Refused::Owned { owned, .. }) = &done[0] else { panic!("{done:?}") };
        assert_eq!((&*owned.category, &owned.owner), ("account", &Owner::Aggregate));
        assert!(done[1].is_ok(), "{done:?}");
    }
}

/// Streams took places of aggregates, so that commands were refused when many came.
#[tokio::test]
async fn streams_of_events_take_no_place_of_an_aggregate() {
    let (bank, ingest) = open().await;
    let before = bank.system.supervisor("/aggregates").unwrap().count();
    let events =
        (0..2_000).map(|n| (named(&format!("s-{n}")), event("x.happened", &n.to_string())));
    ingest.ingest_all(events).await.unwrap();
    assert_eq!(bank.system.supervisor("/aggregates").unwrap().count(), before);
}

#[tokio::test]
async fn what_is_under_way_is_bounded_also_when_nobody_waits_for_it() {
    let (bank, ingest) = open().await;
    ingest.ingest(&named("a"), [event("x.happened", "first")]).await.unwrap();
    bank.system.suspend("/resources/committer").await.unwrap();
    let many = (0..MAX_EVENTS).map(|n| event("x.happened", &n.to_string())).collect::<Vec<_>>();
    let call = {
        let ingest = ingest.clone();
        tokio::spawn(async move { ingest.ingest(&named("a"), many).await })
    };
    let b = named("b");
    let one = || ingest.ingest(&b, [event("x.happened", "one more")]);
    while ingest.0.events.available_permits() > 0 {
        tokio::task::yield_now().await;
    }
    let error = one().await.unwrap_err();
    assert!(matches!(error, IngestError::Overloaded { events: MAX_EVENTS }), "{error}");
    assert_eq!(error.class(), ErrorClass::Transient);
    // Its sender goes away. What it sent is still under way.
    while ingest.0.left.lock().unwrap().is_empty() {
        call.abort();
        tokio::task::yield_now().await;
    }
    assert!(matches!(one().await.unwrap_err(), IngestError::Overloaded { .. }));
    bank.system.resume("/resources/committer").await.unwrap();
    let taken = async {
        while one().await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, taken).await.expect("there is room again");
    let version = bank.lease().await.store.stream_version(&named("a")).await.unwrap();
    assert!(version.get() > 1, "what was handed over is written");
}
