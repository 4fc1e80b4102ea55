//! What comes next: events, or what somebody has asked for.

use tokio::sync::watch;
use tokio::time::sleep;

use super::place::parked;
use super::{AGAIN, Cursor, Follower, LOOK_AGAIN, MOST_DEATHS, Page, Source, Step};
use crate::event::Position;
use crate::store::claims::{ClaimError, Save};
use crate::store::{MatchingPage, StoreError};

/// Reads that find nothing although the log is said to be longer, before there is a pause.
const IN_VAIN: u32 = 3;

impl Follower {
    /// What comes after a cursor, at most so many events. With a limit of 0 nothing is read: what
    /// is asked for still comes.
    ///
    /// It waits while there is nothing, the follower is paused, or another has the claim.
    ///
    /// # Errors
    /// The claim is lost, or the store failed.
    ///
    /// # Cancel safety
    /// Dropping the call loses nothing: the cursor is the caller's.
    pub async fn next(&self, cursor: Cursor, limit: usize) -> Result<Step, ClaimError> {
        let mut changes = self.0.changed.subscribe();
        let mut in_vain = 0;
        loop {
            changes.mark_unchanged();
            if let Some(step) = self.news(cursor) {
                return Ok(step);
            }
            if !self.may_read(cursor, limit) {
                wait(&mut changes).await;
                continue;
            }
            let mut head = self.0.head.clone();
            if cursor.read && *head.borrow() <= cursor.at {
                // What is behind the last page is announced when it is there.
                wait_or(&mut changes, grown(&mut head, cursor.at)).await;
                continue;
            }
            self.assure().await?;
            let careful = self.is_careful();
            let page = match self.read(cursor.at, if careful { 1 } else { limit }).await {
                Ok(page) => page,
                Err(error @ StoreError::Archived { .. }) => {
                    self.0.shown.stands_still(error.to_string());
                    wait_or(&mut changes, sleep(LOOK_AGAIN)).await;
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            self.0.shown.reads();
            if page.scanned_to() <= cursor.at {
                // Once it is a commit that came meanwhile. More often the log is shorter than was
                // announced: a server that lost its last commits.
                in_vain += u32::from(*head.borrow() > cursor.at);
                match in_vain > IN_VAIN {
                    true => wait_or(&mut changes, sleep(AGAIN)).await,
                    false => wait_or(&mut changes, grown(&mut head, cursor.at)).await,
                }
                continue;
            }
            let cursor = Cursor { at: page.scanned_to(), read: true, ..cursor };
            return self.hand_out(page, cursor, careful).await;
        }
    }

    /// What the user does not know yet.
    fn news(&self, cursor: Cursor) -> Option<Step> {
        let state = self.state();
        if state.turn == 0 {
            return None;
        }
        if state.turn != cursor.turn {
            let cursor = Cursor { turn: state.turn, at: state.settled, ..Cursor::default() };
            return Some(Step::Begin(cursor));
        }
        let paused = state.paused;
        (paused != cursor.paused).then_some(Step::Paused(paused, Cursor { paused, ..cursor }))
    }

    fn may_read(&self, cursor: Cursor, limit: usize) -> bool {
        let state = self.state();
        let held = state.turn > 0 && (state.fence.is_some() || !self.0.follow.claimed);
        let alone = state.careful == 0 || state.settled >= cursor.at;
        held && alone && !state.paused && limit > 0
    }

    /// Whether events come one at a time, because owners have died here.
    #[must_use]
    pub fn is_careful(&self) -> bool {
        self.state().careful > 0
    }

    /// Whether nothing is to be begun. [`next`](Self::next) says when that changes; this is for
    /// what it has handed out before.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.state().paused
    }

    /// The one place where followers read the log.
    async fn read(&self, after: Position, limit: usize) -> Result<Page, StoreError> {
        let (Source { store, .. }, follow) = (&self.0.source, &self.0.follow);
        let read = async {
            if !follow.filter.is_all() {
                return store.read_matching(&follow.filter, after, limit).await;
            }
            let events = store.read_all(after, limit).await?;
            let scanned_to = events.last().map_or(after, |event| event.position);
            Ok(MatchingPage { events, scanned_to })
        };
        match &follow.pages {
            Some(pages) => pages.read(after, limit, read).await,
            None => Ok(read.await?.into()),
        }
    }

    async fn hand_out(
        &self,
        mut page: Page,
        cursor: Cursor,
        careful: bool,
    ) -> Result<Step, ClaimError> {
        let skipped: Vec<Position> = {
            let state = self.state();
            let skips = &state.skips;
            let positions = page.iter().map(|event| event.position);
            positions.filter(|at| !skips.is_empty() && skips.contains_key(at)).collect()
        };
        if !skipped.is_empty() {
            page = page.without(&skipped);
            tracing::warn!(follower = &*self.0.follow.name, ?skipped, "left out, as was asked");
            let notes = skipped.into_iter().map(|at| parked(at, "left out, as was asked"));
            self.put(cursor, None, notes.collect(), true).await?;
        }
        let Some(event) = page.first().filter(|_| careful) else {
            return Ok(Step::Page(page, cursor));
        };
        let (position, deaths) = {
            let state = self.state();
            (event.position, if state.trying == event.position { state.tries } else { 0 })
        };
        if deaths >= MOST_DEATHS {
            return Ok(Step::Poison(Box::new(event.clone()), deaths, cursor));
        }
        {
            let _saving = self.0.saving.lock().await;
            let save = self.place_of(&self.state());
            self.write(Save { trying: Some(position), durable: true, ..save }).await?;
        }
        self.change(|state| {
            state.careful = state.careful.saturating_sub(1);
            (state.trying, state.tries) = (position, deaths);
        });
        Ok(Step::Page(page, cursor))
    }
}

async fn grown(head: &mut watch::Receiver<Position>, after: Position) {
    let ended = head.wait_for(|head| *head > after).await.is_err();
    if ended {
        // The node is ending.
        std::future::pending::<()>().await;
    }
}

/// Waits for a change of the follower, or for something else.
async fn wait_or(changes: &mut watch::Receiver<u64>, other: impl Future<Output = ()>) {
    tokio::select! {
        biased;
        () = wait(changes) => {}
        () = other => {}
    }
}

async fn wait(changes: &mut watch::Receiver<u64>) {
    if changes.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}
