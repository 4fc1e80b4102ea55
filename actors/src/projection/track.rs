//! One build of a projection's documents, as a partition's actor writes it: what becomes of the
//! pages that a follower of the log has read.
//!
//! A page is applied in memory and committed at once. If an event cannot be applied the page is
//! given up and begun again up to that event, which is then tried alone: nothing of a page is
//! written that was not written whole.
//!
//! | what goes wrong | what is done |
//! |---|---|
//! | `apply` fails or panics | the event is tried [`ATTEMPTS`] times, then parked |
//! | a document cannot be written or read back, or is too large | the same |
//! | the database cannot hold what was made | the same, for all documents of the event |
//! | `ids` panics | the same, but nobody knows the documents: [`UNKNOWN`] |
//! | too much is parked | nothing is applied until some of it was retried or skipped |

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::kept::Kept;
use super::parked::{ParkedSet, UNKNOWN};
use super::plan::{Ours, Target, To, Unclear, wanted};
use super::{Projection, ProjectionError};
use crate::event::{Position, RecordedEvent};
use crate::guarded::guarded;
use crate::pool::Lease;
use crate::store::follow::MOST_DEATHS;
use crate::store::read_model::documents::{Changed, Commit, Parked, Writer};

/// Events of one transaction at most: what a projection that is behind applies at a time, so that
/// the changes of one document become one.
pub(super) const PAGE: usize = 5_000;

/// A page of fewer events is small, if there are no more of them.
pub(super) const FULL: usize = 500;

/// Bytes of documents of one transaction; a page that makes more of them is made shorter.
const MAX_COMMIT: usize = 16 * 1024 * 1024;

/// The longest that a page is applied before it is written, so that nobody waits for it.
const BUSY: Duration = Duration::from_millis(200);

/// Events that a projection does not want, and that a crash may go over again.
const PASSED_OVER: u64 = 10_000;

/// How long such events may go without a checkpoint, so that other nodes see how far it is.
pub(super) const SAVE_EVERY: Duration = Duration::from_secs(1);

/// How often an event is tried before it is parked.
pub(super) const ATTEMPTS: u32 = 3;

/// What came of a page.
#[derive(Debug)]
pub(super) enum Step {
    /// It was committed.
    Done(Vec<Changed>),
    /// Go on at once, with a shorter page.
    Shorter,
    /// Its first event cannot be applied: try again later.
    Again {
        /// How often it was tried.
        attempts: u32,
    },
}

/// How many events the next page may have, after one that was applied.
pub(super) fn longer(limit: usize) -> usize {
    (limit * 2).min(PAGE)
}

/// See the [module](self).
pub(super) struct Track<P: Projection> {
    pub(super) writer: Writer,
    ours: Ours,
    /// Everything up to here is in the documents.
    pub(super) at: Position,
    /// The checkpoint in the database. It is behind `at` only by events that the projection does
    /// not want.
    saved: Position,
    saved_at: Instant,
    pub(super) kept: Kept<P::Document>,
    pub(super) parked: ParkedSet,
    /// Events of the next page at most.
    pub(super) limit: usize,
    attempts: u32,
    /// Why the event that is tried is parked without another try: the database did not take its
    /// changes, or processes died of it.
    refused: Option<String>,
    /// They died of it even when it was to be parked.
    deadly: bool,
}

/// An event that could not be applied to a document.
struct Poison {
    index: usize,
    reason: String,
}

impl<P: Projection> Track<P> {
    /// A build from a place on, as a writer who has claimed it.
    pub(super) async fn begin(
        lease: &Lease,
        writer: Writer,
        partitions: u16,
        at: Position,
    ) -> Result<Self, ProjectionError> {
        let mut track = Self {
            ours: Ours { partition: writer.part.partition, partitions },
            writer,
            at,
            saved: at,
            saved_at: Instant::now(),
            kept: Kept::new(at == Position::ZERO),
            parked: ParkedSet::default(),
            limit: PAGE,
            attempts: 0,
            refused: None,
            deadly: false,
        };
        track.look_for_parked(lease).await?;
        Ok(track)
    }

    pub(super) const fn build(&self) -> i64 {
        self.writer.part.build
    }

    /// Learns what is parked: anybody may have asked to retry or skip some of it.
    pub(super) async fn look_for_parked(&mut self, lease: &Lease) -> Result<(), ProjectionError> {
        let documents = lease.documents.parked_documents(self.build()).await?;
        let ours = |id: &str| match id {
            UNKNOWN => self.ours.partition == 0,
            id => self.ours.has(id),
        };
        let parked = ParkedSet::new(documents.into_iter().filter(|one| ours(&one.id)));
        if parked.documents() != self.parked.documents() {
            // Some were skipped to the last: what is kept of them is from before.
            self.kept.clear();
        }
        self.parked = parked;
        Ok(())
    }

