//! The ports of read models: who may write one, how far it is, and what can go wrong.
//!
//! They stand beside the log's port because the pool leases both. The actor that keeps a read
//! model, and what it promises, is in [`projection`](crate::projection).
//!
//! | read model | what |
//! |---|---|
//! | [`streams`] | one row a stream: how many events, of which types, from when to when |

use std::fmt;

use serde::{Deserialize, Serialize};

use super::StoreError;
use crate::{error::ErrorClass, event::Position};

pub mod streams;

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

/// The right to write a projection, until the next claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    /// What to show with every write.
    pub epoch: Epoch,
    /// The last event that has been applied; go on after it.
    pub checkpoint: Position,
}

/// How far a projection is, and who writes it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Checkpoint {
    /// The last event that has been applied.
    pub position: Position,
    /// Who claimed it last; empty before the first claim.
    pub owner: String,
    /// The epoch of that claim.
    pub epoch: Epoch,
}

/// Why a projection could not be written or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProjectionError {
    /// Somebody else has claimed it since; this writer has to stop.
    #[error(
        "projection {projection} belongs to epoch {current}, this writer has epoch {epoch}; stop, or claim it again"
    )]
    Fenced {
        /// Name of the projection.
        projection: &'static str,
        /// What the writer showed.
        epoch: Epoch,
        /// What is valid now.
        current: Epoch,
    },
    /// Events are missing before or between the given ones; nothing was applied.
    #[error(
        "projection {projection} stands at position {checkpoint}, the next event given is {found}; read from the log after {checkpoint}"
    )]
    Gap {
        /// Name of the projection.
        projection: &'static str,
        /// The last position without a gap.
        checkpoint: Position,
        /// What came instead of the next one.
        found: Position,
    },
    /// The database behind it failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl ProjectionError {
    /// How to react. A gap is transient: reading again from the checkpoint mends it.
    pub const fn class(&self) -> ErrorClass {
        match self {
            Self::Fenced { .. } => ErrorClass::Permanent,
            Self::Gap { .. } => ErrorClass::Transient,
            Self::Store(error) => error.class(),
        }
    }
}
