//! Archives: old ranges of the log in compressed files, still readable.
//!
//! A file is gzip (RFC 1952) over frames: four bytes of length, then one event as MessagePack with
//! field names. Beside it lies a manifest, JSON, with the range, the count and the SHA-256 of the
//! file. The database forgets a range only after its file was synced, read back and found right.
//!
//! [`ArchivedStore`] puts files and database together again: a reader of the whole log does not
//! notice where one ends and the other begins.

use std::fs::{self, File};
use std::io::{BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use futures_util::{FutureExt, future::BoxFuture};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::{
    Append, AppendOutcome, Appended, EventFilter, EventStore, IdempotencyKey, MAX_PAGE,
    MatchingPage, RecordedType, StoreError,
};
use crate::event::{ContentType, EventId, Position, RecordedEvent, StreamId, Timestamp, Version};

/// A range of the log that is in a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The log that it is of.
    pub store_id: Uuid,
    /// The first event in it.
    pub from: Position,
    /// The last event in it.
    pub to: Position,
    /// The file, beside the manifest.
    pub file: String,
    /// SHA-256 of the file, hexadecimal.
    pub sha256: String,
    /// Bytes of the file.
    pub bytes: u64,
}

/// Why an archive cannot be written or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ArchiveError {
    /// A file cannot be written or read.
    #[error("{path}: {source}", path = .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file is not what its manifest says.
    #[error("{path} is damaged: {detail}; restore it from a copy", path = .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        detail: String,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// An event as it is written into a file.
#[derive(Serialize, Deserialize)]
struct Frame {
    position: Position,
    stream: StreamId,
    version: Version,
    id: Uuid,
    event_type: Arc<str>,
    schema_version: u16,
    codec: ContentType,
    #[serde(with = "bytes_only")]
    data: bytes::Bytes,
    #[serde(with = "bytes_only")]
    meta: bytes::Bytes,
    recorded_at: Timestamp,
}

/// Bytes as MessagePack's own type for them, and not as a list of numbers.
mod bytes_only {
    pub(super) fn serialize<S: serde::Serializer>(
        bytes: &bytes::Bytes,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        to.serialize_bytes(bytes)
    }

    pub(super) fn deserialize<'de, D: serde::Deserializer<'de>>(
        from: D,
    ) -> Result<bytes::Bytes, D::Error> {
        serde::Deserialize::deserialize(from)
    }
}

impl From<RecordedEvent> for Frame {
    fn from(event: RecordedEvent) -> Self {
        Self {
            position: event.position,
            stream: event.stream,
            version: event.version,
            id: *event.id.as_uuid(),
            event_type: event.event_type,
            schema_version: event.schema_version,
            codec: event.codec,
            data: event.data,
            meta: event.meta,
            recorded_at: event.recorded_at,
        }
    }
}

impl From<Frame> for RecordedEvent {
    fn from(frame: Frame) -> Self {
        Self {
            position: frame.position,
            stream: frame.stream,
            version: frame.version,
            id: EventId::new(frame.id),
            event_type: frame.event_type,
            schema_version: frame.schema_version,
            codec: frame.codec,
            data: frame.data,
            meta: frame.meta,
            recorded_at: frame.recorded_at,
        }
    }
}

