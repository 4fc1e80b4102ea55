//! The sagas as a read model: what is listed, and what a manager finds when it starts.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::state::{SagaEvent, SagaStatus};
use super::{CATEGORY, parts_of};
use crate::event::{Event, RecordedEvent, Timestamp};
use crate::projection::{EventFilter, Projection, ProjectionFault};

/// A saga as it is listed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SagaSummary {
    /// Its kind.
    pub name: String,
    /// Its id.
    pub id: String,
    /// Where it stands.
    pub status: SagaStatus,
    /// Something more will happen to it: it is neither completed nor undone.
    pub open: bool,
    /// The step that it is at.
    pub step: Option<String>,
    /// What was wrong last, or why it is undone or parked.
    pub reason: Option<String>,
    /// When it goes on, if it waits.
    pub wake_at: Option<Timestamp>,
    /// By when all steps must be done.
    pub deadline: Option<Timestamp>,
    /// When it was begun.
    pub started_at: Timestamp,
    /// When something happened to it last.
    pub last_at: Timestamp,
}

/// All sagas, by the name of their stream.
#[derive(Debug, Clone, Copy, Default)]
pub struct OpenSagas;

impl Projection for OpenSagas {
    type Document = SagaSummary;
    const NAME: &'static str = "sagas";

    fn filter(&self) -> EventFilter {
        EventFilter::ALL.categories([CATEGORY])
    }

    fn ids(&self, event: &RecordedEvent) -> Vec<Arc<str>> {
        match event.stream.category() == CATEGORY && event.event_type.starts_with("saga.") {
            true => vec![event.stream.to_shared()],
            false => Vec::new(),
        }
    }

    fn apply(
        &self,
        event: &RecordedEvent,
        _: &str,
        summary: Option<SagaSummary>,
    ) -> Result<Option<SagaSummary>, ProjectionFault> {
        let RecordedEvent { event_type, schema_version, codec, data, .. } = event;
        let happened = SagaEvent::decode(event_type, *schema_version, *codec, data)?;
        let at = event.recorded_at;
        if let SagaEvent::Started { name, deadline, .. } = happened {
            let id = parts_of(&event.stream).map_or("", |(_, id)| id).to_owned();
            return Ok(Some(SagaSummary {
                name,
                id,
                status: SagaStatus::Running,
                open: true,
                step: None,
                reason: None,
                wake_at: None,
                deadline,
                started_at: at,
                last_at: at,
            }));
        }
        // A stream of that category that did not begin as a saga is none of ours.
        let Some(mut summary) = summary else { return Ok(None) };
        summary.last_at = at;
        summary.wake_at = None;
        match happened {
            SagaEvent::Started { .. } => {}
            SagaEvent::StepStarted { step, .. } | SagaEvent::CompensationStarted { step, .. } => {
                summary.step = Some(step);
            }
            SagaEvent::StepCompleted { .. } | SagaEvent::CompensationCompleted { .. } => {
                summary.step = None;
            }
            SagaEvent::StepFailed { step, reason, retry_at, .. }
            | SagaEvent::CompensationFailed { step, reason, retry_at, .. } => {
                summary.step = Some(step);
                summary.reason = Some(reason);
                summary.wake_at = retry_at;
            }
            SagaEvent::Compensating { reason } | SagaEvent::AbortRequested { reason, .. } => {
                summary.status = SagaStatus::Compensating;
                summary.reason = Some(reason);
            }
            SagaEvent::Parked { reason } => {
                summary.status = SagaStatus::Parked;
                summary.reason = Some(reason);
            }
            // The actor says where it goes on with its next event.
            SagaEvent::Resumed { .. } => summary.status = SagaStatus::Running,
            SagaEvent::Completed {} => {
                summary.status = SagaStatus::Completed;
                summary.open = false;
                summary.reason = None;
            }
            SagaEvent::Compensated {} => {
                summary.status = SagaStatus::Compensated;
                summary.open = false;
            }
        }
        Ok(Some(summary))
    }
}
