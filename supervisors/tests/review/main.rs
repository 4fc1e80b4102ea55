//! What a review of the kernel tried to break, by the public API.
//!
//! | module | what |
//! |---|---|
//! | [`guards`] | user code that is dropped or shown by a supervisor hurts nobody |
//! | [`races`] | ends, kills and closes that meet a life in the wrong moment |
//! | [`asks`] | every question is answered once, in time, with the right reason |
//! | [`storm`] | all of it at once: no message is lost, and nobody waits for nothing |
//! | [`timers`] | timers, timeouts and what was put aside |
//! | [`growth`] | a system that has ended leaves nothing behind |
//! | [`fairness`] | many children at once hold nobody up |

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, reason = "a test may panic")]

mod asks;
mod fairness;
mod growth;
mod guards;
#[path = "../kernel/kit.rs"]
#[allow(dead_code, reason = "shared with the other tests of the kernel")]
mod kit;
mod races;
mod storm;
mod timers;
#[path = "../faults/workers.rs"]
#[allow(dead_code, reason = "shared with the other tests of the kernel")]
mod workers;

/// Handled after this long.
fn takes(long: std::time::Duration) -> workers::Job {
    workers::job(move |_| {
        Box::pin(async move {
            tokio::time::sleep(long).await;
            Ok(())
        })
    })
}
