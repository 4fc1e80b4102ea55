//! Files in memory: what is written is read, in the memory of a block; what is damaged is refused.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use uuid::Uuid;

use super::block::{BLOCK_BYTES, BLOCK_EVENTS};
use super::reader::{Archives, RangeReader};
use super::writer::{RangeWriter, found, verify};
use super::{ArchiveError, ArchivedStore, Cold, ColdFile, MANIFEST, Manifest, manifests};
use crate::event::{Position, RecordedEvent, StreamId, Timestamp, Version};
use crate::store::forward::forward;
use crate::store::memory::MemoryStore;
use crate::store::{
    Append, AppendOutcome, EventFilter, EventStore, MAX_SCAN, MatchingPage, StoreError, conformance,
};

type Files = Arc<Mutex<BTreeMap<String, Bytes>>>;

/// Files in memory, and the most bytes that went in or out at once.
#[derive(Debug, Default)]
struct Shelf {
    files: Files,
    largest: Arc<Mutex<usize>>,
}

impl Shelf {
    fn passed(&self, bytes: usize) {
        let mut largest = self.largest.lock().unwrap();
        *largest = bytes.max(*largest);
    }

    fn change(&self, file: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let mut files = self.files.lock().unwrap();
        let mut bytes = files[file].to_vec();
        change(&mut bytes);
        files.insert(file.to_owned(), bytes.into());
    }
}

impl Cold for Shelf {
    fn place(&self) -> String {
        "shelf".to_owned()
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<String>, ArchiveError>> {
        async { Ok(self.files.lock().unwrap().keys().cloned().collect()) }.boxed()
    }

    fn read<'a>(
        &'a self,
        file: &'a str,
        at: u64,
        most: usize,
    ) -> BoxFuture<'a, Result<Bytes, ArchiveError>> {
        async move {
            let found = self.files.lock().unwrap().get(file).cloned();
            let Some(bytes) = found else {
                let source = std::io::Error::from(std::io::ErrorKind::NotFound);
                return Err(ArchiveError::File { file: file.to_owned(), source });
            };
            let begin = (at as usize).min(bytes.len());
            let part = bytes.slice(begin..bytes.len().min(begin.saturating_add(most)));
            self.passed(part.len());
            Ok(part)
        }
        .boxed()
    }

    fn create<'a>(
        &'a self,
        file: &'a str,
    ) -> BoxFuture<'a, Result<Box<dyn ColdFile>, ArchiveError>> {
        let made = Made {
            name: file.to_owned(),
            bytes: BytesMut::new(),
            files: Arc::clone(&self.files),
            largest: Arc::clone(&self.largest),
        };
        async move { Ok(Box::new(made) as Box<dyn ColdFile>) }.boxed()
    }
}

#[derive(Debug)]
struct Made {
    name: String,
    bytes: BytesMut,
    files: Files,
    largest: Arc<Mutex<usize>>,
}

impl ColdFile for Made {
    fn write(&mut self, bytes: Bytes) -> BoxFuture<'_, Result<(), ArchiveError>> {
        let mut largest = self.largest.lock().unwrap();
        *largest = bytes.len().max(*largest);
        self.bytes.extend_from_slice(&bytes);
        async { Ok(()) }.boxed()
    }

    fn keep(self: Box<Self>) -> BoxFuture<'static, Result<(), ArchiveError>> {
        async move {
            self.files.lock().unwrap().insert(self.name, self.bytes.freeze());
            Ok(())
        }
        .boxed()
    }
}

const LOG: Uuid = Uuid::from_u128(7);

/// An event of one of `streams` streams in turn; payloads that do not compress have `bytes`.
fn event(position: u64, streams: u64, bytes: usize) -> RecordedEvent {
    let new = conformance::event(position);
    let mut state = position;
    let mut data = Vec::with_capacity(bytes);
    while data.len() < bytes {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        data.extend_from_slice(&state.to_be_bytes());
    }
    RecordedEvent {
        position: Position::new(position),
        stream: StreamId::new(format!("s-{}", position % streams)).unwrap(),
        version: Version::new((position - 1) / streams + 1),
        id: new.id,
        event_type: new.event_type,
        schema_version: new.schema_version,
        codec: new.codec,
        data: data.into(),
        meta: new.meta,
        recorded_at: Timestamp::from_micros(position as i64),
    }
}

