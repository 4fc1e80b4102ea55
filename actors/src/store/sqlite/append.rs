//! The writing connection, and what one batch does on it.

use std::{collections::BTreeMap, sync::Arc};

use sqlx::{
    Connection, Row as _,
    sqlite::{SqliteConnection, SqliteRow},
};

use super::{
    database::Database,
    statement::{Sized, saturated},
};
use crate::{
    event::{NewEvent, Position, StreamId, Version},
    store::{
        Append, AppendOutcome, Appended, IdempotencyKey, StoreError,
        plan::{Accepted, Known, Plan, StreamChange, plan},
    },
};

/// The numbers of event types that the writer remembers; beyond it, it starts over.
const MAX_REMEMBERED_TYPES: usize = 10_000;

/// A connection that writes batches. After an error or a dropped call, drop it.
#[derive(Debug)]
pub(super) struct Writer {
    connection: SqliteConnection,
    statements: Statements,
    types: TypeIds,
}

#[derive(Debug)]
struct Statements {
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
        Self {
            find_streams: Sized::new(
                "select name, id, version from streams where name in (",
                "?",
                ")",
            ),
            find_answers: Sized::new(
                "select c.key, s.name, c.version, c.position, c.events \
                 from command_results c cross join streams s on s.id = c.stream_id where c.key in (",
                "?",
                ")",
            ),
            find_types: Sized::new(
                "select id, name, schema_version from event_types where name in (",
                "?",
                ")",
            ),
            put_types: Sized::new(
                "insert into event_types (name, schema_version) values",
                "(?,?)",
                "on conflict do nothing",
            ),
            put_streams: Sized::new(
                "insert into streams (id, name, version, first_position, last_position) values",
                "(?,?,?,?,?)",
                "on conflict (id) do update \
                 set version = excluded.version, last_position = excluded.last_position",
            ),
            put_events: Sized::new(
                "insert into events (position, stream_id, version, type_id, event_id, codec, \
                 recorded_at, data, meta) values",
                "(?,?,?,?,?,?,?,?,?)",
                "",
            ),
            put_answers: Sized::new(
                "insert into command_results (key, stream_id, version, position, events, \
                 recorded_at) values",
                "(?,?,?,?,?,?)",
                "",
            ),
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
    streams: BTreeMap<StreamId, (i64, Version)>,
    answers: BTreeMap<IdempotencyKey, Appended>,
}

impl Known for Found {
    fn version(&self, stream: &StreamId) -> Version {
        self.streams.get(stream).map_or(Version::ZERO, |(_, version)| *version)
    }

    fn answer(&self, key: &IdempotencyKey) -> Option<Appended> {
        self.answers.get(key).cloned()
    }
}

impl Writer {
    pub(super) async fn open(database: &Database) -> Result<Self, StoreError> {
        let connection = database.open_writer().await?;
        Ok(Self { connection, statements: Statements::new(), types: TypeIds::default() })
    }

    pub(super) async fn close(self) {
        // An error here is of a connection that is gone anyway; the log is on disk since its commit.
        let _ = self.connection.close().await;
    }

    /// Writes a batch in one transaction. After an error the writer must not be used again.
    pub(super) async fn append(&mut self, batch: Vec<Append>) -> sqlx::Result<Vec<AppendOutcome>> {
        let Self { connection, statements, types } = self;
        // IMMEDIATE: a transaction that reads before it writes would be refused at once, whatever
        // the busy timeout, if another process wrote in between.
        let mut transaction = connection.begin_with("begin immediate").await?;
        let found = statements.find(&mut transaction, &batch).await?;
        let plan = plan(batch, found.head, &found);
        if plan.accepted.is_empty() {
            transaction.rollback().await?;
            return Ok(plan.outcomes);
        }
        statements.intern(&mut transaction, types, &plan.accepted).await?;
        statements.put(&mut transaction, types, &found, &plan).await?;
        // If this fails the numbers of new types may be wrong, but so is the connection: both go.
        transaction.commit().await?;
        Ok(plan.outcomes)
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
        let row = sqlx::query(
            "select position, (select coalesce(max(id), 0) from streams) from store_head",
        )
        .fetch_one(&mut *connection)
        .await?;
        let mut found = Found {
            head: Position::new(row.try_get::<i64, _>(0)?.cast_unsigned()),
            last_stream: row.try_get(1)?,
            ..Found::default()
        };

        let keys: Vec<_> = batch.iter().filter_map(|append| append.key).collect();
        let rows = self
            .find_answers
            .read(connection, &keys, |row, key| {
                row.blob(key.as_bytes());
            })
            .await?;
        for row in &rows {
            let (key, appended) = answer(row)?;
            found.answers.insert(key, appended);
        }

        let mut names: Vec<_> = batch.iter().map(|append| &append.stream).collect();
        names.sort_unstable();
        names.dedup();
        let rows = self
            .find_streams
            .read(connection, &names, |row, name| {
                row.text(name.to_shared());
            })
            .await?;
        for row in &rows {
            let version = Version::new(row.try_get::<i64, _>(2)?.cast_unsigned());
            found.streams.insert(stream_id(row, 0)?, (row.try_get(1)?, version));
        }
        Ok(found)
    }

