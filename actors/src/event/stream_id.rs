//! The name of a stream.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Serialize};

/// The name of a stream: 1 to 512 bytes of UTF-8 without control characters.
///
/// Names are compared byte by byte, and sorted so, in every store. Cloning shares the text.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "Arc<str>", into = "Arc<str>")]
pub struct StreamId(Arc<str>);

/// Why a text cannot name a stream.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidStreamId {
    /// There was no text.
    #[error("a stream needs a name; the text is empty")]
    Empty,
    /// The text is too long.
    #[error("a stream's name has at most {} bytes; this one has {length}", StreamId::MAX_BYTES)]
    TooLong {
        /// Its length in bytes.
        length: usize,
    },
    /// The text has a character that no terminal, log or URL would show as it is.
    #[error("a stream's name has no control characters; byte {at} begins {character:?}")]
    Control {
        /// The character.
        character: char,
        /// Where it begins, in bytes.
        at: usize,
    },
}

impl StreamId {
    /// The longest name, in bytes.
    pub const MAX_BYTES: usize = 512;

    /// Takes `name` as it is.
    ///
    /// # Errors
    ///
    /// The text is empty, too long, or has a control character.
    pub fn new(name: impl Into<Arc<str>>) -> Result<Self, InvalidStreamId> {
        let name = name.into();
        if name.is_empty() {
            return Err(InvalidStreamId::Empty);
        }
        if name.len() > Self::MAX_BYTES {
            return Err(InvalidStreamId::TooLong { length: name.len() });
        }
        match name.char_indices().find(|(_, character)| character.is_control()) {
            Some((at, character)) => Err(InvalidStreamId::Control { character, at }),
            None => Ok(Self(name)),
        }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What kind of stream it is: its name up to the first `-`, or all of it.
    ///
    /// `account-17` is of the category `account`, as in EventStoreDB and message-db.
    pub fn category(&self) -> &str {
        self.0.split_once('-').map_or(&self.0, |(category, _)| category)
    }

    /// The name, shared.
    pub fn to_shared(&self) -> Arc<str> {
        Arc::clone(&self.0)
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::str::FromStr for StreamId {
    type Err = InvalidStreamId;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::new(name)
    }
}

impl TryFrom<Arc<str>> for StreamId {
    type Error = InvalidStreamId;

    fn try_from(name: Arc<str>) -> Result<Self, Self::Error> {
        Self::new(name)
    }
}

impl From<StreamId> for Arc<str> {
    fn from(id: StreamId) -> Self {
        id.0
    }
}
