//! The table in a SQLite file.

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{Due, NewTimer, Settled, TimerFilter, TimerRow, TimerState, TimerTable, by_name};
use crate::event::Timestamp;
use crate::store::StoreError;
use crate::store::claims::Fence;
use crate::store::sqlite::{SqliteStore, statement::saturated};

const COLUMNS: &str = "id, kind, name, due, at, payload, state, attempts, deaths, reason";

fn row(row: &Row<'_>) -> rusqlite::Result<TimerRow> {
    let small = |column: usize| {
        row.get::<_, i64>(column).map(|number| u32::try_from(number).unwrap_or(u32::MAX))
    };
    Ok(TimerRow {
        id: row.get(0)?,
        kind: row.get_ref(1)?.as_str()?.into(),
        name: row.get_ref(2)?.as_str()?.into(),
        due: Timestamp::from_micros(row.get(3)?),
        at: Timestamp::from_micros(row.get(4)?),
        payload: row.get::<_, Vec<u8>>(5)?.into(),
        state: TimerState::of(row.get(6)?),
        attempts: small(7)?,
        deaths: small(8)?,
        reason: row.get(9)?,
    })
}

fn set(connection: &Connection, timer: &NewTimer) -> rusqlite::Result<()> {
    let NewTimer { kind, name, due, payload } = timer;
    let same = "select 1 from timers where kind = ? and name = ? and due = ? and payload = ?";
    let there = connection.prepare_cached(same)?.exists(params![
        &**kind,
        &**name,
        due.as_micros(),
        &payload[..]
    ])?;
    if there {
        return Ok(());
    }
    let put = "insert or replace into timers \
               (kind, name, due, at, payload, state, attempts, deaths, reason) \
               values (?1, ?2, ?3, ?3, ?4, 0, 0, 0, '')";
    let mut put = connection.prepare_cached(put)?;
    put.execute(params![&**kind, &**name, due.as_micros(), &payload[..]]).map(drop)
}

fn settle(connection: &Connection, id: i64, settled: &Settled) -> rusqlite::Result<()> {
    match settled {
        Settled::Done => {
            connection.prepare_cached("delete from timers where id = ?")?.execute([id])
        }
        Settled::Again(due) => connection
            .prepare_cached(
                "update timers set due = ?2, at = ?2, state = 0, attempts = 0, deaths = 0, \
                 reason = '' where id = ?1",
            )?
            .execute(params![id, due.as_micros()]),
        Settled::Later { at, state, attempts, reason } => connection
            .prepare_cached(
                "update timers set at = ?2, state = ?3, attempts = ?4, reason = ?5, deaths = 0 \
                 where id = ?1",
            )?
            .execute(params![id, at.as_micros(), state.number(), attempts, reason]),
        Settled::Trying => connection
            .prepare_cached("update timers set deaths = deaths + 1 where id = ?")?
            .execute([id]),
    }
    .map(drop)
}

fn stands(connection: &Connection, fence: &Fence) -> rusqlite::Result<bool> {
    let held = "select 1 from followers where name = ? and owner = ? and epoch = ?";
    let epoch = saturated(fence.epoch.get());
    connection.prepare_cached(held)?.exists(params![&*fence.name, &*fence.owner, epoch])
}

