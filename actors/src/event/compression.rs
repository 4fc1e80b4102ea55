//! Payloads made smaller on their way, and bounded when they are made large again.
//!
//! | encoding | 4 KiB of JSON become | when |
//! |---|---|---|
//! | zstd (feature `compression`) | a seventh | unless there is a reason for another one |
//! | lz4 (feature `compression`) | a quarter, in two fifths of the time | the sender's time counts |
//! | gzip | a fifth, in sixteen times the time | the receiver knows nothing else |
//!
//! (`cargo bench --bench codec`)
//!
//! A small payload gains nothing and stays as it is, and so does one that does not shrink: what
//! came of it is said by the [`Encoding`] beside the bytes.
//!
//! ```
//! use bytes::Bytes;
//! use mister_smith_actors::event::compression::{Compression, Encoding, decompress};
//!
//! let text = Bytes::from("all work and no play ".repeat(1_000));
//! let (encoding, small) = Compression::gzip().compress(&text);
//! assert_eq!(encoding, Encoding::Gzip);
//! assert!(small.len() * 100 < text.len());
//! assert_eq!(decompress(encoding, &small, 64 << 10)?, text);
//!
//! // A receiver that wants no more than 10 kB is not made to hold more.
//! let refused = decompress(encoding, &small, 10_000).unwrap_err();
//! assert_eq!(refused.to_string(), "it would become larger than the limit of 10000 bytes");
//! # Ok::<(), mister_smith_actors::event::compression::CompressionError>(())
//! ```

use std::borrow::Cow;
use std::fmt;
use std::io::{ErrorKind, Read};

use bytes::Bytes;

use crate::error::ErrorClass;

mod gzip;
#[cfg(feature = "compression")]
mod lz4;
#[cfg(feature = "compression")]
mod zstd;

#[cfg(test)]
mod tests;

/// Payloads below this many bytes are not compressed, unless said otherwise: headers and tables
/// would eat the gain.
pub const DEFAULT_THRESHOLD: usize = 1_024;

/// How large a payload may become when it is decompressed, unless said otherwise: 16 MiB.
pub const DEFAULT_READ_LIMIT: usize = 16 << 20;

/// How a payload was made smaller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Encoding {
    /// Not at all.
    #[default]
    Identity,
    /// gzip (RFC 1952).
    Gzip,
    /// Zstandard (RFC 8878).
    Zstd,
    /// The LZ4 frame format.
    Lz4,
}

impl Encoding {
    /// Its name, as in `Content-Encoding`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
            Self::Lz4 => "lz4",
        }
    }

    /// The encoding of a name; `None` if it is another one, or several.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        let name = name.trim();
        let is = |known: &str| name.eq_ignore_ascii_case(known);
        match () {
            () if is("identity") || name.is_empty() => Some(Self::Identity),
            () if is("gzip") || is("x-gzip") => Some(Self::Gzip),
            () if is("zstd") => Some(Self::Zstd),
            () if is("lz4") => Some(Self::Lz4),
            () => None,
        }
    }

    /// The encoding that bytes look like by how they begin. Bytes that are no compressed payload
    /// may begin so too: what they are has to be known from elsewhere, or to have no other sense.
    #[must_use]
    pub fn sniff(data: &[u8]) -> Self {
        match data {
            [0x1f, 0x8b, 0x08, ..] => Self::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Self::Zstd,
            [0x04, 0x22, 0x4d, 0x18, ..] => Self::Lz4,
            _ => Self::Identity,
        }
    }

    /// Whether this program can write and read it.
    #[must_use]
    pub const fn is_built(self) -> bool {
        match self {
            Self::Identity | Self::Gzip => true,
            Self::Zstd | Self::Lz4 => cfg!(feature = "compression"),
        }
    }
}

impl fmt::Display for Encoding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What is compressed, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Compression {
    /// How.
    pub encoding: Encoding,
    /// From how many bytes on.
    pub threshold: usize,
    /// How much time is spent on it: zstd 1 to 19, gzip 1 to 9; lz4 has no levels.
    pub level: i32,
}

impl Default for Compression {
    /// zstd if this program has it, else nothing.
    fn default() -> Self {
        match Encoding::Zstd.is_built() {
            true => Self::with(Encoding::Zstd),
            false => Self::none(),
        }
    }
}

impl Compression {
    const fn with(encoding: Encoding) -> Self {
        Self { encoding, threshold: DEFAULT_THRESHOLD, level: 1 }
    }

    /// Nothing is compressed.
    #[must_use]
    pub const fn none() -> Self {
        Self::with(Encoding::Identity)
    }

    /// gzip of level 1.
    #[must_use]
    pub const fn gzip() -> Self {
        Self::with(Encoding::Gzip)
    }

    /// zstd of level 1.
    #[cfg(feature = "compression")]
    #[must_use]
    pub const fn zstd() -> Self {
        Self::with(Encoding::Zstd)
    }

    /// lz4.
    #[cfg(feature = "compression")]
    #[must_use]
    pub const fn lz4() -> Self {
        Self::with(Encoding::Lz4)
    }

