//! The notes in a SQLite file.

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use sqlx::Row as _;
use sqlx::sqlite::{SqliteArguments, SqliteRow};

use super::{Notes, Skipped};
use crate::event::{Position, StreamId, Timestamp, Version};
use crate::store::StoreError;
use crate::store::sqlite::SqliteStore;

impl SqliteStore {
    /// Writes one note. They are few: a connection of its own costs nothing that counts.
    async fn note(
        &self,
        query: sqlx::query::Query<'_, sqlx::Sqlite, SqliteArguments>,
    ) -> Result<u64, StoreError> {
        let mut connection = self.database().open_read_model_writer().await?;
        let _turn = self.database().turn().await;
        let done = query.execute(&mut connection).await;
        done.map(|done| done.rows_affected()).map_err(|error| self.database().fault(error))
    }
}

impl Notes for SqliteStore {
    fn own<'a>(
        &'a self,
        category: &'a str,
        owner: &'a str,
        at: Timestamp,
    ) -> BoxFuture<'a, Result<String, StoreError>> {
        async move {
            let query = sqlx::query(
                "insert into category_owners (category, owner, since) values (?, ?, ?) \
                 on conflict do nothing",
            )
            .bind(category.to_owned())
            .bind(owner.to_owned())
            .bind(at.as_micros());
            self.note(query).await?;
            sqlx::query_scalar("select owner from category_owners where category = ?")
                .bind(category.to_owned())
                .fetch_one(self.database().readers()?)
                .await
                .map_err(|error| self.database().fault(error))
        }
        .boxed()
    }

    fn owners(&self) -> BoxFuture<'_, Result<Vec<(String, String)>, StoreError>> {
        async move {
            sqlx::query_as("select category, owner from category_owners order by category")
                .fetch_all(self.database().readers()?)
                .await
                .map_err(|error| self.database().fault(error))
        }
        .boxed()
    }

    fn skip(&self, skipped: Skipped) -> BoxFuture<'_, Result<bool, StoreError>> {
        async move {
            let query = sqlx::query(
                "insert into skipped_events (stream, version, position, by, reason, at) \
                 values (?, ?, ?, ?, ?, ?) on conflict do nothing",
            )
            .bind(skipped.stream.to_string())
            .bind(skipped.version.get().cast_signed())
            .bind(skipped.position.get().cast_signed())
            .bind(skipped.by)
            .bind(skipped.reason)
            .bind(skipped.at.as_micros());
            Ok(self.note(query).await? == 1)
        }
        .boxed()
    }

    fn skipped<'a>(
        &'a self,
        stream: Option<&'a StreamId>,
    ) -> BoxFuture<'a, Result<Vec<Skipped>, StoreError>> {
        async move {
            let rows = sqlx::query(
                "select stream, version, position, by, reason, at from skipped_events \
                 where ? is null or stream = ? order by position",
            )
            .bind(stream.map(ToString::to_string))
            .bind(stream.map(ToString::to_string))
            .fetch_all(self.database().readers()?)
            .await
            .map_err(|error| self.database().fault(error))?;
            let read = |row: &SqliteRow| {
                let name: String = row.try_get(0)?;
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
