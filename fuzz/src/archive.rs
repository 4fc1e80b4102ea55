//! Files of an archive: manifest, index, and blocks of events.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use flate2::write::GzEncoder;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use mister_smith::actors::event::{Position, StreamId, Version};
use mister_smith::actors::store::EventFilter;
use mister_smith::actors::store::archive::reader::Archives;
use mister_smith::actors::store::archive::writer::verify;
use mister_smith::actors::store::archive::{
    ArchiveError, Cold, ColdFile, IndexFile, Manifest, manifests,
};
use sha2::{Digest, Sha256};
use tokio::runtime::Runtime;
use uuid::Uuid;

use super::counted;

/// Files that are only read.
#[derive(Debug, Default)]
struct Shelf(BTreeMap<String, Bytes>);

fn missing(file: &str) -> ArchiveError {
    ArchiveError::File { file: file.to_owned(), source: std::io::ErrorKind::NotFound.into() }
}

impl Cold for Shelf {
    fn place(&self) -> String {
        "shelf".to_owned()
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<String>, ArchiveError>> {
        async { Ok(self.0.keys().cloned().collect()) }.boxed()
    }

    fn read<'a>(
        &'a self,
        file: &'a str,
        at: u64,
        most: usize,
    ) -> BoxFuture<'a, Result<Bytes, ArchiveError>> {
        async move {
            let bytes = self.0.get(file).ok_or_else(|| missing(file))?;
            let begin = usize::try_from(at).unwrap_or(usize::MAX).min(bytes.len());
            Ok(bytes.slice(begin..begin.saturating_add(most).min(bytes.len())))
        }
        .boxed()
    }

    fn create<'a>(
        &'a self,
        file: &'a str,
    ) -> BoxFuture<'a, Result<Box<dyn ColdFile>, ArchiveError>> {
        async move { Err(missing(file)) }.boxed()
    }
}

/// A runtime that lives as long as the program.
fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    let build = || tokio::runtime::Builder::new_current_thread().build().expect("it starts");
    RUNTIME.get_or_init(build)
}

/// Bytes that a fuzzer cannot find: compressed, with the right checksum.
fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).expect("memory takes it");
    encoder.finish().expect("memory takes it")
}

/// A manifest as text or as numbers, an index, and events in frames, read in every way.
pub fn archive(mut data: &[u8]) {
    let Some((first, rest)) = data.split_first() else { return };
    data = rest;
    let (text, numbers) = (counted(&mut data), counted(&mut data));
    let has = |bit: u8| first & bit != 0;
    let mut shelf = Shelf::default();
    let events = if has(1) { data.to_vec() } else { gzip(data) };
    let number = |at: usize| {
        let bytes = numbers.get(at..at + 8).and_then(|bytes| bytes.try_into().ok());
        bytes.map_or(at as u64, u64::from_be_bytes)
    };
    let mut index = numbers.get(32..).unwrap_or_default().to_vec();
    if has(2) && index.len() >= 64 {
        index[32..64].copy_from_slice(&Sha256::digest(&events));
    }
    let manifest = Manifest {
        store_id: Uuid::nil(),
        from: Position::new(number(0)),
        to: Position::new(number(8)),
        file: "events".to_owned(),
        sha256: Sha256::digest(&events).iter().map(|byte| format!("{byte:02x}")).collect(),
        bytes: if has(4) { number(16) } else { events.len() as u64 },
        index: has(8).then(|| IndexFile {
            file: "index".to_owned(),
            sha256: Sha256::digest(&index).iter().map(|byte| format!("{byte:02x}")).collect(),
            bytes: index.len() as u64,
        }),
    };
    let manifest = match has(16) {
        true => text.to_vec(),
        false => serde_json::to_vec(&manifest).expect("it is written"),
    };
    shelf.0.insert("one.manifest.json".to_owned(), manifest.into());
    shelf.0.insert("events".to_owned(), events.into());
    shelf.0.insert("index".to_owned(), index.into());
    runtime().block_on(read(Arc::new(shelf), Position::new(number(24))));
}

async fn read(shelf: Arc<Shelf>, after: Position) {
    for manifest in manifests(&*shelf).await.unwrap_or_default() {
        let _ = manifest.events();
        let _ = verify(&*shelf, &manifest).await;
    }
    let archives = Archives::new(shelf, Uuid::nil());
    if archives.reload().await.is_err() {
        return;
    }
    let stream = StreamId::new("order-1").expect("it is a name");
    let all = (Position::ZERO, Position::new(u64::MAX));
    for after in [Position::ZERO, after] {
        let _ = archives.page(after, 100).await;
        let _ = archives.matching(&EventFilter::ALL, after, 100).await;
    }
    let _ = archives.stream(&stream, Version::ZERO, all, 100).await;
    let _ = archives.stream_backward(&stream, Version::new(u64::MAX), all, 100).await;
}
