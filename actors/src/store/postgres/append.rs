//! The writing connection, and what one batch does on it.
//!
//! The fast way plans on what this writer remembers of the streams, and lets the statement find
//! out whether that is still so. The slow way takes the lock first, looks, and plans on what it
//! finds: then nothing can be otherwise. A conflict fails its own append there and no other.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use indexmap::IndexMap;
use sqlx::{Connection as _, PgConnection, Row as _, postgres::PgRow};
use uuid::Uuid;

use super::{
    database::PgDatabase,
    fault, lookup,
    statement::{LOCK, Place, Write, put},
    types::Types,
};
use crate::{
    event::{Position, StreamId, Timestamp, Version},
    store::{
        Append, AppendError, AppendOutcome, Appended, ExpectedVersion, IdempotencyKey, StoreError,
        plan::{Known, Plan, StreamState, mark, plan},
    },
};

/// Streams that a writer remembers; beyond it, it starts over.
const MAX_REMEMBERED_STREAMS: usize = 100_000;

/// How many numbers of streams one draw of the sequence gives (its increment).
const BLOCK: i64 = 1_000;

/// A connection that writes batches.
#[derive(Debug)]
pub(super) struct Writer {
    pub(super) connection: PgConnection,
    /// The server's process behind the connection.
    pub(super) backend: i32,
    types: Arc<Types>,
    streams: Remembered,
    /// Numbers for streams to be made.
    ids: Range<i64>,
    /// The end of the log, as far as this writer knows.
    pub(super) head: Position,
    marked: Option<Timestamp>,
    /// What the statement that is under way would be answered with.
    pub(super) attempt: Option<Attempt>,
}

/// Streams by name: number and state.
#[derive(Debug, Default)]
struct Remembered(IndexMap<StreamId, (i64, StreamState)>);

/// A statement of which the outcome is not known yet.
#[derive(Debug, Clone)]
pub(super) struct Attempt {
    /// The first event that it writes.
    pub(super) first: Uuid,
    /// Its place among the events of the batch, from 1, when `outcomes` count from `base`.
    pub(super) at: u64,
    pub(super) outcomes: Vec<AppendOutcome>,
    /// The head that the outcomes were planned on.
    pub(super) base: Position,
}

/// What came of a batch.
#[derive(Debug)]
pub(super) struct Written {
    pub(super) outcomes: Vec<AppendOutcome>,
    /// The end of the log, as far as this batch knows.
    pub(super) head: Position,
}

/// What a plan is made on.
struct Found<'a> {
    streams: &'a Remembered,
    answers: BTreeMap<IdempotencyKey, Appended>,
}

impl Known for Found<'_> {
    fn stream(&self, stream: &StreamId) -> StreamState {
        self.streams.0.get(stream).map_or_else(StreamState::default, |(_, state)| *state)
    }

    fn answer(&self, key: &IdempotencyKey) -> Option<Appended> {
        self.answers.get(key).cloned()
    }
}

impl Writer {
    pub(super) async fn open(
        database: &PgDatabase,
        types: &Arc<Types>,
    ) -> Result<Self, StoreError> {
        let mut connection = database.connect().await?;
        let row = sqlx::query(
            "select pg_backend_pid(), position, (select max(at) from position_marks) \
             from store_head",
        )
        .fetch_one(&mut connection)
        .await;
        let read = |row: PgRow| Ok((row.try_get(0)?, row.try_get::<i64, _>(1)?, row.try_get(2)?));
        let (backend, head, marked) = row.and_then(read).map_err(|error| database.fault(error))?;
        Ok(Self {
            connection,
            backend,
            types: Arc::clone(types),
            streams: Remembered::default(),
            ids: 0..0,
            head: Position::new(head.cast_unsigned()),
            marked: Option::map(marked, Timestamp::from_micros),
            attempt: None,
        })
    }

    pub(super) async fn close(self) {
        // An error here is of a connection that is gone anyway; the log is on disk since its commit.
        let _ = self.connection.close().await;
    }

    pub(super) fn types(&self) -> &Arc<Types> {
        &self.types
    }

    /// Writes a batch. After an error the writer may be used again unless the connection is lost.
    pub(super) async fn append(&mut self, batch: &[Append]) -> sqlx::Result<Written> {
        self.attempt = None;
        match self.fast(batch).await {
            Ok(Some(written)) => Ok(written),
            Ok(None) => self.slow(batch).await,
            Err(error) if fault::is_outrun(&error) => self.slow(batch).await,
            Err(error) => {
                // What is remembered may be what was wrong.
                self.streams.0.clear();
                Err(error)
            }
        }
    }

    /// The fast way; `None` if it is not certain enough.
    async fn fast(&mut self, batch: &[Append]) -> sqlx::Result<Option<Written>> {
        let unknown: Vec<_> = batch
            .iter()
            .filter(|append| !self.streams.0.contains_key(&append.stream) && !is_new(append))
            .map(|append| append.stream.as_str())
            .collect();
        if !unknown.is_empty() {
            self.look_up(unknown).await?;
        }
        let found = Found { streams: &self.streams, answers: BTreeMap::new() };
        let plan = plan(batch.to_vec(), Position::ZERO, &found);
        // What is remembered may be too old for a conflict, and what is refused may be a repeat.
        let doubtful = |error: &AppendError| !matches!(error, AppendError::Invalid { .. });
        if plan.outcomes.iter().any(|one| one.as_ref().is_err_and(doubtful)) {
            return Ok(None);
        }
        if plan.accepted.is_empty() {
            return Ok(Some(Written { outcomes: plan.outcomes, head: self.head }));
        }
        self.write(plan, Position::ZERO).await.map(Some)
    }

