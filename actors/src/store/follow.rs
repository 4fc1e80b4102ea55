//! Following the log under a name: one piece for everything that does.
//!
//! A [`Follower`] claims its name, so that of several nodes on a store one follows; reads the log
//! from its place, by pages and in the order of commits; waits at the end of it; and keeps how far
//! everything is settled. Its user says what is done with the events.
//!
//! ```text
//!            ┌ keep: claim, renew, hear requests ┐  a task of its own
//!  Follower ─┤                                   ├─ claims::Claims
//!            └ next: Begin │ Page │ Paused │ …   ┘  by the user, whenever it has room
//! ```
//!
//! - The claim is renewed by [`keep`](Follower::keep), whatever the user's mailbox is busy with. A
//!   node that slept past its lease asks for it again *before* it acts: every
//!   [`next`](Follower::next) does so, and [`assure`](Follower::assure) does so in between.
//! - Whoever stands by looks twice a second whether the claim is to be had, and shows the owner's
//!   place meanwhile: [`Shown::wait_for`] works on every node.
//! - Pausing, going back and skipping are requests in the store ([`Request`](super::claims::Request)): any node can make
//!   them, and the owner hears them with its next renewal, or at once if it is this node. What it
//!   cannot do, or cannot read, it refuses, and whoever asked learns why.
//! - An event that kills the process is found by its deaths: after [`CAREFUL_AFTER`] owners that
//!   died without progress, events come one at a time, each noted before it is handed out; one that
//!   is noted for [`MOST_DEATHS`] deaths comes as [`Step::Poison`], to be put aside.
//! - A part of the log that was archived stops it where it is, visibly, until it can be read or
//!   somebody moves the place.
//!
//! [`Follow::on_every_node`] follows without a claim: every node has its own place, in memory.
//!
//! # Projections
//!
//! A projection keeps its place with its documents, in one transaction, so that each event has its
//! effect once ([`Follow::own_place`]). So it writes the place itself, and shows the
//! [fence](Follower::fence) with it; everything else is the follower's: the claim and its renewal,
//! standing by, pages and the wait for them, deadly events, pause and resume. A page is handed out
//! whole and applied whole; the cursor is the user's, so that a page that could not be applied is
//! read again, with fewer events ([`Cursor::after`]). Partitions read the same events and
//! [share](Follow::sharing) their pages. Parked events of a projection are its own, because they
//! belong to documents and not to a place, and so do those that are left out.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mister_smith_supervisors::{Clock, ErrorClass, Failure};
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, watch};

use super::claims::{ClaimError, Claims, Fence};
use super::{EventFilter, EventStore};
use crate::event::{Position, RecordedEvent};
use crate::pool::{Lease, store_failure};

mod handle;
mod keep;
mod next;
mod pages;
mod place;
mod shown;
pub mod window;

pub use handle::{Followers, FollowersError, Parked};
pub(crate) use keep::wait_until_heard;
pub use pages::{Page, Pages};
pub use shown::{Shown, Standing};

#[cfg(test)]
mod tests;

/// How long a claim is good without a sign of life.
pub const LEASE: Duration = Duration::from_secs(5);

/// How often a claim is renewed, with the place.
pub const RENEW_EVERY: Duration = Duration::from_millis(1_500);

/// How often those who stand by look for the claim.
pub const LOOK_EVERY: Duration = Duration::from_millis(400);

/// After so many owners have died at the same place, events come one at a time.
pub const CAREFUL_AFTER: u32 = 2;

/// An event of which so many owners have died is poison.
pub const MOST_DEATHS: u32 = 2;

/// How long a request waits for its owner to hear it.
pub const ASK_DEADLINE: Duration = Duration::from_secs(10);

/// The pause before something is tried again that the store refused.
const AGAIN: Duration = Duration::from_millis(200);

/// How often a place that cannot be read is tried again.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// Requests of one page.
const REQUESTS: usize = 100;

/// Refused requests that are remembered.
const REFUSALS: usize = 16;

/// Notes of events that were put aside.
const PARKED: &str = "$parked/";

/// The note of a [`Mark`](window::Mark), for users with a window. It is gone when the place moves.
pub const MARK: &str = "$mark";

/// Notes of applications come after all that are reserved.
const FIRST_NOTE: &str = "$\u{10ffff}";

/// Who follows what.
#[derive(Debug, Clone)]
pub struct Follow {
    name: Arc<str>,
    owner: Arc<str>,
    filter: EventFilter,
    claimed: bool,
    own_place: bool,
    repeats: u64,
    pages: Option<Pages>,
}

impl Follow {
    /// Follows everything under a name, for an owner: a name that no other process has, ever.
    #[must_use]
    pub fn new(name: impl Into<Arc<str>>, owner: impl Into<Arc<str>>) -> Self {
        Self {
            name: name.into(),
            owner: owner.into(),
            filter: EventFilter::ALL,
            claimed: true,
            own_place: false,
            repeats: 2_000,
            pages: None,
        }
    }

    /// Only what a filter lets through.
    #[must_use]
    pub fn filter(mut self, filter: EventFilter) -> Self {
        self.filter = filter;
        self
    }

    /// How many events, at most, come again after a crash; 2,000. As many are handled one at a
    /// time when one of them is deadly.
    #[must_use]
    pub const fn repeats(mut self, events: u64) -> Self {
        self.repeats = events;
        self
    }

    /// Without a claim: every node follows, from the end of the log when it starts, and goes on
    /// where it was as long as its [`Shown`] lives.
    #[must_use]
    pub const fn on_every_node(mut self) -> Self {
        self.claimed = false;
        self
    }

    /// Its user writes the place itself, with what it makes of the events; see
    /// [`claims`](super::claims).
    #[must_use]
    pub const fn own_place(mut self) -> Self {
        self.own_place = true;
        self
    }

