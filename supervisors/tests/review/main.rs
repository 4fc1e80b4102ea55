//! What a review of the kernel tried to break, by the public API.
//!
//! | module | what |
//! |---|---|
//! | [`guards`] | user code that is dropped or shown by a supervisor hurts nobody |
//! | [`growth`] | a system that has ended leaves nothing behind |

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, reason = "a test may panic")]

mod growth;
mod guards;
#[path = "../kernel/kit.rs"]
#[allow(dead_code, reason = "shared with the other tests of the kernel")]
mod kit;
#[path = "../faults/workers.rs"]
#[allow(dead_code, reason = "shared with the other tests of the kernel")]
mod workers;