    /// An encoding that is known at run time only, with its defaults.
    ///
    /// # Errors
    /// This program was built without it.
    pub fn of(encoding: Encoding) -> Result<Self, CompressionError> {
        match encoding.is_built() {
            true => Ok(Self::with(encoding)),
            false => Err(CompressionError::NotBuilt { encoding }),
        }
    }

    /// Sets from how many bytes on it is compressed.
    #[must_use]
    pub const fn threshold(mut self, bytes: usize) -> Self {
        self.threshold = bytes;
        self
    }

    /// Sets how much time is spent on it. What the encoding does not have becomes the nearest that
    /// it has.
    #[must_use]
    pub const fn level(mut self, level: i32) -> Self {
        self.level = level;
        self
    }

    /// The bytes as they are to be sent, and what was done to them: nothing, where that would not
    /// make them smaller.
    #[must_use]
    pub fn compress(&self, data: &Bytes) -> (Encoding, Bytes) {
        if self.encoding == Encoding::Identity || data.len() < self.threshold.max(1) {
            return (Encoding::Identity, data.clone());
        }
        let compressed = match self.encoding {
            Encoding::Identity => None,
            Encoding::Gzip => gzip::compress(data, self.level),
            #[cfg(feature = "compression")]
            Encoding::Zstd => zstd::compress(data, self.level),
            #[cfg(feature = "compression")]
            Encoding::Lz4 => lz4::compress(data),
            #[cfg(not(feature = "compression"))]
            Encoding::Zstd | Encoding::Lz4 => None,
        };
        match compressed {
            Some(smaller) if smaller.len() < data.len() => (self.encoding, smaller),
            _ => (Encoding::Identity, data.clone()),
        }
    }
}

/// The bytes as they were before they were compressed, if these are no more than `limit`.
///
/// While it works it holds at most `limit` bytes, one block (lz4: 4 MiB) and one window (zstd:
/// 8 MiB), whatever the bytes say of themselves.
///
/// # Errors
/// They would be more, are damaged or incomplete, or this program was built without the encoding.
pub fn decompress(
    encoding: Encoding,
    data: &Bytes,
    limit: usize,
) -> Result<Bytes, CompressionError> {
    if encoding == Encoding::Identity {
        return match data.len() > limit {
            true => Err(CompressionError::TooLarge { limit }),
            false => Ok(data.clone()),
        };
    }
    if data.is_empty() {
        // No bytes are not even a compressed nothing.
        return Err(CompressionError::corrupt(encoding, "there are no bytes"));
    }
    match encoding {
        Encoding::Gzip => gzip::decompress(data, limit),
        #[cfg(feature = "compression")]
        Encoding::Zstd => zstd::decompress(data, limit),
        #[cfg(feature = "compression")]
        Encoding::Lz4 => lz4::decompress(data, limit),
        encoding => Err(CompressionError::NotBuilt { encoding }),
    }
}

/// Why a payload could not be decompressed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CompressionError {
    /// It would be larger than is read.
    #[error("it would become larger than the limit of {limit} bytes")]
    TooLarge {
        /// What is read at most.
        limit: usize,
    },
    /// It is damaged, or a part of it.
    #[error("the bytes are no complete {encoding}: {reason}")]
    Corrupt {
        /// What they should be.
        encoding: Encoding,
        /// What is wrong.
        reason: Cow<'static, str>,
    },
    /// Nothing here has that name.
    #[error("{name:?} is no encoding that is known; send gzip, zstd, lz4 or identity")]
    Unknown {
        /// The name.
        name: String,
    },
    /// It was left out of this program.
    #[error("{encoding} is not in this program; rebuild with `--features compression`")]
    NotBuilt {
        /// What was asked for.
        encoding: Encoding,
    },
}

impl CompressionError {
    /// How to react.
    #[must_use]
    pub const fn class(&self) -> ErrorClass {
        match self {
            Self::NotBuilt { .. } => ErrorClass::User,
            Self::TooLarge { .. } | Self::Corrupt { .. } | Self::Unknown { .. } => {
                ErrorClass::Permanent
            }
        }
    }

    fn corrupt(encoding: Encoding, reason: impl Into<Cow<'static, str>>) -> Self {
        Self::Corrupt { encoding, reason: reason.into() }
    }
}

/// Everything that a decoder gives, in memory that grows with it and never beyond the limit.
fn read_within(
    encoding: Encoding,
    mut decoder: impl Read,
    expected: usize,
    limit: usize,
) -> Result<Bytes, CompressionError> {
    // One byte more shows that there is more.
    let most = limit.saturating_add(1);
    let mut out = vec![0; expected.clamp(1_024.min(most), most)];
    let mut filled = 0;
    loop {
        if filled > limit {
            return Err(CompressionError::TooLarge { limit });
        }
        if filled == out.len() {
            let grown = out.len().saturating_mul(2).min(most);
            out.reserve_exact(grown - filled);
            out.resize(grown, 0);
        }
        match decoder.read(&mut out[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(CompressionError::corrupt(encoding, error.to_string())),
        }
    }
    out.truncate(filled);
    Ok(out.into())
}
