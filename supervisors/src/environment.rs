//! What all actors of one system share: clock, randomness, runtime, observers, dead letters.
//!
//! Nothing here is global, so two systems live side by side in one process, and a test gives a
//! system its own clock and seed.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::runtime::Handle;

use crate::actor::ask::Asks;
use crate::actor::cell::SlotCell;
use crate::actor::panic::caught;
use crate::actor::reply::unanswered;
use crate::actor::{DeadLetter, DeadLetters};
use crate::groups::Groups;
use crate::inspect::timeline::History;
use crate::lifecycle::{LifecycleEvent, LifecycleKind, Observer};
use crate::supervisor::across::Across;
use crate::thread_pool::ThreadPools;
use crate::tree::TreeRoot;

pub(crate) use crate::clock::Clock;
pub(crate) use crate::sync::lock;

/// Runs a future of the kernel's own beside everything else. The one place that does.
pub(crate) fn spawn(
    env: &Arc<Environment>,
    future: impl Future<Output = ()> + Send + 'static,
) -> tokio::task::JoinHandle<()> {
    spawn_on(&env.runtime, future)
}

/// The same, on a runtime.
pub(crate) fn spawn_on(
    runtime: &Handle,
    future: impl Future<Output = ()> + Send + 'static,
) -> tokio::task::JoinHandle<()> {
    runtime.spawn(future)
}

/// Who hears what happens in a system, and how much of it is kept.
pub(crate) struct HeardBy {
    pub(crate) observers: Vec<Arc<dyn Observer>>,
    pub(crate) dead_letters: Option<Arc<dyn DeadLetters>>,
    pub(crate) history: usize,
    pub(crate) backtraces: bool,
}

/// What all slots of one system share.
pub(crate) struct Environment {
    pub(crate) clock: Clock,
    pub(crate) runtime: Handle,
    rng: Mutex<StdRng>,
    pub(crate) history: Arc<History>,
    pub(crate) asks: Arc<Asks>,
    pub(crate) groups: Groups,
    pub(crate) across: Across,
    pub(crate) thread_pools: ThreadPools,
    /// Whether every panic keeps its stack, or only when `RUST_BACKTRACE` says so.
    pub(crate) backtraces: bool,
    /// New slots record what they handle.
    pub(crate) recording: AtomicBool,
    pub(crate) observers: Vec<Arc<dyn Observer>>,
    dead_letters: Option<Arc<dyn DeadLetters>>,
    dead_letter_count: AtomicU64,
    /// Lives that had to be killed because their time to stop ran out, or were given up as stuck.
    pub(crate) not_in_order: AtomicU64,
    /// Children that are being started or stopped now.
    pub(crate) in_between: AtomicUsize,
    /// Held while suspensions are worked out, which is rare: two at once would undo each other.
    pub(crate) holds: Mutex<()>,
    root: OnceLock<TreeRoot>,
}

impl Environment {
    pub(crate) fn new(
        clock: Clock,
        runtime: Handle,
        seed: u64,
        heard_by: HeardBy,
        thread_pools: ThreadPools,
    ) -> Self {
        let HeardBy { observers, dead_letters, history, backtraces } = heard_by;
        Self {
            clock,
            rng: Mutex::new(StdRng::seed_from_u64(seed)),
            history: Arc::new(History::new(history, !observers.is_empty())),
            asks: Arc::new(Asks::new(clock, runtime.clone())),
            groups: Groups::default(),
            across: Across::default(),
            thread_pools,
            runtime,
            backtraces,
            recording: AtomicBool::new(false),
            observers,
            dead_letters,
            dead_letter_count: AtomicU64::new(0),
            not_in_order: AtomicU64::new(0),
            in_between: AtomicUsize::new(0),
            holds: Mutex::new(()),
            root: OnceLock::new(),
        }
    }

    /// The tree that all this is for, once it is there.
    pub(crate) fn root(&self) -> Option<&TreeRoot> {
        self.root.get()
    }

    pub(crate) fn set_root(&self, root: TreeRoot) {
        let _ = self.root.set(root);
    }

    /// Runs `draw` on the system's generator.
    pub(crate) fn random<T>(&self, draw: impl FnOnce(&mut StdRng) -> T) -> T {
        draw(&mut lock(&self.rng))
    }

    /// Something happened to a slot. Returns the event's number, so that what follows can name it.
    pub(crate) fn emit(
        &self,
        cell: &SlotCell,
        life: u64,
        cause_seq: Option<u64>,
        kind: LifecycleKind,
    ) -> u64 {
        let event = LifecycleEvent::new(cell.path.clone(), cell.info.kind, life, kind);
        self.publish(LifecycleEvent { cause_seq, ..event })
    }

    /// Numbers an event and keeps it. Observers hear it from there, in order, on a task of theirs.
    pub(crate) fn publish(&self, mut event: LifecycleEvent) -> u64 {
        event.at_us = self.clock.wall_us();
        self.history.push(event).seq
    }

    /// Hands a message that nobody will handle to the application's hook, and tells its asker.
    pub(crate) fn dead_letter(&self, letter: DeadLetter) {
        self.dead_letter_count.fetch_add(1, Ordering::Relaxed);
        let settled = letter.cause.settled();
        unanswered::collect(&settled, || {
            caught("dead letter hook", || match &self.dead_letters {
                Some(hook) => hook.on_dead_letter(letter),
                None => tracing::warn!(
                    actor.path = %letter.path,
                    message = letter.message_type,
                    cause = %letter.cause,
                    "dead letter"
                ),
            });
        });
    }

    pub(crate) fn dead_letter_count(&self) -> u64 {
        self.dead_letter_count.load(Ordering::Relaxed)
    }

    /// Drops what belongs to the application.
    pub(crate) fn dispose<T>(&self, value: T) {
        if std::mem::needs_drop::<T>() {
            caught("drop", || drop(value));
        }
    }

    /// The same, without making the caller wait for it.
    pub(crate) fn dispose_elsewhere<T: Send + 'static>(self: &Arc<Self>, value: T) {
        let env = Arc::clone(self);
        spawn(self, async move { env.dispose(value) });
    }
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Environment").field("clock", &self.clock).finish_non_exhaustive()
    }
}
