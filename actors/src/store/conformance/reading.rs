//! Laws of reading: backwards, filtered, by key, by time, and following what comes.

use std::sync::Arc;

use super::{ANY, append, keyed, name, whole_log, whole_stream, write, write_one};
use crate::event::{Position, RecordedEvent, StreamId, Timestamp, Version};
use crate::store::{
    Append, Appended, EventFilter, EventStore, IdempotencyKey, MARK_EVERY_US, MatchingPage,
};

/// Runs the laws of this file.
///
/// # Panics
///
/// A law is broken.
pub async fn run<S: EventStore>(make: &impl AsyncFn() -> S) {
    backward_is_forward_turned_around(&make().await).await;
    a_filter_lets_through_what_it_names(&make().await).await;
    a_filter_that_matches_nothing_ends(&make().await).await;
    a_limit_of_nothing_passes_over_nothing(&make().await).await;
    an_answer_is_found_by_its_key(&make().await).await;
    every_type_that_was_written_is_known(&make().await).await;
    a_time_is_a_place_before_its_events(&make().await).await;
    a_clock_that_goes_back_moves_no_mark(&make().await).await;
    whoever_waits_hears_of_the_next_event(&make().await).await;
}

/// Law: pages of any size, read from any version, are the stream from behind.
pub async fn backward_is_forward_turned_around(store: &dyn EventStore) {
    let batch = (0..30).map(|n| append(["a", "b"][n as usize % 2], ANY, n * 10, 1 + n % 3));
    write(store, batch.collect()).await;
    let stream = name("a");
    let mut forward = whole_stream(store, &stream, 100).await;
    forward.reverse();
    for limit in [1, 7, 100] {
        let mut backward: Vec<RecordedEvent> = Vec::new();
        loop {
            let before = backward.last().map_or(Version::new(u64::MAX), |event| event.version);
            let page = store.read_stream_backward(&stream, before, limit).await.expect("readable");
            assert!(page.len() <= limit, "a page keeps to its limit");
            if page.is_empty() {
                break;
            }
            backward.extend(page);
        }
        assert_eq!(backward, forward);
    }
    let page = store.read_stream_backward(&stream, Version::new(1), 10).await.expect("readable");
    assert_eq!(page, []);
}

async fn matching(
    store: &dyn EventStore,
    filter: &EventFilter,
    limit: usize,
) -> Vec<RecordedEvent> {
    let mut found: Vec<RecordedEvent> = Vec::new();
    let mut at = Position::ZERO;
    loop {
        let MatchingPage { events, scanned_to } =
            store.read_matching(filter, at, limit).await.expect("readable");
        assert!(events.len() <= limit, "a page keeps to its limit");
        assert!(events.iter().all(|event| at < event.position && event.position <= scanned_to));
        found.extend(events);
        if scanned_to == at {
            break;
        }
        at = scanned_to;
    }
    assert_eq!(at, store.head().await.expect("readable"), "everything was looked at");
    found
}

/// Law: a filtered read is the whole log, filtered.
pub async fn a_filter_lets_through_what_it_names(store: &dyn EventStore) {
    let streams = ["order-1", "order-2-b", "invoice-1", "order", "orders-1", "x"];
    let batch = (0..60).map(|n| append(streams[n as usize % 6], ANY, n * 7, 1 + n % 3));
    write(store, batch.collect()).await;
    let log = whole_log(store, 100).await;
    let filters = [
        EventFilter::ALL,
        EventFilter::ALL.categories(["order"]),
        EventFilter::ALL.categories(["invoice", "x"]),
        EventFilter::ALL.types(["opened"]),
        EventFilter::ALL.types(["opened", "closed", "never"]).categories(["order", "orders"]),
    ];
    for filter in filters {
        let accepted = |event: &&RecordedEvent| filter.accepts(&event.stream, &event.event_type);
        let expected: Vec<_> = log.iter().filter(accepted).cloned().collect();
        assert!(!expected.is_empty());
        for limit in [1, 10, 1_000] {
            assert_eq!(matching(store, &filter, limit).await, expected, "{filter:?}");
        }
    }
}

/// Law: what is not there is looked for up to the head and not longer.
pub async fn a_filter_that_matches_nothing_ends(store: &dyn EventStore) {
    let nothing = EventFilter::ALL.types(["never"]);
    assert_eq!(matching(store, &nothing, 10).await, []);
    write_one(store, append("s", ANY, 0, 50)).await.expect("accepted");
    assert_eq!(matching(store, &nothing, 10).await, []);
}

