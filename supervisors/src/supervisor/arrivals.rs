//! Children of a crowd that come up while their supervisor has nothing to do.
//!
//! Most children that are spawned are up at once, and all that their supervisor would do is to write
//! that down and answer. So such a life answers its spawner itself and leaves a note, which the
//! supervisor reads before it does anything else. While the supervisor is busy, lives report by
//! message as always: nothing is decided on a note that has not been read.

use std::sync::{Arc, Mutex};

use crate::actor::slot::AnySlot;
use crate::actor::state::SlotState;
use crate::lifecycle::LifecycleKind;
use crate::supervisor::orders::Key;
use crate::supervisor::{Answer, SupervisorLink};
use crate::sync::lock;

/// Who waits for a child to be up. The life takes the answer, or the supervisor.
pub(crate) type Waiting = Arc<Mutex<Option<Answer<Arc<dyn AnySlot>>>>>;

/// See the module's page.
#[derive(Default)]
pub(crate) struct Arrivals(Mutex<Notes>);

#[derive(Default)]
struct Notes {
    /// The life of the supervisor that reads them.
    reader: u64,
    busy: bool,
    up: Vec<(Key, u64)>,
}

impl Arrivals {
    /// Life `reader` of the supervisor reads from here on; what was noted for another is void.
    pub(crate) fn open(&self, reader: u64) {
        *lock(&self.0) = Notes { reader, ..Notes::default() };
    }

    /// The supervisor begins to do something: what came up by itself so far.
    pub(crate) fn begin(&self) -> Vec<(Key, u64)> {
        let mut notes = lock(&self.0);
        notes.busy = true;
        std::mem::take(&mut notes.up)
    }

    /// It is done.
    pub(crate) fn done(&self) {
        lock(&self.0).busy = false;
    }

    fn note(&self, reader: u64, key: Key, life: u64) -> bool {
        let mut notes = lock(&self.0);
        let taken = notes.reader == reader && !notes.busy;
        if taken {
            notes.up.push((key, life));
        }
        taken
    }
}

/// A life that may answer its spawner itself.
pub(crate) struct Arrival {
    pub(crate) link: SupervisorLink,
    pub(crate) reader: u64,
    pub(crate) slot: Arc<dyn AnySlot>,
    pub(crate) waiting: Waiting,
}

impl Arrival {
    /// The life is up. `false`: its supervisor is busy and has to hear of it.
    pub(crate) fn come_up(self, key: Key, life: u64) -> bool {
        let cell = self.slot.cell();
        if !self.link.arrivals.note(self.reader, key, life) {
            return false;
        }
        cell.set_state_of(life, SlotState::Up);
        cell.set_reported_up(true);
        cell.env.emit(cell, life, None, LifecycleKind::Started);
        let answer = lock(&self.waiting).take();
        if let Some(answer) = answer {
            let _ = answer.send(Ok(self.slot));
        }
        true
    }
}
