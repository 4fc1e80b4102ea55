//! Old partitions out of the database, into files, and back.
//!
//! One archiver works on a database at a time: it holds an advisory lock with the connection on
//! which it does everything, so that what lost its lock cannot go on. Each step can be the last
//! one of a process that is killed, and the next archiver goes on from there:
//!
//! | killed after | what is there | the next archiver |
//! |---|---|---|
//! | files begun | files without a manifest, or under temporary names | writes them anew |
//! | the manifest | files that are good, the partition as it was | takes the files as they are |
//! | the note | the same; nobody reads below the note | the same |
//! | the first phase of the detachment | a partition that waits to be let go | makes sure of the files, finishes |
//! | the second phase | a table of its own | makes sure of the files, drops it |

use futures_util::TryStreamExt;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, Row as _, postgres::PgRow};
use uuid::Uuid;

use super::database::PgDatabase;
use super::lookup::stream_id;
use super::{Partition, PgStore, lookup};
use crate::event::{ContentType, EventId, Position, RecordedEvent, Timestamp, Version};
use crate::store::archive::reader::RangeReader;
use crate::store::archive::writer::{self, RangeWriter};
use crate::store::archive::{
    ArchiveError, ArchiveReport, ArchiveRules, Cold, HeldBack, Manifest, manifests,
};
use crate::store::{EventStore as _, StoreError};

/// The lock of whoever archives or restores. 703315721[12] are those of appends and partitions.
const LOCK: i64 = 7_033_157_213;

/// Events of one query. They are taken as they come, so that none of them wait in memory.
const ROWS: i64 = 20_000;

impl PgStore {
    /// Takes the oldest partitions out of the database, until at most [`keep`](ArchiveRules::keep)
    /// full ones are left; the one that is being filled is never taken. Each is written into files
    /// first, and those read back. It ends where somebody still needs events: see [`HeldBack`].
    ///
    /// # Errors
    ///
    /// Another process archives; files could not be written; the database failed. A partition is
    /// either still there, or in files that were found right, or both.
    ///
    /// # Cancel safety
    ///
    /// As after an error: the next call finishes what was begun.
    pub async fn archive(
        &self,
        cold: &dyn Cold,
        rules: &ArchiveRules,
    ) -> Result<ArchiveReport, ArchiveError> {
        let mut session = Session::begin(&self.database).await?;
        let mut report = ArchiveReport::default();
        for leftover in session.leftovers().await? {
            let written = session.finish(cold, self.store_id(), &leftover).await?;
            report.archived.push(written);
        }
        // The rows of streams are brought forward from the events, which are needed for it.
        self.settle().await?;
        let settled = session.settled().await?;
        let mut full = self.partitions().await?;
        full.retain(|partition| partition.to <= settled);
        let old = full.len().saturating_sub(rules.keep);
        for partition in &full[..old] {
            report.held_back = session.held_back(partition, rules).await?;
            if report.held_back.is_some() {
                break;
            }
            let written = session.write(cold, self.store_id(), partition).await?;
            // It took its time. Somebody may have gone back meanwhile.
            report.held_back = session.held_back(partition, rules).await?;
            if report.held_back.is_some() {
                break;
            }
            session.take_out(partition, &written, State::Attached).await?;
            report.archived.push(written);
        }
        report.up_to = lookup::floor(&self.database).await?;
        session.end().await;
        Ok(report)
    }

    /// Puts archived ranges back into the database, the newest first, down to the one that holds
    /// what comes after `after`. The files stay.
    ///
    /// # Errors
    ///
    /// Another process archives; files are missing, damaged, or not those that were archived: then
    /// nothing was written. The database failed: each range is put back in one transaction.
    ///
    /// # Cancel safety
    ///
    /// A dropped call has put some of them back.
    pub async fn restore(
        &self,
        cold: &dyn Cold,
        after: Position,
    ) -> Result<Vec<Manifest>, ArchiveError> {
        let mut session = Session::begin(&self.database).await?;
        for leftover in session.leftovers().await? {
            session.finish(cold, self.store_id(), &leftover).await?;
        }
        let files = manifests(cold).await?;
        let mut ranges = Vec::new();
        // All of them before the first is put back: what is wrong with one shows in time.
        for Archived { from, to, sha256 } in session.archived_after(after).await? {
            let found = files.iter().find(|one| one.from == from && one.to == to);
            let Some(manifest) = found else {
                return Err(ArchiveError::Missing { place: cold.place(), from, to });
            };
            if manifest.store_id != self.store_id() {
                return Err(ArchiveError::OtherLog {
                    place: cold.place(),
                    found: manifest.store_id,
                    expected: self.store_id(),
                });
            }
            // Files that fit together may still be of another time: of the log before a backup was
            // put back.
            if manifest.sha256 != sha256 {
                return Err(ArchiveError::OtherFile {
                    file: format!("{}/{}", cold.place(), manifest.file),
                    found: manifest.sha256.clone(),
                    noted: sha256,
                });
            }
            writer::verify(cold, manifest).await?;
            ranges.push(manifest.clone());
        }
        for range in &ranges {
            session.put_back(cold, range).await?;
        }
        session.end().await;
        Ok(ranges)
    }

