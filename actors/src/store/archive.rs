//! Archives: old ranges of the log, in files that are still read.
//!
//! | file | what |
//! |---|---|
//! | this one | the port [`Cold`] (where files are kept), [`Manifest`], what an archiver is told and answers |
//! | `archive/block.rs` | events as bytes: frames, in blocks that are read one by one |
//! | `archive/index.rs` | which block holds a position, and which may hold a stream |
//! | [`writer`] | a range written, read back and found right, in the memory of one block |
//! | [`reader`] | pages of a position or of a stream, out of the files |
//! | [`mounted`] | files and database as one store |
//! | [`policy`] | the actor that archives now and then |
//!
//! A data file is gzip (RFC 1952) throughout, one member per block: `zcat` reads all of it. An
//! event is four bytes of length, then MessagePack with field names. Beside it lie an index and a
//! manifest (JSON) with the range and the SHA-256 of both. A file gets its name only when it is
//! whole and synced, and a manifest is written last: what a manifest names can be relied on.
//!
//! The database forgets a range only after its files were synced, read back and found right, and
//! only below everybody who still has to read it; see [`ArchiveRules`].

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::StoreError;
use crate::error::ErrorClass;
use crate::event::Position;

mod block;
mod index;
pub mod mounted;
pub mod policy;
pub mod reader;
pub mod writer;

pub use mounted::ArchivedStore;

#[cfg(test)]
mod tests;

/// Where archived files are kept: a directory, or anything else that keeps bytes under names.
pub trait Cold: Send + Sync + fmt::Debug {
    /// What people know it by: the path of the directory.
    fn place(&self) -> String;

    /// The names of the files that are whole, in any order.
    ///
    /// # Errors
    /// It cannot be read.
    fn list(&self) -> BoxFuture<'_, Result<Vec<String>, ArchiveError>>;

    /// Bytes of a file from `at` on: `most` of them, or fewer where the file ends.
    ///
    /// # Errors
    /// The file is not there, or cannot be read.
    fn read<'a>(
        &'a self,
        file: &'a str,
        at: u64,
        most: usize,
    ) -> BoxFuture<'a, Result<Bytes, ArchiveError>>;

    /// A new file. It has its name, in place of an older one, when it was
    /// [kept](ColdFile::keep) and not before; dropped before that, it leaves nothing.
    ///
    /// # Errors
    /// It cannot be made.
    fn create<'a>(
        &'a self,
        file: &'a str,
    ) -> BoxFuture<'a, Result<Box<dyn ColdFile>, ArchiveError>>;
}

/// A file that is being written.
pub trait ColdFile: Send + fmt::Debug {
    /// Appends bytes.
    ///
    /// # Errors
    /// They cannot be written.
    fn write(&mut self, bytes: Bytes) -> BoxFuture<'_, Result<(), ArchiveError>>;

    /// Makes it last over a loss of power, and gives it its name.
    ///
    /// # Errors
    /// It cannot be synced or named.
    fn keep(self: Box<Self>) -> BoxFuture<'static, Result<(), ArchiveError>>;
}

/// A range of the log that is in a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The log that it is of.
    pub store_id: Uuid,
    /// The first event in it.
    pub from: Position,
    /// The last event in it.
    pub to: Position,
    /// The file of the events.
    pub file: String,
    /// SHA-256 of that file, hexadecimal.
    pub sha256: String,
    /// Bytes of that file.
    pub bytes: u64,
    /// Which block of it holds what. Files of the first version have no index; they are one block.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<IndexFile>,
}

/// The index of a file of events.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexFile {
    /// Its name.
    pub file: String,
    /// SHA-256 of it, hexadecimal.
    pub sha256: String,
    /// Bytes of it.
    pub bytes: u64,
}

impl Manifest {
    /// How many events it has.
    #[must_use]
    pub const fn events(&self) -> u64 {
        self.to.get().saturating_add(1).saturating_sub(self.from.get())
    }

    fn holds(&self, position: Position) -> bool {
        self.from <= position && position <= self.to
    }
}

/// The end of a manifest's name.
const MANIFEST: &str = ".manifest.json";

/// The manifests that are kept at a place, in the order of their ranges.
///
/// # Errors
/// The place or a manifest cannot be read.
///
/// # Cancel safety
/// Dropping the call loses nothing.
pub async fn manifests(cold: &dyn Cold) -> Result<Vec<Manifest>, ArchiveError> {
    let mut found = Vec::new();
    for file in cold.list().await? {
        if file.ends_with(MANIFEST) {
            found.push(manifest(cold, &file).await?);
        }
    }
    found.sort_by_key(|manifest| manifest.from);
    Ok(found)
}

