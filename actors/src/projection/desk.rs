//! What can be done about parked events, on any node and also while none runs: it needs the
//! database only. Whoever has the projection, now or when it starts, does what was asked for.

use std::sync::Arc;

use super::{Documents, Parked, ParkedDocument, ParkedQuery, ProjectionError};

/// The parked events of one projection: of the build that is read and of the one that is made.
#[derive(Debug, Clone)]
pub struct ParkedDesk {
    documents: Arc<dyn Documents>,
    projection: Arc<str>,
}

impl ParkedDesk {
    /// Those of a projection.
    #[must_use]
    pub fn new(documents: Arc<dyn Documents>, projection: impl Into<Arc<str>>) -> Self {
        Self { documents, projection: projection.into() }
    }

    /// The builds in use, the one that is read first.
    async fn builds(&self) -> Result<Vec<i64>, ProjectionError> {
        let found = self.documents.look(&self.projection).await?;
        let Some(active) = found.active else {
            let projection = self.projection.to_string();
            return Err(ProjectionError::Unknown { projection });
        };
        Ok([Some(active), found.building].into_iter().flatten().map(|build| build.id).collect())
    }

    /// The documents that stand still, by id: of the build that is read, and of the one that is
    /// made.
    ///
    /// # Errors
    /// There is no such projection, or the database failed.
    pub async fn documents(&self) -> Result<[Vec<ParkedDocument>; 2], ProjectionError> {
        let mut all = [Vec::new(), Vec::new()];
        for (build, parked) in self.builds().await?.into_iter().zip(&mut all) {
            *parked = self.documents.parked_documents(build).await?;
        }
        Ok(all)
    }

    /// A page of parked events of the build that is read, by document and position; of the one that
    /// is made if nothing of the other is parked.
    ///
    /// # Errors
    /// There is no such projection, or the database failed.
    pub async fn page(&self, query: &ParkedQuery) -> Result<Vec<Parked>, ProjectionError> {
        let whole = ParkedQuery { limit: 1, ..ParkedQuery::default() };
        let builds = self.builds().await?;
        for &build in &builds {
            let is_last = Some(&build) == builds.last();
            if is_last || !self.documents.parked(build, &whole).await?.is_empty() {
                return self.documents.parked(build, query).await;
            }
        }
        Ok(Vec::new())
    }

    /// The builds in which a document stands still.
    pub(super) async fn builds_with(&self, id: &str) -> Result<Vec<i64>, ProjectionError> {
        let mut with = Vec::new();
        for build in self.builds().await? {
            if self.first(build, id).await?.is_some() {
                with.push(build);
            }
        }
        Ok(with)
    }

    /// The first parked event of a document.
    pub(super) async fn first(
        &self,
        build: i64,
        id: &str,
    ) -> Result<Option<Parked>, ProjectionError> {
        let query = ParkedQuery { id: Some(id.into()), after: None, limit: 1 };
        Ok(self.documents.parked(build, &query).await?.into_iter().next())
    }

    /// How many events of a document are parked.
    pub(super) async fn events(&self, build: i64, id: &str) -> Result<u64, ProjectionError> {
        let all = self.documents.parked_documents(build).await?;
        Ok(all.iter().find(|one| &*one.id == id).map_or(0, |one| one.events))
    }

    /// Lets the parked events of a document be applied again. Answers whether there are any.
    ///
    /// # Errors
    /// There is no such projection, or the database failed.
    pub async fn retry(&self, id: &str) -> Result<bool, ProjectionError> {
        let builds = self.builds_with(id).await?;
        for &build in &builds {
            self.documents.retry(build, id).await?;
        }
        Ok(!builds.is_empty())
    }

    /// Leaves out the first parked event of a document, which is then never applied to it, and
    /// lets those behind it be applied. Answers whether there was one.
    ///
    /// # Errors
    /// There is no such projection, or the database failed.
    pub async fn skip(&self, id: &str) -> Result<bool, ProjectionError> {
        let Some(build) = self.builds_with(id).await?.first().copied() else {
            return Ok(false);
        };
        tracing::warn!(projection = %self.projection, id, "a parked event is left out");
        self.documents.skip(build, id).await
    }
}
