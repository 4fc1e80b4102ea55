//! Pages out of archived files: by position, and by stream.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use uuid::Uuid;

use super::index::{ENTRY, Entry, Probe, entries};
use super::{ArchiveError, Cold, Manifest, SharedCold, block, damaged, manifests};
use crate::event::{Position, RecordedEvent, StreamId, Version};
use crate::guarded::blocking;
use crate::store::{EventFilter, MAX_PAGE, MAX_PAGE_BYTES, MAX_SCAN, MatchingPage};

/// Payload of the blocks that are kept decoded; the last one is kept whatever it has.
const KEPT_BYTES: usize = 32 << 20;

/// The bytes of an index that are read at once.
const INDEX_PART: usize = ENTRY * 1_024;

/// Indexes that are kept, without what they say of streams: 64 bytes a block.
const KEPT_INDEXES: usize = 8;

/// The archived ranges of one log.
#[derive(Debug)]
pub struct Archives {
    cold: SharedCold,
    store_id: Uuid,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    manifests: Arc<Vec<Manifest>>,
    indexes: VecDeque<(Position, Arc<Vec<Entry>>)>,
    blocks: VecDeque<(Position, Arc<Vec<RecordedEvent>>)>,
    bytes: usize,
}

type Block = Arc<Vec<RecordedEvent>>;

impl Archives {
    /// The archives at a place. Nothing is read yet.
    #[must_use]
    pub fn new(cold: SharedCold, store_id: Uuid) -> Self {
        Self { cold, store_id, kept: Mutex::default() }
    }

    /// Where they are.
    #[must_use]
    pub fn cold(&self) -> &SharedCold {
        &self.cold
    }

