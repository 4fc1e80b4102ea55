//! What SQLite's complaints mean to an operator.

use crate::store::StoreError;

// Primary result codes of SQLite (https://www.sqlite.org/rescode.html).
const ERROR: u32 = 1;
const BUSY: u32 = 5;
const LOCKED: u32 = 6;
const READONLY: u32 = 8;
const CORRUPT: u32 = 11;
const FULL: u32 = 13;
const CANTOPEN: u32 = 14;
const NOTADB: u32 = 26;

/// The store's word for an error of the driver.
pub(super) fn fault(store: String, error: sqlx::Error) -> StoreError {
    let code = error
        .as_database_error()
        .and_then(|error| error.code())
        .and_then(|code| code.parse::<u32>().ok())
        // The upper bytes say more than is needed here.
        .map(|code| code & 0xff);
    let missing_table = error.as_database_error().is_some_and(|error| {
        error.message().starts_with("no such table")
            || error.message().starts_with("no such column")
    });
    match (code, &error) {
        (_, sqlx::Error::PoolClosed) => StoreError::Closed { store },
        (_, sqlx::Error::RowNotFound) => StoreError::NotMigrated { store, source: Box::new(error) },
        (Some(ERROR), _) if missing_table => {
            StoreError::NotMigrated { store, source: Box::new(error) }
        }
        (Some(BUSY | LOCKED), _) => StoreError::Busy { store, source: Box::new(error) },
        (Some(FULL), _) => StoreError::Full { store, source: Box::new(error) },
        (Some(NOTADB), _) => StoreError::NotAStore { store, source: Box::new(error) },
        (Some(CORRUPT), _) => StoreError::Corrupt { store, detail: error.to_string() },
        (Some(READONLY), _) => StoreError::Unavailable {
            store,
            cure: "it may only be read; make the file and its directory writable for this user"
                .to_owned(),
            source: Box::new(error),
        },
        (Some(CANTOPEN), _) => StoreError::Unavailable {
            store,
            cure: "the file is missing or its directory is not writable for this user; \
                   create it with `smith migrate up`, or give another path"
                .to_owned(),
            source: Box::new(error),
        },
        _ => StoreError::Backend { store, source: Box::new(error) },
    }
}
