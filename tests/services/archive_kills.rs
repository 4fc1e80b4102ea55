//! Archives and restores that are killed after every statement that they send, as real processes,
//! and before and after everything that they do to a file.

use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use mister_smith::actors::event::Position;
use mister_smith::actors::store::archive::{
    ArchiveError, ArchivedStore, Cold, ColdFile, manifests,
};
use mister_smith::actors::store::conformance;
use mister_smith::archive::Directory;
use mister_smith_testkit::{Postgres, eventually};
use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::archives::{archive, log, mounted, reads_all, tables};
use crate::partitions::small_partitions;
use crate::server::{DEADLINE, name_of, open};
use crate::wire::{Cut, Wire};

/// `smith archive` with these arguments, a process of its own, by this wire.
fn smith(action: &str, directory: &Path, more: &[&str], url: &str) -> Child {
    Command::new(env!("CARGO_BIN_EXE_smith"))
        .args(["archive", action, "--directory"])
        .arg(directory)
        .args(more)
        .args(["--store", url])
        .env_remove("SMITH_STORE")
        .env_remove("SMITH_ARCHIVE_DIR")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap()
}

/// Kills a process right after each of the messages that it sends the server, one life a message;
/// `next` makes everything anew for a life and looks at what the one before has left.
async fn killed_after_every_message(
    start: impl Fn(&Path, &str) -> Child,
    mut begin: impl AsyncFnMut() -> (String, TempDir),
    mut look: impl AsyncFnMut(u64, &str, &Path),
) {
    let (url, directory) = begin().await;
    let wire = Wire::to(&url);
    let mut whole = start(directory.path(), &wire.url(&url));
    assert!(whole.wait().await.unwrap().success());
    let messages = wire.sent();
    assert!(messages > 20, "{messages}");
    look(0, &url, directory.path()).await;
    for message in 1..=messages {
        let (url, directory) = begin().await;
        let wire = Wire::to(&url);
        wire.cut(Cut::After(message));
        let mut killed = start(directory.path(), &wire.url(&url));
        tokio::select! {
            biased;
            () = wire.was_cut(1) => killed.kill().await.unwrap(),
            // Its connections do not send in the same order in every life.
            ended = killed.wait() => assert!(ended.unwrap().success()),
        }
        look(message, &url, directory.path()).await;
    }
}

/// Guards against archives that a killed archiver leaves unfinished, or that the next one destroys.
#[tokio::test(flavor = "multi_thread")]
async fn an_archiver_killed_after_any_statement_is_finished_by_the_next() {
    let server = Postgres::start().await;
    let template = small_partitions(&server).await;
    let (store, log) = log(&template).await;
    store.settle().await.unwrap();
    store.close().await;
    let args = ["--keep", "3", "--mounted"];
    killed_after_every_message(
        |directory, url| smith("run", directory, &args, url),
        async || {
            let url = server.copy_of_database(name_of(&template)).await;
            (url, TempDir::new().unwrap())
        },
        async |message, url, directory| {
            let store = open(url).await;
            let report = archive(&store, directory, &mounted(3)).await;
            assert_eq!((report.up_to.get(), report.held_back), (200, None), "{message}");
            let files = manifests(&Directory::new(directory)).await.unwrap();
            let ranges: Vec<_> = files.iter().map(|one| (one.from.get(), one.to.get())).collect();
            assert_eq!(ranges, [(1, 100), (101, 200)], "{message}");
            assert_eq!(tables(&server, url).await, 4, "{message}: nothing is left behind");
            let left = std::fs::read_dir(directory).unwrap().count();
            assert_eq!(left, 6, "{message}: two files of events, their indexes and manifests");
            reads_all(store, directory, &log).await;
        },
    )
    .await;
}

/// The same of somebody who puts ranges back: each is in the files, and in the database or not.
#[tokio::test(flavor = "multi_thread")]
async fn a_restore_killed_after_any_statement_is_finished_by_the_next() {
    let server = Postgres::start().await;
    let template = small_partitions(&server).await;
    let (store, log) = log(&template).await;
    let files = TempDir::new().unwrap();
    archive(&store, files.path(), &mounted(3)).await;
    store.close().await;
    killed_after_every_message(
        |_, url| smith("restore", files.path(), &["--after", "0"], url),
        async || {
            let url = server.copy_of_database(name_of(&template)).await;
            (url, TempDir::new().unwrap())
        },
        async |message, url, _| {
            let store = open(url).await;
            let up_to = store.archived_up_to().await.unwrap().get();
            assert!([0, 100, 200].contains(&up_to), "{message}: {up_to}");
            let store = Arc::new(store);
            let cold = Directory::shared(files.path());
            let whole = ArchivedStore::open(store.clone(), cold.clone()).await.unwrap();
            assert_eq!(conformance::whole_log(&whole, 64).await, log, "{message}");
            eventually(DEADLINE, async || match store.restore(&*cold, Position::ZERO).await {
                Err(error @ ArchiveError::Busy { .. }) => Err(error.to_string()),
                result => {
                    result.unwrap();
                    Ok(())
                }
            })
            .await;
            assert_eq!(conformance::whole_log(&*store, 100).await, log, "{message}");
            assert_eq!(tables(&server, url).await, 6, "{message}: nothing is left behind");
        },
    )
    .await;
}

