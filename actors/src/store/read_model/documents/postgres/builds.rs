//! Builds: begun, found, and taken out of use.

use sqlx::{PgConnection, Row as _};

use super::super::{Build, Part};

pub(super) async fn find_builds(
    connection: &mut PgConnection,
    projection: &str,
) -> sqlx::Result<(Option<Build>, Option<Build>)> {
    // One change of a projection's builds at a time, from however many nodes.
    sqlx::query("select pg_advisory_xact_lock(hashtextextended('projection ' || $1, 0))")
        .bind(projection)
        .execute(&mut *connection)
        .await?;
    let rows = sqlx::query(
        "select id, version, partitions, state from projection_builds \
         where projection = $1 and state in (0, 1)",
    )
    .bind(projection)
    .fetch_all(connection)
    .await?;
    let mut found = (None, None);
    for row in &rows {
        let build = Build {
            id: row.try_get(0)?,
            version: u32::try_from(row.try_get::<i64, _>(1)?).unwrap_or(u32::MAX),
            partitions: u16::try_from(row.try_get::<i32, _>(2)?).unwrap_or(u16::MAX),
        };
        match row.try_get::<i16, _>(3)? {
            1 => found.0 = Some(build),
            _ => found.1 = Some(build),
        }
    }
    Ok(found)
}

pub(super) async fn make_build(
    connection: &mut PgConnection,
    projection: &str,
    version: u32,
    partitions: u16,
    state: i16,
) -> sqlx::Result<Build> {
    let id = sqlx::query_scalar(
        "insert into projection_builds (projection, version, partitions, state) \
         values ($1, $2, $3, $4) returning id",
    )
    .bind(projection)
    .bind(i64::from(version))
    .bind(i32::from(partitions))
    .bind(state)
    .fetch_one(&mut *connection)
    .await?;
    // There from the start, so that a partition nobody has claimed yet counts as not begun.
    let names: Vec<_> =
        (0..partitions).map(|partition| Part { build: id, partition }.checkpoint()).collect();
    sqlx::query(
        "insert into checkpoints (name, position, owner, epoch) \
         select name, 0, '', 0 from unnest($1::text[]) name",
    )
    .bind(names)
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
        .bind(format!("build {build}/%"))
        .execute(connection)
        .await?;
    Ok(())
}
