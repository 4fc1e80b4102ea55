//! Brokers: what stands between processes, behind one connection.

use mister_smith_supervisors::ErrorClass;

#[cfg(feature = "nats")]
pub mod nats;

/// Why there is no connection to a broker.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BrokerError {
    /// The address is none.
    #[error("{url} is not the address of a server: {reason}")]
    Address {
        /// The address, without a password.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
}

impl BrokerError {
    /// How to react.
    #[must_use]
    pub const fn class(&self) -> ErrorClass {
        ErrorClass::User
    }
}
