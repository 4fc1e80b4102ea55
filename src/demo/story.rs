//! What broke and what healed, a sentence each, from the node's own timeline.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use mister_smith_supervisors::{ActorSystem, LifecycleEvent, LifecycleKind};

/// Events of the timeline that are read at once.
const PAGE: usize = 1_000;

/// Lines that are told at once; the others are counted. A whole part of the tree may go.
const LINES: usize = 8;

/// What happens within this time is told together.
const PAUSE: Duration = Duration::from_millis(100);

/// What was told so far.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    broke: AtomicU64,
    healed: AtomicU64,
}

impl Counts {
    /// In a sentence.
    pub(crate) fn sentence(&self) -> String {
        let count = |one: &AtomicU64| one.load(Ordering::Relaxed);
        format!("{} broke, {} healed", count(&self.broke), count(&self.healed))
    }
}

/// What a line begins with; `None` for what nobody needs to hear.
fn word(event: &LifecycleEvent) -> Option<&'static str> {
    match &event.kind {
        LifecycleKind::Action(_) => Some("broke "),
        // What follows from something else is told when it is well again.
        LifecycleKind::Failed { .. } if event.cause_seq.is_none() => Some("broke "),
        LifecycleKind::Escalated { .. } => Some("gave up"),
        LifecycleKind::Stuck => Some("stuck "),
        LifecycleKind::Restarted { .. } => Some("healed"),
        _ => None,
    }
}

/// Tells what happens, for ever.
///
/// # Cancel safety
/// Nothing is lost by dropping it.
pub(super) async fn tell(actors: &ActorSystem, counts: &Counts, mut tell: impl FnMut(&str)) {
    let timeline = actors.timeline();
    let begin_us = actors.clock().wall_us();
    let mut seen = timeline.last();
    loop {
        timeline.changed(seen).await;
        tokio::time::sleep(PAUSE).await;
        let page = timeline.since(seen, PAGE);
        seen = page.next;
        let mut left = LINES;
        let mut more = 0;
        for event in &page.events {
            let Some(word) = word(event) else { continue };
            match word {
                "healed" => counts.healed.fetch_add(1, Ordering::Relaxed),
                "broke " => counts.broke.fetch_add(1, Ordering::Relaxed),
                _ => 0,
            };
            if left == 0 {
                more += 1;
                continue;
            }
            left -= 1;
            let after_ms = u64::try_from((event.at_us - begin_us) / 1_000).unwrap_or_default();
            let (seconds, millis) = (after_ms / 1_000, after_ms % 1_000);
            let text = timeline.lineage(event.seq).map(|lineage| lineage.text);
            let text = text.unwrap_or_else(|| event.to_string());
            tell(&format!("{seconds:>5}.{millis:03} s  {word}  {text}\n"));
        }
        if more > 0 {
            tell(&format!("{:>13}and {more} more\n", ""));
        }
        if let Some(missed) = page.missed {
            tell(&format!("{:>13}{} to {} came too fast\n", "", missed.from, missed.to));
        }
    }
}
