//! The laws that every [`Documents`] keeps, as tests to run against an adapter.

// A test suite has no caller that could act on an error: each `expect` is an assertion.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::json;

use super::{Claimed, Commit, Documents, Parked, Part};
use crate::event::Position;
use crate::store::read_model::query::{Compare, ListQuery};
use crate::store::read_model::{Claim, Epoch, ProjectionError};

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
    parked_events_stay_in_order(&make().await).await;
    lists_are_filtered_and_paged(&make().await).await;
}

async fn claim(documents: &dyn Documents, part: Part) -> Claim {
    match documents.claim(part, "me", LEASE).await.expect("writable") {
        Claimed::Yes(claim) => claim,
        Claimed::Held { by } => panic!("held by {by}"),
    }
}

fn commit(part: Part, epoch: Epoch, to: u64) -> Commit {
    Commit {
        part,
        epoch,
        lease: LEASE,
        to: Position::new(to),
        changes: Vec::new(),
        park: Vec::new(),
        unpark: Vec::new(),
    }
}

fn put(id: &str, data: &serde_json::Value, at: u64) -> (Arc<str>, Option<Bytes>, Position) {
    (id.into(), Some(data.to_string().into()), Position::new(at))
}

async fn json(documents: &dyn Documents, id: &str) -> Option<serde_json::Value> {
    let found = documents.get("p", id).await.expect("readable")?;
    assert_eq!(&*found.id, id);
    Some(serde_json::from_slice(&found.data).expect("it is JSON"))
}

async fn first_part(documents: &dyn Documents) -> Part {
    let builds = documents.builds("p", 1, 1).await.expect("writable");
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
    assert_eq!(json(documents, "d1").await, Some(json!({"n": "one"})));
    assert_eq!(json(documents, "d2").await, None);
    assert_eq!(json(documents, "d129").await, Some(json!({"n": 129})));
    let ids = ["d0", "d1", "d2", "nobody"].map(Arc::from);
    let mut loaded = documents.load(part.build, &ids).await.expect("readable");
    loaded.sort_by(|a, b| a.id.cmp(&b.id));
    let places: Vec<_> = loaded.iter().map(|one| (&*one.id, one.position.get())).collect();
    assert_eq!(places, [("d0", 5), ("d1", 7)]);
    assert_eq!(claim(documents, part).await.checkpoint, Position::new(9));
    let progress = documents.progress("p").await.expect("readable");
    assert_eq!(progress.len(), 1);
    assert_eq!((progress[0].position.get(), &*progress[0].owner), (9, "me"));
    assert_eq!(documents.projections().await.expect("readable"), ["p"]);
}

/// Law: only the latest claim writes.
pub async fn a_later_claim_fences_the_one_before(documents: &dyn Documents) {
    let part = first_part(documents).await;
    let first = claim(documents, part).await;
    let second = claim(documents, part).await;
    assert!(second.epoch > first.epoch);
    let mut late = commit(part, first.epoch, 3);
    late.changes = vec![put("d", &json!(1), 3)];
    let error = documents.commit(late).await.expect_err("it is fenced");
    assert!(matches!(error, ProjectionError::Fenced { .. }), "{error}");
    assert_eq!(json(documents, "d").await, None);
    documents.commit(commit(part, second.epoch, 3)).await.expect("writable");
}

/// Law: a switch is atomic, never goes back in time, and fences the old build.
pub async fn a_build_takes_the_place_of_another_when_it_is_as_far(documents: &dyn Documents) {
    let old = first_part(documents).await;
    let old_claim = claim(documents, old).await;
    let mut write = commit(old, old_claim.epoch, 10);
    write.changes = vec![put("d", &json!("old"), 10)];
    documents.commit(write).await.expect("writable");
    let build = documents.begin_build("p", 1, 2).await.expect("writable");
    let parts = [0, 1].map(|partition| Part { build: build.id, partition });
    let claims = [claim(documents, parts[0]).await, claim(documents, parts[1]).await];
    let mut write = commit(parts[0], claims[0].epoch, 10);
    write.changes = vec![put("d", &json!("new"), 10)];
    documents.commit(write).await.expect("writable");
    assert!(!documents.activate("p", build.id).await.expect("readable"), "one is not as far");
    assert_eq!(json(documents, "d").await, Some(json!("old")));
    documents.commit(commit(parts[1], claims[1].epoch, 11)).await.expect("writable");
    assert!(documents.activate("p", build.id).await.expect("writable"));
    assert!(documents.activate("p", build.id).await.expect("it is already"));
    assert_eq!(json(documents, "d").await, Some(json!("new")));
    let fenced = documents.commit(commit(old, old_claim.epoch, 12)).await;
    assert!(matches!(fenced, Err(ProjectionError::Fenced { .. })));
    let fenced = documents.claim(old, "me", LEASE).await;
    assert!(matches!(fenced, Err(ProjectionError::Fenced { .. })));
    while documents.prune("p", 1).await.expect("writable") {}
    assert_eq!(documents.load(old.build, &["d".into()]).await.expect("readable"), []);
    assert_eq!(json(documents, "d").await, Some(json!("new")));
}

