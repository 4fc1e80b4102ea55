//! Which sagas run, which wait for their turn, and which sleep until when.
//!
//! The [manager](super::manager) and the [actors](super::actor) share it, so that nothing about a
//! saga's going on is a message that a full mailbox could lose or an ending actor leave unread: a
//! saga that wants to rest says up to which version it has read, and does not rest if something
//! was heard beyond that. This is the one place that learns when a saga is to be woken.
//!
//! It is in memory, a line a saga that is open, and belongs to one life of the manager. The next one
//! makes another from the list of open sagas and the log.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use indexmap::IndexMap;
use tokio::sync::{Notify, Semaphore, SemaphorePermit};

use crate::event::{RecordedEvent, StreamId, Timestamp, Version};

/// The event that began a saga, if it is all that there is of it.
pub(super) type Begun = Option<Box<RecordedEvent>>;

/// See the [module](self). Cheap to clone; all clones are one.
#[derive(Debug, Clone, Default)]
pub struct Board(Arc<Inner>);

/// Sagas that read their streams at the same time. All that are open do so when a node takes over:
/// they leave connections of the pool to others, not least to the renewal of the claim.
const READS: usize = 4;

#[derive(Debug)]
struct Inner {
    state: Mutex<State>,
    changed: Notify,
    reads: Semaphore,
}

impl Default for Inner {
    fn default() -> Self {
        let (state, changed) = (Mutex::default(), Notify::default());
        Self { state, changed, reads: Semaphore::new(READS) }
    }
}

#[derive(Debug, Default)]
struct State {
    sagas: IndexMap<StreamId, Place>,
    /// Those whose turn comes next in front. What is not [`Place::Ready`] any more is passed over.
    ready: VecDeque<StreamId>,
    due: BTreeSet<(Timestamp, StreamId)>,
    counts: Counts,
}

/// Where a saga is.
#[derive(Debug)]
enum Place {
    /// It waits for its turn.
    Ready(Begun),
    /// It has an actor, or is getting one.
    Running {
        /// The newest event that was heard of.
        heard: Version,
        /// A life of its actor has begun, and will look here before it rests.
        alive: bool,
    },
    /// Nothing is to be done before then.
    Asleep(Timestamp),
}

/// How many sagas are where.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Those with an actor.
    pub running: usize,
    /// Those that wait for one.
    pub ready: usize,
    /// Those that wait for their time.
    pub asleep: usize,
}

impl State {
    /// Puts a saga somewhere else; `None`: nothing is to be done about it any more.
    fn put(&mut self, stream: &StreamId, place: Option<Place>) {
        let before = match place {
            Some(place) => {
                self.count(&place, 1);
                if let Place::Asleep(until) = &place {
                    self.due.insert((*until, stream.clone()));
                }
                self.sagas.insert(stream.clone(), place)
            }
            None => self.sagas.swap_remove(stream),
        };
        if let Some(before) = before {
            self.count(&before, -1);
            if let Place::Asleep(until) = before
                && !matches!(self.sagas.get(stream), Some(Place::Asleep(now)) if *now == until)
            {
                self.due.remove(&(until, stream.clone()));
            }
        }
    }

    fn count(&mut self, place: &Place, change: isize) {
        let count = match place {
            Place::Ready(_) => &mut self.counts.ready,
            Place::Running { .. } => &mut self.counts.running,
            Place::Asleep(_) => &mut self.counts.asleep,
        };
        *count = count.saturating_add_signed(change);
    }

    fn make_ready(&mut self, stream: &StreamId, begun: Begun) {
        if !matches!(self.sagas.get(stream), Some(Place::Ready(_))) {
            self.ready.push_back(stream.clone());
        }
        self.put(stream, Some(Place::Ready(begun)));
    }

    fn sleep(&mut self, stream: &StreamId, until: Option<Timestamp>) -> bool {
        let first = self.due.first().map(|(first, _)| *first);
        self.put(stream, until.map(Place::Asleep));
        until.is_some_and(|until| first.is_none_or(|first| until < first))
    }
}

