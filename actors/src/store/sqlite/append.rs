//! The writing connection, and what one batch does on it.

use std::{collections::BTreeMap, sync::Arc};

use sqlx::{
    Connection, Row as _,
    sqlite::{SqliteConnection, SqliteRow},
};

use super::{
    database::Database,
    statement::{Row, Sized, run, saturated},
};
use crate::{
    event::{NewEvent, Position, StreamId, Timestamp, Version},
    store::{
        Append, AppendOutcome, Appended, IdempotencyKey, StoreError,
        plan::{Accepted, Known, Mark, Plan, StreamChange, StreamState, mark, plan},
    },
};

/// The numbers of event types that the writer remembers; beyond it, it starts over.
const MAX_REMEMBERED_TYPES: usize = 10_000;

const FIND_HEAD: &str =
    "select position, (select coalesce(max(id), 0) from streams) from store_head";
const PUT_HEAD: &str = "update store_head set position = ?";
const PUT_MARK: &str = "insert or ignore into position_marks (at, position) values (?, ?)";

/// A connection that writes batches. After an error or a dropped call, drop it.
#[derive(Debug)]
pub(super) struct Writer {
    connection: SqliteConnection,
    statements: Statements,
    types: TypeIds,
    /// The time of the last mark that is known to be written.
    marked: Option<Timestamp>,
}

#[derive(Debug)]
struct Statements {
    /// All that a batch of one append has to know, in one round trip to the connection's thread.
    find_one: Arc<str>,
    /// All that one event without and with a key writes, in one round trip.
    put_one: [Arc<str>; 2],
    find_streams: Sized,
    find_answers: Sized,
    find_types: Sized,
    put_types: Sized,
    put_streams: Sized,
    put_events: Sized,
    put_answers: Sized,
}

impl Statements {
    fn new() -> Self {
        let find_streams =
            Sized::new("select name, id, version, status from streams where name in (", "?", ")");
        let find_answers = Sized::new(
            "select c.key, s.name, c.version, c.position, c.events \
                 from command_results c cross join streams s on s.id = c.stream_id where c.key in (",
            "?",
            ")",
        );
        let find_types = Sized::new(
            "select id, name, schema_version from event_types where name in (",
            "?",
            ")",
        );
        let put_types = Sized::new(
            "insert into event_types (name, schema_version) values",
            "(?,?)",
            "on conflict do nothing",
        );
        let put_streams = Sized::new(
            "insert into streams (id, name, category, version, status, first_position, \
                 last_position) values",
            "(?,?,?,?,?,?,?)",
            "on conflict (id) do update set version = excluded.version, \
                 status = excluded.status, last_position = excluded.last_position",
        );
        let put_events = Sized::new(
            "insert into events (position, stream_id, version, type_id, event_id, codec, \
                 recorded_at, data, meta) values",
            "(?,?,?,?,?,?,?,?,?)",
            "",
        );
        let put_answers = Sized::new(
            "insert into command_results (key, stream_id, version, position, events, \
                 recorded_at) values",
            "(?,?,?,?,?,?)",
            "",
        );
        let put_one = [put_streams.one(), put_events.one(), PUT_HEAD].join(";");
        let put_keyed = [&put_one, put_answers.one()].join(";");
        Self {
            find_one: [FIND_HEAD, find_answers.one(), find_streams.one()].join(";").into(),
            put_one: [put_one.into(), put_keyed.into()],
            find_streams,
            find_answers,
            find_types,
            put_types,
            put_streams,
            put_events,
            put_answers,
        }
    }
}

/// The number of each event type by its name and schema version.
#[derive(Debug, Default)]
struct TypeIds {
    ids: BTreeMap<Arc<str>, BTreeMap<u16, i64>>,
}

impl TypeIds {
    fn get(&self, event: &NewEvent) -> Option<i64> {
        self.ids.get(&event.event_type)?.get(&event.schema_version).copied()
    }

    fn insert(&mut self, name: Arc<str>, schema_version: u16, id: i64) {
        self.ids.entry(name).or_default().insert(schema_version, id);
    }
}

/// What the database says about the streams and keys of a batch.
#[derive(Debug, Default)]
struct Found {
    head: Position,
    last_stream: i64,
    streams: BTreeMap<StreamId, (i64, StreamState)>,
    answers: BTreeMap<IdempotencyKey, Appended>,
}

impl Found {
    /// Adds rows of the head, of answers and of streams, told apart by their number of columns.
    fn add(&mut self, rows: &[SqliteRow]) -> sqlx::Result<()> {
        for row in rows {
            match row.len() {
                2 => {
                    self.head = Position::new(row.try_get::<i64, _>(0)?.cast_unsigned());
                    self.last_stream = row.try_get(1)?;
                }
                4 => {
                    let version = Version::new(row.try_get::<i64, _>(2)?.cast_unsigned());
                    let state = StreamState { version, deleted: row.try_get::<i64, _>(3)? != 0 };
                    self.streams.insert(stream_id(row, 0)?, (row.try_get(1)?, state));
                }
                _ => {
                    let (key, appended) = answer(row)?;
                    self.answers.insert(key, appended);
                }
            }
        }
        Ok(())
    }
}

