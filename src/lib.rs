//! The assembled system.

#[cfg(feature = "sqlite")]
pub mod migrate;