/// Writes the events of a range into a file in `directory`, syncs it, reads it back, and writes its
/// manifest. The log is not changed.
///
/// # Errors
///
/// The store or the file failed, or the file does not hold what was written.
///
/// # Cancel safety
///
/// A dropped call leaves at most a file without a manifest, which the next one replaces.
pub async fn write(
    store: &dyn EventStore,
    directory: &Path,
    from: Position,
    to: Position,
) -> Result<Manifest, ArchiveError> {
    let name = format!("events_{:016}_{:016}.msgpack.gz", from.get(), to.get());
    let path = directory.join(&name);
    let failed = |source| ArchiveError::File { path: path.clone(), source };
    fs::create_dir_all(directory).map_err(failed)?;
    let mut file = GzEncoder::new(File::create(&path).map_err(failed)?, Default::default());
    let mut at = from.minus(1);
    while at < to {
        let events = store.read_all(at, MAX_PAGE).await?;
        let mut bytes = Vec::new();
        for event in events.into_iter().filter(|event| event.position <= to) {
            if event.position != at.next() {
                let detail = format!("event {} is missing in the log", at.next());
                return Err(ArchiveError::Damaged { path, detail });
            }
            at = event.position;
            let frame = rmp_serde::to_vec_named(&Frame::from(event))
                .map_err(|error| failed(std::io::Error::other(error)))?;
            let length = u32::try_from(frame.len()).unwrap_or(u32::MAX);
            bytes.extend_from_slice(&length.to_be_bytes());
            bytes.extend_from_slice(&frame);
        }
        if bytes.is_empty() {
            let detail = format!("the log ends with {at}, before {to}");
            return Err(ArchiveError::Damaged { path, detail });
        }
        file.write_all(&bytes).map_err(failed)?;
    }
    let file = file.finish().map_err(failed)?;
    file.sync_all().map_err(failed)?;
    let (sha256, bytes) = checksum(&path).map_err(failed)?;
    let manifest = Manifest { store_id: store.store_id(), from, to, file: name, sha256, bytes };
    let read = read(directory, &manifest)?;
    if read.len() as u64 != to.get() + 1 - from.get() {
        let detail = format!("{} of its events can be read", read.len());
        return Err(ArchiveError::Damaged { path, detail });
    }
    let text = serde_json::to_vec_pretty(&manifest)
        .map_err(|error| failed(std::io::Error::other(error)))?;
    let beside = path.with_extension("manifest.json");
    let mut file = File::create(&beside).map_err(failed)?;
    file.write_all(&text).and_then(|()| file.sync_all()).map_err(failed)?;
    Ok(manifest)
}

fn checksum(path: &Path) -> std::io::Result<(String, u64)> {
    let mut file = BufReader::new(File::open(path)?);
    let mut hash = Sha256::new();
    let bytes = std::io::copy(&mut file, &mut hash)?;
    let digest = hash.finalize();
    Ok((digest.iter().map(|byte| format!("{byte:02x}")).collect(), bytes))
}

/// The manifests in a directory, in the order of their ranges.
///
/// # Errors
///
/// The directory or a manifest cannot be read.
pub fn manifests(directory: &Path) -> Result<Vec<Manifest>, ArchiveError> {
    let failed = |path: &Path, source| ArchiveError::File { path: path.to_owned(), source };
    let entries = fs::read_dir(directory).map_err(|source| failed(directory, source))?;
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(|source| failed(directory, source))?.path();
        if path.to_string_lossy().ends_with(".manifest.json") {
            let text = fs::read(&path).map_err(|source| failed(&path, source))?;
            let manifest: Manifest = serde_json::from_slice(&text).map_err(|error| {
                ArchiveError::Damaged { path: path.clone(), detail: error.to_string() }
            })?;
            found.push(manifest);
        }
    }
    found.sort_by_key(|manifest| manifest.from);
    Ok(found)
}

/// The events of a file, after its checksum was found right.
///
/// # Errors
///
/// The file cannot be read, or is not what the manifest says.
pub fn read(directory: &Path, manifest: &Manifest) -> Result<Vec<RecordedEvent>, ArchiveError> {
    let path = directory.join(&manifest.file);
    let failed = |source| ArchiveError::File { path: path.clone(), source };
    let damaged = |detail: String| ArchiveError::Damaged { path: path.clone(), detail };
    let (sha256, _) = checksum(&path).map_err(failed)?;
    if sha256 != manifest.sha256 {
        return Err(damaged(format!("its SHA-256 is {sha256}, not {}", manifest.sha256)));
    }
    let mut file = GzDecoder::new(BufReader::new(File::open(&path).map_err(failed)?));
    let mut events = Vec::new();
    let mut frame = Vec::new();
    for position in manifest.from.get()..=manifest.to.get() {
        let mut length = [0; 4];
        file.read_exact(&mut length).map_err(failed)?;
        // Bounded by the largest event and what is around it.
        let length = u32::from_be_bytes(length) as usize;
        if length > super::MAX_EVENT_BYTES + 4_096 {
            return Err(damaged(format!("event {position} has {length} bytes")));
        }
        frame.resize(length, 0);
        file.read_exact(&mut frame).map_err(failed)?;
        let event: Frame =
            rmp_serde::from_slice(&frame).map_err(|error| damaged(error.to_string()))?;
        if event.position.get() != position {
            return Err(damaged(format!("event {} where {position} should be", event.position)));
        }
        events.push(event.into());
    }
    Ok(events)
}

