//! Subjects and patterns, in NATS syntax.
//!
//! A subject is tokens with dots between: `order.17.placed`. In a pattern `*` stands for one token
//! and `>`, at the end, for one or more.
//!
//! What the node says of itself begins with `system`, and a wildcard does not stand for that
//! token: who subscribes to `>` wants what applications publish, and one that crashed at a message
//! about its own crash would never come to rest.

use std::fmt;
use std::sync::Arc;

/// The first token of what the node says of itself.
pub const SYSTEM: &str = "system";

/// The longest subject or pattern, in bytes.
pub const MAX_SUBJECT_BYTES: usize = 512;

/// Where a message is published. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Subject(Arc<str>);

impl Subject {
    /// Checks a name.
    ///
    /// # Errors
    /// It is not tokens with dots between, or has a wildcard.
    pub fn new(text: impl Into<Arc<str>>) -> Result<Self, InvalidSubject> {
        let text = text.into();
        Self::check(&text)?;
        Ok(Self(text))
    }

    /// Whether this is a name of a subject.
    pub(super) fn check(text: &str) -> Result<(), InvalidSubject> {
        check(text)?;
        match text.contains(['*', '>']) {
            true => Err(InvalidSubject::Wildcard { text: text.to_owned() }),
            false => Ok(()),
        }
    }

    /// A subject of parts that may be anything: what cannot be in a token is escaped with `%` and
    /// two hexadecimal digits, and an empty part is `%`. Dots in a part begin new tokens.
    pub fn of<P: AsRef<str>>(parts: impl IntoIterator<Item = P>) -> Self {
        let mut text = String::new();
        for part in parts {
            for token in part.as_ref().split('.') {
                if !text.is_empty() {
                    text.push('.');
                }
                escape(token, &mut text);
            }
        }
        if text.is_empty() {
            text.push('%');
        }
        // What is longer than a subject may be is cut where a token ends in it.
        let mut end = text.len().min(MAX_SUBJECT_BYTES);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        Self(text.trim_end_matches('.').into())
    }

    /// Its text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the node says it of itself.
    #[must_use]
    pub fn is_system(&self) -> bool {
        self.0.split('.').next() == Some(SYSTEM)
    }

    /// Its text, shared.
    #[must_use]
    pub fn to_shared(&self) -> Arc<str> {
        Arc::clone(&self.0)
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Subject({})", self.0)
    }
}

impl TryFrom<&str> for Subject {
    type Error = InvalidSubject;

    fn try_from(text: &str) -> Result<Self, InvalidSubject> {
        Self::new(text)
    }
}

impl TryFrom<String> for Subject {
    type Error = InvalidSubject;

    fn try_from(text: String) -> Result<Self, InvalidSubject> {
        Self::new(text)
    }
}

/// Which subjects are asked for. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pattern(Arc<str>);

impl Pattern {
    /// Checks a pattern.
    ///
    /// # Errors
    /// It is not tokens with dots between, `>` is not its last token, or a wildcard is part of a
    /// token.
    pub fn new(text: impl Into<Arc<str>>) -> Result<Self, InvalidSubject> {
        let text = text.into();
        check(&text)?;
        let mut tokens = text.split('.').peekable();
        while let Some(token) = tokens.next() {
            let last = tokens.peek().is_none();
            match token {
                "*" => {}
                ">" if last => {}
                ">" => return Err(InvalidSubject::TailInside { text: text.to_string() }),
                token if token.contains(['*', '>']) => {
                    return Err(InvalidSubject::PartOfToken { text: text.to_string() });
                }
                _ => {}
            }
        }
        Ok(Self(text))
    }

    /// Every subject of applications.
    #[must_use]
    pub fn all() -> Self {
        Self(">".into())
    }

    /// Its text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether a subject is one of those.
    #[must_use]
    pub fn matches(&self, subject: &Subject) -> bool {
        let hidden = subject.is_system() && self.0.starts_with(['*', '>']);
        !hidden && self.matches_text(subject.as_str())
    }

    /// The same as a broker sees it, which knows no subjects of a node.
    pub(super) fn matches_text(&self, subject: &str) -> bool {
        let (mut wanted, mut tokens) = (self.0.split('.'), subject.split('.'));
        loop {
            match (wanted.next(), tokens.next()) {
                (Some(">"), Some(_)) | (None, None) => return true,
                (Some("*"), Some(_)) => {}
                (Some(wanted), Some(token)) if wanted == token => {}
                _ => return false,
            }
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pattern({})", self.0)
    }
}

impl TryFrom<&str> for Pattern {
    type Error = InvalidSubject;

    fn try_from(text: &str) -> Result<Self, InvalidSubject> {
        Self::new(text)
    }
}

impl From<&Subject> for Pattern {
    fn from(subject: &Subject) -> Self {
        Self(subject.to_shared())
    }
}

/// Why a text is no subject or no pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidSubject {
    /// It is empty.
    #[error("a subject is empty; name it like order.placed")]
    Empty,
    /// It is too long.
    #[error("a subject of {bytes} bytes is too long, at most {MAX_SUBJECT_BYTES} are taken")]
    TooLong {
        /// How long it is.
        bytes: usize,
    },
    /// There is nothing between two dots, or before the first, or after the last.
    #[error("{text:?} has an empty token; put one dot between two tokens, and none at the ends")]
    EmptyToken {
        /// The text.
        text: String,
    },
    /// It has white space or a control character.
    #[error("{text:?} has white space or a control character; use letters, digits, - and _")]
    Character {
        /// The text.
        text: String,
    },
    /// A message is published to one subject.
    #[error("{text:?} has a wildcard; publish to one subject, and use * and > to subscribe")]
    Wildcard {
        /// The text.
        text: String,
    },
    /// `>` is not the last token.
    #[error("{text:?} has > before its end; > stands for all the rest, use * for one token")]
    TailInside {
        /// The text.
        text: String,
    },
    /// A wildcard is only a part of a token.
    #[error("{text:?} has a wildcard inside a token; * and > stand alone between dots")]
    PartOfToken {
        /// The text.
        text: String,
    },
}

fn check(text: &str) -> Result<(), InvalidSubject> {
    if text.is_empty() {
        return Err(InvalidSubject::Empty);
    }
    if text.len() > MAX_SUBJECT_BYTES {
        return Err(InvalidSubject::TooLong { bytes: text.len() });
    }
    if text.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Err(InvalidSubject::Character { text: text.to_owned() });
    }
    if text.split('.').any(str::is_empty) {
        return Err(InvalidSubject::EmptyToken { text: text.to_owned() });
    }
    Ok(())
}

fn escape(token: &str, into: &mut String) {
    use fmt::Write as _;
    if token.is_empty() {
        into.push('%');
    }
    for c in token.chars() {
        if matches!(c, '*' | '>' | '%') || c.is_whitespace() || c.is_control() {
            let mut utf8 = [0; 4];
            for byte in c.encode_utf8(&mut utf8).bytes() {
                let _ = write!(into, "%{byte:02X}");
            }
        } else {
            into.push(c);
        }
    }
}
