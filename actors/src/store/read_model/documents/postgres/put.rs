//! Documents and parked events: written, and asked for by their fields.

use sqlx::{AssertSqlSafe, PgConnection, Postgres, postgres::PgArguments, query::Query};

use super::super::Commit;
use super::super::rows::{self, counter};
use super::text;
use crate::event::Position;
use crate::store::read_model::query::ListQuery;

/// One statement: the checkpoint moves if the claim is the latest, and the documents with it.
const PUT: &str = "\
with moved as ( \
    update checkpoints set position = $1, \
           lease_until = clock_timestamp() + $4 * interval '1 ms' \
     where name = $2 and epoch = $3 and owner = $10 and ($11::int8 is null or position = $11) \
     returning 1 \
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
pub(super) async fn put<'c>(
    executor: impl sqlx::PgExecutor<'c>,
    commit: &Commit,
) -> sqlx::Result<bool> {
    let (mut ids, mut texts, mut positions, mut removed) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (id, data, position) in &commit.changes {
        match data {
            None => removed.push(text::stored(id)),
            Some(data) => {
                ids.push(text::stored(id));
                // JSON is UTF-8; it was made from text by this program.
                texts.push(text::stored_json(std::str::from_utf8(data).unwrap_or("null")));
                positions.push(counter(position.get()));
            }
        }
    }
    let moved: i64 = sqlx::query_scalar(PUT)
        .bind(counter(commit.to.get()))
        .bind(commit.writer.part.checkpoint())
        .bind(counter(commit.writer.epoch.get()))
        .bind(commit.lease.as_secs_f64() * 1e3)
        .bind(commit.writer.part.build)
        .bind(ids)
        .bind(positions)
        .bind(texts)
        .bind(removed)
        .bind(&*commit.writer.owner)
        .bind(commit.from.map(|from| counter(from.get())))
        .fetch_one(executor)
        .await?;
    Ok(moved == 1)
}

/// Whether an event is the first that is parked of a document. Nobody leaves it out then before
/// this transaction has ended.
pub(super) async fn is_first(
    connection: &mut PgConnection,
    build: i64,
    id: &str,
    position: Position,
) -> sqlx::Result<bool> {
    let first: Option<i64> = sqlx::query_scalar(
        "select position from parked where build = $1 and id = $2 \
          order by position limit 1 for update",
    )
    .bind(build)
    .bind(text::stored(id))
    .fetch_optional(connection)
    .await?;
    Ok(first == Some(counter(position.get())))
}

/// Writes what is parked, and removes what no longer is.
pub(super) async fn park(connection: &mut PgConnection, commit: &Commit) -> sqlx::Result<()> {
    let build = commit.writer.part.build;
    if !commit.unpark.is_empty() {
        let ids: Vec<_> = commit.unpark.iter().map(|(id, _)| text::stored(id)).collect();
        let to: Vec<_> = commit.unpark.iter().map(|(_, to)| counter(to.get())).collect();
        sqlx::query(
            "delete from parked p using unnest($2::text[], $3::int8[]) d (id, position) \
             where p.build = $1 and p.id = d.id and p.position <= d.position",
        )
        .bind(build)
        .bind(ids)
        .bind(to)
        .execute(&mut *connection)
        .await?;
    }
    if commit.park.is_empty() {
        return Ok(());
    }
    let of = |parked: &super::Parked| i32::try_from(parked.attempts).unwrap_or(i32::MAX);
    let park = &commit.park;
    let ids: Vec<_> = park.iter().map(|parked| text::stored(&parked.id)).collect();
    let positions: Vec<_> = park.iter().map(|parked| counter(parked.position.get())).collect();
    let attempts: Vec<_> = park.iter().map(of).collect();
    let errors: Vec<_> = park.iter().map(|parked| text::stored(&parked.error)).collect();
    sqlx::query(
        "insert into parked (build, id, position, attempts, error) \
         select $1, p.* from unnest($2::text[], $3::int8[], $4::int4[], $5::text[]) p \
         on conflict (build, id, position) do update \
         set attempts = excluded.attempts, error = excluded.error",
    )
    .bind(build)
    .bind(ids)
    .bind(positions)
    .bind(attempts)
    .bind(errors)
    .execute(connection)
    .await?;
    Ok(())
}

/// What the server says of data that it cannot hold, however often it is tried: a data exception,
/// or a limit of the program (<https://www.postgresql.org/docs/15/errcodes-appendix.html>).
pub(super) fn refusal(error: &sqlx::Error) -> Option<String> {
    let error = error.as_database_error()?;
    let code = error.code()?;
    (code.starts_with("22") || code.starts_with("54")).then(|| format!("{error} ({code})"))
}

/// The statement of a list.
pub(super) fn list<'q>(
    projection: &'q str,
    query: &'q ListQuery,
) -> Query<'q, Postgres, PgArguments> {
    let mut sql = String::from(
        "select id, data::text, position from documents where build = \
         (select id from projection_builds where projection = $1 and state = 1) \
         and ($2::text is null or id ",
    );
    sql.push_str(if query.descending { "< $2)" } else { "> $2)" });
    let mut bound = 3;
    for filter in &query.filters {
        // Through the fields of objects only: a path would take a number for a place in a list.
        let field = filter.path.iter().fold("data".to_owned(), |field, _| {
            bound += 1;
            format!("{field} -> ${bound}::text")
        });
        bound += 1;
        let compare = filter.compare.sql();
        // Texts byte by byte; jsonb itself compares them by the database's collation.
        let sides = match filter.value.is_string() {
            true => format!(
                "(({field}) #>> '{{}}') collate \"C\" {compare} (${bound}::jsonb #>> '{{}}')"
            ),
            false => format!("({field}) {compare} ${bound}::jsonb"),
        };
        sql.push_str(&format!(
            " and jsonb_typeof({field}) = jsonb_typeof(${bound}::jsonb) and {sides}"
        ));
    }
    sql.push_str(if query.descending { " order by id desc" } else { " order by id" });
    sql.push_str(" limit $3");
    // The text is made of literals of this crate; values are only ever bound.
    let mut rows = sqlx::query(AssertSqlSafe(sql))
        .persistent(false)
        .bind(text::stored(projection))
        .bind(query.after.as_deref().map(text::stored))
        .bind(rows::limit(query.limit));
    for filter in &query.filters {
        for part in &filter.path {
            rows = rows.bind(text::stored(part));
        }
        rows = rows.bind(text::stored_json(&filter.value.to_string()).into_owned());
    }
    rows
}
