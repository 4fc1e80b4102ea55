//! Snapshots in the same file, on a writing connection of their own.

use futures_util::{FutureExt, future::BoxFuture};
use sqlx::{Connection as _, Row as _, sqlite::SqliteConnection};
use tokio::sync::Mutex;

use super::{SqliteStore, statement::saturated};
use crate::{
    event::{ContentType, StreamId, Timestamp, Version},
    store::{
        StoreError,
        snapshot::{Snapshot, SnapshotStore},
    },
};

/// The connection that writes snapshots; opened by the first one.
#[derive(Debug, Default)]
pub(super) struct Snapshots(Mutex<Option<SqliteConnection>>);

impl Snapshots {
    pub(super) async fn close(&self) {
        if let Some(connection) = self.0.lock().await.take() {
            let _ = connection.close().await;
        }
    }
}

impl SqliteStore {
    async fn write_snapshot(
        &self,
        query: sqlx::query::Query<'_, sqlx::Sqlite, sqlx::sqlite::SqliteArguments>,
    ) -> Result<(), StoreError> {
        let mut slot = self.snapshots.0.lock().await;
        // Taken out and put back: a dropped call leaves no half-done statement behind.
        let mut connection = match slot.take() {
            Some(connection) => connection,
            None => self.database.open_read_model_writer().await?,
        };
        let _turn = self.database.turn().await;
        query.execute(&mut connection).await.map_err(|error| self.database.fault(error))?;
        *slot = Some(connection);
        Ok(())
    }
}

impl SnapshotStore for SqliteStore {
    fn load_snapshot<'a>(
        &'a self,
        stream: &'a StreamId,
    ) -> BoxFuture<'a, Result<Option<Snapshot>, StoreError>> {
        async move {
            let row = sqlx::query(
                "select version, schema, codec, data, taken_at from snapshots \
                 where stream_id = (select id from streams where name = ? and status = 0)",
            )
            .bind(stream.to_shared())
            .fetch_optional(self.database.readers()?)
            .await
            .map_err(|error| self.database.fault(error))?;
            let Some(row) = row else { return Ok(None) };
            let read = || {
                let Some(codec) = ContentType::from_code(row.try_get(2)?) else { return Ok(None) };
                Ok(Some(Snapshot {
                    version: Version::new(row.try_get::<i64, _>(0)?.cast_unsigned()),
                    schema: row.try_get::<i64, _>(1)?.cast_unsigned(),
                    codec,
                    data: row.try_get::<Vec<u8>, _>(3)?.into(),
                    taken_at: Timestamp::from_micros(row.try_get(4)?),
                }))
            };
            read().map_err(|error| self.database.fault(error))
        }
        .boxed()
    }

    fn save_snapshot<'a>(
        &'a self,
        stream: &'a StreamId,
        snapshot: Snapshot,
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        let query = sqlx::query(
            "insert into snapshots (stream_id, version, schema, codec, data, taken_at) \
             select id, ?, ?, ?, ?, ? from streams where name = ? and status = 0 \
             on conflict (stream_id) do update set version = excluded.version, \
             schema = excluded.schema, codec = excluded.codec, data = excluded.data, \
             taken_at = excluded.taken_at where excluded.version >= snapshots.version",
        )
        .bind(saturated(snapshot.version.get()))
        .bind(snapshot.schema.cast_signed())
        .bind(snapshot.codec.code())
        .bind(snapshot.data.to_vec())
        .bind(snapshot.taken_at.as_micros())
        .bind(stream.to_shared());
        self.write_snapshot(query).boxed()
    }

    fn delete_snapshot<'a>(
        &'a self,
        stream: &'a StreamId,
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        let query = sqlx::query(
            "delete from snapshots where stream_id = (select id from streams where name = ?)",
        );
        self.write_snapshot(query.bind(stream.to_shared())).boxed()
    }
}
