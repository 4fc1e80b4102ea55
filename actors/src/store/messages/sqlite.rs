//! The tables in a SQLite file.

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
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
/// that the connection is in is committed, together with what else it does. The time by which it is
/// forgotten ([`INBOX_REMEMBERS`](crate::pool::INBOX_REMEMBERS)) is the database's clock.
///
/// # Errors
/// The database failed; the transaction is to be rolled back.
pub async fn first_time(
    connection: &mut SqliteConnection,
    consumer: &str,
    message_id: &str,
) -> Result<bool, sqlx::Error> {
    let done = sqlx::query(
        "insert into inbox (consumer, message_id, at) \
         values (?, ?, cast((julianday('now') - 2440587.5) * 86400000000 as integer)) \
         on conflict do nothing",
    )
    .bind(consumer.to_owned())
    .bind(message_id.to_owned())
    .execute(connection)
    .await?;
    Ok(done.rows_affected() == 1)
}

impl MessageTables for SqliteStore {
    fn outgoing(&self, limit: usize) -> BoxFuture<'_, Result<Vec<Outgoing>, StoreError>> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let read = move |connection: &rusqlite::Connection| {
            let mut statement = connection.prepare_cached(
                "select id, message_id, subject, headers, payload from outbox order by id limit ?",
            )?;
            let rows = statement.query_map([limit], |row| {
                let headers = row.get_ref(3)?.as_str()?;
                let message = message(row.get(1)?, row.get(2)?, headers, row.get(4)?);
                Ok(Outgoing { id: row.get(0)?, message })
            })?;
            rows.collect()
        };
        self.database().read(read).boxed()
    }

    fn sent<'a>(&'a self, ids: &'a [i64]) -> BoxFuture<'a, Result<(), StoreError>> {
        let ids = ids.to_vec();
        let remove = move |connection: &rusqlite::Connection| {
            let mut statement = connection.prepare_cached("delete from outbox where id = ?")?;
            ids.iter().try_for_each(|id| statement.execute([id]).map(drop))
        };
        self.database().write(remove).boxed()
    }

    fn handled<'a>(
        &'a self,
        consumer: &'a str,
        message_id: &'a str,
        at: Timestamp,
    ) -> BoxFuture<'a, Result<bool, StoreError>> {
        let (consumer, message_id) = (consumer.to_owned(), message_id.to_owned());
        let note = move |connection: &rusqlite::Connection| {
            let text = "insert into inbox (consumer, message_id, at) values (?, ?, ?) \
                        on conflict do nothing";
            let mut statement = connection.prepare_cached(text)?;
            Ok(statement.execute((consumer, message_id, at.as_micros()))? == 1)
        };
        self.database().write(note).boxed()
    }

    fn was_handled<'a>(
        &'a self,
        consumer: &'a str,
        message_id: &'a str,
    ) -> BoxFuture<'a, Result<bool, StoreError>> {
        let (consumer, message_id) = (consumer.to_owned(), message_id.to_owned());
        let look = move |connection: &rusqlite::Connection| {
            let text = "select 1 from inbox where consumer = ? and message_id = ?";
            connection.prepare_cached(text)?.exists([consumer, message_id])
        };
        self.database().read(look).boxed()
    }

    fn forget(&self, before: Timestamp) -> BoxFuture<'_, Result<u64, StoreError>> {
        let remove = move |connection: &rusqlite::Connection| {
            let mut statement = connection.prepare_cached("delete from inbox where at < ?")?;
            Ok(statement.execute([before.as_micros()])? as u64)
        };
        self.database().write(remove).boxed()
    }
}
