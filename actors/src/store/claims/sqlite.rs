//! Claims in the SQLite file. One process works on a file, so a claim is always granted and a
//! lease never matters; a name is held until its owner releases it or another takes it.
//!
//! What is written is a job of the thread that writes the file, like an append: one hop, and no
//! second connection whose commits would take the pages of the first from its memory.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use rusqlite::{Connection, OptionalExtension, Row, params};

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
    texts: Arc<Texts>,
}

/// The statements, by the names of the tables.
#[derive(Debug)]
struct Texts {
    find: String,
    all: String,
    put: String,
    notes: String,
    note: String,
    put_note: String,
    remove_note: String,
}

const COLUMNS: &str =
    "name, position, owner, epoch, paused, asked, heard, deaths, died_at, trying, tries";

fn text<'a>(row: &'a Row<'_>, column: usize) -> rusqlite::Result<&'a str> {
    Ok(row.get_ref(column)?.as_str()?)
}

fn place(row: &Row<'_>) -> rusqlite::Result<(Place, u64)> {
    let number = |column: usize| row.get::<_, i64>(column).map(i64::cast_unsigned);
    let small = |column: usize| number(column).map(|n| u32::try_from(n).unwrap_or(u32::MAX));
    let owner = text(row, 2)?;
    let place = Place {
        name: text(row, 0)?.into(),
        position: Position::new(number(1)?),
        owner: owner.into(),
        held: !owner.is_empty(),
        paused: row.get(4)?,
        asked: number(5)?,
        heard: number(6)?,
        deaths: small(7)?,
        died_at: Position::new(number(8)?),
        trying: Position::new(number(9)?),
        tries: small(10)?,
    };
    Ok((place, number(3)?))
}

fn note(row: &Row<'_>) -> rusqlite::Result<Found> {
    Ok((text(row, 0)?.into(), row.get::<_, Vec<u8>>(1)?.into()))
}

impl Texts {
    fn of(followers: &str, notes: &str) -> Self {
        let values = "(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";
        Self {
            find: format!("select {COLUMNS} from {followers} where name = ?"),
            all: format!("select {COLUMNS} from {followers} order by name"),
            put: format!("insert or replace into {followers} ({COLUMNS}) values {values}"),
            notes: format!(
                "select id, data from {notes} where name = ? and id > ? order by id limit ?"
            ),
            note: format!("select id, data from {notes} where name = ? and id = ?"),
            put_note: format!("insert or replace into {notes} (name, id, data) values (?, ?, ?)"),
            remove_note: format!("delete from {notes} where name = ? and id = ?"),
        }
    }

    fn find(&self, connection: &Connection, name: &str) -> rusqlite::Result<Option<(Place, u64)>> {
        connection.prepare_cached(&self.find)?.query_row([name], place).optional()
    }

    /// What was written under this claim, if it is the latest.
    fn fenced(&self, connection: &Connection, fence: &Fence) -> rusqlite::Result<Option<Place>> {
        let found = self.find(connection, &fence.name)?;
        let ours = |(place, epoch): &(Place, u64)| {
            *epoch == fence.epoch.get() && place.owner == fence.owner
        };
        Ok(found.filter(ours).map(|(place, _)| place))
    }

    fn put(&self, connection: &Connection, place: &Place, epoch: u64) -> rusqlite::Result<()> {
        let mut put = connection.prepare_cached(&self.put)?;
        put.execute(params![
            &*place.name,
            saturated(place.position.get()),
            &*place.owner,
            saturated(epoch),
            place.paused,
            saturated(place.asked),
            saturated(place.heard),
            place.deaths,
            saturated(place.died_at.get()),
            saturated(place.trying.get()),
            place.tries,
        ])
        .map(drop)
    }

    fn put_note(
        &self,
        connection: &Connection,
        name: &str,
        id: &str,
        data: Option<&Bytes>,
    ) -> rusqlite::Result<()> {
        let done = match data {
            Some(data) => {
                connection.prepare_cached(&self.put_note)?.execute(params![name, id, &data[..]])
            }
            None => connection.prepare_cached(&self.remove_note)?.execute([name, id]),
        };
        done.map(drop)
    }
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
        Self { database, texts: Arc::new(Texts::of(followers, notes)) }
    }

    /// Runs `work` in a transaction of its own, in turn with the appends.
    async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Texts, &Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, ClaimError> {
        let texts = Arc::clone(&self.texts);
        Ok(self.database.write(move |connection| work(&texts, connection)).await?)
    }

    async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Texts, &Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, ClaimError> {
        let texts = Arc::clone(&self.texts);
        Ok(self.database.read(move |connection| work(&texts, connection)).await?)
    }
}

