//! What tests of a whole node need: the node as a process, a client, and waits with an end.
//!
//! | you want | use |
//! |---|---|
//! | a node of your own, to talk to and to kill | [`Smith`] |
//! | a PostgreSQL server of your own, to kill and start again | [`Postgres`] |
//! | a NATS or Redis server of your own, to kill and start again | [`Broker`] |
//! | a program of your own, to ask and to kill | [`Program`] |
//! | requests to any address, with the failures as values | [`Client`] |
//! | something to become true | [`eventually`] |
//!
//! Everything here has a deadline. What fails says what was seen last, and a node that is dropped
//! by a panicking test prints all that it wrote.

mod broker;
mod client;
mod output;
mod postgres;
mod program;
mod smith;
mod wait;

pub use broker::Broker;
pub use client::{Client, ClientError, Reply};
pub use output::{Line, Stream};
pub use postgres::{Postgres, ServerTls};
pub use program::Program;
pub use smith::{Ended, Smith, SmithBuilder};
pub use wait::eventually;