    /// A commit that changes nothing but the checkpoint.
    pub(super) fn commit(&self, to: Position, lease: Duration) -> Commit {
        Commit::checkpoint(self.writer.clone(), lease, Some(self.saved), to)
    }

    /// Writes a commit, and stands where it says then.
    pub(super) async fn write(
        &mut self,
        lease: &Lease,
        commit: Commit,
    ) -> Result<(), ProjectionError> {
        let to = commit.to;
        lease.documents.commit(commit).await?;
        self.at = to;
        self.saved = to;
        self.saved_at = Instant::now();
        Ok(())
    }

    /// Applies a page, which comes after [`at`](Self::at) and goes to another place.
    pub(super) async fn step(
        &mut self,
        projection: &P,
        events: &[RecordedEvent],
        to: Position,
        lease: &Lease,
        until: Duration,
    ) -> Result<Step, ProjectionError> {
        if events.is_empty() {
            return self.pass_over(to, lease, until).await;
        }
        match self.page(projection, events, to, lease, until).await {
            Ok(Ok(changes)) => {
                self.attempts = 0;
                (self.refused, self.deadly) = (None, false);
                // What made it short may come again soon.
                self.limit = longer(self.limit);
                Ok(Step::Done(changes))
            }
            Ok(Err(poison)) => Ok(self.poisoned(events, poison)),
            // What it refuses it will refuse again: found as an event that cannot be applied is.
            Err(ProjectionError::Refused { reason, .. }) => {
                self.refused = (events.len() == 1).then(|| reason.clone());
                Ok(self.poisoned(events, Poison { index: events.len() / 2, reason }))
            }
            Err(error) => {
                self.kept.clear();
                Err(error)
            }
        }
    }

    /// Applies an event of which processes have died: it is parked.
    pub(super) async fn poison(
        &mut self,
        projection: &P,
        event: &RecordedEvent,
        deaths: u32,
        lease: &Lease,
        until: Duration,
    ) -> Result<Step, ProjectionError> {
        self.attempts = ATTEMPTS;
        self.refused = Some(format!("{deaths} processes ended while it was tried"));
        self.deadly = deaths > MOST_DEATHS;
        let event = std::slice::from_ref(event);
        self.step(projection, event, event[0].position, lease, until).await
    }

    /// A page was given up. The next one ends before the event that is to blame, or is that event.
    fn poisoned(&mut self, events: &[RecordedEvent], Poison { index, reason }: Poison) -> Step {
        self.kept.clear();
        if index > 0 {
            self.limit = index;
            return Step::Shorter;
        }
        self.limit = 1;
        self.attempts += 1;
        let (position, attempts) = (events[0].position, self.attempts);
        tracing::warn!(
            projection = P::NAME, %position, attempts, reason, "an event cannot be applied"
        );
        match attempts < ATTEMPTS {
            true => Step::Again { attempts },
            false => Step::Shorter,
        }
    }

    /// Applies and commits events. What the first of them cannot be applied to is parked once it
    /// was tried often enough.
    async fn page(
        &mut self,
        projection: &P,
        events: &[RecordedEvent],
        to: Position,
        lease: &Lease,
        until: Duration,
    ) -> Result<Result<Vec<Changed>, Poison>, ProjectionError> {
        let parking = self.attempts >= ATTEMPTS;
        let mut commit = self.commit(to, until);
        let wanted = match &self.refused {
            // Not even its documents are asked for: that may be what they died of.
            Some(reason) if self.deadly => Err(Unclear { index: 0, reason: reason.clone() }),
            _ => wanted(projection, events, self.ours, &mut self.kept, &self.parked),
        };
        match wanted {
            Ok(wanted) => {
                if !wanted.missing.is_empty() {
                    let found = lease.documents.load(self.build(), &wanted.missing).await?;
                    self.kept.loaded(&wanted.missing, found);
                }
                let targets = wanted.targets(&mut self.kept, &self.parked);
                if let Err(poison) = self.apply(projection, events, targets, parking, &mut commit) {
                    return Ok(Err(poison));
                }
            }
            // Nobody knows its documents. The partition that parks is the first one.
            Err(Unclear { index: 0, reason }) if parking => {
                if self.ours.partition == 0 {
                    let position = events[0].position;
                    let (id, attempts) = (UNKNOWN.into(), ATTEMPTS);
                    commit.park.push(Parked { id, position, attempts, error: reason });
                }
            }
            Err(Unclear { index, reason }) => return Ok(Err(Poison { index, reason })),
        }
        let bytes = |(_, data, _): &Changed| data.as_ref().map_or(0, bytes::Bytes::len);
        if events.len() > 1 && commit.changes.iter().map(bytes).sum::<usize>() > MAX_COMMIT {
            let reason = "the page is too large".to_owned();
            return Ok(Err(Poison { index: events.len() / 2, reason }));
        }
        // Only a store that no other node writes has a cache to keep up.
        let changes = if lease.shared { Vec::new() } else { commit.changes.clone() };
        let parked: Vec<_> = commit.park.iter().map(|parked| Arc::clone(&parked.id)).collect();
        self.write(lease, commit).await?;
        parked.iter().for_each(|id| self.parked.add(id));
        self.kept.written();
        Ok(Ok(changes))
    }

