//! Which events a reader of the whole log wants.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::event::{Position, RecordedEvent, StreamId};

/// How many positions of the log one filtered read looks at, at most.
pub const MAX_SCAN: u64 = 50_000;

/// The category of the streams of dead letters.
pub const DEAD_LETTERS: &str = "dead_letter";

/// Lets events through by the category of their stream and by their type; an empty list lets
/// everything through.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct EventFilter {
    /// Categories, as [`StreamId::category`] gives them.
    pub categories: Vec<Arc<str>>,
    /// Event types.
    pub types: Vec<Arc<str>>,
}

impl EventFilter {
    /// Everything.
    pub const ALL: Self = Self { categories: Vec::new(), types: Vec::new() };

    /// Only the events of streams of these categories.
    #[must_use]
    pub fn categories<T: Into<Arc<str>>>(mut self, names: impl IntoIterator<Item = T>) -> Self {
        self.categories.extend(names.into_iter().map(Into::into));
        self
    }

    /// Only the events of these types.
    #[must_use]
    pub fn types<T: Into<Arc<str>>>(mut self, names: impl IntoIterator<Item = T>) -> Self {
        self.types.extend(names.into_iter().map(Into::into));
        self
    }

    /// Whether it lets everything through.
    #[must_use]
    pub fn is_all(&self) -> bool {
        self.categories.is_empty() && self.types.is_empty()
    }

    /// Whether an event is about messages that somebody could not handle, and was not asked for
    /// by its category. Who handles everything and fails at everything would cause more of them
    /// with each.
    #[must_use]
    pub fn is_feedback(&self, stream: &StreamId) -> bool {
        self.categories.is_empty() && stream.category() == DEAD_LETTERS
    }

    /// Whether it lets an event of this type in this stream through.
    #[must_use]
    pub fn accepts(&self, stream: &StreamId, event_type: &str) -> bool {
        let among = |names: &[Arc<str>], name: &str| {
            names.is_empty() || names.iter().any(|one| &**one == name)
        };
        among(&self.types, event_type) && among(&self.categories, stream.category())
    }
}

/// What a filtered read found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MatchingPage {
    /// The events, in the order of commits.
    pub events: Vec<RecordedEvent>,
    /// Everything up to here was looked at; go on after it. It stays where it was asked from when
    /// the log has nothing more.
    pub scanned_to: Position,
}

/// An event type that the log holds.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RecordedType {
    /// Its name.
    pub name: Arc<str>,
    /// A version of its schema that events were written with.
    pub schema_version: u16,
}
