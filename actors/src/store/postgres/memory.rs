//! What a writer remembers of the log, so that an append need not look.
//!
//! It is right for the log as it is at [`Memory::head`]. An append that is written by it takes the
//! position behind that head, and is refused by the key of the position if somebody was faster: so
//! nothing that is remembered can be too old without the writer hearing of it.

use indexmap::IndexMap;

use crate::{
    event::{Position, StreamId, Version},
    store::plan::StreamState,
};

/// Streams that are remembered; beyond it, it starts over.
const MAX_STREAMS: usize = 100_000;

/// Streams and the end of the log.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// The end of the log.
    pub(super) head: Position,
    /// Something was not as it is remembered: nothing is written before the next look.
    pub(super) stale: bool,
    streams: IndexMap<StreamId, Remembered>,
    /// Where a stream is in `streams`, by its number.
    by_number: IndexMap<i64, usize>,
}

/// A stream: its number and how it stands.
#[derive(Debug, Clone, Copy)]
pub(super) struct Remembered {
    pub(super) number: i64,
    pub(super) state: StreamState,
}

impl Memory {
    pub(super) fn get(&self, name: &StreamId) -> Option<Remembered> {
        self.streams.get(name).copied()
    }

    /// Remembers a stream; answers whether all others had to be forgotten for it.
    pub(super) fn put(&mut self, name: StreamId, stream: Remembered) -> bool {
        let full = self.streams.len() >= MAX_STREAMS;
        if full {
            self.forget();
        }
        let (at, _) = self.streams.insert_full(name, stream);
        self.by_number.insert(stream.number, at);
        full
    }

    /// A stream that others have appended to, if it is remembered.
    pub(super) fn moved(&mut self, number: i64, version: Version, deleted: bool) {
        let place = self.by_number.get(&number);
        if let Some((_, stream)) = place.and_then(|at| self.streams.get_index_mut(*at)) {
            stream.state = StreamState { version, deleted };
        }
    }

    pub(super) fn forget(&mut self) {
        self.streams.clear();
        self.by_number.clear();
    }
}

#[cfg(test)]
mod tests;
