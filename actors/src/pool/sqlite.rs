//! Connections to one SQLite file.

use std::path::PathBuf;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::{Connect, Connections, Lease, Upkeep};
use crate::store::claims::sqlite::SqliteClaims;
use crate::store::read_model::documents::sqlite::SqliteDocuments;
use crate::store::sqlite::{Database, SqliteOptions, SqliteStore};
use crate::store::{EventStore as _, StoreError};

#[derive(Debug)]
pub(super) struct SqliteConnect {
    path: PathBuf,
    options: SqliteOptions,
}

impl SqliteConnect {
    pub(super) fn new(url: &str) -> Self {
        Self { path: PathBuf::from(url), options: SqliteOptions::default() }
    }
}

impl Connect for SqliteConnect {
    fn connect(&self) -> BoxFuture<'_, Result<Arc<dyn Connections>, StoreError>> {
        async {
            let store = SqliteStore::open(&self.path, self.options.clone()).await?;
            let read_models = Database::read_models(&self.path, self.options.clone())?;
            match read_models.belong_to(store.store_id(), store.head()).await {
                Ok(true) => {}
                Ok(false) => {
                    let file = read_models.path().display();
                    tracing::warn!(%file, "it was made from another log; it is made again");
                }
                // Whoever needs the documents hears of it; the log can be read without them.
                Err(StoreError::Unavailable { .. } | StoreError::NotMigrated { .. }) => {}
                Err(error) => return Err(error),
            }
            let read_models = Arc::new(read_models);
            let documents = Arc::new(SqliteDocuments::new(Arc::clone(&read_models)));
            let claims = Arc::new(SqliteClaims::new(Arc::clone(store.database())));
            let store = Arc::new(store);
            let connections = SqliteConnections { store, documents, claims, read_models };
            Ok(Arc::new(connections) as Arc<dyn Connections>)
        }
        .boxed()
    }
}

#[derive(Debug)]
struct SqliteConnections {
    store: Arc<SqliteStore>,
    documents: Arc<SqliteDocuments>,
    claims: Arc<SqliteClaims>,
    /// Their file, beside the log's.
    read_models: Arc<Database>,
}

impl Connections for SqliteConnections {
    fn lease(&self) -> Lease {
        Lease {
            store: Arc::clone(&self.store) as _,
            snapshots: Arc::clone(&self.store) as _,
            documents: Arc::clone(&self.documents) as _,
            claims: Arc::clone(&self.claims) as _,
            messages: Arc::clone(&self.store) as _,
            timers: Arc::clone(&self.store) as _,
            notes: Arc::clone(&self.store) as _,
            upkeep: Arc::clone(&self.store) as _,
            shared: false,
        }
    }

    fn usage(&self) -> (u32, u32) {
        self.store.database().usage()
    }

    fn mark_closed(&self) {
        self.store.database().mark_closed();
        self.read_models.mark_closed();
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        async {
            self.read_models.close().await;
            self.store.close().await;
        }
        .boxed()
    }

    fn ping(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        self.store.database().ping().boxed()
    }
}

impl Upkeep for SqliteStore {
    /// Forgets idempotency keys that are too old. The write-ahead log is kept short by the thread
    /// that writes it.
    fn tidy(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        self.expire_keys().boxed()
    }
}
