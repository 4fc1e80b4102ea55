//! The event store: the port, and what every adapter behind it promises.
//!
//! | adapter | when |
//! |---|---|
//! | [`memory`] | tests and seeded simulations; nothing survives the process |
//! | [`sqlite`] | one node, one file, no server; the embedded default |
//! | `postgres` (feature) | one node or many on one database |
//!
//! The promises, each a law of [`conformance`]:
//!
//! - Positions are gapless and in the order of commits. A reader that has seen position `n` will
//!   never find a new event at or below `n`.
//! - Versions are gapless in each stream.
//! - A batch is one transaction. A conflict fails its own append and no other.
//! - The same idempotency key writes once. Later appends get the first answer.
//! - A stream that ended with a tombstone takes nothing more and reads as empty; its events keep
//!   their places in the log.
//!
//! The port carries bytes and pages. Pages rather than row streams, so that a slow reader never
//! holds a connection and can checkpoint at any event.

use std::{error::Error as StdError, fmt, sync::Arc};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::{
    error::ErrorClass,
    event::{
        ContentType, EventId, NewEvent, Position, RecordedEvent, StreamId, Timestamp, Version,
    },
};

pub mod archive;
pub mod claims;
pub mod committer;
pub mod conformance;
pub mod feed;
mod filter;
pub mod follow;
pub(crate) mod forward;
pub mod memory;
pub mod messages;
pub mod notes;
mod plan;
#[cfg(feature = "postgres")]
pub mod postgres;
pub mod read_model;
pub mod replay;
#[cfg(feature = "schema")]
pub mod schemas;
pub mod snapshot;
#[cfg(feature = "sqlite")]
pub mod sqlite;
pub mod subscription;
pub mod tail;
pub mod timers;

pub use filter::{DEAD_LETTERS, EventFilter, MAX_SCAN, MatchingPage, RecordedType};

#[cfg(test)]
mod probe;
#[cfg(test)]
mod tests;

/// The most events of one page; a larger limit is read as this one.
pub const MAX_PAGE: usize = 5_000;

/// A page ends with the event that takes it to this many bytes of payload (16 MiB), so that a
/// page of large events does not become gigabytes.
pub const MAX_PAGE_BYTES: usize = 16 << 20;

/// The most events of one append.
pub const MAX_APPEND_EVENTS: usize = 5_000;

/// The largest event, payload and metadata together (16 MiB).
pub const MAX_EVENT_BYTES: usize = 16 << 20;

/// The largest append, payloads and metadata of its events together (64 MiB). A statement of a
/// database holds no more than a gigabyte.
pub const MAX_APPEND_BYTES: usize = 64 << 20;

/// An append-only log of events in streams; see the [module](self) for its promises.
pub trait EventStore: Send + Sync + fmt::Debug {
    /// Writes all that can be written of `batch`, in one transaction, and answers each append in
    /// the order of the batch.
    ///
    /// Appends see each other: the second of two to one stream expects the version that the first
    /// one makes.
    ///
    /// # Errors
    ///
    /// The whole batch failed. If the fault came while committing, whether the batch is in the log
    /// is unknown; sending it again with the same idempotency keys is always right.
    ///
    /// # Cancel safety
    ///
    /// A dropped call writes the whole batch or nothing. Which of the two is unknown, as after an
    /// error.
    fn append_batch(
        &self,
        batch: Arc<[Append]>,
    ) -> BoxFuture<'_, Result<Vec<AppendOutcome>, StoreError>>;

    /// The events of `stream` after a version, oldest first.
    ///
    /// At most `limit` of them and at most [`MAX_PAGE`]. A page can be shorter (see
    /// [`MAX_PAGE_BYTES`]); only an empty page means that there are no more. A stream that does
    /// not exist has no events.
    ///
    /// # Errors
    ///
    /// The store could not be read.
    ///
    /// # Cancel safety
    ///
    /// Dropping the call loses nothing.
    fn read_stream<'a>(
        &'a self,
        stream: &'a StreamId,
        after: Version,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<RecordedEvent>, StoreError>>;

