//! One build of a projection's documents, as a partition's actor writes it.
//!
//! A page is applied in memory and committed at once. If an event cannot be applied the page is
//! given up and begun again up to that event, which is then tried alone: nothing of a page is
//! written that was not written whole.

use std::any::Any;
use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use indexmap::IndexMap;

use super::pages::{Page, Pages};
use super::{Projection, ProjectionError, partition_of};
use crate::event::{Position, RecordedEvent};
use crate::pool::Lease;
use crate::store::read_model::Epoch;
use crate::store::read_model::documents::{Claimed, Commit, Parked, Part};

/// Events of one transaction at most.
pub(super) const PAGE: usize = 500;

/// Documents that a partition keeps decoded.
const REMEMBERED: usize = 10_000;

/// Events that a projection does not want, and that a crash may go over again.
const PASSED_OVER: u64 = 10_000;

/// How often an event is tried before it is parked.
pub(super) const ATTEMPTS: u32 = 3;

/// Documents of one partition that may be parked. Beyond it the projection is broken rather than
/// the events, and stops.
pub(super) const MAX_PARKED: usize = 1_000;

/// What came of a page.
#[derive(Debug)]
pub(super) enum Step {
    /// It was committed.
    Done(Vec<(Arc<str>, Option<Bytes>, Position)>),
    /// There was nothing.
    Nothing,
    /// Go on at once, with a shorter page.
    Shorter,
    /// Its first event cannot be applied: try again later.
    Again {
        /// How often it was tried.
        attempts: u32,
    },
}

/// See the [module](self).
pub(super) struct Track<P: Projection> {
    pub(super) part: Part,
    partitions: u16,
    pub(super) epoch: Epoch,
    pub(super) at: Position,
    /// The checkpoint in the database. It is behind `at` only by events that the projection does
    /// not want.
    saved: Position,
    documents: IndexMap<Arc<str>, Option<P::Document>>,
    parked: BTreeSet<Arc<str>>,
    limit: usize,
    attempts: u32,
}

/// An event that could not be applied to a document.
struct Poison {
    index: usize,
    reason: String,
}

impl<P: Projection> Track<P> {
    /// Claims a partition of a build; or says who has it.
    pub(super) async fn claim(
        lease: &Lease,
        part: Part,
        partitions: u16,
        owner: &str,
        until: Duration,
    ) -> Result<Result<Self, String>, ProjectionError> {
        let claim = match lease.documents.claim(part, owner, until).await? {
            Claimed::Yes(claim) => claim,
            Claimed::Held { by } => return Ok(Err(by)),
        };
        let parked = lease.documents.parked(part.build).await?;
        let ours = |id: &Arc<str>| partition_of(id, partitions) == part.partition;
        Ok(Ok(Self {
            part,
            partitions,
            epoch: claim.epoch,
            at: claim.checkpoint,
            saved: claim.checkpoint,
            documents: IndexMap::new(),
            parked: parked.into_iter().map(|parked| parked.id).filter(ours).collect(),
            limit: PAGE,
            attempts: 0,
        }))
    }

    pub(super) fn parked(&self) -> usize {
        self.parked.len()
    }

    /// A commit that changes nothing but the checkpoint.
    pub(super) fn commit(&self, to: Position, lease: Duration) -> Commit {
        Commit {
            part: self.part,
            epoch: self.epoch,
            lease,
            to,
            changes: Vec::new(),
            park: Vec::new(),
            unpark: Vec::new(),
        }
    }

