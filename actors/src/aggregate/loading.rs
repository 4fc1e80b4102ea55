//! How a life gets its state: the snapshot, if it is any good, then the events after it.

use std::collections::BTreeSet;

use mister_smith_supervisors::Failure;

use super::{Aggregate, Unreadable};
use crate::event::{ContentType, Decoder, RecordedEvent, StreamId, Timestamp, Version};
use crate::guarded::guarded;
use crate::pool::{Lease, store_failure};
use crate::store::snapshot::Snapshot;

/// A state that is in the log.
#[derive(Debug)]
pub(super) struct Loaded<A> {
    pub(super) state: A,
    pub(super) version: Version,
    /// What the snapshot holds; [`Version::ZERO`] without one.
    pub(super) snapshot: Version,
    /// When the snapshot was taken, or the first event was recorded.
    pub(super) snapshot_at: Option<Timestamp>,
    /// Bytes of payload since the snapshot.
    pub(super) bytes: u64,
    /// A snapshot was there and could not be used.
    pub(super) discarded: bool,
}

impl<A: Aggregate> Loaded<A> {
    pub(super) fn nothing() -> Self {
        Self {
            state: A::default(),
            version: Version::ZERO,
            snapshot: Version::ZERO,
            snapshot_at: None,
            bytes: 0,
            discarded: false,
        }
    }
}

