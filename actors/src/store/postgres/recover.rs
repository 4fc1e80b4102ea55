//! A batch to its end: tried again when that is safe, looked up when nobody knows.
//!
//! | what happened | what is known | what is done |
//! |---|---|---|
//! | deadlock, serialization failure | undone | again, a few times |
//! | no partition for the position | undone | the partition is made, again |
//! | the connection was lost, or the server is silent | nothing | again on another connection |
//!
//! The events of a batch stand side by side in the log, behind the head that it was planned on. So
//! there is one place where a batch can be whose connection was lost, and while nothing is there,
//! the next try claims the same place: one of the two is written, and never both, also if the lost
//! statement reaches the server later than the next one. When something is there, it is compared by
//! the ids of the events.

use std::sync::{Arc, atomic::AtomicBool};
use std::time::Duration;

use sqlx::PgConnection;
use tokio::time::{Instant, sleep, timeout};
use uuid::Uuid;

use super::{
    append::{Attempt, Backend, Writer, Written},
    database::{PgDatabase, silent},
    fault, lookup,
    options::Wake,
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
        let written = timeout(database.options.answer_within(), writer.append(batch)).await;
        let error = match written.unwrap_or_else(|_| Err(silent("append"))) {
            Ok(written) => return Ok(written),
            Err(error) => error,
        };
        // A batch that ends the server's process each time must not do so for ever.
        if retries == RETRIES {
            return Err(database.fault(error));
        }
        if fault::is_lost(&error) {
            tracing::warn!(%error, "connection lost while appending; it is made again");
            reconnect(writer, database).await?;
        } else if fault::is_undone(&error) {
            tracing::info!(%error, "an append was undone and is tried again");
            sleep(FIRST_PAUSE * 2_u32.pow(retries) / 4).await;
        } else if fault::is_missing_partition(&error) {
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
    let fault = |error| database.fault(error);
    let events: usize = batch.iter().map(|append| append.events.len()).sum();
    // Asked for first: a partition cannot be attached to a table that the statement reads.
    let head: i64 = sqlx::query_scalar(lookup::head_query!())
        .fetch_one(&mut writer.connection)
        .await
        .map_err(fault)?;
    // It can be that of long ago whose partition is gone: a node that was paused.
    writer.memory.forget();
    writer.memory.head = Position::new(head.cast_unsigned());
    // A batch can be longer than a partition.
    sqlx::query(
        "select make_partition(least(at, $2 + $1)) from store_head, \
         generate_series($2 + 1, $2 + $1 + partition_size - 1, partition_size) at",
    )
    .bind(i64::try_from(events).unwrap_or(i64::MAX))
    .bind(head)
    .execute(&mut writer.connection)
    .await
    .map(drop)
    .map_err(fault)
}

/// A writer, as soon as the server gives one.
///
/// # Errors
///
/// It could not be reached in time.
pub(super) async fn open(
    database: &PgDatabase,
    types: &Arc<Types>,
    older: &Arc<AtomicBool>,
) -> Result<Writer, StoreError> {
    let end = Instant::now() + database.options.reconnect_for;
    let mut pause = FIRST_PAUSE;
    loop {
        let error = match Writer::open(database, types, older).await {
            Ok(writer) => return Ok(writer),
            Err(error) => error,
        };
        let passes = matches!(error, StoreError::Lost { .. } | StoreError::Exhausted { .. });
        if !passes || Instant::now() + pause >= end {
            return Err(error);
        }
        tracing::debug!(%error, "the database does not answer yet");
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Makes the connection again. What is unknown of the batch goes over to the new writer.
async fn reconnect(writer: &mut Writer, database: &PgDatabase) -> Result<(), StoreError> {
    let (types, older) = writer.shared();
    let mut fresh = open(database, types, older).await?;
    // An earlier attempt is settled by the time there is another: either it was looked for, or the
    // two have one place.
    fresh.doubt = writer.attempt.take().or_else(|| writer.doubt.take());
    let backend = writer.backend;
    // The old connection is closed here.
    *writer = fresh;
    if database.options.wake == Wake::Notify {
        end(&mut writer.connection, backend).await;
    }
    Ok(())
}

/// Ends the server's process behind the lost connection, if it is still there: it may hold the
/// place of the batch, or the lock, and whoever comes next would wait until the server notices that
/// nobody is there. Not behind a pooler, which may have given the process to others.
async fn end(connection: &mut PgConnection, backend: Backend) {
    let ended = sqlx::query(
        "select pg_terminate_backend(pid, 5000) from pg_stat_activity \
         where pid = $1 and (extract(epoch from backend_start) * 1000000)::int8 = $2",
    )
    .bind(backend.process)
    .bind(backend.started_at)
    .execute(connection)
    .await;
    if let Err(error) = ended {
        tracing::debug!(%error, "the process of the lost connection was not ended");
    }
}

/// Whether the events of an attempt are in the log.
pub(super) async fn is_written(
    connection: &mut PgConnection,
    attempt: &Attempt,
    batch: &[Append],
) -> sqlx::Result<bool> {
    let planned = batch
        .iter()
        .zip(&attempt.outcomes)
        .filter(|(_, outcome)| outcome.as_ref().is_ok_and(|appended| !appended.duplicate));
    let ids: Vec<Uuid> = planned
        .flat_map(|(append, _)| append.events.iter().map(|event| *event.id.as_uuid()))
        .collect();
    let last = attempt.base.plus(ids.len() as u64);
    let there: Vec<Uuid> = sqlx::query_scalar(
        "select event_id from events where position > $1 and position <= $2 order by position",
    )
    .bind(attempt.base.get().cast_signed())
    .bind(last.get().cast_signed())
    .fetch_all(connection)
    .await?;
    let written = there == ids;
    if written {
        tracing::info!(position = %last, "the append whose connection was lost is in the log");
    }
    Ok(written)
}