    /// The events of all streams after a position, in the order of commits; pages as in
    /// [`read_stream`](Self::read_stream).
    ///
    /// # Errors
    ///
    /// The store could not be read.
    ///
    /// # Cancel safety
    ///
    /// Dropping the call loses nothing.
    fn read_all(
        &self,
        after: Position,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<RecordedEvent>, StoreError>>;

    /// The position of the last event; [`Position::ZERO`] while the log is empty.
    ///
    /// # Errors
    ///
    /// The store could not be read.
    ///
    /// # Cancel safety
    ///
    /// Dropping the call loses nothing.
    fn head(&self) -> BoxFuture<'_, Result<Position, StoreError>>;

    /// The version of the stream's last event; [`Version::ZERO`] if the stream does not exist.
    ///
    /// # Errors
    ///
    /// The store could not be read.
    ///
    /// # Cancel safety
    ///
    /// Dropping the call loses nothing.
    fn stream_version<'a>(
        &'a self,
        stream: &'a StreamId,
    ) -> BoxFuture<'a, Result<Version, StoreError>>;

    /// The events of `stream` below a version, newest first; pages as in
    /// [`read_stream`](Self::read_stream). `Version::new(u64::MAX)` begins at the end.
    ///
    /// # Errors
    ///
    /// The store could not be read.
    ///
    /// # Cancel safety
    ///
    /// Dropping the call loses nothing.
    fn read_stream_backward<'a>(
        &'a self,
        stream: &'a StreamId,
        before: Version,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<RecordedEvent>, StoreError>>;

    /// The events after a position that `filter` lets through, in the order of commits, and how
    /// far the log was looked at: at most [`MAX_SCAN`] positions a call, so that a filter that
    /// matches little never makes a call without end. Go on after
    /// [`scanned_to`](MatchingPage::scanned_to) until it is the head.
    ///
    /// # Errors
    ///
    /// The store could not be read.
    ///
    /// # Cancel safety
    ///
    /// Dropping the call loses nothing.
    fn read_matching<'a>(
        &'a self,
        filter: &'a EventFilter,
        after: Position,
        limit: usize,
    ) -> BoxFuture<'a, Result<MatchingPage, StoreError>>;

    /// The first answer to an idempotency key, if an append with it was written.
    ///
    /// # Errors
    ///
    /// The store could not be read.
    ///
    /// # Cancel safety
    ///
    /// Dropping the call loses nothing.
    fn answer(&self, key: IdempotencyKey) -> BoxFuture<'_, Result<Option<Appended>, StoreError>>;

    /// Every event type with its schema version that was ever written, in the order of names.
    /// Cheap: a small table and not a scan.
    ///
    /// # Errors
    ///
    /// The store could not be read.
    ///
    /// # Cancel safety
    ///
    /// Dropping the call loses nothing.
    fn event_types(&self) -> BoxFuture<'_, Result<Vec<RecordedType>, StoreError>>;

    /// A position at or before the first event of a time or later: read after it, and leave out
    /// what is earlier. [`Position::ZERO`] if the log has nothing that old.
    ///
    /// From marks that are written at most once a minute of the events' time, and never with a
    /// time before the last mark's, whatever the clocks did: an event that was recorded with a
    /// clock behind that mark is found under the mark's time.
    ///
    /// # Errors
    ///
    /// The store could not be read.
    ///
    /// # Cancel safety
    ///
    /// Dropping the call loses nothing.
    fn position_at(&self, time: Timestamp) -> BoxFuture<'_, Result<Position, StoreError>>;

    /// Waits until the log is longer than `after`, and answers how long it is.
    ///
    /// # Errors
    ///
    /// The store could not be read, or was closed.
    ///
    /// # Cancel safety
    ///
    /// Dropping the call loses nothing.
    fn changed(&self, after: Position) -> BoxFuture<'_, Result<Position, StoreError>>;

    /// The name of this log, made with it. Messages derived from events carry it, so that two
    /// logs on one bus are told apart.
    fn store_id(&self) -> Uuid;

    /// Where the events of a stream lie: the positions of its first and its last one, for whoever
    /// looks for them in files. `None` if it takes no events, or is not known.
    ///
    /// # Errors
    ///
    /// The store could not be read.
    ///
    /// # Cancel safety
    ///
    /// Dropping the call loses nothing.
    fn span<'a>(
        &'a self,
        _: &'a StreamId,
    ) -> BoxFuture<'a, Result<Option<(Position, Position)>, StoreError>> {
        Box::pin(std::future::ready(Ok(None)))
    }
}

