use mister_smith_actors::store::{
    conformance,
    sqlite::{SqliteOptions, SqliteStore},
};
use tempfile::TempDir;

use std::path::PathBuf;

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _};

use super::*;

/// `apply` and `inspect` of a file.
async fn apply(path: &Path, migrations: &[Migration]) -> Result<Report, MigrateError> {
    super::apply(&Target::of(path).unwrap(), migrations).await
}

async fn inspect(path: &Path, migrations: &[Migration]) -> Result<Status, MigrateError> {
    super::inspect(&Target::of(path).unwrap(), migrations).await
}

fn names(report: &Report) -> Vec<&str> {
    report.steps.iter().map(|step| &*step.name).collect()
}

const A: Migration =
    Migration { version: 1, name: "0001_a", up: "create table a\n(x);", down: "drop table a;" };
const B: Migration =
    Migration { version: 2, name: "0002_b", up: "create table b (x);", down: "drop table b;" };
const C: Migration =
    Migration { version: 3, name: "0003_c", up: "create table c (x);", down: "drop table c;" };

async fn tables(path: &Path) -> Vec<String> {
    let mut connection = SqliteConnectOptions::new().filename(path).connect().await.unwrap();
    let names = sqlx::query_scalar(
        "select name from sqlite_schema where type = 'table' \
             and name not like 'sqlite_%' order by name",
    )
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
    assert_eq!((before.version, before.newest), (0, 12));
    assert!(!path.exists(), "a look makes no file");

    let report = up(format!("sqlite://{}", path.display())).await.unwrap();
    assert!(report.created);
    assert_eq!((report.from, report.to), (0, 12));
    assert_eq!(
        names(&report),
        [
            "0001_event_store",
            "0002_stream_summaries",
            "0003_streams_and_snapshots",
            "0004_projections",
            "0006_messages",
            "0007_followers",
            "0008_request_keys",
            "0011_notes",
            "0012_timers"
        ]
    );
    let read_models = ["0001_documents", "0002_projection_claims"];
    assert_eq!(names(report.read_models.as_ref().unwrap()), read_models);

    let again = up(&path).await.unwrap();
    assert!(!again.created);
    assert_eq!((again.from, again.to, again.steps.len()), (12, 12, 0));
    let status = status(&path).await.unwrap();
    assert_eq!(status.version, 12);
    assert!(status.migrations.iter().all(|line| line.applied_at.is_some()));
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
    let report = down(&path, 0).await.unwrap();
    assert_eq!((report.from, report.to), (12, 0));
    assert_eq!(
        names(&report),
        [
            "0012_timers",
            "0011_notes",
            "0008_request_keys",
            "0007_followers",
            "0006_messages",
            "0004_projections",
            "0003_streams_and_snapshots",
            "0002_stream_summaries",
            "0001_event_store"
        ]
    );
    assert_eq!(tables(&path).await, ["schema_migrations"]);
    assert_eq!(up(&path).await.unwrap().steps.len(), 9);
}

