//! A batch to its end: tried again when that is safe, looked up when nobody knows.
//!
//! | what happened | what is known | what is done |
//! |---|---|---|
//! | deadlock, serialization failure | undone | again, a few times |
//! | no partition for the position | undone | the partition is made, again |
//! | the connection was lost | nothing | the server's process behind it is ended, the log is asked for the batch's events, and then it is answered or tried again |
//!
//! The events of a batch stand side by side in the log. Where the first one was planned, by stream
//! and version, it is looked for; and if it is there, all are compared by their ids.

use std::sync::Arc;
use std::time::Duration;

use sqlx::PgConnection;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::{
    append::{Attempt, Backend, Writer, Written, moved},
    database::PgDatabase,
    fault,
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
    batch: &[Append],
) -> Result<Written, StoreError> {
    let mut retries = 0;
    loop {
        let error = match writer.append(batch).await {
            Ok(written) => return Ok(written),
            Err(error) => error,
        };
        if fault::is_lost(&error) {
            tracing::warn!(%error, "connection lost while appending; it is made again");
            if let Some(written) = reconnect(writer, database, batch).await? {
                return Ok(written);
            }
            // A batch that ends the server's process each time must not do so for ever.
            if retries == RETRIES {
                return Err(database.fault(error));
            }
        } else if retries < RETRIES && fault::is_undone(&error) {
            tracing::info!(%error, "an append was undone and is tried again");
            sleep(FIRST_PAUSE * 2_u32.pow(retries) / 4).await;
        } else if retries < RETRIES && fault::is_missing_partition(&error) {
            make_partition(writer, database, batch).await?;
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
    // A batch can be longer than a partition.
    sqlx::query(
        "select make_partition(least(at, position + $1)) from store_head, \
         generate_series(position + 1, position + $1 + partition_size - 1, partition_size) at",
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
    batch: &[Append],
) -> Result<Option<Written>, StoreError> {
    let (attempt, backend) = (writer.attempt.take(), writer.backend);
    let mut patience = Patience::new(database);
    loop {
        let found = async {
            let mut fresh = Writer::open(database, writer.types()).await?;
            let found = match &attempt {
                None => None,
                Some(attempt) => {
                    outlive(&mut fresh.connection, database, backend).await?;
                    let found = find(&mut fresh.connection, attempt, batch).await;
                    found.map_err(|error| database.fault(error))?
                }
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

/// Ends the server's process behind the lost connection: it may still have the statement to run,
/// or be in the middle of it. Afterwards it has committed, or never will.
async fn outlive(
    connection: &mut PgConnection,
    database: &PgDatabase,
    backend: Backend,
) -> Result<(), StoreError> {
    let ended: Option<bool> = sqlx::query_scalar(
        "select pg_terminate_backend(pid, 5000) from pg_stat_activity \
         where pid = $1 and (extract(epoch from backend_start) * 1000000)::int8 = $2",
    )
    .bind(backend.process)
    .bind(backend.started_at)
    .fetch_optional(connection)
    .await
    .map_err(|error| database.fault(error))?;
    match ended {
        None | Some(true) => Ok(()),
        Some(false) => Err(database.fault(sqlx::Error::Io(std::io::Error::new(
            std::io::ErrorKind::TimedOut,
            format!("the server's process {} does not end", backend.process),
        )))),
    }
}

/// The answer to an attempt, if it is in the log.
async fn find(
    connection: &mut PgConnection,
    attempt: &Attempt,
    batch: &[Append],
) -> sqlx::Result<Option<Written>> {
    let planned = batch.iter().zip(&attempt.outcomes).filter_map(|(append, outcome)| {
        let appended = outcome.as_ref().ok().filter(|appended| !appended.duplicate)?;
        Some((append, appended))
    });
    let ids: Vec<Uuid> = planned
        .clone()
        .flat_map(|(append, _)| append.events.iter().map(|event| *event.id.as_uuid()))
        .collect();
    let Some(((_, first), first_id)) = planned.clone().next().zip(ids.first()) else {
        return Ok(None);
    };
    let position: Option<i64> = sqlx::query_scalar(
        "select position from events where stream_id = (select id from streams where name = $1) \
         and version = $2 and position > $3 and event_id = $4",
    )
    .bind(first.stream.as_str())
    .bind(first.first_version.get().cast_signed())
    .bind(attempt.after.get().cast_signed())
    .bind(first_id)
    .fetch_optional(&mut *connection)
    .await?;
    let Some(position) = position else { return Ok(None) };
    let last = position.saturating_add(i64::try_from(ids.len()).unwrap_or(i64::MAX) - 1);
    let there: Vec<Uuid> = sqlx::query_scalar(
        "select event_id from events where position between $1 and $2 order by position",
    )
    .bind(position)
    .bind(last)
    .fetch_all(&mut *connection)
    .await?;
    if there != ids {
        // Somebody else's, with the same first event.
        return Ok(None);
    }
    tracing::info!(position, "the append whose connection was lost is in the log");
    let base = Position::new(position.cast_unsigned()).minus(1);
    let outcomes = moved(attempt.outcomes.clone(), attempt.base, base);
    Ok(Some(Written { outcomes, head: Position::new(last.cast_unsigned()) }))
}
