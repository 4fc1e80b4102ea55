//! The decision: a child has ended; who stops, who starts, or is it time to give up?
//!
//! Pure functions over what is declared and what is up. The running supervisor, the dry run of an
//! operator's action and the tests against Erlang/OTP all ask the same functions.

use std::time::Duration;

use crate::supervisor::intensity::{Intensity, Window};

/// Who is affected when a child fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Strategy {
    /// The child, and whoever declared that it depends on it.
    #[default]
    OneForOne,
    /// The child and all started after it.
    RestForOne,
    /// All children.
    OneForAll,
}

impl Strategy {
    /// OTP's word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OneForOne => "one_for_one",
            Self::RestForOne => "rest_for_one",
            Self::OneForAll => "one_for_all",
        }
    }
}

/// When a child that ended is started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum RestartPolicy {
    /// Always.
    #[default]
    Permanent,
    /// Unless it ended with `Normal` or `Shutdown`. A kill is abnormal.
    Transient,
    /// Never; its spec goes with it.
    Temporary,
}

impl RestartPolicy {
    /// OTP's word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Permanent => "permanent",
            Self::Transient => "transient",
            Self::Temporary => "temporary",
        }
    }
}

/// Whether the end of significant children ends their supervisor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum AutoShutdown {
    /// It does not.
    #[default]
    Never,
    /// The end of any one does.
    AnySignificant,
    /// The end of the last one does.
    AllSignificant,
}

/// What the decision needs to know of a child. Children stand in start order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChildView {
    /// When it is started again.
    pub restart: RestartPolicy,
    /// Whether its own end may end the supervisor.
    pub significant: bool,
    /// Whether it has a life now, or one is due: OTP's `restarting` counts.
    pub alive: bool,
    /// Whether it is held; a held child is not started.
    pub suspended: bool,
    /// Indices of siblings it depends on, all smaller than its own.
    pub depends_on: Vec<usize>,
}

/// What the decision needs to know of the supervisor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Who is affected.
    pub strategy: Strategy,
    /// How many restarts are allowed.
    pub intensity: Intensity,
    /// Whether significant children end it.
    pub auto_shutdown: AutoShutdown,
}

/// A child that has ended or did not start, among its siblings.
#[derive(Clone, Copy, Debug)]
pub struct Situation<'a> {
    /// All children, in start order.
    pub children: &'a [ChildView],
    /// The index of the one in question.
    pub child: usize,
    /// Whether it has failed more often in a row than its own limit allows.
    pub worn_out: bool,
    /// The supervisor's rules.
    pub policy: &'a Policy,
    /// On any clock that does not go backwards.
    pub now: Duration,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Leave it down.
    Leave {
        /// Its spec goes (temporary children).
        forget: bool,
        /// It was significant enough to end the supervisor, in order.
        shut_down: bool,
    },
    /// Stop these, in this order, then start those, in this order.
    Restart {
        /// Children to stop: reverse start order, the failed one in its place if it still lives.
        stop: Vec<usize>,
        /// Children to start: start order, the failed one among them.
        start: Vec<usize>,
    },
    /// Too many restarts: stop all in reverse order and fail upward.
    GiveUp,
}

/// Decides what follows when a child has ended by itself or by a kill (not because its supervisor
/// stopped it), or has to be stopped for bad health.
///
/// `normal` is [`ExitReason::is_normal`](crate::ExitReason::is_normal). A restart is counted in
/// `window`.
pub fn decide(situation: &Situation<'_>, normal: bool, window: &mut Window) -> Decision {
    let Situation { children, child: ended, policy, .. } = *situation;
    let child = &children[ended];
    let again = match child.restart {
        RestartPolicy::Permanent => true,
        RestartPolicy::Transient => !normal,
        RestartPolicy::Temporary => false,
    };
    if again {
        return decide_restart(situation, window);
    }
    let another = |i: usize, other: &ChildView| i != ended && other.significant && other.alive;
    let shut_down = child.significant
        && match policy.auto_shutdown {
            AutoShutdown::Never => false,
            AutoShutdown::AnySignificant => true,
            AutoShutdown::AllSignificant => {
                !children.iter().enumerate().any(|(i, other)| another(i, other))
            }
        };
    Decision::Leave { forget: child.restart == RestartPolicy::Temporary, shut_down }
}

/// Decides what follows when a child must be started (again): after its crash, or after a failed
/// start, where the child that did not start is the next target and not the one that crashed.
/// Every attempt counts.
pub fn decide_restart(situation: &Situation<'_>, window: &mut Window) -> Decision {
    let Situation { children, child, worn_out, policy, now } = *situation;
    if window.exceeds(now, policy.intensity) || worn_out {
        return Decision::GiveUp;
    }
    let (stop, start) = group(children, child, policy.strategy);
    Decision::Restart { stop, start }
}

/// Who stops and who starts when `target` is restarted, for a failure or on purpose: first in
/// reverse start order, then in start order, the target in its place in both.
///
/// A temporary sibling is stopped with the group and not started again. A child that has ended or
/// was terminated is started with its group, as OTP does it; a suspended one is not.
#[must_use]
pub fn group(
    children: &[ChildView],
    target: usize,
    strategy: Strategy,
) -> (Vec<usize>, Vec<usize>) {
    let affected = affected(children, target, strategy);
    let stop = affected.iter().rev().copied().collect();
    let start = affected
        .into_iter()
        .filter(|&i| i == target || children[i].restart != RestartPolicy::Temporary)
        .filter(|&i| !children[i].suspended)
        .collect();
    (stop, start)
}

/// The one question that every strategy answers: who is affected, in start order.
#[must_use]
pub fn affected(children: &[ChildView], failed: usize, strategy: Strategy) -> Vec<usize> {
    match strategy {
        Strategy::OneForAll => (0..children.len()).collect(),
        Strategy::RestForOne => (failed..children.len()).collect(),
        Strategy::OneForOne => {
            // Dependencies point backwards, so one pass finds all transitive dependents.
            let mut hit = vec![false; children.len()];
            hit[failed] = true;
            for i in failed + 1..children.len() {
                hit[i] = children[i].depends_on.iter().any(|&needed| hit[needed]);
            }
            (failed..children.len()).filter(|&i| hit[i]).collect()
        }
    }
}
