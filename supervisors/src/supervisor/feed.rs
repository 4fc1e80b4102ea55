//! The children that a crowd begins with: those declared, and those kept from its last life. They
//! are taken in one by one, so that 100,000 of them hold nobody up.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::actor::slot::AnySlot;
use crate::environment::lock;
use crate::error::ExitReason;
use crate::supervisor::spec::ChildSpec;
use crate::supervisor::{Request, SupervisorLink};
use crate::sync::write;

pub(crate) struct Feed {
    link: SupervisorLink,
    pub(crate) specs: Box<dyn Iterator<Item = ChildSpec> + Send>,
    /// Slots of the last life that nothing comes back to.
    pub(crate) leftovers: Vec<Arc<dyn AnySlot>>,
    /// What was asked for meanwhile.
    pub(crate) requests: Vec<Request>,
    keep: bool,
}

impl Feed {
    pub(crate) fn new(link: &SupervisorLink, declared: Vec<ChildSpec>, keep: bool) -> Self {
        let mut kept = std::mem::take(&mut *lock(&link.kept));
        // Declared children are kept too, and are one child each.
        for spec in &declared {
            kept.swap_remove(&spec.id);
        }
        // What is not kept ends with the life of the supervisor that had it, as in OTP.
        let ids: BTreeSet<&str> = declared.iter().map(|spec| &*spec.id).collect();
        let mut leftovers = Vec::new();
        write(&link.children).retain(|id, slot| {
            let wanted = ids.contains(&**id) || kept.contains_key(id);
            if !wanted {
                leftovers.push(Arc::clone(slot));
            }
            wanted
        });
        let specs = Box::new(declared.into_iter().chain(kept.into_values()));
        Self { link: Arc::clone(link), specs, leftovers, requests: Vec::new(), keep }
    }
}

impl Drop for Feed {
    /// The supervisor ends before all were taken in: the rest waits for its next life.
    fn drop(&mut self) {
        for slot in self.leftovers.drain(..) {
            slot.close(&ExitReason::Shutdown);
        }
        if self.keep {
            let mut kept = lock(&self.link.kept);
            for spec in self.specs.by_ref() {
                kept.insert(Arc::clone(&spec.id), spec);
            }
        }
    }
}
