//! The laws that every [`Documents`] keeps, as tests to run against an adapter.

// A test suite has no caller that could act on an error: each `expect` is an assertion.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::json;

use super::builds::{Activation, Wanted};
use super::{Commit, Documents, Parked, ParkedQuery, Part, Writer};
use crate::event::Position;
use crate::store::claims::{ClaimError, Claimed, Save};
use crate::store::read_model::query::{Compare, ListQuery};
use crate::store::read_model::{Epoch, ProjectionError};

pub mod odd;

const LEASE: Duration = Duration::from_secs(60);

/// Runs every law against a store of its own.
///
/// # Panics
///
/// A law is broken.
pub async fn run<D: Documents>(make: impl AsyncFn() -> D) {
    documents_and_checkpoint_are_written_together(&make().await).await;
    a_later_claim_fences_the_one_before(&make().await).await;
    a_build_takes_the_place_of_another_when_it_is_as_far(&make().await).await;
    a_new_version_begins_a_build(&make().await).await;
    a_reset_begins_again(&make().await).await;
    a_build_that_parks_more_does_not_take_the_place(&make().await).await;
    parked_events_stay_in_order(&make().await).await;
    lists_are_filtered_and_paged(&make().await).await;
    odd::pages_of_a_list_are_the_list(&make().await).await;
    odd::a_document_may_hold_any_text(&make().await).await;
}

/// A claim that was granted.
struct Claim {
    epoch: Epoch,
    checkpoint: Position,
}

async fn claim(documents: &dyn Documents, part: Part) -> Claim {
    claim_as(documents, part, "me").await
}

async fn claim_as(documents: &dyn Documents, part: Part, owner: &str) -> Claim {
    match documents.claims().claim(&part.to_string(), owner, LEASE).await.expect("writable") {
        Claimed::Yes(claim) => Claim { epoch: claim.fence.epoch, checkpoint: claim.place.position },
        Claimed::Held(place) => panic!("held by {}", place.owner),
    }
}

fn commit(part: Part, epoch: Epoch, to: u64) -> Commit {
    let writer = Writer { part, owner: "me".into(), epoch };
    Commit::checkpoint(writer, LEASE, None, Position::new(to))
}

const fn wanted(version: u32, partitions: u16) -> Wanted {
    Wanted { version, partitions }
}

fn put(id: &str, data: &serde_json::Value, at: u64) -> (Arc<str>, Option<Bytes>, Position) {
    (id.into(), Some(data.to_string().into()), Position::new(at))
}

async fn read(documents: &dyn Documents, id: &str) -> Option<serde_json::Value> {
    let found = documents.get("p", id).await.expect("readable").document?;
    assert_eq!(&*found.id, id);
    Some(serde_json::from_slice(&found.data).expect("it is JSON"))
}

async fn first_part(documents: &dyn Documents) -> Part {
    let builds = documents.builds("p", wanted(1, 1)).await.expect("writable");
    Part { build: builds.active.id, partition: 0 }
}

/// Law: what a commit changes is all there, or nothing of it.
pub async fn documents_and_checkpoint_are_written_together(documents: &dyn Documents) {
    let part = first_part(documents).await;
    let Claim { epoch, checkpoint } = claim(documents, part).await;
    assert_eq!(checkpoint, Position::ZERO);
    let mut first = commit(part, epoch, 5);
    first.changes = (0..130).map(|n| put(&format!("d{n}"), &json!({"n": n}), 5)).collect();
    documents.commit(first).await.expect("writable");
    let mut second = commit(part, epoch, 9);
    second.changes =
        vec![put("d1", &json!({"n": "one"}), 7), ("d2".into(), None, Position::new(8))];
    documents.commit(second).await.expect("writable");
    assert_eq!(read(documents, "d1").await, Some(json!({"n": "one"})));
    assert_eq!(read(documents, "d2").await, None);
    assert_eq!(read(documents, "d129").await, Some(json!({"n": 129})));
    let ids = ["d0", "d1", "d2", "nobody"].map(Arc::from);
    let mut loaded = documents.load(part.build, &ids).await.expect("readable");
    loaded.sort_by(|a, b| a.id.cmp(&b.id));
    let places: Vec<_> = loaded.iter().map(|one| (&*one.id, one.position.get())).collect();
    assert_eq!(places, [("d0", 5), ("d1", 7)]);
    assert_eq!(claim(documents, part).await.checkpoint, Position::new(9));
    let progress = documents.progress("p").await.expect("readable");
    assert_eq!(progress.len(), 1);
    assert_eq!((progress[0].position.get(), &*progress[0].owner), (9, "me"));
    assert_eq!((progress[0].version, progress[0].active), (1, true));
    let read = documents.get("p", "nobody").await.expect("readable");
    assert_eq!((read.build, read.document), (Some(part.build), None));
    assert_eq!(documents.get("nobody", "d1").await.expect("readable").build, None);
    assert_eq!(documents.projections().await.expect("readable"), ["p"]);
}

