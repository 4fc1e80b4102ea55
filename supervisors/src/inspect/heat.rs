//! Every slot as one byte: 100,000 actors at a glance.

use std::sync::Arc;
use std::time::Duration;

use crate::actor::SlotState;
use crate::actor::slot::AnySlot;
use crate::path::Path;
use crate::tree::{shown_state, walk};

/// Busy for longer than this shows.
const LONG: Duration = Duration::from_secs(1);

/// A byte a slot, in the order of the tree: a parent before its children.
///
/// | bits | what |
/// |---|---|
/// | 0–2 | state: starting, up, stopping, suspended, backing off, down, failed |
/// | 3–4 | mailbox: 0 empty, 1 waiting, 2 over half full, 3 over 85 % |
/// | 5–6 | restarts: 0 none, 1 some, 2 in the last minute, 3 in the last five seconds |
/// | 7 | busy with one message for more than a second |
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heat {
    /// The last lifecycle event before the walk.
    pub seq: u64,
    /// A byte a slot.
    pub states: Vec<u8>,
    /// Where the slots of each supervisor are.
    pub spans: Vec<HeatSpan>,
}

/// The slots below one supervisor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeatSpan {
    /// The supervisor.
    pub path: Path,
    /// The index of the first slot below it.
    pub from: usize,
    /// How many there are, its children's children too.
    pub count: usize,
}

impl Heat {
    pub(crate) fn of(root: &Arc<dyn AnySlot>) -> Self {
        let env = &root.cell().env;
        let mut heat = Self { seq: env.history.last(), states: Vec::new(), spans: Vec::new() };
        heat.add(root, env.clock.elapsed_ns());
        heat
    }

    fn add(&mut self, slot: &Arc<dyn AnySlot>, now_ns: u64) {
        self.states.push(byte(&**slot, now_ns));
        let Some(link) = slot.supervisor() else { return };
        let (at, from) = (self.spans.len(), self.states.len());
        self.spans.push(HeatSpan { path: slot.cell().path.clone(), from, count: 0 });
        link.each(|child| self.add(child, now_ns));
        self.spans[at].count = self.states.len() - from;
    }

    /// The path of the slot at `index` in the tree as it is now, and the last lifecycle event
    /// before: if that is not the one of the heat that was looked at, the slot may be another.
    pub(crate) fn path_at(root: &Arc<dyn AnySlot>, index: usize) -> Option<(u64, Path)> {
        let seq = root.cell().env.history.last();
        let (mut at, mut found) = (0, None);
        walk(root, &mut |slot| {
            if at == index {
                found = Some(slot.cell().path.clone());
            }
            at += 1;
        });
        found.map(|path| (seq, path))
    }
}

fn byte(slot: &dyn AnySlot, now_ns: u64) -> u8 {
    let cell = slot.cell();
    let state = shown_state(slot).heat();
    let mailbox = match slot.mailbox() {
        None => 0,
        Some(facts) if facts.depth == 0 => 0,
        Some(facts) if facts.depth * 100 > facts.capacity * 85 => 3,
        Some(facts) if facts.depth * 2 > facts.capacity => 2,
        Some(_) => 1,
    };
    let restarts = match cell.restarted_at_ns() {
        None => 0,
        Some(at) => match Duration::from_nanos(now_ns.saturating_sub(at)).as_secs() {
            0..5 => 3,
            5..60 => 2,
            _ => 1,
        },
    };
    let busy = cell
        .stats
        .began_ns()
        .is_some_and(|since| Duration::from_nanos(now_ns.saturating_sub(since)) > LONG);
    state | mailbox << 3 | restarts << 5 | u8::from(busy) << 7
}

impl SlotState {
    /// Its number in a [`Heat`].
    fn heat(self) -> u8 {
        match self {
            Self::Starting | Self::Restarting => 0,
            Self::Up => 1,
            Self::Stopping => 2,
            Self::Suspended => 3,
            Self::Backoff => 4,
            Self::Down => 5,
            Self::Stuck => 6,
        }
    }
}
