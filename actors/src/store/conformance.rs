//! The laws that every [`EventStore`] keeps, as tests to run against an adapter.
//!
//! ```
//! # async fn doc() {
//! use mister_smith_actors::store::{conformance, memory::MemoryStore};
//!
//! conformance::run(async || MemoryStore::new()).await;
//! # }
//! ```
//!
//! A broken law panics with what was seen. [`run`] takes a fresh, empty store for each law; a law
//! can also be run alone.

// A test suite has no caller that could act on an error: each `expect` is an assertion.

use std::sync::Arc;

use bytes::Bytes;
use uuid::Uuid;

use super::{
    Append, AppendError, AppendOutcome, Appended, EventStore, ExpectedVersion, IdempotencyKey,
    InvalidAppend, MAX_PAGE,
};
use crate::event::{
    ContentType, EventId, NewEvent, Position, RecordedEvent, StreamId, Timestamp, Version,
};

pub mod deciding;
pub mod leases;
pub mod reading;
pub mod snapshots;

/// Runs every law against a store of its own.
///
/// # Panics
///
/// A law is broken.
pub async fn run<S: EventStore>(make: impl AsyncFn() -> S) {
    an_empty_store_reads_as_empty(&make().await).await;
    an_event_comes_back_as_it_was_written(&make().await).await;
    positions_are_gapless_in_the_order_of_the_batch(&make().await).await;
    versions_are_gapless_in_each_stream(&make().await).await;
    any_version_is_always_accepted(&make().await).await;
    no_stream_is_accepted_once(&make().await).await;
    stream_exists_needs_an_event(&make().await).await;
    an_exact_version_has_to_match(&make().await).await;
    a_conflict_fails_only_its_own_append(&make().await).await;
    appends_to_one_stream_chain_in_a_batch(&make().await).await;
    a_key_of_an_earlier_batch_writes_nothing(&make().await).await;
    a_key_of_the_same_batch_writes_nothing(&make().await).await;
    a_known_key_wins_over_stream_and_version(&make().await).await;
    a_key_that_met_a_conflict_is_still_free(&make().await).await;
    an_invalid_append_fails_alone(&make().await).await;
    pages_join_without_gap_or_overlap(&make().await).await;
    a_limit_is_bounded(&make().await).await;
    large_events_make_short_pages_and_lose_nothing(&make().await).await;
    any_valid_name_is_a_stream_of_its_own(&make().await).await;
    types_and_schema_versions_are_kept_apart(&make().await).await;
    a_call_that_is_never_awaited_writes_nothing(&make().await).await;
    deciding::run(&make).await;
    reading::run(&make).await;
}

/// Whatever payloads can be: a store keeps it and never looks inside.
const CODECS: [ContentType; 5] = [
    ContentType::Raw,
    ContentType::Json,
    ContentType::MessagePack,
    ContentType::Protobuf,
    ContentType::Avro,
];

/// A test event; all of it follows from `seed`.
pub fn event(seed: u64) -> NewEvent {
    NewEvent {
        id: EventId::new(Uuid::from_u128(
            0x0190_0000_0000_7000_8000_0000_0000_0000 + u128::from(seed),
        )),
        event_type: Arc::from(["opened", "changed", "closed"][(seed % 3) as usize]),
        schema_version: 1 + (seed % 2) as u16,
        codec: CODECS[(seed % 5) as usize],
        data: Bytes::from(format!("{{\"seed\":{seed}}}")),
        meta: if seed.is_multiple_of(4) {
            Bytes::new()
        } else {
            Bytes::from_static(b"\x00meta\xff")
        },
        recorded_at: Timestamp::from_micros(1_700_000_000_000_000 + seed.cast_signed()),
    }
}

/// A test append of `count` events.
///
/// # Panics
///
/// `stream` is not a stream's name.
pub fn append(stream: &str, expected: ExpectedVersion, seed: u64, count: u64) -> Append {
    Append::new(name(stream), expected, (seed..seed + count).map(event).collect())
}

/// A test append that ends a stream.
///
/// # Panics
///
/// `stream` is not a stream's name.
pub fn tombstone(stream: &str, expected: ExpectedVersion, seed: u64) -> Append {
    let NewEvent { id, recorded_at, .. } = event(seed);
    Append::tombstone(name(stream), expected, id, recorded_at)
}

