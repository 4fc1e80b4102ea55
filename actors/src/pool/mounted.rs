//! Connections to a store whose old ranges are in files: every lease reads both.

use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::{Connect, Connections, Lease};
use crate::store::archive::{ArchiveError, ArchivedStore, SharedCold};
use crate::store::{EventStore, StoreError};

/// Connections by `connect` that read what was archived from files.
#[must_use]
pub fn mounted(connect: Arc<dyn Connect>, cold: SharedCold) -> Arc<dyn Connect> {
    Arc::new(Mounted { connect, cold })
}

#[derive(Debug)]
struct Mounted {
    connect: Arc<dyn Connect>,
    cold: SharedCold,
}

impl Connect for Mounted {
    fn connect(&self) -> BoxFuture<'_, Result<Arc<dyn Connections>, StoreError>> {
        async {
            let connections = self.connect.connect().await?;
            let (store, cold) = (connections.lease().store, Arc::clone(&self.cold));
            let opened = ArchivedStore::open(Arc::clone(&store), Arc::clone(&cold)).await;
            let store: Arc<dyn EventStore> = match opened {
                Ok(store) => Arc::new(store),
                Err(error @ ArchiveError::OtherLog { .. }) => {
                    connections.close().await;
                    return Err(StoreError::Unavailable {
                        store: cold.place(),
                        cure: "its archives are of another log; give this log's directory"
                            .to_owned(),
                        source: Box::new(error),
                    });
                }
                // A disk that is away is no reason not to work on what is in the database: who
                // needs the files is told so.
                Err(error) => {
                    tracing::warn!(%error, "the archive cannot be read now");
                    Arc::new(ArchivedStore::new(store, cold))
                }
            };
            Ok(Arc::new(MountedConnections { connections, store }) as Arc<dyn Connections>)
        }
        .boxed()
    }
}

#[derive(Debug)]
struct MountedConnections {
    connections: Arc<dyn Connections>,
    store: Arc<dyn EventStore>,
}

impl Connections for MountedConnections {
    fn lease(&self) -> Lease {
        Lease { store: Arc::clone(&self.store), ..self.connections.lease() }
    }

    fn usage(&self) -> (u32, u32) {
        self.connections.usage()
    }

    fn ping(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        self.connections.ping()
    }

    fn mark_closed(&self) {
        self.connections.mark_closed();
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.connections.close()
    }
}
