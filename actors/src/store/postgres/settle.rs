//! Bringing the rows of streams forward.
//!
//! An append writes no row of a stream that was there before; the rows follow here, about once in
//! [`EVERY`], from the events themselves. Nothing depends on when: readers take what lies behind the
//! rows from the log.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use mister_smith_supervisors::TaskGuard;
use sqlx::{PgExecutor, Row as _};
use tokio::{sync::watch, time::sleep};

use super::database::PgDatabase;
use crate::{event::Position, store::StoreError};

/// How long the rows may be behind while there are appends.
const EVERY: Duration = Duration::from_secs(1);

/// The most positions of one transaction.
const MOST: i64 = 50_000;

/// Whether a program from before the rows followed appends here, too: it is one whose sessions
/// have that name. It cannot append while the rows are behind.
pub(super) const OLDER: &str = "select exists (select from pg_stat_activity \
     where datname = current_database() and application_name = 'smith')";

/// Brings the rows forward while this store appends.
#[derive(Debug)]
pub(super) struct Settler {
    database: Arc<PgDatabase>,
    wrote: watch::Sender<Position>,
    task: Mutex<Option<TaskGuard>>,
    older: Arc<AtomicBool>,
}

impl Settler {
    pub(super) fn new(database: Arc<PgDatabase>) -> Self {
        let wrote = watch::Sender::new(Position::ZERO);
        Self { database, wrote, task: Mutex::default(), older: Arc::default() }
    }

    /// Whether an older program was seen lately.
    pub(super) fn older(&self) -> &Arc<AtomicBool> {
        &self.older
    }

    /// This store has appended.
    pub(super) fn wrote(&self, head: Position) {
        self.wrote.send_replace(head);
        let mut task = self.task.lock().unwrap_or_else(PoisonError::into_inner);
        if task.is_none() {
            let (database, older) = (Arc::clone(&self.database), Arc::clone(&self.older));
            let mut wrote = self.wrote.subscribe();
            wrote.mark_changed();
            *task = Some(TaskGuard::spawn(async move {
                while wrote.changed().await.is_ok() {
                    sleep(EVERY).await;
                    wrote.mark_unchanged();
                    match pass(&database).await {
                        Ok(seen) => older.store(seen, Ordering::Relaxed),
                        Err(StoreError::Closed { .. }) => return,
                        Err(error) => {
                            tracing::debug!(%error, "the rows of streams stay behind for now");
                            wrote.mark_changed();
                        }
                    }
                }
            }));
        }
    }

    pub(super) fn close(&self) {
        *self.task.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// Brings the rows forward to the end of the log; answers whether an older program is there.
async fn pass(database: &PgDatabase) -> Result<bool, StoreError> {
    settle(database).await?;
    sqlx::query_scalar(OLDER)
        .fetch_one(database.pool()?)
        .await
        .map_err(|error| database.fault(error))
}

/// Brings the rows forward to where the log ends now.
///
/// # Errors
///
/// The database failed.
pub(super) async fn settle(database: &PgDatabase) -> Result<(), StoreError> {
    while step(database.pool()?).await.map_err(|error| database.fault(error))? > 0 {}
    Ok(())
}

/// One step; answers how many positions are left.
pub(super) async fn step<'c>(executor: impl PgExecutor<'c>) -> sqlx::Result<i64> {
    sqlx::query("select settle($1)").bind(MOST).fetch_one(executor).await?.try_get(0)
}
