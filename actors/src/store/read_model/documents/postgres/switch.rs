//! Builds: found, begun, switched in, and taken out of use.

use sqlx::{PgConnection, postgres::PgRow};

use super::super::Build;
use super::super::builds::{Change, Compared, Found, Role, Wanted};
use super::super::rows::{self, Columns};
use super::text;

/// The builds in use.
pub(super) async fn find<'c>(
    executor: impl sqlx::PgExecutor<'c>,
    projection: &str,
) -> sqlx::Result<Found> {
    let found = sqlx::query(
        "select id, version, partitions::int8, state::int8 from projection_builds \
         where projection = $1 and state in (0, 1)",
    )
    .bind(text::stored(projection))
    .fetch_all(executor)
    .await?;
    rows::found(&found)
}

/// The builds in use, which nobody else changes until this transaction ends.
pub(super) async fn locked(connection: &mut PgConnection, projection: &str) -> sqlx::Result<Found> {
    sqlx::query("select pg_advisory_xact_lock(hashtextextended('projection ' || $1, 0))")
        .bind(text::stored(projection))
        .execute(&mut *connection)
        .await?;
    find(connection, projection).await
}

/// Does what was decided. Answers what there is then.
pub(super) async fn change(
    connection: &mut PgConnection,
    projection: &str,
    mut found: Found,
    change: Change,
) -> sqlx::Result<Found> {
    // Who has paused it has paused what is made in its place, too.
    let active = found.active.as_ref().map_or(0, |active| active.id);
    let paused = sqlx::query_scalar(
        "select coalesce(bool_or(paused), false) from checkpoints where name like $1",
    )
    .bind(rows::checkpoints_of(active))
    .fetch_one(&mut *connection)
    .await?;
    for build in change.retire.into_iter().flatten() {
        retire(connection, build).await?;
        found.remove(build);
    }
    if let Some((role, wanted)) = change.make {
        found.put(role, make(connection, projection, wanted, role, paused).await?);
    }
    Ok(found)
}

async fn make(
    connection: &mut PgConnection,
    projection: &str,
    Wanted { version, partitions }: Wanted,
    role: Role,
    paused: bool,
) -> sqlx::Result<Build> {
    let id = sqlx::query_scalar(
        "insert into projection_builds (projection, version, partitions, state) \
         values ($1, $2, $3, $4) returning id",
    )
    .bind(text::stored(projection))
    .bind(i64::from(version))
    .bind(i32::from(partitions))
    .bind(rows::state_of(role))
    .fetch_one(&mut *connection)
    .await?;
    sqlx::query(
        "insert into checkpoints (name, position, owner, epoch, paused) \
         select name, 0, '', 0, $2 from unnest($1::text[]) name",
    )
    .bind(rows::checkpoints(id, partitions))
    .bind(paused)
    .execute(connection)
    .await?;
    Ok(Build { id, version, partitions })
}

pub(super) async fn retire(connection: &mut PgConnection, build: i64) -> sqlx::Result<()> {
    sqlx::query("update projection_builds set state = 2 where id = $1")
        .bind(build)
        .execute(&mut *connection)
        .await?;
    sqlx::query("delete from checkpoints where name like $1")
        .bind(rows::checkpoints_of(build))
        .execute(connection)
        .await?;
    Ok(())
}

pub(super) async fn activate(connection: &mut PgConnection, build: i64) -> sqlx::Result<()> {
    sqlx::query("update projection_builds set state = 1 where id = $1")
        .bind(build)
        .execute(connection)
        .await?;
    Ok(())
}

/// How far a build and the one before it are, and what stands still in both. Their checkpoints are
/// locked, so that nobody moves one between the look and the switch.
pub(super) async fn compare(
    connection: &mut PgConnection,
    new: i64,
    old: i64,
) -> sqlx::Result<Compared> {
    let checkpoints = sqlx::query(
        "select (name like $1)::int::int8, position from checkpoints \
         where name like $1 or name like $2 order by name for update",
    )
    .bind(rows::checkpoints_of(new))
    .bind(rows::checkpoints_of(old))
    .fetch_all(&mut *connection)
    .await?;
    let mut compared = Compared { reached: u64::MAX, wanted: 0, parked: 0, parked_before: 0 };
    for row in &checkpoints {
        let position = row.integer(1)?.cast_unsigned();
        match row.integer(0)? {
            0 => compared.wanted = compared.wanted.max(position),
            _ => compared.reached = compared.reached.min(position),
        }
    }
    let parked: PgRow = sqlx::query(
        "select count(distinct id) filter (where build = $1), \
                count(distinct id) filter (where build = $2) \
           from parked where build in ($1, $2)",
    )
    .bind(new)
    .bind(old)
    .fetch_one(connection)
    .await?;
    compared.parked = parked.integer(0)?.cast_unsigned();
    compared.parked_before = parked.integer(1)?.cast_unsigned();
    Ok(compared)
}

/// Removes some of what is no longer read. Answers whether there was any.
pub(super) async fn prune(
    connection: &mut PgConnection,
    projection: &str,
    limit: i64,
) -> sqlx::Result<bool> {
    let retired: Option<i64> = sqlx::query_scalar(
        "select id from projection_builds where projection = $1 and state = 2 limit 1",
    )
    .bind(text::stored(projection))
    .fetch_optional(&mut *connection)
    .await?;
    let Some(build) = retired else {
        // Whoever waited for a claim may have got it since: on a build that is gone.
        for text in [
            "delete from checkpoints where name like 'build %' and not exists \
             (select from projection_builds b where checkpoints.name like 'build ' || b.id || '/%')",
            "delete from projection_notes where not exists \
             (select from checkpoints c where c.name = projection_notes.name)",
        ] {
            sqlx::query(text).execute(&mut *connection).await?;
        }
        return Ok(false);
    };
    let deleted = sqlx::query(
        "delete from documents where build = $1 and id in \
         (select id from documents where build = $1 limit $2)",
    )
    .bind(build)
    .bind(limit)
    .execute(&mut *connection)
    .await?
    .rows_affected();
    if rows::counter(deleted) < limit {
        for text in
            ["delete from parked where build = $1", "delete from projection_builds where id = $1"]
        {
            sqlx::query(text).bind(build).execute(&mut *connection).await?;
        }
        // A claim that was under way when it was retired has brought its place back.
        sqlx::query("delete from checkpoints where name like $1")
            .bind(rows::checkpoints_of(build))
            .execute(connection)
            .await?;
    }
    Ok(true)
}
