//! A claim on a name, with a checkpoint: of several nodes on one store, one has it.
//!
//! It is the claim that projections have on their partitions, for those that follow the log and
//! keep no read model: the documents under the name, if any, are their own notes.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::ProjectionError;
use super::documents::{Claimed, Commit, Document, Documents, Part, Wanted, Writer};
use super::query::ListQuery;
use crate::event::Position;

/// How long a claim is good without a sign of life.
pub(crate) const LEASE: Duration = Duration::from_secs(5);

/// A note that is written with a checkpoint; `None` removes it.
pub(crate) type Note = (Arc<str>, Option<Bytes>);

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Claim {
    documents: Arc<dyn Documents>,
    name: String,
    writer: Writer,
}

impl Claim {
    /// Takes a name over, unless another node has it. Answers the claim and its checkpoint.
    pub(crate) async fn take(
        documents: &Arc<dyn Documents>,
        name: String,
        owner: &str,
    ) -> Result<Option<(Self, Position)>, ProjectionError> {
        let build = documents.builds(&name, Wanted { version: 1, partitions: 1 }).await?.active;
        let part = Part { build: build.id, partition: 0 };
        match documents.claim(part, owner, LEASE).await? {
            Claimed::Held { .. } => Ok(None),
            Claimed::Yes(claim) => {
                let documents = Arc::clone(documents);
                let checkpoint = claim.checkpoint;
                let writer = Writer { part, owner: owner.into(), epoch: claim.epoch };
                Ok(Some((Self { documents, name, writer }, checkpoint)))
            }
        }
    }

    /// Writes a checkpoint and notes, all of it or nothing; a sign of life, too.
    pub(crate) async fn save(
        &self,
        to: Position,
        notes: impl IntoIterator<Item = Note>,
    ) -> Result<(), ProjectionError> {
        let commit = Commit {
            writer: self.writer.clone(),
            lease: LEASE,
            from: None,
            to,
            changes: notes.into_iter().map(|(id, data)| (id, data, to)).collect(),
            park: Vec::new(),
            unpark: Vec::new(),
        };
        self.documents.commit(commit).await
    }

    /// One note.
    pub(crate) async fn note(&self, id: &str) -> Result<Option<Bytes>, ProjectionError> {
        let found = self.documents.load(self.writer.part.build, &[id.into()]).await?;
        Ok(found.into_iter().next().map(|document| document.data))
    }

    /// A page of notes, by id.
    pub(crate) async fn notes(
        &self,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<Document>, ProjectionError> {
        let query = ListQuery::first(limit);
        let query = match after {
            Some(after) => query.after(after),
            None => query,
        };
        self.documents.list(&self.name, &query).await
    }
}
