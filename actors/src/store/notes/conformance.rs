//! The laws of [`Notes`].

use futures_util::future::join_all;

use super::{Notes, Skipped};
use crate::event::{Position, StreamId, Timestamp, Version};
use crate::store::conformance::{append, whole_log};
use crate::store::{Append, AppendError, EventStore, ExpectedVersion, IdempotencyKey};

/// Runs every law against notes of its own.
///
/// # Panics
///
/// A law is broken.
pub async fn run<N: Notes>(make: impl AsyncFn() -> N) {
    a_category_belongs_to_the_first_who_said_so(&make().await).await;
    what_is_skipped_stays_noted(&make().await).await;
}

const AT: Timestamp = Timestamp::from_micros(1_700_000_000_000_000);

/// Law: a category has one owner, the first, however often it is claimed.
pub async fn a_category_belongs_to_the_first_who_said_so(notes: &impl Notes) {
    assert_eq!(notes.owners().await.expect("readable"), []);
    for (category, owner, expected) in [
        ("order", "an aggregate", "an aggregate"),
        ("order", "an aggregate", "an aggregate"),
        ("order", "somebody", "an aggregate"),
        ("Order", "somebody", "somebody"),
        ("o'rder \u{e9}", "somebody", "somebody"),
    ] {
        let answer = notes.own(category, owner, AT).await.expect("writable");
        assert_eq!(answer, expected, "{category}");
    }
    let all = notes.owners().await.expect("readable");
    let names: Vec<_> = all.iter().map(|(category, _)| &**category).collect();
    assert_eq!(names, ["Order", "o'rder \u{e9}", "order"]);
}

/// Law: what was skipped is told with who and why, in the order of positions, and the first note of
/// an event stays.
pub async fn what_is_skipped_stays_noted(notes: &impl Notes) {
    let one = |stream: &str, version, position, reason: &str| Skipped {
        stream: StreamId::new(stream).expect("a name"),
        version: Version::new(version),
        position: Position::new(position),
        by: "ada".to_owned(),
        reason: reason.to_owned(),
        at: AT,
    };
    assert_eq!(notes.skipped(None).await.expect("readable"), []);
    let (b, a, other) = (one("s-b", 2, 9, "forged"), one("s-b", 1, 4, "cut"), one("s-a", 1, 6, ""));
    for skipped in [&b, &a, &other] {
        assert!(notes.skip(skipped.clone()).await.expect("writable"));
    }
    let again = Skipped { reason: "another".to_owned(), ..b.clone() };
    assert!(!notes.skip(again).await.expect("no fault"), "it was noted");
    let of_b = notes.skipped(Some(&b.stream)).await.expect("readable");
    assert_eq!(of_b, [a.clone(), b.clone()]);
    assert_eq!(notes.skipped(None).await.expect("readable"), [a, other, b]);
    let none = StreamId::new("s").expect("a name");
    assert_eq!(notes.skipped(Some(&none)).await.expect("readable"), []);
}

/// Law: from the moment that a category has an owner nothing gets into its streams from outside,
/// whatever was on its way; what else there is in a batch is written.
///
/// # Panics
///
/// It is broken.
pub async fn nothing_gets_past_an_owner<S: EventStore + Notes>(store: &S) {
    let outside = |stream: &str, seed: u64, keyed: bool| Append {
        key: keyed.then(|| IdempotencyKey::of([seed.to_le_bytes()])),
        outside: true,
        ..append(stream, ExpectedVersion::Any, seed, 1)
    };
    let writers = (0..9_u64).map(async |writer| {
        for n in 0.. {
            let (seed, keyed) = ((writer << 40) + n * 2, writer % 2 == 0);
            let mut batch = vec![outside(&format!("order-{writer}"), seed, keyed)];
            // Alone, which some stores write in another way, and beside another.
            if writer % 3 == 0 {
                batch.push(outside(&format!("free-{writer}"), seed + 1, keyed));
            }
            // A store in memory is always ready.
            tokio::task::yield_now().await;
            let mut outcomes =
                store.append_batch(batch.into()).await.expect("writable").into_iter();
            let first = outcomes.next().expect("an answer for each");
            outcomes.for_each(|other| drop(other.expect("nobody's")));
            match first {
                Ok(_) => {}
                Err(AppendError::Owned { stream, owner }) => {
                    assert_eq!((stream.category(), &*owner), ("order", "somebody"));
                    break;
                }
                Err(error) => panic!("{error}"),
            }
        }
    });
    let owner = async {
        store.changed(Position::new(50)).await.expect("they write");
        store.own("order", "somebody", AT).await.expect("writable");
        store.head().await.expect("readable")
    };
    let (head, _) = futures_util::join!(owner, join_all(writers));
    for event in whole_log(store, 500).await {
        let late = event.stream.category() == "order" && event.position > head;
        assert!(!late, "{} came in behind its owner, at {head}", event.stream);
    }
    // Its owner writes as before, and who comes later is refused at once.
    let own = append("order-0", ExpectedVersion::StreamExists, 1 << 60, 1);
    let batch = [own, outside("order-new", (1 << 60) + 1, true)];
    let outcomes = store.append_batch(batch.into()).await.expect("writable");
    assert!(outcomes[0].is_ok(), "{outcomes:?}");
    assert!(matches!(&outcomes[1], Err(AppendError::Owned { .. })), "{outcomes:?}");
}