/// Law: only the latest claim writes, and only from where it believes to be.
pub async fn a_later_claim_fences_the_one_before(documents: &dyn Documents) {
    let part = first_part(documents).await;
    let first = claim(documents, part).await;
    let second = claim(documents, part).await;
    assert!(second.epoch > first.epoch);
    let change = |commit: Commit| Commit { changes: vec![put("d", &json!(1), 3)], ..commit };
    let mut stranger = commit(part, second.epoch, 3);
    stranger.writer.owner = "somebody else".into();
    let elsewhere = Commit { from: Some(Position::new(2)), ..commit(part, second.epoch, 3) };
    for late in [commit(part, first.epoch, 3), stranger.clone(), elsewhere] {
        let error = documents.commit(change(late)).await.expect_err("it is fenced");
        assert!(matches!(error, ProjectionError::Fenced { .. }), "{error}");
    }
    assert_eq!(read(documents, "d").await, None);
    let ours = Commit { from: Some(Position::ZERO), ..commit(part, second.epoch, 3) };
    documents.commit(ours.clone()).await.expect("writable");
    let claims = documents.claims();
    let renewal = || Save::renewal(LEASE);
    claims.save(&ours.writer.fence(), renewal()).await.expect("it is the latest");
    let lost = claims.save(&stranger.writer.fence(), renewal()).await;
    assert!(matches!(lost, Err(ClaimError::Lost { .. })), "{lost:?}");
    // What is given back can be taken at once, by anybody, and by no more than one.
    claims.release(&stranger.writer.fence()).await.expect("nothing is to be done");
    claims.release(&ours.writer.fence()).await.expect("writable");
    let taken = claim_as(documents, part, "somebody else").await;
    assert!(taken.epoch > second.epoch);
    assert_eq!(taken.checkpoint, Position::new(3));
    let late = documents.commit(commit(part, second.epoch, 4)).await;
    assert!(matches!(late, Err(ProjectionError::Fenced { .. })));
}

/// Law: a switch is atomic, never goes back in time, and fences the old build.
pub async fn a_build_takes_the_place_of_another_when_it_is_as_far(documents: &dyn Documents) {
    let old = first_part(documents).await;
    let old_claim = claim(documents, old).await;
    let mut write = commit(old, old_claim.epoch, 10);
    write.changes = vec![put("d", &json!("old"), 10)];
    documents.commit(write).await.expect("writable");
    let build = documents.begin_build("p", wanted(1, 2)).await.expect("writable");
    let parts = [0, 1].map(|partition| Part { build: build.id, partition });
    let claims = [claim(documents, parts[0]).await, claim(documents, parts[1]).await];
    let mut write = commit(parts[0], claims[0].epoch, 10);
    write.changes = vec![put("d", &json!("new"), 10)];
    documents.commit(write).await.expect("writable");
    let may = documents.activate("p", build.id).await.expect("readable");
    assert_eq!(may, Activation::Behind, "one is not as far");
    assert_eq!(read(documents, "d").await, Some(json!("old")));
    documents.commit(commit(parts[1], claims[1].epoch, 11)).await.expect("writable");
    for _ in 0..2 {
        // Once more does no harm.
        let may = documents.activate("p", build.id).await.expect("writable");
        assert_eq!(may, Activation::Active);
    }
    let gone = documents.activate("p", old.build).await.expect("readable");
    assert_eq!(gone, Activation::Gone);
    assert_eq!(read(documents, "d").await, Some(json!("new")));
    let fenced = documents.commit(commit(old, old_claim.epoch, 12)).await;
    assert!(matches!(fenced, Err(ProjectionError::Fenced { .. })));
    // A claim that was under way brings its place back, and that goes with the rest.
    let (claims, name) = (documents.claims(), old.to_string());
    for _ in 0..2 {
        // The second time it comes when nothing else is left of the build.
        let Claimed::Yes(late) = claims.claim(&name, "late", LEASE).await.expect("writable") else {
            panic!("nobody holds it")
        };
        let note = Save::renewal(LEASE).notes([("n".into(), Some(b"1".as_slice().into()))]);
        claims.save(&late.fence, note).await.expect("writable");
        while documents.prune("p", 1).await.expect("writable") {}
        assert_eq!(claims.place(&name).await.expect("readable"), None);
        assert_eq!(claims.note(&name, "n").await.expect("readable"), None);
    }
    for part in parts {
        assert!(claims.place(&part.to_string()).await.expect("readable").is_some());
    }
    assert_eq!(documents.load(old.build, &["d".into()]).await.expect("readable"), []);
    assert_eq!(read(documents, "d").await, Some(json!("new")));
}