impl Known for Found {
    fn stream(&self, stream: &StreamId) -> StreamState {
        self.streams.get(stream).map_or_else(StreamState::default, |(_, state)| *state)
    }

    fn answer(&self, key: &IdempotencyKey) -> Option<Appended> {
        self.answers.get(key).cloned()
    }
}

/// What came of a batch.
#[derive(Debug)]
pub(super) struct Written {
    pub(super) outcomes: Vec<AppendOutcome>,
    /// The end of the log.
    pub(super) head: Position,
}

impl Writer {
    pub(super) async fn open(database: &Database) -> Result<Self, StoreError> {
        let mut connection = database.open_writer().await?;
        let marked: Option<i64> = sqlx::query_scalar("select max(at) from position_marks")
            .fetch_one(&mut connection)
            .await
            .map_err(|error| database.fault(error))?;
        Ok(Self {
            connection,
            statements: Statements::new(),
            types: TypeIds::default(),
            marked: marked.map(Timestamp::from_micros),
        })
    }

    pub(super) async fn close(self) {
        // An error here is of a connection that is gone anyway; the log is on disk since its commit.
        let _ = self.connection.close().await;
    }

    /// Writes a batch in one transaction. After an error the writer must not be used again.
    pub(super) async fn append(&mut self, batch: &[Append]) -> sqlx::Result<Written> {
        let Self { connection, statements, types, marked } = self;
        // IMMEDIATE: a transaction that reads before it writes would be refused at once, whatever
        // the busy timeout, if another process wrote in between.
        let mut transaction = connection.begin_with("begin immediate").await?;
        let found = statements.find(&mut transaction, batch).await?;
        let plan = plan(batch, found.head, &found);
        if plan.accepted.is_empty() {
            transaction.rollback().await?;
            return Ok(Written { outcomes: plan.outcomes, head: found.head });
        }
        statements.intern(&mut transaction, types, &plan.accepted).await?;
        statements.put(&mut transaction, types, &found, &plan).await?;
        if let Some(Mark { at, position }) = mark(&plan, found.head, *marked) {
            sqlx::query(PUT_MARK)
                .bind(at.as_micros())
                .bind(saturated(position.get()))
                .execute(&mut *transaction)
                .await?;
            *marked = Some(at);
        }
        // If this fails the numbers of new types and the last mark may be wrong, but so is the
        // connection: all go.
        transaction.commit().await?;
        Ok(Written { outcomes: plan.outcomes, head: plan.head })
    }

    #[cfg(test)]
    pub(super) const fn connection(&mut self) -> &mut SqliteConnection {
        &mut self.connection
    }
}

impl Statements {
    /// Reads what the plan has to know, inside the transaction.
    async fn find(
        &self,
        connection: &mut SqliteConnection,
        batch: &[Append],
    ) -> sqlx::Result<Found> {
        let mut found = Found::default();
        if let [append] = batch {
            let mut row = Row::with_capacity(2);
            match &append.key {
                Some(key) => row.blob(key.as_bytes()),
                None => row.null(),
            };
            row.text(append.stream.to_shared());
            found.add(&run(connection, &self.find_one, row).await?)?;
            return Ok(found);
        }
        found.add(&[sqlx::query(FIND_HEAD).fetch_one(&mut *connection).await?])?;
        let keys: Vec<_> = batch.iter().filter_map(|append| append.key).collect();
        let bind = |row: &mut Row, key: &IdempotencyKey| {
            row.blob(key.as_bytes());
        };
        found.add(&self.find_answers.read(connection, &keys, bind).await?)?;
        let mut names: Vec<_> = batch.iter().map(|append| &append.stream).collect();
        names.sort_unstable();
        names.dedup();
        let bind = |row: &mut Row, name: &&StreamId| {
            row.text(name.to_shared());
        };
        found.add(&self.find_streams.read(connection, &names, bind).await?)?;
        Ok(found)
    }

