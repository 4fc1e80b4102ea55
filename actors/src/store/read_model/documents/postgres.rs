//! Documents in the log's own PostgreSQL database, for one node or many.
//!
//! A partition is claimed with a lease: another node takes it over when the lease has run out, and
//! the epoch keeps the one before from writing, whatever it believes.

use std::{sync::Arc, time::Duration};

use futures_util::{FutureExt, future::BoxFuture};
use sqlx::{AssertSqlSafe, PgConnection, Row as _, postgres::PgRow};

use builds::{find_builds, make_build, retire};

use super::{Build, Builds, Claimed, Commit, Document, Documents, Parked, Part, Progress};
use crate::{
    event::Position,
    store::postgres::database::{PgDatabase, make_durable},
    store::read_model::{
        Claim, Epoch, ProjectionError,
        query::{ListQuery, MAX_LIST},
    },
};

mod builds;

/// [`Documents`] in the log's PostgreSQL database.
#[derive(Debug)]
pub struct PgDocuments {
    database: Arc<PgDatabase>,
}

/// A transaction that did not commit: refused by a rule, or failed by the database.
enum Failure {
    Refused(ProjectionError),
    Sql(sqlx::Error),
}

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        Self::Sql(error)
    }
}

impl PgDocuments {
    /// Documents in an open database.
    pub const fn new(database: Arc<PgDatabase>) -> Self {
        Self { database }
    }

    async fn write<T>(
        &self,
        work: impl AsyncFnOnce(&mut PgConnection) -> Result<T, Failure>,
    ) -> Result<T, ProjectionError> {
        let pool = self.database.pool()?;
        let done = async {
            let mut transaction = pool.begin().await?;
            let value = work(&mut transaction).await?;
            transaction.commit().await?;
            Ok(value)
        };
        done.await.map_err(|failure| match failure {
            Failure::Refused(error) => error,
            Failure::Sql(error) => self.database.fault(error).into(),
        })
    }

    fn read<T>(&self, read: sqlx::Result<T>) -> Result<T, ProjectionError> {
        read.map_err(|error| self.database.fault(error).into())
    }
}

fn counter(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn document(row: &PgRow) -> sqlx::Result<Document> {
    Ok(Document {
        id: row.try_get::<&str, _>(0)?.into(),
        data: row.try_get::<String, _>(1)?.into(),
        position: Position::new(row.try_get::<i64, _>(2)?.cast_unsigned()),
    })
}

/// One statement: the checkpoint moves if the claim is the latest, and the documents with it.
const PUT: &str = "\
with moved as ( \
    update checkpoints set position = $1, \
           lease_until = clock_timestamp() + $4 * interval '1 ms' \
     where name = $2 and epoch = $3 returning 1 \
), put as ( \
    insert into documents (build, id, position, data) \
    select $5, d.id, d.position, d.data::jsonb \
      from moved, unnest($6::text[], $7::int8[], $8::text[]) d (id, position, data) \
    on conflict (build, id) do update set position = excluded.position, data = excluded.data \
), removed as ( \
    delete from documents where build = $5 and id = any($9) and exists (select from moved) \
) \
select count(*) from moved";

/// Answers whether the claim was the latest.
async fn put<'c>(executor: impl sqlx::PgExecutor<'c>, commit: &Commit) -> sqlx::Result<bool> {
    let (mut ids, mut texts, mut positions, mut removed) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (id, data, position) in &commit.changes {
        match data {
            None => removed.push(&**id),
            Some(data) => {
                ids.push(&**id);
                // JSON is UTF-8; it was made from text by this program.
                texts.push(std::str::from_utf8(data).unwrap_or("null"));
                positions.push(counter(position.get()));
            }
        }
    }
    let moved: i64 = sqlx::query_scalar(PUT)
        .bind(counter(commit.to.get()))
        .bind(commit.part.checkpoint())
        .bind(counter(commit.epoch.get()))
        .bind(commit.lease.as_secs_f64() * 1e3)
        .bind(commit.part.build)
        .bind(ids)
        .bind(positions)
        .bind(texts)
        .bind(removed)
        .fetch_one(executor)
        .await?;
    Ok(moved == 1)
}

