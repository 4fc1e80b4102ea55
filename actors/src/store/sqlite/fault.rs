//! What SQLite's complaints mean to an operator.

use super::reader::Failure;
use crate::store::{BackendError, StoreError};

// Primary result codes of SQLite (https://www.sqlite.org/rescode.html).
const ERROR: i32 = 1;
const BUSY: i32 = 5;
const LOCKED: i32 = 6;
const READONLY: i32 = 8;
const CORRUPT: i32 = 11;
const FULL: i32 = 13;
const CANTOPEN: i32 = 14;
const NOTADB: i32 = 26;

/// The store's word for an error of a thread of ours.
pub(super) fn fault(store: String, error: impl Into<Failure>) -> StoreError {
    let error = match error.into() {
        Failure::Sql(error) => error,
        Failure::Corrupt(detail) => return StoreError::Corrupt { store, detail },
    };
    if matches!(error, rusqlite::Error::QueryReturnedNoRows) {
        return StoreError::NotMigrated { store, source: Box::new(error) };
    }
    let code = error.sqlite_error().map(|error| error.extended_code);
    meaning(store, code, Box::new(error))
}

/// The store's word for an error of sqlx, which the read models speak.
pub(super) fn driver_fault(store: String, error: sqlx::Error) -> StoreError {
    match error {
        sqlx::Error::PoolClosed => return StoreError::Closed { store },
        sqlx::Error::PoolTimedOut => {
            return StoreError::Exhausted { store, source: Box::new(error) };
        }
        sqlx::Error::RowNotFound => {
            return StoreError::NotMigrated { store, source: Box::new(error) };
        }
        _ => {}
    }
    let code = error.as_database_error().and_then(|error| error.code());
    let code = code.and_then(|code| code.parse::<i32>().ok());
    meaning(store, code, Box::new(error))
}

fn meaning(store: String, code: Option<i32>, source: BackendError) -> StoreError {
    let text = source.to_string();
    let missing = text.contains("no such table") || text.contains("no such column");
    // The upper bytes say more than is needed here.
    match code.map(|code| code & 0xff) {
        Some(ERROR) if missing => StoreError::NotMigrated { store, source },
        Some(BUSY | LOCKED) => StoreError::Busy { store, source },
        Some(FULL) => StoreError::Full { store, source },
        Some(NOTADB) => StoreError::NotAStore { store, source },
        Some(CORRUPT) => StoreError::Corrupt { store, detail: text },
        Some(READONLY) => StoreError::Unavailable {
            store,
            cure: "it may only be read; make the file and its directory writable for this user"
                .to_owned(),
            source,
        },
        Some(CANTOPEN) => StoreError::Unavailable {
            store,
            cure: "the file is missing or its directory is not writable for this user; \
                   create it with `smith migrate up`, or give another path"
                .to_owned(),
            source,
        },
        _ => StoreError::Backend { store, source },
    }
}
