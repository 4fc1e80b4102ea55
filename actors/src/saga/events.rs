//! What happens to sagas: the events of their streams.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::event::{Event, Timestamp};

/// What happened to a saga.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum SagaEvent {
    /// It was begun.
    #[serde(rename = "saga.started")]
    Started {
        /// The saga's kind.
        name: String,
        /// The version of its definition.
        version: u32,
        /// What it works on.
        data: Value,
        /// By when all steps must be done, or those that are will be undone.
        deadline: Option<Timestamp>,
    },
    /// A step is about to run. It may have had its effect from here on.
    #[serde(rename = "saga.step_started")]
    StepStarted {
        /// The step.
        step: String,
        /// Which try.
        attempt: u32,
    },
    /// A step was confirmed. It never runs again.
    #[serde(rename = "saga.step_completed")]
    StepCompleted {
        /// The step.
        step: String,
        /// What the saga works on from now on.
        data: Value,
    },
    /// A try of a step did not work.
    #[serde(rename = "saga.step_failed")]
    StepFailed {
        /// The step.
        step: String,
        /// Which try.
        attempt: u32,
        /// Why.
        reason: String,
        /// Whether it may have had its effect all the same.
        unknown: bool,
        /// When it is tried again; never if there is no time.
        retry_at: Option<Timestamp>,
    },
    /// From now on what was done is undone, the last step first.
    #[serde(rename = "saga.compensating")]
    Compensating {
        /// Why.
        reason: String,
    },
    /// A step is about to be undone.
    #[serde(rename = "saga.compensation_started")]
    CompensationStarted {
        /// The step.
        step: String,
        /// Which try.
        attempt: u32,
    },
    /// A step was undone.
    #[serde(rename = "saga.compensation_completed")]
    CompensationCompleted {
        /// The step.
        step: String,
    },
    /// A try to undo a step did not work.
    #[serde(rename = "saga.compensation_failed")]
    CompensationFailed {
        /// The step.
        step: String,
        /// Which try.
        attempt: u32,
        /// Why.
        reason: String,
        /// When it is tried again.
        retry_at: Option<Timestamp>,
    },
    /// It stands still until a person decides.
    #[serde(rename = "saga.parked")]
    Parked {
        /// Why.
        reason: String,
    },
    /// A person lets it go on.
    #[serde(rename = "saga.resumed")]
    Resumed {
        /// Who.
        by: String,
    },
    /// A person wants it undone.
    #[serde(rename = "saga.abort_requested")]
    AbortRequested {
        /// Who.
        by: String,
        /// Why.
        reason: String,
    },
    /// All steps are done.
    #[serde(rename = "saga.completed")]
    Completed {},
    /// Everything is undone.
    #[serde(rename = "saga.compensated")]
    Compensated {},
}

impl Event for SagaEvent {}

impl SagaEvent {
    /// Whether something is about to run.
    pub(super) const fn begins(&self) -> bool {
        matches!(self, Self::StepStarted { .. } | Self::CompensationStarted { .. })
    }

    /// The event without what the saga works on.
    pub(super) fn outline(&self) -> Self {
        match self {
            Self::StepCompleted { step, .. } => {
                Self::StepCompleted { step: step.clone(), data: Value::Null }
            }
            other => other.clone(),
        }
    }
}

/// What is written when a try of a step did not work: without another one, the way back begins.
pub(super) fn failed(
    step: String,
    attempt: u32,
    reason: String,
    unknown: bool,
    retry_at: Option<Timestamp>,
) -> Vec<SagaEvent> {
    let back = SagaEvent::Compensating { reason: format!("step {step}: {reason}") };
    let mut events = vec![SagaEvent::StepFailed { step, attempt, reason, unknown, retry_at }];
    if retry_at.is_none() {
        events.push(back);
    }
    events
}