    /// What one of several followers has read, the others need not read: those of the same filter
    /// that are mostly close together.
    #[must_use]
    pub fn sharing(mut self, pages: &Pages) -> Self {
        self.pages = Some(pages.clone());
        self
    }
}

/// Where a follower reads, and where it keeps its claim.
#[derive(Debug, Clone)]
pub struct Source {
    /// The log.
    pub store: Arc<dyn EventStore>,
    /// Claims and places.
    pub claims: Arc<dyn Claims>,
    /// Other nodes work on the same store: a lease is a lease.
    pub shared: bool,
}

impl From<&Lease> for Source {
    fn from(lease: &Lease) -> Self {
        let (store, claims) = (Arc::clone(&lease.store), Arc::clone(&lease.claims));
        Self { store, claims, shared: lease.shared }
    }
}

/// Where a user is. It keeps this, and hands it to [`next`](Follower::next).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cursor {
    /// Counts how often the place was taken up: with each claim, and with each request that moves
    /// it. What was begun under another turn does not count any more.
    turn: u64,
    at: Position,
    paused: bool,
    /// A page ended there: whatever comes behind it is announced.
    read: bool,
}

/// A request that could not be done.
#[derive(Debug, Serialize, Deserialize)]
struct Refusal {
    number: u64,
    reason: String,
}

impl Cursor {
    /// Everything up to here was handed out.
    #[must_use]
    pub const fn position(self) -> Position {
        self.at
    }

    /// Whether what was begun with the other still counts: the place was not taken up anew since,
    /// and it is no message of a life before.
    #[must_use]
    pub const fn is_turn_of(self, other: Self) -> bool {
        self.turn == other.turn
    }

    /// The same turn from another place, for users that know it better.
    #[must_use]
    pub const fn after(mut self, position: Position) -> Self {
        (self.at, self.read) = (position, false);
        self
    }
}

impl Step {
    /// Where the user is with it.
    #[must_use]
    pub const fn cursor(&self) -> Cursor {
        match self {
            Self::Begin(cursor)
            | Self::Paused(_, cursor)
            | Self::Page(_, cursor)
            | Self::Poison(_, _, cursor) => *cursor,
        }
    }
}

/// What comes next.
#[derive(Debug)]
#[non_exhaustive]
pub enum Step {
    /// Begin from here, and forget what was begun before: the claim was taken, or the place moved.
    Begin(Cursor),
    /// Begin nothing, or go on.
    Paused(bool, Cursor),
    /// Events; none if what was read is not wanted.
    Page(Page, Cursor),
    /// An event of which so many owners have died. It is to be put aside and settled.
    Poison(Box<RecordedEvent>, u32, Cursor),
}

/// Follows the log under a name. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct Follower(Arc<Inner>);

struct Inner {
    follow: Follow,
    source: Source,
    head: watch::Receiver<Position>,
    clock: Clock,
    shown: Arc<Shown>,
    state: Mutex<State>,
    /// Counts changes of the state.
    changed: watch::Sender<u64>,
    /// One save at a time: an older place must not follow a newer one.
    saving: tokio::sync::Mutex<()>,
    poke: Notify,
}

#[derive(Default)]
struct State {
    turn: u64,
    fence: Option<Fence>,
    /// The claim is good until then, by the time that runs and by the time of day: one of them goes
    /// on whatever stands still.
    good_until: (Duration, i64),
    settled: Position,
    saved: Position,
    paused: bool,
    /// Requests that there have been, and that were heard.
    asked: u64,
    heard: u64,
    /// Events to be left out, with their requests.
    skips: BTreeMap<Position, Arc<str>>,
    /// Events that come one at a time.
    careful: u64,
    trying: Position,
    tries: u32,
}

impl Follower {
    /// A follower that does nothing until [`keep`](Self::keep) runs. `shown` lives longer than this
    /// life and is read by others.
    #[must_use]
    pub fn new(
        follow: Follow,
        source: impl Into<Source>,
        head: watch::Receiver<Position>,
        clock: Clock,
        shown: Arc<Shown>,
    ) -> Self {
        Self(Arc::new(Inner {
            follow,
            source: source.into(),
            head,
            clock,
            shown,
            state: Mutex::default(),
            changed: watch::Sender::new(0),
            saving: tokio::sync::Mutex::new(()),
            poke: Notify::new(),
        }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing below panics with it half changed.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let value = change(&mut self.state());
        self.0.changed.send_modify(|count| *count += 1);
        value
    }

    /// One note.
    ///
    /// # Errors
    /// The store failed.
    pub async fn note(&self, id: &str) -> Result<Option<bytes::Bytes>, ClaimError> {
        self.0.source.claims.note(&self.0.follow.name, id).await
    }

    /// A page of the user's notes, by id.
    ///
    /// # Errors
    /// The store failed.
    pub async fn notes(
        &self,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<(Arc<str>, bytes::Bytes)>, ClaimError> {
        let after = after.unwrap_or(FIRST_NOTE);
        self.0.source.claims.notes(&self.0.follow.name, after, limit).await
    }

    /// What is shown of it.
    #[must_use]
    pub fn shown(&self) -> &Arc<Shown> {
        &self.0.shown
    }
}

/// The error of a follower as the reason to end its user's life.
#[must_use]
pub fn failure(error: ClaimError) -> Failure {
    match error {
        ClaimError::Store(error) => store_failure(error),
        other => Failure::wrap(ErrorClass::Transient, other),
    }
}

impl fmt::Debug for Follower {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Follower")
            .field("follow", &self.0.follow)
            .field("settled", &self.state().settled)
            .finish_non_exhaustive()
    }
}
