//! The numbers of event types. A number never changes its meaning, so what was read once stays
//! right; only what is not known yet is asked for.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard},
};

use sqlx::{PgConnection, Row as _, postgres::PgRow};

use super::database::PgDatabase;
use crate::{event::NewEvent, store::StoreError};

/// Types that are remembered; beyond it, it starts over. Names can come from anybody who may
/// ingest.
const MAX_REMEMBERED: usize = 10_000;

/// A type with the version of its schema.
pub(super) type Type = (Arc<str>, u16);

/// What is remembered of the table.
#[derive(Debug, Default)]
pub(super) struct Types(RwLock<Known>);

/// Types by number, and numbers by type.
#[derive(Debug, Default)]
pub(super) struct Known {
    names: BTreeMap<i32, Type>,
    numbers: BTreeMap<Arc<str>, BTreeMap<u16, i32>>,
}

impl Known {
    pub(super) fn name(&self, number: i32) -> Option<&Type> {
        self.names.get(&number)
    }

    pub(super) fn number(&self, event: &NewEvent) -> Option<i32> {
        self.numbers.get(&event.event_type)?.get(&event.schema_version).copied()
    }

    pub(super) fn add(&mut self, (name, version): Type, number: i32) {
        self.numbers.entry(Arc::clone(&name)).or_default().insert(version, number);
        self.names.insert(number, (name, version));
    }

    /// The types of these events that have no number here, each once.
    pub(super) fn missing<'a>(&self, events: impl Iterator<Item = &'a NewEvent>) -> Vec<Type> {
        let unknown = events.filter(|event| self.number(event).is_none());
        let mut missing: Vec<_> =
            unknown.map(|event| (Arc::clone(&event.event_type), event.schema_version)).collect();
        missing.sort_unstable();
        missing.dedup();
        missing
    }
}

/// A type and its number, from the columns that begin with this one: number, name, version.
pub(super) fn read(row: &PgRow) -> sqlx::Result<(i32, Type)> {
    let version = u16::try_from(row.try_get::<i32, _>(2)?).unwrap_or(u16::MAX);
    Ok((row.try_get(0)?, (row.try_get::<&str, _>(1)?.into(), version)))
}

/// Names and versions, as columns.
pub(super) fn columns(types: &[Type]) -> (Vec<&str>, Vec<i32>) {
    types.iter().map(|(name, version)| (&**name, i32::from(*version))).unzip()
}

impl Types {
    pub(super) fn known(&self) -> RwLockReadGuard<'_, Known> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is committed is remembered from now on.
    pub(super) fn add(&self, types: impl IntoIterator<Item = (i32, Type)>) {
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        for (number, name) in types {
            if known.names.len() >= MAX_REMEMBERED {
                *known = Known::default();
            }
            known.add(name, number);
        }
    }

    /// The types of these numbers.
    ///
    /// # Errors
    ///
    /// The database failed, or has not all of them.
    pub(super) async fn fetch(
        &self,
        database: &PgDatabase,
        numbers: Vec<i32>,
    ) -> Result<Known, StoreError> {
        let fault = |error| database.fault(error);
        let rows =
            sqlx::query("select id, name, schema_version from event_types where id = any($1)")
                .bind(&numbers)
                .fetch_all(database.pool()?)
                .await
                .map_err(fault)?;
        let found: Vec<_> = rows.iter().map(read).collect::<sqlx::Result<_>>().map_err(fault)?;
        let mut known = Known::default();
        for (number, name) in &found {
            known.add(name.clone(), *number);
        }
        if let Some(number) = numbers.iter().find(|number| known.name(**number).is_none()) {
            return Err(database.corrupt(format!("event type {number} has no row in event_types")));
        }
        self.add(found);
        Ok(known)
    }
}

/// Gives new types their numbers, in the transaction of their append and under its lock. To be
/// remembered once that is committed: a number that was undone with it is another event's then.
pub(super) async fn make(
    connection: &mut PgConnection,
    types: &[Type],
) -> sqlx::Result<Vec<(i32, Type)>> {
    let (names, versions) = columns(types);
    let rows = sqlx::query(
        "insert into event_types (name, schema_version) \
         select * from unnest($1::text[], $2::int4[]) returning id, name, schema_version",
    )
    .bind(names)
    .bind(versions)
    .fetch_all(connection)
    .await?;
    rows.iter().map(read).collect()
}
