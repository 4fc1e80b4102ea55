//! Forgetting the answers to idempotency keys by their age.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use super::database::PgDatabase;
use crate::store::StoreError;

/// How often it is looked for old ones.
const EVERY: Duration = Duration::from_secs(60);

/// The most rows of one statement, so that no transaction is long.
const MOST: i64 = 5_000;

/// Forgets old keys, once in a while.
#[derive(Debug, Default)]
pub(super) struct Keys(Mutex<Option<Instant>>);

impl Keys {
    /// Forgets what is older than the options say, unless that was done a moment ago.
    ///
    /// # Errors
    ///
    /// The database failed.
    pub(super) async fn tidy(&self, database: &PgDatabase) -> Result<(), StoreError> {
        {
            let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if last.is_some_and(|last| last.elapsed() < EVERY) {
                return Ok(());
            }
            *last = Some(Instant::now());
        }
        forget(database).await.map(drop)
    }
}

/// Forgets what is older than the options say; answers how many.
pub(super) async fn forget(database: &PgDatabase) -> Result<u64, StoreError> {
    let age = database.options.keep_keys.as_secs_f64();
    let mut forgotten = 0;
    loop {
        // By the server's clock, as they were written.
        let rows = sqlx::query(
            "delete from command_results where key in (select key from command_results \
             where recorded_at < ((extract(epoch from clock_timestamp()) - $1) * 1000000)::int8 \
             order by recorded_at limit $2)",
        )
        .bind(age)
        .bind(MOST)
        .execute(database.pool()?)
        .await
        .map_err(|error| database.fault(error))?
        .rows_affected();
        forgotten += rows;
        if rows < MOST.cast_unsigned() {
            return Ok(forgotten);
        }
    }
}
