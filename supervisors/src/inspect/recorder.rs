//! The flight recorder: the last messages of an actor, for as long as somebody wants to know.
//!
//! Off, it costs a relaxed load a message. On, a message carries when and by whom it was sent, and
//! its life writes one line when it is done with it.

use std::collections::VecDeque;
use std::time::Duration;

use crate::error::ExitReason;
use crate::path::Path;

/// Messages that a recorder keeps.
pub const RECORDER_LENGTH: usize = 32;

/// One message that an actor had in hand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// When it was taken in hand: wall clock, microseconds since the Unix epoch.
    pub at_us: i64,
    /// Its name, as [`Actor::message_name`](crate::Actor::message_name) gives it.
    pub name: &'static str,
    /// The actor that sent it; `None` for a task that is no actor's, and when it was sent before
    /// the recorder was switched on.
    pub from: Option<Path>,
    /// How long it was in the mailbox, when it was sent with the recorder on.
    pub waited: Option<Duration>,
    /// How long it was in hand.
    pub handled_in: Duration,
    /// The life that had it.
    pub life: u64,
    /// What became of it.
    pub outcome: Handled,
}

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Handled {
    /// The handler returned.
    Ok,
    /// The handler returned an error.
    Failed,
    /// The handler panicked.
    Panicked,
    /// Its life was killed, or stopped, with the message in hand.
    Killed,
}

impl Handled {
    /// One word for JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Failed => "failed",
            Self::Panicked => "panicked",
            Self::Killed => "killed",
        }
    }

    pub(crate) fn of(end: &ExitReason) -> Self {
        match end {
            ExitReason::Error(_) => Self::Failed,
            ExitReason::Panic(_) => Self::Panicked,
            _ => Self::Killed,
        }
    }
}

/// When and by whom a message was sent.
#[derive(Debug)]
pub(crate) struct Sent {
    pub(crate) at_ns: u64,
    pub(crate) from: Option<Path>,
}

/// The ring of one slot.
#[derive(Debug, Default)]
pub(crate) struct Recorder(VecDeque<Recorded>);

impl Recorder {
    pub(crate) fn write(&mut self, line: Recorded) {
        if self.0.len() == RECORDER_LENGTH {
            self.0.pop_front();
        }
        self.0.push_back(line);
    }

    /// Oldest first.
    pub(crate) fn lines(&self) -> Vec<Recorded> {
        self.0.iter().cloned().collect()
    }
}
