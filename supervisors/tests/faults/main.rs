//! Faults that were found in the kernel, each with the test that keeps it from coming back.
//!
//! | module | what |
//! |---|---|
//! | [`kills`] | a kill reaches a life between two messages, and nobody waits for a busy actor |
//! | [`guards`] | user code that panics or blocks hurts its own life and nobody else |
//! | [`helpers`] | tasks and timers of a life end with it, and fail it |
//! | [`races`] | commands, verdicts and questions that meet a stop or a start under way |
//! | [`rules`] | one rule for failures, restarts on purpose, dependencies and commands |
//! | [`silence`] | what cannot be delivered, started or stopped in order is heard of |
//! | [`storms`] | all of it at once, by seed |
//!
//! Time is paused wherever no code blocks a thread. Where code does, [`workers::real`] runs the
//! test, which then waits for events and gates and not for a clock.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, reason = "a test may panic")]

mod guards;
mod helpers;
mod kills;
#[path = "../kernel/kit.rs"]
#[allow(dead_code, reason = "shared with the other tests of the kernel")]
mod kit;
mod races;
mod rules;
mod silence;
mod storms;
mod workers;
