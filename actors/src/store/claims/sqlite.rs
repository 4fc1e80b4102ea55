//! Claims in the SQLite file. One process works on a file, so a claim is always granted and a
//! lease never matters; a name is held until its owner releases it or another takes it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::{AssertSqlSafe, Connection as _, Row as _};
use tokio::sync::Mutex;

use super::{
    Claim, ClaimError, Claimed, Claims, Fence, Found, Orders, Place, Request, Save, asked,
    count_deaths, parts,
};
use crate::event::Position;
use crate::store::read_model::Epoch;
use crate::store::sqlite::{Database, statement::saturated};

/// [`Claims`] in a SQLite file.
#[derive(Debug)]
pub struct SqliteClaims {
    database: Arc<Database>,
    followers: String,
    notes: String,
    /// Taken out for each write and put back after its commit.
    writer: Mutex<Option<SqliteConnection>>,
}

enum Failure {
    Refused(ClaimError),
    Sql(sqlx::Error),
}

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        Self::Sql(error)
    }
}

const COLUMNS: &str =
    "name, position, owner, epoch, paused, asked, heard, deaths, died_at, trying, tries";

fn place(row: &SqliteRow) -> sqlx::Result<(Place, u64)> {
    let number = |column: usize| row.try_get::<i64, _>(column).map(i64::cast_unsigned);
    let small = |column: usize| number(column).map(|n| u32::try_from(n).unwrap_or(u32::MAX));
    let owner = row.try_get::<&str, _>(2)?;
    let place = Place {
        name: row.try_get::<&str, _>(0)?.into(),
        position: Position::new(number(1)?),
        owner: owner.into(),
        held: !owner.is_empty(),
        paused: row.try_get(4)?,
        asked: number(5)?,
        heard: number(6)?,
        deaths: small(7)?,
        died_at: Position::new(number(8)?),
        trying: Position::new(number(9)?),
        tries: small(10)?,
    };
    Ok((place, number(3)?))
}

fn note(row: &SqliteRow) -> sqlx::Result<Found> {
    Ok((row.try_get::<&str, _>(0)?.into(), row.try_get::<Vec<u8>, _>(1)?.into()))
}

impl SqliteClaims {
    /// The claims of those that follow the log.
    #[must_use]
    pub fn new(database: Arc<Database>) -> Self {
        Self::in_tables(database, "followers", "follower_notes")
    }

    /// Claims in other tables of the same columns.
    #[must_use]
    pub fn in_tables(database: Arc<Database>, followers: &str, notes: &str) -> Self {
        let (followers, notes) = (followers.to_owned(), notes.to_owned());
        Self { database, followers, notes, writer: Mutex::new(None) }
    }

    async fn write<T>(
        &self,
        work: impl AsyncFnOnce(&mut SqliteConnection) -> Result<T, Failure>,
    ) -> Result<T, ClaimError> {
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
            Err(Failure::Sql(error)) => Err(self.fault(error)),
        }
    }

    fn fault(&self, error: sqlx::Error) -> ClaimError {
        self.database.fault(error).into()
    }

    async fn find(
        &self,
        executor: impl sqlx::SqliteExecutor<'_>,
        name: &str,
    ) -> sqlx::Result<Option<(Place, u64)>> {
        let text = format!("select {COLUMNS} from {} where name = ?", self.followers);
        let row = sqlx::query(AssertSqlSafe(text)).bind(name).fetch_optional(executor).await?;
        row.as_ref().map(place).transpose()
    }

    /// What was written under this claim, if it is the latest.
    async fn fenced(
        &self,
        connection: &mut SqliteConnection,
        fence: &Fence,
    ) -> Result<Place, Failure> {
        match self.find(connection, &fence.name).await? {
            Some((place, epoch)) if epoch == fence.epoch.get() && place.owner == fence.owner => {
                Ok(place)
            }
            _ => Err(Failure::Refused(ClaimError::Lost { name: fence.name.to_string() })),
        }
    }

    async fn put(
        &self,
        connection: &mut SqliteConnection,
        place: &Place,
        epoch: u64,
    ) -> sqlx::Result<()> {
        let text = format!(
            "insert or replace into {} ({COLUMNS}) values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            self.followers
        );
        sqlx::query(AssertSqlSafe(text))
            .bind(&*place.name)
            .bind(saturated(place.position.get()))
            .bind(&*place.owner)
            .bind(saturated(epoch))
            .bind(place.paused)
            .bind(saturated(place.asked))
            .bind(saturated(place.heard))
            .bind(i64::from(place.deaths))
            .bind(saturated(place.died_at.get()))
            .bind(saturated(place.trying.get()))
            .bind(i64::from(place.tries))
            .execute(connection)
            .await
            .map(drop)
    }

    async fn put_note(
        &self,
        connection: &mut SqliteConnection,
        name: &str,
        id: &str,
        data: Option<&Bytes>,
    ) -> sqlx::Result<()> {
        let text = match data {
            Some(_) => {
                format!("insert or replace into {} (name, id, data) values (?, ?, ?)", self.notes)
            }
            None => format!("delete from {} where name = ? and id = ?", self.notes),
        };
        let query = sqlx::query(AssertSqlSafe(text)).bind(name).bind(id);
        let query = match data {
            Some(data) => query.bind(data.to_vec()),
            None => query,
        };
        query.execute(connection).await.map(drop)
    }
}

