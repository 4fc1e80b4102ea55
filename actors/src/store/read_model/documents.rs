//! Read models of JSON documents, by id.
//!
//! A projection's documents belong to a *build*. One build is active: it is the one that is read.
//! Another can be made beside it and take its place in one transaction, once it is as far. So a
//! rebuild is never seen half done, and reads never go back in time.
//!
//! A build is written in *partitions*: each has a checkpoint and a claim of its own. Documents,
//! parked events and the checkpoint change in one transaction, and only for the latest claim.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use serde::Serialize;

use super::query::ListQuery;
use super::{Epoch, ProjectionError};
use crate::event::Position;
use crate::store::claims::{Claims, Fence};

pub mod builds;
pub mod conformance;
#[cfg(feature = "postgres")]
pub mod postgres;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod rows;
#[cfg(feature = "sqlite")]
pub mod sqlite;

pub use builds::{Activation, Wanted};

/// The most bytes of one document; a larger one is parked with the event that made it so.
pub const MAX_DOCUMENT: usize = 16 * 1024 * 1024;

/// The most bytes of a document's id. An index of PostgreSQL takes no more than some 2,700
/// (<https://www.postgresql.org/docs/15/btree-implementation.html>), and an odd one is written
/// with twice as many.
pub const MAX_ID: usize = 1_024;

/// One making of a projection's documents.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Build {
    /// Its number, unique in the store.
    pub id: i64,
    /// The version of the projection that it was begun with.
    pub version: u32,
    /// In how many partitions it is written.
    pub partitions: u16,
}

/// The builds of a projection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Builds {
    /// The one that is read.
    pub active: Build,
    /// The one that will take its place.
    pub building: Option<Build>,
}

/// A partition of a build.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Part {
    /// The build.
    pub build: i64,
    /// The partition, from 0.
    pub partition: u16,
}

impl Part {
    /// The name of its checkpoint.
    #[cfg(any(feature = "sqlite", feature = "postgres"))]
    pub(crate) fn checkpoint(self) -> String {
        self.to_string()
    }
}

impl Writer {
    /// What it shows when it renews its claim.
    #[must_use]
    pub fn fence(&self) -> Fence {
        let Self { part, owner, epoch } = self.clone();
        Fence { name: part.to_string().into(), owner, epoch }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "build {}/{}", self.build, self.partition)
    }
}

/// A document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// Its id.
    pub id: Arc<str>,
    /// JSON.
    pub data: Bytes,
    /// The last event that changed it.
    pub position: Position,
}

/// A document of the active build, or that there is none.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Read {
    /// The build that was read; `None` if the projection has none.
    pub build: Option<i64>,
    /// The document.
    pub document: Option<Document>,
}

/// Who writes, and under which claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Writer {
    /// The partition.
    pub part: Part,
    /// The name that claimed it.
    pub owner: Arc<str>,
    /// The claim.
    pub epoch: Epoch,
}

/// What a page of events changes, all of it or nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    /// Whose.
    pub writer: Writer,
    /// For how long the claim is good after it, on a store with several nodes.
    pub lease: Duration,
    /// Where the checkpoint is, as the writer believes. A database that crashed may have lost the
    /// last commits, and then the writer has to begin again where it really is. `None` does not
    /// compare.
    pub from: Option<Position>,
    /// The checkpoint after it.
    pub to: Position,
    /// Documents as they are now; `None` removes one.
    pub changes: Vec<Changed>,
    /// Events to be parked.
    pub park: Vec<Parked>,
    /// Parked events that are done: those of a document up to a position.
    pub unpark: Vec<(Arc<str>, Position)>,
    /// It is of parked events that are tried again, and of this document the first that is parked
    /// is this one. If it is not, because somebody has left it out meanwhile, nothing is written.
    pub again: Option<(Arc<str>, Position)>,
}

/// A document after a page, and the last event that changed it. Without data it is removed.
pub type Changed = (Arc<str>, Option<Bytes>, Position);

impl Commit {
    /// A commit of a checkpoint and nothing else.
    #[must_use]
    pub fn checkpoint(
        writer: Writer,
        lease: Duration,
        from: Option<Position>,
        to: Position,
    ) -> Self {
        let (changes, park, unpark) = (Vec::new(), Vec::new(), Vec::new());
        Self { writer, lease, from, to, changes, park, unpark, again: None }
    }
}

/// An event that a projection could not apply, or that waits behind one.
///
/// A document whose first parked event was not tried is due: the node that has the partition
/// applies its parked events again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Parked {
    /// The document that it would change.
    pub id: Arc<str>,
    /// The event.
    pub position: Position,
    /// How often it was tried; 0 if it only waits.
    pub attempts: u32,
    /// What was wrong with it; empty if it only waits.
    pub error: String,
}

/// A document with parked events.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ParkedDocument {
    /// Its id.
    pub id: Arc<str>,
    /// How many events are parked.
    pub events: u64,
    /// Whether they are to be applied again.
    pub due: bool,
}

/// Which parked events are asked for: a page, by document and position.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ParkedQuery {
    /// Only those of one document.
    pub id: Option<Arc<str>>,
    /// Only those behind this one, the last of the page before.
    pub after: Option<(Arc<str>, Position)>,
    /// How many at most; more than [`MAX_LIST`](super::query::MAX_LIST) is read as that.
    pub limit: usize,
}

/// How far a partition is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Progress {
    /// The build.
    pub build: i64,
    /// The version of the projection that it was begun with.
    pub version: u32,
    /// Whether that build is the one that is read.
    pub active: bool,
    /// The partition.
    pub partition: u16,
    /// The last event that was applied.
    pub position: Position,
    /// Who claimed it last.
    pub owner: String,
}

