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
use super::{Claim, Epoch, ProjectionError};
use crate::event::Position;

pub mod conformance;
#[cfg(feature = "postgres")]
pub mod postgres;
#[cfg(feature = "sqlite")]
pub mod sqlite;

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

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "build {}/{}", self.build, self.partition)
    }
}

/// What a claim got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claimed {
    /// The right to write.
    Yes(Claim),
    /// Somebody else writes it and is alive.
    Held {
        /// Who.
        by: String,
    },
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

/// What a page of events changes, all of it or nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    /// Whose.
    pub part: Part,
    /// Under which claim.
    pub epoch: Epoch,
    /// For how long the claim is good after it, on a store with several nodes.
    pub lease: Duration,
    /// The checkpoint after it.
    pub to: Position,
    /// Documents as they are now; `None` removes one.
    pub changes: Vec<(Arc<str>, Option<Bytes>, Position)>,
    /// Events to be parked.
    pub park: Vec<Parked>,
    /// Documents whose parked events are done: they are no longer parked.
    pub unpark: Vec<Arc<str>>,
}

/// An event that a projection could not apply, or that waits behind one.
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

/// How far a partition is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Progress {
    /// The build.
    pub build: i64,
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
    /// The builds of a projection. Makes the first; begins another when the version or the number
    /// of partitions is not the one of the newest.
    ///
    /// # Errors
    /// The database failed.
    fn builds<'a>(
        &'a self,
        projection: &'a str,
        version: u32,
        partitions: u16,
    ) -> BoxFuture<'a, Result<Builds, ProjectionError>>;

    /// Begins a build, in place of one that is not finished.
    ///
    /// # Errors
    /// The database failed.
    fn begin_build<'a>(
        &'a self,
        projection: &'a str,
        version: u32,
        partitions: u16,
    ) -> BoxFuture<'a, Result<Build, ProjectionError>>;

    /// Puts a build in the place of the active one, if it is at least as far in all partitions;
    /// whoever writes the old one is fenced. Answers whether it is active now.
    ///
    /// # Errors
    /// The database failed.
    fn activate<'a>(
        &'a self,
        projection: &'a str,
        build: i64,
    ) -> BoxFuture<'a, Result<bool, ProjectionError>>;

    /// Takes a partition over. Whoever had it before is fenced from now on; on a store with
    /// several nodes that happens only when its lease has run out, or it has the same name.
    ///
    /// # Errors
    /// The database failed.
    fn claim<'a>(
        &'a self,
        part: Part,
        owner: &'a str,
        lease: Duration,
    ) -> BoxFuture<'a, Result<Claimed, ProjectionError>>;

    /// The documents of a build by id; those that there are, in any order.
    ///
    /// # Errors
    /// The database failed.
    fn load<'a>(
        &'a self,
        build: i64,
        ids: &'a [Arc<str>],
    ) -> BoxFuture<'a, Result<Vec<Document>, ProjectionError>>;

    /// Writes a page's changes and its checkpoint.
    ///
    /// # Errors
    /// [`Fenced`](ProjectionError::Fenced), or the database failed.
    fn commit(&self, commit: Commit) -> BoxFuture<'_, Result<(), ProjectionError>>;

    /// Empties the active build and lets it begin again; whoever writes it is fenced.
    ///
    /// # Errors
    /// The database failed.
    fn reset<'a>(&'a self, projection: &'a str) -> BoxFuture<'a, Result<(), ProjectionError>>;

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

    /// The parked events of a build, by document and position.
    ///
    /// # Errors
    /// The database failed.
    fn parked(&self, build: i64) -> BoxFuture<'_, Result<Vec<Parked>, ProjectionError>>;

    /// Leaves out the first parked event of a document.
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
    ) -> BoxFuture<'a, Result<Option<Document>, ProjectionError>>;

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