    /// Gives every event type of the batch its number.
    async fn intern(
        &self,
        connection: &mut SqliteConnection,
        types: &mut TypeIds,
        accepted: &[Accepted<'_>],
    ) -> sqlx::Result<()> {
        if types.ids.len() > MAX_REMEMBERED_TYPES {
            types.ids.clear();
        }
        let events = accepted.iter().flat_map(|append| append.events);
        let mut missing: Vec<_> = events
            .filter(|event| types.get(event).is_none())
            .map(|event| (&event.event_type, event.schema_version))
            .collect();
        if missing.is_empty() {
            return Ok(());
        }
        missing.sort_unstable();
        missing.dedup();
        self.put_types
            .write(connection, &missing, |row, (name, version)| {
                row.text(Arc::clone(name)).integer(i64::from(*version));
            })
            .await?;
        missing.dedup_by_key(|(name, _)| *name);
        let rows = self
            .find_types
            .read(connection, &missing, |row, (name, _)| {
                row.text(Arc::clone(name));
            })
            .await?;
        for row in &rows {
            types.insert(row.try_get::<String, _>(1)?.into(), row.try_get(2)?, row.try_get(0)?);
        }
        Ok(())
    }

    /// Writes the plan.
    async fn put(
        &self,
        connection: &mut SqliteConnection,
        types: &TypeIds,
        found: &Found,
        plan: &Plan<'_>,
    ) -> sqlx::Result<()> {
        let ids = stream_ids(found, plan);
        let streams: Vec<_> = plan
            .streams
            .iter()
            .map(|(name, change)| StreamRow { id: ids[name], name, change })
            .collect();
        let mut events = Vec::new();
        let mut answers = Vec::new();
        for Accepted { appended, events: new, key } in &plan.accepted {
            let stream = ids[&appended.stream];
            for (offset, event) in (0..).zip(*new) {
                let position = appended.first_position.plus(offset);
                let version = appended.first_version.plus(offset);
                let type_id = types.get(event).expect("every type of the batch was interned");
                events.push(EventRow { position, stream, version, type_id, event });
            }
            if let Some(key) = key {
                answers.push(AnswerRow { key, stream, appended, events: new });
            }
        }

        if let ([stream], [event], [] | [_]) = (&*streams, &*events, &*answers) {
            let mut row = Row::with_capacity(23);
            stream.bind(&mut row);
            event.bind(&mut row);
            row.counter(plan.head.get());
            answers.iter().for_each(|answer| answer.bind(&mut row));
            run(connection, &self.put_one[answers.len()], row).await?;
            return Ok(());
        }
        self.put_streams.write(connection, &streams, |row, stream| stream.bind(row)).await?;
        self.put_events.write(connection, &events, |row, event| event.bind(row)).await?;
        self.put_answers.write(connection, &answers, |row, answer| answer.bind(row)).await?;
        let head = saturated(plan.head.get());
        sqlx::query(PUT_HEAD).bind(head).execute(connection).await?;
        Ok(())
    }
}

struct StreamRow<'a> {
    id: i64,
    name: &'a StreamId,
    change: &'a StreamChange,
}

impl StreamRow<'_> {
    fn bind(&self, row: &mut Row) {
        row.integer(self.id)
            .text(self.name.to_shared())
            .text(self.name.category().into())
            .counter(self.change.version.get())
            .integer(i64::from(self.change.deleted))
            .counter(self.change.first_position.get())
            .counter(self.change.last_position.get());
    }
}

struct EventRow<'a> {
    position: Position,
    stream: i64,
    version: Version,
    type_id: i64,
    event: &'a NewEvent,
}

impl EventRow<'_> {
    fn bind(&self, row: &mut Row) {
        row.counter(self.position.get())
            .integer(self.stream)
            .counter(self.version.get())
            .integer(self.type_id)
            .blob(self.event.id.as_uuid().as_bytes())
            .integer(i64::from(self.event.codec.code()))
            .integer(self.event.recorded_at.as_micros())
            .blob(&self.event.data)
            .blob(&self.event.meta);
    }
}

struct AnswerRow<'a> {
    key: &'a IdempotencyKey,
    stream: i64,
    appended: &'a Appended,
    events: &'a [NewEvent],
}

impl AnswerRow<'_> {
    fn bind(&self, row: &mut Row) {
        row.blob(self.key.as_bytes())
            .integer(self.stream)
            .counter(self.appended.last_version.get())
            .counter(self.appended.last_position.get())
            .counter(self.events.len() as u64)
            .integer(self.events.last().map_or(0, |event| event.recorded_at.as_micros()));
    }
}

/// The number of each changed stream; new streams are numbered on from the last.
fn stream_ids<'a>(found: &Found, plan: &'a Plan<'a>) -> BTreeMap<&'a StreamId, i64> {
    let mut last = found.last_stream;
    let mut number = |name: &'a StreamId| match found.streams.get(name) {
        Some((id, _)) => (name, *id),
        None => {
            last += 1;
            (name, last)
        }
    };
    plan.streams.keys().copied().map(&mut number).collect()
}

/// The first answer to a key, from its row.
pub(super) fn answer(row: &SqliteRow) -> sqlx::Result<(IdempotencyKey, Appended)> {
    let key: &[u8] = row.try_get(0)?;
    let key = key.try_into().map_err(|error| sqlx::Error::Decode(Box::new(error)))?;
    let last_version = Version::new(row.try_get::<i64, _>(2)?.cast_unsigned());
    let last_position = Position::new(row.try_get::<i64, _>(3)?.cast_unsigned());
    let before = row.try_get::<i64, _>(4)?.cast_unsigned().saturating_sub(1);
    let appended = Appended {
        stream: stream_id(row, 1)?,
        first_version: last_version.minus(before),
        last_version,
        first_position: last_position.minus(before),
        last_position,
        duplicate: false,
    };
    Ok((IdempotencyKey::new(key), appended))
}

pub(super) fn stream_id(row: &SqliteRow, column: usize) -> sqlx::Result<StreamId> {
    let name: &str = row.try_get(column)?;
    StreamId::new(name).map_err(|error| sqlx::Error::Decode(Box::new(error)))
}
