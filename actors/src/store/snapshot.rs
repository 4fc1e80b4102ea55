//! Snapshots: the state of a stream at a version, so that not all of it has to be read again.
//!
//! A snapshot is a cache and never the truth. It can be deleted at any time, it is never written
//! in an append's transaction, and one that cannot be decoded is thrown away and made again.

use std::fmt;

use bytes::Bytes;
use futures_util::future::BoxFuture;

use super::StoreError;
use crate::event::{ContentType, StreamId, Timestamp, Version};

/// The state of a stream at a version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// The last event that is in it.
    pub version: Version,
    /// Which shape of state it is; another shape is not even tried.
    pub schema: u64,
    /// How `data` is to be read.
    pub codec: ContentType,
    /// The state.
    pub data: Bytes,
    /// When it was taken.
    pub taken_at: Timestamp,
}

/// Where snapshots are kept: at most one a stream, the latest.
pub trait SnapshotStore: Send + Sync + fmt::Debug {
    /// The snapshot of a stream, if there is one.
    ///
    /// # Errors
    ///
    /// The store could not be read.
    ///
    /// # Cancel safety
    ///
    /// Dropping the call loses nothing.
    fn load_snapshot<'a>(
        &'a self,
        stream: &'a StreamId,
    ) -> BoxFuture<'a, Result<Option<Snapshot>, StoreError>>;

    /// Keeps a snapshot in place of an older one. One of a lower version than the one that is
    /// there is let go, and so is one of a stream that does not exist.
    ///
    /// # Errors
    ///
    /// The store could not be written.
    ///
    /// # Cancel safety
    ///
    /// A dropped call keeps it or not.
    fn save_snapshot<'a>(
        &'a self,
        stream: &'a StreamId,
        snapshot: Snapshot,
    ) -> BoxFuture<'a, Result<(), StoreError>>;

    /// Throws the snapshot of a stream away.
    ///
    /// # Errors
    ///
    /// The store could not be written.
    ///
    /// # Cancel safety
    ///
    /// A dropped call deletes it or not.
    fn delete_snapshot<'a>(&'a self, stream: &'a StreamId)
    -> BoxFuture<'a, Result<(), StoreError>>;
}
