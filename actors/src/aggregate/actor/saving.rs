//! Writes snapshots beside the commands: one at a time, and of those that come meanwhile the
//! newest.

use mister_smith_supervisors::{Address, Context, TaskGuard};

use super::{AggregateActor, AggregateMessage};
use crate::aggregate::Aggregate;
use crate::event::StreamId;
use crate::pool::PoolMessage;
use crate::store::snapshot::Snapshot;

/// The write that is under way, and the snapshot that waits for its end.
#[derive(Debug, Default)]
pub(super) struct Saving {
    running: Option<TaskGuard>,
    next: Option<Snapshot>,
}

impl Saving {
    pub(super) const fn is_under_way(&self) -> bool {
        self.running.is_some()
    }

    /// Writes it as soon as the one before is written.
    pub(super) fn save<A: Aggregate>(
        &mut self,
        pool: &Address<PoolMessage>,
        stream: &StreamId,
        snapshot: Snapshot,
        cx: &Context<AggregateActor<A>>,
    ) {
        self.next = Some(snapshot);
        if self.running.is_none() {
            self.begin(pool, stream, cx);
        }
    }

    /// The one before is written, or not.
    pub(super) fn saved<A: Aggregate>(
        &mut self,
        pool: &Address<PoolMessage>,
        stream: &StreamId,
        cx: &Context<AggregateActor<A>>,
    ) {
        self.running = None;
        self.begin(pool, stream, cx);
    }

    fn begin<A: Aggregate>(
        &mut self,
        pool: &Address<PoolMessage>,
        stream: &StreamId,
        cx: &Context<AggregateActor<A>>,
    ) {
        let Some(snapshot) = self.next.take() else { return };
        let saving = save(pool.clone(), stream.clone(), snapshot);
        self.running = Some(cx.spawn_tell(async {
            saving.await;
            AggregateMessage::Saved
        }));
    }
}

/// Writes a snapshot. It is a cache: a failure costs time, and is no reason to end a life.
pub(super) async fn save(pool: Address<PoolMessage>, stream: StreamId, snapshot: Snapshot) {
    let version = snapshot.version;
    let Ok(lease) = pool.ask(PoolMessage::Lease).await else { return };
    if let Err(error) = lease.snapshots.save_snapshot(&stream, snapshot).await {
        tracing::warn!(%stream, %version, %error, "a snapshot was not written");
    }
}
