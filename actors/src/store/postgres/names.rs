//! The names of streams by number. A number's name never changes, so a reader joins nothing: it
//! asks for the names that it has not seen.

use std::{
    mem,
    sync::{Mutex, PoisonError},
};

use indexmap::IndexMap;
use sqlx::Row as _;

use super::{database::PgDatabase, lookup::stream_id};
use crate::{event::StreamId, store::StoreError};

/// Names of one generation.
const GENERATION: usize = 50_000;

/// Names that were read lately.
///
/// Two generations: what is used moves to the younger, and when that is full, what was not used
/// meanwhile goes.
#[derive(Debug, Default)]
pub(super) struct Names(Mutex<Generations>);

#[derive(Debug, Default)]
struct Generations {
    young: IndexMap<i64, StreamId>,
    old: IndexMap<i64, StreamId>,
}

impl Generations {
    fn get(&mut self, number: i64) -> Option<StreamId> {
        if let Some(name) = self.young.get(&number) {
            return Some(name.clone());
        }
        let name = self.old.swap_remove(&number)?;
        self.put(number, name.clone());
        Some(name)
    }

    fn put(&mut self, number: i64, name: StreamId) {
        if self.young.len() >= GENERATION {
            self.old = mem::take(&mut self.young);
        }
        self.young.insert(number, name);
    }
}

impl Names {
    /// The names of these streams, in their order. Runs of one stream share its name.
    ///
    /// # Errors
    ///
    /// The database failed, or does not have all of them.
    pub(super) async fn of(
        &self,
        database: &PgDatabase,
        numbers: &[i64],
    ) -> Result<Vec<StreamId>, StoreError> {
        let mut found = Vec::with_capacity(numbers.len());
        let mut unknown = Vec::new();
        {
            let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            for (n, number) in numbers.iter().enumerate() {
                let name = match (
                    n.checked_sub(1).and_then(|n| found.get(n)),
                    numbers.get(n.wrapping_sub(1)),
                ) {
                    (Some(Some(last)), Some(before)) if before == number => {
                        Some(StreamId::clone(last))
                    }
                    _ => known.get(*number),
                };
                if name.is_none() {
                    unknown.push(*number);
                }
                found.push(name);
            }
        }
        if !unknown.is_empty() {
            let fetched = self.fetch(database, unknown).await?;
            for (name, number) in found.iter_mut().zip(numbers) {
                if name.is_none() {
                    *name = fetched.get(number).cloned();
                }
            }
        }
        let named = found.into_iter().zip(numbers).map(|(name, number)| {
            name.ok_or_else(|| database.corrupt(format!("stream {number} has no row in streams")))
        });
        named.collect()
    }

    async fn fetch(
        &self,
        database: &PgDatabase,
        mut numbers: Vec<i64>,
    ) -> Result<IndexMap<i64, StreamId>, StoreError> {
        let fault = |error| database.fault(error);
        numbers.sort_unstable();
        numbers.dedup();
        let rows = sqlx::query("select id, name from streams where id = any($1)")
            .bind(numbers)
            .fetch_all(database.pool()?)
            .await
            .map_err(fault)?;
        let mut fetched = IndexMap::with_capacity(rows.len());
        for row in &rows {
            let number: i64 = row.try_get(0).map_err(fault)?;
            fetched.insert(number, stream_id(row, 1).map_err(fault)?);
        }
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (number, name) in &fetched {
            known.put(*number, name.clone());
        }
        Ok(fetched)
    }
}

#[cfg(test)]
mod tests;
