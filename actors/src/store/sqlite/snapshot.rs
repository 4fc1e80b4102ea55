//! Snapshots in the same file.

use futures_util::{FutureExt, future::BoxFuture};
use rusqlite::OptionalExtension;

use super::{SqliteStore, statement::saturated};
use crate::{
    event::{ContentType, StreamId, Timestamp, Version},
    store::{
        StoreError,
        snapshot::{Snapshot, SnapshotStore},
    },
};

impl SnapshotStore for SqliteStore {
    fn load_snapshot<'a>(
        &'a self,
        stream: &'a StreamId,
    ) -> BoxFuture<'a, Result<Option<Snapshot>, StoreError>> {
        let stream = stream.clone();
        let load = move |connection: &rusqlite::Connection| {
            let mut statement = connection.prepare_cached(
                "select version, schema, codec, data, taken_at from snapshots \
                 where stream_id = (select id from streams where name = ? and status = 0)",
            )?;
            let found = statement.query_row([stream.as_str()], |row| {
                let Some(codec) = ContentType::from_code(row.get(2)?) else { return Ok(None) };
                Ok(Some(Snapshot {
                    version: Version::new(row.get::<_, i64>(0)?.cast_unsigned()),
                    schema: row.get::<_, i64>(1)?.cast_unsigned(),
                    codec,
                    data: row.get::<_, Vec<u8>>(3)?.into(),
                    taken_at: Timestamp::from_micros(row.get(4)?),
                }))
            });
            Ok(found.optional()?.flatten())
        };
        self.database.read(load).boxed()
    }

    fn save_snapshot<'a>(
        &'a self,
        stream: &'a StreamId,
        snapshot: Snapshot,
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        let stream = stream.clone();
        let save = move |connection: &rusqlite::Connection| {
            let mut statement = connection.prepare_cached(
                "insert into snapshots (stream_id, version, schema, codec, data, taken_at) \
                 select id, ?, ?, ?, ?, ? from streams where name = ? and status = 0 \
                 on conflict (stream_id) do update set version = excluded.version, \
                 schema = excluded.schema, codec = excluded.codec, data = excluded.data, \
                 taken_at = excluded.taken_at where excluded.version >= snapshots.version",
            )?;
            let saved = statement.execute((
                saturated(snapshot.version.get()),
                snapshot.schema.cast_signed(),
                snapshot.codec.code(),
                &snapshot.data[..],
                snapshot.taken_at.as_micros(),
                stream.as_str(),
            ));
            saved.map(drop)
        };
        self.database.write(save).boxed()
    }

    fn delete_snapshot<'a>(
        &'a self,
        stream: &'a StreamId,
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        let stream = stream.clone();
        let delete = move |connection: &rusqlite::Connection| {
            let mut statement = connection.prepare_cached(
                "delete from snapshots where stream_id = (select id from streams where name = ?)",
            )?;
            statement.execute([stream.as_str()]).map(drop)
        };
        self.database.write(delete).boxed()
    }
}
