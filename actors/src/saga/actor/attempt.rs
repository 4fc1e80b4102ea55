//! One try of a step: run beside the actor, behind the guard, within its time.

use std::sync::Arc;

use futures_util::{FutureExt, TryFutureExt};
use mister_smith_supervisors::{Context, TaskGuard};
use serde_json::Value;

use super::{SagaActor, SagaMessage};
use crate::event::EventId;
use crate::guarded::{Broken, guarded_within};
use crate::saga::{Definition, StepContext, StepError};

/// A reason is shown in lists; what is longer is cut.
const LONGEST_REASON: usize = 2_000;

/// What came of a try.
#[derive(Debug)]
pub struct Ended {
    /// The event that began it.
    pub(super) begun: EventId,
    pub(super) result: Result<Option<Value>, Trouble>,
}

/// Why a try did not work.
#[derive(Debug)]
pub(super) struct Trouble {
    pub(super) reason: String,
    /// It may work another time.
    pub(super) retry: bool,
    /// It may have had its effect.
    pub(super) unknown: bool,
}

impl Trouble {
    pub(super) fn unknown(reason: String) -> Self {
        Self { reason: kept(reason), retry: true, unknown: true }
    }
}

impl From<StepError> for Trouble {
    fn from(error: StepError) -> Self {
        Self { reason: kept(error.reason), retry: error.retry, unknown: error.retry }
    }
}

/// A reason as every store can keep it: PostgreSQL's documents take no NUL.
fn kept(mut reason: String) -> String {
    if let Some((end, _)) = reason.char_indices().nth(LONGEST_REASON) {
        reason.truncate(end);
        reason.push('…');
    }
    match reason.contains('\0') {
        true => reason.replace('\0', "\u{fffd}"),
        false => reason,
    }
}

/// The try that runs. Dropping it gives it up.
pub(super) struct Running {
    /// The event that began it.
    pub(super) begun: EventId,
    pub(super) step: usize,
    pub(super) attempt: u32,
    pub(super) undo: bool,
    _task: Option<TaskGuard>,
}

impl Running {
    /// Begins a try. One that is done at once costs no task, and its result is answered too.
    pub(super) fn begin(
        begun: EventId,
        (step, undo): (usize, bool),
        definition: &Arc<dyn Definition>,
        context: StepContext<Value>,
        cx: &Context<SagaActor>,
    ) -> (Self, Option<Ended>) {
        let definition = Arc::clone(definition);
        let (attempt, timeout) = (context.attempt, definition.timeout(step));
        let mut running = async move {
            let make = || match undo {
                true => definition.undo(step, context).map_ok(|()| None).left_future(),
                false => definition.run(step, context).map_ok(Some).right_future(),
            };
            let result = match guarded_within(timeout, make, || ()).await {
                Ok(result) => result.map_err(Trouble::from),
                Err(Broken::Panicked(text)) => {
                    let text = text.strip_prefix("panic: ").unwrap_or(&text);
                    Err(Trouble::unknown(format!("it panicked: {text}")))
                }
                Err(late @ Broken::Late(_)) => Err(Trouble::unknown(late.to_string())),
            };
            Ended { begun, result }
        }
        .boxed();
        let ended = (&mut running).now_or_never();
        let task = ended
            .is_none()
            .then(|| cx.spawn_tell(async move { SagaMessage::Ended(Box::new(running.await)) }));
        (Self { begun, step, attempt, undo, _task: task }, ended)
    }
}
