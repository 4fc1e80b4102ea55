//! The laws that every [`TimerTable`] keeps, as tests to run against an adapter.

// A test suite has no caller that could act on an error: each `expect` is an assertion.

use std::sync::Arc;
use std::time::Duration;

use super::{Due, NewTimer, Settled, TimerFilter, TimerRow, TimerState, TimerTable};
use crate::event::Timestamp;
use crate::store::claims::{Claimed, Claims, Fence};

/// Long enough for a test.
const LONG: Duration = Duration::from_secs(60);

/// Runs every law against tables of their own, each with the claims of its store.
///
/// # Panics
///
/// A law is broken.
pub async fn run<T: TimerTable, C: Claims>(make: impl AsyncFn() -> (T, Arc<C>)) {
    one_of_a_name_and_the_last_one_counts(&make().await.0).await;
    those_that_are_due_come_in_the_order_of_their_times(&make().await.0).await;
    what_is_cancelled_is_gone(&make().await.0).await;
    a_list_has_pages(&make().await.0).await;
    let (table, claims) = make().await;
    what_was_fired_goes_or_comes_again(&table, &*claims).await;
    let (table, claims) = make().await;
    only_the_owner_settles(&table, &*claims).await;
    let (table, claims) = make().await;
    what_nobody_knew_is_looked_at_again(&table, &*claims).await;
}

fn time(micros: i64) -> Timestamp {
    Timestamp::from_micros(micros)
}

fn timer(kind: &str, name: &str, due: i64) -> NewTimer {
    NewTimer::new(kind, name, time(due), b"\0\xff".to_vec())
}

async fn get(table: &dyn TimerTable, name: &str) -> TimerRow {
    table.get("k", name).await.expect("readable").expect("it is there")
}

async fn due(table: &dyn TimerTable, kind: &str, by: i64) -> Vec<String> {
    let page = table.due(kind, time(by), 100).await.expect("readable").rows;
    page.iter().map(|row| row.name.to_string()).collect()
}

async fn fence(claims: &dyn Claims, owner: &str) -> Fence {
    match claims.claim("timer.k", owner, LONG).await.expect("writable") {
        Claimed::Yes(claim) => claim.fence,
        Claimed::Held(place) => panic!("held: {place:?}"),
    }
}

fn later(at: i64, state: TimerState, attempts: u32) -> Settled {
    Settled::Later { at: time(at), state, attempts, reason: "a\0b".to_owned() }
}

/// Law: to set the same timer again changes nothing; another one of its name takes its place.
pub async fn one_of_a_name_and_the_last_one_counts(table: &dyn TimerTable) {
    table.set(vec![timer("k", "a", 10)]).await.expect("writable");
    let first = get(table, "a").await;
    assert_eq!((first.due, first.at, &first.payload[..]), (time(10), time(10), &b"\0\xff"[..]));
    table.set(vec![timer("k", "a", 10)]).await.expect("writable");
    assert_eq!(get(table, "a").await, first, "the same one");
    table.set(vec![timer("k", "a", 11)]).await.expect("writable");
    let second = get(table, "a").await;
    assert_eq!(second.due, time(11));
    assert_ne!(second.id, first.id, "another one");
    table.set(vec![timer("k", "a", 12), timer("k", "a", 13)]).await.expect("writable");
    assert_eq!(get(table, "a").await.due, time(13), "the later of two in one call");
    let other = NewTimer::new("k", "a", time(13), b"other".as_slice());
    table.set(vec![other]).await.expect("writable");
    assert_eq!(&get(table, "a").await.payload[..], b"other");
    assert_eq!(table.get("l", "a").await.expect("readable"), None, "of another kind");
    table.set(Vec::new()).await.expect("nothing is easy");
}

/// Law: those that are due come in the order of their times, a page at a time, and of one kind.
pub async fn those_that_are_due_come_in_the_order_of_their_times(table: &dyn TimerTable) {
    assert_eq!(table.due("k", time(0), 9).await.expect("readable"), Due::default());
    let all = [("c", 3), ("a", 5), ("b", 1), ("z", 9)].map(|(name, at)| timer("k", name, at));
    table.set(all.to_vec()).await.expect("writable");
    table.set(vec![timer("other", "o", 0)]).await.expect("writable");
    assert_eq!(due(table, "k", 0).await, Vec::<String>::new());
    assert_eq!(due(table, "k", 5).await, ["b", "c", "a"]);
    let page = table.due("k", time(4), 1).await.expect("readable");
    assert_eq!(page.rows.iter().map(|row| &*row.name).collect::<Vec<_>>(), ["b"]);
    assert_eq!(page.next, Some(time(5)), "after all that are due");
    let page = table.due("k", time(0), 9).await.expect("readable");
    assert_eq!((page.rows.len(), page.next), (0, Some(time(1))));
    assert_eq!(table.due("k", time(9), 9).await.expect("readable").next, None);
}

/// Law: what is cancelled is gone, by its name or by a range of names.
pub async fn what_is_cancelled_is_gone(table: &dyn TimerTable) {
    let names = ["a", "p/1", "p/2", "p/3", "q"];
    table.set(names.map(|name| timer("k", name, 1)).to_vec()).await.expect("writable");
    table.set(vec![timer("other", "p/2", 1)]).await.expect("writable");
    assert!(table.cancel("k", "a").await.expect("writable"));
    assert!(!table.cancel("k", "a").await.expect("writable"), "once");
    assert_eq!(table.cancel_between("k", "p/", "p/3").await.expect("writable"), 2);
    let mut left = due(table, "k", 1).await;
    left.sort_unstable();
    assert_eq!(left, ["p/3", "q"]);
    assert_eq!(due(table, "other", 1).await, ["p/2"]);
}

