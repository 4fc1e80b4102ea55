//! The projection that every node has: one document a stream.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Projection, ProjectionFault};
use crate::event::{Position, RecordedEvent, Timestamp};

/// What is known of one stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamSummary {
    /// How many events it has.
    pub events: u64,
    /// The earliest time of its events.
    pub first_at: Timestamp,
    /// The latest time of its events.
    pub last_at: Timestamp,
    /// How many events of each type it has.
    pub by_type: BTreeMap<Arc<str>, u64>,
    /// The last event's place in the log.
    pub last_position: Position,
}

/// One [`StreamSummary`] for each stream, by its name.
#[derive(Debug, Clone, Copy, Default)]
pub struct Streams;

impl Projection for Streams {
    type Document = StreamSummary;
    const NAME: &'static str = "streams";

    fn ids(&self, event: &RecordedEvent) -> Vec<Arc<str>> {
        vec![event.stream.to_shared()]
    }

    fn apply(
        &self,
        event: &RecordedEvent,
        _: &str,
        summary: Option<StreamSummary>,
    ) -> Result<Option<StreamSummary>, ProjectionFault> {
        let mut summary = summary.unwrap_or_else(|| StreamSummary {
            events: 0,
            first_at: event.recorded_at,
            last_at: event.recorded_at,
            by_type: BTreeMap::new(),
            last_position: event.position,
        });
        summary.events += 1;
        summary.first_at = summary.first_at.min(event.recorded_at);
        summary.last_at = summary.last_at.max(event.recorded_at);
        match summary.by_type.get_mut(&event.event_type) {
            Some(count) => *count += 1,
            None => drop(summary.by_type.insert(Arc::clone(&event.event_type), 1)),
        }
        summary.last_position = event.position;
        Ok(Some(summary))
    }
}
