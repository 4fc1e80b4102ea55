//! What the thread that writes remembers of the log, so that a batch is planned without a read.
//!
//! The file has one writer, so what it wrote last is how things stand. Another process may write
//! all the same, an operator's command beside the node: the row of the head tells, since a batch
//! moves it from where this memory believes it to be, or not at all. After any error everything
//! but the keys of what was certainly committed is forgotten.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use rusqlite::{Connection, OptionalExtension};

use super::{keys::Keys, recent::Recent};
use crate::{
    event::{NewEvent, Position, StreamId, Timestamp, Version},
    store::{
        Append, Appended, IdempotencyKey,
        plan::{Known, Plan, StreamState},
    },
};

/// Half of the streams whose state is remembered; one takes some 150 bytes.
const STREAMS: usize = 50_000;

/// The numbers of event types that are remembered; beyond it, it starts over.
const TYPES: usize = 10_000;

#[derive(Debug)]
pub(super) struct Memory {
    /// Where the log ends; `None` while nothing is known.
    head: Option<Position>,
    last_stream: i64,
    streams: Recent<StreamId, Stream>,
    types: Types,
    /// The time of the last mark.
    marked: Option<Timestamp>,
    keys: Keys,
    /// Keys are taken in up to here.
    keys_to: Position,
    /// Answers to keys of the batch at hand.
    answers: BTreeMap<IdempotencyKey, Appended>,
    /// Whose the categories are to which the batch at hand writes from outside.
    owners: BTreeMap<Box<str>, Option<String>>,
}

/// A stream as the log has it. Number 0: it does not exist yet.
#[derive(Debug, Clone, Copy, Default)]
struct Stream {
    id: i64,
    state: StreamState,
}

/// The number of each event type by its name and schema version.
type Types = BTreeMap<Arc<str>, BTreeMap<u16, i64>>;

impl Memory {
    pub(super) fn new(max_keys: usize) -> Self {
        Self {
            head: None,
            last_stream: 0,
            streams: Recent::new(STREAMS),
            types: Types::new(),
            marked: None,
            keys: Keys::new(max_keys),
            keys_to: Position::ZERO,
            answers: BTreeMap::new(),
            owners: BTreeMap::new(),
        }
    }

    /// Believes nothing from now on. The keys stay: a commit that they were taken from is never
    /// undone, and the next look takes in those behind it.
    pub(super) fn forget(&mut self) {
        self.head = None;
        self.types.clear();
    }

    /// The head, if it is known.
    pub(super) const fn head(&self) -> Option<Position> {
        self.head
    }

    /// Reads where the log ends, and forgets what may have changed since it was remembered.
    pub(super) fn refresh(&mut self, connection: &Connection) -> rusqlite::Result<Position> {
        self.forget();
        self.streams.clear();
        let (head, last_stream): (i64, i64) = connection
            .prepare_cached(
                "select position, (select coalesce(max(id), 0) from streams) from store_head",
            )?
            .query_row((), |row| Ok((row.get(0)?, row.get(1)?)))?;
        let marked: Option<i64> = connection
            .prepare_cached("select max(at) from position_marks")?
            .query_row((), |row| row.get(0))?;
        let head = Position::new(head.cast_unsigned());
        if head < self.keys_to {
            // Another file is in its place.
            self.keys.clear();
            self.keys_to = Position::ZERO;
        }
        self.keys.load(connection, self.keys_to)?;
        self.keys_to = head;
        self.last_stream = last_stream;
        self.marked = marked.map(Timestamp::from_micros);
        self.head = Some(head);
        Ok(head)
    }

    /// Looks up what the batch names and is not remembered.
    pub(super) fn learn(
        &mut self,
        connection: &Connection,
        batch: &[Append],
    ) -> rusqlite::Result<()> {
        self.answers.clear();
        self.owners.clear();
        self.streams.reserve(batch.len());
        for append in batch {
            if let Some(key) = append.key
                && let Some(answer) = self.keys.answer(connection, &key)?
            {
                self.answers.insert(key, answer);
            }
            if append.outside && !self.owners.contains_key(append.stream.category()) {
                let category = append.stream.category();
                let owner = find_owner(connection, category)?;
                self.owners.insert(category.into(), owner);
            }
            if !self.streams.touch(&append.stream) {
                let stream = find_stream(connection, &append.stream)?;
                self.streams.insert(append.stream.clone(), stream);
            }
        }
        Ok(())
    }

    /// The first answer to a key, if it is known.
    pub(super) fn answer_to(
        &self,
        connection: &Connection,
        key: &IdempotencyKey,
    ) -> rusqlite::Result<Option<Appended>> {
        self.keys.answer(connection, key)
    }

