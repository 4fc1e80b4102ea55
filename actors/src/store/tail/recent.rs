//! The last events, in the order of the log and bounded in bytes.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use crate::event::{Position, RecordedEvent, StreamId};
use crate::store::{EventFilter, MAX_PAGE_BYTES, MAX_SCAN, MatchingPage};

/// What an event takes beside its payload and metadata, about.
const EVENT_BYTES: usize = 256;

/// Kinds of events that are told apart in one commit. With more of them every event is looked at.
const KINDS: usize = 8;

/// Commits that a reader takes at a time, so that it does not hold the lock for long.
const STEP: usize = 64;

/// What was committed together.
#[derive(Debug)]
pub(super) struct Chunk {
    events: Box<[RecordedEvent]>,
    /// One stream and type for each category and type in it; `None` if they are too many.
    kinds: Option<Vec<(StreamId, Arc<str>)>>,
    bytes: usize,
}

impl Chunk {
    fn of(events: Vec<RecordedEvent>) -> Self {
        let bytes = events.iter().map(|event| event.size() + EVENT_BYTES).sum();
        Self { kinds: kinds(&events), events: events.into(), bytes }
    }

    fn first(&self) -> Position {
        self.events.first().map_or(Position::ZERO, |first| first.position)
    }

    fn last(&self) -> Position {
        self.events.last().map_or(Position::ZERO, |last| last.position)
    }

    /// Whether there can be an event in it that the filter lets through.
    fn concerns(&self, filter: &EventFilter) -> bool {
        let kinds = self.kinds.as_ref();
        kinds.is_none_or(|kinds| kinds.iter().any(|(stream, name)| filter.accepts(stream, name)))
    }

    fn after(&self, position: Position) -> &[RecordedEvent] {
        let from = self.events.partition_point(|event| event.position <= position);
        &self.events[from..]
    }
}

fn kinds(events: &[RecordedEvent]) -> Option<Vec<(StreamId, Arc<str>)>> {
    let mut kinds: Vec<(StreamId, Arc<str>)> = Vec::new();
    for event in events {
        let known = kinds.iter().any(|(stream, name)| {
            *name == event.event_type && stream.category() == event.stream.category()
        });
        if known {
            continue;
        }
        if kinds.len() == KINDS {
            return None;
        }
        kinds.push((event.stream.clone(), Arc::clone(&event.event_type)));
    }
    Some(kinds)
}

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Recent {
    /// Without a gap, from after `start` to `end`.
    chunks: VecDeque<Arc<Chunk>>,
    start: Position,
    end: Position,
    /// What came before what is between: by its first position.
    ahead: BTreeMap<Position, Arc<Chunk>>,
    bytes: usize,
    ahead_bytes: usize,
    limit: usize,
}

/// What memory says of the events after a position.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// These.
    Page(MatchingPage),
    /// That is the last that is known.
    End,
    /// They are not here.
    Elsewhere,
}

/// Some chunks from a position on.
pub(super) enum Chunks {
    /// In order.
    Some(Vec<Arc<Chunk>>),
    /// There is nothing behind it.
    End,
    /// It is before or behind what is here.
    Elsewhere,
}

impl Recent {
    /// Nothing yet, and what is kept begins after a position.
    pub(super) const fn after(position: Position, limit: usize) -> Self {
        Self {
            chunks: VecDeque::new(),
            start: position,
            end: position,
            ahead: BTreeMap::new(),
            bytes: 0,
            ahead_bytes: 0,
            limit,
        }
    }

    pub(super) const fn end(&self) -> Position {
        self.end
    }

    pub(super) const fn bytes(&self) -> usize {
        self.bytes + self.ahead_bytes
    }

    /// Whether a reader at this position goes on where memory ends, or at most `gap` behind it.
    pub(super) fn is_near_end(&self, at: Position, gap: u64) -> bool {
        at >= self.end && at.get() - self.end.get() <= gap
    }

    /// Begins anew after a position that is further ahead.
    pub(super) fn jump(&mut self, to: Position) {
        if to > self.end {
            let ahead = std::mem::take(&mut self.ahead);
            *self = Self::after(to, self.limit);
            self.ahead_bytes = ahead.values().map(|chunk| chunk.bytes).sum();
            self.ahead = ahead;
            self.join_ahead();
        }
    }

    /// Drops everything; what comes next begins anew.
    pub(super) fn forget(&mut self) {
        *self = Self::after(self.end, self.limit);
    }

