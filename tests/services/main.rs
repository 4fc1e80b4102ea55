//! The node and its stores on real servers, which these tests start, kill and start again.
//!
//! | module | what it proves |
//! |---|---|
//! | [`store`] | the PostgreSQL store keeps every law, and cannot be told from the others |

#![expect(clippy::unwrap_used, reason = "in a test it is an assertion")]

mod server;
mod store;
