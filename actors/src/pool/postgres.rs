//! Connections to one PostgreSQL database.

use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::{Connect, Connections, Lease, Upkeep};
use crate::store::StoreError;
use crate::store::archive::{ArchiveError, ArchiveReport, ArchiveRules, Cold};
use crate::store::claims::postgres::PgClaims;
use crate::store::postgres::{PgOptions, PgStore, Wake};
use crate::store::read_model::documents::postgres::PgDocuments;

/// Opens connections to a PostgreSQL database.
#[derive(Debug)]
pub struct PgConnect {
    url: String,
    options: PgOptions,
    /// Nothing is made, and nothing listened for, which a replica refuses.
    reads_only: bool,
}

impl PgConnect {
    /// Connections to the database at a `postgres://` address, by what its parameters say.
    #[must_use]
    pub fn new(url: impl Into<String>) -> Self {
        Self { url: url.into(), options: PgOptions::default(), reads_only: false }
    }

    /// Options for what the address does not say.
    #[must_use]
    pub fn options(mut self, options: PgOptions) -> Self {
        self.options = options;
        self
    }

    pub(super) fn reader(url: &str) -> Self {
        Self { reads_only: true, ..Self::new(url) }
    }
}

impl Connect for PgConnect {
    fn connect(&self) -> BoxFuture<'_, Result<Arc<dyn Connections>, StoreError>> {
        async {
            let options = self.options.clone();
            let options = if self.reads_only { options.wake(Wake::Poll) } else { options };
            let store = PgStore::open(&self.url, options).await?;
            if !self.reads_only {
                store.make_partitions_ahead().await?;
            }
            let documents = PgDocuments::new(Arc::clone(store.database()));
            let claims = Arc::new(PgClaims::new(Arc::clone(store.database())));
            let (store, documents) = (Arc::new(store), Arc::new(documents));
            let connections = PgConnections { store, documents, claims };
            Ok(Arc::new(connections) as Arc<dyn Connections>)
        }
        .boxed()
    }
}

#[derive(Debug)]
struct PgConnections {
    store: Arc<PgStore>,
    documents: Arc<PgDocuments>,
    claims: Arc<PgClaims>,
}

impl Connections for PgConnections {
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
            shared: true,
        }
    }

    fn usage(&self) -> (u32, u32) {
        self.store.database().usage()
    }

    fn ping(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        self.store.database().ping().boxed()
    }

    fn mark_closed(&self) {
        self.store.database().mark_closed();
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.store.close().boxed()
    }
}

impl Upkeep for PgStore {
    /// Makes the partitions that the log will need next, and forgets keys that are old.
    fn tidy(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        async {
            self.make_partitions_ahead().await?;
            self.forget_old_keys().await
        }
        .boxed()
    }

    fn archive<'a>(
        &'a self,
        cold: &'a dyn Cold,
        rules: &'a ArchiveRules,
    ) -> BoxFuture<'a, Result<ArchiveReport, ArchiveError>> {
        PgStore::archive(self, cold, rules).boxed()
    }
}
