//! Databases and stores on a PostgreSQL server.

use mister_smith::actors::store::postgres::{PgOptions, PgStore};
use mister_smith_testkit::Postgres;

/// The address of a database with all tables.
pub(crate) async fn database(server: &Postgres) -> String {
    let url = server.create_database().await;
    mister_smith::migrate::up(&url).await.unwrap();
    url
}

/// A store of one's own.
pub(crate) async fn store(server: &Postgres) -> PgStore {
    PgStore::open(&database(server).await, PgOptions::default()).await.unwrap()
}
