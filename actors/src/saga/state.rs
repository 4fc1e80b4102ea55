//! A saga as its events make it, and what comes next: pure, without clock, store or task.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::events::{SagaEvent, failed};
use crate::event::Timestamp;

/// Where a saga stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum SagaStatus {
    /// There is none.
    #[default]
    None,
    /// Its steps are run.
    Running,
    /// Its steps are undone.
    Compensating,
    /// It waits for a person.
    Parked,
    /// All steps are done.
    Completed,
    /// Everything is undone.
    Compensated,
}

impl SagaStatus {
    /// Whether nothing more will happen to it.
    #[must_use]
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Completed | Self::Compensated)
    }
}

/// Where a step stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum StepStatus {
    /// It runs, or did when its life ended.
    Running,
    /// It is tried again at this time.
    Waiting(Timestamp),
    /// It was confirmed.
    Done,
    /// It did not work, and is not tried again.
    Failed,
    /// It is being undone, or was when its life ended.
    Undoing,
    /// Undoing it is tried again at this time.
    UndoWaiting(Timestamp),
    /// Undoing it did not work, and is not tried again by itself.
    UndoFailed,
    /// It was undone.
    Undone,
}

/// One step of a saga.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct StepState {
    /// Its name.
    pub name: String,
    /// Where it stands.
    pub status: StepStatus,
    /// How often it was tried.
    pub attempts: u32,
    /// How often undoing it was tried.
    pub undo_attempts: u32,
    /// It may have had its effect: it was confirmed, or one does not know.
    pub effect: bool,
    /// What was wrong the last time.
    pub reason: Option<String>,
}

/// A saga's state.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SagaState {
    /// Its kind.
    pub name: String,
    /// The version of its definition.
    pub version: u32,
    /// What it works on.
    pub data: Value,
    /// Where it stands.
    pub status: SagaStatus,
    /// The steps that have begun, in their order.
    pub steps: Vec<StepState>,
    /// By when all steps must be done.
    pub deadline: Option<Timestamp>,
    /// Why it is undone or parked.
    pub reason: Option<String>,
    /// It is parked on the way back.
    pub undoing: bool,
}

/// What is known of a step before it has run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepShape {
    /// Its name.
    pub name: String,
    /// Whether it can be undone. One that cannot is left as it is.
    pub undoable: bool,
    /// How often it is tried, at most.
    pub attempts: u32,
    /// How often undoing it is tried, at most.
    pub undo_attempts: u32,
}

/// What comes next.
#[derive(Debug, Clone, PartialEq)]
pub enum Next {
    /// Run a step.
    Run {
        /// The step's place.
        step: usize,
        /// Which try.
        attempt: u32,
    },
    /// Undo a step.
    Undo {
        /// The step's place.
        step: usize,
        /// Which try.
        attempt: u32,
    },
    /// Write this down.
    Record(SagaEvent),
    /// Wait until then.
    Wait(Timestamp),
    /// Nothing, by itself.
    Rest,
}

impl SagaState {
    /// The state after an event.
    pub fn evolve(&mut self, event: SagaEvent) {
        match event {
            SagaEvent::Started { name, version, data, deadline } => {
                *self = Self { name, version, data, deadline, ..Self::default() };
                self.status = SagaStatus::Running;
            }
            SagaEvent::StepStarted { step, attempt } => {
                let step = self.step(step);
                step.status = StepStatus::Running;
                step.attempts = attempt;
            }
            SagaEvent::StepCompleted { step, data } => {
                self.data = data;
                let step = self.step(step);
                step.status = StepStatus::Done;
                step.effect = true;
                step.reason = None;
            }
            SagaEvent::StepFailed { step, reason, unknown, retry_at, .. } => {
                let step = self.step(step);
                step.effect |= unknown;
                step.reason = Some(reason);
                step.status = retry_at.map_or(StepStatus::Failed, StepStatus::Waiting);
            }
            SagaEvent::Compensating { reason } => {
                self.status = SagaStatus::Compensating;
                self.undoing = true;
                self.reason = Some(reason);
                self.interrupted();
            }
            SagaEvent::CompensationStarted { step, attempt } => {
                let step = self.step(step);
                step.status = StepStatus::Undoing;
                step.undo_attempts = attempt;
            }
            SagaEvent::CompensationCompleted { step } => {
                let step = self.step(step);
                step.status = StepStatus::Undone;
                step.reason = None;
            }
            SagaEvent::CompensationFailed { step, reason, retry_at, .. } => {
                let step = self.step(step);
                step.reason = Some(reason);
                step.status = retry_at.map_or(StepStatus::UndoFailed, StepStatus::UndoWaiting);
            }
            SagaEvent::Parked { reason } => {
                self.status = SagaStatus::Parked;
                self.reason = Some(reason);
            }
            SagaEvent::Resumed { .. } => self.resume(),
            SagaEvent::AbortRequested { by, reason } => {
                self.status = SagaStatus::Compensating;
                self.undoing = true;
                self.reason = Some(format!("{reason} (by {by})"));
                self.interrupted();
            }
            SagaEvent::Completed {} => self.status = SagaStatus::Completed,
            SagaEvent::Compensated {} => self.status = SagaStatus::Compensated,
        }
    }

