//! Builds: found, begun, switched in, and taken out of use.

use sqlx::sqlite::{SqliteConnection, SqliteExecutor, SqliteRow};

use super::super::Build;
use super::super::builds::{Change, Compared, Found, Role, Wanted};
use super::super::rows::{self, Columns};

/// The builds in use.
pub(super) async fn find<'c>(
    executor: impl SqliteExecutor<'c>,
    projection: &str,
) -> sqlx::Result<Found> {
    let found = sqlx::query(
        "select id, version, partitions, state from projection_builds \
         where projection = ? and state in (0, 1)",
    )
    .bind(projection)
    .fetch_all(executor)
    .await?;
    rows::found(&found)
}

/// Does what was decided. Answers what there is then.
pub(super) async fn change(
    connection: &mut SqliteConnection,
    projection: &str,
    mut found: Found,
    change: Change,
) -> sqlx::Result<Found> {
    // Who has paused it has paused what is made in its place, too.
    let active = found.active.as_ref().map_or(0, |active| active.id);
    let paused =
        sqlx::query_scalar("select coalesce(max(paused), 0) from checkpoints where name like ?")
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
    connection: &mut SqliteConnection,
    projection: &str,
    Wanted { version, partitions }: Wanted,
    role: Role,
    paused: i64,
) -> sqlx::Result<Build> {
    let id = sqlx::query_scalar(
        "insert into projection_builds (projection, version, partitions, state) \
         values (?, ?, ?, ?) returning id",
    )
    .bind(projection)
    .bind(version)
    .bind(partitions)
    .bind(rows::state_of(role))
    .fetch_one(&mut *connection)
    .await?;
    for name in rows::checkpoints(id, partitions) {
        sqlx::query(
            "insert into checkpoints (name, position, owner, epoch, paused) \
             values (?, 0, '', 0, ?)",
        )
        .bind(name)
        .bind(paused)
        .execute(&mut *connection)
        .await?;
    }
    Ok(Build { id, version, partitions })
}

pub(super) async fn retire(connection: &mut SqliteConnection, build: i64) -> sqlx::Result<()> {
    sqlx::query("update projection_builds set state = 2 where id = ?")
        .bind(build)
        .execute(&mut *connection)
        .await?;
    sqlx::query("delete from checkpoints where name like ?")
        .bind(rows::checkpoints_of(build))
        .execute(connection)
        .await?;
    Ok(())
}

pub(super) async fn activate(connection: &mut SqliteConnection, build: i64) -> sqlx::Result<()> {
    sqlx::query("update projection_builds set state = 1 where id = ?")
        .bind(build)
        .execute(connection)
        .await?;
    Ok(())
}

/// How far a build and the one before it are, and what stands still in both.
pub(super) async fn compare(
    connection: &mut SqliteConnection,
    new: i64,
    old: i64,
) -> sqlx::Result<Compared> {
    let row: SqliteRow = sqlx::query(
        "select (select min(position) from checkpoints where name like ?1), \
                (select max(position) from checkpoints where name like ?2), \
                (select count(distinct id) from parked where build = ?3), \
                (select count(distinct id) from parked where build = ?4)",
    )
    .bind(rows::checkpoints_of(new))
    .bind(rows::checkpoints_of(old))
    .bind(new)
    .bind(old)
    .fetch_one(connection)
    .await?;
    Ok(Compared {
        reached: row.integer(0)?.cast_unsigned(),
        wanted: row.integer(1)?.cast_unsigned(),
        parked: row.integer(2)?.cast_unsigned(),
        parked_before: row.integer(3)?.cast_unsigned(),
    })
}

/// Removes some of what is no longer read. Answers whether there was any.
pub(super) async fn prune(
    connection: &mut SqliteConnection,
    projection: &str,
    limit: i64,
) -> sqlx::Result<bool> {
    let retired: Option<i64> = sqlx::query_scalar(
        "select id from projection_builds where projection = ? and state = 2 limit 1",
    )
    .bind(projection)
    .fetch_optional(&mut *connection)
    .await?;
    let Some(build) = retired else {
        // Whoever waited for a claim may have got it since: on a build that is gone.
        for text in [
            "delete from checkpoints where name like 'build %' and not exists \
             (select 1 from projection_builds b where checkpoints.name like 'build ' || b.id || '/%')",
            "delete from projection_notes where not exists \
             (select 1 from checkpoints c where c.name = projection_notes.name)",
        ] {
            sqlx::query(text).execute(&mut *connection).await?;
        }
        return Ok(false);
    };
    let deleted = sqlx::query(
        "delete from documents where build = ?1 and id in \
         (select id from documents where build = ?1 limit ?2)",
    )
    .bind(build)
    .bind(limit)
    .execute(&mut *connection)
    .await?
    .rows_affected();
    if rows::counter(deleted) < limit {
        for text in
            ["delete from parked where build = ?", "delete from projection_builds where id = ?"]
        {
            sqlx::query(text).bind(build).execute(&mut *connection).await?;
        }
        // A claim that was under way when it was retired has brought its place back.
        sqlx::query("delete from checkpoints where name like ?")
            .bind(rows::checkpoints_of(build))
            .execute(connection)
            .await?;
    }
    Ok(true)
}