async fn write(shelf: &Shelf, range: std::ops::RangeInclusive<u64>, streams: u64) -> Manifest {
    let (from, to) = (Position::new(*range.start()), Position::new(*range.end()));
    let mut writer = RangeWriter::begin(shelf, LOG, from, to).await.unwrap();
    for position in range {
        writer.push(event(position, streams, 20)).await.unwrap();
    }
    writer.finish().await.unwrap()
}

/// 20,000 events of 2 KB: 40 MB pass in pieces of a block, on the way out and on the way back.
#[tokio::test]
async fn a_range_is_written_and_checked_in_the_memory_of_a_block() {
    let shelf = Shelf::default();
    let (from, to) = (Position::new(1), Position::new(20_000));
    let mut writer = RangeWriter::begin(&shelf, LOG, from, to).await.unwrap();
    for position in 1..=20_000 {
        writer.push(event(position, 7, 2_000)).await.unwrap();
    }
    let manifest = writer.finish().await.unwrap();
    assert!(manifest.bytes > 30 << 20, "{} bytes do not compress", manifest.bytes);
    let mut blocks = RangeReader::new(&shelf, &manifest);
    let mut count = 0;
    while let Some(events) = blocks.next().await.unwrap() {
        assert!(events.len() <= BLOCK_EVENTS);
        assert!(events.iter().map(RecordedEvent::size).sum::<usize>() < BLOCK_BYTES + 3_000);
        count += events.len();
    }
    assert_eq!(count, 20_000);
    let largest = *shelf.largest.lock().unwrap();
    assert!(largest < 2 * BLOCK_BYTES, "{largest} bytes at once");
}

#[tokio::test]
async fn pages_are_the_events_as_they_were() {
    let shelf = Arc::new(Shelf::default());
    write(&shelf, 1..=2_500, 7).await;
    write(&shelf, 2_501..=4_000, 7).await;
    let all: Vec<_> = (1..=4_000).map(|position| event(position, 7, 20)).collect();
    let archives = Archives::new(shelf.clone(), LOG);
    let mut read = Vec::new();
    while let Some(page) = archives.page(Position::new(read.len() as u64), 300).await.unwrap() {
        read.extend(page);
    }
    assert_eq!(read, all);

    // Filtered: a type, and a category that nobody has, over the border of the files.
    for filter in [
        EventFilter::ALL.types(["opened"]),
        EventFilter::ALL.categories(["nobody"]),
        EventFilter::ALL,
    ] {
        let (mut read, mut at) = (Vec::new(), Position::ZERO);
        while let Some(page) = archives.matching(&filter, at, 90).await.unwrap() {
            assert!(page.events.len() <= 90 && page.scanned_to <= at.plus(MAX_SCAN + 1_000));
            assert!(page.scanned_to > at, "it gets on");
            at = page.scanned_to;
            read.extend(page.events);
        }
        let expected = all.iter().filter(|one| filter.accepts(&one.stream, &one.event_type));
        assert_eq!((read, at.get()), (expected.cloned().collect(), 4_000));
    }
    let none = archives.matching(&EventFilter::ALL, Position::ZERO, 0).await.unwrap().unwrap();
    assert_eq!((none.events.len(), none.scanned_to), (0, Position::ZERO));

    // One stream, both ways, from any version on.
    let stream = StreamId::new("s-3").unwrap();
    let own: Vec<_> = all.iter().filter(|one| one.stream == stream).cloned().collect();
    let within = (Position::new(3), Position::new(4_000));
    for after in [0, 1, 250, 570, 571] {
        let page = archives.stream(&stream, Version::new(after), within, 400).await.unwrap();
        let expected = own.iter().skip(after as usize).take(400).cloned().collect::<Vec<_>>();
        assert_eq!(page, expected, "after {after}");
        let back = archives.stream_backward(&stream, Version::new(after + 1), within, 400).await;
        let expected = own[..after as usize].iter().rev().take(400).cloned().collect::<Vec<_>>();
        assert_eq!(back.unwrap(), expected, "below {}", after + 1);
    }
}