    /// A step that was running when the way back began may have had its effect.
    fn interrupted(&mut self) {
        for step in &mut self.steps {
            if step.status == StepStatus::Running {
                step.effect = true;
                step.status = StepStatus::Failed;
            }
            if let StepStatus::Waiting(_) = step.status {
                step.status = StepStatus::Failed;
            }
        }
    }

    /// What waits or has failed begins anew, with all its tries.
    fn resume(&mut self) {
        self.status = match self.undoing {
            true => SagaStatus::Compensating,
            false => SagaStatus::Running,
        };
        for step in &mut self.steps {
            match step.status {
                StepStatus::UndoFailed | StepStatus::UndoWaiting(_) => {
                    step.undo_attempts = 0;
                    step.status = StepStatus::UndoWaiting(Timestamp::from_micros(0));
                }
                StepStatus::Waiting(_) => {
                    step.attempts = 0;
                    step.status = StepStatus::Waiting(Timestamp::from_micros(0));
                }
                _ => {}
            }
        }
    }

    fn step(&mut self, name: String) -> &mut StepState {
        let at = self.steps.iter().position(|step| step.name == name).unwrap_or_else(|| {
            self.steps.push(StepState {
                name,
                status: StepStatus::Running,
                attempts: 0,
                undo_attempts: 0,
                effect: false,
                reason: None,
            });
            self.steps.len() - 1
        });
        &mut self.steps[at]
    }

    fn find(&self, name: &str) -> Option<&StepState> {
        self.steps.iter().find(|step| step.name == name)
    }

    /// Why it cannot go on with these steps, if it cannot: it has begun others.
    #[must_use]
    pub fn misfit(&self, shape: &[StepShape]) -> Option<String> {
        let mut wanted = shape.iter();
        self.steps
            .iter()
            .find(|step| wanted.next().is_none_or(|wanted| wanted.name != step.name))
            .map(|step| format!("it has begun step {}, which is not there in its place", step.name))
    }

    /// The events that tell what is unknown: the life before ended while a step ran. It was a try
    /// as any other, so that a step that ends the process ends by its policy; if there are tries
    /// left, it is tried again at once. Nothing if the deadline has passed: the way back says it.
    #[must_use]
    pub fn orphan(&self, shape: &[StepShape], now: Timestamp) -> Vec<SagaEvent> {
        let interrupted =
            |step: &&StepState| matches!(step.status, StepStatus::Running | StepStatus::Undoing);
        let Some(StepState { name, status, attempts, undo_attempts, .. }) =
            self.steps.iter().find(interrupted).filter(|_| !self.is_overdue(now))
        else {
            return Vec::new();
        };
        let shape = shape.iter().find(|shape| shape.name == *name);
        let again = |tries: u32, most: Option<u32>| (tries < most.unwrap_or(1)).then_some(now);
        let (step, reason) = (name.clone(), "the saga was interrupted while it ran".to_owned());
        match status {
            StepStatus::Running => {
                let retry_at = again(*attempts, shape.map(|shape| shape.attempts));
                failed(step, *attempts, reason, true, retry_at)
            }
            _ => {
                let (attempt, most) = (*undo_attempts, shape.map(|shape| shape.undo_attempts));
                let retry_at = again(attempt, most);
                vec![SagaEvent::CompensationFailed { step, attempt, reason, retry_at }]
            }
        }
    }

