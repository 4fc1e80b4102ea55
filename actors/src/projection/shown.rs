//! What is shown of a partition. It outlives the lives of its actor: whoever waits, waits through
//! restarts, and on a node that stands by sees how far the other one is.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::event::Position;
use crate::store::follow;

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct Shown {
    /// How far the documents that are read are.
    done: watch::Sender<Position>,
    how: Mutex<How>,
}

impl How {
    fn standby(&self) -> Option<String> {
        let has_another = |shown: &Arc<follow::Shown>| shown.standing().standby;
        let another = self.followers[0].as_ref().is_some_and(has_another);
        let text = || another.then(|| "standby: another node has it".to_owned());
        self.standby.clone().or_else(text)
    }

    fn trouble(&self) -> Option<String> {
        let standing = self.followers.iter().flatten().map(|shown| shown.standing());
        let trouble = || standing.filter_map(|one| one.trouble).next().map(|why| why.to_string());
        self.trouble.clone().or_else(trouble)
    }
}

/// How a partition lives.
#[derive(Debug, Clone, Default)]
pub(super) struct How {
    /// Why this node does not write what is read, and would not if the claim was to be had.
    pub(super) standby: Option<String>,
    /// Those who follow the log for the build that is read, and for the one that is made.
    pub(super) followers: [Option<Arc<follow::Shown>>; 2],
    /// How far the build is that this node makes.
    pub(super) building: Option<Position>,
    /// Documents that stand still.
    pub(super) parked: usize,
    /// Nothing is applied until it is resumed.
    pub(super) paused: bool,
    /// Why something does not go on.
    pub(super) trouble: Option<String>,
}

impl Shown {
    pub(super) fn done(&self) -> Position {
        *self.done.borrow()
    }

    pub(super) fn is_done(&self, position: Position) {
        self.done.send_if_modified(|done| std::mem::replace(done, position) != position);
    }

    /// Whether somebody waits for it.
    pub(super) fn is_awaited(&self) -> bool {
        self.done.receiver_count() > 0
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<Position> {
        self.done.subscribe()
    }

    fn how(&self) -> MutexGuard<'_, How> {
        self.how.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn show(&self, how: How) {
        *self.how() = how;
    }

    pub(super) fn trouble(&self) -> Option<String> {
        let how = self.how();
        how.trouble().or_else(|| how.standby())
    }

    /// In one line, for a tree.
    pub(super) fn line(&self, head: Position) -> String {
        let how = self.how().clone();
        let (standby, trouble) = (how.standby(), how.trouble());
        let How { building, parked, paused, .. } = how;
        let mut text = match standby {
            Some(standby) => standby,
            None => {
                let done = self.done();
                format!("position {done}   lag {}", head.get().saturating_sub(done.get()))
            }
        };
        if let Some(at) = building {
            text.push_str(&format!("   rebuilding at {at}"));
        }
        if parked > 0 {
            text.push_str(&format!("   {parked} parked"));
        }
        if paused {
            text.push_str("   paused");
        }
        if let Some(trouble) = trouble {
            text.push_str(&format!("   {trouble}"));
        }
        text
    }
}