/// The type of the event that ends a stream. Types of applications do not begin with `$`.
pub const TOMBSTONE: &str = "$tombstone";

/// The width of the marks that [`EventStore::position_at`] answers from, in microseconds.
pub const MARK_EVERY_US: i64 = 60_000_000;

/// Events for one stream, written all or none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Append {
    /// The stream they go to; it begins with its first event.
    pub stream: StreamId,
    /// What the caller believes about the stream.
    pub expected: ExpectedVersion,
    /// The events, 1 to [`MAX_APPEND_EVENTS`].
    pub events: Vec<NewEvent>,
    /// Names the request, so that a repeat writes nothing.
    pub key: Option<IdempotencyKey>,
    /// Written only if the append before it in the batch was, and not as a repeat; refused as a
    /// conflict otherwise.
    ///
    /// For decisions that were made on the outcome of the one before: the expected version alone
    /// would let it through when somebody else's events made the same version.
    pub linked: bool,
    /// It comes from outside: refused if the streams of its category belong to somebody
    /// ([`Notes::own`](notes::Notes::own)), also if that was noted while it was on its way.
    pub outside: bool,
}

impl Append {
    /// Events for a stream, without a key.
    pub const fn new(stream: StreamId, expected: ExpectedVersion, events: Vec<NewEvent>) -> Self {
        Self { stream, expected, events, key: None, linked: false, outside: false }
    }

    /// Ends a stream for ever: it takes no more events and reads as empty. Its events keep their
    /// places in the log, and the tombstone follows them, so that projections hear of it.
    pub fn tombstone(
        stream: StreamId,
        expected: ExpectedVersion,
        id: EventId,
        at: Timestamp,
    ) -> Self {
        let event = NewEvent::new(id, TOMBSTONE, ContentType::Raw, Bytes::new(), at);
        Self::new(stream, expected, vec![event])
    }
}

/// What an append requires of its stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ExpectedVersion {
    /// Nothing.
    Any,
    /// That it has no events.
    NoStream,
    /// That it has at least one event.
    StreamExists,
    /// That its last event has this version.
    Exact(Version),
}

impl ExpectedVersion {
    /// Whether a stream at version `actual` is as required.
    pub const fn accepts(self, actual: Version) -> bool {
        match self {
            Self::Any => true,
            Self::NoStream => actual.get() == 0,
            Self::StreamExists => actual.get() > 0,
            Self::Exact(version) => actual.get() == version.get(),
        }
    }
}

impl fmt::Display for ExpectedVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("any version"),
            Self::NoStream => f.write_str("no stream"),
            Self::StreamExists => f.write_str("an existing stream"),
            Self::Exact(version) => write!(f, "version {version}"),
        }
    }
}

/// The event at a position, if there is one.
///
/// # Errors
/// The store could not be read.
pub(crate) async fn event_at(
    store: &dyn EventStore,
    position: Position,
) -> Result<Option<RecordedEvent>, StoreError> {
    let before = Position::new(position.get().saturating_sub(1));
    let found = store.read_all(before, 1).await?.into_iter().next();
    Ok(found.filter(|event| event.position == position))
}

