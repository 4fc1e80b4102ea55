//! The process around a node: its runtime, and the signals that end it.

use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::signal::unix::{Signal, SignalKind, signal};

/// A multi-threaded runtime, one worker a core.
///
/// # Errors
/// The system has no threads left.
pub fn build() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().thread_name("smith").enable_all().build()
}

/// The machine's time of day, microseconds since the Unix epoch; 0 before it.
#[must_use]
pub fn wall_us() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}

/// SIGTERM and SIGINT (Ctrl-C): the first asks for a graceful stop, the second ends the process at
/// once.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Listens from now on; the signals no longer end the process by themselves.
    ///
    /// # Errors
    /// The system refused.
    pub fn listen() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Waits for the next of them and names it.
    ///
    /// # Cancel safety
    /// No signal is lost by dropping it.
    pub async fn next(&mut self) -> &'static str {
        tokio::select! {
            biased;
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// The code of a process that was told twice to end: 128 + SIGINT, as shells have it.
#[must_use]
pub fn hard_exit_code() -> ExitCode {
    ExitCode::from(130)
}