async fn sql(path: &Path, text: &'static str) -> Vec<String> {
    let mut connection = SqliteConnectOptions::new().filename(path).connect().await.unwrap();
    let rows = sqlx::query_scalar(text).fetch_all(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    rows
}

/// Places of relays and consumers go on over the step in both directions: a place that is lost
/// sends, or handles, the whole log again.
#[tokio::test]
async fn places_in_the_log_move_with_the_tables_and_back() {
    let (_home, path) = home();
    let to = |version| texts::SQLITE.iter().filter(move |one| one.version <= version).copied();
    let (before_it, with_it) = (to(6).collect::<Vec<_>>(), to(7).collect::<Vec<_>>());
    apply(&path, &before_it).await.unwrap();
    for text in [
        "insert into projection_builds (id, projection, version, partitions, state) values \
         (7, '$relay.post', 1, 1, 1), (8, 'streams', 1, 1, 1), (9, '$sagas', 1, 1, 1)",
        "insert into checkpoints values ('build 7/0', 41, 'me', 5), ('build 8/0', 9, 'me', 1), \
         ('build 9/0', 0, 'me', 2)",
        "insert into documents values (7, 'marks', 41, '[{\"position\":41}]'), (8, 'd', 9, '{}')",
    ] {
        sql(&path, text).await;
    }
    let places = "select name || ' ' || position || ' ' || epoch from followers order by name";
    let marks = "select cast(data as text) from follower_notes where name = 'relay.post'";
    let before = "select b.projection || ' ' || c.position from projection_builds b \
                  join checkpoints c on c.name = 'build ' || b.id || '/0' order by 1";
    let documents = "select cast(data as text) from documents order by id";
    apply(&path, &with_it).await.unwrap();
    assert_eq!(sql(&path, places).await, ["relay.post 41 5", "sagas 0 2"]);
    assert_eq!(sql(&path, marks).await, ["[{\"position\":41}]"]);
    assert_eq!(sql(&path, before).await, ["streams 9"], "what is a projection stays one");
    assert_eq!(sql(&path, documents).await, ["{}"]);
    sql(&path, "update followers set position = 50 where name = 'relay.post'").await;
    down(&path, 6).await.unwrap();
    assert_eq!(sql(&path, before).await, ["$relay.post 50", "$sagas 0", "streams 9"]);
    assert_eq!(sql(&path, documents).await, ["{}", "[{\"position\":41}]"]);
    apply(&path, &with_it).await.unwrap();
    assert_eq!(sql(&path, places).await, ["relay.post 50 5", "sagas 0 2"]);
}

/// The program before had deadlines as notes, and has them again on the way down.
#[tokio::test]
async fn deadlines_are_notes_again_on_the_way_down() {
    let (_home, path) = home();
    up(&path).await.unwrap();
    let rows = r#"insert into timers (kind, name, due, at, payload, state, attempts, deaths, reason)
        values ('process.order', 'a/too late/00000000000000000007', 0, 0,
                cast('{"due":"2026-11-28T00:00:00Z","position":7,"name":"too late"}' as blob),
                0, 0, 0, ''),
               ('process.order', '%event/00000000000000000008', 0, 0,
                cast('{"due":"2026-11-28T00:00:00Z","position":8,"name":null}' as blob),
                0, 0, 0, ''),
               ('message', 'a', 0, 0, x'01', 0, 0, 0, '')"#;
    sql(&path, rows).await;
    down(&path, 11).await.unwrap();
    let notes = "select name || ' ' || id || ' ' || cast(data as text) from follower_notes";
    let note = "timers.order 00000000000000000007/too late \
                {\"due\":\"2026-11-28T00:00:00Z\",\"position\":7,\"name\":\"too late\"}";
    assert_eq!(sql(&path, notes).await, [note]);
}

/// A log with keys as the program before wrote them keeps its events and their keys, up and down.
#[tokio::test]
async fn keys_come_along_in_both_directions() {
    use mister_smith_actors::event::{Position, StreamId};
    use mister_smith_actors::store::{EventStore as _, ExpectedVersion, IdempotencyKey};
    let (_home, path) = home();
    let before = texts::SQLITE.iter().filter(|one| one.version < 7).copied().collect::<Vec<_>>();
    apply(&path, &before).await.unwrap();
    let mut connection = SqliteConnectOptions::new().filename(&path).connect().await.unwrap();
    let rows = "insert into event_types values (1, 'opened', 1);
        insert into streams (id, name, category, version, first_position, last_position)
            values (4, 'account-1', 'account', 3, 1, 3);
        insert into events values (1, 4, 1, 1, zeroblob(16), 0, 0, x'61', x''),
            (2, 4, 2, 1, zeroblob(16), 0, 0, x'62', x''), (3, 4, 3, 1, zeroblob(16), 0, 0, x'63', x'');
        insert into command_results values (x'0102030405060708090a0b0c0d0e0f10', 4, 3, 3, 2, 0);
        insert into projection_builds values (1, 'streams', 1, 1, 1);
        insert into documents values (1, 'account-1', 3, '{}');
        insert into checkpoints values ('build 1/0', 3, '', 1);
        update store_head set position = 3;";
    sqlx::raw_sql(rows).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();

    let key =
        IdempotencyKey::new(*b"\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f\x10");
    for _ in 0..2 {
        up(&path).await.unwrap();
        let store = SqliteStore::open(&path, SqliteOptions::default()).await.unwrap();
        let answer = store.answer(key).await.unwrap().expect("the key is known");
        assert_eq!(answer.stream, StreamId::new("account-1").unwrap());
        assert_eq!((answer.first_version.get(), answer.last_version.get()), (2, 3));
        let again = conformance::append("other", ExpectedVersion::Any, 0, 1);
        let again = mister_smith_actors::store::Append { key: Some(key), ..again };
        let outcome = store.append_batch([again].into()).await.unwrap().remove(0).unwrap();
        assert!(outcome.duplicate);
        assert_eq!(store.read_all(Position::ZERO, 10).await.unwrap().len(), 3);
        store.close().await;
        down(&path, 6).await.unwrap();
        let found = tables(&path).await;
        assert!(found.contains(&"command_results".to_owned()), "{found:?}");
        assert!(found.contains(&"documents".to_owned()), "{found:?}");
    }
}

/// Whoever deletes the file of read models gets it back, whatever the log's version.
#[tokio::test]
async fn a_file_of_read_models_that_was_deleted_is_made_again() {
    let (_home, path) = home();
    up(&path).await.unwrap();
    let beside = mister_smith_actors::store::sqlite::read_models_of(&path);
    assert_eq!(beside.file_name().unwrap(), "smith.read.db");
    std::fs::remove_file(&beside).unwrap();
    let status = status(&path).await.unwrap();
    assert_eq!(status.pending(), [""; 0]);
    assert_eq!(status.read_models.unwrap().pending(), ["0001_documents", "0002_projection_claims"]);
    let report = up(&path).await.unwrap();
    assert_eq!(report.steps.len(), 0);
    assert!(report.read_models.unwrap().created);
    std::fs::write(&beside, "dear diary, ".repeat(1000)).unwrap();
    let error = up(&path).await.unwrap_err().to_string();
    assert!(error.contains("smith.read.db is not a database"), "{error}");
    assert!(error.ends_with("and it is made again from the log"), "{error}");
}

#[tokio::test]
async fn what_going_down_would_lose_is_told_and_nothing_is_touched() {
    let (_home, path) = home();
    up(&path).await.unwrap();
    let losses = losses(&path, 4).await.unwrap();
    assert_eq!(losses.last().unwrap().name, "0006_messages");
    assert_eq!(losses.last().unwrap().tables, ["inbox", "outbox"]);
    assert_eq!(status(&path).await.unwrap().version, 12);
    let error = super::losses(&path, 2_000).await.unwrap_err();
    assert!(matches!(error, MigrateError::NoSuchVersion { .. }), "{error}");
}

#[tokio::test]
async fn down_goes_to_a_version_that_was_applied() {
    let (_home, path) = home();
    apply(&path, &[A, B, C]).await.unwrap();
    // Also what a newer program has applied: the texts are in the database.
    assert_eq!(names(&down(&path, 2).await.unwrap()), ["0003_c"]);
    assert_eq!(tables(&path).await, ["a", "b", "schema_migrations"]);
    assert_eq!(names(&down(&path, 2).await.unwrap()), [""; 0]);
    let error = down(&path, 7).await.unwrap_err();
    assert!(error.to_string().ends_with("is at version 2; it cannot go down to 7"), "{error}");
}

#[tokio::test]
async fn a_way_down_that_fails_leaves_the_database_as_it_was() {
    let (_home, path) = home();
    let broken = Migration { down: "drop table b; drop table nothing;", ..B };
    apply(&path, &[A, broken]).await.unwrap();
    let error = down(&path, 0).await.unwrap_err();
    assert!(error.to_string().starts_with("migration 0002_b failed"), "{error}");
    assert_eq!(tables(&path).await, ["a", "b", "schema_migrations"]);
    assert_eq!(inspect(&path, &[A, B]).await.unwrap().version, 2);
}

#[tokio::test]
async fn a_look_lists_all_that_is_wrong() {
    let (_home, path) = home();
    apply(&path, &[A, C]).await.unwrap();
    let edited = Migration { up: "create table a (x, y);", ..A };
    let status = inspect(&path, &[edited, B, C]).await.unwrap();
    assert_eq!(status.problems.len(), 2, "{:?}", status.problems);
    assert!(status.problems[0].starts_with("migrations/sqlite/0001_a.up.sql changed"));
    assert!(status.problems[1].starts_with("migrations/sqlite/0002_b.up.sql is pending"));
    assert_eq!(status.pending(), ["0002_b"]);
}

#[tokio::test]
async fn a_newer_database_is_refused_with_both_versions_and_the_cure() {
    let (_home, path) = home();
    apply(&path, &[A, B, C]).await.unwrap();
    let refused = apply(&path, &[A, B]).await.unwrap_err().to_string();
    let status = inspect(&path, &[A, B]).await.unwrap();
    assert_eq!(status.problems, [&*refused]);
    assert_eq!((status.version, status.migrations.len()), (3, 3));
    assert!(refused.contains("smith.db is at version 3"), "{refused}");
    assert!(refused.contains("up to 2"), "{refused}");
    assert!(
        refused.ends_with("run a newer smith, or go back with `smith migrate down --to 2`"),
        "{refused}"
    );
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
    assert_eq!(names(&apply(&path, &[A, B]).await.unwrap()), ["0002_b"]);
}

#[tokio::test]
async fn two_at_once_apply_each_migration_once() {
    let (_home, path) = home();

    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    apply(&path, &[]).await.unwrap();
    let (one, two) = tokio::join!(apply(&path, &[A, B, C]), apply(&path, &[A, B, C]));
    assert_eq!(one.unwrap().steps.len() + two.unwrap().steps.len(), 3);
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
