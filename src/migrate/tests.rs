use mister_smith_actors::store::{
    conformance,
    sqlite::{SqliteOptions, SqliteStore},
};
use tempfile::TempDir;

use super::*;

const A: Migration =
    Migration { version: 1, name: "0001_a", up: "create table a\n(x);", down: "drop table a;" };
const B: Migration =
    Migration { version: 2, name: "0002_b", up: "create table b (x);", down: "drop table b;" };
const C: Migration =
    Migration { version: 3, name: "0003_c", up: "create table c (x);", down: "drop table c;" };

async fn tables(path: &Path) -> Vec<String> {
    let mut connection = SqliteConnectOptions::new().filename(path).connect().await.unwrap();
    let names =
        sqlx::query_scalar("select name from sqlite_schema where type = 'table' order by name")
            .fetch_all(&mut connection)
            .await
            .unwrap();
    connection.close().await.unwrap();
    names
}

fn home() -> (TempDir, PathBuf) {
    let home = TempDir::new().unwrap();
    let path = home.path().join("data/smith.db");
    (home, path)
}

#[tokio::test]
async fn a_new_file_is_made_and_a_second_run_does_nothing() {
    let (_home, path) = home();
    let before = status(&path).await.unwrap();
    assert_eq!((before.version, before.newest), (0, 3));
    assert!(!path.exists(), "a look makes no file");

    let report = up(format!("sqlite://{}", path.display())).await.unwrap();
    assert!(report.created);
    assert_eq!((report.from, report.to), (0, 3));
    assert_eq!(
        report.applied,
        ["0001_event_store", "0002_stream_summaries", "0003_streams_and_snapshots"]
    );

    let again = up(&path).await.unwrap();
    assert!(!again.created);
    assert_eq!((again.from, again.to, again.applied.len()), (3, 3, 0));
    let status = status(&path).await.unwrap();
    assert_eq!(status.version, 3);
    assert!(status.migrations.iter().all(|line| line.applied.is_some()));
}

#[tokio::test]
async fn a_migrated_file_is_an_event_store() {
    let home = TempDir::new().unwrap();
    let made = std::sync::atomic::AtomicU32::new(0);
    Box::pin(conformance::run(async || {
        let number = made.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let path = home.path().join(format!("{number}.db"));
        up(&path).await.unwrap();
        SqliteStore::open(&path, SqliteOptions::default()).await.unwrap()
    }))
    .await;
}

#[tokio::test]
async fn the_way_down_is_stored_and_leads_back() {
    let (_home, path) = home();
    up(&path).await.unwrap();
    let mut connection = SqliteConnectOptions::new().filename(&path).connect().await.unwrap();
    let downs: Vec<String> =
        sqlx::query_scalar("select down from schema_migrations order by version desc")
            .fetch_all(&mut connection)
            .await
            .unwrap();
    for down in downs {
        sqlx::raw_sql(sqlx::AssertSqlSafe(down)).execute(&mut connection).await.unwrap();
    }
    connection.close().await.unwrap();
    assert_eq!(tables(&path).await, ["schema_migrations"]);
}

#[tokio::test]
async fn a_newer_database_is_refused_with_both_versions_and_the_cure() {
    let (_home, path) = home();
    apply(&path, &[A, B, C]).await.unwrap();
    for error in
        [apply(&path, &[A, B]).await.unwrap_err(), inspect(&path, &[A, B]).await.unwrap_err()]
    {
        let text = error.to_string();
        assert!(text.contains("smith.db is at version 3"), "{text}");
        assert!(text.contains("up to 2"), "{text}");
        assert!(
            text.ends_with("run a newer smith, or `smith migrate down --to 2` with the newer one"),
            "{text}"
        );
    }
}

#[tokio::test]
async fn a_changed_text_is_refused_by_its_file_name() {
    let (_home, path) = home();
    apply(&path, &[A, B]).await.unwrap();
    let edited = Migration { up: "create table a (x, y);", ..A };
    let error = apply(&path, &[edited, B, C]).await.unwrap_err();
    assert!(error.to_string().starts_with("migrations/sqlite/0001_a.up.sql changed"), "{error}");
    assert_eq!(tables(&path).await, ["a", "b", "schema_migrations"]);
    let crlf = Migration { up: "create table a\r\n(x);", ..A };
    apply(&path, &[crlf, B, C]).await.unwrap();
}

#[tokio::test]
async fn a_number_added_late_is_refused() {
    let (_home, path) = home();
    apply(&path, &[A, C]).await.unwrap();
    let error = apply(&path, &[A, B, C]).await.unwrap_err();
    assert!(matches!(error, MigrateError::OutOfOrder { .. }), "{error}");
    assert!(error.to_string().contains("give it a number above 3"), "{error}");
}

#[tokio::test]
async fn a_failed_migration_leaves_the_database_as_it_was() {
    let (_home, path) = home();
    let broken = Migration { up: "create table b (x); create table a (x);", ..B };
    let error = apply(&path, &[A, broken]).await.unwrap_err();
    assert!(error.to_string().starts_with("migration 0002_b failed"), "{error}");
    assert_eq!(tables(&path).await, ["a", "schema_migrations"]);
    assert_eq!(inspect(&path, &[A, B]).await.unwrap().version, 1);
    assert_eq!(apply(&path, &[A, B]).await.unwrap().applied, ["0002_b"]);
}

#[tokio::test]
async fn two_at_once_apply_each_migration_once() {
    let (_home, path) = home();

    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    apply(&path, &[]).await.unwrap();
    let (one, two) = tokio::join!(apply(&path, &[A, B, C]), apply(&path, &[A, B, C]));
    assert_eq!(one.unwrap().applied.len() + two.unwrap().applied.len(), 3);
}

#[tokio::test]
async fn what_cannot_be_opened_says_where_and_what_to_do() {
    let home = TempDir::new().unwrap();
    let file = home.path().join("file");
    std::fs::write(&file, "dear diary, ".repeat(1000)).unwrap();
    let error = up(&file).await.unwrap_err();
    assert!(error.to_string().contains("is not a database"), "{error}");
    let error = up(file.join("below.db")).await.unwrap_err();
    assert!(error.to_string().contains("below.db"), "{error}");
    assert!(error.to_string().contains("or give another path"), "{error}");
    let error = up(home.path()).await.unwrap_err();
    assert!(matches!(error, MigrateError::Open { .. }), "{error}");
}
