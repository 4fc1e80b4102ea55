//! A range of the log, written and found right.
//!
//! Never more than a block of events is in memory, on the way out or on the way back.

use bytes::Bytes;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::block::Block;
use super::reader::RangeReader;
use super::{ArchiveError, Cold, ColdFile, IndexFile, MANIFEST, Manifest, damaged, manifest};
use crate::event::{Position, RecordedEvent};
use crate::guarded::blocking;

/// Bytes that are read at once to check a file.
const CHECK: usize = 1 << 20;

/// Writes one range: [`push`](Self::push) its events in order, then [`finish`](Self::finish).
///
/// Dropped before it is finished it leaves at most files without a manifest, which the next one
/// replaces.
#[derive(Debug)]
pub struct RangeWriter<'a> {
    cold: &'a dyn Cold,
    stem: String,
    store_id: Uuid,
    from: Position,
    to: Position,
    /// The last event that was pushed.
    at: Position,
    block: Block,
    data: Out,
    index: Out,
}

/// A file, with what its manifest will say.
#[derive(Debug)]
struct Out {
    name: String,
    file: Box<dyn ColdFile>,
    hash: Sha256,
    bytes: u64,
}

impl Out {
    async fn create(cold: &dyn Cold, name: String) -> Result<Self, ArchiveError> {
        let file = cold.create(&name).await?;
        Ok(Self { name, file, hash: Sha256::new(), bytes: 0 })
    }

    async fn write(&mut self, bytes: Bytes) -> Result<(), ArchiveError> {
        self.hash.update(&bytes);
        self.bytes += bytes.len() as u64;
        self.file.write(bytes).await
    }

