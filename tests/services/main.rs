//! The node and its stores on real servers, which these tests start, kill and start again.
//!
//! | module | what it proves |
//! |---|---|
//! | [`store`] | the PostgreSQL store keeps every law, and cannot be told from the others |
//! | [`recovery`] | an append whose connection is cut at a chosen place, or that is undone, is there once |

#![expect(clippy::unwrap_used, reason = "in a test it is an assertion")]

mod recovery;
mod server;
mod store;
mod wire;
