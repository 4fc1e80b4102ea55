//! What an error of PostgreSQL means.

use crate::store::StoreError;

/// A division by zero, or a key that was there already: how the append's statement says that
/// somebody else was faster (<https://www.postgresql.org/docs/15/errcodes-appendix.html>).
pub(super) fn is_outrun(error: &sqlx::Error) -> bool {
    matches!(code(error).as_deref(), Some("22012" | "23505"))
}

/// No partition for the position.
pub(super) fn is_missing_partition(error: &sqlx::Error) -> bool {
    code(error).as_deref() == Some("23514")
}

/// The transaction was undone, and may be tried again: serialization failure, deadlock, lock not
/// available.
pub(super) fn is_undone(error: &sqlx::Error) -> bool {
    matches!(code(error).as_deref(), Some("40001" | "40P01" | "55P03"))
}

/// The connection is gone, or the server is going or coming: whether the last statement had its
/// effect is unknown.
pub(super) fn is_lost(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::WorkerCrashed
        | sqlx::Error::PoolTimedOut => true,
        other => code(other).is_some_and(|code| {
            code.starts_with("08") || matches!(&*code, "57P01" | "57P02" | "57P03")
        }),
    }
}

fn code(error: &sqlx::Error) -> Option<String> {
    error.as_database_error()?.code().map(|code| code.into_owned())
}

/// The store's word for an error of the driver.
pub(super) fn fault(store: String, error: sqlx::Error) -> StoreError {
    let unavailable = |store, cure: &str, error| StoreError::Unavailable {
        store,
        cure: cure.to_owned(),
        source: Box::new(error),
    };
    match (code(&error).as_deref(), &error) {
        (_, sqlx::Error::PoolClosed) => StoreError::Closed { store },
        (_, sqlx::Error::PoolTimedOut) => StoreError::Exhausted { store, source: Box::new(error) },
        (_, sqlx::Error::RowNotFound) | (Some("42P01" | "42703" | "3F000" | "42883"), _) => {
            StoreError::NotMigrated { store, source: Box::new(error) }
        }
        (Some("53100"), _) => StoreError::Full { store, source: Box::new(error) },
        (Some("53300"), _) => StoreError::Exhausted { store, source: Box::new(error) },
        (Some("28P01" | "28000"), _) => {
            unavailable(store, "user or password is wrong; give postgres://USER:PASSWORD@…", error)
        }
        (Some("3D000"), _) => {
            unavailable(store, "there is no such database; make it with `createdb`", error)
        }
        (Some("42501"), _) => {
            unavailable(store, "this user may not; grant it the schemas that begin with ms_", error)
        }
        (Some("25006"), _) => {
            unavailable(store, "it takes no writes: give the address of the primary", error)
        }
        (Some("XX001" | "XX002"), _) => StoreError::Corrupt { store, detail: error.to_string() },
        _ if is_lost(&error) => StoreError::Lost { store, source: Box::new(error) },
        _ => StoreError::Backend { store, source: Box::new(error) },
    }
}
