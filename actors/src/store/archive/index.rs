//! Which block of a file holds a position, and which may hold a stream.
//!
//! An index is entries of one size, a block each. Of the streams in a block it keeps a Bloom
//! filter (B. Bloom, 1970): 8 bits an event and five probes, so that a block without a stream is
//! opened in vain in about one case of 40, and a stream of a few events in a file of ten million
//! costs a read of 11 MB and a handful of blocks.

use sha2::{Digest, Sha256};

use super::block::BLOCK_EVENTS;
use crate::event::{Position, StreamId};

/// Bytes of a filter: a power of two.
const FILTER: usize = 1_024;

const _: () = assert!(FILTER * 8 >= BLOCK_EVENTS * 8 && FILTER.is_power_of_two());

const PROBES: u64 = 5;

/// Bytes of an entry without its filter.
const HEAD: usize = 64;

/// Bytes of an entry.
pub(super) const ENTRY: usize = HEAD + FILTER;

/// Where a block is, and what is in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    /// Its first event.
    pub(super) from: Position,
    /// How many events it has.
    pub(super) count: u32,
    /// Where it begins in the file.
    pub(super) offset: u64,
    /// Its bytes.
    pub(super) length: u64,
    /// Their checksum; a file without an index has one for the whole file.
    pub(super) sha256: Option<[u8; 32]>,
}

impl Entry {
    /// Its last event.
    pub(super) fn to(&self) -> Position {
        self.from.plus(u64::from(self.count)).minus(1)
    }

    pub(super) fn bytes(&self, names: &Names) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(ENTRY);
        bytes.extend_from_slice(&self.from.get().to_be_bytes());
        bytes.extend_from_slice(&self.count.to_be_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&self.offset.to_be_bytes());
        bytes.extend_from_slice(&self.length.to_be_bytes());
        bytes.extend_from_slice(&self.sha256.unwrap_or_default());
        bytes.extend_from_slice(&names.0);
        bytes
    }

    /// The entry of these [`ENTRY`] bytes.
    fn read(bytes: &[u8]) -> Option<Self> {
        let number = |at: usize| Some(u64::from_be_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
        let count = u32::from_be_bytes(bytes.get(8..12)?.try_into().ok()?);
        Some(Self {
            from: Position::new(number(0)?),
            count,
            offset: number(16)?,
            length: number(24)?,
            sha256: Some(bytes.get(32..HEAD)?.try_into().ok()?),
        })
    }
}

/// The entries in a part of an index, and whether each may hold a stream.
pub(super) fn entries<'a>(
    bytes: &'a [u8],
    stream: Option<&'a Probe>,
) -> impl Iterator<Item = (Entry, bool)> + 'a {
    bytes.chunks_exact(ENTRY).filter_map(move |bytes| {
        let may = stream.is_none_or(|probe| probe.is_in(&bytes[HEAD..]));
        Some((Entry::read(bytes)?, may))
    })
}

/// The streams of a block.
#[derive(Debug, Clone)]
pub(super) struct Names([u8; FILTER]);

impl Default for Names {
    fn default() -> Self {
        Self([0; FILTER])
    }
}

impl Names {
    pub(super) fn insert(&mut self, stream: &StreamId) {
        for bit in Probe::of(stream).bits() {
            self.0[bit / 8] |= 1 << (bit % 8);
        }
    }
}

/// A stream that is looked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Probe(u64, u64);

impl Probe {
    pub(super) fn of(stream: &StreamId) -> Self {
        let digest = Sha256::digest(stream.as_str());
        let half = |at: usize| {
            digest[at..at + 8].iter().fold(0, |all, byte| (all << 8) | u64::from(*byte))
        };
        // Odd, so that the probes of one stream are different bits.
        Self(half(0), half(8) | 1)
    }

    fn bits(self) -> impl Iterator<Item = usize> {
        let all = (FILTER * 8) as u64;
        (0..PROBES).map(move |n| {
            let bit = self.0.wrapping_add(n.wrapping_mul(self.1)) % all;
            usize::try_from(bit).unwrap_or(0)
        })
    }

    fn is_in(self, filter: &[u8]) -> bool {
        self.bits().all(|bit| filter.get(bit / 8).is_some_and(|byte| byte & (1 << (bit % 8)) != 0))
    }
}
