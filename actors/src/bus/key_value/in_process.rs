//! Buckets in the memory of this process.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt, stream};
use mister_smith_supervisors::Clock;
use tokio::sync::watch;
use tokio::time::Instant;

use super::{
    BucketOptions, Entry, From, KeyValue, KeyValueError, Operation, Watch, check_key,
    check_pattern, matches,
};
use crate::bus::subject::Pattern;
use crate::event::Timestamp;

/// Buckets by name. Cheap to clone; all clones have the same buckets.
#[derive(Debug, Clone)]
pub struct Buckets {
    clock: Clock,
    by_name: Arc<Mutex<BTreeMap<String, Arc<Shelf>>>>,
}

impl Buckets {
    /// No buckets yet, and the clock that says when a change was made.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        Self { clock, by_name: Arc::default() }
    }

    /// The same buckets by another clock.
    #[must_use]
    pub fn at(&self, clock: Clock) -> Self {
        Self { clock, by_name: Arc::clone(&self.by_name) }
    }

    /// A bucket, made if it is not there.
    ///
    /// # Errors
    /// The options are wrong.
    pub fn bucket(&self, options: BucketOptions) -> Result<InProcessBucket, KeyValueError> {
        options.check()?;
        let mut by_name = self.by_name.lock().unwrap_or_else(PoisonError::into_inner);
        let shelf = Arc::clone(by_name.entry(options.name.clone()).or_default());
        Ok(InProcessBucket { shelf, options, clock: self.clock })
    }
}

#[derive(Default)]
struct Shelf {
    content: Mutex<Content>,
    /// The last revision, for those who watch.
    last: watch::Sender<u64>,
}

#[derive(Default)]
struct Content {
    last: u64,
    changes: BTreeMap<u64, (Instant, Entry)>,
    bytes: u64,
}

fn size(entry: &Entry) -> u64 {
    (entry.key.len() + entry.value.len()) as u64
}

impl Content {
    fn remove(&mut self, revision: u64) {
        if let Some((_, entry)) = self.changes.remove(&revision) {
            self.bytes -= size(&entry);
        }
    }

    fn kept(&self) -> impl DoubleEndedIterator<Item = &Entry> {
        self.changes.values().map(|(_, entry)| entry)
    }

    fn of<'a>(&'a self, key: &'a str) -> impl DoubleEndedIterator<Item = &'a Entry> {
        self.kept().filter(move |entry| entry.key == key)
    }

    /// Removes what is too old.
    fn trim(&mut self, options: &BucketOptions, now: Instant) {
        let Some(age) = options.max_age else { return };
        while let Some((at, entry)) = self.changes.values().next()
            && now.duration_since(*at) >= age
        {
            let revision = entry.revision;
            self.remove(revision);
        }
    }

    /// The last change of each key, by revision.
    fn current(&self) -> Vec<Entry> {
        let mut last = BTreeMap::new();
        for entry in self.kept() {
            last.insert(&*entry.key, entry);
        }
        let mut current: Vec<_> = last.into_values().cloned().collect();
        current.sort_by_key(|entry| entry.revision);
        current
    }
}

/// See the [module](self). Cheap to clone.
#[derive(Clone)]
pub struct InProcessBucket {
    shelf: Arc<Shelf>,
    options: BucketOptions,
    clock: Clock,
}

/// What a key has to be for a change.
enum Expected {
    Anything,
    Nothing,
    Revision(u64),
}

impl InProcessBucket {
    fn lock(&self) -> MutexGuard<'_, Content> {
        let mut content = self.shelf.content.lock().unwrap_or_else(PoisonError::into_inner);
        content.trim(&self.options, Instant::now());
        content
    }

    fn change(
        &self,
        key: &str,
        value: Bytes,
        operation: Operation,
        expected: &Expected,
    ) -> Result<u64, KeyValueError> {
        self.options.check_value(key, &value)?;
        let mut content = self.lock();
        let last = content.of(key).next_back();
        let at_revision = last.map_or(0, |entry| entry.revision);
        match *expected {
            Expected::Nothing if last.is_some_and(|last| last.operation == Operation::Put) => {
                return Err(KeyValueError::Exists { key: key.to_owned() });
            }
            Expected::Revision(expected) if expected != at_revision => {
                return Err(KeyValueError::Conflict { key: key.to_owned(), expected });
            }
            _ => {}
        }
        let revision = content.last + 1;
        let at = Timestamp::from_micros(self.clock.wall_us());
        let entry = Entry { key: key.to_owned(), value, revision, operation, at };
        if content.bytes + size(&entry) > self.options.max_bytes {
            let detail = format!("{} bytes", content.bytes);
            return Err(KeyValueError::Full { bucket: self.options.name.clone(), detail });
        }
        let before: Vec<u64> = content.of(key).map(|entry| entry.revision).collect();
        let keep = match operation {
            Operation::Purge => 0,
            Operation::Put | Operation::Delete => usize::from(self.options.history) - 1,
        };
        for old in &before[..before.len().saturating_sub(keep)] {
            content.remove(*old);
        }
        content.last = revision;
        content.bytes += size(&entry);
        content.changes.insert(revision, (Instant::now(), entry));
        // Before the next change can be made: revisions only go up.
        self.shelf.last.send_replace(revision);
        Ok(revision)
    }

    /// The first change after a revision that is wanted.
    fn after(&self, revision: u64, keys: &Pattern) -> Option<Entry> {
        let content = self.lock();
        let mut later = content.changes.range(revision + 1..).map(|(_, (_, entry))| entry);
        later.find(|entry| matches(keys, &entry.key)).cloned()
    }
}

