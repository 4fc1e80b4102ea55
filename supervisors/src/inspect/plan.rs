//! What an action would do, in words and lists.

use std::fmt::{self, Write as _};
use std::time::Duration;

use crate::lifecycle::Action;
use crate::path::{Path, unescape};
use crate::supervisor::{IntensityUse, Outcome, Reaction};

/// What an action would do. Made by the supervisors' own decisions, see
/// [`ActorSystem::plan`](crate::ActorSystem::plan).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Plan {
    /// Which action.
    pub action: Action,
    /// On whom.
    pub path: Path,
    /// In which life it is now; give it to [`Act::life`](crate::Act::life).
    pub life: u64,
    /// Why it would not be done; nothing happens then.
    pub refused: Option<String>,
    /// Lives that end, in this order. Children of one dynamic supervisor end at the same time.
    pub stops: Vec<PlannedStop>,
    /// Lives that begin, in this order; a supervisor after its children.
    pub starts: Vec<Path>,
    /// What each supervisor would decide, from the actor's own upward.
    pub reactions: Vec<Reaction>,
    /// The restarts counted by the actor's supervisor afterwards.
    pub intensity: Option<IntensityUse>,
    /// The whole system would end.
    pub ends_system: bool,
}

/// A life that would end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedStop {
    /// Whose.
    pub path: Path,
    /// In which way.
    pub how: PlannedEnd,
}

/// How a life would end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PlannedEnd {
    /// Killed, or lost with its supervisor.
    Killed,
    /// Stopped in order.
    Stopped,
    /// A supervisor that gives up and fails upward.
    GaveUp,
}

impl PlannedEnd {
    /// One word for JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Killed => "killed",
            Self::Stopped => "stopped",
            Self::GaveUp => "gave_up",
        }
    }
}

impl Plan {
    /// The longest wait before the restart.
    #[must_use]
    pub fn backoff(&self) -> Duration {
        self.reactions.iter().map(|reaction| reaction.backoff).max().unwrap_or_default()
    }

    /// Whether a supervisor would give up.
    #[must_use]
    pub fn escalates(&self) -> bool {
        self.reactions.iter().any(Reaction::escalates)
    }

    /// One sentence.
    #[must_use]
    pub fn text(&self) -> String {
        self.to_string()
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let id = id(&self.path);
        if let Some(why) = &self.refused {
            return write!(f, "{id} cannot be given a {}: {why}", self.action.as_str());
        }
        f.write_str(&match self.action {
            Action::Kill => format!("{id} is killed"),
            Action::Restart => format!("{id} is restarted"),
            Action::Stop => format!("{id} is stopped and stays down"),
            Action::Start => format!("{id} is started"),
            Action::Suspend => format!("{id} is held: its messages wait"),
            Action::Resume => format!("{id} goes on"),
        })?;
        let others: Vec<&Path> =
            self.stops.iter().map(|stop| &stop.path).filter(|path| **path != self.path).collect();
        if !others.is_empty() {
            write!(f, "; {} with it", ended(&others))?;
        }
        for reaction in self.reactions.iter().filter(|reaction| reaction.escalates()) {
            write!(f, "; {reaction}")?;
        }
        if self.ends_system {
            return f.write_str("; the whole system ends");
        }
        let comes_back = self.starts.contains(&self.path);
        match (self.starts.len(), self.action) {
            (0, Action::Kill) => match self.reactions.first().map(|r| r.outcome) {
                Some(Outcome::Held) => f.write_str("; it is suspended and stays so"),
                _ => f.write_str("; nothing is started again"),
            },
            (0, _) => Ok(()),
            (1, _) if comes_back => f.write_str("; it is started again"),
            (n, _) => write!(f, "; {n} are started again"),
        }?;
        match self.reactions.first() {
            Some(reaction) if !self.backoff().is_zero() => {
                write!(f, " after at most {:?}", reaction.backoff)
            }
            _ => Ok(()),
        }
    }
}

fn id(path: &Path) -> String {
    path.segments().last().map_or_else(|| "the root".to_owned(), unescape)
}

/// `a, b and 3 others end`.
fn ended(paths: &[&Path]) -> String {
    let mut text = String::new();
    let shown = if paths.len() > 3 { 2 } else { paths.len() };
    let hidden = paths.len() - shown;
    for (i, path) in paths[..shown].iter().enumerate() {
        let before = match i {
            0 => "",
            _ if i + 1 == shown && hidden == 0 => " and ",
            _ => ", ",
        };
        let _ = write!(text, "{before}{}", id(path));
    }
    if hidden > 0 {
        let _ = write!(text, " and {hidden} others");
    }
    let _ = write!(text, " {}", if paths.len() == 1 { "ends" } else { "end" });
    text
}