/// 100,000 streams: a stream of three events opens a handful of blocks, not all hundred.
#[tokio::test]
async fn a_stream_is_found_without_opening_every_block() {
    let shelf = Arc::new(Shelf::default());
    let manifest = write(&shelf, 1..=100_000, 33_000).await;
    let archives = Archives::new(shelf.clone(), LOG);
    let within = (Position::ZERO, Position::new(100_000));
    let stream = StreamId::new("s-12345").unwrap();
    assert_eq!(archives.stream(&stream, Version::ZERO, within, 10).await.unwrap().len(), 3);
    // Blocks that are damaged now, and were kept or never opened before, do no harm.
    let kept = archives.stream(&stream, Version::ZERO, within, 10).await.unwrap();
    shelf.change(&manifest.file, |bytes| bytes.fill(0));
    assert_eq!(archives.stream(&stream, Version::ZERO, within, 10).await.unwrap(), kept);
    let opened = (0..100).map(|block| archives.page(Position::new(block * 1_000), 1));
    let opened = futures_util::future::join_all(opened).await;
    let opened = opened.iter().filter(|page| page.is_ok()).count();
    assert!((3..=15).contains(&opened), "{opened} of 100 blocks were opened");
}

/// Guards against a bit that is read as something else: every tenth byte of every file.
#[tokio::test]
async fn what_was_changed_is_refused() {
    let shelf = Shelf::default();
    let manifest = write(&shelf, 101..=160, 3).await;
    verify(&shelf, &manifest).await.unwrap();
    let index = manifest.index.clone().unwrap();
    for file in [&manifest.file, &index.file] {
        let length = shelf.files.lock().unwrap()[file].len();
        for at in (0..length).step_by(10) {
            shelf.change(file, |bytes| bytes[at] ^= 4);
            let error = verify(&shelf, &manifest).await.unwrap_err();
            assert!(matches!(error, ArchiveError::Damaged { .. }), "{file} {at}: {error}");
            assert_eq!(found(&shelf, LOG, manifest.from, manifest.to).await.unwrap(), None);
            shelf.change(file, |bytes| bytes[at] ^= 4);
        }
        shelf.change(file, |bytes| bytes.truncate(length - 1));
        verify(&shelf, &manifest).await.unwrap_err();
        shelf.change(file, |bytes| bytes.push(0));
    }
    write(&shelf, 101..=160, 3).await;
    let again = found(&shelf, LOG, manifest.from, manifest.to).await.unwrap();
    assert_eq!(again, Some(manifest.clone()), "the same events are the same files");
    let other = found(&shelf, Uuid::from_u128(8), manifest.from, manifest.to).await.unwrap_err();
    assert!(matches!(other, ArchiveError::OtherLog { .. }), "{other}");
}

/// Guards against a hole in the log that becomes a hole in a file, and a file that is half there.
#[tokio::test]
async fn a_range_is_whole_or_not_there() {
    let shelf = Shelf::default();
    let (from, to) = (Position::new(1), Position::new(10));
    let mut writer = RangeWriter::begin(&shelf, LOG, from, to).await.unwrap();
    writer.push(event(1, 3, 20)).await.unwrap();
    let error = writer.push(event(3, 3, 20)).await.unwrap_err();
    assert!(error.to_string().contains("goes on with 3 after 1"), "{error}");
    let error = writer.finish().await.unwrap_err();
    assert!(error.to_string().contains("ends with 1, before 10"), "{error}");
    assert_eq!(shelf.files.lock().unwrap().len(), 0);
}

/// Files of the first version had no index.
#[tokio::test]
async fn a_file_without_an_index_is_one_block() {
    let shelf = Arc::new(Shelf::default());
    let manifest = write(&shelf, 1..=1_500, 5).await;
    let old = Manifest { index: None, ..manifest.clone() };
    let name = format!("events_{:016}_{:016}.msgpack{MANIFEST}", 1, 1_500);
    assert!(shelf.files.lock().unwrap().remove(&manifest.index.unwrap().file).is_some());
    let text = serde_json::to_string(&old).unwrap();
    assert!(!text.contains("index"));
    shelf.change(&name, |bytes| *bytes = text.into_bytes());
    assert_eq!(manifests(&*shelf).await.unwrap(), std::slice::from_ref(&old));
    verify(&*shelf, &old).await.unwrap();
    let archives = Archives::new(shelf.clone(), LOG);
    let page = archives.page(Position::new(1_200), 5_000).await.unwrap().unwrap();
    assert_eq!(page, (1_201..=1_500).map(|n| event(n, 5, 20)).collect::<Vec<_>>());
    let within = (Position::ZERO, Position::new(1_500));
    let stream = StreamId::new("s-2").unwrap();
    assert_eq!(archives.stream(&stream, Version::ZERO, within, 5_000).await.unwrap().len(), 300);
    // It is written anew where the events are still at hand.
    assert_eq!(found(&*shelf, LOG, old.from, old.to).await.unwrap(), None);
}

