//! One node a store file.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

/// The lock of a store file, held for as long as the value lives, and let go by the system when
/// the process ends, however it ends.
#[derive(Debug)]
pub(crate) struct StoreLock {
    _file: File,
}

/// Why the lock was not taken.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LockError {
    /// Another node works on the file.
    #[error("{path} is in use by another node; stop it, or give --store another path", path = .path.display())]
    InUse {
        /// The store file.
        path: PathBuf,
    },
    /// The lock file, or its directory, cannot be made.
    #[error("cannot make {path}: {source}; make its directory writable for this user, or give --store another path", path = .path.display())]
    Unwritable {
        /// The lock file, or the directory that it is to be in.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

impl StoreLock {
    /// Takes the lock of the store at `path`; makes the directories above it.
    #[cfg_attr(not(feature = "sqlite"), expect(dead_code, reason = "only file stores need it"))]
    pub(crate) fn take(path: &Path) -> Result<Self, LockError> {
        let mut name = path.as_os_str().to_owned();
        name.push(".lock");
        let lock_path = PathBuf::from(name);
        let unwritable = |source| LockError::Unwritable { path: lock_path.clone(), source };
        if let Some(directory) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            std::fs::create_dir_all(directory)
                .map_err(|source| LockError::Unwritable { path: directory.to_owned(), source })?;
        }
        let file = File::options()
            .create(true)
            .write(true)
            .truncate(false)
            .open(&lock_path)
            .map_err(unwritable)?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(TryLockError::WouldBlock) => Err(LockError::InUse { path: path.to_owned() }),
            Err(TryLockError::Error(source)) => Err(unwritable(source)),
        }
    }
}