/// Law: the active build stays in use while a newer version is made beside it, and an older program
/// changes neither.
pub async fn a_new_version_begins_a_build(documents: &dyn Documents) {
    let builds = async |version, partitions| {
        documents.builds("p", wanted(version, partitions)).await.expect("writable")
    };
    let first = builds(1, 1).await;
    assert_eq!(first.building, None);
    assert_eq!(builds(1, 1).await, first);
    let second = builds(2, 1).await;
    assert_eq!(second.active, first.active);
    let building = second.building.clone().expect("a build is begun");
    assert_eq!((building.version, building.partitions), (2, 1));
    assert_eq!(builds(2, 1).await, second);
    // The old program is started again in the middle of it.
    assert_eq!(builds(1, 1).await, second);
    // More partitions, another build.
    let third = builds(2, 3).await;
    assert_ne!(third.building.as_ref().expect("a build is begun").id, building.id);
    for older in [(1, 1), (1, 9), (2, 1)] {
        assert_eq!(builds(older.0, older.1).await, third, "{older:?}");
        let refused = documents.begin_build("p", wanted(older.0, older.1)).await;
        assert!(matches!(refused, Err(ProjectionError::Newer { version: 2, .. })), "{refused:?}");
    }
    let again = documents.begin_build("p", wanted(2, 3)).await.expect("writable");
    assert_eq!(builds(1, 1).await.building, Some(again.clone()));
    let found = documents.look("p").await.expect("readable");
    assert_eq!((found.active, found.building), (Some(first.active.clone()), Some(again)));
    let other = documents.builds("q", wanted(1, 1)).await.expect("writable");
    assert_ne!(other.active.id, first.active.id);
}

/// Law: a build whose documents stand still does not take the place of one whose documents do not.
pub async fn a_build_that_parks_more_does_not_take_the_place(documents: &dyn Documents) {
    let old = first_part(documents).await;
    let Claim { epoch, .. } = claim(documents, old).await;
    let mut write = commit(old, epoch, 5);
    write.park = vec![parked("a", 3, 3, "bad")];
    documents.commit(write).await.expect("writable");
    let build = documents.begin_build("p", wanted(2, 1)).await.expect("writable");
    let new = Part { build: build.id, partition: 0 };
    let Claim { epoch, .. } = claim(documents, new).await;
    let mut write = commit(new, epoch, 5);
    write.park = vec![parked("b", 2, 3, "bad"), parked("b", 4, 0, ""), parked("c", 4, 3, "worse")];
    documents.commit(write).await.expect("writable");
    let may = documents.activate("p", new.build).await.expect("readable");
    assert_eq!(may, Activation::Unsound { parked: 2, before: 1 });
    let found = documents.look("p").await.expect("readable");
    assert_eq!(found.active.map(|active| active.id), Some(old.build));
    // One is left out.
    assert!(documents.skip(new.build, "c").await.expect("writable"));
    let may = documents.activate("p", new.build).await.expect("writable");
    assert_eq!(may, Activation::Active);
}

