//! Builds: begun, found, and taken out of use.

use sqlx::{Row as _, sqlite::SqliteConnection};

use super::super::{Build, Part};

const BUILDS: &str = "select id, version, partitions, state from projection_builds \
     where projection = ? and state in (0, 1)";

pub(super) async fn find_builds(
    connection: &mut SqliteConnection,
    projection: &str,
) -> sqlx::Result<(Option<Build>, Option<Build>)> {
    let rows = sqlx::query(BUILDS).bind(projection).fetch_all(connection).await?;
    let mut found = (None, None);
    for row in &rows {
        let build =
            Build { id: row.try_get(0)?, version: row.try_get(1)?, partitions: row.try_get(2)? };
        match row.try_get::<i64, _>(3)? {
            1 => found.0 = Some(build),
            _ => found.1 = Some(build),
        }
    }
    Ok(found)
}

pub(super) async fn make_build(
    connection: &mut SqliteConnection,
    projection: &str,
    version: u32,
    partitions: u16,
    state: i64,
) -> sqlx::Result<Build> {
    let id = sqlx::query_scalar(
        "insert into projection_builds (projection, version, partitions, state) \
         values (?, ?, ?, ?) returning id",
    )
    .bind(projection)
    .bind(version)
    .bind(partitions)
    .bind(state)
    .fetch_one(&mut *connection)
    .await?;
    let build = Build { id, version, partitions };
    for partition in 0..partitions {
        // There from the start, so that a partition nobody has claimed yet counts as not begun.
        sqlx::query("insert into checkpoints (name, position, owner, epoch) values (?, 0, '', 0)")
            .bind(Part { build: id, partition }.checkpoint())
            .execute(&mut *connection)
            .await?;
    }
    Ok(build)
}

pub(super) async fn retire(connection: &mut SqliteConnection, build: i64) -> sqlx::Result<()> {
    sqlx::query("update projection_builds set state = 2 where id = ?")
        .bind(build)
        .execute(&mut *connection)
        .await?;
    sqlx::query("delete from checkpoints where name like ?")
        .bind(format!("build {build}/%"))
        .execute(connection)
        .await?;
    Ok(())
}