    /// Gives every event type of the batch its number.
    async fn intern(
        &self,
        connection: &mut SqliteConnection,
        types: &mut TypeIds,
        accepted: &[Accepted],
    ) -> sqlx::Result<()> {
        if types.ids.len() > MAX_REMEMBERED_TYPES {
            types.ids.clear();
        }
        let events = accepted.iter().flat_map(|append| &append.events);
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
        plan: &Plan,
    ) -> sqlx::Result<()> {
        let ids = stream_ids(found, plan);
        let streams: Vec<(i64, &StreamId, &StreamChange)> =
            plan.streams.iter().map(|(name, change)| (ids[name], name, change)).collect();
        self.put_streams
            .write(connection, &streams, |row, (id, name, change)| {
                row.integer(*id)
                    .text(name.to_shared())
                    .counter(change.version.get())
                    .counter(change.first_position.get())
                    .counter(change.last_position.get());
            })
            .await?;

        let mut events = Vec::new();
        for Accepted { appended, events: new, .. } in &plan.accepted {
            let stream = ids[&appended.stream];
            for (offset, event) in (0..).zip(new) {
                let place =
                    (appended.first_position.plus(offset), appended.first_version.plus(offset));
                let type_id = types.get(event).expect("every type of the batch was interned");
                events.push((place, stream, type_id, event));
            }
        }
        self.put_events
            .write(connection, &events, |row, ((position, version), stream, type_id, event)| {
                row.counter(position.get())
                    .integer(*stream)
                    .counter(version.get())
                    .integer(*type_id)
                    .blob(event.id.as_uuid().as_bytes())
                    .integer(i64::from(event.codec.code()))
                    .integer(event.recorded_at.as_micros())
                    .blob(&event.data)
                    .blob(&event.meta);
            })
            .await?;

        let answers: Vec<_> =
            plan.accepted.iter().filter_map(|append| Some((append.key?, append))).collect();
        self.put_answers
            .write(connection, &answers, |row, (key, Accepted { appended, events, .. })| {
                let at = events.last().map_or(0, |event| event.recorded_at.as_micros());
                row.blob(key.as_bytes())
                    .integer(ids[&appended.stream])
                    .counter(appended.last_version.get())
                    .counter(appended.last_position.get())
                    .counter(events.len() as u64)
                    .integer(at);
            })
            .await?;

        sqlx::query("update store_head set position = ?")
            .bind(saturated(plan.head.get()))
            .execute(connection)
            .await?;
        Ok(())
    }
}

/// The number of each changed stream; new streams are numbered on from the last.
fn stream_ids<'a>(found: &Found, plan: &'a Plan) -> BTreeMap<&'a StreamId, i64> {
    let mut last = found.last_stream;
    let mut number = |name: &'a StreamId| match found.streams.get(name) {
        Some((id, _)) => (name, *id),
        None => {
            last += 1;
            (name, last)
        }
    };
    plan.streams.keys().map(&mut number).collect()
}

/// The first answer to a key, from its row.
fn answer(row: &SqliteRow) -> sqlx::Result<(IdempotencyKey, Appended)> {
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

fn stream_id(row: &SqliteRow, column: usize) -> sqlx::Result<StreamId> {
    let name: &str = row.try_get(column)?;
    StreamId::new(name).map_err(|error| sqlx::Error::Decode(Box::new(error)))
}
