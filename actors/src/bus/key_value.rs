//! Buckets of keys and values: the last value of each key, some before it, and what changes.
//!
//! | adapter | address | when |
//! |---|---|---|
//! | [`in_process`] | `memory:` | one process; nothing survives it |
//! | `nats` (feature) | `nats://HOST:PORT` | between nodes, on JetStream |
//!
//! For configuration, who leads, small state that others watch. It is no store of record: what
//! must survive a power cut is an event of the log.
//!
//! The promises, each a law of [`conformance`]:
//!
//! - Each change of a bucket has a revision, higher than all before it.
//! - [`create`](KeyValue::create) and [`update`](KeyValue::update) change a key only if it is as
//!   the caller believes: of two at once, one wins.
//! - [`get`](KeyValue::get) sees what was answered before it was called.
//! - A [watch](KeyValue::watch) yields changes in the order of their revisions, each at most once.
//!   Who is slow misses those that the bucket has let go: it keeps
//!   [`history`](BucketOptions::history) of each key.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use mister_smith_supervisors::ErrorClass;

use super::subject::{Pattern, Subject};
use crate::event::Timestamp;

pub mod conformance;
pub mod in_process;
#[cfg(feature = "nats")]
pub mod nats;

/// The most values of one key that a bucket keeps.
pub const MAX_HISTORY: u8 = 64;

/// The longest key, in bytes.
pub const MAX_KEY_BYTES: usize = 256;

/// Which bucket, and what it may hold. A bucket that is there is brought to these.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct BucketOptions {
    /// Its name. Letters, digits, `-` and `_`.
    pub name: String,
    /// How many values of each key it keeps, from 1 to [`MAX_HISTORY`]; 1.
    pub history: u8,
    /// What is older is removed, without a change that a watch would see; never.
    pub max_age: Option<Duration>,
    /// Bytes that it holds at most; 64 MiB. What does not fit is refused, and so is a deletion,
    /// which is written, too.
    pub max_bytes: u64,
    /// The largest value, in bytes; 512 KiB.
    pub max_value_bytes: u32,
    /// On how many servers of a JetStream cluster it is; 1.
    pub replicas: usize,
}

impl BucketOptions {
    /// A bucket, and the defaults.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            history: 1,
            max_age: None,
            max_bytes: 64 << 20,
            max_value_bytes: 512 << 10,
            replicas: 1,
        }
    }

    /// Sets how many values of each key it keeps.
    #[must_use]
    pub fn history(mut self, values: u8) -> Self {
        self.history = values;
        self
    }

    /// Sets after how long a value is removed.
    #[must_use]
    pub fn max_age(mut self, age: Duration) -> Self {
        self.max_age = Some(age);
        self
    }

    /// Sets how many bytes it holds at most.
    #[must_use]
    pub fn max_bytes(mut self, bytes: u64) -> Self {
        self.max_bytes = bytes;
        self
    }

    /// Sets how large a value may be.
    #[must_use]
    pub fn max_value_bytes(mut self, bytes: u32) -> Self {
        self.max_value_bytes = bytes;
        self
    }

    pub(super) fn check(&self) -> Result<(), KeyValueError> {
        let fine = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
        if self.name.is_empty() || !self.name.bytes().all(fine) {
            return Err(KeyValueError::Name { name: self.name.clone() });
        }
        match self.history {
            1..=MAX_HISTORY => Ok(()),
            history => Err(KeyValueError::History { history }),
        }
    }

    fn check_value(&self, key: &str, value: &[u8]) -> Result<(), KeyValueError> {
        check_key(key)?;
        match value.len() > self.max_value_bytes as usize {
            true => Err(KeyValueError::TooLarge {
                key: key.to_owned(),
                bytes: value.len(),
                most: self.max_value_bytes,
            }),
            false => Ok(()),
        }
    }
}

/// What was done to a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// It was given a value.
    Put,
    /// It was deleted; the values before it are kept.
    Delete,
    /// It was deleted, with all values before it.
    Purge,
}

/// One change of one key.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Entry {
    /// The key.
    pub key: String,
    /// The value; empty if it was deleted.
    pub value: Bytes,
    /// The number of the change in its bucket.
    pub revision: u64,
    /// What was done.
    pub operation: Operation,
    /// When the bucket took it.
    pub at: Timestamp,
}

/// Where a watch begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum From {
    /// With changes from now on.
    Now,
    /// With the last change of each key, deletions included, then changes.
    Current,
    /// With all that is kept, then changes.
    History,
    /// With this revision, if it is kept, then all later changes.
    Revision(u64),
}

/// Changes of a bucket.
pub struct Watch {
    /// How many of those that come first were there when it began.
    pub initial: u64,
    /// The changes. It ends only with the bucket's connection; after an error it goes on.
    pub changes: BoxStream<'static, Result<Entry, KeyValueError>>,
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").field("initial", &self.initial).finish_non_exhaustive()
    }
}

/// A bucket.
///
/// All calls are safe to drop: a change may have been made.
pub trait KeyValue: Send + Sync + fmt::Debug {
    /// The last value of a key; `None` if it has none, or was deleted.
    ///
    /// # Errors
    /// The key is none, or the server cannot be reached.
    fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Entry>, KeyValueError>>;