fn keyed(append: Append, key: &str) -> Append {
    Append { key: Some(IdempotencyKey::of([key])), ..append }
}

fn name(stream: &str) -> StreamId {
    StreamId::new(stream).expect("the suite's names are valid")
}

const ANY: ExpectedVersion = ExpectedVersion::Any;

fn exact(version: u64) -> ExpectedVersion {
    ExpectedVersion::Exact(Version::new(version))
}

async fn write(store: &dyn EventStore, batch: Vec<Append>) -> Vec<AppendOutcome> {
    let count = batch.len();
    let outcomes = store.append_batch(batch.into()).await.expect("the store takes the batch");
    assert_eq!(outcomes.len(), count, "one outcome for each append");
    outcomes
}

async fn write_one(store: &dyn EventStore, append: Append) -> AppendOutcome {
    write(store, vec![append]).await.remove(0)
}

/// The whole log by pages of `limit`, checked for order and gaps.
///
/// # Panics
///
/// The log cannot be read, or positions have a gap.
pub async fn whole_log(store: &dyn EventStore, limit: usize) -> Vec<RecordedEvent> {
    let mut log: Vec<RecordedEvent> = Vec::new();
    loop {
        let after = log.last().map_or(Position::ZERO, |event| event.position);
        let page = store.read_all(after, limit).await.expect("the log can be read");
        assert!(page.len() <= limit, "a page keeps to its limit");
        if page.is_empty() {
            break;
        }
        for event in page {
            assert_eq!(event.position.get(), log.len() as u64 + 1, "positions are gapless");
            log.push(event);
        }
    }
    let head = store.head().await.expect("the head can be read");
    assert_eq!(head.get(), log.len() as u64, "the head is the last position");
    log
}

/// A whole stream by pages of `limit`, checked for order and gaps.
///
/// # Panics
///
/// The stream cannot be read, or versions have a gap.
pub async fn whole_stream(
    store: &dyn EventStore,
    stream: &StreamId,
    limit: usize,
) -> Vec<RecordedEvent> {
    let mut events: Vec<RecordedEvent> = Vec::new();
    loop {
        let after = Version::new(events.len() as u64);
        let page = store.read_stream(stream, after, limit).await.expect("it can be read");
        assert!(page.len() <= limit, "a page keeps to its limit");
        if page.is_empty() {
            break;
        }
        for event in page {
            assert_eq!(&event.stream, stream, "only events of the stream");
            assert_eq!(event.version.get(), events.len() as u64 + 1, "versions are gapless");
            events.push(event);
        }
    }
    let version = store.stream_version(stream).await.expect("the version can be read");
    // A deleted stream reads as empty and keeps its version.
    if !events.is_empty() {
        assert_eq!(version.get(), events.len() as u64, "the version counts the events");
    }
    events
}

/// Law: an empty store has no events, and no stream exists.
pub async fn an_empty_store_reads_as_empty(store: &dyn EventStore) {
    assert_eq!(whole_log(store, 10).await, []);
    assert_eq!(whole_stream(store, &name("nobody"), 10).await, []);
    assert_eq!(write(store, Vec::new()).await, []);
    assert_eq!(store.read_all(Position::new(u64::MAX), 10).await.expect("readable"), []);
}

/// Law: reading gives every field as it was written.
pub async fn an_event_comes_back_as_it_was_written(store: &dyn EventStore) {
    let written = append("order-1", ANY, 0, 12);
    write_one(store, written.clone()).await.expect("accepted");
    let expected: Vec<_> = (1..)
        .zip(written.events)
        .map(|(n, event)| {
            RecordedEvent::at(Position::new(n), name("order-1"), Version::new(n), event)
        })
        .collect();
    assert_eq!(whole_log(store, 100).await, expected);
    assert_eq!(whole_stream(store, &name("order-1"), 100).await, expected);
}

