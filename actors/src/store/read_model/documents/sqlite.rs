//! Documents in the log's own SQLite file.
//!
//! They are written on a connection of their own, in turn with the log's writer. Leaving the two
//! to SQLite's busy handler, which polls with growing sleeps, gave the same rate on disk but is
//! unfair: on a RAM disk one append waited 81 ms where waiting in turn took at most 27 ms.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::{FutureExt, future::BoxFuture};
use sqlx::{
    Connection as _, Row as _,
    sqlite::{SqliteConnection, SqliteRow},
};
use tokio::sync::Mutex;

use super::builds::{self, Activation, Found, Wanted};
use super::rows::{self, Columns};
use super::{
    Build, Builds, Commit, Document, Documents, Parked, ParkedDocument, ParkedQuery, Part,
    Progress, Read,
};
use crate::{
    store::claims::{Claims, sqlite::SqliteClaims},
    store::read_model::{ProjectionError, query::ListQuery},
    store::sqlite::{Database, statement::saturated},
};
use put::Statements;

mod put;
mod switch;

/// [`Documents`] in the log's SQLite file. One node works on a file, so a claim is always granted
/// and a lease never matters.
#[derive(Debug)]
pub struct SqliteDocuments {
    database: Arc<Database>,
    claims: Arc<SqliteClaims>,
    statements: Statements,
    /// Taken out for each write and put back after its commit, as in the store.
    writer: Mutex<Option<SqliteConnection>>,
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

impl Columns for SqliteRow {
    type Error = sqlx::Error;

    fn integer(&self, column: usize) -> sqlx::Result<i64> {
        self.try_get(column)
    }

    fn text(&self, column: usize) -> sqlx::Result<&str> {
        self.try_get(column)
    }
}

impl SqliteDocuments {
    /// Documents in an open database; take [`SqliteStore::database`] so that both writers wait for
    /// each other instead of polling.
    ///
    /// [`SqliteStore::database`]: crate::store::sqlite::SqliteStore::database
    pub fn new(database: Arc<Database>) -> Self {
        let claims =
            SqliteClaims::in_tables(Arc::clone(&database), "checkpoints", "projection_notes");
        let claims = Arc::new(claims);
        Self { database, claims, statements: Statements::default(), writer: Mutex::new(None) }
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

fn document(row: &SqliteRow) -> sqlx::Result<Document> {
    rows::document(row, |id| Arc::from(id), |json| Bytes::copy_from_slice(json.as_bytes()))
}

fn fenced(part: Part) -> Failure {
    Failure::Refused(ProjectionError::Fenced { part: part.to_string() })
}

impl Documents for SqliteDocuments {
    fn builds<'a>(
        &'a self,
        projection: &'a str,
        wanted: Wanted,
    ) -> BoxFuture<'a, Result<Builds, ProjectionError>> {
        self.write(async move |connection| {
            let found = switch::find(&mut *connection, projection).await?;
            let change = builds::decide(&found, wanted);
            let found = switch::change(connection, projection, found, change).await?;
            let Found { active: Some(active), building } = found else {
                return Err(Failure::Sql(sqlx::Error::RowNotFound));
            };
            Ok(Builds { active, building })
        })
        .boxed()
    }

    fn look<'a>(&'a self, projection: &'a str) -> BoxFuture<'a, Result<Found, ProjectionError>> {
        async move {
            let found = switch::find(self.database.readers()?, projection).await;
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
            let found = switch::find(&mut *connection, projection).await?;
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
            let found = switch::find(&mut *connection, projection).await?;
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
        async move {
            let part = commit.writer.part;
            let done = self.write(async move |connection| {
                if !put::fence(connection, &commit).await? {
                    return Err(fenced(part));
                }
                if let Some((id, position)) = &commit.again
                    && !put::is_first(connection, part.build, id, *position).await?
                {
                    let (id, position) = (id.to_string(), *position);
                    return Err(Failure::Refused(ProjectionError::LeftOut { id, position }));
                }
                put::write(connection, &self.statements, &commit).await.map_err(|error| {
                    match put::refusal(&error) {
                        Some(reason) => Failure::Refused(ProjectionError::Refused {
                            part: part.to_string(),
                            reason,
                        }),
                        None => Failure::Sql(error),
                    }
                })
            });
            done.await
        }
        .boxed()
    }

    fn reset<'a>(
        &'a self,
        projection: &'a str,
        wanted: Wanted,
    ) -> BoxFuture<'a, Result<(), ProjectionError>> {
        self.write(async move |connection| {
            let found = switch::find(&mut *connection, projection).await?;
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
            Ok(switch::prune(connection, projection, saturated(limit as u64)).await?)
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
                "select id, position, attempts, error from parked \
                  where build = ?1 and (?2 is null or id = ?2) \
                    and (?3 is null or (id, position) > (?3, ?4)) \
                  order by id, position limit ?5",
            )
            .bind(build)
            .bind(query.id.as_deref())
            .bind(after.map(|(id, _)| id))
            .bind(after.map(|(_, position)| position))
            .bind(rows::limit(query.limit))
            .fetch_all(self.database.readers()?)
            .await;
            let one = |row: &SqliteRow| rows::parked(row, str::to_owned);
            self.read(rows.and_then(|rows| rows.iter().map(one).collect()))
        }
        .boxed()
    }

    fn parked_documents(
        &self,
        build: i64,
    ) -> BoxFuture<'_, Result<Vec<ParkedDocument>, ProjectionError>> {
        async move {
            let rows = sqlx::query(
                "select id, count(*), (select attempts from parked first where first.build = p.build \
                    and first.id = p.id order by position limit 1) \
                   from parked p where build = ? group by id order by id",
            )
            .bind(build)
            .fetch_all(self.database.readers()?)
            .await;
            let one = |row: &SqliteRow| rows::parked_document(row, str::to_owned);
            self.read(rows.and_then(|rows| rows.iter().map(one).collect()))
        }
        .boxed()
    }

    fn retry<'a>(
        &'a self,
        build: i64,
        id: &'a str,
    ) -> BoxFuture<'a, Result<bool, ProjectionError>> {
        self.write(async move |connection| {
            let marked = sqlx::query(
                "update parked set attempts = 0, error = '' where build = ?1 and id = ?2 \
                 and position = (select min(position) from parked where build = ?1 and id = ?2)",
            )
            .bind(build)
            .bind(id)
            .execute(connection)
            .await?;
            Ok(marked.rows_affected() > 0)
        })
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
    ) -> BoxFuture<'a, Result<Read, ProjectionError>> {
        async move {
            let row = sqlx::query(
                "select d.id, d.data, d.position, b.id from projection_builds b \
                   left join documents d on d.build = b.id and d.id = ? \
                  where b.projection = ? and b.state = 1",
            )
            .bind(id)
            .bind(projection)
            .fetch_optional(self.database.readers()?)
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
            let rows = put::list(projection, query).fetch_all(self.database.readers()?).await;
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
                "select b.id, b.version, b.state, c.name, c.position, c.owner \
                   from projection_builds b \
                   join checkpoints c on c.name like 'build ' || b.id || '/%' \
                  where b.projection = ? and b.state in (0, 1) order by b.id, c.name",
            )
            .bind(projection)
            .fetch_all(self.database.readers()?)
            .await;
            self.read(rows.and_then(|rows| rows.iter().map(rows::progress).collect()))
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
