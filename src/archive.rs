//! A directory of archived ranges: the files behind the store's port [`Cold`].
//!
//! A file is written under a name that ends with `.tmp`, synced, and then renamed; the directory
//! is synced too. So a name stands for a whole file, also after a loss of power, and what was
//! there is never overwritten by a file that is not whole. All of it is done on threads that may
//! block.

use std::fs::{self, File};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use hyper::body::Bytes;
use mister_smith_actors::store::archive::{ArchiveError, Cold, ColdFile, SharedCold};
use tokio::task::spawn_blocking;

/// The parameter of a store's address that names the directory.
const PARAMETER: &str = "archive_dir=";

/// See the [module](self).
#[derive(Debug, Clone)]
pub struct Directory {
    path: PathBuf,
}

impl Directory {
    /// The directory at a path, made with the first file that is written.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// The same, for a store or a node.
    #[must_use]
    pub fn shared(path: impl Into<PathBuf>) -> SharedCold {
        Arc::new(Self::new(path))
    }
}

/// A store's address without its parameter `archive_dir`, and what that said.
#[must_use]
pub fn of_url(url: &str) -> (String, Option<PathBuf>) {
    let Some((address, query)) = url.split_once('?') else { return (url.to_owned(), None) };
    let (ours, others): (Vec<_>, Vec<_>) =
        query.split('&').partition(|part| part.starts_with(PARAMETER));
    let directory = ours.first().and_then(|part| part.strip_prefix(PARAMETER)).map(|path| {
        let path = percent_encoding::percent_decode_str(path).decode_utf8_lossy();
        PathBuf::from(path.into_owned())
    });
    match others.is_empty() {
        true => (address.to_owned(), directory),
        false => (format!("{address}?{}", others.join("&")), directory),
    }
}

fn failed(path: &Path) -> impl Fn(std::io::Error) -> ArchiveError + use<> {
    let file = path.display().to_string();
    move |source| ArchiveError::File { file: file.clone(), source }
}

/// Runs work that blocks.
async fn on_disk<T: Send + 'static>(
    path: PathBuf,
    work: impl FnOnce(&Path) -> std::io::Result<T> + Send + 'static,
) -> Result<T, ArchiveError> {
    let fault = failed(&path);
    match spawn_blocking(move || work(&path)).await {
        Ok(done) => done.map_err(fault),
        Err(ended) => Err(fault(std::io::Error::other(ended))),
    }
}

impl Cold for Directory {
    fn place(&self) -> String {
        self.path.display().to_string()
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<String>, ArchiveError>> {
        on_disk(self.path.clone(), |path| {
            let entries = match fs::read_dir(path) {
                Ok(entries) => entries,
                // Nothing was archived yet.
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
                Err(error) => return Err(error),
            };
            let name = |entry: fs::DirEntry| entry.file_name().into_string().ok();
            let names =
                entries.map(|entry| entry.map(name)).collect::<std::io::Result<Vec<_>>>()?;
            Ok(names.into_iter().flatten().filter(|name| !name.ends_with(".tmp")).collect())
        })
        .boxed()
    }

    fn read<'a>(
        &'a self,
        file: &'a str,
        at: u64,
        most: usize,
    ) -> BoxFuture<'a, Result<Bytes, ArchiveError>> {
        on_disk(self.path.join(file), move |path| {
            let mut file = File::open(path)?;
            file.seek(SeekFrom::Start(at))?;
            // What a damaged index asks for is not believed before it is there.
            let mut bytes = Vec::with_capacity(most.min(1 << 20));
            file.take(most as u64).read_to_end(&mut bytes)?;
            Ok(bytes.into())
        })
        .boxed()
    }

    fn create<'a>(
        &'a self,
        file: &'a str,
    ) -> BoxFuture<'a, Result<Box<dyn ColdFile>, ArchiveError>> {
        let path = self.path.join(file);
        on_disk(path, |path| {
            if let Some(directory) = path.parent() {
                fs::create_dir_all(directory)?;
            }
            let mut temporary = path.as_os_str().to_owned();
            temporary.push(".tmp");
            let temporary = PathBuf::from(temporary);
            let file = Some(File::create(&temporary)?);
            Ok(Box::new(Written { path: path.to_owned(), temporary, file }) as Box<dyn ColdFile>)
        })
        .boxed()
    }
}

/// A file that has not its name yet.
#[derive(Debug)]
struct Written {
    path: PathBuf,
    temporary: PathBuf,
    /// Lent to the thread that writes. Not there after a write that failed.
    file: Option<File>,
}

impl Written {
    fn take(&mut self) -> Result<File, ArchiveError> {
        let lost = || std::io::Error::other("an earlier write failed");
        self.file.take().ok_or_else(|| failed(&self.temporary)(lost()))
    }
}

impl ColdFile for Written {
    fn write(&mut self, bytes: Bytes) -> BoxFuture<'_, Result<(), ArchiveError>> {
        async move {
            let mut file = self.take()?;
            let written = on_disk(self.temporary.clone(), move |_| {
                file.write_all(&bytes)?;
                Ok(file)
            });
            self.file = Some(written.await?);
            Ok(())
        }
        .boxed()
    }

    fn keep(mut self: Box<Self>) -> BoxFuture<'static, Result<(), ArchiveError>> {
        async move {
            let file = self.take()?;
            let temporary = self.temporary.clone();
            on_disk(self.path.clone(), move |path| {
                file.sync_all()?;
                fs::rename(&temporary, path)?;
                match path.parent() {
                    Some(directory) => File::open(directory)?.sync_all(),
                    None => Ok(()),
                }
            })
            .await
        }
        .boxed()
    }
}

impl Drop for Written {
    /// After a rename there is nothing of that name.
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.temporary);
    }
}

#[cfg(test)]
mod tests;