    /// The slow way: under the lock.
    async fn slow(&mut self, batch: &[Append]) -> sqlx::Result<Written> {
        self.attempt = None;
        sqlx::query("begin").execute(&mut self.connection).await?;
        let result = self.locked(batch).await;
        match &result {
            Ok(_) => {
                // Until this is answered nobody knows.
                sqlx::query("commit").execute(&mut self.connection).await?;
            }
            Err(error) if fault::is_lost(error) => {}
            Err(_) => {
                sqlx::query("rollback").execute(&mut self.connection).await?;
                self.streams.0.clear();
            }
        }
        result
    }

    async fn locked(&mut self, batch: &[Append]) -> sqlx::Result<Written> {
        sqlx::query("select pg_advisory_xact_lock($1)")
            .bind(LOCK)
            .execute(&mut self.connection)
            .await?;
        // A statement of its own: its snapshot is taken after the lock.
        let head: i64 =
            sqlx::query_scalar("select position from store_head where id = 1 for update")
                .fetch_one(&mut self.connection)
                .await?;
        let head = Position::new(head.cast_unsigned());
        for append in batch {
            self.streams.0.swap_remove(&append.stream);
        }
        self.look_up(batch.iter().map(|append| append.stream.as_str()).collect()).await?;
        let keys = batch.iter().filter_map(|append| append.key);
        let keys: Vec<_> = keys.map(|key| Uuid::from_bytes(*key.as_bytes())).collect();
        let answers = lookup::answers(&mut self.connection, keys).await?;
        let found = Found { streams: &self.streams, answers };
        let plan = plan(batch.to_vec(), head, &found);
        if plan.accepted.is_empty() {
            self.head = head;
            return Ok(Written { outcomes: plan.outcomes, head });
        }
        self.write(plan, head).await
    }

    async fn look_up(&mut self, mut names: Vec<&str>) -> sqlx::Result<()> {
        if self.streams.0.len() > MAX_REMEMBERED_STREAMS {
            self.streams.0.clear();
        }
        names.sort_unstable();
        names.dedup();
        let rows =
            sqlx::query("select name, id, version, status from streams where name = any($1)")
                .bind(names)
                .fetch_all(&mut self.connection)
                .await?;
        for row in &rows {
            let state = StreamState {
                version: Version::new(row.try_get::<i64, _>(2)?.cast_unsigned()),
                deleted: row.try_get::<i16, _>(3)? != 0,
            };
            self.streams.0.insert(lookup::stream_id(row, 0)?, (row.try_get(1)?, state));
        }
        Ok(())
    }

    /// Writes a plan that was made on a head.
    async fn write(&mut self, plan: Plan, base: Position) -> sqlx::Result<Written> {
        let places = self.places(&plan).await?;
        let events = plan.accepted.iter().flat_map(|append| &append.events);
        let types = self.types.intern(&mut self.connection, events).await?;
        let mark = mark(&plan, base, self.marked);
        let first = &plan.accepted[0];
        self.attempt = Some(Attempt {
            first: *first.events[0].id.as_uuid(),
            at: first.appended.first_position.get() - base.get(),
            outcomes: plan.outcomes.clone(),
            base,
        });
        let write = Write { plan: &plan, base, places: &places, types: &types, mark };
        let was = put(&mut self.connection, &write).await?;
        self.marked = mark.map(|mark| mark.at).or(self.marked);
        for (name, change) in &plan.streams {
            let state = StreamState { version: change.version, deleted: change.deleted };
            self.streams.0.insert(name.clone(), (places[name].id, state));
        }
        self.head = was.plus(plan.head.get() - base.get());
        Ok(Written { outcomes: moved(plan.outcomes, base, was), head: self.head })
    }

    /// The number of each changed stream; new ones are given the next.
    async fn places(&mut self, plan: &Plan) -> sqlx::Result<IndexMap<StreamId, Place>> {
        let mut places = IndexMap::with_capacity(plan.streams.len());
        // In the order of names, so that rows are locked in one order.
        let mut names: Vec<_> = plan.streams.keys().collect();
        names.sort_unstable();
        for name in names {
            let place = match self.streams.0.get(name) {
                Some((id, state)) => Place { id: *id, version: state.version },
                None => Place { id: self.next_id().await?, version: Version::ZERO },
            };
            places.insert(name.clone(), place);
        }
        Ok(places)
    }

    async fn next_id(&mut self) -> sqlx::Result<i64> {
        if self.ids.is_empty() {
            let first: i64 = sqlx::query_scalar("select nextval('stream_ids')")
                .fetch_one(&mut self.connection)
                .await?;
            self.ids = first..first + BLOCK;
        }
        Ok(self.ids.next().expect("the block was filled above"))
    }
}

/// Whether the append believes that its stream does not exist.
fn is_new(append: &Append) -> bool {
    match append.expected {
        ExpectedVersion::NoStream => true,
        ExpectedVersion::Exact(version) => version == Version::ZERO,
        _ => false,
    }
}

/// Outcomes that were planned on one head and written on another. Repeats of what was in the log
/// before keep their places.
pub(super) fn moved(
    mut outcomes: Vec<AppendOutcome>,
    planned: Position,
    actual: Position,
) -> Vec<AppendOutcome> {
    if planned == actual {
        return outcomes;
    }
    for appended in outcomes.iter_mut().flatten() {
        for at in [&mut appended.first_position, &mut appended.last_position] {
            if *at > planned {
                *at = actual.plus(at.get() - planned.get());
            }
        }
    }
    outcomes
}
