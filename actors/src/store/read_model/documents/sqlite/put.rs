//! Documents and parked events: written, and asked for by their fields.

use std::sync::Arc;

use serde_json::Value;
use sqlx::{
    AssertSqlSafe, Sqlite,
    query::Query,
    sqlite::{SqliteArguments, SqliteConnection},
};

use super::super::{Commit, rows};
use crate::event::Position;
use crate::store::read_model::query::{Compare, Filter, ListQuery};
use crate::store::sqlite::statement::{Row, Sized, saturated};

/// The statements that write many rows.
#[derive(Debug)]
pub(super) struct Statements {
    put: Sized,
    park: Sized,
}

impl Default for Statements {
    fn default() -> Self {
        Self {
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
        }
    }
}

/// Moves the checkpoint, if the claim is the latest. Answers whether it was.
pub(super) async fn fence(
    connection: &mut SqliteConnection,
    commit: &Commit,
) -> sqlx::Result<bool> {
    let moved = sqlx::query(
        "update checkpoints set position = ?1 where name = ?2 and epoch = ?3 and owner = ?4 \
         and (?5 is null or position = ?5)",
    )
    .bind(saturated(commit.to.get()))
    .bind(commit.writer.part.checkpoint())
    .bind(saturated(commit.writer.epoch.get()))
    .bind(&*commit.writer.owner)
    .bind(commit.from.map(|from| saturated(from.get())))
    .execute(connection)
    .await?;
    Ok(moved.rows_affected() == 1)
}

/// Whether an event is the first that is parked of a document.
pub(super) async fn is_first(
    connection: &mut SqliteConnection,
    build: i64,
    id: &str,
    position: Position,
) -> sqlx::Result<bool> {
    let first: Option<i64> =
        sqlx::query_scalar("select min(position) from parked where build = ? and id = ?")
            .bind(build)
            .bind(id)
            .fetch_one(connection)
            .await?;
    Ok(first == Some(rows::counter(position.get())))
}

/// Writes documents and parked events.
pub(super) async fn write(
    connection: &mut SqliteConnection,
    statements: &Statements,
    commit: &Commit,
) -> sqlx::Result<()> {
    let build = commit.writer.part.build;
    let (kept, removed): (Vec<_>, Vec<_>) =
        commit.changes.iter().partition(|(_, data, _)| data.is_some());
    let put = |row: &mut Row, (id, data, position): &&super::super::Changed| {
        // JSON is UTF-8; it was made from text by this program.
        let text = data.as_deref().and_then(|data| std::str::from_utf8(data).ok());
        row.integer(build)
            .text(Arc::clone(id))
            .counter(position.get())
            .text(text.unwrap_or("null").into());
    };
    statements.put.write(connection, &kept, put).await?;
    for (id, ..) in removed {
        sqlx::query("delete from documents where build = ? and id = ?")
            .bind(build)
            .bind(Arc::clone(id))
            .execute(&mut *connection)
            .await?;
    }
    for (id, to) in &commit.unpark {
        sqlx::query("delete from parked where build = ? and id = ? and position <= ?")
            .bind(build)
            .bind(Arc::clone(id))
            .bind(saturated(to.get()))
            .execute(&mut *connection)
            .await?;
    }
    let park = |row: &mut Row, parked: &super::Parked| {
        row.integer(build)
            .text(Arc::clone(&parked.id))
            .counter(parked.position.get())
            .integer(i64::from(parked.attempts))
            .text(parked.error.as_str().into());
    };
    statements.park.write(connection, &commit.park, park).await
}

/// What SQLite says of data that it cannot hold, however often it is tried
/// (`SQLITE_TOOBIG`, <https://sqlite.org/rescode.html#toobig>).
pub(super) fn refusal(error: &sqlx::Error) -> Option<String> {
    let error = error.as_database_error()?;
    (error.code()? == "18").then(|| error.to_string())
}

/// `'$."a"."b"'`; the parts have no quotes, which [`ListQuery::check`] has seen to. Between quotes
/// SQLite reads escapes as JSON does.
fn path(filter: &Filter) -> String {
    filter
        .path
        .iter()
        .fold("$".to_owned(), |path, part| format!("{path}.\"{}\"", part.replace('\\', "\\\\")))
}

/// The JSON types of a value that is compared with, as SQLite calls them.
const fn types(value: &Value) -> &'static str {
    match value {
        Value::Number(_) => "('integer', 'real')",
        Value::String(_) => "('text')",
        Value::Bool(_) => "('true', 'false')",
        _ => "('null')",
    }
}

/// The statement of a list.
pub(super) fn list<'q>(
    projection: &'q str,
    query: &'q ListQuery,
) -> Query<'q, Sqlite, SqliteArguments> {
    let mut text = String::from(
        "select id, data, position from documents where build = \
         (select id from projection_builds where projection = ? and state = 1)",
    );
    for filter in &query.filters {
        text.push_str(&format!(" and json_type(data, ?) in {}", types(&filter.value)));
        match (&filter.value, filter.compare) {
            // One null is as good as another.
            (Value::Null, Compare::Lt | Compare::Gt) => text.push_str(" and false"),
            (Value::Null, _) => {}
            (_, compare) => {
                text.push_str(&format!(" and json_extract(data, ?) {} ?", compare.sql()));
            }
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
    rows.bind(rows::limit(query.limit))
}
