//! The writing connection, and what one batch does on it.
//!
//! | way | when | round trips |
//! |---|---|---|
//! | from memory | nobody else appends | 1 |
//! | after a look | a stream or type is not remembered, an append would be refused or is a repeat, or somebody was faster | 2 |
//! | under the lock | somebody was faster lately, a type is new, or an older program is there | 4 to 6 |
//!
//! A batch that is written takes the position behind the head that it was planned on: see
//! [`statement`](super::statement). What was planned on something that is no longer so is not
//! written, whichever way it goes; the lock is for getting on while several nodes are busy, as who
//! waits for it is served in turn. The server takes it from a node that holds it and is silent.
//!
//! A conflict fails its own append and no other: refusals are answered by a look and not from
//! memory, and the rest of the batch is written.

use std::ops::Range;
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};
use std::time::Duration;

use sqlx::{Connection as _, PgConnection, Row as _, postgres::PgRow};
use tokio::time::Instant;

use super::{
    database::PgDatabase,
    fault,
    look::{Looked, look},
    lookup,
    memory::{Memory, Remembered},
    recover, settle,
    statement::{LOCK, Place, Write, put},
    types::{self, Type, Types},
};
use crate::{
    event::{NewEvent, Position, StreamId, Timestamp, Version},
    store::{
        Append, AppendError, AppendOutcome, Appended, ExpectedVersion, IdempotencyKey, StoreError,
        plan::{Known, Mark, Plan, StreamState, mark, plan},
    },
};

/// How many numbers of streams one draw of the sequence gives (its increment).
const BLOCK: i64 = 1_000;

/// Tries without the lock.
const UNLOCKED: u32 = 3;

/// Looks under the lock.
const LOCKED: u32 = 3;

/// After somebody else's append, batches take the lock this long.
const CROWDED: Duration = Duration::from_secs(1);

/// A connection that writes batches.
#[derive(Debug)]
pub(super) struct Writer {
    pub(super) connection: PgConnection,
    /// The server's process behind the connection.
    pub(super) backend: Backend,
    types: Arc<Types>,
    pub(super) memory: Memory,
    /// Numbers for streams to be made.
    numbers: Range<i64>,
    marked: Option<Timestamp>,
    /// Others append, too, at least until then.
    crowded: Option<Instant>,
    /// A program that needs the rows of streams to be right is there.
    older: Arc<AtomicBool>,
    /// The statement that is under way, until its outcome is known.
    pub(super) attempt: Option<Attempt>,
    /// A statement of the same batch whose outcome was lost with its connection.
    pub(super) doubt: Option<Attempt>,
}

/// A process of the server. Numbers of processes are used again, so the time belongs to it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Backend {
    pub(super) process: i32,
    /// Microseconds since 1970.
    pub(super) started_at: i64,
}

/// A statement of which the outcome is not known yet.
#[derive(Debug)]
pub(super) struct Attempt {
    /// What it is answered with, if it is written.
    pub(super) outcomes: Vec<AppendOutcome>,
    /// Its events stand behind this head, if they are in the log.
    pub(super) base: Position,
}

/// What became of a batch.
#[derive(Debug)]
pub(super) struct Written {
    pub(super) outcomes: Vec<AppendOutcome>,
    /// The end of the log, as far as this batch knows.
    pub(super) head: Position,
}

/// What a try came to.
enum Try {
    /// There is nothing to be written.
    Done(Written),
    /// It is written, and committed unless it is in a transaction. The answer is in the attempt.
    Put(Change),
    /// What is remembered is not enough, or somebody was faster.
    Look,
    /// It needs the lock.
    Lock,
}

/// What was written, to be remembered once it is committed.
struct Change {
    head: Position,
    streams: Vec<(StreamId, Remembered)>,
    types: Vec<(i32, Type)>,
    mark: Option<Mark>,
}

/// What a plan is made on.
struct Found<'a> {
    memory: &'a Memory,
    looked: Option<&'a Looked>,
}

impl Known for Found<'_> {
    fn stream(&self, stream: &StreamId) -> StreamState {
        self.memory.get(stream).map_or_else(StreamState::default, |found| found.state)
    }

    fn answer(&self, key: &IdempotencyKey) -> Option<Appended> {
        self.looked?.answers.get(key).cloned()
    }

    /// Without a look nobody is known: the statement itself sees to it.
    fn owner(&self, category: &str) -> Option<&str> {
        self.looked?.owners.get(category).map(String::as_str)
    }
}

