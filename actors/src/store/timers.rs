//! The table of timers: what is to happen at a time.
//!
//! A timer has a kind, which says who handles it, and a name within its kind. Any node sets and
//! cancels; one node at a time has the claim on a kind ([`claims`](super::claims)) and settles
//! what it has fired, with the fence of its claim. [`timer`](crate::timer) is what does it.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};

use super::StoreError;
use super::claims::Fence;
use crate::event::Timestamp;

pub mod conformance;
pub mod memory;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "sqlite")]
mod sqlite;

/// A timer to be set.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct NewTimer {
    /// Who handles it.
    pub kind: Arc<str>,
    /// Its name; there is one of each in a kind.
    pub name: Arc<str>,
    /// When it fires.
    pub due: Timestamp,
    /// What its handler is given.
    pub payload: Bytes,
}

impl NewTimer {
    /// A timer of a kind.
    pub fn new(
        kind: impl Into<Arc<str>>,
        name: impl Into<Arc<str>>,
        due: Timestamp,
        payload: impl Into<Bytes>,
    ) -> Self {
        Self { kind: kind.into(), name: name.into(), due, payload: payload.into() }
    }
}

/// Whether a timer goes its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum TimerState {
    /// It waits for its time, or for its next try.
    #[default]
    Waiting,
    /// The program that tried it does not know what it is for; another one may.
    Unknown,
}

impl TimerState {
    #[cfg(any(feature = "sqlite", feature = "postgres"))]
    const fn number(self) -> i16 {
        match self {
            Self::Waiting => 0,
            Self::Unknown => 1,
        }
    }

    #[cfg(any(feature = "sqlite", feature = "postgres"))]
    const fn of(number: i64) -> Self {
        match number {
            0 => Self::Waiting,
            _ => Self::Unknown,
        }
    }
}

/// A timer in the table.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TimerRow {
    /// Its row; another one when the timer is set anew.
    pub id: i64,
    /// Who handles it.
    pub kind: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
    /// When it fires.
    pub due: Timestamp,
    /// When it is looked at next: `due`, or later after a try that failed.
    pub at: Timestamp,
    /// What its handler is given.
    pub payload: Bytes,
    /// Whether it goes its way.
    pub state: TimerState,
    /// How often it was tried.
    pub attempts: u32,
    /// How many processes died while they fired it, as far as that was counted.
    pub deaths: u32,
    /// Why it is still here; empty before the first try.
    pub reason: String,
}

/// Timers that are due.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Due {
    /// The first ones first.
    pub rows: Vec<TimerRow>,
    /// When the first one that is not due yet is to be looked at.
    pub next: Option<Timestamp>,
}

impl Due {
    /// Rows by their time, of which the last may be the next one.
    #[cfg(any(feature = "sqlite", feature = "postgres"))]
    fn of(mut rows: Vec<TimerRow>, by: Timestamp) -> Self {
        rows.sort_by_key(|row| row.at);
        let next = rows.pop_if(|row| row.at > by).map(|row| row.at);
        Self { rows, next }
    }
}

/// What becomes of a timer that was fired.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settled {
    /// Its effect is durable: it goes.
    Done,
    /// It fires again then, as if it had been set anew.
    Again(Timestamp),
    /// It stays.
    Later {
        /// When it is looked at again.
        at: Timestamp,
        /// Whether anybody knew it.
        state: TimerState,
        /// How often it was tried.
        attempts: u32,
        /// Why.
        reason: String,
    },
    /// It is about to be fired, and processes have died of one that was.
    Trying,
}

/// Which timers are listed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct TimerFilter {
    /// Only of this kind.
    pub kind: Option<Arc<str>>,
    /// Only in this state.
    pub state: Option<TimerState>,
}

impl TimerFilter {
    /// Only of a kind.
    #[must_use]
    pub fn kind(mut self, kind: impl Into<Arc<str>>) -> Self {
        self.kind = Some(kind.into());
        self
    }

    /// Only in a state.
    #[must_use]
    pub const fn state(mut self, state: TimerState) -> Self {
        self.state = Some(state);
        self
    }
}

/// The table. All calls are safe to drop: a dropped write happens or not, and nothing is half done.
pub trait TimerTable: Send + Sync + fmt::Debug {
    /// Sets timers, all or none; durable when it returns. One that is there with the same time and
    /// payload stays as it is, with its tries; one with others is replaced. Of two of one name in
    /// one call the later counts.
    ///
    /// # Errors
    /// The database failed.
    fn set(&self, timers: Vec<NewTimer>) -> BoxFuture<'_, Result<(), StoreError>>;

    /// Removes one; durable when it returns. Answers whether it was there.
    ///
    /// # Errors
    /// The database failed.
    fn cancel<'a>(
        &'a self,
        kind: &'a str,
        name: &'a str,
    ) -> BoxFuture<'a, Result<bool, StoreError>>;

    /// Removes those whose names are at or after `from` and before `to`, byte by byte; durable when
    /// it returns. Answers how many there were.
    ///
    /// # Errors
    /// The database failed.
    fn cancel_between<'a>(
        &'a self,
        kind: &'a str,
        from: &'a str,
        to: &'a str,
    ) -> BoxFuture<'a, Result<u64, StoreError>>;

    /// Those to be looked at by then, the first ones first, and when the next one after them is. One
    /// question to the database: it is asked all the time.
    ///
    /// # Errors
    /// The database failed.
    fn due<'a>(
        &'a self,
        kind: &'a str,
        by: Timestamp,
        limit: usize,
    ) -> BoxFuture<'a, Result<Due, StoreError>>;

    /// How many nobody knew.
    ///
    /// # Errors
    /// The database failed.
    fn unknown<'a>(&'a self, kind: &'a str) -> BoxFuture<'a, Result<u64, StoreError>>;

    /// Says what becomes of rows, if the fence still stands; else nothing happens and it answers
    /// false. A row that was cancelled or set anew meanwhile is left alone.
    ///
    /// # Errors
    /// The database failed.
    fn settle<'a>(
        &'a self,
        fence: &'a Fence,
        rows: Vec<(i64, Settled)>,
    ) -> BoxFuture<'a, Result<bool, StoreError>>;

    /// Has those that nobody knew looked at again: another program may.
    ///
    /// # Errors
    /// The database failed.
    fn wake<'a>(&'a self, kind: &'a str) -> BoxFuture<'a, Result<(), StoreError>>;

    /// A page of all, by kind and name, those after `after`.
    ///
    /// # Errors
    /// The database failed.
    fn list<'a>(
        &'a self,
        filter: &'a TimerFilter,
        after: Option<(&'a str, &'a str)>,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<TimerRow>, StoreError>>;

    /// One of them.
    ///
    /// # Errors
    /// The database failed.
    fn get<'a>(
        &'a self,
        kind: &'a str,
        name: &'a str,
    ) -> BoxFuture<'a, Result<Option<TimerRow>, StoreError>>;
}

/// Each name once, in order: the later of two counts.
fn by_name(timers: Vec<NewTimer>) -> std::collections::BTreeMap<(Arc<str>, Arc<str>), NewTimer> {
    timers
        .into_iter()
        .map(|timer| ((Arc::clone(&timer.kind), Arc::clone(&timer.name)), timer))
        .collect()
}
