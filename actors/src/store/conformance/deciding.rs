//! Laws of what a batch does to streams: links between appends, and streams that end.

use super::{ANY, append, assert_conflict, exact, keyed, name, tombstone, whole_log, whole_stream};
use super::{write, write_one};
use crate::event::{RecordedEvent, Version};
use crate::store::{
    Append, AppendError, AppendOutcome, Appended, EventStore, ExpectedVersion, InvalidAppend,
    MAX_APPEND_BYTES, MAX_EVENT_BYTES, TOMBSTONE,
};

/// Runs the laws of this file.
///
/// # Panics
///
/// A law is broken.
pub async fn run<S: EventStore>(make: &impl AsyncFn() -> S) {
    a_linked_append_needs_the_one_before_it(&make().await).await;
    a_linked_append_needs_the_one_before_it_to_be_fresh(&make().await).await;
    a_tombstone_ends_a_stream(&make().await).await;
    a_tombstone_counts_in_its_own_batch(&make().await).await;
    a_tombstone_checks_the_version(&make().await).await;
    types_of_the_store_are_not_for_applications(&make().await).await;
    an_append_takes_so_many_bytes_and_no_more(&make().await).await;
}

/// Law: an append of just [`MAX_APPEND_BYTES`] is written and read back; of one byte more it is
/// refused, and the limit is named.
pub async fn an_append_takes_so_many_bytes_and_no_more(store: &dyn EventStore) {
    let count = (MAX_APPEND_BYTES / MAX_EVENT_BYTES) as u64;
    let large = |more: usize| {
        let mut large = append("s", ANY, 0, count + 1);
        for event in &mut large.events {
            (event.data, event.meta) = (vec![7; MAX_EVENT_BYTES].into(), Default::default());
        }
        // Two halves of an event, so that each of them is taken.
        large.events[0].data = vec![7; MAX_EVENT_BYTES / 2].into();
        large.events[1].data = vec![7; MAX_EVENT_BYTES / 2 + more].into();
        large
    };
    let error = write_one(store, large(1)).await.expect_err("too large");
    assert!(
        matches!(
            &error,
            AppendError::Invalid { reason: InvalidAppend::TooManyBytes { bytes }, .. }
                if *bytes == MAX_APPEND_BYTES + 1
        ),
        "{error}"
    );
    assert!(error.to_string().contains(&MAX_APPEND_BYTES.to_string()), "{error}");
    let written = write_one(store, large(0)).await.expect("taken");
    assert_eq!(written.last_version.get(), count + 1);
    let log = whole_log(store, 10).await;
    assert_eq!(log.iter().map(RecordedEvent::size).sum::<usize>(), MAX_APPEND_BYTES);
}

fn linked(append: Append) -> Append {
    Append { linked: true, ..append }
}

/// Law: after a refused append a linked one is refused as well, though its version would match.
pub async fn a_linked_append_needs_the_one_before_it(store: &dyn EventStore) {
    // Somebody else's event makes the version that the second of two decisions expects.
    write_one(store, append("s", ANY, 0, 2)).await.expect("accepted");
    let outcomes =
        write(store, vec![append("s", exact(1), 10, 1), linked(append("s", exact(2), 20, 1))])
            .await;
    assert_conflict(&outcomes[0], "s", 2);
    assert_conflict(&outcomes[1], "s", 2);
    let batch = vec![
        append("s", exact(2), 30, 1),
        linked(append("s", exact(3), 40, 1)),
        linked(append("t", exact(3), 50, 1)),
        linked(append("t", exact(0), 60, 1)),
        append("t", exact(0), 70, 1),
    ];
    let outcomes = write(store, batch).await;
    let written: Vec<_> = outcomes.iter().map(Result::is_ok).collect();
    assert_eq!(written, [true, true, false, false, true]);
    // The first of a batch has nothing before it to be linked to.
    let alone = write_one(store, linked(append("u", ANY, 80, 1))).await;
    assert_conflict(&alone, "u", 0);
}