impl Writer {
    pub(super) async fn open(
        database: &PgDatabase,
        types: &Arc<Types>,
        older: &Arc<AtomicBool>,
    ) -> Result<Self, StoreError> {
        const TEXT: &str = concat!(
            "select pid, (extract(epoch from backend_start) * 1000000)::int8, l.head, marked_at \
               from pg_stat_activity, store_head, (",
            lookup::head_query!(),
            ") l where pid = pg_backend_pid()"
        );
        let fault = |error| database.fault(error);
        let mut connection = database.connect_writer().await?;
        let row = sqlx::query(TEXT).fetch_one(&mut connection).await;
        let read = |row: PgRow| {
            let backend = Backend { process: row.try_get(0)?, started_at: row.try_get(1)? };
            Ok((backend, row.try_get::<i64, _>(2)?, row.try_get(3)?))
        };
        let (backend, head, marked) = row.and_then(read).map_err(fault)?;
        let seen = sqlx::query_scalar(settle::OLDER).fetch_one(&mut connection).await;
        older.store(seen.map_err(fault)?, Ordering::Relaxed);
        let mut memory = Memory::default();
        memory.head = Position::new(head.cast_unsigned());
        Ok(Self {
            connection,
            backend,
            types: Arc::clone(types),
            memory,
            numbers: 0..0,
            marked: Option::map(marked, Timestamp::from_micros),
            crowded: None,
            older: Arc::clone(older),
            attempt: None,
            doubt: None,
        })
    }

    pub(super) async fn close(self) {
        // An error here is of a connection that is gone anyway; the log is on disk since its commit.
        let _ = self.connection.close().await;
    }

    pub(super) fn shared(&self) -> (&Arc<Types>, &Arc<AtomicBool>) {
        (&self.types, &self.older)
    }

    /// Writes a batch. After an error the writer may be used again unless the connection is lost.
    pub(super) async fn append(&mut self, batch: &[Append]) -> sqlx::Result<Written> {
        self.attempt = None;
        let result = self.by_any_way(batch).await;
        match &result {
            Ok(_) => self.doubt = None,
            // What is remembered may be what was wrong, the end of the log included: where it was
            // archived since, there is no partition for what would be written there.
            Err(_) => {
                self.memory.forget();
                self.memory.stale = true;
            }
        }
        result
    }

    async fn by_any_way(&mut self, batch: &[Append]) -> sqlx::Result<Written> {
        let crowded = self.crowded.is_some_and(|until| Instant::now() < until);
        if !crowded && !self.older.load(Ordering::Relaxed) {
            let mut looked = None;
            for _ in 0..UNLOCKED {
                match self.once(batch, looked.as_ref(), false).await? {
                    Try::Done(written) => return Ok(written),
                    Try::Put(change) => return self.committed(change),
                    Try::Look => looked = Some(self.look(batch).await?),
                    Try::Lock => break,
                }
            }
        }
        // Its transaction has begun also when the lock itself is refused.
        let tried = match sqlx::raw_sql(LOCK).execute(&mut self.connection).await {
            Ok(_) => self.locked(batch).await,
            Err(error) => Err(error),
        };
        match tried {
            Ok(tried) => {
                sqlx::query("commit").execute(&mut self.connection).await?;
                match tried {
                    Try::Put(change) => self.committed(change),
                    Try::Done(written) => Ok(written),
                    Try::Look | Try::Lock => Err(sqlx::Error::Protocol(
                        "the log has changed under the lock of appending".to_owned(),
                    )),
                }
            }
            Err(error) => {
                if !fault::is_lost(&error) {
                    sqlx::query("rollback").execute(&mut self.connection).await?;
                }
                Err(error)
            }
        }
    }

    async fn locked(&mut self, batch: &[Append]) -> sqlx::Result<Try> {
        let mut tried = Try::Look;
        for _ in 0..LOCKED {
            let looked = self.look(batch).await?;
            tried = self.once(batch, Some(&looked), true).await?;
            if !matches!(tried, Try::Look) {
                break;
            }
        }
        // Whoever appended before this version reads the rows and not the log.
        if self.older.load(Ordering::Relaxed) {
            while settle::step(&mut self.connection).await? > 0 {}
        }
        Ok(tried)
    }

    /// Plans and writes a batch on what is known.
    async fn once(
        &mut self,
        batch: &[Append],
        looked: Option<&Looked>,
        locked: bool,
    ) -> sqlx::Result<Try> {
        if let Some(written) = self.resolve(batch).await? {
            return Ok(Try::Done(written));
        }
        let unknown =
            |append: &Append| !is_new(append) && self.memory.get(&append.stream).is_none();
        if looked.is_none() && (self.memory.stale || batch.iter().any(unknown)) {
            return Ok(Try::Look);
        }
        let base = self.memory.head;
        let plan = plan(batch, base, &Found { memory: &self.memory, looked });
        // A stream may be further than it is remembered, and what is refused may be a repeat.
        let doubtful = |error: &AppendError| !matches!(error, AppendError::Invalid { .. });
        if looked.is_none() && plan.outcomes.iter().any(|one| one.as_ref().is_err_and(doubtful)) {
            return Ok(Try::Look);
        }
        if plan.accepted.is_empty() {
            return Ok(Try::Done(Written { outcomes: plan.outcomes, head: base }));
        }
        let (types, made) = match self.type_numbers(&plan, looked.is_some(), locked).await? {
            Ok(numbers) => numbers,
            Err(other) => return Ok(other),
        };
        self.put(plan, base, &types, made).await
    }

