//! The tables for messages of an application's own transactions: what is to be sent, and what was
//! handled.
//!
//! An application that changes its tables and wants a message sent *if and only if* the change is
//! committed puts the message in with the same transaction (`put` of its database); the relay
//! ([`outbox`](crate::outbox)) sends it afterwards. One that handles messages and wants a repeat
//! to have no effect asks `first_time` in the transaction that has the effect.
//!
//! Both functions take the connection of the transaction, so both are there for each database:
//! [`sqlite`] and `postgres`.

use std::fmt;

use futures_util::future::BoxFuture;

use super::StoreError;
use crate::bus::wire::WireMessage;
use crate::event::Timestamp;

#[cfg(feature = "postgres")]
pub mod postgres;
#[cfg(feature = "sqlite")]
pub mod sqlite;

/// A message that is to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// Its row.
    pub id: i64,
    /// The message.
    pub message: WireMessage,
}

/// The tables, as relay and upkeep need them. All calls are safe to drop.
pub trait MessageTables: Send + Sync + fmt::Debug {
    /// Messages that are to be sent, those first that were put in first.
    ///
    /// # Errors
    /// The database failed.
    fn outgoing(&self, limit: usize) -> BoxFuture<'_, Result<Vec<Outgoing>, StoreError>>;

    /// Removes messages that were sent.
    ///
    /// # Errors
    /// The database failed: they are sent again.
    fn sent<'a>(&'a self, ids: &'a [i64]) -> BoxFuture<'a, Result<(), StoreError>>;

    /// Notes that a consumer has handled a message, in a transaction of its own; answers whether it
    /// is the first to say so. `at` is the time of day, by which it is forgotten.
    ///
    /// # Errors
    /// The database failed.
    fn handled<'a>(
        &'a self,
        consumer: &'a str,
        message_id: &'a str,
        at: Timestamp,
    ) -> BoxFuture<'a, Result<bool, StoreError>>;

    /// Whether a consumer has handled a message, as far as that is remembered.
    ///
    /// # Errors
    /// The database failed.
    fn was_handled<'a>(
        &'a self,
        consumer: &'a str,
        message_id: &'a str,
    ) -> BoxFuture<'a, Result<bool, StoreError>>;

    /// Forgets which messages were handled before a time; answers how many. A repeat of one of
    /// them is not known any more.
    ///
    /// # Errors
    /// The database failed.
    fn forget(&self, before: Timestamp) -> BoxFuture<'_, Result<u64, StoreError>>;
}

/// The headers as the tables have them.
#[cfg(any(feature = "sqlite", feature = "postgres"))]
fn headers(message: &WireMessage) -> String {
    serde_json::to_string(&message.headers).unwrap_or_else(|_| "{}".to_owned())
}

/// A message from its columns.
#[cfg(any(feature = "sqlite", feature = "postgres"))]
fn message(id: String, subject: String, headers: &str, payload: Vec<u8>) -> WireMessage {
    let headers = serde_json::from_str(headers).unwrap_or_default();
    WireMessage { id, subject, headers, payload: payload.into() }
}
