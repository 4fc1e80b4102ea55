//! One try of a step: run beside the actor, behind the guard, within its time.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt;
use mister_smith_supervisors::{Context, TaskGuard};
use serde_json::Value;

use super::{SagaActor, SagaMessage};
use crate::event::EventId;
use crate::guarded::text_of;
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
    _task: TaskGuard,
}

impl Running {
    pub(super) fn begin(
        begun: EventId,
        (step, undo): (usize, bool),
        definition: &Arc<dyn Definition>,
        context: StepContext<Value>,
        cx: &Context<SagaActor>,
    ) -> Self {
        let definition = Arc::clone(definition);
        let (attempt, timeout) = (context.attempt, definition.timeout(step));
        let task = cx.spawn_tell(async move {
            let running = async {
                match undo {
                    true => definition.undo(step, context).await.map(|()| None),
                    false => definition.run(step, context).await.map(Some),
                }
            };
            let result = tokio::time::timeout(timeout, AssertUnwindSafe(running).catch_unwind());
            let result = match result.await {
                Ok(Ok(result)) => result.map_err(Trouble::from),
                Ok(Err(panic)) => Err(Trouble::unknown(format!("it panicked: {}", text_of(panic)))),
                Err(_) => Err(Trouble::unknown(format!("it took longer than {timeout:?}"))),
            };
            SagaMessage::Ended(Box::new(Ended { begun, result }))
        });
        Self { begun, step, attempt, undo, _task: task }
    }
}
