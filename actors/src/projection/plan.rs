//! Which documents the events of a page change: asked once of each event.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::kept::Kept;
use super::parked::ParkedSet;
use super::{Projection, partition_of};
use crate::event::RecordedEvent;
use crate::guarded::guarded;
use crate::store::read_model::documents::MAX_ID;

/// Up to so many ids of an event are compared with each other.
const FEW: usize = 16;

/// What is done with an event and one of its documents.
#[derive(Debug)]
pub(super) struct Target {
    /// The event's place in the page.
    pub(super) event: usize,
    pub(super) to: To,
}

#[derive(Debug)]
pub(super) enum To {
    /// It is applied to the document in a slot.
    Slot(usize),
    /// It waits behind what is parked.
    Wait(Arc<str>),
    /// It has no document that could be kept.
    Fault(Arc<str>, String),
}

/// Which partition of which number.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ours {
    pub(super) partition: u16,
    pub(super) partitions: u16,
}

impl Ours {
    pub(super) fn has(self, id: &str) -> bool {
        partition_of(id, self.partitions) == self.partition
    }
}

/// The ids of an event.
///
/// # Errors
/// The projection's code panicked.
pub(super) fn ids_of<P: Projection>(
    projection: &P,
    event: &RecordedEvent,
) -> Result<Vec<Arc<str>>, String> {
    guarded(|| projection.ids(event)).map_err(|reason| format!("`ids`: {reason}"))
}

/// An id that can be kept; or one that can, in its place, and what is wrong with it.
pub(super) fn kept_id(id: Arc<str>) -> Result<Arc<str>, (Arc<str>, String)> {
    if id.len() <= MAX_ID {
        return Ok(id);
    }
    let end = (0..=MAX_ID / 2).rev().find(|&end| id.is_char_boundary(end)).unwrap_or(0);
    let short = format!("{}… of {} bytes", &id[..end], id.len());
    Err((short.into(), format!("the id has {} bytes, {MAX_ID} at most", id.len())))
}

/// An event whose ids cannot be told.
pub(super) struct Unclear {
    pub(super) index: usize,
    pub(super) reason: String,
}

/// Documents of events, before those that are not here have been read.
pub(super) struct Wanted {
    targets: Vec<(usize, Arc<str>, Option<String>)>,
    pub(super) missing: Vec<Arc<str>>,
}

/// Asks for the documents of a page's events.
pub(super) fn wanted<P: Projection>(
    projection: &P,
    events: &[RecordedEvent],
    ours: Ours,
    kept: &mut Kept<P::Document>,
    parked: &ParkedSet,
) -> Result<Wanted, Unclear> {
    let mut wanted = Wanted { targets: Vec::with_capacity(events.len()), missing: Vec::new() };
    for (index, event) in events.iter().enumerate() {
        let ids = ids_of(projection, event).map_err(|reason| Unclear { index, reason })?;
        let first = wanted.targets.len();
        // An event comes to a document once, however often it is named.
        let mut named = (ids.len() > FEW).then(BTreeSet::new);
        for id in ids {
            let (id, fault) = match kept_id(id) {
                Ok(id) => (id, None),
                Err((id, fault)) => (id, Some(fault)),
            };
            let again = match &mut named {
                Some(named) => !named.insert(Arc::clone(&id)),
                None => wanted.targets[first..].iter().any(|(_, other, _)| *other == id),
            };
            if again || !ours.has(&id) {
                continue;
            }
            if fault.is_none() && !parked.contains(&id) && kept.find(&id).is_none() {
                wanted.missing.push(Arc::clone(&id));
            }
            wanted.targets.push((index, id, fault));
        }
    }
    wanted.missing.sort_unstable();
    wanted.missing.dedup();
    Ok(wanted)
}

impl Wanted {
    /// What is to be done, in order, once the missing documents are here.
    pub(super) fn targets<D>(self, kept: &mut Kept<D>, parked: &ParkedSet) -> Vec<Target> {
        let target = |(event, id, fault): (usize, Arc<str>, Option<String>)| {
            let to = match fault {
                _ if parked.contains(&id) => To::Wait(id),
                Some(fault) => To::Fault(id, fault),
                None => To::Slot(kept.find(&id).expect("it was kept, or has been loaded")),
            };
            Target { event, to }
        };
        self.targets.into_iter().map(target).collect()
    }
}