    /// Everything up to here is in files, and no longer in the database.
    ///
    /// # Errors
    ///
    /// The database failed.
    ///
    /// # Cancel safety
    ///
    /// Dropping the call loses nothing.
    pub async fn archived_up_to(&self) -> Result<Position, StoreError> {
        lookup::floor(&self.database).await
    }
}

/// A range that is noted as archived.
struct Archived {
    from: Position,
    to: Position,
    /// Of the file of its events, hexadecimal.
    sha256: String,
}

/// A table that an archiver left behind.
struct Leftover {
    partition: Partition,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// A partition as before: only the note was made. From then on readers are told that it is
    /// archived, so it goes, whoever has begun to need it since.
    Attached,
    /// A partition whose detachment was begun.
    Pending,
    /// A table of its own.
    Detached,
}

/// The connection of an archiver, with its lock.
struct Session<'a> {
    database: &'a PgDatabase,
    connection: PgConnection,
}

impl<'a> Session<'a> {
    async fn begin(database: &'a PgDatabase) -> Result<Self, ArchiveError> {
        let fault = |error| database.fault(error);
        // Of no pool: when it is dropped its session ends, and the lock with it.
        // It reads for minutes, waits for others' transactions, and what it says is written is.
        let mut connection = database.connect_patient().await?;
        let locked: bool = sqlx::query_scalar("select pg_try_advisory_lock($1)")
            .bind(LOCK)
            .fetch_one(&mut connection)
            .await
            .map_err(fault)?;
        if !locked {
            return Err(ArchiveError::Busy { store: database.name().to_owned() });
        }
        Ok(Self { database, connection })
    }

    /// Lets go of the lock at once. Dropped without it, the end of the connection does so.
    async fn end(self) {
        if let Err(error) = self.connection.close().await {
            tracing::debug!(%error, "the archiver's connection");
        }
    }

    fn fault(&self, error: sqlx::Error) -> StoreError {
        self.database.fault(error)
    }

