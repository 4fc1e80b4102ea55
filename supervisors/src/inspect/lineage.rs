//! Why something happened: the chain of events that led to it, and one sentence.

use std::fmt::Write as _;
use std::sync::Arc;

use crate::error::ExitReason;
use crate::lifecycle::{LifecycleEvent, LifecycleKind};
use crate::path::unescape;

/// Longer chains are cut at their old end: a child that fails for an hour is one long story.
const LONGEST: usize = 1_000;

/// How an event came about.
#[derive(Clone, Debug)]
pub struct Lineage {
    /// From the first cause to the event itself.
    pub events: Vec<Arc<LifecycleEvent>>,
    /// Whether the first one is the first cause; `false` when what led to it is not kept.
    pub whole: bool,
    /// One sentence.
    pub text: String,
}

impl Lineage {
    /// Follows the causes of `event` with `get`, which finds an event by its number.
    pub fn of(
        event: Arc<LifecycleEvent>,
        get: impl Fn(u64) -> Option<Arc<LifecycleEvent>>,
    ) -> Option<Self> {
        let mut events = vec![event];
        let whole = loop {
            let last = events.last()?;
            let Some(cause) = last.cause_seq else { break true };
            // A cause has a smaller number, so this ends.
            match get(cause).filter(|found| found.seq < last.seq && events.len() < LONGEST) {
                Some(found) => events.push(found),
                None => break false,
            }
        };
        events.reverse();
        let text = tell(&events);
        Some(Self { events, whole, text })
    }
}

/// The last event, because of the first one, by way of those that gave up in between.
fn tell(events: &[Arc<LifecycleEvent>]) -> String {
    let (Some(first), Some(last)) = (events.first(), events.last()) else { return String::new() };
    let mut text = phrase(last);
    if events.len() > 1 {
        let _ = write!(text, " because {}", phrase(first));
        let between = &events[1..events.len() - 1];
        for event in between.iter().filter(|e| matches!(e.kind, LifecycleKind::Escalated { .. })) {
            let _ = write!(text, ", and {}", phrase(event));
        }
    }
    text
}

fn phrase(event: &LifecycleEvent) -> String {
    let id = event.path.segments().last().map_or_else(|| "the root".to_owned(), unescape);
    match &event.kind {
        LifecycleKind::Started => format!("{id} was started"),
        LifecycleKind::Failed { reason: ExitReason::Killed } => format!("{id} was killed"),
        LifecycleKind::Failed { reason } => format!("{id} failed ({reason})"),
        LifecycleKind::Restarted { .. } => format!("{id} was restarted"),
        LifecycleKind::BackingOff { delay } => format!("{id} waits {delay:?} before its restart"),
        LifecycleKind::StartFailed { reason } => format!("{id} did not start ({reason})"),
        LifecycleKind::Stopped { reason: ExitReason::Killed } => format!("{id} was killed"),
        LifecycleKind::Stopped { reason: ExitReason::Normal } => format!("{id} ended"),
        LifecycleKind::Stopped { .. } => format!("{id} was stopped"),
        LifecycleKind::Stuck => format!("{id} does not let go"),
        LifecycleKind::Suspended => format!("{id} was suspended"),
        LifecycleKind::Resumed => format!("{id} was resumed"),
        LifecycleKind::Health { healthy: true, .. } => format!("{id} is healthy again"),
        LifecycleKind::Health { detail, .. } => format!("{id} is unhealthy ({detail})"),
        LifecycleKind::Escalated { .. } => format!("{id} gave up"),
        LifecycleKind::Action(deed) => {
            let done = match deed.action.as_str() {
                "kill" => "killed",
                "restart" => "restarted",
                "stop" => "stopped",
                "start" => "started",
                "suspend" => "suspended",
                _ => "resumed",
            };
            format!("{id} was {done} by {}", deed.origin)
        }
    }
}
