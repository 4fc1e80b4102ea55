//! Claims on names: of several nodes on one store, one does what the name stands for.
//!
//! Whoever follows the log under a name claims it first. A claim is good for a lease and renewed
//! while its owner lives; it has an *epoch*, one higher with each claim, and every write under it
//! shows epoch and owner. So a node that slept past its lease and wakes writes nothing, whatever it
//! believes. With the claim is kept what the next owner needs: the place in the log, notes, and how
//! often a process died there.
//!
//! ```text
//! claim ─▶ save ─▶ save ─▶ … ─▶ release        another owner: Held, Held, …, Yes
//!            ▲ fenced by owner and epoch
//! any node: place, ask (pause, go back, skip), which the owner hears with its next save
//! ```
//!
//! [`follow`](super::follow) is what uses it. Projections keep their claims beside their documents,
//! because documents and place change in one transaction; an adapter made over such tables
//! (`in_tables`) serves them with the same statements:
//!
//! 1. The table of the parts has the columns of `followers`, the one of notes those of
//!    `follower_notes`; their migration makes them.
//! 2. A part is followed by [`Follower`](super::follow::Follower) with these claims and
//!    [`own_place`](super::follow::Follow::own_place): it claims, renews, stands by, pauses and
//!    counts deaths, and leaves the place alone.
//!    Requests that would move it are refused.
//! 3. The documents' transaction begins with `update … set position = $to where name = $name and
//!    owner = $owner and epoch = $epoch` from [`Follower::fence`](super::follow::Follower::fence),
//!    and is undone when that changes no row.
//! 4. After the commit, [`Follower::settle`](super::follow::Follower::settle) shows the place to
//!    those who wait. Standbys learn it from the table.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};

use super::StoreError;
use super::follow::CAREFUL_AFTER;
use super::read_model::Epoch;
use crate::error::ErrorClass;
use crate::event::Position;

pub mod conformance;
pub mod memory;
#[cfg(feature = "postgres")]
pub mod postgres;
#[cfg(feature = "sqlite")]
pub mod sqlite;

/// The ids of notes that begin so belong to the claims; those of applications begin with a letter
/// or a digit.
pub const RESERVED: char = '$';

/// The claims on kinds of timers begin so.
pub(crate) const TIMERS: &str = "timer.";

/// Notes of what was asked and is not done yet.
pub(crate) const ASKED: &str = "$ask/";

/// The note of what was asked last and refused.
pub(crate) const REFUSED: &str = "$refused";

/// What a writer shows with every write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fence {
    /// What was claimed.
    pub name: Arc<str>,
    /// By whom.
    pub owner: Arc<str>,
    /// Under which claim.
    pub epoch: Epoch,
}

/// A claim that was granted.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Claim {
    /// What to show with every write.
    pub fence: Fence,
    /// What is known of the name.
    pub place: Place,
}

/// What a claim got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claimed {
    /// The right to write.
    Yes(Claim),
    /// Its owner is alive.
    Held(Place),
}

/// What is known of a name. Every node can read it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Place {
    /// The name.
    pub name: Arc<str>,
    /// Everything up to here is done.
    pub position: Position,
    /// The last owner; empty if it has given the name back.
    pub owner: Arc<str>,
    /// The lease runs.
    pub held: bool,
    /// Nothing is done until it is resumed.
    pub paused: bool,
    /// How many requests there have been.
    pub asked: u64,
    /// How many of them the owner has heard.
    pub heard: u64,
    /// How many owners died at one place, one after the other.
    pub deaths: u32,
    /// The place at which they died.
    pub died_at: Position,
    /// The event that was being tried by itself, if one was.
    pub trying: Position,
    /// How many owners died of it.
    pub tries: u32,
}

impl Place {
    pub(crate) fn new(name: Arc<str>) -> Self {
        Self {
            name,
            position: Position::ZERO,
            owner: "".into(),
            held: false,
            paused: false,
            asked: 0,
            heard: 0,
            deaths: 0,
            died_at: Position::ZERO,
            trying: Position::ZERO,
            tries: 0,
        }
    }

    /// Whether its position is one in the log: kinds of timers are claimed too, and count what was
    /// fired.
    #[must_use]
    pub fn follows_the_log(&self) -> bool {
        !self.name.starts_with(TIMERS)
    }

    /// Whether events are to come one at a time: owners died here, or of one event. Deaths at a
    /// place that was left behind say nothing of what comes now.
    pub(crate) fn is_deadly(&self) -> bool {
        let here = self.died_at == self.position && self.deaths >= CAREFUL_AFTER;
        here || self.trying > self.position
    }

    /// What a save changes of it.
    pub(crate) fn apply(&mut self, save: &Save) {
        if let Some(to) = save.to {
            self.position = to;
        }
        if let Some(trying) = save.trying
            && trying != self.trying
        {
            (self.trying, self.tries) = (trying, 0);
        }
        self.heard = self.heard.max(save.heard);
    }
}

/// A note by its id; `None` removes it.
pub type Note = (Arc<str>, Option<Bytes>);

/// A note that there is.
pub type Found = (Arc<str>, Bytes);

/// What an owner writes, all of it or nothing. Every save renews the claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Save {
    /// For how long the claim is good from now on.
    pub lease: Duration,
    /// Everything up to here is done; `None` leaves the place as it is.
    pub to: Option<Position>,
    /// The event that is tried by itself from now on; `None` leaves it as it is.
    pub trying: Option<Position>,
    /// How many requests have been heard.
    pub heard: u64,
    /// Notes.
    pub notes: Vec<Note>,
    /// It has to outlive a crash of the database from now on. Otherwise such a crash may take the
    /// last second of it, place and notes together.
    pub durable: bool,
}

