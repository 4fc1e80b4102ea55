//! The notes in a PostgreSQL database.

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use sqlx::Row as _;
use sqlx::postgres::PgRow;

use super::{Notes, Skipped};
use crate::event::{Position, StreamId, Timestamp, Version};
use crate::store::StoreError;
use crate::store::postgres::PgStore;

impl Notes for PgStore {
    fn own<'a>(
        &'a self,
        category: &'a str,
        owner: &'a str,
        at: Timestamp,
    ) -> BoxFuture<'a, Result<String, StoreError>> {
        async move {
            sqlx::query(
                "insert into ms_framework.category_owners (category, owner, since) \
                 values ($1, $2, $3) on conflict do nothing",
            )
            .bind(category)
            .bind(owner)
            .bind(at.as_micros())
            .execute(self.database().pool()?)
            .await
            .map_err(|error| self.database().fault(error))?;
            // A statement of its own: one that meets somebody else's row does not see it.
            sqlx::query_scalar("select owner from ms_framework.category_owners where category = $1")
                .bind(category)
                .fetch_one(self.database().pool()?)
                .await
                .map_err(|error| self.database().fault(error))
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