impl Claims for SqliteClaims {
    fn claim<'a>(
        &'a self,
        name: &'a str,
        owner: &'a str,
        _: Duration,
    ) -> BoxFuture<'a, Result<Claimed, ClaimError>> {
        let (name, owner): (Arc<str>, Arc<str>) = (name.into(), owner.into());
        self.write(move |texts, connection| {
            let found = texts.find(connection, &name)?;
            let (mut place, epoch) = found.unwrap_or_else(|| (Place::new(name), 0));
            count_deaths(&mut place, &owner);
            (place.owner, place.held) = (owner, true);
            let epoch = epoch + 1;
            texts.put(connection, &place, epoch)?;
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
        async move {
            let shown = fence.clone();
            let saved = self.write(move |texts, connection| {
                let Some(mut place) = texts.fenced(connection, &shown)? else { return Ok(None) };
                place.apply(&save);
                texts.put(connection, &place, shown.epoch.get())?;
                for (id, data) in &save.notes {
                    texts.put_note(connection, &shown.name, id, data.as_ref())?;
                }
                Ok(Some(Orders { paused: place.paused, asked: place.asked }))
            });
            saved.await?.ok_or_else(|| ClaimError::Lost { name: fence.name.to_string() })
        }
        .boxed()
    }

    fn release<'a>(&'a self, fence: &'a Fence) -> BoxFuture<'a, Result<(), ClaimError>> {
        let fence = fence.clone();
        self.write(move |texts, connection| {
            let Some(mut place) = texts.fenced(connection, &fence)? else { return Ok(()) };
            place.owner = "".into();
            texts.put(connection, &place, fence.epoch.get())
        })
        .boxed()
    }

    fn place<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Option<Place>, ClaimError>> {
        let name = name.to_owned();
        self.read(move |texts, connection| {
            Ok(texts.find(connection, &name)?.map(|(place, _)| place))
        })
        .boxed()
    }

    fn places(&self) -> BoxFuture<'_, Result<Vec<Place>, ClaimError>> {
        self.read(|texts, connection| {
            let mut all = connection.prepare_cached(&texts.all)?;
            let rows = all.query_map((), |row| place(row).map(|(place, _)| place))?;
            rows.collect()
        })
        .boxed()
    }

    fn notes<'a>(
        &'a self,
        name: &'a str,
        after: &'a str,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<Found>, ClaimError>> {
        let (name, after) = (name.to_owned(), after.to_owned());
        self.read(move |texts, connection| {
            let mut page = connection.prepare_cached(&texts.notes)?;
            let rows = page.query_map(params![name, after, saturated(limit as u64)], note)?;
            rows.collect()
        })
        .boxed()
    }

    fn note<'a>(
        &'a self,
        name: &'a str,
        id: &'a str,
    ) -> BoxFuture<'a, Result<Option<Bytes>, ClaimError>> {
        let (name, id) = (name.to_owned(), id.to_owned());
        self.read(move |texts, connection| {
            let found = connection.prepare_cached(&texts.note)?.query_row([name, id], note);
            Ok(found.optional()?.map(|(_, data)| data))
        })
        .boxed()
    }

    fn ask<'a>(
        &'a self,
        name: &'a str,
        request: Request,
    ) -> BoxFuture<'a, Result<u64, ClaimError>> {
        async move {
            let asked_of = name.to_owned();
            let left = self.write(move |texts, connection| {
                let Some((mut place, epoch)) = texts.find(connection, &asked_of)? else {
                    return Ok(None);
                };
                place.asked += 1;
                let (paused, note) = parts(request);
                place.paused = paused.unwrap_or(place.paused);
                texts.put(connection, &place, epoch)?;
                if let Some(note) = note {
                    texts.put_note(connection, &asked_of, &asked(place.asked), Some(&note))?;
                }
                Ok(Some(place.asked))
            });
            left.await?.ok_or_else(|| ClaimError::Unknown { name: name.to_owned() })
        }
        .boxed()
    }
}
