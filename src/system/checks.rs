//! What a node makes sure of in its store before it is up: that it has the tables, that its aggregates
//! can read their events, and that their streams are theirs.

use mister_smith_actors::aggregate::InvalidAggregate;
use mister_smith_actors::event::Timestamp;
use mister_smith_actors::pool::PoolHandle;
use mister_smith_actors::store::RecordedType;
use mister_smith_actors::store::notes::owners::ClaimError;
use mister_smith_actors::store::notes::{Owner, Owners};
use mister_smith_supervisors::Clock;

use super::{SystemError, lock};

/// Whether an aggregate type can work with the event types that a store holds.
pub(super) type TypeCheck = fn(&[RecordedType]) -> Result<(), InvalidAggregate>;

pub(super) async fn check(pool: &PoolHandle, checks: &[TypeCheck]) -> Result<(), SystemError> {
    if checks.is_empty() {
        return Ok(());
    }
    let recorded = pool.lease().await?.store.event_types().await?;
    checks.iter().try_for_each(|check| check(&recorded)).map_err(SystemError::from)
}

/// Says whose the streams of these categories are, before anybody from outside may write.
pub(super) async fn claim(
    pool: &PoolHandle,
    owners: &Owners,
    owned: Vec<(&'static str, Owner)>,
    clock: Clock,
) -> Result<(), SystemError> {
    if owned.is_empty() {
        return Ok(());
    }
    let notes = pool.lease().await?.notes;
    let at = Timestamp::from_micros(clock.wall_us());
    for (category, owner) in owned {
        owners.claim(&*notes, category, owner, at).await.map_err(|error| match error {
            ClaimError::Owned(owned) => SystemError::Aggregate(owned.into()),
            ClaimError::Store(error) => SystemError::from(error),
        })?;
    }
    Ok(())
}

/// A store that a node may work on.
pub(super) struct Prepared {
    pub(super) name: String,
    pub(super) created: bool,
    /// A file is one node's; a server is shared.
    pub(super) lock: Option<lock::StoreLock>,
}

#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub(super) async fn prepare_store(url: &str, production: bool) -> Result<Prepared, SystemError> {
    use crate::migrate::{self, MigrateError};
    let lock = super::builder::store_lock(url)?;
    if production {
        let status = migrate::status(url).await?;
        let pending = status.pending();
        if !pending.is_empty() && status.problems.is_empty() {
            return Err(SystemError::Migrate(MigrateError::Pending {
                store: status.store.clone(),
                count: pending.len(),
                names: pending.join(", "),
            }));
        }
    }
    // With nothing pending this applies nothing, and refuses what is wrong.
    let report = migrate::up(url).await?;
    Ok(Prepared { name: report.store, created: report.created, lock })
}

#[cfg(not(any(feature = "sqlite", feature = "postgres")))]
pub(super) async fn prepare_store(url: &str, _: bool) -> Result<Prepared, SystemError> {
    let source = mister_smith_actors::pool::AddressError::NotBuilt { feature: "sqlite" };
    Err(SystemError::Store { url: url.to_owned(), source })
}