/// The shape of a snapshot: the name of the Rust type is part of it, so that a category that is
/// given to another type does not read the old one's state.
pub(super) fn schema_of<A: Aggregate>() -> u64 {
    // FNV-1a, 64 bits (http://www.isthe.com/chongo/tech/comp/fnv/): stable over builds, which the
    // standard library's hasher does not promise.
    let name = std::any::type_name::<A>().rsplit("::").next().unwrap_or_default();
    let bytes = name.bytes().chain(A::STATE_SCHEMA.to_le_bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// A snapshot of a state.
///
/// # Errors
/// The state cannot be serialized, or the program panics over it.
pub(super) fn snapshot_of<A: Aggregate>(
    state: &A,
    version: Version,
    taken_at: Timestamp,
) -> Result<Snapshot, String> {
    let written = guarded(|| rmp_serde::to_vec_named(state))?;
    Ok(Snapshot {
        version,
        schema: schema_of::<A>(),
        codec: ContentType::MessagePack,
        data: written.map_err(|error| error.to_string())?.into(),
        taken_at,
    })
}

/// Reads the state of a stream.
///
/// # Errors
/// The store failed, or an event cannot be read: that one is permanent, and an [`Unreadable`].
pub(super) async fn load<A: Aggregate>(
    lease: &Lease,
    stream: &StreamId,
    decoder: &Decoder<A::Event>,
) -> Result<Loaded<A>, Failure> {
    let mut reading = Reading { lease, stream, decoder, panicked: BTreeSet::new() };
    let found = lease.snapshots.load_snapshot(stream).await.map_err(store_failure)?;
    let Some(snapshot) = found else {
        return reading.replay(|| Some(Loaded::nothing())).await;
    };
    if decode::<A>(&snapshot).is_some() {
        // A database that was restored from a backup can be behind its own snapshot.
        let version = lease.store.stream_version(stream).await.map_err(store_failure)?;
        if version >= snapshot.version {
            let from_snapshot = || {
                Some(Loaded {
                    state: decode::<A>(&snapshot)?,
                    version: snapshot.version,
                    snapshot: snapshot.version,
                    snapshot_at: Some(snapshot.taken_at),
                    bytes: 0,
                    discarded: false,
                })
            };
            return reading.replay(from_snapshot).await;
        }
    }
    let version = snapshot.version;
    let base = || Some(Loaded { discarded: true, ..Loaded::nothing() });
    let loaded = reading.replay(base).await.map_err(|failure| match Unreadable::of(&failure) {
        Some(unreadable) => unreadable.clone().beside_snapshot(version).failure(),
        None => failure,
    })?;
    // Only now: of a stream whose events were archived it is all that is left, and the program that
    // wrote it can still read it.
    tracing::warn!(%stream, %version, "snapshot discarded: it cannot be used");
    lease.snapshots.delete_snapshot(stream).await.map_err(store_failure)?;
    Ok(loaded)
}

fn decode<A: Aggregate>(snapshot: &Snapshot) -> Option<A> {
    let ours = snapshot.schema == schema_of::<A>() && snapshot.codec == ContentType::MessagePack;
    // A panic is one more way of not being readable.
    ours.then(|| guarded(|| rmp_serde::from_slice(&snapshot.data).ok()).ok().flatten()).flatten()
}

/// One reading of a stream.
struct Reading<'a, A: Aggregate> {
    lease: &'a Lease,
    stream: &'a StreamId,
    decoder: &'a Decoder<A::Event>,
    /// Events in whose `evolve` the aggregate panicked, and that are to be passed over.
    panicked: BTreeSet<Version>,
}

/// Why a reading ended before the end of the stream.
enum End {
    /// Somebody has said that the event of this version does not count; the state that it has spoilt
    /// has to be made again.
    Again(Version),
    Failed(Failure),
}

impl From<Failure> for End {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl<A: Aggregate> Reading<'_, A> {
    async fn replay(&mut self, base: impl Fn() -> Option<Loaded<A>>) -> Result<Loaded<A>, Failure> {
        loop {
            let base = base().unwrap_or_else(Loaded::nothing);
            match self.once(base).await {
                Ok(loaded) => return Ok(loaded),
                Err(End::Again(version)) => {
                    self.panicked.insert(version);
                }
                Err(End::Failed(failure)) => return Err(failure),
            }
        }
    }

    async fn once(&self, mut base: Loaded<A>) -> Result<Loaded<A>, End> {
        let stream = self.stream;
        // The first page is small: most streams are short, and a large page is planned and fetched
        // for more than they have.
        let mut page = 500;
        loop {
            let events = self.lease.store.read_stream(stream, base.version, page).await;
            let events = events.map_err(store_failure)?;
            let Some(last) = events.last() else { return Ok(base) };
            if events[0].version != base.version.next() {
                let (found, needed) = (events[0].version, base.version.next());
                let missing = Unreadable::missing(stream.clone(), found, needed);
                return Err(End::Failed(missing.failure()));
            }
            let version = last.version;
            for event in &events {
                base.snapshot_at.get_or_insert(event.recorded_at);
                base.bytes += event.size() as u64;
                self.apply(&mut base.state, event).await?;
            }
            base.version = version;
            // A page may be short for many reasons; only an empty one is the end.
            page = crate::store::MAX_PAGE;
        }
    }

    /// Applies one event. One that cannot be applied ends the reading, unless somebody has said
    /// that it does not count: only then are the notes looked at.
    async fn apply(&self, state: &mut A, event: &RecordedEvent) -> Result<(), End> {
        if self.panicked.contains(&event.version) {
            return Ok(());
        }
        let (reason, spoilt) = match guarded(|| self.decoder.decode(event)) {
            Ok(Ok(decoded)) => match guarded(|| state.evolve(decoded)) {
                Ok(()) => return Ok(()),
                Err(panic) => (format!("`evolve`: {panic}"), true),
            },
            Ok(Err(error)) => (error.to_string(), false),
            Err(panic) => (format!("its reading: {panic}"), false),
        };
        let (stream, version) = (self.stream, event.version);
        let skipped = self.lease.notes.skipped(Some(stream)).await.map_err(store_failure)?;
        if skipped.iter().any(|skipped| skipped.version == version) {
            tracing::warn!(%stream, %version, %reason, "an event was passed over, as somebody said");
            return if spoilt { Err(End::Again(version)) } else { Ok(()) };
        }
        Err(End::Failed(Unreadable::event(event, reason).failure()))
    }
}
