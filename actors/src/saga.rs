//! Sagas: processes of several steps, each undone if a later one cannot be done.
//!
//! A saga is a stream of events, `saga-NAME-ID`. What it is about to do is in the log before it
//! does it, and what came of it before it goes on. So a crash at any point leaves one of two
//! things: the log says that a step was confirmed, and it never runs again; or it says that a step
//! may have run, and it runs again under the same key, by which whoever does it can tell a repeat.
//!
//! ```text
//! Sagas::start ─▶ saga.started ─▶ [`manager`] hears of it ─▶ [`board`] ─▶ one actor ([`actor`]) for the saga
//!     step_started ▶ action ▶ step_completed, step_started ▶ action ▶ … ▶ step_completed, completed
//!     … or back: step_failed, compensating, compensation_started ▶ undo ▶ compensation_completed, …
//! ```
//!
//! What stands between two arrows is one append.
//!
//! | you want | look at |
//! |---|---|
//! | to write one | [`Saga`], [`Step`] |
//! | to start, see, retry or abort one | [`Sagas`] |
//! | what comes next, as a pure function | [`SagaState::next`], [`SagaState::plan`] |
//! | who runs, waits for a turn, sleeps until when | [`board`] |

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::event::{InvalidStreamId, StreamId};

pub mod actor;
pub mod board;
mod definition;
mod events;
mod handle;
pub mod manager;
mod state;
mod summary;

pub use definition::{
    DEFAULT_STEP_TIMEOUT, DEFAULT_UNDO_ATTEMPTS, Definition, Saga, Step, StepContext, StepError,
};
pub use events::SagaEvent;
pub use handle::{SagaError, SagaFilter, Sagas, Started};
pub use state::{Next, SagaState, SagaStatus, StepShape, StepState, StepStatus};
pub use summary::{OpenSagas, SagaSummary};

#[cfg(test)]
mod tests;

/// The category of sagas' streams.
pub const CATEGORY: &str = "saga";

/// The stream of a saga.
///
/// # Errors
/// The id is empty, too long, or has a control character.
pub fn stream_of(name: &str, id: &str) -> Result<StreamId, InvalidStreamId> {
    match id.is_empty() {
        true => Err(InvalidStreamId::Empty),
        false => StreamId::new(format!("{CATEGORY}-{name}-{id}")),
    }
}

/// The name and the id in the name of a saga's stream.
#[must_use]
pub fn parts_of(stream: &StreamId) -> Option<(&str, &str)> {
    stream.as_str().strip_prefix("saga-")?.split_once('-')
}

/// The definitions that a node has, by name and version.
#[derive(Debug, Clone, Default)]
pub struct Definitions(Arc<BTreeMap<(String, u32), Arc<dyn Definition>>>);

/// Why definitions cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidSaga {
    /// The name is none.
    #[error("{name:?} is no name of a saga; use letters, digits, _ and .")]
    Name {
        /// The name.
        name: String,
    },
    /// There is another of that name and version.
    #[error("there are two sagas {name} of version {version}; raise the version of one")]
    Twice {
        /// The name.
        name: String,
        /// The version.
        version: u32,
    },
    /// Two steps have one name.
    #[error("saga {name} has two steps {step}; the log tells steps by their names, so rename one")]
    Step {
        /// The saga.
        name: String,
        /// The step.
        step: String,
    },
}

impl Definitions {
    /// Checks definitions.
    ///
    /// # Errors
    /// A name is none, or something is there twice.
    pub fn new(all: impl IntoIterator<Item = Arc<dyn Definition>>) -> Result<Self, InvalidSaga> {
        let mut map = BTreeMap::new();
        for one in all {
            let (name, version) = (one.name().to_owned(), one.version());
            let odd = |c: char| !c.is_alphanumeric() && !matches!(c, '_' | '.');
            if name.is_empty() || name.contains(odd) {
                return Err(InvalidSaga::Name { name });
            }
            let mut steps: Vec<_> = one.shape().into_iter().map(|step| step.name).collect();
            steps.sort();
            if let Some(two) = steps.windows(2).find(|two| two[0] == two[1]) {
                return Err(InvalidSaga::Step { name, step: two[0].clone() });
            }
            if map.insert((name.clone(), version), one).is_some() {
                return Err(InvalidSaga::Twice { name, version });
            }
        }
        Ok(Self(Arc::new(map)))
    }

    /// The definition of a version.
    #[must_use]
    pub fn get(&self, name: &str, version: u32) -> Option<&Arc<dyn Definition>> {
        self.0.get(&(name.to_owned(), version))
    }

    /// The newest definition of a name.
    #[must_use]
    pub fn newest(&self, name: &str) -> Option<&Arc<dyn Definition>> {
        let versions = (name.to_owned(), 0)..=(name.to_owned(), u32::MAX);
        self.0.range(versions).next_back().map(|(_, one)| one)
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The names, each once.
    #[must_use]
    pub fn names(&self) -> Vec<&str> {
        let mut names: Vec<_> = self.0.keys().map(|(name, _)| name.as_str()).collect();
        names.dedup();
        names
    }
}
