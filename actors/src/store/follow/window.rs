//! The window of events that a follower has in hand: lanes side by side, and how far everything is
//! settled.
//!
//! ```text
//! settled … settled │ a3  ·  b1  ·  ·  a4  c1 │ not read
//!                   ▲ prefix                  ▲ frontier      · settled, a3 a4 b1 c1 not
//! ```
//!
//! Events of one lane come one after the other, in the order of the log; a lane that waits holds up
//! no other. What is kept as the checkpoint is the *prefix*: everything up to it is settled. Behind
//! an event that takes long, others are settled out of order. They would come again after a crash;
//! when that is too many, the place can be kept as a [`Mark`] instead: the frontier, and the few
//! events before it that are not settled.
//!
//! It holds events up to a number and a size, however long one of them takes: with a full window
//! nothing more is read.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use crate::event::Position;

/// How much a window holds, and how much of it goes on at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Events that are handled at the same time.
    pub at_once: usize,
    /// Events that are not settled.
    pub events: usize,
    /// Their size in bytes; the last one may go beyond it.
    pub bytes: usize,
}

/// See the [module](self).
#[derive(Debug)]
pub struct Window<E> {
    bounds: Bounds,
    /// What is not settled, in the order of the log.
    open: BTreeMap<Position, Open<E>>,
    lanes: IndexMap<Arc<str>, VecDeque<Position>>,
    /// Those whose next event can begin, the one that was read first in front.
    ready: BTreeSet<Position>,
    running: usize,
    bytes: usize,
    /// Everything up to here was read.
    frontier: Position,
    /// What a life before has settled.
    before: Option<Mark>,
}

#[derive(Debug)]
struct Open<E> {
    lane: Arc<str>,
    bytes: usize,
    /// Taken out when it begins.
    event: Option<E>,
    /// Settled events between this one and the next that is not.
    after: u64,
}

/// A place that is kept although not everything before it is settled.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Mark {
    /// Everything up to here was read.
    pub frontier: Position,
    /// What of it is not settled.
    pub open: BTreeSet<Position>,
}

impl Mark {
    fn has_settled(&self, position: Position) -> bool {
        position <= self.frontier && !self.open.contains(&position)
    }
}

impl<E> Window<E> {
    /// An empty window behind a place.
    #[must_use]
    pub fn new(bounds: Bounds, prefix: Position) -> Self {
        Self {
            bounds,
            open: BTreeMap::new(),
            lanes: IndexMap::new(),
            ready: BTreeSet::new(),
            running: 0,
            bytes: 0,
            frontier: prefix,
            before: None,
        }
    }

    /// What a life before has settled beyond its checkpoint does not come again.
    #[must_use]
    pub fn resume(mut self, mark: Mark) -> Self {
        self.before = (mark.frontier > self.frontier).then_some(mark);
        self
    }

    /// How many events can be taken in.
    #[must_use]
    pub fn room(&self) -> usize {
        match self.bytes >= self.bounds.bytes {
            true => 0,
            false => self.bounds.events.saturating_sub(self.open.len()),
        }
    }

    /// Takes the next event of the log in. One that a life before has settled is passed over.
    pub fn push(&mut self, position: Position, lane: Arc<str>, bytes: usize, event: E) {
        debug_assert!(position > self.frontier, "events come in the order of the log");
        self.frontier = position;
        if self.before.as_ref().is_some_and(|before| before.has_settled(position)) {
            if let Some(mut last) = self.open.last_entry() {
                last.get_mut().after += 1;
            }
            return;
        }
        let queue = self.lanes.entry(Arc::clone(&lane)).or_default();
        queue.push_back(position);
        if queue.len() == 1 {
            self.ready.insert(position);
        }
        self.bytes += bytes;
        self.open.insert(position, Open { lane, bytes, event: Some(event), after: 0 });
    }

    /// Everything up to here was read.
    pub fn passed(&mut self, to: Position) {
        self.frontier = self.frontier.max(to);
    }

    /// The next event to begin with, if one can begin.
    pub fn begin(&mut self) -> Option<(Position, E)> {
        if self.running >= self.bounds.at_once {
            return None;
        }
        let position = self.ready.pop_first()?;
        let event = self.open.get_mut(&position)?.event.take()?;
        self.running += 1;
        Some((position, event))
    }

    /// Whether [`begin`](Self::begin) would, with a place free.
    #[must_use]
    pub fn can_begin(&self) -> bool {
        !self.ready.is_empty()
    }

    /// An event that was begun is settled. Another position is none of this window: nothing
    /// happens.
    pub fn settle(&mut self, position: Position) {
        if self.open.get(&position).is_none_or(|open| open.event.is_some()) {
            return;
        }
        let Some(done) = self.open.remove(&position) else { return };
        self.running -= 1;
        self.bytes -= done.bytes;
        if let Some((_, before)) = self.open.range_mut(..position).next_back() {
            before.after += done.after + 1;
        }
        if let Some(queue) = self.lanes.get_mut(&done.lane) {
            queue.pop_front();
            match queue.front() {
                Some(next) => _ = self.ready.insert(*next),
                None => _ = self.lanes.swap_remove(&done.lane),
            }
        }
        if self.before.as_ref().is_some_and(|before| self.prefix() >= before.frontier) {
            self.before = None;
        }
    }

    /// Everything up to here is settled.
    #[must_use]
    pub fn prefix(&self) -> Position {
        match self.open.first_key_value() {
            Some((first, _)) => first.minus(1),
            None => self.frontier,
        }
    }

    /// Everything up to here was read.
    #[must_use]
    pub const fn frontier(&self) -> Position {
        self.frontier
    }

    /// Settled events beyond the prefix: as many would come again after a crash, if only the
    /// prefix was kept.
    #[must_use]
    pub fn beyond(&self) -> u64 {
        self.open.values().map(|open| open.after).sum()
    }

    /// The place with what is not settled before it.
    #[must_use]
    pub fn mark(&self) -> Mark {
        let mut mark = Mark { frontier: self.frontier, open: self.open.keys().copied().collect() };
        if let Some(before) = self.before.as_ref().filter(|one| one.frontier > self.frontier) {
            // Not all of it has come again yet.
            mark.open.extend(before.open.range(self.frontier.next()..));
            mark.frontier = before.frontier;
        }
        mark
    }

    /// Whether there is something that only a mark of a life before tells.
    #[must_use]
    pub const fn goes_on(&self) -> bool {
        self.before.is_some()
    }

    /// How many events are handled now.
    #[must_use]
    pub const fn running(&self) -> usize {
        self.running
    }

    /// How many events are not settled.
    #[must_use]
    pub fn len(&self) -> usize {
        self.open.len()
    }

    /// Whether everything that was read is settled.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }
}

#[cfg(test)]
mod tests;
