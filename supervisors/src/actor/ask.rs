//! Questions that wait for their answers: their deadlines, and who waits for whom.
//!
//! One table per system. A deadline of a second or more costs no timer of its own: one task sweeps
//! the table ten times a second for as long as anything is in it, and wakes early enough to be
//! exact. The table is also what shows who waits for whom, and what fails a question that can never
//! be answered: a supervisor that waits for the asker, to stop or to start, will not start the
//! actor that was asked.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use slab::Slab;
use tokio::runtime::{Handle, RuntimeFlavor};

use crate::actor::reply::{AskOutcome, Settled};
use crate::actor::slot::AnySlot;
use crate::actor::state::SlotState;
use crate::environment::Clock;
use crate::path::Path;
use crate::sync::lock;
use crate::tree::TreeRoot;

/// How often the table is looked through. Also the shortest deadline that is left to it.
const SWEEP: Duration = Duration::from_millis(100);

/// Deadlines shorter than this have a timer of their own.
pub(crate) const SWEPT_FROM: Duration = Duration::from_secs(1);

/// A question in the table.
pub(crate) struct Question {
    pub(crate) outcome: Arc<dyn AskOutcome>,
    /// When it fails, nanoseconds of the system's clock. `None`: its asker has a timer.
    pub(crate) deadline: Option<u64>,
    /// The actor that asks; `None` for a task that is not an actor's.
    pub(crate) asker: Option<Arc<dyn AnySlot>>,
    pub(crate) asked: Arc<dyn AnySlot>,
    pub(crate) message: &'static str,
    pub(crate) since: u64,
}

/// See the module's page.
pub(crate) struct Asks {
    /// One for a runtime with one thread, so that one seed gives one order.
    shards: Box<[Mutex<Slab<Question>>]>,
    sweeping: AtomicBool,
    clock: Clock,
    runtime: Handle,
}

/// A question's place in the table, until it is dropped.
pub(crate) struct Asked<'a> {
    asks: &'a Asks,
    shard: usize,
    key: usize,
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        // The question is dropped outside the lock.
        let question = lock(&self.asks.shards[self.shard]).try_remove(self.key);
        if let Some(asker) = question.and_then(|question| question.asker) {
            asker.cell().count_wait(false);
        }
    }
}

impl Asks {
    pub(crate) fn new(clock: Clock, runtime: Handle) -> Self {
        let shards = if runtime.runtime_flavor() == RuntimeFlavor::CurrentThread { 1 } else { 8 };
        let shards = (0..shards).map(|_| Mutex::default()).collect();
        Self { shards, sweeping: AtomicBool::new(false), clock, runtime }
    }

    /// Puts a question in.
    pub(crate) fn begin(self: &Arc<Self>, question: Question) -> Asked<'_> {
        // Questions of one asker fall into one shard; the low bits of an address say nothing.
        let at = Arc::as_ptr(&question.outcome).cast::<()>() as usize;
        let shard = (at >> 7) % self.shards.len();
        let swept = question.deadline.is_some();
        if let Some(asker) = &question.asker {
            asker.cell().count_wait(true);
        }
        let key = lock(&self.shards[shard]).insert(question);
        if swept && !self.sweeping.load(Ordering::SeqCst) {
            self.begin_to_sweep();
        }
        Asked { asks: self, shard, key }
    }

    #[cold]
    fn begin_to_sweep(self: &Arc<Self>) {
        if !self.sweeping.swap(true, Ordering::SeqCst) {
            let asks = Arc::clone(self);
            crate::environment::spawn_on(&self.runtime, async move { asks.sweep().await });
        }
    }

    /// Runs for as long as the table holds a question with a deadline.
    async fn sweep(&self) {
        let mut wait = SWEEP;
        loop {
            tokio::time::sleep(wait).await;
            let now = self.clock.ticks_ns();
            let (mut late, mut earliest) = (Vec::new(), None);
            self.each(|question| {
                let Some(deadline) = question.deadline else { return };
                if deadline <= now {
                    late.push((deadline, question.since, Arc::clone(&question.outcome)));
                } else {
                    earliest = Some(earliest.map_or(deadline, |at: u64| at.min(deadline)));
                }
            });
            late.sort_by_key(|(deadline, since, _)| (*deadline, *since));
            for (_, _, outcome) in &late {
                outcome.settle(Settled::Late);
            }
            let Some(earliest) = earliest else {
                // A question that comes in from here on begins a sweep of its own; one that came in
                // since the look has seen this one.
                self.sweeping.store(false, Ordering::SeqCst);
                let mut more = false;
                self.each(|question| more |= question.deadline.is_some_and(|at| at > now));
                if more && !self.sweeping.swap(true, Ordering::SeqCst) {
                    wait = SWEEP;
                    continue;
                }
                return;
            };
            wait = Duration::from_nanos(earliest.saturating_sub(now)).min(SWEEP);
        }
    }

    fn each(&self, mut look: impl FnMut(&Question)) {
        for shard in &self.shards {
            lock(shard).iter().for_each(|(_, question)| look(question));
        }
    }

    /// Looks at the questions of actors, in no promised order. `look` runs under a lock.
    pub(crate) fn of_actors(&self, mut look: impl FnMut(&Path, &Question)) {
        self.each(|question| {
            if let Some(asker) = &question.asker {
                look(&asker.cell().path, question);
            }
        });
    }

    fn fail(&self, outcome: &Settled, which: impl Fn(&Question) -> bool) {
        let mut failed = Vec::new();
        self.each(|question| {
            if which(question) {
                failed.push((question.since, Arc::clone(&question.outcome)));
            }
        });
        failed.sort_by_key(|(since, _)| *since);
        for (_, question) in failed {
            question.settle(outcome.clone());
        }
    }

    /// The slot has stopped for good: nobody will answer what it was asked.
    pub(crate) fn fail_asked(&self, slot: &dyn AnySlot) {
        self.fail(&Settled::Stopped, |question| same(&*question.asked, slot));
    }

    /// A child of a supervisor has begun to stop, or has ended: fails what can never be answered.
    pub(crate) fn fail_blocked(&self, root: &TreeRoot) {
        self.fail(&Settled::Blocked, |question| {
            question.asker.as_ref().is_some_and(|asker| blocked(root, asker, &question.asked))
        });
    }
}

fn same(a: &dyn AnySlot, b: &dyn AnySlot) -> bool {
    std::ptr::eq(a.cell(), b.cell())
}

/// Whether `asked` has no life, and the supervisor that would start it waits for `asker`.
pub(crate) fn blocked(root: &TreeRoot, asker: &Arc<dyn AnySlot>, asked: &Arc<dyn AnySlot>) -> bool {
    if asked.cell().state() == SlotState::Up {
        return false;
    }
    let (from, to) = (&asker.cell().path, &asked.cell().path);
    if from == to {
        return false;
    }
    // From the top: the first that is not up has a supervisor that is, and starts it.
    let Some(responsible) = root.responsible_for(to) else { return false };
    if !from.is_within(&responsible) {
        return false;
    }
    let Some(branch) = from.child_towards(&responsible) else { return false };
    root.find(&branch).is_some_and(|slot| {
        matches!(slot.cell().state(), SlotState::Starting | SlotState::Stopping)
    })
}
