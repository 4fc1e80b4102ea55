//! Partitions of the log: made ahead, and taken out once their events are in a file.

use std::path::Path;

use sqlx::{AssertSqlSafe, Row as _};

use super::{PgStore, lookup};
use crate::{
    event::Position,
    store::{
        StoreError,
        archive::{self, ArchiveError, Manifest},
    },
};

/// How many empty partitions there are kept.
const PARTITIONS_AHEAD: i64 = 2;

/// A partition of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    /// The table.
    pub table: String,
    /// The first position that it takes.
    pub from: Position,
    /// The last position that it takes.
    pub to: Position,
}

impl PgStore {
    /// Makes the partitions after the one that the log is in, so that an append never meets a
    /// missing one. Says so in the log of the program when none was left.
    ///
    /// # Errors
    ///
    /// The database failed.
    ///
    /// # Cancel safety
    ///
    /// A dropped call made them or not.
    pub async fn make_partitions_ahead(&self) -> Result<(), StoreError> {
        let pool = self.database.pool()?;
        let fault = |error| self.database.fault(error);
        let ahead: i64 =
            sqlx::query_scalar("select partitions_ahead()").fetch_one(pool).await.map_err(fault)?;
        if ahead >= PARTITIONS_AHEAD {
            return Ok(());
        }
        if ahead == 0 {
            tracing::warn!("the log is in its last partition; the next ones are made now");
        }
        let query = "select make_partition(position + n * partition_size + 1) \
                     from store_head, generate_series(0, $1) n";
        sqlx::query(query).bind(PARTITIONS_AHEAD).execute(pool).await.map(drop).map_err(fault)
    }

    /// The partitions that are there, in the order of positions.
    ///
    /// # Errors
    ///
    /// The database failed.
    ///
    /// # Cancel safety
    ///
    /// Dropping the call loses nothing.
    pub async fn partitions(&self) -> Result<Vec<Partition>, StoreError> {
        let rows = sqlx::query(
            "select c.relname::text, pg_get_expr(c.relpartbound, c.oid) from pg_inherits i \
             join pg_class c on c.oid = i.inhrelid \
             where i.inhparent = 'ms_framework.events'::regclass order by c.relname",
        )
        .fetch_all(self.database.pool()?)
        .await
        .map_err(|error| self.database.fault(error))?;
        let mut found = Vec::new();
        for row in &rows {
            let read = || Ok((row.try_get::<String, _>(0)?, row.try_get::<String, _>(1)?));
            let (table, bound) = read().map_err(|error| self.database.fault(error))?;
            // FOR VALUES FROM ('1') TO ('10000001')
            let mut numbers = bound.split('\'').filter_map(|part| part.parse::<u64>().ok());
            let (Some(from), Some(end)) = (numbers.next(), numbers.next()) else { continue };
            found.push(Partition {
                table,
                from: Position::new(from),
                to: Position::new(end).minus(1),
            });
        }
        found.sort_by_key(|partition| partition.from);
        Ok(found)
    }

    /// Takes the oldest partitions out of the database, until at most `keep` full ones are left;
    /// the one that is being filled is never taken. Each is written into a file in `directory`
    /// first, and that file read back. Aggregates that need events of these partitions need a
    /// snapshot from then on.
    ///
    /// # Errors
    ///
    /// A file could not be written, or the database failed; a partition is either still there, or
    /// in a file that was found right.
    ///
    /// # Cancel safety
    ///
    /// As after an error.
    pub async fn archive(
        &self,
        directory: &Path,
        keep: usize,
    ) -> Result<Vec<Manifest>, ArchiveError> {
        // The rows of streams are brought forward from the events, which are needed for it.
        self.settle().await?;
        let head = lookup::head(&self.database).await?;
        let mut full = self.partitions().await?;
        full.retain(|partition| partition.to <= head);
        let old = full.len().saturating_sub(keep);
        let mut written = Vec::new();
        for partition in &full[..old] {
            let manifest = archive::write(self, directory, partition.from, partition.to).await?;
            self.take_out(partition, &manifest).await?;
            written.push(manifest);
        }
        Ok(written)
    }

    async fn take_out(&self, partition: &Partition, file: &Manifest) -> Result<(), StoreError> {
        let fault = |error| self.database.fault(error);
        let pool = self.database.pool()?;
        // Noted first: a reader who meets the hole finds out where it went.
        sqlx::query(
            "insert into archives (from_position, to_position, file, sha256, events, bytes, \
             archived_at) values ($1, $2, $3, decode($4, 'hex'), $5, $6, \
             (extract(epoch from clock_timestamp()) * 1000000)::bigint) on conflict do nothing",
        )
        .bind(partition.from.get().cast_signed())
        .bind(partition.to.get().cast_signed())
        .bind(&file.file)
        .bind(&file.sha256)
        .bind((file.to.get() + 1 - file.from.get()).cast_signed())
        .bind(file.bytes.cast_signed())
        .execute(pool)
        .await
        .map_err(fault)?;
        // The name is this module's own: letters, digits and an underscore.
        let table = &partition.table;
        let detach = format!("alter table events detach partition {table} concurrently");
        // It waits for everybody who reads.
        let mut patient = self.database.connect_patient().await?;
        sqlx::query(AssertSqlSafe(detach)).execute(&mut patient).await.map_err(fault)?;
        let drop_it = format!("drop table {table}");
        sqlx::query(AssertSqlSafe(drop_it)).execute(&mut patient).await.map_err(fault)?;
        tracing::info!(from = %partition.from, to = %partition.to, file = file.file, "archived");
        Ok(())
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
