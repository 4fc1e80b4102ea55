//! `smith archive`: old partitions of a PostgreSQL store, into files.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use mister_smith_actors::store::postgres::{PgOptions, PgStore};

use super::output::{self, write};
use super::store::StoreArg;

/// Options of `smith archive`.
#[derive(Clone, Debug, Args)]
pub(super) struct Archive {
    /// Where the files go
    #[arg(long, value_name = "DIR")]
    directory: PathBuf,
    /// How many full partitions stay in the database
    #[arg(long, value_name = "N")]
    keep: usize,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    store: StoreArg,
}

impl Archive {
    pub(super) async fn execute(self) -> anyhow::Result<ExitCode> {
        let url = &self.store.store;
        if !url.starts_with("postgres") {
            anyhow::bail!("--store {url}: only a PostgreSQL store has partitions to archive");
        }
        let store = PgStore::open(url, PgOptions::default()).await?;
        let written = store.archive(&self.directory, self.keep).await?;
        if self.json {
            output::json(&written)?;
        } else {
            for one in &written {
                write(format_args!(
                    "{} to {}  {}  {} bytes\n",
                    one.from, one.to, one.file, one.bytes
                ))?;
            }
            let left = store.partitions().await?.len();
            write(format_args!("{} archived, {left} partitions left\n", written.len()))?;
        }
        store.close().await;
        Ok(ExitCode::SUCCESS)
    }
}
