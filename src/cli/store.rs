//! The store of a command that reads, beside a node that may be working on it.

use std::sync::Arc;

use clap::Args;
use mister_smith_actors::pool::{Connections, Lease, connector};

use crate::system::DEFAULT_STORE;

/// Which store.
#[derive(Clone, Debug, Args)]
pub(super) struct StoreArg {
    /// Store of the events: a SQLite file, or postgres://USER@HOST/DATABASE
    #[arg(long, value_name = "URL", default_value = DEFAULT_STORE, env = "SMITH_STORE")]
    pub(super) store: String,
}

/// An open store.
pub(super) struct Open {
    connections: Arc<dyn Connections>,
    pub(super) lease: Lease,
}

impl StoreArg {
    /// Opens it. Nothing is made and nothing migrated.
    pub(super) async fn open(&self) -> anyhow::Result<Open> {
        let connect = connector(&self.store)
            .map_err(|error| anyhow::anyhow!("--store {}: {error}", self.store))?;
        let connections = connect.connect().await?;
        let lease = connections.lease();
        Ok(Open { connections, lease })
    }
}

impl Open {
    pub(super) async fn close(self) {
        self.connections.close().await;
    }
}