    /// Never held over anything that waits.
    fn kept<T>(&self, with: impl FnOnce(&mut Kept) -> T) -> T {
        with(&mut self.kept.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The manifests of this log, read again.
    ///
    /// # Errors
    /// The place cannot be read, or holds another log.
    ///
    /// # Cancel safety
    /// Dropping the call loses nothing.
    pub async fn reload(&self) -> Result<Arc<Vec<Manifest>>, ArchiveError> {
        let found = manifests(&*self.cold).await?;
        if let Some(other) = found.iter().find(|one| one.store_id != self.store_id) {
            return Err(ArchiveError::OtherLog {
                place: self.cold.place(),
                found: other.store_id,
                expected: self.store_id,
            });
        }
        let found = Arc::new(found);
        self.kept(|kept| kept.manifests = Arc::clone(&found));
        Ok(found)
    }

    /// The file that holds a position.
    async fn holding(&self, position: Position) -> Result<Option<Manifest>, ArchiveError> {
        let find = |all: &[Manifest]| all.iter().find(|one| one.holds(position)).cloned();
        match self.kept(|kept| find(&kept.manifests)) {
            Some(found) => Ok(Some(found)),
            // Another node may have archived it since.
            None => Ok(find(&self.reload().await?)),
        }
    }

    /// The events after a position, up to where the files end; `None` if the next one is not in a
    /// file.
    ///
    /// # Errors
    /// A file cannot be read, or is damaged.
    ///
    /// # Cancel safety
    /// Dropping the call loses nothing.
    pub async fn page(
        &self,
        after: Position,
        limit: usize,
    ) -> Result<Option<Vec<RecordedEvent>>, ArchiveError> {
        let (mut page, mut at) = (Page::new(limit), after);
        loop {
            let Some(block) = self.block_with(at.next()).await? else {
                return Ok((at > after).then_some(page.events));
            };
            let begin = block.partition_point(|event| event.position <= at);
            if page.take(&block[begin..]) {
                return Ok(Some(page.events));
            }
            match block.last() {
                Some(last) if last.position > at => at = last.position,
                // The number after the last that there is.
                _ => return Ok(Some(page.events)),
            }
        }
    }

    /// The events after a position that a filter lets through; `None` if the next one is not in a
    /// file. It ends where the files end.
    ///
    /// # Errors
    /// A file cannot be read, or is damaged.
    ///
    /// # Cancel safety
    /// Dropping the call loses nothing.
    pub async fn matching(
        &self,
        filter: &EventFilter,
        after: Position,
        limit: usize,
    ) -> Result<Option<MatchingPage>, ArchiveError> {
        let (limit, end) = (limit.min(MAX_PAGE), after.plus(MAX_SCAN));
        let mut page = MatchingPage { events: Vec::new(), scanned_to: after };
        let mut bytes = 0;
        while page.scanned_to < end && bytes < MAX_PAGE_BYTES {
            let Some(block) = self.block_with(page.scanned_to.next()).await? else {
                let nothing = page.scanned_to == after;
                return Ok((!nothing).then_some(page));
            };
            let begin = block.partition_point(|event| event.position <= page.scanned_to);
            for event in &block[begin..] {
                if page.events.len() == limit {
                    return Ok(Some(page));
                }
                page.scanned_to = event.position;
                if filter.accepts(&event.stream, &event.event_type) {
                    bytes += event.size();
                    page.events.push(event.clone());
                }
            }
        }
        Ok(Some(page))
    }

    /// The block that holds a position.
    async fn block_with(&self, position: Position) -> Result<Option<Block>, ArchiveError> {
        let holds = |block: &Block| {
            let (first, last) = (block.first(), block.last());
            first.is_some_and(|first| first.position <= position)
                && last.is_some_and(|last| position <= last.position)
        };
        let find = |kept: &mut Kept| {
            kept.blocks.iter().map(|(_, block)| block).find(|block| holds(block)).cloned()
        };
        if let Some(block) = self.kept(find) {
            return Ok(Some(block));
        }
        let Some(manifest) = self.holding(position).await? else { return Ok(None) };
        let index = self.index(&manifest).await?;
        let at = index.partition_point(|entry| entry.to() < position);
        let entry = index.get(at).filter(|entry| entry.from <= position);
        let entry = entry.ok_or_else(|| {
            damaged(&*self.cold, &manifest.file, format!("no block of it holds {position}"))
        })?;
        self.block(&manifest, *entry).await.map(Some)
    }

    async fn block(&self, manifest: &Manifest, entry: Entry) -> Result<Block, ArchiveError> {
        let find = |kept: &mut Kept| {
            kept.blocks.iter().find(|(from, _)| *from == entry.from).map(|(_, one)| one.clone())
        };
        if let Some(block) = self.kept(find) {
            return Ok(block);
        }
        let block = Arc::new(load(&*self.cold, manifest, entry).await?);
        let size = |block: &Block| block.iter().map(RecordedEvent::size).sum::<usize>();
        self.kept(|kept| {
            if kept.blocks.iter().any(|(from, _)| *from == entry.from) {
                return;
            }
            kept.bytes += size(&block);
            kept.blocks.push_back((entry.from, Arc::clone(&block)));
            while kept.bytes > KEPT_BYTES && kept.blocks.len() > 1 {
                let old = kept.blocks.pop_front();
                kept.bytes -= old.map_or(0, |(_, old)| size(&old));
            }
        });
        Ok(block)
    }

    async fn index(&self, manifest: &Manifest) -> Result<Arc<Vec<Entry>>, ArchiveError> {
        let find = |kept: &mut Kept| {
            kept.indexes.iter().find(|(from, _)| *from == manifest.from).map(|(_, one)| one.clone())
        };
        if let Some(index) = self.kept(find) {
            return Ok(index);
        }
        let (mut all, mut offset) = (Vec::new(), Some(0));
        while let Some(at) = offset {
            let (part, next) = part_of_index(&*self.cold, manifest, at, None).await?;
            all.extend(part.into_iter().map(|(entry, _)| entry));
            offset = next;
        }
        let index = Arc::new(all);
        self.kept(|kept| {
            kept.indexes.retain(|(from, _)| *from != manifest.from);
            kept.indexes.push_back((manifest.from, Arc::clone(&index)));
            if kept.indexes.len() > KEPT_INDEXES {
                kept.indexes.pop_front();
            }
        });
        Ok(index)
    }

    /// The archived events of a stream after a version, oldest first. `within` are the positions
    /// that it may have.
    ///
    /// # Errors
    /// A file cannot be read, or is damaged.
    ///
    /// # Cancel safety
    /// Dropping the call loses nothing.
    pub async fn stream(
        &self,
        stream: &StreamId,
        after: Version,
        within: (Position, Position),
        limit: usize,
    ) -> Result<Vec<RecordedEvent>, ArchiveError> {
        let mut page = Page::new(limit);
        for manifest in self.overlapping(within).await? {
            let mut offset = Some(0);
            while let Some(at) = offset {
                let (blocks, next) = self.blocks_of(&manifest, stream, at, within).await?;
                for entry in blocks {
                    let block = self.block(&manifest, entry).await?;
                    let of = block.iter().filter(|one| one.stream == *stream);
                    if page.take(of.filter(|one| one.version > after)) {
                        return Ok(page.events);
                    }
                }
                offset = next;
            }
        }
        Ok(page.events)
    }

    /// The archived events of a stream below a version, newest first.
    ///
    /// # Errors
    /// A file cannot be read, or is damaged.
    ///
    /// # Cancel safety
    /// Dropping the call loses nothing.
    pub async fn stream_backward(
        &self,
        stream: &StreamId,
        before: Version,
        within: (Position, Position),
        limit: usize,
    ) -> Result<Vec<RecordedEvent>, ArchiveError> {
        let mut page = Page::new(limit);
        for manifest in self.overlapping(within).await?.into_iter().rev() {
            let (mut blocks, mut offset) = (Vec::new(), Some(0));
            while let Some(at) = offset {
                let (part, next) = self.blocks_of(&manifest, stream, at, within).await?;
                blocks.extend(part);
                offset = next;
            }
            for entry in blocks.into_iter().rev() {
                let block = self.block(&manifest, entry).await?;
                let of = block.iter().rev().filter(|one| one.stream == *stream);
                if page.take(of.filter(|one| one.version < before)) {
                    return Ok(page.events);
                }
            }
        }
        Ok(page.events)
    }

    async fn overlapping(
        &self,
        (from, to): (Position, Position),
    ) -> Result<Vec<Manifest>, ArchiveError> {
        let mut all = self.kept(|kept| Arc::clone(&kept.manifests));
        if all.last().is_none_or(|last| last.to < to) {
            all = self.reload().await?;
        }
        Ok(all.iter().filter(|one| one.from <= to && from <= one.to).cloned().collect())
    }

    /// The blocks in a part of an index that may hold a stream, and where the next part is.
    async fn blocks_of(
        &self,
        manifest: &Manifest,
        stream: &StreamId,
        offset: u64,
        (from, to): (Position, Position),
    ) -> Result<(Vec<Entry>, Option<u64>), ArchiveError> {
        let probe = Probe::of(stream);
        let (part, next) = part_of_index(&*self.cold, manifest, offset, Some(&probe)).await?;
        let inside =
            part.into_iter().filter(|(entry, may)| *may && entry.from <= to && from <= entry.to());
        Ok((inside.map(|(entry, _)| entry).collect(), next))
    }
}

/// The events of one file, block by block.
#[derive(Debug)]
pub struct RangeReader<'a> {
    cold: &'a dyn Cold,
    manifest: &'a Manifest,
    /// The last event that was given out.
    at: Position,
    blocks: std::vec::IntoIter<(Entry, bool)>,
    /// Where the next part of the index is.
    offset: Option<u64>,
}

impl<'a> RangeReader<'a> {
    /// Begins with the first event.
    #[must_use]
    pub fn new(cold: &'a dyn Cold, manifest: &'a Manifest) -> Self {
        let at = manifest.from.minus(1);
        Self { cold, manifest, at, blocks: Vec::new().into_iter(), offset: Some(0) }
    }

