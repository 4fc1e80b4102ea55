//! The LZ4 frame format, by lz4_flex.

use std::cell::RefCell;
use std::io::{Read, Write};

use bytes::Bytes;
use lz4_flex::frame::{BlockSize, FrameDecoder, FrameEncoder, FrameInfo};

use super::{CompressionError, Encoding, read_within};

const LZ4: Encoding = Encoding::Lz4;

/// A buffer that is larger is not kept.
const KEPT_BUFFER: usize = 256 << 10;

thread_local! {
    // Its buffers and its table are cleared 200 KiB, more work than compressing 4 KiB.
    static ENCODER: RefCell<Option<FrameEncoder<Vec<u8>>>> = const { RefCell::new(None) };
}

fn encoder() -> FrameEncoder<Vec<u8>> {
    // The checksum makes damage an error and not another payload.
    let info = FrameInfo::new().block_size(BlockSize::Max64KB).content_checksum(true);
    FrameEncoder::with_frame_info(info, Vec::new())
}

pub(super) fn compress(data: &[u8]) -> Option<Bytes> {
    ENCODER.with_borrow_mut(|kept| {
        let mut encoder = kept.take().unwrap_or_else(encoder);
        encoder.get_mut().clear();
        encoder.write_all(data).ok()?;
        encoder.try_finish().ok()?;
        let compressed = Bytes::copy_from_slice(encoder.get_ref());
        if encoder.get_ref().capacity() > KEPT_BUFFER {
            *encoder.get_mut() = Vec::new();
        }
        *kept = Some(encoder);
        Some(compressed)
    })
}

pub(super) fn decompress(data: &[u8], limit: usize) -> Result<Bytes, CompressionError> {
    frames(data).map_err(|reason| CompressionError::corrupt(LZ4, reason))?;
    read_within(LZ4, Frames(FrameDecoder::new(data)), data.len().saturating_mul(3), limit)
}

/// All frames: the decoder alone stops behind each.
struct Frames<'a>(FrameDecoder<&'a [u8]>);

impl Read for Frames<'_> {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        loop {
            let count = self.0.read(out)?;
            if count > 0 || self.0.get_ref().is_empty() {
                return Ok(count);
            }
        }
    }
}

/// Whether the bytes are complete frames: to the decoder a payload that was cut off between two
/// blocks is a shorter one.
///
/// The layout: <https://github.com/lz4/lz4/blob/dev/doc/lz4_Frame_format.md>.
fn frames(mut data: &[u8]) -> Result<(), &'static str> {
    const CUT: &str = "it ends too early";
    let mut take = |count: usize| -> Result<_, &'static str> {
        let (taken, rest) = data.split_at_checked(count).ok_or(CUT)?;
        data = rest;
        Ok((taken, rest.is_empty()))
    };
    loop {
        let (head, _) = take(6)?;
        if head[..4] != [0x04, 0x22, 0x4d, 0x18] {
            return Err("a frame does not begin as it has to");
        }
        let flag = |bit: u8, bytes: usize| if head[4] & bit != 0 { bytes } else { 0 };
        let (block_checksum, content_checksum) = (flag(0x10, 4), flag(0x04, 4));
        // The size of the content, the dictionary, and a checksum of the header.
        take(flag(0x08, 8) + flag(0x01, 4) + 1)?;
        loop {
            let (size, _) = take(4)?;
            let size = u32::from_le_bytes([size[0], size[1], size[2], size[3]]);
            if size == 0 {
                break;
            }
            // The highest bit says that the block is not compressed.
            take((size & 0x7fff_ffff) as usize + block_checksum)?;
        }
        let (_, done) = take(content_checksum)?;
        if done {
            return Ok(());
        }
    }
}