    async fn run(&mut self, sql: String) -> Result<(), StoreError> {
        // Names in it are this module's own: letters, digits and an underscore.
        let done = sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut self.connection).await;
        done.map(drop).map_err(|error| self.fault(error))
    }

    /// Up to where the rows of streams are right.
    async fn settled(&mut self) -> Result<Position, StoreError> {
        let row = sqlx::query("select position from store_head where id = 1")
            .fetch_one(&mut self.connection)
            .await;
        row.and_then(|row| position(&row, 0)).map_err(|error| self.fault(error))
    }

    /// Tables of ranges that are noted as archived, and are still there.
    async fn leftovers(&mut self) -> Result<Vec<Leftover>, StoreError> {
        let rows = sqlx::query(
            "select c.relname::text, a.from_position, a.to_position, i.inhdetachpending from pg_class c join pg_namespace n on n.oid = c.relnamespace \
             join archives a on c.relname = 'events_p' || lpad(a.from_position::text, 16, '0') \
             left join pg_inherits i on i.inhrelid = c.oid \
             where n.nspname = 'ms_framework' and c.relkind = 'r' order by a.from_position",
        )
        .fetch_all(&mut self.connection)
        .await
        .map_err(|error| self.fault(error))?;
        let read = |row: &PgRow| {
            let partition = Partition {
                table: row.try_get(0)?,
                from: position(row, 1)?,
                to: position(row, 2)?,
            };
            let state = match row.try_get::<Option<bool>, _>(3)? {
                Some(false) => State::Attached,
                Some(true) => State::Pending,
                None => State::Detached,
            };
            Ok(Leftover { partition, state })
        };
        rows.iter().map(read).collect::<sqlx::Result<_>>().map_err(|error| self.fault(error))
    }

    /// Finishes what an archiver began that was killed.
    async fn finish(
        &mut self,
        cold: &dyn Cold,
        store_id: Uuid,
        leftover: &Leftover,
    ) -> Result<Manifest, ArchiveError> {
        let partition = &leftover.partition;
        let written = self.write(cold, store_id, partition).await?;
        tracing::info!(from = %partition.from, "an archiver was killed here; it is finished now");
        self.take_out(partition, &written, leftover.state).await?;
        Ok(written)
    }

    /// The files of a partition: those that are there and good, or new ones.
    async fn write(
        &mut self,
        cold: &dyn Cold,
        store_id: Uuid,
        partition: &Partition,
    ) -> Result<Manifest, ArchiveError> {
        let (from, to) = (partition.from, partition.to);
        if let Some(found) = writer::found(cold, store_id, from, to).await? {
            if self.ends_like(cold, &found, partition).await? {
                return Ok(found);
            }
            tracing::warn!(
                file = found.file, %from, %to,
                "the file is of the log before a backup was put back; it is written anew"
            );
        }
        let mut file = RangeWriter::begin(cold, store_id, from, to).await?;
        // The table itself: one that is half detached is not seen through the log any more.
        let query = format!(
            "select e.position, s.name, e.version, e.event_id, t.name, t.schema_version, e.codec, \
             e.recorded_at, e.data, e.meta from ms_framework.{} e \
             join streams s on s.id = e.stream_id join event_types t on t.id = e.type_id \
             where e.position > $1 and e.position <= $1 + {ROWS} order by e.position",
            partition.table
        );
        while file.position() < to {
            let before = file.position();
            let rows = sqlx::query(AssertSqlSafe(query.as_str()));
            let mut rows = rows.bind(before.get().cast_signed()).fetch(&mut self.connection);
            let fault = |error| self.database.fault(error);
            while let Some(row) = rows.try_next().await.map_err(fault)? {
                file.push(event(&row).map_err(fault)?).await?;
            }
            if file.position() == before {
                break;
            }
        }
        file.finish().await
    }

    /// Whether files end with the event with which a partition ends. A log that was put back to a
    /// state before they were written has gone on with other events at the same places, and those
    /// are nowhere else.
    async fn ends_like(
        &mut self,
        cold: &dyn Cold,
        file: &Manifest,
        partition: &Partition,
    ) -> Result<bool, ArchiveError> {
        let mut blocks = RangeReader::new(cold, file);
        let mut last = None;
        while let Some(events) = blocks.next().await? {
            last = events.last().map(|event| *event.id.as_uuid()).or(last);
        }
        let query =
            format!("select event_id from ms_framework.{} where position = $1", partition.table);
        let there: Option<Uuid> = sqlx::query_scalar(AssertSqlSafe(query))
            .bind(partition.to.get().cast_signed())
            .fetch_optional(&mut self.connection)
            .await
            .map_err(|error| self.database.fault(error))?;
        Ok(there.is_some() && there == last)
    }

    async fn note(&mut self, partition: &Partition, file: &Manifest) -> Result<(), StoreError> {
        let noted = sqlx::query(
            "insert into archives (from_position, to_position, file, sha256, events, bytes, \
             archived_at) values ($1, $2, $3, decode($4, 'hex'), $5, $6, \
             (extract(epoch from clock_timestamp()) * 1000000)::bigint) \
             on conflict (from_position) do update \
             set file = excluded.file, sha256 = excluded.sha256, bytes = excluded.bytes",
        )
        .bind(partition.from.get().cast_signed())
        .bind(partition.to.get().cast_signed())
        .bind(&file.file)
        .bind(&file.sha256)
        .bind(file.events().cast_signed())
        .bind(file.bytes.cast_signed())
        .execute(&mut self.connection)
        .await;
        noted.map(drop).map_err(|error| self.fault(error))
    }

    async fn take_out(
        &mut self,
        partition: &Partition,
        file: &Manifest,
        state: State,
    ) -> Result<(), StoreError> {
        let table = &partition.table;
        // Noted first: a reader who meets the hole finds out where it went.
        self.note(partition, file).await?;
        let how = match state {
            State::Attached => Some("concurrently"),
            State::Pending => Some("finalize"),
            State::Detached => None,
        };
        if let Some(how) = how {
            self.run(format!("alter table events detach partition {table} {how}")).await?;
        }
        self.run(format!("drop table ms_framework.{table}")).await?;
        tracing::info!(from = %partition.from, to = %partition.to, file = file.file, "archived");
        Ok(())
    }

    /// Whoever still needs something of a partition.
    async fn held_back(
        &mut self,
        partition: &Partition,
        rules: &ArchiveRules,
    ) -> Result<Option<HeldBack>, StoreError> {
        let queries = [PLACES, PLACES_OF_FOLLOWERS, READ_LATER, READ_LATER_BY_FOLLOWERS];
        for query in &queries[..if rules.mounted { 2 } else { 4 }] {
            let rows = sqlx::query(*query)
                .fetch_all(&mut self.connection)
                .await
                .map_err(|error| self.fault(error))?;
            for row in &rows {
                let read = || Ok((row.try_get::<String, _>(0)?, position(row, 1)?));
                let (by, at) = read().map_err(|error| self.fault(error))?;
                if at < partition.to && !rules.without.contains(&by) {
                    let cure = format!("let it catch up, or leave it out (--without '{by}')");
                    return Ok(Some(HeldBack { by, at, cure }));
                }
            }
        }
        if rules.mounted {
            return Ok(None);
        }
        let query = format!(
            "select s.name, coalesce(n.version, 0) from streams s \
             left join snapshots n on n.stream_id = s.id \
             where s.status = 0 and s.first_position <= $1 and coalesce(n.version, 0) < s.version \
             and exists (select from ms_framework.{} e \
             where e.stream_id = s.id and e.version > coalesce(n.version, 0)) limit 1",
            partition.table
        );
        let found = sqlx::query(AssertSqlSafe(query))
            .bind(partition.to.get().cast_signed())
            .fetch_optional(&mut self.connection)
            .await
            .map_err(|error| self.fault(error))?;
        let Some(row) = found else { return Ok(None) };
        let name: String = row.try_get(0).map_err(|error| self.fault(error))?;
        Ok(Some(HeldBack {
            by: format!("stream {name}"),
            at: partition.from.minus(1),
            cure: "it has no snapshot of what would go; give every node the archive \
                   (--archive-dir) and say so (--mounted)"
                .to_owned(),
        }))
    }

    /// The archived ranges that hold something after a position, the newest first.
    async fn archived_after(&mut self, after: Position) -> Result<Vec<Archived>, StoreError> {
        let rows = sqlx::query(
            "select from_position, to_position, encode(sha256, 'hex') from archives \
             where to_position > $1 order by from_position desc",
        )
        .bind(after.get().cast_signed())
        .fetch_all(&mut self.connection)
        .await
        .map_err(|error| self.fault(error))?;
        let read = |row: &PgRow| {
            let (from, to) = (position(row, 0)?, position(row, 1)?);
            Ok(Archived { from, to, sha256: row.try_get(2)? })
        };
        rows.iter().map(read).collect::<sqlx::Result<_>>().map_err(|error| self.fault(error))
    }

    async fn put_back(&mut self, cold: &dyn Cold, range: &Manifest) -> Result<(), ArchiveError> {
        let database = self.database;
        let fault = |error| database.fault(error);
        let table = format!("ms_framework.events_p{:016}", range.from.get());
        let mut transaction = self.connection.begin().await.map_err(fault)?;
        let make = format!("create table {table} (like ms_framework.events including all)");
        sqlx::raw_sql(AssertSqlSafe(make)).execute(&mut *transaction).await.map_err(fault)?;
        let mut blocks = RangeReader::new(cold, range);
        while let Some(events) = blocks.next().await? {
            insert(&mut transaction, database, &table, &events).await?;
        }
        // Attached and forgotten at once: there is no moment in which it is in neither.
        let attach = format!(
            "alter table ms_framework.events attach partition {table} for values from ({}) to ({}); \
             delete from archives where from_position = {}",
            range.from,
            range.to.next(),
            range.from
        );
        sqlx::raw_sql(AssertSqlSafe(attach)).execute(&mut *transaction).await.map_err(fault)?;
        transaction.commit().await.map_err(fault)?;
        tracing::info!(from = %range.from, to = %range.to, "put back");
        Ok(())
    }
}

