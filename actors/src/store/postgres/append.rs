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
    types::{Known as KnownTypes, Types},
};
use crate::{
    event::{Position, StreamId, Timestamp, Version},
    store::{
        Append, AppendError, AppendOutcome, Appended, ExpectedVersion, IdempotencyKey, StoreError,
        plan::{Known, Mark, Plan, StreamState, mark, plan},
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
    pub(super) backend: Backend,
    types: Arc<Types>,
    streams: Remembered,
    /// Numbers for streams to be made.
    ids: Range<i64>,
    /// The end of the log, as far as this writer knows: never beyond what is committed.
    head: Position,
    marked: Option<Timestamp>,
    /// What the statement that is under way would be answered with.
    pub(super) attempt: Option<Attempt>,
}

/// Streams by name: number and state.
#[derive(Debug, Default)]
struct Remembered(IndexMap<StreamId, (i64, StreamState)>);

/// A process of the server. Numbers of processes are used again, so the time belongs to it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Backend {
    pub(super) process: i32,
    /// Microseconds since 1970.
    pub(super) started_at: i64,
}

/// A statement of which the outcome is not known yet.
#[derive(Debug, Clone)]
pub(super) struct Attempt {
    /// What it would be answered with, as it was planned.
    pub(super) outcomes: Vec<AppendOutcome>,
    /// The head that the outcomes were planned on.
    pub(super) base: Position,
    /// What it writes is beyond this.
    pub(super) after: Position,
}

/// What was written, to be remembered once it is committed.
struct Change {
    streams: Vec<(StreamId, i64, StreamState)>,
    types: Arc<KnownTypes>,
    mark: Option<Mark>,
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
        let mut connection = database.connect_writer().await?;
        let row = sqlx::query(
            "select pid, (extract(epoch from backend_start) * 1000000)::int8, position, marked_at \
             from store_head, pg_stat_activity where pid = pg_backend_pid()",
        )
        .fetch_one(&mut connection)
        .await;
        let read = |row: PgRow| {
            let backend = Backend { process: row.try_get(0)?, started_at: row.try_get(1)? };
            Ok((backend, row.try_get::<i64, _>(2)?, row.try_get(3)?))
        };
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
        let result = match self.fast(batch).await {
            Ok(None) => self.slow(batch).await,
            Err(error) if fault::is_outrun(&error) => self.slow(batch).await,
            Ok(Some(written)) => Ok(written),
            Err(error) => Err(error),
        };
        if result.is_err() {
            // What is remembered may be what was wrong.
            self.streams.0.clear();
        }
        result
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
        let plan = plan(batch, Position::ZERO, &found);
        // What is remembered may be too old for a conflict, and what is refused may be a repeat.
        let doubtful = |error: &AppendError| !matches!(error, AppendError::Invalid { .. });
        if plan.outcomes.iter().any(|one| one.as_ref().is_err_and(doubtful)) {
            return Ok(None);
        }
        if plan.accepted.is_empty() {
            return Ok(Some(Written { outcomes: plan.outcomes, head: self.head }));
        }
        let types = self.types.known();
        let mut events = plan.accepted.iter().flat_map(|append| append.events);
        if events.any(|event| types.id(event).is_none()) {
            // A new type is written with its first event, or not at all.
            return Ok(None);
        }
        let (written, change) = self.write(plan, Position::ZERO, types).await?;
        self.remember(change, written.head);
        Ok(Some(written))
    }

    /// The slow way: under the lock.
    async fn slow(&mut self, batch: &[Append]) -> sqlx::Result<Written> {
        self.attempt = None;
        sqlx::query("begin").execute(&mut self.connection).await?;
        match self.locked(batch).await {
            Ok((written, change)) => {
                // Until this is answered nobody knows, and nothing is remembered.
                sqlx::query("commit").execute(&mut self.connection).await?;
                self.attempt = None;
                match change {
                    Some(change) => self.remember(change, written.head),
                    None => self.head = written.head,
                }
                Ok(written)
            }
            Err(error) => {
                if !fault::is_lost(&error) {
                    sqlx::query("rollback").execute(&mut self.connection).await?;
                }
                Err(error)
            }
        }
    }

    async fn locked(&mut self, batch: &[Append]) -> sqlx::Result<(Written, Option<Change>)> {
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
        let plan = plan(batch, head, &found);
        if plan.accepted.is_empty() {
            return Ok((Written { outcomes: plan.outcomes, head }, None));
        }
        let events = plan.accepted.iter().flat_map(|append| append.events);
        let types = self.types.intern(&mut self.connection, events).await?;
        let (written, change) = self.write(plan, head, types).await?;
        Ok((written, Some(change)))
    }

    async fn look_up(&mut self, mut names: Vec<&str>) -> sqlx::Result<()> {
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

    /// Writes a plan that was made on a head. Nothing of it is remembered yet.
    async fn write(
        &mut self,
        plan: Plan<'_>,
        base: Position,
        types: Arc<KnownTypes>,
    ) -> sqlx::Result<(Written, Change)> {
        let places = self.places(&plan).await?;
        let mark = mark(&plan, base, self.marked);
        self.attempt = Some(Attempt { outcomes: plan.outcomes.clone(), base, after: self.head });
        let write = Write { plan: &plan, base, places: &places, types: &types, mark };
        let was = put(&mut self.connection, &write).await?;
        let head = was.plus(plan.head.get() - base.get());
        let streams = plan.streams.into_iter().map(|(name, change)| {
            let id = places[name].id;
            (name.clone(), id, StreamState { version: change.version, deleted: change.deleted })
        });
        let change = Change { streams: streams.collect(), types, mark };
        Ok((Written { outcomes: moved(plan.outcomes, base, was), head }, change))
    }

    /// Takes in what is committed.
    fn remember(&mut self, change: Change, head: Position) {
        if self.streams.0.len() + change.streams.len() > MAX_REMEMBERED_STREAMS {
            self.streams.0.clear();
        }
        for (name, id, state) in change.streams {
            self.streams.0.insert(name, (id, state));
        }
        self.types.install(change.types);
        self.marked = change.mark.map(|mark| mark.at).or(self.marked);
        self.head = head;
    }

    /// The number of each changed stream; new ones are given the next.
    async fn places(&mut self, plan: &Plan<'_>) -> sqlx::Result<IndexMap<StreamId, Place>> {
        let mut places = IndexMap::with_capacity(plan.streams.len());
        // In the order of names, so that rows are locked in one order.
        let mut names: Vec<_> = plan.streams.keys().collect();
        names.sort_unstable();
        for name in names {
            let place = match self.streams.0.get(*name) {
                Some((id, state)) => Place { id: *id, version: state.version },
                None => Place { id: self.next_id().await?, version: Version::ZERO },
            };
            places.insert((*name).clone(), place);
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
