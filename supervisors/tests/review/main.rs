//! What a review of the kernel tried to break, by the public API.
//!
//! | module | what |
//! |---|---|
//! | [`guards`] | user code that is dropped or shown by a supervisor hurts nobody |
//! | [`races`] | ends, kills and closes that meet a life in the wrong moment |
//! | [`asks`] | every question is answered once, in time, with the right reason |
//! | [`growth`] | a system that has ended leaves nothing behind |

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, reason = "a test may panic")]

mod asks;
mod growth;
mod guards;
#[path = "../kernel/kit.rs"]
#[allow(dead_code, reason = "shared with the other tests of the kernel")]
mod kit;
mod races;
#[path = "../faults/workers.rs"]
#[allow(dead_code, reason = "shared with the other tests of the kernel")]
mod workers;