impl Save {
    /// Renews a claim for so long, and changes nothing else.
    #[must_use]
    pub const fn renewal(lease: Duration) -> Self {
        Self { lease, to: None, trying: None, heard: 0, notes: Vec::new(), durable: false }
    }

    /// Moves the place.
    #[must_use]
    pub const fn to(mut self, position: Position) -> Self {
        self.to = Some(position);
        self
    }

    /// Writes notes, so that they outlive a crash of the database.
    #[must_use]
    pub fn notes(mut self, notes: impl IntoIterator<Item = Note>) -> Self {
        self.notes.extend(notes);
        self.durable |= !self.notes.is_empty();
        self
    }
}

/// What others want of the owner. Counted requests, so that it sees that there is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Orders {
    /// Nothing is to be done until it is resumed.
    pub paused: bool,
    /// How many requests there have been.
    pub asked: u64,
}

/// What anybody can ask for, on any node and also while no node runs: the owner, or the next one,
/// does it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Request {
    /// Do nothing until it is resumed, whichever node has the claim, and over restarts.
    Pause,
    /// Go on.
    Resume,
    /// Go on after this event.
    GoTo(Position),
    /// Leave this event out. It is noted as parked.
    Skip(Position),
}

/// Why a claim could not be written or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClaimError {
    /// Somebody else has claimed it since; this owner has to stop.
    #[error("{name} was claimed by another owner since; claim it again")]
    Lost {
        /// What was claimed.
        name: String,
    },
    /// Nobody has ever claimed it.
    #[error("there is no {name} in this store; `Claims::places` lists what there is")]
    Unknown {
        /// What was asked for.
        name: String,
    },
    /// Its owner has heard what it was asked, and cannot do it.
    #[error("{name} refuses what it was asked: {reason}")]
    Refused {
        /// What was claimed.
        name: String,
        /// Why.
        reason: String,
    },
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl ClaimError {
    /// How to react.
    #[must_use]
    pub const fn class(&self) -> ErrorClass {
        match self {
            Self::Lost { .. } => ErrorClass::Transient,
            Self::Unknown { .. } | Self::Refused { .. } => ErrorClass::User,
            Self::Store(error) => error.class(),
        }
    }
}

/// Claims and places in a database; see the [module](self). All calls are safe to drop: a dropped
/// write happens or not, and nothing is half done.
pub trait Claims: Send + Sync + fmt::Debug {
    /// Takes a name over: if nobody has it, its lease has run out, or it is the same owner's. A
    /// store that one process works on grants it always.
    ///
    /// An owner that is followed by another without having released the claim has died: that
    /// counts up [`Place::deaths`], or begins to count again if there was progress, and
    /// [`Place::tries`], if it was trying an event by itself. The claim is durable.
    ///
    /// # Errors
    /// The database failed.
    fn claim<'a>(
        &'a self,
        name: &'a str,
        owner: &'a str,
        lease: Duration,
    ) -> BoxFuture<'a, Result<Claimed, ClaimError>>;

    /// Writes what is new, and renews the claim. Also after the lease has run out, as long as
    /// nobody else has claimed the name.
    ///
    /// # Errors
    /// [`Lost`](ClaimError::Lost), or the database failed.
    fn save<'a>(
        &'a self,
        fence: &'a Fence,
        save: Save,
    ) -> BoxFuture<'a, Result<Orders, ClaimError>>;

    /// Gives a claim back: others need not wait for the end of the lease. Nothing happens if it
    /// was lost.
    ///
    /// # Errors
    /// The database failed.
    fn release<'a>(&'a self, fence: &'a Fence) -> BoxFuture<'a, Result<(), ClaimError>>;

    /// What is known of a name.
    ///
    /// # Errors
    /// The database failed.
    fn place<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Option<Place>, ClaimError>>;

    /// What is known of every name, in the order of names.
    ///
    /// # Errors
    /// The database failed.
    fn places(&self) -> BoxFuture<'_, Result<Vec<Place>, ClaimError>>;

    /// A page of a name's notes, those with ids after `after`, by id.
    ///
    /// # Errors
    /// The database failed.
    fn notes<'a>(
        &'a self,
        name: &'a str,
        after: &'a str,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<Found>, ClaimError>>;

    /// One note.
    ///
    /// # Errors
    /// The database failed.
    fn note<'a>(
        &'a self,
        name: &'a str,
        id: &'a str,
    ) -> BoxFuture<'a, Result<Option<Bytes>, ClaimError>>;

    /// Leaves a request for the owner. Answers its number; it is heard when [`Place::heard`] is as
    /// high. Durable.
    ///
    /// # Errors
    /// [`Unknown`](ClaimError::Unknown), or the database failed.
    fn ask<'a>(&'a self, name: &'a str, request: Request)
    -> BoxFuture<'a, Result<u64, ClaimError>>;
}

/// The id under which request `number` is kept.
pub(crate) fn asked(number: u64) -> Arc<str> {
    format!("{ASKED}{number:020}").into()
}

/// What a request changes at once, and what is kept of it until the owner has done it.
pub(crate) fn parts(request: Request) -> (Option<bool>, Option<Bytes>) {
    match request {
        Request::Pause => (Some(true), None),
        Request::Resume => (Some(false), None),
        Request::GoTo(_) | Request::Skip(_) => {
            (None, Some(serde_json::to_vec(&request).unwrap_or_default().into()))
        }
    }
}

/// How deaths are counted when a name gets another owner.
pub(crate) fn count_deaths(place: &mut Place, owner: &str) {
    if place.owner.is_empty() || &*place.owner == owner {
        return;
    }
    place.deaths = if place.died_at == place.position { place.deaths + 1 } else { 1 };
    place.died_at = place.position;
    if place.trying > place.position {
        place.tries += 1;
    }
}