impl Board {
    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing below leaves it half changed.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many sagas are where.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.state().counts
    }

    /// Waits until the next saga is to be woken sooner than it was.
    pub(super) async fn changed(&self) {
        self.0.changed.notified().await;
    }

    // --- the manager ---------------------------------------------------------------------------

    /// Forgets what waits and sleeps: it is about to be found again.
    pub(super) fn forget(&self) {
        let mut state = self.state();
        state.sagas.retain(|_, place| matches!(place, Place::Running { .. }));
        state.ready.clear();
        state.due.clear();
        state.counts = Counts { running: state.counts.running, ..Counts::default() };
    }

    /// An open saga was found that is to be woken then, or has something to do now.
    pub(super) fn found(&self, stream: &StreamId, wake_at: Option<Timestamp>) {
        let mut state = self.state();
        match (state.sagas.get(stream), wake_at) {
            (Some(Place::Running { .. }), _) => {}
            (_, Some(until)) => drop(state.sleep(stream, Some(until))),
            (_, None) => state.make_ready(stream, None),
        }
    }

    /// Something happened to a saga. Answers whether it runs and is to be told.
    pub(super) fn heard(&self, event: &RecordedEvent) -> bool {
        let mut state = self.state();
        match state.sagas.get_mut(&event.stream) {
            Some(Place::Running { heard, .. }) => {
                *heard = event.version.max(*heard);
                return true;
            }
            // It has to read now.
            Some(Place::Ready(begun)) => *begun = None,
            Some(Place::Asleep(_)) => state.make_ready(&event.stream, None),
            None => {
                let first = event.version.get() == 1;
                state.make_ready(&event.stream, first.then(|| Box::new(event.clone())));
            }
        }
        false
    }

    /// Those whose turn it is; they count as running from here on.
    pub(super) fn take(&self, most: usize) -> Vec<(StreamId, Begun)> {
        let mut state = self.state();
        let mut taken = Vec::with_capacity(most.min(state.ready.len()));
        while taken.len() < most
            && let Some(stream) = state.ready.pop_front()
        {
            if let Some(Place::Ready(begun)) = state.sagas.get_mut(&stream) {
                let begun = begun.take();
                let heard = begun.as_ref().map_or(Version::ZERO, |begun| begun.version);
                state.put(&stream, Some(Place::Running { heard, alive: false }));
                taken.push((stream, begun));
            }
        }
        taken
    }

    /// There is no room for it now; it is the next one.
    pub(super) fn put_back(&self, stream: &StreamId) {
        let mut state = self.state();
        if let Some(Place::Running { alive: false, .. }) = state.sagas.get(stream) {
            state.ready.push_front(stream.clone());
            state.put(stream, Some(Place::Ready(None)));
        }
    }

    /// Whether its actor has begun, and will see what is heard.
    pub(super) fn is_alive(&self, stream: &StreamId) -> bool {
        matches!(self.state().sagas.get(stream), Some(Place::Running { alive: true, .. }))
    }

    /// Wakes those whose time has come.
    pub(super) fn wake(&self, now: Timestamp) {
        let mut state = self.state();
        while let Some((until, stream)) = state.due.first().cloned()
            && until <= now
        {
            state.make_ready(&stream, None);
        }
    }

    /// When the next one is to be woken.
    pub(super) fn next_due(&self) -> Option<Timestamp> {
        self.state().due.first().map(|(until, _)| *until)
    }

    /// Waits until it is its turn to read. The place is kept as long as what this answers.
    pub(super) async fn reading(&self) -> Option<SemaphorePermit<'_>> {
        // It is never closed.
        self.0.reads.acquire().await.ok()
    }

    // --- the actors ----------------------------------------------------------------------------

    /// A life of its actor begins, before it reads anything.
    pub(super) fn begins(&self, stream: &StreamId) {
        let mut state = self.state();
        if let Some(Place::Running { alive, .. }) = state.sagas.get_mut(stream) {
            *alive = true;
        } else {
            let place = Place::Running { heard: Version::ZERO, alive: true };
            state.put(stream, Some(place));
        }
    }

    /// Its actor wants to end: it has read up to a version, and there is nothing to do before
    /// `until`, or at all. `false`: something was heard beyond that, and it has to go on.
    pub(super) fn rest(&self, stream: &StreamId, read: Version, until: Option<Timestamp>) -> bool {
        let mut state = self.state();
        match state.sagas.get(stream) {
            Some(Place::Running { heard, .. }) if *heard > read => return false,
            Some(Place::Running { .. }) => {}
            // Its manager has ended.
            _ => return true,
        }
        let sooner = state.sleep(stream, until);
        drop(state);
        if sooner {
            self.0.changed.notify_one();
        }
        true
    }

    /// It cannot go on now, whatever was heard; it is tried again then.
    pub(super) fn again(&self, stream: &StreamId, at: Timestamp) {
        let mut state = self.state();
        if !matches!(state.sagas.get(stream), Some(Place::Running { .. })) {
            return;
        }
        let sooner = state.sleep(stream, Some(at));
        drop(state);
        if sooner {
            self.0.changed.notify_one();
        }
    }
}

#[cfg(test)]
mod tests;