/// Read models in use or being made, and what keeps its place as they do: how far each has read.
/// Claims without a place are left out.
const PLACES: &str = "\
    select ltrim(b.projection, '$'), min(c.position) from projection_builds b \
      join checkpoints c on c.name like 'build ' || b.id || '/%' \
     where b.state in (0, 1) and c.owner <> 'moved to followers' \
       and b.projection not in ('$sagas', '$outbox') \
     group by 1 order by 2, 1";

/// Those that follow the log under a name. The claims on kinds of timers follow nothing.
const PLACES_OF_FOLLOWERS: &str = "\
    select name, position from ms_framework.followers \
     where name <> 'outbox' and name not like 'timer.%' and (name <> 'sagas' or position > 0) order by 2, 1";

/// Single events that are read again some day: those that are parked, and those that set deadlines.
const READ_LATER: &str = "\
    select 'parked events of ' || b.projection, min(p.position) - 1 from projection_builds b \
      join parked p on p.build = b.id where b.state in (0, 1) group by 1 \
    union all \
    select 'deadlines of ' || b.projection, min(split_part(d.id, '/', 1)::bigint) - 1 \
      from projection_builds b join documents d on d.build = b.id \
     where b.state = 1 and b.projection like '$timers.%' and d.id ~ '^[0-9]{20}/' group by 1 \
    order by 2, 1";

