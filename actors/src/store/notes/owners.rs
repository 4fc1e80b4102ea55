//! Who may write to which streams.
//!
//! The streams of a category belong to whoever declared it: an aggregate, or a part of the system.
//! What comes from outside goes into the others only. The owners are noted in the store, which
//! refuses what comes from outside by that: so a node that only takes events in, and a program that
//! no longer has the aggregate, need not know them, and learn them by refusals.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Notes;
use crate::event::Timestamp;
use crate::store::{DEAD_LETTERS, StoreError};

/// Whose the streams of a category are.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Owner {
    /// An aggregate of the application, or a process.
    Aggregate,
    /// The dead letters.
    DeadLetters,
    /// The sagas.
    Sagas,
    /// What processes have passed over.
    Processes,
    /// The schema registry.
    Schemas,
    /// The store itself: names that begin with `$`.
    Store,
    /// Another one, of a newer program.
    Other(Arc<str>),
}

impl Owner {
    /// Its name in the store.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Aggregate => "an aggregate",
            Self::DeadLetters => "the dead letters",
            Self::Sagas => "the sagas",
            Self::Processes => "the processes",
            Self::Schemas => "the schema registry",
            Self::Store => "the store",
            Self::Other(name) => name,
        }
    }

    fn named(name: &str) -> Self {
        let known = [
            Self::Aggregate,
            Self::DeadLetters,
            Self::Sagas,
            Self::Processes,
            Self::Schemas,
            Self::Store,
        ];
        known.into_iter().find(|one| one.name() == name).unwrap_or_else(|| Self::Other(name.into()))
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The categories of the system itself.
const OWN: [(&str, Owner); 5] = [
    (DEAD_LETTERS, Owner::DeadLetters),
    ("saga", Owner::Sagas),
    ("process_passed", Owner::Processes),
    ("schema", Owner::Schemas),
    ("schemas", Owner::Schemas),
];

/// Streams that belong to somebody else.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("streams of the category {category} belong to {owner}; use another name")]
pub struct Owned {
    /// The category.
    pub category: String,
    /// Whose they are.
    pub owner: Owner,
}

/// Why a category could not be claimed.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// It belongs to somebody else.
    #[error(transparent)]
    Owned(#[from] Owned),
    /// The store could not be asked.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Who owns which category, as far as this node knows. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Owners(Arc<Mutex<BTreeMap<Arc<str>, Entry>>>);

#[derive(Debug, Clone)]
struct Entry {
    owner: Owner,
    /// The store knows it.
    noted: bool,
}

impl Default for Owners {
    /// What the system itself owns.
    fn default() -> Self {
        let entry = |owner| Entry { owner, noted: true };
        let own = OWN.map(|(category, owner)| (Arc::from(category), entry(owner)));
        Self(Arc::new(Mutex::new(BTreeMap::from(own))))
    }
}

impl Owners {
    fn map(&self) -> MutexGuard<'_, BTreeMap<Arc<str>, Entry>> {
        // Nothing below panics while it holds the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whose the streams of a category are.
    #[must_use]
    pub fn of(&self, category: &str) -> Option<Owner> {
        if category.starts_with('$') {
            return Some(Owner::Store);
        }
        self.map().get(category).map(|entry| entry.owner.clone())
    }

    /// Whether somebody from outside may write to the streams of a category.
    ///
    /// # Errors
    /// They belong to somebody.
    pub fn admit(&self, category: &str) -> Result<(), Owned> {
        match self.of(category) {
            None => Ok(()),
            Some(owner) => Err(Owned { category: category.to_owned(), owner }),
        }
    }

    /// Says that a category belongs to `owner`: to this node at once, and to all nodes when this
    /// returns. The second time is free.
    ///
    /// # Errors
    /// It belongs to somebody else, or the store could not be asked.
    pub async fn claim(
        &self,
        notes: &dyn Notes,
        category: &'static str,
        owner: Owner,
        at: Timestamp,
    ) -> Result<(), ClaimError> {
        if self.declare(category, owner.clone())? {
            return Ok(());
        }
        let noted = Owner::named(&notes.own(category, owner.name(), at).await?);
        let same = noted == owner;
        self.map().insert(category.into(), Entry { owner: noted.clone(), noted: true });
        match same {
            true => Ok(()),
            false => Err(Owned { category: category.to_owned(), owner: noted }.into()),
        }
    }

    /// Says that a category belongs to `owner`, to this node alone. True if the store has it.
    ///
    /// # Errors
    /// It belongs to somebody else.
    pub fn declare(&self, category: &'static str, owner: Owner) -> Result<bool, Owned> {
        let other = |owner| Owned { category: category.to_owned(), owner };
        if category.starts_with('$') {
            return Err(other(Owner::Store));
        }
        let mut map = self.map();
        let entry = map
            .entry(category.into())
            .or_insert_with(|| Entry { owner: owner.clone(), noted: false });
        match entry.owner == owner {
            true => Ok(entry.noted),
            false => Err(other(entry.owner.clone())),
        }
    }

    /// Hears from the store whose a category is.
    pub(crate) fn hear(&self, category: &str, owner: &str) -> Owned {
        let entry = Entry { owner: Owner::named(owner), noted: true };
        let owner = self.map().entry(category.into()).or_insert(entry).owner.clone();
        Owned { category: category.to_owned(), owner }
    }
}
