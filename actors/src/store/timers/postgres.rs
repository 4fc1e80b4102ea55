//! The table in a PostgreSQL database. What is set and cancelled waits for the disk; what is
//! settled need not: a crash of the server fires it again, under the same key.

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, Row as _};

use super::{Due, NewTimer, Settled, TimerFilter, TimerRow, TimerState, TimerTable, by_name};
use crate::event::Timestamp;
use crate::store::StoreError;
use crate::store::claims::Fence;
use crate::store::postgres::PgStore;

const COLUMNS: &str = "id, kind, name, due, at, payload, state, attempts, deaths, reason";

/// A statement that reads from `disk` is committed when it is on the disk.
const DISK: &str =
    "disk as materialized (select set_config('synchronous_commit', 'on', true) as waits)";

fn row(row: &PgRow) -> sqlx::Result<TimerRow> {
    let small = |column: usize| row.try_get::<i32, _>(column).map(i32::cast_unsigned);
    let time = |column: usize| row.try_get::<i64, _>(column).map(Timestamp::from_micros);
    Ok(TimerRow {
        id: row.try_get(0)?,
        kind: row.try_get::<&str, _>(1)?.into(),
        name: row.try_get::<&str, _>(2)?.into(),
        due: time(3)?,
        at: time(4)?,
        payload: row.try_get::<Vec<u8>, _>(5)?.into(),
        state: TimerState::of(row.try_get::<i16, _>(6)?.into()),
        attempts: small(7)?,
        deaths: small(8)?,
        reason: row.try_get(9)?,
    })
}

fn rows(rows: &[PgRow]) -> sqlx::Result<Vec<TimerRow>> {
    rows.iter().map(row).collect()
}

