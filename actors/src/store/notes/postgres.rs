//! The notes in a PostgreSQL database.

use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, PgPool, Row as _};
use tokio::time::sleep;

use super::{Notes, Skipped};
use crate::event::{Position, StreamId, Timestamp, Version};
use crate::store::StoreError;
use crate::store::postgres::{PgStore, is_undone};

const OWNER: &str = "select owner from ms_framework.category_owners where category = $1";

/// How long a new owner waits for the log at first, doubled with each try. Appends wait behind it:
/// in between they have as long for themselves, also while somebody else keeps the log for minutes
/// (`analyze`, a partition that is put back).
const PATIENCE: Duration = Duration::from_millis(200);

/// The longest that it waits: a commit may take as long.
const MOST_PATIENCE: Duration = Duration::from_millis(1_600);

/// Notes who owns a category, unless somebody has; answers who does. What is dropped halfway is
/// rolled back.
async fn note(
    pool: &PgPool,
    category: &str,
    owner: &str,
    at: Timestamp,
    patience: Duration,
) -> sqlx::Result<String> {
    let mut transaction = pool.begin().await?;
    // Appends look for the owner in the statement that writes. Those under way may not see the row,
    // so they are waited for, and those that come later wait for the row.
    let lock = format!(
        "set local synchronous_commit to on; set local lock_timeout to {}; \
         lock table only ms_framework.events in share mode",
        patience.as_millis()
    );
    sqlx::raw_sql(AssertSqlSafe(lock)).execute(&mut *transaction).await?;
    sqlx::query(
        "insert into ms_framework.category_owners (category, owner, since) \
         values ($1, $2, $3) on conflict do nothing",
    )
    .bind(category)
    .bind(owner)
    .bind(at.as_micros())
    .execute(&mut *transaction)
    .await?;
    // A statement of its own: one that meets somebody else's row does not see it.
    let owner = sqlx::query_scalar(OWNER).bind(category).fetch_one(&mut *transaction).await?;
    transaction.commit().await?;
    Ok(owner)
}

impl Notes for PgStore {
    fn own<'a>(
        &'a self,
        category: &'a str,
        owner: &'a str,
        at: Timestamp,
    ) -> BoxFuture<'a, Result<String, StoreError>> {
        async move {
            let fault = |error| self.database().fault(error);
            let noted: Option<String> = sqlx::query_scalar(OWNER)
                .bind(category)
                .fetch_optional(self.database().pool()?)
                .await
                .map_err(fault)?;
            if let Some(owner) = noted {
                return Ok(owner);
            }
            let mut patience = PATIENCE;
            loop {
                match note(self.database().pool()?, category, owner, at, patience).await {
                    Err(error) if is_undone(&error) && patience < MOST_PATIENCE => {
                        sleep(patience).await;
                        patience *= 2;
                    }
                    noted => return noted.map_err(fault),
                }
            }
        }
        .boxed()
    }

    fn owners(&self) -> BoxFuture<'_, Result<Vec<(String, String)>, StoreError>> {
        async move {
            sqlx::query_as(
                "select category, owner from ms_framework.category_owners order by category",
            )
            .fetch_all(self.database().pool()?)
            .await
            .map_err(|error| self.database().fault(error))
        }
        .boxed()
    }

    fn skip(&self, skipped: Skipped) -> BoxFuture<'_, Result<bool, StoreError>> {
        async move {
            let done = sqlx::query(
                "insert into ms_framework.skipped_events \
                 (stream, version, position, by, reason, at) values ($1, $2, $3, $4, $5, $6) \
                 on conflict do nothing",
            )
            .bind(skipped.stream.as_str())
            .bind(skipped.version.get().cast_signed())
            .bind(skipped.position.get().cast_signed())
            .bind(skipped.by)
            .bind(skipped.reason)
            .bind(skipped.at.as_micros())
            .execute(self.database().pool()?)
            .await;
            let done = done.map_err(|error| self.database().fault(error))?;
            Ok(done.rows_affected() == 1)
        }
        .boxed()
    }

    fn skipped<'a>(
        &'a self,
        stream: Option<&'a StreamId>,
    ) -> BoxFuture<'a, Result<Vec<Skipped>, StoreError>> {
        async move {
            let rows = sqlx::query(
                "select stream, version, position, by, reason, at \
                 from ms_framework.skipped_events \
                 where $1::text is null or stream = $1 order by position",
            )
            .bind(stream.map(StreamId::as_str))
            .fetch_all(self.database().pool()?)
            .await
            .map_err(|error| self.database().fault(error))?;
            let read = |row: &PgRow| {
                let name: &str = row.try_get(0)?;
                let stream = StreamId::new(name);
                Ok(Skipped {
                    stream: stream.map_err(|error| sqlx::Error::Decode(Box::new(error)))?,
                    version: Version::new(row.try_get::<i64, _>(1)?.cast_unsigned()),
                    position: Position::new(row.try_get::<i64, _>(2)?.cast_unsigned()),
                    by: row.try_get(3)?,
                    reason: row.try_get(4)?,
                    at: Timestamp::from_micros(row.try_get(5)?),
                })
            };
            let rows: sqlx::Result<Vec<_>> = rows.iter().map(read).collect();
            rows.map_err(|error| self.database().fault(error))
        }
        .boxed()
    }
}
