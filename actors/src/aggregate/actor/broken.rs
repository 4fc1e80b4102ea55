//! A life without a state: what it says, and to whom.
//!
//! A start that fails for good is no crash: a supervisor could only try on and on, and who asks
//! would wait for its deadline. So the life begins, answers all that wait with the reason, and ends.
//! Whatever mends the stream is seen by the next command, which begins another life.

use std::sync::Arc;
use std::time::Duration;

use mister_smith_supervisors::{Context, ExitReason, Failure, Path, SupervisorError};

use super::{AggregateActor, AggregateMessage};
use crate::aggregate::{Aggregate, Unreadable};
use crate::command::CommandError;
use crate::store::notes::Owned;

/// How long it waits for the command that it was started for.
const PATIENCE: Duration = Duration::from_millis(100);

/// How long a life without a state waits for somebody to answer. One that was restarted has those
/// that wait already: it must not be there for who comes when the stream is mended.
pub(super) const fn patience(life: u64) -> Duration {
    if life == 1 { PATIENCE } else { Duration::ZERO }
}

/// What a failure that no try mends is to who asks.
pub(super) fn why_not(path: &Path, failure: Failure) -> CommandError {
    if let Some(unreadable) = Unreadable::of(&failure) {
        return CommandError::Unreadable(Arc::new(unreadable.clone()));
    }
    if let Some(owned) = failure.source().and_then(|source| source.downcast_ref::<Owned>()) {
        return CommandError::Invalid(Arc::new(owned.clone().into()));
    }
    SupervisorError::StartFailed { path: path.clone(), reason: ExitReason::Error(failure) }.into()
}

/// Answers this message and all that wait, and ends.
pub(super) fn answer_all<A: Aggregate>(
    message: AggregateMessage<A>,
    error: &CommandError,
    cx: &mut Context<AggregateActor<A>>,
) {
    let mut next = Some(message);
    while let Some(message) = next {
        match message {
            AggregateMessage::Execute(request) => request.answer(Err(error.clone())),
            AggregateMessage::Look(look) => (look.look)(Err(error.clone())),
            // Of this actor to itself.
            _ => {}
        }
        next = cx.next_waiting();
    }
    cx.stop();
}