/// A store whose old ranges are in files: reads of the whole log go through both. Reads of one
/// stream, and appends, are the store's.
#[derive(Debug)]
pub struct ArchivedStore {
    store: Arc<dyn EventStore>,
    directory: PathBuf,
    manifests: Vec<Manifest>,
    /// The file that was read last.
    open: Mutex<Option<(Position, Arc<Vec<RecordedEvent>>)>>,
}

impl ArchivedStore {
    /// A store with the archives of a directory.
    ///
    /// # Errors
    ///
    /// The directory cannot be read, or holds archives of another log.
    pub fn open(
        store: Arc<dyn EventStore>,
        directory: impl Into<PathBuf>,
    ) -> Result<Self, ArchiveError> {
        let directory = directory.into();
        let manifests = manifests(&directory)?;
        if let Some(other) = manifests.iter().find(|one| one.store_id != store.store_id()) {
            let detail = format!("it is of the log {}", other.store_id);
            return Err(ArchiveError::Damaged { path: directory.join(&other.file), detail });
        }
        Ok(Self { store, directory, manifests, open: Mutex::default() })
    }

    /// Events after a position that are in a file.
    fn archived(&self, after: Position, limit: usize) -> Result<Option<Page>, StoreError> {
        let next = after.next();
        let manifest = self.manifests.iter().find(|one| one.from <= next && next <= one.to);
        let Some(manifest) = manifest else { return Ok(None) };
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let events = match &*open {
            Some((from, events)) if *from == manifest.from => Arc::clone(events),
            _ => {
                let events = Arc::new(read(&self.directory, manifest).map_err(|error| {
                    StoreError::Corrupt {
                        store: self.directory.display().to_string(),
                        detail: error.to_string(),
                    }
                })?);
                *open = Some((manifest.from, Arc::clone(&events)));
                events
            }
        };
        let begin = usize::try_from(next.get() - manifest.from.get()).unwrap_or(usize::MAX);
        let part = events.get(begin..).unwrap_or_default();
        Ok(Some(part[..part.len().min(limit.min(MAX_PAGE))].to_vec()))
    }
}

type Page = Vec<RecordedEvent>;

impl EventStore for ArchivedStore {
    fn append_batch(
        &self,
        batch: Arc<[Append]>,
    ) -> BoxFuture<'_, Result<Vec<AppendOutcome>, StoreError>> {
        self.store.append_batch(batch)
    }

    fn read_stream<'a>(
        &'a self,
        stream: &'a StreamId,
        after: Version,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<RecordedEvent>, StoreError>> {
        self.store.read_stream(stream, after, limit)
    }

    fn read_all(
        &self,
        after: Position,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<RecordedEvent>, StoreError>> {
        async move {
            match self.archived(after, limit)? {
                Some(page) => Ok(page),
                None => self.store.read_all(after, limit).await,
            }
        }
        .boxed()
    }

    fn head(&self) -> BoxFuture<'_, Result<Position, StoreError>> {
        self.store.head()
    }

    fn stream_version<'a>(
        &'a self,
        stream: &'a StreamId,
    ) -> BoxFuture<'a, Result<Version, StoreError>> {
        self.store.stream_version(stream)
    }

    fn read_stream_backward<'a>(
        &'a self,
        stream: &'a StreamId,
        before: Version,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<RecordedEvent>, StoreError>> {
        self.store.read_stream_backward(stream, before, limit)
    }

    fn read_matching<'a>(
        &'a self,
        filter: &'a EventFilter,
        after: Position,
        limit: usize,
    ) -> BoxFuture<'a, Result<MatchingPage, StoreError>> {
        async move {
            let Some(mut events) = self.archived(after, limit)? else {
                return self.store.read_matching(filter, after, limit).await;
            };
            let scanned_to = events.last().map_or(after, |event| event.position);
            events.retain(|event| filter.accepts(&event.stream, &event.event_type));
            Ok(MatchingPage { events, scanned_to })
        }
        .boxed()
    }

    fn answer(&self, key: IdempotencyKey) -> BoxFuture<'_, Result<Option<Appended>, StoreError>> {
        self.store.answer(key)
    }

    fn event_types(&self) -> BoxFuture<'_, Result<Vec<RecordedType>, StoreError>> {
        self.store.event_types()
    }

    fn position_at(&self, time: Timestamp) -> BoxFuture<'_, Result<Position, StoreError>> {
        self.store.position_at(time)
    }

    fn changed(&self, after: Position) -> BoxFuture<'_, Result<Position, StoreError>> {
        self.store.changed(after)
    }

    fn store_id(&self) -> Uuid {
        self.store.store_id()
    }
}