/// Law: the active build stays in use while another version is made.
pub async fn a_new_version_begins_a_build(documents: &dyn Documents) {
    let first = documents.builds("p", 1, 1).await.expect("writable");
    assert_eq!(first.building, None);
    assert_eq!(documents.builds("p", 1, 1).await.expect("readable"), first);
    let second = documents.builds("p", 2, 1).await.expect("writable");
    assert_eq!(second.active, first.active);
    let building = second.building.clone().expect("a build is begun");
    assert_eq!((building.version, building.partitions), (2, 1));
    assert_eq!(documents.builds("p", 2, 1).await.expect("readable"), second);
    // Other partitions, another build; and back, none.
    let third = documents.builds("p", 2, 3).await.expect("writable");
    assert_ne!(third.building.expect("a build is begun").id, building.id);
    assert_eq!(documents.builds("p", 1, 1).await.expect("writable"), first);
    let other = documents.builds("q", 1, 1).await.expect("writable");
    assert_ne!(other.active.id, first.active.id);
}

/// Law: after a reset there is nothing, and whoever wrote is fenced.
pub async fn a_reset_begins_again(documents: &dyn Documents) {
    let part = first_part(documents).await;
    let before = claim(documents, part).await;
    let mut write = commit(part, before.epoch, 4);
    write.changes = vec![put("d", &json!(1), 4)];
    documents.commit(write).await.expect("writable");
    documents.reset("p").await.expect("writable");
    assert_eq!(json(documents, "d").await, None);
    let fenced = documents.commit(commit(part, before.epoch, 5)).await;
    assert!(matches!(fenced, Err(ProjectionError::Fenced { .. })));
    let part = first_part(documents).await;
    assert_eq!(claim(documents, part).await.checkpoint, Position::ZERO);
    let unknown = documents.reset("nobody").await;
    assert!(matches!(unknown, Err(ProjectionError::Unknown { .. })));
}

/// Law: parked events are kept by document and position until they are done or left out.
pub async fn parked_events_stay_in_order(documents: &dyn Documents) {
    let part = first_part(documents).await;
    let Claim { epoch, .. } = claim(documents, part).await;
    let parked = |id: &str, at, attempts, error: &str| Parked {
        id: id.into(),
        position: Position::new(at),
        attempts,
        error: error.to_owned(),
    };
    let mut write = commit(part, epoch, 9);
    write.park = vec![parked("b", 9, 0, ""), parked("b", 7, 3, "bad"), parked("a", 8, 3, "worse")];
    documents.commit(write).await.expect("writable");
    let found = documents.parked(part.build).await.expect("readable");
    assert_eq!(
        found,
        [parked("a", 8, 3, "worse"), parked("b", 7, 3, "bad"), parked("b", 9, 0, "")]
    );
    assert!(documents.skip(part.build, "b").await.expect("writable"));
    assert!(!documents.skip(part.build, "nobody").await.expect("writable"));
    let found = documents.parked(part.build).await.expect("readable");
    assert_eq!(found, [parked("a", 8, 3, "worse"), parked("b", 9, 0, "")]);
    let mut write = commit(part, epoch, 9);
    write.unpark = vec!["b".into()];
    documents.commit(write).await.expect("writable");
    let found = documents.parked(part.build).await.expect("readable");
    assert_eq!(found, [parked("a", 8, 3, "worse")]);
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
    ];
    let mut write = commit(part, epoch, 1);
    write.changes = docs.iter().map(|(id, data)| put(id, data, 1)).collect();
    documents.commit(write).await.expect("writable");
    let all = || ListQuery::first(100);
    let cases = [
        (all(), "a b c d \u{1f600}"),
        (all().descending(), "\u{1f600} d c b a"),
        (ListQuery::first(2).after("b"), "c d"),
        (ListQuery::first(2).after("c").descending(), "b a"),
        (all().filter("n", Compare::Eq, 1), "a"),
        (all().filter("n", Compare::Gt, 1), "b d"),
        (all().filter("n", Compare::Le, 2.5), "a b \u{1f600}"),
        (all().filter("n", Compare::Eq, "2"), "c"),
        (all().filter("name", Compare::Ge, "x"), "a c d"),
        (all().filter("deep.city", Compare::Eq, "Bern"), "a"),
        (all().filter("ok", Compare::Eq, false), "b"),
        (all().filter("none", Compare::Eq, serde_json::Value::Null), "c"),
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