/// Law: after a reset there is nothing, and whoever wrote is fenced.
pub async fn a_reset_begins_again(documents: &dyn Documents) {
    let part = first_part(documents).await;
    let before = claim(documents, part).await;
    let mut write = commit(part, before.epoch, 4);
    write.changes = vec![put("d", &json!(1), 4)];
    documents.commit(write).await.expect("writable");
    documents.reset("p", wanted(1, 1)).await.expect("writable");
    assert_eq!(read(documents, "d").await, None);
    let fenced = documents.commit(commit(part, before.epoch, 5)).await;
    assert!(matches!(fenced, Err(ProjectionError::Fenced { .. })));
    let part = first_part(documents).await;
    assert_eq!(claim(documents, part).await.checkpoint, Position::ZERO);
    let unknown = documents.reset("nobody", wanted(1, 1)).await;
    assert!(matches!(unknown, Err(ProjectionError::Unknown { .. })));
}

fn parked(id: &str, at: u64, attempts: u32, error: &str) -> Parked {
    Parked { id: id.into(), position: Position::new(at), attempts, error: error.to_owned() }
}

async fn all_parked(documents: &dyn Documents, build: i64) -> Vec<Parked> {
    let query = ParkedQuery { limit: 100, ..ParkedQuery::default() };
    documents.parked(build, &query).await.expect("readable")
}

/// Law: parked events are kept by document and position until they are done or left out, and are
/// read page by page.
pub async fn parked_events_stay_in_order(documents: &dyn Documents) {
    let part = first_part(documents).await;
    let build = part.build;
    let Claim { epoch, .. } = claim(documents, part).await;
    let all = [parked("a", 8, 3, "worse"), parked("b", 7, 3, "bad"), parked("b", 9, 0, "")];
    let mut write = commit(part, epoch, 9);
    write.park = vec![all[2].clone(), all[1].clone(), all[0].clone()];
    documents.commit(write).await.expect("writable");
    assert_eq!(all_parked(documents, build).await, all);
    let mut query = ParkedQuery { limit: 1, ..ParkedQuery::default() };
    for one in &all {
        let page = documents.parked(build, &query).await.expect("readable");
        assert_eq!(page.iter().collect::<Vec<_>>(), [one]);
        query.after = Some((one.id.clone(), one.position));
    }
    assert_eq!(documents.parked(build, &query).await.expect("readable"), []);
    let of_b = ParkedQuery { id: Some("b".into()), limit: 9, ..ParkedQuery::default() };
    assert_eq!(documents.parked(build, &of_b).await.expect("readable"), all[1..]);
    let counted = async || {
        let found = documents.parked_documents(build).await.expect("readable");
        found.into_iter().map(|one| (one.id.to_string(), one.events, one.due)).collect::<Vec<_>>()
    };
    assert_eq!(counted().await, [("a".to_owned(), 1, false), ("b".to_owned(), 2, false)]);
    // To be tried again: the first of them counts as not tried.
    assert!(documents.retry(build, "a").await.expect("writable"));
    assert!(!documents.retry(build, "nobody").await.expect("writable"));
    assert_eq!(all_parked(documents, build).await[0], parked("a", 8, 0, ""));
    // And so are those behind one that is left out.
    assert!(documents.skip(build, "b").await.expect("writable"));
    assert!(!documents.skip(build, "nobody").await.expect("writable"));
    assert_eq!(counted().await, [("a".to_owned(), 1, true), ("b".to_owned(), 1, true)]);
    let mut write = commit(part, epoch, 9);
    write.park = vec![parked("c", 5, 0, ""), parked("c", 6, 0, ""), parked("c", 9, 0, "")];
    documents.commit(write).await.expect("writable");
    let mut write = commit(part, epoch, 9);
    write.unpark = vec![("b".into(), Position::new(9)), ("c".into(), Position::new(6))];
    write.park = vec![parked("c", 9, 1, "bad again")];
    documents.commit(write).await.expect("writable");
    let left = [parked("a", 8, 0, ""), parked("c", 9, 1, "bad again")];
    assert_eq!(all_parked(documents, build).await, left);
    // What is tried again was left out meanwhile: nothing of it is written.
    for (id, at) in [("a", 7), ("b", 9)] {
        let mut write = commit(part, epoch, 9);
        write.again = Some((id.into(), Position::new(at)));
        write.park = vec![parked(id, at, 1, "again")];
        write.changes = vec![put(id, &json!(1), at)];
        let late = documents.commit(write).await;
        assert!(matches!(&late, Err(ProjectionError::LeftOut { id: of, .. }) if of == id));
    }
    assert_eq!(all_parked(documents, build).await, left);
    let mut write = commit(part, epoch, 9);
    write.again = Some(("a".into(), Position::new(8)));
    write.unpark = vec![("a".into(), Position::new(8))];
    documents.commit(write).await.expect("writable");
    assert_eq!(all_parked(documents, build).await, left[1..]);
}