impl KeyValue for InProcessBucket {
    fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Entry>, KeyValueError>> {
        async move {
            check_key(key)?;
            let last = self.lock().of(key).next_back().cloned();
            Ok(last.filter(|entry| entry.operation == Operation::Put))
        }
        .boxed()
    }

    fn get_revision<'a>(
        &'a self,
        key: &'a str,
        revision: u64,
    ) -> BoxFuture<'a, Result<Option<Entry>, KeyValueError>> {
        async move {
            check_key(key)?;
            Ok(self.lock().of(key).find(|entry| entry.revision == revision).cloned())
        }
        .boxed()
    }

    fn put<'a>(&'a self, key: &'a str, value: Bytes) -> BoxFuture<'a, Result<u64, KeyValueError>> {
        async move { self.change(key, value, Operation::Put, &Expected::Anything) }.boxed()
    }

    fn create<'a>(
        &'a self,
        key: &'a str,
        value: Bytes,
    ) -> BoxFuture<'a, Result<u64, KeyValueError>> {
        async move { self.change(key, value, Operation::Put, &Expected::Nothing) }.boxed()
    }

    fn update<'a>(
        &'a self,
        key: &'a str,
        value: Bytes,
        revision: u64,
    ) -> BoxFuture<'a, Result<u64, KeyValueError>> {
        let expected = Expected::Revision(revision);
        async move { self.change(key, value, Operation::Put, &expected) }.boxed()
    }

    fn delete<'a>(
        &'a self,
        key: &'a str,
        revision: Option<u64>,
    ) -> BoxFuture<'a, Result<(), KeyValueError>> {
        let expected = revision.map_or(Expected::Anything, Expected::Revision);
        async move { self.change(key, Bytes::new(), Operation::Delete, &expected).map(drop) }
            .boxed()
    }

    fn purge<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<(), KeyValueError>> {
        let expected = Expected::Anything;
        async move { self.change(key, Bytes::new(), Operation::Purge, &expected).map(drop) }.boxed()
    }

    fn keys(&self) -> BoxFuture<'_, Result<Vec<String>, KeyValueError>> {
        async {
            let current = self.lock().current();
            let there = current.into_iter().filter(|entry| entry.operation == Operation::Put);
            let mut keys: Vec<_> = there.map(|entry| entry.key).collect();
            keys.sort_unstable();
            Ok(keys)
        }
        .boxed()
    }

    fn history<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Vec<Entry>, KeyValueError>> {
        async move {
            check_key(key)?;
            Ok(self.lock().of(key).cloned().collect())
        }
        .boxed()
    }

    fn watch<'a>(
        &'a self,
        keys: &'a str,
        from: From,
    ) -> BoxFuture<'a, Result<Watch, KeyValueError>> {
        async move {
            let keys = check_pattern(keys)?;
            // Those of now are kept for the watcher; later ones it looks up as it comes to them.
            let (mut first, mut seen) = {
                let content = self.lock();
                let first = match from {
                    From::Now => Vec::new(),
                    From::Current => content.current(),
                    From::History | From::Revision(_) => content.kept().cloned().collect(),
                };
                (first, content.last)
            };
            if let From::Revision(wanted) = from {
                first.retain(|entry| entry.revision >= wanted);
                seen = seen.max(wanted.saturating_sub(1));
            }
            first.retain(|entry| matches(&keys, &entry.key));
            let initial = first.len() as u64;
            let state = (self.clone(), self.shelf.last.subscribe(), keys, seen);
            let later = stream::unfold(state, |(bucket, mut last, keys, seen)| async move {
                loop {
                    last.mark_unchanged();
                    if let Some(entry) = bucket.after(seen, &keys) {
                        let seen = entry.revision;
                        return Some((Ok(entry), (bucket, last, keys, seen)));
                    }
                    // Its sender is in the bucket, which is in our hands.
                    last.changed().await.ok()?;
                }
            });
            let changes = stream::iter(first.into_iter().map(Ok)).chain(later).boxed();
            Ok(Watch { initial, changes })
        }
        .boxed()
    }
}

impl fmt::Debug for InProcessBucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InProcessBucket").field("name", &self.options.name).finish_non_exhaustive()
    }
}

impl fmt::Debug for Shelf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shelf").field("last", &*self.last.borrow()).finish_non_exhaustive()
    }
}
