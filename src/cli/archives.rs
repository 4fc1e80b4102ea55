//! What a node does with archived ranges: options of `smith run`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use mister_smith_actors::store::archive::policy::ArchivePolicy;

use crate::system::SystemBuilder;

/// Archives of a node.
#[derive(Clone, Debug, Args)]
pub(super) struct ArchivesArg {
    /// Read what was archived from the files in this directory
    #[arg(long, value_name = "DIR", env = "SMITH_ARCHIVE_DIR")]
    archive_dir: Option<PathBuf>,
    /// Archive full partitions into that directory now and then, and keep this many (PostgreSQL)
    #[arg(long, value_name = "N", requires = "archive_dir", env = "SMITH_ARCHIVE_KEEP")]
    archive_keep: Option<usize>,
    /// Seconds between two looks whether there is something to archive
    #[arg(long, value_name = "SECONDS", default_value_t = 3_600)]
    archive_every: u64,
    /// A follower that does not hold the archive back because it will never come again
    #[arg(long, value_name = "NAME")]
    archive_without: Vec<String>,
}

impl ArchivesArg {
    pub(super) fn apply(&self, node: SystemBuilder) -> SystemBuilder {
        match (&self.archive_dir, self.archive_keep) {
            (Some(directory), Some(keep)) => {
                let policy = ArchivePolicy::default()
                    .every(Duration::from_secs(self.archive_every.max(1)))
                    .keep(keep)
                    .without(self.archive_without.iter().cloned());
                node.archive_into(directory, policy)
            }
            (Some(directory), None) => node.archive_dir(directory),
            (None, _) => node,
        }
    }
}
