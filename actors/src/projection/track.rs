//! One build of a projection's documents, as a partition's actor writes it.
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
use super::pages::{Page, Pages};
use super::parked::{ParkedSet, UNKNOWN};
use super::plan::{Ours, Target, To, Unclear, wanted};
use super::{Projection, ProjectionError};
use crate::event::{Position, RecordedEvent};
use crate::guarded::guarded;
use crate::pool::Lease;
use crate::store::EventFilter;
use crate::store::claims::{Claimed, Place, Save};
use crate::store::follow::MOST_DEATHS;
use crate::store::read_model::documents::builds::Found;
use crate::store::read_model::documents::{Changed, Commit, Parked, Part, Writer};

/// Events of one transaction at most: what a projection that is behind applies at a time, so that
/// the changes of one document become one.
pub(super) const PAGE: usize = 5_000;

/// A page of fewer events is small, if there are no more of them.
const FULL: usize = 500;

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
    /// There was nothing.
    Nothing,
    /// Go on at once, with a shorter page.
    Shorter,
    /// Its first event cannot be applied: try again later.
    Again {
        /// How often it was tried.
        attempts: u32,
    },
    /// Too much is parked; the text says what.
    StandsStill(String),
}

/// See the [module](self).
pub(super) struct Track<P: Projection> {
    pub(super) writer: Writer,
    ours: Ours,
    pub(super) at: Position,
    /// The checkpoint in the database. It is behind `at` only by events that the projection does
    /// not want.
    saved: Position,
    saved_at: Instant,
    pub(super) kept: Kept<P::Document>,
    pub(super) parked: ParkedSet,
    limit: usize,
    /// The last page was all there is, and small.
    pub(super) small: bool,
    attempts: u32,
    /// Why the event that is tried is parked without another try: the database did not take its
    /// changes, or processes died of it.
    refused: Option<String>,
    /// Nothing is applied until it is resumed.
    pub(super) paused: bool,
    /// Requests that were heard.
    heard: u64,
    deaths: Deaths,
}

