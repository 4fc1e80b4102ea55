//! What is shown of a follower. It lives longer than the follower's lives: those who wait for a
//! place wait through restarts, and on a node that stands by they see the owner's.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;
use tokio::sync::watch;

use crate::event::Position;
use crate::store::claims::Place;

/// How a follower stands.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[non_exhaustive]
pub struct Standing {
    /// Everything up to here is settled. On a node that stands by it is what the owner wrote last,
    /// at most some seconds old.
    pub position: Position,
    /// Another node has the claim.
    pub standby: bool,
    /// That node; empty if it is this one.
    pub owner: Arc<str>,
    /// Nothing is done until it is resumed.
    pub paused: bool,
    /// Why it does not go on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trouble: Option<Arc<str>>,
    started: bool,
}

/// What is shown of a follower, over its lives: those who wait for its place wait through restarts,
/// and on a node that stands by they see the owner's.
#[derive(Debug, Default)]
pub struct Shown {
    standing: watch::Sender<Standing>,
    turns: AtomicU64,
}

impl Shown {
    /// How it stands.
    #[must_use]
    pub fn standing(&self) -> Standing {
        self.standing.borrow().clone()
    }

    /// Everything up to here is settled.
    #[must_use]
    pub fn position(&self) -> Position {
        self.standing.borrow().position
    }

    /// Waits until everything up to a position is settled, on whichever node.
    ///
    /// # Cancel safety
    /// Dropping the call loses nothing.
    pub async fn wait_for(&self, position: Position) {
        // The sender lives as long as this.
        let _ =
            self.standing.subscribe().wait_for(|one| one.started && one.position >= position).await;
    }

    /// In one line, for a tree.
    #[must_use]
    pub fn line(&self, head: Position) -> String {
        let Standing { position, standby, paused, trouble, .. } = &*self.standing.borrow();
        if *standby {
            return "standby: another node has it".to_owned();
        }
        let pending = head.get().saturating_sub(position.get());
        let paused = if *paused { "paused   " } else { "" };
        match trouble {
            Some(trouble) => format!("{paused}{pending} pending   {trouble}"),
            None => format!("{paused}{pending} pending"),
        }
    }

    /// Unique over lives: what one of them has left in a mailbox is none of the next one's.
    pub(super) fn next_turn(&self) -> u64 {
        self.turns.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// The place of an earlier life in this process.
    pub(super) fn started(&self) -> Option<Position> {
        let standing = self.standing.borrow();
        standing.started.then_some(standing.position)
    }

    pub(super) fn stands_by(&self, place: &Place) {
        self.standing.send_if_modified(|one| {
            let now = Standing {
                position: place.position,
                standby: true,
                owner: Arc::clone(&place.owner),
                paused: place.paused,
                trouble: None,
                started: true,
            };
            let changed = *one != now;
            *one = now;
            changed
        });
    }

    pub(super) fn follows(&self, position: Position, paused: bool) {
        let started = true;
        self.standing.send_replace(Standing { position, paused, started, ..Standing::default() });
    }

    pub(super) fn moved(&self, position: Position) {
        self.standing.send_modify(|one| one.position = position);
    }

    pub(super) fn pauses(&self, paused: bool) {
        self.standing.send_modify(|one| one.paused = paused);
    }

    /// It does not go on, and says why until it reads again, or begins anew.
    pub(crate) fn stands_still(&self, reason: String) {
        let changed = self.standing.send_if_modified(|one| {
            let changed = one.trouble.as_deref() != Some(&reason);
            if changed {
                one.trouble = Some(reason.as_str().into());
            }
            changed
        });
        if changed {
            tracing::error!(reason, "a follower stands still");
        }
    }

    pub(super) fn reads(&self) {
        self.standing.send_if_modified(|one| one.trouble.take().is_some());
    }
}
