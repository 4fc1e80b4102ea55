//! The assembled system.

pub mod http;
#[cfg(feature = "sqlite")]
pub mod migrate;
