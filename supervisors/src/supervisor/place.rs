//! A supervisor's place in the tree: what stays of it while its lives come and go.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use indexmap::IndexMap;
use ractor::ActorRef;

use crate::actor::slot::AnySlot;
use crate::environment::{Environment, lock};
use crate::error::ExitReason;
use crate::path::Path;
use crate::supervisor::SupervisorMessage;
use crate::supervisor::arrivals::Arrivals;
use crate::supervisor::brain::Brain;
use crate::supervisor::intensity::{Intensity, IntensityUse, Window};
use crate::supervisor::spec::{ChildSpec, SupervisorKind, SupervisorSpec};
use crate::supervisor::strategy::Strategy;
use crate::sync::{read, write};

/// A supervisor's place in the tree, shared by its slot and everybody who refers to it.
pub(crate) type SupervisorLink = Arc<SupervisorPlace>;

pub(crate) struct SupervisorPlace {
    pub(crate) path: Path,
    pub(crate) strategy: Strategy,
    pub(crate) dynamic: bool,
    pub(super) intensity: Mutex<Intensity>,
    /// Children in start order (a dynamic supervisor's in no promised one). Written only by the
    /// supervisor's current life.
    pub(crate) children: RwLock<IndexMap<Arc<str>, Arc<dyn AnySlot>>>,
    pub(super) current: Mutex<Option<(u64, ActorRef<SupervisorMessage>)>>,
    /// Specs of the children that a dynamic supervisor starts again in its next life.
    pub(super) kept: Mutex<IndexMap<Arc<str>, ChildSpec>>,
    /// What a fresh life starts with.
    pub(super) declared: Mutex<SupervisorSpec>,
    /// What decides in the current life. Only its driver changes it, and never holds it while it
    /// carries orders out; everybody may copy it.
    pub(super) brain: Mutex<Option<Arc<Mutex<Brain>>>>,
    /// It is suspended, or a supervisor above it is: so are all that live below.
    holds: AtomicBool,
    pub(crate) arrivals: Arrivals,
}

impl SupervisorPlace {
    pub(crate) fn shared(path: Path, spec: &SupervisorSpec) -> SupervisorLink {
        Arc::new(Self {
            path,
            strategy: spec.strategy,
            dynamic: spec.kind != SupervisorKind::Static,
            intensity: Mutex::new(spec.intensity),
            children: RwLock::new(IndexMap::new()),
            current: Mutex::new(None),
            kept: Mutex::new(IndexMap::new()),
            declared: Mutex::new(spec.clone()),
            brain: Mutex::new(None),
            holds: AtomicBool::new(false),
            arrivals: Arrivals::default(),
        })
    }

    /// Whether a life of the supervisor is there.
    pub(crate) fn is_up(&self) -> bool {
        lock(&self.current).is_some()
    }

    /// A copy of what decides here now, to try something out on the child with this id.
    pub(crate) fn copy_for(&self, id: &str) -> Option<Brain> {
        let brain = lock(&self.brain).clone()?;
        let copy = lock(&brain).copy_for(id);
        Some(copy)
    }

    /// How much of its intensity is used up at `now`.
    pub(crate) fn intensity_use(&self, now: Duration) -> IntensityUse {
        let brain = lock(&self.brain).clone();
        match brain {
            Some(brain) => lock(&brain).intensity_use(now),
            None => Window::default().in_use(now, self.intensity()),
        }
    }

    /// Whether its children go with its life.
    pub(crate) fn forgets_children(&self) -> bool {
        matches!(lock(&self.declared).kind, SupervisorKind::Dynamic { keep: false, .. })
    }

    /// The children that its next life starts, in order.
    pub(crate) fn declared(&self) -> SupervisorSpec {
        let mut spec = lock(&self.declared).clone();
        let declared = spec.children.len();
        for kept in lock(&self.kept).values() {
            if spec.children[..declared].iter().all(|child| child.id != kept.id) {
                spec.children.push(kept.clone());
            }
        }
        spec
    }

    pub(crate) fn intensity(&self) -> Intensity {
        *lock(&self.intensity)
    }

    pub(crate) fn child(&self, id: &str) -> Option<Arc<dyn AnySlot>> {
        read(&self.children).get(id).cloned()
    }

    /// The children as they are now.
    pub(crate) fn slots(&self) -> Vec<Arc<dyn AnySlot>> {
        self.first_slots(usize::MAX)
    }

    /// The first children as they are now, at most this many.
    pub(crate) fn first_slots(&self, most: usize) -> Vec<Arc<dyn AnySlot>> {
        read(&self.children).values().take(most).cloned().collect()
    }

    /// Looks at each child, without copying the list. `look` must not wait for anybody.
    pub(crate) fn each(&self, mut look: impl FnMut(&Arc<dyn AnySlot>)) {
        read(&self.children).values().for_each(&mut look);
    }

    pub(crate) fn len(&self) -> usize {
        read(&self.children).len()
    }

    pub(super) fn insert(&self, id: Arc<str>, slot: Arc<dyn AnySlot>) {
        write(&self.children).insert(id, Arc::clone(&slot));
        self.hold_new(&slot);
    }

    /// A child that is new here is held with all others. Looked at after it is in the list, so that
    /// a hold which begins meanwhile finds it there.
    fn hold_new(&self, slot: &Arc<dyn AnySlot>) {
        if self.holds.load(Ordering::SeqCst) {
            self.hold_child(&**slot, &slot.cell().env);
        }
    }

    /// O(1) for a dynamic supervisor, whose order means nothing; order is kept for a static one.
    pub(super) fn remove(&self, id: &str) {
        let mut children = write(&self.children);
        if self.dynamic {
            children.swap_remove(id);
        } else {
            children.shift_remove(id);
        }
    }

    pub(crate) fn send(&self, message: SupervisorMessage) -> bool {
        let current = lock(&self.current).clone();
        current.is_some_and(|(_, actor)| actor.send_message(message).is_ok())
    }

    /// The system has ended: what the specs hold of the application's is let go, so that nothing it
    /// points at lives on in a circle.
    pub(crate) fn forget_specs(&self) {
        let declared = std::mem::take(&mut lock(&self.declared).children);
        let kept = std::mem::take(&mut *lock(&self.kept));
        let env = self.first_slots(1).first().map(|slot| Arc::clone(&slot.cell().env));
        match env {
            Some(env) => env.dispose((declared, kept)),
            None => drop((declared, kept)),
        }
    }

    pub(crate) fn close_children(&self, reason: &ExitReason) {
        for slot in self.slots() {
            slot.close(reason);
        }
    }

    /// Holds a child or lets it go on: it is held if it is suspended, or its supervisor, or any
    /// supervisor above.
    pub(crate) fn hold_child(&self, child: &dyn AnySlot, env: &Environment) {
        let _one_at_a_time = lock(&env.holds);
        child.hold(self.holds.load(Ordering::SeqCst) || child.cell().is_suspended());
    }

    /// All children that are here now are held, if the supervisor is.
    pub(super) fn hold_all(&self) {
        if self.holds.load(Ordering::SeqCst) {
            for slot in self.slots() {
                self.hold_new(&slot);
            }
        }
    }

    /// The supervisor itself is held, or not any more. Under the lock of all holds.
    pub(crate) fn hold_children(&self, held: bool) {
        self.holds.store(held, Ordering::SeqCst);
        self.each(|child| {
            child.hold(held || child.cell().is_suspended());
        });
    }
}
