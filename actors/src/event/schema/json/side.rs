//! A schema while it is compared with another.

use std::cell::Cell;

use serde_json::{Map, Value};

use super::JsonSchema;
use super::merge::is_annotation;
use super::positions::weight;

/// How many values of schemas are looked at or copied in one comparison, at most. Schemas may come
/// from outside, and a few references to each other expand without end.
const MAX_WORK: usize = 10_000_000;

/// What one comparison has cost.
#[derive(Debug, Default)]
pub(super) struct Work(Cell<usize>);

impl Work {
    /// Counts, and says whether there may be more.
    pub(super) fn go_on(&self, work: usize) -> bool {
        self.0.set(self.0.get().saturating_add(work));
        self.0.get() <= MAX_WORK
    }
}

/// The reader's or the writer's schema.
#[derive(Clone, Copy)]
pub(super) struct Side<'a> {
    pub(super) schema: &'a JsonSchema,
    pub(super) work: &'a Work,
}

impl<'a> Side<'a> {
    pub(super) fn resolve(self, reference: &str) -> Option<&'a Value> {
        self.schema.resolve(reference)
    }

    pub(super) fn is_legacy(self) -> bool {
        self.schema.draft.is_legacy()
    }

    /// Counts the parts of a value that is about to be copied or looked through.
    pub(super) fn counts(self, value: &Value) -> bool {
        self.work.go_on(weight(value))
    }

    /// The keywords of a part that say what is valid. Its definitions would be copied at each step,
    /// and what its draft does not know says nothing.
    pub(super) fn keywords(self, part: &Map<String, Value>) -> Map<String, Value> {
        let says = |key: &str| !is_annotation(key) && self.schema.draft.knows(key);
        let kept: Map<String, Value> = part
            .iter()
            .filter(|(key, _)| says(key))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        let _ = self.work.go_on(kept.values().map(weight).sum::<usize>() + 1);
        kept
    }
}
