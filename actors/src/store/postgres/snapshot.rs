//! Snapshots in the same database.

use futures_util::{FutureExt, future::BoxFuture};
use sqlx::Row as _;

use super::PgStore;
use crate::{
    event::{ContentType, StreamId, Timestamp, Version},
    store::{
        StoreError,
        snapshot::{Snapshot, SnapshotStore},
    },
};

impl SnapshotStore for PgStore {
    fn load_snapshot<'a>(
        &'a self,
        stream: &'a StreamId,
    ) -> BoxFuture<'a, Result<Option<Snapshot>, StoreError>> {
        async move {
            let row = sqlx::query(
                "select n.version, n.schema, n.codec, n.data, n.taken_at \
                 from snapshots n join streams s on s.id = n.stream_id \
                 where s.name = $1 and s.status = 0",
            )
            .bind(stream.as_str())
            .fetch_optional(self.database.pool()?)
            .await
            .map_err(|error| self.database.fault(error))?;
            let Some(row) = row else { return Ok(None) };
            let read = || {
                let codec = u8::try_from(row.try_get::<i16, _>(2)?).ok();
                let Some(codec) = codec.and_then(ContentType::from_code) else { return Ok(None) };
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
        async move {
            sqlx::query(
                "insert into snapshots (stream_id, version, schema, codec, data, taken_at) \
                 select id, $1, $2, $3, $4, $5 from streams where name = $6 and status = 0 \
                 on conflict (stream_id) do update set version = excluded.version, \
                 schema = excluded.schema, codec = excluded.codec, data = excluded.data, \
                 taken_at = excluded.taken_at where excluded.version >= snapshots.version",
            )
            .bind(snapshot.version.get().cast_signed())
            .bind(snapshot.schema.cast_signed())
            .bind(i16::from(snapshot.codec.code()))
            .bind(&snapshot.data[..])
            .bind(snapshot.taken_at.as_micros())
            .bind(stream.as_str())
            .execute(self.database.pool()?)
            .await
            .map(drop)
            .map_err(|error| self.database.fault(error))
        }
        .boxed()
    }

    fn delete_snapshot<'a>(
        &'a self,
        stream: &'a StreamId,
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        async move {
            sqlx::query(
                "delete from snapshots where stream_id = (select id from streams where name = $1)",
            )
            .bind(stream.as_str())
            .execute(self.database.pool()?)
            .await
            .map(drop)
            .map_err(|error| self.database.fault(error))
        }
        .boxed()
    }
}
