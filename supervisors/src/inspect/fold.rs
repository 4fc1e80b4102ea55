//! The tree as it was: a fold over lifecycle events.
//!
//! Pure, so it does for events that were stored as well as for those in memory.

use std::collections::BTreeMap;

use crate::actor::{SlotKind, SlotState};
use crate::lifecycle::{LifecycleEvent, LifecycleKind};
use crate::path::Path;

/// A slot at some moment of the past.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PastNode {
    /// Where it stood.
    pub path: Path,
    /// What lived there.
    pub kind: SlotKind,
    /// What it was doing.
    pub state: SlotState,
    /// The number of its life then, or of the last one before.
    pub life: u64,
    /// How often it had been restarted, as far as the events say.
    pub restarts: u64,
    /// Not from events before that moment, but from what happened to it next.
    pub guessed: bool,
}

/// The tree at some moment of the past, by path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PastTree {
    /// The last event that is in it.
    pub seq: u64,
    /// When that was, microseconds since the Unix epoch.
    pub at_us: i64,
    nodes: BTreeMap<Path, Option<PastNode>>,
}

impl PastTree {
    /// Takes one more event. Events come in the order of their numbers.
    pub fn apply(&mut self, event: &LifecycleEvent) {
        self.seq = event.seq;
        self.at_us = event.at_us;
        if event.gone {
            self.nodes.insert(event.path.clone(), None);
            return;
        }
        let node =
            self.nodes.entry(event.path.clone()).or_default().get_or_insert_with(|| PastNode {
                path: event.path.clone(),
                kind: event.slot,
                state: SlotState::Up,
                life: event.life,
                restarts: 0,
                guessed: false,
            });
        node.life = event.life;
        match &event.kind {
            LifecycleKind::Started => {
                node.state = SlotState::Up;
                if event.life == 1 {
                    // A new slot: the one before it was given up.
                    node.restarts = 0;
                }
            }
            LifecycleKind::Restarted { restarts } => {
                node.state = SlotState::Up;
                node.restarts = *restarts;
            }
            LifecycleKind::Failed { .. }
            | LifecycleKind::StartFailed { .. }
            | LifecycleKind::Stopped { .. } => {
                if node.state != SlotState::Suspended {
                    node.state = SlotState::Down;
                }
            }
            LifecycleKind::BackingOff { .. } => node.state = SlotState::Backoff,
            LifecycleKind::Stuck => node.state = SlotState::Stuck,
            LifecycleKind::Suspended => node.state = SlotState::Suspended,
            // A slot that was down while it was held starts with an event of its own.
            LifecycleKind::Resumed => node.state = SlotState::Up,
            LifecycleKind::Escalated { .. } => node.state = SlotState::Stopping,
            LifecycleKind::Health { .. } | LifecycleKind::Action(_) => {}
        }
    }

    /// Takes an event that happened *after* the moment in question: what it says of a slot that no
    /// event before has shown.
    pub fn apply_backwards(&mut self, event: &LifecycleEvent) {
        if self.nodes.contains_key(&event.path) {
            return;
        }
        let before = |state, life, restarts| {
            Some(PastNode {
                path: event.path.clone(),
                kind: event.slot,
                state,
                life,
                restarts,
                guessed: true,
            })
        };
        let node = match &event.kind {
            // Not there yet.
            LifecycleKind::Started if event.life <= 1 => None,
            LifecycleKind::Started => before(SlotState::Down, event.life - 1, 0),
            LifecycleKind::Restarted { restarts } => {
                before(SlotState::Down, event.life.saturating_sub(1), restarts.saturating_sub(1))
            }
            LifecycleKind::StartFailed { .. } if event.life <= 1 => None,
            LifecycleKind::StartFailed { .. } | LifecycleKind::BackingOff { .. } => {
                before(SlotState::Down, event.life, 0)
            }
            LifecycleKind::Resumed => before(SlotState::Suspended, event.life, 0),
            _ => before(SlotState::Up, event.life, 0),
        };
        self.nodes.insert(event.path.clone(), node);
    }

    /// Forgets what is not there, once all events are in.
    pub(crate) fn settle(&mut self, seq: u64) {
        self.seq = seq;
        self.nodes.retain(|_, node| node.is_some());
    }

    /// Every slot, in the order of paths: a parent before its children.
    pub fn nodes(&self) -> impl Iterator<Item = &PastNode> {
        self.nodes.values().flatten()
    }

    /// The slot at a path.
    #[must_use]
    pub fn get(&self, path: &str) -> Option<&PastNode> {
        self.nodes.get(&Path::parse(path))?.as_ref()
    }
}