/// A directory whose program is killed before or after one of the things that it does there.
#[derive(Debug)]
struct Killed {
    directory: Directory,
    /// How many things are still done or begun.
    left: AtomicU64,
    /// What comes last is done, and nobody is told.
    done: bool,
}

enum Turn {
    Does,
    DoesAndDies,
    IsDead,
}

impl Killed {
    fn turn(&self) -> Turn {
        let next = |left: u64| Some(left.saturating_sub(1));
        match self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).unwrap() {
            0 => Turn::IsDead,
            1 if self.done => Turn::DoesAndDies,
            1 => Turn::IsDead,
            _ => Turn::Does,
        }
    }

    async fn does<T>(
        &self,
        what: impl Future<Output = Result<T, ArchiveError>>,
    ) -> Result<T, ArchiveError> {
        match self.turn() {
            Turn::Does => what.await,
            Turn::DoesAndDies => what.await.and(Err(dead())),
            Turn::IsDead => Err(dead()),
        }
    }
}

fn dead() -> ArchiveError {
    ArchiveError::File { file: "any".to_owned(), source: std::io::Error::other("killed") }
}

/// What a killed program had open: it tidies nothing up.
#[derive(Debug)]
struct KilledFile {
    file: Option<Box<dyn ColdFile>>,
    of: Arc<Killed>,
}

impl Drop for KilledFile {
    fn drop(&mut self) {
        std::mem::forget(self.file.take());
    }
}

#[derive(Debug)]
struct Place(Arc<Killed>);

impl Cold for Place {
    fn place(&self) -> String {
        self.0.directory.place()
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<String>, ArchiveError>> {
        self.0.does(self.0.directory.list()).boxed()
    }

    fn read<'a>(
        &'a self,
        file: &'a str,
        at: u64,
        most: usize,
    ) -> BoxFuture<'a, Result<Bytes, ArchiveError>> {
        self.0.does(self.0.directory.read(file, at, most)).boxed()
    }

    fn create<'a>(
        &'a self,
        file: &'a str,
    ) -> BoxFuture<'a, Result<Box<dyn ColdFile>, ArchiveError>> {
        async move {
            let turn = self.0.turn();
            if matches!(turn, Turn::IsDead) {
                return Err(dead());
            }
            let file = Some(self.0.directory.create(file).await?);
            let file = KilledFile { file, of: Arc::clone(&self.0) };
            match turn {
                Turn::Does => Ok(Box::new(file) as Box<dyn ColdFile>),
                _ => Err(dead()),
            }
        }
        .boxed()
    }
}

impl ColdFile for KilledFile {
    fn write(&mut self, bytes: Bytes) -> BoxFuture<'_, Result<(), ArchiveError>> {
        let file = self.file.as_mut().unwrap();
        self.of.does(file.write(bytes)).boxed()
    }

    fn keep(mut self: Box<Self>) -> BoxFuture<'static, Result<(), ArchiveError>> {
        async move {
            match self.of.turn() {
                Turn::IsDead => Err(dead()),
                turn => {
                    self.file.take().unwrap().keep().await?;
                    if matches!(turn, Turn::Does) { Ok(()) } else { Err(dead()) }
                }
            }
        }
        .boxed()
    }
}

/// Guards against files that are taken for whole.
#[tokio::test(flavor = "multi_thread")]
async fn an_archiver_killed_at_any_file_is_finished_by_the_next() {
    let server = Postgres::start().await;
    let template = small_partitions(&server).await;
    let (store, log) = log(&template).await;
    store.settle().await.unwrap();
    store.close().await;
    let mut kills = 0;
    for point in 1.. {
        let mut ended = false;
        for done in [false, true] {
            let url = server.copy_of_database(name_of(&template)).await;
            let directory = TempDir::new().unwrap();
            let cold = Directory::new(directory.path());
            let killed = Killed { directory: cold.clone(), left: AtomicU64::new(point), done };
            let archiver = open(&url).await;
            let result = archiver.archive(&Place(Arc::new(killed)), &mounted(4)).await;
            ended = result.is_ok();
            kills += u64::from(!ended);
            let report = archive(&open(&url).await, directory.path(), &mounted(4)).await;
            assert_eq!(report.up_to.get(), 100, "{point} {done}");
            assert_eq!(tables(&server, &url).await, 5, "{point} {done}");
            let left = std::fs::read_dir(directory.path()).unwrap().count();
            assert_eq!(left, 3, "{point} {done}: events, index and manifest");
            reads_all(open(&url).await, directory.path(), &log).await;
        }
        if ended {
            break;
        }
    }
    assert!(kills > 16, "{kills}");
}
