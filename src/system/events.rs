//! What happens to a node's actors, in its log.

use mister_smith_supervisors::{LifecycleEvent, LifecycleKind as Kind};

/// Every failure and restart, in the log once.
pub(super) fn log_event(event: &LifecycleEvent) {
    let (path, life) = (&event.path, event.life);
    match &event.kind {
        Kind::Failed { reason } | Kind::StartFailed { reason } => {
            tracing::warn!(actor.path = %path, life, %reason, "{}", event.kind.name());
        }
        Kind::Escalated { reason } => {
            tracing::error!(actor.path = %path, life, %reason, "escalated");
        }
        Kind::Stuck => tracing::error!(actor.path = %path, life, "stuck"),
        Kind::Restarted { restarts } => {
            tracing::info!(actor.path = %path, life, restarts, "restarted");
        }
        kind => tracing::debug!(actor.path = %path, life, "{}", kind.name()),
    }
}
