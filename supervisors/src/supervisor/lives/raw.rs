//! Ends of raw ractor actors: they report to ractor, and ractor to us.

use std::collections::BTreeMap;

use ractor::{ActorCell, ActorId};

use crate::error::{ExitReason, Failure};
use crate::supervisor::SupervisorMessage;
use crate::supervisor::lives::Lives;
use crate::supervisor::orders::Key;

/// What ractor says about an end.
#[derive(Clone, Debug)]
pub(crate) enum RawEnd {
    Terminated(Option<String>),
    Failed(String),
}

/// Raw ractor actors report to ractor, not to us.
#[derive(Default)]
pub(super) struct RawActors {
    pub(super) by_actor: BTreeMap<ActorId, (Key, u64)>,
    /// Ends that arrived before the report of the start.
    pub(super) early: BTreeMap<ActorId, ExitReason>,
}

impl Lives {
    /// ractor says that an actor of its own has ended.
    pub(crate) fn raw_ended(&mut self, actor: &ActorCell, end: RawEnd) {
        // Our supervisors report themselves.
        if actor.is_message_type_of::<SupervisorMessage>() == Some(true) {
            return;
        }
        let id = actor.get_id();
        let known = self.raw.by_actor.remove(&id);
        let stopping = known
            .is_some_and(|(key, _)| self.children.get(&key).is_some_and(|child| child.stopping));
        let reason = match end {
            RawEnd::Terminated(Some(word)) if word == "killed" => ExitReason::Killed,
            RawEnd::Terminated(_) if stopping => ExitReason::Shutdown,
            RawEnd::Terminated(_) => ExitReason::Normal,
            RawEnd::Failed(text) => ExitReason::Error(Failure::permanent(text)),
        };
        match known {
            Some((key, life)) => {
                let message = SupervisorMessage::Ended { key, life, reason };
                let _ = self.myself.send_message(message);
            }
            // Its start is reported by now, or was taken back: then nobody waits for the end.
            None if self.children.values().any(|child| child.starting) => {
                self.raw.early.insert(id, reason);
            }
            None => self.raw.early.clear(),
        }
    }
}
