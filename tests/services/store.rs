//! The PostgreSQL store alone.

use std::sync::Arc;

use mister_smith::actors::store::conformance;
use mister_smith::actors::store::read_model::documents::{self, postgres::PgDocuments};

use mister_smith_testkit::Postgres;

use crate::server::store;

#[tokio::test(flavor = "multi_thread")]
async fn the_postgres_store_keeps_every_law() {
    let server = Postgres::start().await;
    Box::pin(conformance::run(async || store(&server).await)).await;
    conformance::snapshots::run(async || store(&server).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_in_postgres_keep_every_law() {
    let server = Postgres::start().await;
    documents::conformance::run(async || {
        PgDocuments::new(Arc::clone(store(&server).await.database()))
    })
    .await;
}