    /// Applies the next page.
    pub(super) async fn step(
        &mut self,
        projection: &P,
        lease: &Lease,
        pages: &Pages,
        until: Duration,
    ) -> Result<Step, ProjectionError> {
        let filter = projection.filter();
        let page = match filter.is_all() {
            true => pages.read(&*lease.store, self.at, PAGE).await?,
            false => Page::matching(lease.store.read_matching(&filter, self.at, PAGE).await?),
        };
        let events = page.events();
        let whole = events.len() <= self.limit;
        let events = &events[..events.len().min(self.limit)];
        let last = events.last().map_or(self.at, |last| last.position);
        let to = if whole { page.scanned_to().max(last) } else { last };
        if events.is_empty() {
            return self.pass_over(to, lease, until).await;
        }
        self.load(projection, lease, events).await?;
        let parking = self.attempts >= ATTEMPTS;
        let mut commit = self.commit(to, until);
        match self.apply(projection, events, parking, &mut commit) {
            Ok(()) => {}
            Err(Poison { index: 0, reason }) => {
                self.attempts += 1;
                let position = events[0].position;
                tracing::warn!(
                    projection = P::NAME, %position, attempts = self.attempts, reason,
                    "an event cannot be applied"
                );
                self.documents.clear();
                self.limit = 1;
                return Ok(match self.attempts < ATTEMPTS {
                    true => Step::Again { attempts: self.attempts },
                    false => Step::Shorter,
                });
            }
            Err(Poison { index, .. }) => {
                self.documents.clear();
                self.limit = index;
                return Ok(Step::Shorter);
            }
        }
        let changes = commit.changes.clone();
        let parked: Vec<_> = commit.park.iter().map(|parked| Arc::clone(&parked.id)).collect();
        if let Err(error) = lease.documents.commit(commit).await {
            self.documents.clear();
            return Err(error);
        }
        self.at = to;
        self.saved = to;
        self.parked.extend(parked);
        self.attempts = 0;
        self.limit = PAGE;
        if self.documents.len() > REMEMBERED {
            self.documents.clear();
        }
        Ok(Step::Done(changes))
    }

    /// Goes past events that the projection does not want. A crash goes over them again, so a
    /// checkpoint for many of them will do.
    async fn pass_over(
        &mut self,
        to: Position,
        lease: &Lease,
        until: Duration,
    ) -> Result<Step, ProjectionError> {
        if to == self.at {
            return Ok(Step::Nothing);
        }
        if to.get() - self.saved.get() >= PASSED_OVER {
            lease.documents.commit(self.commit(to, until)).await?;
            self.saved = to;
        }
        self.at = to;
        Ok(Step::Done(Vec::new()))
    }

    /// Brings the checkpoint up to where the build is.
    pub(super) async fn save(
        &mut self,
        lease: &Lease,
        until: Duration,
    ) -> Result<(), ProjectionError> {
        if self.saved < self.at {
            lease.documents.commit(self.commit(self.at, until)).await?;
            self.saved = self.at;
        }
        Ok(())
    }

    fn is_ours(&self, id: &str) -> bool {
        partition_of(id, self.partitions) == self.part.partition
    }

    /// Reads the documents that the events change.
    async fn load(
        &mut self,
        projection: &P,
        lease: &Lease,
        events: &[RecordedEvent],
    ) -> Result<(), ProjectionError> {
        let mut wanted: Vec<_> = events
            .iter()
            .flat_map(|event| projection.ids(event))
            .filter(|id| self.is_ours(id) && !self.documents.contains_key(id))
            .collect();
        if wanted.is_empty() {
            return Ok(());
        }
        wanted.sort_unstable();
        wanted.dedup();
        for found in lease.documents.load(self.part.build, &wanted).await? {
            let document = serde_json::from_slice(&found.data);
            let document = document.map_err(|error| ProjectionError::Document {
                projection: P::NAME.to_owned(),
                id: found.id.to_string(),
                reason: error.to_string(),
            })?;
            self.documents.insert(found.id, Some(document));
        }
        for id in wanted {
            self.documents.entry(id).or_insert(None);
        }
        Ok(())
    }