    async fn keep(self) -> Result<IndexFile, ArchiveError> {
        self.file.keep().await?;
        let sha256 = hexadecimal(&self.hash.finalize());
        Ok(IndexFile { file: self.name, sha256, bytes: self.bytes })
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What the files of a range are called, without their ends.
fn stem(from: Position, to: Position) -> String {
    format!("events_{:016}_{:016}.msgpack", from.get(), to.get())
}

impl<'a> RangeWriter<'a> {
    /// Begins the files of a range.
    ///
    /// # Errors
    /// They cannot be made.
    ///
    /// # Cancel safety
    /// A dropped call leaves nothing.
    pub async fn begin(
        cold: &'a dyn Cold,
        store_id: Uuid,
        from: Position,
        to: Position,
    ) -> Result<Self, ArchiveError> {
        let stem = stem(from, to);
        let data = Out::create(cold, format!("{stem}.gz")).await?;
        let index = Out::create(cold, format!("{stem}.index")).await?;
        let (at, block) = (from.minus(1), Block::default());
        Ok(Self { cold, stem, store_id, from, to, at, block, data, index })
    }

    /// The last event that was pushed, or the position before the first.
    #[must_use]
    pub const fn position(&self) -> Position {
        self.at
    }

    /// Writes the next event.
    ///
    /// # Errors
    /// It is not the next one of the range, or the file cannot be written.
    ///
    /// # Cancel safety
    /// After a dropped call the writer is of no use.
    pub async fn push(&mut self, event: RecordedEvent) -> Result<(), ArchiveError> {
        if event.position != self.at.next() || event.position > self.to {
            let detail = format!("the log goes on with {} after {}", event.position, self.at);
            return Err(damaged(self.cold, &self.data.name, detail));
        }
        self.at = event.position;
        self.block.push(event);
        match self.block.is_full() {
            true => self.flush().await,
            false => Ok(()),
        }
    }

    async fn flush(&mut self) -> Result<(), ArchiveError> {
        if self.block.is_empty() {
            return Ok(());
        }
        let (block, offset) = (std::mem::take(&mut self.block), self.data.bytes);
        let encoded = blocking(move || block.encode(offset)).await;
        let (bytes, entry, names) = encoded.map_err(|source| ArchiveError::File {
            file: format!("{}/{}", self.cold.place(), self.data.name),
            source,
        })?;
        self.data.write(bytes).await?;
        self.index.write(entry.bytes(&names).into()).await
    }

    /// Writes what is left, gives the files their names, reads them back, and writes the manifest.
    ///
    /// # Errors
    /// Events of the range are missing, or the files do not hold what was written.
    ///
    /// # Cancel safety
    /// A dropped call leaves at most files without a manifest.
    pub async fn finish(mut self) -> Result<Manifest, ArchiveError> {
        if self.at != self.to {
            let detail = format!("the log ends with {}, before {}", self.at, self.to);
            return Err(damaged(self.cold, &self.data.name, detail));
        }
        self.flush().await?;
        let data = self.data.keep().await?;
        let index = self.index.keep().await?;
        let written = Manifest {
            store_id: self.store_id,
            from: self.from,
            to: self.to,
            file: data.file,
            sha256: data.sha256,
            bytes: data.bytes,
            index: Some(index),
        };
        verify(self.cold, &written).await?;
        let name = format!("{}{MANIFEST}", self.stem);
        let text = serde_json::to_vec_pretty(&written)
            .map_err(|error| damaged(self.cold, &name, error.to_string()))?;
        let mut file = self.cold.create(&name).await?;
        file.write(text.into()).await?;
        file.keep().await?;
        Ok(written)
    }
}

/// The manifest of exactly this range, if it is there and its files hold what it says.
///
/// # Errors
/// The place cannot be read, or holds another log.
///
/// # Cancel safety
/// Dropping the call loses nothing.
pub async fn found(
    cold: &dyn Cold,
    store_id: Uuid,
    from: Position,
    to: Position,
) -> Result<Option<Manifest>, ArchiveError> {
    let name = format!("{}{MANIFEST}", stem(from, to));
    if !cold.list().await?.contains(&name) {
        return Ok(None);
    }
    let found = match manifest(cold, &name).await {
        Ok(found) => found,
        // Written anew by the caller, who still has the events.
        Err(ArchiveError::Damaged { .. }) => return Ok(None),
        Err(error) => return Err(error),
    };
    if found.store_id != store_id {
        let place = cold.place();
        return Err(ArchiveError::OtherLog { place, found: found.store_id, expected: store_id });
    }
    match verify(cold, &found).await {
        Ok(()) if found.index.is_some() => Ok(Some(found)),
        Ok(()) | Err(ArchiveError::Damaged { .. } | ArchiveError::File { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Reads the files of a manifest to their ends: their checksums, and every event at its place.
///
/// # Errors
/// They are not what the manifest says.
///
/// # Cancel safety
/// Dropping the call loses nothing.
pub async fn verify(cold: &dyn Cold, manifest: &Manifest) -> Result<(), ArchiveError> {
    checked(cold, &manifest.file, &manifest.sha256, manifest.bytes).await?;
    if let Some(index) = &manifest.index {
        checked(cold, &index.file, &index.sha256, index.bytes).await?;
    }
    let mut events = RangeReader::new(cold, manifest);
    while events.next().await?.is_some() {}
    Ok(())
}

async fn checked(
    cold: &dyn Cold,
    file: &str,
    sha256: &str,
    bytes: u64,
) -> Result<(), ArchiveError> {
    let (mut hash, mut at) = (Sha256::new(), 0);
    loop {
        let part = cold.read(file, at, CHECK).await?;
        at += part.len() as u64;
        // A MiB of it takes a millisecond.
        hash.update(&part);
        if part.len() < CHECK {
            break;
        }
        tokio::task::yield_now().await;
    }
    let found = hexadecimal(&hash.finalize());
    if at != bytes || found != sha256 {
        let detail = format!("its SHA-256 is {found} of {at} bytes, not {sha256} of {bytes}");
        return Err(damaged(cold, file, detail));
    }
    Ok(())
}
