//! What a slot is, and what it is doing.

use crate::error::ExitReason;
use crate::resilience::ErrorClass;
use crate::supervisor::{ComponentType, ReactionCell};

/// What a slot is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SlotState {
    /// A life is being started.
    Starting,
    /// A life handles messages.
    Up,
    /// The life was told to stop, or killed, and has not ended yet.
    Stopping,
    /// The next life waits for its backoff to run out.
    Backoff,
    /// The next life will be started as soon as its supervisor gets to it.
    Restarting,
    /// No life, and none is due: it ended, was terminated, or asked to be ignored.
    Down,
    /// Held by an operator or the API.
    Suspended,
    /// A life does not end although it was killed.
    Stuck,
}

impl SlotState {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 8] = [
        Self::Starting,
        Self::Up,
        Self::Stopping,
        Self::Backoff,
        Self::Restarting,
        Self::Down,
        Self::Suspended,
        Self::Stuck,
    ];

    /// One word for the tree and JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Up => "up",
            Self::Stopping => "stopping",
            Self::Backoff => "backoff",
            Self::Restarting => "restarting",
            Self::Down => "down",
            Self::Suspended => "suspended",
            Self::Stuck => "stuck",
        }
    }
}

/// The last thing that went wrong in a slot.
#[derive(Clone, Debug)]
pub struct FailureRecord {
    /// What the life died of.
    pub reason: ExitReason,
    /// Which life.
    pub life: u64,
    /// Wall clock, microseconds since the Unix epoch.
    pub at_us: i64,
    /// The kind of message that was in flight, if one was.
    pub message_in_hand: Option<&'static str>,
    /// The lifecycle event that reported it.
    pub seq: u64,
    /// The class of the error, where the reason is one.
    pub class: Option<ErrorClass>,
    /// What its supervisor did about it.
    pub decision: ReactionCell,
}

/// Failures that a slot remembers.
pub const FAILURES_KEPT: usize = 8;

/// What a slot is, fixed at its creation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SlotInfo {
    pub(crate) kind: SlotKind,
    pub(crate) component: Option<ComponentType>,
    pub(crate) actor_type: &'static str,
    pub(crate) message_type: &'static str,
}

/// What lives in a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SlotKind {
    /// An [`Actor`](crate::Actor).
    Actor,
    /// A supervisor with declared children.
    Supervisor,
    /// A supervisor whose children come and go.
    DynamicSupervisor,
    /// A raw ractor actor.
    Raw,
    /// A supervised future without a mailbox.
    Task,
}
