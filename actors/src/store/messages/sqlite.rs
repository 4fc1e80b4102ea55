//! The tables in a SQLite file.

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use sqlx::Row as _;
use sqlx::sqlite::SqliteConnection;

use super::{MessageTables, Outgoing, WireMessage, headers, message};
use crate::event::Timestamp;
use crate::store::StoreError;
use crate::store::sqlite::SqliteStore;

/// Puts a message into the outbox, with the transaction that the connection is in.
///
/// ```no_run
/// # async fn example(connection: &mut sqlx::SqliteConnection) -> Result<(), sqlx::Error> {
/// use mister_smith_actors::bus::Subject;
/// use mister_smith_actors::bus::wire::WireMessage;
/// use mister_smith_actors::store::messages::sqlite;
/// use sqlx::Connection;
///
/// let mut transaction = connection.begin().await?;
/// sqlx::query("insert into orders (id) values (7)").execute(&mut *transaction).await?;
/// let subject = Subject::of(["orders", "placed"]);
/// sqlite::put(&mut transaction, &WireMessage::new(&subject, "order-7", b"7".as_slice())).await?;
/// transaction.commit().await // both, or neither
/// # }
/// ```
///
/// # Errors
/// The database failed; the transaction is to be rolled back.
pub async fn put(
    connection: &mut SqliteConnection,
    message: &WireMessage,
) -> Result<(), sqlx::Error> {
    sqlx::query("insert into outbox (message_id, subject, headers, payload) values (?, ?, ?, ?)")
        .bind(message.id.clone())
        .bind(message.subject.clone())
        .bind(headers(message))
        .bind(message.payload.to_vec())
        .execute(connection)
        .await
        .map(drop)
}

/// Whether a consumer sees a message for the first time. It counts as handled when the transaction
/// that the connection is in is committed, together with what else it does.
///
/// # Errors
/// The database failed; the transaction is to be rolled back.
pub async fn first_time(
    connection: &mut SqliteConnection,
    consumer: &str,
    message_id: &str,
    at: Timestamp,
) -> Result<bool, sqlx::Error> {
    let done = sqlx::query(
        "insert into inbox (consumer, message_id, at) values (?, ?, ?) on conflict do nothing",
    )
    .bind(consumer.to_owned())
    .bind(message_id.to_owned())
    .bind(at.as_micros())
    .execute(connection)
    .await?;
    Ok(done.rows_affected() == 1)
}

impl SqliteStore {
    /// Runs a statement on the connection that writes what the log can make again.
    async fn change(
        &self,
        query: sqlx::query::Query<'_, sqlx::Sqlite, sqlx::sqlite::SqliteArguments>,
    ) -> Result<u64, StoreError> {
        let mut connection = self.database().open_read_model_writer().await?;
        let _turn = self.database().turn().await;
        let done = query.execute(&mut connection).await;
        done.map(|done| done.rows_affected()).map_err(|error| self.database().fault(error))
    }
}

impl MessageTables for SqliteStore {
    fn outgoing(&self, limit: usize) -> BoxFuture<'_, Result<Vec<Outgoing>, StoreError>> {
        async move {
            let rows = sqlx::query(
                "select id, message_id, subject, headers, payload from outbox order by id limit ?",
            )
            .bind(i64::try_from(limit).unwrap_or(i64::MAX))
            .fetch_all(self.database().readers()?)
            .await
            .map_err(|error| self.database().fault(error))?;
            let read = |row: &sqlx::sqlite::SqliteRow| {
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
            let ids = serde_json::to_string(ids).unwrap_or_else(|_| "[]".to_owned());
            let query =
                sqlx::query("delete from outbox where id in (select value from json_each(?))");
            self.change(query.bind(ids)).await.map(drop)
        }
        .boxed()
    }

    fn forget(&self, before: Timestamp) -> BoxFuture<'_, Result<u64, StoreError>> {
        let query = sqlx::query("delete from inbox where at < ?").bind(before.as_micros());
        self.change(query).boxed()
    }
}
