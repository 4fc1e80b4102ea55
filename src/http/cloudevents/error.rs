//! What can be wrong with a body, and with one event of it.

use std::str::Utf8Error;

use thiserror::Error;

/// A body that cannot be taken at all.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ParseError {
    /// The content type names none of the three forms.
    #[error(
        "content type {found:?} is not supported; send application/cloudevents+json (one event), \
         application/cloudevents-batch+json (an array) or application/x-ndjson (one event a line)"
    )]
    UnsupportedMediaType {
        /// The type without its parameters; empty when the header was absent.
        found: String,
    },
    /// The body is not JSON.
    #[error(
        "malformed JSON at line {line}, column {column}: {message}; nothing of this body was \
         taken, correct it and send it again"
    )]
    Malformed {
        /// Line of the fault, from 1.
        line: usize,
        /// Column of the fault in bytes, from 1.
        column: usize,
        /// What the parser expected or found.
        message: String,
    },
    /// The body holds JSON, but no array where a batch was announced.
    #[error(
        "expected a JSON array of events, found {found}; send one event as \
         application/cloudevents+json"
    )]
    NotAnArray {
        /// The kind of value found.
        found: &'static str,
    },
    /// The body holds more events than one request may.
    #[error("more than {limit} events in one request; send them in several")]
    TooManyEvents {
        /// The limit, [`Limits::max_events`](super::Limits::max_events).
        limit: usize,
    },
}

impl ParseError {
    /// The HTTP status that says this: 400, 413 or 415.
    pub fn status(&self) -> u16 {
        match self {
            Self::UnsupportedMediaType { .. } => 415,
            Self::Malformed { .. } | Self::NotAnArray { .. } => 400,
            Self::TooManyEvents { .. } => 413,
        }
    }

    pub(super) fn from_json(error: &serde_json::Error) -> Self {
        let (line, column) = (error.line().max(1), error.column().max(1));
        Self::Malformed { line, column, message: without_position(error) }
    }

    pub(super) fn from_utf8(body: &[u8], error: &Utf8Error) -> Self {
        let before = &body[..error.valid_up_to()];
        let line = 1 + memchr::memchr_iter(b'\n', before).count();
        let column = 1 + before.len() - memchr::memrchr(b'\n', before).map_or(0, |end| end + 1);
        Self::Malformed { line, column, message: NOT_UTF8.into() }
    }
}

/// Why one event is not taken: the first rule that it breaks.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Reject {
    /// A line of NDJSON that is not JSON.
    #[error(
        "malformed JSON at column {column}: {message}; send one complete JSON object on each line"
    )]
    Malformed {
        /// Column of the fault in bytes, from 1.
        column: usize,
        /// What the parser expected or found.
        message: String,
    },
    /// More bytes than one event may have.
    #[error(
        "the event has {bytes} bytes and the limit is {limit}; keep large data elsewhere and send \
         a reference to it"
    )]
    TooLarge {
        /// Bytes of the event as sent.
        bytes: usize,
        /// The limit, [`Limits::max_event_bytes`](super::Limits::max_event_bytes).
        limit: usize,
    },
    /// Nested deeper than readers can follow.
    #[error("the event is nested deeper than {limit} levels; flatten its data")]
    TooDeep {
        /// The limit, [`Limits::max_depth`](super::Limits::max_depth).
        limit: usize,
    },
    /// JSON, but not an object.
    #[error("expected a JSON object, found {found}; send each event as one object")]
    NotAnObject {
        /// The kind of value found.
        found: &'static str,
    },
    /// A required attribute is absent or `null`.
    #[error("{attribute} is missing; {cure}")]
    Missing {
        /// The attribute.
        attribute: &'static str,
        /// What to do.
        cure: &'static str,
    },
    /// A name that occurs more than once, so that readers would disagree about its value.
    #[error("{attribute} occurs more than once; send it once")]
    Duplicate {
        /// The attribute.
        attribute: String,
    },
    /// An attribute whose value, or name, breaks a rule.
    #[error("{attribute} {problem}; {cure}")]
    Invalid {
        /// The attribute.
        attribute: String,
        /// What is wrong, to be read after the name of the attribute.
        problem: String,
        /// What to do.
        cure: &'static str,
    },
}

impl Reject {
    /// The attribute at fault, where it is one.
    pub fn attribute(&self) -> Option<&str> {
        match self {
            Self::Missing { attribute, .. } => Some(attribute),
            Self::Duplicate { attribute } | Self::Invalid { attribute, .. } => Some(attribute),
            _ => None,
        }
    }

    pub(super) fn from_json(error: &serde_json::Error) -> Self {
        Self::Malformed { column: error.column().max(1), message: without_position(error) }
    }

    pub(super) fn from_utf8(error: &Utf8Error) -> Self {
        Self::Malformed { column: error.valid_up_to() + 1, message: NOT_UTF8.into() }
    }

    pub(super) fn invalid(attribute: &str, problem: impl Into<String>, cure: &'static str) -> Self {
        Self::Invalid { attribute: shown(attribute), problem: problem.into(), cure }
    }
}

const NOT_UTF8: &str = "the text is not UTF-8";

/// The message of a serde_json error without the position at its end, which has fields of its own.
fn without_position(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.rsplit_once(" at line ") {
        Some((message, _)) => message.to_owned(),
        None => text,
    }
}

/// A name from outside, made fit for a message: escaped, and cut where a reader would stop.
pub(super) fn shown(name: &str) -> String {
    const LONGEST: usize = 64;
    let mut shown: String = name.chars().take(LONGEST).flat_map(char::escape_debug).collect();
    if name.chars().nth(LONGEST).is_some() {
        shown.push('…');
    }
    shown
}
