//! Claims in the PostgreSQL database, for one node or many. A lease runs by the clock of the
//! database, so that the clocks of the nodes need not agree.
//!
//! The pool's connections do not wait for the disk. What must outlive a crash of the server says
//! so in its own statement: two nodes with one epoch would both be let through.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, Row as _};

use super::{
    Claim, ClaimError, Claimed, Claims, Fence, Found, Orders, Place, Request, Save, parts,
};
use crate::event::Position;
use crate::store::postgres::PgDatabase;
use crate::store::read_model::Epoch;

/// [`Claims`] in a PostgreSQL database.
#[derive(Debug)]
pub struct PgClaims {
    database: Arc<PgDatabase>,
    claim: String,
    save: String,
    release: String,
    place: String,
    places: String,
    notes: String,
    note: String,
    ask: String,
}

const COLUMNS: &str = "name, position, owner, epoch, lease_until > clock_timestamp(), paused, \
                       asked, heard, deaths, died_at, trying, tries";

/// In a statement that reads from `disk`, the commit waits for the disk if parameter 1 is `on`.
const DISK: &str =
    "disk as materialized (select set_config('synchronous_commit', $1, true) as waits)";

fn place(row: &PgRow) -> sqlx::Result<(Place, Epoch)> {
    let number = |column: usize| row.try_get::<i64, _>(column).map(i64::cast_unsigned);
    let small = |column: usize| row.try_get::<i32, _>(column).map(i32::cast_unsigned);
    let place = Place {
        name: row.try_get::<&str, _>(0)?.into(),
        position: Position::new(number(1)?),
        owner: row.try_get::<&str, _>(2)?.into(),
        held: row.try_get(4)?,
        paused: row.try_get(5)?,
        asked: number(6)?,
        heard: number(7)?,
        deaths: small(8)?,
        died_at: Position::new(number(9)?),
        trying: Position::new(number(10)?),
        tries: small(11)?,
    };
    Ok((place, Epoch::new(number(3)?)))
}

fn note(row: &PgRow) -> sqlx::Result<Found> {
    Ok((row.try_get::<&str, _>(0)?.into(), row.try_get::<Vec<u8>, _>(1)?.into()))
}