/// Law: a repeat is not what a linked append was decided on.
pub async fn a_linked_append_needs_the_one_before_it_to_be_fresh(store: &dyn EventStore) {
    let first = keyed(append("s", ANY, 0, 1), "k");
    write_one(store, first.clone()).await.expect("accepted");
    let outcomes = write(store, vec![first, linked(append("s", exact(1), 10, 1))]).await;
    assert!(outcomes[0].as_ref().expect("a repeat").duplicate);
    assert_conflict(&outcomes[1], "s", 1);
}

/// Law: after its tombstone a stream reads as empty and takes nothing; the log keeps all of it.
pub async fn a_tombstone_ends_a_stream(store: &dyn EventStore) {
    let first = keyed(append("s", ANY, 0, 3), "k");
    let answer = write_one(store, first.clone()).await.expect("accepted");
    write_one(store, append("t", ANY, 10, 1)).await.expect("accepted");
    let end = write_one(store, tombstone("s", exact(3), 20)).await.expect("accepted");
    assert_eq!((end.last_version.get(), end.last_position.get()), (4, 5));
    for expected in [ANY, ExpectedVersion::NoStream, ExpectedVersion::StreamExists, exact(4)] {
        assert_deleted(&write_one(store, append("s", expected, 30, 1)).await, "s");
        assert_deleted(&write_one(store, tombstone("s", expected, 30)).await, "s");
    }
    // What was answered stays answered.
    let again = write_one(store, first).await.expect("a repeat is no error");
    assert_eq!(again, Appended { duplicate: true, ..answer });
    let s = name("s");
    assert_eq!(store.read_stream(&s, Version::ZERO, 10).await.expect("readable"), []);
    let end = Version::new(u64::MAX);
    assert_eq!(store.read_stream_backward(&s, end, 10).await.expect("readable"), []);
    let log = whole_log(store, 10).await;
    assert_eq!(log.len(), 5);
    assert_eq!(&*log[4].event_type, TOMBSTONE);
    assert_eq!(whole_stream(store, &name("t"), 10).await.len(), 1);
}

/// Law: later appends of the same batch meet the tombstone.
pub async fn a_tombstone_counts_in_its_own_batch(store: &dyn EventStore) {
    let outcomes = write(
        store,
        vec![append("s", ANY, 0, 1), tombstone("s", exact(1), 10), append("s", ANY, 20, 1)],
    )
    .await;
    outcomes[1].as_ref().expect("it follows the first");
    assert_deleted(&outcomes[2], "s");
}

/// Law: a tombstone is an append like others.
pub async fn a_tombstone_checks_the_version(store: &dyn EventStore) {
    assert_conflict(
        &write_one(store, tombstone("s", ExpectedVersion::StreamExists, 0)).await,
        "s",
        0,
    );
    write_one(store, append("s", ANY, 1, 2)).await.expect("accepted");
    assert_conflict(&write_one(store, tombstone("s", exact(1), 5)).await, "s", 2);
    assert_eq!(whole_stream(store, &name("s"), 10).await.len(), 2);
}

/// Law: a type that begins with `$` is refused, and a tombstone among other events too.
pub async fn types_of_the_store_are_not_for_applications(store: &dyn EventStore) {
    let mut odd = append("s", ANY, 0, 1);
    odd.events[0].event_type = "$mine".into();
    let mut hidden = append("s", ANY, 0, 2);
    hidden.events[1].event_type = TOMBSTONE.into();
    for (append, index) in [(odd, 0), (hidden, 1)] {
        match write_one(store, append).await {
            Err(AppendError::Invalid {
                reason: InvalidAppend::EventType { index: at, .. },
                ..
            }) => assert_eq!(at, index),
            other => panic!("expected a refusal, got {other:?}"),
        }
    }
}

fn assert_deleted(outcome: &AppendOutcome, stream: &str) {
    match outcome {
        Err(AppendError::Deleted { stream: at }) => assert_eq!(at.as_str(), stream),
        other => panic!("expected a deleted stream, got {other:?}"),
    }
}
