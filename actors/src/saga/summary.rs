//! The sagas as a read model: what is listed, and what a manager finds when it starts.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::events::SagaEvent;
use super::state::SagaStatus;
use super::{CATEGORY, parts_of};
use crate::event::{Event, RecordedEvent, Timestamp};
use crate::projection::{EventFilter, Projection, ProjectionFault};

/// What changes where a saga stands, or when it goes on. That a step begins or is done does not, and
/// costs no document: a saga's own page says where it is.
const TYPES: [&str; 9] = [
    "saga.started",
    "saga.step_failed",
    "saga.compensating",
    "saga.compensation_failed",
    "saga.parked",
    "saga.resumed",
    "saga.abort_requested",
    "saga.completed",
    "saga.compensated",
];

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
    /// The step that did not work last.
    pub step: Option<String>,
    /// What was wrong last, or why it is undone or parked.
    pub reason: Option<String>,
    /// Until when it waits, after a step that did not work; once that is over it has gone on.
    pub wake_at: Option<Timestamp>,
    /// By when all steps must be done.
    pub deadline: Option<Timestamp>,
    /// When it was begun.
    pub started_at: Timestamp,
    /// When this changed last.
    pub last_at: Timestamp,
    /// It is on its way back; unknown where a program of before wrote this.
    #[serde(default)]
    pub(super) undoing: Option<bool>,
}

impl SagaSummary {
    /// When it goes on by itself, if it waits.
    pub(super) fn goes_on_at(&self) -> Option<Timestamp> {
        match self.status {
            SagaStatus::Running => {
                self.wake_at.map(|at| self.deadline.map_or(at, |deadline| deadline.min(at)))
            }
            _ => self.wake_at,
        }
    }

    fn is_undoing(&self) -> bool {
        // Where that was not written down, the reason tells it in all cases but a definition that
        // is missing.
        self.undoing.unwrap_or_else(|| match self.status {
            SagaStatus::Parked => {
                self.reason.as_ref().is_some_and(|reason| reason.contains("cannot be undone"))
            }
            status => status == SagaStatus::Compensating,
        })
    }
}

/// All sagas, by the name of their stream.
#[derive(Debug, Clone, Copy, Default)]
pub struct OpenSagas;

impl Projection for OpenSagas {
    type Document = SagaSummary;
    const NAME: &'static str = "sagas";

    fn filter(&self) -> EventFilter {
        EventFilter::ALL.categories([CATEGORY]).types(TYPES)
    }

    fn ids(&self, event: &RecordedEvent) -> Vec<Arc<str>> {
        match event.stream.category() == CATEGORY && TYPES.contains(&&*event.event_type) {
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
                undoing: Some(false),
            }));
        }
        // A stream of that category that did not begin as a saga is none of ours.
        let Some(mut summary) = summary else { return Ok(None) };
        summary.last_at = at;
        summary.wake_at = None;
        match happened {
            SagaEvent::Started { .. }
            | SagaEvent::StepStarted { .. }
            | SagaEvent::StepCompleted { .. }
            | SagaEvent::CompensationStarted { .. }
            | SagaEvent::CompensationCompleted { .. } => {}
            SagaEvent::StepFailed { step, reason, retry_at, .. }
            | SagaEvent::CompensationFailed { step, reason, retry_at, .. } => {
                summary.step = Some(step);
                summary.reason = Some(reason);
                summary.wake_at = retry_at;
            }
            SagaEvent::Compensating { reason } | SagaEvent::AbortRequested { reason, .. } => {
                summary.status = SagaStatus::Compensating;
                summary.reason = Some(reason);
                summary.undoing = Some(true);
            }
            SagaEvent::Parked { reason } => {
                summary.undoing = Some(summary.is_undoing());
                summary.status = SagaStatus::Parked;
                summary.reason = Some(reason);
            }
            SagaEvent::Resumed { .. } => {
                let undoing = summary.is_undoing();
                summary.undoing = Some(undoing);
                summary.status = match undoing {
                    true => SagaStatus::Compensating,
                    false => SagaStatus::Running,
                };
            }
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
