//! Documents in the log's own PostgreSQL database, for one node or many.
//!
//! A partition is claimed with a lease: another node takes it over when the lease has run out or
//! was given back, and epoch and owner keep the one before from writing, whatever it believes.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::{FutureExt, future::BoxFuture};
use sqlx::{PgConnection, Row as _, postgres::PgRow};

use super::builds::{self, Activation, Change, Found, Wanted};
use super::rows::{self, Columns, counter};
use super::{
    Build, Builds, Commit, Document, Documents, Parked, ParkedDocument, ParkedQuery, Progress,
    Read, Writer,
};
use crate::{
    store::claims::{Claims, postgres::PgClaims},
    store::postgres::PgDatabase,
    store::read_model::{ProjectionError, query::ListQuery},
};

mod put;
mod switch;
mod text;

/// [`Documents`] in the log's PostgreSQL database.
#[derive(Debug)]
pub struct PgDocuments {
    database: Arc<PgDatabase>,
    claims: Arc<PgClaims>,
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

impl Columns for PgRow {
    type Error = sqlx::Error;

    fn integer(&self, column: usize) -> sqlx::Result<i64> {
        self.try_get(column)
    }

    fn text(&self, column: usize) -> sqlx::Result<&str> {
        self.try_get(column)
    }
}

impl PgDocuments {
    /// Documents in an open database.
    #[must_use]
    pub fn new(database: Arc<PgDatabase>) -> Self {
        let tables = ("ms_framework.checkpoints", "ms_projections.projection_notes");
        let claims = PgClaims::in_tables(Arc::clone(&database), tables.0, tables.1);
        Self { claims: Arc::new(claims), database }
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

fn document(row: &PgRow) -> sqlx::Result<Document> {
    let json = |stored: &str| Bytes::from(text::read_json(stored).into_owned());
    rows::document(row, |id| text::read(id).into(), json)
}

fn plain(stored: &str) -> String {
    text::read(stored).into_owned()
}

fn fenced(writer: &Writer) -> ProjectionError {
    ProjectionError::Fenced { part: writer.part.to_string() }
}

impl Documents for PgDocuments {
    fn builds<'a>(
        &'a self,
        projection: &'a str,
        wanted: Wanted,
    ) -> BoxFuture<'a, Result<Builds, ProjectionError>> {
        async move {
            // Mostly nothing is to be done, and then nobody is made to wait.
            let found = self.look(projection).await?;
            if builds::decide(&found, wanted) == Change::default()
                && let Found { active: Some(active), building } = found
            {
                return Ok(Builds { active, building });
            }
            self.write(async move |connection| {
                let found = switch::locked(connection, projection).await?;
                let change = builds::decide(&found, wanted);
                let found = switch::change(connection, projection, found, change).await?;
                let Found { active: Some(active), building } = found else {
                    return Err(Failure::Sql(sqlx::Error::RowNotFound));
                };
                Ok(Builds { active, building })
            })
            .await
        }
        .boxed()
    }

    fn look<'a>(&'a self, projection: &'a str) -> BoxFuture<'a, Result<Found, ProjectionError>> {
        async move {
            let found = switch::find(self.database.pool()?, projection).await;
            self.read(found)
        }
        .boxed()
    }

