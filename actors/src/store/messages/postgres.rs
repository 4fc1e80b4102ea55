//! The tables in a PostgreSQL database.

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use sqlx::Row as _;
use sqlx::postgres::PgConnection;

use super::{MessageTables, Outgoing, WireMessage, headers, message};
use crate::event::Timestamp;
use crate::store::StoreError;
use crate::store::postgres::PgStore;

/// Puts a message into the outbox, with the transaction that the connection is in.
///
/// # Errors
/// The database failed; the transaction is to be rolled back.
pub async fn put(connection: &mut PgConnection, message: &WireMessage) -> Result<(), sqlx::Error> {
    sqlx::query(
        "insert into ms_messaging.outbox (message_id, subject, headers, payload) \
         values ($1, $2, $3, $4)",
    )
    .bind(message.id.clone())
    .bind(message.subject.clone())
    .bind(headers(message))
    .bind(message.payload.to_vec())
    .execute(connection)
    .await
    .map(drop)
}

/// Whether a consumer sees a message for the first time. It counts as handled when the transaction
/// that the connection is in is committed, together with what else it does. Somebody who asks for
/// the same message meanwhile waits for the end of that transaction. The time by which it is
/// forgotten ([`INBOX_REMEMBERS`](crate::pool::INBOX_REMEMBERS)) is the database's clock.
///
/// # Errors
/// The database failed; the transaction is to be rolled back.
pub async fn first_time(
    connection: &mut PgConnection,
    consumer: &str,
    message_id: &str,
) -> Result<bool, sqlx::Error> {
    let now = "(extract(epoch from clock_timestamp()) * 1000000)::bigint";
    note(connection, consumer, message_id, now).await
}

async fn note(
    connection: &mut PgConnection,
    consumer: &str,
    message_id: &str,
    at: &str,
) -> Result<bool, sqlx::Error> {
    let insert = format!(
        "insert into ms_messaging.inbox (consumer, message_id, at) values ($1, $2, {at}) \
         on conflict do nothing"
    );
    let insert = sqlx::query(sqlx::AssertSqlSafe(insert));
    let done = insert.bind(consumer.to_owned()).bind(message_id.to_owned()).execute(connection);
    Ok(done.await?.rows_affected() == 1)
}

impl MessageTables for PgStore {
    fn outgoing(&self, limit: usize) -> BoxFuture<'_, Result<Vec<Outgoing>, StoreError>> {
        async move {
            let rows = sqlx::query(
                "select id, message_id, subject, headers, payload from ms_messaging.outbox \
                 order by id limit $1",
            )
            .bind(i64::try_from(limit).unwrap_or(i64::MAX))
            .fetch_all(self.database().pool()?)
            .await
            .map_err(|error| self.database().fault(error))?;
            let read = |row: &sqlx::postgres::PgRow| {
                let headers: String = row.try_get(3)?;
                let message = message(row.try_get(1)?, row.try_get(2)?, &headers, row.try_get(4)?);
                Ok(Outgoing { id: row.try_get(0)?, message })
            };
            let rows: Result<Vec<_>, sqlx::Error> = rows.iter().map(read).collect();
            rows.map_err(|error| self.database().fault(error))
        }
        .boxed()
    }

    fn sent<'a>(&'a self, ids: &'a [i64]) -> BoxFuture<'a, Result<(), StoreError>> {
        async move {
            sqlx::query("delete from ms_messaging.outbox where id = any($1)")
                .bind(ids.to_vec())
                .execute(self.database().pool()?)
                .await
                .map(drop)
                .map_err(|error| self.database().fault(error))
        }
        .boxed()
    }

    fn handled<'a>(
        &'a self,
        consumer: &'a str,
        message_id: &'a str,
        at: Timestamp,
    ) -> BoxFuture<'a, Result<bool, StoreError>> {
        async move {
            let noted = async {
                let mut connection = self
                    .database()
                    .pool()?
                    .acquire()
                    .await
                    .map_err(|error| self.database().fault(error))?;
                let at = at.as_micros().to_string();
                let first = note(&mut connection, consumer, message_id, &at).await;
                first.map_err(|error| self.database().fault(error))
            };
            noted.await
        }
        .boxed()
    }

    fn was_handled<'a>(
        &'a self,
        consumer: &'a str,
        message_id: &'a str,
    ) -> BoxFuture<'a, Result<bool, StoreError>> {
        async move {
            let text = "select exists (select from ms_messaging.inbox \
                        where consumer = $1 and message_id = $2)";
            sqlx::query_scalar(text)
                .bind(consumer)
                .bind(message_id)
                .fetch_one(self.database().pool()?)
                .await
                .map_err(|error| self.database().fault(error))
        }
        .boxed()
    }

    fn forget(&self, before: Timestamp) -> BoxFuture<'_, Result<u64, StoreError>> {
        async move {
            let done = sqlx::query("delete from ms_messaging.inbox where at < $1")
                .bind(before.as_micros())
                .execute(self.database().pool()?)
                .await;
            done.map(|done| done.rows_affected()).map_err(|error| self.database().fault(error))
        }
        .boxed()
    }
}
