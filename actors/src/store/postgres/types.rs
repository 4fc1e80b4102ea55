//! The numbers of event types. A number never changes its meaning, so what was read once stays
//! right; an unknown one means a new type, and the table is read again.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock},
};

use sqlx::{PgConnection, Row as _, postgres::PgRow};

use super::database::PgDatabase;
use crate::{event::NewEvent, store::StoreError};

/// What is known of the table.
#[derive(Debug, Default)]
pub(super) struct Types(RwLock<Arc<Known>>);

#[derive(Debug, Default)]
pub(super) struct Known {
    names: BTreeMap<i32, (Arc<str>, u16)>,
    ids: BTreeMap<Arc<str>, BTreeMap<u16, i32>>,
}

impl Known {
    fn read(rows: &[PgRow]) -> sqlx::Result<Self> {
        let mut known = Self::default();
        for row in rows {
            let id: i32 = row.try_get(0)?;
            let name: Arc<str> = row.try_get::<String, _>(1)?.into();
            let version = u16::try_from(row.try_get::<i32, _>(2)?).unwrap_or(u16::MAX);
            known.ids.entry(Arc::clone(&name)).or_default().insert(version, id);
            known.names.insert(id, (name, version));
        }
        Ok(known)
    }

    pub(super) fn name(&self, id: i32) -> Option<&(Arc<str>, u16)> {
        self.names.get(&id)
    }

    pub(super) fn id(&self, event: &NewEvent) -> Option<i32> {
        self.ids.get(&event.event_type)?.get(&event.schema_version).copied()
    }
}

const ALL: &str = "select id, name, schema_version from event_types";

impl Types {
    pub(super) fn known(&self) -> Arc<Known> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) async fn reload(&self, database: &PgDatabase) -> Result<Arc<Known>, StoreError> {
        let rows = sqlx::query(ALL).fetch_all(database.pool()?).await;
        let known = rows.and_then(|rows| Known::read(&rows));
        let known = Arc::new(known.map_err(|error| database.fault(error))?);
        self.install(Arc::clone(&known));
        Ok(known)
    }

    /// What is committed is known from now on.
    pub(super) fn install(&self, known: Arc<Known>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = known;
    }

    /// Gives every type of these events a number, in the transaction of their append and under its
    /// lock. To be installed once that is committed: a number that was undone with it must not be
    /// given to another event.
    pub(super) async fn intern<'a>(
        &self,
        connection: &mut PgConnection,
        events: impl Iterator<Item = &'a NewEvent> + Clone,
    ) -> sqlx::Result<Arc<Known>> {
        let known = self.known();
        let missing = events.filter(|event| known.id(event).is_none());
        let mut missing: Vec<_> =
            missing.map(|event| (&*event.event_type, i32::from(event.schema_version))).collect();
        if missing.is_empty() {
            return Ok(known);
        }
        missing.sort_unstable();
        missing.dedup();
        let (names, versions): (Vec<_>, Vec<_>) = missing.into_iter().unzip();
        sqlx::query(
            "insert into event_types (name, schema_version) \
             select * from unnest($1::text[], $2::int4[]) on conflict do nothing",
        )
        .bind(names)
        .bind(versions)
        .execute(&mut *connection)
        .await?;
        Known::read(&sqlx::query(ALL).fetch_all(connection).await?).map(Arc::new)
    }
}
