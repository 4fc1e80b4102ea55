//! Actors by name, and in groups.
//!
//! One registry per system. A spec says which name its actor has and which groups it is in; the slot
//! is entered when its supervisor takes the child in and leaves when the child is forgotten, so a
//! restart changes nothing.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, RwLock, Weak};

use crate::actor::slot::AnySlot;
use crate::actor::{Address, typed};
use crate::error::{LookupError, SpecError};
use crate::path::Path;
use crate::sync::{read, write};

/// See the module's page.
#[derive(Default)]
pub(crate) struct Groups {
    names: RwLock<BTreeMap<Arc<str>, Member>>,
    groups: RwLock<BTreeMap<Arc<str>, BTreeMap<Path, Member>>>,
    entered: AtomicU64,
}

/// A slot, and which entering put it there: whoever leaves late does not put out another.
struct Member {
    slot: Weak<dyn AnySlot>,
    entered: u64,
}

impl Groups {
    /// Enters a child under its name and into its groups. Returns the number of this entering, for
    /// [`leave`](Self::leave).
    pub(crate) fn enter(
        &self,
        slot: &Arc<dyn AnySlot>,
        name: Option<&Arc<str>>,
        groups: &[Arc<str>],
    ) -> Result<u64, SpecError> {
        let entered = self.entered.fetch_add(1, Ordering::Relaxed) + 1;
        let member = || Member { slot: Arc::downgrade(slot), entered };
        if let Some(name) = name {
            match write(&self.names).entry(Arc::clone(name)) {
                Entry::Vacant(entry) => {
                    entry.insert(member());
                }
                Entry::Occupied(mut entry) => match entry.get().slot.upgrade() {
                    Some(held) if !Arc::ptr_eq(&held, slot) => {
                        return Err(taken(name, &slot.cell().path, &held));
                    }
                    _ => {
                        entry.insert(member());
                    }
                },
            }
        }
        if !groups.is_empty() {
            let mut all = write(&self.groups);
            for group in groups {
                let members = all.entry(Arc::clone(group)).or_default();
                members.insert(slot.cell().path.clone(), member());
            }
        }
        Ok(entered)
    }

    /// Refuses a name that another slot than the one at `path` has.
    pub(crate) fn is_free(&self, name: &Arc<str>, path: &Path) -> Result<(), SpecError> {
        match read(&self.names).get(name).and_then(|held| held.slot.upgrade()) {
            Some(held) if held.cell().path != *path => Err(taken(name, path, &held)),
            _ => Ok(()),
        }
    }

    /// The child that entered so is forgotten.
    pub(crate) fn leave(
        &self,
        entered: u64,
        path: &Path,
        name: Option<&Arc<str>>,
        groups: &[Arc<str>],
    ) {
        let mine = |held: &Member| held.entered == entered;
        if let Some(name) = name {
            let mut names = write(&self.names);
            if names.get(name).is_some_and(mine) {
                names.remove(name);
            }
        }
        if !groups.is_empty() {
            let mut all = write(&self.groups);
            for group in groups {
                let Some(members) = all.get_mut(group) else { continue };
                if members.get(path).is_some_and(mine) {
                    members.remove(path);
                }
                if members.is_empty() {
                    all.remove(group);
                }
            }
        }
    }

    pub(crate) fn named<M: Send + 'static>(&self, name: &str) -> Result<Address<M>, LookupError> {
        let slot = read(&self.names).get(name).and_then(|held| held.slot.upgrade());
        let slot = slot.ok_or_else(|| LookupError::NoSuchName { name: name.to_owned() })?;
        let path = slot.cell().path.clone();
        typed(slot, &path)
    }

    pub(crate) fn group<M: Send + 'static>(&self, group: &str) -> Group<M> {
        let slots: Vec<_> = read(&self.groups)
            .get(group)
            .map(|members| members.values().filter_map(|member| member.slot.upgrade()).collect())
            .unwrap_or_default();
        let member = |slot: Arc<dyn AnySlot>| {
            let path = slot.cell().path.clone();
            typed(slot, &path).ok()
        };
        Group(slots.into_iter().filter_map(member).collect())
    }
}

fn taken(name: &Arc<str>, path: &Path, holder: &Arc<dyn AnySlot>) -> SpecError {
    SpecError::NameTaken {
        name: name.to_string(),
        child: path.to_string(),
        holder: holder.cell().path.to_string(),
    }
}

/// The members of a group as they were when it was looked up, in the order of their paths: those
/// that take messages of type `M`.
pub struct Group<M: Send + 'static>(Vec<Address<M>>);

impl<M: Send + 'static> Group<M> {
    /// The members.
    #[must_use]
    pub fn members(&self) -> &[Address<M>] {
        &self.0
    }

    /// Tells each member a copy, without waiting for room. Returns how many took it.
    pub fn broadcast(&self, message: &M) -> usize
    where
        M: Clone,
    {
        self.0.iter().filter(|member| member.try_tell(message.clone()).is_ok()).count()
    }
}

impl<M: Send + 'static> fmt::Debug for Group<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.0).finish()
    }
}