/// Law: a list has every timer once, by kind and name.
pub async fn a_list_has_pages(table: &dyn TimerTable) {
    let all = [("k", "b"), ("k", "a"), ("j", "z"), ("l", "a")];
    table.set(all.map(|(kind, name)| timer(kind, name, 1)).to_vec()).await.expect("writable");
    let (mut names, mut after) = (Vec::new(), None::<TimerRow>);
    loop {
        let from = after.as_ref().map(|row| (&*row.kind, &*row.name));
        let page = table.list(&TimerFilter::default(), from, 3).await.expect("readable");
        let Some(last) = page.last() else { break };
        names.extend(page.iter().map(|row| format!("{}/{}", row.kind, row.name)));
        after = Some(last.clone());
    }
    assert_eq!(names, ["j/z", "k/a", "k/b", "l/a"]);
    let filter = TimerFilter::default().kind("k");
    assert_eq!(table.list(&filter, None, 9).await.expect("readable").len(), 2);
    let filter = filter.state(TimerState::Unknown);
    assert_eq!(table.list(&filter, None, 9).await.expect("readable").len(), 0);
}

/// Law: a timer that was fired goes, comes again, or stays with the reason; one that was set anew
/// or cancelled meanwhile is left alone.
pub async fn what_was_fired_goes_or_comes_again(table: &dyn TimerTable, claims: &dyn Claims) {
    let names = ["again", "done", "later", "new", "try"];
    table.set(names.map(|name| timer("k", name, 1)).to_vec()).await.expect("writable");
    let fence = fence(claims, "one").await;
    let id = async |name| get(table, name).await.id;
    let settled = vec![
        (id("done").await, Settled::Done),
        (id("again").await, Settled::Again(time(7))),
        (id("later").await, later(5, TimerState::Waiting, 3)),
        (id("new").await, Settled::Done),
        (id("try").await, Settled::Trying),
    ];
    table.set(vec![timer("k", "new", 2)]).await.expect("writable");
    assert!(table.settle(&fence, settled).await.expect("writable"));
    assert_eq!(table.get("k", "done").await.expect("readable"), None);
    let again = get(table, "again").await;
    assert_eq!((again.due, again.at, again.attempts), (time(7), time(7), 0));
    let row = get(table, "later").await;
    assert_eq!((row.due, row.at, row.attempts, row.deaths), (time(1), time(5), 3, 0));
    assert!(row.reason.starts_with('a'), "{}", row.reason);
    assert_eq!(get(table, "new").await.due, time(2), "it was set anew");
    assert_eq!(get(table, "try").await.deaths, 1);
    assert_eq!(due(table, "k", 4).await, ["try", "new"]);
    let tried = vec![(id("try").await, later(1, TimerState::Waiting, 1))];
    assert!(table.settle(&fence, tried).await.expect("writable"));
    assert_eq!(get(table, "try").await.deaths, 0, "it was survived");
    // To set it again as it is keeps its tries.
    table.set(vec![timer("k", "later", 1)]).await.expect("writable");
    assert_eq!(get(table, "later").await.attempts, 3);
    assert!(table.cancel("k", "again").await.expect("writable"));
    let gone = vec![(again.id, Settled::Again(time(9)))];
    assert!(table.settle(&fence, gone).await.expect("writable"));
    assert_eq!(table.get("k", "again").await.expect("readable"), None, "cancelled is cancelled");
}

/// Law: who has lost the claim settles nothing.
pub async fn only_the_owner_settles(table: &dyn TimerTable, claims: &dyn Claims) {
    table.set(vec![timer("k", "a", 1), timer("k", "b", 1)]).await.expect("writable");
    let (first, a, b) =
        (fence(claims, "one").await, get(table, "a").await.id, get(table, "b").await.id);
    claims.release(&first).await.expect("writable");
    let second = fence(claims, "two").await;
    let settled = vec![(a, Settled::Done), (b, later(9, TimerState::Unknown, 1))];
    assert!(!table.settle(&first, settled).await.expect("writable"));
    assert_eq!(due(table, "k", 1).await.len(), 2, "nothing happened");
    assert!(table.settle(&second, vec![(a, Settled::Done)]).await.expect("writable"));
    assert_eq!(due(table, "k", 1).await, ["b"]);
}

/// Law: those that nobody knew are counted, and looked at again when another program asks for it.
pub async fn what_nobody_knew_is_looked_at_again(table: &dyn TimerTable, claims: &dyn Claims) {
    table.set(vec![timer("k", "a", 1), timer("k", "b", 1)]).await.expect("writable");
    let fence = fence(claims, "one").await;
    let rows = table.due("k", time(1), 9).await.expect("readable").rows;
    assert_eq!(table.unknown("k").await.expect("readable"), 0);
    let states = [TimerState::Unknown, TimerState::Waiting].map(|state| later(50, state, 1));
    let settled = rows.iter().map(|row| row.id).zip(states).collect();
    assert!(table.settle(&fence, settled).await.expect("writable"));
    assert_eq!(table.due("k", time(1), 9).await.expect("readable").next, Some(time(50)));
    assert_eq!(table.unknown("k").await.expect("readable"), 1);
    let filter = TimerFilter::default().state(TimerState::Unknown);
    let unknown = table.list(&filter, None, 9).await.expect("readable");
    assert_eq!(unknown.len(), 1);
    table.wake("k").await.expect("writable");
    let page = table.due("k", time(1), 9).await.expect("readable").rows;
    assert_eq!(page.iter().map(|row| row.id).collect::<Vec<_>>(), [unknown[0].id]);
    assert_eq!(page[0].state, TimerState::Unknown, "until it is known");
}