    /// The next block; `None` after the last event of the range.
    ///
    /// # Errors
    /// A file cannot be read, or does not hold the whole range without a hole.
    ///
    /// # Cancel safety
    /// Dropping the call loses nothing, or a block: begin again.
    pub async fn next(&mut self) -> Result<Option<Vec<RecordedEvent>>, ArchiveError> {
        let entry = loop {
            if let Some((entry, _)) = self.blocks.next() {
                break entry;
            }
            let Some(offset) = self.offset else {
                return match self.at == self.manifest.to {
                    true => Ok(None),
                    false => Err(self.damaged(format!("it ends with event {}", self.at))),
                };
            };
            let (part, next) = part_of_index(self.cold, self.manifest, offset, None).await?;
            (self.blocks, self.offset) = (part.into_iter(), next);
        };
        if entry.from != self.at.next() || entry.count == 0 {
            let detail = format!("its index goes on with {} after {}", entry.from, self.at);
            return Err(self.damaged(detail));
        }
        let events = load(self.cold, self.manifest, entry).await?;
        self.at = entry.to();
        Ok(Some(events))
    }

    fn damaged(&self, detail: String) -> ArchiveError {
        damaged(self.cold, &self.manifest.file, detail)
    }
}

/// A page that fills up, by the rules of the store's port.
pub(super) struct Page {
    pub(super) events: Vec<RecordedEvent>,
    bytes: usize,
    limit: usize,
}

impl Page {
    fn new(limit: usize) -> Self {
        Self { events: Vec::new(), bytes: 0, limit: limit.min(MAX_PAGE) }
    }