/// Documents in a database. All calls are safe to drop: a dropped write happens or not, and
/// nothing is half done.
pub trait Documents: Send + Sync + fmt::Debug {
    /// The builds of a projection, after what [`builds::decide`] says was done. Makes the first;
    /// begins another beside it for a newer program; leaves everything as it is for an older one.
    ///
    /// # Errors
    /// The database failed.
    fn builds<'a>(
        &'a self,
        projection: &'a str,
        wanted: Wanted,
    ) -> BoxFuture<'a, Result<Builds, ProjectionError>>;

    /// The builds of a projection as they are. Changes nothing, and waits for nobody.
    ///
    /// # Errors
    /// The database failed.
    fn look<'a>(
        &'a self,
        projection: &'a str,
    ) -> BoxFuture<'a, Result<builds::Found, ProjectionError>>;

    /// Begins a build, in place of one that is not finished.
    ///
    /// # Errors
    /// [`Newer`](ProjectionError::Newer): a newer program has made or makes one; or the database
    /// failed.
    fn begin_build<'a>(
        &'a self,
        projection: &'a str,
        wanted: Wanted,
    ) -> BoxFuture<'a, Result<Build, ProjectionError>>;

    /// Puts a build in the place of the active one, if it is at least as far in all partitions and
    /// no more of its documents stand still; whoever writes the old one is fenced.
    ///
    /// # Errors
    /// The database failed.
    fn activate<'a>(
        &'a self,
        projection: &'a str,
        build: i64,
    ) -> BoxFuture<'a, Result<Activation, ProjectionError>>;

    /// The claims on the partitions of builds, by the names that they have when they are
    /// [displayed](Part): taken, renewed, given back, paused, and asked for as those of all who
    /// follow the log. Their place is moved by [`commit`](Self::commit) only. A claim on a build
    /// that was retired is granted, too: whoever has it looks whether there is such a build.
    fn claims(&self) -> Arc<dyn Claims>;

    /// The documents of a build by id; those that there are, in any order.
    ///
    /// # Errors
    /// The database failed.
    fn load<'a>(
        &'a self,
        build: i64,
        ids: &'a [Arc<str>],
    ) -> BoxFuture<'a, Result<Vec<Document>, ProjectionError>>;

    /// Writes a page's changes and its checkpoint, for the latest claim only: epoch, owner and
    /// checkpoint have to be those of the commit.
    ///
    /// # Errors
    /// [`Fenced`](ProjectionError::Fenced); [`Refused`](ProjectionError::Refused) if the database
    /// cannot hold what is to be written; [`LeftOut`](ProjectionError::LeftOut); or it failed.
    fn commit(&self, commit: Commit) -> BoxFuture<'_, Result<(), ProjectionError>>;

    /// Throws the documents away and lets the active build begin again, as `wanted`; whoever
    /// writes it is fenced.
    ///
    /// # Errors
    /// [`Unknown`](ProjectionError::Unknown), or the database failed.
    fn reset<'a>(
        &'a self,
        projection: &'a str,
        wanted: Wanted,
    ) -> BoxFuture<'a, Result<(), ProjectionError>>;

    /// Removes at most `limit` documents of builds that are no longer read. Answers whether there
    /// are more.
    ///
    /// # Errors
    /// The database failed.
    fn prune<'a>(
        &'a self,
        projection: &'a str,
        limit: usize,
    ) -> BoxFuture<'a, Result<bool, ProjectionError>>;

    /// A page of the parked events of a build, by document and position.
    ///
    /// # Errors
    /// The database failed.
    fn parked<'a>(
        &'a self,
        build: i64,
        query: &'a ParkedQuery,
    ) -> BoxFuture<'a, Result<Vec<Parked>, ProjectionError>>;

    /// The documents of a build that have parked events, by id.
    ///
    /// # Errors
    /// The database failed.
    fn parked_documents(
        &self,
        build: i64,
    ) -> BoxFuture<'_, Result<Vec<ParkedDocument>, ProjectionError>>;

    /// Lets the parked events of a document be applied again by the node that has it, be it now
    /// or when one starts. Answers whether there are any.
    ///
    /// # Errors
    /// The database failed.
    fn retry<'a>(&'a self, build: i64, id: &'a str)
    -> BoxFuture<'a, Result<bool, ProjectionError>>;

    /// Leaves out the first parked event of a document; those behind it are due. Answers whether
    /// there was one.
    ///
    /// # Errors
    /// The database failed.
    fn skip<'a>(&'a self, build: i64, id: &'a str) -> BoxFuture<'a, Result<bool, ProjectionError>>;

    /// A document of the active build.
    ///
    /// # Errors
    /// The database failed.
    fn get<'a>(
        &'a self,
        projection: &'a str,
        id: &'a str,
    ) -> BoxFuture<'a, Result<Read, ProjectionError>>;

    /// A page of documents of the active build.
    ///
    /// # Errors
    /// A field is none, or the database failed.
    fn list<'a>(
        &'a self,
        projection: &'a str,
        query: &'a ListQuery,
    ) -> BoxFuture<'a, Result<Vec<Document>, ProjectionError>>;

    /// How far the partitions of the active build and of the one that is made are.
    ///
    /// # Errors
    /// The database failed.
    fn progress<'a>(
        &'a self,
        projection: &'a str,
    ) -> BoxFuture<'a, Result<Vec<Progress>, ProjectionError>>;

    /// The names of all projections that have documents.
    ///
    /// # Errors
    /// The database failed.
    fn projections(&self) -> BoxFuture<'_, Result<Vec<String>, ProjectionError>>;
}
