//! The body of a request as plain bytes of bounded size, whatever its `Content-Encoding`.

use std::borrow::Cow;
use std::io::{ErrorKind, Read as _};

use flate2::bufread::MultiGzDecoder;
use thiserror::Error;

#[cfg(test)]
mod tests;

/// A body that cannot be decoded.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BodyError {
    /// The encoding is none of those known here.
    #[error("content encoding {found:?} is not supported; send gzip or identity")]
    UnsupportedEncoding {
        /// What the header says.
        found: String,
    },
    /// The body, as sent or decompressed, is larger than allowed.
    #[error("the body is larger than {limit} bytes; send it in several requests")]
    TooLarge {
        /// The limit in bytes.
        limit: usize,
    },
    /// The body is not what its encoding says.
    #[error("the gzip body is {problem}; compress it again and send it whole")]
    Malformed {
        /// Cut short, or damaged.
        problem: &'static str,
        /// What the decoder found.
        source: std::io::Error,
    },
}

impl BodyError {
    /// The HTTP status that says this: 400, 413 or 415.
    pub fn status(&self) -> u16 {
        match self {
            Self::UnsupportedEncoding { .. } => 415,
            Self::TooLarge { .. } => 413,
            Self::Malformed { .. } => 400,
        }
    }
}

/// The bytes of a body without their `Content-Encoding`, at most `limit` of them.
///
/// Knows `identity` (borrowed, not copied) and `gzip` with one or several members; case does not
/// matter, and no header means identity. `limit` is in bytes and holds for the body as sent and
/// again decompressed. A small body that would swell beyond it is given up at the limit and never
/// held in memory.
///
/// # Errors
///
/// See [`BodyError`]; [`BodyError::status`] is the answer to give.
pub fn decode_body<'a>(
    content_encoding: Option<&str>,
    body: &'a [u8],
    limit: usize,
) -> Result<Cow<'a, [u8]>, BodyError> {
    let encoding = content_encoding.unwrap_or_default().trim();
    let is = |name: &str| encoding.eq_ignore_ascii_case(name);
    let gzip = is("gzip") || is("x-gzip");
    if !gzip && !is("identity") && !encoding.is_empty() {
        let found = encoding.chars().take(64).collect();
        return Err(BodyError::UnsupportedEncoding { found });
    }
    if body.len() > limit {
        return Err(BodyError::TooLarge { limit });
    }
    if gzip { gunzip(body, limit).map(Cow::Owned) } else { Ok(Cow::Borrowed(body)) }
}

fn gunzip(body: &[u8], limit: usize) -> Result<Vec<u8>, BodyError> {
    let mut plain = Vec::with_capacity(expected_length(body).min(limit));
    // One byte more than allowed tells "exactly the limit" from "more".
    let mut bounded = MultiGzDecoder::new(body).take(limit as u64 + 1);
    bounded.read_to_end(&mut plain).map_err(|source| {
        let cut = source.kind() == ErrorKind::UnexpectedEof;
        BodyError::Malformed { problem: if cut { "cut short" } else { "damaged" }, source }
    })?;
    if plain.len() > limit {
        return Err(BodyError::TooLarge { limit });
    }
    Ok(plain)
}

/// What the last four bytes of a gzip member claim its length to be (RFC 1952 section 2.3.1), and
/// no more than ten times the body: the claim may be a lie, and this is memory.
fn expected_length(body: &[u8]) -> usize {
    let claim = body.last_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes) as usize);
    claim.min(body.len().saturating_mul(10))
}
