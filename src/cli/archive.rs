//! `smith archive`: old partitions of a PostgreSQL store, into files and back.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::bail;
use clap::{Args, Subcommand};
use mister_smith_actors::event::Position;
use mister_smith_actors::store::archive::{ArchiveRules, Manifest, manifests, writer};
use mister_smith_actors::store::postgres::{PgOptions, PgStore};

use super::output::{self, write};
use super::store::StoreArg;
use crate::archive::Directory;

/// Options of `smith archive`.
#[derive(Clone, Debug, Args)]
pub(super) struct Archive {
    #[command(subcommand)]
    action: Action,
}

#[derive(Clone, Debug, Subcommand)]
enum Action {
    /// Take full partitions out of the database, the oldest first
    Run {
        /// How many full partitions stay in the database
        #[arg(long, value_name = "N")]
        keep: usize,
        /// Every node reads this directory (--archive-dir), so that aggregates without a snapshot
        /// need not hold anything back
        #[arg(long)]
        mounted: bool,
        /// A follower that does not hold anything back because it will never come again
        #[arg(long, value_name = "NAME")]
        without: Vec<String>,
        #[command(flatten)]
        options: Options,
    },
    /// List what is in the directory
    List(Place),
    /// Read every file to its end
    Verify(Place),
    /// Put archived ranges back into the database, the newest first
    Restore {
        /// Down to the one that holds what comes after this position
        #[arg(long, value_name = "POSITION", default_value_t = 0)]
        after: u64,
        #[command(flatten)]
        options: Options,
    },
}

#[derive(Clone, Debug, Args)]
struct Place {
    /// Where the files are
    #[arg(long, value_name = "DIR", env = "SMITH_ARCHIVE_DIR")]
    directory: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Debug, Args)]
struct Options {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    store: StoreArg,
}

impl Options {
    async fn open(&self) -> anyhow::Result<(PgStore, Directory)> {
        let url = self.store.address();
        if !url.starts_with("postgres") {
            bail!("--store {url}: only a PostgreSQL store has partitions to archive");
        }
        let store = PgStore::open(&url, PgOptions::default()).await?;
        Ok((store, Directory::new(&self.place.directory)))
    }
}

impl Archive {
    pub(super) async fn execute(self) -> anyhow::Result<ExitCode> {
        match self.action {
            Action::Run { keep, mounted, without, options } => {
                let rules = ArchiveRules::default().keep(keep).mounted(mounted).without(without);
                let (store, directory) = options.open().await?;
                let report = store.archive(&directory, &rules).await?;
                if options.place.json {
                    output::json(&report)?;
                } else {
                    list(&report.archived)?;
                    let left = store.partitions().await?.len();
                    let count = report.archived.len();
                    write(format_args!("{count} archived, {left} partitions left\n"))?;
                    if let Some(held) = &report.held_back {
                        write(format_args!("{held}\n"))?;
                    }
                }
                store.close().await;
            }
            Action::List(place) => {
                let found = manifests(&Directory::new(&place.directory)).await?;
                shown(&found, place.json)?;
            }
            Action::Verify(place) => {
                let directory = Directory::new(&place.directory);
                let found = manifests(&directory).await?;
                for one in &found {
                    writer::verify(&directory, one).await?;
                }
                shown(&found, place.json)?;
            }
            Action::Restore { after, options } => {
                let (store, directory) = options.open().await?;
                let restored = store.restore(&directory, Position::new(after)).await?;
                shown(&restored, options.place.json)?;
                store.close().await;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn shown(all: &[Manifest], json: bool) -> anyhow::Result<()> {
    match json {
        true => output::json(&all).map(drop),
        false => list(all),
    }
}

fn list(all: &[Manifest]) -> anyhow::Result<()> {
    for one in all {
        write(format_args!("{} to {}  {}  {} bytes\n", one.from, one.to, one.file, one.bytes))?;
    }
    Ok(())
}
