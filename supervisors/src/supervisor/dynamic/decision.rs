//! The decision about a child that stands for itself: the same functions as everywhere, asked with
//! one child. The driver asks them, and so does the dry run.

use std::time::Duration;

use crate::path::Path;
use crate::supervisor::intensity::{Intensity, IntensityUse, Window};
use crate::supervisor::policy::Terms;
use crate::supervisor::reaction::{Outcome, Reaction};
use crate::supervisor::strategy::{
    AutoShutdown, ChildView, Decision, Policy, Strategy, decide, decide_restart,
};

/// Decides about the end of a life (`normal`), or about a start that failed (`None`), of the child
/// at `path`, and counts it.
pub(crate) fn alone(
    path: &Path,
    terms: &mut Terms,
    suspended: bool,
    normal: Option<bool>,
    intensity: Intensity,
    window: &mut Window,
    now: Duration,
) -> (Decision, Reaction) {
    let mut reaction = Reaction {
        outcome: Outcome::Held,
        in_a_row: terms.failures_in_a_row,
        ..forgotten(path, window.in_use(now, intensity))
    };
    if suspended && normal.is_some() {
        return (Decision::Leave { forget: false, shut_down: false }, reaction);
    }
    let worn_out = terms.count_failure(now);
    let view = ChildView {
        restart: terms.policy().restart,
        significant: false,
        up: false,
        suspended,
        depends_on: Vec::new(),
    };
    let policy =
        Policy { strategy: Strategy::OneForOne, intensity, auto_shutdown: AutoShutdown::Never };
    let decision = match normal {
        Some(normal) => decide(&[view], 0, normal, worn_out, &policy, window, now),
        None => decide_restart(&[view], 0, worn_out, &policy, window, now),
    };
    reaction.in_a_row = terms.failures_in_a_row;
    reaction.intensity = window.in_use(now, intensity);
    reaction.outcome = match decision {
        Decision::Leave { .. } => Outcome::Forgotten,
        Decision::GiveUp => Outcome::GivesUp,
        Decision::Restart { .. } => Outcome::Restarts,
    };
    if reaction.outcome == Outcome::Restarts {
        reaction.affected.push(path.clone());
        let failures = terms.failures_in_a_row.saturating_sub(1);
        reaction.backoff = terms.policy().backoff.ceiling(failures);
    }
    (decision, reaction)
}

/// A child that did not start for the first time is forgotten.
pub(crate) fn forgotten(path: &Path, intensity: IntensityUse) -> Reaction {
    Reaction {
        supervisor: path.parent().unwrap_or_else(Path::root),
        child: path.clone(),
        strategy: Strategy::OneForOne,
        outcome: Outcome::Forgotten,
        affected: Vec::new(),
        backoff: Duration::ZERO,
        intensity,
        in_a_row: 1,
    }
}