const READ_LATER_BY_FOLLOWERS: &str = "\
    select 'deadlines of ' || name, min(split_part(id, '/', 1)::bigint) - 1 \
      from ms_framework.follower_notes \
     where name like 'timers.%' and id ~ '^[0-9]{20}/' group by 1 \
    union all \
    select 'deadlines of ' || kind, min(right(name, 20)::bigint) - 1 from ms_framework.timers \
     where kind like 'process.%' and name ~ '/[0-9]{20}$' group by 1 \
    union all \
    select 'parked events of ' || name, min(substr(id, 9)::bigint) - 1 \
      from ms_framework.follower_notes where id ~ '^\\$parked/[0-9]{20}$' group by 1 \
    order by 2, 1";

fn position(row: &PgRow, column: usize) -> sqlx::Result<Position> {
    row.try_get::<i64, _>(column).map(|place| Position::new(place.cast_unsigned()))
}

fn event(row: &PgRow) -> sqlx::Result<RecordedEvent> {
    let codec = row.try_get::<i16, _>(6)?;
    let known = u8::try_from(codec).ok().and_then(ContentType::from_code);
    Ok(RecordedEvent {
        position: position(row, 0)?,
        stream: stream_id(row, 1)?,
        version: Version::new(row.try_get::<i64, _>(2)?.cast_unsigned()),
        id: EventId::new(row.try_get::<Uuid, _>(3)?),
        event_type: row.try_get::<&str, _>(4)?.into(),
        schema_version: u16::try_from(row.try_get::<i32, _>(5)?).unwrap_or(u16::MAX),
        codec: known.ok_or_else(|| {
            sqlx::Error::Decode(format!("content type {codec} is of a newer version").into())
        })?,
        recorded_at: Timestamp::from_micros(row.try_get(7)?),
        data: row.try_get::<Vec<u8>, _>(8)?.into(),
        meta: row.try_get::<Vec<u8>, _>(9)?.into(),
    })
}

/// Events into a table that will be a partition.
async fn insert(
    connection: &mut PgConnection,
    database: &PgDatabase,
    table: &str,
    events: &[RecordedEvent],
) -> Result<(), StoreError> {
    let query = format!(
        "insert into {table} (position, stream_id, version, recorded_at, type_id, codec, event_id, \
         data, meta) select e.position, s.id, e.version, e.recorded_at, t.id, e.codec, e.id, \
         e.data, e.meta from unnest($1::bigint[], $2::text[], $3::bigint[], $4::bigint[], \
         $5::text[], $6::int[], $7::smallint[], $8::uuid[], $9::bytea[], $10::bytea[]) \
         e (position, stream, version, recorded_at, type, schema_version, codec, id, data, meta) \
         join streams s on s.name = e.stream \
         join event_types t on t.name = e.type and t.schema_version = e.schema_version"
    );
    fn all<T>(events: &[RecordedEvent], of: impl Fn(&RecordedEvent) -> T) -> Vec<T> {
        events.iter().map(of).collect()
    }
    let done = sqlx::query(AssertSqlSafe(query))
        .bind(all(events, |one| one.position.get().cast_signed()))
        .bind(all(events, |one| one.stream.as_str().to_owned()))
        .bind(all(events, |one| one.version.get().cast_signed()))
        .bind(all(events, |one| one.recorded_at.as_micros()))
        .bind(all(events, |one| one.event_type.to_string()))
        .bind(all(events, |one| i32::from(one.schema_version)))
        .bind(all(events, |one| i16::from(one.codec.code())))
        .bind(all(events, |one| *one.id.as_uuid()))
        .bind(all(events, |one| one.data.to_vec()))
        .bind(all(events, |one| one.meta.to_vec()))
        .execute(connection)
        .await
        .map_err(|error| database.fault(error))?;
    if done.rows_affected() != events.len() as u64 {
        let detail = format!(
            "of {} archived events only {} are of streams and types that it knows",
            events.len(),
            done.rows_affected()
        );
        return Err(database.corrupt(detail));
    }
    Ok(())
}