    /// Takes events in that stand side by side in the log.
    pub(super) fn insert(&mut self, mut events: Vec<RecordedEvent>) {
        let Some(first) = events.first() else { return };
        if first.position <= self.end {
            if self.contradicts(first) {
                // The log was put back. What is here never happened.
                *self = Self::after(first.position.minus(1), self.limit);
            } else {
                events.retain(|event| event.position > self.end);
            }
        }
        let Some(first) = events.first().map(|first| first.position) else { return };
        let chunk = Arc::new(Chunk::of(events));
        if first > self.end.next() {
            self.put_ahead(first, chunk);
            return;
        }
        self.push(chunk);
        self.join_ahead();
        self.shrink();
    }

    fn contradicts(&self, event: &RecordedEvent) -> bool {
        let index = self.chunks.partition_point(|chunk| chunk.last() < event.position);
        let chunk = self.chunks.get(index);
        let here = chunk.and_then(|chunk| chunk.after(event.position.minus(1)).first());
        here.is_some_and(|here| here.position == event.position && here.id != event.id)
    }

    fn push(&mut self, chunk: Arc<Chunk>) {
        self.end = chunk.last();
        self.bytes += chunk.bytes;
        self.chunks.push_back(chunk);
    }

    fn put_ahead(&mut self, first: Position, chunk: Arc<Chunk>) {
        self.ahead_bytes += chunk.bytes;
        if let Some(before) = self.ahead.insert(first, chunk) {
            self.ahead_bytes -= before.bytes;
        }
        if self.ahead_bytes > self.limit / 2 {
            // Nobody reads here to close the gap: go on behind it.
            let first = self.ahead.keys().next().copied().unwrap_or(first);
            self.chunks.clear();
            (self.start, self.end, self.bytes) = (first.minus(1), first.minus(1), 0);
            self.join_ahead();
            self.shrink();
        }
    }

    /// Takes in what was waiting for what is there now.
    fn join_ahead(&mut self) {
        while let Some(entry) = self.ahead.first_entry()
            && *entry.key() <= self.end.next()
        {
            let chunk = entry.remove();
            self.ahead_bytes -= chunk.bytes;
            if chunk.first() == self.end.next() {
                self.push(chunk);
            } else if chunk.last() > self.end {
                self.push(Arc::new(Chunk::of(chunk.after(self.end).to_vec())));
            }
        }
    }

    fn shrink(&mut self) {
        while self.bytes > self.limit
            && let Some(oldest) = self.chunks.pop_front()
        {
            self.bytes -= oldest.bytes;
            self.start = oldest.last();
        }
    }

    /// Some chunks with events after a position.
    pub(super) fn chunks(&self, after: Position, most: usize) -> Chunks {
        if after == self.end && self.ahead.is_empty() {
            return Chunks::End;
        }
        if after < self.start || after >= self.end {
            return Chunks::Elsewhere;
        }
        let from = self.chunks.partition_point(|chunk| chunk.last() <= after);
        Chunks::Some(self.chunks.iter().skip(from).take(most).cloned().collect())
    }
}

/// A page from memory, by steps of some chunks.
pub(super) fn page(
    chunks: impl Fn(Position, usize) -> Chunks,
    filter: &EventFilter,
    after: Position,
    limit: usize,
) -> Found {
    let mut page = MatchingPage { events: Vec::new(), scanned_to: after };
    let mut bytes = 0;
    loop {
        let some = match chunks(page.scanned_to, STEP) {
            Chunks::Some(some) => some,
            Chunks::End if page.scanned_to == after => return Found::End,
            Chunks::Elsewhere if page.scanned_to == after => return Found::Elsewhere,
            Chunks::End | Chunks::Elsewhere => return Found::Page(page),
        };
        for chunk in some {
            if chunk.concerns(filter) {
                for event in chunk.after(page.scanned_to) {
                    if filter.accepts(&event.stream, &event.event_type) {
                        bytes += event.size();
                        page.events.push(event.clone());
                    }
                    page.scanned_to = event.position;
                    if page.events.len() >= limit || bytes >= MAX_PAGE_BYTES {
                        return Found::Page(page);
                    }
                }
            }
            page.scanned_to = chunk.last();
            if page.scanned_to.get() - after.get() >= MAX_SCAN {
                return Found::Page(page);
            }
        }
    }
}