    async fn put(
        &mut self,
        mut plan: Plan<'_>,
        base: Position,
        types: &[i32],
        made: Vec<(i32, Type)>,
    ) -> sqlx::Result<Try> {
        let places = self.places(&plan).await?;
        let mark = mark(&plan, base, self.marked);
        let outcomes = std::mem::take(&mut plan.outcomes);
        self.attempt = Some(Attempt { outcomes, base });
        let write = Write { plan: &plan, base, places: &places, types, mark };
        if !put(&mut self.connection, &write).await? {
            self.attempt = None;
            return Ok(Try::Look);
        }
        let streams = plan.streams.iter().zip(&places).map(|((name, change), place)| {
            let state = StreamState { version: change.version, deleted: change.deleted };
            (StreamId::clone(name), Remembered { number: place.number, state })
        });
        Ok(Try::Put(Change { head: plan.head, streams: streams.collect(), types: made, mark }))
    }

    /// The numbers of the types of what is to be written, and those of them that are new.
    async fn type_numbers(
        &mut self,
        plan: &Plan<'_>,
        looked: bool,
        locked: bool,
    ) -> sqlx::Result<Result<(Vec<i32>, Vec<(i32, Type)>), Try>> {
        let missing = self.types.known().missing(events(plan));
        let made = match (missing.is_empty(), looked, locked) {
            (true, ..) => Vec::new(),
            (false, false, _) => return Ok(Err(Try::Look)),
            // A new type is written with its first event, or not at all.
            (false, true, false) => return Ok(Err(Try::Lock)),
            (false, true, true) => types::make(&mut self.connection, &missing).await?,
        };
        let mut fresh = types::Known::default();
        for (number, name) in &made {
            fresh.add(name.clone(), *number);
        }
        let known = self.types.known();
        let number = |event| fresh.number(event).or_else(|| known.number(event));
        // So many types at once that some were forgotten meanwhile.
        let numbers: Option<Vec<_>> = events(plan).map(number).collect();
        Ok(numbers.map(|numbers| (numbers, made)).ok_or(Try::Look))
    }

    /// Looks at what the batch needs to know.
    async fn look(&mut self, batch: &[Append]) -> sqlx::Result<Looked> {
        let missing = self.types.known().missing(batch.iter().flat_map(|append| &append.events));
        let looked = look(&mut self.connection, &mut self.memory, batch, &missing).await?;
        self.types.add(looked.types.iter().cloned());
        self.marked = looked.marked.or(self.marked);
        if looked.others {
            self.crowded = Some(Instant::now() + CROWDED);
        }
        Ok(looked)
    }

    /// Whether an attempt whose outcome was lost is in the log. It can be there only when the log
    /// is longer than where it was planned; as long as it is not, what is written now takes its
    /// place, and it can never be carried out.
    async fn resolve(&mut self, batch: &[Append]) -> sqlx::Result<Option<Written>> {
        if self.doubt.as_ref().is_none_or(|doubt| self.memory.head <= doubt.base) {
            return Ok(None);
        }
        let Some(doubt) = self.doubt.take() else { return Ok(None) };
        match recover::is_written(&mut self.connection, &doubt, batch).await {
            Ok(true) => {
                let (outcomes, head) = (doubt.outcomes, self.memory.head);
                Ok(Some(Written { outcomes, head }))
            }
            Ok(false) => Ok(None),
            Err(error) => {
                self.doubt = Some(doubt);
                Err(error)
            }
        }
    }

    /// Takes in what is committed.
    fn committed(&mut self, change: Change) -> sqlx::Result<Written> {
        for (name, stream) in change.streams {
            self.memory.put(name, stream);
        }
        self.memory.head = change.head;
        self.types.add(change.types);
        self.marked = change.mark.map(|mark| mark.at).or(self.marked);
        let attempt = self.attempt.take().expect("it was set before the statement");
        Ok(Written { outcomes: attempt.outcomes, head: change.head })
    }

    /// The number of each changed stream; new ones are given the next.
    async fn places(&mut self, plan: &Plan<'_>) -> sqlx::Result<Vec<Place>> {
        let mut places = Vec::with_capacity(plan.streams.len());
        for name in plan.streams.keys() {
            places.push(match self.memory.get(name) {
                Some(found) => Place { number: found.number, version: found.state.version },
                None => Place { number: self.next_number().await?, version: Version::ZERO },
            });
        }
        Ok(places)
    }

    async fn next_number(&mut self) -> sqlx::Result<i64> {
        if self.numbers.is_empty() {
            let first: i64 = sqlx::query_scalar("select nextval('stream_ids')")
                .fetch_one(&mut self.connection)
                .await?;
            self.numbers = first..first + BLOCK;
        }
        Ok(self.numbers.next().expect("the block was filled above"))
    }
}

fn events<'a>(plan: &'a Plan<'_>) -> impl Iterator<Item = &'a NewEvent> {
    plan.accepted.iter().flat_map(|append| append.events)
}

/// Whether the append believes that its stream does not exist.
fn is_new(append: &Append) -> bool {
    match append.expected {
        ExpectedVersion::NoStream => true,
        ExpectedVersion::Exact(version) => version == Version::ZERO,
        _ => false,
    }
}
