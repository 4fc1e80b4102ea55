//! What the columns of a row mean, for every adapter alike.

use super::builds::{Found, Role};
use super::{Build, Document, Parked, ParkedDocument, ParkedQuery, Part, Progress};
use crate::event::Position;
use crate::store::read_model::query::MAX_LIST;

/// A row of integers of 64 bits and texts, by the number of the column.
pub(super) trait Columns {
    type Error;

    fn integer(&self, column: usize) -> Result<i64, Self::Error>;
    fn text(&self, column: usize) -> Result<&str, Self::Error>;
}

/// The states of a build in use.
const BUILDING: i64 = 0;
const ACTIVE: i64 = 1;

/// The state of a build that is begun for this.
pub(super) const fn state_of(role: Role) -> i64 {
    match role {
        Role::Active => ACTIVE,
        Role::Building => BUILDING,
    }
}

fn position<R: Columns>(row: &R, column: usize) -> Result<Position, R::Error> {
    Ok(Position::new(row.integer(column)?.cast_unsigned()))
}

/// Rows of `id, version, partitions, state` of the builds in use.
pub(super) fn found<'a, R: Columns + 'a>(
    rows: impl IntoIterator<Item = &'a R>,
) -> Result<Found, R::Error> {
    let mut found = Found::default();
    for row in rows {
        let build = Build {
            id: row.integer(0)?,
            version: u32::try_from(row.integer(1)?).unwrap_or(u32::MAX),
            partitions: u16::try_from(row.integer(2)?).unwrap_or(u16::MAX),
        };
        let role = if row.integer(3)? == ACTIVE { Role::Active } else { Role::Building };
        found.put(role, build);
    }
    Ok(found)
}

/// A row of `id, data, position`, as its adapter reads texts.
pub(super) fn document<R: Columns>(
    row: &R,
    id: impl Fn(&str) -> std::sync::Arc<str>,
    json: impl Fn(&str) -> bytes::Bytes,
) -> Result<Document, R::Error> {
    Ok(Document { id: id(row.text(0)?), data: json(row.text(1)?), position: position(row, 2)? })
}

/// A row of `id, position, attempts, error`.
pub(super) fn parked<R: Columns>(
    row: &R,
    text: impl Fn(&str) -> String,
) -> Result<Parked, R::Error> {
    Ok(Parked {
        id: text(row.text(0)?).into(),
        position: position(row, 1)?,
        attempts: u32::try_from(row.integer(2)?).unwrap_or_default(),
        error: text(row.text(3)?),
    })
}

/// A row of `id, events, attempts of the first`.
pub(super) fn parked_document<R: Columns>(
    row: &R,
    text: impl Fn(&str) -> String,
) -> Result<ParkedDocument, R::Error> {
    Ok(ParkedDocument {
        id: text(row.text(0)?).into(),
        events: row.integer(1)?.cast_unsigned(),
        due: row.integer(2)? == 0,
    })
}

/// A row of `build, version, state, name of the checkpoint, position, owner`.
pub(super) fn progress<R: Columns>(row: &R) -> Result<Progress, R::Error> {
    let partition = row.text(3)?.rsplit_once('/').and_then(|(_, number)| number.parse().ok());
    Ok(Progress {
        build: row.integer(0)?,
        version: u32::try_from(row.integer(1)?).unwrap_or(u32::MAX),
        active: row.integer(2)? == ACTIVE,
        partition: partition.unwrap_or_default(),
        position: position(row, 4)?,
        owner: row.text(5)?.to_owned(),
    })
}

/// A number as databases have it.
pub(super) fn counter(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// A limit as databases have it: never more than [`MAX_LIST`].
pub(super) fn limit(limit: usize) -> i64 {
    counter(limit.min(MAX_LIST) as u64)
}

/// The names of a build's checkpoints, as a pattern of `like`.
pub(super) fn checkpoints_of(build: i64) -> String {
    format!("build {build}/%")
}

/// The names of the checkpoints that a new build begins with: they are there from the start, so
/// that a partition nobody has claimed yet counts as not begun.
pub(super) fn checkpoints(build: i64, partitions: u16) -> Vec<String> {
    (0..partitions).map(|partition| Part { build, partition }.checkpoint()).collect()
}

/// Behind which event a page of parked ones begins: that of a document, and its position.
pub(super) fn parked_after(query: &ParkedQuery) -> Option<(&str, i64)> {
    query.after.as_ref().map(|(id, position)| (&**id, counter(position.get())))
}
