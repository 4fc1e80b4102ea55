//! How a message is settled: one way for the bus, for queues and for the log.
//!
//! ```text
//! Delivery ─▶ guard ─▶ handler ─▶ Ack ─▶ results sent ─▶ settled
//!               │         ├─▶ Retry ─▶ pause ─▶ again, up to the policy's attempts
//!               │         └─▶ Fail ──────────────────┐
//!               └─▶ panic, deadline: as Retry        ├─▶ dead letter ─▶ settled
//!                         tries used up ─────────────┘
//! ```
//!
//! | you want | look at |
//! |---|---|
//! | to write a handler | [`Handler`], [`Delivery`], [`Outcome`] |
//! | to handle many messages at once | [`Batch`] |
//! | to say when a message is tried again | [`RetryPolicy`] |
//! | to keep dead letters elsewhere | [`DeadLetterOffice`] |
//!
//! A message is settled only when what it led to is sent, or its dead letter is durable. A dead
//! letter whose office is out of order is handed in until it is kept. One that the office refuses
//! for good blocks nobody: it is counted and logged, and stays where it came from if that keeps it.

mod counts;
mod delivery;
mod handler;
mod office;
mod outcome;
mod settler;

pub(crate) use counts::{Counts, Trouble};
pub use delivery::{Delivery, Source};
pub(crate) use handler::AnyHandler;
pub use handler::{Batch, BatchHandler, Handler, Outcomes};
pub use office::{DeadLetterOffice, FailureCause, OfficeError, Undelivered};
pub use outcome::{Handled, Outcome, RetryPolicy};
pub(crate) use settler::{MOST_AGAIN, Settler, Tried, Verdict};

#[cfg(test)]
mod tests;
