//! The documents that a partition keeps decoded, and what a page changes of them.

use std::sync::Arc;

use bytes::Bytes;
use indexmap::IndexMap;
use serde::{Serialize, de::DeserializeOwned};

use crate::event::Position;
use crate::guarded::guarded;
use crate::store::read_model::documents::{Changed, Document, MAX_DOCUMENT};

/// Documents that a partition keeps decoded.
const REMEMBERED: usize = 20_000;

/// Bytes of their JSON, together; decoded they are mostly of that order.
const REMEMBERED_BYTES: usize = 64 * 1024 * 1024;

/// How deep JSON may be nested so that it can be read again
/// (`serde_json` stops at 128, <https://docs.rs/serde_json/1/serde_json/struct.Deserializer.html>).
const MAX_DEPTH: u32 = 127;

/// See the [module](self).
pub(super) struct Kept<D> {
    slots: IndexMap<Arc<str>, Slot<D>>,
    /// Slots that the page has changed, in order.
    changed: Vec<usize>,
    bytes: usize,
    /// Every document of the build is here: one that is not is none.
    complete: bool,
}

struct Slot<D> {
    /// The document, or why it cannot be read.
    document: Result<Option<D>, String>,
    /// The last event that changed it in this page.
    at: Option<Position>,
    /// Of its JSON.
    bytes: usize,
}

impl<D> Kept<D> {
    /// Of a build that is empty so far, or not.
    pub(super) fn new(empty: bool) -> Self {
        Self { slots: IndexMap::new(), changed: Vec::new(), bytes: 0, complete: empty }
    }

    /// The place of a document, if it is here.
    pub(super) fn find(&mut self, id: &str) -> Option<usize> {
        match self.slots.get_index_of(id) {
            Some(slot) => Some(slot),
            None if self.complete => Some(self.put(id.into(), Ok(None), 0)),
            None => None,
        }
    }

    fn put(&mut self, id: Arc<str>, document: Result<Option<D>, String>, bytes: usize) -> usize {
        self.bytes += bytes;
        self.slots.insert_full(id, Slot { document, at: None, bytes }).0
    }

    /// The documents that were wanted, and those of them that were found.
    pub(super) fn loaded(&mut self, wanted: &[Arc<str>], found: Vec<Document>)
    where
        D: DeserializeOwned,
    {
        for document in found {
            let read = decode(&document.data).map(Some);
            self.put(document.id, read, document.data.len());
        }
        for id in wanted {
            if !self.slots.contains_key(id) {
                self.put(Arc::clone(id), Ok(None), 0);
            }
        }
    }

    pub(super) fn id(&self, slot: usize) -> &Arc<str> {
        self.slots.get_index(slot).expect("slots are only removed all at once").0
    }

    fn slot(&mut self, slot: usize) -> &mut Slot<D> {
        &mut self.slots[slot]
    }

    /// Takes a document out, to be changed. After an error the page has to be given up.
    pub(super) fn take(&mut self, slot: usize) -> Result<Option<D>, String> {
        match &mut self.slot(slot).document {
            Ok(document) => Ok(document.take()),
            Err(reason) => Err(reason.clone()),
        }
    }

    /// Puts it back, as an event has left it.
    pub(super) fn change(&mut self, slot: usize, document: Option<D>, at: Position) {
        let place = self.slot(slot);
        // What was here was taken out: nothing is dropped.
        place.document = Ok(document);
        if place.at.replace(at).is_none() {
            self.changed.push(slot);
        }
    }

    /// Takes a change back that cannot be written: its document stands still from now on.
    pub(super) fn unchange(&mut self, slot: usize) {
        self.changed.retain(|changed| *changed != slot);
        let place = self.slot(slot);
        place.at = None;
        let document = std::mem::replace(&mut place.document, Err("it is parked".to_owned()));
        dropped(document);
    }

    /// What is to be written; or which document cannot be, and why.
    pub(super) fn changes(&mut self) -> Result<Vec<Changed>, (usize, String)>
    where
        D: Serialize,
    {
        let mut changes = Vec::with_capacity(self.changed.len());
        for &slot in &self.changed {
            let (id, place) = self.slots.get_index_mut(slot).expect("it was changed");
            let data = match &place.document {
                Ok(Some(document)) => Some(encode(document).map_err(|reason| (slot, reason))?),
                _ => None,
            };
            let bytes = data.as_ref().map_or(0, Bytes::len);
            self.bytes = (self.bytes + bytes).saturating_sub(place.bytes);
            place.bytes = bytes;
            changes.push((Arc::clone(id), data, place.at.unwrap_or_default()));
        }
        Ok(changes)
    }

    /// The page was written.
    pub(super) fn written(&mut self) {
        for slot in std::mem::take(&mut self.changed) {
            self.slot(slot).at = None;
        }
        if self.slots.len() > REMEMBERED || self.bytes > REMEMBERED_BYTES {
            self.clear();
        }
    }

    /// Forgets everything: what is here may not be what the database has.
    pub(super) fn clear(&mut self) {
        self.complete = false;
        self.bytes = 0;
        self.changed.clear();
        dropped(std::mem::take(&mut self.slots));
    }
}

/// Drops documents: a panic of one is not the end of the actor.
fn dropped<T>(documents: T) {
    if let Err(panic) = guarded(move || drop(documents)) {
        tracing::warn!(panic, "a document of a projection panicked when it was dropped");
    }
}

impl<D> Drop for Kept<D> {
    fn drop(&mut self) {
        self.clear();
    }
}

/// A document as JSON.
pub(super) fn encode<D: Serialize>(document: &D) -> Result<Bytes, String> {
    let written = guarded(|| serde_json::to_vec(document))?;
    let data = written.map_err(|error| format!("the document cannot be written: {error}"))?;
    if data.len() > MAX_DOCUMENT {
        let size = data.len();
        return Err(format!("the document has {size} bytes, {MAX_DOCUMENT} at most"));
    }
    if depth(&data) > MAX_DEPTH {
        return Err(format!("the document is nested more than {MAX_DEPTH} deep"));
    }
    Ok(data.into())
}

/// A document of JSON.
pub(super) fn decode<D: DeserializeOwned>(data: &[u8]) -> Result<D, String> {
    guarded(|| serde_json::from_slice(data))?
        .map_err(|error| format!("the document cannot be read: {error}"))
}

/// How deep JSON is nested.
fn depth(json: &[u8]) -> u32 {
    // Too short to be that deep.
    if json.len() <= 2 * MAX_DEPTH as usize {
        return 0;
    }
    let (mut depth, mut most, mut in_text, mut escaped) = (0_u32, 0, false, false);
    for byte in json {
        match (in_text, byte) {
            (true, _) if escaped => escaped = false,
            (true, b'\\') => escaped = true,
            (true, b'"') => in_text = false,
            (true, _) => {}
            (false, b'"') => in_text = true,
            (false, b'{' | b'[') => {
                depth += 1;
                most = most.max(depth);
            }
            (false, b'}' | b']') => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    most
}