/// What is known of processes that died here.
struct Deaths {
    /// So many events come one at a time.
    careful: u64,
    /// The event that was tried by itself, and how many died of it.
    trying: Position,
    tries: u32,
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
        owner: &Arc<str>,
        until: Duration,
    ) -> Result<Result<Self, String>, ProjectionError> {
        let name = part.to_string();
        let claim = match lease.documents.claims().claim(&name, owner, until).await? {
            Claimed::Yes(claim) => claim,
            Claimed::Held(place) => return Ok(Err(place.owner.to_string())),
        };
        // Somebody may have retired it just before: then there is nothing to write.
        let Found { active, building } = lease.documents.look(P::NAME).await?;
        if [active, building].iter().flatten().all(|build| build.id != part.build) {
            return Err(ProjectionError::Fenced { part: name });
        }
        let careful = claim.place.is_deadly();
        let Place { position: checkpoint, paused, heard, deaths, trying, tries, .. } = claim.place;
        if careful {
            tracing::warn!(
                projection = P::NAME, part = name, position = %checkpoint, deaths,
                "its owners died here: events come one at a time"
            );
        }
        let careful = if careful { PAGE as u64 } else { 0 };
        let empty = checkpoint == Position::ZERO;
        let mut track = Self {
            writer: Writer { part, owner: Arc::clone(owner), epoch: claim.fence.epoch },
            ours: Ours { partition: part.partition, partitions },
            at: checkpoint,
            saved: checkpoint,
            saved_at: Instant::now(),
            kept: Kept::new(empty),
            parked: ParkedSet::default(),
            limit: PAGE,
            small: false,
            attempts: 0,
            refused: None,
            paused,
            heard,
            deaths: Deaths { careful, trying, tries },
        };
        track.look_for_parked(lease).await?;
        Ok(Ok(track))
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

    /// Applies the next page.
    pub(super) async fn step(
        &mut self,
        projection: &P,
        filter: &EventFilter,
        lease: &Lease,
        pages: &Pages,
        until: Duration,
    ) -> Result<Step, ProjectionError> {
        self.small = false;
        if let Some(why) = self.parked.full() {
            self.save(lease, until).await?;
            return Ok(Step::StandsStill(why));
        }
        let limit = if self.deaths.careful > 0 { 1 } else { self.limit };
        let page = match filter.is_all() {
            true => pages.read(&*lease.store, self.at, limit, self.ours.partitions > 1).await?,
            false => Page::matching(lease.store.read_matching(filter, self.at, limit).await?),
        };
        let whole = page.events().len() <= limit;
        let events = &page.events()[..page.events().len().min(limit)];
        let Some(last) = events.last() else {
            return self.pass_over(page.scanned_to(), lease, until).await;
        };
        let to = if whole { page.scanned_to().max(last.position) } else { last.position };
        if self.deaths.careful > 0 {
            self.be_careful(last.position, lease, until).await?;
        }
        match self.page(projection, events, to, lease, until).await {
            Ok(Ok(changes)) => {
                self.attempts = 0;
                self.refused = None;
                // What made it short may come again soon.
                self.limit = (self.limit * 2).min(PAGE);
                self.small = whole && events.len() < limit.min(FULL) && self.at == to;
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

    /// Before an event that may kill the process is tried, that is noted. One of which processes
    /// have died is parked.
    async fn be_careful(
        &mut self,
        position: Position,
        lease: &Lease,
        until: Duration,
    ) -> Result<(), ProjectionError> {
        let Deaths { trying, tries, .. } = self.deaths;
        let tries = if trying == position { tries } else { 0 };
        if tries >= MOST_DEATHS {
            self.attempts = ATTEMPTS;
            self.refused = Some(format!("{tries} processes ended while it was tried"));
        }
        let save = Save { trying: Some(position), durable: true, ..Save::renewal(until) };
        lease.documents.claims().save(&self.writer.fence(), save).await?;
        self.deaths.careful -= 1;
        (self.deaths.trying, self.deaths.tries) = (position, tries);
        Ok(())
    }

    /// Hears what is asked of the owner; a sign of life, too.
    pub(super) async fn hear(
        &mut self,
        lease: &Lease,
        until: Duration,
    ) -> Result<(), ProjectionError> {
        let (claims, fence) = (lease.documents.claims(), self.writer.fence());
        let orders = claims.save(&fence, Save::renewal(until)).await?;
        self.paused = orders.paused;
        if self.heard < orders.asked {
            // Whoever asked waits for this.
            claims.save(&fence, Save { heard: orders.asked, ..Save::renewal(until) }).await?;
            self.heard = orders.asked;
        }
        Ok(())
    }

    /// Gives the claim back.
    pub(super) async fn release(&self, lease: &Lease) -> Result<(), ProjectionError> {
        Ok(lease.documents.claims().release(&self.writer.fence()).await?)
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
            Some(reason) if self.deaths.tries > MOST_DEATHS => {
                Err(Unclear { index: 0, reason: reason.clone() })
            }
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
        if to <= self.at {
            self.save_now_and_then(lease, until).await?;
            return Ok(Step::Nothing);
        }
        self.at = to;
        if to.get() - self.saved.get() >= PASSED_OVER {
            self.save(lease, until).await?;
        }
        self.save_now_and_then(lease, until).await?;
        Ok(Step::Done(Vec::new()))
    }

    async fn save_now_and_then(
        &mut self,
        lease: &Lease,
        until: Duration,
    ) -> Result<(), ProjectionError> {
        match self.saved_at.elapsed() >= SAVE_EVERY {
            true => self.save(lease, until).await,
            false => Ok(()),
        }
    }

    /// Brings the checkpoint up to where the build is.
    pub(super) async fn save(
        &mut self,
        lease: &Lease,
        until: Duration,
    ) -> Result<(), ProjectionError> {
        if self.saved < self.at {
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
