//! Programs of several versions, one after the other and side by side.

use super::*;
use crate::projection::Wanted;

/// Version 2 fails on what version 1 could.
struct Worse;

impl Projection for Worse {
    type Document = Seen;
    const NAME: &'static str = "mixed";
    const VERSION: u32 = 2;

    fn ids(&self, event: &RecordedEvent) -> Vec<Arc<str>> {
        ids(event)
    }

    fn apply(
        &self,
        event: &RecordedEvent,
        id: &str,
        seen: Option<Seen>,
    ) -> Result<Option<Seen>, ProjectionFault> {
        if id == "s-1" {
            return Err("version 2 cannot".into());
        }
        Ok(apply(event, id, seen, 2))
    }
}

/// A version that failed on everything became active, and what was good was removed.
#[tokio::test]
async fn a_new_version_that_parks_more_is_not_switched_in() {
    let mut world = World::new(whole::<1, 1>()).await;
    world.append(&[0, 1, 2, 1]).await;
    world.caught_up().await;
    let before = world.documents().await;
    let world = world.again(Worse).await;
    world
        .until(async || {
            let tree = world.system.tree().to_string();
            tree.contains("version 2 is not switched in: 1 of its documents stand still, 0 of")
        })
        .await;
    assert_eq!(world.documents().await, before);
    let status = world.projection.status().await.unwrap();
    assert_eq!((status.parked, status.parked_building), (0, 1));
    // Whoever decides that it does not matter says so.
    assert!(world.projection.skip("s-1").await.unwrap());
    assert!(world.projection.skip("s-1").await.unwrap());
    world.rebuilt().await;
    let mut expected = folded(&world.log().await, 2);
    expected.remove("s-1");
    assert_eq!(world.documents().await, expected);
}

/// The program of before is started again: it reads what the newer one has made.
#[tokio::test]
async fn an_older_program_changes_nothing() {
    let mut world = World::new(whole::<2, 2>()).await;
    world.append(&[0, 1, 2, 1]).await;
    world.caught_up().await;
    let mut world = world.again(whole::<1, 1>()).await;
    let shown = "standby: a newer version has it (version 2)";
    world.until(async || world.system.tree().to_string().contains(shown)).await;
    world.caught_up().await;
    let position = world.append(&[3]).await;
    let refused = world.projection.rebuild().await.unwrap_err().to_string();
    assert!(refused.starts_with("version 2 of projection mixed is made by a newer"), "{refused}");
    let behind = world.projection.wait_for_within(position, Duration::from_millis(1)).await;
    assert!(behind.unwrap_err().to_string().ends_with(shown));
    let found = world.lease().await.documents.look("mixed").await.unwrap();
    let active = found.active.unwrap();
    assert_eq!((active.made_as(), found.building), (Wanted { version: 2, partitions: 2 }, None));
    // Going back is a decision.
    world.projection.reset().await.unwrap();
    world.caught_up().await;
    assert_eq!(world.documents().await, folded(&world.log().await, 1));
}

/// What a reset, or a rebuild in place of another, takes out of use stayed until the next start.
#[tokio::test]
async fn what_is_no_longer_read_is_removed() {
    let mut world = World::new(whole::<1, 2>()).await;
    world.append(&[0, 1, 2]).await;
    world.caught_up().await;
    let lease = world.lease().await;
    for _ in 0..3 {
        world.projection.reset().await.unwrap();
        world.projection.rebuild().await.unwrap();
        world.projection.rebuild().await.unwrap();
    }
    world.rebuilt().await;
    let found = lease.documents.look("mixed").await.unwrap();
    let newest = found.active.unwrap().id;
    let id: [Arc<str>; 1] = ["opened".into()];
    world
        .until(async || {
            for build in 1..newest {
                if !lease.documents.load(build, &id).await.unwrap().is_empty() {
                    return false;
                }
            }
            // Nothing is left to be removed: not even the builds.
            !lease.documents.prune("mixed", 1).await.unwrap()
        })
        .await;
    assert_eq!(lease.documents.load(newest, &id).await.unwrap().len(), 1);
}
