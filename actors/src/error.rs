//! What an error means to the one who has to react to it.

use serde::{Deserialize, Serialize};

/// The reaction that an error asks for; every error type of this crate answers `class()`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum ErrorClass {
    /// Goes away by itself: wait, then try the same thing again.
    Transient,
    /// Stays as it is whatever the caller does: stop and say so.
    Permanent,
    /// The request was at fault: answer the caller, do not repeat it unchanged.
    User,
    /// The machine or the installation was at fault: an operator has to act.
    System,
}
