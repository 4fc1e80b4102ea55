//! The laws that every [`Claims`] keeps, as tests to run against an adapter.

// A test suite has no caller that could act on an error: each `expect` is an assertion.

use std::sync::Arc;
use std::time::Duration;

use super::{Claim, ClaimError, Claimed, Claims, Place, Request, Save};
use crate::event::Position;

/// Long enough for a test.
const LONG: Duration = Duration::from_secs(60);

/// Over at once.
const OVER: Duration = Duration::ZERO;

/// Runs every law against claims of their own. On a store of several nodes (`shared`) a lease is a
/// lease; on another every claim is granted.
///
/// # Panics
///
/// A law is broken.
pub async fn run<C: Claims>(shared: bool, make: impl AsyncFn() -> C) {
    a_later_claim_fences_the_one_before(&make().await).await;
    place_and_notes_are_written_together(&make().await).await;
    anybody_can_ask_and_sees_when_it_is_heard(&make().await).await;
    deaths_without_progress_are_counted(&make().await).await;
    if shared {
        a_claim_is_held_until_its_lease_ends_or_it_is_released(&make().await).await;
        one_of_many_gets_it(&make().await).await;
    }
}

async fn claim(claims: &dyn Claims, owner: &str, lease: Duration) -> Claim {
    match claims.claim("f", owner, lease).await.expect("writable") {
        Claimed::Yes(claim) => claim,
        Claimed::Held(place) => panic!("held: {place:?}"),
    }
}

async fn place(claims: &dyn Claims) -> Place {
    claims.place("f").await.expect("readable").expect("it was claimed")
}

async fn ids(claims: &dyn Claims) -> Vec<Arc<str>> {
    let notes = claims.notes("f", "", 100).await.expect("readable");
    notes.into_iter().map(|(id, _)| id).collect()
}

fn to(position: u64) -> Save {
    Save::renewal(LONG).to(Position::new(position))
}

fn is_lost<T>(result: &Result<T, ClaimError>) -> bool {
    matches!(result, Err(ClaimError::Lost { .. }))
}

/// Law: only the latest claim writes, and only its owner.
pub async fn a_later_claim_fences_the_one_before(claims: &dyn Claims) {
    assert_eq!(claims.place("f").await.expect("readable"), None);
    let first = claim(claims, "a", OVER).await;
    assert_eq!(first.place.position, Position::ZERO);
    claims.save(&first.fence, to(3)).await.expect("it is the latest");
    let second = claim(claims, "a", OVER).await;
    assert!(second.fence.epoch > first.fence.epoch);
    assert_eq!(second.place.position, Position::new(3));
    assert!(is_lost(&claims.save(&first.fence, to(9)).await), "an earlier claim");
    let mut forged = second.fence.clone();
    forged.owner = "b".into();
    assert!(is_lost(&claims.save(&forged, to(9)).await), "the epoch of another owner");
    claims.release(&first.fence).await.expect("nothing happens");
    claims.save(&second.fence, to(4)).await.expect("it is the latest");
    assert_eq!(place(claims).await.position, Position::new(4));
    claims.claim("g", "a", LONG).await.expect("writable");
    let names: Vec<_> = claims.places().await.expect("readable");
    assert_eq!(names.iter().map(|one| &*one.name).collect::<Vec<_>>(), ["f", "g"]);
}

/// Law: what a save changes is all there, or nothing of it; places go back, too.
pub async fn place_and_notes_are_written_together(claims: &dyn Claims) {
    let old = claim(claims, "a", OVER).await;
    let held = claim(claims, "a", LONG).await;
    let note = |id: &str, data: &'static [u8]| (Arc::from(id), Some(data.into()));
    let save = to(7).notes([note("b", b"1"), note("a", b"\0\xff"), note("c", b"3")]);
    claims.save(&held.fence, save).await.expect("writable");
    let fenced = claims.save(&old.fence, to(8).notes([note("z", b"late")])).await;
    assert!(is_lost(&fenced));
    assert_eq!(ids(claims).await, ["a", "b", "c"].map(Arc::from));
    let data = claims.note("f", "a").await.expect("readable");
    assert_eq!(data.as_deref(), Some(&b"\0\xff"[..]));
    let save = to(5).notes([("b".into(), None), note("a", b"new"), ("nobody".into(), None)]);
    claims.save(&held.fence, save).await.expect("writable");
    let page = claims.notes("f", "a", 1).await.expect("readable");
    assert_eq!(page.iter().map(|(id, _)| &**id).collect::<Vec<_>>(), ["c"]);
    assert_eq!(claims.note("f", "a").await.expect("readable").as_deref(), Some(&b"new"[..]));
    assert_eq!(claims.note("f", "b").await.expect("readable"), None);
    claims.save(&held.fence, Save::renewal(LONG)).await.expect("writable");
    assert_eq!(claim(claims, "a", LONG).await.place.position, Position::new(5));
}