impl TimerTable for SqliteStore {
    fn set(&self, timers: Vec<NewTimer>) -> BoxFuture<'_, Result<(), StoreError>> {
        let timers = by_name(timers);
        let put = move |connection: &Connection| {
            timers.values().try_for_each(|timer| set(connection, timer))
        };
        self.database().write_durably(put).boxed()
    }

    fn cancel<'a>(
        &'a self,
        kind: &'a str,
        name: &'a str,
    ) -> BoxFuture<'a, Result<bool, StoreError>> {
        let (kind, name) = (kind.to_owned(), name.to_owned());
        let remove = move |connection: &Connection| {
            let text = "delete from timers where kind = ? and name = ?";
            Ok(connection.prepare_cached(text)?.execute([kind, name])? > 0)
        };
        self.database().write_durably(remove).boxed()
    }

    fn cancel_between<'a>(
        &'a self,
        kind: &'a str,
        from: &'a str,
        to: &'a str,
    ) -> BoxFuture<'a, Result<u64, StoreError>> {
        let (kind, from, to) = (kind.to_owned(), from.to_owned(), to.to_owned());
        let remove = move |connection: &Connection| {
            let text = "delete from timers where kind = ? and name >= ? and name < ?";
            Ok(connection.prepare_cached(text)?.execute([kind, from, to])? as u64)
        };
        self.database().write_durably(remove).boxed()
    }

    fn due<'a>(
        &'a self,
        kind: &'a str,
        by: Timestamp,
        limit: usize,
    ) -> BoxFuture<'a, Result<Due, StoreError>> {
        let kind = kind.to_owned();
        let read = move |connection: &Connection| {
            let text = format!(
                "select * from (select {COLUMNS} from timers \
                     where kind = ?1 and at <= ?2 order by at limit ?3) \
                 union all \
                 select * from (select {COLUMNS} from timers \
                     where kind = ?1 and at > ?2 order by at limit 1)"
            );
            let mut page = connection.prepare_cached(&text)?;
            let limit = saturated(limit as u64);
            let rows = page.query_map(params![kind, by.as_micros(), limit], row)?;
            Ok(Due::of(rows.collect::<rusqlite::Result<_>>()?, by))
        };
        self.database().read(read).boxed()
    }

    fn unknown<'a>(&'a self, kind: &'a str) -> BoxFuture<'a, Result<u64, StoreError>> {
        let kind = kind.to_owned();
        let read = move |connection: &Connection| {
            let text = "select count(*) from timers where kind = ? and state = 1";
            let count = connection.prepare_cached(text)?.query_row([kind], |row| row.get(0));
            count.map(i64::cast_unsigned)
        };
        self.database().read(read).boxed()
    }

    fn settle<'a>(
        &'a self,
        fence: &'a Fence,
        rows: Vec<(i64, Settled)>,
    ) -> BoxFuture<'a, Result<bool, StoreError>> {
        let fence = fence.clone();
        let write = move |connection: &Connection| {
            if !stands(connection, &fence)? {
                return Ok(false);
            }
            for (id, settled) in &rows {
                settle(connection, *id, settled)?;
            }
            Ok(true)
        };
        self.database().write(write).boxed()
    }

    fn wake<'a>(&'a self, kind: &'a str) -> BoxFuture<'a, Result<(), StoreError>> {
        let kind = kind.to_owned();
        let write = move |connection: &Connection| {
            let text = "update timers set at = due where kind = ? and state = 1";
            connection.prepare_cached(text)?.execute([kind]).map(drop)
        };
        self.database().write(write).boxed()
    }

    fn list<'a>(
        &'a self,
        filter: &'a TimerFilter,
        after: Option<(&'a str, &'a str)>,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<TimerRow>, StoreError>> {
        let filter = filter.clone();
        let (kind, name) = after.unwrap_or_default();
        let (kind, name) = (kind.to_owned(), name.to_owned());
        let read = move |connection: &Connection| {
            let text = format!(
                "select {COLUMNS} from timers where (kind, name) > (?1, ?2) \
                 and (?3 is null or kind = ?3) and (?4 is null or state = ?4) \
                 order by kind, name limit ?5"
            );
            let state = filter.state.map(TimerState::number);
            let limit = saturated(limit as u64);
            let mut page = connection.prepare_cached(&text)?;
            page.query_map(params![kind, name, filter.kind.as_deref(), state, limit], row)?
                .collect()
        };
        self.database().read(read).boxed()
    }

    fn get<'a>(
        &'a self,
        kind: &'a str,
        name: &'a str,
    ) -> BoxFuture<'a, Result<Option<TimerRow>, StoreError>> {
        let (kind, name) = (kind.to_owned(), name.to_owned());
        let read = move |connection: &Connection| {
            let text = format!("select {COLUMNS} from timers where kind = ? and name = ?");
            connection.prepare_cached(&text)?.query_row([kind, name], row).optional()
        };
        self.database().read(read).boxed()
    }
}
