//! Laws of connections: a lease is good until they are closed, and not a moment longer.

use std::sync::Arc;

use super::{ANY, append, keyed, name};
use crate::event::{ContentType, Position, Timestamp, Version};
use crate::pool::{Connections, Lease};
use crate::store::snapshot::Snapshot;
use crate::store::{EventFilter, IdempotencyKey, StoreError};

/// Runs the laws against connections to an empty store.
///
/// # Panics
///
/// A law is broken.
pub async fn run(make: impl AsyncFn() -> Arc<dyn Connections>) {
    a_lease_ends_with_its_connections(&*make().await).await;
    open_connections_answer(&*make().await).await;
}

/// Law: from the moment they are marked closed every lease answers `Closed`, also one from before;
/// whoever still holds one writes nothing beside what took its place.
pub async fn a_lease_ends_with_its_connections(connections: &dyn Connections) {
    let before = connections.lease();
    let first = before.store.append_batch([keyed(append("s", ANY, 0, 1), "k")].into()).await;
    first.expect("it is open")[0].as_ref().expect("accepted");
    connections.mark_closed();
    assert!(closed(&connections.ping().await), "a closed store does not answer");
    for lease in [before, connections.lease()] {
        refuses_all(&lease).await;
    }
    connections.close().await;
    refuses_all(&connections.lease()).await;
}

async fn refuses_all(lease: &Lease) {
    let store = &lease.store;
    let stream = name("s");
    assert!(closed(&store.append_batch([append("s", ANY, 5, 1)].into()).await), "append_batch");
    assert!(closed(&store.head().await), "head");
    assert!(closed(&store.read_all(Position::ZERO, 10).await), "read_all");
    assert!(closed(&store.read_stream(&stream, Version::ZERO, 10).await), "read_stream");
    let matching = store.read_matching(&EventFilter::ALL, Position::ZERO, 10).await;
    assert!(closed(&matching), "read_matching");
    assert!(closed(&store.answer(IdempotencyKey::of(["k"])).await), "answer");
    assert!(closed(&store.changed(Position::new(9)).await), "changed");
    assert!(closed(&lease.snapshots.load_snapshot(&stream).await), "load_snapshot");
    let snapshot = Snapshot {
        version: Version::new(1),
        schema: 1,
        codec: ContentType::Raw,
        data: Vec::new().into(),
        taken_at: Timestamp::from_micros(0),
    };
    assert!(closed(&lease.snapshots.save_snapshot(&stream, snapshot).await), "save_snapshot");
    assert!(closed(&lease.messages.outgoing(10).await), "outgoing");
    assert!(closed(&lease.messages.sent(&[1]).await), "sent");
    assert!(closed(&lease.upkeep.tidy().await), "tidy");
}

fn closed<T>(answer: &Result<T, StoreError>) -> bool {
    matches!(answer, Err(StoreError::Closed { .. }))
}

/// Law: open connections answer, and say how many of them are in use.
pub async fn open_connections_answer(connections: &dyn Connections) {
    connections.ping().await.expect("it is open");
    let (used, most) = connections.usage();
    assert!(used <= most && most > 0, "{used} of {most}");
    connections.close().await;
}
