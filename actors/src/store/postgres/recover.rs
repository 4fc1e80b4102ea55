//! A batch to its end: tried again when that is safe, looked up when nobody knows.
//!
//! | what happened | what is known | what is done |
//! |---|---|---|
//! | deadlock, serialization failure | undone | again, a few times |
//! | no partition for the position | undone | the partition is made, again |
//! | the connection was lost | nothing | the server's process behind it is ended, the log is asked for the batch's first event, and then it is answered or tried again |
//!
//! A batch is one transaction, so its first event tells for all of it.

use std::sync::Arc;
use std::time::Duration;

use sqlx::Row as _;
use tokio::time::{Instant, sleep};

use super::{
    append::{Attempt, Writer, Written, moved},
    database::PgDatabase,
    fault,
    statement::LOCK,
    types::Types,
};
use crate::{
    event::Position,
    store::{Append, StoreError},
};

/// How often a batch is tried again that was undone.
const RETRIES: u32 = 5;

/// The pauses between attempts to reach the server.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// Writes a batch.
///
/// # Errors
///
/// The database failed, or could not be reached again in time; in that case whether the batch is
/// in the log is unknown.
pub(super) async fn append(
    writer: &mut Writer,
    database: &PgDatabase,
    batch: Vec<Append>,
) -> Result<Written, StoreError> {
    let mut retries = 0;
    loop {
        let error = match writer.append(&batch).await {
            Ok(written) => return Ok(written),
            Err(error) => error,
        };
        if fault::is_lost(&error) {
            tracing::warn!(%error, "connection lost while appending; it is made again");
            if let Some(written) = reconnect(writer, database).await? {
                return Ok(written);
            }
        } else if retries < RETRIES && fault::is_undone(&error) {
            tracing::info!(%error, "an append was undone and is tried again");
        } else if retries < RETRIES && fault::is_missing_partition(&error) {
            make_partition(writer, database, &batch).await?;
        } else {
            return Err(database.fault(error));
        }
        retries += 1;
    }
}

async fn make_partition(
    writer: &mut Writer,
    database: &PgDatabase,
    batch: &[Append],
) -> Result<(), StoreError> {
    let events: usize = batch.iter().map(|append| append.events.len()).sum();
    sqlx::query(
        "select make_partition(position + 1), make_partition(position + $1) from store_head",
    )
    .bind(i64::try_from(events).unwrap_or(i64::MAX))
    .execute(&mut writer.connection)
    .await
    .map(drop)
    .map_err(|error| database.fault(error))
}

/// A writer, as soon as the server gives one.
///
/// # Errors
///
/// It could not be reached in time.
pub(super) async fn open(database: &PgDatabase, types: &Arc<Types>) -> Result<Writer, StoreError> {
    let mut patience = Patience::new(database);
    loop {
        match Writer::open(database, types).await {
            Ok(writer) => return Ok(writer),
            Err(error) => patience.wait(error).await?,
        }
    }
}

/// How long a server is tried that does not answer.
struct Patience {
    end: Instant,
    pause: Duration,
}

impl Patience {
    fn new(database: &PgDatabase) -> Self {
        Self { end: Instant::now() + database.options.reconnect_for, pause: FIRST_PAUSE }
    }

    /// Waits before the next try, or gives the error back when it is no use.
    async fn wait(&mut self, error: StoreError) -> Result<(), StoreError> {
        let passes = matches!(error, StoreError::Lost { .. } | StoreError::Exhausted { .. });
        if !passes || Instant::now() + self.pause >= self.end {
            return Err(error);
        }
        tracing::debug!(%error, "the database does not answer yet");
        sleep(self.pause).await;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        Ok(())
    }
}

/// Makes the connection again and finds out what became of the attempt; `None` if nothing did.
async fn reconnect(
    writer: &mut Writer,
    database: &PgDatabase,
) -> Result<Option<Written>, StoreError> {
    let (attempt, head, backend) = (writer.attempt.take(), writer.head, writer.backend);
    let mut patience = Patience::new(database);
    loop {
        let found = async {
            let mut fresh = Writer::open(database, writer.types()).await?;
            let found = match &attempt {
                None => None,
                Some(attempt) => find(&mut fresh, database, attempt, head, backend).await?,
            };
            Ok((fresh, found))
        };
        match found.await {
            Ok((fresh, found)) => {
                *writer = fresh;
                return Ok(found);
            }
            Err(error) => patience.wait(error).await?,
        }
    }
}

async fn find(
    writer: &mut Writer,
    database: &PgDatabase,
    attempt: &Attempt,
    head: Position,
    backend: i32,
) -> Result<Option<Written>, StoreError> {
    let fault = |error| database.fault(error);
    let connection = &mut writer.connection;
    // The old process may still have the statement to run. It is ended first, and then the lock
    // is waited for, which it held if it was in the middle.
    sqlx::query(
        "select pg_terminate_backend(pid, 10000) from pg_stat_activity \
         where pid = $1 and application_name = 'smith'",
    )
    .bind(backend)
    .execute(&mut *connection)
    .await
    .map_err(fault)?;
    sqlx::query("select pg_advisory_lock($1)")
        .bind(LOCK)
        .execute(&mut *connection)
        .await
        .map_err(fault)?;
    let found = sqlx::query(
        "select position from events where position > $1 and event_id = $2 order by position limit 1",
    )
    .bind(head.get().cast_signed())
    .bind(attempt.first)
    .fetch_optional(&mut *connection)
    .await;
    sqlx::query("select pg_advisory_unlock($1)")
        .bind(LOCK)
        .execute(&mut *connection)
        .await
        .map_err(fault)?;
    let position = found.and_then(|row| row.map(|row| row.try_get::<i64, _>(0)).transpose());
    let Some(position) = position.map_err(fault)? else { return Ok(None) };
    tracing::info!(position, "the append whose connection was lost is in the log");
    let base = Position::new(position.cast_unsigned()).minus(attempt.at);
    let outcomes = moved(attempt.outcomes.clone(), attempt.base, base);
    Ok(Some(Written { outcomes, head: writer.head }))
}
