//! What a supervisor did about the end of a child, in its own words.
//!
//! Made at the one place that decides, so it can say nothing else than what is done.

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::path::Path;
use crate::supervisor::intensity::IntensityUse;
use crate::supervisor::strategy::Strategy;

/// What a supervisor did about the end, or the failed start, of one of its children. `Display` is
/// one sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Reaction {
    /// Who decided.
    pub supervisor: Path,
    /// Whose end it was.
    pub child: Path,
    /// The supervisor's strategy.
    pub strategy: Strategy,
    /// What was decided.
    pub outcome: Outcome,
    /// Who is stopped or started for it, in start order; the child itself is one of them.
    pub affected: Vec<Path>,
    /// The longest wait before the restart. How long it is, is drawn when the group is down.
    pub backoff: Duration,
    /// The restarts counted, this one included.
    pub intensity: IntensityUse,
    /// How often the child has failed in a row.
    pub in_a_row: u32,
}

/// What was decided about the end of a child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// It and those affected are started again.
    Restarts,
    /// It stays down.
    StaysDown,
    /// It stays down, and its spec is gone.
    Forgotten,
    /// It was significant: its supervisor ends in order.
    EndsSupervisor,
    /// Its supervisor was starting, and does not start without it.
    FailsStart,
    /// That was one too many: the supervisor stops all children and fails upward.
    GivesUp,
    /// It is suspended, and is started when it is resumed.
    Held,
    /// It ended while it was being stopped anyway, alone or with its group: no second failure.
    WithItsGroup,
}

impl Outcome {
    /// One word for logs and JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Restarts => "restarts",
            Self::StaysDown => "stays_down",
            Self::Forgotten => "forgotten",
            Self::EndsSupervisor => "ends_supervisor",
            Self::FailsStart => "fails_start",
            Self::GivesUp => "gives_up",
            Self::Held => "held",
            Self::WithItsGroup => "with_its_group",
        }
    }
}

impl Reaction {
    /// Whether the supervisor fails upward.
    #[must_use]
    pub fn escalates(&self) -> bool {
        self.outcome == Outcome::GivesUp
    }
}

impl fmt::Display for Reaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let IntensityUse { used, max, period } = self.intensity;
        match self.outcome {
            Outcome::Restarts => {
                match self.affected.len().saturating_sub(1) {
                    0 => f.write_str("restarted alone")?,
                    1 => write!(f, "restarted with one other ({})", self.strategy.as_str())?,
                    n => write!(f, "restarted with {n} others ({})", self.strategy.as_str())?,
                }
                if !self.backoff.is_zero() {
                    write!(f, " after at most {:?}", self.backoff)?;
                }
                write!(f, "; {used} of {max} restarts in {period:?} used")
            }
            Outcome::StaysDown => f.write_str("stays down: nobody starts it again by itself"),
            Outcome::Forgotten => f.write_str("forgotten: nobody starts it again"),
            Outcome::EndsSupervisor => {
                write!(f, "ends {}, for which it was significant", self.supervisor)
            }
            Outcome::FailsStart => write!(f, "{} does not start without it", self.supervisor),
            Outcome::GivesUp if used > max => write!(
                f,
                "{} gives up: {used} restarts in {period:?}, {max} allowed; it stops its children \
                 and fails upward",
                self.supervisor
            ),
            Outcome::GivesUp => write!(
                f,
                "{} gives up: {} failures in a row; it stops its children and fails upward",
                self.supervisor, self.in_a_row
            ),
            Outcome::Held => f.write_str("suspended: it starts when it is resumed"),
            Outcome::WithItsGroup => f.write_str("it was being stopped already: no second failure"),
        }
    }
}

/// The [`Reaction`] to a failure, for all that show it: the event, and the slot's own record.
///
/// It is there when the event is heard, unless the supervisor was busy with another failure: then
/// it comes when that is dealt with.
#[derive(Clone, Default)]
pub struct ReactionCell(Arc<OnceLock<Arc<Reaction>>>);

impl ReactionCell {
    pub(crate) fn of(reaction: Option<Arc<Reaction>>) -> Self {
        let cell = Self::default();
        if let Some(reaction) = reaction {
            cell.fill(reaction);
        }
        cell
    }

    pub(crate) fn fill(&self, reaction: Arc<Reaction>) {
        // The first decision about a failure is the one that was carried out.
        let _ = self.0.set(reaction);
    }

    /// What was decided, once it is.
    #[must_use]
    pub fn get(&self) -> Option<&Reaction> {
        self.0.get().map(AsRef::as_ref)
    }
}

impl fmt::Debug for ReactionCell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.get().fmt(f)
    }
}
