//! Documents in the log's own SQLite file.
//!
//! They are written on a connection of their own, in turn with the log's writer. Leaving the two
//! to SQLite's busy handler, which polls with growing sleeps, gave the same rate on disk but is
//! unfair: on a RAM disk one append waited 81 ms where waiting in turn took at most 27 ms.

use std::{sync::Arc, time::Duration};

use futures_util::{FutureExt, future::BoxFuture};
use serde_json::Value;
use sqlx::{
    AssertSqlSafe, Connection as _, Row as _,
    sqlite::{SqliteConnection, SqliteRow},
};
use tokio::sync::Mutex;

use builds::{find_builds, make_build, retire};

use super::{Build, Builds, Claimed, Commit, Document, Documents, Parked, Part, Progress};
use crate::{
    event::Position,
    store::read_model::{
        Claim, Epoch, ProjectionError,
        query::{Filter, ListQuery, MAX_LIST},
    },
    store::sqlite::{
        Database,
        statement::{Row, Sized, saturated},
    },
};

mod builds;

/// [`Documents`] in the log's SQLite file. One node works on a file, so a claim is always granted
/// and a lease never matters.
#[derive(Debug)]
pub struct SqliteDocuments {
    database: Arc<Database>,
    statements: Statements,
    /// Taken out for each write and put back after its commit, as in the store.
    writer: Mutex<Option<SqliteConnection>>,
}

#[derive(Debug)]
struct Statements {
    put: Sized,
    park: Sized,
}

/// A transaction that did not commit: refused by a rule, or failed by SQLite.
enum Failure {
    Refused(ProjectionError),
    Sql(sqlx::Error),
}

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        Self::Sql(error)
    }
}

impl SqliteDocuments {
    /// Documents in an open database; take [`SqliteStore::database`] so that both writers wait for
    /// each other instead of polling.
    ///
    /// [`SqliteStore::database`]: crate::store::sqlite::SqliteStore::database
    pub fn new(database: Arc<Database>) -> Self {
        let statements = Statements {
            put: Sized::new(
                "insert into documents (build, id, position, data) values",
                "(?,?,?,?)",
                "on conflict (build, id) do update set position = excluded.position, \
                 data = excluded.data",
            ),
            park: Sized::new(
                "insert into parked (build, id, position, attempts, error) values",
                "(?,?,?,?,?)",
                "on conflict (build, id, position) do update \
                 set attempts = excluded.attempts, error = excluded.error",
            ),
        };
        Self { database, statements, writer: Mutex::new(None) }
    }

    /// Runs `work` in a transaction of its own, in turn with the log's writer.
    async fn write<T>(
        &self,
        work: impl AsyncFnOnce(&mut SqliteConnection) -> Result<T, Failure>,
    ) -> Result<T, ProjectionError> {
        let mut slot = self.writer.lock().await;
        let _turn = self.database.turn().await;
        // An open connection outlives the closing of the database it came from.
        self.database.readers()?;
        let mut connection = match slot.take() {
            Some(connection) => connection,
            None => self.database.open_read_model_writer().await?,
        };
        let done = async {
            let mut transaction = connection.begin_with("begin immediate").await?;
            let value = work(&mut transaction).await?;
            transaction.commit().await?;
            Ok(value)
        };
        match done.await {
            Ok(value) => {
                *slot = Some(connection);
                Ok(value)
            }
            Err(Failure::Refused(error)) => Err(error),
            Err(Failure::Sql(error)) => Err(self.database.fault(error).into()),
        }
    }

    fn read<T>(&self, read: sqlx::Result<T>) -> Result<T, ProjectionError> {
        read.map_err(|error| self.database.fault(error).into())
    }
}

async fn fence(connection: &mut SqliteConnection, commit: &Commit) -> Result<(), Failure> {
    let moved = sqlx::query("update checkpoints set position = ? where name = ? and epoch = ?")
        .bind(saturated(commit.to.get()))
        .bind(commit.part.checkpoint())
        .bind(saturated(commit.epoch.get()))
        .execute(connection)
        .await?;
    match moved.rows_affected() {
        1 => Ok(()),
        _ => Err(Failure::Refused(ProjectionError::Fenced { part: commit.part.to_string() })),
    }
}

fn document(row: &SqliteRow) -> sqlx::Result<Document> {
    Ok(Document {
        id: row.try_get::<&str, _>(0)?.into(),
        data: row.try_get::<String, _>(1)?.into(),
        position: Position::new(row.try_get::<i64, _>(2)?.cast_unsigned()),
    })
}

