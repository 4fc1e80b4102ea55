//! Zstandard, by the C library.

use std::cell::RefCell;

use bytes::Bytes;
use zstd::bulk::{Compressor, Decompressor};
use zstd::stream::read::Decoder;
use zstd::zstd_safe;

use super::{CompressionError, Encoding, read_within};

const ZSTD: Encoding = Encoding::Zstd;

/// The largest window that is decoded, as a power of two: 8 MiB, what RFC 9659 allows for a
/// `Content-Encoding`. Without a limit a payload of a few bytes asks for 2 GiB.
const WINDOW_LOG_MAX: u32 = 23;

/// Contexts of higher levels hold tens of MiB: they are made anew each time.
const KEPT_LEVELS: std::ops::RangeInclusive<i32> = 1..=6;

/// A buffer that is larger is not kept.
const KEPT_BUFFER: usize = 256 << 10;

thread_local! {
    // Making a context costs three times as much as compressing 4 KiB with it (7 and 23 µs). They
    // hold nothing from one payload to the next but memory.
    static COMPRESSOR: RefCell<Option<(i32, Compressor<'static>, Vec<u8>)>> =
        const { RefCell::new(None) };
    static DECOMPRESSOR: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) };
}

pub(super) fn compress(data: &[u8], level: i32) -> Option<Bytes> {
    let level = level.clamp(1, 19);
    COMPRESSOR.with_borrow_mut(|kept| {
        let (_, mut compressor, mut buffer) = match kept.take() {
            Some(kept) if kept.0 == level => kept,
            _ => (level, compressor(level)?, Vec::new()),
        };
        buffer.clear();
        buffer.reserve(zstd_safe::compress_bound(data.len()));
        compressor.compress_to_buffer(data, &mut buffer).ok()?;
        let compressed = Bytes::copy_from_slice(&buffer);
        if KEPT_LEVELS.contains(&level) {
            if buffer.capacity() > KEPT_BUFFER {
                buffer = Vec::new();
            }
            *kept = Some((level, compressor, buffer));
        }
        Some(compressed)
    })
}

fn compressor(level: i32) -> Option<Compressor<'static>> {
    let mut compressor = Compressor::new(level).ok()?;
    // So that damage is an error and not another payload.
    compressor.include_checksum(true).ok()?;
    Some(compressor)
}

pub(super) fn decompress(data: &[u8], limit: usize) -> Result<Bytes, CompressionError> {
    let failed = |error: std::io::Error| CompressionError::corrupt(ZSTD, error.to_string());
    // Exact, if each frame says how large it is; a frame that lied is an error in the end.
    let Some(size) = Decompressor::<'static>::upper_bound(data) else {
        // Written as a stream.
        let mut decoder = Decoder::with_buffer(data).map_err(failed)?;
        decoder.window_log_max(WINDOW_LOG_MAX).map_err(failed)?;
        return read_within(ZSTD, decoder, data.len().saturating_mul(4), limit);
    };
    if size > limit {
        return Err(CompressionError::TooLarge { limit });
    }
    DECOMPRESSOR.with_borrow_mut(|kept| {
        let mut decompressor = match kept.take() {
            Some(kept) => kept,
            None => Decompressor::new().map_err(failed)?,
        };
        // It writes into the buffer in place, so that the size of the window does not matter.
        let mut out = Vec::with_capacity(size);
        let done = decompressor.decompress_to_buffer(data, &mut out);
        *kept = Some(decompressor);
        done.map(|_| out.into()).map_err(failed)
    })
}