/// Law: a list is what a filter over all documents gives.
pub async fn lists_are_filtered_and_paged(documents: &dyn Documents) {
    let part = first_part(documents).await;
    let Claim { epoch, .. } = claim(documents, part).await;
    let docs = [
        ("a", json!({"n": 1, "name": "x", "deep": {"city": "Bern"}, "ok": true})),
        ("b", json!({"n": 2.5, "name": "Y", "deep": {"city": "Basel"}, "ok": false})),
        ("c", json!({"n": "2", "name": "ä", "deep": "Bern", "none": null})),
        ("d", json!({"n": 10, "name": "z"})),
        ("\u{1f600}", json!({"n": -1})),
        // A list is no object: its places are not fields.
        ("e", json!({"list": [{"x": 1}, 7], "0": "zero", "7": {"0": "deep"}, "a\\b": 1, "e": []})),
        ("f", json!([{"n": 1}])),
        ("g", json!("n")),
        ("h", json!({"big": i64::MAX, "small": i64::MIN, "tiny": 1e-300, "n": null})),
    ];
    let mut write = commit(part, epoch, 1);
    write.changes = docs.iter().map(|(id, data)| put(id, data, 1)).collect();
    documents.commit(write).await.expect("writable");
    let all = || ListQuery::first(100);
    let cases = [
        (all(), "a b c d e f g h \u{1f600}"),
        (all().descending(), "\u{1f600} h g f e d c b a"),
        (ListQuery::first(2).after("b"), "c d"),
        (ListQuery::first(2).after("c").descending(), "b a"),
        (all().filter("n", Compare::Eq, 1), "a"),
        (all().filter("n", Compare::Gt, 1), "b d"),
        (all().filter("n", Compare::Le, 2.5), "a b \u{1f600}"),
        (all().filter("n", Compare::Eq, "2"), "c"),
        (all().filter("name", Compare::Ge, "x"), "a c d"),
        (all().filter("deep.city", Compare::Eq, "Bern"), "a"),
        (all().filter("ok", Compare::Eq, false), "b"),
        (all().filter("ok", Compare::Lt, true), "b"),
        (all().filter("ok", Compare::Ge, false), "a b"),
        (all().filter("none", Compare::Eq, serde_json::Value::Null), "c"),
        (all().filter("n", Compare::Ge, serde_json::Value::Null), "h"),
        (all().filter("n", Compare::Lt, serde_json::Value::Null), ""),
        (all().filter("list.0.x", Compare::Eq, 1), ""),
        (all().filter("list.1", Compare::Eq, 7), ""),
        (all().filter("0", Compare::Eq, "zero"), "e"),
        (all().filter("7.0", Compare::Eq, "deep"), "e"),
        (all().filter("a\\b", Compare::Eq, 1), "e"),
        (all().filter("big", Compare::Gt, i64::MAX - 1), "h"),
        (all().filter("big", Compare::Lt, i64::MAX), ""),
        (all().filter("small", Compare::Le, i64::MIN), "h"),
        (all().filter("tiny", Compare::Gt, 0), "h"),
        (all().filter("n", Compare::Gt, 1).filter("name", Compare::Eq, "z"), "d"),
        (all().filter("never", Compare::Eq, 1), ""),
    ];
    for (query, expected) in cases {
        let found = documents.list("p", &query).await.expect("readable");
        let ids: Vec<_> = found.iter().map(|one| &*one.id).collect();
        assert_eq!(ids.join(" "), expected, "{query:?}");
    }
    assert_eq!(documents.list("nobody", &all()).await.expect("readable"), []);
    for odd in ["a\"b", "a..b", ""] {
        let refused = documents.list("p", &all().filter(odd, Compare::Eq, 1)).await;
        assert!(matches!(refused, Err(ProjectionError::Field { .. })), "{odd}");
    }
}
