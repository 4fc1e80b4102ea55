//! The idempotency keys that are known: where the append of each one ended in the log.
//!
//! A tree of random keys writes a page for nearly every key, which made keyed appends a third as
//! fast as others once the tree was large. So the table is in the order of positions, which only
//! grows at its end, and what finds a key in it is in memory. That bounds what can be known: by
//! age, and by memory, whichever comes first. A key that has gone is free again.

use std::{
    collections::VecDeque,
    hash::{BuildHasher, RandomState},
};

use rusqlite::{Connection, OptionalExtension, Row};

use super::statement::saturated;
use crate::{
    event::{Position, StreamId, Version},
    store::{Appended, IdempotencyKey},
};

/// Slots of one bucket: 4 MiB.
const SLOTS: usize = 1 << 18;

/// Keys of one bucket. Fuller, and a search that finds nothing would pass many slots.
const BUCKET: usize = SLOTS / 4 * 3;

pub(super) const PUT: &str = "insert into request_keys (position, key, events) values (?, ?, ?)";

/// Buckets of fingerprints, the newest first, each with the position of the append's last event.
/// A fingerprint is half as long as a key, so whatever is found is compared with the log.
#[derive(Debug)]
pub(super) struct Keys {
    fingerprint: RandomState,
    buckets: VecDeque<Bucket>,
    len: usize,
    most: usize,
}

impl Keys {
    pub(super) fn new(most: usize) -> Self {
        Self { fingerprint: RandomState::new(), buckets: VecDeque::new(), len: 0, most }
    }

    pub(super) fn insert(&mut self, key: &IdempotencyKey, position: Position) {
        let bucket = BUCKET.min((self.most / 4).max(1));
        if self.buckets.front().is_none_or(|newest| newest.len >= bucket) {
            self.buckets.push_front(Bucket::new());
        }
        let fingerprint = self.fingerprint.hash_one(key.as_bytes());
        let newest = self.buckets.front_mut().expect("one was made above");
        self.len += newest.insert(fingerprint, position.get());
        while self.len > self.most && self.buckets.len() > 1 {
            let oldest = self.buckets.pop_back().expect("there are two");
            self.len -= oldest.len;
        }
    }

    /// Where the append with that key may have ended.
    fn find(&self, key: &IdempotencyKey) -> Option<Position> {
        let fingerprint = self.fingerprint.hash_one(key.as_bytes());
        let found = self.buckets.iter().find_map(|bucket| bucket.find(fingerprint));
        found.map(Position::new)
    }

    /// The first answer to a key, if it is known.
    pub(super) fn answer(
        &self,
        connection: &Connection,
        key: &IdempotencyKey,
    ) -> rusqlite::Result<Option<Appended>> {
        let Some(position) = self.find(key) else { return Ok(None) };
        let mut statement = connection.prepare_cached(
            "select s.name, e.version, k.events from request_keys k \
             cross join events e on e.position = k.position \
             cross join streams s on s.id = e.stream_id where k.position = ? and k.key = ?",
        )?;
        let at = saturated(position.get());
        statement.query_row((at, key.as_bytes()), |row| answer(row, position)).optional()
    }

    /// Takes in what the table has after a position, as far as there is room.
    pub(super) fn load(
        &mut self,
        connection: &Connection,
        after: Position,
    ) -> rusqlite::Result<()> {
        // Oldest first, so that the buckets are in the order of age.
        let mut statement = connection.prepare(
            "select position, key from request_keys where position > ?1 and position >= \
             coalesce((select position from request_keys order by position desc limit 1 offset ?2), 0) \
             order by position",
        )?;
        let most = saturated(self.most.saturating_sub(1) as u64);
        let mut rows = statement.query((saturated(after.get()), most))?;
        while let Some(row) = rows.next()? {
            let key = IdempotencyKey::new(row.get(1)?);
            self.insert(&key, Position::new(row.get::<_, i64>(0)?.cast_unsigned()));
        }
        Ok(())
    }

    /// Forgets, by whole buckets, what ended at or before a position.
    pub(super) fn forget(&mut self, up_to: Position) {
        while let Some(oldest) = self.buckets.back() {
            if oldest.newest > up_to.get() {
                return;
            }
            self.len -= oldest.len;
            self.buckets.pop_back();
        }
    }

    pub(super) fn clear(&mut self) {
        self.buckets.clear();
        self.len = 0;
    }

    #[cfg(test)]
    pub(super) const fn len(&self) -> usize {
        self.len
    }
}

fn answer(row: &Row<'_>, last_position: Position) -> rusqlite::Result<Appended> {
    let name: String = row.get(0)?;
    let stream = StreamId::new(name).map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, Box::new(error))
    })?;
    let last_version = Version::new(row.get::<_, i64>(1)?.cast_unsigned());
    let before = row.get::<_, i64>(2)?.cast_unsigned().saturating_sub(1);
    Ok(Appended {
        stream,
        first_version: last_version.minus(before),
        last_version,
        first_position: last_position.minus(before),
        last_position,
        duplicate: false,
    })
}

/// Fingerprints and positions in one table, each in the first free slot from where its fingerprint
/// points to. Nothing is ever removed from it, and position 0, which no event has, is a free slot.
struct Bucket {
    slots: Box<[(u64, u64)]>,
    len: usize,
    newest: u64,
}

impl Bucket {
    fn new() -> Self {
        Self { slots: vec![(0, 0); SLOTS].into(), len: 0, newest: 0 }
    }

    /// The slot of a fingerprint, or the free one where it belongs. There always is one: it is
    /// never full.
    fn slot(&self, fingerprint: u64) -> usize {
        let mut at = fingerprint as usize % SLOTS;
        while self.slots[at].1 != 0 && self.slots[at].0 != fingerprint {
            at = (at + 1) % SLOTS;
        }
        at
    }

    fn find(&self, fingerprint: u64) -> Option<u64> {
        let (_, position) = self.slots[self.slot(fingerprint)];
        (position != 0).then_some(position)
    }

    /// How many more there are now.
    fn insert(&mut self, fingerprint: u64, position: u64) -> usize {
        let at = self.slot(fingerprint);
        let added = usize::from(self.slots[at].1 == 0);
        self.slots[at] = (fingerprint, position);
        self.len += added;
        self.newest = self.newest.max(position);
        added
    }
}

impl std::fmt::Debug for Bucket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bucket").field("len", &self.len).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