    /// The change of a key with this revision, if it is kept.
    ///
    /// # Errors
    /// As for [`get`](Self::get).
    fn get_revision<'a>(
        &'a self,
        key: &'a str,
        revision: u64,
    ) -> BoxFuture<'a, Result<Option<Entry>, KeyValueError>>;

    /// Gives a key a value, whatever it had. Answers the revision.
    ///
    /// # Errors
    /// See [`KeyValueError`]. After [`Unreachable`](KeyValueError::Unreachable) it may have
    /// happened.
    fn put<'a>(&'a self, key: &'a str, value: Bytes) -> BoxFuture<'a, Result<u64, KeyValueError>>;

    /// Gives a key a value if it has none. Answers the revision.
    ///
    /// # Errors
    /// As for [`put`](Self::put), and [`Exists`](KeyValueError::Exists).
    fn create<'a>(
        &'a self,
        key: &'a str,
        value: Bytes,
    ) -> BoxFuture<'a, Result<u64, KeyValueError>>;

    /// Gives a key a value if its last change has this revision. Answers the new one.
    ///
    /// # Errors
    /// As for [`put`](Self::put), and [`Conflict`](KeyValueError::Conflict).
    fn update<'a>(
        &'a self,
        key: &'a str,
        value: Bytes,
        revision: u64,
    ) -> BoxFuture<'a, Result<u64, KeyValueError>>;

    /// Deletes a key; if a revision is given, only if that is its last. The values before are
    /// kept, as many as the bucket keeps.
    ///
    /// # Errors
    /// As for [`update`](Self::update).
    fn delete<'a>(
        &'a self,
        key: &'a str,
        revision: Option<u64>,
    ) -> BoxFuture<'a, Result<(), KeyValueError>>;

    /// Deletes a key, and all values before.
    ///
    /// # Errors
    /// As for [`put`](Self::put).
    fn purge<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<(), KeyValueError>>;

    /// The keys that have a value, sorted.
    ///
    /// # Errors
    /// The server cannot be reached.
    fn keys(&self) -> BoxFuture<'_, Result<Vec<String>, KeyValueError>>;

    /// What is kept of a key, oldest first.
    ///
    /// # Errors
    /// As for [`get`](Self::get).
    fn history<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Vec<Entry>, KeyValueError>>;

    /// Watches keys: a key, or a pattern of its tokens, `*` or `>`.
    ///
    /// # Errors
    /// The pattern is none, or the server cannot be reached.
    fn watch<'a>(
        &'a self,
        keys: &'a str,
        from: From,
    ) -> BoxFuture<'a, Result<Watch, KeyValueError>>;
}

/// A fault of a bucket.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyValueError {
    /// The bucket's name is none.
    #[error("{name:?} is no name of a bucket; use letters, digits, - and _")]
    Name {
        /// The name.
        name: String,
    },
    /// The history cannot be kept.
    #[error("a bucket keeps 1 to {MAX_HISTORY} values of each key, not {history}")]
    History {
        /// What was asked for.
        history: u8,
    },
    /// The key is none.
    #[error("{key:?} is no key: {reason}")]
    Key {
        /// The key.
        key: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The key has a value already.
    #[error("{key} exists; update it with its revision")]
    Exists {
        /// The key.
        key: String,
    },
    /// Somebody else was faster.
    #[error("the last change of {key} is not {expected}; read it again and retry")]
    Conflict {
        /// The key.
        key: String,
        /// What the caller believed.
        expected: u64,
    },
    /// A value is larger than it may be.
    #[error("a value of {bytes} bytes is too large for {key}, at most {most} are taken")]
    TooLarge {
        /// The key.
        key: String,
        /// How large it is.
        bytes: usize,
        /// How large it may be.
        most: u32,
    },
    /// The bucket holds as much as it may.
    #[error("bucket {bucket} is full ({detail}); let it hold more")]
    Full {
        /// The bucket.
        bucket: String,
        /// Of what.
        detail: String,
    },
    /// The server cannot be reached. A change may have been made.
    #[error("bucket {bucket} cannot be reached: {reason}")]
    Unreachable {
        /// The bucket.
        bucket: String,
        /// What happened.
        reason: String,
    },
    /// The server has something else under that name, or refuses.
    #[error("bucket {bucket}: {reason}")]
    Refused {
        /// The bucket.
        bucket: String,
        /// What the server said.
        reason: String,
    },
}

impl KeyValueError {
    /// How to react.
    #[must_use]
    pub const fn class(&self) -> ErrorClass {
        match self {
            Self::Conflict { .. } | Self::Full { .. } | Self::Unreachable { .. } => {
                ErrorClass::Transient
            }
            Self::Refused { .. } => ErrorClass::Permanent,
            _ => ErrorClass::User,
        }
    }
}

fn check_text(key: &str, wildcards: bool) -> Result<(), KeyValueError> {
    let wrong = |reason| Err(KeyValueError::Key { key: key.to_owned(), reason });
    let fine = |c: char| {
        c.is_ascii_alphanumeric()
            || matches!(c, '-' | '_' | '/' | '=' | '.')
            || wildcards && matches!(c, '*' | '>')
    };
    if key.is_empty() {
        return wrong("it is empty");
    }
    if key.len() > MAX_KEY_BYTES {
        return wrong("it has more than 256 bytes");
    }
    if !key.chars().all(fine) {
        return wrong("use letters, digits, and - _ / = .");
    }
    match key.split('.').any(str::is_empty) {
        true => wrong("put one dot between two tokens, and none at the ends"),
        false => Ok(()),
    }
}

/// Keys are those of NATS: tokens with dots between.
fn check_key(key: &str) -> Result<(), KeyValueError> {
    check_text(key, false)
}

fn check_pattern(keys: &str) -> Result<Pattern, KeyValueError> {
    check_text(keys, true)?;
    // A key is looked at as a subject behind a token, so that one that begins with `system` is
    // like any other.
    Pattern::new(format!("key.{keys}")).map_err(|_| KeyValueError::Key {
        key: keys.to_owned(),
        reason: "* and > stand alone between dots, and > at the end",
    })
}

fn matches(keys: &Pattern, key: &str) -> bool {
    Subject::new(format!("key.{key}")).is_ok_and(|subject| keys.matches(&subject))
}