/// Law: positions follow the order of the batch without a gap, over batches too.
pub async fn positions_are_gapless_in_the_order_of_the_batch(store: &dyn EventStore) {
    let mut seeds = Vec::new();
    for round in 0..3 {
        let batch = (0..130).map(|n| {
            let seed = round * 1_000 + n * 2;
            seeds.extend([seed, seed + 1]);
            append(&format!("s-{}", n % 7), ANY, seed, 2)
        });
        for outcome in write(store, batch.collect()).await {
            let appended = outcome.expect("accepted");
            assert_eq!(appended.first_position.next(), appended.last_position);
        }
    }
    let ids: Vec<_> = whole_log(store, 1_000).await.iter().map(|event| event.id).collect();
    let expected: Vec<_> = seeds.into_iter().map(|seed| event(seed).id).collect();
    assert_eq!(ids, expected);
}

/// Law: versions count each stream on its own.
pub async fn versions_are_gapless_in_each_stream(store: &dyn EventStore) {
    for round in 0..4 {
        let batch = (0..5).map(|n| append(&format!("s-{n}"), ANY, round * 100 + n * 10, n + 1));
        write(store, batch.collect()).await;
    }
    for n in 0..5_u64 {
        let stream = whole_stream(store, &name(&format!("s-{n}")), 3).await;
        assert_eq!(stream.len() as u64, 4 * (n + 1));
        assert!(stream.is_sorted_by_key(|event| event.position));
    }
}

/// Law: `Any` accepts a missing and an existing stream.
pub async fn any_version_is_always_accepted(store: &dyn EventStore) {
    for n in 1..=3 {
        let appended = write_one(store, append("s", ANY, n, 1)).await.expect("accepted");
        assert_eq!(appended.last_version, Version::new(n));
    }
}

/// Law: `NoStream` accepts a missing stream only.
pub async fn no_stream_is_accepted_once(store: &dyn EventStore) {
    let first = append("s", ExpectedVersion::NoStream, 0, 2);
    write_one(store, first.clone()).await.expect("there is no stream yet");
    assert_conflict(&write_one(store, first).await, "s", 2);
}

/// Law: `StreamExists` accepts an existing stream only.
pub async fn stream_exists_needs_an_event(store: &dyn EventStore) {
    let next = append("s", ExpectedVersion::StreamExists, 0, 1);
    assert_conflict(&write_one(store, next.clone()).await, "s", 0);
    write_one(store, append("s", ANY, 1, 1)).await.expect("accepted");
    write_one(store, next).await.expect("the stream exists now");
}

/// Law: `Exact` accepts that version only; `Exact(0)` means no stream.
pub async fn an_exact_version_has_to_match(store: &dyn EventStore) {
    assert_conflict(&write_one(store, append("s", exact(1), 0, 1)).await, "s", 0);
    write_one(store, append("s", exact(0), 0, 2)).await.expect("nothing is there");
    assert_conflict(&write_one(store, append("s", exact(1), 2, 1)).await, "s", 2);
    assert_conflict(&write_one(store, append("s", exact(u64::MAX), 2, 1)).await, "s", 2);
    write_one(store, append("s", exact(2), 2, 1)).await.expect("it is at 2");
}

fn assert_conflict(outcome: &AppendOutcome, stream: &str, version: u64) {
    match outcome {
        Err(AppendError::Conflict { stream: at, actual, .. }) => {
            assert_eq!((at.as_str(), actual.get()), (stream, version));
        }
        other => panic!("expected a conflict at version {version}, got {other:?}"),
    }
}

/// Law: the others of the batch are written, without a gap where the loser was.
pub async fn a_conflict_fails_only_its_own_append(store: &dyn EventStore) {
    let outcomes = write(
        store,
        vec![append("a", ANY, 0, 2), append("b", exact(7), 10, 2), append("c", ANY, 20, 2)],
    )
    .await;
    assert_eq!(outcomes[0].as_ref().expect("a").last_position, Position::new(2));
    assert_conflict(&outcomes[1], "b", 0);
    assert_eq!(outcomes[2].as_ref().expect("c").last_position, Position::new(4));
    assert_eq!(whole_log(store, 10).await.len(), 4);
    assert_eq!(whole_stream(store, &name("b"), 10).await, []);
}