fn counter(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn millis(lease: Duration) -> f64 {
    lease.as_secs_f64() * 1e3
}

impl PgClaims {
    /// The claims of those that follow the log.
    #[must_use]
    pub fn new(database: Arc<PgDatabase>) -> Self {
        Self::in_tables(database, "ms_framework.followers", "ms_framework.follower_notes")
    }

    /// Claims in other tables of the same columns.
    #[must_use]
    pub fn in_tables(database: Arc<PgDatabase>, followers: &str, notes: &str) -> Self {
        // A claim that is held is found by a read: taking its row, even to find out that it is not
        // to be had, would write.
        let claim = format!(
            "with {DISK}, free as materialized ( \
                 select waits from disk where not exists ( \
                     select from {followers} where name = $2 and owner <> $3 \
                        and lease_until > clock_timestamp()) \
             ) \
             insert into {followers} as f (name, position, owner, epoch, lease_until) \
             select $2, 0, $3, 1, clock_timestamp() + $4 * interval '1 ms' from free \
             on conflict (name) do update set \
                 owner = excluded.owner, epoch = f.epoch + 1, lease_until = excluded.lease_until, \
                 deaths = case when f.owner in ('', excluded.owner) then f.deaths \
                               when f.died_at = f.position then f.deaths + 1 else 1 end, \
                 died_at = case when f.owner in ('', excluded.owner) then f.died_at \
                                else f.position end, \
                 tries = case when f.owner in ('', excluded.owner) or f.trying <= f.position \
                              then f.tries else f.tries + 1 end \
             where f.owner = excluded.owner or f.lease_until <= clock_timestamp() \
             returning {COLUMNS}"
        );
        let save = format!(
            "with {DISK}, saved as ( \
                 update {followers} f set \
                     position = coalesce($5, f.position), \
                     tries = case when coalesce($6, f.trying) = f.trying then f.tries else 0 end, \
                     trying = coalesce($6, f.trying), heard = greatest(f.heard, $7), \
                     lease_until = clock_timestamp() + $8 * interval '1 ms' \
                 from disk where f.name = $2 and f.owner = $3 and f.epoch = $4 \
                 returning f.paused, f.asked \
             ), put as ( \
                 insert into {notes} (name, id, data) \
                 select $2, n.id, n.data from saved, unnest($9::text[], $10::bytea[]) n (id, data) \
                 on conflict (name, id) do update set data = excluded.data \
             ), removed as ( \
                 delete from {notes} where name = $2 and id = any($11) \
                    and exists (select from saved) \
             ) \
             select paused, asked from saved"
        );
        let ask = format!(
            "with {DISK}, asked as ( \
                 update {followers} f set asked = f.asked + 1, paused = coalesce($3, f.paused) \
                 from disk where f.name = $2 returning f.asked \
             ), put as ( \
                 insert into {notes} (name, id, data) \
                 select $2, $4 || lpad(asked::text, 20, '0'), $5 from asked where $5 is not null \
             ) \
             select asked from asked"
        );
        let release = format!(
            "update {followers} set owner = '', lease_until = '-infinity' \
             where name = $1 and owner = $2 and epoch = $3"
        );
        Self {
            database,
            claim,
            save,
            release,
            place: format!("select {COLUMNS} from {followers} where name = $1"),
            places: format!("select {COLUMNS} from {followers} order by name"),
            notes: format!(
                "select id, data from {notes} where name = $1 and id > $2 order by id limit $3"
            ),
            note: format!("select id, data from {notes} where name = $1 and id = $2"),
            ask,
        }
    }

    fn fault(&self, error: sqlx::Error) -> ClaimError {
        self.database.fault(error).into()
    }

    async fn find(&self, name: &str) -> Result<Option<Place>, ClaimError> {
        let row = sqlx::query(AssertSqlSafe(self.place.as_str()))
            .bind(name)
            .fetch_optional(self.database.pool()?)
            .await;
        let found = row.and_then(|row| row.as_ref().map(place).transpose());
        Ok(found.map_err(|error| self.fault(error))?.map(|(place, _)| place))
    }
}

impl Claims for PgClaims {
    fn claim<'a>(
        &'a self,
        name: &'a str,
        owner: &'a str,
        lease: Duration,
    ) -> BoxFuture<'a, Result<Claimed, ClaimError>> {
        async move {
            loop {
                let row = sqlx::query(AssertSqlSafe(self.claim.as_str()))
                    .bind("on")
                    .bind(name)
                    .bind(owner)
                    .bind(millis(lease))
                    .fetch_optional(self.database.pool()?)
                    .await;
                let taken = row.and_then(|row| row.as_ref().map(place).transpose());
                if let Some((place, epoch)) = taken.map_err(|error| self.fault(error))? {
                    let fence = Fence { name: name.into(), owner: owner.into(), epoch };
                    return Ok(Claimed::Yes(Claim { fence, place }));
                }
                if let Some(place) = self.find(name).await?
                    && place.held
                {
                    return Ok(Claimed::Held(place));
                }
                // Its lease has run out between the two.
            }
        }
        .boxed()
    }

    fn save<'a>(
        &'a self,
        fence: &'a Fence,
        save: Save,
    ) -> BoxFuture<'a, Result<Orders, ClaimError>> {
        async move {
            let (mut ids, mut data, mut removed) = (Vec::new(), Vec::new(), Vec::new());
            for (id, note) in &save.notes {
                match note {
                    Some(note) => {
                        ids.push(&**id);
                        data.push(&**note);
                    }
                    None => removed.push(&**id),
                }
            }
            let row = sqlx::query(AssertSqlSafe(self.save.as_str()))
                .bind(if save.durable { "on" } else { "off" })
                .bind(&*fence.name)
                .bind(&*fence.owner)
                .bind(counter(fence.epoch.get()))
                .bind(save.to.map(|to| counter(to.get())))
                .bind(save.trying.map(|trying| counter(trying.get())))
                .bind(counter(save.heard))
                .bind(millis(save.lease))
                .bind(ids)
                .bind(data)
                .bind(removed)
                .fetch_optional(self.database.pool()?)
                .await
                .map_err(|error| self.fault(error))?;
            let row = row.ok_or_else(|| ClaimError::Lost { name: fence.name.to_string() })?;
            let orders = || -> sqlx::Result<Orders> {
                let asked = row.try_get::<i64, _>(1)?.cast_unsigned();
                Ok(Orders { paused: row.try_get(0)?, asked })
            };
            orders().map_err(|error| self.fault(error))
        }
        .boxed()
    }

    fn release<'a>(&'a self, fence: &'a Fence) -> BoxFuture<'a, Result<(), ClaimError>> {
        async move {
            sqlx::query(AssertSqlSafe(self.release.as_str()))
                .bind(&*fence.name)
                .bind(&*fence.owner)
                .bind(counter(fence.epoch.get()))
                .execute(self.database.pool()?)
                .await
                .map(drop)
                .map_err(|error| self.fault(error))
        }
        .boxed()
    }

    fn place<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Option<Place>, ClaimError>> {
        self.find(name).boxed()
    }

    fn places(&self) -> BoxFuture<'_, Result<Vec<Place>, ClaimError>> {
        async move {
            let rows = sqlx::query(AssertSqlSafe(self.places.as_str()))
                .fetch_all(self.database.pool()?)
                .await;
            let read = |rows: Vec<PgRow>| rows.iter().map(|row| Ok(place(row)?.0)).collect();
            rows.and_then(read).map_err(|error| self.fault(error))
        }
        .boxed()
    }

    fn notes<'a>(
        &'a self,
        name: &'a str,
        after: &'a str,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<Found>, ClaimError>> {
        async move {
            let rows = sqlx::query(AssertSqlSafe(self.notes.as_str()))
                .bind(name)
                .bind(after)
                .bind(counter(limit as u64))
                .fetch_all(self.database.pool()?)
                .await;
            rows.and_then(|rows| rows.iter().map(note).collect()).map_err(|error| self.fault(error))
        }
        .boxed()
    }

    fn note<'a>(
        &'a self,
        name: &'a str,
        id: &'a str,
    ) -> BoxFuture<'a, Result<Option<Bytes>, ClaimError>> {
        async move {
            let row = sqlx::query(AssertSqlSafe(self.note.as_str()))
                .bind(name)
                .bind(id)
                .fetch_optional(self.database.pool()?)
                .await;
            let row = row.and_then(|row| row.as_ref().map(note).transpose());
            Ok(row.map_err(|error| self.fault(error))?.map(|(_, data)| data))
        }
        .boxed()
    }

    fn ask<'a>(
        &'a self,
        name: &'a str,
        request: Request,
    ) -> BoxFuture<'a, Result<u64, ClaimError>> {
        async move {
            let (paused, note) = parts(request);
            let number: Option<i64> = sqlx::query_scalar(AssertSqlSafe(self.ask.as_str()))
                .bind("on")
                .bind(name)
                .bind(paused)
                .bind(super::ASKED)
                .bind(note.map(|note| note.to_vec()))
                .fetch_optional(self.database.pool()?)
                .await
                .map_err(|error| self.fault(error))?;
            let unknown = || ClaimError::Unknown { name: name.to_owned() };
            number.map(i64::cast_unsigned).ok_or_else(unknown)
        }
        .boxed()
    }
}