    /// Goes past events that the projection does not want. A crash goes over them again, so a
    /// checkpoint now and then will do.
    async fn pass_over(
        &mut self,
        to: Position,
        lease: &Lease,
        until: Duration,
    ) -> Result<Step, ProjectionError> {
        self.at = to;
        if to.get() - self.saved.get() >= PASSED_OVER {
            self.save(lease, until).await?;
        }
        self.save_now_and_then(lease, until).await?;
        Ok(Step::Done(Vec::new()))
    }

    pub(super) async fn save_now_and_then(
        &mut self,
        lease: &Lease,
        until: Duration,
    ) -> Result<(), ProjectionError> {
        match self.saved_at.elapsed() >= SAVE_EVERY {
            true => self.save(lease, until).await,
            false => Ok(()),
        }
    }

    /// Whether there is more than the checkpoint in the database says.
    pub(super) fn is_ahead(&self) -> bool {
        self.saved < self.at
    }

    /// Brings the checkpoint up to where the build is.
    pub(super) async fn save(
        &mut self,
        lease: &Lease,
        until: Duration,
    ) -> Result<(), ProjectionError> {
        if self.is_ahead() {
            let commit = self.commit(self.at, until);
            self.write(lease, commit).await?;
        }
        Ok(())
    }

    /// Applies events to the documents in memory and collects what is to be written. With
    /// `parking` there is one event, and what it cannot be applied to is parked.
    fn apply(
        &mut self,
        projection: &P,
        events: &[RecordedEvent],
        targets: Vec<Target>,
        parking: bool,
        commit: &mut Commit,
    ) -> Result<(), Poison> {
        let begun = Instant::now();
        let mut before = 0;
        for Target { event: index, to } in targets {
            let event = &events[index];
            if index != before && index / 64 != before / 64 && begun.elapsed() > BUSY {
                // What is applied takes long: it is written first.
                commit.to = events[before].position;
                break;
            }
            before = index;
            let park = |id: &Arc<str>, attempts, error| Parked {
                id: Arc::clone(id),
                position: event.position,
                attempts,
                error,
            };
            match to {
                To::Wait(id) => commit.park.push(park(&id, 0, String::new())),
                To::Fault(id, reason) if parking => commit.park.push(park(&id, ATTEMPTS, reason)),
                To::Fault(_, reason) => return Err(Poison { index, reason }),
                To::Slot(slot) => {
                    let applied = match &self.refused {
                        Some(reason) if parking => Err(reason.clone()),
                        _ => self.kept.take(slot).and_then(|document| {
                            applied(projection, event, self.kept.id(slot), document)
                        }),
                    };
                    match applied {
                        Ok(document) => self.kept.change(slot, document, event.position),
                        Err(reason) if parking => {
                            let id = self.kept.id(slot);
                            commit.park.push(park(id, ATTEMPTS, reason));
                        }
                        Err(reason) => return Err(Poison { index, reason }),
                    }
                }
            }
        }
        self.encode(events, parking, commit)
    }

    fn encode(
        &mut self,
        events: &[RecordedEvent],
        parking: bool,
        commit: &mut Commit,
    ) -> Result<(), Poison> {
        loop {
            match self.kept.changes() {
                Ok(changes) => {
                    commit.changes = changes;
                    return Ok(());
                }
                // One of its events made it so; they are tried in ever smaller pages.
                Err((_, reason)) if !parking => {
                    return Err(Poison { index: events.len() / 2, reason });
                }
                Err((slot, reason)) => {
                    let (id, position) = (Arc::clone(self.kept.id(slot)), events[0].position);
                    self.kept.unchange(slot);
                    commit.park.push(Parked { id, position, attempts: ATTEMPTS, error: reason });
                }
            }
        }
    }
}

/// Applies an event to a document; a panic is an error like others, because the next event can
/// still be right.
pub(super) fn applied<P: Projection>(
    projection: &P,
    event: &RecordedEvent,
    id: &str,
    document: Option<P::Document>,
) -> Result<Option<P::Document>, String> {
    guarded(|| projection.apply(event, id, document).map_err(|fault| fault.to_string()))?
}
