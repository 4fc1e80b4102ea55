//! Statistics by kind of message.
//!
//! A kind is a name of [`Actor::message_name`](crate::Actor::message_name). The slot keeps names
//! and counters; the life keeps its own list of them, so that it looks under the slot's lock only
//! when it meets a kind for the first time.

use std::sync::Arc;

use crate::actor::cell::SlotCell;
use crate::actor::shown_name;
use crate::actor::stats::{HandlingView, MAX_MESSAGE_KINDS, Row, Stats};

/// The name of everything beyond the first [`MAX_MESSAGE_KINDS`] kinds.
pub(crate) const OTHER: &str = "other";

/// The statistics of one kind of message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MessageView {
    /// Its name, as [`Actor::message_name`](crate::Actor::message_name) gives it.
    pub name: &'static str,
    /// How many, and how long they took.
    pub handling: HandlingView,
}

/// The kinds that a slot has met.
#[derive(Debug, Default)]
pub(crate) struct Kinds {
    /// Counted in [`Stats::first`].
    first: Option<&'static str>,
    more: Vec<(&'static str, Arc<Row>)>,
}

impl Kinds {
    /// The index of a kind. A new one gets counters; beyond the bound all are one.
    fn meet(&mut self, name: &'static str) -> usize {
        match self.first {
            None => {
                self.first = Some(name);
                return 0;
            }
            Some(first) if first == name => return 0,
            Some(_) => {}
        }
        if let Some(at) = self.more.iter().position(|(known, _)| *known == name) {
            return at + 1;
        }
        if self.more.len() < MAX_MESSAGE_KINDS {
            let full = self.more.len() + 1 == MAX_MESSAGE_KINDS;
            self.more.push((if full { OTHER } else { name }, Arc::default()));
        }
        self.more.len()
    }

    pub(crate) fn name(&self, kind: usize) -> Option<&'static str> {
        match kind.checked_sub(1) {
            None => self.first,
            Some(at) => self.more.get(at).map(|(name, _)| *name),
        }
    }

    pub(crate) fn views(&self, stats: &Stats) -> Vec<MessageView> {
        let view = |name, row: &Row| MessageView { name, handling: row.counts() };
        let first = self.first.map(|name| view(name, &stats.first));
        first.into_iter().chain(self.more.iter().map(|(name, row)| view(*name, row))).collect()
    }

    /// How many messages of all kinds together.
    pub(crate) fn handled(&self, stats: &Stats) -> u64 {
        stats.first.handled_count()
            + self.more.iter().map(|(_, row)| row.handled_count()).sum::<u64>()
    }

    pub(crate) fn total(&self, stats: &Stats) -> HandlingView {
        let mut total = stats.first.counts();
        for (_, row) in &self.more {
            total.add(&row.counts());
        }
        total
    }
}

/// What a life knows of its slot's kinds, by the names that its actor gives them. An actor that has
/// handled nothing has no room for it.
#[derive(Debug, Default)]
pub(crate) struct KnownKinds(Option<Box<Known>>);

#[derive(Debug, Default)]
struct Known {
    /// Name as given, name as shown, index.
    names: Vec<(&'static str, &'static str, usize)>,
    more: Vec<(&'static str, Arc<Row>)>,
}

impl KnownKinds {
    /// The index of a kind, for [`row`](Self::row), and its name as it is shown.
    pub(crate) fn find<M>(&mut self, cell: &SlotCell, name: &'static str) -> (usize, &'static str) {
        let known = self.0.get_or_insert_default();
        // One name is one constant, mostly; where it is not, the slot compares the text.
        let found = known.names.iter().find(|(given, _, _)| std::ptr::eq(*given, name));
        if let Some((_, shown, kind)) = found {
            return (*kind, *shown);
        }
        let shown = shown_name::<M>(name);
        let kind = cell.kinds(|kinds| {
            let kind = kinds.meet(shown);
            known.more.clone_from(&kinds.more);
            kind
        });
        // Bounded, also for an actor that makes up a name for each message.
        if known.names.len() < 2 * MAX_MESSAGE_KINDS {
            known.names.push((name, shown, kind));
        }
        (kind, shown)
    }

    #[inline]
    pub(crate) fn row<'a>(&'a self, kind: usize, stats: &'a Stats) -> &'a Row {
        let more = || self.0.as_ref()?.more.get(kind.checked_sub(1)?);
        match kind {
            0 => &stats.first,
            _ => more().map_or(&stats.first, |(_, row)| row),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beyond_the_bound_all_are_one() {
        let mut kinds = Kinds::default();
        let names: Vec<&'static str> =
            (0..40).map(|n| -> &'static str { format!("m{n}").leak() }).collect();
        let met: Vec<usize> = names.iter().map(|name| kinds.meet(name)).collect();
        assert_eq!(met[..3], [0, 1, 2]);
        assert_eq!(met[39], MAX_MESSAGE_KINDS);
        assert_eq!(kinds.name(MAX_MESSAGE_KINDS), Some(OTHER));
        assert_eq!(kinds.views(&Stats::default()).len(), MAX_MESSAGE_KINDS + 1);
        assert_eq!(kinds.meet("m1"), 1);
    }
}
