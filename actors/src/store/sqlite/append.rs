//! What one batch does, on the thread that writes.

use rusqlite::Connection;

use super::{keys, memory::Memory, options::Durability, statement::saturated, writer::Writer};
use crate::{
    event::Position,
    store::{
        Append, AppendOutcome,
        plan::{Mark, Plan, mark, plan},
    },
};

/// The outcomes of a batch, and the head of the log afterwards.
#[derive(Debug)]
pub(super) struct Written {
    pub(super) outcomes: Vec<AppendOutcome>,
    pub(super) head: Position,
}

impl Writer {
    /// Writes a batch in one transaction.
    pub(super) fn append(&mut self, batch: &[Append]) -> rusqlite::Result<Written> {
        let mut decided = None;
        let written = self.transact(Durability::Full, |connection, memory| {
            let before = match memory.head() {
                Some(head) => head,
                None => memory.refresh(connection)?,
            };
            let plan = decide(connection, memory, batch, before)?;
            let before = memory.head().unwrap_or(before);
            let writes = !plan.accepted.is_empty();
            let done = if writes { Some(put(connection, memory, &plan, before)?) } else { None };
            decided = Some(plan);
            Ok(done)
        })?;
        let plan = decided.expect("a transaction that ended well has decided");
        if let Some((numbers, marked)) = written {
            self.memory.apply(&plan, &numbers, marked);
        }
        Ok(Written { outcomes: plan.outcomes, head: plan.head })
    }
}

/// Decides the batch, and makes sure that nobody has written behind the memory it is decided from:
/// the head is moved from where it is believed to be, or not at all.
fn decide<'a>(
    connection: &Connection,
    memory: &mut Memory,
    batch: &'a [Append],
    head: Position,
) -> rusqlite::Result<Plan<'a>> {
    memory.learn(connection, batch)?;
    let plan = plan(batch, head, memory);
    let as_believed = if plan.accepted.is_empty() {
        let mut look = connection.prepare_cached("select position from store_head")?;
        look.query_row((), |row| row.get::<_, i64>(0))? == saturated(head.get())
    } else {
        let mut step =
            connection.prepare_cached("update store_head set position = ? where position = ?")?;
        step.execute((saturated(plan.head.get()), saturated(head.get())))? == 1
    };
    if as_believed {
        return Ok(plan);
    }
    // Inside the transaction nobody writes, so the second time it holds.
    let head = memory.refresh(connection)?;
    decide(connection, memory, batch, head)
}

type Numbers = Vec<(i64, bool)>;

/// Writes the rows of a plan.
///
/// One row a statement: they stay prepared, and here is no way to a server that larger ones would
/// save. Statements of 20 and 100 rows were measured, and are slower.
fn put(
    connection: &Connection,
    memory: &mut Memory,
    plan: &Plan<'_>,
    before: Position,
) -> rusqlite::Result<(Numbers, Option<crate::event::Timestamp>)> {
    memory.intern(connection, plan)?;
    let numbers = memory.numbers(plan);
    let mut put_stream = connection.prepare_cached(
        "insert into streams (id, name, category, version, status, first_position, last_position) \
         values (?, ?, ?, ?, ?, ?, ?)",
    )?;
    let mut move_stream = connection.prepare_cached(
        "update streams set version = ?, status = ?, last_position = ? where id = ?",
    )?;
    for ((name, change), (id, new)) in plan.streams.iter().zip(&numbers) {
        let version = saturated(change.version.get());
        let last = saturated(change.last_position.get());
        if *new {
            let first = saturated(change.first_position.get());
            let category = name.category();
            put_stream.execute((
                id,
                name.as_str(),
                category,
                version,
                change.deleted,
                first,
                last,
            ))?;
        } else {
            move_stream.execute((version, change.deleted, last, id))?;
        }
    }
    let mut put_event = connection.prepare_cached(
        "insert into events (position, stream_id, version, type_id, event_id, codec, recorded_at, \
         data, meta) values (?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )?;
    let mut put_key = None;
    for accepted in &plan.accepted {
        let appended = &accepted.appended;
        let at = plan.streams.get_index_of(&appended.stream).expect("it was changed");
        let (stream, _) = numbers[at];
        for (offset, event) in (0..).zip(accepted.events) {
            put_event.execute((
                saturated(appended.first_position.plus(offset).get()),
                stream,
                saturated(appended.first_version.plus(offset).get()),
                memory.type_of(event).expect("every type of the plan was interned"),
                event.id.as_uuid().as_bytes(),
                event.codec.code(),
                event.recorded_at.as_micros(),
                &event.data[..],
                &event.meta[..],
            ))?;
        }
        if let Some(key) = &accepted.key {
            let put_key = match &mut put_key {
                Some(prepared) => prepared,
                None => put_key.insert(connection.prepare_cached(keys::PUT)?),
            };
            let last = saturated(appended.last_position.get());
            put_key.execute((last, key.as_bytes(), saturated(accepted.events.len() as u64)))?;
        }
    }
    let Some(Mark { at, position }) = mark(plan, before, memory.marked()) else {
        return Ok((numbers, None));
    };
    connection
        .prepare_cached("insert or ignore into position_marks (at, position) values (?, ?)")?
        .execute((at.as_micros(), saturated(position.get())))?;
    Ok((numbers, Some(at)))
}
