//! What a node does with archived ranges of the log: reads them, and perhaps makes them.

use std::path::PathBuf;
use std::sync::Arc;

use mister_smith_actors::pool::{Connect, mounted};
use mister_smith_actors::store::archive::policy::{ArchivePolicy, ArchivistArgs};

use super::{SystemBuilder, plan};
use crate::archive::Directory;

/// Where they are, and what is done.
#[derive(Debug, Default)]
pub(super) struct Archives {
    pub(super) directory: Option<PathBuf>,
    policy: Option<ArchivePolicy>,
}

impl SystemBuilder {
    /// Reads ranges of the log that were archived from this directory: every reader of the node
    /// goes through files and database as if they were one. The address of the store can name it
    /// too, as `archive_dir`.
    #[must_use]
    pub fn archive_dir(mut self, directory: impl Into<PathBuf>) -> Self {
        self.archives.directory = Some(directory.into());
        self
    }

    /// Archives old ranges of the log into this directory now and then, and reads them from there.
    /// Off unless called. Several nodes on one database may do so: one works at a time, and all of
    /// them need the same files, also those that do not archive.
    #[must_use]
    pub fn archive_into(mut self, directory: impl Into<PathBuf>, policy: ArchivePolicy) -> Self {
        self.archives.policy = Some(policy);
        self.archive_dir(directory)
    }
}

impl Archives {
    /// Connections that read what was archived, too.
    pub(super) fn mount(&self, connect: Arc<dyn Connect>) -> Arc<dyn Connect> {
        match &self.directory {
            Some(directory) => mounted(connect, Directory::shared(directory)),
            None => connect,
        }
    }

    /// The actor that archives, if one does.
    pub(super) fn archivist(&self, kind: &str) -> Option<ArchivistArgs> {
        let (directory, policy) = (self.directory.as_ref()?, self.policy.clone()?);
        let cold = Directory::shared(directory);
        Some(ArchivistArgs { pool: plan::pool(kind).into(), cold, policy })
    }
}