/// Law: each append of a batch sees what the ones before it did to its stream.
pub async fn appends_to_one_stream_chain_in_a_batch(store: &dyn EventStore) {
    let outcomes = write(
        store,
        vec![
            append("s", ExpectedVersion::NoStream, 0, 2),
            append("s", exact(2), 10, 1),
            append("s", exact(2), 20, 1),
            append("t", ANY, 30, 1),
            append("s", exact(3), 40, 3),
        ],
    )
    .await;
    assert_conflict(&outcomes[2], "s", 3);
    let last = outcomes[4].as_ref().expect("it follows the second");
    assert_eq!((last.first_version.get(), last.last_version.get()), (4, 6));
    assert_eq!((last.first_position.get(), last.last_position.get()), (5, 7));
    assert_eq!(whole_stream(store, &name("s"), 2).await.len(), 6);
}

/// Law: a repeat in a later batch gets the first answer.
pub async fn a_key_of_an_earlier_batch_writes_nothing(store: &dyn EventStore) {
    write_one(store, append("before", ANY, 100, 3)).await.expect("accepted");
    let request = keyed(append("s", ExpectedVersion::NoStream, 0, 3), "request");
    let first = write_one(store, request.clone()).await.expect("accepted");
    assert!(!first.duplicate);
    write_one(store, append("s", ANY, 10, 1)).await.expect("accepted");
    let again = write_one(store, request).await.expect("a repeat is no error");
    assert_eq!(again, Appended { duplicate: true, ..first });
    assert_eq!(whole_log(store, 10).await.len(), 7);
}

/// Law: a repeat in the same batch gets the first answer.
pub async fn a_key_of_the_same_batch_writes_nothing(store: &dyn EventStore) {
    let request = keyed(append("s", ExpectedVersion::NoStream, 0, 1), "request");
    let outcomes = write(store, vec![request.clone(), append("s", exact(1), 5, 1), request]).await;
    let first = outcomes[0].clone().expect("accepted");
    assert_eq!(outcomes[2], Ok(Appended { duplicate: true, ..first }));
    assert_eq!(whole_log(store, 10).await.len(), 2);
}

/// Law: the first answer counts, whatever the repeat asks for.
pub async fn a_known_key_wins_over_stream_and_version(store: &dyn EventStore) {
    let first = write_one(store, keyed(append("s", ANY, 0, 2), "k")).await.expect("accepted");
    let other = keyed(append("other", exact(9), 5, 1), "k");
    let again = write_one(store, other).await.expect("a repeat is no conflict");
    assert_eq!(again, Appended { duplicate: true, ..first });
    assert_eq!(whole_stream(store, &name("other"), 10).await, []);
}

/// Law: a refused append does not use up its key.
pub async fn a_key_that_met_a_conflict_is_still_free(store: &dyn EventStore) {
    let stale = keyed(append("s", exact(1), 0, 1), "k");
    let fresh = keyed(append("s", exact(0), 0, 1), "k");
    let outcomes = write(store, vec![stale.clone(), fresh]).await;
    assert_conflict(&outcomes[0], "s", 0);
    assert!(!outcomes[1].as_ref().expect("the key was free").duplicate);
    assert!(write_one(store, stale).await.expect("known now").duplicate);
}

/// Law: an append without events, or with an event that has no type, is refused alone.
pub async fn an_invalid_append_fails_alone(store: &dyn EventStore) {
    let mut untyped = append("s", ANY, 0, 2);
    untyped.events[1].event_type = Arc::from("");
    let outcomes =
        write(store, vec![append("s", ANY, 0, 0), untyped, append("s", ANY, 0, 1)]).await;
    let reason = |n: usize| match &outcomes[n] {
        Err(AppendError::Invalid { reason, .. }) => reason.clone(),
        other => panic!("expected a refusal, got {other:?}"),
    };
    assert_eq!(reason(0), InvalidAppend::NoEvents);
    assert_eq!(reason(1), InvalidAppend::EventType { index: 1, event_type: String::new() });
    assert_eq!(outcomes[2].as_ref().expect("valid").last_position, Position::new(1));
    assert_eq!(whole_log(store, 10).await.len(), 1);
}

/// Law: pages of any size give the same events.
pub async fn pages_join_without_gap_or_overlap(store: &dyn EventStore) {
    let batch = (0..41).map(|n| append(&format!("s-{}", n % 3), ANY, n * 10, 1 + n % 4));
    write(store, batch.collect()).await;
    let log = whole_log(store, MAX_PAGE).await;
    for limit in [1, 2, 7, log.len() - 1, log.len(), log.len() + 1] {
        assert_eq!(whole_log(store, limit).await, log);
        for n in 0..3 {
            let stream = name(&format!("s-{n}"));
            let own: Vec<_> = log.iter().filter(|event| event.stream == stream).cloned().collect();
            assert_eq!(whole_stream(store, &stream, limit).await, own);
        }
    }
}