/// Law: a filtered page of no events has looked at nothing, so nothing is skipped by going on
/// behind it.
pub async fn a_limit_of_nothing_passes_over_nothing(store: &dyn EventStore) {
    write_one(store, append("s", ANY, 0, 5)).await.expect("accepted");
    for filter in [EventFilter::ALL, EventFilter::ALL.types(["never"])] {
        let after = Position::new(2);
        let page = store.read_matching(&filter, after, 0).await.expect("readable");
        assert_eq!(page, MatchingPage { events: Vec::new(), scanned_to: after }, "{filter:?}");
    }
}

/// Law: the first answer to a key can be asked for.
pub async fn an_answer_is_found_by_its_key(store: &dyn EventStore) {
    let key = IdempotencyKey::of(["k"]);
    assert_eq!(store.answer(key).await.expect("readable"), None);
    write_one(store, append("before", ANY, 10, 4)).await.expect("accepted");
    let first = write_one(store, keyed(append("s", ANY, 0, 3), "k")).await.expect("accepted");
    assert_eq!(store.answer(key).await.expect("readable"), Some(first.clone()));
    write_one(store, keyed(append("t", ANY, 0, 1), "k")).await.expect("a repeat");
    let found: Option<Appended> = store.answer(key).await.expect("readable");
    assert_eq!(found, Some(first));
}

/// Law: the list of types is that of the log.
pub async fn every_type_that_was_written_is_known(store: &dyn EventStore) {
    assert_eq!(store.event_types().await.expect("readable"), []);
    write_one(store, append("s", ANY, 0, 12)).await.expect("accepted");
    let mut expected: Vec<(Arc<str>, u16)> = whole_log(store, 100)
        .await
        .into_iter()
        .map(|event| (event.event_type, event.schema_version))
        .collect();
    expected.sort();
    expected.dedup();
    let types = store.event_types().await.expect("readable");
    let types: Vec<_> = types.into_iter().map(|one| (one.name, one.schema_version)).collect();
    assert_eq!(types, expected);
}

const START_US: i64 = 1_700_000_000_000_000;

fn at(stream: &str, us: i64) -> Append {
    let mut append = append(stream, ANY, us.cast_unsigned() % 1_000, 1);
    append.events[0].recorded_at = Timestamp::from_micros(us);
    append
}

/// Law: everything of a time or later is behind its place, and not much that is earlier.
pub async fn a_time_is_a_place_before_its_events(store: &dyn EventStore) {
    for n in 0..300 {
        // Twenty seconds apart, so three to a mark.
        write_one(store, at("s", START_US + n * MARK_EVERY_US / 3)).await.expect("accepted");
    }
    let log = whole_log(store, 1_000).await;
    for n in [-1, 0, 1, 100, 299, 300, 1_000] {
        let time = Timestamp::from_micros(START_US + n * MARK_EVERY_US / 3);
        let place = store.position_at(time).await.expect("readable");
        let (before, behind) = log.split_at(usize::try_from(place.get()).expect("small"));
        assert!(before.iter().all(|event| event.recorded_at < time), "{n}: {place}");
        let early = behind.iter().filter(|event| event.recorded_at < time).count();
        assert!(early <= 3, "{n}: {early} events too many");
    }
}

/// Law: a clock that was set back writes no mark until it is past the last one.
pub async fn a_clock_that_goes_back_moves_no_mark(store: &dyn EventStore) {
    let minute = MARK_EVERY_US;
    for n in [10, 11, 3, 4, 5, 12] {
        write_one(store, at("s", START_US + n * minute)).await.expect("accepted");
    }
    let place = async |n: i64| {
        let time = Timestamp::from_micros(START_US + n * minute);
        store.position_at(time).await.expect("readable").get()
    };
    assert_eq!(place(9).await, 0);
    assert_eq!(place(10).await, 0);
    assert_eq!(place(11).await, 1);
    assert_eq!(place(12).await, 5);
}

/// Law: waiting ends with the next event, whoever wrote it and whenever the waiting began.
pub async fn whoever_waits_hears_of_the_next_event(store: &dyn EventStore) {
    let stream: StreamId = name("s");
    let ((), ()) = futures_util::join!(
        async {
            let head = store.changed(Position::ZERO).await.expect("readable");
            assert_eq!(head, Position::new(2));
        },
        async {
            write_one(store, append("s", ANY, 0, 2)).await.expect("accepted");
        }
    );
    let head = store.changed(Position::new(1)).await.expect("it is there already");
    assert_eq!(head, Position::new(2));
    let mut waiting = store.changed(Position::new(2));
    assert!(futures_util::poll!(&mut waiting).is_pending());
    write_one(store, append("s", ANY, 5, 1)).await.expect("accepted");
    assert_eq!(waiting.await.expect("readable"), Position::new(3));
    assert_eq!(whole_stream(store, &stream, 10).await.len(), 3);
}
