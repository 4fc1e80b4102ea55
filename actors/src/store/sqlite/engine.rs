//! Which SQLite is linked, and which is too old to be trusted with a log.

use crate::store::StoreError;

/// The oldest that is taken, 3.51.3, as SQLite counts: from 3.7.0 up to 3.51.2 a checkpoint on one
/// connection that meets a commit on another, right where the write-ahead log begins anew, can
/// leave pages out of the file (<https://www.sqlite.org/wal.html>, "the WAL reset bug"). A writer
/// with a checkpoint beside it is just what this adapter is.
const OLDEST: i32 = 3_051_003;

#[derive(Debug, thiserror::Error)]
#[error("SQLite {found} is linked, {} or newer is needed", version(OLDEST))]
struct TooOld {
    found: String,
}

/// Whether the linked SQLite may open `store`.
pub(super) fn check(store: &str) -> Result<(), StoreError> {
    accept(store, rusqlite::version_number())
}

fn accept(store: &str, number: i32) -> Result<(), StoreError> {
    if number >= OLDEST {
        return Ok(());
    }
    Err(StoreError::Unavailable {
        store: store.to_owned(),
        cure: format!(
            "this program is linked with SQLite {}, which can corrupt a file when its write-ahead \
             log is reset; build it with {} or newer (libsqlite3-sys 0.37)",
            version(number),
            version(OLDEST)
        ),
        source: Box::new(TooOld { found: version(number) }),
    })
}

/// `3051003` as `3.51.3`.
fn version(number: i32) -> String {
    format!("{}.{}.{}", number / 1_000_000, number / 1_000 % 1_000, number % 1_000)
}

#[cfg(test)]
mod tests;