/// `'$."a"."b"'`; the parts have no quotes, which [`ListQuery::check`] has seen to.
fn path(filter: &Filter) -> String {
    filter.path.iter().fold("$".to_owned(), |path, part| format!("{path}.\"{part}\""))
}

impl Documents for SqliteDocuments {
    fn builds<'a>(
        &'a self,
        projection: &'a str,
        version: u32,
        partitions: u16,
    ) -> BoxFuture<'a, Result<Builds, ProjectionError>> {
        self.write(async move |connection| {
            let (active, building) = find_builds(connection, projection).await?;
            let fits = |build: &Build| build.version == version && build.partitions == partitions;
            let Some(active) = active else {
                let active = make_build(connection, projection, version, partitions, 1).await?;
                return Ok(Builds { active, building: None });
            };
            let building = match building {
                Some(building) if fits(&building) => Some(building),
                None if fits(&active) => None,
                other => {
                    if let Some(outdated) = other {
                        retire(connection, outdated.id).await?;
                    }
                    match fits(&active) {
                        true => None,
                        false => {
                            Some(make_build(connection, projection, version, partitions, 0).await?)
                        }
                    }
                }
            };
            Ok(Builds { active, building })
        })
        .boxed()
    }

    fn begin_build<'a>(
        &'a self,
        projection: &'a str,
        version: u32,
        partitions: u16,
    ) -> BoxFuture<'a, Result<Build, ProjectionError>> {
        self.write(async move |connection| {
            if let (_, Some(unfinished)) = find_builds(connection, projection).await? {
                retire(connection, unfinished.id).await?;
            }
            Ok(make_build(connection, projection, version, partitions, 0).await?)
        })
        .boxed()
    }

    fn activate<'a>(
        &'a self,
        projection: &'a str,
        build: i64,
    ) -> BoxFuture<'a, Result<bool, ProjectionError>> {
        self.write(async move |connection| {
            let (Some(active), building) = find_builds(connection, projection).await? else {
                return Ok(false);
            };
            if active.id == build {
                return Ok(true);
            }
            if building.is_none_or(|building| building.id != build) {
                return Ok(false);
            }
            let reached: bool = sqlx::query_scalar(
                "select (select min(position) from checkpoints where name like ?) \
                     >= (select max(position) from checkpoints where name like ?)",
            )
            .bind(format!("build {build}/%"))
            .bind(format!("build {}/%", active.id))
            .fetch_one(&mut *connection)
            .await?;
            if !reached {
                return Ok(false);
            }
            retire(connection, active.id).await?;
            sqlx::query("update projection_builds set state = 1 where id = ?")
                .bind(build)
                .execute(connection)
                .await?;
            Ok(true)
        })
        .boxed()
    }

    fn claim<'a>(
        &'a self,
        part: Part,
        owner: &'a str,
        _: Duration,
    ) -> BoxFuture<'a, Result<Claimed, ProjectionError>> {
        self.write(async move |connection| {
            let row = sqlx::query(
                "update checkpoints set owner = ?, epoch = epoch + 1 where name = ? \
                 returning position, epoch",
            )
            .bind(owner)
            .bind(part.checkpoint())
            .fetch_optional(connection)
            .await?;
            let Some(row) = row else {
                // The build was taken out of use in between.
                return Err(Failure::Refused(ProjectionError::Fenced { part: part.to_string() }));
            };
            Ok(Claimed::Yes(Claim {
                checkpoint: Position::new(row.try_get::<i64, _>(0)?.cast_unsigned()),
                epoch: Epoch::new(row.try_get::<i64, _>(1)?.cast_unsigned()),
            }))
        })
        .boxed()
    }

    fn load<'a>(
        &'a self,
        build: i64,
        ids: &'a [Arc<str>],
    ) -> BoxFuture<'a, Result<Vec<Document>, ProjectionError>> {
        async move {
            // One statement of any size: a list as JSON.
            let list = serde_json::to_string(ids).unwrap_or_default();
            let rows = sqlx::query(
                "select d.id, d.data, d.position from json_each(?) j \
                 cross join documents d on d.build = ? and d.id = j.value",
            )
            .bind(list)
            .bind(build)
            .fetch_all(self.database.readers()?)
            .await;
            self.read(rows.and_then(|rows| rows.iter().map(document).collect()))
        }
        .boxed()
    }

    fn commit(&self, commit: Commit) -> BoxFuture<'_, Result<(), ProjectionError>> {
        self.write(async move |connection| {
            fence(connection, &commit).await?;
            let build = commit.part.build;
            let (kept, removed): (Vec<_>, Vec<_>) =
                commit.changes.iter().partition(|(_, data, _)| data.is_some());
            self.statements
                .put
                .write(connection, &kept, |row: &mut Row, (id, data, position)| {
                    // JSON is UTF-8; it was made from text by this program.
                    let text = data.as_deref().and_then(|data| std::str::from_utf8(data).ok());
                    row.integer(build)
                        .text(Arc::clone(id))
                        .counter(position.get())
                        .text(text.unwrap_or("null").into());
                })
                .await?;
            for (id, ..) in removed {
                sqlx::query("delete from documents where build = ? and id = ?")
                    .bind(build)
                    .bind(Arc::clone(id))
                    .execute(&mut *connection)
                    .await?;
            }
            for id in &commit.unpark {
                sqlx::query("delete from parked where build = ? and id = ?")
                    .bind(build)
                    .bind(Arc::clone(id))
                    .execute(&mut *connection)
                    .await?;
            }
            self.statements
                .park
                .write(connection, &commit.park, |row: &mut Row, parked| {
                    row.integer(build)
                        .text(Arc::clone(&parked.id))
                        .counter(parked.position.get())
                        .integer(i64::from(parked.attempts))
                        .text(parked.error.as_str().into());
                })
                .await?;
            Ok(())
        })
        .boxed()
    }

    fn reset<'a>(&'a self, projection: &'a str) -> BoxFuture<'a, Result<(), ProjectionError>> {
        self.write(async move |connection| {
            let (Some(active), _) = find_builds(connection, projection).await? else {
                let projection = projection.to_owned();
                return Err(Failure::Refused(ProjectionError::Unknown { projection }));
            };
            // Another build in its place: its writers are fenced, and what was there is removed
            // bit by bit.
            retire(connection, active.id).await?;
            make_build(connection, projection, active.version, active.partitions, 1).await?;
            Ok(())
        })
        .boxed()
    }

    fn prune<'a>(
        &'a self,
        projection: &'a str,
        limit: usize,
    ) -> BoxFuture<'a, Result<bool, ProjectionError>> {
        self.write(async move |connection| {
            let limit = saturated(limit as u64);
            let retired: Option<i64> = sqlx::query_scalar(
                "select id from projection_builds where projection = ? and state = 2 limit 1",
            )
            .bind(projection)
            .fetch_optional(&mut *connection)
            .await?;
            let Some(build) = retired else { return Ok(false) };
            let deleted = sqlx::query(
                "delete from documents where build = ? and id in \
                 (select id from documents where build = ? limit ?)",
            )
            .bind(build)
            .bind(build)
            .bind(limit)
            .execute(&mut *connection)
            .await?
            .rows_affected();
            if saturated(deleted) < limit {
                for text in [
                    "delete from parked where build = ?",
                    "delete from projection_builds where id = ?",
                ] {
                    sqlx::query(text).bind(build).execute(&mut *connection).await?;
                }
            }
            Ok(true)
        })
        .boxed()
    }

    fn parked(&self, build: i64) -> BoxFuture<'_, Result<Vec<Parked>, ProjectionError>> {
        async move {
            let rows = sqlx::query(
                "select id, position, attempts, error from parked where build = ? \
                 order by id, position",
            )
            .bind(build)
            .fetch_all(self.database.readers()?)
            .await;
            let parked = |row: &SqliteRow| {
                Ok(Parked {
                    id: row.try_get::<&str, _>(0)?.into(),
                    position: Position::new(row.try_get::<i64, _>(1)?.cast_unsigned()),
                    attempts: row.try_get(2)?,
                    error: row.try_get(3)?,
                })
            };
            self.read(rows.and_then(|rows| rows.iter().map(parked).collect()))
        }
        .boxed()
    }

    fn skip<'a>(&'a self, build: i64, id: &'a str) -> BoxFuture<'a, Result<bool, ProjectionError>> {
        self.write(async move |connection| {
            let deleted = sqlx::query(
                "delete from parked where build = ?1 and id = ?2 and position = \
                 (select min(position) from parked where build = ?1 and id = ?2)",
            )
            .bind(build)
            .bind(id)
            .execute(connection)
            .await?;
            Ok(deleted.rows_affected() > 0)
        })
        .boxed()
    }

    fn get<'a>(
        &'a self,
        projection: &'a str,
        id: &'a str,
    ) -> BoxFuture<'a, Result<Option<Document>, ProjectionError>> {
        async move {
            let row = sqlx::query(
                "select id, data, position from documents where id = ? and build = \
                 (select id from projection_builds where projection = ? and state = 1)",
            )
            .bind(id)
            .bind(projection)
            .fetch_optional(self.database.readers()?)
            .await;
            self.read(row.and_then(|row| row.as_ref().map(document).transpose()))
        }
        .boxed()
    }

    fn list<'a>(
        &'a self,
        projection: &'a str,
        query: &'a ListQuery,
    ) -> BoxFuture<'a, Result<Vec<Document>, ProjectionError>> {
        async move {
            query.check()?;
            let mut text = String::from(
                "select id, data, position from documents where build = \
                 (select id from projection_builds where projection = ? and state = 1)",
            );
            for filter in &query.filters {
                let types = match filter.value {
                    Value::Number(_) => "('integer', 'real')",
                    Value::String(_) => "('text')",
                    Value::Bool(true) => "('true')",
                    Value::Bool(false) => "('false')",
                    _ => "('null')",
                };
                text.push_str(&format!(" and json_type(data, ?) in {types}"));
                if !filter.value.is_null() {
                    let compare = filter.compare.sql();
                    text.push_str(&format!(" and json_extract(data, ?) {compare} ?"));
                }
            }
            if query.after.is_some() {
                text.push_str(if query.descending { " and id < ?" } else { " and id > ?" });
            }
            text.push_str(if query.descending { " order by id desc" } else { " order by id" });
            text.push_str(" limit ?");
            // The text is made of literals of this crate; values are only ever bound.
            let mut rows = sqlx::query(AssertSqlSafe(text)).persistent(false).bind(projection);
            for filter in &query.filters {
                let path = path(filter);
                rows = rows.bind(path.clone());
                rows = match &filter.value {
                    Value::Null => rows,
                    Value::Bool(value) => rows.bind(path).bind(i64::from(*value)),
                    Value::String(value) => rows.bind(path).bind(value.as_str()),
                    Value::Number(number) => match number.as_i64() {
                        Some(integer) => rows.bind(path).bind(integer),
                        None => rows.bind(path).bind(number.as_f64()),
                    },
                    _ => rows,
                };
            }
            if let Some(after) = &query.after {
                rows = rows.bind(after.as_str());
            }
            let limit = saturated(query.limit.min(MAX_LIST) as u64);
            let rows = rows.bind(limit).fetch_all(self.database.readers()?).await;
            self.read(rows.and_then(|rows| rows.iter().map(document).collect()))
        }
        .boxed()
    }

    fn progress<'a>(
        &'a self,
        projection: &'a str,
    ) -> BoxFuture<'a, Result<Vec<Progress>, ProjectionError>> {
        async move {
            let rows = sqlx::query(
                "select b.id, b.state, c.name, c.position, c.owner from projection_builds b \
                 join checkpoints c on c.name like 'build ' || b.id || '/%' \
                 where b.projection = ? and b.state in (0, 1) order by b.id, c.name",
            )
            .bind(projection)
            .fetch_all(self.database.readers()?)
            .await;
            let progress = |row: &SqliteRow| {
                let name: &str = row.try_get(2)?;
                let partition = name.rsplit_once('/').and_then(|(_, number)| number.parse().ok());
                Ok(Progress {
                    build: row.try_get(0)?,
                    active: row.try_get::<i64, _>(1)? == 1,
                    partition: partition.unwrap_or_default(),
                    position: Position::new(row.try_get::<i64, _>(3)?.cast_unsigned()),
                    owner: row.try_get(4)?,
                })
            };
            self.read(rows.and_then(|rows| rows.iter().map(progress).collect()))
        }
        .boxed()
    }

    fn projections(&self) -> BoxFuture<'_, Result<Vec<String>, ProjectionError>> {
        async move {
            let text = "select distinct projection from projection_builds order by projection";
            let names = sqlx::query_scalar(text).fetch_all(self.database.readers()?).await;
            self.read(names)
        }
        .boxed()
    }
}
