//! Connections to one SQLite file.

use std::path::PathBuf;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::{Connect, Connections, Lease, Upkeep};
use crate::store::StoreError;
use crate::store::read_model::documents::sqlite::SqliteDocuments;
use crate::store::sqlite::{SqliteOptions, SqliteStore};

/// A write-ahead log of more pages is long: 8 MiB of the usual 4 KiB.
const LONG_LOG_PAGES: u64 = 2_048;

#[derive(Debug)]
pub(super) struct SqliteConnect {
    path: PathBuf,
}

impl SqliteConnect {
    pub(super) fn new(url: &str) -> Self {
        Self { path: PathBuf::from(url) }
    }
}

impl Connect for SqliteConnect {
    fn connect(&self) -> BoxFuture<'_, Result<Arc<dyn Connections>, StoreError>> {
        async {
            let store = SqliteStore::open(&self.path, SqliteOptions::default()).await?;
            let documents = SqliteDocuments::new(Arc::clone(store.database()));
            let connections =
                SqliteConnections { store: Arc::new(store), documents: Arc::new(documents) };
            Ok(Arc::new(connections) as Arc<dyn Connections>)
        }
        .boxed()
    }
}

#[derive(Debug)]
struct SqliteConnections {
    store: Arc<SqliteStore>,
    documents: Arc<SqliteDocuments>,
}

impl Connections for SqliteConnections {
    fn lease(&self) -> Lease {
        Lease {
            store: Arc::clone(&self.store) as _,
            snapshots: Arc::clone(&self.store) as _,
            documents: Arc::clone(&self.documents) as _,
            messages: Arc::clone(&self.store) as _,
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
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.store.close().boxed()
    }
}

impl Upkeep for SqliteStore {
    /// Copies the write-ahead log into the file, as far as no reader is in the way.
    ///
    /// SQLite begins the log anew only when all of it is copied. While there are commits all the
    /// time it never is, so the last pages of a long log are copied with the writers waiting.
    fn tidy(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        async {
            let copied = self.checkpoint_passive().await?;
            if copied.wal_pages > LONG_LOG_PAGES {
                let _turn = self.database().turn().await;
                self.checkpoint_passive().await?;
            }
            Ok(())
        }
        .boxed()
    }
}