/// Law: a request is kept until the owner has done it, also while there is none.
pub async fn anybody_can_ask_and_sees_when_it_is_heard(claims: &dyn Claims) {
    let unknown = claims.ask("f", Request::Pause).await;
    assert!(matches!(unknown, Err(ClaimError::Unknown { .. })), "{unknown:?}");
    let first = claim(claims, "a", LONG).await;
    assert_eq!(claims.ask("f", Request::Pause).await.expect("writable"), 1);
    let orders = claims.save(&first.fence, to(2)).await.expect("writable");
    assert!(orders.paused);
    assert_eq!((orders.asked, place(claims).await.heard), (1, 0));
    let heard = Save { heard: 1, ..Save::renewal(LONG) };
    claims.save(&first.fence, heard).await.expect("writable");
    assert_eq!(place(claims).await.heard, 1);
    claims.release(&first.fence).await.expect("writable");
    assert_eq!(claims.ask("f", Request::Resume).await.expect("writable"), 2);
    assert_eq!(claims.ask("f", Request::Skip(Position::new(5))).await.expect("writable"), 3);
    assert_eq!(claims.ask("f", Request::GoTo(Position::new(1))).await.expect("writable"), 4);
    let second = claim(claims, "b", LONG).await;
    let seen = &second.place;
    assert_eq!((seen.paused, seen.asked, seen.heard), (false, 4, 1));
    let notes = claims.notes("f", "", 10).await.expect("readable");
    let asked: Vec<Request> = notes
        .iter()
        .map(|(_, data)| serde_json::from_slice(data).expect("it is a request"))
        .collect();
    assert_eq!(asked, [Request::Skip(Position::new(5)), Request::GoTo(Position::new(1))]);
    assert_eq!(ids(claims).await, [super::asked(3), super::asked(4)]);
    let done = Save { heard: 4, ..to(1) };
    claims.save(&second.fence, done.notes([(super::asked(4), None)])).await.expect("writable");
    assert_eq!(ids(claims).await, [super::asked(3)]);
}

/// Law: what kills one owner after the other is known by their deaths.
pub async fn deaths_without_progress_are_counted(claims: &dyn Claims) {
    let mut last = claim(claims, "one", OVER).await;
    assert_eq!((last.place.deaths, last.place.tries), (0, 0));
    // The same owner again is a restart inside of a process.
    last = claim(claims, "one", OVER).await;
    assert_eq!(last.place.deaths, 0);
    let over = |save: Save| Save { lease: OVER, ..save };
    claims.save(&last.fence, over(to(3))).await.expect("writable");
    for (n, owner) in ["two", "three", "four"].into_iter().enumerate() {
        last = claim(claims, owner, OVER).await;
        assert_eq!(u64::from(last.place.deaths), n as u64 + 1);
    }
    // Progress: they are counted anew. A release is no death.
    claims.save(&last.fence, over(to(4))).await.expect("writable");
    last = claim(claims, "five", OVER).await;
    assert_eq!(last.place.deaths, 1);
    claims.release(&last.fence).await.expect("writable");
    last = claim(claims, "six", OVER).await;
    assert_eq!(last.place.deaths, 1);

    let trying =
        |at| Save { trying: Some(Position::new(at)), durable: true, ..Save::renewal(OVER) };
    for tries in 1..=2 {
        claims.save(&last.fence, trying(5)).await.expect("writable");
        last = claim(claims, &format!("t{tries}"), OVER).await;
        assert_eq!((last.place.trying, last.place.tries), (Position::new(5), tries));
    }
    claims.save(&last.fence, Save { to: Some(Position::new(5)), ..trying(6) }).await.expect("ok");
    assert_eq!(place(claims).await.tries, 0, "of another event");
    claims.save(&last.fence, over(to(6))).await.expect("writable");
    last = claim(claims, "late", OVER).await;
    assert_eq!(last.place.tries, 0, "the event was done");
}

/// Law: others get a claim when its lease has run out, or it was given back.
pub async fn a_claim_is_held_until_its_lease_ends_or_it_is_released(claims: &dyn Claims) {
    let first = claim(claims, "a", LONG).await;
    claims.save(&first.fence, to(6)).await.expect("writable");
    match claims.claim("f", "b", LONG).await.expect("readable") {
        Claimed::Held(place) => {
            assert_eq!((&*place.owner, place.position.get(), place.held), ("a", 6, true));
        }
        Claimed::Yes(claim) => panic!("{claim:?}"),
    }
    claims.release(&first.fence).await.expect("writable");
    assert!(!place(claims).await.held);
    assert!(is_lost(&claims.save(&first.fence, to(7)).await), "it was given back");
    let second = claim(claims, "b", OVER).await;
    assert_eq!(second.place.deaths, 0);
    assert!(!place(claims).await.held, "its lease has run out");
    claims.save(&second.fence, to(8)).await.expect("nobody has claimed it since");
    assert!(place(claims).await.held, "a save renews it");
    claims.save(&second.fence, Save::renewal(OVER)).await.expect("writable");
    assert_eq!(claim(claims, "c", LONG).await.place.position, Position::new(8));
    assert!(is_lost(&claims.save(&second.fence, to(9)).await));
}

/// Law: of those who ask at once, one gets it.
pub async fn one_of_many_gets_it(claims: &dyn Claims) {
    let owners: Vec<_> = (0..8).map(|n| format!("o{n}")).collect();
    let asking = owners.iter().map(|owner| claims.claim("f", owner, LONG));
    let got = futures_util::future::join_all(asking).await;
    let yes = got.iter().filter(|one| matches!(one, Ok(Claimed::Yes(_)))).count();
    assert_eq!(yes, 1, "{got:?}");
}