async fn manifest(cold: &dyn Cold, file: &str) -> Result<Manifest, ArchiveError> {
    // Far more than one needs.
    let text = cold.read(file, 0, 1 << 20).await?;
    serde_json::from_slice(&text).map_err(|error| damaged(cold, file, error.to_string()))
}

fn damaged(cold: &dyn Cold, file: &str, detail: impl Into<String>) -> ArchiveError {
    ArchiveError::Damaged { file: format!("{}/{file}", cold.place()), detail: detail.into() }
}

/// What an archiver is told.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ArchiveRules {
    /// How many full partitions stay in the database; default: 12.
    pub keep: usize,
    /// Every node reads the archive (`archive_dir`), so that an aggregate without a snapshot can
    /// be loaded after its events were taken out; default: no, and such an aggregate holds the
    /// archive back.
    pub mounted: bool,
    /// Names of followers that do not hold the archive back: those that will never come again.
    pub without: Vec<String>,
}

impl Default for ArchiveRules {
    fn default() -> Self {
        Self { keep: 12, mounted: false, without: Vec::new() }
    }
}

impl ArchiveRules {
    /// Keeps this many full partitions in the database.
    #[must_use]
    pub const fn keep(mut self, partitions: usize) -> Self {
        self.keep = partitions;
        self
    }

    /// Says whether every node reads the archive.
    #[must_use]
    pub const fn mounted(mut self, mounted: bool) -> Self {
        self.mounted = mounted;
        self
    }

    /// Leaves followers out that will never come again.
    #[must_use]
    pub fn without(mut self, followers: impl IntoIterator<Item = String>) -> Self {
        self.without.extend(followers);
        self
    }
}

/// What an archiver did.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct ArchiveReport {
    /// What left the database, oldest first.
    pub archived: Vec<Manifest>,
    /// Everything up to here is in files.
    pub up_to: Position,
    /// Who must not lose what would be next, if that is why it ended here.
    pub held_back: Option<HeldBack>,
}

/// Somebody who still needs a range of the log in the database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HeldBack {
    /// Who it is: `projection streams`, `stream account-7`.
    pub by: String,
    /// What comes after this position is needed.
    pub at: Position,
    /// What lets it go on.
    pub cure: String,
}

impl fmt::Display for HeldBack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "held back by {} at position {}: {}", self.by, self.at, self.cure)
    }
}

/// Why an archive cannot be written or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ArchiveError {
    /// A file cannot be written or read.
    #[error("{file}: {source}")]
    File {
        /// The file.
        file: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file is not what its manifest says.
    #[error("{file} is damaged: {detail}; restore it from a copy")]
    Damaged {
        /// The file.
        file: String,
        /// What is wrong.
        detail: String,
    },
    /// A file is whole, and not the one that was archived.
    #[error(
        "{file} is not what was archived: its SHA-256 is {found}, and {noted} was noted; give the \
         place that has that one"
    )]
    OtherFile {
        /// The file.
        file: String,
        /// What its manifest says.
        found: String,
        /// What the database says.
        noted: String,
    },
    /// The files are of another log.
    #[error(
        "{place} holds archives of the log {found}, this one is {expected}; give another place"
    )]
    OtherLog {
        /// Where the files are.
        place: String,
        /// The log that they are of.
        found: Uuid,
        /// The log that was opened.
        expected: Uuid,
    },
    /// A range that has to be put back is not among the files.
    #[error("{place} does not hold positions {from} to {to}; copy their files there")]
    Missing {
        /// Where the files are.
        place: String,
        /// The first position.
        from: Position,
        /// The last position.
        to: Position,
    },
    /// Another process archives or restores.
    #[error("another process archives {store} now; wait for it")]
    Busy {
        /// The store.
        store: String,
    },
    /// The log has no parts that could be taken out.
    #[error("only a PostgreSQL store has partitions to archive")]
    NoPartitions,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl ArchiveError {
    /// How to react.
    #[must_use]
    pub const fn class(&self) -> ErrorClass {
        match self {
            Self::Busy { .. } => ErrorClass::Transient,
            Self::Store(error) => error.class(),
            Self::File { .. } => ErrorClass::System,
            Self::Damaged { .. }
            | Self::OtherFile { .. }
            | Self::OtherLog { .. }
            | Self::Missing { .. }
            | Self::NoPartitions => ErrorClass::Permanent,
        }
    }

    /// As an error of the store that reads it.
    fn into_store(self, cold: &dyn Cold) -> StoreError {
        match self {
            Self::Store(error) => error,
            Self::File { file, source } => {
                StoreError::Backend { store: file, source: Box::new(source) }
            }
            other => StoreError::Corrupt { store: cold.place(), detail: other.to_string() },
        }
    }
}

/// Archives that are read and written at one place.
pub type SharedCold = Arc<dyn Cold>;