fn fenced(commit: &Commit, moved: bool) -> Result<(), ProjectionError> {
    match moved {
        true => Ok(()),
        false => Err(ProjectionError::Fenced { part: commit.part.to_string() }),
    }
}

impl Documents for PgDocuments {
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
            // Locked, so that nobody moves one between the look and the switch.
            let rows = sqlx::query(
                "select name like $1, position from checkpoints \
                 where name like $1 or name like $2 order by name for update",
            )
            .bind(format!("build {build}/%"))
            .bind(format!("build {}/%", active.id))
            .fetch_all(&mut *connection)
            .await?;
            let (mut new, mut old) = (i64::MAX, 0);
            for row in &rows {
                let position: i64 = row.try_get(1)?;
                match row.try_get(0)? {
                    true => new = new.min(position),
                    false => old = old.max(position),
                }
            }
            if new < old {
                return Ok(false);
            }
            retire(connection, active.id).await?;
            sqlx::query("update projection_builds set state = 1 where id = $1")
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
        lease: Duration,
    ) -> BoxFuture<'a, Result<Claimed, ProjectionError>> {
        self.write(async move |connection| {
            make_durable(connection).await?;
            let row = sqlx::query(
                "select owner, lease_until < clock_timestamp() or owner = $2 from checkpoints \
                 where name = $1 for update",
            )
            .bind(part.checkpoint())
            .bind(owner)
            .fetch_optional(&mut *connection)
            .await?;
            let Some(row) = row else {
                // The build was taken out of use in between.
                return Err(Failure::Refused(ProjectionError::Fenced { part: part.to_string() }));
            };
            if !row.try_get::<bool, _>(1)? {
                return Ok(Claimed::Held { by: row.try_get(0)? });
            }
            let row = sqlx::query(
                "update checkpoints set owner = $2, epoch = epoch + 1, \
                 lease_until = clock_timestamp() + $3 * interval '1 ms' where name = $1 \
                 returning position, epoch",
            )
            .bind(part.checkpoint())
            .bind(owner)
            .bind(lease.as_secs_f64() * 1e3)
            .fetch_one(connection)
            .await?;
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
            let ids: Vec<&str> = ids.iter().map(|id| &**id).collect();
            let rows = sqlx::query(
                "select id, data::text, position from documents \
                 where build = $1 and id = any($2)",
            )
            .bind(build)
            .bind(ids)
            .fetch_all(self.database.pool()?)
            .await;
            self.read(rows.and_then(|rows| rows.iter().map(document).collect()))
        }
        .boxed()
    }

    fn commit(&self, commit: Commit) -> BoxFuture<'_, Result<(), ProjectionError>> {
        async move {
            if commit.park.is_empty() && commit.unpark.is_empty() {
                let moved = put(self.database.pool()?, &commit).await;
                return fenced(&commit, self.read(moved)?);
            }
            self.write(async move |connection| {
                let moved = put(&mut *connection, &commit).await?;
                fenced(&commit, moved).map_err(Failure::Refused)?;
                let unpark: Vec<&str> = commit.unpark.iter().map(|id| &**id).collect();
                sqlx::query("delete from parked where build = $1 and id = any($2)")
                    .bind(commit.part.build)
                    .bind(unpark)
                    .execute(&mut *connection)
                    .await?;
                for parked in &commit.park {
                    sqlx::query(
                        "insert into parked (build, id, position, attempts, error) \
                         values ($1, $2, $3, $4, $5) on conflict (build, id, position) do update \
                         set attempts = excluded.attempts, error = excluded.error",
                    )
                    .bind(commit.part.build)
                    .bind(&*parked.id)
                    .bind(counter(parked.position.get()))
                    .bind(i32::try_from(parked.attempts).unwrap_or(i32::MAX))
                    .bind(&parked.error)
                    .execute(&mut *connection)
                    .await?;
                }
                Ok(())
            })
            .await
        }
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
            let retired: Option<i64> = sqlx::query_scalar(
                "select id from projection_builds where projection = $1 and state = 2 limit 1",
            )
            .bind(projection)
            .fetch_optional(&mut *connection)
            .await?;
            let Some(build) = retired else { return Ok(false) };
            let deleted = sqlx::query(
                "delete from documents where build = $1 and id in \
                 (select id from documents where build = $1 limit $2)",
            )
            .bind(build)
            .bind(counter(limit as u64))
            .execute(&mut *connection)
            .await?
            .rows_affected();
            if deleted < limit as u64 {
                for text in [
                    "delete from parked where build = $1",
                    "delete from projection_builds where id = $1",
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
                "select id, position, attempts, error from parked where build = $1 \
                 order by id, position",
            )
            .bind(build)
            .fetch_all(self.database.pool()?)
            .await;
            let parked = |row: &PgRow| {
                Ok(Parked {
                    id: row.try_get::<&str, _>(0)?.into(),
                    position: Position::new(row.try_get::<i64, _>(1)?.cast_unsigned()),
                    attempts: row.try_get::<i32, _>(2)?.cast_unsigned(),
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
                "delete from parked where build = $1 and id = $2 and position = \
                 (select min(position) from parked where build = $1 and id = $2)",
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
                "select id, data::text, position from documents where id = $1 and build = \
                 (select id from projection_builds where projection = $2 and state = 1)",
            )
            .bind(id)
            .bind(projection)
            .fetch_optional(self.database.pool()?)
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
                "select id, data::text, position from documents where build = \
                 (select id from projection_builds where projection = $1 and state = 1) \
                 and ($2::text is null or id ",
            );
            text.push_str(if query.descending { "< $2)" } else { "> $2)" });
            for (filter, n) in query.filters.iter().zip(0..) {
                let (path, value) = (4 + 2 * n, 5 + 2 * n);
                let compare = filter.compare.sql();
                // Texts byte by byte; jsonb itself compares them by the database's collation.
                let sides = match filter.value.is_string() {
                    true => format!(
                        "(data #>> ${path}::text[]) collate \"C\" {compare} (${value}::jsonb #>> '{{}}')"
                    ),
                    false => format!("data #> ${path}::text[] {compare} ${value}::jsonb"),
                };
                text.push_str(&format!(
                    " and jsonb_typeof(data #> ${path}::text[]) = jsonb_typeof(${value}::jsonb) \
                     and {sides}"
                ));
            }
            text.push_str(if query.descending { " order by id desc" } else { " order by id" });
            text.push_str(" limit $3");
            // The text is made of literals of this crate; values are only ever bound.
            let mut rows = sqlx::query(AssertSqlSafe(text))
                .persistent(false)
                .bind(projection)
                .bind(query.after.as_deref())
                .bind(counter(query.limit.min(MAX_LIST) as u64));
            for filter in &query.filters {
                rows = rows.bind(filter.path.clone()).bind(filter.value.to_string());
            }
            let rows = rows.fetch_all(self.database.pool()?).await;
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
                 where b.projection = $1 and b.state in (0, 1) order by b.id, c.name",
            )
            .bind(projection)
            .fetch_all(self.database.pool()?)
            .await;
            let progress = |row: &PgRow| {
                let name: &str = row.try_get(2)?;
                let partition = name.rsplit_once('/').and_then(|(_, number)| number.parse().ok());
                Ok(Progress {
                    build: row.try_get(0)?,
                    active: row.try_get::<i16, _>(1)? == 1,
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
            let names = sqlx::query_scalar(text).fetch_all(self.database.pool()?).await;
            self.read(names)
        }
        .boxed()
    }
}
