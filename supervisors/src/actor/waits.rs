//! Whom an actor waits for, as the table of questions has it.

use std::time::Duration;

use crate::actor::cell::SlotCell;
use crate::path::Path;

/// What an actor waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WaitView {
    /// Whose answer.
    pub on: Path,
    /// To which message.
    pub message: &'static str,
    /// For how long.
    pub waiting: Duration,
}

impl SlotCell {
    /// What it waits for now.
    pub(crate) fn waits(&self) -> Vec<WaitView> {
        if !self.is_waiting() {
            return Vec::new();
        }
        let now = self.env.clock.ticks_ns();
        let mut waits = Vec::new();
        self.env.asks.of_actors(|asker, question| {
            if *asker == self.path {
                waits.push(WaitView {
                    on: question.asked.cell().path.clone(),
                    message: question.message,
                    waiting: Duration::from_nanos(now.saturating_sub(question.since)),
                });
            }
        });
        waits.sort_by_key(|wait| std::cmp::Reverse(wait.waiting));
        waits
    }
}
