//! Partitions of the log, made ahead.

use sqlx::Row as _;

use super::PgStore;
use crate::{event::Position, store::StoreError};

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
             where i.inhparent = 'ms_framework.events'::regclass and not i.inhdetachpending \
             order by c.relname",
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
}