/// The name of a request: 16 bytes, equal only for the same request.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IdempotencyKey([u8; 16]);

impl IdempotencyKey {
    /// A key that the caller made, a UUID for example.
    pub const fn new(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The key of a sequence of parts, `["source", "id"]` for example.
    ///
    /// SHA-256 over each part behind its length, cut to 128 bits. The lengths keep
    /// `["ab", "c"]` and `["a", "bc"]` apart.
    pub fn of<P: AsRef<[u8]>>(parts: impl IntoIterator<Item = P>) -> Self {
        let mut hash = Sha256::new();
        for part in parts {
            let part = part.as_ref();
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        let digest = hash.finalize();
        let mut key = [0; 16];
        key.copy_from_slice(&digest[..16]);
        Self(key)
    }

    /// The bytes.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// The key in the form of a UUID (version 8), for what is named by one.
    #[must_use]
    pub fn to_uuid(&self) -> Uuid {
        uuid::Builder::from_custom_bytes(self.0).into_uuid()
    }
}

impl fmt::Debug for IdempotencyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IdempotencyKey({:032x})", u128::from_be_bytes(self.0))
    }
}

/// The answer to one append of a batch.
pub type AppendOutcome = Result<Appended, AppendError>;

/// Where an append's events are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Appended {
    /// Their stream. For a duplicate it is the stream of the first request with that key.
    pub stream: StreamId,
    /// Version of the first of them.
    pub first_version: Version,
    /// Version of the last of them.
    pub last_version: Version,
    /// Position of the first of them; the others follow it without a gap.
    pub first_position: Position,
    /// Position of the last of them.
    pub last_position: Position,
    /// An earlier append had the same key; this is its answer, and nothing was written.
    pub duplicate: bool,
}

/// Why one append was refused; nothing of it was written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AppendError {
    /// The stream is not as the caller believed.
    #[error("stream {stream} is at version {actual}, expected {expected}; reload and retry")]
    Conflict {
        /// The stream.
        stream: StreamId,
        /// What the append required.
        expected: ExpectedVersion,
        /// What was there, with the earlier appends of the same batch.
        actual: Version,
    },
    /// The stream was deleted.
    #[error("stream {stream} was deleted and takes no more events; use another name")]
    Deleted {
        /// The stream.
        stream: StreamId,
    },
    /// It comes from outside, and the stream belongs to somebody.
    #[error("streams of the category of {stream} belong to {owner}; use another name")]
    Owned {
        /// The stream.
        stream: StreamId,
        /// Whose it is.
        owner: String,
    },
    /// The append itself cannot be written.
    #[error("append to stream {stream} is invalid: {reason}")]
    Invalid {
        /// The stream.
        stream: StreamId,
        /// What is wrong with it.
        reason: InvalidAppend,
    },
}

impl AppendError {
    /// How to react. A conflict is transient: after a reload the same command can succeed.
    pub const fn class(&self) -> ErrorClass {
        match self {
            Self::Conflict { .. } => ErrorClass::Transient,
            Self::Deleted { .. } => ErrorClass::Permanent,
            Self::Invalid { .. } | Self::Owned { .. } => ErrorClass::User,
        }
    }
}