    /// Applies events to the documents in memory and collects what is to be written. With
    /// `parking`, what the first event cannot be applied to is parked.
    fn apply(
        &mut self,
        projection: &P,
        events: &[RecordedEvent],
        parking: bool,
        commit: &mut Commit,
    ) -> Result<(), Poison> {
        let mut changed: IndexMap<Arc<str>, Position> = IndexMap::new();
        let mut newly: BTreeSet<Arc<str>> = BTreeSet::new();
        for (index, event) in events.iter().enumerate() {
            for id in projection.ids(event) {
                if !self.is_ours(&id) {
                    continue;
                }
                let park = |attempts, error| Parked {
                    id: Arc::clone(&id),
                    position: event.position,
                    attempts,
                    error,
                };
                if self.parked.contains(&id) || newly.contains(&id) {
                    commit.park.push(park(0, String::new()));
                    continue;
                }
                let document = self.documents.get(&id).cloned().flatten();
                match applied(projection, event, &id, document) {
                    Ok(document) => {
                        self.documents.insert(Arc::clone(&id), document);
                        changed.insert(id, event.position);
                    }
                    Err(reason) if parking && index == 0 => {
                        commit.park.push(park(ATTEMPTS, reason));
                        newly.insert(id);
                    }
                    Err(reason) => return Err(Poison { index, reason }),
                }
            }
        }
        for (id, position) in changed {
            let data = match self.documents.get(&id).and_then(Option::as_ref) {
                None => None,
                Some(document) => Some(encode(document).map_err(|reason| Poison {
                    // Whichever event made it so: they are tried one by one.
                    index: events.len().saturating_sub(1).min(events.len() / 2),
                    reason,
                })?),
            };
            commit.changes.push((id, data, position));
        }
        Ok(())
    }

    /// Applies the parked events of a document, in order, and takes it out of the parked ones.
    /// Answers how many there were.
    ///
    /// # Errors
    /// The text says which event cannot be applied, and why; the document stays parked.
    pub(super) async fn retry(
        &mut self,
        projection: &P,
        lease: &Lease,
        id: &str,
        until: Duration,
    ) -> Result<Result<usize, String>, ProjectionError> {
        let parked = lease.documents.parked(self.part.build).await?;
        let waiting: Vec<_> = parked.into_iter().filter(|parked| &*parked.id == id).collect();
        let shared: Arc<str> = id.into();
        let found = lease.documents.load(self.part.build, &[Arc::clone(&shared)]).await?;
        let mut document: Option<P::Document> = match found.first() {
            None => None,
            Some(found) => match serde_json::from_slice(&found.data) {
                Ok(document) => Some(document),
                Err(error) => return Ok(Err(error.to_string())),
            },
        };
        let mut last = found.first().map_or(Position::ZERO, |found| found.position);
        for parked in &waiting {
            let page = lease.store.read_all(parked.position.minus(1), 1).await?;
            let Some(event) = page.first() else {
                return Ok(Err(format!("event {} is not in the log", parked.position)));
            };
            match applied(projection, event, id, document) {
                Ok(next) => document = next,
                Err(reason) => return Ok(Err(format!("event {}: {reason}", parked.position))),
            }
            last = event.position;
        }
        let data = match document.as_ref().map(encode).transpose() {
            Ok(data) => data,
            Err(reason) => return Ok(Err(reason)),
        };
        let mut commit = self.commit(self.at, until);
        commit.changes.push((Arc::clone(&shared), data, last));
        commit.unpark.push(Arc::clone(&shared));
        lease.documents.commit(commit).await?;
        self.documents.swap_remove(&shared);
        self.parked.remove(&shared);
        Ok(Ok(waiting.len()))
    }
}

fn encode<D: serde::Serialize>(document: &D) -> Result<Bytes, String> {
    serde_json::to_vec(document).map(Bytes::from).map_err(|error| error.to_string())
}

/// Applies an event to a document; a panic is an error like others, because the next event can
/// still be right.
fn applied<P: Projection>(
    projection: &P,
    event: &RecordedEvent,
    id: &str,
    document: Option<P::Document>,
) -> Result<Option<P::Document>, String> {
    let apply = AssertUnwindSafe(|| projection.apply(event, id, document));
    match catch_unwind(apply) {
        Ok(applied) => applied.map_err(|fault| fault.to_string()),
        Err(panic) => Err(format!("panic: {}", said(&*panic))),
    }
}

fn said(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no text")
}