fn limit(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

/// What becomes of rows, by columns.
#[derive(Default)]
struct Columns {
    done: Vec<i64>,
    trying: Vec<i64>,
    ids: Vec<i64>,
    dues: Vec<Option<i64>>,
    ats: Vec<i64>,
    states: Vec<i16>,
    attempts: Vec<i32>,
    reasons: Vec<String>,
}

impl Columns {
    fn add(&mut self, id: i64, settled: Settled) {
        let mut stays = |due: Option<Timestamp>, at: Timestamp, state, attempts: u32, reason| {
            self.ids.push(id);
            self.dues.push(due.map(Timestamp::as_micros));
            self.ats.push(at.as_micros());
            self.states.push(TimerState::number(state));
            self.attempts.push(i32::try_from(attempts).unwrap_or(i32::MAX));
            self.reasons.push(reason);
        };
        match settled {
            Settled::Done => self.done.push(id),
            Settled::Trying => self.trying.push(id),
            Settled::Again(due) => stays(Some(due), due, TimerState::Waiting, 0, String::new()),
            Settled::Later { at, state, attempts, reason } => {
                // PostgreSQL takes no NUL.
                stays(None, at, state, attempts, reason.replace('\0', "\u{fffd}"));
            }
        }
    }
}

impl PgStore {
    async fn delete(&self, text: String, binds: &[&str]) -> Result<u64, StoreError> {
        let mut query = sqlx::query(AssertSqlSafe(text));
        for bind in binds {
            query = query.bind(*bind);
        }
        let done = query.execute(self.database().pool()?).await;
        done.map(|done| done.rows_affected()).map_err(|error| self.database().fault(error))
    }
}

impl TimerTable for PgStore {
    fn set(&self, timers: Vec<NewTimer>) -> BoxFuture<'_, Result<(), StoreError>> {
        async move {
            // In the order of names: two that set the same ones at once do not wait for each other.
            let timers = by_name(timers);
            let text = format!(
                "with {DISK} insert into ms_framework.timers as t (kind, name, due, at, payload) \
                 select n.kind, n.name, n.due, n.due, n.payload from disk, \
                     unnest($1::text[], $2::text[], $3::bigint[], $4::bytea[]) \
                         with ordinality n (kind, name, due, payload, place) \
                 order by n.place \
                 on conflict (kind, name) do update set \
                     id = default, due = excluded.due, at = excluded.at, \
                     payload = excluded.payload, state = 0, attempts = 0, deaths = 0, reason = '' \
                 where t.due <> excluded.due or t.payload <> excluded.payload"
            );
            let kinds: Vec<&str> = timers.values().map(|timer| &*timer.kind).collect();
            let names: Vec<&str> = timers.values().map(|timer| &*timer.name).collect();
            let dues: Vec<i64> = timers.values().map(|timer| timer.due.as_micros()).collect();
            let payloads: Vec<&[u8]> = timers.values().map(|timer| &timer.payload[..]).collect();
            sqlx::query(AssertSqlSafe(text))
                .bind(kinds)
                .bind(names)
                .bind(dues)
                .bind(payloads)
                .execute(self.database().pool()?)
                .await
                .map(drop)
                .map_err(|error| self.database().fault(error))
        }
        .boxed()
    }

    fn cancel<'a>(
        &'a self,
        kind: &'a str,
        name: &'a str,
    ) -> BoxFuture<'a, Result<bool, StoreError>> {
        async move {
            let text = format!(
                "with {DISK} delete from ms_framework.timers using disk \
                 where kind = $1 and name = $2"
            );
            Ok(self.delete(text, &[kind, name]).await? > 0)
        }
        .boxed()
    }

    fn cancel_between<'a>(
        &'a self,
        kind: &'a str,
        from: &'a str,
        to: &'a str,
    ) -> BoxFuture<'a, Result<u64, StoreError>> {
        async move {
            let text = format!(
                "with {DISK} delete from ms_framework.timers using disk \
                 where kind = $1 and name >= $2 and name < $3"
            );
            self.delete(text, &[kind, from, to]).await
        }
        .boxed()
    }

    fn due<'a>(
        &'a self,
        kind: &'a str,
        by: Timestamp,
        most: usize,
    ) -> BoxFuture<'a, Result<Due, StoreError>> {
        async move {
            let text = format!(
                "(select {COLUMNS} from ms_framework.timers \
                   where kind = $1 and at <= $2 order by at limit $3) \
                 union all \
                 (select {COLUMNS} from ms_framework.timers \
                   where kind = $1 and at > $2 order by at limit 1)"
            );
            let found = sqlx::query(AssertSqlSafe(text))
                .bind(kind)
                .bind(by.as_micros())
                .bind(limit(most))
                .fetch_all(self.database().pool()?)
                .await;
            let found = found.and_then(|found| rows(&found));
            Ok(Due::of(found.map_err(|error| self.database().fault(error))?, by))
        }
        .boxed()
    }

    fn unknown<'a>(&'a self, kind: &'a str) -> BoxFuture<'a, Result<u64, StoreError>> {
        async move {
            let text = "select count(*) from ms_framework.timers where kind = $1 and state = 1";
            let count: i64 = sqlx::query_scalar(text)
                .bind(kind)
                .fetch_one(self.database().pool()?)
                .await
                .map_err(|error| self.database().fault(error))?;
            Ok(count.cast_unsigned())
        }
        .boxed()
    }

    fn settle<'a>(
        &'a self,
        fence: &'a Fence,
        settled: Vec<(i64, Settled)>,
    ) -> BoxFuture<'a, Result<bool, StoreError>> {
        async move {
            let mut columns = Columns::default();
            for (id, settled) in settled {
                columns.add(id, settled);
            }
            // Whoever takes the claim over waits for this, or this sees that it was taken.
            let text = "with fence as materialized ( \
                     select from ms_framework.followers \
                     where name = $1 and owner = $2 and epoch = $3 for share \
                 ), removed as ( \
                     delete from ms_framework.timers \
                     where id = any($4) and exists (select from fence) \
                 ), trying as ( \
                     update ms_framework.timers set deaths = deaths + 1 \
                     where id = any($5) and exists (select from fence) \
                 ), later as ( \
                     update ms_framework.timers t set \
                         due = coalesce(n.due, t.due), at = n.at, state = n.state, \
                         attempts = n.attempts, deaths = 0, reason = n.reason \
                     from unnest($6::bigint[], $7::bigint[], $8::bigint[], $9::smallint[], \
                                 $10::integer[], $11::text[]) \
                              n (id, due, at, state, attempts, reason) \
                     where t.id = n.id and exists (select from fence) \
                 ) select count(*) from fence";
            let stands: i64 = sqlx::query_scalar(text)
                .bind(&*fence.name)
                .bind(&*fence.owner)
                .bind(i64::try_from(fence.epoch.get()).unwrap_or(i64::MAX))
                .bind(columns.done)
                .bind(columns.trying)
                .bind(columns.ids)
                .bind(columns.dues)
                .bind(columns.ats)
                .bind(columns.states)
                .bind(columns.attempts)
                .bind(columns.reasons)
                .fetch_one(self.database().pool()?)
                .await
                .map_err(|error| self.database().fault(error))?;
            Ok(stands > 0)
        }
        .boxed()
    }

    fn wake<'a>(&'a self, kind: &'a str) -> BoxFuture<'a, Result<(), StoreError>> {
        async move {
            let text = "update ms_framework.timers set at = due where kind = $1 and state = 1";
            let done = sqlx::query(text).bind(kind).execute(self.database().pool()?).await;
            done.map(drop).map_err(|error| self.database().fault(error))
        }
        .boxed()
    }

    fn list<'a>(
        &'a self,
        filter: &'a TimerFilter,
        after: Option<(&'a str, &'a str)>,
        most: usize,
    ) -> BoxFuture<'a, Result<Vec<TimerRow>, StoreError>> {
        async move {
            let (kind, name) = after.unwrap_or_default();
            let text = format!(
                "select {COLUMNS} from ms_framework.timers where (kind, name) > ($1, $2) \
                 and ($3::text is null or kind = $3) and ($4::smallint is null or state = $4) \
                 order by kind, name limit $5"
            );
            let found = sqlx::query(AssertSqlSafe(text))
                .bind(kind)
                .bind(name)
                .bind(filter.kind.as_deref())
                .bind(filter.state.map(TimerState::number))
                .bind(limit(most))
                .fetch_all(self.database().pool()?)
                .await;
            found.and_then(|found| rows(&found)).map_err(|error| self.database().fault(error))
        }
        .boxed()
    }

    fn get<'a>(
        &'a self,
        kind: &'a str,
        name: &'a str,
    ) -> BoxFuture<'a, Result<Option<TimerRow>, StoreError>> {
        async move {
            let text =
                format!("select {COLUMNS} from ms_framework.timers where kind = $1 and name = $2");
            let found = sqlx::query(AssertSqlSafe(text))
                .bind(kind)
                .bind(name)
                .fetch_optional(self.database().pool()?)
                .await;
            let found = found.and_then(|found| found.as_ref().map(row).transpose());
            found.map_err(|error| self.database().fault(error))
        }
        .boxed()
    }
}