/// What is wrong with an append.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidAppend {
    /// It has no events.
    #[error("it has no events")]
    NoEvents,
    /// It has too many events.
    #[error("it has {count} events, at most {MAX_APPEND_EVENTS} are taken; split it")]
    TooManyEvents {
        /// How many it has.
        count: usize,
    },
    /// An event is too large.
    #[error("event {index} has {bytes} bytes, at most {MAX_EVENT_BYTES} are taken")]
    TooLarge {
        /// Which of its events, from 0.
        index: usize,
        /// Payload and metadata.
        bytes: usize,
    },
    /// Its events are too large together.
    #[error(
        "its events have {bytes} bytes together, at most {MAX_APPEND_BYTES} are taken; split it"
    )]
    TooManyBytes {
        /// Payloads and metadata.
        bytes: usize,
    },
    /// An event's type is not a name.
    #[error(
        "event {index} has the type {event_type:?}; a type is 1 to {} bytes without control characters and does not begin with $",
        crate::event::MAX_EVENT_TYPE_BYTES
    )]
    EventType {
        /// Which of its events, from 0.
        index: usize,
        /// The type.
        event_type: String,
    },
}

/// A fault of the store behind the port; it fails the whole call.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Somebody else holds the store's lock.
    #[error("{store} is locked by another process; retry, or stop the other writer")]
    Busy {
        /// Path or address of the store.
        store: String,
        /// What the backend said.
        source: BackendError,
    },
    /// All connections are in use.
    #[error("all connections to {store} are in use; retry, or allow more of them")]
    Exhausted {
        /// Path or address of the store.
        store: String,
        /// What the backend said.
        source: BackendError,
    },
    /// The connection was lost. Whether what was under way had its effect is unknown.
    #[error("the connection to {store} was lost ({source}); it is made again, retry")]
    Lost {
        /// Path or address of the store.
        store: String,
        /// What the backend said.
        source: BackendError,
    },
    /// What is asked for is in files, and no longer in the database.
    #[error(
        "{store} holds only what comes after position {up_to}, the rest was archived; give the \
         archive's directory (--archive-dir), or put it back (`smith archive restore`)"
    )]
    Archived {
        /// Path or address of the store.
        store: String,
        /// Everything up to here is in files.
        up_to: Position,
    },
    /// There is no room left.
    #[error("{store} cannot grow: the disk is full; free some space, then retry")]
    Full {
        /// Path or address of the store.
        store: String,
        /// What the backend said.
        source: BackendError,
    },
    /// It cannot be opened or written as things are.
    #[error("cannot open {store}: {cure}")]
    Unavailable {
        /// Path or address of the store.
        store: String,
        /// What to do about it.
        cure: String,
        /// What the backend said.
        source: BackendError,
    },
    /// What is there is something else.
    #[error("{store} is not a database; give another path, or move that file away")]
    NotAStore {
        /// Path or address of the store.
        store: String,
        /// What the backend said.
        source: BackendError,
    },
    /// Its tables are missing or older than this program.
    #[error("{store} has not the tables that this program needs; run `smith migrate up`")]
    NotMigrated {
        /// Path or address of the store.
        store: String,
        /// What the backend said.
        source: BackendError,
    },
    /// What is there contradicts itself.
    #[error("{store} is damaged: {detail}; restore a backup")]
    Corrupt {
        /// Path or address of the store.
        store: String,
        /// What contradicts what.
        detail: String,
    },
    /// It was closed.
    #[error("{store} is closed")]
    Closed {
        /// Path or address of the store.
        store: String,
    },
    /// Anything else that the backend said.
    #[error("{store}: {source}")]
    Backend {
        /// Path or address of the store.
        store: String,
        /// What the backend said.
        source: BackendError,
    },
}

/// What a backend said, in its own type.
pub type BackendError = Box<dyn StdError + Send + Sync>;

impl StoreError {
    /// How to react.
    pub const fn class(&self) -> ErrorClass {
        match self {
            Self::Busy { .. }
            | Self::Exhausted { .. }
            | Self::Lost { .. }
            | Self::Backend { .. } => ErrorClass::Transient,
            Self::NotAStore { .. }
            | Self::Corrupt { .. }
            | Self::Closed { .. }
            | Self::Archived { .. } => ErrorClass::Permanent,
            Self::Full { .. } | Self::Unavailable { .. } | Self::NotMigrated { .. } => {
                ErrorClass::System
            }
        }
    }
}
