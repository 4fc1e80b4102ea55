//! What is noted beside the log: who owns which streams, and which events are passed over.
//!
//! Few rows, written by programs when they start and by people when something is broken. The log
//! itself is never changed by them.

use std::fmt;

use futures_util::future::BoxFuture;
use serde::Serialize;

use super::StoreError;
use crate::event::{Position, StreamId, Timestamp, Version};

pub mod conformance;
pub(super) mod memory;
pub mod owners;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "sqlite")]
mod sqlite;

pub use owners::{Owned, Owner, Owners};

#[cfg(test)]
mod tests;

/// An event that does not count, because somebody said so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Skipped {
    /// Its stream.
    pub stream: StreamId,
    /// Its version.
    pub version: Version,
    /// Its place in the log.
    pub position: Position,
    /// Who said so.
    pub by: String,
    /// Why.
    pub reason: String,
    /// When.
    pub at: Timestamp,
}

/// Where the notes are kept.
pub trait Notes: Send + Sync + fmt::Debug {
    /// Says that the streams of a category belong to `owner`, for good, and answers to whom they
    /// do: the first who said so.
    ///
    /// When this has returned, nothing gets into those streams from outside any more
    /// ([`Append::outside`](super::Append::outside)), whichever node it is on its way through.
    ///
    /// # Errors
    ///
    /// The store could not be read or written.
    ///
    /// # Cancel safety
    ///
    /// A dropped call noted it or not.
    fn own<'a>(
        &'a self,
        category: &'a str,
        owner: &'a str,
        at: Timestamp,
    ) -> BoxFuture<'a, Result<String, StoreError>>;

    /// All categories that have an owner, with it, in the order of their names.
    ///
    /// # Errors
    ///
    /// The store could not be read.
    ///
    /// # Cancel safety
    ///
    /// Dropping the call loses nothing.
    fn owners(&self) -> BoxFuture<'_, Result<Vec<(String, String)>, StoreError>>;

    /// Notes that an event does not count. False if that was noted already: the first note stays.
    ///
    /// # Errors
    ///
    /// The store could not be written.
    ///
    /// # Cancel safety
    ///
    /// A dropped call noted it or not.
    fn skip(&self, skipped: Skipped) -> BoxFuture<'_, Result<bool, StoreError>>;

    /// The events that do not count, of one stream or of all, in the order of their positions.
    ///
    /// # Errors
    ///
    /// The store could not be read.
    ///
    /// # Cancel safety
    ///
    /// Dropping the call loses nothing.
    fn skipped<'a>(
        &'a self,
        stream: Option<&'a StreamId>,
    ) -> BoxFuture<'a, Result<Vec<Skipped>, StoreError>>;
}
