//! The ports of read models: who may write one, how far it is, and what can go wrong.
//!
//! They stand beside the log's port because the pool leases both. The actors that keep read
//! models, and what they promise, are in [`projection`](crate::projection).
//!
//! | you want | look at |
//! |---|---|
//! | to keep and read documents | [`documents::Documents`] |
//! | to ask for some of them | [`query::ListQuery`] |

use std::fmt;

use serde::{Deserialize, Serialize};

use super::StoreError;
use super::claims::ClaimError;
use crate::error::ErrorClass;
use crate::event::Position;

pub mod documents;
pub mod query;

/// Which claim on a projection a writer acts under; later claims have higher ones.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Epoch(u64);

impl Epoch {
    /// Before the first claim.
    pub const ZERO: Self = Self(0);

    /// Wraps a number; the first claim has 1.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The number.
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Why a projection could not be written or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProjectionError {
    /// Somebody else has claimed it since; this writer has to stop.
    #[error("projection {part} was claimed by somebody else (or reset); claim it again")]
    Fenced {
        /// Projection, build and partition.
        part: String,
    },
    /// A newer program has made the documents, or makes them; this one must not take their place.
    #[error(
        "version {version} of projection {projection} is made by a newer program; ask one of its \
         nodes, or go back to this program's documents with `smith projections reset`"
    )]
    Newer {
        /// The projection.
        projection: String,
        /// The newer version.
        version: u32,
    },
    /// The database cannot hold what was to be written, however often one tries.
    #[error("{part} cannot be written: {reason}")]
    Refused {
        /// Build and partition.
        part: String,
        /// What it said.
        reason: String,
    },
    /// A filter of a query cannot be used.
    #[error("{field:?} is no field; name it by parts without quotes and control characters")]
    Field {
        /// What was given.
        field: String,
    },
    /// There is no such projection.
    #[error("there is no projection {projection}; register it with `SystemBuilder::projection`")]
    Unknown {
        /// What was asked for.
        projection: String,
    },
    /// A parked event that was to be tried again is no longer the first of its document.
    #[error("event {position} was parked of {id} and was left out since; look again")]
    LeftOut {
        /// The document.
        id: String,
        /// The event.
        position: Position,
    },
    /// The node that writes it has heard what it was asked, and cannot do it.
    #[error("{part} refuses what it was asked: {reason}")]
    Asked {
        /// Build and partition.
        part: String,
        /// Why.
        reason: String,
    },
    /// A document is not what the projection's type says.
    #[error("document {id} of {projection} cannot be read: {reason}; rebuild the projection")]
    Document {
        /// The projection.
        projection: String,
        /// The document.
        id: String,
        /// What is wrong.
        reason: String,
    },
    /// The database behind it failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<ClaimError> for ProjectionError {
    fn from(error: ClaimError) -> Self {
        match error {
            ClaimError::Lost { name } => Self::Fenced { part: name },
            ClaimError::Unknown { name } => Self::Unknown { projection: name },
            ClaimError::Refused { name, reason } => Self::Asked { part: name, reason },
            ClaimError::Store(error) => Self::Store(error),
        }
    }
}

impl ProjectionError {
    /// How to react.
    pub const fn class(&self) -> ErrorClass {
        match self {
            Self::Fenced { .. } | Self::LeftOut { .. } => ErrorClass::Transient,
            Self::Field { .. } | Self::Unknown { .. } | Self::Newer { .. } | Self::Asked { .. } => {
                ErrorClass::User
            }
            Self::Document { .. } | Self::Refused { .. } => ErrorClass::Permanent,
            Self::Store(error) => error.class(),
        }
    }
}
