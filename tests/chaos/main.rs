//! Seeded storms against a whole node, as a process of its own.
//!
//! Each test prints its seed; `MISTER_SMITH_CHAOS_SEED` replays it. The long form takes more events:
//! `MISTER_SMITH_CHAOS_EVENTS=200000 cargo test --release --test chaos`; of messaging it takes more
//! time: `SMITH_SOAK=600 cargo test --all-features --test chaos messages`.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, reason = "a test may panic")]

mod ledger;
#[cfg(all(
    feature = "codec-avro",
    feature = "codec-protobuf",
    feature = "compression",
    feature = "nats",
    feature = "postgres",
    feature = "redis",
))]
mod messages;
mod storm;
mod webhooks;