/// A store in memory that archives every other batch as soon as it is written.
#[derive(Debug)]
struct Forgetful {
    store: MemoryStore,
    shelf: Arc<Shelf>,
    /// Everything up to here is archived, and how many batches there were.
    floor: tokio::sync::Mutex<(Position, u64)>,
}

impl Forgetful {
    fn archived(up_to: Position) -> StoreError {
        StoreError::Archived { store: "memory".to_owned(), up_to }
    }

    async fn append(&self, batch: Arc<[Append]>) -> Result<Vec<AppendOutcome>, StoreError> {
        let mut floor = self.floor.lock().await;
        let outcomes = self.store.append_batch(batch).await?;
        let head = self.store.head().await?;
        floor.1 += 1;
        if head > floor.0 && floor.1.is_multiple_of(2) {
            let id = self.store.store_id();
            let mut file =
                RangeWriter::begin(&*self.shelf, id, floor.0.next(), head).await.unwrap();
            while file.position() < head {
                for event in self.store.read_all(file.position(), 5_000).await? {
                    file.push(event).await.unwrap();
                }
            }
            file.finish().await.unwrap();
            floor.0 = head;
        }
        Ok(outcomes)
    }

    async fn live(
        &self,
        page: BoxFuture<'_, Result<Vec<RecordedEvent>, StoreError>>,
    ) -> Result<Vec<RecordedEvent>, StoreError> {
        let mut page = page.await?;
        let floor = self.floor.lock().await.0;
        match page.first() {
            Some(first) if first.position <= floor => Err(Self::archived(floor)),
            _ => {
                page.retain(|event| event.position > floor);
                Ok(page)
            }
        }
    }
}

impl EventStore for Forgetful {
    forward!(
        store: head, stream_version, answer, event_types, position_at, changed, store_id,
    );

    fn append_batch(
        &self,
        batch: Arc<[Append]>,
    ) -> BoxFuture<'_, Result<Vec<AppendOutcome>, StoreError>> {
        self.append(batch).boxed()
    }

    fn read_stream<'a>(
        &'a self,
        stream: &'a StreamId,
        after: Version,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<RecordedEvent>, StoreError>> {
        self.live(self.store.read_stream(stream, after, limit)).boxed()
    }

    fn read_all(
        &self,
        after: Position,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<RecordedEvent>, StoreError>> {
        self.live(self.store.read_all(after, limit)).boxed()
    }

    fn read_stream_backward<'a>(
        &'a self,
        stream: &'a StreamId,
        before: Version,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<RecordedEvent>, StoreError>> {
        self.live(self.store.read_stream_backward(stream, before, limit)).boxed()
    }

    fn read_matching<'a>(
        &'a self,
        filter: &'a EventFilter,
        after: Position,
        limit: usize,
    ) -> BoxFuture<'a, Result<MatchingPage, StoreError>> {
        async move {
            let floor = self.floor.lock().await.0;
            match after < floor {
                true => Err(Self::archived(floor)),
                false => self.store.read_matching(filter, after, limit).await,
            }
        }
        .boxed()
    }
}

/// A store that is in files for the most part cannot be told from one that is not.
#[tokio::test]
async fn every_law_of_stores_holds_over_files_and_database() {
    conformance::run(async || {
        let shelf = Arc::new(Shelf::default());
        let floor = tokio::sync::Mutex::new((Position::ZERO, 0));
        let store = Forgetful { store: MemoryStore::new(), shelf: Arc::clone(&shelf), floor };
        ArchivedStore::new(Arc::new(store), shelf)
    })
    .await;
}
