//! The migrations that this program knows, for each database.
//!
//! A number stands for the same change in both; a change that one of them does not need leaves a
//! number out there.

use sha2::{Digest, Sha256};

/// One step of the schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Migration {
    pub(super) version: u32,
    pub(super) name: &'static str,
    pub(super) up: &'static str,
    pub(super) down: &'static str,
}

macro_rules! migration {
    ($database:literal, $version:literal, $name:literal) => {
        Migration {
            version: $version,
            name: $name,
            up: include_str!(concat!("../../migrations/", $database, "/", $name, ".up.sql")),
            down: include_str!(concat!("../../migrations/", $database, "/", $name, ".down.sql")),
        }
    };
}

/// Of the SQLite file, in order. Texts that were released are never edited: add another one.
#[cfg(feature = "sqlite")]
pub(super) const SQLITE: &[Migration] = &[
    migration!("sqlite", 1, "0001_event_store"),
    migration!("sqlite", 2, "0002_stream_summaries"),
    migration!("sqlite", 3, "0003_streams_and_snapshots"),
    migration!("sqlite", 4, "0004_projections"),
    migration!("sqlite", 6, "0006_messages"),
    migration!("sqlite", 7, "0007_followers"),
    migration!("sqlite", 8, "0008_request_keys"),
    migration!("sqlite", 11, "0011_notes"),
    migration!("sqlite", 12, "0012_timers"),
];

/// Of the file of read models beside it, in order. They begin from 1: the file can be deleted, and
/// is made again whatever version the log is at.
#[cfg(feature = "sqlite")]
pub(super) const SQLITE_READ: &[Migration] = &[
    migration!("sqlite_read", 1, "0001_documents"),
    migration!("sqlite_read", 2, "0002_projection_claims"),
];

/// Of the PostgreSQL database, in order.
#[cfg(feature = "postgres")]
pub(super) const POSTGRES: &[Migration] = &[
    migration!("postgres", 1, "0001_event_store"),
    migration!("postgres", 4, "0004_projections"),
    migration!("postgres", 5, "0005_archives"),
    migration!("postgres", 6, "0006_messages"),
    migration!("postgres", 7, "0007_followers"),
    migration!("postgres", 8, "0008_append"),
    migration!("postgres", 10, "0010_projection_claims"),
    migration!("postgres", 11, "0011_notes"),
    migration!("postgres", 12, "0012_timers"),
];

/// SHA-256 of a text with its line ends as LF: a checkout on Windows is no change.
pub(super) fn checksum(text: &str) -> Vec<u8> {
    Sha256::digest(text.replace("\r\n", "\n")).to_vec()
}

/// Whether a text asks to be run outside a transaction, by its first line. If it fails, what it
/// did before stays.
pub(super) fn wants_no_transaction(text: &str) -> bool {
    text.lines().next().is_some_and(|line| line.trim() == "-- no-transaction")
}
