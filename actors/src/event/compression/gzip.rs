//! gzip, by flate2. Several members behind each other are one payload (RFC 1952, 2.2).

use std::io::Write;

use bytes::Bytes;
use flate2::Compression as Level;
use flate2::bufread::MultiGzDecoder;
use flate2::write::GzEncoder;

use super::{CompressionError, Encoding, read_within};

pub(super) fn compress(data: &[u8], level: i32) -> Option<Bytes> {
    let level = Level::new(u32::try_from(level.clamp(1, 9)).unwrap_or(1));
    let mut encoder = GzEncoder::new(Vec::with_capacity(data.len() / 2), level);
    encoder.write_all(data).ok()?;
    encoder.finish().ok().map(Bytes::from)
}

pub(super) fn decompress(data: &[u8], limit: usize) -> Result<Bytes, CompressionError> {
    let expected = data.len().saturating_mul(4);
    read_within(Encoding::Gzip, MultiGzDecoder::new(data), expected, limit)
}
