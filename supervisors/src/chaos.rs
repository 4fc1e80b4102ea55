//! Chaos: kills actors by seed, for tests of what survives.
//!
//! One seed and one tree give one victim, so a storm that found something can be run again.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::actor::SlotState;
use crate::actor_system::ActorSystem;
use crate::path::Path;

/// Kills actors and supervisors, one at a time, whichever its seed says.
#[derive(Debug)]
pub struct ActorKiller {
    rng: StdRng,
    below: Path,
    spared: Vec<Path>,
}

/// Who was killed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kill {
    /// Where it stood.
    pub path: Path,
    /// Which of its lives.
    pub life: u64,
}

impl ActorKiller {
    /// A killer of everything but the root.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { rng: StdRng::seed_from_u64(seed), below: Path::root(), spared: Vec::new() }
    }

    /// Kills only what stands at `path` or below it.
    #[must_use]
    pub fn below(mut self, path: &str) -> Self {
        self.below = Path::parse(path);
        self
    }

    /// Leaves `path` and everything below it alone.
    #[must_use]
    pub fn sparing(mut self, path: &str) -> Self {
        self.spared.push(Path::parse(path));
        self
    }

    /// Kills one that is up. `None` when there is none, or when it ended in the same moment.
    ///
    /// Looks at the whole tree: with 100,000 actors this takes milliseconds.
    pub fn kill_one(&mut self, system: &ActorSystem) -> Option<Kill> {
        let tree = system.tree();
        let victims: Vec<Kill> = tree
            .walk()
            .filter(|node| !node.path.is_root() && node.state == SlotState::Up)
            .filter(|node| node.path.is_within(&self.below))
            .filter(|node| !self.spared.iter().any(|spared| node.path.is_within(spared)))
            .map(|node| Kill { path: node.path.clone(), life: node.life })
            .collect();
        if victims.is_empty() {
            return None;
        }
        let kill = victims[self.rng.random_range(0..victims.len())].clone();
        // This life and no other: the one after it has not been chosen.
        system.kill_life(kill.path.as_str(), kill.life).unwrap_or(false).then_some(kill)
    }
}
