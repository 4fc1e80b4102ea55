//! Paths: where a slot stands in the tree.

use std::fmt;
use std::sync::Arc;

use crate::error::SpecError;

/// The longest child id, in bytes.
pub const MAX_ID_BYTES: usize = 512;

/// Where a slot stands: `/` is the root, `/agents/counter` a child of a child of it.
///
/// An id may hold any character but control characters; `/` and `%` inside an id are written
/// `%2F` and `%25` in its path. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Path(Arc<str>);

impl Path {
    /// The root, `/`.
    #[must_use]
    pub fn root() -> Self {
        Self("/".into())
    }

    /// Takes a path as a person writes it; a missing leading `/` is added, a trailing one dropped.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let trimmed = text.trim_matches('/');
        Self(format!("/{trimmed}").into())
    }

    /// The path of a child of this one.
    #[must_use]
    pub fn child(&self, id: &str) -> Self {
        let parent = if self.is_root() { "" } else { &self.0 };
        if id.contains(['/', '%']) {
            let escaped = id.replace('%', "%25").replace('/', "%2F");
            Self(format!("{parent}/{escaped}").into())
        } else {
            Self(format!("{parent}/{id}").into())
        }
    }

    /// The path of its parent; `None` for the root.
    #[must_use]
    pub fn parent(&self) -> Option<Self> {
        if self.is_root() {
            return None;
        }
        let parent = self.0.rsplit_once('/').map_or("", |(parent, _)| parent);
        Some(if parent.is_empty() { Self::root() } else { Self(parent.into()) })
    }

    /// Whether this is `/`.
    #[must_use]
    pub fn is_root(&self) -> bool {
        &*self.0 == "/"
    }

    /// The path as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The ids from the root down, still escaped.
    pub(crate) fn segments(&self) -> impl Iterator<Item = &str> {
        self.0.split('/').filter(|segment| !segment.is_empty())
    }

    /// Whether this path is `ancestor` or lies below it.
    #[must_use]
    pub fn is_within(&self, ancestor: &Path) -> bool {
        ancestor.is_root()
            || self
                .0
                .strip_prefix(&*ancestor.0)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

impl Path {
    /// The path one step below `ancestor` on the way to this one.
    pub(crate) fn child_towards(&self, ancestor: &Path) -> Option<Path> {
        let rest = if ancestor.is_root() {
            self.0.strip_prefix('/')?
        } else {
            self.0.strip_prefix(&*ancestor.0)?.strip_prefix('/')?
        };
        let segment = rest.split('/').next().filter(|segment| !segment.is_empty())?;
        let parent = if ancestor.is_root() { "" } else { &*ancestor.0 };
        Some(Self(format!("{parent}/{segment}").into()))
    }
}

/// The id that a path segment stands for.
pub(crate) fn unescape(segment: &str) -> String {
    segment.replace("%2F", "/").replace("%2f", "/").replace("%25", "%")
}

/// Refuses ids that cannot stand in a path.
pub(crate) fn check_id(id: &str) -> Result<(), SpecError> {
    let why = if id.is_empty() {
        "is empty"
    } else if id.len() > MAX_ID_BYTES {
        "is longer than 512 bytes"
    } else if id.chars().any(char::is_control) {
        "holds a control character"
    } else {
        return Ok(());
    };
    Err(SpecError::BadId { id: id.to_owned(), why })
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl AsRef<str> for Path {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Path {
    fn from(text: &str) -> Self {
        Self::parse(text)
    }
}
