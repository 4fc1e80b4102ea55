//! What an error of PostgreSQL means.

use std::io::ErrorKind;

use crate::store::StoreError;

/// No partition for the position.
pub(super) fn is_missing_partition(error: &sqlx::Error) -> bool {
    code(error).as_deref() == Some("23514")
}

/// The transaction was undone, and may be tried again: serialization failure, deadlock, lock not
/// available.
pub(in crate::store) fn is_undone(error: &sqlx::Error) -> bool {
    matches!(code(error).as_deref(), Some("40001" | "40P01" | "55P03"))
}

/// The connection is gone, or the server is going or coming: whether the last statement had its
/// effect is unknown. Also when the server ended a session that held a transaction and was silent:
/// a node that was paused and wakes.
pub(super) fn is_lost(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(error) => error.kind() != ErrorKind::InvalidData,
        sqlx::Error::Protocol(_) | sqlx::Error::WorkerCrashed | sqlx::Error::PoolTimedOut => true,
        other => code(other).is_some_and(|code| {
            code.starts_with("08")
                || matches!(&*code, "57P01" | "57P02" | "57P03" | "57P05" | "25P03")
        }),
    }
}

fn code(error: &sqlx::Error) -> Option<String> {
    error.as_database_error()?.code().map(|code| code.into_owned())
}

/// What is said on one connection is heard by several processes of the server.
#[derive(Debug, thiserror::Error)]
#[error("two statements of one connection met two processes of the server")]
struct Pooled;

pub(super) fn pooled() -> sqlx::Error {
    sqlx::Error::Configuration(Box::new(Pooled))
}

/// Also a statement that was prepared in another session, or is there from one.
fn is_pooled(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Configuration(inner) if inner.is::<Pooled>())
        || matches!(code(error).as_deref(), Some("26000" | "42P05"))
}

/// What to do about TLS that does not come about.
fn tls(error: &sqlx::Error) -> Option<String> {
    let text = match error {
        sqlx::Error::Tls(error) => error.to_string(),
        // The handshake was refused, by us or by the server.
        sqlx::Error::Io(error) if error.kind() == ErrorKind::InvalidData => error.to_string(),
        _ => return None,
    };
    Some(if cfg!(feature = "tls") {
        format!("TLS failed ({text}); see sslmode, sslrootcert, sslcert and sslkey in the address")
    } else {
        "built without feature `tls`; rebuild with `--features tls`".to_owned()
    })
}

/// The store's word for an error of the driver.
pub(super) fn fault(store: String, error: sqlx::Error) -> StoreError {
    let unavailable = |store, cure: &str, error| StoreError::Unavailable {
        store,
        cure: cure.to_owned(),
        source: Box::new(error),
    };
    if let Some(cure) = tls(&error) {
        return StoreError::Unavailable { store, cure, source: Box::new(error) };
    }
    if is_pooled(&error) {
        let cure = "a pooler gives each transaction another session, and settings, prepared \
                    statements and LISTEN are lost; let it keep one for each client (PgBouncer: \
                    pool_mode = session, and wake=poll here), or go past it";
        return unavailable(store, cure, error);
    }
    match (code(&error).as_deref(), &error) {
        (_, sqlx::Error::PoolClosed) => StoreError::Closed { store },
        (_, sqlx::Error::PoolTimedOut) => StoreError::Exhausted { store, source: Box::new(error) },
        (_, sqlx::Error::RowNotFound) | (Some("42P01" | "42703" | "3F000" | "42883"), _) => {
            StoreError::NotMigrated { store, source: Box::new(error) }
        }
        (Some("53100"), _) => StoreError::Full { store, source: Box::new(error) },
        (Some("53300"), _) => StoreError::Exhausted { store, source: Box::new(error) },
        // Waited for a lock until the statement's time was up.
        (Some("57014"), _) => StoreError::Busy { store, source: Box::new(error) },
        (Some("28P01" | "28000"), _) => unavailable(
            store,
            "the server does not let this user in: user, password or client certificate is wrong; \
             give postgres://USER:PASSWORD@…, or sslcert and sslkey",
            error,
        ),
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