    /// Whether steps are still to be done, and the time for it is over.
    #[must_use]
    pub fn is_overdue(&self, now: Timestamp) -> bool {
        self.status == SagaStatus::Running && self.deadline.is_some_and(|deadline| deadline <= now)
    }

    /// Everything that can be written down together, after `first`: up to where a step is to run,
    /// whose beginning is the last of it then, or where something has to be waited for.
    #[must_use]
    pub fn plan(
        &self,
        first: Vec<SagaEvent>,
        shape: &[StepShape],
        now: Timestamp,
    ) -> Vec<SagaEvent> {
        let mut state = self.outline();
        first.iter().for_each(|event| state.evolve(event.outline()));
        let mut events = first;
        loop {
            let event = match state.next(shape, now) {
                Next::Record(event) => event,
                Next::Run { step, attempt } => {
                    SagaEvent::StepStarted { step: shape[step].name.clone(), attempt }
                }
                Next::Undo { step, attempt } => {
                    SagaEvent::CompensationStarted { step: shape[step].name.clone(), attempt }
                }
                Next::Wait(_) | Next::Rest => return events,
            };
            state.evolve(event.clone());
            let begins = event.begins();
            events.push(event);
            if begins {
                return events;
            }
        }
    }

    /// The state without what it works on, which decides nothing and may be large.
    fn outline(&self) -> Self {
        Self {
            name: self.name.clone(),
            version: self.version,
            data: Value::Null,
            status: self.status,
            steps: self.steps.clone(),
            deadline: self.deadline,
            reason: None,
            undoing: self.undoing,
        }
    }

    /// What comes next. Nothing runs when this is asked; see [`orphan`](Self::orphan).
    #[must_use]
    pub fn next(&self, shape: &[StepShape], now: Timestamp) -> Next {
        match self.status {
            SagaStatus::Running => self.next_step(shape, now),
            SagaStatus::Compensating => self.next_undo(shape, now),
            _ => Next::Rest,
        }
    }

    fn next_step(&self, shape: &[StepShape], now: Timestamp) -> Next {
        // What is done in time is done, however late that is noticed.
        let done = |wanted: &StepShape| {
            self.find(&wanted.name).is_some_and(|step| step.status == StepStatus::Done)
        };
        if shape.iter().all(done) {
            return Next::Record(SagaEvent::Completed {});
        }
        if let Some(deadline) = self.deadline.filter(|deadline| *deadline <= now) {
            let reason = format!("its deadline ({deadline}) has passed");
            return Next::Record(SagaEvent::Compensating { reason });
        }
        for (place, wanted) in shape.iter().enumerate() {
            match self.find(&wanted.name) {
                None => return Next::Run { step: place, attempt: 1 },
                Some(step) => match step.status {
                    StepStatus::Done => {}
                    StepStatus::Waiting(at) if at > now => {
                        return Next::Wait(self.deadline.map_or(at, |deadline| deadline.min(at)));
                    }
                    StepStatus::Waiting(_) => {
                        return Next::Run { step: place, attempt: step.attempts + 1 };
                    }
                    _ => return Next::Rest,
                },
            }
        }
        Next::Record(SagaEvent::Completed {})
    }

    fn next_undo(&self, shape: &[StepShape], now: Timestamp) -> Next {
        for (place, wanted) in shape.iter().enumerate().rev() {
            let Some(step) = self.find(&wanted.name) else { continue };
            if !wanted.undoable || !step.effect {
                continue;
            }
            match step.status {
                StepStatus::Undone => {}
                StepStatus::UndoWaiting(at) if at > now => return Next::Wait(at),
                StepStatus::Undoing => return Next::Rest,
                StepStatus::UndoFailed => {
                    let why = step.reason.clone().unwrap_or_default();
                    let reason = format!("step {} cannot be undone: {why}", step.name);
                    return Next::Record(SagaEvent::Parked { reason });
                }
                _ => return Next::Undo { step: place, attempt: step.undo_attempts + 1 },
            }
        }
        Next::Record(SagaEvent::Compensated {})
    }
}
