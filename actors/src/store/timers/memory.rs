//! The table in memory, for tests and simulations.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, ready};

use super::{Due, NewTimer, Settled, TimerFilter, TimerRow, TimerState, TimerTable};
use crate::event::Timestamp;
use crate::store::StoreError;
use crate::store::claims::Fence;
use crate::store::claims::memory::MemoryClaims;

/// [`TimerTable`] that several nodes in one process share.
#[derive(Debug)]
pub struct MemoryTimers {
    claims: Arc<MemoryClaims>,
    rows: Mutex<Rows>,
}

#[derive(Debug, Default)]
struct Rows {
    last: i64,
    by_name: BTreeMap<(Arc<str>, Arc<str>), TimerRow>,
}

impl Rows {
    fn set(&mut self, timer: NewTimer) {
        let NewTimer { kind, name, due, payload } = timer;
        let key = (Arc::clone(&kind), Arc::clone(&name));
        let same = |row: &TimerRow| row.due == due && row.payload == payload;
        if self.by_name.get(&key).is_some_and(same) {
            return;
        }
        self.last += 1;
        let row = TimerRow {
            id: self.last,
            kind,
            name,
            due,
            at: due,
            payload,
            state: TimerState::Waiting,
            attempts: 0,
            deaths: 0,
            reason: String::new(),
        };
        self.by_name.insert(key, row);
    }

    fn settle(&mut self, id: i64, settled: Settled) {
        let Some(row) = self.by_name.values_mut().find(|row| row.id == id) else { return };
        match settled {
            Settled::Done => {
                let key = (Arc::clone(&row.kind), Arc::clone(&row.name));
                self.by_name.remove(&key);
            }
            Settled::Again(due) => {
                (row.due, row.at, row.state) = (due, due, TimerState::Waiting);
                (row.attempts, row.deaths) = (0, 0);
                row.reason.clear();
            }
            Settled::Later { at, state, attempts, reason } => {
                (row.at, row.state, row.attempts) = (at, state, attempts);
                (row.reason, row.deaths) = (reason, 0);
            }
            Settled::Trying => row.deaths += 1,
        }
    }
}

impl MemoryTimers {
    /// An empty table whose fences are those of some claims.
    #[must_use]
    pub fn new(claims: Arc<MemoryClaims>) -> Self {
        Self { claims, rows: Mutex::default() }
    }

    fn rows(&self) -> MutexGuard<'_, Rows> {
        // No call below leaves a row half changed.
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn of<'a>(rows: &'a Rows, kind: &'a str) -> impl Iterator<Item = &'a TimerRow> {
        rows.by_name.values().filter(move |row| &*row.kind == kind)
    }
}

impl TimerTable for MemoryTimers {
    fn set(&self, timers: Vec<NewTimer>) -> BoxFuture<'_, Result<(), StoreError>> {
        let mut rows = self.rows();
        for timer in timers {
            rows.set(timer);
        }
        ready(Ok(())).boxed()
    }

    fn cancel<'a>(
        &'a self,
        kind: &'a str,
        name: &'a str,
    ) -> BoxFuture<'a, Result<bool, StoreError>> {
        let gone = self.rows().by_name.remove(&(kind.into(), name.into())).is_some();
        ready(Ok(gone)).boxed()
    }

    fn cancel_between<'a>(
        &'a self,
        kind: &'a str,
        from: &'a str,
        to: &'a str,
    ) -> BoxFuture<'a, Result<u64, StoreError>> {
        let mut rows = self.rows();
        let before = rows.by_name.len();
        rows.by_name.retain(|(of, name), _| &**of != kind || &**name < from || &**name >= to);
        ready(Ok((before - rows.by_name.len()) as u64)).boxed()
    }

    fn due<'a>(
        &'a self,
        kind: &'a str,
        by: Timestamp,
        limit: usize,
    ) -> BoxFuture<'a, Result<Due, StoreError>> {
        let rows = self.rows();
        let next = Self::of(&rows, kind).map(|row| row.at).filter(|at| *at > by).min();
        let mut due: Vec<_> = Self::of(&rows, kind).filter(|row| row.at <= by).cloned().collect();
        due.sort_by_key(|row| row.at);
        due.truncate(limit);
        ready(Ok(Due { rows: due, next })).boxed()
    }

    fn unknown<'a>(&'a self, kind: &'a str) -> BoxFuture<'a, Result<u64, StoreError>> {
        let rows = self.rows();
        let unknown = Self::of(&rows, kind).filter(|row| row.state == TimerState::Unknown);
        ready(Ok(unknown.count() as u64)).boxed()
    }

    fn settle<'a>(
        &'a self,
        fence: &'a Fence,
        settled: Vec<(i64, Settled)>,
    ) -> BoxFuture<'a, Result<bool, StoreError>> {
        let stands = self.claims.stands(fence);
        if stands {
            let mut rows = self.rows();
            for (id, settled) in settled {
                rows.settle(id, settled);
            }
        }
        ready(Ok(stands)).boxed()
    }

    fn wake<'a>(&'a self, kind: &'a str) -> BoxFuture<'a, Result<(), StoreError>> {
        for row in self.rows().by_name.values_mut() {
            if &*row.kind == kind && row.state == TimerState::Unknown {
                row.at = row.due;
            }
        }
        ready(Ok(())).boxed()
    }

    fn list<'a>(
        &'a self,
        filter: &'a TimerFilter,
        after: Option<(&'a str, &'a str)>,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<TimerRow>, StoreError>> {
        let after = after.unwrap_or_default();
        let rows = self.rows();
        let page = rows.by_name.values().filter(|row| {
            (&*row.kind, &*row.name) > after
                && filter.kind.as_ref().is_none_or(|kind| *kind == row.kind)
                && filter.state.is_none_or(|state| state == row.state)
        });
        ready(Ok(page.take(limit).cloned().collect())).boxed()
    }

    fn get<'a>(
        &'a self,
        kind: &'a str,
        name: &'a str,
    ) -> BoxFuture<'a, Result<Option<TimerRow>, StoreError>> {
        let found = self.rows().by_name.get(&(kind.into(), name.into())).cloned();
        ready(Ok(found)).boxed()
    }
}
