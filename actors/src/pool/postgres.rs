//! Connections to one PostgreSQL database.

use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::{Connect, Connections, Lease, Upkeep};
use crate::store::StoreError;
use crate::store::postgres::{PgOptions, PgStore};
use crate::store::read_model::documents::postgres::PgDocuments;

#[derive(Debug)]
pub(super) struct PgConnect {
    url: String,
}

impl PgConnect {
    pub(super) fn new(url: &str) -> Self {
        Self { url: url.to_owned() }
    }
}

impl Connect for PgConnect {
    fn connect(&self) -> BoxFuture<'_, Result<Arc<dyn Connections>, StoreError>> {
        async {
            let store = PgStore::open(&self.url, PgOptions::default()).await?;
            store.make_partitions_ahead().await?;
            let documents = PgDocuments::new(Arc::clone(store.database()));
            let connections =
                PgConnections { store: Arc::new(store), documents: Arc::new(documents) };
            Ok(Arc::new(connections) as Arc<dyn Connections>)
        }
        .boxed()
    }
}

#[derive(Debug)]
struct PgConnections {
    store: Arc<PgStore>,
    documents: Arc<PgDocuments>,
}

impl Connections for PgConnections {
    fn lease(&self) -> Lease {
        Lease {
            store: Arc::clone(&self.store) as _,
            snapshots: Arc::clone(&self.store) as _,
            documents: Arc::clone(&self.documents) as _,
            messages: Arc::clone(&self.store) as _,
            notes: Arc::clone(&self.store) as _,
            upkeep: Arc::clone(&self.store) as _,
            shared: true,
        }
    }

    fn usage(&self) -> (u32, u32) {
        self.store.database().usage()
    }

    fn mark_closed(&self) {
        self.store.database().mark_closed();
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.store.close().boxed()
    }
}

impl Upkeep for PgStore {
    /// Makes the partitions that the log will need next.
    fn tidy(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        self.make_partitions_ahead().boxed()
    }
}