    /// One that has begun.
    pub(super) fn of(events: Vec<RecordedEvent>, limit: usize) -> Self {
        let bytes = events.iter().map(RecordedEvent::size).sum();
        Self { events, bytes, limit: limit.min(MAX_PAGE) }
    }

    /// How many more events it may take.
    pub(super) fn room(&self) -> usize {
        match self.bytes >= MAX_PAGE_BYTES {
            true => 0,
            false => self.limit.saturating_sub(self.events.len()),
        }
    }

    /// Takes what there is room for. Answers whether it is full.
    pub(super) fn take<'a>(&mut self, events: impl IntoIterator<Item = &'a RecordedEvent>) -> bool {
        for event in events {
            if self.room() == 0 {
                return true;
            }
            self.bytes += event.size();
            self.events.push(event.clone());
        }
        self.room() == 0
    }
}

/// A part of an index, and where the next one begins. Of each block whether it may hold a stream.
async fn part_of_index(
    cold: &dyn Cold,
    manifest: &Manifest,
    offset: u64,
    stream: Option<&Probe>,
) -> Result<(Vec<(Entry, bool)>, Option<u64>), ArchiveError> {
    let Some(index) = &manifest.index else {
        // Of the first version: one block that is the file.
        let entry = Entry {
            from: manifest.from,
            count: u32::try_from(manifest.events()).unwrap_or(u32::MAX),
            offset: 0,
            length: manifest.bytes,
            sha256: None,
        };
        return Ok((vec![(entry, true)], None));
    };
    let bytes = cold.read(&index.file, offset, INDEX_PART).await?;
    let next = offset + bytes.len() as u64;
    if bytes.len() < INDEX_PART && next != index.bytes {
        return Err(damaged(cold, &index.file, format!("it has {next} bytes")));
    }
    let found = entries(&bytes, stream).collect();
    Ok((found, (next < index.bytes && !bytes.is_empty()).then_some(next)))
}

/// The events of a block.
async fn load(
    cold: &dyn Cold,
    manifest: &Manifest,
    entry: Entry,
) -> Result<Vec<RecordedEvent>, ArchiveError> {
    let most = usize::try_from(entry.length).unwrap_or(usize::MAX);
    let bytes = cold.read(&manifest.file, entry.offset, most).await?;
    let decoded = blocking(move || block::decode(&bytes, &entry)).await;
    decoded.map_err(|detail| damaged(cold, &manifest.file, detail))
}