    /// The number of each changed stream and whether it is new, in the plan's order.
    pub(super) fn numbers(&self, plan: &Plan<'_>) -> Vec<(i64, bool)> {
        let mut last = self.last_stream;
        let mut number = |name: &&StreamId| match self.streams.peek(name) {
            Some(Stream { id, .. }) if *id != 0 => (*id, false),
            _ => {
                last += 1;
                (last, true)
            }
        };
        plan.streams.keys().map(&mut number).collect()
    }

    /// Gives every event type of the plan its number.
    pub(super) fn intern(
        &mut self,
        connection: &Connection,
        plan: &Plan<'_>,
    ) -> rusqlite::Result<()> {
        if self.types.len() > TYPES {
            self.types.clear();
        }
        for event in plan.accepted.iter().flat_map(|append| append.events) {
            if self.type_of(event).is_some() {
                continue;
            }
            let row = (&*event.event_type, event.schema_version);
            connection
                .prepare_cached(
                    "insert into event_types (name, schema_version) values (?, ?) \
                     on conflict do nothing",
                )?
                .execute(row)?;
            let id = connection
                .prepare_cached("select id from event_types where name = ? and schema_version = ?")?
                .query_row(row, |row| row.get(0))?;
            let versions = self.types.entry(Arc::clone(&event.event_type)).or_default();
            versions.insert(event.schema_version, id);
        }
        Ok(())
    }

    pub(super) fn type_of(&self, event: &NewEvent) -> Option<i64> {
        self.types.get(&event.event_type)?.get(&event.schema_version).copied()
    }

    pub(super) const fn marked(&self) -> Option<Timestamp> {
        self.marked
    }

    /// The plan is committed.
    pub(super) fn apply(
        &mut self,
        plan: &Plan<'_>,
        numbers: &[(i64, bool)],
        marked: Option<Timestamp>,
    ) {
        for ((name, change), (id, _)) in plan.streams.iter().zip(numbers) {
            let state = StreamState { version: change.version, deleted: change.deleted };
            self.streams.insert((*name).clone(), Stream { id: *id, state });
            self.last_stream = self.last_stream.max(*id);
        }
        for accepted in &plan.accepted {
            if let Some(key) = &accepted.key {
                self.keys.insert(key, accepted.appended.last_position);
            }
        }
        self.marked = marked.or(self.marked);
        self.keys_to = plan.head;
        self.head = Some(plan.head);
    }

    /// Removes keys that are older than `age`, counted back from the log's last mark or from `now`,
    /// whichever is earlier, at most `limit` rows of them; whether there may be more.
    pub(super) fn expire(
        &mut self,
        connection: &Connection,
        now: i64,
        age: Duration,
        limit: i64,
    ) -> rusqlite::Result<bool> {
        let last: Option<i64> = connection
            .prepare_cached("select max(at) from position_marks")?
            .query_row((), |row| row.get(0))?;
        let age = i64::try_from(age.as_micros()).unwrap_or(i64::MAX);
        let Some(before) = last.map(|last| last.min(now).saturating_sub(age)) else {
            return Ok(false);
        };
        let up_to: Option<i64> = connection
            .prepare_cached(
                "select position from position_marks where at <= ? order by at desc limit 1",
            )?
            .query_row([before], |row| row.get(0))
            .optional()?;
        let Some(up_to) = up_to else { return Ok(false) };
        let removed = connection
            .prepare_cached(
                "delete from request_keys where position in (select position from request_keys \
                 where position <= ?1 order by position limit ?2)",
            )?
            .execute((up_to, limit))?;
        self.keys.forget(Position::new(up_to.cast_unsigned()));
        Ok(i64::try_from(removed).is_ok_and(|removed| removed >= limit))
    }

    #[cfg(test)]
    pub(super) const fn keys(&self) -> usize {
        self.keys.len()
    }
}

impl Known for Memory {
    fn stream(&self, stream: &StreamId) -> StreamState {
        self.streams.peek(stream).map_or_else(StreamState::default, |stream| stream.state)
    }

    fn answer(&self, key: &IdempotencyKey) -> Option<Appended> {
        self.answers.get(key).cloned()
    }

    fn owner(&self, category: &str) -> Option<&str> {
        self.owners.get(category)?.as_deref()
    }
}

fn find_owner(connection: &Connection, category: &str) -> rusqlite::Result<Option<String>> {
    connection
        .prepare_cached("select owner from category_owners where category = ?")?
        .query_row([category], |row| row.get(0))
        .optional()
}

fn find_stream(connection: &Connection, name: &StreamId) -> rusqlite::Result<Stream> {
    let mut statement =
        connection.prepare_cached("select id, version, status from streams where name = ?")?;
    let found = statement.query_row([name.as_str()], |row| {
        let version = Version::new(row.get::<_, i64>(1)?.cast_unsigned());
        let deleted = row.get::<_, i64>(2)? != 0;
        Ok(Stream { id: row.get(0)?, state: StreamState { version, deleted } })
    });
    Ok(found.optional()?.unwrap_or_default())
}