/// Law: a limit of zero gives nothing, and no limit gives more than [`MAX_PAGE`].
pub async fn a_limit_is_bounded(store: &dyn EventStore) {
    let batch: Vec<_> = (0..6).map(|n| append("s", ANY, n * 1_000, 1_000)).collect();
    write(store, batch).await;
    for limit in [0, MAX_PAGE, usize::MAX] {
        let page = store.read_all(Position::ZERO, limit).await.expect("readable");
        assert_eq!(page.len(), limit.min(MAX_PAGE));
        let page = store.read_stream(&name("s"), Version::ZERO, limit).await.expect("readable");
        assert_eq!(page.len(), limit.min(MAX_PAGE));
    }
    assert_eq!(whole_log(store, usize::MAX).await.len(), 6_000);
}

/// Law: events of 1 MiB come back whole, though a page of them ends before its limit.
pub async fn large_events_make_short_pages_and_lose_nothing(store: &dyn EventStore) {
    let payload = |n: u64| Bytes::from(vec![n as u8; 1 << 20]);
    for n in 0..20 {
        let mut large = append("large", ANY, n, 1);
        large.events[0].data = payload(n);
        write_one(store, large).await.expect("a mebibyte is not too much");
    }
    let first = store.read_all(Position::ZERO, MAX_PAGE).await.expect("readable");
    assert_eq!(first.len(), 16, "16 MiB fill a page");
    for (n, event) in (0..).zip(whole_log(store, MAX_PAGE).await) {
        assert_eq!(event.data, payload(n));
    }
}

/// Law: names are kept byte by byte; none is read as anything but a name.
pub async fn any_valid_name_is_a_stream_of_its_own(store: &dyn EventStore) {
    let long = "x".repeat(StreamId::MAX_BYTES);
    // The two `é` are different: one character, and a letter with an accent behind it.
    let names = [
        "a",
        "A",
        " a",
        "a ",
        "é",
        "e\u{301}",
        "Ω/🦀",
        "it's",
        "\"q\"",
        "'; drop table events; --",
        "%",
        "_",
        "a%",
        "?",
        "?1",
        "$1",
        ":a",
        "null",
        "0",
        "00",
        "\\",
        &long,
    ];
    let batch = names.iter().zip(0..).map(|(stream, n)| append(stream, ANY, n, 1));
    for outcome in write(store, batch.collect()).await {
        assert_eq!(outcome.expect("accepted").last_version, Version::new(1));
    }
    for (stream, n) in names.iter().zip(0..) {
        let events = whole_stream(store, &name(stream), 10).await;
        assert_eq!(events.len(), 1, "{stream:?}");
        assert_eq!(events[0].id, event(n).id, "{stream:?}");
    }
}

/// Law: an event keeps its own type and schema version, however many there are.
pub async fn types_and_schema_versions_are_kept_apart(store: &dyn EventStore) {
    let mut many = append("s", ANY, 0, 600);
    for (n, event) in many.events.iter_mut().enumerate() {
        event.event_type = Arc::from(format!("type-{}", n % 150));
        event.schema_version = if n < 300 { 1 } else { u16::MAX };
    }
    // In two halves, so that the second meets both known and new types.
    let rest = many.events.split_off(200);
    let second = Append { events: rest, ..many.clone() };
    let written: Vec<_> = many.events.iter().chain(&second.events).cloned().collect();
    write(store, vec![many]).await.remove(0).expect("accepted");
    assert_eq!(whole_log(store, 77).await.len(), 200);
    write(store, vec![second]).await.remove(0).expect("accepted");
    for (event, written) in whole_log(store, 77).await.iter().zip(&written) {
        assert_eq!(event.event_type, written.event_type);
        assert_eq!(event.schema_version, written.schema_version);
    }
}

/// Law: the work begins with the first poll.
pub async fn a_call_that_is_never_awaited_writes_nothing(store: &dyn EventStore) {
    drop(store.append_batch([append("s", ANY, 0, 1)].into()));
    assert_eq!(whole_log(store, 10).await, []);
}
