//! The kernel through its public API, on a paused clock.
//!
//! | module | what |
//! |---|---|
//! | [`survival`] | what peers got wrong: messages and handles across crashes, kills and restarts |
//! | [`rules`] | OTP's rules, a test each |
//! | [`beyond`] | what goes beyond OTP, a test each |
//! | [`mailboxes`] | bounds and overflow, dead letters, questions and answers |
//! | [`context`] | timers, watches, urgent and stashed messages, batches, streams, pictures |
//! | [`many`] | pools, crowds in parts, names and groups, supervised tasks, thread pools |
//! | [`storm`] | actors killed by seed while messages come in |
//! | [`crowd`] | 100,000 children |
//! | [`habits`] | what users of other runtimes look for |
//! | [`laws`] | random trees and random failures |
//! | [`causes`] | why: every event leads back to its beginning |
//! | [`plans`] | what was planned is what happens, and who did it |
//! | [`lookout`] | what is seen without asking anybody |
//! | [`trace`] | one seed, one trace; and the rules of the code that make it so |

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, reason = "a test may panic")]

mod beyond;
mod causes;
mod classes;
mod context;
mod crowd;
mod habits;
mod kit;
mod laws;
mod lookout;
mod mailboxes;
mod many;
mod plans;
mod rules;
mod storm;
mod survival;
mod trace;
#[path = "../faults/workers.rs"]
#[allow(dead_code, reason = "shared with the tests of faults")]
mod workers;