    fn begin_build<'a>(
        &'a self,
        projection: &'a str,
        wanted: Wanted,
    ) -> BoxFuture<'a, Result<Build, ProjectionError>> {
        self.write(async move |connection| {
            let found = switch::locked(connection, projection).await?;
            let change = builds::rebuild(&found, wanted).map_err(|newer| {
                let (projection, version) = (projection.to_owned(), newer.version);
                Failure::Refused(ProjectionError::Newer { projection, version })
            })?;
            let found = switch::change(connection, projection, found, change).await?;
            found.building.ok_or(Failure::Sql(sqlx::Error::RowNotFound))
        })
        .boxed()
    }

    fn activate<'a>(
        &'a self,
        projection: &'a str,
        build: i64,
    ) -> BoxFuture<'a, Result<Activation, ProjectionError>> {
        self.write(async move |connection| {
            let found = switch::locked(connection, projection).await?;
            if let Err(known) = builds::is_candidate(&found, build) {
                return Ok(known);
            }
            let old = found.active.as_ref().map_or(0, |active| active.id);
            let compared = switch::compare(connection, build, old).await?;
            let may = builds::may_switch(compared);
            if may == Activation::Active {
                switch::retire(connection, old).await?;
                switch::activate(connection, build).await?;
            }
            Ok(may)
        })
        .boxed()
    }

    fn claims(&self) -> Arc<dyn Claims> {
        Arc::clone(&self.claims) as _
    }

    fn load<'a>(
        &'a self,
        build: i64,
        ids: &'a [Arc<str>],
    ) -> BoxFuture<'a, Result<Vec<Document>, ProjectionError>> {
        async move {
            let ids: Vec<_> = ids.iter().map(|id| text::stored(id)).collect();
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
            let done = async {
                let pool = self.database.pool()?;
                let parks = !(commit.park.is_empty() && commit.unpark.is_empty());
                if !parks && commit.again.is_none() {
                    return Ok(put::put(pool, &commit).await);
                }
                let mut transaction = match pool.begin().await {
                    Ok(transaction) => transaction,
                    Err(error) => return Ok(Err(error)),
                };
                if let Some((id, position)) = &commit.again {
                    let build = commit.writer.part.build;
                    match put::is_first(&mut transaction, build, id, *position).await {
                        Ok(true) => {}
                        Ok(false) => {
                            let (id, position) = (id.to_string(), *position);
                            return Err(ProjectionError::LeftOut { id, position });
                        }
                        Err(error) => return Ok(Err(error)),
                    }
                }
                let all = async {
                    let moved = put::put(&mut *transaction, &commit).await?;
                    if moved {
                        put::park(&mut transaction, &commit).await?;
                        transaction.commit().await?;
                    }
                    Ok(moved)
                };
                Ok::<_, ProjectionError>(all.await)
            };
            match done.await? {
                Ok(true) => Ok(()),
                Ok(false) => Err(fenced(&commit.writer)),
                Err(error) => match put::refusal(&error) {
                    Some(reason) => {
                        let part = commit.writer.part.to_string();
                        Err(ProjectionError::Refused { part, reason })
                    }
                    None => Err(self.database.fault(error).into()),
                },
            }
        }
        .boxed()
    }

    fn reset<'a>(
        &'a self,
        projection: &'a str,
        wanted: Wanted,
    ) -> BoxFuture<'a, Result<(), ProjectionError>> {
        self.write(async move |connection| {
            let found = switch::locked(connection, projection).await?;
            if found.active.is_none() {
                let projection = projection.to_owned();
                return Err(Failure::Refused(ProjectionError::Unknown { projection }));
            }
            // Another build in its place: its writers are fenced, and what was there is removed
            // bit by bit.
            let change = builds::reset(&found, wanted);
            switch::change(connection, projection, found, change).await?;
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
            Ok(switch::prune(connection, projection, counter(limit as u64)).await?)
        })
        .boxed()
    }

    fn parked<'a>(
        &'a self,
        build: i64,
        query: &'a ParkedQuery,
    ) -> BoxFuture<'a, Result<Vec<Parked>, ProjectionError>> {
        async move {
            let after = rows::parked_after(query);
            let rows = sqlx::query(
                "select id, position, attempts::int8, error from parked \
                  where build = $1 and ($2::text is null or id = $2) \
                    and ($3::text is null or (id, position) > ($3 collate \"C\", $4)) \
                  order by id, position limit $5",
            )
            .bind(build)
            .bind(query.id.as_deref().map(text::stored))
            .bind(after.map(|(id, _)| text::stored(id)))
            .bind(after.map(|(_, position)| position))
            .bind(rows::limit(query.limit))
            .fetch_all(self.database.pool()?)
            .await;
            self.read(
                rows.and_then(|rows| rows.iter().map(|row| rows::parked(row, plain)).collect()),
            )
        }
        .boxed()
    }

    fn parked_documents(
        &self,
        build: i64,
    ) -> BoxFuture<'_, Result<Vec<ParkedDocument>, ProjectionError>> {
        async move {
            let rows = sqlx::query(
                "select id, count(*), (array_agg(attempts order by position))[1]::int8 \
                   from parked where build = $1 group by id order by id",
            )
            .bind(build)
            .fetch_all(self.database.pool()?)
            .await;
            let one = |row: &PgRow| rows::parked_document(row, plain);
            self.read(rows.and_then(|rows| rows.iter().map(one).collect()))
        }
        .boxed()
    }

    fn retry<'a>(
        &'a self,
        build: i64,
        id: &'a str,
    ) -> BoxFuture<'a, Result<bool, ProjectionError>> {
        async move {
            let marked = sqlx::query(
                "update parked set attempts = 0, error = '' where build = $1 and id = $2 \
                 and position = (select min(position) from parked where build = $1 and id = $2)",
            )
            .bind(build)
            .bind(text::stored(id))
            .execute(self.database.pool()?)
            .await;
            Ok(self.read(marked)?.rows_affected() > 0)
        }
        .boxed()
    }

    fn skip<'a>(&'a self, build: i64, id: &'a str) -> BoxFuture<'a, Result<bool, ProjectionError>> {
        async move {
            let deleted = sqlx::query(
                "delete from parked where build = $1 and id = $2 and position = \
                 (select min(position) from parked where build = $1 and id = $2)",
            )
            .bind(build)
            .bind(text::stored(id))
            .execute(self.database.pool()?)
            .await;
            Ok(self.read(deleted)?.rows_affected() > 0)
        }
        .boxed()
    }

    fn get<'a>(
        &'a self,
        projection: &'a str,
        id: &'a str,
    ) -> BoxFuture<'a, Result<Read, ProjectionError>> {
        async move {
            let row = sqlx::query(
                "select d.id, d.data::text, d.position, b.id from projection_builds b \
                   left join documents d on d.build = b.id and d.id = $1 \
                  where b.projection = $2 and b.state = 1",
            )
            .bind(text::stored(id))
            .bind(text::stored(projection))
            .fetch_optional(self.database.pool()?)
            .await;
            let read = row.and_then(|row| match row {
                None => Ok(Read::default()),
                Some(row) => Ok(Read {
                    build: Some(row.integer(3)?),
                    document: match row.try_get::<Option<&str>, _>(0)? {
                        Some(_) => Some(document(&row)?),
                        None => None,
                    },
                }),
            });
            self.read(read)
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
            let rows = put::list(projection, query).fetch_all(self.database.pool()?).await;
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
                "select b.id, b.version, b.state::int8, c.name, c.position, c.owner \
                   from projection_builds b \
                   join checkpoints c on c.name like 'build ' || b.id || '/%' \
                  where b.projection = $1 and b.state in (0, 1) order by b.id, c.name",
            )
            .bind(text::stored(projection))
            .fetch_all(self.database.pool()?)
            .await;
            self.read(rows.and_then(|rows| rows.iter().map(rows::progress).collect()))
        }
        .boxed()
    }

    fn projections(&self) -> BoxFuture<'_, Result<Vec<String>, ProjectionError>> {
        async move {
            let text = "select distinct projection from projection_builds order by projection";
            let names = sqlx::query_scalar(text).fetch_all(self.database.pool()?).await;
            let names: Vec<String> = self.read(names)?;
            Ok(names.iter().map(|name| plain(name)).collect())
        }
        .boxed()
    }
}
