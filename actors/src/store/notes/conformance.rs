//! The laws of [`Notes`].

use super::{Notes, Skipped};
use crate::event::{Position, StreamId, Timestamp, Version};

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
