//! Migrations on PostgreSQL; what the two databases share is tested on SQLite.

use std::sync::Arc;

use mister_smith::actors::store::read_model::documents::{Documents, postgres::PgDocuments};
use mister_smith::migrate::{MigrateError, down, status, up};
use mister_smith_testkit::Postgres;

use crate::server::{name_of, open};

async fn schemas(server: &Postgres, url: &str) -> String {
    let text = "select string_agg(nspname, ' ' order by nspname) from pg_namespace \
                where nspname like 'ms\\_%'";
    server.sql(name_of(url), text).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_database_gets_everything_and_the_way_down_leads_back() {
    let server = Postgres::start().await;
    let url = server.create_database().await;
    let before = status(&url).await.unwrap();
    assert_eq!((before.version, before.pending().len()), (0, 9));
    let report = up(&url).await.unwrap();
    assert_eq!(report.to, before.newest);
    assert_eq!(
        schemas(&server, &url).await,
        "ms_framework ms_messaging ms_migrations ms_projections"
    );
    assert_eq!(up(&url).await.unwrap().steps.len(), 0);
    assert!(status(&url).await.unwrap().pending().is_empty());

    assert_eq!(down(&url, 1).await.unwrap().steps.len(), 8);
    assert_eq!(schemas(&server, &url).await, "ms_framework ms_migrations");
    down(&url, 0).await.unwrap();
    assert_eq!(schemas(&server, &url).await, "ms_migrations");
    up(&url).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn two_at_once_apply_each_migration_once() {
    let server = Postgres::start().await;
    let url = server.create_database().await;
    let (a, b, c) = tokio::join!(up(&url), up(&url), up(&url));
    let steps: usize = [a, b, c].into_iter().map(|report| report.unwrap().steps.len()).sum();
    assert_eq!(steps, 9);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_text_that_changed_is_refused_by_its_file() {
    let server = Postgres::start().await;
    let url = server.create_database().await;
    up(&url).await.unwrap();
    let change = "update ms_migrations.schema_migrations set checksum = 'x' where version = 1";
    server.sql(name_of(&url), change).await;
    let error = up(&url).await.unwrap_err();
    assert!(matches!(error, MigrateError::Changed { .. }), "{error}");
    assert!(
        error.to_string().starts_with("migrations/postgres/0001_event_store.up.sql changed"),
        "{error}"
    );
    assert_eq!(status(&url).await.unwrap().problems, [error.to_string()]);
}

/// A migration that fails in its last statement leaves nothing of the others.
#[tokio::test(flavor = "multi_thread")]
async fn a_failed_migration_leaves_the_database_as_it_was() {
    let server = Postgres::start().await;
    let url = server.create_database().await;
    up(&url).await.unwrap();
    down(&url, 1).await.unwrap();
    // The last table of the next one is there already.
    server
        .sql(name_of(&url), "create schema ms_projections; create table ms_projections.parked()")
        .await;
    let error = up(&url).await.unwrap_err();
    assert!(
        error.to_string().starts_with("migration 0004_projections failed, postgres:///"),
        "{error}"
    );
    let tables = "select count(*) from pg_tables where schemaname = 'ms_projections'";
    assert_eq!(server.sql(name_of(&url), tables).await, "1");
    assert_eq!(status(&url).await.unwrap().version, 1);
    // And the lock is free.
    server.sql(name_of(&url), "drop schema ms_projections cascade").await;
    up(&url).await.unwrap();
}

/// Places of relays and consumers go on over the step in both directions, and a node of the program
/// before that still runs loses its claims: with new ones it would begin with the first event.
#[tokio::test(flavor = "multi_thread")]
async fn places_in_the_log_move_with_the_tables_and_back() {
    let server = Postgres::start().await;
    let url = server.create_database().await;
    up(&url).await.unwrap();
    down(&url, 6).await.unwrap();
    let sql = async |text: &str| server.sql(name_of(&url), text).await;
    sql("insert into ms_projections.projection_builds (id, projection, version, partitions, state) \
         overriding system value values (7, '$relay.post', 1, 1, 1), (8, 'streams', 1, 1, 1); \
         insert into ms_framework.checkpoints (name, position, owner, epoch, lease_until) values \
         ('build 7/0', 41, 'me', 5, now() + interval '1 minute'), ('build 8/0', 9, 'me', 1, now()); \
         insert into ms_projections.documents values (7, 'marks', 41, '[1]'), (8, 'd', 9, '{}')")
        .await;
    up(&url).await.unwrap();
    let places = "select string_agg(name || ' ' || position || ' ' || epoch, ', ') \
                  from ms_framework.followers";
    let notes = "select string_agg(id || ' ' || convert_from(data, 'UTF8'), ', ') \
                 from ms_framework.follower_notes";
    let old = "select string_agg(position || ' ' || owner || ' ' || epoch || ' ' || \
               (lease_until = 'infinity'), ', ') \
               from ms_framework.checkpoints where name = 'build 7/0'";
    assert_eq!(sql(places).await, "relay.post 41 5");
    assert_eq!(sql(notes).await, "marks [1]");
    assert_eq!(sql(old).await, "9223372036854775807 moved to followers 6 true");
    sql("update ms_framework.followers set position = 50; \
         insert into ms_framework.followers (name, position, owner, epoch, lease_until) \
         values ('consumer.new', 3, '', 1, now())")
    .await;
    down(&url, 6).await.unwrap();
    let before = "select string_agg(b.projection || ' ' || c.position, ', ' order by b.id) \
                  from ms_projections.projection_builds b \
                  join ms_framework.checkpoints c on c.name = 'build ' || b.id || '/0' \
                  where c.lease_until < now()";
    assert!(sql(before).await.contains("$relay.post 50, streams 9"), "{}", sql(before).await);
    assert!(sql(before).await.contains("$consumer.new 3"), "{}", sql(before).await);
    let documents = "select string_agg(id || data::text, ', ' order by id) \
                     from ms_projections.documents";
    assert_eq!(sql(documents).await, "d{}, marks[1]");
    up(&url).await.unwrap();
    assert!(sql(places).await.contains("relay.post 50"), "{}", sql(places).await);
}

/// Since the tenth step a U+0001 is written in another way. Whoever reads the document finds the
/// same, and the way back finds what there was.
#[tokio::test(flavor = "multi_thread")]
async fn odd_texts_of_documents_move_with_the_tables_and_back() {
    let server = Postgres::start().await;
    let url = server.create_database().await;
    up(&url).await.unwrap();
    down(&url, 7).await.unwrap();
    let sql = async |text: &str| server.sql(name_of(&url), text).await;
    sql(r#"insert into ms_projections.projection_builds (id, projection, version, partitions, state)
           overriding system value values (7, 'p', 1, 1, 1);
           insert into ms_projections.documents values
           (7, E'a\x01', 1, '{"t": "\\u0001 \\\u0001\u0001\u0002", "\u0001": 1}'), (7, 'b', 1, '{}')"#)
    .await;
    let all = "select string_agg(encode(convert_to(id, 'UTF8'), 'hex') || data::text, ', ' \
               order by id) from ms_projections.documents";
    let before = sql(all).await;
    up(&url).await.unwrap();
    let store = open(&url).await;
    let documents = PgDocuments::new(Arc::clone(store.database()));
    let read = documents.get("p", "a\u{1}").await.unwrap().document.unwrap();
    let data: serde_json::Value = serde_json::from_slice(&read.data).unwrap();
    let expected = "\\u0001 \\\u{1}\u{1}\u{2}";
    assert_eq!(data, serde_json::json!({"t": expected, "\u{1}": 1}));
    store.close().await;
    down(&url, 7).await.unwrap();
    assert_eq!(sql(all).await, before);
}