impl Claims for SqliteClaims {
    fn claim<'a>(
        &'a self,
        name: &'a str,
        owner: &'a str,
        _: Duration,
    ) -> BoxFuture<'a, Result<Claimed, ClaimError>> {
        self.write(async move |connection| {
            let found = self.find(&mut *connection, name).await?;
            let (mut place, epoch) = found.unwrap_or_else(|| (Place::new(name.into()), 0));
            count_deaths(&mut place, owner);
            (place.owner, place.held) = (owner.into(), true);
            let epoch = epoch + 1;
            self.put(connection, &place, epoch).await?;
            let (name, owner) = (Arc::clone(&place.name), Arc::clone(&place.owner));
            let fence = Fence { name, owner, epoch: Epoch::new(epoch) };
            Ok(Claimed::Yes(Claim { fence, place }))
        })
        .boxed()
    }

    fn save<'a>(
        &'a self,
        fence: &'a Fence,
        save: Save,
    ) -> BoxFuture<'a, Result<Orders, ClaimError>> {
        self.write(async move |connection| {
            let mut place = self.fenced(connection, fence).await?;
            place.apply(&save);
            self.put(connection, &place, fence.epoch.get()).await?;
            for (id, data) in &save.notes {
                self.put_note(connection, &fence.name, id, data.as_ref()).await?;
            }
            Ok(Orders { paused: place.paused, asked: place.asked })
        })
        .boxed()
    }

    fn release<'a>(&'a self, fence: &'a Fence) -> BoxFuture<'a, Result<(), ClaimError>> {
        self.write(async move |connection| {
            let Ok(mut place) = self.fenced(connection, fence).await else { return Ok(()) };
            place.owner = "".into();
            Ok(self.put(connection, &place, fence.epoch.get()).await?)
        })
        .boxed()
    }

    fn place<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Option<Place>, ClaimError>> {
        async move {
            let found = self.find(self.database.readers()?, name).await;
            found.map(|found| found.map(|(place, _)| place)).map_err(|error| self.fault(error))
        }
        .boxed()
    }

    fn places(&self) -> BoxFuture<'_, Result<Vec<Place>, ClaimError>> {
        async move {
            let text = format!("select {COLUMNS} from {} order by name", self.followers);
            let rows = sqlx::query(AssertSqlSafe(text)).fetch_all(self.database.readers()?).await;
            let read = |rows: Vec<SqliteRow>| rows.iter().map(|row| Ok(place(row)?.0)).collect();
            rows.and_then(read).map_err(|error| self.fault(error))
        }
        .boxed()
    }

    fn notes<'a>(
        &'a self,
        name: &'a str,
        after: &'a str,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<Found>, ClaimError>> {
        async move {
            let text = format!(
                "select id, data from {} where name = ? and id > ? order by id limit ?",
                self.notes
            );
            let rows = sqlx::query(AssertSqlSafe(text))
                .bind(name)
                .bind(after)
                .bind(saturated(limit as u64))
                .fetch_all(self.database.readers()?)
                .await;
            rows.and_then(|rows| rows.iter().map(note).collect()).map_err(|error| self.fault(error))
        }
        .boxed()
    }

    fn note<'a>(
        &'a self,
        name: &'a str,
        id: &'a str,
    ) -> BoxFuture<'a, Result<Option<Bytes>, ClaimError>> {
        async move {
            let text = format!("select id, data from {} where name = ? and id = ?", self.notes);
            let row = sqlx::query(AssertSqlSafe(text))
                .bind(name)
                .bind(id)
                .fetch_optional(self.database.readers()?)
                .await;
            let row = row.and_then(|row| row.as_ref().map(note).transpose());
            Ok(row.map_err(|error| self.fault(error))?.map(|(_, data)| data))
        }
        .boxed()
    }

    fn ask<'a>(
        &'a self,
        name: &'a str,
        request: Request,
    ) -> BoxFuture<'a, Result<u64, ClaimError>> {
        self.write(async move |connection| {
            let Some((mut place, epoch)) = self.find(&mut *connection, name).await? else {
                return Err(Failure::Refused(ClaimError::Unknown { name: name.to_owned() }));
            };
            place.asked += 1;
            let (paused, note) = parts(request);
            place.paused = paused.unwrap_or(place.paused);
            self.put(connection, &place, epoch).await?;
            if let Some(note) = note {
                self.put_note(connection, name, &asked(place.asked), Some(&note)).await?;
            }
            Ok(place.asked)
        })
        .boxed()
    }
}
