//! The idempotency keys that are known: where the append of each one ended in the log.
//!
//! A tree of random keys writes a page for nearly every key, which made keyed appends a third as
//! fast as others once the tree was large. So the table is in the order of positions, which only
//! grows at its end, and what finds a key in it is in memory. That bounds what can be known: by
//! age, and by memory, whichever comes first. A key that has gone is free again.

use std::{
    collections::{HashMap, VecDeque},
    hash::{BuildHasher, BuildHasherDefault, Hasher, RandomState},
};

use rusqlite::{Connection, OptionalExtension, Row};

use super::statement::saturated;
use crate::{
    event::{Position, StreamId, Version},
    store::{Appended, IdempotencyKey},
};

/// Keys of one bucket: the size at which its map is full and would grow, seven eighths of 2^18.
const BUCKET: usize = (1 << 18) / 8 * 7;

pub(super) const PUT: &str = "insert into request_keys (position, key, events) values (?, ?, ?)";

/// Buckets of fingerprints, the newest first, each with the position of the append's last event.
/// A fingerprint is half as long as a key, so whatever is found is compared with the log.
#[derive(Debug)]
pub(super) struct Keys {
    fingerprint: RandomState,
    buckets: VecDeque<HashMap<u64, u64, BuildHasherDefault<Already>>>,
    len: usize,
    most: usize,
}

impl Keys {
    pub(super) fn new(most: usize) -> Self {
        Self { fingerprint: RandomState::new(), buckets: VecDeque::new(), len: 0, most }
    }

    pub(super) fn insert(&mut self, key: &IdempotencyKey, position: Position) {
        let bucket = BUCKET.min((self.most / 4).max(1));
        if self.buckets.front().is_none_or(|newest| newest.len() >= bucket) {
            self.buckets.push_front(HashMap::default());
        }
        let fingerprint = self.fingerprint.hash_one(key.as_bytes());
        let newest = self.buckets.front_mut().expect("one was made above");
        self.len += usize::from(newest.insert(fingerprint, position.get()).is_none());
        while self.len > self.most && self.buckets.len() > 1 {
            let oldest = self.buckets.pop_back().expect("there are two");
            self.len -= oldest.len();
        }
    }

    /// Where the append with that key may have ended.
    fn find(&self, key: &IdempotencyKey) -> Option<Position> {
        let fingerprint = self.fingerprint.hash_one(key.as_bytes());
        let found = self.buckets.iter().find_map(|bucket| bucket.get(&fingerprint));
        found.map(|position| Position::new(*position))
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
            if oldest.values().any(|position| *position > up_to.get()) {
                return;
            }
            self.len -= oldest.len();
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

/// A hasher for what is a hash already.
#[derive(Debug, Default)]
struct Already(u64);

impl Hasher for Already {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.0 = self.0 << 8 | u64::from(*byte));
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u64) -> IdempotencyKey {
        IdempotencyKey::of([n.to_le_bytes()])
    }

    #[test]
    fn the_newest_are_known_and_memory_is_bounded() {
        let mut keys = Keys::new(BUCKET * 2);
        let all = BUCKET as u64 * 4;
        (1..=all).for_each(|n| keys.insert(&key(n), Position::new(n)));
        assert!(keys.len() <= BUCKET * 2);
        assert_eq!(keys.find(&key(all)), Some(Position::new(all)));
        assert_eq!(keys.find(&key(all - BUCKET as u64)), Some(Position::new(all - BUCKET as u64)));
        assert_eq!(keys.find(&key(1)), None);
        keys.forget(Position::new(all - 1));
        assert_eq!(keys.find(&key(all)), Some(Position::new(all)));
        keys.forget(Position::new(all));
        assert_eq!((keys.find(&key(all)), keys.len()), (None, 0));
    }
}
