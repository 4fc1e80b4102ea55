//! What comes from outside and was made to do harm: bytes that overflow the stack, ask for memory
//! that they do not justify, or make a check run for hours.
//!
//! Whatever such bytes do, they do to a process of its own: this binary again, with the stack of a
//! runtime's thread and an address space of bounded size.

#![allow(clippy::unwrap_used, reason = "tests may panic")]

use std::env;
use std::process::Command;
use std::thread;

use rustix::process::{Resource, Rlimit, setrlimit};

mod replay;
mod schemas;
#[path = "../../fuzz/src/lib.rs"]
#[allow(unreachable_pub, reason = "the fuzzers have it in a crate of its own")]
mod targets;

/// Says to a child which test it is for.
const CHILD: &str = "SMITH_HOSTILE_CHILD";

/// The stack of a thread of tokio's.
const STACK: usize = 2 << 20;

/// What a process may have in memory, and what the test itself needs is small beside it.
const MEMORY: u64 = 1 << 30;

/// Runs a test in a process of its own, with little stack and memory.
#[track_caller]
fn alone(run: fn()) {
    let name = thread::current().name().unwrap().to_owned();
    if env::var(CHILD).is_ok_and(|child| child == name) {
        let limit = Rlimit { current: Some(MEMORY), maximum: Some(MEMORY) };
        setrlimit(Resource::As, limit).unwrap();
        let small = thread::Builder::new().stack_size(STACK).spawn(run).unwrap();
        return small.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    }
    let child = Command::new(env::current_exe().unwrap())
        .args(["--exact", &name, "--nocapture"])
        .env(CHILD, &name)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&child.stderr);
    assert!(child.status.success(), "{}: {said}", child.status);
}
