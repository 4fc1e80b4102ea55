//! Why a node did not start.

use std::net::SocketAddr;

use mister_smith_actors::aggregate::InvalidAggregate;
use mister_smith_actors::pool::AddressError;
use mister_smith_actors::saga::InvalidSaga;
use mister_smith_actors::store::StoreError;
use mister_smith_actors::timer::TimerError;
use mister_smith_supervisors::{AskError, LookupError, SupervisorError};

use super::LockError;

/// Why a node did not start. Nothing of it is left running.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SystemError {
    /// The address of the store cannot be used.
    #[error("--store {url}: {source}")]
    Store {
        /// What was given.
        url: String,
        /// What is wrong with it.
        source: AddressError,
    },
    /// The store was left as it was.
    #[cfg(any(feature = "sqlite", feature = "postgres"))]
    #[error(transparent)]
    Migrate(#[from] crate::migrate::MigrateError),
    /// Another node works on the same store.
    #[error(transparent)]
    Locked(#[from] LockError),
    /// The address to listen on is taken.
    #[error(
        "{addr} is in use by another program; stop it, or give --listen another port (port 0 picks a free one)"
    )]
    InUse {
        /// The address.
        addr: SocketAddr,
    },
    /// The address to listen on cannot be used.
    #[error("cannot listen on {addr}: {source}; give --listen an address of this machine")]
    Listen {
        /// The address.
        addr: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// The address can be reached from other machines, and nobody would be asked who they are.
    #[error(
        "{addr} can be reached from other machines, and nobody would be asked who they are: make a token with `smith token NAME --role operator --tokens FILE` and give --tokens FILE, or listen on 127.0.0.1 or [::1]"
    )]
    NoToken {
        /// The address.
        addr: SocketAddr,
    },
    /// The address can be reached from other machines, and tokens would pass in the clear.
    #[error(
        "{addr} can be reached from other machines, and tokens would pass in the clear: give --tls-cert and --tls-key (feature `tls`), or --insecure-behind-proxy if a proxy in front of it has the certificate"
    )]
    NoTls {
        /// The address.
        addr: SocketAddr,
    },
    /// An actor of the node did not start.
    #[error("the node did not start: {0}")]
    Start(#[from] SupervisorError),
    /// An aggregate type cannot work, or not with the events that the store holds.
    #[error(transparent)]
    Aggregate(#[from] InvalidAggregate),
    /// A saga's definition cannot be used.
    #[error("the node did not start: {0}")]
    Saga(#[from] InvalidSaga),
    /// What fires timers did not start.
    #[error("the node did not start: {0}")]
    Timers(#[from] TimerError),
    /// The store could not be read.
    #[error("the node did not start: {0}")]
    Read(#[from] StoreError),
    /// The pool did not answer.
    #[error("the node did not start: {0}")]
    Pool(#[from] AskError),
    /// The tree is not as this program built it.
    #[error("the node did not start: {0}")]
    Lookup(#[from] LookupError),
}
