//! Where schemas are kept: the port, and an adapter in memory.
//!
//! The adapter over an event store is [`store::schemas`](crate::store::schemas): the store is of a
//! later layer.

use std::collections::BTreeMap;
use std::error::Error as StdError;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};

use super::{CompatibilityMode, Schema, SchemaVersion};
use crate::error::ErrorClass;

/// Something that happened to a subject.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum SchemaRecord {
    /// It got a version.
    Registered {
        /// The version, one more than the last.
        version: SchemaVersion,
        /// The schema.
        schema: Schema,
    },
    /// It got a mode.
    CompatibilitySet {
        /// The mode from here on.
        mode: CompatibilityMode,
    },
}

/// An append-only list of records for each subject.
///
/// The one promise that registries rely on: of two appends after the same record, one fails with
/// [`SchemaStorageError::Conflict`], whichever nodes they come from.
pub trait SchemaStorage: Send + Sync + fmt::Debug {
    /// The records of a subject behind the first `after`, oldest first. It may be a page; only an
    /// empty one means that there are no more. A subject that does not exist has none.
    ///
    /// # Errors
    /// The storage could not be read, or the subject cannot be kept in it.
    ///
    /// # Cancel safety
    /// Dropping the call loses nothing.
    fn load<'a>(
        &'a self,
        subject: &'a str,
        after: u64,
    ) -> BoxFuture<'a, Result<Vec<SchemaRecord>, SchemaStorageError>>;

    /// Writes a record, if the subject has exactly `after` of them.
    ///
    /// # Errors
    /// It has more, or the storage could not be written. Whether the record was written is unknown
    /// after a [`Backend`](SchemaStorageError::Backend) error; reading again shows it.
    ///
    /// # Cancel safety
    /// A dropped call wrote the record or did not.
    fn append<'a>(
        &'a self,
        subject: &'a str,
        after: u64,
        record: SchemaRecord,
    ) -> BoxFuture<'a, Result<(), SchemaStorageError>>;

    /// All subjects that have records, in order.
    ///
    /// # Errors
    /// The storage could not be read.
    ///
    /// # Cancel safety
    /// Dropping the call loses nothing.
    fn subjects(&self) -> BoxFuture<'_, Result<Vec<Arc<str>>, SchemaStorageError>>;
}

/// Why records could not be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SchemaStorageError {
    /// Somebody else wrote a record first.
    #[error("somebody else changed {subject} at the same time; reload and retry")]
    Conflict {
        /// The subject.
        subject: String,
    },
    /// The subject cannot be kept.
    #[error("{subject:?} is no subject: {reason}")]
    Subject {
        /// The subject.
        subject: String,
        /// What is wrong with it.
        reason: String,
    },
    /// What is there is no record of a schema.
    #[error("record {at} of {subject} cannot be read: {reason}; run the program that wrote it")]
    Corrupt {
        /// The subject.
        subject: String,
        /// Which record, from 1.
        at: u64,
        /// What is wrong.
        reason: String,
    },
    /// The storage failed.
    #[error("schemas cannot be read or written: {source}")]
    Backend {
        /// How to react.
        class: ErrorClass,
        /// What the backend said.
        source: Box<dyn StdError + Send + Sync>,
    },
}

impl SchemaStorageError {
    /// How to react.
    pub const fn class(&self) -> ErrorClass {
        match self {
            Self::Conflict { .. } => ErrorClass::Transient,
            Self::Subject { .. } => ErrorClass::User,
            Self::Corrupt { .. } => ErrorClass::Permanent,
            Self::Backend { class, .. } => *class,
        }
    }
}

/// A storage in memory, for tests and for programs that carry their schemas with them.
#[derive(Debug, Default)]
pub struct MemorySchemaStorage {
    subjects: Mutex<BTreeMap<Arc<str>, Vec<SchemaRecord>>>,
}

impl MemorySchemaStorage {
    /// An empty storage.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

impl SchemaStorage for MemorySchemaStorage {
    fn load<'a>(
        &'a self,
        subject: &'a str,
        after: u64,
    ) -> BoxFuture<'a, Result<Vec<SchemaRecord>, SchemaStorageError>> {
        async move {
            let subjects = self.subjects.lock().unwrap_or_else(PoisonError::into_inner);
            let records = subjects.get(subject).map_or(&[][..], Vec::as_slice);
            let after = usize::try_from(after).unwrap_or(usize::MAX);
            Ok(records.get(after..).unwrap_or_default().to_vec())
        }
        .boxed()
    }

    fn append<'a>(
        &'a self,
        subject: &'a str,
        after: u64,
        record: SchemaRecord,
    ) -> BoxFuture<'a, Result<(), SchemaStorageError>> {
        async move {
            let mut subjects = self.subjects.lock().unwrap_or_else(PoisonError::into_inner);
            let count = subjects.get(subject).map_or(0, Vec::len) as u64;
            if count != after {
                return Err(SchemaStorageError::Conflict { subject: subject.to_owned() });
            }
            subjects.entry(subject.into()).or_default().push(record);
            Ok(())
        }
        .boxed()
    }

    fn subjects(&self) -> BoxFuture<'_, Result<Vec<Arc<str>>, SchemaStorageError>> {
        async move {
            let subjects = self.subjects.lock().unwrap_or_else(PoisonError::into_inner);
            Ok(subjects.keys().cloned().collect())
        }
        .boxed()
    }
}
