//! The laws of a [`SnapshotStore`], on a store that keeps the log too.

use bytes::Bytes;

use super::{ANY, append, exact, name, tombstone, write_one};
use crate::event::{ContentType, Timestamp, Version};
use crate::store::EventStore;
use crate::store::snapshot::{Snapshot, SnapshotStore};

/// Runs every law against a store of its own.
///
/// # Panics
///
/// A law is broken.
pub async fn run<S: EventStore + SnapshotStore>(make: impl AsyncFn() -> S) {
    the_latest_snapshot_is_kept(&make().await).await;
    a_snapshot_needs_a_stream(&make().await).await;
    a_deleted_snapshot_is_gone(&make().await).await;
}

fn snapshot(version: u64, schema: u64) -> Snapshot {
    Snapshot {
        version: Version::new(version),
        schema,
        codec: ContentType::MessagePack,
        data: Bytes::from(format!("state {version}")),
        taken_at: Timestamp::from_micros(1_700_000_000_000_000),
    }
}

/// Law: a later one replaces an earlier one, and never the other way round.
pub async fn the_latest_snapshot_is_kept<S: EventStore + SnapshotStore>(store: &S) {
    let stream = name("s");
    write_one(store, append("s", ANY, 0, 9)).await.expect("accepted");
    assert_eq!(store.load_snapshot(&stream).await.expect("readable"), None);
    for (version, expected) in [(3, 3), (7, 7), (5, 7), (7, 7)] {
        // A schema is any 64 bits.
        let taken = snapshot(version, u64::MAX - 1);
        store.save_snapshot(&stream, taken).await.expect("writable");
        let kept = store.load_snapshot(&stream).await.expect("readable");
        assert_eq!(kept, Some(snapshot(expected, u64::MAX - 1)));
    }
    store.save_snapshot(&stream, snapshot(7, 1)).await.expect("writable");
    let kept = store.load_snapshot(&stream).await.expect("readable").expect("there is one");
    assert_eq!(kept.schema, 1, "the same version in another shape replaces it");
}

/// Law: a stream that does not exist, or was deleted, has no snapshot.
pub async fn a_snapshot_needs_a_stream<S: EventStore + SnapshotStore>(store: &S) {
    let stream = name("s");
    store.save_snapshot(&stream, snapshot(1, 1)).await.expect("let go without a word");
    assert_eq!(store.load_snapshot(&stream).await.expect("readable"), None);
    write_one(store, append("s", ANY, 0, 1)).await.expect("accepted");
    store.save_snapshot(&stream, snapshot(1, 1)).await.expect("writable");
    write_one(store, tombstone("s", exact(1), 5)).await.expect("accepted");
    assert_eq!(store.load_snapshot(&stream).await.expect("readable"), None);
}

/// Law: deleting takes this one and no other, and deleting nothing is no error.
pub async fn a_deleted_snapshot_is_gone<S: EventStore + SnapshotStore>(store: &S) {
    for stream in ["s", "t"] {
        write_one(store, append(stream, ANY, 0, 1)).await.expect("accepted");
        store.save_snapshot(&name(stream), snapshot(1, 1)).await.expect("writable");
    }
    store.delete_snapshot(&name("s")).await.expect("writable");
    store.delete_snapshot(&name("s")).await.expect("nothing to do");
    assert_eq!(store.load_snapshot(&name("s")).await.expect("readable"), None);
    assert!(store.load_snapshot(&name("t")).await.expect("readable").is_some());
}
