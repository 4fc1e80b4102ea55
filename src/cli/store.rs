//! The store of a command that reads, beside a node that may be working on it.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use mister_smith_actors::pool::{
    AddressError, Connect, Connections, Lease, connector, mounted, reader,
};

use crate::archive::{self, Directory};
use crate::system::DEFAULT_STORE;

/// Which store.
#[derive(Clone, Debug, Args)]
pub(super) struct StoreArg {
    /// Store of the events: a SQLite file, or postgres://USER@HOST/DATABASE
    #[arg(long, value_name = "URL", default_value = DEFAULT_STORE, env = "SMITH_STORE")]
    pub(super) store: String,
}

impl StoreArg {
    /// Its address, without what only readers of archives need.
    pub(super) fn address(&self) -> String {
        archive::of_url(&self.store).0
    }
}

/// Which store, and where what was archived of it is.
#[derive(Clone, Debug, Args)]
pub(super) struct ReadArg {
    #[command(flatten)]
    store: StoreArg,
    /// Read what was archived from the files in this directory
    #[arg(
        long = "archive-dir",
        visible_alias = "archive",
        value_name = "DIR",
        env = "SMITH_ARCHIVE_DIR"
    )]
    directory: Option<PathBuf>,
}

/// How an address is opened.
type How = fn(&str) -> Result<Arc<dyn Connect>, AddressError>;

/// An open store.
pub(super) struct Open {
    connections: Arc<dyn Connections>,
    pub(super) lease: Lease,
}

impl ReadArg {
    /// Opens it. Nothing is made and nothing migrated; rights to read are enough.
    pub(super) async fn open(&self) -> anyhow::Result<Open> {
        self.by(reader).await
    }

    /// Opens it to leave something beside the log.
    pub(super) async fn open_to_write(&self) -> anyhow::Result<Open> {
        self.by(connector).await
    }

    async fn by(&self, how: How) -> anyhow::Result<Open> {
        let (url, directory) = archive::of_url(&self.store.store);
        let connect = how(&url).map_err(|error| anyhow::anyhow!("--store {url}: {error}"))?;
        let connect = match self.directory.clone().or(directory) {
            Some(directory) => mounted(connect, Directory::shared(directory)),
            None => connect,
        };
        let connections = connect.connect().await?;
        let lease = connections.lease();
        Ok(Open { connections, lease })
    }
}

impl Open {
    /// Opens a store without its archives; rights to read are enough.
    pub(super) async fn to_read(url: &str) -> anyhow::Result<Self> {
        Self::by(url, reader).await
    }

    /// Opens a store to leave something in it.
    pub(super) async fn to_write(url: &str) -> anyhow::Result<Self> {
        Self::by(url, connector).await
    }

    async fn by(url: &str, how: How) -> anyhow::Result<Self> {
        let (url, _) = archive::of_url(url);
        let connect = how(&url).map_err(|error| anyhow::anyhow!("--store {url}: {error}"))?;
        let connections = connect.connect().await?;
        let lease = connections.lease();
        Ok(Self { connections, lease })
    }

    pub(super) async fn close(self) {
        self.connections.close().await;
    }
}
